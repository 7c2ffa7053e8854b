//! Everything that can make the downstream half act.

use actor::{Mail, Reply};
use model::{NodeName, ResourceKey, ResourceKind};

use super::state::Permission;
use crate::edge_controller::resource::observed::Observed;
use crate::watching::{Change, Generation};

/// Everything that can make the downstream half of EdgeController act.
#[derive(Debug)]
pub enum DownstreamMessage {
    /// CloudHub: a node has connected. It is sent everything it should have.
    NodeConnected {
        /// The node.
        node: NodeName,
    },
    /// CloudHub: a node has gone. Nothing follows: what it missed is sent at its next connection.
    NodeDisconnected {
        /// The node.
        node: NodeName,
    },
    /// A watch saw something. The nodes that need the object are sent it.
    Watch {
        /// Of which incarnation of this actor the watch is.
        generation: Generation,
        /// Which watch.
        kind: ResourceKind,
        /// What it saw.
        change: Change<Observed>,
    },
    /// Upstream asks whether a node may read an object.
    MayRead {
        /// The node.
        node: NodeName,
        /// The object.
        key: ResourceKey,
        /// The answer.
        reply: Reply<Permission>,
    },
}

impl Mail for DownstreamMessage {
    fn kind(&self) -> &'static str {
        match self {
            Self::NodeConnected { .. } => "NodeConnected",
            Self::NodeDisconnected { .. } => "NodeDisconnected",
            Self::Watch { .. } => "Watch",
            Self::MayRead { .. } => "MayRead",
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::NodeConnected { node } | Self::NodeDisconnected { node } => format!("{} {node}", self.kind()),
            Self::Watch { kind, change: Change::Listed(object) | Change::Applied(object) | Change::Deleted(object), .. } => {
                format!("Watch {kind}: {} {}", object.key, object.uid)
            }
            Self::Watch { kind, .. } => format!("Watch {kind}"),
            Self::MayRead { node, key, .. } => format!("MayRead {node} {key}"),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Watch { change: Change::Listed(object) | Change::Applied(object) | Change::Deleted(object), .. } => 512 + object.object.len(),
            Self::Watch { .. } | Self::NodeConnected { .. } | Self::NodeDisconnected { .. } | Self::MayRead { .. } => 256,
        }
    }
}
