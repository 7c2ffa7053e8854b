//! Everything that can make the downstream half act.

use actor::{Mail, Reply, brief};
use model::{NodeName, ResourceKey, ResourceKind};
use wire::link::Held;

use super::state::Permission;
use crate::edge_controller::resource::observed::Observed;
use crate::watching::{Change, Generation};

/// Everything that can make the downstream half of EdgeController act.
#[derive(Debug)]
pub enum DownstreamMessage {
    /// CloudHub: a node is out of step: it has connected, or its outbox ran over. It is sent what it lacks, and the deletion
    /// of what it should not have.
    NodeLacks {
        /// The node.
        node: NodeName,
        /// What it holds; nothing, if it does not say so: then it is sent everything.
        held: Held,
    },
    /// Upstream: a node speaks of a pod that the API does not have, or has as another one. The node is sent what stands under
    /// the name now, or its deletion.
    NodeHas {
        /// The node.
        node: NodeName,
        /// The pod.
        key: ResourceKey,
        /// Its uid at the node.
        uid: String,
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
            Self::NodeLacks { .. } => "NodeLacks",
            Self::NodeHas { .. } => "NodeHas",
            Self::NodeDisconnected { .. } => "NodeDisconnected",
            Self::Watch { .. } => "Watch",
            Self::MayRead { .. } => "MayRead",
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::NodeLacks { node, held } => format!("NodeLacks {node}: it holds {} objects", held.len()),
            Self::NodeDisconnected { node } => format!("{} {node}", self.kind()),
            Self::NodeHas { node, key, uid } => format!("NodeHas {node} {key}, uid {}", brief(uid)),
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
            Self::NodeLacks { held, .. } => 256 + 512 * held.len(),
            Self::Watch { .. } | Self::NodeHas { .. } | Self::NodeDisconnected { .. } | Self::MayRead { .. } => 256,
        }
    }
}
