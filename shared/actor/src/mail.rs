//! What a mailbox carries: a message and its header.

use std::any::Any;
use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::quarantine::Ingress;

/// A message that a mailbox may carry.
///
/// `Sync` because the mailbox keeps the message that is in hand, to hand it to the next incarnation: large payloads
/// belong into an `Arc` or `Bytes`.
pub trait Mail: Send + Sync + 'static {
    /// Name of the variant, for the page and the logs.
    fn kind(&self) -> &'static str;

    /// A readable form for the quarantine; cut at [`crate::Quarantined::TEXT_MAX`] bytes. Never put a secret in it.
    fn describe(&self) -> String {
        self.kind().to_owned()
    }

    /// Rough size in memory, counted against the mailbox's limit in bytes.
    fn bytes(&self) -> usize {
        256
    }
}

/// The beginning of a text that others chose, for [`Mail::describe`]: 200 bytes at most.
#[must_use]
pub fn brief(text: &str) -> &str {
    &text[..text.floor_char_boundary(200)]
}

/// Identity of one message: 128 bits, unique in this process and, by a random prefix, between processes.
///
/// Printed in the form of a version 4 UUID, as the header of KubeEdge's messages has it (manual ch. 6.2).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MsgId(u128);

impl MsgId {
    /// Makes a fresh identity.
    #[must_use]
    pub fn fresh() -> Self {
        static PREFIX: OnceLock<u64> = OnceLock::new();
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let prefix = *PREFIX.get_or_init(|| {
            let mut hasher = RandomState::new().build_hasher();
            hasher.write_u128(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos());
            hasher.finish()
        });
        let raw = (u128::from(prefix) << 64) | u128::from(NEXT.fetch_add(1, Ordering::Relaxed));
        // Version and variant bits of RFC 9562 §5.4.
        Self((raw & !(0xf << 76) & !(0b11 << 62)) | (0x4 << 76) | (0b10 << 62))
    }
}

impl fmt::Display for MsgId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let v = self.0;
        write!(f, "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}", v >> 96, (v >> 80) as u16, (v >> 64) as u16, (v >> 48) as u16, v & 0xffff_ffff_ffff)
    }
}

impl fmt::Debug for MsgId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not the form that [`MsgId`] prints.
#[derive(Debug, thiserror::Error)]
#[error("not a message id: expected 32 hexadecimal digits in the form of a UUID")]
pub struct NotAMsgId;

impl FromStr for MsgId {
    type Err = NotAMsgId;
    fn from_str(text: &str) -> Result<Self, NotAMsgId> {
        if text.len() != 36 {
            return Err(NotAMsgId);
        }
        let mut id = 0;
        for (at, byte) in text.bytes().enumerate() {
            match (at, char::from(byte).to_digit(16)) {
                (8 | 13 | 18 | 23, None) if byte == b'-' => {}
                (8 | 13 | 18 | 23, _) | (_, None) => return Err(NotAMsgId),
                (_, Some(digit)) => id = (id << 4) | u128::from(digit),
            }
        }
        Ok(Self(id))
    }
}

/// The header that every message carries (manual ch. 6.2): identity, what it answers, when and where it was made.
#[derive(Clone, Debug)]
pub struct Meta {
    /// This message.
    pub id: MsgId,
    /// The message that caused this one.
    pub parent: Option<MsgId>,
    /// When it was made, in ms since 1970.
    pub at_ms: u64,
    /// Who made it: the name of an actor or of a border ("mqtt", "cloud").
    pub source: &'static str,
    /// What another mailbox has to be done with first; the handler looks, see [`crate::Handle::ticket`].
    pub after: Ticket,
    /// Its own place in the order of the mailbox that holds it, which is set there: a ticket of that mailbox that is not
    /// below it was drawn later. The first place is 1.
    pub place: Ticket,
    /// The form in which it came from outside, where it did: a quarantined message enters again in this form.
    pub ingress: Option<Arc<Ingress>>,
    /// What a border lent to its peer for the time until this message is settled.
    pub held: Option<Held>,
}

/// Something of a border that is dropped, and so given back, when the message is settled, set aside or given up: it lives
/// as long as the header does.
#[derive(Clone)]
pub struct Held(#[allow(dead_code, reason = "only its end matters")] Arc<dyn Any + Send + Sync>);

impl Held {
    /// Holds it.
    #[must_use]
    pub fn new(thing: impl Any + Send + Sync) -> Self {
        Self(Arc::new(thing))
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Held")
    }
}

/// A place in the order of one mailbox: everything that it had taken when the ticket was drawn. The default one waits for
/// nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub(crate) u64);

impl Meta {
    /// A header with a fresh identity, made now.
    #[must_use]
    pub fn new(source: &'static str) -> Self {
        Self {
            id: MsgId::fresh(),
            parent: None,
            at_ms: now_ms(),
            source,
            after: Ticket::default(),
            place: Ticket::default(),
            ingress: None,
            held: None,
        }
    }

    /// A header for what follows from `parent`.
    #[must_use]
    pub fn child_of(parent: &Meta, source: &'static str) -> Self {
        Self::caused_by(Some(parent.id), source)
    }

    /// A header for what follows from a message of which only the identity is left, if that is known.
    #[must_use]
    pub fn caused_by(parent: Option<MsgId>, source: &'static str) -> Self {
        Self { parent, ..Self::new(source) }
    }

    /// A header for what comes with an identity of its own, given as text, from a peer that speaks of messages as well;
    /// with a fresh one where that is no UUID.
    #[must_use]
    pub fn named(id: &str, parent: Option<&str>, source: &'static str) -> Self {
        let meta = Self::caused_by(parent.and_then(|parent| parent.parse().ok()), source);
        Self { id: id.parse().unwrap_or(meta.id), ..meta }
    }

    /// The parent for a line of the log; `-` where there is none.
    pub fn parent_or_dash(&self) -> impl fmt::Display + '_ {
        fmt::from_fn(|f| match self.parent {
            Some(parent) => fmt::Display::fmt(&parent, f),
            None => f.write_str("-"),
        })
    }

    /// The same header for a message that has to wait until what the ticket names is done.
    #[must_use]
    pub fn behind(self, after: Ticket) -> Self {
        Self { after, ..self }
    }

    /// The same header, which holds this until the message is settled.
    #[must_use]
    pub fn holding(self, held: Option<Held>) -> Self {
        Self { held, ..self }
    }

    /// The same header for a message that came from outside in this form.
    #[must_use]
    pub fn entered(self, ingress: Ingress) -> Self {
        Self { ingress: Some(Arc::new(ingress)), ..self }
    }
}

/// ms since 1970, as exact as the kernel's tick (4 ms at the most): each message takes the time, and the exact clock costs
/// five times as much.
pub(crate) fn now_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
    let (seconds, nanos) = (u64::try_from(now.tv_sec).unwrap_or(0), u64::try_from(now.tv_nsec).unwrap_or(0));
    seconds * 1000 + nanos / 1_000_000
}

/// One message in a mailbox.
pub(crate) struct Entry<M> {
    pub(crate) meta: Meta,
    pub(crate) message: M,
    /// Deaths in which this message was in hand.
    pub(crate) attempts: std::sync::atomic::AtomicU32,
    pub(crate) bytes: usize,
}
