//! What the edge reports to the cloud about devices.

use model::twin::RequestedType;
use model::{DeviceState, PropertyName, Timestamp, TwinProperty, TwinType, TwinValue, TwinVersion};
use serde::ser::SerializeStruct;
use serde::{Deserialize, Serialize, Serializer};
use std::collections::BTreeMap;

use super::answer::{Pairs, PropertyOut};
use super::raw::{Entries, RawType, RawValue, RawVersion, event_id, read, uid};
use super::{Fault, Rejection};
use crate::hub::codec::FRAME_BYTES_MAX;
use crate::json::{Object, object};

/// Present properties of a twin, with versions (`device/{id}/twin/edge_updated`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TwinReport {
    /// New for each report.
    pub event_id: String,
    /// When it was made.
    pub timestamp: Timestamp,
    /// `metadata.uid` of the device's object as the cloud gave it, so that a report of one that was deleted and created
    /// again is not taken for one of its successor. Empty where that is not known (KubeEdge).
    pub uid: String,
    /// By name; a tombstone tells that the property is deleted.
    pub properties: BTreeMap<PropertyName, TwinProperty>,
}

impl TwinReport {
    /// Reads a report. A property that cannot be used (null, a bad name, an unknown type) is left out.
    ///
    /// # Errors
    /// [`Fault::ReportBody`] when it is not JSON of that shape.
    pub fn parse(body: &[u8]) -> Result<Self, Rejection> {
        #[derive(Deserialize)]
        struct Raw {
            #[serde(default)]
            event_id: Option<String>,
            #[serde(default)]
            timestamp: Option<i64>,
            #[serde(default)]
            uid: Option<String>,
            #[serde(default)]
            twin: Option<Entries<Property>>,
        }
        #[derive(Deserialize)]
        struct Property {
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
        let side = |raw: Option<RawValue>| {
            let raw = raw?;
            let timestamp = raw.metadata.and_then(|metadata| metadata.timestamp).unwrap_or(0);
            Some(TwinValue { value: raw.value?, timestamp: Timestamp(timestamp) })
        };
        let raw: Raw = read(body, FRAME_BYTES_MAX, |_| Fault::ReportBody)?;
        let mut properties = BTreeMap::new();
        for (name, property) in raw.twin.map(|twin| twin.0).unwrap_or_default() {
            let (Ok(name), Some(property)) = (PropertyName::new(&name), property) else {
                continue;
            };
            let kind = property.metadata.and_then(|metadata| metadata.kind).map(|kind| RequestedType::new(&kind));
            let Some(kind) = kind.map_or(Some(TwinType::String), |kind| match kind {
                RequestedType::Known(kind) => Some(kind),
                RequestedType::Other(_) => None,
            }) else {
                continue;
            };
            let property = TwinProperty {
                expected: side(property.expected),
                actual: side(property.actual),
                optional: property.optional.unwrap_or(true),
                kind,
                expected_version: property.expected_version.map(TwinVersion::from),
                actual_version: property.actual_version.map(TwinVersion::from),
            };
            properties.insert(name, property);
        }
        Ok(Self { event_id: event_id(raw.event_id)?, timestamp: Timestamp(raw.timestamp.unwrap_or(0)), uid: uid(raw.uid), properties })
    }
}

impl Serialize for TwinReport {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let twin = self.properties.iter().map(|(name, property)| (name, PropertyOut::with_versions(property)));
        let mut body = serializer.serialize_struct("TwinReport", 4)?;
        body.serialize_field("event_id", &self.event_id)?;
        body.serialize_field("timestamp", &self.timestamp)?;
        if !self.uid.is_empty() {
            body.serialize_field("uid", &self.uid)?;
        }
        body.serialize_field("twin", &Pairs(twin))?;
        body.end()
    }
}

/// State of a device (`device/{id}/state`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceStateReport {
    /// New for each report.
    pub event_id: String,
    /// When it was made.
    pub timestamp: Timestamp,
    /// As in [`TwinReport::uid`].
    pub uid: String,
    /// The device's name for people.
    pub name: String,
    /// Its state.
    pub state: DeviceState,
    /// RFC 3339 UTC, or empty.
    pub last_online: String,
}

impl DeviceStateReport {
    /// Reads a report, with `last_online` under the key of either KubeEdge.
    ///
    /// # Errors
    /// [`Fault::ReportBody`] when it is not JSON of that shape, [`Fault::State`] for an unknown state.
    pub fn parse(body: &[u8]) -> Result<Self, Rejection> {
        #[derive(Deserialize)]
        struct Raw {
            #[serde(default)]
            event_id: Option<String>,
            #[serde(default)]
            timestamp: Option<i64>,
            #[serde(default)]
            uid: Option<String>,
            device: Object<Device>,
        }
        #[derive(Deserialize)]
        struct Device {
            #[serde(default)]
            name: Option<String>,
            #[serde(default)]
            state: Option<String>,
            #[serde(default)]
            last_online: Option<String>,
            #[serde(default, rename = "lastOnlineTime")]
            last_online_time: Option<String>,
        }
        let raw: Raw = read(body, FRAME_BYTES_MAX, |_| Fault::ReportBody)?;
        let event_id = event_id(raw.event_id)?;
        let Object(device) = raw.device;
        let state = DeviceState::new(device.state.as_deref().unwrap_or_default())
            .map_err(|_| Rejection { event_id: event_id.clone(), fault: Fault::State })?;
        Ok(Self {
            event_id,
            timestamp: Timestamp(raw.timestamp.unwrap_or(0)),
            uid: uid(raw.uid),
            name: device.name.unwrap_or_default(),
            state,
            last_online: device.last_online_time.or(device.last_online).unwrap_or_default(),
        })
    }
}

/// Both keys for the time are written: `last_online` (KubeEdge 0.x) and `lastOnlineTime` (newer).
impl Serialize for DeviceStateReport {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Device<'a> {
            name: &'a str,
            state: &'a DeviceState,
            last_online: &'a str,
            #[serde(rename = "lastOnlineTime")]
            last_online_time: &'a str,
        }
        let device = Device { name: &self.name, state: &self.state, last_online: &self.last_online, last_online_time: &self.last_online };
        let mut body = serializer.serialize_struct("DeviceStateReport", 4)?;
        body.serialize_field("event_id", &self.event_id)?;
        body.serialize_field("timestamp", &self.timestamp)?;
        if !self.uid.is_empty() {
            body.serialize_field("uid", &self.uid)?;
        }
        body.serialize_field("device", &device)?;
        body.end()
    }
}
