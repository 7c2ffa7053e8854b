//! Order across modules: Membership, Twin and Device over one store, with mailboxes that a test empties as it likes.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use actor::Meta;
use actor::testing::Probe;
use model::{NodeName, PropertyName};
use proptest::prelude::*;
use wire::mqtt::payload::{AttributesUpdate, MembershipDetail, MembershipUpdate, StateUpdate, TwinUpdate};

use super::{Config, Membership, MembershipMessage, Peers};
use crate::communication::testing::{Workbench, frame, id, kinds, told};
use crate::device::{self, Device, DeviceMessage};
use crate::store::device as table;
use crate::twin::{self, Twin, TwinMessage};

struct Scene {
    bench: Workbench,
    twin_mail: Probe<TwinMessage>,
    device_mail: Probe<DeviceMessage>,
    membership: Membership,
    twin: Twin,
    device: Device,
}

impl Scene {
    fn new() -> Self {
        let bench = Workbench::with(&[]);
        let (communication, births, store) = (bench.communication.handle(), bench.births.clone(), bench.store.clone());
        let node = NodeName::new("edge-1").unwrap();
        let peers = Peers { communication: communication.clone(), births: births.clone() };
        let membership = Membership::new(Config { node, clock: bench.clock() }, store.clone(), peers);
        let peers = twin::Peers { communication: communication.clone(), membership: bench.membership.handle(), births: births.clone() };
        let twin = Twin::new(twin::Config { clock: bench.clock() }, store.clone(), peers);
        let peers = device::Peers { communication, membership: bench.membership.handle(), births };
        let device = Device::new(device::Config { clock: bench.clock() }, store, peers);
        Self { bench, twin_mail: Probe::new("twin", 64), device_mail: Probe::new("device", 64), membership, twin, device }
    }

    // What arrives, stamped as EventBus and EdgeHub do.

    fn bind(&self, uid: &str) {
        let text = format!(r#"{{"added_devices":[{{"id":"lamp","uid":"{uid}"}}]}}"#);
        self.change(MembershipUpdate::parse(text.as_bytes()).unwrap());
    }

    fn unbind(&self) {
        self.change(MembershipUpdate::parse(br#"{"removed_devices":[{"id":"lamp"}]}"#).unwrap());
    }

    fn change(&self, update: MembershipUpdate) {
        self.bench.membership.handle().try_send(MembershipMessage::Update { update, frame: frame("m") }).unwrap();
    }

    fn list(&self, devices: &str) {
        let detail = MembershipDetail::parse(format!(r#"{{"devices":{devices}}}"#).as_bytes()).unwrap();
        self.bench.membership.handle().try_send(MembershipMessage::Detail { detail, frame: frame("m") }).unwrap();
    }

    fn to_twin(&self, message: TwinMessage) {
        self.twin_mail.handle().try_post(Meta::new("test").behind(self.bench.membership.handle().ticket()), message).unwrap();
    }

    fn to_device(&self, message: DeviceMessage) {
        self.device_mail.handle().try_post(Meta::new("test").behind(self.bench.membership.handle().ticket()), message).unwrap();
    }

    fn mqtt(&self, value: u32) {
        self.to_twin(TwinMessage::Update { device: id("lamp"), request: actual(value) });
    }

    fn cloud(&self, uid: &str, value: u32) {
        self.to_twin(TwinMessage::CloudSync { device: id("lamp"), request: wanted(uid, value), frame: frame("s") });
    }

    // What the modules do, when the test lets them.

    fn run_membership(&mut self, max: usize) {
        if let Some(lease) = self.bench.membership.lend(max) {
            self.membership.settle(lease);
        }
    }

    fn run_twin(&mut self, max: usize) {
        if let Some(lease) = self.twin_mail.lend(max) {
            self.twin.settle(lease);
        }
    }

    fn run_all(&mut self) {
        while let Some(lease) = self.bench.membership.lend(64) {
            self.membership.settle(lease);
        }
        while let Some(lease) = self.twin_mail.lend(64) {
            self.twin.settle(lease);
        }
        while let Some(lease) = self.device_mail.lend(64) {
            self.device.settle(lease);
        }
    }

    /// Value and edge version of property `t`, or that the device has none; `None` when there is no device.
    fn lamp(&self) -> Option<Option<(String, i64)>> {
        let stored = self.bench.stored("lamp")?;
        let property = stored.twin.properties.get(&PropertyName::new("t").unwrap());
        Some(property.and_then(|property| Some((property.actual.clone()?.value, property.actual_version?.edge))))
    }
}

fn actual(value: u32) -> TwinUpdate {
    TwinUpdate::parse(format!(r#"{{"event_id":"{value}","twin":{{"t":{{"actual":{{"value":"{value}"}}}}}}}}"#).as_bytes()).unwrap()
}

fn wanted(uid: &str, value: u32) -> TwinUpdate {
    let side = format!(r#"{{"w":{{"expected":{{"value":"{value}"}},"expected_version":{{"cloud":{value},"edge":0}}}}}}"#);
    TwinUpdate::parse(format!(r#"{{"event_id":"c","uid":"{uid}","twin":{side}}}"#).as_bytes()).unwrap()
}

/// The codes of all twin results that were told, in order; 200 where there is none.
fn codes(scene: &Scene) -> Vec<(String, u64)> {
    let results = told(&scene.bench.effects()).into_iter().filter(|(topic, _)| topic.ends_with("/result"));
    results.map(|(_, body)| (body["event_id"].as_str().unwrap().to_owned(), body["code"].as_u64().unwrap_or(200))).collect()
}

#[test]
fn what_arrived_before_a_device_was_bound_anew_is_for_the_one_that_is_gone() {
    let mut scene = Scene::new();
    scene.bind("1");
    scene.run_all();
    scene.bench.effects();
    scene.mqtt(1);
    scene.cloud("", 1);
    scene.unbind();
    scene.mqtt(2);
    scene.cloud("", 2);
    scene.to_twin(TwinMessage::Get { device: id("lamp"), event_id: "get".into() });
    scene.to_twin(TwinMessage::Report { device: id("lamp"), event_id: "wish".into(), names: vec![PropertyName::new("w").unwrap()] });
    scene.bind("2");
    scene.mqtt(3);
    // Membership is quicker than Twin: all of it is committed when Twin looks at its first message.
    scene.run_all();
    assert_eq!(scene.lamp(), Some(Some(("3".to_owned(), 1))));
    let stored = scene.bench.stored("lamp").unwrap();
    assert!(!stored.twin.properties.contains_key("w"), "a wish of the cloud for the old device");
    let effects = scene.bench.effects();
    let said: Vec<_> = told(&effects).into_iter().filter(|(topic, _)| topic.ends_with("/result") || topic.starts_with("refuse")).collect();
    let said: Vec<_> = said.iter().map(|(topic, body)| (topic.as_str(), body["event_id"].as_str(), body["code"].as_u64())).collect();
    let (result, got, refused) = ("device/lamp/twin/update/result", "device/lamp/twin/get/result", "refuse s device/lamp/twin/cloud_updated");
    assert_eq!(
        said,
        [
            (result, Some("1"), Some(404)),
            (result, Some("c"), Some(404)),
            (refused, None, None),
            (result, Some("2"), Some(404)),
            (result, Some("c"), Some(404)),
            (refused, None, None),
            (got, Some("get"), Some(404)),
            (result, Some("wish"), Some(404)),
            (result, Some("3"), None),
        ]
    );
}

#[test]
fn the_same_holds_when_a_full_list_replaces_the_device_in_one_step() {
    let mut scene = Scene::new();
    scene.bind("1");
    scene.mqtt(1);
    scene.list(r#"[{"id":"lamp","uid":"2"}]"#);
    scene.to_twin(TwinMessage::Get { device: id("lamp"), event_id: "new".into() });
    scene.run_all();
    assert_eq!(scene.lamp(), Some(None));
    assert_eq!(codes(&scene), [("1".to_owned(), 404), ("new".to_owned(), 200)]);
}

#[test]
fn a_batch_of_questions_alone_sees_the_change_as_well() {
    let mut scene = Scene::new();
    scene.to_twin(TwinMessage::Get { device: id("lamp"), event_id: "early".into() });
    scene.bind("1");
    scene.run_membership(64);
    scene.run_twin(64);
    assert_eq!(codes(&scene), [("early".to_owned(), 404)]);
}

#[test]
fn a_state_and_attributes_of_the_old_device_do_not_reach_the_new_one() {
    let mut scene = Scene::new();
    scene.bind("1");
    scene.run_all();
    let state = |word: &str| {
        let state = StateUpdate::parse(format!(r#"{{"state":"{word}"}}"#).as_bytes()).unwrap().state;
        DeviceMessage::StateUpdate { device: id("lamp"), event_id: String::new(), state }
    };
    let attributes = |name: &str| {
        let update = AttributesUpdate::parse(format!(r#"{{"attributes":{{"{name}":{{"value":"1"}}}}}}"#).as_bytes()).unwrap();
        DeviceMessage::Attributes { device: id("lamp"), update, frame: frame(name) }
    };
    scene.to_device(state("online"));
    scene.to_device(attributes("old"));
    scene.unbind();
    scene.bind("2");
    scene.to_device(attributes("new"));
    scene.bench.effects();
    scene.run_all();
    let stored = scene.bench.stored("lamp").unwrap();
    assert_eq!(stored.state, None);
    assert_eq!(stored.attributes.keys().map(|name| name.as_str()).collect::<Vec<_>>(), ["new"]);
    let answers: Vec<_> = kinds(&scene.bench.effects()).into_iter().filter(|kind| kind.starts_with("ack n") || kind.starts_with("refuse")).collect();
    assert_eq!(answers, ["refuse old device/lamp", "ack new device/lamp"]);
}

#[test]
fn what_the_cloud_wanted_of_an_earlier_creation_is_refused_whenever_it_arrives() {
    let mut scene = Scene::new();
    scene.bind("2");
    scene.cloud("1", 5);
    scene.cloud("2", 6);
    scene.cloud("", 7);
    scene.run_all();
    let effects = scene.bench.effects();
    let answers: Vec<_> = kinds(&effects).into_iter().filter(|kind| kind.contains("cloud_updated") || kind.ends_with("result")).collect();
    let (refused, taken) = ("refuse s device/lamp/twin/cloud_updated", "ack s device/lamp/twin/cloud_updated");
    assert_eq!(answers, [refused, taken, taken], "no mapper hears an error of a device that is there");
    assert_eq!(scene.bench.stored("lamp").unwrap().twin.properties["w"].expected.as_ref().unwrap().value, "7");
}

#[test]
fn births_of_devices_that_are_gone_are_forgotten() {
    let mut scene = Scene::new();
    for uid in 0..5 {
        scene.bind(&uid.to_string());
        scene.unbind();
    }
    scene.bind("last");
    scene.run_all();
    assert_eq!(scene.bench.births.len(), 6);
    scene.membership.count();
    assert_eq!(scene.bench.births.len(), 1);
    let last = scene.bench.read(|read| table::incarnation(read, &id("lamp"))).unwrap();
    assert!(scene.bench.births.is_earlier(actor::Ticket::default(), last));
}

#[derive(Clone, Copy, Debug)]
enum Arrival {
    Bind(u8),
    Unbind,
    Mqtt,
    Cloud,
    /// Not an arrival: a module gets to work off so many.
    Membership(u8),
    Twin(u8),
}

fn any_arrival() -> impl Strategy<Value = Arrival> {
    prop_oneof![
        2 => (0..3_u8).prop_map(Arrival::Bind),
        1 => Just(Arrival::Unbind),
        4 => Just(Arrival::Mqtt),
        1 => Just(Arrival::Cloud),
        2 => (1..4_u8).prop_map(Arrival::Membership),
        2 => (1..6_u8).prop_map(Arrival::Twin),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever the modules do when, the end is the one of a single hand that takes everything as it arrives. An answer is
    /// another only where the device has gone since: then a message may find nobody.
    #[test]
    fn any_schedule_ends_like_the_order_of_arrival(arrivals in proptest::collection::vec(any_arrival(), 1..40)) {
        let mut scene = Scene::new();
        // The single hand: uid of the device that is there, and what property `t` has.
        let mut lamp: Option<(u8, Option<(String, i64)>)> = None;
        // Each answer with the creation of the device that it is about; 0 where there is none.
        let (mut expected, mut answered) = (Vec::new(), Vec::new());
        let mut creation = 0;
        for (number, arrival) in arrivals.into_iter().enumerate() {
            let number = u32::try_from(number).unwrap() + 1;
            match arrival {
                Arrival::Bind(uid) => {
                    scene.bind(&uid.to_string());
                    if lamp.as_ref().is_none_or(|(there, _)| *there != uid) {
                        lamp = Some((uid, None));
                        creation += 1;
                    }
                }
                Arrival::Unbind => {
                    scene.unbind();
                    lamp = None;
                }
                Arrival::Mqtt => {
                    scene.mqtt(number);
                    expected.push((number.to_string(), if lamp.is_some() { creation } else { 0 }));
                    if let Some((_, twin)) = &mut lamp {
                        *twin = Some((number.to_string(), twin.as_ref().map_or(1, |(_, version)| version + 1)));
                    }
                }
                Arrival::Cloud => {
                    scene.cloud("", number);
                }
                Arrival::Membership(count) => scene.run_membership(count.into()),
                Arrival::Twin(count) => scene.run_twin(count.into()),
            }
            answered.extend(codes(&scene));
        }
        scene.run_all();
        answered.extend(codes(&scene));
        let present = if lamp.is_some() { creation } else { 0 };
        prop_assert_eq!(scene.lamp(), lamp.map(|(_, twin)| twin));
        answered.retain(|(event, _)| event != "c");
        prop_assert_eq!(answered.len(), expected.len(), "each is answered once");
        for ((event, code), (asked, of)) in answered.into_iter().zip(expected) {
            prop_assert_eq!(&event, &asked, "in the order of arrival");
            match of {
                0 => prop_assert_eq!(code, 404, "{} found a device that it was not for", event),
                of if of == present => prop_assert_eq!(code, 200, "{} is for the device that is there", event),
                _ => prop_assert!(code == 200 || code == 404),
            }
        }
    }
}
