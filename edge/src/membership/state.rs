//! What Membership writes, and what is said of it.

use std::collections::BTreeMap;

use actor::{MsgId, Ticket};
use model::membership::{AttributeOrigin, Plan, merge_attributes};
use model::{Device, DeviceEntry, DeviceId, Origin, Timestamp};
use serde::Serialize;
use wire::mqtt::Topic;
use wire::mqtt::payload::answer;

use super::attributes::{tell_attributes, write_attributes};
use super::{Births, Config, Peers};
use crate::communication::Effect;
use crate::last_batch::LastBatch;
use crate::store::device::Incarnation;
use crate::store::{Store, StoreError, Tx, device};
use crate::twin::{Working, fresh_event_id, tell_change};

/// The actor.
pub struct Membership {
    pub(super) config: Config,
    pub(super) store: Store,
    pub(super) peers: Peers,
    pub(super) last_batch: LastBatch,
}

/// What Membership knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Snapshot {
    /// Devices of this node.
    pub devices: u64,
    /// Messages in the last transaction.
    pub last_batch: u64,
}

impl Snapshot {
    /// As it is now, by the last count of the store.
    pub fn of(last: &LastBatch, store: &Store) -> Self {
        Self { devices: store.counts().devices, last_batch: last.messages() }
    }
}

impl Membership {
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

/// The message that is carried out, and what is needed for each of its devices.
pub(super) struct Occasion<'a> {
    pub(super) births: &'a Births,
    /// Place of the message in this module's mailbox.
    pub(super) place: Ticket,
    pub(super) by: MsgId,
    pub(super) now: Timestamp,
    /// `…/membership/updated` of this node.
    pub(super) updated: Topic,
}

/// Carries out a plan: create, replace, refresh, remove.
pub(super) fn carry_out(tx: &mut Tx<'_>, plan: Plan<'_>, on: &Occasion<'_>, effects: &mut Vec<Effect>) -> Result<(), StoreError> {
    let mut reports = false;
    let room = if plan.create.is_empty() { 0 } else { device::DEVICES_MAX.saturating_sub(device::count(tx)?) };
    let room = usize::try_from(room).unwrap_or(usize::MAX);
    if let Some(first) = plan.create.get(room) {
        let left_out = plan.create.len() - room;
        log::warn!(count = left_out, first:% = first.id, most = device::DEVICES_MAX; "devices not bound: this node has as many as it may");
    }
    for entry in plan.create.into_iter().take(room) {
        reports |= bind(tx, entry, on, effects)?;
    }
    for entry in plan.replace {
        unbind(tx, &entry.id, None, on, effects)?;
        reports |= bind(tx, entry, on, effects)?;
    }
    for entry in plan.refresh {
        if let Some(mut stored) = device::load(tx, &entry.id)? {
            if stored.uid.is_empty() && !entry.uid.is_empty() {
                device::set_uid(tx, &entry.id, &entry.uid)?;
            }
            reports |= refresh(tx, &mut stored.device, stored.incarnation, entry, on, effects)?;
        }
    }
    for (id, entry) in plan.remove {
        unbind(tx, &id, entry, on, effects)?;
    }
    for id in plan.unknown {
        log::debug!(device:% = id; "device to be unbound is unknown");
    }
    if reports {
        effects.push(Effect::ReportsPending);
    }
    Ok(())
}

/// Inserts a device with all that the list says of it, and says so. Tells whether the cloud must hear of anything.
fn bind(tx: &mut Tx<'_>, entry: &DeviceEntry, on: &Occasion<'_>, effects: &mut Vec<Effect>) -> Result<bool, StoreError> {
    let mut new = Device {
        id: entry.id.clone(),
        name: entry.name.clone(),
        description: entry.description.clone(),
        state: entry.state.clone(),
        last_online: String::new(),
        attributes: Default::default(),
        twin: Default::default(),
    };
    let incarnation = device::insert(tx, &new)?;
    on.births.note(incarnation, on.place);
    device::set_uid(tx, &entry.id, &entry.uid)?;
    let reports = refresh(tx, &mut new, incarnation, entry, on, effects)?;
    let payload = answer::membership_added(&fresh_event_id(), on.now, &new);
    effects.push(Effect::Publish { topic: on.updated.clone(), payload });
    log::info!(device:% = new.id; "device bound");
    Ok(reports)
}

/// Removes a device with all its rows and says so.
fn unbind(tx: &mut Tx<'_>, id: &DeviceId, entry: Option<&DeviceEntry>, on: &Occasion<'_>, effects: &mut Vec<Effect>) -> Result<(), StoreError> {
    device::remove(tx, id)?;
    let payload = answer::membership_removed(&fresh_event_id(), on.now, id, entry);
    effects.push(Effect::Publish { topic: on.updated.clone(), payload });
    log::info!(device:% = id; "device unbound");
    Ok(())
}

/// Merges what the list says of a device's twin and attributes, in that order (KubeEdge). Its name,
/// description and state stay. Tells whether the cloud must hear of anything.
fn refresh(
    tx: &mut Tx<'_>,
    device: &mut Device,
    incarnation: Incarnation,
    entry: &DeviceEntry,
    on: &Occasion<'_>,
    effects: &mut Vec<Effect>,
) -> Result<bool, StoreError> {
    let mut reports = false;
    if !entry.twin.is_empty() {
        let mut working = Working::new(incarnation, std::mem::take(&mut device.twin));
        match working.merge(&entry.twin, Origin::Cloud, on.now, on.by) {
            // The event id of a list is not echoed (KubeEdge blanks it).
            Ok(outcome) => tell_change(effects, &device.id, "", on.now, &outcome, &working.twin),
            Err(error) => log::warn!(device:% = device.id, error:% = error; "twin of a listed device not taken"),
        }
        reports = working.write(tx, &device.id, on.now)?;
        device.twin = working.twin;
    }
    if let Some(listed) = &entry.attributes {
        let change: BTreeMap<_, _> = listed.iter().map(|(name, change)| (name.clone(), Some(change.clone()))).collect();
        let outcome = merge_attributes(&mut device.attributes, &change, AttributeOrigin::Membership);
        write_attributes(tx, &device.id, &outcome)?;
        effects.extend(tell_attributes(&device.id, "", on.now, &outcome));
    }
    Ok(reports)
}
