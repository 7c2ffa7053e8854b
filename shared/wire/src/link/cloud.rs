//! The cloud's side of one node's connection.
//!
//! What it has for the node goes out in this order: answers, each once; then the outbox, each frame until it is answered.
//! The owner pulls with [`CloudLink::next`] while the socket takes it.
//!
//! Rules
//! - One session counts, the last that began ([`CloudLink::up`]). What an older one says changes nothing.
//! - A node that announces ([`Capabilities::digest`]) is sent what it lacks when its digest is whole; it is asked for
//!   one that does not come, and after that sent everything. Any other node is sent everything at once.
//! - What is in the outbox when a node is brought into step counts as held in some version: it is sent again or deleted.
//! - A node whose outbox ran over is out of step: when there is room again, it is asked for its digest, or sent
//!   everything.

use std::collections::VecDeque;

use super::held::{Assembly, Held, HeldError};
use super::{Capabilities, SessionId};
use crate::hub::outbox::{Limits, Outgoing as _};
use crate::hub::{Downstream, Envelope, Frame, MsgId, Outbox, OutboxKey, Upstream};

/// Most answers that wait for one node.
pub const ANSWERS_MAX: usize = 256;
/// Most bytes of answers that wait for one node; one answer alone may be larger.
pub const ANSWERS_BYTES_MAX: usize = 16 << 20;
/// So long a digest is waited for, in ms; then the node is asked, and after as long again sent everything.
pub const DIGEST_WITHIN_MS: u64 = 10_000;
/// A node's digests are taken no more often than this, in ms, unless it was asked.
pub const DIGEST_EVERY_MS: u64 = 10_000;
/// A node whose outbox ran over is brought into step again, but not more often than this, in ms.
pub const RESYNC_EVERY_MS: u64 = 30_000;

/// What goes out once, before the outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// A message.
    Frame(Frame<Downstream>),
    /// The refusal of an envelope that was no message.
    Envelope(Envelope),
}

impl Answer {
    fn bytes(&self) -> usize {
        match self {
            Self::Frame(frame) => frame.bytes(),
            Self::Envelope(envelope) => 256 + envelope.route.resource.len() + envelope.content.len(),
        }
    }
}

/// What a message of the node did.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// It is for somebody else: the controllers, or nobody.
    NotMine,
    /// From a session that does not count any more.
    Stale,
    /// An answer to nothing that is on its way: given twice, late, or made up.
    Unmatched,
    /// The node has stored what was sent under this key.
    Acknowledged(OutboxKey),
    /// The node refuses it; its key is silent until something new is pushed for it.
    Refused(OutboxKey),
    /// A digest is under way.
    Partial,
    /// A digest is whole: [`CloudLink::take_due`] has something.
    Announced,
    /// A digest that nobody asked for, too soon after the last one, or from a node that does not announce.
    Unasked,
    /// A digest that cannot be one.
    Bad(HeldError),
}

/// Whether the outbox had room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// It had.
    Taken,
    /// It had not, for the first time since the node was in step.
    RunsOver,
    /// It has not had for a while.
    RanOver,
}

/// What the passing of time did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ticked {
    /// Something may go out again.
    pub resend: bool,
    /// The node is to be asked for its digest: [`Downstream::HeldGet`] belongs into the answers.
    pub ask: bool,
    /// [`CloudLink::take_due`] has something.
    pub due: bool,
    /// The outbox had run over and has room again: the controllers tell everything anew that a digest does not cover.
    pub again: bool,
}

/// What one node still has to take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Frames in the outbox, unsent or unanswered.
    pub waiting: usize,
    /// Keys whose last frame the node refused.
    pub parked: usize,
    /// Bytes in the outbox.
    pub bytes: usize,
    /// Answers that wait.
    pub answers: usize,
    /// The outbox ran over.
    pub lagging: bool,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct CloudLink {
    session: SessionId,
    capabilities: Capabilities,
    outbox: Outbox<OutboxKey, Frame<Downstream>>,
    answers: VecDeque<Answer>,
    answers_bytes: usize,
    digest: Digest,
    assembly: Assembly,
    /// The node is to be brought into step, and says that it holds this; nothing, if it does not say it.
    due: Option<Held>,
    lagging_since: Option<u64>,
}

/// Where the node's digest is.
#[derive(Debug, Clone, Copy)]
enum Digest {
    /// Not wanted: the node does not announce, or it has.
    Settled { last: Option<u64> },
    /// It should come.
    Awaited { since: u64, asked: bool },
}

impl CloudLink {
    /// The first session of a node.
    pub fn new(session: SessionId, capabilities: Capabilities, now: u64) -> Self {
        let mut link = Self {
            session,
            capabilities,
            outbox: Outbox::new(Limits::default()),
            answers: VecDeque::new(),
            answers_bytes: 0,
            digest: Digest::Settled { last: None },
            assembly: Assembly::default(),
            due: None,
            lagging_since: None,
        };
        link.begin(now);
        link
    }

    /// A newer session takes the place of the one that counted. What was on its way is sent again; what waited as an answer
    /// was asked in the older session, and will be asked again.
    pub fn up(&mut self, session: SessionId, capabilities: Capabilities, now: u64) {
        (self.session, self.capabilities) = (session, capabilities);
        self.outbox.reset();
        self.answers.clear();
        self.answers_bytes = 0;
        self.begin(now);
    }

    fn begin(&mut self, now: u64) {
        self.assembly = Assembly::default();
        if self.capabilities.digest {
            (self.digest, self.due) = (Digest::Awaited { since: now, asked: false }, None);
        } else {
            (self.digest, self.due) = (Digest::Settled { last: None }, Some(Held::default()));
        }
    }

    /// The session that counts.
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// Keeps a frame until the node has answered it. If the outbox is full the node is out of step until [`Ticked::again`].
    pub fn push(&mut self, key: OutboxKey, frame: Frame<Downstream>, now: u64) -> Pushed {
        if self.outbox.push(key, frame).is_ok() {
            return Pushed::Taken;
        }
        if self.lagging_since.is_some() {
            return Pushed::RanOver;
        }
        self.lagging_since = Some(now);
        Pushed::RunsOver
    }

    /// Puts an answer behind the others. `false` if too many wait.
    pub fn answer(&mut self, answer: Answer) -> bool {
        let bytes = answer.bytes();
        let room = self.answers.is_empty() || self.answers_bytes + bytes <= ANSWERS_BYTES_MAX;
        if !room || self.answers.len() >= ANSWERS_MAX {
            return false;
        }
        self.answers_bytes += bytes;
        self.answers.push_back(answer);
        true
    }

    /// The next thing to send in this session; `None` when there is nothing, the window is full, or the session does not
    /// count any more.
    pub fn next(&mut self, session: SessionId, now: u64) -> Option<Answer> {
        if session != self.session {
            return None;
        }
        if let Some(answer) = self.answers.pop_front() {
            self.answers_bytes -= answer.bytes();
            if self.answers.is_empty() {
                // Most links are idle most of the time: an empty queue keeps its heap otherwise.
                self.answers = VecDeque::new();
            }
            return Some(answer);
        }
        self.outbox.next(now).cloned().map(Answer::Frame)
    }

    /// The node said something in this session.
    pub fn heard(&mut self, session: SessionId, frame: &Frame<Upstream>, now: u64) -> Heard {
        if session != self.session {
            return Heard::Stale;
        }
        match (&frame.body, &frame.parent) {
            (Upstream::Ack { .. }, Some(parent)) => self.outbox.acknowledged(parent).map_or(Heard::Unmatched, Heard::Acknowledged),
            (Upstream::Refusal { reason, .. }, Some(parent)) => self.refused(parent, reason),
            (Upstream::Ack { .. } | Upstream::Refusal { .. }, None) => Heard::Unmatched,
            (Upstream::Held(part), _) => {
                if part.part == 0 && !self.is_digest_welcome(now) {
                    return Heard::Unasked;
                }
                match self.assembly.take(part.clone()) {
                    Ok(None) => Heard::Partial,
                    Ok(Some(held)) => {
                        self.digest = Digest::Settled { last: Some(now) };
                        self.due = Some(held);
                        Heard::Announced
                    }
                    Err(error) => Heard::Bad(error),
                }
            }
            (
                Upstream::Keepalive
                | Upstream::NodeRegister { .. }
                | Upstream::NodeStatus { .. }
                | Upstream::PodStatus { .. }
                | Upstream::Event { .. }
                | Upstream::Query { .. }
                | Upstream::MembershipGet { .. }
                | Upstream::TwinReport { .. }
                | Upstream::DeviceStateReport { .. }
                | Upstream::Upload { .. },
                _,
            ) => Heard::NotMine,
        }
    }

    fn is_digest_welcome(&self, now: u64) -> bool {
        self.capabilities.digest
            && match self.digest {
                Digest::Awaited { .. } => true,
                Digest::Settled { last } => last.is_none_or(|last| now.saturating_sub(last) >= DIGEST_EVERY_MS),
            }
    }

    /// A frame that the node refuses, or that cannot be sent to it.
    pub fn refused(&mut self, parent: &MsgId, reason: &str) -> Heard {
        self.outbox.refused(parent, reason).map_or(Heard::Unmatched, Heard::Refused)
    }

    /// Lets time pass.
    pub fn tick(&mut self, now: u64) -> Ticked {
        let mut ticked = Ticked { resend: self.outbox.tick(now) > 0, ..Ticked::default() };
        if let Digest::Awaited { since, asked } = self.digest
            && now.saturating_sub(since) >= DIGEST_WITHIN_MS
        {
            if asked {
                self.digest = Digest::Settled { last: None };
                self.due = Some(Held::default());
            } else {
                self.digest = Digest::Awaited { since: now, asked: true };
                ticked.ask = true;
            }
        }
        if self.has_caught_up(now) {
            self.lagging_since = None;
            ticked.again = true;
            ticked.ask |= self.out_of_step(now);
        }
        ticked.due = self.due.is_some();
        ticked
    }

    /// Whoever knew what the node has been told knows it no more. Whether the node is to be asked for its digest
    /// ([`Ticked::ask`]); if not, [`CloudLink::take_due`] has something.
    pub fn out_of_step(&mut self, now: u64) -> bool {
        if self.capabilities.digest {
            self.digest = Digest::Awaited { since: now, asked: true };
        } else {
            self.due = Some(Held::default());
        }
        self.capabilities.digest
    }

    /// Whether the outbox, once full, has room enough to be filled anew.
    fn has_caught_up(&self, now: u64) -> bool {
        let limits = Limits::default();
        self.lagging_since.is_some_and(|since| now.saturating_sub(since) >= RESYNC_EVERY_MS)
            && self.outbox.len() <= limits.keys_max / 2
            && self.outbox.bytes() <= limits.bytes_max / 2
    }

    /// Whether the controllers are to send the node something so that it is in step.
    pub fn is_due(&self) -> bool {
        self.due.is_some()
    }

    /// What the node holds, so that they can send what it lacks and delete what it should not have; they have been told
    /// afterwards. Of what is in the outbox it is not sure what the node will hold: whoever put it there may be gone, and
    /// nobody else knows of it.
    pub fn take_due(&mut self) -> Option<Held> {
        let mut held = self.due.take()?;
        for key in self.outbox.keys() {
            if let OutboxKey::Object(key) = key {
                held.unsure_of(key.clone());
            }
        }
        Some(held)
    }

    /// What the node still has to take.
    pub fn backlog(&self) -> Backlog {
        let parked = self.outbox.parked().count();
        Backlog {
            waiting: self.outbox.len() - parked,
            parked,
            bytes: self.outbox.bytes(),
            answers: self.answers.len(),
            lagging: self.lagging_since.is_some(),
        }
    }
}

#[cfg(test)]
#[path = "cloud_tests.rs"]
mod tests;
