//! Twins as the store has them, at hand: what was worked on lately.
//!
//! Nothing here is newer than the store, and nothing is lost with it. The shelf is of one
//! [revision](crate::store::Store::devices_revision) and is emptied when the store has another, so what another module
//! commits is seen; a twin is put on it after its commit only, and is taken off it to be worked on, so a failed transaction
//! leaves nothing here that the store does not have.
//!
//! It halves the work of an update and spares a question the store altogether (figures in the commit that made it).

use std::collections::HashMap;

use model::DeviceId;

use super::state::Working;

/// Properties on the shelf, of all devices: what two devices may have, about half a megabyte. With more it is emptied.
const PROPERTIES_MAX: usize = 2 * model::twin::PROPERTIES_MAX;

/// Twins of one revision of the store.
#[derive(Default)]
pub(crate) struct Shelf {
    revision: u64,
    twins: HashMap<DeviceId, Working>,
    properties: usize,
}

impl Shelf {
    /// Empties the shelf unless it is of this revision.
    pub(super) fn turn_to(&mut self, revision: u64) {
        if self.revision != revision {
            self.clear();
            self.revision = revision;
        }
    }

    /// A twin to look at.
    pub(super) fn get(&self, id: &DeviceId) -> Option<&Working> {
        self.twins.get(id)
    }

    /// A twin to work on.
    pub(super) fn take(&mut self, id: &DeviceId) -> Option<Working> {
        let working = self.twins.remove(id)?;
        self.properties -= weight(&working);
        Some(working)
    }

    /// What is committed, or was only read; `revision` is that of the store with it. What was on the shelf stays: of another
    /// revision's twins none have changed but these, because one writer at a time commits.
    pub(super) fn put(&mut self, revision: u64, twins: Vec<(DeviceId, Working)>) {
        self.revision = revision;
        for (id, working) in twins {
            self.take(&id);
            let weight = weight(&working);
            if self.properties + weight > PROPERTIES_MAX {
                self.clear();
            }
            self.properties += weight;
            self.twins.insert(id, working.settled());
        }
    }

    fn clear(&mut self) {
        self.twins = HashMap::new();
        self.properties = 0;
    }
}

/// In properties; the device itself counts as one.
fn weight(working: &Working) -> usize {
    1 + working.twin.properties.len()
}
