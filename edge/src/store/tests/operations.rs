//! The operations of manual ch. 10.4, under their names there. The four "trans" are tested where they happen: in the
//! tests of Membership, Device and Twin.

use model::{Attribute, AttributeName, DeviceState, Timestamp};

use super::*;
use crate::store::testing::contents;

const DEVICES: &str = "SELECT id || '|' || name || '|' || description || '|' || state || '|' || last_online AS value FROM device ORDER BY id";
const ATTRIBUTES: &str =
    "SELECT id || '|' || deviceid || '|' || name || '|' || value || '|' || optional || '|' || attr_type AS value FROM device_attr ORDER BY id";
const TWINS: &str = "SELECT id || '|' || deviceid || '|' || name || '|' || coalesce(expected, '∅') || '|' || coalesce(actual, '∅') || '|' || attr_type AS value FROM device_twin ORDER BY id";

fn attr(text: &str) -> AttributeName {
    AttributeName::new(text).unwrap()
}

fn attribute(value: &str) -> Attribute {
    Attribute { value: value.into(), optional: true, kind: "string".into() }
}

fn tombstone() -> TwinProperty {
    TwinProperty { kind: TwinType::Deleted, expected_version: Some(TwinVersion { cloud: 4, edge: 4 }), ..TwinProperty::default() }
}

/// Two devices, each with the attributes and properties `a` and `b`.
fn two() -> Fixture {
    let fixture = fixture();
    fixture.write(|tx| {
        for lamp in ["fan", "lamp"].map(device) {
            device::insert(tx, &lamp)?;
            for of in ["a", "b"] {
                attribute::put(tx, &lamp.id, &attr(of), &attribute("1"))?;
                twin::put(tx, &lamp.id, &name(of), &property("1"))?;
            }
        }
        Ok(())
    });
    fixture
}

fn state(text: &str) -> DeviceState {
    DeviceState::new(text).unwrap()
}

#[test]
fn save_device() {
    let fixture = fixture();
    fixture.write(|tx| device::insert(tx, &device("lamp")));
    assert_eq!(fixture.cells(DEVICES), ["lamp|Lamp|in the hall||"]);
    let twice = fixture.store.write(&Fence::unfenced(), |tx| device::insert(tx, &device("lamp")));
    assert!(matches!(twice, Err(StoreError::Query { table: "device", .. })), "{twice:?}");
}

#[test]
fn delete_device_by_id() {
    let fixture = two();
    assert!(fixture.write(|tx| device::remove(tx, &id("lamp"))));
    assert_eq!(fixture.cells(DEVICES), ["fan|Lamp|in the hall||"]);
    assert!(!fixture.write(|tx| device::remove(tx, &id("lamp"))), "a missing one is fine");
}

#[test]
fn update_device_field() {
    let fixture = two();
    fixture.write(|tx| device::set_uid(tx, &id("lamp"), "u1"));
    assert_eq!(fixture.cells("SELECT id || uid AS value FROM device ORDER BY id"), ["fan", "lampu1"]);
    assert_eq!(fixture.cells(DEVICES)[1], "lamp|Lamp|in the hall||", "no other field changes");
}

#[test]
fn update_device_fields() {
    let fixture = two();
    fixture.write(|tx| device::set_state(tx, &id("lamp"), &state("online"), "today"));
    assert_eq!(fixture.cells(DEVICES), ["fan|Lamp|in the hall||", "lamp|Lamp|in the hall|online|today"]);
}

#[test]
fn query_device() {
    let fixture = two();
    let read = |of: &str| fixture.store.read(|read| device::row(read, &id(of))).unwrap();
    assert_eq!(read("lamp").unwrap().device, device("lamp"));
    assert!(read("nobody").is_none());
    let whole = fixture.store.read(|read| device::load(read, &id("lamp"))).unwrap().unwrap().device;
    assert_eq!((whole.attributes.len(), whole.twin.properties.len()), (2, 2));
}

#[test]
fn query_device_all() {
    let fixture = two();
    let all = fixture.store.read(device::all).unwrap();
    assert_eq!(all.iter().map(|device| (device.id.as_str(), device.attributes.len())).collect::<Vec<_>>(), [("fan", 2), ("lamp", 2)]);
    assert_eq!(fixture.store.read(device::known).unwrap().len(), 2);
}

#[test]
fn update_device_multi() {
    let fixture = two();
    let change = |tx: &mut Tx<'_>| {
        device::set_state(tx, &id("fan"), &state("online"), "today")?;
        device::set_state(tx, &id("lamp"), &state("offline"), "yesterday")
    };
    let before = contents(&fixture.store);
    let failed: Result<(), _> = fixture.store.write(&Fence::unfenced(), |tx| change(tx).and(Err(StoreError::Fenced)));
    assert!(failed.is_err());
    assert_eq!(contents(&fixture.store), before);
    fixture.write(change);
    assert_eq!(fixture.cells(DEVICES), ["fan|Lamp|in the hall|online|today", "lamp|Lamp|in the hall|offline|yesterday"]);
}

#[test]
fn save_device_attr() {
    let fixture = two();
    fixture.write(|tx| attribute::put(tx, &id("lamp"), &attr("c"), &Attribute { optional: false, kind: "int".into(), ..attribute("7") }));
    assert_eq!(fixture.cells(ATTRIBUTES)[4], "5|lamp|c|7|0|int");
}

#[test]
fn delete_device_attr_by_id() {
    let fixture = two();
    assert_eq!(fixture.cells(ATTRIBUTES)[2], "3|lamp|a|1|1|string");
    fixture.write(|tx| attribute::delete(tx, &id("lamp"), &attr("a")));
    assert_eq!(fixture.cells("SELECT id || '' AS value FROM device_attr ORDER BY id"), ["1", "2", "4"]);
}

#[test]
fn delete_device_attr() {
    let fixture = two();
    fixture.write(|tx| {
        attribute::delete(tx, &id("lamp"), &attr("a"))?;
        attribute::delete(tx, &id("lamp"), &attr("none"))
    });
    assert_eq!(fixture.cells(ATTRIBUTES), ["1|fan|a|1|1|string", "2|fan|b|1|1|string", "4|lamp|b|1|1|string"]);
}

#[test]
fn update_device_attr_field() {
    let fixture = two();
    fixture.write(|tx| attribute::put(tx, &id("lamp"), &attr("a"), &attribute("2")));
    assert_eq!(fixture.cells(ATTRIBUTES)[2], "3|lamp|a|2|1|string");
}

#[test]
fn update_device_attr_fields() {
    let fixture = two();
    fixture.write(|tx| attribute::put(tx, &id("lamp"), &attr("a"), &Attribute { value: "2".into(), optional: false, kind: "int".into() }));
    assert_eq!(fixture.cells(ATTRIBUTES)[2], "3|lamp|a|2|0|int");
}

#[test]
fn query_device_attr() {
    let fixture = two();
    let read = |of: &str| fixture.store.read(|read| attribute::load(read, &id(of))).unwrap();
    assert_eq!(read("lamp"), [(attr("a"), attribute("1")), (attr("b"), attribute("1"))].into());
    assert!(read("nobody").is_empty());
}

#[test]
fn update_device_attr_multi() {
    let fixture = two();
    fixture.write(|tx| {
        attribute::put(tx, &id("fan"), &attr("a"), &attribute("2"))?;
        attribute::put(tx, &id("lamp"), &attr("b"), &attribute("3"))
    });
    let all = ["1|fan|a|2|1|string", "2|fan|b|1|1|string", "3|lamp|a|1|1|string", "4|lamp|b|3|1|string"];
    assert_eq!(fixture.cells(ATTRIBUTES), all);
}

#[test]
fn save_device_twin() {
    let fixture = two();
    fixture.write(|tx| twin::put(tx, &id("lamp"), &name("c"), &property("7")));
    assert_eq!(fixture.cells(TWINS)[4], "5|lamp|c|7||int");
}

#[test]
fn delete_device_twin_by_device_id() {
    let fixture = two();
    fixture.write(|tx| device::remove(tx, &id("lamp")));
    assert_eq!(fixture.cells(TWINS), ["1|fan|a|1||int", "2|fan|b|1||int"]);
}

#[test]
fn delete_device_twin() {
    let fixture = two();
    fixture.write(|tx| twin::put(tx, &id("lamp"), &name("a"), &tombstone()));
    assert_eq!(fixture.cells(TWINS)[2..], ["3|lamp|a|∅|∅|deleted", "4|lamp|b|1||int"]);
    let stored = fixture.store.read(|read| twin::load(read, &id("lamp"))).unwrap();
    assert_eq!(stored.properties[&name("a")], tombstone(), "its versions stay");
}

#[test]
fn update_device_twin_field() {
    let fixture = two();
    fixture.write(|tx| twin::put(tx, &id("lamp"), &name("a"), &property("2")));
    assert_eq!(fixture.cells(TWINS)[2], "3|lamp|a|2||int");
}

#[test]
fn update_device_twin_fields() {
    let fixture = two();
    let actual = Some(TwinValue { value: "3".into(), timestamp: Timestamp(18) });
    fixture.write(|tx| twin::put(tx, &id("lamp"), &name("a"), &TwinProperty { actual, kind: TwinType::Float, ..property("2") }));
    assert_eq!(fixture.cells(TWINS)[2], "3|lamp|a|2|3|float");
}

#[test]
fn query_device_twin() {
    let fixture = two();
    let read = |of: &str| fixture.store.read(|read| twin::load(read, &id(of))).unwrap().properties;
    assert_eq!(read("lamp"), [(name("a"), property("1")), (name("b"), property("1"))].into_iter().collect());
    assert!(read("nobody").is_empty());
}

#[test]
fn update_device_twin_multi() {
    let fixture = two();
    fixture.write(|tx| {
        twin::put(tx, &id("fan"), &name("a"), &property("2"))?;
        twin::put(tx, &id("lamp"), &name("b"), &property("3"))
    });
    assert_eq!(fixture.cells(TWINS), ["1|fan|a|2||int", "2|fan|b|1||int", "3|lamp|a|1||int", "4|lamp|b|3||int"]);
}
