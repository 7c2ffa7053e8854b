//! Which devices belong to this node: what a membership message changes, and how attributes merge.
//!
//! Source: manual ch. 10.3.1 with the corrections of "manual vs code": a detail removes the devices that are
//! *not in the message*; an update of a known device touches its attributes and twin only.

use std::collections::{BTreeMap, BTreeSet};

use crate::device::{Attribute, AttributeChange, Attributes, DeviceEntry};
use crate::id::{AttributeName, DeviceId};

/// Type of an attribute for which none is given.
pub const ATTRIBUTE_KIND_DEFAULT: &str = "string";

/// What a membership message asks for, in the order in which it is to be done: create, replace, refresh, remove.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan<'a> {
    /// New devices: a row, then twin, then attributes, then `membership/updated`.
    pub create: Vec<&'a DeviceEntry>,
    /// Devices of which another creation is known: the old one goes with all its rows, as in `remove`, then the new one
    /// comes, as in `create`.
    pub replace: Vec<&'a DeviceEntry>,
    /// Known devices: attributes and twin are merged; name, description and state stay; nothing is published
    /// on `membership/updated`.
    pub refresh: Vec<&'a DeviceEntry>,
    /// Known devices that go, with all their rows, then `membership/updated`. The entry is the one received;
    /// absent when a detail left the device out.
    pub remove: Vec<(DeviceId, Option<&'a DeviceEntry>)>,
    /// Devices that were to be removed and are not known: logged only.
    pub unknown: Vec<DeviceId>,
}

/// The devices that are known, each with the uid of its object, or an empty one.
pub type Known = BTreeMap<DeviceId, String>;

/// Plans a `membership/detail`: all listed devices are added, all known devices that are not listed are removed.
///
/// A device that is listed twice is created by its first entry and refreshed by the others.
pub fn plan_detail<'a>(known: &Known, listed: &'a [DeviceEntry]) -> Plan<'a> {
    let mut plan = Plan::default();
    let mut present = known.clone();
    let mut named = BTreeSet::new();
    for entry in listed {
        add(&mut plan, &mut present, entry);
        named.insert(&entry.id);
    }
    plan.remove = known.keys().filter(|id| !named.contains(id)).map(|id| (id.clone(), None)).collect();
    plan
}

/// Plans a `membership` update: `added` first, then `removed`. A removal of another creation than the one that is known
/// comes too late and removes nothing.
pub fn plan_update<'a>(known: &Known, added: &'a [DeviceEntry], removed: &'a [DeviceEntry]) -> Plan<'a> {
    let mut plan = Plan::default();
    let mut present = known.clone();
    for entry in added {
        add(&mut plan, &mut present, entry);
    }
    for entry in removed {
        if present.get(&entry.id).is_some_and(|uid| !is_another(uid, &entry.uid)) {
            present.remove(&entry.id);
            plan.remove.push((entry.id.clone(), Some(entry)));
        } else {
            plan.unknown.push(entry.id.clone());
        }
    }
    plan
}

/// Are these the uids of two creations of a device? Who does not say which one it means, means the one that is there.
pub fn is_another(known: &str, named: &str) -> bool {
    !known.is_empty() && !named.is_empty() && known != named
}

fn add<'a>(plan: &mut Plan<'a>, present: &mut Known, entry: &'a DeviceEntry) {
    match present.get_mut(&entry.id) {
        None => {
            present.insert(entry.id.clone(), entry.uid.clone());
            plan.create.push(entry);
        }
        Some(uid) if is_another(uid, &entry.uid) => {
            uid.clone_from(&entry.uid);
            plan.replace.push(entry);
        }
        Some(uid) => {
            if uid.is_empty() {
                uid.clone_from(&entry.uid);
            }
            plan.refresh.push(entry);
        }
    }
}

/// Who changes attributes; KubeEdge's deal types 0 and 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttributeOrigin {
    /// A device update of the cloud: only the named attributes change, `null` deletes an optional one.
    Update,
    /// A membership message: the whole list; what is missing in it is deleted, optional or not.
    Membership,
}

/// Attributes that changed, with what they are now; `None` where they are gone. These rows are dirty, and this is
/// what `$hw/events/device/{id}/updated` tells. Empty: nothing is written and nothing published.
pub type AttributeOutcome = BTreeMap<AttributeName, Option<Attribute>>;

/// Merges `change` into `current`.
///
/// Rules (KubeEdge `DealMsgAttr`): a new attribute is inserted with type `string` and `optional` true unless said
/// otherwise; `optional` only moves from true to false; a `null` of a membership list is the same as a missing entry.
/// KubeEdge 0.2 never noticed a changed type (it compared the metadata with itself); here it is stored.
pub fn merge_attributes(
    current: &mut Attributes,
    change: &BTreeMap<AttributeName, Option<AttributeChange>>,
    origin: AttributeOrigin,
) -> AttributeOutcome {
    let mut outcome = AttributeOutcome::new();
    for (name, wanted) in change {
        match (wanted, current.get_mut(name)) {
            (Some(wanted), None) => {
                let attribute = Attribute {
                    value: wanted.value.clone(),
                    optional: wanted.optional.unwrap_or(true),
                    kind: wanted.kind.clone().filter(|kind| !kind.is_empty()).unwrap_or_else(|| ATTRIBUTE_KIND_DEFAULT.to_owned()),
                };
                current.insert(name.clone(), attribute.clone());
                outcome.insert(name.clone(), Some(attribute));
            }
            (Some(wanted), Some(attribute)) => {
                if change_attribute(attribute, wanted) {
                    outcome.insert(name.clone(), Some(attribute.clone()));
                }
            }
            (None, Some(attribute)) if origin == AttributeOrigin::Update && attribute.optional => {
                current.remove(name);
                outcome.insert(name.clone(), None);
            }
            (None, _) => {}
        }
    }
    if origin == AttributeOrigin::Membership {
        current.retain(|name, _| {
            let listed = matches!(change.get(name), Some(Some(_)));
            if !listed {
                outcome.insert(name.clone(), None);
            }
            listed
        });
    }
    outcome
}

fn change_attribute(attribute: &mut Attribute, wanted: &AttributeChange) -> bool {
    let before = attribute.clone();
    attribute.value.clone_from(&wanted.value);
    if wanted.optional == Some(false) {
        attribute.optional = false;
    }
    if let Some(kind) = wanted.kind.as_ref().filter(|kind| !kind.is_empty()) {
        attribute.kind.clone_from(kind);
    }
    *attribute != before
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use proptest::prelude::*;

    use super::*;

    fn id(text: &str) -> DeviceId {
        DeviceId::new(text).unwrap()
    }

    fn entry(text: &str) -> DeviceEntry {
        DeviceEntry::named(id(text))
    }

    fn known(ids: &[&str]) -> Known {
        ids.iter().map(|text| (id(text), String::new())).collect()
    }

    fn created(text: &str, uid: &str) -> DeviceEntry {
        DeviceEntry { uid: uid.into(), ..entry(text) }
    }

    fn name(text: &str) -> AttributeName {
        AttributeName::new(text).unwrap()
    }

    fn change(value: &str) -> Option<AttributeChange> {
        Some(AttributeChange { value: value.into(), ..AttributeChange::default() })
    }

    fn fixture() -> Attributes {
        let attribute = |value: &str, optional| Attribute { value: value.into(), optional, kind: "string".into() };
        [(name("model"), attribute("m", true)), (name("serial"), attribute("s", false))].into()
    }

    #[test]
    fn a_detail_creates_refreshes_and_removes_what_it_does_not_list() {
        let listed = [entry("new"), entry("default/old"), entry("new")];
        let plan = plan_detail(&known(&["old", "gone"]), &listed);
        assert_eq!(plan.create, [&listed[0]]);
        assert_eq!(plan.refresh, [&listed[1], &listed[2]]);
        assert_eq!(plan.remove, [(id("gone"), None)]);
    }

    #[test]
    fn another_creation_of_a_known_device_replaces_it_and_one_without_uid_is_the_one_that_is_there() {
        let known = Known::from([(id("a"), "1".into()), (id("b"), "1".into()), (id("c"), String::new()), (id("d"), "1".into())]);
        let listed = [created("a", "2"), created("b", "1"), created("c", "1"), entry("d"), created("a", "2")];
        let plan = plan_detail(&known, &listed);
        assert_eq!(plan.replace, [&listed[0]]);
        assert_eq!(plan.refresh, [&listed[1], &listed[2], &listed[3], &listed[4]]);
        assert!(plan.create.is_empty() && plan.remove.is_empty());
    }

    #[test]
    fn a_late_removal_of_an_earlier_creation_removes_nothing() {
        let known = Known::from([(id("a"), "2".into())]);
        let late = [created("a", "1")];
        assert_eq!(plan_update(&known, &[], &late), Plan { unknown: vec![id("a")], ..Plan::default() });
        // Both in one message.
        let new = [created("a", "3")];
        let gone = [created("a", "2")];
        let plan = plan_update(&known, &new, &gone);
        assert_eq!((plan.replace, plan.remove.len()), (vec![&new[0]], 0));
    }

    #[test]
    fn an_empty_detail_removes_everything() {
        assert_eq!(plan_detail(&known(&["a", "b"]), &[]).remove.len(), 2);
    }

    #[test]
    fn an_update_adds_and_then_removes() {
        let (added, removed) = ([entry("a"), entry("b")], [entry("b"), entry("c"), entry("b")]);
        let plan = plan_update(&known(&["a"]), &added, &removed);
        assert_eq!((plan.create, plan.refresh), (vec![&added[1]], vec![&added[0]]));
        assert_eq!(plan.remove, [(id("b"), Some(&removed[0]))]);
        assert_eq!(plan.unknown, [id("c"), id("b")]);
    }

    #[test]
    fn a_new_attribute_is_an_optional_string_unless_it_says_otherwise() {
        let mut attributes = Attributes::new();
        let given = AttributeChange { value: "1".into(), optional: Some(false), kind: Some("int".into()) };
        let changes = [(name("a"), change("x")), (name("b"), Some(given))].into();
        let outcome = merge_attributes(&mut attributes, &changes, AttributeOrigin::Update);
        assert_eq!(attributes[&name("a")], Attribute { value: "x".into(), optional: true, kind: "string".into() });
        assert_eq!(attributes[&name("b")], Attribute { value: "1".into(), optional: false, kind: "int".into() });
        assert_eq!(outcome.len(), 2);
    }

    #[test]
    fn only_what_differs_is_a_change() {
        let mut attributes = fixture();
        let mut changes = BTreeMap::from([(name("model"), change("m")), (name("serial"), change("s"))]);
        assert!(merge_attributes(&mut attributes, &changes, AttributeOrigin::Membership).is_empty());
        changes.insert(name("model"), Some(AttributeChange { value: "m".into(), optional: None, kind: Some("int".into()) }));
        let outcome = merge_attributes(&mut attributes, &changes, AttributeOrigin::Membership);
        assert_eq!(outcome[&name("model")].as_ref().unwrap().kind, "int");
    }

    #[test]
    fn optional_only_moves_from_true_to_false() {
        let mut attributes = fixture();
        let both = |optional| [(name("model"), Some(AttributeChange { value: "m".into(), optional: Some(optional), kind: None }))].into();
        // KubeEdge shows an empty value where only `optional` changed.
        let outcome = merge_attributes(&mut attributes, &both(false), AttributeOrigin::Update);
        assert_eq!(outcome[&name("model")].as_ref().unwrap().value, "m");
        assert!(merge_attributes(&mut attributes, &both(true), AttributeOrigin::Update).is_empty());
    }

    #[test]
    fn null_deletes_only_what_is_optional_and_a_list_deletes_all_that_it_leaves_out() {
        let mut attributes = fixture();
        let nulls = [(name("model"), None), (name("serial"), None), (name("never"), None)].into();
        let outcome = merge_attributes(&mut attributes, &nulls, AttributeOrigin::Update);
        assert_eq!(outcome, [(name("model"), None)].into());
        assert_eq!(attributes.len(), 1);

        let mut attributes = fixture();
        let outcome = merge_attributes(&mut attributes, &[(name("model"), None)].into(), AttributeOrigin::Membership);
        assert_eq!((attributes.len(), outcome.len()), (0, 2));
    }

    fn any_entries() -> impl Strategy<Value = Vec<DeviceEntry>> {
        let entry = (0..4_u8, 0..3_u8).prop_map(|(name, uid)| created(&format!("d{name}"), &if uid == 0 { String::new() } else { uid.to_string() }));
        proptest::collection::vec(entry, 0..8)
    }

    /// What is known after a plan was carried out.
    fn after(known: &Known, plan: &Plan<'_>) -> Known {
        let mut known = known.clone();
        for entry in plan.create.iter().chain(&plan.replace) {
            known.insert(entry.id.clone(), entry.uid.clone());
        }
        for entry in &plan.refresh {
            let uid = known.get_mut(&entry.id).expect("only a known device is refreshed");
            if uid.is_empty() {
                uid.clone_from(&entry.uid);
            }
        }
        for (id, _) in &plan.remove {
            assert!(known.remove(id).is_some(), "only a known device is removed, and once");
        }
        known
    }

    fn any_attributes() -> impl Strategy<Value = BTreeMap<AttributeName, Option<AttributeChange>>> {
        let kind = proptest::option::of(proptest::sample::select(vec!["", "int", "string"]).prop_map(str::to_owned));
        let change =
            ("[xy]?", proptest::option::of(any::<bool>()), kind).prop_map(|(value, optional, kind)| AttributeChange { value, optional, kind });
        proptest::collection::btree_map("[abc]".prop_map(|text| name(&text)), proptest::option::of(change), 0..4)
    }

    proptest! {
        #[test]
        fn after_a_full_list_exactly_the_listed_devices_are_there_and_the_same_list_again_creates_none(start in any_entries(), listed in any_entries()) {
            let before = after(&Known::new(), &plan_detail(&Known::new(), &start));
            let known = after(&before, &plan_detail(&before, &listed));
            let names: BTreeSet<&DeviceId> = listed.iter().map(|entry| &entry.id).collect();
            prop_assert_eq!(known.keys().collect::<BTreeSet<_>>(), names);
            // Who names each device with one uid or with none is understood the same way the second time.
            let consistent = listed.iter().all(|entry| entry.uid.is_empty() || known[&entry.id] == entry.uid);
            let again = plan_detail(&known, &listed);
            prop_assert!(again.create.is_empty() && again.remove.is_empty());
            prop_assert!(!consistent || again.replace.is_empty());
        }

        #[test]
        fn an_update_leaves_those_alone_of_which_it_does_not_speak(start in any_entries(), added in any_entries(), removed in any_entries()) {
            let before = after(&Known::new(), &plan_detail(&Known::new(), &start));
            let known = after(&before, &plan_update(&before, &added, &removed));
            for (id, uid) in &before {
                if added.iter().chain(&removed).all(|entry| entry.id != *id) {
                    prop_assert_eq!(known.get(id), Some(uid));
                }
            }
        }

        #[test]
        fn attributes_merged_twice_are_as_merged_once_and_the_outcome_is_what_differs(start in any_attributes(), change in any_attributes(), list in any::<bool>()) {
            let origin = if list { AttributeOrigin::Membership } else { AttributeOrigin::Update };
            let mut attributes = Attributes::new();
            merge_attributes(&mut attributes, &start, AttributeOrigin::Update);
            let before = attributes.clone();
            let outcome = merge_attributes(&mut attributes, &change, origin);
            let names: BTreeSet<_> = before.keys().chain(attributes.keys()).cloned().collect();
            let differing: AttributeOutcome =
                names.into_iter().filter(|name| before.get(name) != attributes.get(name)).map(|name| (name.clone(), attributes.get(&name).cloned())).collect();
            prop_assert_eq!(outcome, differing);
            let once = attributes.clone();
            prop_assert!(merge_attributes(&mut attributes, &change, origin).is_empty());
            prop_assert_eq!(attributes, once);
        }
    }
}
