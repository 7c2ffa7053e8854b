//! Watches: a stream of events from a version on, or from the current state.

use std::collections::VecDeque;
use std::pin::Pin;
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::http::header::ContentType;
use bytes::Bytes;
use futures_util::{Stream, stream};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::history::{Change, Event, Gone};
use super::list::{self, Listing};
use super::request::Query;
use super::status_error::StatusError;
use super::store::Store;

/// Between two bookmarks while nothing happens.
const BOOKMARK_PERIOD: Duration = Duration::from_secs(60);
/// How long a watch lasts when the client does not say: something between this and twice this.
const LASTS: Duration = Duration::from_secs(1800);
/// The longest that a client can ask for.
const LASTS_MAX: Duration = Duration::from_secs(24 * 3600);
/// Events per chunk; a slow client holds no more than this beside the history.
const CHUNK_EVENTS: usize = 100;
/// Objects per page of the state that a watch without version begins with.
const PAGE: usize = 100;

/// Answers a watch request.
///
/// # Errors
/// 410 when the version asked for is not in the history any more, 400 when it is not a number.
pub async fn answer(store: Store, listing: Listing, query: &Query, stopped: watch::Receiver<bool>) -> Result<HttpResponse, StatusError> {
    let asked = query.number("resourceVersion")?.filter(|version| *version > 0);
    let initial = query.flag("sendInitialEvents");
    if initial && query.get("resourceVersionMatch") != "NotOlderThan" {
        let message = "sendInitialEvents: Forbidden: resourceVersionMatch=NotOlderThan is required with it";
        return Err(StatusError::unprocessable(message));
    }
    let revision = store.read_async(|snapshot| snapshot.revision()).await?;
    let (cursor, state) = match asked {
        Some(version) if !initial => (version, false),
        _ => (revision, true),
    };
    let gone = |gone: Gone| StatusError::expired(gone.asked, gone.floor);
    store.history().after(cursor, None, 0).map_err(gone)?;
    if cursor > revision {
        // From another life of this database: only a new list helps.
        return Err(StatusError::expired(cursor, revision));
    }
    let seconds = query.number("timeoutSeconds")?.and_then(|seconds| u64::try_from(seconds).ok()).filter(|seconds| *seconds > 0);
    let lasts = seconds.map_or_else(|| LASTS + LASTS.mul_f64(rand::random()), |seconds| Duration::from_secs(seconds).min(LASTS_MAX));
    let changed = store.history().subscribe();
    let watcher = Watcher {
        store,
        listing,
        cursor,
        state: state.then_some(State { after: None, announce_end: initial }),
        bookmarks: query.flag("allowWatchBookmarks"),
        columns_sent: false,
        next_bookmark: Instant::now() + BOOKMARK_PERIOD,
        ends: Instant::now() + lasts,
        changed,
        stopped,
        pending: VecDeque::new(),
        finished: false,
    };
    Ok(HttpResponse::Ok().content_type(ContentType::json()).streaming(watcher.into_stream()))
}

/// The current state that is still to be sent before the events.
struct State {
    after: Option<(String, String)>,
    /// Whether a bookmark says that the state is complete (`sendInitialEvents`).
    announce_end: bool,
}

struct Watcher {
    store: Store,
    listing: Listing,
    cursor: i64,
    state: Option<State>,
    bookmarks: bool,
    columns_sent: bool,
    next_bookmark: Instant,
    ends: Instant,
    changed: watch::Receiver<i64>,
    stopped: watch::Receiver<bool>,
    pending: VecDeque<Bytes>,
    finished: bool,
}

type Chunks = Pin<Box<dyn Stream<Item = Result<Bytes, StatusError>>>>;

impl Watcher {
    fn into_stream(self) -> Chunks {
        Box::pin(stream::unfold(self, |mut watcher| async move {
            let chunk = watcher.next().await?;
            Some((Ok(chunk), watcher))
        }))
    }

    /// The next chunk, or `None` at the end of the watch.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(chunk) = self.pending.pop_front() {
                return Some(chunk);
            }
            if self.finished || *self.stopped.borrow() {
                return None;
            }
            if self.state.is_some() {
                self.send_state().await;
                continue;
            }
            // Seen before reading, so that an event between reading and waiting is not slept over.
            self.changed.borrow_and_update();
            self.send_events();
            if self.pending.is_empty() && !self.finished {
                self.wait().await;
            }
        }
    }

    async fn send_state(&mut self) {
        let Some(state) = self.state.take() else { return };
        let page = list::page(&self.store, &self.listing, state.after, PAGE).await;
        let texts = page.and_then(|page| {
            let next = page.next.clone();
            Ok((next, list::selected(&self.listing, page)?))
        });
        match texts {
            Ok((next, texts)) => {
                let lines: String = texts.iter().map(|text| self.line("ADDED", text)).collect();
                if !lines.is_empty() {
                    self.pending.push_back(Bytes::from(lines));
                }
                match next {
                    Some(after) => self.state = Some(State { after: Some(after), ..state }),
                    None if state.announce_end => self.bookmark(true),
                    None => {}
                }
            }
            Err(error) => self.fail(&StatusError::from(error)),
        }
    }

    fn send_events(&mut self) {
        match self.store.history().after(self.cursor, Some(self.listing.kind), CHUNK_EVENTS) {
            Ok((events, upto)) => {
                let lines: String = events.iter().filter_map(|event| self.event(event)).collect();
                self.cursor = upto;
                if !lines.is_empty() {
                    self.pending.push_back(Bytes::from(lines));
                }
            }
            // Too slow: what it should see next is no longer there.
            Err(gone) => self.fail(&StatusError::expired(gone.asked, gone.floor)),
        }
    }

    /// An event as this watch sees it: an object can enter or leave the selection.
    fn event(&mut self, event: &Event) -> Option<String> {
        if !self.listing.namespace.is_empty() && event.namespace != self.listing.namespace {
            return None;
        }
        let selector = &self.listing.selector;
        let now = event.change != Change::Deleted && selector.matches(&event.traits);
        let before = event.previous.as_ref().is_some_and(|previous| selector.matches(previous));
        let kind = match (before, now) {
            (false, true) => "ADDED",
            (true, true) => "MODIFIED",
            (true, false) => "DELETED",
            (false, false) => return None,
        };
        Some(self.line(kind, &event.body))
    }

    fn line(&mut self, event: &str, text: &str) -> String {
        let columns = !std::mem::replace(&mut self.columns_sent, true);
        let object = self.listing.form.single(self.listing.kind, text, columns, jiff::Timestamp::now());
        format!("{{\"type\":\"{event}\",\"object\":{object}}}\n")
    }

    fn bookmark(&mut self, end_of_state: bool) {
        let kind = self.listing.kind;
        let mut metadata = json!({"resourceVersion": self.cursor.to_string(), "creationTimestamp": null});
        if end_of_state {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object: Value = match self.listing.form {
            super::form::Form::Table(_) => super::table::table(&metadata, None, Vec::new()),
            _ => json!({"kind": kind.kind, "apiVersion": kind.api_version(), "metadata": metadata}),
        };
        self.pending.push_back(Bytes::from(format!("{}\n", json!({"type": "BOOKMARK", "object": object}))));
        self.next_bookmark = Instant::now() + BOOKMARK_PERIOD;
    }

    fn fail(&mut self, error: &StatusError) {
        self.pending.push_back(Bytes::from(format!("{}\n", json!({"type": "ERROR", "object": error.to_json()}))));
        self.finished = true;
    }

    async fn wait(&mut self) {
        let wake = if self.bookmarks { self.ends.min(self.next_bookmark) } else { self.ends };
        let woken = tokio::select! {
            changed = self.changed.changed() => if changed.is_ok() { Woken::Changed } else { Woken::Ended },
            // An error means that the API is being torn down: the watch ends all the same.
            _ = self.stopped.wait_for(|stopped| *stopped) => Woken::Ended,
            () = sleep_until(wake) => Woken::Timer,
        };
        match woken {
            Woken::Changed => {}
            Woken::Ended => self.finished = true,
            Woken::Timer => {
                if self.bookmarks {
                    self.bookmark(false);
                }
                self.finished = Instant::now() >= self.ends;
            }
        }
    }
}

enum Woken {
    Changed,
    Ended,
    Timer,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::embedded::form::Form;
    use crate::embedded::kind;
    use crate::embedded::object::Object;
    use crate::embedded::selector::Selector;
    use crate::embedded::store::Key;

    fn watcher(store: &Store, stopped: watch::Receiver<bool>) -> Watcher {
        let listing = Listing { kind: &kind::CONFIG_MAPS, namespace: String::new(), selector: Selector::default(), form: Form::Json };
        Watcher {
            cursor: store.read(|snapshot| snapshot.revision()).unwrap(),
            listing,
            state: None,
            bookmarks: true,
            columns_sent: false,
            next_bookmark: Instant::now() + BOOKMARK_PERIOD,
            ends: Instant::now() + LASTS,
            changed: store.history().subscribe(),
            stopped,
            pending: VecDeque::new(),
            finished: false,
            store: store.clone(),
        }
    }

    async fn put(store: &Store, count: usize) {
        for index in 0..count {
            let name = format!("x{index}-{}", uuid::Uuid::new_v4());
            let object = Object::new(json!({"metadata": {"name": name, "uid": name}})).unwrap();
            let key = Key::new(&kind::CONFIG_MAPS, "default", &name);
            store.write(move |tx| tx.put(&key, object.clone(), None)).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_watch_that_is_too_slow_is_told_so_and_ends() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open_with_history(&folder.path().join("cloud.db"), 4, 1 << 20).unwrap();
        let (_running, stopped) = watch::channel(false);
        let mut slow = watcher(&store, stopped);
        put(&store, 3).await;
        let seen = slow.next().await.unwrap();
        assert_eq!(seen.iter().filter(|byte| **byte == b'\n').count(), 3);
        put(&store, 10).await;
        let last: Value = serde_json::from_slice(&slow.next().await.unwrap()).unwrap();
        assert_eq!((last["type"].as_str(), last["object"]["code"].as_i64()), (Some("ERROR"), Some(410)));
        assert!(slow.next().await.is_none());
    }

    #[tokio::test]
    async fn a_watch_ends_when_the_api_stops() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("cloud.db")).unwrap();
        let (running, stopped) = watch::channel(false);
        let mut waiting = watcher(&store, stopped);
        let (end, ()) = tokio::join!(waiting.next(), async {
            running.send_replace(true);
        });
        assert!(end.is_none());
    }

    #[tokio::test]
    async fn a_quiet_watch_gets_bookmarks() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("cloud.db")).unwrap();
        let (_running, stopped) = watch::channel(false);
        let mut quiet = watcher(&store, stopped);
        quiet.next_bookmark = Instant::now();
        let mark: Value = serde_json::from_slice(&quiet.next().await.unwrap()).unwrap();
        assert_eq!(mark["type"], "BOOKMARK");
        assert_eq!(mark["object"]["metadata"]["resourceVersion"], "1");
    }
}
