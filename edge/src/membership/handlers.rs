//! What Membership does with each message.

use std::time::Duration;

use actix::{Actor, AsyncContext as _, Context, Handler};
use actor::{Lease, Meta, NoRoom};
use model::Timestamp;
use model::membership::{plan_detail, plan_update};
use wire::hub::Resource;
use wire::mqtt::Topic;
use wire::mqtt::payload::{Fault, answer};

use super::state::{Membership, Occasion, carry_out};
use super::{Births, Config, MembershipMessage};
use crate::communication::{Caused, CommunicationMessage, EFFECTS_BYTES_MAX, Effect};
use crate::store::{Batch, StoreError, Tx, device};

/// How often the page's figures of the store are brought up to date.
const COUNT_EVERY: Duration = Duration::from_secs(2);

impl Actor for Membership {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.count();
        // Here, because Membership is idle most of the time: Twin and Device do not wait for a count.
        ctx.run_interval(COUNT_EVERY, |membership, _| membership.count());
    }
}

impl Handler<Lease<MembershipMessage>> for Membership {
    type Result = ();

    fn handle(&mut self, lease: Lease<MembershipMessage>, _: &mut Self::Context) {
        self.settle(lease);
    }
}

impl Membership {
    pub(super) fn count(&self) {
        if let Err(error) = self.store.recount() {
            log::debug!(error:% = error; "what the store holds could not be counted");
        }
        self.forget_gone();
    }

    /// Keeps the births of those that are there. In this actor, so that nobody is bound meanwhile.
    fn forget_gone(&self) {
        let births = &self.peers.births;
        if births.len() as u64 <= self.store.counts().devices {
            return;
        }
        if let Ok((newest, present)) = self.store.read(device::incarnations) {
            births.forget_gone(newest, &present);
        }
    }

    pub(super) fn settle(&mut self, lease: Lease<MembershipMessage>) {
        let communication = &self.peers.communication;
        let room = match communication.try_reserve() {
            Ok(room) => room,
            Err(NoRoom::Full) => return lease.postpone_from(0, communication.room()),
            // Communication ends after this actor: only an abort in between leads here, and then nobody is left to tell.
            Err(NoRoom::Closed) => return lease.done(),
        };
        let now = self.config.clock.now();
        let done = self.store.write_batch(
            &lease,
            |tx, part, effects| apply(tx, part, effects, &self.config, &self.peers.births, now),
            |meta, message, error| give_up(message, error, &self.config, now).map(|effect| effect.caused(meta.id)),
        );
        // Replaced: the successor has the messages already, and nothing was written.
        let Ok(Batch { effects, handled, .. }) = done else { return };
        self.last_batch.took(handled);
        if !effects.is_empty() {
            room.send(Meta::new("membership"), CommunicationMessage::Effects(effects));
        }
        if handled == lease.len() {
            lease.done();
        } else {
            lease.postpone_from(handled, std::future::ready(()));
        }
    }
}

fn apply(
    tx: &mut Tx<'_>,
    part: &[(&Meta, &MembershipMessage)],
    effects: &mut Vec<Caused>,
    config: &Config,
    births: &Births,
    now: Timestamp,
) -> Result<usize, StoreError> {
    let mut bytes = 0;
    for (index, (meta, message)) in part.iter().enumerate() {
        let (by, mut of_message) = (meta.id, Vec::new());
        let on = || Occasion { births, place: meta.place, by, now, updated: Topic::MembershipUpdated(config.node.clone()) };
        match message {
            MembershipMessage::Get { event_id } => {
                let devices = device::all(tx)?;
                let payload = answer::membership_get_result(event_id, now, &devices);
                of_message.push(Effect::Publish { topic: Topic::MembershipGetResult(config.node.clone()), payload });
            }
            MembershipMessage::Detail { detail, frame } => {
                log_skipped(&detail.skipped);
                let known = device::known(tx)?;
                carry_out(tx, plan_detail(&known, &detail.devices), &on(), &mut of_message)?;
                of_message.push(Effect::Acknowledge { frame: frame.clone(), resource: Resource::MembershipDetail });
                of_message.push(Effect::MembershipReceived);
            }
            MembershipMessage::Update { update, frame } => {
                log_skipped(&update.skipped);
                let known = device::known(tx)?;
                carry_out(tx, plan_update(&known, &update.added, &update.removed), &on(), &mut of_message)?;
                of_message.push(Effect::Acknowledge { frame: frame.clone(), resource: Resource::Membership });
            }
        }
        bytes += of_message.iter().map(Effect::bytes).sum::<usize>();
        effects.extend(of_message.into_iter().map(|effect| effect.caused(by)));
        if bytes > EFFECTS_BYTES_MAX {
            return Ok(index + 1);
        }
    }
    Ok(part.len())
}

fn log_skipped(skipped: &[String]) {
    if !skipped.is_empty() {
        let entries = skipped.join("; ");
        log::warn!(count = skipped.len(), entries = entries.as_str(); "entries of a device list not taken");
    }
}

/// After a failed transaction: a mapper hears 500; the cloud hears nothing and sends again.
fn give_up(message: &MembershipMessage, error: &StoreError, config: &Config, now: Timestamp) -> Option<Effect> {
    match message {
        MembershipMessage::Get { event_id } => Some(Effect::Publish {
            topic: Topic::MembershipGetResult(config.node.clone()),
            payload: answer::error_result(event_id, now, &Fault::Internal(error.to_string())),
        }),
        MembershipMessage::Detail { .. } | MembershipMessage::Update { .. } => None,
    }
}
