//! What Device knows, which is nothing but its peers.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use serde::Serialize;

use super::{Config, Peers};
use crate::store::Store;

/// The actor.
pub struct Device {
    pub(super) config: Config,
    pub(super) store: Store,
    pub(super) peers: Peers,
    pub(super) shared: Shared,
}

/// What outlives an incarnation of Device: what the page shows. Made once, cloned into each incarnation.
#[derive(Clone, Debug, Default)]
pub struct Shared(Arc<AtomicU64>);

impl Shared {
    pub(super) fn took(&self, messages: usize) {
        self.0.store(messages as u64, Relaxed);
    }
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
    pub fn of(shared: &Shared, store: &Store) -> Self {
        let counts = store.counts();
        Self { devices: counts.devices, online: counts.online, attributes: counts.attributes, last_batch: shared.0.load(Relaxed) }
    }
}

impl Device {
    /// A new incarnation; it holds nothing that the store does not have.
    pub fn new(config: Config, store: Store, peers: Peers) -> Self {
        Self { config, store, peers, shared: Shared::default() }
    }

    /// The same, seen on the page.
    #[must_use]
    pub fn publishing(mut self, shared: Shared) -> Self {
        self.shared = shared;
        self
    }
}
