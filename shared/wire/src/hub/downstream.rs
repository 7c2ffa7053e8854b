//! What the cloud says to the edge.

use model::{DeviceId, ResourceKey, ResourceKind};
use serde::{Deserialize, Serialize};

use super::RawJson;
use super::envelope::{Envelope, Operation};
use super::frame::{Body, BodyError, Parts};
use super::resource::Resource;
use super::upstream::{content, text};
use crate::mqtt::payload::{AttributesUpdate, MembershipDetail, MembershipUpdate, Rejection, TwinUpdate};

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ObjectOperation {
    /// It is new.
    Insert,
    /// It changed. KubeEdge sends new Secrets so as well.
    Update,
    /// It is gone; the content is its last state. What the edge holds under the key goes, whatever its uid.
    Delete,
}

/// Everything that the cloud says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Downstream {
    /// An object of the node; acknowledged after it is stored.
    Object {
        /// What happened.
        operation: ObjectOperation,
        /// Which.
        key: ResourceKey,
        /// The object.
        object: RawJson,
    },
    /// Answer to [`super::Upstream::Query`] and [`super::Upstream::NodeRegister`].
    QueryAnswer {
        /// Which object.
        key: ResourceKey,
        /// The object, or why there is none.
        result: Result<RawJson, String>,
    },
    /// All devices of the node.
    MembershipDetail(MembershipDetail),
    /// Devices that came and went.
    MembershipUpdate(MembershipUpdate),
    /// Wanted properties of a device.
    TwinSync {
        /// The device.
        device: DeviceId,
        /// What to change; each side with its version.
        update: TwinUpdate,
    },
    /// New attributes of a device.
    Attributes {
        /// The device.
        device: DeviceId,
        /// The attributes.
        update: AttributesUpdate,
    },
    /// Publish on MQTT.
    Publish {
        /// Topic, not checked.
        topic: String,
        /// Payload.
        payload: String,
    },
    /// Subscribe a topic for the cloud.
    Subscribe {
        /// Filter, not checked.
        filter: String,
    },
    /// No longer subscribe it.
    Unsubscribe {
        /// Filter, not checked.
        filter: String,
    },
    /// Asks what the node holds; only of one that can say it ([`crate::link::Capabilities::digest`]). Answered with
    /// [`super::Upstream::Held`].
    HeldGet,
    /// The message named by `parent` is stored in the cloud.
    Confirm {
        /// Resource of that message, or `twin` for device reports.
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

/// Answers about nodes and patches wrap the object.
#[derive(Serialize, Deserialize)]
struct Wrapped {
    #[serde(rename = "Object")]
    object: RawJson,
    #[serde(rename = "Err", default)]
    error: RawJson,
}

impl Downstream {
    /// Which thing it is about.
    pub fn resource(&self) -> Resource {
        match self {
            Self::Object { key, .. } | Self::QueryAnswer { key, .. } => Resource::Object(key.clone()),
            Self::MembershipDetail(_) => Resource::MembershipDetail,
            Self::MembershipUpdate(_) => Resource::Membership,
            Self::TwinSync { device, .. } => Resource::TwinCloudUpdated(device.clone()),
            Self::Attributes { device, .. } => Resource::Device(device.clone()),
            Self::Publish { topic, .. } => Resource::Topic(topic.clone()),
            Self::Subscribe { filter } | Self::Unsubscribe { filter } => Resource::Topic(filter.clone()),
            Self::HeldGet => Resource::Held,
            Self::Confirm { resource } | Self::Refusal { resource, .. } => resource.clone(),
        }
    }

    /// Name of the variant, for logs and counters.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Object { .. } => "object",
            Self::QueryAnswer { .. } => "query_answer",
            Self::MembershipDetail(_) => "membership_detail",
            Self::MembershipUpdate(_) => "membership_update",
            Self::TwinSync { .. } => "twin_sync",
            Self::Attributes { .. } => "attributes",
            Self::Publish { .. } => "publish",
            Self::Subscribe { .. } => "subscribe",
            Self::Unsubscribe { .. } => "unsubscribe",
            Self::HeldGet => "held_get",
            Self::Confirm { .. } => "confirm",
            Self::Refusal { .. } => "refusal",
        }
    }
}

fn is_wrapped(kind: ResourceKind) -> bool {
    matches!(kind, ResourceKind::Node | ResourceKind::NodePatch | ResourceKind::PodPatch)
}

impl Body for Downstream {
    fn parts(&self) -> Parts {
        let resource = self.resource();
        let (source, group) = resource.cloud_route();
        let (operation, content) = match self {
            Self::Object { operation, object, .. } => (
                match operation {
                    ObjectOperation::Insert => Operation::Insert,
                    ObjectOperation::Update => Operation::Update,
                    ObjectOperation::Delete => Operation::Delete,
                },
                object.clone(),
            ),
            Self::QueryAnswer { key, result } => (
                Operation::Response,
                match result {
                    Ok(object) if is_wrapped(key.kind) => content(&Wrapped { object: object.clone(), error: RawJson::null() }),
                    Ok(object) => object.clone(),
                    Err(reason) => RawJson::from_str_value(reason),
                },
            ),
            Self::MembershipDetail(detail) => (Operation::Update, content(detail)),
            Self::MembershipUpdate(update) => (Operation::Update, content(update)),
            Self::TwinSync { update, .. } => (Operation::Update, content(update)),
            Self::Attributes { update, .. } => (Operation::Updated, content(update)),
            Self::Publish { payload, .. } => (Operation::Publish, RawJson::from_str_value(payload)),
            Self::Subscribe { .. } => (Operation::Subscribe, RawJson::null()),
            Self::Unsubscribe { .. } => (Operation::Unsubscribe, RawJson::null()),
            Self::HeldGet => (Operation::Get, RawJson::null()),
            Self::Confirm { .. } => (Operation::Response, RawJson::from_str_value("OK")),
            Self::Refusal { reason, .. } => (Operation::Error, RawJson::from_str_value(reason)),
        };
        Parts { source, group, operation, resource, content }
    }

    fn read(envelope: &Envelope, resource: Resource) -> Result<Self, BodyError> {
        let content = &envelope.content;
        let rejected = |source: Rejection| BodyError::Rejected { resource: envelope.route.resource.clone(), source };
        let bytes = || text(content).into_bytes();
        let operation = &envelope.route.operation;
        match (operation, resource) {
            (Operation::Publish, Resource::Topic(topic)) => Ok(Self::Publish { topic, payload: text(content) }),
            (Operation::Subscribe, Resource::Topic(filter)) => Ok(Self::Subscribe { filter }),
            (Operation::Unsubscribe, Resource::Topic(filter)) => Ok(Self::Unsubscribe { filter }),
            (Operation::Get, Resource::Held) => Ok(Self::HeldGet),
            (Operation::Error, resource) => Ok(Self::Refusal { resource, reason: text(content) }),
            (Operation::Response, Resource::Object(key)) => Ok(query_answer(key, content)),
            (Operation::Response, resource) => Ok(Self::Confirm { resource }),
            (Operation::Insert, Resource::Object(key)) if key.name.is_some() => Ok(object(ObjectOperation::Insert, key, content)),
            (Operation::Update, Resource::Object(key)) if key.name.is_some() => Ok(object(ObjectOperation::Update, key, content)),
            (Operation::Delete, Resource::Object(key)) if key.name.is_some() => Ok(object(ObjectOperation::Delete, key, content)),
            // Any other operation: KubeEdge goes by the resource alone.
            (_, Resource::MembershipDetail) => Ok(Self::MembershipDetail(MembershipDetail::parse(&bytes()).map_err(rejected)?)),
            (_, Resource::Membership) => Ok(Self::MembershipUpdate(MembershipUpdate::parse(&bytes()).map_err(rejected)?)),
            (_, Resource::TwinCloudUpdated(device)) => Ok(Self::TwinSync { device, update: TwinUpdate::parse(&bytes()).map_err(rejected)? }),
            (operation, Resource::Device(device)) if operation.as_str().contains("updated") => {
                Ok(Self::Attributes { device, update: AttributesUpdate::parse(&bytes()).map_err(rejected)? })
            }
            _ => Err(BodyError::unknown(envelope)),
        }
    }
}

fn object(operation: ObjectOperation, key: ResourceKey, content: &RawJson) -> Downstream {
    Downstream::Object { operation, key, object: content.clone() }
}

/// `"OK"` confirms; another string, or an `Err` that is not null, says why there is no object; all else is the object.
fn query_answer(key: ResourceKey, content: &RawJson) -> Downstream {
    if let Some(text) = content.as_string() {
        return match text.as_str() {
            "OK" => Downstream::Confirm { resource: Resource::Object(key) },
            _ => Downstream::QueryAnswer { key, result: Err(text) },
        };
    }
    let result = match is_wrapped(key.kind).then(|| content.to::<Wrapped>()) {
        Some(Ok(wrapped)) if wrapped.error.is_null() => Ok(wrapped.object),
        Some(Ok(wrapped)) => Err(text(&wrapped.error)),
        Some(Err(_)) | None => Ok(content.clone()),
    };
    Downstream::QueryAnswer { key, result }
}
