//! What MetaManager is told.

use actor::{Mail, Reply, brief};
use model::ResourceKey;
use wire::hub::{MsgId, ObjectOperation, PodStatusReport, RawJson};
use wire::link::Capabilities;

use crate::store::meta::StoredObject;

/// The answer to [`MetaManagerMessage::Query`].
pub type Found = Result<Vec<StoredObject>, QueryError>;

/// A session with the cloud.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// Grows with each session of this process.
    pub number: u64,
    /// What both sides of it can.
    pub capabilities: Capabilities,
}

/// Everything that can make MetaManager act.
#[derive(Debug)]
pub enum MetaManagerMessage {
    /// From EdgeHub: the cloud says what happened to an object. Stored, then acknowledged to the cloud and hinted to Edged.
    FromCloud {
        /// Message id of the cloud; the acknowledgement names it.
        id: MsgId,
        /// What happened.
        operation: ObjectOperation,
        /// Which object.
        key: ResourceKey,
        /// Version from the message's header, if it has one.
        resource_version: Option<String>,
        /// The object, or a list of one (KubeEdge 0.x).
        object: RawJson,
    },
    /// From Edged and tools: an object, or all of a kind in a namespace when the key has no name. A ConfigMap or Secret that
    /// is not here is asked from the cloud while it is connected.
    Query {
        /// Which.
        key: ResourceKey,
        /// Objects found; empty if there is none and the cloud cannot be asked.
        reply: Reply<Found>,
    },
    /// From MetaManager's own question: the cloud's answer, to be stored and passed on.
    RemoteAnswered {
        /// Which object.
        key: ResourceKey,
        /// Version from the message's header.
        resource_version: Option<String>,
        /// The object, or why there is none.
        answer: Result<RawJson, QueryError>,
        /// Who asked first.
        reply: Reply<Found>,
    },
    /// From EdgeHub: an answer that nobody waits for any more, or to a registration. Objects are stored, errors logged.
    LateAnswer {
        /// Which object.
        key: ResourceKey,
        /// Version from the message's header.
        resource_version: Option<String>,
        /// The object, or why there is none.
        answer: Result<RawJson, String>,
    },
    /// From Edged: the status of a pod. What equals the stored one goes no further.
    PodStatus {
        /// The pod.
        key: ResourceKey,
        /// Its status.
        report: PodStatusReport,
    },
    /// From Edged: status of this node, `{"UID","Status","ExtendResources"}`; sent on if the cloud is there, unless it confirmed the
    /// same lately; never kept.
    NodeStatus {
        /// Content.
        content: RawJson,
    },
    /// From Edged: the Node object, after each connect.
    NodeRegister {
        /// The Node.
        object: RawJson,
    },
    /// From Edged: the newest state of an Event. Sent when the cloud is there, and again until it has confirmed it; kept in
    /// memory alone, at most [`super::EVENTS_MAX`] of them.
    Event {
        /// `{namespace}/event/{name}`.
        key: ResourceKey,
        /// An earlier state of it was told before.
        is_update: bool,
        /// The Event.
        object: RawJson,
    },
    /// From EdgeHub: the cloud confirmed a message of ours about objects (`{namespace}/podstatus` …).
    Confirmed {
        /// Our message.
        parent: MsgId,
    },
    /// From EdgeHub: the cloud refused a message of ours about objects. It is not sent again before it changes.
    Refused {
        /// Our message.
        parent: MsgId,
        /// The cloud's words.
        reason: String,
    },
    /// From EdgeHub: the session with the cloud began or ended. A beginning is followed by what this node holds, if the cloud
    /// takes that, and by the status of every pod.
    NodeConnection {
        /// The session, if it stands.
        cloud: Option<Session>,
    },
    /// From EdgeHub: the cloud asks what this node holds. Answered from the store.
    HeldGet {
        /// The question.
        id: MsgId,
        /// The session in which it was asked.
        session: u64,
    },
    /// From MetaManager's own timer (`meta.sync.podstatus.interval`): what the cloud did not confirm is sent again.
    SyncDue,
}

/// Why a question has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// The store cannot be read.
    #[error("failed to read the stored objects: {0}")]
    Store(String),
    /// The cloud has no such object, or may not give it.
    #[error("the cloud has no answer: {0}")]
    Cloud(String),
    /// The cloud did not answer.
    #[error("the cloud was not reached: {0}")]
    Unreachable(String),
    /// The answer is not an object, nor a list of one.
    #[error("{0}")]
    Form(String),
}

/// Of an object's content the uid alone may be shown: it may be a Secret.
fn uid_of(key: &ResourceKey, object: &RawJson) -> Option<String> {
    super::normal::normal(key, object).ok()?.into_iter().next()?.uid
}

impl Mail for MetaManagerMessage {
    fn kind(&self) -> &'static str {
        match self {
            Self::FromCloud { .. } => "FromCloud",
            Self::Query { .. } => "Query",
            Self::RemoteAnswered { .. } => "RemoteAnswered",
            Self::LateAnswer { .. } => "LateAnswer",
            Self::PodStatus { .. } => "PodStatus",
            Self::NodeStatus { .. } => "NodeStatus",
            Self::NodeRegister { .. } => "NodeRegister",
            Self::Event { .. } => "Event",
            Self::Confirmed { .. } => "Confirmed",
            Self::Refused { .. } => "Refused",
            Self::NodeConnection { .. } => "NodeConnection",
            Self::HeldGet { .. } => "HeldGet",
            Self::SyncDue => "SyncDue",
        }
    }

    /// Never shows a content: it may be a Secret.
    fn describe(&self) -> String {
        let kind = self.kind();
        match self {
            Self::FromCloud { id, operation, key, object, .. } => {
                let uid = uid_of(key, object).unwrap_or_else(|| "unknown".into());
                format!("{kind} {operation:?} {key}, uid {}, frame {}", brief(&uid), brief(id.as_str()))
            }
            Self::Query { key, .. }
            | Self::RemoteAnswered { key, .. }
            | Self::LateAnswer { key, .. }
            | Self::PodStatus { key, .. }
            | Self::Event { key, .. } => format!("{kind} {key}"),
            Self::Confirmed { parent } => format!("{kind} {parent}"),
            Self::Refused { parent, reason } => format!("{kind} {parent}: {}", brief(reason)),
            Self::NodeConnection { cloud } => format!("{kind} {}", cloud.is_some()),
            Self::HeldGet { id, .. } => format!("{kind} {id}"),
            Self::NodeStatus { .. } | Self::NodeRegister { .. } | Self::SyncDue => kind.into(),
        }
    }

    fn bytes(&self) -> usize {
        256 + match self {
            Self::FromCloud { object, .. } | Self::NodeRegister { object } | Self::Event { object, .. } => object.len(),
            Self::RemoteAnswered { answer: Ok(object), .. } | Self::LateAnswer { answer: Ok(object), .. } => object.len(),
            Self::PodStatus { report, .. } => report.status.len(),
            Self::NodeStatus { content } => content.len(),
            Self::LateAnswer { answer: Err(reason), .. } | Self::Refused { reason, .. } => reason.len(),
            Self::RemoteAnswered { answer: Err(_), .. }
            | Self::Query { .. }
            | Self::Confirmed { .. }
            | Self::NodeConnection { .. }
            | Self::HeldGet { .. }
            | Self::SyncDue => 0,
        }
    }
}
