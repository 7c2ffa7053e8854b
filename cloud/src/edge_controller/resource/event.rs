//! Events: what of an Event that a node reports is written, and which stored one it may change.
//!
//! Nothing but the fields that an Event has is taken over, so a node cannot bring labels, owners or finalizers into the
//! API, and its host is the one that its certificate names.

use jiff::Timestamp;
use model::{Namespace, NodeName, ObjectName};
use serde::Deserialize;
use serde_json::{Value, json};
use wire::RawJson;

/// Longest message, in bytes (Kubernetes: 1,024).
pub const MESSAGE_BYTES_MAX: usize = 1024;
/// Longest reason, in bytes (Kubernetes: 128).
pub const REASON_BYTES_MAX: usize = 128;
/// Longest other text, in bytes: names, and the path of a container.
const TEXT_BYTES_MAX: usize = 512;
/// Namespace of the Events of nodes.
const NODE_EVENTS: &str = "default";

/// What an Event is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A pod of the Event's namespace, which has to be one of the node's.
    Pod {
        /// Its name.
        name: ObjectName,
        /// Which one of that name.
        uid: String,
    },
    /// The node that reports it.
    Node,
}

/// Why an Event is not written.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    /// Not the form of an Event.
    #[error("failed to read an Event: {0}")]
    Form(#[from] serde_json::Error),
    /// About something that is neither a Pod nor a Node.
    #[error("a node reports Events of pods and nodes, not of `{kind}`")]
    Kind {
        /// What it is about.
        kind: String,
    },
    /// About an object of another namespace than its own.
    #[error("the Event is in namespace `{namespace}`, what it is about is in `{other}`")]
    Namespace {
        /// Where the Event is.
        namespace: Namespace,
        /// Where it says that the object is.
        other: String,
    },
    /// About another node.
    #[error("node `{node}` may not report Events of node `{other}`")]
    OtherNode {
        /// Who reports it.
        node: NodeName,
        /// What it is about.
        other: String,
    },
    /// A field that no Event has.
    #[error("{field} of the Event {why}")]
    Field {
        /// Which.
        field: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    /// An Event of that name is there, and another's.
    #[error("the Event `{name}` that is stored is not this one")]
    Another {
        /// Its name.
        name: String,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Said {
    involved_object: Involved,
    reason: String,
    #[serde(default)]
    message: String,
    #[serde(rename = "type")]
    severity: String,
    #[serde(default)]
    source: Source,
    #[serde(default)]
    reporting_component: String,
    first_timestamp: Option<String>,
    last_timestamp: Option<String>,
    #[serde(default)]
    count: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Involved {
    kind: String,
    name: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    uid: String,
    #[serde(default)]
    resource_version: String,
    #[serde(default)]
    field_path: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Source {
    component: String,
}

/// An Event as it is to be stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// What it is about.
    pub subject: Subject,
    /// The object.
    pub object: Value,
}

/// Reads what `node` reports as the Event `namespace/name`.
///
/// # Errors
/// See [`EventError`]; that a pod is one of the node's is for the caller to see.
pub fn read(node: &NodeName, namespace: &Namespace, name: &ObjectName, said: &RawJson) -> Result<Event, EventError> {
    let said: Said = said.to()?;
    let involved = &said.involved_object;
    let subject = match involved.kind.as_str() {
        "Pod" if involved.namespace != namespace.as_str() => {
            return Err(EventError::Namespace { namespace: namespace.clone(), other: shown(&involved.namespace) });
        }
        "Pod" => {
            let name = ObjectName::new(&involved.name).map_err(|_| EventError::Field { field: "involvedObject.name", why: "is no name" })?;
            Subject::Pod { name, uid: text("involvedObject.uid", &involved.uid, 1)?.to_owned() }
        }
        "Node" if involved.name != node.as_str() => return Err(EventError::OtherNode { node: node.clone(), other: shown(&involved.name) }),
        "Node" if namespace.as_str() != NODE_EVENTS => {
            return Err(EventError::Namespace { namespace: namespace.clone(), other: NODE_EVENTS.to_owned() });
        }
        "Node" => Subject::Node,
        other => return Err(EventError::Kind { kind: shown(other) }),
    };
    if !matches!(said.severity.as_str(), "Normal" | "Warning") {
        return Err(EventError::Field { field: "type", why: "is neither Normal nor Warning" });
    }
    let is_reason = (1..=REASON_BYTES_MAX).contains(&said.reason.len()) && !said.reason.contains(char::is_control);
    if !is_reason {
        return Err(EventError::Field { field: "reason", why: "is not one line of 1 to 128 bytes" });
    }
    if said.message.len() > MESSAGE_BYTES_MAX {
        return Err(EventError::Field { field: "message", why: "is longer than 1024 bytes" });
    }
    let component = text("source.component", &said.source.component, 0)?;
    let mut about = json!({"apiVersion": "v1", "kind": involved.kind, "name": involved.name, "uid": text("involvedObject.uid", &involved.uid, 0)?});
    for (field, value) in [("resourceVersion", &involved.resource_version), ("fieldPath", &involved.field_path)] {
        if !value.is_empty() {
            about[field] = json!(text("involvedObject", value, 0)?);
        }
    }
    if matches!(subject, Subject::Pod { .. }) {
        about["namespace"] = json!(namespace.as_str());
    }
    let object = json!({
        "apiVersion": "v1", "kind": "Event",
        "metadata": {"name": name.as_str(), "namespace": namespace.as_str()},
        "involvedObject": about,
        "reason": said.reason, "message": said.message, "type": said.severity,
        "source": {"component": component, "host": node.as_str()},
        "reportingComponent": text("reportingComponent", &said.reporting_component, 0)?, "reportingInstance": node.as_str(),
        "firstTimestamp": time("firstTimestamp", said.first_timestamp.as_deref())?,
        "lastTimestamp": time("lastTimestamp", said.last_timestamp.as_deref())?,
        "count": said.count.clamp(1, i64::from(i32::MAX)),
    });
    Ok(Event { subject, object })
}

/// The merge patch that brings the stored Event to the reported one; `None` when it says as much already, as after a
/// repetition.
///
/// # Errors
/// [`EventError::Another`] when the stored one is of another object, another node, or another thing that happened.
pub fn patch(stored: &Value, event: &Value) -> Result<Option<Value>, EventError> {
    let same = ["/involvedObject/kind", "/involvedObject/name", "/involvedObject/uid", "/source/host", "/reason"];
    if same.iter().any(|pointer| stored.pointer(pointer) != event.pointer(pointer)) {
        return Err(EventError::Another { name: shown(event["metadata"]["name"].as_str().unwrap_or_default()) });
    }
    if stored["count"].as_i64().unwrap_or_default() >= event["count"].as_i64().unwrap_or_default() {
        return Ok(None);
    }
    Ok(Some(json!({
        "metadata": {"uid": stored["metadata"]["uid"]},
        "count": event["count"], "lastTimestamp": event["lastTimestamp"], "message": event["message"],
    })))
}

fn text<'a>(field: &'static str, value: &'a str, least: usize) -> Result<&'a str, EventError> {
    let is_text = (least..=TEXT_BYTES_MAX).contains(&value.len()) && !value.contains(char::is_control);
    if is_text { Ok(value) } else { Err(EventError::Field { field, why: "is missing, too long or not one line" }) }
}

fn time(field: &'static str, value: Option<&str>) -> Result<String, EventError> {
    let at: Option<Timestamp> = value.and_then(|value| value.parse().ok());
    at.map(|at| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()).ok_or(EventError::Field { field, why: "is no time" })
}

/// A refused text for an error: short, without control characters.
fn shown(text: &str) -> String {
    text.chars().take(64).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use wire::hub::{Frame, Upstream, codec};

    use super::*;

    fn said() -> Value {
        json!({
            "metadata": {"name": "web.1", "namespace": "shop", "labels": {"a": "b"}, "finalizers": ["x/y"], "ownerReferences": [{"uid": "u"}]},
            "involvedObject": {"kind": "Pod", "namespace": "shop", "name": "web", "uid": "u-1", "fieldPath": "spec.containers{web}", "x": 1},
            "reason": "Pulled", "message": "m", "type": "Normal", "source": {"component": "skep-edge", "host": "another"},
            "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T01:00:00+01:00", "count": 3, "series": {"count": 9},
        })
    }

    fn reads(value: &Value, namespace: &str) -> Result<Event, String> {
        let (node, namespace) = (NodeName::new("n1").unwrap(), Namespace::new(namespace).unwrap());
        read(&node, &namespace, &ObjectName::new("web.1").unwrap(), &RawJson::from_value(value).unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn only_the_fields_of_an_event_are_taken_over_and_the_host_is_the_node() {
        let event = reads(&said(), "shop").unwrap();
        assert_eq!(event.subject, Subject::Pod { name: ObjectName::new("web").unwrap(), uid: "u-1".into() });
        assert_eq!(event.object["metadata"], json!({"name": "web.1", "namespace": "shop"}));
        assert_eq!(event.object["source"], json!({"component": "skep-edge", "host": "n1"}));
        assert_eq!(event.object["lastTimestamp"], "2026-01-01T00:00:00Z");
        assert_eq!((&event.object["series"], &event.object["involvedObject"]["x"]), (&Value::Null, &Value::Null));
        assert_eq!((&event.object["count"], &event.object["involvedObject"]["fieldPath"]), (&json!(3), &json!("spec.containers{web}")));
    }

    #[test]
    fn the_golden_event_of_an_edge_is_taken_and_its_update_counts_up() {
        let read = |text: &str| {
            let frame: Frame<Upstream> = codec::decode(text).unwrap();
            let Upstream::Event { namespace, name, object, .. } = frame.body else { panic!() };
            super::read(&NodeName::new("edge-1").unwrap(), &namespace, &name, &object).unwrap().object
        };
        let (first, second) = (read(wire::fixtures::EVENT), read(wire::fixtures::EVENT_UPDATE));
        assert_eq!((&first["reason"], &first["involvedObject"]["fieldPath"]), (&json!("Pulled"), &json!("spec.containers{web}")));
        assert_eq!(patch(&first, &second).unwrap().unwrap()["count"], 2);
    }

    #[test]
    fn an_event_that_is_none_or_not_of_this_node_is_refused_with_the_reason() {
        for (pointer, value, why) in [
            ("/involvedObject/kind", json!("Secret"), "pods and nodes, not of `Secret`"),
            ("/involvedObject/kind", json!("Node"), "may not report Events of node `web`"),
            ("/involvedObject/namespace", json!("kube-system"), "what it is about is in `kube-system`"),
            ("/involvedObject/name", json!("../x"), "involvedObject.name of the Event is no name"),
            ("/involvedObject/uid", json!(""), "involvedObject.uid of the Event is missing"),
            ("/involvedObject/uid", json!("x".repeat(TEXT_BYTES_MAX + 1)), "involvedObject.uid of the Event"),
            ("/involvedObject", json!([]), "failed to read an Event"),
            ("/type", json!("Evil"), "type of the Event"),
            ("/reason", json!(""), "reason of the Event"),
            ("/reason", json!("a\nb"), "reason of the Event"),
            ("/message", json!("x".repeat(MESSAGE_BYTES_MAX + 1)), "message of the Event"),
            ("/source/component", json!("a\u{1b}[0m"), "source.component of the Event"),
            ("/lastTimestamp", json!("yesterday"), "lastTimestamp of the Event is no time"),
            ("/firstTimestamp", json!(null), "firstTimestamp of the Event is no time"),
        ] {
            let mut wrong = said();
            *wrong.pointer_mut(pointer).unwrap() = value;
            let error = reads(&wrong, "shop").unwrap_err();
            assert!(error.contains(why), "{pointer}: {error}");
        }
    }

    #[test]
    fn the_events_of_a_node_are_in_default() {
        let mut of_node = said();
        of_node["involvedObject"] = json!({"kind": "Node", "name": "n1", "uid": "n1"});
        let event = reads(&of_node, "default").unwrap();
        assert_eq!((event.subject, &event.object["involvedObject"]["namespace"]), (Subject::Node, &Value::Null));
        assert!(reads(&of_node, "shop").unwrap_err().contains("is in `default`"));
    }

    #[test]
    fn a_stored_event_counts_up_never_down_and_only_if_it_is_the_same() {
        let event = reads(&said(), "shop").unwrap().object;
        let mut stored = event.clone();
        stored["metadata"]["uid"] = json!("e-1");
        assert_eq!(patch(&stored, &event).unwrap(), None);
        stored["count"] = json!(2);
        let change = patch(&stored, &event).unwrap().unwrap();
        assert_eq!((&change["count"], &change["metadata"]["uid"]), (&json!(3), &json!("e-1")));
        for pointer in ["/involvedObject/uid", "/involvedObject/name", "/source/host", "/reason"] {
            let mut another = stored.clone();
            *another.pointer_mut(pointer).unwrap() = json!("other");
            assert!(matches!(patch(&another, &event), Err(EventError::Another { .. })), "{pointer}");
        }
    }
}
