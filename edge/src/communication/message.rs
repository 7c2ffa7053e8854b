//! What Communication is told.

use actor::{Mail, MsgId, brief};
use bytes::Bytes;
use wire::hub::{self, Resource};
use wire::mqtt::Topic;

/// Everything that can make Communication act.
#[derive(Debug)]
pub enum CommunicationMessage {
    /// From Twin, Membership and Device: what follows from a commit. Publications go to EventBus
    /// in this order, frames to EdgeHub.
    Effects(Vec<Caused>),
    /// From EdgeHub: the cloud is there. Followed by a request for the full list of devices, by
    /// what waited, and by all reports that are pending.
    CloudConnected,
    /// From EdgeHub: the cloud is gone. Reports stay in the store.
    CloudDisconnected,
    /// From EdgeHub: the cloud took the report of that frame; its changes are forgotten.
    Confirmed {
        /// The report's frame.
        parent: hub::MsgId,
    },
    /// From EdgeHub: the cloud will never take the report of that frame; logged and forgotten.
    Refused {
        /// The report's frame.
        parent: hub::MsgId,
        /// In the cloud's words.
        reason: String,
    },
    /// From EventBus: goes to the cloud as it is, at most once; while the cloud is away the last
    /// [`UPLOADS_MAX`](super::UPLOADS_MAX) are kept.
    Upload {
        /// The topic, as it came.
        topic: String,
        /// The payload, as it came.
        payload: Bytes,
    },
}

/// An effect, and the message from which it follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caused {
    /// The message that was committed.
    pub by: MsgId,
    /// What follows.
    pub effect: Effect,
}

/// What follows from a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// To be published on MQTT.
    Publish {
        /// Where.
        topic: Topic,
        /// What.
        payload: Bytes,
    },
    /// Rows of `pending_report` were written.
    ReportsPending,
    /// What the cloud sent is durable.
    Acknowledge {
        /// Its frame.
        frame: hub::MsgId,
        /// The thing it was about.
        resource: Resource,
    },
    /// What the cloud sent will never be done.
    Refuse {
        /// Its frame.
        frame: hub::MsgId,
        /// The thing it was about.
        resource: Resource,
        /// Why, for the cloud's operator.
        reason: String,
    },
    /// The full list of devices is here; it need not be asked for again on this connection.
    MembershipReceived,
}

impl Mail for CommunicationMessage {
    fn kind(&self) -> &'static str {
        match self {
            Self::Effects(_) => "Effects",
            Self::CloudConnected => "CloudConnected",
            Self::CloudDisconnected => "CloudDisconnected",
            Self::Confirmed { .. } => "Confirmed",
            Self::Refused { .. } => "Refused",
            Self::Upload { .. } => "Upload",
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::Effects(effects) => {
                let first = effects.first().map(|first| format!(", the first by {}", first.by)).unwrap_or_default();
                format!("Effects: {} of them{first}", effects.len())
            }
            Self::Refused { parent, reason } => format!("Refused {parent}: {}", brief(reason)),
            Self::Confirmed { parent } => format!("Confirmed {parent}"),
            Self::Upload { topic, payload } => format!("Upload of {} bytes from `{}`", payload.len(), brief(topic)),
            Self::CloudConnected | Self::CloudDisconnected => self.kind().into(),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Effects(effects) => 64 + effects.iter().map(|caused| caused.effect.bytes()).sum::<usize>(),
            Self::Upload { topic, payload } => 128 + topic.len() + payload.len(),
            Self::Refused { reason, .. } => 128 + reason.len(),
            Self::CloudConnected | Self::CloudDisconnected | Self::Confirmed { .. } => 128,
        }
    }
}

impl Effect {
    /// The same with the message from which it follows.
    pub(crate) fn caused(self, by: MsgId) -> Caused {
        Caused { by, effect: self }
    }

    /// Rough size in memory.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Publish { payload, .. } => 128 + payload.len(),
            Self::Refuse { reason, .. } => 96 + reason.len(),
            Self::ReportsPending | Self::Acknowledge { .. } | Self::MembershipReceived => 96,
        }
    }
}
