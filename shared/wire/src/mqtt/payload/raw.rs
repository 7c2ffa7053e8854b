//! The JSON as it stands on the wire, before any check; tolerant where KubeEdge is.

use std::fmt;
use std::marker::PhantomData;

use model::twin::{PropertySet, RequestedType, SideChange, is_value};
use model::{PropertyChange, PropertyName, TwinChange, TwinVersion};
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::{BODY_BYTES_MAX, EVENT_ID_BYTES_MAX, Fault, Rejection};
use crate::json::{Object, object};

/// Characters of a refused body that a reason may quote.
const QUOTED_CHARS_MAX: usize = 256;

/// `event_id` and `timestamp`; null and absent are the same, as for Go.
#[derive(Default, Deserialize)]
pub(super) struct Base {
    #[serde(default)]
    pub event_id: Option<String>,
    #[serde(default)]
    pub timestamp: Option<i64>,
}

/// A JSON object of objects as its entries, in order and with repetitions; `None` is `null`.
pub(super) struct Entries<T>(pub Vec<(String, Option<T>)>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Entries<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Collect<T> {
            type Value = Entries<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, Option<Object<T>>>()? {
                    entries.push((name, value.map(|object| object.0)));
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Collect(PhantomData))
    }
}

#[derive(Deserialize)]
pub(super) struct RawTwin {
    #[serde(default, deserialize_with = "object")]
    expected: Option<RawValue>,
    #[serde(default, deserialize_with = "object")]
    actual: Option<RawValue>,
    #[serde(default)]
    optional: Option<bool>,
    #[serde(default, deserialize_with = "object")]
    metadata: Option<RawType>,
    #[serde(default, deserialize_with = "object")]
    expected_version: Option<RawVersion>,
    #[serde(default, deserialize_with = "object")]
    actual_version: Option<RawVersion>,
}

#[derive(Deserialize)]
pub(super) struct RawValue {
    /// KubeEdge 0.x writes `null` for an unset value; `{}` panics it. Both are "no side" here.
    #[serde(default)]
    pub value: Option<String>,
    #[serde(default, deserialize_with = "object")]
    pub metadata: Option<RawTime>,
}

#[derive(Deserialize)]
pub(super) struct RawTime {
    #[serde(default)]
    pub timestamp: Option<i64>,
}

#[derive(Deserialize)]
pub(super) struct RawType {
    #[serde(default, rename = "type")]
    pub kind: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct RawVersion {
    #[serde(default)]
    cloud: Option<i64>,
    #[serde(default)]
    edge: Option<i64>,
}

impl From<RawVersion> for TwinVersion {
    fn from(raw: RawVersion) -> Self {
        Self { cloud: raw.cloud.unwrap_or(0), edge: raw.edge.unwrap_or(0) }
    }
}

/// Reads a body after its size is checked. `fault` makes the reason of a body that does not parse.
pub(super) fn read<T: DeserializeOwned>(body: &[u8], bytes_max: usize, fault: impl FnOnce(&serde_json::Error) -> Fault) -> Result<T, Rejection> {
    if body.len() > bytes_max {
        return Err(Fault::TooLarge { bytes: body.len() }.into());
    }
    serde_json::from_slice::<Object<T>>(body)
        .map(|object| object.0)
        .map_err(|error| Rejection { event_id: guess_event_id(body), fault: fault(&error) })
}

/// The same with the limit of a device's body.
pub(super) fn read_body<T: DeserializeOwned>(body: &[u8], fault: impl FnOnce(&serde_json::Error) -> Fault) -> Result<T, Rejection> {
    read(body, BODY_BYTES_MAX, fault)
}

/// The `event_id` of a body that is JSON but not what it should be; else empty.
fn guess_event_id(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct OnlyId {
        event_id: String,
    }
    serde_json::from_slice::<OnlyId>(body).map(|only| only.event_id).ok().filter(|id| id.len() <= EVENT_ID_BYTES_MAX).unwrap_or_default()
}

/// Checks the length of an `event_id`.
pub(super) fn event_id(given: Option<String>) -> Result<String, Rejection> {
    let id = given.unwrap_or_default();
    if id.len() > EVENT_ID_BYTES_MAX {
        return Err(Fault::EventIdTooLong { bytes: id.len() }.into());
    }
    Ok(id)
}

/// Longest uid that is taken, in bytes; Kubernetes' have 36.
const UID_BYTES_MAX: usize = 128;

/// The uid of a device's object. One that cannot be a uid says as little as none.
pub(super) fn uid(given: Option<String>) -> String {
    given.filter(|uid| uid.len() <= UID_BYTES_MAX).unwrap_or_default()
}

/// The beginning of a refused body, for a reason.
pub(super) fn quote(body: &[u8]) -> String {
    let head = &body[..body.len().min(QUOTED_CHARS_MAX * 4)];
    String::from_utf8_lossy(head).chars().take(QUOTED_CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// One named property of a request, checked.
pub(super) fn property(name: &str, raw: Option<RawTwin>) -> Result<(PropertyName, PropertyChange), Fault> {
    let name = PropertyName::new(name).map_err(|_| Fault::Key)?;
    let Some(raw) = raw else {
        return Ok((name, PropertyChange::Null));
    };
    let side = |raw: Option<RawValue>| match raw.and_then(|raw| raw.value) {
        Some(value) if !is_value(&value) => Err(Fault::Value),
        value => Ok(value.map(|value| SideChange { value })),
    };
    let set = PropertySet {
        expected: side(raw.expected)?,
        actual: side(raw.actual)?,
        optional: raw.optional,
        kind: raw.metadata.and_then(|metadata| metadata.kind).map(|kind| RequestedType::new(&kind)),
        expected_version: raw.expected_version.map(TwinVersion::from),
        actual_version: raw.actual_version.map(TwinVersion::from),
    };
    Ok((name, PropertyChange::Set(set)))
}

/// All properties of a request, checked; the first fault refuses them all. Of one that is named twice the last counts.
pub(super) fn properties(entries: Entries<RawTwin>) -> Result<TwinChange, Fault> {
    let mut change = TwinChange::default();
    for (name, raw) in entries.0 {
        let (name, wanted) = property(&name, raw)?;
        change.properties.insert(name, wanted);
    }
    Ok(change)
}
