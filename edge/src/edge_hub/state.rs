//! What EdgeHub knows: the questions that wait, and counters.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use actor::Reply;
use model::Clock;
use tokio::time::Instant;
use wire::hub::MsgId;
use wire::link::Questions;

use super::socket::Socket;
use super::{Answer, Peers, RequestError};

/// The actor. A restart loses the questions that wait (whoever asked hears it at once) and nothing else.
pub struct EdgeHub {
    pub(super) socket: Socket,
    pub(super) shared: Arc<Shared>,
    pub(super) peers: Peers,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) requests: Requests,
    /// Since when the message at the front waits for room.
    pub(super) waiting: Option<(actor::MsgId, Instant)>,
}

impl EdgeHub {
    /// An incarnation over the running socket.
    pub(super) fn new(socket: Socket, shared: Arc<Shared>, peers: Peers, clock: Arc<dyn Clock>) -> Self {
        Self { socket, shared, peers, clock, requests: Requests::default(), waiting: None }
    }
}

/// Questions to the cloud that have no answer yet: [`Questions`] by this machine's clock.
pub(super) struct Requests {
    began: Instant,
    open: Questions<Reply<Answer>>,
}

impl Default for Requests {
    fn default() -> Self {
        Self { began: Instant::now(), open: Questions::default() }
    }
}

impl Requests {
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    fn millis_at(&self, now: Instant) -> u64 {
        millis(now.saturating_duration_since(self.began))
    }

    /// Keeps a question. One with the same id that waits already is failed: its answer could not be told apart.
    pub(super) fn add(&mut self, id: MsgId, session: u64, now: Instant, within: Duration, reply: Reply<Answer>) {
        if let Some(older) = self.open.asked(id, session, self.millis_at(now), millis(within), reply) {
            older.send(Err(RequestError::Busy));
        }
    }

    /// Who waits for the answer to `id`.
    pub(super) fn take(&mut self, id: &MsgId) -> Option<Reply<Answer>> {
        self.open.answered(id)
    }

    /// Fails the questions that went out in `session` or before.
    pub(super) fn fail_session(&mut self, session: u64) {
        for reply in self.open.ended(session) {
            reply.send(Err(RequestError::Disconnected));
        }
    }

    /// Fails what is overdue and forgets what nobody waits for any more.
    pub(super) fn expire(&mut self, now: Instant) {
        let now = self.millis_at(now);
        for (reply, within) in self.open.overdue(now, Reply::is_wanted) {
            reply.send(Err(RequestError::Deadline(Duration::from_millis(within))));
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What EdgeHub knows.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Snapshot {
    /// Where the cloud is, or who is asked for it.
    pub cloud: String,
    /// Whether a session stands.
    pub connected: bool,
    /// Number of that session, from 1.
    pub session: Option<u64>,
    /// Since when, in ms since 1970.
    pub since_ms: Option<i64>,
    /// Questions to the cloud that have no answer yet.
    pub unanswered_requests: u64,
    /// Frames given to the socket since the start.
    pub sent: u64,
    /// Frames that arrived.
    pub received: u64,
    /// Frames that went no further, whatever the reason.
    pub dropped: u64,
}

/// What outlives an incarnation.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) since_ms: AtomicI64,
    pub(super) unanswered: AtomicU64,
    pub(super) sent: AtomicU64,
    pub(super) received: AtomicU64,
    pub(super) away: AtomicU64,
    pub(super) full: AtomicU64,
    pub(super) too_large: AtomicU64,
    pub(super) unreadable: AtomicU64,
    pub(super) unknown: AtomicU64,
    pub(super) no_room: AtomicU64,
}

/// Counters since the start of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Whether a session stands.
    pub connected: bool,
    /// Frames given to the socket.
    pub sent: u64,
    /// Frames that arrived.
    pub received: u64,
    /// Frames that were dropped because the cloud was away.
    pub dropped_away: u64,
    /// Frames that were dropped because too much waited already.
    pub dropped_full: u64,
    /// Frames that were larger than the cloud takes.
    pub dropped_too_large: u64,
    /// Frames that arrived and were no envelope.
    pub unreadable: u64,
    /// Frames that arrived and were no message that this version knows.
    pub unknown: u64,
    /// Messages of the cloud for which their module had no room in time.
    pub dropped_no_room: u64,
}

impl Shared {
    pub(super) fn figures(&self, connected: bool) -> Figures {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Figures {
            connected,
            sent: read(&self.sent),
            received: read(&self.received),
            dropped_away: read(&self.away),
            dropped_full: read(&self.full),
            dropped_too_large: read(&self.too_large),
            unreadable: read(&self.unreadable),
            unknown: read(&self.unknown),
            dropped_no_room: read(&self.no_room),
        }
    }
}

/// Counts, and says whether this is worth a line in the log: the 1st, 10th, 100th … time.
pub(super) fn count(counter: &AtomicU64) -> bool {
    let count = counter.fetch_add(1, Ordering::Relaxed) + 1;
    10_u64.pow(count.ilog10()) == count
}
