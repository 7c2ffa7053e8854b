//! What Device does with each message.

use actix::{Actor, Context, Handler};
use actor::{Lease, Meta, NoRoom};
use model::membership::{AttributeOrigin, merge_attributes};
use model::{DeviceId, DeviceState, Timestamp};
use wire::hub::{MsgId, Resource};
use wire::mqtt::Topic;
use wire::mqtt::payload::{AttributesUpdate, DeviceStateReport, answer};

use super::state::Device;
use super::{DeviceMessage, Peers};
use crate::communication::{Caused, CommunicationMessage, EFFECTS_BYTES_MAX, Effect};
use crate::membership::{next_ticket, tell_attributes, write_attributes};
use crate::store::device::StoredDevice;
use crate::store::{Batch, StoreError, Tx, attribute, device, pending_report};
use crate::twin::fresh_event_id;

impl Actor for Device {
    type Context = Context<Self>;
}

impl Handler<Lease<DeviceMessage>> for Device {
    type Result = ();

    fn handle(&mut self, lease: Lease<DeviceMessage>, _: &mut Self::Context) {
        self.settle(lease);
    }
}

impl Device {
    pub(crate) fn settle(&mut self, lease: Lease<DeviceMessage>) {
        let communication = &self.peers.communication;
        let room = match communication.try_reserve() {
            Ok(room) => room,
            Err(NoRoom::Full) => return lease.postpone_from(0, communication.room()),
            // Communication ends after this actor: only an abort in between leads here, and then nobody is left to tell.
            Err(NoRoom::Closed) => return lease.done(),
        };
        let membership = &self.peers.membership;
        if let Some(after) = next_ticket(&lease, 0).filter(|after| !membership.reached(*after)) {
            return lease.postpone_from(0, membership.until(after));
        }
        let now = self.config.clock.now();
        // A state that could not be stored is not answered, as in KubeEdge; the cloud sends again.
        let done = self.store.write_batch(&lease, |tx, part, effects| apply(tx, part, effects, &self.peers, now), |_, _, _| None);
        // Replaced: the successor has the messages already, and nothing was written.
        let Ok(Batch { effects, handled, .. }) = done else { return };
        self.last_batch.took(handled);
        if !effects.is_empty() {
            room.send(Meta::new("device"), CommunicationMessage::Effects(effects));
        }
        match next_ticket(&lease, handled) {
            None => lease.done(),
            Some(after) => lease.postpone_from(handled, membership.until(after)),
        }
    }
}

fn apply(tx: &mut Tx<'_>, part: &[(&Meta, &DeviceMessage)], effects: &mut Vec<Caused>, peers: &Peers, now: Timestamp) -> Result<usize, StoreError> {
    let mut handled = 0;
    let mut reports = None;
    let mut bytes = 0;
    let mut of_message = Vec::new();
    for (meta, message) in part {
        // Membership commits before its ticket is reached, and nobody commits while this transaction is open.
        if !peers.membership.reached(meta.after) {
            break;
        }
        // One that arrived before the device was bound was for a device of that name that is gone.
        let known = device::row(tx, message.device())?.filter(|stored| !peers.births.is_earlier(meta.after, stored.incarnation));
        let Some(stored) = known else {
            effects.extend(unknown_device(message).map(|effect| effect.caused(meta.id)));
            handled += 1;
            continue;
        };
        match message {
            DeviceMessage::StateUpdate { state, .. } => {
                of_message.push(set_state(tx, stored, state, now, meta.id)?);
                reports = Some(meta.id);
            }
            DeviceMessage::Attributes { device, update, frame } => {
                of_message.extend(change_attributes(tx, device, update, now)?);
                of_message.push(Effect::Acknowledge { frame: frame.clone(), resource: Resource::Device(device.clone()) });
            }
        }
        handled += 1;
        bytes += of_message.iter().map(Effect::bytes).sum::<usize>();
        effects.extend(of_message.drain(..).map(|effect| effect.caused(meta.id)));
        if bytes > EFFECTS_BYTES_MAX {
            break;
        }
    }
    if let Some(by) = reports {
        effects.push(Effect::ReportsPending.caused(by));
    }
    Ok(handled)
}

impl DeviceMessage {
    fn device(&self) -> &DeviceId {
        match self {
            Self::StateUpdate { device, .. } | Self::Attributes { device, .. } => device,
        }
    }
}

/// Stores a state. `last_online` moves with `online` and `ok` only; with the others it says when
/// the device was last seen (newer KubeEdge empties it there, and that knowledge is lost).
fn set_state(tx: &mut Tx<'_>, stored: StoredDevice, state: &DeviceState, now: Timestamp, by: actor::MsgId) -> Result<Effect, StoreError> {
    let StoredDevice { device: row, incarnation, .. } = stored;
    let last_online = if state.is_online() { now.rfc3339() } else { row.last_online };
    device::set_state(tx, &row.id, state, &last_online)?;
    pending_report::state(tx, &row.id, incarnation, now, by)?;
    // For mappers, in KubeEdge's form: no uid.
    let report =
        DeviceStateReport { event_id: fresh_event_id(), timestamp: now, uid: String::new(), name: row.name, state: state.clone(), last_online };
    Ok(Effect::Publish { topic: Topic::DeviceStateUpdateResult(row.id), payload: answer::state_update_result(&report) })
}

fn change_attributes(tx: &mut Tx<'_>, device: &DeviceId, update: &AttributesUpdate, now: Timestamp) -> Result<Option<Effect>, StoreError> {
    let mut attributes = attribute::load(tx, device)?;
    let outcome = merge_attributes(&mut attributes, &update.attributes, AttributeOrigin::Update);
    write_attributes(tx, device, &outcome)?;
    Ok(tell_attributes(device, &update.event_id, now, &outcome))
}

fn unknown_device(message: &DeviceMessage) -> Option<Effect> {
    log::debug!(device:% = message.device(), kind = actor::Mail::kind(message); "message for an unknown device");
    match message {
        DeviceMessage::StateUpdate { .. } => None,
        DeviceMessage::Attributes { device, frame, .. } => Some(refuse(device, frame)),
    }
}

fn refuse(device: &DeviceId, frame: &MsgId) -> Effect {
    Effect::Refuse { frame: frame.clone(), resource: Resource::Device(device.clone()), reason: "the device is not a member of this node".into() }
}
