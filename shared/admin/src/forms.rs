//! The pages, and the one address to which their forms go. Works without scripts: an action answers 303, and the page says
//! what was done.

use std::time::Duration;

use actix_web::http::header;
use actix_web::web::{self, Bytes, Data};
use actix_web::{Error, HttpRequest, HttpResponse};
use actor::{Drill, EventKind};

use crate::actions::{self, Action, ActionError, act};
use crate::api::{pairs, reads, segment};
use crate::page::{self, Scene, encoded};
use crate::server::Shared;

/// The pages, and where their forms go.
pub(crate) fn routes(app: &mut web::ServiceConfig) {
    app.route("/", reads(index)).route("/actors/{name}", reads(one_actor)).route("/act", web::post().to(submit));
}

fn index(shared: &Data<Shared>, request: &HttpRequest) -> HttpResponse {
    let (notice, filter) = (notice(shared, request), shared.log_filter());
    html(HttpResponse::Ok().body(page::overview(shared.frame(notice.as_deref(), filter.as_deref()), &Scene::of(&shared.registry))))
}

fn one_actor(shared: &Data<Shared>, request: &HttpRequest) -> HttpResponse {
    let (notice, filter) = (notice(shared, request), shared.log_filter());
    let frame = shared.frame(notice.as_deref(), filter.as_deref());
    let text = segment(request)
        .ok()
        .and_then(|name| shared.extra(&name).and_then(|extra| page::one_actor(frame, &Scene::of(&shared.registry), &name, &extra)));
    match text {
        Some(text) => html(HttpResponse::Ok().body(text)),
        None => html(HttpResponse::NotFound().body(page::sentence(frame, "No actor of this name is there."))),
    }
}

/// A form of ours.
#[derive(Default)]
struct Sent {
    token: String,
    act: String,
    of: String,
    value: String,
}

impl Sent {
    /// Not by actix-web's own extractor: it brings the tables of every legacy character set, 200 KB.
    fn read(body: &[u8]) -> Option<Self> {
        let mut sent = Self::default();
        for (key, value) in pairs(std::str::from_utf8(body).ok()?) {
            match key.as_str() {
                "token" => sent.token = value,
                "act" => sent.act = value,
                "of" => sent.of = value,
                "value" => sent.value = value,
                _ => return None,
            }
        }
        Some(sent)
    }
}

/// `POST /act`
async fn submit(shared: Data<Shared>, body: Result<Bytes, Error>) -> HttpResponse {
    let sent = match body {
        Ok(body) => Sent::read(&body).unwrap_or_default(),
        Err(why) => {
            let said = page::sentence(shared.frame(None, None), &format!("Not done: {why}."));
            return html(HttpResponse::build(why.as_response_error().status_code()).body(said));
        }
    };
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

/// What the event of the diary says that `?did=` names; only what the diary has can be shown.
fn notice(shared: &Shared, request: &HttpRequest) -> Option<String> {
    let did: u64 = pairs(request.query_string()).into_iter().find(|(key, _)| key == "did")?.1.parse().ok()?;
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
