//! The JSON API; `openapi.json` describes it, and a test holds the two together.

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header;
use actix_web::web::{self, Bytes, Data};
use actix_web::{Error, HttpMessage as _, HttpRequest, HttpResponse, Route};
use actor::Drill;
use serde::{Deserialize, Serialize};

use crate::access::{Admitted, check_action_header};
use crate::actions::{self, Action, ActionError, act};
use crate::health::{self, Asked, Probe};
use crate::metrics;
use crate::server::{Shared, refused};
use crate::view::{HealthView, Kept, Status};

/// Longest body of a call or a form, in bytes.
pub(crate) const BODY_BYTES_MAX: usize = 4096;

const OPENAPI: &str = include_str!("openapi.json");

#[derive(Serialize)]
pub(crate) struct Failure<'a> {
    pub(crate) error: &'a str,
}

#[derive(Serialize)]
struct Success {
    actor: String,
    done: String,
}

/// What answers a `GET`.
pub(crate) type Read = fn(&Data<Shared>, &HttpRequest) -> HttpResponse;
/// What reads an action out of a call.
type Parse = fn(&HttpRequest, &[u8]) -> Result<Action, ActionError>;

/// A route that reads. All are one type: actix-web would compile its whole path through extractors and futures again
/// for each handler, 3.5 KB a piece.
pub(crate) fn reads(read: Read) -> Route {
    web::get().to(move |shared: Data<Shared>, request: HttpRequest| std::future::ready(read(&shared, &request)))
}

/// A route that changes something, by its method.
fn changes(route: Route, parse: Parse) -> Route {
    route.to(move |shared: Data<Shared>, request: HttpRequest, body: Result<Bytes, Error>| async move {
        if let Err(refusal) = check_action_header(&request) {
            return refused(refusal);
        }
        let body = match body {
            Ok(body) => body,
            Err(why) => return error(why.as_response_error().status_code(), &why.to_string()),
        };
        let done = match parse(&request, &body) {
            Ok(action) => act(&shared, action).await,
            Err(why) => Err(why),
        };
        match done {
            Ok(done) => HttpResponse::Ok().json(Success { actor: done.actor, done: done.what }),
            Err(why) => error(why.status(), &why.to_string()),
        }
    })
}

/// Every path of the API, and `/metrics` and the health endpoints beside it.
pub(crate) fn routes(app: &mut web::ServiceConfig) {
    app.route("/api/status", reads(status))
        .route("/api/health", reads(health))
        .route("/api/supervisors", reads(supervisors))
        .route("/api/actors", reads(actors))
        .route("/api/actors/{name}", reads(one_actor))
        .route("/api/actors/{name}/restart", changes(web::post(), |request, _| Ok(Action::Restart(segment(request)?))))
        .route("/api/events", reads(events))
        .route("/api/stream", reads(crate::stream::stream))
        .route("/api/quarantine", reads(quarantine))
        .route("/api/quarantine/{id}", changes(web::delete(), |request, _| Ok(Action::Drop(actions::message_id(&segment(request)?)?))))
        .route("/api/quarantine/{id}/retry", changes(web::post(), |request, _| Ok(Action::Retry(actions::message_id(&segment(request)?)?))))
        .service(web::resource("/api/log-level").route(reads(log_level)).route(changes(web::put(), set_log_level)))
        .route("/api/openapi.json", reads(openapi))
        .route("/metrics", reads(metrics_text))
        .route("/debug/actors/{name}/panic", changes(web::post(), drill_panic))
        .route("/debug/actors/{name}/hang", changes(web::post(), drill_hang))
        .route("/debug/actors/{name}/slow", changes(web::post(), drill_slow));
    let probes: [(&str, Read, Read); 3] = [
        ("/healthz", |shared, request| probed(Probe::Health, shared, request), |shared, request| one_check(Probe::Health, shared, request)),
        ("/livez", |shared, request| probed(Probe::Live, shared, request), |shared, request| one_check(Probe::Live, shared, request)),
        ("/readyz", |shared, request| probed(Probe::Ready, shared, request), |shared, request| one_check(Probe::Ready, shared, request)),
    ];
    for (path, all, one) in probes {
        app.route(path, reads(all));
        app.route(&format!("{path}/{{check}}"), reads(one));
    }
}

/// An error in the API's form.
pub(crate) fn error(status: StatusCode, sentence: &str) -> HttpResponse {
    HttpResponse::build(status).json(Failure { error: sentence })
}

/// The variable segment of a path, decoded.
pub(crate) fn segment(request: &HttpRequest) -> Result<String, ActionError> {
    request.match_info().load().map_err(|_| ActionError::Malformed("the path is not UTF-8".to_owned()))
}

/// The pairs of a query or a form, decoded.
pub(crate) fn pairs(text: &str) -> Vec<(String, String)> {
    web::Query::from_query(text).map(web::Query::into_inner).unwrap_or_default()
}

/// The one number that a query may have, under its name.
fn number<T: std::str::FromStr>(request: &HttpRequest, name: &str) -> Result<Option<T>, ActionError> {
    match pairs(request.query_string()).as_slice() {
        [] if request.query_string().is_empty() => Ok(None),
        [(key, value)] if key == name => value.parse().map(Some).map_err(|_| ActionError::Malformed(format!("`{name}` needs a whole number"))),
        _ => Err(ActionError::Malformed(format!("the only parameter here is `{name}`, once"))),
    }
}

fn status(shared: &Data<Shared>, _: &HttpRequest) -> HttpResponse {
    HttpResponse::Ok().json(Status::of(&shared.config.title, &shared.registry))
}

fn health(shared: &Data<Shared>, _: &HttpRequest) -> HttpResponse {
    HttpResponse::Ok().json(HealthView::from(shared.registry.health()))
}

fn supervisors(shared: &Data<Shared>, _: &HttpRequest) -> HttpResponse {
    HttpResponse::Ok().json(shared.registry.trees())
}

fn actors(shared: &Data<Shared>, _: &HttpRequest) -> HttpResponse {
    HttpResponse::Ok().json(shared.registry.views())
}

fn one_actor(shared: &Data<Shared>, request: &HttpRequest) -> HttpResponse {
    match segment(request).ok().and_then(|name| shared.details(&name)) {
        Some(details) => HttpResponse::Ok().json(details),
        None => error(StatusCode::NOT_FOUND, "no actor of this name: see /api/actors"),
    }
}

fn events(shared: &Data<Shared>, request: &HttpRequest) -> HttpResponse {
    let after = match number(request, "after") {
        Ok(after) => after.unwrap_or(0_u64),
        Err(why) => return error(why.status(), &why.to_string()),
    };
    let mut events = shared.registry.events();
    events.retain(|event| event.seq > after);
    HttpResponse::Ok().json(events)
}

fn quarantine(shared: &Data<Shared>, _: &HttpRequest) -> HttpResponse {
    let kept: Vec<Kept> = shared.registry.quarantine().list().into_iter().map(Kept::from).collect();
    HttpResponse::Ok().json(kept)
}

fn openapi(_: &Data<Shared>, _: &HttpRequest) -> HttpResponse {
    HttpResponse::Ok().content_type(header::ContentType::json()).body(OPENAPI)
}

fn metrics_text(shared: &Data<Shared>, _: &HttpRequest) -> HttpResponse {
    let histogram = |name: &str| shared.details(name).map(|details| details.histogram).unwrap_or_default();
    let text = metrics::render(shared.config.prefix, &shared.registry, &shared.extra_figures(), histogram);
    HttpResponse::Ok().content_type("text/plain; version=0.0.4; charset=utf-8").body(text)
}

// ---- what changes something ------------------------------------------------------------------------------------------

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LogLevel {
    filter: String,
}

fn log_level(shared: &Data<Shared>, _: &HttpRequest) -> HttpResponse {
    match shared.log_filter() {
        Some(filter) => HttpResponse::Ok().json(LogLevel { filter }),
        None => error(StatusCode::NOT_FOUND, &ActionError::NoLog.to_string()),
    }
}

fn set_log_level(request: &HttpRequest, body: &[u8]) -> Result<Action, ActionError> {
    if request.content_type() != "application/json" {
        return Err(ActionError::Malformed("the body is JSON: say so with `Content-Type: application/json`".to_owned()));
    }
    let level: LogLevel = serde_json::from_slice(body).map_err(|why| ActionError::Malformed(why.to_string()))?;
    Ok(Action::LogLevel(level.filter))
}

fn drill_panic(request: &HttpRequest, _: &[u8]) -> Result<Action, ActionError> {
    let drill = number(request, "in-hand")?.map_or(Drill::Panic, Drill::PanicInHand);
    Ok(Action::Drill(segment(request)?, drill))
}

fn drill_hang(request: &HttpRequest, _: &[u8]) -> Result<Action, ActionError> {
    let seconds: u32 = number(request, "for")?.ok_or_else(|| ActionError::Malformed("for how many seconds? `?for=150`".to_owned()))?;
    Ok(Action::Drill(segment(request)?, Drill::Hang(Duration::from_secs(seconds.into()))))
}

fn drill_slow(request: &HttpRequest, _: &[u8]) -> Result<Action, ActionError> {
    let ms: u32 = number(request, "by")?.ok_or_else(|| ActionError::Malformed("by how many milliseconds? `?by=100`".to_owned()))?;
    Ok(Action::Drill(segment(request)?, Drill::Slow(Duration::from_millis(ms.into()))))
}

// ---- health ----------------------------------------------------------------------------------------------------------

fn probed(probe: Probe, shared: &Shared, request: &HttpRequest) -> HttpResponse {
    let pairs = pairs(request.query_string());
    let asked = Asked {
        verbose: pairs.iter().any(|(key, _)| key == "verbose"),
        exclude: pairs.into_iter().filter(|(key, _)| key == "exclude").map(|(_, name)| name).collect(),
        reasons: request.extensions().contains::<Admitted>(),
    };
    let (status, text) = health::report(probe, &shared.findings(probe), &asked);
    HttpResponse::build(status).content_type("text/plain; charset=utf-8").body(text)
}

fn one_check(probe: Probe, shared: &Shared, request: &HttpRequest) -> HttpResponse {
    let reasons = request.extensions().contains::<Admitted>();
    let found = segment(request).ok().and_then(|check| health::report_one(&shared.findings(probe), &check, reasons));
    let (status, text) = found.unwrap_or_else(|| (StatusCode::NOT_FOUND, "no check of this name: add ?verbose to see them\n".to_owned()));
    HttpResponse::build(status).content_type("text/plain; charset=utf-8").body(text)
}
