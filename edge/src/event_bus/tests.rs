//! EventBus as a whole: devices (mosquitto's clients) on one side, probes in place of the modules on the other.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests: a panic is the failure")]

use std::sync::Arc;
use std::time::Duration;

use actor::testing::{Probe, lease};
use bytes::Bytes;
use model::{DeviceId, ManualClock, NodeName, Timestamp};
use wire::mqtt::Topic;

use super::echo::Echoes;
use super::forms::Forms;
use super::ingress::{Ignored, Ingress, Inward, classify};
use super::testing::{Client, Mosquitto, clients_are_installed, eventually, publish};
use super::transport::Inbound as _;
use super::{Config, EventBus, EventBusMessage, PAYLOAD_BYTES_MAX, Peers, Sockets};
use crate::communication::CommunicationMessage;
use crate::config::{DeviceTopics, Mqtt};
use crate::device::DeviceMessage;
use crate::membership::MembershipMessage;
use crate::store::{Store, subscription};
use crate::twin::TwinMessage;

pub(super) struct World {
    store: Store,
    _dir: tempfile::TempDir,
    pub(super) twin: Probe<TwinMessage>,
    pub(super) membership: Probe<MembershipMessage>,
    pub(super) device: Probe<DeviceMessage>,
    pub(super) communication: Probe<CommunicationMessage>,
    own: Probe<EventBusMessage>,
}

impl World {
    pub(super) fn new(capacity: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self {
            store: Store::open(dir.path().join("edge.db")).unwrap(),
            _dir: dir,
            twin: Probe::new("twin", capacity),
            membership: Probe::new("membership", capacity),
            device: Probe::new("device", capacity),
            communication: Probe::new("communication", capacity),
            own: Probe::new("eventbus", capacity),
        }
    }

    fn peers(&self) -> Peers {
        Peers {
            twin: self.twin.handle(),
            membership: self.membership.handle(),
            device: self.device.handle(),
            communication: self.communication.handle(),
            own: self.own.handle(),
        }
    }

    fn ingress(&self) -> Ingress {
        let clock = Arc::new(ManualClock::at(Timestamp(1_000)));
        Ingress::new(node(), clock, Arc::new(Forms::new(DeviceTopics::Auto)), Arc::new(Echoes::default()), self.peers())
    }

    /// Topic and JSON of the next publication.
    fn published(&self) -> (String, serde_json::Value) {
        let message = self.own.try_next().expect("a publication");
        let EventBusMessage::Publish { topic, payload } = &*message else { panic!("{:?}", &*message) };
        (topic.to_string(), serde_json::from_slice(payload).unwrap())
    }
}

pub(super) fn node() -> NodeName {
    NodeName::new("edge-1").unwrap()
}

pub(super) fn lamp() -> DeviceId {
    DeviceId::new("lamp").unwrap()
}

fn seen(topic: &str, payload: &str) -> Inward {
    classify(&node(), Topic::parse(topic).unwrap(), topic, payload.as_bytes())
}

#[test]
fn each_topic_goes_to_its_module_in_both_forms_of_the_device_id() {
    let update = r#"{"event_id":"e","twin":{"t":{"actual":{"value":"1"}}}}"#;
    for id in ["lamp", "default/lamp"] {
        let topic = |words: &str| format!("$hw/events/device/{id}/{words}");
        assert!(
            matches!(seen(&topic("twin/update"), update), Inward::Twin(TwinMessage::Update { device, request }) if device == lamp() && request.event_id == "e")
        );
        assert!(
            matches!(seen(&topic("twin/get"), r#"{"event_id":"g"}"#), Inward::Twin(TwinMessage::Get { device, event_id }) if device == lamp() && event_id == "g")
        );
        assert!(
            matches!(seen(&topic("state/update"), r#"{"state":"online"}"#), Inward::Device(DeviceMessage::StateUpdate { device, .. }) if device == lamp())
        );
    }
    assert!(matches!(seen("$hw/events/node/any/membership/get", "{}"), Inward::Membership(MembershipMessage::Get { .. })));
    for topic in ["$hw/events/upload/a/b", "SYS/dis/upload_records", "house/user/x", "what/the/cloud/subscribed"] {
        assert!(
            matches!(seen(topic, "\u{1F41D}"), Inward::Upload(CommunicationMessage::Upload { topic: t, payload }) if t == topic && payload == "\u{1F41D}".as_bytes())
        );
    }
}

#[test]
fn nobody_speaks_for_the_cloud_by_mqtt_but_a_mapper_may_ask_for_a_report() {
    let world = World::new(16);
    let ingress = world.ingress();
    let topic = "$hw/events/device/lamp/twin/cloud_updated";
    ingress.arrived(topic, br#"{"event_id":"e","twin":{"t":{"expected":{"value":"1"},"expected_version":{"cloud":9,"edge":9}}}}"#);
    let taken = world.twin.try_next().unwrap();
    assert!(
        matches!(&*taken, TwinMessage::Report { device, names, .. } if *device == lamp() && names.iter().map(|n| n.as_str()).eq(["t"])),
        "{:?}",
        *taken
    );

    ingress.arrived(topic, b"{");
    let (topic, answer) = world.published();
    assert_eq!((topic.as_str(), &answer["code"]), ("$hw/events/device/lamp/twin/update/result", &400.into()));
    assert!(world.twin.try_next().is_none());
}

#[test]
fn the_client_id_at_an_external_broker_stays_the_same() {
    for mode in [1, 2] {
        let config = Config::new(&settings(mode, "tcp://127.0.0.1:1".into()), node()).unwrap();
        let ids: Vec<&str> = config.endpoints.iter().map(|endpoint| endpoint.client_id.as_str()).collect();
        assert_eq!(ids, ["skep-edge-edge-1"]);
    }
}

#[test]
fn what_is_no_request_is_passed_over_and_never_published_again() {
    for topic in [
        "$hw/events/device/lamp/twin/other",
        "$hw/events/device/lamp/twin/update/result",
        "$hw/events/device/a/b/c/d/twin/update",
        "$hw/events/node/n/other",
        "node/connection",
    ] {
        assert!(matches!(seen(topic, "{}"), Inward::Ignored(Ignored::Topic)), "{topic}");
    }
    for body in ["", "x", "{}", r#"{"state":"dancing"}"#, r#"{"state":5}"#] {
        assert!(matches!(seen("$hw/events/device/lamp/state/update", body), Inward::Ignored(Ignored::State)), "{body}");
    }
}

#[test]
fn a_malformed_request_is_answered_on_the_topic_of_its_own_device() {
    let world = World::new(16);
    let ingress = world.ingress();
    ingress.arrived("$hw/events/device/lamp/twin/update", b"{");
    let (topic, body) = world.published();
    assert_eq!(topic, "$hw/events/device/lamp/twin/update/result");
    assert_eq!((&body["code"], &body["timestamp"]), (&400.into(), &1_000.into()));
    ingress.arrived("$hw/events/device/lamp/twin/update", br#"{"event_id":"e7","twin":{"bad key":null}}"#);
    let (_, body) = world.published();
    assert_eq!(body["event_id"], "e7");
    assert!(body["reason"].as_str().unwrap().starts_with("The key of twin must only include"));
    ingress.arrived("$hw/events/device/house/lamp/twin/get", b"\"x\"");
    assert_eq!(world.published().0, "$hw/events/device/house/lamp/twin/get/result");
    ingress.arrived("$hw/events/node/other/membership/get", b"nonsense");
    assert_eq!(world.published().0, "$hw/events/node/edge-1/membership/get/result");
    assert_eq!(ingress.figures().refused, 4);
    assert!(world.twin.try_next().is_none());
}

#[test]
fn hostile_topics_and_bodies_are_counted_and_harm_nobody() {
    let world = World::new(64);
    let ingress = world.ingress();
    let deep = "[".repeat(100_000);
    let large = vec![b' '; (1 << 20) + 1];
    for body in [&b"\xff\xfe"[..], deep.as_bytes(), &large, b"{\"twin\":{\"a\":{\"actual\":{\"value\":\"\\u0000\"}}}}"] {
        ingress.arrived("$hw/events/device/lamp/twin/update", body);
        let (_, answer) = world.published();
        assert_eq!(answer["code"], 400);
        assert!(answer.to_string().len() < 2_048);
    }
    for topic in ["", "a\0b", "a\nb", "$hw/events/device/lamp/extra/level/twin/update", "$hw/events/device//twin/update"] {
        ingress.arrived(topic, b"{}");
        assert!(world.own.try_next().is_none(), "{topic:?}");
    }
    assert_eq!(ingress.figures().ignored, 5);
}

#[test]
fn a_full_mailbox_is_answered_500_where_somebody_asked_and_counted_where_nobody_did() {
    let world = World::new(1);
    let ingress = world.ingress();
    let update = br#"{"event_id":"first","twin":{}}"#;
    ingress.arrived("$hw/events/device/lamp/twin/update", update);
    ingress.arrived("$hw/events/device/lamp/twin/update", br#"{"event_id":"second","twin":{}}"#);
    let (topic, body) = world.published();
    assert_eq!(topic, "$hw/events/device/lamp/twin/update/result");
    assert_eq!((&body["code"], &body["event_id"]), (&500.into(), &"second".into()));
    ingress.arrived("$hw/events/device/lamp/state/update", br#"{"state":"online"}"#);
    ingress.arrived("$hw/events/device/lamp/state/update", br#"{"state":"online"}"#);
    ingress.arrived("$hw/events/upload/x", b"1");
    ingress.arrived("$hw/events/upload/x", b"2");
    let figures = ingress.figures();
    assert_eq!((figures.busy, figures.dropped), (1, 2));
    assert_eq!(world.twin.drain().len(), 1);
}

pub(super) fn settings(mode: u8, server: String) -> Mqtt {
    Mqtt { mode, server, internal_server: "tcp://127.0.0.1:0".into(), ..Mqtt::default() }
}

pub(super) fn started(world: &World, mqtt: &Mqtt) -> (Sockets, EventBus) {
    let sockets = Sockets::start(Config::new(mqtt, node()).unwrap(), world.peers(), world.store.read(subscription::all).unwrap()).unwrap();
    eventually("connected everywhere", || sockets.figures().iter().all(|figures| figures.connected));
    let bus = sockets.factory(world.store.clone())();
    (sockets, bus)
}

pub(super) fn handle(bus: &mut EventBus, messages: Vec<EventBusMessage>) {
    let (lease, _probe) = lease(messages);
    bus.settle(lease);
}

pub(super) fn publication(topic: Topic, body: &str) -> EventBusMessage {
    EventBusMessage::Publish { topic, payload: Bytes::copy_from_slice(body.as_bytes()) }
}

#[test]
fn in_mode_0_a_device_is_heard_and_answered_through_the_embedded_broker() {
    if !clients_are_installed() {
        return;
    }
    let world = World::new(16);
    let (sockets, mut bus) = started(&world, &settings(0, String::new()));
    let broker = sockets.broker_address().unwrap();
    publish(broker, &["-t", "$hw/events/device/lamp/twin/get", "-m", r#"{"event_id":"e"}"#]);
    eventually("Twin is asked", || world.twin.try_next().is_some());
    let mut device = Client::subscribe(broker, &["-t", "$hw/events/device/+/twin/get/result", "-t", "$hw/events/device/+/+/twin/get/result"]);
    handle(&mut bus, vec![publication(Topic::TwinGetResult(lamp()), "short")]);
    assert_eq!(device.line(), "$hw/events/device/lamp/twin/get/result short");
    // Its mapper was heard in the short form, another one's in the long form.
    publish(broker, &["-t", "$hw/events/device/default/fan/twin/get", "-m", "{}"]);
    eventually("Twin is asked", || world.twin.try_next().is_some());
    handle(&mut bus, vec![publication(Topic::TwinGetResult(DeviceId::new("fan").unwrap()), "long")]);
    assert_eq!(device.line(), "$hw/events/device/default/fan/twin/get/result long");
    // A third one was not heard yet.
    handle(&mut bus, vec![publication(Topic::TwinGetResult(DeviceId::new("new").unwrap()), "both")]);
    assert_eq!(device.line(), "$hw/events/device/new/twin/get/result both");
    assert_eq!(device.line(), "$hw/events/device/default/new/twin/get/result both");
}

#[test]
fn the_key_for_device_topics_decides_on_which_a_listener_of_both_hears_a_result() {
    if !clients_are_installed() {
        return;
    }
    const SHORT: &str = "$hw/events/device/lamp/twin/get/result x";
    const LONG: &str = "$hw/events/device/default/lamp/twin/get/result x";
    for (device_topics, expected) in [
        (DeviceTopics::Auto, vec![SHORT, LONG]),
        (DeviceTopics::Short, vec![SHORT]),
        (DeviceTopics::Long, vec![LONG]),
        (DeviceTopics::Both, vec![SHORT, LONG]),
    ] {
        let world = World::new(16);
        let (sockets, mut bus) = started(&world, &Mqtt { device_topics, ..settings(0, String::new()) });
        let mut device = Client::subscribe(sockets.broker_address().unwrap(), &["-t", "$hw/events/device/#", "-t", "end"]);
        handle(&mut bus, vec![publication(Topic::TwinGetResult(lamp()), "x"), publication(Topic::parse("end").unwrap(), "")]);
        let heard: Vec<String> = std::iter::from_fn(|| Some(device.line()).filter(|line| !line.starts_with("end"))).collect();
        assert_eq!(heard, expected, "{device_topics:?}");
    }
}

#[test]
fn in_mode_2_everything_goes_through_a_real_mosquitto() {
    if !clients_are_installed() {
        return;
    }
    let Some(mosquitto) = Mosquitto::start() else { return };
    let world = World::new(16);
    let (sockets, mut bus) = started(&world, &settings(2, format!("tcp://{}", mosquitto.address)));
    assert_eq!(sockets.broker_address(), None);
    publish(mosquitto.address, &["-q", "1", "-t", "$hw/events/device/lamp/twin/update", "-m", r#"{"event_id":"e","twin":{}}"#]);
    eventually("Twin is asked", || world.twin.try_next().is_some());
    publish(mosquitto.address, &["-t", "$hw/events/device/lamp/twin/update", "-m", "not json"]);
    eventually("an error result", || {
        world.own.try_next().is_some_and(|m| matches!(&*m, EventBusMessage::Publish { topic: Topic::TwinUpdateResult(_), .. }))
    });
    let mut device = Client::subscribe(mosquitto.address, &["-q", "1", "-F", "%t %p q%q r%r", "-t", "$hw/events/node/edge-1/membership/updated"]);
    handle(&mut bus, vec![publication(Topic::MembershipUpdated(node()), "x")]);
    assert_eq!(device.line(), "$hw/events/node/edge-1/membership/updated x q1 r0");
}

#[test]
fn in_mode_1_both_brokers_are_heard_and_served_and_one_that_is_away_holds_up_nobody() {
    if !clients_are_installed() {
        return;
    }
    let Some(mut mosquitto) = Mosquitto::start() else { return };
    let world = World::new(16);
    let (sockets, mut bus) = started(&world, &settings(1, format!("tcp://{}", mosquitto.address)));
    let broker = sockets.broker_address().unwrap();
    for address in [broker, mosquitto.address] {
        publish(address, &["-t", "$hw/events/device/lamp/state/update", "-m", r#"{"state":"online"}"#]);
        eventually("Device is told", || world.device.try_next().is_some());
    }
    let mut inside = Client::subscribe(broker, &["-t", "$hw/events/device/lamp/updated"]);
    let mut outside = Client::subscribe(mosquitto.address, &["-t", "$hw/events/device/lamp/updated"]);
    handle(&mut bus, vec![publication(Topic::DeviceUpdated(lamp()), "1")]);
    assert_eq!((inside.line(), outside.line()), ("$hw/events/device/lamp/updated 1".into(), "$hw/events/device/lamp/updated 1".into()));
    mosquitto.kill();
    eventually("noticed", || sockets.figures().iter().any(|figures| !figures.connected));
    handle(&mut bus, vec![publication(Topic::DeviceUpdated(lamp()), "2")]);
    assert_eq!(inside.line(), "$hw/events/device/lamp/updated 2");
}

#[test]
fn the_clouds_subscription_becomes_an_upload_and_survives_a_restart_of_the_actor() {
    if !clients_are_installed() {
        return;
    }
    let world = World::new(16);
    let (sockets, mut bus) = started(&world, &settings(0, String::new()));
    let broker = sockets.broker_address().unwrap();
    handle(&mut bus, vec![EventBusMessage::Subscribe { filter: "a/+/b".into() }, EventBusMessage::Subscribe { filter: "bad#".into() }]);
    drop(bus);
    let mut bus = sockets.factory(world.store.clone())();
    eventually("an upload", || {
        publish(broker, &["-t", "a/x/b", "-m", "data"]);
        world
            .communication
            .try_next()
            .is_some_and(|m| matches!(&*m, CommunicationMessage::Upload { topic, payload } if topic == "a/x/b" && payload == "data"))
    });
    handle(&mut bus, vec![EventBusMessage::Unsubscribe { filter: "a/+/b".into() }]);
}

#[test]
fn what_the_cloud_publishes_on_a_subscribed_topic_does_not_come_back_to_it_and_a_devices_message_there_does() {
    if !clients_are_installed() {
        return;
    }
    let Some(mosquitto) = Mosquitto::start() else { return };
    let world = World::new(64);
    let (sockets, mut bus) = started(&world, &settings(1, format!("tcp://{}", mosquitto.address)));
    handle(&mut bus, vec![EventBusMessage::Subscribe { filter: "shared/+".into() }]);
    let brokers = [sockets.broker_address().unwrap(), mosquitto.address];
    // Subscribed at both brokers, and empty again.
    eventually("both subscriptions stand", || {
        brokers.iter().for_each(|broker| publish(*broker, &["-t", "shared/ready", "-m", "?"]));
        world.communication.drain().len() >= 2
    });
    for topic in ["house/user/lamp", "shared/x", "SYS/dis/upload_records", "$hw/events/upload/x"] {
        handle(&mut bus, vec![publication(Topic::parse(topic).unwrap(), "on")]);
    }
    eventually("all came back from the other broker", || sockets.ingress_figures().echoed == 4);
    for broker in brokers {
        for topic in ["house/user/lamp", "shared/x"] {
            publish(broker, &["-t", topic, "-m", "on"]);
        }
    }
    let uploads =
        || world.communication.drain().into_iter().filter(|m| matches!(&**m, CommunicationMessage::Upload { payload, .. } if payload == "on"));
    let mut heard = 0;
    eventually("the devices are heard", || {
        heard += uploads().count();
        heard == 4
    });
    assert_eq!(sockets.ingress_figures().echoed, 4, "at our own broker nothing comes back");
}

#[test]
fn a_bridge_that_brings_results_back_as_requests_ends_after_one_round() {
    if !clients_are_installed() {
        return;
    }
    let Some(mosquitto) = Mosquitto::start() else { return };
    let world = World::new(64);
    let (sockets, mut bus) = started(&world, &settings(2, format!("tcp://{}", mosquitto.address)));
    let result = r#"{"event_id":"e","timestamp":1,"twin":{"t":{"actual":{"value":"1"}}}}"#;
    let mut bridge = Client::subscribe(mosquitto.address, &["-F", "%p", "-t", "$hw/events/device/lamp/twin/update/result"]);
    handle(&mut bus, vec![publication(Topic::TwinUpdateResult(lamp()), result)]);
    let brought = bridge.line();
    for id in ["lamp", "default/lamp", "house/other"] {
        publish(mosquitto.address, &["-t", &format!("$hw/events/device/{id}/twin/update"), "-m", &brought]);
    }
    eventually("all are passed over", || sockets.ingress_figures().echoed == 3);
    publish(mosquitto.address, &["-t", "$hw/events/device/lamp/twin/update", "-m", &brought.replace("\"e\"", "\"f\"")]);
    eventually("a mapper is heard", || {
        world.twin.try_next().is_some_and(|m| matches!(&*m, TwinMessage::Update { request, .. } if request.event_id == "f"))
    });
}

#[test]
fn a_message_that_is_too_large_for_mqtt_is_dropped_and_the_next_one_goes_out() {
    if !clients_are_installed() {
        return;
    }
    let world = World::new(16);
    let (sockets, mut bus) = started(&world, &settings(0, String::new()));
    let mut device = Client::subscribe(sockets.broker_address().unwrap(), &["-t", "t"]);
    let large = "x".repeat(PAYLOAD_BYTES_MAX + 1);
    let topic = || Topic::parse("t").unwrap();
    handle(&mut bus, vec![publication(topic(), &large), publication(topic(), "next")]);
    assert_eq!(device.line(), "t next");
}

#[test]
fn an_address_that_cannot_be_used_is_refused_with_what_to_write() {
    for server in ["", "tcp://", "tcp://host", "tcp://host:99999", "http://host:1883", "tcp://:1883"] {
        let error = Config::new(&settings(2, server.into()), node()).err().expect(server).to_string();
        assert!(error.contains("`mqtt.server`") && error.contains("tcp://HOST:PORT"), "{error}");
    }
    let internal = Mqtt { internal_server: "tcp://no such host:1".into(), ..settings(0, String::new()) };
    assert!(Config::new(&internal, node()).err().unwrap().to_string().contains("mqtt.internal-server"));
}

#[test]
fn an_occupied_port_of_the_embedded_broker_ends_the_start() {
    let occupied = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = occupied.local_addr().unwrap();
    let mqtt = Mqtt { internal_server: format!("tcp://{address}"), ..settings(0, String::new()) };
    let error = Sockets::start(Config::new(&mqtt, node()).unwrap(), World::new(1).peers(), Vec::new()).err().unwrap();
    assert!(error.to_string().contains(&address.to_string()));
}

#[test]
fn more_than_fits_waits_in_the_mailbox_until_the_broker_takes_it() {
    if !clients_are_installed() {
        return;
    }
    let world = World::new(16);
    let (sockets, _) = started(&world, &settings(0, String::new()));
    let mut device = Client::subscribe(sockets.broker_address().unwrap(), &["-t", "many"]);
    let count = 20_000;
    let (handle, factory) = (actor::mailbox::<EventBusMessage>("eventbus", count), sockets.factory(world.store.clone()));
    for number in 0..count {
        let message = publication(Topic::parse("many").unwrap(), &number.to_string());
        assert!(handle.try_send(message).is_ok());
    }
    actix_rt::System::new().block_on(async {
        let running = actor::Supervisor::new("edge", actor::Policy::default())
            .child(actor::ChildSpec::new(&handle, factory).batch(512))
            .start(|why| panic!("{why}"));
        let reader = tokio::task::spawn_blocking(move || {
            for number in 0..count {
                assert_eq!(device.line(), format!("many {number}"));
            }
        });
        tokio::time::timeout(Duration::from_secs(60), reader).await.unwrap().unwrap();
        running.shutdown().await;
    });
    assert_eq!(sockets.figures()[0].dropped, 0);
}
