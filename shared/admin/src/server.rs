//! The HTTP server of a daemon's administrator.

use std::net::{SocketAddr, TcpListener};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use actix_tls::accept::rustls_0_23::TlsStream;
use actix_web::body::{EitherBody, MessageBody};
use actix_web::dev::{ServerHandle, ServiceRequest, ServiceResponse};
use actix_web::guard;
use actix_web::http::{StatusCode, header};
use actix_web::middleware::{DefaultHeaders, Next, from_fn};
use actix_web::rt::net::TcpStream;
use actix_web::web::{self, Data};
use actix_web::{App, Error, HttpMessage as _, HttpResponse, HttpServer};
use actor::{Registry, Running};

use crate::access::{Certified, Gate, ReadOnlyDoor, Refusal};
use crate::config::{Access, AdminConfig, AdminError};
use crate::health::{self, Check, Finding, Probe};
use crate::metrics::Metric;
use crate::page::{self, Extra, Frame, Scene};
use crate::stream::Watchers;
use crate::view::OneActor;
use crate::{api, forms};

/// Connections at once; more wait.
const CONNECTIONS_MAX: usize = 64;

/// A server that has its ports and serves nothing yet: for a daemon that wants to know early that they are free.
pub struct Bound {
    config: AdminConfig,
    listeners: Vec<(SocketAddr, TcpListener)>,
    gate: Gate,
}

/// A running server.
pub struct AdminServer {
    /// Where it listens; tells the port that was chosen for port 0. First `listen`, then `read_only`.
    pub addresses: Vec<SocketAddr>,
    handle: ServerHandle,
}

impl AdminServer {
    /// Stops it and closes its connections.
    pub async fn stop(&self) {
        self.handle.stop(false).await;
    }
}

pub(crate) struct Shared {
    pub(crate) config: AdminConfig,
    pub(crate) running: Running,
    pub(crate) registry: Registry,
    pub(crate) gate: Gate,
    pub(crate) watchers: Watchers,
}

/// What modules and the daemon say for themselves runs their code: a panic in it costs an answer, not the server.
impl Shared {
    pub(crate) fn details(&self, name: &str) -> Option<OneActor> {
        catch_unwind(AssertUnwindSafe(|| self.registry.details(name))).ok().flatten().map(OneActor::from)
    }

    pub(crate) fn extra(&self, name: &str) -> Option<Extra> {
        let OneActor { actor: _, histogram, snapshot, history: _, quarantine } = self.details(name)?;
        Some(Extra { histogram, snapshot, quarantine })
    }

    pub(crate) fn extra_figures(&self) -> Vec<Metric> {
        catch_unwind(AssertUnwindSafe(|| (self.config.extra)())).unwrap_or_default()
    }

    pub(crate) fn findings(&self, probe: Probe) -> Vec<Finding> {
        let failed = || vec![Check { name: "daemon", live: true, result: Err("its checks panicked; see the log".to_owned()) }];
        let own = catch_unwind(AssertUnwindSafe(|| (self.config.checks)())).unwrap_or_else(|_| failed());
        health::findings(probe, &self.registry, own)
    }

    pub(crate) fn log_filter(&self) -> Option<String> {
        self.config.log.as_ref().map(crate::LogControl::current)
    }

    pub(crate) fn frame<'a>(&'a self, notice: Option<&'a str>, log_filter: Option<&'a str>) -> Frame<'a> {
        Frame { title: &self.config.title, form_token: self.gate.form_token(), log_filter, drills: self.config.fault_injection, notice }
    }

    pub(crate) fn live_overview(&self) -> String {
        page::live_overview(&self.config.title, &Scene::of(&self.registry)).into_string()
    }

    pub(crate) fn live_actor(&self, name: &str) -> Option<String> {
        let extra = self.extra(name)?;
        page::live_actor(self.frame(None, None), &Scene::of(&self.registry), name, &extra).map(maud::Markup::into_string)
    }
}

/// Takes the ports and reads what protects them.
///
/// # Errors
/// See [`AdminError`].
pub fn bind(config: AdminConfig) -> Result<Bound, AdminError> {
    let outside = |addresses: &[SocketAddr]| addresses.iter().find(|a| !a.ip().is_loopback()).copied();
    match &config.access {
        Access::Loopback => outside(&config.listen).map_or(Ok(()), |outside| Err(AdminError::NotLoopback(outside)))?,
        Access::Token(_) => {
            if let Some(address) = outside(&config.listen) {
                log::warn!(address:% = address; "the admin page is open to the network without TLS: whoever reads the network reads its token");
            }
        }
        Access::ClientCertificates(_) => {}
    }
    if let Some(outside) = outside(&config.read_only) {
        return Err(AdminError::NotLoopback(outside));
    }
    let mut listeners = Vec::new();
    for address in config.listen.iter().chain(&config.read_only).copied() {
        let listener = TcpListener::bind(address).map_err(|source| AdminError::Bind { address, source })?;
        let resolved = listener.local_addr().map_err(|source| AdminError::Bind { address, source })?;
        listeners.push((resolved, listener));
    }
    let resolved: Vec<_> = listeners.iter().map(|(address, _)| *address).collect();
    let (listen, read_only) = resolved.split_at(config.listen.len());
    let gate = Gate::new(&config.access, listen.to_vec(), read_only.to_vec(), config.hosts.clone())?;
    Ok(Bound { config, listeners, gate })
}

/// [`bind`] and [`Bound::serve`].
///
/// # Errors
/// See [`AdminError`].
pub fn serve(config: AdminConfig, running: Running) -> Result<AdminServer, AdminError> {
    bind(config)?.serve(running)
}

impl Bound {
    /// Starts to serve on a worker thread of its own.
    ///
    /// # Errors
    /// [`AdminError::Bind`].
    pub fn serve(self, running: Running) -> Result<AdminServer, AdminError> {
        let Self { config, listeners, gate } = self;
        let tls = match &config.access {
            Access::ClientCertificates(tls) => Some(tls.clone()),
            Access::Loopback | Access::Token(_) => None,
        };
        let (routes, data) = (config.routes, config.data.clone());
        let shared = Data::new(Shared { registry: running.registry(), running, config, gate, watchers: Watchers::default() });
        let served = shared.clone();
        let mut server = HttpServer::new(move || {
            App::new()
                .app_data(served.clone())
                .wrap(from_fn(at_the_door))
                .wrap(headers())
                .configure(|c| data(c))
                .configure(routes)
                .service(web::scope("").guard(guard::fn_guard(|asked| !asked.req_data().contains::<ReadOnlyDoor>())).configure(own_routes))
        })
        .on_connect(|connection, extensions| {
            let certified = connection.downcast_ref::<TlsStream<TcpStream>>().is_some_and(|tls| tls.get_ref().1.peer_certificates().is_some());
            if certified {
                extensions.insert(Certified);
            }
        })
        .workers(1)
        .max_connections(CONNECTIONS_MAX)
        .client_request_timeout(Duration::from_secs(5))
        .shutdown_timeout(1)
        .disable_signals();
        let mut addresses = Vec::new();
        for (address, listener) in listeners {
            server = match &tls {
                Some(tls) if !shared.gate.is_read_only(address) => server.listen_rustls_0_23(listener, tls.as_ref().clone()),
                _ => server.listen(listener),
            }
            .map_err(|source| AdminError::Bind { address, source })?;
            addresses.push(address);
        }
        let server = server.run();
        let handle = server.handle();
        actix_web::rt::spawn(server);
        Ok(AdminServer { addresses, handle })
    }
}

fn own_routes(app: &mut web::ServiceConfig) {
    app.app_data(web::PayloadConfig::new(api::BODY_BYTES_MAX))
        .configure(forms::routes)
        .configure(api::routes)
        .default_service(web::to(|| std::future::ready(api::error(StatusCode::NOT_FOUND, "nothing is here: see / and /api/openapi.json"))));
}

fn headers() -> DefaultHeaders {
    DefaultHeaders::new()
        .add((header::CACHE_CONTROL, "no-store"))
        .add((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        // Not `no-referrer`: browsers then send the origin of our own forms as `null`.
        .add((header::REFERRER_POLICY, "same-origin"))
        .add(("Cross-Origin-Resource-Policy", "same-origin"))
        .add((header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"))
}

async fn at_the_door<B: MessageBody>(request: ServiceRequest, next: Next<B>) -> Result<ServiceResponse<EitherBody<B>>, Error> {
    let Some(shared) = request.app_data::<Data<Shared>>().cloned() else {
        return Ok(request.into_response(HttpResponse::InternalServerError().finish()).map_into_right_body());
    };
    if let Err(refusal) = shared.gate.admit(&request).await {
        return Ok(request.into_response(refused(refusal)).map_into_right_body());
    }
    if shared.gate.is_read_only(request.app_config().local_addr()) {
        request.extensions_mut().insert(ReadOnlyDoor);
    }
    Ok(next.call(request).await?.map_into_left_body())
}

pub(crate) fn refused(refusal: Refusal) -> HttpResponse {
    let mut answer = HttpResponse::build(refusal.status());
    if matches!(refusal, Refusal::NoCredentials | Refusal::WrongCredentials) {
        answer.insert_header((header::WWW_AUTHENTICATE, "Basic realm=\"skep\", charset=\"UTF-8\""));
    }
    answer.json(api::Failure { error: refusal.sentence() })
}
