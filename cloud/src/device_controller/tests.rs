#![allow(clippy::unwrap_used, missing_docs)] // a failed step is the test's failure

use model::twin::Origin;
use model::{
    DeviceEntry, DeviceId, NodeName, PropertyChange, PropertyName, PropertySet, Timestamp, Twin, TwinChange, TwinProperty, TwinType, TwinValue,
    TwinVersion, merge,
};
use serde_json::{Value, json};
use wire::mqtt::payload::TwinReport;

use super::state::{Devices, Effect, Owner, RESENDS_MAX, Refused, type_of};
use super::status::{Pending, TwinUpdate};
use crate::watching::Change;

fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

fn id(text: &str) -> DeviceId {
    DeviceId::new(text).unwrap()
}

fn property(name: &str) -> PropertyName {
    PropertyName::new(name).unwrap()
}

fn device(name: &str, on: &str, version: u64, properties: &[(&str, Option<&str>)]) -> Value {
    let properties: Vec<Value> = properties
        .iter()
        .map(|(name, desired)| json!({"name": name, "desired": desired.map(|value| json!({"value": value})), "visitors": {"x": 1}}))
        .collect();
    json!({"apiVersion": "devices.kubeedge.io/v1beta1", "kind": "Device",
        "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}"), "resourceVersion": version.to_string(), "labels": {"description": "a lamp"}},
        "spec": {"deviceModelRef": {"name": "m"}, "nodeName": on, "properties": properties}})
}

fn apply(devices: &mut Devices, device: Value) -> Vec<Effect> {
    devices.device(&Change::Applied(Box::new(serde_json::from_value(device).unwrap())))
}

fn model() -> Change<Box<super::crd::DeviceModel>> {
    let model = json!({"apiVersion": "devices.kubeedge.io/v1beta1", "kind": "DeviceModel", "metadata": {"name": "m", "namespace": "default"},
        "spec": {"properties": [{"name": "temp", "type": "INT"}, {"name": "power", "type": "BOOLEAN"}]}});
    Change::Listed(Box::new(serde_json::from_value(model).unwrap()))
}

/// The model `m` and no device; everything listed.
fn fixture() -> Devices {
    let mut devices = Devices::default();
    devices.model(&Change::Begin);
    devices.model(&model());
    devices.model(&Change::Complete);
    devices.device(&Change::Begin);
    devices.device(&Change::Complete);
    devices
}

fn set<'a>(change: &'a TwinChange, name: &str) -> &'a PropertySet {
    let PropertyChange::Set(set) = &change.properties[&property(name)] else { panic!("{name} is null") };
    set
}

fn version(cloud: i64, edge: i64) -> TwinVersion {
    TwinVersion { cloud, edge }
}

fn only_sync(effects: &[Effect]) -> &TwinChange {
    let [Effect::Sync { change, .. }] = effects else { panic!("not one sync: {effects:?}") };
    change
}

fn only_added(effects: &[Effect]) -> &DeviceEntry {
    let [Effect::Added(_, entry)] = effects else { panic!("not one addition: {effects:?}") };
    entry
}

/// An edge that follows the rules of `model`, to see that the two sides agree in the end.
#[derive(Default)]
struct Edge(Twin);

impl Edge {
    /// Takes what the cloud sends, and reports what it refused.
    fn cloud(&mut self, change: &TwinChange) -> Option<TwinReport> {
        let outcome = merge(&mut self.0, change, Origin::Cloud, Timestamp(1)).unwrap();
        (!outcome.report.is_empty()).then(|| self.report(outcome.report.iter()))
    }

    fn device_expects(&mut self, name: &str, value: &str) -> TwinReport {
        let expected = Some(model::SideChange { value: value.into() });
        let change = [(property(name), PropertyChange::Set(PropertySet { expected, ..PropertySet::default() }))].into_iter().collect();
        let outcome = merge(&mut self.0, &change, Origin::Device, Timestamp(1)).unwrap();
        self.report(outcome.report.iter())
    }

    fn report<'a>(&self, names: impl Iterator<Item = &'a PropertyName>) -> TwinReport {
        let properties = names.map(|name| (name.clone(), self.0.properties[name].clone())).collect();
        TwinReport { event_id: "e".into(), timestamp: Timestamp(7), properties, ..TwinReport::default() }
    }

    fn expected(&self, name: &str) -> &str {
        &self.0.properties[&property(name)].expected.as_ref().unwrap().value
    }
}

#[test]
fn a_new_device_is_bound_with_types_from_its_model_and_versions_from_its_object() {
    let mut devices = fixture();
    let effects = apply(&mut devices, device("lamp", "n1", 7, &[("temp", Some("20")), ("power", None), ("odd", Some("x"))]));
    let entry = only_added(&effects);
    assert_eq!((entry.id.clone(), entry.description.as_str()), (id("lamp"), "a lamp"));
    let temp = set(&entry.twin, "temp");
    assert_eq!(temp.kind.as_ref().unwrap().as_str(), "int");
    assert_eq!((temp.expected.as_ref().unwrap().value.as_str(), temp.expected_version), ("20", Some(version(7, 0))));
    let power = set(&entry.twin, "power");
    assert_eq!((power.kind.as_ref().unwrap().as_str(), &power.expected), ("boolean", &None));
    assert_eq!(set(&entry.twin, "odd").kind, None, "the edge's default: string");
}

#[test]
fn every_type_of_a_model_is_one_that_the_edge_knows() {
    for (kind, expected) in [
        ("INT", TwinType::Int),
        ("float", TwinType::Float),
        ("DOUBLE", TwinType::Float),
        ("BOOLEAN", TwinType::Boolean),
        ("STRING", TwinType::String),
        ("BYTES", TwinType::String),
        ("STREAM", TwinType::String),
    ] {
        assert_eq!(type_of(kind), expected, "{kind}");
    }
}

#[test]
fn a_changed_desired_value_goes_out_and_any_other_change_does_not() {
    let mut devices = fixture();
    apply(&mut devices, device("lamp", "n1", 7, &[("temp", Some("20")), ("power", Some("true"))]));
    assert_eq!(apply(&mut devices, device("lamp", "n1", 8, &[("temp", Some("20")), ("power", Some("true"))])), []);
    let effects = apply(&mut devices, device("lamp", "n1", 9, &[("temp", Some("22")), ("power", Some("true"))]));
    let change = only_sync(&effects);
    assert_eq!(set(change, "temp").expected_version, Some(version(9, 0)));
    assert_eq!(set(change, "power").expected_version, Some(version(7, 0)), "what is wanted as before keeps its version");
}

#[test]
fn a_second_desired_value_is_accepted_after_the_device_has_changed_the_first() {
    let (mut devices, mut edge) = (fixture(), Edge::default());
    let effects = apply(&mut devices, device("lamp", "n1", 7, &[("temp", Some("20"))]));
    assert_eq!(edge.cloud(&only_added(&effects).twin), None);
    let report = edge.device_expects("temp", "25");
    let taken = devices.reported(&node("n1"), &id("lamp"), &report).unwrap();
    assert_eq!(taken.again, None, "a change by the device stays until the cloud wants something new");
    let effects = apply(&mut devices, device("lamp", "n1", 8, &[("temp", Some("22"))]));
    assert_eq!(edge.cloud(only_sync(&effects)), None, "accepted at once");
    assert_eq!(edge.expected("temp"), "22");
}

#[test]
fn a_cloud_that_has_forgotten_everything_learns_from_the_first_refusal() {
    let mut edge = Edge::default();
    let mut devices = fixture();
    let effects = apply(&mut devices, device("lamp", "n1", 7, &[("temp", Some("20"))]));
    edge.cloud(&only_added(&effects).twin);
    edge.device_expects("temp", "25");
    // The cloud starts anew, and the desired value changed meanwhile.
    let mut devices = fixture();
    apply(&mut devices, device("lamp", "n1", 8, &[("temp", Some("22"))]));
    let detail = devices.of_node(&node("n1"));
    let report = edge.cloud(&detail[0].twin).expect("refused, the edge is ahead");
    let again = devices.reported(&node("n1"), &id("lamp"), &report).unwrap().again.expect("sent again");
    assert_eq!(edge.cloud(only_sync(&[again])), None);
    assert_eq!(edge.expected("temp"), "22");
}

#[test]
fn a_database_that_was_made_anew_does_not_lock_devices_out() {
    let mut edge = Edge::default();
    let effects = apply(&mut fixture(), device("lamp", "n1", 5000, &[("temp", Some("20"))]));
    edge.cloud(&only_added(&effects).twin);
    let mut devices = fixture();
    let effects = apply(&mut devices, device("lamp", "n1", 3, &[("temp", Some("22"))]));
    let report = edge.cloud(&only_added(&effects).twin).expect("refused, the version is lower");
    let again = devices.reported(&node("n1"), &id("lamp"), &report).unwrap().again.unwrap();
    assert_eq!(edge.cloud(only_sync(&[again])), None);
    assert_eq!(edge.expected("temp"), "22");
    let effects = apply(&mut devices, device("lamp", "n1", 4, &[("temp", Some("23"))]));
    assert_eq!(edge.cloud(only_sync(&effects)), None);
    assert_eq!(edge.expected("temp"), "23");
}

#[test]
fn a_restart_of_the_cloud_does_not_undo_what_the_device_changed_meanwhile() {
    let mut edge = Edge::default();
    let effects = apply(&mut fixture(), device("lamp", "n1", 7, &[("temp", Some("20"))]));
    edge.cloud(&only_added(&effects).twin);
    edge.device_expects("temp", "25");
    let mut devices = fixture();
    apply(&mut devices, device("lamp", "n1", 7, &[("temp", Some("20"))]));
    let report = edge.cloud(&devices.of_node(&node("n1"))[0].twin).expect("refused, the edge is ahead");
    assert_eq!(devices.reported(&node("n1"), &id("lamp"), &report).unwrap().again, None);
    assert_eq!(edge.expected("temp"), "25");
}

#[test]
fn a_report_of_an_earlier_creation_of_a_device_is_refused_and_one_that_does_not_say_is_taken() {
    let mut devices = fixture();
    let effects = apply(&mut devices, device("lamp", "n1", 7, &[("temp", None)]));
    let uid = only_added(&effects).uid.clone();
    assert!(!uid.is_empty(), "the edge is told which creation it is");
    let mut of = |uid: &str| devices.reported(&node("n1"), &id("lamp"), &TwinReport { uid: uid.into(), ..TwinReport::default() });
    assert_eq!(of("an earlier one").unwrap_err(), Refused::Earlier(id("lamp")));
    assert!(of("").is_ok() && of(&uid).is_ok());
    assert_eq!(devices.owned_by(&node("n1"), &id("lamp"), "an earlier one").unwrap_err(), Refused::Earlier(id("lamp")));
}

#[test]
fn a_report_that_comes_again_after_a_later_one_changes_nothing() {
    let mut devices = fixture();
    apply(&mut devices, device("lamp", "n1", 7, &[("temp", Some("20"))]));
    let report = |at: i64, edge: i64, value: &str| {
        let actual = Some(TwinValue { value: value.into(), timestamp: Timestamp(at) });
        let temp = TwinProperty { actual, actual_version: Some(version(0, edge)), ..TwinProperty::default() };
        TwinReport { timestamp: Timestamp(at), properties: [(property("temp"), temp)].into(), ..TwinReport::default() }
    };
    let mut taken = |report: TwinReport| devices.reported(&node("n1"), &id("lamp"), &report).unwrap().twins.len();
    assert_eq!(taken(report(100, 5, "25")), 1);
    assert_eq!(taken(report(200, 7, "27")), 1);
    assert_eq!(taken(report(100, 5, "25")), 0, "let in again");
    assert_eq!(taken(report(300, 1, "1")), 1, "the edge's database was made anew");
    assert_eq!(taken(report(10, 2, "2")), 1, "its clock was set back");
    assert_eq!(taken(report(20, 2, "2")), 1, "the same once more");
}

#[test]
fn a_device_that_always_overrules_ends_the_argument() {
    let mut devices = fixture();
    apply(&mut devices, device("lamp", "n1", 7, &[("temp", Some("20"))]));
    let mut sent = 0;
    for edge in 1..100 {
        let expected = Some(TwinValue { value: "99".into(), timestamp: Timestamp(1) });
        let told = TwinProperty { expected, expected_version: Some(version(1, edge)), ..TwinProperty::default() };
        let report = TwinReport { properties: [(property("temp"), told)].into(), ..TwinReport::default() };
        sent += u8::from(devices.reported(&node("n1"), &id("lamp"), &report).unwrap().again.is_some());
    }
    assert_eq!(sent, RESENDS_MAX);
}

#[test]
fn a_report_that_was_under_way_while_the_value_changed_is_no_refusal() {
    let (mut devices, mut edge) = (fixture(), Edge::default());
    let effects = apply(&mut devices, device("lamp", "n1", 7, &[("temp", Some("20"))]));
    edge.cloud(&only_added(&effects).twin);
    let report = edge.report(edge.0.properties.keys());
    apply(&mut devices, device("lamp", "n1", 8, &[("temp", Some("22"))]));
    assert_eq!(devices.reported(&node("n1"), &id("lamp"), &report).unwrap().again, None);
}

#[test]
fn a_device_that_moves_is_bound_to_the_new_node_before_it_leaves_the_old_one() {
    let mut devices = fixture();
    apply(&mut devices, device("lamp", "n1", 7, &[("temp", Some("20"))]));
    let effects = apply(&mut devices, device("lamp", "n2", 8, &[("temp", Some("20"))]));
    let [Effect::Added(to, _), Effect::Removed(from, _)] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!((to, from), (&node("n2"), &node("n1")));
    assert_eq!(devices.of_node(&node("n1")), []);
    let effects = apply(&mut devices, device("lamp", "", 9, &[]));
    assert!(matches!(&effects[..], [Effect::Removed(from, _)] if *from == node("n2")));
}

#[test]
fn a_device_made_anew_under_its_name_is_removed_before_it_is_added() {
    let mut devices = fixture();
    apply(&mut devices, device("lamp", "n1", 7, &[("temp", Some("20"))]));
    let mut anew = device("lamp", "n1", 8, &[("temp", Some("20"))]);
    anew["metadata"]["uid"] = json!("other");
    let effects = apply(&mut devices, anew);
    assert!(matches!(&effects[..], [Effect::Removed(..), Effect::Added(..)]), "{effects:?}");
    // What is wanted of it from now on names the new object, so that an edge can tell it from what is late.
    let mut anew = device("lamp", "n1", 9, &[("temp", Some("21"))]);
    anew["metadata"]["uid"] = json!("other");
    let effects = apply(&mut devices, anew);
    assert!(matches!(&effects[..], [Effect::Sync { uid, .. }] if uid == "other"), "{effects:?}");
}

#[test]
fn a_device_deleted_while_nobody_watched_is_removed_when_the_next_list_is_complete() {
    let mut devices = fixture();
    apply(&mut devices, device("lamp", "n1", 7, &[]));
    devices.device(&Change::Begin);
    let effects = devices.device(&Change::Complete);
    assert!(matches!(&effects[..], [Effect::Removed(from, entry)] if *from == node("n1") && entry.id == id("lamp")));
}

#[test]
fn a_removed_property_is_deleted_at_the_edge_and_may_come_back() {
    let (mut devices, mut edge) = (fixture(), Edge::default());
    let effects = apply(&mut devices, device("lamp", "n1", 7, &[("temp", Some("20")), ("power", Some("true"))]));
    edge.cloud(&only_added(&effects).twin);
    let effects = apply(&mut devices, device("lamp", "n1", 8, &[("temp", Some("20"))]));
    assert_eq!(set(only_sync(&effects), "power").kind.as_ref().unwrap().as_str(), "deleted");
    assert_eq!(edge.cloud(only_sync(&effects)), None);
    assert!(edge.0.properties[&property("power")].is_tombstone());
    let effects = apply(&mut devices, device("lamp", "n1", 9, &[("temp", Some("20")), ("power", Some("false"))]));
    assert_eq!(edge.cloud(only_sync(&effects)), None);
    assert_eq!(edge.expected("power"), "false");
}

#[test]
fn a_device_waits_for_its_model_because_a_type_once_given_stays() {
    let mut devices = Devices::default();
    let effects = apply(&mut devices, device("lamp", "n1", 7, &[("temp", Some("20"))]));
    assert!(only_added(&effects).twin.is_empty());
    let effects = devices.model(&model());
    assert_eq!(set(&only_added(&effects).twin, "temp").kind.as_ref().unwrap().as_str(), "int");
    assert_eq!(devices.model(&model()), [], "once");
}

#[test]
fn a_report_is_taken_only_for_a_known_device_of_the_reporting_node() {
    let mut devices = Devices::default();
    let (report, lamp) = (TwinReport::default(), id("lamp"));
    assert_eq!(devices.reported(&node("n1"), &lamp, &report), Err(Refused::NotYet));
    devices = fixture();
    assert_eq!(devices.reported(&node("n1"), &lamp, &report), Err(Refused::Unknown(lamp.clone())));
    apply(&mut devices, device("lamp", "n2", 7, &[]));
    assert_eq!(devices.reported(&node("n1"), &lamp, &report), Err(Refused::Elsewhere(lamp.clone())));
    assert!(devices.reported(&node("n2"), &lamp, &report).is_ok());
}

#[test]
fn a_value_that_no_device_can_read_is_left_out_and_the_rest_goes() {
    let mut devices = fixture();
    let effects = apply(&mut devices, device("lamp", "n1", 7, &[("temp", Some("20")), ("note", Some("has blanks")), ("bad name", Some("1"))]));
    let twin = &only_added(&effects).twin;
    assert_eq!((twin.properties.len(), &set(twin, "note").expected), (2, &None));
}

fn twin(actual: Option<&str>, expected: Option<&str>) -> TwinProperty {
    let side = |value: &str| TwinValue { value: value.into(), timestamp: Timestamp(5) };
    TwinProperty { actual: actual.map(side), expected: expected.map(side), kind: TwinType::Int, ..TwinProperty::default() }
}

#[test]
fn a_report_becomes_reported_and_observed_values_with_time_and_type() {
    let mut pending = Pending::new(Owner { namespace: "default".into(), name: "lamp".into(), uid: "u".into() });
    pending.twins.push(TwinUpdate::of(&property("temp"), &twin(Some("21"), Some("22")), Timestamp(9)));
    let status = pending.merged(&Value::Null);
    assert_eq!(
        status["twins"],
        json!([{"propertyName": "temp", "reported": {"value": "21", "metadata": {"timestamp": "5", "type": "int"}},
            "observedDesired": {"value": "22", "metadata": {"timestamp": "5", "type": "int"}}}])
    );
    assert!(status.get("state").is_none());
}

#[test]
fn a_report_leaves_other_properties_alone_and_takes_away_what_the_device_has_no_more() {
    let before = json!({"twins": [
        {"propertyName": "power", "reported": {"value": "true"}},
        {"propertyName": "gone", "reported": {"value": "1"}},
        {"propertyName": "temp", "reported": {"value": "20"}, "observedDesired": {"value": "22"}}]});
    let mut pending = Pending::new(Owner { namespace: "default".into(), name: "lamp".into(), uid: "u".into() });
    pending.twins.push(TwinUpdate::of(&property("temp"), &twin(Some("21"), None), Timestamp(9)));
    pending.known = Some([property("temp"), property("power")].into());
    let status = pending.merged(&before);
    let names: Vec<&str> = status["twins"].as_array().unwrap().iter().map(|twin| twin["propertyName"].as_str().unwrap()).collect();
    assert_eq!(names, ["power", "temp"]);
    assert_eq!((&status["twins"][1]["reported"]["value"], &status["twins"][1]["observedDesired"]["value"]), (&json!("21"), &json!("22")));
    let tombstone = TwinProperty { kind: TwinType::Deleted, ..TwinProperty::default() };
    pending.twins.push(TwinUpdate::of(&property("temp"), &tombstone, Timestamp(9)));
    assert_eq!(pending.merged(&before)["twins"].as_array().unwrap().len(), 1);
}

#[test]
fn what_is_remembered_of_properties_that_a_node_invents_is_bounded() {
    let mut devices = fixture();
    apply(&mut devices, device("lamp", "n1", 7, &[("temp", Some("20"))]));
    let said = |name: String| {
        let side = TwinProperty { expected_version: Some(version(1, 1)), ..TwinProperty::default() };
        TwinReport { properties: [(property(&name), side)].into(), ..TwinReport::default() }
    };
    for number in 0..5000 {
        devices.reported(&node("n1"), &id("lamp"), &said(format!("p{number}"))).unwrap();
    }
    devices.reported(&node("n1"), &id("lamp"), &said("temp".into())).unwrap();
    assert_eq!(devices.versions_held(&id("lamp")), model::twin::PROPERTIES_MAX + 1);
}
