//! Downstream: what the edges should have. Watches Pods, ConfigMaps, Secrets and edge Nodes, and sends each node what its
//! pods are and need.
//!
//! | from | message | to |
//! |---|---|---|
//! | own watches | [`DownstreamMessage::Watch`] | CloudHub: the object, to each node that needs it |
//! | CloudHub | [`DownstreamMessage::NodeConnected`] | CloudHub: everything for that node |
//! | CloudHub | [`DownstreamMessage::NodeDisconnected`] | – |
//! | Upstream | [`DownstreamMessage::MayRead`] | the answer |
//!
//! Invariant: a ConfigMap or Secret that a pod needs and that was seen goes out before the pod. (Each kind has a watch of its
//! own: one that was created just before its pod may be seen after it, and is sent then.)
//! Invariant: a node is sent nothing that none of its pods names.
//! Invariant: the state can be lost at any time; the watches of the next incarnation list everything again.

mod handlers;
mod message;
pub mod state;
#[cfg(test)]
mod tests;
pub mod watch;

use std::sync::Arc;

use actor::Handle;
use model::Clock;

pub use message::DownstreamMessage;
use state::Desired;
pub use state::{Known, Permission, Shared, Snapshot};

use crate::cloud_hub::CloudHubMessage;
use crate::cluster::Cluster;
use crate::watching::{Generation, Watch};

/// What the operator decides.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Namespace that is watched; empty: all.
    pub namespace: String,
}

/// Whom it talks to.
#[derive(Clone, Debug)]
pub struct Peers {
    /// Itself, for the watches.
    pub downstream: Handle<DownstreamMessage>,
    /// Takes what goes to the nodes.
    pub cloud_hub: Handle<CloudHubMessage>,
}

/// The actor.
pub struct Downstream {
    config: Config,
    peers: Peers,
    cluster: Cluster,
    clock: Arc<dyn Clock>,
    generation: Generation,
    desired: Desired,
    watches: Vec<Watch>,
    known: Shared,
    is_published: bool,
}

impl Downstream {
    /// An incarnation that knows nothing yet; its watches start with the actor.
    pub fn new(config: Config, peers: Peers, cluster: Cluster, clock: Arc<dyn Clock>) -> Self {
        Self {
            config,
            peers,
            cluster,
            clock,
            generation: Generation::fresh(),
            desired: Desired::default(),
            watches: Vec::new(),
            known: Shared::default(),
            is_published: false,
        }
    }

    /// The same, seen on the page.
    #[must_use]
    pub fn publishing(mut self, known: Shared) -> Self {
        self.known = known;
        self
    }
}
