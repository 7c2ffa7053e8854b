//! The admin page as the edge fills it, its read-only endpoint, and the one drill that is the edge's own.

use std::net::SocketAddr;
use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, web};
use actor::{Running, chain};
use admin::{AdminConfig, AdminError, AdminServer, Exit, LogControl};

use crate::config::{EdgeConfig, Module};
use crate::edged::read_only::Reading;
use crate::edged::{self, Engine};
use crate::figures;
use crate::store::{STUCK_AFTER, STUCK_EXIT_CODE, Store};

/// Starts the page.
///
/// # Errors
/// [`Exit`]: a port that is taken, a token or certificate that cannot be used.
pub fn start(config: &EdgeConfig, running: &Running, seen: Arc<figures::Sources>, log: &LogControl) -> Result<AdminServer, Exit> {
    let read_only = config.read_only().filter(|_| config.runs(Module::Edged));
    let drill = web::Data::new(Drill { store: seen.store.clone(), allowed: config.admin.fault_injection, read_only });
    let store = web::Data::new(seen.store.clone());
    let beside = seen.beside.clone();
    let reading = web::Data::new(Reading::new(move || beside.engine().as_ref().map(Engine::reading)));
    let checked = seen.clone();
    let admin = AdminConfig {
        listen: vec![config.admin()],
        read_only: read_only.into_iter().collect(),
        hosts: config.admin.hosts.clone(),
        access: config.admin.access().map_err(|error| Exit::Configuration(chain(&error)))?,
        title: format!("skep-edge {}", config.node()),
        prefix: "skep_edge",
        extra: Arc::new(move || seen.metrics()),
        checks: Arc::new(move || checked.checks()),
        fault_injection: config.admin.fault_injection,
        log: Some(log.clone()),
        routes: |server| {
            edged::read_only::routes(server);
            server.route("/debug/store/hang", web::post().to(hang_store));
        },
        data: Arc::new(move |server| {
            server.app_data(store.clone()).app_data(reading.clone()).app_data(drill.clone());
        }),
    };
    admin::serve(admin, running.clone()).map_err(|error| match &error {
        AdminError::Bind { .. } => Exit::Unavailable(chain(&error)),
        AdminError::NotLoopback(_) | AdminError::Access(_) => Exit::Configuration(chain(&error)),
    })
}

struct Drill {
    store: Store,
    /// `admin.fault-injection`.
    allowed: bool,
    /// The endpoint that is read without credentials: nothing is done from there.
    read_only: Option<SocketAddr>,
}

/// `POST /debug/store/hang`: a transaction that never ends, as with a disk that does not answer. The process ends with
/// [`STUCK_EXIT_CODE`] after [`STUCK_AFTER`].
async fn hang_store(drill: web::Data<Drill>, request: HttpRequest) -> HttpResponse {
    let local = request.app_config().local_addr();
    if !drill.allowed || drill.read_only.is_some_and(|door| door.port() == local.port()) {
        return HttpResponse::NotFound().body("drills are off: set admin.fault-injection: true and restart\n");
    }
    // A foreign page cannot set it without asking first.
    if request.headers().get("x-skep-action").is_none_or(|value| value != "1") {
        return HttpResponse::Forbidden().body("a call that changes something needs the header `X-Skep-Action: 1`\n");
    }
    log::warn!("fault drill: a transaction of the store hangs from now on");
    match drill.store.hang_on_purpose() {
        Ok(()) => HttpResponse::Accepted().body(format!("the process ends with {STUCK_EXIT_CODE} in {} s\n", STUCK_AFTER.as_secs())),
        Err(error) => HttpResponse::InternalServerError().body(format!("{error}\n")),
    }
}
