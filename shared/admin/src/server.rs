//! The HTTP server of a daemon's administrator.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use actix_web::body::MessageBody;
use actix_web::dev::{ServerHandle, ServiceRequest, ServiceResponse};
use actix_web::http::header;
use actix_web::middleware::{Next, from_fn};
use actix_web::web::{self, Data};
use actix_web::{App, Error, HttpResponse, HttpServer};
use actor::{Health, Registry};

use crate::metrics::{self, Metric};
use crate::page;

/// How the server is set up.
#[derive(Clone)]
pub struct AdminConfig {
    /// Addresses to listen on; each must be a loopback address.
    pub listen: Vec<SocketAddr>,
    /// Title of the page: the daemon's name and node.
    pub title: String,
    /// Prefix of the metrics: `skep_edge`, `skep_cloud`.
    pub prefix: &'static str,
    /// Further figures of the daemon.
    pub extra: Arc<dyn Fn() -> Vec<Metric> + Send + Sync>,
    /// `None` when the daemon is ready to serve; else what it waits for.
    pub not_ready: Arc<dyn Fn() -> Option<String> + Send + Sync>,
    /// Further routes of the daemon.
    pub routes: fn(&mut web::ServiceConfig),
    /// What those routes need.
    pub data: Arc<dyn Fn(&mut web::ServiceConfig) + Send + Sync>,
}

/// Why the server could not start.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// Somebody else listens there, or the address is not ours.
    #[error("failed to listen on {address} for the admin page: free the port or set `admin.port`")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The page has no authentication.
    #[error("the admin page has no authentication and listens on loopback only: set `admin.address` to 127.0.0.1 instead of {0}")]
    NotLoopback(IpAddr),
}

/// A running server.
pub struct AdminServer {
    /// Where it listens; tells the port that was chosen for port 0.
    pub addresses: Vec<SocketAddr>,
    handle: ServerHandle,
}

impl AdminServer {
    /// Stops it and closes its connections.
    pub async fn stop(&self) {
        self.handle.stop(false).await;
    }
}

struct Shared {
    config: AdminConfig,
    registry: Registry,
}

/// Starts the server on a worker thread of its own.
///
/// # Errors
/// See [`AdminError`].
pub fn serve(config: AdminConfig, registry: Registry) -> Result<AdminServer, AdminError> {
    if let Some(outside) = config.listen.iter().find(|a| !a.ip().is_loopback()) {
        return Err(AdminError::NotLoopback(outside.ip()));
    }
    let (routes, data) = (config.routes, config.data.clone());
    let listen = config.listen.clone();
    let shared = Data::new(Shared { config, registry });
    let mut server = HttpServer::new(move || {
        App::new()
            .app_data(shared.clone())
            .wrap(from_fn(only_local_hosts))
            .configure(|c| data(c))
            .configure(routes)
            .route("/", web::get().to(index))
            .route("/api/actors", web::get().to(actors))
            .route("/api/actors/{name}", web::get().to(one_actor))
            .route("/api/events", web::get().to(events))
            .route("/metrics", web::get().to(metrics_text))
            .route("/healthz", web::get().to(live))
            .route("/livez", web::get().to(live))
            .route("/readyz", web::get().to(ready))
    })
    .workers(1)
    .max_connections(64)
    .client_request_timeout(Duration::from_secs(5))
    .shutdown_timeout(1)
    .disable_signals();
    for address in listen {
        server = server.bind(address).map_err(|source| AdminError::Bind { address, source })?;
    }
    let addresses = server.addrs();
    let server = server.run();
    let handle = server.handle();
    actix_web::rt::spawn(server);
    Ok(AdminServer { addresses, handle })
}

/// Refuses a `Host` that is no loopback name: a page of the wide web that resolves its own name to 127.0.0.1 must not
/// read this server through a browser (DNS rebinding).
async fn only_local_hosts(request: ServiceRequest, next: Next<impl MessageBody>) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let host = request.headers().get(header::HOST).and_then(|h| h.to_str().ok()).unwrap_or_default();
    let name = host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit())).map_or(host, |(name, _)| name);
    let local = name == "localhost" || name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if !local {
        return Err(actix_web::error::ErrorMisdirectedRequest("this page answers to localhost and loopback addresses only"));
    }
    next.call(request).await
}

async fn index(shared: Data<Shared>) -> HttpResponse {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let registry = &shared.registry;
    let html = page::render(&shared.config.title, &registry.views(), &registry.events(), &registry.health(), u64::try_from(now).unwrap_or(u64::MAX));
    HttpResponse::Ok()
        .content_type("text/html; charset=utf-8")
        .insert_header((header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"))
        .insert_header((header::CACHE_CONTROL, "no-store"))
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

async fn live(shared: Data<Shared>) -> HttpResponse {
    match shared.registry.health() {
        Health::Red(why) => HttpResponse::ServiceUnavailable().body(format!("{why}\n")),
        Health::Green | Health::Yellow(_) => HttpResponse::Ok().body("ok\n"),
    }
}

async fn ready(shared: Data<Shared>) -> HttpResponse {
    let waits = (shared.config.not_ready)();
    match (shared.registry.health(), waits) {
        (Health::Green, None) => HttpResponse::Ok().body("ok\n"),
        (Health::Yellow(why) | Health::Red(why), _) | (Health::Green, Some(why)) => HttpResponse::ServiceUnavailable().body(format!("{why}\n")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, missing_docs)] // a failed step is the test's failure

    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::sync::atomic::{AtomicBool, Ordering};

    use actor::{ChildSpec, Lease, Mail, Policy, Supervisor};

    use super::*;

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
            not_ready: Arc::new(|| Some("waits for the database".into())),
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
            let server = serve(config("127.0.0.1:0"), running.registry()).unwrap();
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
                assert!(get(address, "/readyz", "127.0.0.1").contains("waits for the database"));
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
            assert!(matches!(serve(config("0.0.0.0:0"), Registry::new()), Err(AdminError::NotLoopback(_))));
            let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let address = taken.local_addr().unwrap();
            let error = serve(config(&address.to_string()), Registry::new()).err().unwrap();
            assert!(error.to_string().contains(&address.to_string()));
        });
    }
}
