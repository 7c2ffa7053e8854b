//! The server over real sockets.
#![allow(clippy::unwrap_used, missing_docs)] // a failed step is the test's failure

mod access;
mod actions;
mod api;
mod hostile;
mod page;
mod schema;
mod status;
mod stream;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use actor::{ChildSpec, Handle, Ingress, Lease, Mail, Meta, Policy, Quarantine, Registry, Supervisor};

use crate::{Access, AdminConfig, Check, Metric, serve};

pub(crate) const WITHIN: Duration = Duration::from_secs(20);
/// What hostile peers put into every text that the page shows.
pub(crate) const EVIL: &str = "<script>alert(1)</script>\"'&\r\n\r\ndata: x";

pub(crate) enum Work {
    /// Blocks until released.
    Wait(Arc<AtomicBool>),
    Poison,
}

impl Mail for Work {
    fn kind(&self) -> &'static str {
        match self {
            Self::Wait(_) => "Wait",
            Self::Poison => "Poison",
        }
    }
    fn describe(&self) -> String {
        format!("{} {EVIL}", self.kind())
    }
}

struct Worker;
impl actix::Actor for Worker {
    type Context = actix::Context<Self>;
}
impl actix::Handler<Lease<Work>> for Worker {
    type Result = ();
    fn handle(&mut self, lease: Lease<Work>, _: &mut Self::Context) {
        lease.each(|_, work| match work {
            Work::Wait(release) => {
                while !release.load(Ordering::SeqCst) {
                    std::thread::yield_now();
                }
            }
            Work::Poison => panic!("died of {EVIL}"),
        });
    }
}

/// A daemon with two supervisors, the actors `worker` and `twin`, and the disabled `off`.
#[derive(Clone)]
pub(crate) struct Site {
    pub(crate) address: SocketAddr,
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) registry: Registry,
    pub(crate) worker: Handle<Work>,
    /// How often the page asked what `worker` knows.
    pub(crate) snapshots: Arc<AtomicUsize>,
}

pub(crate) fn config() -> AdminConfig {
    AdminConfig {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        read_only: vec![],
        hosts: vec![],
        access: Access::Loopback,
        title: "skep-test <node>".into(),
        prefix: "skep_test",
        extra: Arc::new(|| vec![Metric::gauge("nodes", "Nodes.", 3.0).of("state", "up")]),
        checks: Arc::new(|| vec![Check::ready("database", Err("is being opened".into()))]),
        fault_injection: false,
        log: None,
        routes: |app| {
            app.route("/pods", actix_web::web::get().to(|| async { "pods" }));
        },
        data: Arc::new(|_| {}),
    }
}

/// Runs a test, on a thread of its own, against a server that really listens.
pub(crate) fn with(config: AdminConfig, test: impl FnOnce(Site) + Send + 'static) {
    actix_rt::System::new().block_on(async {
        let (worker, twin, off) = (actor::mailbox::<Work>("worker", 8), actor::mailbox::<Work>("twin", 8), actor::mailbox::<Work>("off", 8));
        let quarantine = Quarantine::in_memory();
        quarantine.on_retry(|ingress| if ingress.address == "good" { Ok(()) } else { Err(format!("no way in for {EVIL}")) });
        let registry = Registry::with_quarantine(quarantine);
        let policy = Policy { intensity: 50, backoff: Duration::from_millis(1), backoff_max: Duration::from_millis(1), ..Policy::default() };
        let snapshots = Arc::new(AtomicUsize::new(0));
        let asked = snapshots.clone();
        let known = move || {
            asked.fetch_add(1, Ordering::SeqCst);
            serde_json::json!({ "name": EVIL, "sessions": [{"peer": null}], "empty": [] })
        };
        let inner = Supervisor::new("inner", policy.clone()).child(ChildSpec::new(&twin, || Worker)).child(ChildSpec::disabled(&off));
        let running = Supervisor::new("root", policy)
            .registered(&registry)
            .child(ChildSpec::new(&worker, || Worker).snapshot(known))
            .child(ChildSpec::tree(inner))
            .start(|why| panic!("{why}"));
        actor::eventually!(WITHIN, registry.views().len() == 3);
        let server = serve(config, running.clone()).unwrap();
        let site = Site { address: server.addresses[0], addresses: server.addresses.clone(), registry, worker, snapshots };
        let done = actix_web::rt::task::spawn_blocking(move || test(site)).await;
        server.stop().await;
        running.shutdown().await;
        done.unwrap();
    });
}

impl Site {
    /// Sends bytes and reads the whole answer.
    pub(crate) fn raw(&self, request: &str) -> String {
        raw(self.address, request)
    }

    pub(crate) fn get(&self, path: &str) -> String {
        self.raw(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))
    }

    pub(crate) fn call(&self, method: &str, path: &str, headers: &str, body: &str) -> String {
        self.raw(&format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n{body}",
            body.len()
        ))
    }

    /// Puts a message of `worker` into quarantine and tells its identity.
    pub(crate) fn bury(&self, address: Option<&str>) -> String {
        let before = self.registry.quarantine().list().len();
        let meta = Meta::new("test");
        let meta = match address {
            Some(address) => meta.entered(Ingress { border: "mqtt".into(), address: address.into(), payload: Some("s3cr3t".into()) }),
            None => meta,
        };
        assert!(self.worker.try_post(meta, Work::Poison).is_ok());
        // The last that is noted of it: the incarnation after the third death.
        let is_back = || self.registry.events().last().is_some_and(|event| event.kind == actor::EventKind::Restarted);
        until(|| self.registry.quarantine().list().len() > before && is_back());
        self.registry.quarantine().list().pop().unwrap().id
    }

    /// The secret that the forms of the page carry.
    pub(crate) fn form_token(&self) -> String {
        let page = self.get("/actors/worker");
        page.split("name=\"token\" value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned()
    }
}

pub(crate) fn raw(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(WITHIN)).unwrap();
    // A server that turns a request away may close before it has read all of it.
    let _ = stream.write_all(request.as_bytes());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

pub(crate) fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
}

pub(crate) fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

pub(crate) fn json(answer: &str) -> serde_json::Value {
    serde_json::from_str(body(answer)).unwrap_or_else(|why| panic!("{why}: {answer}"))
}

pub(crate) fn until(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + WITHIN;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {WITHIN:?}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}
