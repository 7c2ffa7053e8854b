//! Every topic of KubeEdge's EventBus (`eventbus/mqtt/client.go`, `devicetwin/dtcommon`): subscribed, routed and published, with
//! its QoS and retain flag.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests: a panic is the failure")]

use std::collections::BTreeMap;

use model::DeviceId;
use wire::mqtt::{SUBSCRIBE_FILTERS, Topic};

use super::EventBusMessage;
use super::scripted::{Answer, PUBLISH, SUBSCRIBE, Scripted};
use super::testing::{Client, Mosquitto, clients_are_installed, eventually, publish};
use super::tests::{World, handle, lamp, node, publication, settings, started};
use crate::communication::CommunicationMessage;
use crate::config::{DeviceTopics, Mqtt};
use crate::device::DeviceMessage;
use crate::membership::MembershipMessage;
use crate::twin::TwinMessage;

/// What KubeEdge subscribes: to 1.16, and since 1.17.
const KUBEEDGE_FILTERS: &[&str] = &[
    "$hw/events/upload/#",
    "$hw/events/device/+/state/update",
    "$hw/events/device/+/twin/+",
    "$hw/events/node/+/membership/get",
    "SYS/dis/upload_records",
    "$hw/events/device/+/+/state/update",
    "$hw/events/device/+/+/twin/+",
    "+/user/#",
];

fn external(broker: &Scripted) -> Mqtt {
    settings(2, format!("tcp://{}", broker.address))
}

/// The newest subscription of each filter.
fn subscribed(broker: &Scripted) -> BTreeMap<String, u8> {
    broker.packets(SUBSCRIBE).iter().flat_map(|packet| packet.subscriptions()).collect()
}

#[test]
fn each_filter_of_kubeedge_is_subscribed_with_its_qos() {
    let expected = |qos: u8| KUBEEDGE_FILTERS.iter().map(|filter| ((*filter).to_owned(), qos)).collect::<BTreeMap<_, _>>();
    assert_eq!(SUBSCRIBE_FILTERS.len(), KUBEEDGE_FILTERS.len());
    for external_qos in [0, 1, 2] {
        let broker = Scripted::start(|_| Answer::Properly);
        let world = World::new(16);
        let (_sockets, _) = started(&world, &Mqtt { external_qos, ..external(&broker) });
        assert_eq!(subscribed(&broker), expected(external_qos));
    }
    assert_eq!(Mqtt::default().external_qos, 1, "KubeEdge's");
}

/// Who is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum To {
    Twin,
    Membership,
    Device,
    Cloud,
}

fn told(world: &World) -> Vec<To> {
    let twin = world.twin.drain().into_iter().map(|m| match &*m {
        TwinMessage::Update { .. } | TwinMessage::Get { .. } | TwinMessage::Report { .. } => To::Twin,
        other => panic!("{other:?}"),
    });
    let membership = world.membership.drain().into_iter().map(|m| match &*m {
        MembershipMessage::Get { .. } => To::Membership,
        other => panic!("{other:?}"),
    });
    let device = world.device.drain().into_iter().map(|m| match &*m {
        DeviceMessage::StateUpdate { .. } => To::Device,
        other => panic!("{other:?}"),
    });
    let cloud = world.communication.drain().into_iter().map(|m| match &*m {
        CommunicationMessage::Upload { .. } => To::Cloud,
        other => panic!("{other:?}"),
    });
    twin.chain(membership).chain(device).chain(cloud).collect()
}

#[test]
fn what_arrives_on_each_topic_goes_to_whom_it_is_for() {
    if !clients_are_installed() {
        return;
    }
    let Some(mosquitto) = Mosquitto::start() else { return };
    let world = World::new(64);
    let (sockets, _) = started(&world, &settings(2, format!("tcp://{}", mosquitto.address)));
    let update = r#"{"event_id":"e","twin":{"t":{"actual":{"value":"1"}}}}"#;
    for (topic, body, to) in [
        ("$hw/events/device/lamp/twin/update", update, To::Twin),
        ("$hw/events/device/lamp/twin/get", "{}", To::Twin),
        ("$hw/events/device/lamp/twin/cloud_updated", update, To::Twin),
        ("$hw/events/device/lamp/state/update", r#"{"state":"online"}"#, To::Device),
        ("$hw/events/device/house/lamp/twin/update", update, To::Twin),
        ("$hw/events/device/house/lamp/twin/get", "{}", To::Twin),
        ("$hw/events/device/house/lamp/twin/cloud_updated", update, To::Twin),
        ("$hw/events/device/house/lamp/state/update", r#"{"state":"online"}"#, To::Device),
        ("$hw/events/node/edge-1/membership/get", "{}", To::Membership),
        ("$hw/events/node/any/membership/get", "{}", To::Membership),
        ("$hw/events/upload/a/b", "x", To::Cloud),
        ("$hw/events/upload", "x", To::Cloud),
        ("SYS/dis/upload_records", "x", To::Cloud),
        ("house/user/a/b", "x", To::Cloud),
        ("house/user", "x", To::Cloud),
    ] {
        publish(mosquitto.address, &["-q", "1", "-t", topic, "-m", body]);
        let mut who = Vec::new();
        eventually(topic, || {
            who.extend(told(&world));
            !who.is_empty()
        });
        assert_eq!(who, [to], "{topic}");
    }
    // What Skep publishes is subscribed by no filter: not one of these even arrives.
    let before = sockets.figures()[0].arrived;
    for topic in published() {
        publish(mosquitto.address, &["-q", "1", "-t", &topic.to_string(), "-m", "{}"]);
    }
    publish(mosquitto.address, &["-q", "1", "-t", "SYS/dis/upload_records", "-m", "end"]);
    eventually("the end", || told(&world) == [To::Cloud]);
    assert_eq!(sockets.figures()[0].arrived, before + 1);
}

/// Every topic that Skep publishes by itself, of devices of both forms, and two that only the cloud names.
fn published() -> Vec<Topic> {
    let mut all = vec![
        Topic::MembershipGetResult(node()),
        Topic::MembershipUpdated(node()),
        Topic::AuthInfoGetResult(node()),
        Topic::NodeConnection,
        Topic::parse("what/the/cloud/names").unwrap(),
        Topic::parse("$hw/what/the/cloud/names").unwrap(),
    ];
    for id in [lamp(), DeviceId::new("house/lamp").unwrap()] {
        let of: [fn(DeviceId) -> Topic; 6] = [
            Topic::DeviceStateUpdateResult,
            Topic::DeviceUpdated,
            Topic::TwinUpdateResult,
            Topic::TwinUpdateDocument,
            Topic::TwinUpdateDelta,
            Topic::TwinGetResult,
        ];
        all.extend(of.map(|topic| topic(id.clone())));
    }
    all
}

#[test]
fn each_topic_is_published_outside_with_qos_1_and_never_retained_and_inside_as_the_keys_say() {
    if !clients_are_installed() {
        return;
    }
    for (qos, retain) in [(0, false), (1, true), (2, true)] {
        let outside = Scripted::start(|_| Answer::Properly);
        let world = World::new(64);
        let mqtt = Mqtt { qos, retain, device_topics: DeviceTopics::Short, ..settings(1, format!("tcp://{}", outside.address)) };
        let (sockets, mut bus) = started(&world, &mqtt);
        let inside = sockets.broker_address().unwrap();
        let arguments = ["-q", "2", "-F", "%t %p q%q r%r", "-t", "$hw/#", "-t", "node/connection", "-t", "what/#"];
        let mut listener = Client::subscribe(inside, &arguments);
        for topic in published() {
            handle(&mut bus, vec![publication(topic.clone(), "x")]);
            assert_eq!(listener.line(), format!("{topic} x q{qos} r0"));
        }
        let expected: Vec<_> = published().iter().map(|topic| (topic.to_string(), "x".to_owned(), 1, false)).collect();
        eventually("all are outside", || outside.packets(PUBLISH).len() >= expected.len());
        assert_eq!(outside.packets(PUBLISH).iter().map(|packet| packet.publication()).collect::<Vec<_>>(), expected);
        if retain {
            let mut late = Client::subscribe(inside, &arguments);
            let mut kept: Vec<String> = published().iter().map(|_| late.line()).collect();
            kept.sort_unstable();
            let mut expected: Vec<String> = published().iter().map(|topic| format!("{topic} x q{qos} r1")).collect();
            expected.sort_unstable();
            assert_eq!(kept, expected);
        }
    }
}

#[test]
fn what_the_cloud_has_subscribed_survives_a_restart_of_the_daemon_until_it_is_ended() {
    let world = World::new(16);
    let broker = Scripted::start(|_| Answer::Properly);
    let (sockets, mut bus) = started(&world, &external(&broker));
    let subscribe = |filter: &str| EventBusMessage::Subscribe { filter: filter.into() };
    handle(&mut bus, vec![subscribe("kept/+"), subscribe("ended/#"), subscribe("bad#"), subscribe("kept/+")]);
    handle(&mut bus, vec![EventBusMessage::Unsubscribe { filter: "ended/#".into() }, EventBusMessage::Unsubscribe { filter: "never".into() }]);
    drop((sockets, bus));

    let later = Scripted::start(|_| Answer::Properly);
    let (sockets, mut bus) = started(&world, &external(&later));
    eventually("it is subscribed again", || subscribed(&later).get("kept/+") == Some(&1));
    assert_eq!(subscribed(&later).len(), KUBEEDGE_FILTERS.len() + 1);
    assert_eq!(sockets.snapshot()().subscriptions, KUBEEDGE_FILTERS.len() + 1);
    handle(&mut bus, vec![EventBusMessage::Unsubscribe { filter: "kept/+".into() }]);
    drop((sockets, bus));

    let last = Scripted::start(|_| Answer::Properly);
    let (_sockets, _bus) = started(&world, &external(&last));
    assert_eq!(subscribed(&last).len(), KUBEEDGE_FILTERS.len());
}
