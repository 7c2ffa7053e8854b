//! What Twin does with each message.

use actix::{Actor, Context, Handler};
use actor::{Lease, Meta, NoRoom};
use model::membership::is_another;
use model::{DeviceId, Origin, Timestamp};
use wire::hub::{MsgId, Resource};
use wire::mqtt::Topic;
use wire::mqtt::payload::{Fault, TwinUpdate, answer};

use super::state::{Twin, Working, WorkingSet, tell_change};
use super::{Peers, TwinMessage};
use crate::communication::{Caused, CommunicationMessage, EFFECTS_BYTES_MAX, Effect};
use crate::membership::next_ticket;
use crate::store::{Batch, Read, StoreError, Tx, device};

impl Actor for Twin {
    type Context = Context<Self>;
}

impl Handler<Lease<TwinMessage>> for Twin {
    type Result = ();

    fn handle(&mut self, lease: Lease<TwinMessage>, _: &mut Self::Context) {
        self.settle(lease);
    }
}

impl Twin {
    pub(crate) fn settle(&mut self, lease: Lease<TwinMessage>) {
        let communication = self.peers.communication.clone();
        let room = match communication.try_reserve() {
            Ok(room) => room,
            Err(NoRoom::Full) => return lease.postpone_from(0, communication.room()),
            // Communication ends after this actor: only an abort in between leads here, and then nobody is left to tell.
            Err(NoRoom::Closed) => return lease.done(),
        };
        let membership = self.peers.membership.clone();
        if let Some(after) = next_ticket(&lease, 0).filter(|after| !membership.reached(*after)) {
            return lease.postpone_from(0, membership.until(after));
        }
        let now = self.config.clock.now();
        let done = match self.answer_gets(&lease, now) {
            Some(effects) => Ok(Batch { handled: lease.len(), effects, is_whole: false }),
            None => self.work(&lease, now),
        };
        // Replaced: the successor has the messages already, and nothing was written.
        let Ok(Batch { effects, handled, .. }) = done else { return };
        self.last_batch.took(handled);
        if !effects.is_empty() {
            room.send(Meta::new("twin"), CommunicationMessage::Effects(effects));
        }
        match next_ticket(&lease, handled) {
            None => lease.done(),
            Some(after) => lease.postpone_from(handled, membership.until(after)),
        }
    }

    /// Writes what the messages change; what they worked on is at hand afterwards if all of it is committed.
    fn work(&mut self, lease: &Lease<TwinMessage>, now: Timestamp) -> Result<Batch<Caused>, StoreError> {
        let (shelf, peers) = (&mut self.shelf, &self.peers);
        let mut worked_on = None;
        let done = self.store.write_batch(
            lease,
            |tx, part, effects| {
                let mut twins = WorkingSet::over(shelf, tx.devices_revisions().0);
                let handled = apply(tx, part, effects, &mut twins, peers, now)?;
                worked_on = Some((tx.devices_revisions().1, twins.into_twins()));
                Ok(handled)
            },
            |meta, message, error| give_up(message, error, now).map(|effect| effect.caused(meta.id)),
        );
        if let (Ok(Batch { is_whole: true, .. }), Some((revision, twins))) = (&done, worked_on) {
            self.shelf.put(revision, twins);
        }
        done
    }

    /// Answers a batch that only asks, without the write connection. `None` when it does more, has
    /// to wait, or asks for an unknown device.
    fn answer_gets(&mut self, lease: &Lease<TwinMessage>, now: Timestamp) -> Option<Vec<Caused>> {
        let gets: Option<Vec<_>> = lease
            .iter()
            .map(|(meta, message)| match message {
                TwinMessage::Get { device, event_id } if self.peers.membership.reached(meta.after) => Some((meta, device, event_id)),
                TwinMessage::Get { .. } | TwinMessage::Report { .. } | TwinMessage::Update { .. } | TwinMessage::CloudSync { .. } => None,
            })
            .collect();
        let gets = gets?;
        let births = &self.peers.births;
        let answer = |(meta, device, event_id): (&Meta, &DeviceId, &String), working: Option<&Working>| {
            let known = working.filter(|working| !births.is_earlier(meta.after, working.incarnation))?;
            Some(get_result(device, event_id, now, &known.twin).caused(meta.id))
        };
        let revision = self.store.devices_revision();
        self.shelf.turn_to(revision);
        if gets.iter().all(|(_, device, _)| self.shelf.get(device).is_some()) {
            return gets.into_iter().map(|get| answer(get, self.shelf.get(get.1))).collect();
        }
        let shelf = &mut self.shelf;
        let read = self.store.read(|read| {
            let mut twins = WorkingSet::over(shelf, revision);
            let mut effects = Some(Vec::with_capacity(gets.len()));
            for get in gets {
                let working = twins.get(read, get.1)?;
                effects = effects.zip(answer(get, working.as_deref())).map(|(mut effects, effect)| {
                    effects.push(effect);
                    effects
                });
            }
            let read = twins.into_twins();
            shelf.put(revision, read);
            Ok(effects)
        });
        // An error is met again, and answered, by the way that knows how to give up.
        read.ok().flatten()
    }
}

fn apply(
    tx: &mut Tx<'_>,
    part: &[(&Meta, &TwinMessage)],
    effects: &mut Vec<Caused>,
    twins: &mut WorkingSet<'_>,
    peers: &Peers,
    now: Timestamp,
) -> Result<usize, StoreError> {
    let mut handled = 0;
    let mut bytes = 0;
    let mut of_message = Vec::new();
    for (meta, message) in part {
        // Membership commits before its ticket is reached, and nobody commits while this transaction is open.
        if !peers.membership.reached(meta.after) {
            break;
        }
        // One that arrived before the device was bound was for a device of that name that is gone.
        let known = twins.get(tx, message.device())?.filter(|working| !peers.births.is_earlier(meta.after, working.incarnation));
        let Some(working) = known else {
            effects.extend(unknown_device(message, now).into_iter().map(|effect| effect.caused(meta.id)));
            handled += 1;
            continue;
        };
        match message {
            TwinMessage::Get { device, event_id } => of_message.push(get_result(device, event_id, now, &working.twin)),
            TwinMessage::Report { names, .. } => working.report_again(names, meta.id),
            TwinMessage::Update { device, request: TwinUpdate { event_id, change, .. } } => {
                let topic = Topic::TwinUpdateResult(device.clone());
                match working.merge(change, Origin::Device, now, meta.id) {
                    Ok(outcome) => {
                        let payload = answer::twin_update_result(event_id, now, &outcome);
                        of_message.push(Effect::Publish { topic, payload });
                        tell_change(&mut of_message, device, event_id, now, &outcome, &working.twin);
                    }
                    Err(error) => {
                        let payload = answer::error_result(event_id, now, &Fault::Twin(error));
                        of_message.push(Effect::Publish { topic, payload });
                    }
                }
            }
            TwinMessage::CloudSync { device, request: TwinUpdate { uid, .. }, frame } if is_of_another(tx, device, uid)? => {
                of_message.push(refuse(device, frame, "the device was created again since"));
            }
            TwinMessage::CloudSync { device, request: TwinUpdate { event_id, change, .. }, frame } => {
                match working.merge(change, Origin::Cloud, now, meta.id) {
                    Ok(outcome) => {
                        for refusal in &outcome.refusals {
                            log::info!(device:% = device, property:% = refusal.name, reason:% = refusal.reason; "cloud change not taken");
                        }
                        tell_change(&mut of_message, device, event_id, now, &outcome, &working.twin);
                        of_message.push(acknowledge(device, frame));
                    }
                    // The merge refuses single properties of the cloud; a message as a whole never.
                    Err(error) => of_message.push(refuse(device, frame, &error.to_string())),
                }
            }
        }
        handled += 1;
        bytes += of_message.iter().map(Effect::bytes).sum::<usize>();
        effects.extend(of_message.drain(..).map(|effect| effect.caused(meta.id)));
        if bytes > EFFECTS_BYTES_MAX {
            break;
        }
    }
    if twins.write(tx, now)?
        && let Some((meta, _)) = part[..handled].last()
    {
        effects.push(Effect::ReportsPending.caused(meta.id));
    }
    Ok(handled)
}

impl TwinMessage {
    pub(super) fn device(&self) -> &DeviceId {
        match self {
            Self::Update { device, .. } | Self::Get { device, .. } | Self::Report { device, .. } | Self::CloudSync { device, .. } => device,
        }
    }
}

/// Whether the cloud means another creation of the device than the one that is here: its frame was on the way for long.
fn is_of_another(read: &mut Read<'_>, id: &DeviceId, uid: &str) -> Result<bool, StoreError> {
    if uid.is_empty() {
        return Ok(false);
    }
    Ok(device::row(read, id)?.is_some_and(|row| is_another(&row.uid, uid)))
}

fn get_result(device: &DeviceId, event_id: &str, now: Timestamp, twin: &model::Twin) -> Effect {
    Effect::Publish { topic: Topic::TwinGetResult(device.clone()), payload: answer::twin_get_result(event_id, now, twin) }
}

/// The answers of KubeEdge for a device that is not a member: 404, after a sync from the cloud too.
fn unknown_device(message: &TwinMessage, now: Timestamp) -> Vec<Effect> {
    let mut effects = vec![error(message, &unknown(message), now)];
    if let TwinMessage::CloudSync { device, frame, .. } = message {
        effects.push(refuse(device, frame, "the device is not a member of this node"));
    }
    effects
}

fn unknown(message: &TwinMessage) -> Fault {
    match message {
        TwinMessage::Get { device, .. } => Fault::GetOfUnknownDevice { device: device.clone() },
        TwinMessage::Update { .. } | TwinMessage::Report { .. } | TwinMessage::CloudSync { .. } => Fault::UpdateOfUnknownDevice,
    }
}

/// After a failed transaction: a device hears 500; the cloud hears nothing and sends again.
fn give_up(message: &TwinMessage, failed: &StoreError, now: Timestamp) -> Option<Effect> {
    match message {
        TwinMessage::Update { .. } | TwinMessage::Report { .. } => Some(error(message, &Fault::Internal(failed.to_string()), now)),
        TwinMessage::Get { .. } => Some(error(message, &Fault::Internal(format!("Build state while deal get twin err: {failed}")), now)),
        TwinMessage::CloudSync { .. } => None,
    }
}

fn error(message: &TwinMessage, fault: &Fault, now: Timestamp) -> Effect {
    let (topic, event_id) = match message {
        TwinMessage::Get { device, event_id } => (Topic::TwinGetResult(device.clone()), event_id),
        TwinMessage::Report { device, event_id, .. } => (Topic::TwinUpdateResult(device.clone()), event_id),
        TwinMessage::Update { device, request } | TwinMessage::CloudSync { device, request, .. } => {
            (Topic::TwinUpdateResult(device.clone()), &request.event_id)
        }
    };
    Effect::Publish { topic, payload: answer::error_result(event_id, now, fault) }
}

fn acknowledge(device: &DeviceId, frame: &MsgId) -> Effect {
    Effect::Acknowledge { frame: frame.clone(), resource: Resource::TwinCloudUpdated(device.clone()) }
}

fn refuse(device: &DeviceId, frame: &MsgId, reason: &str) -> Effect {
    Effect::Refuse { frame: frame.clone(), resource: Resource::TwinCloudUpdated(device.clone()), reason: reason.to_owned() }
}
