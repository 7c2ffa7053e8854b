//! What Communication does with each message.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, WrapFuture};
use actor::{Lease, Meta, MsgId, SendError, Work};
use wire::hub::{self, Frame, Upstream};

use super::state::{Communication, Upload, millis};
use super::{Caused, CommunicationMessage, Effect, Figures};
use crate::edge_hub::EdgeHubMessage;
use crate::event_bus::EventBusMessage;
use crate::ids;
use crate::store::pending_report::{self, Seq};
use crate::twin::fresh_event_id;

impl Actor for Communication {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // No message to itself: its mailbox may be full at each tick, and then nothing would ever be sent again.
        ctx.run_interval(self.config.resend_every, Self::resend_due);
        if self.is_connected() {
            // The incarnation before this one may have died between the request and the answer.
            self.membership_asks_left = self.config.membership_asks;
            self.ask_for_membership();
        }
        self.send_reports(ctx);
    }
}

/// What one batch comes to.
#[derive(Default)]
struct Sum {
    /// With the message from which each follows.
    publications: Vec<(MsgId, EventBusMessage)>,
    settled: Vec<Seq>,
    look_for_reports: bool,
}

impl Handler<Lease<CommunicationMessage>> for Communication {
    type Result = Work<Self>;

    fn handle(&mut self, lease: Lease<CommunicationMessage>, ctx: &mut Self::Context) -> Work<Self> {
        let mut sum = Sum::default();
        for (meta, message) in lease.iter() {
            self.take(meta, message, &mut sum);
        }
        if !sum.settled.is_empty() {
            let settled = self.store.write(&lease.fence(), |tx| pending_report::settle(tx, &sum.settled));
            if let Err(error) = settled {
                // The rows stay, and the reports are sent again: the cloud hears them twice.
                lease.fail(0, &error);
            }
        }
        if sum.look_for_reports {
            self.send_reports(ctx);
        }
        self.publish_figures();
        self.publish(sum.publications, lease)
    }
}

impl Communication {
    /// What was not confirmed for a whole period is sent again.
    fn resend_due(&mut self, ctx: &mut Context<Self>) {
        if !self.is_connected() {
            return;
        }
        let overdue = self.window.expire(self.now_ms(), millis(self.config.resend_every));
        self.shared.figures.reports_overdue.fetch_add(overdue as u64, Relaxed);
        if self.membership_asks_left > 0 {
            self.ask_for_membership();
        }
        self.flush_uploads();
        self.send_reports(ctx);
        self.publish_figures();
    }

    fn take(&mut self, meta: &Meta, message: &CommunicationMessage, sum: &mut Sum) {
        match message {
            CommunicationMessage::Effects(effects) => {
                for Caused { by, effect } in effects {
                    self.carry_out(*by, effect, sum);
                }
            }
            CommunicationMessage::CloudConnected => {
                self.shared.connected.store(true, Relaxed);
                self.window.clear();
                self.membership_asks_left = self.config.membership_asks;
                self.ask_for_membership();
                self.flush_uploads();
                sum.look_for_reports = true;
            }
            CommunicationMessage::CloudDisconnected => {
                self.shared.connected.store(false, Relaxed);
                self.window.clear();
            }
            CommunicationMessage::Confirmed { parent } => {
                if let Some((_, seqs)) = self.window.answered(parent) {
                    self.shared.figures.reports_confirmed.fetch_add(1, Relaxed);
                    sum.settled.extend(seqs);
                    sum.look_for_reports = true;
                }
            }
            CommunicationMessage::Refused { parent, reason } => match self.window.answered(parent) {
                Some((device, seqs)) => {
                    self.shared.figures.reports_refused.fetch_add(1, Relaxed);
                    log::warn!(device:% = device, reason = reason.as_str(); "the cloud refused a report, it is dropped");
                    sum.settled.extend(seqs);
                    sum.look_for_reports = true;
                }
                None => log::warn!(frame:% = parent, reason = reason.as_str(); "the cloud refused a message"),
            },
            CommunicationMessage::Upload { topic, payload } => {
                let dropped = self.uploads.push(Upload { by: meta.id, topic: topic.clone(), payload: payload.clone() });
                self.shared.figures.uploads_dropped.fetch_add(dropped, Relaxed);
                self.flush_uploads();
            }
        }
    }

    fn carry_out(&mut self, by: MsgId, effect: &Effect, sum: &mut Sum) {
        match effect {
            Effect::Publish { topic, payload } => {
                sum.publications.push((by, EventBusMessage::Publish { topic: topic.clone(), payload: payload.clone() }));
            }
            Effect::ReportsPending => sum.look_for_reports = true,
            Effect::Acknowledge { frame, resource } => {
                self.answer_cloud(frame, Upstream::Ack { resource: resource.clone() });
            }
            Effect::Refuse { frame, resource, reason } => {
                self.answer_cloud(frame, Upstream::Refusal { resource: resource.clone(), reason: reason.clone() });
            }
            Effect::MembershipReceived => self.membership_asks_left = 0,
        }
    }

    /// An answer that does not get through is no loss: the cloud sends what is not answered again.
    fn answer_cloud(&self, to: &hub::MsgId, body: Upstream) {
        let frame = Frame::answer(hub::MsgId::random(), to.clone(), self.config.clock.now(), body);
        if self.send(frame).is_err() {
            log::debug!(frame:% = to; "no room for an answer to the cloud");
        }
    }

    /// Gives a frame to EdgeHub; the message that carries it has its identity.
    #[expect(clippy::result_large_err, reason = "a frame that finds no room is given back")]
    pub(super) fn send(&self, frame: Frame<Upstream>) -> Result<(), SendError<EdgeHubMessage>> {
        let meta = ids::meta_of(&frame, "communication");
        self.peers.edge_hub.try_post(meta, EdgeHubMessage::Send(frame)).map(drop)
    }

    fn ask_for_membership(&mut self) {
        self.membership_asks_left = self.membership_asks_left.saturating_sub(1);
        let body = Upstream::MembershipGet { event_id: fresh_event_id(), node: self.config.node.clone() };
        let frame = Frame::new(hub::MsgId::random(), self.config.clock.now(), body);
        if self.send(frame).is_err() {
            log::debug!("no room to ask for the list of devices");
        }
    }

    fn flush_uploads(&mut self) {
        while self.is_connected()
            && let Some(upload) = self.uploads.pop()
        {
            // KubeEdge's content is text, too; bytes that are none are replaced.
            let body = Upstream::Upload { topic: upload.topic.clone(), payload: String::from_utf8_lossy(&upload.payload).into_owned() };
            let frame = Frame::new(hub::MsgId::random(), self.config.clock.now(), body).with_cause([ids::on_wire(upload.by)]);
            match self.send(frame) {
                Ok(()) => {}
                Err(SendError::Full(_) | SendError::Closed(_)) => return self.uploads.put_back(upload),
            }
        }
    }

    /// Gives the publications to EventBus in order and settles the lease when the last is there.
    fn publish(&self, publications: Vec<(MsgId, EventBusMessage)>, lease: Lease<CommunicationMessage>) -> Work<Self> {
        let meta = |by| Meta::caused_by(Some(by), "communication");
        let mut left = publications.into_iter();
        let first = loop {
            let Some((by, publication)) = left.next() else {
                lease.done();
                return Work::done();
            };
            match self.peers.event_bus.try_post(meta(by), publication) {
                Ok(_) => {}
                Err(SendError::Full(publication) | SendError::Closed(publication)) => break (by, publication),
            }
        };
        let (bus, config, figures) = (self.peers.event_bus.clone(), self.config.clone(), self.shared.figures.clone());
        let waiting = async move {
            let all = async {
                for (by, publication) in std::iter::once(first).chain(&mut left) {
                    if bus.post(meta(by), publication).await.is_err() {
                        break;
                    }
                }
            };
            let in_time = tokio::time::timeout(config.publish_within, all).await.is_ok();
            note_dropped(&figures, if in_time { 0 } else { 1 + left.len() as u64 });
            lease.done();
        };
        Work::new(waiting.into_actor(self).map(|(), _, _| ()))
    }
}

fn note_dropped(figures: &Arc<Figures>, count: u64) {
    if count > 0 {
        figures.publications_dropped.fetch_add(count, Relaxed);
        log::warn!(count = count; "no room at EventBus in time, publications dropped");
    }
}
