//! A page to look at: toy actors with load, a message that kills, one that hangs, and a quarantine.
//!
//! `cargo run --release -p skep-admin --example show [port]`, then open the address that it prints.
#![allow(clippy::print_stdout, clippy::unwrap_used, missing_docs)] // an example for the eye

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use actor::{ChildSpec, EventKind, Handle, Ingress, Lease, Mail, Meta, Policy, Quarantine, Registry, Strategy, Supervisor, mailbox};
use admin::{Access, AdminConfig, Check, LogControl, Metric};

enum Toy {
    Work(Duration),
    Poison,
    Block,
}

impl Mail for Toy {
    fn kind(&self) -> &'static str {
        match self {
            Self::Work(_) => "Update",
            Self::Poison => "Poison",
            Self::Block => "Block",
        }
    }
    fn describe(&self) -> String {
        match self {
            Self::Work(_) | Self::Block => self.kind().into(),
            Self::Poison => "Update { device: thermostat-7, temperature: \"<b>NaN</b>\" }".into(),
        }
    }
}

struct Player(Arc<AtomicU64>);

impl actix::Actor for Player {
    type Context = actix::Context<Self>;
}

impl actix::Handler<Lease<Toy>> for Player {
    type Result = ();
    fn handle(&mut self, lease: Lease<Toy>, _: &mut Self::Context) {
        lease.each(|_, toy| match toy {
            Toy::Work(time) => {
                let end = Instant::now() + *time;
                while Instant::now() < end {
                    std::hint::spin_loop();
                }
                self.0.fetch_add(1, Ordering::Relaxed);
            }
            Toy::Poison => panic!("called `Option::unwrap()` on a `None` value: <script>alert(1)</script>"),
            Toy::Block => loop {
                std::thread::park_timeout(Duration::from_secs(1));
            },
        });
    }
}

#[derive(serde::Serialize)]
struct Known {
    devices: u64,
    connected: bool,
    waits_for_the_cloud: Vec<&'static str>,
    session: Session,
}

#[derive(serde::Serialize)]
struct Session {
    peer: &'static str,
    since: &'static str,
}

fn child(handle: &Handle<Toy>) -> ChildSpec {
    let done = Arc::new(AtomicU64::new(0));
    let seen = done.clone();
    ChildSpec::new(handle, move || Player(done.clone())).batch(32).snapshot(move || Known {
        devices: seen.load(Ordering::Relaxed),
        connected: true,
        waits_for_the_cloud: vec!["thermostat-7", "lamp-1"],
        session: Session { peer: "wss://cloud.example:10000", since: "2026-07-24T09:00:00Z" },
    })
}

fn main() {
    actor::install_panic_hook();
    let log = LogControl::init("info", "actix_server=warn").unwrap();
    let port = std::env::args().nth(1).and_then(|port| port.parse().ok()).unwrap_or(10369);
    actix_rt::System::new().block_on(async {
        let policy = Policy {
            ping_every: Duration::from_secs(2),
            silent_for: Duration::from_secs(20),
            sweep_every: Duration::from_secs(1),
            ..Policy::default()
        };
        let quarantine = Quarantine::in_memory();
        quarantine.on_retry(|_| Err("the device is not there any more".into()));
        let registry = Registry::with_quarantine(quarantine);
        let [bus, hub, comm, member, twin, device, meta] =
            ["event-bus", "edge-hub", "communication", "membership", "twin", "device", "meta-manager"].map(|name| mailbox::<Toy>(name, 1024));
        let edged = mailbox::<Toy>("edged", 1024);
        let border = Supervisor::new("border", policy.clone()).child(child(&bus)).child(child(&hub));
        let twins =
            Supervisor::new("twins", policy.clone()).strategy(Strategy::RestForOne).child(child(&member)).child(child(&twin)).child(child(&device));
        let running = Supervisor::new("skep-edge", policy)
            .registered(&registry)
            .child(ChildSpec::tree(border))
            .child(child(&comm))
            .child(ChildSpec::tree(twins))
            .child(child(&meta))
            .child(ChildSpec::disabled(&edged))
            .start(|why| println!("gave up: {why}"));
        let server = admin::serve(
            AdminConfig {
                listen: vec![([127, 0, 0, 1], port).into()],
                read_only: vec![],
                hosts: vec![],
                access: Access::Loopback,
                title: "skep-edge plant-7".into(),
                prefix: "skep_edge",
                extra: Arc::new(|| vec![Metric::counter("store_commits_total", "Transactions.", 7)]),
                checks: Arc::new(|| vec![Check::ready("cloud", Err("not connected: connection refused".into()))]),
                fault_injection: true,
                log: Some(log),
                routes: |_| {},
                data: Arc::new(|_| {}),
            },
            running.clone(),
        )
        .unwrap();
        println!("http://{}", server.addresses[0]);
        registry.note("edge-hub", EventKind::Connected, "wss://cloud.example:10000");
        let poison = || {
            Meta::new("mqtt").entered(Ingress {
                border: "mqtt".into(),
                address: "$hw/events/device/thermostat-7/twin/update".into(),
                payload: Some(vec![b'x'; 312].into()),
            })
        };
        device.try_post(poison(), Toy::Poison).unwrap();
        let mut tick = 0_u64;
        loop {
            tick += 1;
            for _ in 0..5 + (tick / 40) % 9 {
                let _ = twin.try_send(Toy::Work(Duration::from_micros(150)));
                let _ = bus.try_send(Toy::Work(Duration::from_micros(40)));
            }
            let _ = comm.try_send(Toy::Work(Duration::from_micros(if tick.is_multiple_of(50) { 20_000 } else { 90 })));
            if tick == 100 {
                meta.try_send(Toy::Block).unwrap();
                (0..700).for_each(|_| drop(meta.try_send(Toy::Work(Duration::from_micros(10)))));
            }
            if tick == 150 {
                hub.try_send(Toy::Poison).unwrap();
                registry.note("edge-hub", EventKind::Disconnected, "the cloud closed the connection");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
}
