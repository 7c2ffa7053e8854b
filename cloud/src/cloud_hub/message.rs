//! Everything that can make CloudHub act.

use actor::Mail;
use model::NodeName;
use wire::hub::{Downstream, Frame, OutboxKey, Outgoing as _};

/// Everything that can make CloudHub act.
#[derive(Debug)]
pub enum CloudHubMessage {
    /// A controller wants a node to know something: it goes into the node's outbox, where a newer frame of the same key
    /// replaces an older one, and is sent again until the node has acknowledged it. Dropped when the node is not
    /// connected: at its next connection the controllers send everything.
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
}

impl Mail for CloudHubMessage {
    fn kind(&self) -> &'static str {
        match self {
            Self::Send { .. } => "Send",
            Self::Answer { .. } => "Answer",
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::Send { node, frame, .. } | Self::Answer { node, frame } => {
                format!("{} {} {} to {node}", self.kind(), frame.body.kind(), frame.body.resource())
            }
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Send { frame, .. } | Self::Answer { frame, .. } => frame.bytes(),
        }
    }
}
