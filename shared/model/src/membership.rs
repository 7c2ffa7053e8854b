//! Which devices belong to this node: what a membership message changes, and how attributes merge.
//!
//! Source: manual ch. 10.3.1 with the corrections of "manual vs code": a detail removes the devices that are
//! *not in the message*; an update of a known device touches its attributes and twin only.

use std::collections::{BTreeMap, BTreeSet};

use crate::device::{Attribute, AttributeChange, Attributes, DeviceEntry};
use crate::id::{AttributeName, DeviceId};

/// Type of an attribute for which none is given.
pub const ATTRIBUTE_KIND_DEFAULT: &str = "string";

/// What a membership message asks for, in the order in which it is to be done: create, refresh, remove.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan<'a> {
    /// New devices: a row, then twin, then attributes, then `membership/updated`.
    pub create: Vec<&'a DeviceEntry>,
    /// Known devices: attributes and twin are merged; name, description and state stay; nothing is published
    /// on `membership/updated`.
    pub refresh: Vec<&'a DeviceEntry>,
    /// Known devices that go, with all their rows, then `membership/updated`. The entry is the one received;
    /// absent when a detail left the device out.
    pub remove: Vec<(DeviceId, Option<&'a DeviceEntry>)>,
    /// Devices that were to be removed and are not known: logged only.
    pub unknown: Vec<DeviceId>,
}

/// Plans a `membership/detail`: all listed devices are added, all known devices that are not listed are removed.
///
/// A device that is listed twice is created by its first entry and refreshed by the others.
pub fn plan_detail<'a>(known: &BTreeSet<DeviceId>, listed: &'a [DeviceEntry]) -> Plan<'a> {
    let mut plan = Plan::default();
    let mut present = known.clone();
    let mut named = BTreeSet::new();
    for entry in listed {
        add(&mut plan, &mut present, entry);
        named.insert(&entry.id);
    }
    plan.remove = known.iter().filter(|id| !named.contains(id)).map(|id| (id.clone(), None)).collect();
    plan
}

/// Plans a `membership` update: `added` first, then `removed`.
pub fn plan_update<'a>(known: &BTreeSet<DeviceId>, added: &'a [DeviceEntry], removed: &'a [DeviceEntry]) -> Plan<'a> {
    let mut plan = Plan::default();
    let mut present = known.clone();
    for entry in added {
        add(&mut plan, &mut present, entry);
    }
    for entry in removed {
        if present.remove(&entry.id) {
            plan.remove.push((entry.id.clone(), Some(entry)));
        } else {
            plan.unknown.push(entry.id.clone());
        }
    }
    plan
}

fn add<'a>(plan: &mut Plan<'a>, present: &mut BTreeSet<DeviceId>, entry: &'a DeviceEntry) {
    if present.insert(entry.id.clone()) {
        plan.create.push(entry);
    } else {
        plan.refresh.push(entry);
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
