//! The HTTP server of a daemon's administrator.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use actix_tls::accept::rustls_0_23::TlsStream;
use actix_web::body::{EitherBody, MessageBody};
use actix_web::dev::{ServerHandle, ServiceRequest, ServiceResponse};
use actix_web::guard;
use actix_web::http::header;
use actix_web::middleware::{DefaultHeaders, Next, from_fn};
use actix_web::rt::net::TcpStream;
use actix_web::web::{self, Data};
use actix_web::{App, Error, HttpMessage as _, HttpRequest, HttpResponse, HttpServer};
use actor::{Registry, Running};

use crate::access::{Admitted, Certified, Gate, ReadOnlyDoor, Refusal};
use crate::config::{Access, AdminConfig, AdminError};
use crate::health::{self, Asked, Probe};
use crate::metrics;
use crate::page;

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
        let shared = Data::new(Shared { registry: running.registry(), running, config, gate });
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
    app.route("/", web::get().to(index))
        .route("/api/actors", web::get().to(actors))
        .route("/api/actors/{name}", web::get().to(one_actor))
        .route("/api/events", web::get().to(events))
        .route("/metrics", web::get().to(metrics_text));
    for (path, probe) in [("/healthz", Probe::Health), ("/livez", Probe::Live), ("/readyz", Probe::Ready)] {
        app.route(path, web::get().to(move |shared, request| health_of(probe, shared, request)));
        app.route(&format!("{path}/{{check}}"), web::get().to(move |shared, request, check| one_check(probe, shared, request, check)));
    }
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
    answer.content_type("text/plain; charset=utf-8").body(format!("{}\n", refusal.sentence()))
}

async fn index(shared: Data<Shared>) -> HttpResponse {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let registry = &shared.registry;
    let html = page::render(&shared.config.title, &registry.views(), &registry.events(), &registry.health(), u64::try_from(now).unwrap_or(u64::MAX));
    HttpResponse::Ok()
        .content_type("text/html; charset=utf-8")
        .insert_header((header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"))
        .body(html)
}

async fn actors(shared: Data<Shared>) -> HttpResponse {
    HttpResponse::Ok().json(shared.registry.views())
}

async fn one_actor(shared: Data<Shared>, name: web::Path<String>) -> HttpResponse {
    match shared.registry.details(&name) {
        Some(details) => HttpResponse::Ok().json(details),
        None => HttpResponse::NotFound().body("no actor of this name: see /api/actors\n"),
    }
}

async fn events(shared: Data<Shared>) -> HttpResponse {
    HttpResponse::Ok().json(shared.registry.events())
}

async fn metrics_text(shared: Data<Shared>) -> HttpResponse {
    let (registry, config) = (&shared.registry, &shared.config);
    let text = metrics::render(config.prefix, &registry.views(), &registry.health(), &(config.extra)());
    HttpResponse::Ok().content_type("text/plain; version=0.0.4; charset=utf-8").body(text)
}

async fn health_of(probe: Probe, shared: Data<Shared>, request: HttpRequest) -> HttpResponse {
    let pairs = web::Query::<Vec<(String, String)>>::from_query(request.query_string()).map(web::Query::into_inner).unwrap_or_default();
    let asked = Asked {
        verbose: pairs.iter().any(|(key, _)| key == "verbose"),
        exclude: pairs.into_iter().filter(|(key, _)| key == "exclude").map(|(_, name)| name).collect(),
        reasons: request.extensions().contains::<Admitted>(),
    };
    let (status, text) = health::report(probe, &findings(probe, &shared), &asked);
    HttpResponse::build(status).content_type("text/plain; charset=utf-8").body(text)
}

async fn one_check(probe: Probe, shared: Data<Shared>, request: HttpRequest, check: web::Path<String>) -> HttpResponse {
    let reasons = request.extensions().contains::<Admitted>();
    match health::report_one(&findings(probe, &shared), &check, reasons) {
        Some((status, text)) => HttpResponse::build(status).content_type("text/plain; charset=utf-8").body(text),
        None => HttpResponse::NotFound().body("no check of this name: add ?verbose to see them\n"),
    }
}

fn findings(probe: Probe, shared: &Shared) -> Vec<health::Finding> {
    health::findings(probe, &shared.registry, (shared.config.checks)())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, missing_docs)] // a failed step is the test's failure

    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::sync::atomic::{AtomicBool, Ordering};

    use actor::{ChildSpec, Lease, Mail, Policy, Supervisor};

    use super::*;
    use crate::{Check, Metric};

    struct Stop(Arc<AtomicBool>);
    impl Mail for Stop {
        fn kind(&self) -> &'static str {
            "Stop"
        }
    }
    struct Blocked;
    impl actix::Actor for Blocked {
        type Context = actix::Context<Self>;
    }
    impl actix::Handler<Lease<Stop>> for Blocked {
        type Result = ();
        fn handle(&mut self, lease: Lease<Stop>, _: &mut Self::Context) {
            lease.each(|_, Stop(release)| {
                while !release.load(Ordering::SeqCst) {
                    std::thread::yield_now();
                }
            });
        }
    }

    fn config(listen: &str) -> AdminConfig {
        AdminConfig {
            listen: vec![listen.parse().unwrap()],
            title: "skep-test <node>".into(),
            prefix: "skep_test",
            extra: Arc::new(|| vec![Metric::gauge("nodes", "Nodes.", 3.0).of("state", "up")]),
            checks: Arc::new(|| vec![Check::ready("database", Err("is being opened".into()))]),
            read_only: vec![],
            hosts: vec![],
            access: Access::Loopback,
            fault_injection: false,
            log: None,
            routes: |_| {},
            data: Arc::new(|_| {}),
        }
    }

    fn get(address: SocketAddr, path: &str, host: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn the_page_answers_while_an_actor_is_blocked_and_only_to_loopback_names() {
        actix_rt::System::new().block_on(async {
            let handle = actor::mailbox::<Stop>("blocked", 8);
            let running = Supervisor::new("test", Policy::default()).child(ChildSpec::new(&handle, || Blocked)).start(|why| panic!("{why}"));
            let release = Arc::new(AtomicBool::new(false));
            for _ in 0..3 {
                handle.try_send(Stop(release.clone())).unwrap();
            }
            actor::eventually!(Duration::from_secs(10), handle.observe().view().in_hand.is_some());
            let server = serve(config("127.0.0.1:0"), running.clone()).unwrap();
            let address = server.addresses[0];
            let (seen, release_too) = (release.clone(), release);
            actix_web::rt::task::spawn_blocking(move || {
                let page = get(address, "/", "localhost:10360");
                assert!(page.starts_with("HTTP/1.1 200") && page.contains("2/8") && page.contains("skep-test &lt;node&gt;"), "{page}");
                assert!(get(address, "/api/actors/blocked", "127.0.0.1").contains("\"in_hand\":\"Stop\""));
                assert!(get(address, "/api/actors/..%2f", "127.0.0.1").starts_with("HTTP/1.1 404"));
                let metrics = get(address, "/metrics", "[::1]:1");
                assert!(
                    metrics.contains("skep_test_mailbox_depth{actor=\"blocked\"} 2") && metrics.contains("skep_test_nodes{state=\"up\"} 3"),
                    "{metrics}"
                );
                assert!(get(address, "/healthz", "127.0.0.1").starts_with("HTTP/1.1 200"));
                assert!(get(address, "/readyz", "127.0.0.1").contains("[-]database failed: is being opened"));
                for rebound in ["evil.example", "evil.example:80", "127.0.0.1.evil.example", ""] {
                    assert!(get(address, "/", rebound).starts_with("HTTP/1.1 4"), "{rebound}");
                }
                seen.store(true, Ordering::SeqCst);
            })
            .await
            .unwrap();
            release_too.store(true, Ordering::SeqCst);
            server.stop().await;
            running.shutdown().await;
        });
    }

    #[test]
    fn an_address_that_is_not_loopback_and_an_occupied_port_are_refused_with_the_reason() {
        actix_rt::System::new().block_on(async {
            assert!(matches!(bind(config("0.0.0.0:0")), Err(AdminError::NotLoopback(_))));
            let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let address = taken.local_addr().unwrap();
            let error = bind(config(&address.to_string())).err().unwrap();
            assert!(error.to_string().contains(&address.to_string()));
        });
    }
}
