//! The pages, and the one address to which their forms go. Works without scripts: an action answers 303, and the page says
//! what was done.

use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::http::header;
use actix_web::web::{Data, Form, Path, Query};
use actor::{Drill, EventKind};
use serde::Deserialize;

use crate::actions::{self, Action, ActionError, act};
use crate::page::{self, Scene, encoded};
use crate::server::Shared;

/// Longest body of a form, in bytes.
pub(crate) const FORM_BYTES_MAX: usize = 4096;

/// Which event of the diary the page should name; only what the diary has can be shown.
#[derive(Deserialize)]
pub(crate) struct Shown {
    did: Option<u64>,
}

/// `GET /`
pub(crate) async fn index(shared: Data<Shared>, shown: Query<Shown>) -> HttpResponse {
    let scene = Scene::of(&shared.registry);
    let (notice, filter) = (notice(&shared, shown.did), shared.log_filter());
    html(HttpResponse::Ok().body(page::overview(shared.frame(notice.as_deref(), filter.as_deref()), &scene)))
}

/// `GET /actors/{name}`
pub(crate) async fn one_actor(shared: Data<Shared>, name: Path<String>, shown: Query<Shown>) -> HttpResponse {
    let (notice, filter) = (notice(&shared, shown.did), shared.log_filter());
    let frame = shared.frame(notice.as_deref(), filter.as_deref());
    match shared.extra(&name).and_then(|extra| page::one_actor(frame, &Scene::of(&shared.registry), &name, &extra)) {
        Some(text) => html(HttpResponse::Ok().body(text)),
        None => html(HttpResponse::NotFound().body(page::sentence(frame, "No actor of this name is there."))),
    }
}

/// A form of ours.
#[derive(Deserialize)]
pub(crate) struct Sent {
    #[serde(default)]
    token: String,
    act: String,
    #[serde(default)]
    of: String,
    #[serde(default)]
    value: String,
}

/// `POST /act`
pub(crate) async fn submit(shared: Data<Shared>, sent: Form<Sent>) -> HttpResponse {
    let sent = sent.into_inner();
    if !shared.gate.is_form_token(&sent.token) {
        let why = "This form is from before the last start of the daemon, or from elsewhere: go back, reload the page, and try again.";
        return html(HttpResponse::Forbidden().body(page::sentence(shared.frame(None, None), why)));
    }
    let done = match action(sent) {
        Ok(action) => act(&shared, action).await,
        Err(why) => Err(why),
    };
    match done {
        Ok(done) => {
            let home = if shared.registry.views().iter().any(|v| v.name == done.actor) {
                format!("/actors/{}", encoded(&done.actor))
            } else {
                "/".to_owned()
            };
            let events = shared.registry.events();
            let noted =
                events.iter().rev().find(|e| e.kind == EventKind::Operator && e.actor == done.actor && e.text == done.what).map_or(0, |e| e.seq);
            HttpResponse::SeeOther().insert_header((header::LOCATION, format!("{home}?did={noted}"))).finish()
        }
        Err(why) => html(HttpResponse::build(why.status()).body(page::sentence(shared.frame(None, None), &format!("Not done: {why}.")))),
    }
}

fn action(sent: Sent) -> Result<Action, ActionError> {
    let Sent { token: _, act, of, value } = sent;
    let number = || value.trim().parse::<u32>().map_err(|_| ActionError::Malformed("the field needs a whole number".to_owned()));
    Ok(match act.as_str() {
        "restart" => Action::Restart(of),
        "retry" => Action::Retry(actions::message_id(&of)?),
        "drop" => Action::Drop(actions::message_id(&of)?),
        "log-level" => Action::LogLevel(value),
        "panic" => Action::Drill(of, Drill::Panic),
        "panic-in-hand" => Action::Drill(of, Drill::PanicInHand(number()?)),
        "hang" => Action::Drill(of, Drill::Hang(Duration::from_secs(number()?.into()))),
        "slow" => Action::Drill(of, Drill::Slow(Duration::from_millis(number()?.into()))),
        _ => return Err(ActionError::Malformed("the page has no such button".to_owned())),
    })
}

fn notice(shared: &Shared, did: Option<u64>) -> Option<String> {
    let did = did?;
    let event = shared.registry.events().into_iter().find(|event| event.seq == did && event.kind == EventKind::Operator)?;
    Some(format!("Done. {}: {}.", event.actor, event.text))
}

fn html(mut answer: HttpResponse) -> HttpResponse {
    answer.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/html; charset=utf-8"));
    if let Ok(policy) = header::HeaderValue::from_str(&page::POLICY) {
        answer.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    answer
}
