//! Every topic that Skep listens to or publishes on.
//!
//! A topic string becomes a [`Topic`] when it enters and is matched from then on. Parsing goes by whole levels, so a
//! device called `device` or `hw` can be reached, which KubeEdge's search for the id inside the text cannot do.
//! Both forms of a device id are read: one level (KubeEdge to 1.16) and `namespace/name` (since 1.17).

use std::fmt;
use std::str::FromStr;

use model::{DeviceId, NameError, NodeName};

/// Longest topic, in bytes (MQTT 3.1.1 §1.5.3).
pub const TOPIC_BYTES_MAX: usize = 65_535;

/// Filters that EventBus subscribes on start, both forms of device ids included.
///
/// None of them matches a topic that Skep itself publishes (tested below), so there is no loop.
pub const SUBSCRIBE_FILTERS: &[&str] = &[
    "$hw/events/upload/#",
    "$hw/events/device/+/state/update",
    "$hw/events/device/+/+/state/update",
    "$hw/events/device/+/twin/+",
    "$hw/events/device/+/+/twin/+",
    "$hw/events/node/+/membership/get",
    "SYS/dis/upload_records",
    "+/user/#",
];

const DEVICE: &str = "$hw/events/device/";
const NODE: &str = "$hw/events/node/";
const UPLOAD: &str = "$hw/events/upload";
const UPLOAD_RECORDS: &str = "SYS/dis/upload_records";
const NODE_CONNECTION: &str = "node/connection";

/// A topic, by meaning.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Topic {
    /// In: a mapper asks for the devices of this node. The level in the topic is not compared (KubeEdge ignores it).
    MembershipGet {
        /// The level where the node's name stands, whatever it is.
        node: String,
    },
    /// In: a device or its mapper reports a state.
    DeviceStateUpdate(DeviceId),
    /// In: a device or its mapper changes its twin.
    TwinUpdate(DeviceId),
    /// In: the cloud's change, brought by MQTT.
    TwinCloudUpdated(DeviceId),
    /// In: a mapper asks for the twin.
    TwinGet(DeviceId),
    /// In: goes to the cloud as it is. What follows `$hw/events/upload`: empty, or `/` and more levels.
    Upload(String),
    /// In: `SYS/dis/upload_records`, goes to the cloud as it is.
    UploadRecords,
    /// In: `{first}/user[/{rest}]`, for the cloud's rules (newer KubeEdge); goes to the cloud as it is.
    User(String),
    /// Out: answer to [`Topic::MembershipGet`].
    MembershipGetResult(NodeName),
    /// Out: a device was bound or unbound.
    MembershipUpdated(NodeName),
    /// Out: authentication data (KubeEdge's IEF only).
    AuthInfoGetResult(NodeName),
    /// Out: a state was stored.
    DeviceStateUpdateResult(DeviceId),
    /// Out: attributes changed.
    DeviceUpdated(DeviceId),
    /// Out: answer to [`Topic::TwinUpdate`].
    TwinUpdateResult(DeviceId),
    /// Out: what changed in the twin, before and after.
    TwinUpdateDocument(DeviceId),
    /// Out: where the device differs from what is expected.
    TwinUpdateDelta(DeviceId),
    /// Out: answer to [`Topic::TwinGet`].
    TwinGetResult(DeviceId),
    /// Out: `node/connection`, `cloud_connected` or `cloud_disconnected` (KubeEdge 0.x).
    NodeConnection,
    /// Any other valid topic: named by the cloud, or by a rule.
    Custom(String),
}

/// A text on which nothing can be published.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// No characters.
    #[error("a topic must have at least one character")]
    Empty,
    /// Longer than MQTT allows.
    #[error("a topic has at most {TOPIC_BYTES_MAX} bytes, this one has {bytes}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// `+` or `#`.
    #[error("a topic to publish on has no wildcard")]
    Wildcard,
    /// U+0000 or another control character.
    #[error("a topic has no control character")]
    Control,
    /// A known topic of a device whose id is not valid.
    #[error(transparent)]
    Device(#[from] NameError),
}

impl Topic {
    /// Reads a topic name.
    ///
    /// # Errors
    /// [`TopicError`] for a text that is no topic name, or a known device topic with an id that is not valid.
    pub fn parse(text: &str) -> Result<Self, TopicError> {
        check(text)?;
        if let Some(rest) = text.strip_prefix(DEVICE) {
            if let Some(topic) = device_topic(rest)? {
                return Ok(topic);
            }
        } else if let Some(rest) = text.strip_prefix(NODE) {
            if let Some(topic) = node_topic(rest) {
                return Ok(topic);
            }
        } else if let Some(rest) = text.strip_prefix(UPLOAD).filter(|rest| rest.is_empty() || rest.starts_with('/')) {
            return Ok(Self::Upload(rest.to_owned()));
        } else if text == UPLOAD_RECORDS {
            return Ok(Self::UploadRecords);
        } else if text == NODE_CONNECTION {
            return Ok(Self::NodeConnection);
        } else if text.split('/').nth(1) == Some("user") && !text.starts_with('$') {
            return Ok(Self::User(text.to_owned()));
        }
        Ok(Self::Custom(text.to_owned()))
    }

    /// The device whose topic this is.
    pub fn device(&self) -> Option<&DeviceId> {
        match self {
            Self::DeviceStateUpdate(id)
            | Self::TwinUpdate(id)
            | Self::TwinCloudUpdated(id)
            | Self::TwinGet(id)
            | Self::DeviceStateUpdateResult(id)
            | Self::DeviceUpdated(id)
            | Self::TwinUpdateResult(id)
            | Self::TwinUpdateDocument(id)
            | Self::TwinUpdateDelta(id)
            | Self::TwinGetResult(id) => Some(id),
            Self::MembershipGet { .. }
            | Self::Upload(_)
            | Self::UploadRecords
            | Self::User(_)
            | Self::MembershipGetResult(_)
            | Self::MembershipUpdated(_)
            | Self::AuthInfoGetResult(_)
            | Self::NodeConnection
            | Self::Custom(_) => None,
        }
    }

    /// The same topic with `default/` spelled out before the device's name, as mappers since KubeEdge 1.17 write it;
    /// `None` where there is no second form.
    pub fn long_form(&self) -> Option<String> {
        let id = self.device().filter(|id| !id.as_str().contains('/'))?;
        let text = self.to_string();
        let rest = text.strip_prefix(DEVICE)?;
        Some(format!("{DEVICE}{}/{rest}", id.namespace()))
    }

    /// Does a device or its mapper ask for something here?
    pub fn is_request(&self) -> bool {
        matches!(self, Self::MembershipGet { .. } | Self::DeviceStateUpdate(_) | Self::TwinUpdate(_) | Self::TwinCloudUpdated(_) | Self::TwinGet(_))
    }

    /// Does Skep tell devices and their mappers something here, of its own making?
    pub fn is_answer(&self) -> bool {
        match self {
            Self::MembershipGetResult(_)
            | Self::MembershipUpdated(_)
            | Self::AuthInfoGetResult(_)
            | Self::DeviceStateUpdateResult(_)
            | Self::DeviceUpdated(_)
            | Self::TwinUpdateResult(_)
            | Self::TwinUpdateDocument(_)
            | Self::TwinUpdateDelta(_)
            | Self::TwinGetResult(_)
            | Self::NodeConnection => true,
            Self::MembershipGet { .. }
            | Self::DeviceStateUpdate(_)
            | Self::TwinUpdate(_)
            | Self::TwinCloudUpdated(_)
            | Self::TwinGet(_)
            | Self::Upload(_)
            | Self::UploadRecords
            | Self::User(_)
            | Self::Custom(_) => false,
        }
    }

    /// Does it go to the cloud as it is, without a meaning of ours?
    pub fn is_upload(&self) -> bool {
        matches!(self, Self::Upload(_) | Self::UploadRecords | Self::User(_))
    }
}

/// Is `text` a valid topic filter (MQTT 3.1.1 §4.7): `+` alone in its level, `#` alone in the last one?
pub fn is_filter(text: &str) -> bool {
    if text.is_empty() || text.len() > TOPIC_BYTES_MAX || text.contains(char::is_control) {
        return false;
    }
    let last = text.split('/').count() - 1;
    text.split('/').enumerate().all(|(index, level)| match level {
        "+" => true,
        "#" => index == last,
        _ => !level.contains(['+', '#']),
    })
}

fn check(text: &str) -> Result<(), TopicError> {
    if text.is_empty() {
        return Err(TopicError::Empty);
    }
    if text.len() > TOPIC_BYTES_MAX {
        return Err(TopicError::TooLong { bytes: text.len() });
    }
    if text.contains(['+', '#']) {
        return Err(TopicError::Wildcard);
    }
    if text.contains(char::is_control) {
        return Err(TopicError::Control);
    }
    Ok(())
}

/// Words after a device's id, with the topic that they make.
type Suffix = (&'static str, fn(DeviceId) -> Topic);

/// No text has two readings: what may follow an id of one level never ends like what may follow one of two.
const DEVICE_SUFFIXES: &[Suffix] = &[
    ("/state/update", Topic::DeviceStateUpdate),
    ("/state/update/result", Topic::DeviceStateUpdateResult),
    ("/updated", Topic::DeviceUpdated),
    ("/twin/update", Topic::TwinUpdate),
    ("/twin/cloud_updated", Topic::TwinCloudUpdated),
    ("/twin/get", Topic::TwinGet),
    ("/twin/update/result", Topic::TwinUpdateResult),
    ("/twin/update/document", Topic::TwinUpdateDocument),
    ("/twin/update/delta", Topic::TwinUpdateDelta),
    ("/twin/get/result", Topic::TwinGetResult),
];

fn device_topic(rest: &str) -> Result<Option<Topic>, TopicError> {
    for (suffix, topic) in DEVICE_SUFFIXES {
        let Some(id) = rest.strip_suffix(suffix) else { continue };
        if id.bytes().filter(|byte| *byte == b'/').count() <= 1 {
            return Ok(Some(topic(DeviceId::new(id)?)));
        }
    }
    Ok(None)
}

fn node_topic(rest: &str) -> Option<Topic> {
    let (node, words) = rest.split_once('/')?;
    match words {
        "membership/get" => Some(Topic::MembershipGet { node: node.to_owned() }),
        // A name that is no node's cannot be ours, so such a topic is one like any other.
        "membership/get/result" => NodeName::new(node).ok().map(Topic::MembershipGetResult),
        "membership/updated" => NodeName::new(node).ok().map(Topic::MembershipUpdated),
        "authInfo/get/result" => NodeName::new(node).ok().map(Topic::AuthInfoGetResult),
        _ => None,
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MembershipGet { node } => write!(f, "{NODE}{node}/membership/get"),
            Self::DeviceStateUpdate(id) => write!(f, "{DEVICE}{id}/state/update"),
            Self::TwinUpdate(id) => write!(f, "{DEVICE}{id}/twin/update"),
            Self::TwinCloudUpdated(id) => write!(f, "{DEVICE}{id}/twin/cloud_updated"),
            Self::TwinGet(id) => write!(f, "{DEVICE}{id}/twin/get"),
            Self::Upload(rest) => write!(f, "{UPLOAD}{rest}"),
            Self::UploadRecords => f.write_str(UPLOAD_RECORDS),
            Self::User(text) | Self::Custom(text) => f.write_str(text),
            Self::MembershipGetResult(node) => write!(f, "{NODE}{node}/membership/get/result"),
            Self::MembershipUpdated(node) => write!(f, "{NODE}{node}/membership/updated"),
            Self::AuthInfoGetResult(node) => write!(f, "{NODE}{node}/authInfo/get/result"),
            Self::DeviceStateUpdateResult(id) => write!(f, "{DEVICE}{id}/state/update/result"),
            Self::DeviceUpdated(id) => write!(f, "{DEVICE}{id}/updated"),
            Self::TwinUpdateResult(id) => write!(f, "{DEVICE}{id}/twin/update/result"),
            Self::TwinUpdateDocument(id) => write!(f, "{DEVICE}{id}/twin/update/document"),
            Self::TwinUpdateDelta(id) => write!(f, "{DEVICE}{id}/twin/update/delta"),
            Self::TwinGetResult(id) => write!(f, "{DEVICE}{id}/twin/get/result"),
            Self::NodeConnection => f.write_str(NODE_CONNECTION),
        }
    }
}

impl FromStr for Topic {
    type Err = TopicError;
    fn from_str(text: &str) -> Result<Self, TopicError> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use proptest::prelude::*;

    use super::super::filter::matches;
    use super::*;

    fn node() -> NodeName {
        NodeName::new("edge-1").unwrap()
    }

    fn inbound(id: DeviceId) -> Vec<Topic> {
        vec![
            Topic::MembershipGet { node: "any Node_1".into() },
            Topic::DeviceStateUpdate(id.clone()),
            Topic::TwinUpdate(id.clone()),
            Topic::TwinCloudUpdated(id.clone()),
            Topic::TwinGet(id),
            Topic::Upload("/a/b".into()),
            Topic::Upload(String::new()),
            Topic::UploadRecords,
            Topic::User("house/user/a/b".into()),
            Topic::User("house/user".into()),
        ]
    }

    fn outbound(id: DeviceId) -> Vec<Topic> {
        vec![
            Topic::MembershipGetResult(node()),
            Topic::MembershipUpdated(node()),
            Topic::AuthInfoGetResult(node()),
            Topic::DeviceStateUpdateResult(id.clone()),
            Topic::DeviceUpdated(id.clone()),
            Topic::TwinUpdateResult(id.clone()),
            Topic::TwinUpdateDocument(id.clone()),
            Topic::TwinUpdateDelta(id.clone()),
            Topic::TwinGetResult(id),
            Topic::NodeConnection,
        ]
    }

    const IDS: &[&str] = &["d1", "house/d1", "device", "hw", "events", "twin", "state/update", "twin/twin", "a/updated", "state"];

    #[test]
    fn every_topic_of_both_id_forms_survives_printing_and_parsing() {
        for id in IDS {
            let id = DeviceId::new(id).unwrap();
            for topic in inbound(id.clone()).into_iter().chain(outbound(id)) {
                assert_eq!(Topic::parse(&topic.to_string()), Ok(topic.clone()), "{topic}");
                assert!(!topic.is_request() || !topic.is_answer(), "{topic}");
            }
        }
    }

    #[test]
    fn every_inbound_topic_is_subscribed_and_no_outbound_one_is_a_request() {
        for id in IDS {
            let id = DeviceId::new(id).unwrap();
            for topic in inbound(id.clone()) {
                let text = topic.to_string();
                assert!(SUBSCRIBE_FILTERS.iter().any(|filter| matches(filter, &text)), "{text}");
            }
            // A device may have an id that makes its outbound topic look like `twin/+`; what it parses to is never a
            // request, so it is dropped at the door and there is no loop.
            for topic in outbound(id) {
                let parsed = Topic::parse(&topic.to_string()).unwrap();
                assert!(outbound(parsed.device().cloned().unwrap_or(DeviceId::new("x").unwrap())).contains(&parsed), "{topic}");
            }
        }
        let ordinary = DeviceId::new("house/d1").unwrap();
        for topic in outbound(DeviceId::new("d1").unwrap()).into_iter().chain(outbound(ordinary)) {
            let text = topic.to_string();
            assert!(!SUBSCRIBE_FILTERS.iter().any(|filter| matches(filter, &text)), "{text}");
        }
        assert!(SUBSCRIBE_FILTERS.iter().all(|filter| is_filter(filter)));
    }

    #[test]
    fn the_topics_are_those_of_kubeedge() {
        for (text, topic) in [
            ("$hw/events/device/d1/twin/update", Topic::TwinUpdate(DeviceId::new("d1").unwrap())),
            ("$hw/events/device/default/d1/twin/update", Topic::TwinUpdate(DeviceId::new("d1").unwrap())),
            ("$hw/events/device/house/d1/twin/get", Topic::TwinGet(DeviceId::new("house/d1").unwrap())),
            ("$hw/events/device/house/d1/state/update", Topic::DeviceStateUpdate(DeviceId::new("house/d1").unwrap())),
            ("$hw/events/device/d1/updated", Topic::DeviceUpdated(DeviceId::new("d1").unwrap())),
            ("$hw/events/node/edge-1/membership/get", Topic::MembershipGet { node: "edge-1".into() }),
            ("$hw/events/node/edge-1/authInfo/get/result", Topic::AuthInfoGetResult(node())),
            ("SYS/dis/upload_records", Topic::UploadRecords),
            ("$hw/events/upload/a", Topic::Upload("/a".into())),
        ] {
            assert_eq!(Topic::parse(text), Ok(topic), "{text}");
        }
    }

    #[test]
    fn an_unknown_topic_is_custom_and_not_guessed_at() {
        for text in [
            "factory/line/1",
            "$hw/events/device/d1/twin/foo",
            // KubeEdge has an action for it, and no handler.
            "$hw/events/device/d1/state/get",
            "$hw/events/device/d1",
            "$hw/events/device/",
            "$hw/events/device/a/b/c/twin/update",
            "$hw/events/node/edge-1",
            "$hw/events/node/Edge_1/membership/updated",
            "$hw/events/uploads",
            "$SYS/user/x",
            "/",
        ] {
            assert_eq!(Topic::parse(text), Ok(Topic::Custom(text.into())), "{text}");
        }
    }

    #[test]
    fn a_text_that_is_no_topic_is_refused() {
        assert_eq!(Topic::parse(""), Err(TopicError::Empty));
        assert_eq!(Topic::parse("a/+/b"), Err(TopicError::Wildcard));
        assert_eq!(Topic::parse("$hw/events/device/#/twin/get"), Err(TopicError::Wildcard));
        assert_eq!(Topic::parse("a\0b"), Err(TopicError::Control));
        assert_eq!(Topic::parse(&"a".repeat(70_000)), Err(TopicError::TooLong { bytes: 70_000 }));
        assert!(matches!(Topic::parse("$hw/events/device//twin/update"), Err(TopicError::Device(_))));
        assert!(matches!(Topic::parse(&format!("$hw/events/device/{}/twin/get", "x".repeat(300))), Err(TopicError::Device(_))));
    }

    #[test]
    fn the_long_form_spells_the_default_namespace_out() {
        let topic = Topic::TwinUpdateResult(DeviceId::new("d1").unwrap());
        assert_eq!(topic.long_form().as_deref(), Some("$hw/events/device/default/d1/twin/update/result"));
        assert_eq!(Topic::TwinGet(DeviceId::new("house/d1").unwrap()).long_form(), None);
        assert_eq!(Topic::UploadRecords.long_form(), None);
    }

    #[test]
    fn a_filter_has_its_wildcards_in_levels_of_their_own() {
        for text in ["#", "+", "a/+/b", "a/#", "+/user/#", "a"] {
            assert!(is_filter(text), "{text}");
        }
        for text in ["", "a#", "a/#/b", "+a", "a\0", "a/b+"] {
            assert!(!is_filter(text), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_read_prints_as_a_topic_of_the_same_meaning(text in "(\\$hw/events/(device|node|upload)/)?[a-z/\u{0}-\u{7f}é]{0,40}(/twin/(update|get)(/result)?|/updated)?") {
            if let Ok(topic) = Topic::parse(&text) {
                prop_assert_eq!(Topic::parse(&topic.to_string()), Ok(topic));
            }
        }
    }
}
