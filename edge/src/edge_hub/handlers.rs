//! What EdgeHub does with each message.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix::{Actor, AsyncContext, Context, Handler};
use actor::{Handle, Lease, Mail, Meta, NoRoom, Reply, SendError, chain};
use bytes::Bytes;
use log::{debug, warn};
use tokio::time::Instant;
use wire::hub::{DecodeError, Downstream, Envelope, Frame, MsgId, Operation, Resource, Upstream, codec};
use wire::mqtt::Topic;

use super::socket::OfferError;
use super::state::{EdgeHub, count};
use super::{Answer, EdgeHubMessage, REQUESTS_MAX, ROOM_WITHIN, RequestError};
use crate::communication::CommunicationMessage;
use crate::device::DeviceMessage;
use crate::edged::EdgedMessage;
use crate::event_bus::{EventBusMessage, PAYLOAD_BYTES_MAX};
use crate::membership::MembershipMessage;
use crate::meta_manager::{MetaManagerMessage, Session};
use crate::twin::TwinMessage;

/// How often overdue questions are looked for.
const LOOK_EVERY: Duration = Duration::from_millis(250);

type Room = Pin<Box<dyn Future<Output = ()>>>;

/// How one message ended.
enum Step {
    Done,
    /// Nothing was done: a mailbox is full.
    Wait(Room),
}

impl Actor for EdgeHub {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(LOOK_EVERY, |hub, _| {
            if hub.requests.len() > 0 {
                // A full mailbox is asked again at the next tick.
                let _ = hub.peers.own.try_post(Meta::new("edgehub"), EdgeHubMessage::RequestsDue);
            }
        });
    }
}

impl Handler<Lease<EdgeHubMessage>> for EdgeHub {
    type Result = ();

    fn handle(&mut self, lease: Lease<EdgeHubMessage>, _: &mut Self::Context) {
        self.settle(lease);
    }
}

impl EdgeHub {
    pub(super) fn settle(&mut self, lease: Lease<EdgeHubMessage>) {
        let mut handled = 0;
        let mut wait = None;
        for (meta, message) in lease.iter() {
            let late = self.is_late(meta.id);
            match self.take(meta, message, late) {
                Step::Done => self.waiting = None,
                Step::Wait(room) => {
                    self.waiting.get_or_insert((meta.id, Instant::now()));
                    wait = Some(room);
                    break;
                }
            }
            handled += 1;
        }
        self.shared.unanswered.store(self.requests.len() as u64, Ordering::Relaxed);
        match wait {
            None => lease.done(),
            Some(room) => lease.postpone_from(handled, async move {
                let _ = tokio::time::timeout(ROOM_WITHIN, room).await;
            }),
        }
    }

    /// Whether this message has waited for room long enough.
    fn is_late(&mut self, id: actor::MsgId) -> bool {
        match self.waiting {
            Some((waiting, since)) if waiting == id => since.elapsed() >= ROOM_WITHIN,
            _ => {
                self.waiting = None;
                false
            }
        }
    }

    fn take(&mut self, meta: &Meta, message: &EdgeHubMessage, late: bool) -> Step {
        match message {
            EdgeHubMessage::Send(frame) => {
                let _ = self.send(frame);
                Step::Done
            }
            EdgeHubMessage::SendIn { session, frame } => {
                if self.socket.living_session() == Some(*session) {
                    let _ = self.send(frame);
                } else {
                    self.shared.away.fetch_add(1, Ordering::Relaxed);
                }
                Step::Done
            }
            EdgeHubMessage::Request { frame, within, reply } => {
                self.request(frame, *within, reply);
                Step::Done
            }
            EdgeHubMessage::Connected { session, capabilities } => {
                self.notify(meta, Some(Session { number: *session, capabilities: *capabilities }), late)
            }
            EdgeHubMessage::Disconnected { session, .. } => {
                self.requests.fail_session(*session);
                self.notify(meta, None, late)
            }
            EdgeHubMessage::Received { session, text } => self.received(meta, *session, text, late),
            EdgeHubMessage::RequestsDue => {
                self.requests.expire(Instant::now());
                Step::Done
            }
        }
    }

    /// Gives a frame to the socket and returns the session that it goes out in.
    fn send(&self, frame: &Frame<Upstream>) -> Result<u64, RequestError> {
        let kind = frame.body.kind();
        let text = codec::encode(frame).map_err(|error| self.too_large(kind, error.bytes))?;
        self.offer(kind, text)
    }

    fn offer(&self, kind: &'static str, text: String) -> Result<u64, RequestError> {
        match self.socket.offer(text) {
            Ok(session) => {
                self.shared.sent.fetch_add(1, Ordering::Relaxed);
                Ok(session)
            }
            Err(OfferError::Disconnected) => {
                self.shared.away.fetch_add(1, Ordering::Relaxed);
                debug!(kind; "a frame was dropped: the cloud is away");
                Err(RequestError::Disconnected)
            }
            Err(OfferError::Full) => {
                if count(&self.shared.full) {
                    warn!(kind; "a frame was dropped: the cloud does not take what waits");
                }
                Err(RequestError::Busy)
            }
            Err(OfferError::TooLarge { bytes }) => Err(self.too_large(kind, bytes)),
        }
    }

    fn too_large(&self, kind: &'static str, bytes: usize) -> RequestError {
        if count(&self.shared.too_large) {
            warn!(kind, bytes; "a frame was dropped: it is larger than the cloud takes");
        }
        RequestError::TooLarge { bytes }
    }

    fn request(&mut self, frame: &Frame<Upstream>, within: Duration, reply: &Reply<Answer>) {
        if !reply.is_wanted() {
            return;
        }
        let sent = if self.requests.len() < REQUESTS_MAX { self.send(frame) } else { Err(RequestError::Busy) };
        match sent {
            Ok(session) => self.requests.add(frame.id.clone(), session, Instant::now(), within, reply.take()),
            Err(error) => {
                reply.send(Err(error));
            }
        }
    }

    /// Tells everybody whether the cloud is there, and what it can. All or nobody, unless it is `late`: then whoever has room.
    fn notify(&self, meta: &Meta, cloud: Option<Session>, late: bool) -> Step {
        let (peers, connected) = (&self.peers, cloud.is_some());
        let (communication, meta_manager) = (peers.communication.try_reserve(), peers.meta_manager.try_reserve());
        let edged = peers.edged.as_ref().map(|edged| (edged, edged.try_reserve()));
        if !late {
            // For one that is stopping there is nothing to wait for.
            if let Err(NoRoom::Full) = communication {
                return Step::Wait(Box::pin(peers.communication.room()));
            }
            if let Err(NoRoom::Full) = meta_manager {
                return Step::Wait(Box::pin(peers.meta_manager.room()));
            }
            if let Some((edged, Err(NoRoom::Full))) = edged {
                return Step::Wait(Box::pin(edged.room()));
            }
        }
        let meta = || Meta::child_of(meta, "edgehub");
        match communication {
            Ok(room) if connected => drop(room.send(meta(), CommunicationMessage::CloudConnected)),
            Ok(room) => drop(room.send(meta(), CommunicationMessage::CloudDisconnected)),
            Err(_) => self.no_room(peers.communication.name()),
        }
        match meta_manager {
            Ok(room) => drop(room.send(meta(), MetaManagerMessage::NodeConnection { cloud })),
            Err(_) => self.no_room(peers.meta_manager.name()),
        }
        match edged {
            Some((_, Ok(room))) if connected => drop(room.send(meta(), EdgedMessage::CloudConnected)),
            Some((_, Ok(room))) => drop(room.send(meta(), EdgedMessage::CloudDisconnected)),
            Some((edged, Err(_))) => self.no_room(edged.name()),
            None => {}
        }
        Step::Done
    }

    fn received(&mut self, meta: &Meta, session: u64, text: &str, late: bool) -> Step {
        let step = match codec::decode::<Downstream>(text) {
            Ok(frame) => self.route(meta, session, frame, late),
            Err(error) => {
                self.undecodable(&error);
                Step::Done
            }
        };
        if matches!(step, Step::Done) {
            self.shared.received.fetch_add(1, Ordering::Relaxed);
        }
        step
    }

    /// Where each message of the cloud goes.
    fn route(&mut self, meta: &Meta, session: u64, frame: Frame<Downstream>, late: bool) -> Step {
        let Frame { id, parent, resource_version, .. } = &frame;
        let (id, parent, resource_version) = (id.clone(), parent.clone(), resource_version.clone());
        if let Some(parent) = &parent
            && matches!(frame.body, Downstream::QueryAnswer { .. } | Downstream::Confirm { .. } | Downstream::Refusal { .. })
            && let Some(reply) = self.requests.take(parent)
        {
            reply.send(Ok(frame));
            return Step::Done;
        }
        let peers = &self.peers;
        // It is the same message in the module that it is for: one identity, one form to enter again in.
        let meta = || meta.clone();
        // Order across modules: what Membership has taken by now is done before this message.
        let behind = || meta().behind(peers.membership.ticket());
        match frame.body {
            Downstream::Object { operation, key, object } => {
                self.post(&peers.meta_manager, meta(), MetaManagerMessage::FromCloud { id, operation, key, resource_version, object }, late)
            }
            Downstream::QueryAnswer { key, result } => {
                self.post(&peers.meta_manager, meta(), MetaManagerMessage::LateAnswer { key, resource_version, answer: result }, late)
            }
            Downstream::HeldGet => self.post(&peers.meta_manager, meta(), MetaManagerMessage::HeldGet { id, session }, late),
            Downstream::MembershipDetail(detail) => self.post(&peers.membership, meta(), MembershipMessage::Detail { detail, frame: id }, late),
            Downstream::MembershipUpdate(update) => self.post(&peers.membership, meta(), MembershipMessage::Update { update, frame: id }, late),
            Downstream::TwinSync { device, update } => {
                self.post(&peers.twin, behind(), TwinMessage::CloudSync { device, request: update, frame: id }, late)
            }
            Downstream::Attributes { device, update } => {
                self.post(&peers.device, behind(), DeviceMessage::Attributes { device, update, frame: id }, late)
            }
            Downstream::Confirm { resource } => match parent {
                Some(parent) if is_of_objects(&resource) => self.post(&peers.meta_manager, meta(), MetaManagerMessage::Confirmed { parent }, late),
                Some(parent) => self.post(&peers.communication, meta(), CommunicationMessage::Confirmed { parent }, late),
                None => Step::Done,
            },
            Downstream::Refusal { resource, reason } => match parent {
                Some(parent) if is_of_objects(&resource) => {
                    self.post(&peers.meta_manager, meta(), MetaManagerMessage::Refused { parent, reason }, late)
                }
                Some(parent) => self.post(&peers.communication, meta(), CommunicationMessage::Refused { parent, reason }, late),
                None => Step::Done,
            },
            Downstream::Publish { ref topic, ref payload } => match publication(topic, payload) {
                Ok(message) => self.pass_to_mqtt(&meta(), message, late),
                Err(reason) => self.refuse(&frame, &reason),
            },
            Downstream::Subscribe { filter } => self.pass_to_mqtt(&meta(), EventBusMessage::Subscribe { filter }, late),
            Downstream::Unsubscribe { filter } => self.pass_to_mqtt(&meta(), EventBusMessage::Unsubscribe { filter }, late),
        }
    }

    fn pass_to_mqtt(&self, meta: &Meta, message: EventBusMessage, late: bool) -> Step {
        match &self.peers.event_bus {
            Some(event_bus) => self.post(event_bus, meta.clone(), message, late),
            None => Step::Done,
        }
    }

    fn post<M: Mail>(&self, handle: &Handle<M>, meta: Meta, message: M, late: bool) -> Step {
        match handle.try_post(meta, message) {
            Ok(_) => {}
            Err(SendError::Full(_)) if !late => return Step::Wait(Box::pin(handle.room())),
            Err(SendError::Full(_)) => self.no_room(handle.name()),
            // The daemon stops; the cloud sends again what was not acknowledged.
            Err(SendError::Closed(_)) => {}
        }
        Step::Done
    }

    fn no_room(&self, module: &'static str) {
        if count(&self.shared.no_room) {
            warn!(module; "a message of the cloud was dropped: the module's mailbox stays full");
        }
    }

    fn refuse(&self, frame: &Frame<Downstream>, reason: &str) -> Step {
        warn!(kind = frame.body.kind(), id:% = frame.id, reason; "a message of the cloud was refused");
        let _ = self.send(&frame.refusal(MsgId::random(), self.clock.now(), reason));
        Step::Done
    }

    fn undecodable(&mut self, error: &DecodeError) {
        match error {
            DecodeError::Body { envelope, source } => {
                if count(&self.shared.unknown) {
                    warn!(error:% = chain(source); "a message of the cloud is none that this version knows");
                }
                self.answer_unknown(envelope, &chain(source));
            }
            DecodeError::TooLarge { .. } | DecodeError::TooDeep | DecodeError::Envelope(_) => {
                if count(&self.shared.unreadable) {
                    warn!(error:% = chain(error); "a frame of the cloud is no message");
                }
            }
        }
    }

    /// Answers what has an id. An answer is not answered: two peers of different versions would never end.
    fn answer_unknown(&mut self, envelope: &Envelope, reason: &str) {
        if matches!(envelope.route.operation, Operation::Response | Operation::Error) {
            // Whoever waits for it learns at once that there is nothing to wait for.
            let waiting = MsgId::new(&envelope.header.parent_msg_id).ok().and_then(|parent| self.requests.take(&parent));
            if let Some(reply) = waiting {
                reply.send(Err(RequestError::Unreadable(reason.to_owned())));
            }
        } else if !envelope.header.msg_id.is_empty() {
            let error = envelope.error(&MsgId::random(), self.clock.now(), reason);
            if let Ok(text) = codec::encode_envelope(&error) {
                let _ = self.offer("error", text);
            }
        }
    }
}

/// Who hears a confirmation: MetaManager for what is about objects, Communication for what is about devices.
fn is_of_objects(resource: &Resource) -> bool {
    match resource {
        Resource::Object(_) => true,
        Resource::Keepalive
        | Resource::Held
        | Resource::MembershipDetail
        | Resource::Membership
        | Resource::TwinCloudUpdated(_)
        | Resource::TwinEdgeUpdated(_)
        | Resource::DeviceState(_)
        | Resource::Device(_)
        | Resource::Twin
        | Resource::Topic(_)
        | Resource::Other(_) => false,
    }
}

fn publication(topic: &str, payload: &str) -> Result<EventBusMessage, String> {
    if payload.len() > PAYLOAD_BYTES_MAX {
        return Err(format!("the payload has {} bytes, at most {PAYLOAD_BYTES_MAX} can be published", payload.len()));
    }
    let topic = Topic::parse(topic).map_err(|error| error.to_string())?;
    Ok(EventBusMessage::Publish { topic, payload: Bytes::copy_from_slice(payload.as_bytes()) })
}
