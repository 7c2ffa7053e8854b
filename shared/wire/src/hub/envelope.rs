//! The JSON envelope of one WebSocket text frame.
//!
//! Reads both of KubeEdge's forms (0.x: empty fields present, no `resourceversion`; since 1.2: empty fields absent);
//! any field may be missing or null. Writes the newer form.

use std::fmt;
use std::str::FromStr;

use model::Timestamp;
use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::RawJson;
use crate::json::object_or_default;

/// Longest message id, in bytes. KubeEdge's are UUIDs of 36.
pub const MSG_ID_BYTES_MAX: usize = 128;

/// Most causes that one message names; of more the latest ones.
pub const CAUSES_MAX: usize = 16;

/// Identity of one message; an answer carries the one of its question as parent.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MsgId(Box<str>);

/// A text that is no message id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MsgIdError {
    /// No characters.
    #[error("the message has no id")]
    Empty,
    /// Longer than [`MSG_ID_BYTES_MAX`].
    #[error("a message id has at most {MSG_ID_BYTES_MAX} bytes, this one has {bytes}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
}

impl MsgId {
    /// A new random one (UUID version 4).
    pub fn random() -> Self {
        Self(uuid::Uuid::new_v4().to_string().into_boxed_str())
    }

    /// Takes over a text.
    ///
    /// # Errors
    /// [`MsgIdError`] when it is empty or too long.
    pub fn new(text: &str) -> Result<Self, MsgIdError> {
        match text.len() {
            0 => Err(MsgIdError::Empty),
            bytes if bytes > MSG_ID_BYTES_MAX => Err(MsgIdError::TooLong { bytes }),
            _ => Ok(Self(text.into())),
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MsgId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for MsgId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl FromStr for MsgId {
    type Err = MsgIdError;
    fn from_str(text: &str) -> Result<Self, MsgIdError> {
        Self::new(text)
    }
}

macro_rules! operations {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// What a message does; KubeEdge's words.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub enum Operation {
            $($(#[$doc])* $name,)*
            /// Any other word, or none.
            Other(String),
            /// No word at all.
            #[default]
            None,
        }

        impl Operation {
            /// The word on the wire.
            pub fn as_str(&self) -> &str {
                match self { $(Self::$name => $text,)* Self::Other(text) => text, Self::None => "" }
            }
        }

        impl From<&str> for Operation {
            fn from(text: &str) -> Self {
                match text { $($text => Self::$name,)* "" => Self::None, other => Self::Other(other.to_owned()) }
            }
        }
    };
}

operations! {
    /// A new object.
    Insert = "insert",
    /// A changed object.
    Update = "update",
    /// A deleted object.
    Delete = "delete",
    /// A question for an object.
    Query = "query",
    /// An answer.
    Response = "response",
    /// An answer that refuses.
    Error = "error",
    /// A patch.
    Patch = "patch",
    /// What a device sent for the cloud.
    Upload = "upload",
    /// The edge is alive.
    Keepalive = "keepalive",
    /// Publish on MQTT.
    Publish = "publish",
    /// Subscribe on MQTT.
    Subscribe = "subscribe",
    /// Unsubscribe on MQTT.
    Unsubscribe = "unsubscribe",
    /// A question for a list.
    Get = "get",
    /// Device attributes changed.
    Updated = "updated",
}

impl Serialize for Operation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Operation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self::from(text.as_str()))
    }
}

/// Who, when, and in answer to what.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Identity; empty only in a broken message.
    #[serde(default, deserialize_with = "null_is_default")]
    pub msg_id: String,
    /// Identity of the question, or empty.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub parent_msg_id: String,
    /// Unix milliseconds.
    #[serde(default, deserialize_with = "null_is_default")]
    pub timestamp: Timestamp,
    /// The object's version, if the message carries one (since 1.2).
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub resourceversion: String,
    /// Somebody waits for the answer.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "std::ops::Not::not")]
    pub sync: bool,
    /// The messages that led to this one, the latest last; at most [`CAUSES_MAX`].
    ///
    /// Ours alone: an unsolicited message has no `parent_msg_id`, because KubeEdge's edge and its WebSocket library take
    /// that for an answer (`beehive` `SendResp` looks for a waiter of it), and because a report has several causes after
    /// a time offline. Peers that do not know the field pass over it, as Go's `encoding/json` does with any other.
    #[serde(default, deserialize_with = "some_causes", skip_serializing_if = "Vec::is_empty")]
    pub cause: Vec<String>,
}

/// From whom, for whom, what, and about which thing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Module that made the message.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// Group of modules that it is for.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// What it does.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "is_none")]
    pub operation: Operation,
    /// Which thing it is about.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub resource: String,
}

/// One message as it stands on the wire.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// Who, when.
    #[serde(default, deserialize_with = "object_or_default")]
    pub header: Header,
    /// From where to where.
    #[serde(default, deserialize_with = "object_or_default")]
    pub route: Route,
    /// Any JSON; `null` when unset.
    #[serde(default)]
    pub content: RawJson,
}

impl Envelope {
    /// A message of its own.
    pub fn new(id: &MsgId, at: Timestamp, route: Route, content: RawJson) -> Self {
        let header = Header { msg_id: id.to_string(), timestamp: at, ..Header::default() };
        Self { header, route, content }
    }

    /// The answer to this message: parent is its id; source, group and resource are its own (KubeEdge's rule).
    pub fn response(&self, id: &MsgId, at: Timestamp, content: RawJson) -> Self {
        self.answer(id, at, Operation::Response, content)
    }

    /// The refusal of this message. KubeEdge 0.x put the message's own parent there and so lost the correlation.
    pub fn error(&self, id: &MsgId, at: Timestamp, reason: &str) -> Self {
        self.answer(id, at, Operation::Error, RawJson::from_str_value(reason))
    }

    fn answer(&self, id: &MsgId, at: Timestamp, operation: Operation, content: RawJson) -> Self {
        let route = Route { operation, ..self.route.clone() };
        let mut answer = Self::new(id, at, route, content);
        answer.header.parent_msg_id.clone_from(&self.header.msg_id);
        answer
    }
}

fn is_none(operation: &Operation) -> bool {
    *operation == Operation::None
}

/// Keeps the first [`CAUSES_MAX`] of a list; what comes after them is read over.
fn some_causes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    struct Causes;
    impl<'de> Visitor<'de> for Causes {
        type Value = Vec<String>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of message ids")
        }
        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(Vec::new())
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut causes = Vec::new();
            while causes.len() < CAUSES_MAX {
                match list.next_element()? {
                    Some(cause) => causes.push(cause),
                    None => return Ok(causes),
                }
            }
            while list.next_element::<IgnoredAny>()?.is_some() {}
            Ok(causes)
        }
    }
    deserializer.deserialize_any(Causes)
}

fn null_is_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    const OLD: &str = r#"{"header":{"msg_id":"a","parent_msg_id":"","timestamp":5,"sync":false},"route":{"source":"websocket","group":"resource","operation":"keepalive","resource":"node"},"content":"ping"}"#;
    const NEW: &str = r#"{"header":{"msg_id":"a","timestamp":5},"route":{"source":"websocket","group":"resource","operation":"keepalive","resource":"node"},"content":"ping"}"#;

    #[test]
    fn both_forms_of_kubeedge_are_read_and_the_newer_one_is_written() {
        let old: Envelope = serde_json::from_str(OLD).unwrap();
        let new: Envelope = serde_json::from_str(NEW).unwrap();
        assert_eq!(old, new);
        assert_eq!(serde_json::to_string(&old).unwrap(), NEW);
    }

    #[test]
    fn any_field_may_be_absent_or_null() {
        for text in [
            "{}",
            r#"{"header":null,"route":null,"content":null}"#,
            r#"{"header":{"msg_id":null,"sync":null,"timestamp":null,"cause":null,"type":"x"},"route":{"operation":null,"destination":"y"}}"#,
        ] {
            assert_eq!(serde_json::from_str::<Envelope>(text).unwrap(), Envelope::default(), "{text}");
        }
    }

    #[test]
    fn sync_and_resource_version_are_written_when_they_are_set() {
        let mut envelope: Envelope = serde_json::from_str(NEW).unwrap();
        envelope.header.sync = true;
        envelope.header.resourceversion = "4711".into();
        let text = serde_json::to_string(&envelope).unwrap();
        assert!(text.contains(r#""resourceversion":"4711","sync":true}"#), "{text}");
        assert_eq!(serde_json::from_str::<Envelope>(&text).unwrap(), envelope);
    }

    #[test]
    fn a_message_names_its_causes_and_of_too_many_only_some_are_read() {
        let cause = |count: usize| (0..count).map(|n| format!("\"c{n}\"")).collect::<Vec<_>>().join(",");
        for (given, read) in [(0, 0), (1, 1), (CAUSES_MAX, CAUSES_MAX), (5000, CAUSES_MAX)] {
            let text = format!(r#"{{"header":{{"msg_id":"a","cause":[{}]}}}}"#, cause(given));
            let envelope: Envelope = serde_json::from_str(&text).unwrap();
            assert_eq!(envelope.header.cause.len(), read);
            assert_eq!(serde_json::to_string(&envelope).unwrap().contains("cause"), read > 0);
        }
        for wrong in ["7", "{}", "[7]", "\"c\""] {
            assert!(serde_json::from_str::<Envelope>(&format!(r#"{{"header":{{"cause":{wrong}}}}}"#)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_answer_has_the_question_as_parent_and_keeps_its_route() {
        let question: Envelope = serde_json::from_str(NEW).unwrap();
        let id = MsgId::new("b").unwrap();
        let answer = question.response(&id, Timestamp(6), RawJson::from_str_value("OK"));
        assert_eq!((answer.header.parent_msg_id.as_str(), answer.route.resource.as_str()), ("a", "node"));
        assert_eq!((answer.route.source.as_str(), answer.route.operation.as_str()), ("websocket", "response"));
        let error = question.error(&id, Timestamp(6), "no");
        assert_eq!((error.header.parent_msg_id.as_str(), error.route.operation.as_str()), ("a", "error"));
        assert_eq!(error.content.as_string().as_deref(), Some("no"));
    }

    #[test]
    fn a_message_id_has_a_length() {
        assert_eq!(MsgId::new(""), Err(MsgIdError::Empty));
        assert!(MsgId::new(&"x".repeat(128)).is_ok());
        assert_eq!(MsgId::new(&"x".repeat(129)), Err(MsgIdError::TooLong { bytes: 129 }));
        assert_ne!(MsgId::random(), MsgId::random());
    }
}
