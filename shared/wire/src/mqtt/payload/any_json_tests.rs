//! Whatever JSON comes: through the parsers, the merge and the answers, without a panic, and with the rules kept.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use model::membership::{AttributeOrigin, Known, merge_attributes, plan_detail, plan_update};
use model::twin::{Origin, PROPERTIES_MAX, is_value, merge};
use model::{Attributes, Device, DeviceEntry, DeviceId, Timestamp, Twin};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use serde_json::{Map, Value};

use super::*;

const NOW: Timestamp = Timestamp(1_700_000_000_000);

/// The words of the protocol, values that mean something to it, and everything else.
fn any_key() -> impl Strategy<Value = String> {
    let words = [
        "event_id",
        "timestamp",
        "twin",
        "a",
        "b",
        "a b",
        "expected",
        "actual",
        "value",
        "metadata",
        "type",
        "optional",
        "expected_version",
        "actual_version",
        "cloud",
        "edge",
        "devices",
        "added_devices",
        "removed_devices",
        "id",
        "uid",
        "name",
        "attributes",
        "state",
        "device",
    ];
    prop_oneof![8 => proptest::sample::select(words.to_vec()).prop_map(str::to_owned), 1 => any::<String>()]
}

fn any_leaf() -> impl Strategy<Value = Value> {
    let words = ["", "1", "1.5", "true", "warm", "int", "boolean", "deleted", "double", "online", "lamp", "house/lamp", "a/b/c", "+", "\0"];
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-2..4_i64).prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        proptest::sample::select(words.to_vec()).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ]
}

fn any_json() -> impl Strategy<Value = Value> {
    any_leaf().prop_recursive(6, 96, 8, |inner| {
        let object = proptest::collection::vec((any_key(), inner.clone()), 0..8).prop_map(|entries| Value::Object(entries.into_iter().collect()));
        prop_oneof![1 => proptest::collection::vec(inner, 0..8).prop_map(Value::Array), 4 => object]
    })
}

/// JSON in the shape of a request about a property, with anything in its places.
fn any_property() -> impl Strategy<Value = Value> {
    let side = || {
        let value = prop_oneof![1 => any_leaf(), 16 => proptest::sample::select(vec!["1", "2.5", "true", "warm"]).prop_map(Value::from)];
        prop_oneof![16 => value.prop_map(|value| Value::Object(Map::from_iter([("value".to_owned(), value)]))), 1 => any_json()]
    };
    let version = || {
        let pair = (-1..5_i64, -1..5_i64).prop_map(|(cloud, edge)| serde_json::json!({"cloud": cloud, "edge": edge}));
        prop_oneof![16 => pair, 1 => any_json()]
    };
    let words = proptest::sample::select(vec!["string", "int", "boolean", "deleted", "double"]);
    let kind = prop_oneof![16 => words.prop_map(|kind| serde_json::json!({"type": kind})), 1 => any_json()];
    let optional = prop_oneof![16 => any::<bool>().prop_map(Value::from), 1 => any_leaf()];
    let fields = (
        proptest::option::of(side()),
        proptest::option::of(side()),
        proptest::option::of(optional),
        proptest::option::of(kind),
        proptest::option::of(version()),
        proptest::option::of(version()),
    );
    let object = fields.prop_map(|(expected, actual, optional, metadata, expected_version, actual_version)| {
        let fields = [
            ("expected", expected),
            ("actual", actual),
            ("optional", optional),
            ("metadata", metadata),
            ("expected_version", expected_version),
            ("actual_version", actual_version),
        ];
        Value::Object(fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect())
    });
    prop_oneof![1 => Just(Value::Null), 8 => object]
}

fn any_twin_request() -> impl Strategy<Value = Value> {
    let twin = proptest::collection::btree_map(
        proptest::sample::select(vec!["a", "b", "c", "a", "b", "c", "a", "b", "c", "d e"]).prop_map(str::to_owned),
        any_property(),
        0..4,
    );
    let event_id = prop_oneof![8 => "[a-z]{0,4}".prop_map(Value::from), 1 => any_leaf()];
    (event_id, twin).prop_map(|(event_id, twin)| serde_json::json!({"event_id": event_id, "twin": twin}))
}

/// Gives one body to everything that reads one.
fn give_to_all(twin: &mut Twin, body: &[u8]) {
    let event_id = match Get::parse_twin(body) {
        Ok(get) => get.event_id,
        Err(rejection) => rejection.event_id,
    };
    assert!(event_id.len() <= EVENT_ID_BYTES_MAX);
    if let Ok(update) = TwinUpdate::parse(body) {
        for origin in [Origin::Cloud, Origin::Device] {
            change(twin, &update, origin);
        }
        let _ = serde_json::to_vec(&update).unwrap();
    }
    let _ = Get::parse_membership(body);
    let _ = StateUpdate::parse(body);
    let _ = TwinReport::parse(body).map(|report| serde_json::to_vec(&report).unwrap());
    let _ = DeviceStateReport::parse(body).map(|report| answer::state_update_result(&report));
    let mut attributes = Attributes::new();
    if let Ok(update) = AttributesUpdate::parse(body) {
        let outcome = merge_attributes(&mut attributes, &update.attributes, AttributeOrigin::Update);
        let _ = answer::device_updated(&update.event_id, NOW, &outcome);
    }
    let known = Known::from([(DeviceId::new("lamp").unwrap(), "uid".to_owned())]);
    if let Ok(detail) = MembershipDetail::parse(body) {
        assert!(detail.skipped.len() <= SKIPPED_MAX);
        let plan = plan_detail(&known, &detail.devices);
        plan.create.iter().chain(&plan.replace).for_each(|entry| listed(entry));
    }
    if let Ok(update) = MembershipUpdate::parse(body) {
        let plan = plan_update(&known, &update.added, &update.removed);
        plan.create.iter().for_each(|entry| listed(entry));
        for (id, entry) in &plan.remove {
            let _ = answer::membership_removed("e", NOW, id, *entry);
        }
    }
}

fn change(twin: &mut Twin, update: &TwinUpdate, origin: Origin) {
    let before = twin.clone();
    match merge(twin, &update.change, origin, NOW) {
        Ok(outcome) => {
            let _ = answer::twin_update_result(&update.event_id, NOW, &outcome);
            let _ = answer::twin_update_document(&update.event_id, NOW, &outcome);
            let _ = answer::twin_update_delta(&update.event_id, NOW, &twin.delta());
        }
        Err(error) => {
            assert_eq!(*twin, before, "refused as a whole");
            let _ = answer::error_result(&update.event_id, NOW, &Fault::Twin(error));
        }
    }
    assert!(twin.properties.len() <= PROPERTIES_MAX);
    for (name, old) in &before.properties {
        let new = &twin.properties[name];
        for (old, new) in [(old.expected_version, new.expected_version), (old.actual_version, new.actual_version)] {
            assert!(old.is_none_or(|old| new.is_some_and(|new| old.admits(new))), "the version of {name} went back");
        }
    }
    for property in twin.properties.values() {
        for side in [&property.expected, &property.actual].into_iter().flatten() {
            assert!(is_value(&side.value) && property.kind.check(&side.value).is_ok(), "{property:?}");
        }
    }
}

fn listed(entry: &DeviceEntry) {
    let mut device = Device {
        id: entry.id.clone(),
        name: entry.name.clone(),
        description: entry.description.clone(),
        state: entry.state.clone(),
        last_online: String::new(),
        attributes: Attributes::new(),
        twin: Twin::default(),
    };
    merge(&mut device.twin, &entry.twin, Origin::Cloud, NOW).unwrap();
    let _ = answer::membership_added("e", NOW, &device);
    let _ = answer::membership_get_result("e", NOW, [&device]);
}

/// A generator whose requests all fail at the first check would prove nothing.
#[test]
fn a_good_part_of_the_requests_reaches_the_merge_and_changes_something() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut changed = 0;
    for _ in 0..1000 {
        let body = any_twin_request().new_tree(&mut runner).unwrap().current();
        if let Ok(update) = TwinUpdate::parse(&serde_json::to_vec(&body).unwrap()) {
            let outcome = merge(&mut Twin::default(), &update.change, Origin::Cloud, NOW).unwrap();
            changed += usize::from(!outcome.dirty.is_empty());
        }
    }
    assert!(changed > 200, "{changed} of 1000");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_json_panics_a_parser_the_merge_or_an_answer(bodies in proptest::collection::vec(any_json(), 1..4)) {
        let mut twin = Twin::default();
        for body in bodies {
            give_to_all(&mut twin, &serde_json::to_vec(&body).unwrap());
        }
    }

    #[test]
    fn no_twin_request_does_whatever_stands_in_its_places(bodies in proptest::collection::vec(any_twin_request(), 1..12)) {
        let mut twin = Twin::default();
        for body in bodies {
            give_to_all(&mut twin, &serde_json::to_vec(&body).unwrap());
        }
    }

    #[test]
    fn no_list_of_devices_does(devices in proptest::collection::vec(any_json(), 0..4), twin in any_twin_request()) {
        let mut devices: Vec<Value> = devices;
        devices.push(serde_json::json!({"id": "lamp", "uid": "other", "twin": twin["twin"]}));
        let body = serde_json::json!({"devices": devices, "added_devices": devices, "removed_devices": devices});
        give_to_all(&mut Twin::default(), &serde_json::to_vec(&body).unwrap());
    }

    #[test]
    fn no_bytes_do(body in proptest::collection::vec(any::<u8>(), 0..300)) {
        give_to_all(&mut Twin::default(), &body);
    }
}
