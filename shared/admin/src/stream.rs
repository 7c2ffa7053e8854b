//! Server-sent events: the changing part of a page, once a second, while somebody watches.
//!
//! All watchers of one page share one rendering. Each has one slot that the next rendering overwrites, so a slow browser
//! costs no memory. When the last one goes, the clock stops.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix_web::rt::task::JoinHandle;
use actix_web::web::{Bytes, Data};
use actix_web::{HttpRequest, HttpResponse, rt};
use futures_util::stream::unfold;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::server::Shared;

/// Browsers, or tabs of them, that may watch at once.
pub const WATCHERS_MAX: usize = 16;
/// Time between two renderings.
const EVERY: Duration = Duration::from_secs(1);
/// Shortest time between two renderings, however much happens.
const AT_MOST_EVERY: Duration = Duration::from_millis(200);

/// What is watched.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Topic {
    Overview,
    Actor(String),
}

/// Who watches what.
#[derive(Default)]
pub(crate) struct Watchers(Mutex<State>);

#[derive(Default)]
struct State {
    topics: HashMap<Topic, watch::Sender<Bytes>>,
    clock: Option<JoinHandle<()>>,
}

impl State {
    fn count(&self) -> usize {
        self.topics.values().map(watch::Sender::receiver_count).sum()
    }
}

/// `GET /api/stream`, `GET /api/stream?actor=<name>`
pub(crate) fn stream(shared: &Data<Shared>, request: &HttpRequest) -> HttpResponse {
    let actor = crate::api::pairs(request.query_string()).into_iter().find(|(key, _)| key == "actor");
    let topic = actor.map_or(Topic::Overview, |(_, name)| Topic::Actor(name));
    let Some(first) = render(shared, &topic) else {
        return crate::api::error(actix_web::http::StatusCode::NOT_FOUND, "no actor of this name: see /api/actors");
    };
    let Some(watching) = join(shared, topic, first) else {
        return HttpResponse::ServiceUnavailable()
            .insert_header(("Retry-After", "5"))
            .json(crate::api::Failure { error: "16 browsers watch already: close one of them" });
    };
    let events = unfold(watching, |mut watching| async move {
        watching.changed().await.ok()?;
        let event = watching.borrow_and_update().clone();
        Some((Ok::<_, std::convert::Infallible>(event), watching))
    });
    HttpResponse::Ok().content_type("text/event-stream").insert_header(("X-Accel-Buffering", "no")).streaming(events)
}

fn join(shared: &Data<Shared>, topic: Topic, first: Bytes) -> Option<watch::Receiver<Bytes>> {
    let mut state = shared.watchers.0.lock().unwrap_or_else(PoisonError::into_inner);
    if state.count() >= WATCHERS_MAX {
        return None;
    }
    let sender = state.topics.entry(topic).or_insert_with(|| watch::Sender::new(Bytes::new()));
    let mut watching = sender.subscribe();
    sender.send_replace(first);
    watching.mark_changed();
    if state.clock.as_ref().is_none_or(JoinHandle::is_finished) {
        state.clock = Some(rt::spawn(tick(shared.clone().into_inner())));
    }
    Some(watching)
}

/// Renders what is watched, each second and when something happens, until nobody watches.
async fn tick(shared: Arc<Shared>) {
    let mut changes = shared.registry.changes();
    changes.mark_unchanged();
    loop {
        let start = Instant::now();
        rt::time::sleep(AT_MOST_EVERY).await;
        // Not an error when time is up: then it is time for the next one.
        let _ = timeout_at(start + EVERY, changes.changed()).await;
        let topics: Vec<Topic> = {
            let mut state = shared.watchers.0.lock().unwrap_or_else(PoisonError::into_inner);
            state.topics.retain(|_, sender| sender.receiver_count() > 0);
            if state.topics.is_empty() {
                state.clock = None;
                return;
            }
            state.topics.keys().cloned().collect()
        };
        for topic in topics {
            let rendered = render(&shared, &topic);
            let mut state = shared.watchers.0.lock().unwrap_or_else(PoisonError::into_inner);
            match (rendered, state.topics.get(&topic)) {
                (Some(event), Some(sender)) => {
                    sender.send_replace(event);
                }
                // The actor was removed: its watchers are told to go by the end of the stream.
                (None, _) => {
                    state.topics.remove(&topic);
                }
                (Some(_), None) => {}
            }
        }
    }
}

fn render(shared: &Shared, topic: &Topic) -> Option<Bytes> {
    let html = match topic {
        Topic::Overview => Some(shared.live_overview()),
        Topic::Actor(name) => shared.live_actor(name),
    }?;
    Some(event(&html))
}

/// An event of the stream (HTML standard, "server-sent events"): each line of the text is one of its lines.
fn event(text: &str) -> Bytes {
    let mut event = String::with_capacity(text.len() + 64);
    // A lone carriage return would end a line there, too.
    for line in text.split(['\n', '\r']) {
        event.push_str("data: ");
        event.push_str(line);
        event.push('\n');
    }
    event.push('\n');
    Bytes::from(event)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_can_end_an_event_early_or_begin_another_one() {
        assert_eq!(event("a\r\nevent: x\n\ndata: y\rz"), "data: a\ndata: \ndata: event: x\ndata: \ndata: data: y\ndata: z\n\n");
    }
}
