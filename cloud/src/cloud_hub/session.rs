//! One WebSocket session, on a worker of the server: reads frames into the controllers' mailboxes, writes what the node's
//! desk has while the socket takes it.

use std::net::TcpStream;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use actix::fut::{ActorFuture, WrapFuture as _};
use actix::{Actor, ActorContext as _, ActorFutureExt as _, AsyncContext as _, StreamHandler};
use actix_http::ws::{Item, ProtocolError};
use actix_web_actors::ws::{Message, WebsocketContext};
use actor::{Handle, Mail, Meta, SendError, chain};
use bytes::{Bytes, BytesMut};
use model::{NodeName, Timestamp};
use wire::hub::codec::{self, FRAME_BYTES_MAX};
use wire::hub::{DecodeError, Frame, MsgId, Operation, Upstream};
use wire::link::{Answer, Capabilities, Heard};

use super::Hub;
use super::credit::{Budget, Credit};
use super::entry::{self, Recipient};
use super::link::Link;
use super::message::CloudHubMessage;
use super::nodes::{Node, TooMany};
use super::state::{End, GARBAGE_MAX};
use crate::device_controller::DeviceControllerMessage;
use crate::edge_controller::upstream::UpstreamMessage;

/// What a session hands out before it lets the socket take it, bytes; one frame may be larger.
const BURST_BYTES: usize = 64 * 1024;

/// The session actor. When it is dropped, however that comes about, its node is told from.
pub struct Session {
    hub: Arc<Hub>,
    node: Arc<Node>,
    link: Arc<Link>,
    fragments: Option<BytesMut>,
    garbage: u32,
    budget: Budget,
    /// What this session had to be told off for, so that the log has the 1st, 10th, 100th … of it only.
    faults: u64,
}

impl Session {
    /// Makes a session the live one of its node.
    ///
    /// `capabilities` are what both sides can.
    pub fn begin(hub: Arc<Hub>, name: &NodeName, socket: Option<Arc<TcpStream>>, capabilities: Capabilities) -> Result<Self, TooMany> {
        let (node, link) = hub.nodes.attach(name, socket, hub.tuning().node_limit, capabilities)?;
        let began = CloudHubMessage::Connected { node: name.clone(), session: link.session };
        // Full: the next sweep finds it.
        let _ = hub.peers.cloud_hub.try_send(began);
        Ok(Self { hub, node, link, fragments: None, garbage: 0, budget: Budget::default(), faults: 0 })
    }

    pub fn link(&self) -> Arc<Link> {
        self.link.clone()
    }

    fn end(&mut self, end: End, ctx: &mut WebsocketContext<Self>) {
        self.link.cut(end);
        // The first reason counts.
        if let Some(reason) = self.link.end().and_then(End::close_reason) {
            ctx.close(Some(reason));
        }
        ctx.stop();
    }

    /// Hands out what the node's desk has, up to [`BURST_BYTES`].
    fn pull(&self, ctx: &mut WebsocketContext<Self>) {
        let mut bytes = 0;
        while bytes < BURST_BYTES {
            let Some(next) = self.node.next(self.link.session, self.hub.nodes.now_ms()) else { return };
            let (text, id) = match next {
                Answer::Frame(frame) => (codec::encode(&frame), Some(frame.id)),
                Answer::Envelope(envelope) => (codec::encode_envelope(&envelope), None),
            };
            match text {
                Ok(text) => {
                    log::debug!(id = id.as_ref().map(MsgId::as_str), node:% = self.link.node, bytes = text.len(); "frame handed to the socket");
                    bytes += text.len();
                    self.hub.nodes.counters.frames_out.fetch_add(1, Ordering::Relaxed);
                    ctx.text(text);
                }
                Err(error) => {
                    // Nobody could take it: park it, as if the node had refused it.
                    let reason = error.to_string();
                    log::error!(node:% = self.link.node, reason = reason.as_str(); "message not sent");
                    if let Some(id) = id {
                        self.node.unsendable(&id, &reason);
                    }
                }
            }
        }
    }

    fn text(&mut self, text: &str, bytes: Bytes, ctx: &mut WebsocketContext<Self>) {
        let counters = &self.hub.nodes.counters;
        counters.frames_in.fetch_add(1, Ordering::Relaxed);
        match codec::decode::<Upstream>(text) {
            Ok(frame) => {
                self.garbage = 0;
                self.route(frame, bytes, ctx);
            }
            Err(error) => {
                counters.garbage.fetch_add(1, Ordering::Relaxed);
                self.garbage += 1;
                let reason = shown(&chain(&error));
                if self.is_worth_a_line() {
                    log::warn!(node:% = self.link.node, reason = reason.as_str(), faults = self.faults; "frame refused");
                }
                if let DecodeError::Body { envelope, .. } = &error
                    && !envelope.header.msg_id.is_empty()
                    && !matches!(envelope.route.operation, Operation::Response | Operation::Error)
                {
                    self.reply(Answer::Envelope(envelope.error(&MsgId::random(), now(), &reason)));
                }
                if self.garbage >= GARBAGE_MAX {
                    self.end(End::Garbage, ctx);
                }
            }
        }
    }

    /// What each kind of frame means.
    fn route(&mut self, frame: Frame<Upstream>, bytes: Bytes, ctx: &mut WebsocketContext<Self>) {
        let peers = self.hub.peers.clone();
        let node = self.link.node.clone();
        let of_controller = match entry::recipient(&node, &frame.body) {
            Ok(recipient) => recipient,
            Err(reason) => {
                if self.is_worth_a_line() {
                    log::warn!(node:% = node, kind = frame.body.kind(), reason = reason.as_str(), faults = self.faults; "node speaks of another node");
                }
                return self.reply(Answer::Frame(frame.refusal(MsgId::random(), now(), reason)));
            }
        };
        match of_controller {
            Recipient::Upstream => {
                let meta = entry::meta_of(&node, &frame, bytes);
                self.deliver(&peers.upstream, meta, frame, move |frame, credit| UpstreamMessage::FromEdge { node, frame, credit }, ctx);
            }
            Recipient::Devices => {
                let meta = entry::meta_of(&node, &frame, bytes);
                self.deliver(&peers.devices, meta, frame, move |frame, credit| DeviceControllerMessage::FromEdge { node, frame, credit }, ctx);
            }
            Recipient::CloudHub => self.take(&node, &frame),
        }
    }

    /// What is for CloudHub itself.
    fn take(&mut self, node: &NodeName, frame: &Frame<Upstream>) {
        let counters = &self.hub.nodes.counters;
        match self.node.heard(self.link.session, frame, self.hub.nodes.now_ms()) {
            Heard::Acknowledged(_) => {
                counters.acknowledged.fetch_add(1, Ordering::Relaxed);
                // The window has room again.
                self.link.wake();
            }
            Heard::Refused(key) => {
                counters.refusals.fetch_add(1, Ordering::Relaxed);
                let reason = match &frame.body {
                    Upstream::Refusal { reason, .. } => shown(reason),
                    _ => String::new(),
                };
                log::warn!(node:% = node, key:? = key, reason = reason.as_str(); "refused by the node, not sent again until it changes");
                self.link.wake();
            }
            Heard::Unmatched => {
                counters.unmatched.fetch_add(1, Ordering::Relaxed);
            }
            Heard::Announced => {
                counters.digests.fetch_add(1, Ordering::Relaxed);
                self.hub.nodes.note_due(node);
                // Full: the next sweep finds it.
                let _ = self.hub.peers.cloud_hub.try_send(CloudHubMessage::Announced { node: node.clone() });
            }
            Heard::Unasked => self.digest_refused(frame, "what this node holds was not asked for now: wait until the cloud asks, or connect again"),
            Heard::Bad(error) => self.digest_refused(frame, &error.to_string()),
            Heard::Partial | Heard::Stale => {}
            Heard::NotMine => {
                if let Upstream::Upload { .. } = &frame.body {
                    counters.uploads_dropped.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    fn digest_refused(&mut self, frame: &Frame<Upstream>, reason: &str) {
        self.hub.nodes.counters.digests_refused.fetch_add(1, Ordering::Relaxed);
        if self.is_worth_a_line() {
            log::warn!(node:% = self.link.node, reason, faults = self.faults; "digest of a node refused");
        }
        self.reply(Answer::Frame(frame.refusal(MsgId::random(), now(), reason)));
    }

    /// To a controller, within the session's budget. While that is used up this node is not read.
    fn deliver<M: Mail>(
        &mut self,
        to: &Handle<M>,
        meta: Meta,
        frame: Frame<Upstream>,
        message: impl FnOnce(Frame<Upstream>, Credit) -> M + 'static,
        ctx: &mut WebsocketContext<Self>,
    ) {
        if let Some(credit) = self.budget.try_take(&frame) {
            return self.post(to, meta, message(frame, credit), ctx);
        }
        self.link.waits_for_us(true);
        let to = to.clone();
        ctx.wait(self.budget.take(&frame).into_actor(self).map(move |credit, session, ctx| {
            session.link.waits_for_us(false);
            // Replaced meanwhile: the node says it again in its newer session.
            if session.link.end().is_none() {
                session.post(&to, meta, message(frame, credit), ctx);
            }
        }));
    }

    /// Into a controller's mailbox. While that is full this node is not read, and its own buffers fill.
    fn post<M: Mail>(&mut self, to: &Handle<M>, meta: Meta, message: M, ctx: &mut WebsocketContext<Self>) {
        match to.try_post(meta.clone(), message) {
            Ok(_) => {}
            Err(SendError::Full(message)) => {
                self.link.waits_for_us(true);
                let to = to.clone();
                let room = async move { to.reserve().await };
                ctx.wait(room.into_actor(self).map(|room, session, ctx| {
                    session.link.waits_for_us(false);
                    match room {
                        // Replaced meanwhile: the node says it again in its newer session.
                        Some(_) if session.link.end().is_some() => {}
                        Some(room) => {
                            room.send(meta, message);
                        }
                        None => session.end(End::ShuttingDown, ctx),
                    }
                }));
            }
            Err(SendError::Closed(_)) => self.end(End::ShuttingDown, ctx),
        }
    }

    /// Counts one more fault of this node; whether it goes into the log.
    fn is_worth_a_line(&mut self) -> bool {
        self.faults += 1;
        10_u64.pow(self.faults.ilog10()) == self.faults
    }

    fn reply(&self, answer: Answer) {
        if !self.node.answer(answer) {
            self.hub.nodes.counters.answers_dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn fragment(&mut self, item: Item, ctx: &mut WebsocketContext<Self>) {
        let (part, last) = match item {
            Item::FirstText(part) => {
                self.fragments = Some(BytesMut::new());
                (part, false)
            }
            Item::FirstBinary(_) => return self.end(End::Binary, ctx),
            Item::Continue(part) => (part, false),
            Item::Last(part) => (part, true),
        };
        let Some(so_far) = &mut self.fragments else { return self.end(End::Protocol, ctx) };
        if so_far.len() + part.len() > FRAME_BYTES_MAX {
            return self.end(End::TooLarge, ctx);
        }
        so_far.extend_from_slice(&part);
        if last {
            let whole = self.fragments.take().unwrap_or_default();
            let whole = whole.freeze();
            match std::str::from_utf8(&whole) {
                Ok(text) => self.text(text, whole.clone(), ctx),
                Err(_) => self.end(End::Protocol, ctx),
            }
        }
    }
}

impl Actor for Session {
    type Context = WebsocketContext<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.spawn(Puller(self.link.clone()));
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.link.cut(End::ByNode);
        if self.hub.nodes.detach(&self.link) {
            let reason = self.link.end().map(ToString::to_string).unwrap_or_default();
            let ended = CloudHubMessage::Disconnected { node: self.link.node.clone(), session: self.link.session, reason };
            // Full: the next sweep finds it.
            let _ = self.hub.peers.cloud_hub.try_send(ended);
        }
    }
}

impl StreamHandler<Result<Message, ProtocolError>> for Session {
    fn handle(&mut self, item: Result<Message, ProtocolError>, ctx: &mut Self::Context) {
        if self.link.end().is_some() {
            return;
        }
        self.link.heard();
        match item {
            // Shared, not copied.
            Ok(Message::Text(text)) => self.text(&text, text.clone().into_bytes(), ctx),
            Ok(Message::Ping(payload)) => ctx.pong(&payload),
            Ok(Message::Pong(_) | Message::Nop) => {}
            Ok(Message::Binary(_)) => self.end(End::Binary, ctx),
            Ok(Message::Continuation(item)) => self.fragment(item, ctx),
            Ok(Message::Close(reason)) => {
                self.link.cut(End::ByNode);
                ctx.close(reason);
                ctx.stop();
            }
            Err(ProtocolError::Overflow) => self.end(End::TooLarge, ctx),
            Err(ProtocolError::Io(_)) => self.end(End::ByNode, ctx),
            Err(_) => self.end(End::Protocol, ctx),
        }
    }

    fn finished(&mut self, ctx: &mut Self::Context) {
        self.end(End::ByNode, ctx);
    }
}

/// Runs whenever the session's task does: when the socket asks for more, and when somebody wakes the link.
struct Puller(Arc<Link>);

impl ActorFuture<Session> for Puller {
    type Output = ();

    fn poll(self: Pin<&mut Self>, session: &mut Session, ctx: &mut WebsocketContext<Session>, task: &mut Context<'_>) -> Poll<()> {
        // First, so that what comes after the look below wakes this task again.
        self.0.register(task.waker());
        if let Some(end) = self.0.end().cloned() {
            session.end(end, ctx);
            return Poll::Ready(());
        }
        if self.0.take_turn() {
            session.pull(ctx);
        }
        Poll::Pending
    }
}

fn now() -> Timestamp {
    use model::Clock as _;
    model::SystemClock.now()
}

/// What a node said, for a line of the log: short, and one line.
fn shown(text: &str) -> String {
    text.chars().take(256).flat_map(char::escape_debug).collect()
}
