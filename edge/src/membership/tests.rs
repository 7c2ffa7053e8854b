#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use actor::testing::lease;
use model::{AttributeName, DeviceId, NodeName, PropertyName, TwinVersion};
use serde_json::json;
use wire::mqtt::Topic;
use wire::mqtt::payload::{MembershipDetail, MembershipUpdate};

use super::{Config, Membership, MembershipMessage, Peers};
use crate::communication::testing::{NOW, Workbench, body, frame, kinds, told};
use crate::store::testing::{contents, fails_at_every_step, tamper};
use crate::store::{device, pending_report};

fn membership(bench: &Workbench) -> Membership {
    let node = NodeName::new("edge-1").unwrap();
    let peers = Peers { communication: bench.communication.handle(), births: bench.births.clone() };
    Membership::new(Config { node, clock: bench.clock() }, bench.store.clone(), peers)
}

fn detail(devices: &str) -> MembershipMessage {
    let text = format!(r#"{{"event_id":"x","timestamp":1,"devices":{devices}}}"#);
    MembershipMessage::Detail { detail: MembershipDetail::parse(text.as_bytes()).unwrap(), frame: frame("f") }
}

fn update(added: &str, removed: &str) -> MembershipMessage {
    let text = format!(r#"{{"event_id":"x","timestamp":1,"added_devices":{added},"removed_devices":{removed}}}"#);
    MembershipMessage::Update { update: MembershipUpdate::parse(text.as_bytes()).unwrap(), frame: frame("f") }
}

fn lamp_id() -> DeviceId {
    DeviceId::new("lamp").unwrap()
}

fn settle(membership: &mut Membership, messages: Vec<MembershipMessage>) {
    let (lease, probe) = lease(messages);
    membership.settle(lease);
    assert!(probe.drain().is_empty(), "all messages are settled");
}

const LAMP: &str = r#"{"id":"lamp","name":"Lamp","description":"hall",
    "attributes":{"model":{"value":"m1"}},
    "twin":{"t":{"expected":{"value":"20"},"expected_version":{"cloud":3,"edge":0},"optional":false,"metadata":{"type":"int"}}}}"#;

#[test]
fn a_listed_device_is_stored_with_twin_and_attributes_then_announced_then_acknowledged() {
    let bench = Workbench::with(&[]);
    settle(&mut membership(&bench), vec![detail(&format!("[{LAMP}]"))]);
    let lamp = bench.stored("lamp").unwrap();
    assert_eq!((lamp.name.as_str(), lamp.description.as_str()), ("Lamp", "hall"));
    assert_eq!(lamp.attributes[&AttributeName::new("model").unwrap()].value, "m1");
    let twin = &lamp.twin.properties[&PropertyName::new("t").unwrap()];
    assert_eq!(twin.expected_version, Some(TwinVersion { cloud: 3, edge: 0 }));
    let effects = bench.effects();
    assert_eq!(
        kinds(&effects),
        [
            "device/lamp/twin/update/document",
            "device/lamp/twin/update/delta",
            "device/lamp/updated",
            "node/edge-1/membership/updated",
            "ack f membership/detail",
            "membership received"
        ]
    );
    let announced = body(&effects, &Topic::MembershipUpdated(NodeName::new("edge-1").unwrap()));
    assert_eq!(announced["added_devices"][0]["id"], "lamp");
    assert_eq!(announced["removed_devices"], json!(null));
    assert_eq!(announced["added_devices"][0]["twin"]["t"]["expected"], json!({"value":"20"}));
    assert!(announced["added_devices"][0]["twin"]["t"].get("expected_version").is_none());
    let document = body(&effects, &Topic::TwinUpdateDocument(lamp.id));
    assert_eq!(document["event_id"], "", "the event id of a list is not echoed");
}

#[test]
fn devices_that_a_full_list_leaves_out_go_with_their_rows() {
    let bench = Workbench::with(&["old", "kept"]);
    settle(&mut membership(&bench), vec![detail(r#"[{"id":"kept","name":"another name"}]"#)]);
    assert!(bench.stored("old").is_none());
    assert_eq!(bench.stored("kept").unwrap().name, "Lamp", "a known device keeps its name");
    let told = told(&bench.effects());
    assert_eq!(told.len(), 3, "{told:?}");
    assert_eq!(told[0].1["removed_devices"], json!([{"id":"old"}]));
}

#[test]
fn a_device_that_was_created_again_starts_without_the_values_and_reports_of_its_predecessor() {
    let bench = Workbench::with(&[]);
    let mut membership = membership(&bench);
    settle(&mut membership, vec![detail(&format!("[{}]", LAMP.replacen('{', r#"{"uid":"first","#, 1)))]);
    let before = bench.store.read(|read| device::incarnation(read, &lamp_id())).unwrap();
    bench.effects();
    // The same object again, and a cloud that does not say which: nothing changes.
    settle(&mut membership, vec![detail(r#"[{"id":"lamp","uid":"first"}]"#), detail(r#"[{"id":"lamp"}]"#)]);
    assert_eq!(bench.store.read(|read| device::incarnation(read, &lamp_id())).unwrap(), before);

    settle(&mut membership, vec![detail(r#"[{"id":"lamp","uid":"second","twin":{"p":{"metadata":{"type":"int"}}}}]"#)]);
    let lamp = bench.stored("lamp").unwrap();
    let properties: Vec<String> = lamp.twin.properties.keys().map(ToString::to_string).collect();
    assert_eq!((properties, lamp.attributes.len()), (vec!["p".to_owned()], 0));
    assert_ne!(bench.store.read(|read| device::incarnation(read, &lamp_id())).unwrap(), before);
    let told = kinds(&bench.effects());
    let memberships = told.iter().filter(|kind| *kind == "node/edge-1/membership/updated").count();
    assert_eq!(memberships, 2, "its leaving and its coming: {told:?}");
    assert!(bench.store.read(|read| pending_report::of_device(read, &lamp_id())).unwrap().properties.is_empty());
}

#[test]
fn an_empty_full_list_removes_all_and_an_empty_update_nothing() {
    let bench = Workbench::with(&["a", "b"]);
    let mut membership = membership(&bench);
    settle(&mut membership, vec![update("null", "null")]);
    assert!(bench.stored("a").is_some() && bench.stored("b").is_some());
    settle(&mut membership, vec![detail("[]")]);
    assert!(bench.stored("a").is_none() && bench.stored("b").is_none());
}

#[test]
fn an_update_binds_and_unbinds_and_a_device_that_returns_begins_anew() {
    let bench = Workbench::with(&[]);
    let mut membership = membership(&bench);
    let incarnation = || bench.read(|read| crate::store::device::incarnation(read, &crate::communication::testing::id("lamp")));
    settle(&mut membership, vec![update(&format!("[{LAMP}]"), "null")]);
    let first = incarnation();
    settle(&mut membership, vec![update("null", r#"[{"id":"lamp"},{"id":"nobody"}]"#)]);
    assert_eq!(incarnation(), None);
    settle(&mut membership, vec![update(r#"[{"id":"default/lamp"}]"#, "null")]);
    assert!(incarnation() > first);
    assert!(bench.stored("lamp").unwrap().twin.properties.is_empty());
}

#[test]
fn attributes_that_a_list_does_not_name_go_and_those_of_a_list_without_any_stay() {
    let bench = Workbench::with(&[]);
    let mut membership = membership(&bench);
    settle(&mut membership, vec![detail(&format!("[{LAMP}]"))]);
    bench.effects();
    settle(&mut membership, vec![detail(r#"[{"id":"lamp"}]"#)]);
    assert_eq!(bench.stored("lamp").unwrap().attributes.len(), 1);
    settle(&mut membership, vec![detail(r#"[{"id":"lamp","attributes":{"colour":{"value":"red"}}}]"#)]);
    let effects = bench.effects();
    let updated = body(&effects, &Topic::DeviceUpdated(bench.stored("lamp").unwrap().id));
    assert_eq!(updated["event_id"], "");
    assert_eq!(updated["attributes"]["model"], json!(null));
    assert_eq!(updated["attributes"]["colour"]["value"], "red");
}

#[test]
fn a_list_older_than_what_is_here_changes_nothing_and_the_cloud_hears_what_is_here() {
    let bench = Workbench::with(&[]);
    let mut membership = membership(&bench);
    settle(&mut membership, vec![detail(&format!("[{LAMP}]"))]);
    bench.effects();
    settle(&mut membership, vec![detail(&format!("[{}]", LAMP.replace(r#""cloud":3"#, r#""cloud":2"#).replace("20", "9")))]);
    let twin = bench.stored("lamp").unwrap().twin;
    assert_eq!(twin.properties[&PropertyName::new("t").unwrap()].expected.as_ref().unwrap().value, "20");
    assert_eq!(bench.pending("lamp"), ["t"]);
    assert!(kinds(&bench.effects()).contains(&"reports".to_owned()));
}

#[test]
fn who_asks_gets_all_devices_with_attributes_and_without_twins() {
    let bench = Workbench::with(&[]);
    let mut membership = membership(&bench);
    let get = || MembershipMessage::Get { event_id: "g".into() };
    settle(&mut membership, vec![get()]);
    settle(&mut membership, vec![detail(&format!("[{LAMP}]")), get()]);
    let told = told(&bench.effects());
    assert_eq!(told[0], ("node/edge-1/membership/get/result".into(), json!({"event_id":"g","devices":[]})));
    let attributes = json!({"model":{"value":"m1","optional":true,"metadata":{"type":"string"}}});
    let lamp = json!({"id":"lamp","name":"Lamp","description":"hall","attributes":attributes});
    assert_eq!(told.last().unwrap().1, json!({"event_id":"g","devices":[lamp]}));
}

#[test]
fn a_removal_is_announced_as_it_was_received_and_one_of_nobody_is_not() {
    let bench = Workbench::with(&[]);
    let mut membership = membership(&bench);
    settle(&mut membership, vec![update(&format!("[{LAMP}]"), "null")]);
    bench.effects();
    settle(&mut membership, vec![update("null", r#"[{"id":"lamp","name":"Lamp","description":"gone"},{"id":"nobody"}]"#)]);
    let told = told(&bench.effects());
    let [updated, ack] = &told[..] else { panic!("{told:?}") };
    assert_eq!(updated.0, "node/edge-1/membership/updated");
    assert_eq!(updated.1["removed_devices"], json!([{"id":"lamp","name":"Lamp","description":"gone"}]));
    assert_eq!((&updated.1["added_devices"], ack.0.as_str()), (&json!(null), "ack f membership"));
    assert_ne!(updated.1["event_id"], "x", "an id of its own");
}

#[test]
fn a_known_device_that_is_listed_again_keeps_its_state_and_is_not_announced() {
    let bench = Workbench::with(&[]);
    let mut membership = membership(&bench);
    settle(&mut membership, vec![update(r#"[{"id":"lamp","name":"Lamp","state":"unknown"}]"#, "null")]);
    assert_eq!(bench.stored("lamp").unwrap().state.unwrap().as_str(), "unknown");
    bench.effects();
    let again = r#"[{"id":"lamp","name":"other","description":"other","state":"online","last_online":"2020-01-01T00:00:00Z"}]"#;
    settle(&mut membership, vec![update(again, "null"), detail(again)]);
    let lamp = bench.stored("lamp").unwrap();
    assert_eq!((lamp.name.as_str(), lamp.description.as_str(), lamp.last_online.as_str()), ("Lamp", "", ""));
    assert_eq!(lamp.state.unwrap().as_str(), "unknown");
    assert_eq!(kinds(&bench.effects()), ["ack f membership", "ack f membership/detail", "membership received"]);
}

#[test]
fn a_deleted_property_of_a_listed_device_is_null_in_the_announcement() {
    let bench = Workbench::with(&[]);
    let deleted = r#"[{"id":"lamp","twin":{"gone":{"metadata":{"type":"deleted"},"expected_version":{"cloud":4,"edge":0}},"t":{}}}]"#;
    settle(&mut membership(&bench), vec![update(deleted, "null")]);
    let announced = body(&bench.effects(), &Topic::MembershipUpdated(NodeName::new("edge-1").unwrap()));
    assert_eq!(announced["added_devices"][0]["twin"], json!({"gone":null,"t":{"optional":true,"metadata":{"type":"string"}}}));
}

#[test]
fn a_node_has_16384_devices_and_what_is_above_is_left_out_while_those_it_has_go_on() {
    let bench = Workbench::with(&["lamp"]);
    let mut membership = membership(&bench);
    let many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 16382) INSERT INTO device (id) SELECT 'd' || i FROM n";
    tamper(&bench.store, many);
    settle(&mut membership, vec![update(r#"[{"id":"last"},{"id":"above"},{"id":"far-above"}]"#, "[]")]);
    assert!(bench.stored("last").is_some() && bench.stored("above").is_none() && bench.stored("far-above").is_none());
    settle(&mut membership, vec![update(&format!("[{LAMP}]"), r#"[{"id":"d1"}]"#)]);
    assert_eq!(bench.stored("lamp").unwrap().twin.properties.len(), 1, "one that is there is refreshed");
    settle(&mut membership, vec![update(r#"[{"id":"above"}]"#, "[]")]);
    assert!(bench.stored("above").is_some(), "there was room again");
}

/// Manual ch. 10.4.1: device, attributes and twin come in one transaction or not at all.
#[test]
fn add_device_trans() {
    let bench = Workbench::with(&["other"]);
    let mut membership = membership(&bench);
    let steps = fails_at_every_step(&bench.store, || {
        settle(&mut membership, vec![update(&format!("[{LAMP}]"), "[]")]);
        let told = kinds(&bench.effects());
        assert!(told.is_empty() || told.iter().any(|kind| kind == "ack f membership"), "{told:?}");
        !told.is_empty()
    });
    // The number of the creation, the row, its uid, the property, its report, the attribute.
    assert!(steps >= 5, "{steps}");
    let lamp = bench.stored("lamp").unwrap();
    assert_eq!((lamp.attributes.len(), lamp.twin.properties.len()), (1, 1));
}

/// Manual ch. 10.4.1: device, attributes and twin go in one transaction or not at all.
#[test]
fn delete_device_trans() {
    let bench = Workbench::with(&["other"]);
    let mut membership = membership(&bench);
    let before = contents(&bench.store).len();
    settle(&mut membership, vec![update(&format!("[{LAMP}]"), "[]")]);
    bench.write(|tx| {
        let incarnation = device::incarnation(tx, &lamp_id())?.unwrap();
        pending_report::state(tx, &lamp_id(), incarnation, NOW, actor::MsgId::fresh())
    });
    bench.effects();
    let steps = fails_at_every_step(&bench.store, || {
        settle(&mut membership, vec![update("[]", r#"[{"id":"lamp"}]"#)]);
        !bench.effects().is_empty()
    });
    assert!(steps >= 4, "{steps}");
    assert!(bench.stored("lamp").is_none() && bench.stored("other").is_some());
    let rows = contents(&bench.store).into_iter().filter(|row| !row.starts_with("sqlite_sequence")).collect::<Vec<_>>();
    assert_eq!(rows.len(), before, "{rows:?}");
}
