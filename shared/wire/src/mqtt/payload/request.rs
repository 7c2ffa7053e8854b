//! What a device, a mapper or the cloud asks for.

use model::{DeviceState, Timestamp, TwinChange};
use serde::ser::SerializeStruct;
use serde::{Deserialize, Serialize, Serializer};

use super::answer::{ChangeOut, Pairs};
use super::raw::{Base, Entries, RawTwin, event_id, properties, quote, read, read_body, uid};
use super::{Fault, Rejection};

/// Body of `twin/get` and `membership/get`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Get {
    /// Echoed in the answer; may be empty.
    pub event_id: String,
    /// The asker's time; not used.
    pub timestamp: Timestamp,
}

impl Get {
    /// Reads the body of `twin/get`.
    ///
    /// # Errors
    /// [`Fault::TwinGetBody`], [`Fault::TooLarge`], [`Fault::EventIdTooLong`].
    pub fn parse_twin(body: &[u8]) -> Result<Self, Rejection> {
        let fault = |error: &serde_json::Error| Fault::TwinGetBody { payload: quote(body), cause: error.to_string() };
        Self::parse(body, fault)
    }

    /// Reads the body of `membership/get`.
    ///
    /// # Errors
    /// [`Fault::MembershipGetBody`], [`Fault::TooLarge`], [`Fault::EventIdTooLong`].
    pub fn parse_membership(body: &[u8]) -> Result<Self, Rejection> {
        let fault = |error: &serde_json::Error| Fault::MembershipGetBody { payload: quote(body), cause: error.to_string() };
        Self::parse(body, fault)
    }

    fn parse(body: &[u8], fault: impl FnOnce(&serde_json::Error) -> Fault) -> Result<Self, Rejection> {
        let base: Base = read_body(body, fault)?;
        Ok(Self { event_id: event_id(base.event_id)?, timestamp: Timestamp(base.timestamp.unwrap_or(0)) })
    }
}

/// Body of `twin/update` (from MQTT) and `twin/cloud_updated` (from the cloud; from MQTT only its names count).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TwinUpdate {
    /// Echoed in result and document; may be empty.
    pub event_id: String,
    /// The asker's time; not used.
    pub timestamp: Timestamp,
    /// From the cloud: `metadata.uid` of the device's object, so that what was wanted of one that was deleted and created
    /// again does not reach its successor. Empty where the sender does not say (KubeEdge); a device's is not used.
    pub uid: String,
    /// What is to change; names and values are valid.
    pub change: TwinChange,
}

impl TwinUpdate {
    /// Reads the body, with KubeEdge's checks in their order: JSON, `twin`, then name and values of each property.
    ///
    /// # Errors
    /// [`Fault::UpdateBody`], [`Fault::TwinMissing`], [`Fault::Key`], [`Fault::Value`], [`Fault::TooLarge`], [`Fault::EventIdTooLong`]; all of them code 400, and nothing of the request is done.
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
            twin: Option<Entries<RawTwin>>,
        }
        let raw: Raw = read_body(body, |_| Fault::UpdateBody)?;
        let event_id = event_id(raw.event_id)?;
        let change = raw.twin.ok_or(Fault::TwinMissing).and_then(properties);
        match change {
            Ok(change) => Ok(Self { event_id, timestamp: Timestamp(raw.timestamp.unwrap_or(0)), uid: uid(raw.uid), change }),
            Err(fault) => Err(Rejection { event_id, fault }),
        }
    }
}

/// Written by the cloud as `twin/cloud_updated`: each side with the message's time.
impl Serialize for TwinUpdate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let twin = self.change.properties.iter().map(|(name, change)| (name, ChangeOut::of(change, self.timestamp)));
        let mut body = serializer.serialize_struct("TwinUpdate", 4)?;
        body.serialize_field("event_id", &self.event_id)?;
        body.serialize_field("timestamp", &self.timestamp)?;
        if !self.uid.is_empty() {
            body.serialize_field("uid", &self.uid)?;
        }
        body.serialize_field("twin", &Pairs(twin))?;
        body.end()
    }
}

/// Body of `state/update`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateUpdate {
    /// The asker's; not echoed (KubeEdge answers with a new one).
    pub event_id: String,
    /// The asker's time; not used.
    pub timestamp: Timestamp,
    /// The state.
    pub state: DeviceState,
}

impl StateUpdate {
    /// Reads the body.
    ///
    /// # Errors
    /// [`Fault::StateBody`], [`Fault::State`], [`Fault::TooLarge`], [`Fault::EventIdTooLong`]. KubeEdge publishes no
    /// error for a state; log it and go on.
    pub fn parse(body: &[u8]) -> Result<Self, Rejection> {
        #[derive(Deserialize)]
        struct Raw {
            #[serde(default)]
            event_id: Option<String>,
            #[serde(default)]
            timestamp: Option<i64>,
            #[serde(default)]
            state: Option<String>,
        }
        let raw: Raw = read(body, super::BODY_BYTES_MAX, |_| Fault::StateBody)?;
        let event_id = event_id(raw.event_id)?;
        match DeviceState::new(raw.state.as_deref().unwrap_or_default()) {
            Ok(state) => Ok(Self { event_id, timestamp: Timestamp(raw.timestamp.unwrap_or(0)), state }),
            Err(_) => Err(Rejection { event_id, fault: Fault::State }),
        }
    }
}
