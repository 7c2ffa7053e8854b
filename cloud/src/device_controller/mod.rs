//! Device controller: what devices should be goes to their nodes, what they are comes back into DeviceStatus objects.
//!
//! | from | message | to |
//! |---|---|---|
//! | own watches | [`DeviceControllerMessage::Device`], [`Model`](DeviceControllerMessage::Model) | CloudHub: membership, wanted properties |
//! | CloudHub | [`FromEdge`](DeviceControllerMessage::FromEdge) `MembershipGet` | CloudHub: all devices of the node |
//! | CloudHub | [`FromEdge`](DeviceControllerMessage::FromEdge) `TwinReport`, `DeviceStateReport` | API server, then CloudHub: confirmation |
//! | CloudHub | [`NodeConnected`](DeviceControllerMessage::NodeConnected), [`NodeDisconnected`](DeviceControllerMessage::NodeDisconnected) | – |
//! | CloudHub | [`NodeLacks`](DeviceControllerMessage::NodeLacks) | CloudHub: all devices of the node |
//!
//! Invariant: nothing is confirmed that the API server has not stored.
//! Invariant: a node hears of its own devices only, and reports on them only.
//! Invariant: no list of devices leaves before all Devices and models are known, because what it lacks is deleted.
//!
//! An edge's counters live in memory: after a restart the first refusal teaches them again (see [`state`]).

#[cfg(test)]
mod api_tests;
pub mod crd;
pub mod early;
mod handlers;
mod message;
pub mod page;
pub mod state;
pub mod status;
#[cfg(test)]
mod tests;
pub mod watch;

use std::sync::Arc;

use actor::Handle;
use model::Clock;

use early::Early;
pub use message::DeviceControllerMessage;

use crate::cloud_hub::CloudHubMessage;
use crate::cluster::Cluster;
use crate::watching::{Generation, Watch};

/// DeviceStatus objects that are written at the same time.
pub const WRITES_MAX: usize = 16;

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
    pub device_controller: Handle<DeviceControllerMessage>,
    /// Takes what goes to the nodes.
    pub cloud_hub: Handle<CloudHubMessage>,
}

/// The actor.
pub struct DeviceController {
    config: Config,
    peers: Peers,
    cluster: Cluster,
    clock: Arc<dyn Clock>,
    generation: Generation,
    devices: state::Devices,
    early: Early,
    writer: Arc<status::Writer>,
    watches: Vec<Watch>,
    known: page::Shared,
    is_published: bool,
}

impl DeviceController {
    /// An incarnation that knows nothing yet; its watches start with the actor.
    pub fn new(config: Config, peers: Peers, cluster: Cluster, clock: Arc<dyn Clock>) -> Self {
        Self {
            config,
            peers,
            cluster,
            clock,
            generation: Generation::fresh(),
            devices: state::Devices::default(),
            early: Early::default(),
            writer: Arc::default(),
            watches: Vec::new(),
            known: page::Shared::default(),
            is_published: false,
        }
    }

    /// The same, seen on the page.
    #[must_use]
    pub fn publishing(mut self, known: page::Shared) -> Self {
        self.known = known;
        self
    }
}
