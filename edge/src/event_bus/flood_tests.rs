//! One client floods; another is heard. The modules' side is a probe that settles nothing until it is asked to.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests: a panic is the failure")]

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use actor::testing::Probe;
use model::{DeviceId, NodeName};

use super::credits::{BYTES_PER_CREDIT, CLIENT_CREDITS, Credits};
use super::testing::{clients_are_installed, eventually, publish};
use super::{Config, EventBusMessage, Peers, Sockets};
use crate::config::Mqtt;
use crate::twin::TwinMessage;

const TOPIC: &str = "$hw/events/device/lamp/twin/update";

/// Whether a purse pays at once.
fn pays(purse: &super::credits::Purse, topic: &str, bytes: usize) -> bool {
    let mut pay = std::pin::pin!(purse.pay(topic, bytes));
    pay.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())).is_ready()
}

fn clocked<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(test)
}

#[test]
fn a_client_has_64_small_requests_on_its_way_or_one_of_a_megabyte_and_the_next_waits_until_one_is_settled() {
    clocked(async {
        let credits = Credits::new(768);
        let purse = credits.purse();
        for _ in 0..CLIENT_CREDITS {
            assert!(pays(&purse, TOPIC, 200));
        }
        assert!(!pays(&purse, TOPIC, 200));
        assert!(pays(&credits.purse(), TOPIC, 200), "another client's turn is not this one's");
        let arrived = credits.arrived(TOPIC).unwrap();
        assert!(!pays(&purse, TOPIC, 200), "arrived is not settled");
        drop(arrived);
        assert!(pays(&purse, TOPIC, 200));

        let large = credits.purse();
        assert!(pays(&large, TOPIC, 64 * BYTES_PER_CREDIT));
        assert!(!pays(&large, TOPIC, 1));
    });
}

#[test]
fn all_clients_together_have_no_more_on_the_way_than_one_mailbox_holds() {
    clocked(async {
        let credits = Credits::new(100);
        let (first, second) = (credits.purse(), credits.purse());
        let paid = |purse| (0..).take_while(|_| pays(purse, TOPIC, 1)).count();
        assert_eq!((paid(&first), paid(&second)), (64, 36));
        assert!(pays(&credits.purse(), "house/lamp", 1), "what no module gets costs nothing");
        let small = Credits::new(12);
        assert!(pays(&small.purse(), TOPIC, 1 << 20), "a message above the sum goes alone");
    });
}

#[test]
fn what_did_not_arrive_another_way_has_no_credits_and_each_is_given_back_once() {
    clocked(async {
        let credits = Credits::new(8);
        assert!(credits.arrived(TOPIC).is_none());
        assert!(pays(&credits.purse(), TOPIC, 1));
        assert!(credits.arrived("$hw/events/device/fan/twin/update").is_none());
        assert!(credits.arrived(TOPIC).is_some());
        assert!(credits.arrived(TOPIC).is_none());
    });
}

struct World {
    twin: Probe<TwinMessage>,
    own: Probe<EventBusMessage>,
    sockets: Sockets,
}

impl World {
    fn start() -> Self {
        let (twin, own) = (Probe::new("twin", 1024), Probe::new("eventbus", 1024));
        let peers = Peers {
            twin: twin.handle(),
            membership: Probe::new("membership", 16).handle(),
            device: Probe::new("device", 16).handle(),
            communication: Probe::new("communication", 16).handle(),
            own: own.handle(),
        };
        let mqtt = Mqtt { internal_server: "tcp://127.0.0.1:0".into(), ..Mqtt::default() };
        let sockets = Sockets::start(Config::new(&mqtt, NodeName::new("edge-1").unwrap()).unwrap(), peers, Vec::new()).unwrap();
        eventually("connected", || own.try_next().is_some_and(|message| matches!(&*message, EventBusMessage::TransportUp { .. })));
        Self { twin, own, sockets }
    }

    fn broker(&self) -> SocketAddr {
        self.sockets.broker_address().unwrap()
    }

    fn waiting(&self) -> usize {
        self.twin.handle().observe().sample().1
    }

    /// Settles what is there; says of which devices it was.
    fn settle(&self) -> Vec<DeviceId> {
        let taken = self.twin.drain();
        taken.iter().filter_map(|message| if let TwinMessage::Update { device, .. } = &**message { Some(device.clone()) } else { None }).collect()
    }
}

/// A client that sends these lines as fast as it can.
fn flood(broker: SocketAddr, qos: &str, topic: &str, line: &str, times: usize) -> Child {
    let mut child = Command::new("mosquitto_pub")
        .args(["-h", &broker.ip().to_string(), "-p", &broker.port().to_string(), "-q", qos, "-t", topic, "-l"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut input, lines) = (child.stdin.take().unwrap(), format!("{line}\n").repeat(times));
    std::thread::spawn(move || input.write_all(lines.as_bytes()));
    child
}

#[test]
fn a_flood_waits_at_its_own_client_nothing_of_it_is_lost_and_another_is_heard_in_between() {
    if !clients_are_installed() {
        return;
    }
    for qos in ["0", "1"] {
        let world = World::start();
        let mut flooding = flood(world.broker(), qos, TOPIC, r#"{"event_id":"a","twin":{"t":{"actual":{"value":"1"}}}}"#, 5_000);
        eventually("the flood has its 64", || world.waiting() == 64);
        publish(world.broker(), &["-q", "1", "-t", "$hw/events/device/fan/twin/get", "-m", "{}"]);
        eventually("the other one is heard", || world.waiting() >= 65);
        assert_eq!(world.waiting(), 65, "the flood got more than its share");
        let mut arrived = 0;
        eventually("all of the flood arrives", || {
            arrived += world.settle().len();
            arrived == 5_000
        });
        assert!(flooding.wait().unwrap().success());
        let figures = world.sockets.ingress_figures();
        assert_eq!((figures.busy, figures.dropped), (0, 0));
    }
}

#[test]
fn a_flood_of_nonsense_waits_for_its_answers_and_another_is_heard_in_between() {
    if !clients_are_installed() {
        return;
    }
    let world = World::start();
    let mut flooding = flood(world.broker(), "0", TOPIC, "nonsense", 5_000);
    let answers = || world.own.handle().observe().sample().1;
    eventually("64 answers wait to go out", || answers() == 64);
    publish(world.broker(), &["-q", "1", "-t", "$hw/events/device/fan/twin/get", "-m", "{}"]);
    eventually("the other one is heard", || world.waiting() == 1);
    assert_eq!(answers(), 64);
    let mut answered = 0;
    eventually("each is answered", || {
        answered += world.own.drain().len();
        answered == 5_000
    });
    assert!(flooding.wait().unwrap().success());
    assert_eq!(world.sockets.ingress_figures().dropped, 0);
}

#[test]
fn qos_2_that_is_never_released_holds_up_its_own_client_alone_and_not_for_ever() {
    clocked(async {
        let credits = Credits::new(768);
        let purse = credits.purse();
        while pays(&purse, TOPIC, 1) {}
        // Nothing arrives. The purse waits, and pays again after a while.
        tokio::time::timeout(super::testing::SOON, purse.pay(TOPIC, 1)).await.expect("what is lost goes back");
    });
}
