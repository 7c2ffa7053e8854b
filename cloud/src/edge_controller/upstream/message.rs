//! Everything that can make the upstream half act.

use actor::{Mail, brief};
use model::NodeName;
use wire::hub::{Frame, Upstream};

use crate::cloud_hub::Credit;

/// Everything that can make the upstream half of EdgeController act.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all are `FromEdge`; a box for each would cost more than the room of the others")]
pub enum UpstreamMessage {
    /// CloudHub: a node said something that concerns its Node, its pods, or an object it wants to read
    /// ([`Upstream::NodeRegister`], [`Upstream::NodeStatus`], [`Upstream::PodStatus`], [`Upstream::Event`], [`Upstream::Query`]). The API is
    /// changed, then the node is answered.
    FromEdge {
        /// Who said it, proved by its certificate.
        node: NodeName,
        /// What.
        frame: Frame<Upstream>,
        /// What it holds of its session's budget; back when this message is settled.
        credit: Credit,
    },
    /// CloudHub: a node has connected. Its lease is renewed from now on.
    NodeConnected {
        /// The node.
        node: NodeName,
    },
    /// CloudHub: a node has gone. Its lease is left to expire.
    NodeDisconnected {
        /// The node.
        node: NodeName,
    },
    /// Its own clock: leases that are due are renewed.
    RenewDue,
    /// Its own task has renewed leases, or tried to.
    Renewed {
        /// The nodes whose lease is renewed.
        renewed: Vec<NodeName>,
        /// Those whose lease is not; they are tried again soon.
        failed: Vec<NodeName>,
    },
}

impl Mail for UpstreamMessage {
    fn kind(&self) -> &'static str {
        match self {
            Self::FromEdge { .. } => "FromEdge",
            Self::NodeConnected { .. } => "NodeConnected",
            Self::NodeDisconnected { .. } => "NodeDisconnected",
            Self::RenewDue => "RenewDue",
            Self::Renewed { .. } => "Renewed",
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::FromEdge { node, frame, .. } => format!("{} from {node}, frame {}", frame.body.kind(), brief(frame.id.as_str())),
            Self::NodeConnected { node } | Self::NodeDisconnected { node } => format!("{} {node}", self.kind()),
            Self::RenewDue => self.kind().to_owned(),
            Self::Renewed { renewed, failed } => format!("Renewed {} leases, {} failed", renewed.len(), failed.len()),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::FromEdge { frame, .. } => frame.bytes(),
            Self::NodeConnected { .. } | Self::NodeDisconnected { .. } | Self::RenewDue => 128,
            Self::Renewed { renewed, failed } => 64 * (1 + renewed.len() + failed.len()),
        }
    }
}
