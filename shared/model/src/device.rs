//! Devices, their state and their attributes.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::id::{AttributeName, DeviceId};
use crate::twin::{Twin, TwinChange};

/// Longest text of a state, in bytes.
pub const STATE_BYTES_MAX: usize = 16;

/// What a state means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StateKind {
    /// Reachable.
    Online,
    /// Not reachable.
    Offline,
    /// Not known.
    Unknown,
    /// Reachable and well (newer KubeEdge).
    Ok,
    /// Reachable and not well (newer KubeEdge).
    Unhealthy,
}

/// State of a device: one of five words, kept in the letters in which the device sent it.
///
/// Compared without regard to case and stored as sent (newer KubeEdge; 0.x knew three words, case-sensitive).
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct DeviceState {
    kind: StateKind,
    text: Arc<str>,
}

/// A word that is no device state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a device state is online, offline, unknown, ok or unhealthy")]
pub struct StateError;

impl DeviceState {
    /// The state of that word.
    ///
    /// # Errors
    /// [`StateError`] for any other word.
    pub fn new(text: &str) -> Result<Self, StateError> {
        if text.len() > STATE_BYTES_MAX {
            return Err(StateError);
        }
        let kind = match text.to_ascii_lowercase().as_str() {
            "online" => StateKind::Online,
            "offline" => StateKind::Offline,
            "unknown" => StateKind::Unknown,
            "ok" => StateKind::Ok,
            "unhealthy" => StateKind::Unhealthy,
            _ => return Err(StateError),
        };
        Ok(Self { kind, text: Arc::from(text) })
    }

    /// What it means.
    pub fn kind(&self) -> StateKind {
        self.kind
    }

    /// The word as it was sent.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Does this state move `last_online`? Newer KubeEdge: only `online` and `ok`.
    pub fn is_online(&self) -> bool {
        matches!(self.kind, StateKind::Online | StateKind::Ok)
    }
}

impl fmt::Debug for DeviceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.text, f)
    }
}

impl fmt::Display for DeviceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for DeviceState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for DeviceState {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// One attribute of a device. Its value is any text: KubeEdge does not check it against `kind`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute {
    /// Value.
    pub value: String,
    /// May a device update delete it?
    pub optional: bool,
    /// Type, as free text; `string` by default.
    pub kind: String,
}

/// Attributes of a device by name.
pub type Attributes = BTreeMap<AttributeName, Attribute>;

/// What a message says of one attribute.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttributeChange {
    /// Value.
    pub value: String,
    /// `optional`, if the message has it.
    pub optional: Option<bool>,
    /// `metadata.type`, if the message has it.
    pub kind: Option<String>,
}

/// A device as the edge keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Identity.
    pub id: DeviceId,
    /// Name for people.
    pub name: String,
    /// Description for people.
    pub description: String,
    /// State; absent before the first one.
    pub state: Option<DeviceState>,
    /// When it was last online: RFC 3339 UTC, or empty.
    pub last_online: String,
    /// Attributes.
    pub attributes: Attributes,
    /// Twin.
    pub twin: Twin,
}

/// A device as a membership message lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceEntry {
    /// Identity.
    pub id: DeviceId,
    /// `metadata.uid` of its object in the cloud, which tells one creation of a name from the next. Empty where the
    /// sender does not say (KubeEdge).
    pub uid: String,
    /// Name for people.
    pub name: String,
    /// Description for people.
    pub description: String,
    /// State, if listed and known.
    pub state: Option<DeviceState>,
    /// `last_online` as listed, or empty.
    pub last_online: String,
    /// Attributes; `None` when the list does not speak of them, which changes nothing.
    pub attributes: Option<BTreeMap<AttributeName, AttributeChange>>,
    /// Twin changes; empty when the list does not speak of them.
    pub twin: TwinChange,
}

impl DeviceEntry {
    /// An entry that names the device and says nothing else.
    pub fn named(id: DeviceId) -> Self {
        let name = id.name().to_owned();
        Self {
            id,
            uid: String::new(),
            name,
            description: String::new(),
            state: None,
            last_online: String::new(),
            attributes: None,
            twin: TwinChange::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    #[test]
    fn a_state_is_read_in_any_case_and_kept_as_sent() {
        let state = DeviceState::new("OnLine").unwrap();
        assert_eq!((state.kind(), state.as_str(), state.is_online()), (StateKind::Online, "OnLine", true));
        assert!(!DeviceState::new("unhealthy").unwrap().is_online());
        for text in ["", "on", "online ", "onlin\u{0}", &"o".repeat(1 << 20)] {
            assert_eq!(DeviceState::new(text), Err(StateError));
        }
    }
}
