#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use actor::testing::lease;
use model::DeviceState;
use serde_json::json;
use wire::mqtt::payload::AttributesUpdate;

use super::{Config, Device, DeviceMessage, Peers};
use crate::communication::testing::{Workbench, frame, id, kinds, told};
use crate::store::testing::fails_at_every_step;

fn device(bench: &Workbench) -> Device {
    let peers = Peers { communication: bench.communication.handle(), membership: bench.membership.handle(), births: bench.births.clone() };
    Device::new(Config { clock: bench.clock() }, bench.store.clone(), peers)
}

fn state(device: &str, state: &str) -> DeviceMessage {
    DeviceMessage::StateUpdate { device: id(device), event_id: "e".into(), state: DeviceState::new(state).unwrap() }
}

fn attributes(device: &str, attributes: &str) -> DeviceMessage {
    let text = format!(r#"{{"event_id":"e","timestamp":1,"attributes":{attributes}}}"#);
    DeviceMessage::Attributes { device: id(device), update: AttributesUpdate::parse(text.as_bytes()).unwrap(), frame: frame("f") }
}

fn settle(device: &mut Device, messages: Vec<DeviceMessage>) {
    let (lease, probe) = lease(messages);
    device.settle(lease);
    assert!(probe.drain().is_empty(), "all messages are settled");
}

#[test]
fn a_state_is_stored_as_sent_answered_with_a_new_event_id_and_waits_for_the_cloud() {
    let bench = Workbench::with(&["lamp"]);
    settle(&mut device(&bench), vec![state("lamp", "Online")]);
    let stored = bench.stored("lamp").unwrap();
    assert_eq!(stored.state.unwrap().as_str(), "Online");
    assert_eq!(stored.last_online, "2019-03-19T10:00:00Z");
    let told = told(&bench.effects());
    let (topic, answer) = &told[0];
    assert_eq!(topic, "device/lamp/state/update/result");
    assert_eq!(answer["device"]["state"], "Online");
    assert_eq!(answer["device"]["last_online"], "2019-03-19T10:00:00Z");
    assert_ne!(answer["event_id"], "e");
    assert_eq!(told[1].0, "reports");
    assert_eq!(bench.pending("lamp"), ["<state>"]);
}

#[test]
fn each_word_for_a_state_is_taken_in_any_case_and_only_two_of_them_move_last_online() {
    for (word, moves) in [("online", true), ("OK", true), ("Offline", false), ("unknown", false), ("UnHealthy", false)] {
        let bench = Workbench::with(&["lamp"]);
        settle(&mut device(&bench), vec![state("lamp", word)]);
        let stored = bench.stored("lamp").unwrap();
        let last_online = if moves { "2019-03-19T10:00:00Z" } else { "" };
        assert_eq!((stored.state.unwrap().as_str(), stored.last_online.as_str()), (word, last_online));
        let (topic, answer) = &told(&bench.effects())[0];
        assert_eq!(topic, "device/lamp/state/update/result");
        // Both keys of the time, for mappers of either KubeEdge; no id.
        assert_eq!(answer["device"], json!({"name":"Lamp","state":word,"last_online":last_online,"lastOnlineTime":last_online}));
    }
    assert!(DeviceState::new("dancing").is_err(), "what is no state does not come this far");
}

#[test]
fn a_device_that_goes_offline_keeps_when_it_was_last_online() {
    let bench = Workbench::with(&["lamp"]);
    let mut device = device(&bench);
    settle(&mut device, vec![state("lamp", "ok")]);
    bench.clock.advance(60_000);
    settle(&mut device, vec![state("lamp", "offline"), state("lamp", "unhealthy")]);
    let stored = bench.stored("lamp").unwrap();
    assert_eq!(stored.state.unwrap().as_str(), "unhealthy");
    assert_eq!(stored.last_online, "2019-03-19T10:00:00Z");
}

#[test]
fn the_state_of_an_unknown_device_is_ignored_and_its_attributes_are_refused() {
    let bench = Workbench::with(&[]);
    settle(&mut device(&bench), vec![state("nobody", "online"), attributes("nobody", "{}")]);
    assert_eq!(kinds(&bench.effects()), ["refuse f device/nobody"]);
}

#[test]
fn attributes_that_change_are_stored_told_and_acknowledged() {
    let bench = Workbench::with(&["lamp"]);
    let mut device = device(&bench);
    let given = r#"{"a":{"value":"1","optional":false},"b":{"value":"2"}}"#;
    settle(&mut device, vec![attributes("lamp", given)]);
    bench.effects();
    settle(&mut device, vec![attributes("lamp", r#"{"a":null,"b":null,"c":{"value":"3"}}"#)]);
    let told_first = told(&bench.effects());
    let c = json!({"value":"3","optional":true,"metadata":{"type":"string"}});
    assert_eq!(told_first[0], ("device/lamp/updated".into(), json!({"event_id":"e","attributes":{"b":null,"c":c}})));
    assert_eq!(told_first[1].0, "ack f device/lamp");
    let names: Vec<_> = bench.stored("lamp").unwrap().attributes.keys().map(|name| name.to_string()).collect();
    assert_eq!(names, ["a", "c"], "what is not optional stays");
    settle(&mut device, vec![attributes("lamp", r#"{"c":{"value":"3"}}"#)]);
    assert_eq!(kinds(&bench.effects()), ["ack f device/lamp"], "nothing changed, nothing is told");
}

/// Manual ch. 10.4.2: attributes are added, deleted and updated in one transaction or not at all.
#[test]
fn device_attr_trans() {
    let bench = Workbench::with(&["lamp"]);
    let mut device = device(&bench);
    settle(&mut device, vec![attributes("lamp", r#"{"gone":{"value":"1"},"other":{"value":"1"},"kept":{"value":"1"}}"#)]);
    bench.effects();
    let change = r#"{"gone":null,"other":{"value":"2"},"new":{"value":"3"},"newer":{"value":"4"}}"#;
    let steps = fails_at_every_step(&bench.store, || {
        settle(&mut device, vec![attributes("lamp", change)]);
        !bench.effects().is_empty()
    });
    assert!(steps >= 4, "{steps}");
    let attributes = bench.stored("lamp").unwrap().attributes;
    let stored: Vec<_> = attributes.iter().map(|(name, attribute)| (name.as_str(), attribute.value.as_str())).collect();
    assert_eq!(stored, [("kept", "1"), ("new", "3"), ("newer", "4"), ("other", "2")]);
}
