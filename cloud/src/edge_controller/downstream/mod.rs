//! Downstream: what the edges should have. Watches Pods, ConfigMaps, Secrets and edge Nodes, and sends each node what its
//! pods are and need.
//!
//! | from | message | to |
//! |---|---|---|
//! | own watches | [`DownstreamMessage::Watch`] | CloudHub: the object, to each node that needs it |
//! | CloudHub | [`DownstreamMessage::NodeLacks`] | CloudHub: what the node lacks, and deletions of what it should not have |
//! | CloudHub | [`DownstreamMessage::NodeDisconnected`] | – |
//! | Upstream | [`DownstreamMessage::NodeHas`] | CloudHub: what the node should have in that place |
//! | its own start | – | CloudHub: what the nodes have been told is not known any more |
//! | Upstream | [`DownstreamMessage::MayRead`] | the answer |
//!
//! Invariant: a ConfigMap or Secret that a pod needs and that was seen goes out before the pod. (Each kind has a watch of its
//! own: one that was created just before its pod may be seen after it, and is sent then.)
//! Invariant: a node is sent nothing that none of its pods names.
//! Invariant: all that a node is told of objects comes from here, so that of two things under one name the later one comes last.
//! Invariant: what a node holds and should not is deleted there, but only in namespaces that are watched, and only once every
//! kind is listed.
//! Invariant: the state can be lost at any time; the watches of the next incarnation list everything again, and the nodes
//! say again what they hold.

mod handlers;
mod message;
pub mod state;
#[cfg(test)]
mod tests;
pub mod watch;

use std::sync::Arc;

use actor::Handle;
use model::{Clock, Namespace};

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
        let desired = Desired::of(Namespace::new(&config.namespace).ok());
        Self {
            config,
            peers,
            cluster,
            clock,
            generation: Generation::fresh(),
            desired,
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
