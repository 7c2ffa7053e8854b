//! The JSON API; `openapi.json` describes it, and a test holds the two together.

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header;
use actix_web::web::{self, Data, Json, Path, Query};
use actix_web::{HttpMessage as _, HttpRequest, HttpResponse};
use actor::Drill;
use serde::{Deserialize, Serialize};

use crate::access::{Admitted, check_action_header};
use crate::actions::{self, Action, ActionError, act};
use crate::health::{self, Asked, Probe};
use crate::metrics;
use crate::server::{Shared, refused};
use crate::view::{HealthView, Kept, Status};

/// Longest body of a call, in bytes.
pub(crate) const JSON_BYTES_MAX: usize = 1024;

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

/// Every path of the API, and `/metrics` and the health endpoints beside it.
pub(crate) fn routes(app: &mut web::ServiceConfig) {
    app.route("/api/status", web::get().to(status))
        .route("/api/health", web::get().to(health))
        .route("/api/supervisors", web::get().to(supervisors))
        .route("/api/actors", web::get().to(actors))
        .route("/api/actors/{name}", web::get().to(one_actor))
        .route("/api/actors/{name}/restart", web::post().to(restart))
        .route("/api/events", web::get().to(events))
        .route("/api/stream", web::get().to(crate::stream::stream))
        .route("/api/quarantine", web::get().to(quarantine))
        .route("/api/quarantine/{id}", web::delete().to(drop_message))
        .route("/api/quarantine/{id}/retry", web::post().to(retry))
        .service(web::resource("/api/log-level").route(web::get().to(log_level)).route(web::put().to(set_log_level)))
        .route("/api/openapi.json", web::get().to(openapi))
        .route("/metrics", web::get().to(metrics_text))
        .route("/debug/actors/{name}/panic", web::post().to(drill_panic))
        .route("/debug/actors/{name}/hang", web::post().to(drill_hang))
        .route("/debug/actors/{name}/slow", web::post().to(drill_slow));
    for (path, probe) in [("/healthz", Probe::Health), ("/livez", Probe::Live), ("/readyz", Probe::Ready)] {
        app.route(path, web::get().to(move |shared, request| probed(probe, shared, request)));
        app.route(&format!("{path}/{{check}}"), web::get().to(move |shared, request, check| one_check(probe, shared, request, check)));
    }
}

/// An error in the API's form.
pub(crate) fn error(status: StatusCode, sentence: &str) -> HttpResponse {
    HttpResponse::build(status).json(Failure { error: sentence })
}

async fn status(shared: Data<Shared>) -> HttpResponse {
    HttpResponse::Ok().json(Status::of(&shared.config.title, &shared.registry))
}

async fn health(shared: Data<Shared>) -> HttpResponse {
    HttpResponse::Ok().json(HealthView::from(shared.registry.health()))
}

async fn supervisors(shared: Data<Shared>) -> HttpResponse {
    HttpResponse::Ok().json(shared.registry.trees())
}

async fn actors(shared: Data<Shared>) -> HttpResponse {
    HttpResponse::Ok().json(shared.registry.views())
}

async fn one_actor(shared: Data<Shared>, name: Path<String>) -> HttpResponse {
    match shared.details(&name) {
        Some(details) => HttpResponse::Ok().json(details),
        None => error(StatusCode::NOT_FOUND, "no actor of this name: see /api/actors"),
    }
}

#[derive(Deserialize)]
struct After {
    #[serde(default)]
    after: u64,
}

async fn events(shared: Data<Shared>, after: Query<After>) -> HttpResponse {
    let mut events = shared.registry.events();
    events.retain(|event| event.seq > after.after);
    HttpResponse::Ok().json(events)
}

async fn quarantine(shared: Data<Shared>) -> HttpResponse {
    let kept: Vec<Kept> = shared.registry.quarantine().list().into_iter().map(Kept::from).collect();
    HttpResponse::Ok().json(kept)
}

async fn openapi() -> HttpResponse {
    HttpResponse::Ok().content_type(header::ContentType::json()).body(OPENAPI)
}

async fn metrics_text(shared: Data<Shared>) -> HttpResponse {
    let histogram = |name: &str| shared.details(name).map(|details| details.histogram).unwrap_or_default();
    let text = metrics::render(shared.config.prefix, &shared.registry, &shared.extra_figures(), histogram);
    HttpResponse::Ok().content_type("text/plain; version=0.0.4; charset=utf-8").body(text)
}

// ---- what changes something ------------------------------------------------------------------------------------------

async fn done(shared: &Shared, request: &HttpRequest, action: Result<Action, ActionError>) -> HttpResponse {
    if let Err(refusal) = check_action_header(request) {
        return refused(refusal);
    }
    let done = match action {
        Ok(action) => act(shared, action).await,
        Err(why) => Err(why),
    };
    match done {
        Ok(done) => HttpResponse::Ok().json(Success { actor: done.actor, done: done.what }),
        Err(why) => error(why.status(), &why.to_string()),
    }
}

async fn restart(shared: Data<Shared>, request: HttpRequest, name: Path<String>) -> HttpResponse {
    done(&shared, &request, Ok(Action::Restart(name.into_inner()))).await
}

async fn retry(shared: Data<Shared>, request: HttpRequest, id: Path<String>) -> HttpResponse {
    done(&shared, &request, actions::message_id(&id).map(Action::Retry)).await
}

async fn drop_message(shared: Data<Shared>, request: HttpRequest, id: Path<String>) -> HttpResponse {
    done(&shared, &request, actions::message_id(&id).map(Action::Drop)).await
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LogLevel {
    filter: String,
}

async fn log_level(shared: Data<Shared>) -> HttpResponse {
    match shared.log_filter() {
        Some(filter) => HttpResponse::Ok().json(LogLevel { filter }),
        None => error(StatusCode::NOT_FOUND, &ActionError::NoLog.to_string()),
    }
}

async fn set_log_level(shared: Data<Shared>, request: HttpRequest, level: Json<LogLevel>) -> HttpResponse {
    done(&shared, &request, Ok(Action::LogLevel(level.into_inner().filter))).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Panic {
    #[serde(rename = "in-hand")]
    in_hand: Option<u32>,
}

async fn drill_panic(shared: Data<Shared>, request: HttpRequest, name: Path<String>, how: Query<Panic>) -> HttpResponse {
    let drill = how.in_hand.map_or(Drill::Panic, Drill::PanicInHand);
    done(&shared, &request, Ok(Action::Drill(name.into_inner(), drill))).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Hang {
    /// Seconds.
    r#for: u32,
}

async fn drill_hang(shared: Data<Shared>, request: HttpRequest, name: Path<String>, how: Query<Hang>) -> HttpResponse {
    let drill = Drill::Hang(Duration::from_secs(how.r#for.into()));
    done(&shared, &request, Ok(Action::Drill(name.into_inner(), drill))).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Slow {
    /// Milliseconds.
    by: u32,
}

async fn drill_slow(shared: Data<Shared>, request: HttpRequest, name: Path<String>, how: Query<Slow>) -> HttpResponse {
    let drill = Drill::Slow(Duration::from_millis(how.by.into()));
    done(&shared, &request, Ok(Action::Drill(name.into_inner(), drill))).await
}

// ---- health ----------------------------------------------------------------------------------------------------------

async fn probed(probe: Probe, shared: Data<Shared>, request: HttpRequest) -> HttpResponse {
    let pairs = Query::<Vec<(String, String)>>::from_query(request.query_string()).map(Query::into_inner).unwrap_or_default();
    let asked = Asked {
        verbose: pairs.iter().any(|(key, _)| key == "verbose"),
        exclude: pairs.into_iter().filter(|(key, _)| key == "exclude").map(|(_, name)| name).collect(),
        reasons: request.extensions().contains::<Admitted>(),
    };
    let (status, text) = health::report(probe, &shared.findings(probe), &asked);
    HttpResponse::build(status).content_type("text/plain; charset=utf-8").body(text)
}

async fn one_check(probe: Probe, shared: Data<Shared>, request: HttpRequest, check: Path<String>) -> HttpResponse {
    let reasons = request.extensions().contains::<Admitted>();
    match health::report_one(&shared.findings(probe), &check, reasons) {
        Some((status, text)) => HttpResponse::build(status).content_type("text/plain; charset=utf-8").body(text),
        None => HttpResponse::NotFound().content_type("text/plain; charset=utf-8").body("no check of this name: add ?verbose to see them\n"),
    }
}
