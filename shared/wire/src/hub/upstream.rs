//! What the edge says to the cloud.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;
use model::{DeviceId, Namespace, NodeName, ObjectName, ResourceKey, ResourceKind, Timestamp, TwinProperty};
use serde::{Deserialize, Serialize};

use super::RawJson;
use super::envelope::{Envelope, Operation};
use super::frame::{Body, BodyError, Parts, shown};
use super::resource::Resource;
use crate::json::Object;
use crate::link::HeldPart;
use crate::mqtt::payload::{DeviceStateReport, Rejection, TwinReport};

/// Most pods in one [`Upstream::PodStatus`]: each costs the cloud a request to the API. Several times what a node runs.
pub const POD_STATUSES_MAX: usize = 512;

/// Longest Event in [`Upstream::Event`], in bytes of JSON: a message has 1 KiB, the rest of it is names and times.
pub const EVENT_BYTES_MAX: usize = 16 * 1024;

/// Status of one pod, with the capitalised field names of Go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodStatusReport {
    /// `metadata.uid` of the pod.
    #[serde(rename = "UID", default)]
    pub uid: String,
    /// Its name.
    #[serde(rename = "Name")]
    pub name: ObjectName,
    /// Its `status`.
    #[serde(rename = "Status", default)]
    pub status: RawJson,
}

/// Everything that the edge says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Upstream {
    /// The edge is alive; never answered.
    Keepalive,
    /// The node registers itself; answered with the stored Node ([`super::Downstream::QueryAnswer`]).
    NodeRegister {
        /// Namespace of the message; nodes travel under `default`.
        namespace: Namespace,
        /// The node.
        node: NodeName,
        /// The Node object.
        object: RawJson,
    },
    /// Status of the node: `{"UID","Status","ExtendResources"}`.
    NodeStatus {
        /// Namespace of the message.
        namespace: Namespace,
        /// The node.
        node: NodeName,
        /// Content.
        content: RawJson,
    },
    /// Status of pods of one namespace.
    PodStatus {
        /// Their namespace.
        namespace: Namespace,
        /// One entry a pod.
        reports: Vec<PodStatusReport>,
    },
    /// Something happened to a pod of this node, or to the node; confirmed when the cloud has stored it.
    Event {
        /// Namespace of the Event: the pod's, and `default` for the node.
        namespace: Namespace,
        /// Its name: the object's, and 16 hexadecimal digits.
        name: ObjectName,
        /// An earlier state of it was sent already. A cloud of KubeEdge's replaces such a one, and creates the others.
        is_update: bool,
        /// The Event, at most [`EVENT_BYTES_MAX`].
        object: RawJson,
    },
    /// Asks for an object; answered with [`super::Downstream::QueryAnswer`].
    Query {
        /// Which.
        key: ResourceKey,
    },
    /// Asks for the devices of this node; answered with [`super::Downstream::MembershipDetail`].
    MembershipGet {
        /// Event id.
        event_id: String,
        /// This node.
        node: NodeName,
    },
    /// Properties of a device's twin; confirmed when the cloud has stored them.
    TwinReport {
        /// The device.
        device: DeviceId,
        /// The properties.
        report: TwinReport,
    },
    /// State of a device; confirmed when the cloud has stored it.
    DeviceStateReport {
        /// The device.
        device: DeviceId,
        /// The state.
        report: DeviceStateReport,
    },
    /// What a device sent for the cloud: at most once, never confirmed.
    Upload {
        /// MQTT topic.
        topic: String,
        /// Payload as text.
        payload: String,
    },
    /// What this node holds, or a part of it; only to a cloud that can take it ([`crate::link::Capabilities::digest`]). Never
    /// confirmed.
    Held(HeldPart),
    /// The message named by `parent` is stored.
    Ack {
        /// Resource of that message.
        resource: Resource,
    },
    /// The message named by `parent` is refused and is not to be sent again as it is.
    Refusal {
        /// Resource of that message.
        resource: Resource,
        /// Why.
        reason: String,
    },
}

fn bytes_of(property: &TwinProperty) -> usize {
    512 + [&property.expected, &property.actual].into_iter().flatten().map(|side| side.value.len()).sum::<usize>()
}

#[derive(Serialize, Deserialize)]
struct MembershipGetContent {
    event_type: String,
    #[serde(default)]
    event_id: String,
    group_id: String,
    operation: String,
    #[serde(default)]
    timestamp: Timestamp,
}

impl Upstream {
    /// What the cloud's confirmation of this message names: `twin` for device reports, else its own resource.
    pub fn confirmed_as(&self) -> Resource {
        match self {
            Self::TwinReport { .. } | Self::DeviceStateReport { .. } => Resource::Twin,
            _ => self.parts().resource,
        }
    }

    /// What a message weighs in memory, in bytes, about: for the limits of mailboxes.
    pub fn bytes(&self) -> usize {
        256 + match self {
            Self::NodeRegister { object, .. } => object.len(),
            Self::NodeStatus { content, .. } => content.len(),
            Self::Event { object, .. } => object.len(),
            Self::PodStatus { reports, .. } => reports.iter().map(|report| 256 + report.uid.len() + report.status.len()).sum(),
            Self::TwinReport { report, .. } => report.properties.values().map(bytes_of).sum(),
            Self::DeviceStateReport { report, .. } => report.event_id.len() + report.name.len() + report.last_online.len(),
            Self::MembershipGet { event_id, .. } => event_id.len(),
            Self::Upload { topic, payload } => topic.len() + payload.len(),
            Self::Refusal { reason, .. } => reason.len(),
            Self::Held(part) => 256 * part.objects.len(),
            Self::Keepalive | Self::Query { .. } | Self::Ack { .. } => 0,
        }
    }

    /// Name of the variant, for logs and counters.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Keepalive => "keepalive",
            Self::NodeRegister { .. } => "node_register",
            Self::NodeStatus { .. } => "node_status",
            Self::PodStatus { .. } => "pod_status",
            Self::Event { .. } => "event",
            Self::Query { .. } => "query",
            Self::MembershipGet { .. } => "membership_get",
            Self::TwinReport { .. } => "twin_report",
            Self::DeviceStateReport { .. } => "device_state_report",
            Self::Upload { .. } => "upload",
            Self::Held(_) => "held",
            Self::Ack { .. } => "ack",
            Self::Refusal { .. } => "refusal",
        }
    }
}

/// JSON of a body of ours, which cannot fail: text keys and plain values only.
pub(super) fn content<T: Serialize>(value: &T) -> RawJson {
    RawJson::from_value(value).expect("text keys and plain values always serialise")
}

/// JSON of a body of ours inside a JSON string, as KubeEdge sends some of them.
fn quoted<T: Serialize>(value: &T) -> RawJson {
    RawJson::from_str_value(content(value).as_str())
}

/// The JSON inside a JSON string, or the JSON itself: KubeEdge's versions differ.
fn unquoted(content: &RawJson) -> String {
    content.as_string().unwrap_or_else(|| content.as_str().to_owned())
}

/// The text of a content that should be a string; any other JSON stays as its text.
pub(super) fn text(content: &RawJson) -> String {
    unquoted(content)
}

impl Body for Upstream {
    fn parts(&self) -> Parts {
        let parts = |source, group, operation, resource, content| Parts { source, group, operation, resource, content };
        let object =
            |namespace: &Namespace, kind, name: Option<ObjectName>| Resource::Object(ResourceKey { namespace: namespace.clone(), kind, name });
        match self {
            Self::Keepalive => parts("websocket", "resource", Operation::Keepalive, Resource::Keepalive, RawJson::from_str_value("ping")),
            Self::NodeRegister { namespace, node, object: node_object } => {
                parts("edged", "meta", Operation::Insert, object(namespace, ResourceKind::Node, Some(node_as_object(node))), node_object.clone())
            }
            Self::NodeStatus { namespace, node, content } => {
                parts("edged", "meta", Operation::Update, object(namespace, ResourceKind::NodeStatus, Some(node_as_object(node))), content.clone())
            }
            Self::PodStatus { namespace, reports } => {
                parts("metaManager", "resource", Operation::Update, object(namespace, ResourceKind::PodStatus, None), content(reports))
            }
            Self::Event { namespace, name, is_update, object: event } => {
                let operation = if *is_update { Operation::Update } else { Operation::Insert };
                parts("edged", "meta", operation, object(namespace, ResourceKind::Event, Some(name.clone())), event.clone())
            }
            Self::Query { key } => parts("edged", "meta", Operation::Query, Resource::Object(key.clone()), RawJson::null()),
            Self::MembershipGet { event_id, node } => {
                let body = MembershipGetContent {
                    event_type: "group_membership_event".into(),
                    event_id: event_id.clone(),
                    group_id: node.to_string(),
                    operation: "detail".into(),
                    timestamp: Timestamp::UNKNOWN,
                };
                parts("twin", "resource", Operation::Get, Resource::MembershipDetail, quoted(&body))
            }
            Self::TwinReport { device, report } => {
                parts("twin", "resource", Operation::Update, Resource::TwinEdgeUpdated(device.clone()), content(report))
            }
            Self::DeviceStateReport { device, report } => {
                parts("twin", "resource", Operation::Update, Resource::DeviceState(device.clone()), quoted(report))
            }
            Self::Upload { topic, payload } => {
                parts("bus", "user", Operation::Upload, Resource::Topic(topic.clone()), RawJson::from_str_value(payload))
            }
            Self::Held(part) => parts("metaManager", "resource", Operation::Update, Resource::Held, content(part)),
            Self::Ack { resource } => {
                let (source, group) = resource.cloud_route();
                parts(source, group, Operation::Response, resource.clone(), RawJson::from_str_value("OK"))
            }
            Self::Refusal { resource, reason } => {
                let (source, group) = resource.cloud_route();
                parts(source, group, Operation::Error, resource.clone(), RawJson::from_str_value(reason))
            }
        }
    }

    fn read(envelope: &Envelope, resource: Resource) -> Result<Self, BodyError> {
        let content = &envelope.content;
        let failed = |source| BodyError::Content { resource: envelope.route.resource.clone(), source };
        let rejected = |source: Rejection| BodyError::Rejected { resource: envelope.route.resource.clone(), source };
        match (&envelope.route.operation, resource) {
            (Operation::Keepalive, _) => Ok(Self::Keepalive),
            (Operation::Upload, Resource::Topic(topic)) => Ok(Self::Upload { topic, payload: text(content) }),
            // KubeEdge 0.x uploads as `response` with the topic in base64, except this one topic.
            (Operation::Response, Resource::Topic(topic)) if envelope.route.source == "bus" => {
                let topic = match URL_SAFE.decode(&topic).map(String::from_utf8) {
                    Ok(Ok(decoded)) if topic != "SYS/dis/upload_records" => decoded,
                    _ => topic,
                };
                Ok(Self::Upload { topic, payload: text(content) })
            }
            (Operation::Response, resource) => Ok(Self::Ack { resource }),
            (Operation::Error, resource) => Ok(Self::Refusal { resource, reason: text(content) }),
            (Operation::Get, Resource::MembershipDetail) => {
                let body: MembershipGetContent = serde_json::from_str(&unquoted(content)).map_err(failed)?;
                Ok(Self::MembershipGet { event_id: body.event_id, node: NodeName::new(&body.group_id)? })
            }
            (Operation::Update, Resource::TwinEdgeUpdated(device)) => {
                let report = TwinReport::parse(unquoted(content).as_bytes()).map_err(rejected)?;
                Ok(Self::TwinReport { device, report })
            }
            (Operation::Update, Resource::DeviceState(device)) => {
                let report = DeviceStateReport::parse(unquoted(content).as_bytes()).map_err(rejected)?;
                Ok(Self::DeviceStateReport { device, report })
            }
            (Operation::Update, Resource::Held) => Ok(Self::Held(content.to::<HeldPart>().map_err(failed)?)),
            (Operation::Query, Resource::Object(key)) => Ok(Self::Query { key }),
            (Operation::Insert, Resource::Object(ResourceKey { namespace, kind: ResourceKind::Node, name: Some(name) })) => {
                Ok(Self::NodeRegister { namespace, node: NodeName::new(name.as_str())?, object: content.clone() })
            }
            (Operation::Update, Resource::Object(ResourceKey { namespace, kind: ResourceKind::NodeStatus, name: Some(name) })) => {
                Ok(Self::NodeStatus { namespace, node: NodeName::new(name.as_str())?, content: content.clone() })
            }
            (Operation::Update, Resource::Object(ResourceKey { namespace, kind: ResourceKind::PodStatus, name })) => {
                // One pod by name, or a batch.
                let reports = match name {
                    Some(_) => vec![content.to::<PodStatusReport>().map_err(failed)?],
                    None => content.to::<Vec<PodStatusReport>>().map_err(failed)?,
                };
                if reports.len() > POD_STATUSES_MAX {
                    let resource = envelope.route.resource.clone();
                    return Err(BodyError::TooMany { resource, count: reports.len(), max: POD_STATUSES_MAX });
                }
                Ok(Self::PodStatus { namespace, reports })
            }
            (operation @ (Operation::Insert | Operation::Update | Operation::Patch), Resource::Object(key)) if key.kind == ResourceKind::Event => {
                event(envelope, operation, key)
            }
            _ => Err(BodyError::unknown(envelope)),
        }
    }
}

/// A patch of KubeEdge's: with the whole Event as it is after it, which is all that is used.
#[derive(Deserialize)]
struct EventPatch {
    event: RawJson,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct EventHead {
    metadata: EventMetadata,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct EventMetadata {
    name: String,
    namespace: String,
}

fn event(envelope: &Envelope, operation: &Operation, key: ResourceKey) -> Result<Upstream, BodyError> {
    let resource = || envelope.route.resource.clone();
    let ResourceKey { namespace, name: Some(name), .. } = key else { return Err(BodyError::unknown(envelope)) };
    let bytes = envelope.content.len();
    if bytes > EVENT_BYTES_MAX {
        return Err(BodyError::TooLarge { resource: resource(), bytes, max: EVENT_BYTES_MAX });
    }
    let failed = |source| BodyError::Content { resource: resource(), source };
    let object = match operation {
        Operation::Patch => envelope.content.to::<Object<EventPatch>>().map_err(failed)?.0.event,
        _ => envelope.content.clone(),
    };
    let EventMetadata { name: own, namespace: of } = object.to::<Object<EventHead>>().map_err(failed)?.0.metadata;
    if own != name.as_str() || of != namespace.as_str() {
        return Err(BodyError::Misnamed { resource: resource(), found: shown(&format!("{of}/{own}")) });
    }
    Ok(Upstream::Event { namespace, name, is_update: *operation != Operation::Insert, object })
}

/// A node's name has the same rule as an object's.
fn node_as_object(node: &NodeName) -> ObjectName {
    ObjectName::new(node.as_str()).expect("node names and object names follow the same rule")
}
