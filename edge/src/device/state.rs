//! What Device knows, which is nothing but its peers.

use super::{Config, Peers};
use crate::store::Store;

/// The actor.
pub struct Device {
    pub(super) config: Config,
    pub(super) store: Store,
    pub(super) peers: Peers,
}

impl Device {
    /// A new incarnation; it holds nothing that the store does not have.
    pub fn new(config: Config, store: Store, peers: Peers) -> Self {
        Self { config, store, peers }
    }
}
