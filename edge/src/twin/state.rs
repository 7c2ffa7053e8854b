//! What Twin works on, and what is said of it. No input or output but the table functions.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use actor::MsgId;
use model::twin::{Outcome, TwinError};
use model::{DeviceId, Origin, PropertyName, Timestamp, TwinChange, merge};
use serde::Serialize;
use wire::mqtt::Topic;
use wire::mqtt::payload::answer;

use super::shelf::Shelf;
use super::{Config, Peers};
use crate::communication::Effect;
use crate::last_batch::LastBatch;
use crate::store::device::Incarnation;
use crate::store::{Read, Store, StoreError, Tx, device, pending_report, twin};

/// The actor.
pub struct Twin {
    pub(super) config: Config,
    pub(super) store: Store,
    pub(super) peers: Peers,
    pub(super) last_batch: LastBatch,
    pub(super) shelf: Shelf,
}

/// What Twin knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Snapshot {
    /// Devices whose twin may be asked for.
    pub devices: u64,
    /// Properties of their twins.
    pub properties: u64,
    /// Messages in the last batch.
    pub last_batch: u64,
}

impl Snapshot {
    /// As it is now, by the last count of the store.
    pub fn of(last: &LastBatch, store: &Store) -> Self {
        let counts = store.counts();
        Self { devices: counts.devices, properties: counts.properties, last_batch: last.messages() }
    }
}

impl Twin {
    /// A new incarnation; it holds nothing that the store does not have.
    pub fn new(config: Config, store: Store, peers: Peers) -> Self {
        Self { config, store, peers, last_batch: LastBatch::default(), shelf: Shelf::default() }
    }

    /// The same, seen on the page.
    #[must_use]
    pub fn publishing(mut self, last_batch: LastBatch) -> Self {
        self.last_batch = last_batch;
        self
    }
}

/// The twins of one batch: each is taken from the shelf or loaded, once, merged in memory, and written where it changed.
pub(crate) struct WorkingSet<'s> {
    shelf: &'s mut Shelf,
    devices: HashMap<DeviceId, Option<Working>>,
}

/// A twin under way.
pub struct Working {
    /// Of which creation of its device.
    pub incarnation: Incarnation,
    /// As it will be after the commit.
    pub twin: model::Twin,
    dirty: BTreeSet<PropertyName>,
    /// With the last message that changed each.
    report: BTreeMap<PropertyName, MsgId>,
}

impl Working {
    /// A twin that was just loaded, or one that begins.
    pub fn new(incarnation: Incarnation, twin: model::Twin) -> Self {
        Self { incarnation, twin, dirty: BTreeSet::new(), report: BTreeMap::new() }
    }

    /// Merges the change that the message `by` asks for, and remembers what has to be written and reported.
    ///
    /// # Errors
    /// As [`model::merge`].
    pub fn merge(&mut self, change: &TwinChange, origin: Origin, now: Timestamp, by: MsgId) -> Result<Outcome, TwinError> {
        let outcome = merge(&mut self.twin, change, origin, now)?;
        self.dirty.extend(outcome.dirty.iter().cloned());
        self.report.extend(outcome.report.iter().map(|name| (name.clone(), by)));
        Ok(outcome)
    }

    /// Remembers properties of which the cloud shall hear, though they did not change, because the message `by` asks for it.
    pub(crate) fn report_again(&mut self, names: &[PropertyName], by: MsgId) {
        self.report.extend(names.iter().filter(|name| self.twin.properties.contains_key(*name)).map(|name| (name.clone(), by)));
    }

    /// The same with nothing to write.
    pub(super) fn settled(self) -> Self {
        Self::new(self.incarnation, self.twin)
    }

    /// Writes what changed; tells whether the cloud must hear of it.
    ///
    /// # Errors
    /// The store's.
    pub fn write(&self, tx: &mut Tx<'_>, id: &DeviceId, now: Timestamp) -> Result<bool, StoreError> {
        for name in &self.dirty {
            twin::put(tx, id, name, &self.twin.properties[name])?;
        }
        for (name, by) in &self.report {
            pending_report::property(tx, id, self.incarnation, name, now, *by)?;
        }
        Ok(!self.report.is_empty())
    }
}

impl<'s> WorkingSet<'s> {
    /// Nothing yet. `revision`: that of what will be read.
    pub(crate) fn over(shelf: &'s mut Shelf, revision: u64) -> Self {
        shelf.turn_to(revision);
        Self { shelf, devices: HashMap::new() }
    }

    /// What was worked on; it may be put on the shelf again when it is what the store has.
    pub(crate) fn into_twins(self) -> Vec<(DeviceId, Working)> {
        self.devices.into_iter().filter_map(|(id, working)| Some((id, working?))).collect()
    }

    /// The twin of a device, loaded when it is first asked for; `None` if the device is unknown.
    pub(crate) fn get(&mut self, read: &mut Read<'_>, id: &DeviceId) -> Result<Option<&mut Working>, StoreError> {
        if !self.devices.contains_key(id) {
            let working = match self.shelf.take(id) {
                Some(working) => Some(working),
                None => match device::incarnation(read, id)? {
                    Some(incarnation) => Some(Working::new(incarnation, twin::load(read, id)?)),
                    None => None,
                },
            };
            self.devices.insert(id.clone(), working);
        }
        Ok(self.devices.get_mut(id).and_then(Option::as_mut))
    }

    /// Writes all that changed; tells whether the cloud must hear of anything.
    pub(crate) fn write(&self, tx: &mut Tx<'_>, now: Timestamp) -> Result<bool, StoreError> {
        let mut reports = false;
        for (id, working) in &self.devices {
            if let Some(working) = working {
                reports |= working.write(tx, id, now)?;
            }
        }
        Ok(reports)
    }
}

/// What everybody hears of a change: the document if anything changed, the delta while the device
/// differs from what is expected of it.
pub(crate) fn tell_change(effects: &mut Vec<Effect>, device: &DeviceId, event_id: &str, now: Timestamp, outcome: &Outcome, twin: &model::Twin) {
    if !outcome.document.is_empty() {
        let payload = answer::twin_update_document(event_id, now, outcome);
        effects.push(Effect::Publish { topic: Topic::TwinUpdateDocument(device.clone()), payload });
    }
    let delta = twin.delta();
    if !delta.is_empty() {
        let payload = answer::twin_update_delta(&fresh_event_id(), now, &delta);
        effects.push(Effect::Publish { topic: Topic::TwinUpdateDelta(device.clone()), payload });
    }
}

/// An event id for a message that answers nobody: a UUID, as in KubeEdge.
pub(crate) fn fresh_event_id() -> String {
    MsgId::fresh().to_string()
}
