//! What Device knows, which is nothing but its peers.

use serde::Serialize;

use super::{Config, Peers};
use crate::last_batch::LastBatch;
use crate::store::Store;

/// The actor.
pub struct Device {
    pub(super) config: Config,
    pub(super) store: Store,
    pub(super) peers: Peers,
    pub(super) last_batch: LastBatch,
}

/// What Device knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Snapshot {
    /// Devices of this node.
    pub devices: u64,
    /// Those that said they are online.
    pub online: u64,
    /// Their attributes.
    pub attributes: u64,
    /// Messages in the last batch.
    pub last_batch: u64,
}

impl Snapshot {
    /// As it is now, by the last count of the store.
    pub fn of(last: &LastBatch, store: &Store) -> Self {
        let counts = store.counts();
        Self { devices: counts.devices, online: counts.online, attributes: counts.attributes, last_batch: last.messages() }
    }
}

impl Device {
    /// A new incarnation; it holds nothing that the store does not have.
    pub fn new(config: Config, store: Store, peers: Peers) -> Self {
        Self { config, store, peers, last_batch: LastBatch::default() }
    }

    /// The same, seen on the page.
    #[must_use]
    pub fn publishing(mut self, last_batch: LastBatch) -> Self {
        self.last_batch = last_batch;
        self
    }
}
