#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use proptest::prelude::*;

use super::*;
use crate::id::PropertyName;

const NOW: Timestamp = Timestamp(1_700_000_000_000);

fn name(text: &str) -> PropertyName {
    PropertyName::new(text).unwrap()
}

fn side(value: &str) -> Option<SideChange> {
    Some(SideChange { value: value.to_owned() })
}

fn version(cloud: i64, edge: i64) -> Option<TwinVersion> {
    Some(TwinVersion { cloud, edge })
}

fn kind(text: &str) -> Option<RequestedType> {
    Some(RequestedType::new(text))
}

fn change(set: PropertySet) -> TwinChange {
    [(name("t"), PropertyChange::Set(set))].into_iter().collect()
}

fn null() -> TwinChange {
    [(name("t"), PropertyChange::Null)].into_iter().collect()
}

fn device(twin: &mut Twin, set: PropertySet) -> Result<Outcome, TwinError> {
    merge(twin, &change(set), Origin::Device, NOW)
}

fn cloud(twin: &mut Twin, set: PropertySet) -> Outcome {
    merge(twin, &change(set), Origin::Cloud, NOW).unwrap()
}

fn actual(value: &str) -> PropertySet {
    PropertySet { actual: side(value), ..PropertySet::default() }
}

fn wanted(value: &str, cloud: i64, edge: i64) -> PropertySet {
    PropertySet { expected: side(value), expected_version: version(cloud, edge), ..PropertySet::default() }
}

fn t(twin: &Twin) -> &TwinProperty {
    twin.properties.get("t").unwrap()
}

/// A twin with property `t` of type int: expected 20 at 1/0, actual 19 at 0/1.
fn fixture() -> Twin {
    let mut twin = Twin::default();
    let set = PropertySet { kind: kind("int"), ..wanted("20", 1, 0) };
    cloud(&mut twin, set);
    device(&mut twin, actual("19")).unwrap();
    twin
}

#[test]
fn a_new_property_is_optional_and_a_string_and_begins_at_edge_version_one() {
    let mut twin = Twin::default();
    let outcome = device(&mut twin, actual("warm")).unwrap();
    assert_eq!(t(&twin).actual, Some(TwinValue { value: "warm".into(), timestamp: NOW }));
    assert_eq!((t(&twin).kind, t(&twin).optional), (TwinType::String, true));
    assert_eq!((t(&twin).actual_version, t(&twin).expected_version), (version(0, 1), None));
    assert_eq!(outcome.document[&name("t")].last, None);
    assert_eq!(outcome.document[&name("t")].current.as_ref(), Some(t(&twin)));
    assert!(outcome.report.contains("t") && outcome.dirty.contains("t"));
    let result = outcome.result[&name("t")].as_ref().unwrap();
    assert_eq!((result.kind, result.optional, &result.actual), (Some(TwinType::String), Some(true), &t(&twin).actual));
}

#[test]
fn the_same_value_again_is_a_change() {
    let mut twin = fixture();
    let outcome = device(&mut twin, actual("19")).unwrap();
    assert_eq!(t(&twin).actual_version, version(0, 2));
    assert_eq!((outcome.document.len(), outcome.report.len()), (1, 1));
    let result = outcome.result[&name("t")].as_ref().unwrap();
    assert_eq!((result.kind, result.optional, &result.expected), (None, None, &None));
}

#[test]
fn a_value_of_the_wrong_type_refuses_the_whole_message_and_leaves_the_twin() {
    for (kind_text, value, error) in [
        ("int", "1.5", TwinError::NotInt),
        ("integer", "x", TwinError::NotInt),
        ("int", "9223372036854775808", TwinError::NotInt),
        ("float", "x", TwinError::NotFloat),
        ("boolean", "True", TwinError::NotBoolean),
        ("double", "1", TwinError::TypeNotAllowed),
        ("Int", "1", TwinError::TypeNotAllowed),
        ("deleted", "1", TwinError::TypeNotAllowed),
    ] {
        let mut twin = fixture();
        let before = twin.clone();
        let both = [
            (name("a"), PropertyChange::Set(actual("fine"))),
            (name("new"), PropertyChange::Set(PropertySet { kind: kind(kind_text), ..actual(value) })),
        ];
        let refused = merge(&mut twin, &both.into_iter().collect(), Origin::Device, NOW);
        assert_eq!((refused, twin), (Err(error), before), "{kind_text} {value}");
    }
}

#[test]
fn each_type_has_the_values_of_kubeedge() {
    use TwinType::{Boolean, Deleted, Float, Int, Integer, String};
    let any = ["", "warm", "1", "true", "-", "@#"];
    for (kind, good, bad) in [
        (String, &any[..], &[][..]),
        (Deleted, &any, &[]),
        (
            Int,
            &["0", "-1", "007", "9223372036854775807", "-9223372036854775808"],
            &["", "1.0", "1e3", "0x1", "one", "9223372036854775808", "-", "1,0"],
        ),
        (Integer, &["0", "-1"], &["", "1.0"]),
        (Float, &["0", "-1.5", "1e3", ".5", "5.", "1e-400", "inf", "-Infinity", "NaN"], &["", "1,5", "one", "1e400", "-1e999", ".", "1.5.2"]),
        (Boolean, &["true", "false"], &["", "True", "FALSE", "1", "0", "yes"]),
    ] {
        for value in good {
            assert_eq!(kind.check(value), Ok(()), "{kind} {value:?}");
        }
        for value in bad {
            assert!(kind.check(value).is_err(), "{kind} {value:?}");
        }
    }
    let words: Vec<_> = ["", "string", "int", "integer", "float", "boolean", "deleted"].iter().map(|word| TwinType::parse(word)).collect();
    assert_eq!(words, [String, String, Int, Integer, Float, Boolean, Deleted].map(Some));
    for word in ["double", "Int", "bytes", "bool", "number", "STRING"] {
        assert_eq!(TwinType::parse(word), None, "{word}");
    }
}

#[test]
fn the_reasons_are_those_of_the_newer_kubeedge() {
    for (error, text) in [
        (TwinError::NotInt, "the value is not int or integer"),
        (TwinError::NotFloat, "the value is not float"),
        (TwinError::NotBoolean, "the bool value must be true or false"),
        (TwinError::TypeNotAllowed, "the value type is not allowed"),
        (TwinError::NothingToDelete, "the request body is wrong"),
    ] {
        assert_eq!(error.to_string(), text);
    }
    for (reason, text) in [
        (RefusalReason::VersionMissing, "version not allowed be nil while syncing"),
        (RefusalReason::CloudVersionOlder, "version not allowed"),
        (RefusalReason::EdgeVersionOlder, "not allowed to sync due to version conflict"),
    ] {
        assert_eq!((reason.to_string().as_str(), reason.is_version_conflict()), (text, true));
    }
}

#[test]
fn the_first_value_of_a_side_is_checked_as_well() {
    // KubeEdge stores it unchecked and refuses the second one.
    let mut twin = Twin::default();
    cloud(&mut twin, PropertySet { kind: kind("int"), ..wanted("20", 1, 0) });
    assert_eq!(device(&mut twin, actual("warm")), Err(TwinError::NotInt));
    assert_eq!(t(&twin).actual, None);
}

#[test]
fn the_type_of_a_living_property_never_changes() {
    let mut twin = fixture();
    device(&mut twin, PropertySet { kind: kind("string"), ..actual("21") }).unwrap();
    assert_eq!(t(&twin).kind, TwinType::Int);
    let outcome = device(&mut twin, PropertySet { kind: kind("float"), ..PropertySet::default() }).unwrap();
    assert_eq!(outcome, Outcome::default());
}

#[test]
fn optional_only_moves_from_true_to_false() {
    let mut twin = fixture();
    let no = PropertySet { optional: Some(false), ..PropertySet::default() };
    let yes = PropertySet { optional: Some(true), ..PropertySet::default() };
    let outcome = device(&mut twin, no).unwrap();
    assert_eq!((t(&twin).optional, outcome.result[&name("t")].as_ref().unwrap().optional), (false, Some(false)));
    assert_eq!(device(&mut twin, yes).unwrap(), Outcome::default());
    assert!(!t(&twin).optional);
}

#[test]
fn a_deletion_leaves_a_tombstone_that_keeps_its_versions() {
    let mut twin = fixture();
    let before = t(&twin).clone();
    let outcome = merge(&mut twin, &null(), Origin::Device, NOW).unwrap();
    let stone = t(&twin);
    assert!(stone.is_tombstone() && stone.expected.is_none() && stone.actual.is_none());
    assert_eq!((stone.expected_version, stone.actual_version), (version(1, 1), version(0, 2)));
    assert_eq!(outcome.result[&name("t")], None);
    assert_eq!(outcome.document[&name("t")], DocumentEntry { last: Some(before), current: None });
    assert!(outcome.report.contains("t") && outcome.dirty.contains("t"));
    assert_eq!(twin.living().count(), 0);
}

#[test]
fn what_is_deleted_or_must_stay_is_not_deleted_and_nothing_is_told() {
    let mut twin = fixture();
    merge(&mut twin, &null(), Origin::Device, NOW).unwrap();
    assert_eq!(merge(&mut twin, &null(), Origin::Device, NOW).unwrap(), Outcome::default());
    let mut twin = fixture();
    device(&mut twin, PropertySet { optional: Some(false), ..PropertySet::default() }).unwrap();
    assert_eq!(merge(&mut twin, &null(), Origin::Device, NOW).unwrap(), Outcome::default());
    assert!(!t(&twin).is_tombstone());
}

#[test]
fn a_property_without_values_is_deleted_at_the_first_try() {
    // KubeEdge needs two: the first one only makes the versions.
    let mut twin = Twin::default();
    device(&mut twin, PropertySet::default()).unwrap();
    merge(&mut twin, &null(), Origin::Device, NOW).unwrap();
    assert!(t(&twin).is_tombstone());
}

#[test]
fn deleting_what_does_not_exist_is_refused() {
    let mut twin = Twin::default();
    assert_eq!(merge(&mut twin, &null(), Origin::Device, NOW), Err(TwinError::NothingToDelete));
    assert_eq!(merge(&mut twin, &null(), Origin::Cloud, NOW).unwrap(), Outcome::default());
}

#[test]
fn a_tombstone_can_be_revived_by_either_and_goes_on_counting() {
    let mut twin = fixture();
    merge(&mut twin, &null(), Origin::Device, NOW).unwrap();
    let outcome = device(&mut twin, PropertySet { kind: kind("boolean"), ..actual("true") }).unwrap();
    assert_eq!((t(&twin).kind, t(&twin).actual_version), (TwinType::Boolean, version(0, 3)));
    assert_eq!(outcome.document[&name("t")].last, None);

    let mut twin = fixture();
    merge(&mut twin, &null(), Origin::Device, NOW).unwrap();
    let late = cloud(&mut twin, wanted("30", 2, 0));
    assert_eq!(late.refusals[0].reason, RefusalReason::EdgeVersionOlder);
    assert!(t(&twin).is_tombstone());
    let outcome = cloud(&mut twin, wanted("30", 2, 1));
    assert!(outcome.refusals.is_empty());
    assert_eq!((t(&twin).kind, t(&twin).expected_version), (TwinType::String, version(2, 1)));
}

#[test]
fn the_cloud_needs_a_version_that_is_not_behind() {
    for (set, reason) in [
        (PropertySet { expected_version: None, ..wanted("30", 0, 0) }, RefusalReason::VersionMissing),
        (wanted("30", 0, 9), RefusalReason::CloudVersionOlder),
        (wanted("30", 9, -1), RefusalReason::EdgeVersionOlder),
        (wanted("30", i64::MIN, i64::MIN), RefusalReason::CloudVersionOlder),
    ] {
        let mut twin = fixture();
        let before = twin.clone();
        let outcome = cloud(&mut twin, set);
        assert_eq!(outcome.refusals, [Refusal { name: name("t"), reason }]);
        assert!(outcome.report.contains("t") && outcome.dirty.is_empty() && outcome.document.is_empty());
        assert_eq!(twin, before);
    }
}

#[test]
fn the_cloud_moves_expected_again_after_the_device_did_when_it_names_the_version() {
    let mut twin = fixture();
    device(&mut twin, PropertySet { expected: side("25"), ..PropertySet::default() }).unwrap();
    assert_eq!(t(&twin).expected_version, version(1, 1));
    let outcome = cloud(&mut twin, wanted("30", 7, 1));
    assert_eq!((t(&twin).expected_version, outcome.refusals.len()), (version(7, 1), 0));
    assert_eq!(outcome.document[&name("t")].current.as_ref(), Some(t(&twin)));
    // What the cloud said itself is not reported to it, and a sync has no result.
    assert!(outcome.report.is_empty() && outcome.result.is_empty());
}

#[test]
fn the_very_same_from_the_cloud_again_writes_and_tells_nothing() {
    let mut twin = fixture();
    cloud(&mut twin, PropertySet { optional: Some(false), ..wanted("30", 7, 1) });
    let before = twin.clone();
    assert_eq!(cloud(&mut twin, PropertySet { optional: Some(false), ..wanted("30", 7, 1) }), Outcome::default());
    assert_eq!(twin, before);
    // Another value under the same version, or the same value under a newer one, is a change.
    assert!(!cloud(&mut twin, wanted("31", 7, 1)).dirty.is_empty());
    assert!(!cloud(&mut twin, wanted("31", 8, 1)).dirty.is_empty());
}

#[test]
fn a_refused_version_ends_the_property_and_a_wrong_value_only_its_side() {
    let mut twin = fixture();
    let set = PropertySet { actual: side("5"), actual_version: version(9, 9), optional: Some(false), ..wanted("30", 0, 0) };
    cloud(&mut twin, set.clone());
    assert_eq!((t(&twin).actual.as_ref().unwrap().value.as_str(), t(&twin).optional), ("19", true));
    let outcome = cloud(&mut twin, PropertySet { expected: side("warm"), ..set });
    assert_eq!(outcome.refusals[0].reason, RefusalReason::Value(TwinError::NotInt));
    assert_eq!(t(&twin).actual.as_ref().unwrap().value, "5");
    assert!(outcome.report.is_empty(), "a wrong value is not reported back");
}

#[test]
fn the_cloud_deletes_by_type_with_versions_or_without() {
    for (set, expected) in
        [(PropertySet::default(), version(1, 0)), (PropertySet { expected_version: version(4, 0), ..PropertySet::default() }, version(4, 0))]
    {
        let mut twin = fixture();
        let outcome = cloud(&mut twin, PropertySet { kind: kind("deleted"), ..set });
        assert!(t(&twin).is_tombstone());
        assert_eq!((t(&twin).expected_version, t(&twin).actual_version), (expected, version(0, 1)));
        assert!(outcome.report.is_empty() && outcome.refusals.is_empty());
        assert_eq!(outcome.document[&name("t")].current, None);
    }
    let mut twin = fixture();
    let old = PropertySet { kind: kind("deleted"), expected_version: version(0, 0), ..PropertySet::default() };
    let outcome = cloud(&mut twin, old);
    assert!(!t(&twin).is_tombstone() && outcome.report.contains("t"));
}

#[test]
fn a_tombstone_for_what_was_never_known_is_kept_and_not_told() {
    let mut twin = Twin::default();
    let set = PropertySet { kind: kind("deleted"), expected_version: version(4, 0), ..PropertySet::default() };
    let outcome = cloud(&mut twin, set.clone());
    assert_eq!((t(&twin).expected_version, outcome.dirty.len(), outcome.document.len()), (version(4, 0), 1, 0));
    assert_eq!(cloud(&mut twin, set), Outcome::default());
}

#[test]
fn a_refused_new_property_leaves_nothing_behind() {
    let mut twin = Twin::default();
    let outcome = cloud(&mut twin, PropertySet { expected: side("1"), ..PropertySet::default() });
    assert!(twin.properties.is_empty() && outcome.report.is_empty() && outcome.document.is_empty());
    assert_eq!(outcome.refusals.len(), 1);
}

#[test]
fn a_device_has_a_limit_of_properties() {
    let many = |count: usize| -> TwinChange { (0..count).map(|i| (name(&format!("p{i}")), PropertyChange::Set(actual("1")))).collect() };
    let mut twin = Twin::default();
    assert_eq!(merge(&mut twin, &many(PROPERTIES_MAX + 1), Origin::Device, NOW), Err(TwinError::TooMany));
    assert!(twin.properties.is_empty());
    merge(&mut twin, &many(PROPERTIES_MAX), Origin::Device, NOW).unwrap();
    assert_eq!(device(&mut twin, actual("1")), Err(TwinError::TooMany));
    assert_eq!(cloud(&mut twin, wanted("1", 1, 0)).refusals[0].reason, RefusalReason::Value(TwinError::TooMany));
    assert_eq!(twin.properties.len(), PROPERTIES_MAX);
}

#[test]
fn a_refused_new_property_takes_no_place() {
    let mut change: TwinChange = (0..PROPERTIES_MAX).map(|i| (name(&format!("p{i}")), PropertyChange::Set(wanted("1", 1, 0)))).collect();
    // Sorts before the others and is refused for want of a version.
    change.properties.insert(name("a"), PropertyChange::Set(PropertySet { expected: side("1"), ..PropertySet::default() }));
    change.properties.insert(name("b"), PropertyChange::Null);
    let mut twin = Twin::default();
    merge(&mut twin, &change, Origin::Cloud, NOW).unwrap();
    assert_eq!(twin.properties.len(), PROPERTIES_MAX);
}

#[test]
fn the_delta_is_over_all_properties_and_skips_what_asks_for_nothing() {
    let mut twin = fixture();
    for (key, expected, actual) in
        [("same", Some("1"), Some("1")), ("absent", Some("2"), None), ("empty", Some(""), Some("x")), ("free", None, Some("3"))]
    {
        let value = |text: Option<&str>| text.map(|text| TwinValue { value: text.into(), timestamp: NOW });
        let property = TwinProperty { expected: value(expected), actual: value(actual), ..TwinProperty::default() };
        twin.properties.insert(name(key), property);
    }
    let delta = twin.delta();
    let differing: Vec<(&str, &str)> = delta.differing.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    assert_eq!(differing, [("absent", "2"), ("t", "20")]);
    let shown: Vec<&str> = delta.twin.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(shown, ["absent", "empty", "same", "t"]);
}

#[test]
fn versions_do_not_overflow() {
    let mut twin = Twin::default();
    let set = PropertySet { actual: side("1"), actual_version: version(i64::MAX, i64::MAX), ..PropertySet::default() };
    cloud(&mut twin, set);
    device(&mut twin, actual("2")).unwrap();
    assert_eq!(t(&twin).actual_version, version(i64::MAX, i64::MAX));
}

#[test]
fn a_value_has_the_alphabet_and_length_of_kubeedge() {
    assert!(is_value("") && is_value(&"a".repeat(512)) && is_value("aZ09-_.,:/@#"));
    for text in ["a b", "ä", "+", "\0", "a\n", &"a".repeat(513)] {
        assert!(!is_value(text), "{text:?}");
    }
}

fn any_side() -> impl Strategy<Value = Option<SideChange>> {
    proptest::option::of(prop_oneof![Just("1"), Just("2.5"), Just("true"), Just(""), Just("warm")])
        .prop_map(|value| value.map(|value| SideChange { value: value.to_owned() }))
}

fn any_version() -> impl Strategy<Value = Option<TwinVersion>> {
    proptest::option::of((-1_i64..6, -1_i64..6).prop_map(|(cloud, edge)| TwinVersion { cloud, edge }))
}

fn any_change() -> impl Strategy<Value = TwinChange> {
    let kind = proptest::option::of(prop_oneof![
        Just("string"),
        Just("int"),
        Just("integer"),
        Just("float"),
        Just("boolean"),
        Just("deleted"),
        Just("double")
    ]);
    let set = (any_side(), any_side(), any::<Option<bool>>(), kind, any_version(), any_version()).prop_map(
        |(expected, actual, optional, kind, expected_version, actual_version)| {
            let kind = kind.map(RequestedType::new);
            PropertyChange::Set(PropertySet { expected, actual, optional, kind, expected_version, actual_version })
        },
    );
    let wanted = prop_oneof![1 => Just(PropertyChange::Null), 6 => set];
    proptest::collection::btree_map(prop_oneof![Just(name("a")), Just(name("b")), Just(name("c"))], wanted, 0..4)
        .prop_map(|properties| TwinChange { properties })
}

fn any_origin() -> impl Strategy<Value = Origin> {
    prop_oneof![Just(Origin::Device), Just(Origin::Cloud)]
}

fn any_history() -> impl Strategy<Value = Vec<(TwinChange, Origin)>> {
    proptest::collection::vec((any_change(), any_origin()), 0..24)
}

proptest! {
    #[test]
    fn through_any_history_the_rules_hold(history in any_history()) {
        let mut twin = Twin::default();
        for (change, origin) in history {
            let before = twin.clone();
            let Ok(outcome) = merge(&mut twin, &change, origin, NOW) else {
                prop_assert_eq!(origin, Origin::Device, "only a device's message is refused as a whole");
                prop_assert_eq!(&twin, &before);
                continue;
            };
            for (name, old) in &before.properties {
                let new = &twin.properties[name]; // a row never goes away
                for (old, new) in [(old.expected_version, new.expected_version), (old.actual_version, new.actual_version)] {
                    prop_assert!(old.is_none_or(|old| new.is_some_and(|new| old.admits(new))), "a version decreased");
                }
                prop_assert!(old.optional || !new.optional);
                prop_assert!(old.kind == new.kind || old.is_tombstone() || new.is_tombstone());
            }
            for (name, property) in &twin.properties {
                // What is not in `dirty` was not touched, and what is in it was asked for.
                prop_assert_eq!(before.properties.get(name) == Some(property) || outcome.dirty.contains(name), true);
                for (value, version) in [(&property.expected, property.expected_version), (&property.actual, property.actual_version)] {
                    prop_assert!(value.is_none() || version.is_some(), "a value without version");
                    if let Some(value) = value {
                        prop_assert_eq!(property.kind.check(&value.value), Ok(()));
                        prop_assert!(!property.is_tombstone());
                    }
                }
            }
            prop_assert!(outcome.dirty.iter().all(|name| change.properties.contains_key(name)));
            prop_assert!(outcome.report.iter().all(|name| twin.properties.contains_key(name)));
            prop_assert!(outcome.document.keys().all(|name| outcome.dirty.contains(name)));
            for (name, entry) in &outcome.document {
                let living = |twin: &Twin| twin.properties.get(name).filter(|property| !property.is_tombstone()).cloned();
                prop_assert_eq!(&entry.last, &living(&before));
                prop_assert_eq!(&entry.current, &living(&twin));
            }
            if origin == Origin::Device {
                prop_assert_eq!(&outcome.report, &outcome.dirty);
                prop_assert!(outcome.refusals.is_empty());
            } else {
                prop_assert!(outcome.result.is_empty());
            }
            let differing: std::collections::BTreeMap<_, _> = twin.delta().differing.into_iter().collect();
            for (name, property) in &twin.properties {
                let value = |side: &Option<TwinValue>| side.as_ref().map(|side| side.value.clone());
                let expected = value(&property.expected).filter(|expected| !expected.is_empty());
                let differs = expected.is_some() && expected != value(&property.actual);
                prop_assert_eq!(differing.contains_key(name), differs);
            }
        }
        // Whatever happened, a device can bring every property back to life.
        let names: Vec<PropertyName> = twin.properties.keys().cloned().collect();
        for name in names {
            merge(&mut twin, &[(name.clone(), PropertyChange::Null)].into_iter().collect(), Origin::Device, NOW).unwrap();
            let value = match twin.properties[&name].kind {
                TwinType::Boolean => "true",
                TwinType::String | TwinType::Int | TwinType::Integer | TwinType::Float | TwinType::Deleted => "1",
            };
            let set = PropertySet { actual: side(value), ..PropertySet::default() };
            merge(&mut twin, &[(name.clone(), PropertyChange::Set(set))].into_iter().collect(), Origin::Device, NOW).unwrap();
            prop_assert_eq!(&twin.properties[&name].actual.as_ref().unwrap().value, value);
        }
    }

    #[test]
    fn a_cloud_message_applied_twice_is_the_same_as_once(first in any_change(), again in any_change()) {
        let mut twin = Twin::default();
        merge(&mut twin, &first, Origin::Cloud, NOW).unwrap();
        merge(&mut twin, &again, Origin::Cloud, NOW).unwrap();
        let once = twin.clone();
        merge(&mut twin, &again, Origin::Cloud, NOW).unwrap();
        prop_assert_eq!(twin, once);
    }

    #[test]
    fn the_order_of_independent_properties_does_not_matter(history in any_history(), change in any_change(), origin in any_origin()) {
        let mut before = Twin::default();
        for (earlier, by) in history {
            let _ = merge(&mut before, &earlier, by, NOW);
        }
        let mut whole = before.clone();
        let at_once = merge(&mut whole, &change, origin, NOW);
        let one_by_one = |names: Vec<&PropertyName>| {
            let mut twin = before.clone();
            let mut sum = Outcome::default();
            for name in names {
                let alone = [(name.clone(), change.properties[name].clone())].into_iter().collect();
                let outcome = merge(&mut twin, &alone, origin, NOW)?;
                sum.result.extend(outcome.result);
                sum.document.extend(outcome.document);
                sum.report.extend(outcome.report);
                sum.dirty.extend(outcome.dirty);
                sum.refusals.extend(outcome.refusals);
            }
            sum.refusals.sort_by(|one, other| one.name.cmp(&other.name));
            Ok::<_, TwinError>((twin, sum))
        };
        let forwards = one_by_one(change.properties.keys().collect());
        let backwards = one_by_one(change.properties.keys().rev().collect());
        match at_once {
            Ok(outcome) => {
                prop_assert_eq!(forwards.as_ref(), Ok(&(whole, outcome)));
                prop_assert_eq!(backwards, forwards);
            }
            // One property refuses them all, wherever it stands.
            Err(_) => prop_assert!(forwards.is_err() && backwards.is_err()),
        }
    }

    #[test]
    fn a_message_about_one_property_touches_no_other(history in any_history(), change in any_change(), origin in any_origin()) {
        let mut twin = Twin::default();
        for (earlier, by) in history {
            let _ = merge(&mut twin, &earlier, by, NOW);
        }
        let before = twin.clone();
        let _ = merge(&mut twin, &change, origin, NOW);
        for (name, property) in before.properties.iter().filter(|(name, _)| !change.properties.contains_key(*name)) {
            prop_assert_eq!(&twin.properties[name], property);
        }
        prop_assert!(twin.properties.keys().all(|name| before.properties.contains_key(name) || change.properties.contains_key(name)));
    }

    #[test]
    fn a_later_message_of_the_cloud_wins_over_an_earlier_one_in_either_order(one in 0..6_i64, other in 0..6_i64) {
        // The later one by version, whichever arrives first; of the same version, the one that arrives last.
        let (first, second) = (wanted(&format!("v{one}"), one, 0), wanted(&format!("v{other}"), other, 0));
        let mut twin = Twin::default();
        cloud(&mut twin, first);
        cloud(&mut twin, second);
        let newest = one.max(other);
        prop_assert_eq!(&t(&twin).expected.as_ref().unwrap().value, &format!("v{newest}"));
        prop_assert_eq!(t(&twin).expected_version, version(newest, 0));
    }
}
