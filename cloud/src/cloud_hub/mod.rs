//! CloudHub: the WebSocket server that every edge is connected to.
//!
//! | from | what | to |
//! |---|---|---|
//! | EdgeController, device controller | [`CloudHubMessage::Send`], [`CloudHubMessage::Answer`] | the node's outbox or lane, from which its session pulls |
//! | a node's session | node, pod and query frames | EdgeController upstream |
//! | a node's session | membership, twin and device state frames | device controller |
//! | a node's session | acknowledgements, refusals | the node's outbox |
//! | CloudHub | a node came or went | EdgeController (both halves), device controller |
//! | CloudHub | what a node holds, or that it does not say it | EdgeController downstream, which sends what the node lacks |
//!
//! ```text
//! controllers ──▶ CloudHub ──▶ Nodes: per node an outbox and a lane of answers   (one mutex per node)
//!                    │ sweep        ▲ pull while the socket takes it, acknowledge
//!                    ▼              │
//!                 atomics ◀──── Session (actix-web-actors) ══ TLS WebSocket ══ EdgeHub
//!                                   └──▶ controllers' mailboxes; when one is full, this node is not read
//! ```
//!
//! Sessions are not modules: no mailbox cell, no arbiter, no timer. A session that a peer does not read from is frozen by
//! its socket; so CloudHub watches every session's atomics and closes the socket of one that is silent or stuck.
//!
//! Invariant: a node has one live session; an older one changes nothing any more.
//! Invariant: what is in memory for a node is bounded by its outbox and lane, however slowly it reads.
//! Invariant: of what one node says only a bounded part is on its way through the controllers; the rest it holds itself.
//! Invariant: who a node is says its certificate alone; path and header may only agree.

mod credit;
mod entry;
mod handlers;
mod link;
pub mod listener;
mod message;
mod nodes;
mod page;
mod session;
mod socket;
mod state;
#[cfg(test)]
mod tests;
mod totals;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actor::Handle;

pub use credit::Credit;
pub use entry::attach;
pub use handlers::CloudHub;
pub use listener::{CloudHubError, Listener};
pub use message::{CloudHubMessage, SessionId};
pub use nodes::Nodes;
pub use page::{Backlog, Snapshot};
pub use totals::Totals;

use crate::device_controller::DeviceControllerMessage;
use crate::edge_controller::downstream::DownstreamMessage;
use crate::edge_controller::upstream::UpstreamMessage;

/// What the operator decides.
#[derive(Debug, Clone)]
pub struct Config {
    /// Host and port to listen on (`cloudhub.address`, `cloudhub.port`: 0.0.0.0:10000).
    pub address: String,
    /// A node from which nothing came for so long counts as gone (`cloudhub.keepalive-interval`: 30 s).
    pub keepalive: Duration,
    /// A socket that took nothing for so long, with something to send, is closed (`cloudhub.write-timeout`: 30 s).
    pub write_timeout: Duration,
    /// Nodes connected at the same time; the next one is refused with 429 (`cloudhub.node-limit`).
    pub node_limit: usize,
    /// How often CloudHub looks at its sessions.
    pub sweep_every: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            address: "0.0.0.0:10000".into(),
            keepalive: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            node_limit: 1000,
            sweep_every: Duration::from_secs(1),
        }
    }
}

/// Whom CloudHub and its sessions talk to.
#[derive(Debug, Clone)]
pub struct Peers {
    /// CloudHub itself: sessions say when they begin and end.
    pub cloud_hub: Handle<CloudHubMessage>,
    /// EdgeController: what nodes report and ask.
    pub upstream: Handle<UpstreamMessage>,
    /// EdgeController: which nodes are connected.
    pub downstream: Handle<DownstreamMessage>,
    /// Everything about devices.
    pub devices: Handle<DeviceControllerMessage>,
}

/// Nodes by which the limit may be raised while the listener runs, which is made for so many connections more.
const NODES_MORE_MAX: usize = 1000;

/// Of the settings, what may change at run time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// See [`Config::keepalive`].
    pub keepalive: Duration,
    /// See [`Config::write_timeout`].
    pub write_timeout: Duration,
    /// See [`Config::node_limit`].
    pub node_limit: usize,
}

/// What CloudHub's actor, its listener and its sessions share. It outlives the actor.
#[derive(Debug)]
pub struct Hub {
    pub(crate) config: Config,
    tuning: Mutex<Tuning>,
    pub(crate) peers: Peers,
    pub(crate) nodes: Nodes,
    diary: page::Diary,
}

impl Hub {
    /// Nobody is connected yet.
    #[must_use]
    pub fn new(config: Config, peers: Peers) -> Arc<Self> {
        let tuning = Tuning { keepalive: config.keepalive, write_timeout: config.write_timeout, node_limit: config.node_limit };
        Arc::new(Self { config, tuning: Mutex::new(tuning), peers, nodes: Nodes::default(), diary: page::Diary::default() })
    }

    /// The settings that are in force.
    #[must_use]
    pub fn tuning(&self) -> Tuning {
        *self.tuning.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes on with other settings, and returns those that are in force: the listener's port was made for the limit of the
    /// start, and takes 1000 nodes more at the most. Sessions that stand stay, whatever the limit.
    pub fn tune(&self, mut tuning: Tuning) -> Tuning {
        tuning.node_limit = tuning.node_limit.min(self.config.node_limit.saturating_add(NODES_MORE_MAX));
        *self.tuning.lock().unwrap_or_else(PoisonError::into_inner) = tuning;
        tuning
    }

    /// Figures over all nodes, for the admin page.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.nodes.totals()
    }

    /// Says good-bye to every session; before the listener is stopped.
    pub fn close_all(&self) {
        self.nodes.cut_all(&state::End::ShuttingDown);
    }
}
