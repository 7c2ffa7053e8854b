//! Upstream: what the edges say of themselves and their pods goes into the API, and each is answered when it is there.
//!
//! | from | message | to |
//! |---|---|---|
//! | CloudHub | [`FromEdge`](UpstreamMessage::FromEdge) `NodeRegister`, `NodeStatus`, `PodStatus`, `Event` | API server, then CloudHub: confirmation or refusal |
//! | CloudHub | [`FromEdge`](UpstreamMessage::FromEdge) `Query` | API server, then CloudHub: the object |
//! | CloudHub | [`NodeConnected`](UpstreamMessage::NodeConnected), [`NodeDisconnected`](UpstreamMessage::NodeDisconnected) | own task: leases |
//! | own timer, own task | [`RenewDue`](UpstreamMessage::RenewDue), [`Renewed`](UpstreamMessage::Renewed) | API server: leases |
//!
//! Invariant: nothing is confirmed that the API server has not stored; what it cannot store now is not answered, and the
//! edge repeats it.
//! Invariant: a node writes its own Node, the pods bound to it and Events of both, and reads what its pods name. Everything else is refused
//! and logged.

mod events;
mod handlers;
mod message;
mod scribe;
pub mod state;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use actor::Handle;
use model::Clock;

pub use message::UpstreamMessage;
pub use scribe::{Scribe, Verdict};

use super::downstream::DownstreamMessage;
use crate::cloud_hub::CloudHubMessage;
use crate::cluster::Cluster;

/// Nodes that are served at the same time; the messages of one node keep their order.
pub const NODES_MAX: usize = 32;

/// Leases that are renewed at the same time.
pub const RENEWALS_MAX: usize = 16;

/// Whom it talks to.
#[derive(Clone, Debug)]
pub struct Peers {
    /// Itself, for its clock and its renewals.
    pub upstream: Handle<UpstreamMessage>,
    /// Knows what a node may read.
    pub downstream: Handle<DownstreamMessage>,
    /// Takes the answers.
    pub cloud_hub: Handle<CloudHubMessage>,
}

/// The actor.
pub struct Upstream {
    peers: Peers,
    scribe: Scribe,
    leases: state::Leases,
    began: tokio::time::Instant,
    unavailable: bool,
}

impl Upstream {
    /// An incarnation that knows no connected node; each makes itself known by its next message.
    pub fn new(peers: Peers, cluster: Cluster, clock: Arc<dyn Clock>) -> Self {
        let (downstream, cloud_hub) = (peers.downstream.clone(), peers.cloud_hub.clone());
        let scribe = Scribe { cluster, clock, downstream, cloud_hub, known: state::Shared::default() };
        Self { peers, scribe, leases: state::Leases::default(), began: tokio::time::Instant::now(), unavailable: false }
    }

    /// The same, seen on the page.
    #[must_use]
    pub fn publishing(mut self, known: state::Shared) -> Self {
        self.scribe.known = known;
        self
    }
}
