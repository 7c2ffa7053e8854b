//! How a message changes a twin. Pure: the caller loads, merges, stores what is dirty, commits, and then tells.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    PROPERTIES_MAX, PropertyChange, PropertySet, RequestedType, SideChange, Twin, TwinChange, TwinProperty, TwinType, TwinValue, TwinVersion,
};
use crate::id::PropertyName;
use crate::time::Timestamp;

/// Who wants the change; KubeEdge's deal types 0 and 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// MQTT `twin/update`: the edge's counter moves; one wrong value refuses the whole message.
    Device,
    /// `twin/cloud_updated` or a membership list: the message's versions decide, side by side.
    Cloud,
}

/// Why a device's message is refused as a whole (code 400). The text is KubeEdge's newer wording.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TwinError {
    /// Not a decimal 64-bit integer.
    #[error("the value is not int or integer")]
    NotInt,
    /// Not a floating-point number.
    #[error("the value is not float")]
    NotFloat,
    /// Neither `true` nor `false`.
    #[error("the bool value must be true or false")]
    NotBoolean,
    /// `metadata.type` is no type that a living property can have.
    #[error("the value type is not allowed")]
    TypeNotAllowed,
    /// `null` for a property that does not exist. KubeEdge stops there and reports success.
    #[error("the request body is wrong")]
    NothingToDelete,
    /// The device would have more than [`PROPERTIES_MAX`] properties.
    #[error("a device has at most {PROPERTIES_MAX} twin properties")]
    TooMany,
}

/// What of a cloud message was not done, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Which property.
    pub name: PropertyName,
    /// Why.
    pub reason: RefusalReason,
}

/// Why a side or property of a cloud message was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RefusalReason {
    /// The side carries no version.
    #[error("version not allowed be nil while syncing")]
    VersionMissing,
    /// The stored cloud counter is ahead.
    #[error("version not allowed")]
    CloudVersionOlder,
    /// The stored edge counter is ahead: the device changed it meanwhile.
    #[error("not allowed to sync due to version conflict")]
    EdgeVersionOlder,
    /// The value does not fit the type. Not reported back, or the cloud would answer with the same value for ever.
    #[error("{0}")]
    Value(TwinError),
}

impl RefusalReason {
    /// Must the cloud hear what the edge has instead? Yes for versions, as in KubeEdge.
    pub fn is_version_conflict(self) -> bool {
        !matches!(self, Self::Value(_))
    }
}

/// `last` and `current` of one property in `twin/update/document`; `None` is `null` (absent or deleted).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentEntry {
    /// Before.
    pub last: Option<TwinProperty>,
    /// After.
    pub current: Option<TwinProperty>,
}

/// One property in `twin/update/result`: only what changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PropertyResult {
    /// The expected side, if given.
    pub expected: Option<TwinValue>,
    /// The actual side, if given.
    pub actual: Option<TwinValue>,
    /// `optional`, if it changed.
    pub optional: Option<bool>,
    /// The type, if it changed.
    pub kind: Option<TwinType>,
}

/// What a merge did.
///
/// The delta is not in it: it is a question to the merged twin, [`Twin::delta`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// What changed, for `twin/update/result` (devices only). `None` is `null`: deleted.
    pub result: BTreeMap<PropertyName, Option<PropertyResult>>,
    /// What changed, before and after, for `twin/update/document`; nothing is published when empty.
    pub document: BTreeMap<PropertyName, DocumentEntry>,
    /// Properties whose present value the cloud must hear: what a device changed, or what a cloud message was
    /// refused for its version.
    pub report: BTreeSet<PropertyName>,
    /// What of a cloud message was not done.
    pub refusals: Vec<Refusal>,
    /// Properties whose row must be written: the present value is in the merged twin.
    pub dirty: BTreeSet<PropertyName>,
}

/// Merges `change` into `twin`. `now` stamps the values that are stored.
///
/// A version never decreases. The same value again is a change (version, document and report), as in KubeEdge:
/// a device that repeats itself says that it is alive.
///
/// # Errors
/// From a device only: the whole message is refused and `twin` is as it was.
pub fn merge(twin: &mut Twin, change: &TwinChange, origin: Origin, now: Timestamp) -> Result<Outcome, TwinError> {
    let mut merge = Merge { now, outcome: Outcome::default(), written: Vec::new(), added: 0 };
    for (name, wanted) in &change.properties {
        let stored = twin.properties.get(name);
        let is_full = twin.properties.len() + merge.added >= PROPERTIES_MAX;
        if stored.is_none() && is_full && matches!(wanted, PropertyChange::Set(_)) {
            match origin {
                Origin::Device => return Err(TwinError::TooMany),
                Origin::Cloud => {
                    merge.refuse(name, stored, RefusalReason::Value(TwinError::TooMany));
                    continue;
                }
            }
        }
        match (origin, wanted) {
            (Origin::Device, PropertyChange::Null) => merge.device_delete(name, stored)?,
            (Origin::Device, PropertyChange::Set(set)) => merge.device_set(name, stored, set)?,
            // KubeEdge 0.x panics on a null from the cloud; the cloud deletes by type, so null says nothing.
            (Origin::Cloud, PropertyChange::Null) => {}
            (Origin::Cloud, PropertyChange::Set(set)) if set.kind == Some(RequestedType::Known(TwinType::Deleted)) => {
                merge.cloud_delete(name, stored, set);
            }
            (Origin::Cloud, PropertyChange::Set(set)) => merge.cloud_set(name, stored, set),
        }
    }
    twin.properties.extend(merge.written);
    Ok(merge.outcome)
}

/// One merge under way. `written` is applied at the end, so that an error leaves the twin as it was.
struct Merge {
    now: Timestamp,
    outcome: Outcome,
    written: Vec<(PropertyName, TwinProperty)>,
    /// How many of `written` are new.
    added: usize,
}

impl Merge {
    fn device_delete(&mut self, name: &PropertyName, stored: Option<&TwinProperty>) -> Result<(), TwinError> {
        let Some(stored) = stored else {
            return Err(TwinError::NothingToDelete);
        };
        // A property that must stay is left alone without a word (KubeEdge). So is one that is deleted already; there
        // KubeEdge leaks a document with the tombstone in it and an empty report.
        if !stored.optional || stored.is_tombstone() {
            return Ok(());
        }
        // KubeEdge needs two deletes for a property without versions: the first only makes them.
        let tombstone = TwinProperty {
            expected_version: stored.expected_version.map(TwinVersion::next_edge),
            actual_version: stored.actual_version.map(TwinVersion::next_edge),
            ..tombstone(stored.optional)
        };
        self.outcome.result.insert(name.clone(), None);
        self.outcome.report.insert(name.clone());
        self.write(name, Some(stored), tombstone);
        Ok(())
    }

    fn device_set(&mut self, name: &PropertyName, stored: Option<&TwinProperty>, set: &PropertySet) -> Result<(), TwinError> {
        let mut result = PropertyResult::default();
        let mut property = match stored {
            Some(stored) => stored.clone(),
            None => TwinProperty { optional: set.optional.unwrap_or(true), ..TwinProperty::default() },
        };
        let born = stored.is_none_or(TwinProperty::is_tombstone);
        if born {
            property.kind = birth_type(set)?;
            result.kind = Some(property.kind);
        }
        if stored.is_none() {
            result.optional = Some(property.optional);
        } else if set.optional == Some(false) && property.optional {
            property.optional = false;
            result.optional = Some(false);
        }
        // KubeEdge stores the first value of a side unchecked and refuses the second; here each value must fit.
        for side in [&set.expected, &set.actual].into_iter().flatten() {
            property.kind.check(&side.value)?;
        }
        if let Some(side) = &set.expected {
            property.expected = Some(self.stamp(side));
            property.expected_version = Some(property.expected_version.unwrap_or_default().next_edge());
            result.expected.clone_from(&property.expected);
        }
        if let Some(side) = &set.actual {
            property.actual = Some(self.stamp(side));
            property.actual_version = Some(property.actual_version.unwrap_or_default().next_edge());
            result.actual.clone_from(&property.actual);
        }
        // Another `metadata` for a living property does not change its type, and is no change by itself.
        if result != PropertyResult::default() {
            self.outcome.result.insert(name.clone(), Some(result));
            self.outcome.report.insert(name.clone());
            self.write(name, stored, property);
        }
        Ok(())
    }

    fn cloud_delete(&mut self, name: &PropertyName, stored: Option<&TwinProperty>, set: &PropertySet) {
        let local = stored.cloned().unwrap_or_default();
        let checked = (admitted(local.expected_version, set.expected_version), admitted(local.actual_version, set.actual_version));
        // A deletion without versions is allowed and keeps them. A refused side refuses the deletion: half a
        // tombstone is nothing that either peer could describe.
        let (expected_version, actual_version) = match checked {
            (Err(reason), _) | (_, Err(reason)) if reason != RefusalReason::VersionMissing => {
                return self.refuse(name, stored, reason);
            }
            (expected, actual) => (expected.ok().or(local.expected_version), actual.ok().or(local.actual_version)),
        };
        let tombstone = TwinProperty { expected_version, actual_version, ..tombstone(local.optional) };
        if stored != Some(&tombstone) {
            self.write(name, stored, tombstone);
        }
    }

    fn cloud_set(&mut self, name: &PropertyName, stored: Option<&TwinProperty>, set: &PropertySet) {
        let mut property = match stored {
            Some(stored) => stored.clone(),
            None => TwinProperty { optional: set.optional.unwrap_or(true), ..TwinProperty::default() },
        };
        let born = stored.is_none_or(TwinProperty::is_tombstone);
        if born {
            match birth_type(set) {
                Ok(kind) => property.kind = kind,
                Err(error) => return self.refuse(name, stored, RefusalReason::Value(error)),
            }
        }
        let kind = property.kind;
        let mut moved = false;
        let sides = [
            (&set.expected, set.expected_version, &mut property.expected, &mut property.expected_version),
            (&set.actual, set.actual_version, &mut property.actual, &mut property.actual_version),
        ];
        for (side, given, value, version) in sides {
            let Some(side) = side else { continue };
            match kind.check(&side.value) {
                // A wrong value is skipped; the other side goes on (KubeEdge).
                Err(error) => self.refuse(name, stored, RefusalReason::Value(error)),
                Ok(()) => match admitted(*version, given) {
                    // A refused version ends the property: neither the other side nor `optional` is looked at.
                    Err(reason) => {
                        self.refuse(name, stored, reason);
                        break;
                    }
                    // The very same again: sent twice, or listed at a reconnection. Nothing to write, nothing to tell.
                    Ok(admitted) if *version == Some(admitted) && value.as_ref().is_some_and(|stored| stored.value == side.value) => {}
                    Ok(admitted) => {
                        *value = Some(self.stamp(side));
                        *version = Some(admitted);
                        moved = true;
                    }
                },
            }
        }
        let refused = self.outcome.refusals.last().is_some_and(|refusal| refusal.name == *name);
        if !refused && stored.is_some() && set.optional == Some(false) && property.optional {
            property.optional = false;
            moved = true;
        }
        // A new property that only states its type and `optional` is stored as that. A deleted one is not brought
        // back by a message without a value: it would have no version to be judged by.
        if moved || (stored.is_none() && !refused) {
            self.write(name, stored, property);
        }
    }

    fn stamp(&self, side: &SideChange) -> TwinValue {
        TwinValue { value: side.value.clone(), timestamp: self.now }
    }

    fn refuse(&mut self, name: &PropertyName, stored: Option<&TwinProperty>, reason: RefusalReason) {
        // KubeEdge reports an empty object for a refused property that it does not have.
        if reason.is_version_conflict() && stored.is_some() {
            self.outcome.report.insert(name.clone());
        }
        self.outcome.refusals.push(Refusal { name: name.clone(), reason });
    }

    fn write(&mut self, name: &PropertyName, stored: Option<&TwinProperty>, property: TwinProperty) {
        let living = |property: &TwinProperty| (!property.is_tombstone()).then(|| property.clone());
        let entry = DocumentEntry { last: stored.and_then(living), current: living(&property) };
        // A tombstone for what was never known, or a newer one, is written but is nothing to tell a device.
        if entry.last.is_some() || entry.current.is_some() {
            self.outcome.document.insert(name.clone(), entry);
        }
        self.outcome.dirty.insert(name.clone());
        self.added += usize::from(stored.is_none());
        self.written.push((name.clone(), property));
    }
}

fn tombstone(optional: bool) -> TwinProperty {
    TwinProperty { kind: TwinType::Deleted, optional, ..TwinProperty::default() }
}

/// Type of a property that begins, or begins again, with this message: `string` unless the message names one.
fn birth_type(set: &PropertySet) -> Result<TwinType, TwinError> {
    match &set.kind {
        None => Ok(TwinType::String),
        Some(RequestedType::Known(TwinType::Deleted) | RequestedType::Other(_)) => Err(TwinError::TypeNotAllowed),
        Some(RequestedType::Known(kind)) => Ok(*kind),
    }
}

/// The version rule of a sync: both numbers are taken from the message, and neither may be behind the stored one.
fn admitted(stored: Option<TwinVersion>, given: Option<TwinVersion>) -> Result<TwinVersion, RefusalReason> {
    let stored = stored.unwrap_or_default();
    let given = given.ok_or(RefusalReason::VersionMissing)?;
    if stored.cloud > given.cloud {
        Err(RefusalReason::CloudVersionOlder)
    } else if stored.edge > given.edge {
        Err(RefusalReason::EdgeVersionOlder)
    } else {
        Ok(given)
    }
}
