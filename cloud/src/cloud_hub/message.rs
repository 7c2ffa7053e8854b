//! Everything that can make CloudHub act.

use actor::{Mail, brief};
use model::NodeName;
use wire::hub::{Downstream, Frame, OutboxKey, Outgoing as _};

pub use wire::link::SessionId;

/// Everything that can make CloudHub act.
#[derive(Debug)]
pub enum CloudHubMessage {
    /// A controller wants a node to know something: it goes into the node's outbox, where a newer frame of the same key
    /// replaces an older one, and is sent again until the node has acknowledged it. Dropped when the node is not
    /// connected: at its next connection the controllers send what it lacks.
    Send {
        /// Whereto.
        node: NodeName,
        /// What coalesces.
        key: OutboxKey,
        /// What to send.
        frame: Frame<Downstream>,
    },
    /// A controller answers a message of the node: sent once, never acknowledged. Dropped when the node is not connected:
    /// it asks again.
    Answer {
        /// Whereto.
        node: NodeName,
        /// The answer; its parent is the question.
        frame: Frame<Downstream>,
    },
    /// A session began: the controllers are told, if that is still so.
    Connected {
        /// Whose.
        node: NodeName,
        /// Which.
        session: SessionId,
    },
    /// A session ended: the controllers are told, if no newer one has taken its place.
    Disconnected {
        /// Whose.
        node: NodeName,
        /// Which.
        session: SessionId,
        /// Why, in words for an operator.
        reason: String,
    },
    /// A session has said what its node holds: the controllers are told, and send what it lacks.
    Announced {
        /// Which node.
        node: NodeName,
    },
    /// Downstream begins anew and does not know what the nodes have been told: each says what it holds, or is sent everything.
    OutOfStep,
    /// Its own clock: silent and stuck sessions are cut, unanswered frames are due again.
    SweepDue,
}

impl Mail for CloudHubMessage {
    fn kind(&self) -> &'static str {
        match self {
            Self::Send { .. } => "Send",
            Self::Answer { .. } => "Answer",
            Self::Connected { .. } => "Connected",
            Self::Disconnected { .. } => "Disconnected",
            Self::Announced { .. } => "Announced",
            Self::OutOfStep => "OutOfStep",
            Self::SweepDue => "SweepDue",
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::Send { node, frame, .. } | Self::Answer { node, frame } => {
                format!(
                    "{} {} {} to {node}, frame {}",
                    self.kind(),
                    frame.body.kind(),
                    brief(&frame.body.resource().to_string()),
                    brief(frame.id.as_str())
                )
            }
            Self::Connected { node, session } => format!("Connected {node} session {session}"),
            Self::Disconnected { node, session, reason } => format!("Disconnected {node} session {session}: {}", brief(reason)),
            Self::Announced { node } => format!("Announced {node}"),
            Self::OutOfStep | Self::SweepDue => self.kind().to_owned(),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Send { frame, .. } | Self::Answer { frame, .. } => frame.bytes(),
            Self::Connected { .. } | Self::Disconnected { .. } | Self::Announced { .. } | Self::OutOfStep | Self::SweepDue => 256,
        }
    }
}
