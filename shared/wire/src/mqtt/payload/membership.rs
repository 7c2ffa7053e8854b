//! Which devices belong to a node, from cloud to edge; and a device's attributes.
//!
//! One bad entry does not cost the others: what cannot be used is left out and named in `skipped`.

use std::collections::BTreeMap;

use model::{AttributeChange, AttributeName, DeviceEntry, DeviceId, DeviceState, Timestamp, TwinChange};
use serde::ser::SerializeStruct;
use serde::{Deserialize, Serialize, Serializer};

use super::answer::{AttributeOut, ChangeOut, Pairs};
use super::raw::{Entries, RawTwin, RawType, event_id, property, read, uid};
use super::{Fault, Rejection};
use crate::hub::codec::FRAME_BYTES_MAX;
use crate::json::{Object, object};

/// Most entries of `skipped`; what is beyond is left out without a word.
pub const SKIPPED_MAX: usize = 32;

/// The full list of a node's devices (`membership/detail`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MembershipDetail {
    /// Event id.
    pub event_id: String,
    /// When the cloud made it.
    pub timestamp: Timestamp,
    /// All devices of the node.
    pub devices: Vec<DeviceEntry>,
    /// What could not be used, in words, at most [`SKIPPED_MAX`].
    pub skipped: Vec<String>,
}

/// Devices that came and went (`membership`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MembershipUpdate {
    /// Event id.
    pub event_id: String,
    /// When the cloud made it.
    pub timestamp: Timestamp,
    /// Bound to this node.
    pub added: Vec<DeviceEntry>,
    /// No longer bound to this node.
    pub removed: Vec<DeviceEntry>,
    /// What could not be used, in words, at most [`SKIPPED_MAX`].
    pub skipped: Vec<String>,
}

/// New attributes of one device (`device/{id}`, operation `updated`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttributesUpdate {
    /// Event id, echoed in `updated`.
    pub event_id: String,
    /// When the cloud made it.
    pub timestamp: Timestamp,
    /// By name; `None` is `null` and deletes an optional attribute.
    pub attributes: BTreeMap<AttributeName, Option<AttributeChange>>,
    /// What could not be used, in words, at most [`SKIPPED_MAX`].
    pub skipped: Vec<String>,
}

#[derive(Deserialize)]
struct RawDevice {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    uid: Option<String>,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    state: Option<String>,
    #[serde(default)]
    last_online: Option<String>,
    #[serde(default, rename = "lastOnlineTime")]
    last_online_time: Option<String>,
    #[serde(default)]
    attributes: Option<Entries<RawAttribute>>,
    #[serde(default)]
    twin: Option<Entries<RawTwin>>,
}

#[derive(Deserialize)]
struct RawAttribute {
    #[serde(default)]
    value: Option<String>,
    #[serde(default)]
    optional: Option<bool>,
    #[serde(default, deserialize_with = "object")]
    metadata: Option<RawType>,
}

impl MembershipDetail {
    /// Reads the content of a `membership/detail`.
    ///
    /// # Errors
    /// [`Fault::MembershipBody`] when it is not JSON of that shape.
    pub fn parse(body: &[u8]) -> Result<Self, Rejection> {
        #[derive(Deserialize)]
        struct Raw {
            #[serde(default)]
            event_id: Option<String>,
            #[serde(default)]
            timestamp: Option<i64>,
            // Not optional: a message without a list must not remove every device.
            devices: Vec<Option<Object<RawDevice>>>,
        }
        let raw: Raw = read(body, FRAME_BYTES_MAX, |_| Fault::MembershipBody)?;
        let mut skipped = Vec::new();
        let devices = entries(Some(raw.devices), &mut skipped);
        Ok(Self { event_id: event_id(raw.event_id)?, timestamp: Timestamp(raw.timestamp.unwrap_or(0)), devices, skipped })
    }
}

impl MembershipUpdate {
    /// Reads the content of a `membership`.
    ///
    /// # Errors
    /// [`Fault::MembershipBody`] when it is not JSON of that shape.
    pub fn parse(body: &[u8]) -> Result<Self, Rejection> {
        #[derive(Deserialize)]
        struct Raw {
            #[serde(default)]
            event_id: Option<String>,
            #[serde(default)]
            timestamp: Option<i64>,
            #[serde(default)]
            added_devices: Option<Vec<Option<Object<RawDevice>>>>,
            #[serde(default)]
            removed_devices: Option<Vec<Option<Object<RawDevice>>>>,
        }
        let raw: Raw = read(body, FRAME_BYTES_MAX, |_| Fault::MembershipBody)?;
        let mut skipped = Vec::new();
        let added = entries(raw.added_devices, &mut skipped);
        let removed = entries(raw.removed_devices, &mut skipped);
        Ok(Self { event_id: event_id(raw.event_id)?, timestamp: Timestamp(raw.timestamp.unwrap_or(0)), added, removed, skipped })
    }
}

impl AttributesUpdate {
    /// Reads the content of a device update.
    ///
    /// # Errors
    /// [`Fault::MembershipBody`] when it is not JSON of that shape.
    pub fn parse(body: &[u8]) -> Result<Self, Rejection> {
        #[derive(Deserialize)]
        struct Raw {
            #[serde(default)]
            event_id: Option<String>,
            #[serde(default)]
            timestamp: Option<i64>,
            #[serde(default)]
            attributes: Option<Entries<RawAttribute>>,
        }
        let raw: Raw = read(body, FRAME_BYTES_MAX, |_| Fault::MembershipBody)?;
        let mut skipped = Vec::new();
        let attributes = raw.attributes.map(|given| attributes(given, &mut skipped)).unwrap_or_default();
        Ok(Self { event_id: event_id(raw.event_id)?, timestamp: Timestamp(raw.timestamp.unwrap_or(0)), attributes, skipped })
    }
}

fn skip(skipped: &mut Vec<String>, what: impl ToString) {
    if skipped.len() < SKIPPED_MAX {
        skipped.push(what.to_string());
    }
}

fn entries(raw: Option<Vec<Option<Object<RawDevice>>>>, skipped: &mut Vec<String>) -> Vec<DeviceEntry> {
    let mut devices = Vec::new();
    for Object(raw) in raw.unwrap_or_default().into_iter().flatten() {
        let id = match DeviceId::new(raw.id.as_deref().unwrap_or_default()) {
            Ok(id) => id,
            Err(error) => {
                skip(skipped, error);
                continue;
            }
        };
        let mut twin = TwinChange::default();
        for (name, raw) in raw.twin.map(|twin| twin.0).unwrap_or_default() {
            match property(&name, raw) {
                Ok((name, change)) => {
                    twin.properties.insert(name, change);
                }
                Err(fault) => skip(skipped, format_args!("device `{id}`: {fault}")),
            }
        }
        let state = raw
            .state
            .filter(|state| !state.is_empty())
            .and_then(|state| DeviceState::new(&state).inspect_err(|error| skip(skipped, format_args!("device `{id}`: {error}"))).ok());
        devices.push(DeviceEntry {
            uid: uid(raw.uid),
            name: raw.name.unwrap_or_default(),
            description: raw.description.unwrap_or_default(),
            state,
            last_online: raw.last_online.or(raw.last_online_time).unwrap_or_default(),
            attributes: raw.attributes.map(|given| {
                // In a list a null attribute is the same as none.
                attributes(given, skipped).into_iter().filter_map(|(name, change)| Some((name, change?))).collect()
            }),
            twin,
            id,
        });
    }
    devices
}

fn attributes(given: Entries<RawAttribute>, skipped: &mut Vec<String>) -> BTreeMap<AttributeName, Option<AttributeChange>> {
    let mut changes = BTreeMap::new();
    for (name, raw) in given.0 {
        match AttributeName::new(&name) {
            Ok(name) => {
                let change = raw.map(|raw| AttributeChange {
                    value: raw.value.unwrap_or_default(),
                    optional: raw.optional,
                    kind: raw.metadata.and_then(|metadata| metadata.kind),
                });
                changes.insert(name, change);
            }
            Err(error) => skip(skipped, error),
        }
    }
    changes
}

/// One listed device; `timestamp` is the time of its twin's values.
struct EntryOut<'a>(&'a DeviceEntry, Timestamp);

impl Serialize for EntryOut<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(entry, at) = *self;
        let mut body = serializer.serialize_struct("Device", 8)?;
        body.serialize_field("id", &entry.id)?;
        body.serialize_field("name", &entry.name)?;
        if !entry.uid.is_empty() {
            body.serialize_field("uid", &entry.uid)?;
        }
        if !entry.description.is_empty() {
            body.serialize_field("description", &entry.description)?;
        }
        if let Some(state) = &entry.state {
            body.serialize_field("state", state)?;
        }
        if !entry.last_online.is_empty() {
            body.serialize_field("last_online", &entry.last_online)?;
        }
        if let Some(attributes) = &entry.attributes {
            body.serialize_field("attributes", &Pairs(attributes.iter().map(|(name, change)| (name, AttributeOut::change(change)))))?;
        }
        if !entry.twin.is_empty() {
            let twin = entry.twin.properties.iter().map(|(name, change)| (name, ChangeOut::of(change, at)));
            body.serialize_field("twin", &Pairs(twin))?;
        }
        body.end()
    }
}

/// Go's form of a list that says nothing: `null`.
fn list(entries: &[DeviceEntry], at: Timestamp) -> Option<Vec<EntryOut<'_>>> {
    (!entries.is_empty()).then(|| entries.iter().map(|entry| EntryOut(entry, at)).collect())
}

impl Serialize for MembershipDetail {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut body = serializer.serialize_struct("MembershipDetail", 3)?;
        body.serialize_field("event_id", &self.event_id)?;
        body.serialize_field("timestamp", &self.timestamp)?;
        body.serialize_field("devices", &list(&self.devices, self.timestamp).unwrap_or_default())?;
        body.end()
    }
}

impl Serialize for MembershipUpdate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut body = serializer.serialize_struct("MembershipUpdate", 4)?;
        body.serialize_field("event_id", &self.event_id)?;
        body.serialize_field("timestamp", &self.timestamp)?;
        body.serialize_field("added_devices", &list(&self.added, self.timestamp))?;
        body.serialize_field("removed_devices", &list(&self.removed, self.timestamp))?;
        body.end()
    }
}

impl Serialize for AttributesUpdate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let attributes = self.attributes.iter().map(|(name, change)| (name, change.as_ref().map(AttributeOut::change)));
        let mut body = serializer.serialize_struct("AttributesUpdate", 3)?;
        body.serialize_field("event_id", &self.event_id)?;
        body.serialize_field("timestamp", &self.timestamp)?;
        body.serialize_field("attributes", &Pairs(attributes))?;
        body.end()
    }
}
