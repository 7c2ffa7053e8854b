//! The mailbox: bounded, and older and younger than any actor that reads it.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::histogram::Histogram;
use crate::mail::{Entry, Mail, Meta, MsgId, Ticket, now_ms};
use crate::registry::{Observable, State, View};
use crate::reply::{AskError, Reply};

/// Deaths that a message may cause before it goes to the quarantine.
pub(crate) const ATTEMPTS_MAX: u32 = 3;
/// Messages kept in one actor's quarantine; the oldest goes first.
const QUARANTINE_MAX: usize = 64;
/// Default limit of a mailbox in bytes.
const BYTES_MAX: usize = 64 << 20;

/// Makes a mailbox for at most `capacity` messages and 64 MiB, and a handle to it.
///
/// # Panics
/// If `capacity` is 0.
#[must_use]
pub fn mailbox<M: Mail>(name: &'static str, capacity: usize) -> Handle<M> {
    mailbox_with_bytes(name, capacity, BYTES_MAX)
}

/// Makes a mailbox with limits in messages and in bytes (by [`Mail::bytes`]). One message above the limit in bytes is
/// taken if the mailbox is empty.
///
/// # Panics
/// If `capacity` is 0.
#[must_use]
pub fn mailbox_with_bytes<M: Mail>(name: &'static str, capacity: usize, bytes_max: usize) -> Handle<M> {
    assert!(capacity > 0, "a mailbox needs room for one message");
    Handle(Arc::new(Cell {
        name,
        capacity,
        bytes_max,
        room: Arc::new(Semaphore::new(capacity)),
        freed: Notify::new(),
        queue: Mutex::new(Queue { waiting: VecDeque::new(), in_hand: Vec::new(), waker: None, closed: false, blamed: Vec::new(), accepted: 0 }),
        epoch: Arc::new(AtomicU64::new(0)),
        quarantine: Mutex::new(VecDeque::new()),
        stats: Stats::default(),
    }))
}

/// A message that was in hand at three deaths of its actor.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Quarantined {
    /// Identity of the message.
    pub id: String,
    /// Its variant.
    pub kind: &'static str,
    /// Who sent it.
    pub source: &'static str,
    /// Readable form, cut at [`Self::TEXT_MAX`] bytes.
    pub text: String,
    /// What the actor said when it died of it for the last time.
    pub last_words: String,
    /// When it was put here, in ms since 1970.
    pub at_ms: u64,
}

impl Quarantined {
    /// Longest readable form that is kept, in bytes.
    pub const TEXT_MAX: usize = 4096;
}

pub(crate) struct Cell<M> {
    pub(crate) name: &'static str,
    capacity: usize,
    bytes_max: usize,
    room: Arc<Semaphore>,
    freed: Notify,
    queue: Mutex<Queue<M>>,
    /// Number of the living incarnation. Moves only under the lock of `queue`.
    epoch: Arc<AtomicU64>,
    quarantine: Mutex<VecDeque<Quarantined>>,
    pub(crate) stats: Stats,
}

struct Queue<M> {
    waiting: VecDeque<Arc<Entry<M>>>,
    in_hand: Vec<Arc<Entry<M>>>,
    waker: Option<Waker>,
    closed: bool,
    /// What was in hand at the last death.
    blamed: Vec<MsgId>,
    /// Messages taken since the mailbox was made.
    accepted: u64,
}

impl<M> Queue<M> {
    /// Messages that are settled or quarantined; they leave in the order in which they came.
    fn settled(&self) -> u64 {
        self.accepted - (self.waiting.len() + self.in_hand.len()) as u64
    }
}

/// Counters of one actor; they outlive its incarnations.
pub(crate) struct Stats {
    pub(crate) born: Instant,
    pub(crate) handled: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) quarantined: AtomicU64,
    pub(crate) bytes: AtomicUsize,
    pub(crate) restarts: AtomicU64,
    pub(crate) panics: AtomicU64,
    pub(crate) hangs: AtomicU64,
    /// ms after `born`, plus 1; 0 = nothing in hand.
    pub(crate) in_hand_since: AtomicU64,
    /// ms after `born` of the last finished batch.
    pub(crate) idle_since: AtomicU64,
    /// ms after `born` of the last sign of life.
    pub(crate) pong: AtomicU64,
    pub(crate) ping: AtomicBool,
    pub(crate) state: AtomicU32,
    pub(crate) took: Histogram,
    pub(crate) last_words: Mutex<String>,
}

impl Default for Stats {
    fn default() -> Self {
        Self {
            born: Instant::now(),
            handled: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            quarantined: AtomicU64::new(0),
            bytes: AtomicUsize::new(0),
            restarts: AtomicU64::new(0),
            panics: AtomicU64::new(0),
            hangs: AtomicU64::new(0),
            in_hand_since: AtomicU64::new(0),
            idle_since: AtomicU64::new(0),
            pong: AtomicU64::new(0),
            ping: AtomicBool::new(false),
            state: AtomicU32::new(State::Down as u32),
            took: Histogram::default(),
            last_words: Mutex::new(String::new()),
        }
    }
}

impl Stats {
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(crate) fn words(&self) -> String {
        lock(&self.last_words).clone()
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing under these locks can panic half-way: each holds for a push or a pop.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the pump gets when it asks for the next batch.
pub(crate) enum Take<M> {
    Batch(Vec<Arc<Entry<M>>>),
    Empty,
    /// Another incarnation lives.
    Fenced,
    /// Closed and drained.
    Finished,
}

impl<M: Mail> Cell<M> {
    fn push(&self, meta: Meta, message: M) -> MsgId {
        let id = meta.id;
        let bytes = message.bytes();
        self.stats.bytes.fetch_add(bytes, Ordering::Relaxed);
        let entry = Arc::new(Entry { meta, message, attempts: AtomicU32::new(0), bytes });
        let waker = {
            let mut queue = lock(&self.queue);
            queue.waiting.push_back(entry);
            queue.accepted += 1;
            queue.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        id
    }

    fn has_bytes(&self, more: usize) -> bool {
        let held = self.stats.bytes.load(Ordering::Relaxed);
        held == 0 || held.saturating_add(more) <= self.bytes_max
    }

    /// The room of finished messages is free again.
    fn release(&self, entries: usize, bytes: usize) {
        self.stats.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.room.add_permits(entries);
        self.freed.notify_waiters();
    }

    pub(crate) fn take(&self, max: usize, epoch: u64, waker: &Waker) -> Take<M> {
        let mut queue = lock(&self.queue);
        if self.epoch.load(Ordering::Relaxed) != epoch {
            return Take::Fenced;
        }
        if queue.waiting.is_empty() {
            if queue.closed {
                return Take::Finished;
            }
            if !queue.waker.as_ref().is_some_and(|w| w.will_wake(waker)) {
                queue.waker = Some(waker.clone());
            }
            return Take::Empty;
        }
        // What was in hand at a death is handed out alone: so the message that kills is found.
        let suspect = |e: &Arc<Entry<M>>| e.attempts.load(Ordering::Relaxed) > 0;
        let count = if queue.waiting.front().is_some_and(suspect) { 1 } else { queue.waiting.iter().take(max).take_while(|e| !suspect(e)).count() };
        let batch: Vec<_> = queue.waiting.drain(..count).collect();
        queue.in_hand.clone_from(&batch);
        drop(queue);
        self.stats.in_hand_since.store(self.stats.now() + 1, Ordering::Relaxed);
        Take::Batch(batch)
    }

    pub(crate) fn epoch_cell(&self) -> Arc<AtomicU64> {
        self.epoch.clone()
    }

    /// Registers the pump's waker for a ping while it waits for something else than a message.
    pub(crate) fn keep_waker(&self, waker: &Waker) {
        lock(&self.queue).waker = Some(waker.clone());
    }

    /// A lease ends: `settled` of its messages are done; the rest goes back to the front. `blame` counts a death
    /// against the rest, or, if the handler settles one by one, against the first of the rest.
    pub(crate) fn finish(&self, epoch: u64, batch: &[Arc<Entry<M>>], settled: usize, blame: Blame, took: Duration) {
        let mut quarantined = Vec::new();
        {
            let mut queue = lock(&self.queue);
            if self.epoch.load(Ordering::Relaxed) != epoch {
                return; // Fenced: the messages were put back when the epoch moved.
            }
            queue.in_hand.clear();
            self.put_back(&mut queue, &batch[settled..], blame, &mut quarantined);
        }
        let now = self.stats.now();
        self.stats.in_hand_since.store(0, Ordering::Relaxed);
        self.stats.idle_since.store(now, Ordering::Relaxed);
        self.stats.pong.store(now, Ordering::Relaxed);
        if settled > 0 {
            self.stats.handled.fetch_add(settled as u64, Ordering::Relaxed);
            self.stats.took.record(took / u32::try_from(settled).unwrap_or(u32::MAX));
            self.release(settled, batch[..settled].iter().map(|e| e.bytes).sum());
        }
        self.bury(quarantined);
    }

    fn put_back(&self, queue: &mut Queue<M>, rest: &[Arc<Entry<M>>], blame: Blame, quarantined: &mut Vec<Arc<Entry<M>>>) {
        for (index, entry) in rest.iter().enumerate().rev() {
            let blamed = match blame {
                Blame::Nobody => false,
                Blame::First => index == 0,
                Blame::All => true,
            };
            if blamed {
                queue.blamed.push(entry.meta.id);
            }
            if blamed && entry.attempts.fetch_add(1, Ordering::Relaxed) + 1 >= ATTEMPTS_MAX {
                quarantined.push(entry.clone());
            } else {
                queue.waiting.push_front(entry.clone());
            }
        }
    }

    fn bury(&self, entries: Vec<Arc<Entry<M>>>) {
        for entry in entries {
            let mut text = entry.message.describe();
            if text.len() > Quarantined::TEXT_MAX {
                let cut = (0..=Quarantined::TEXT_MAX).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
                text.truncate(cut);
            }
            let quarantined = Quarantined {
                id: entry.meta.id.to_string(),
                kind: entry.message.kind(),
                source: entry.meta.source,
                text,
                last_words: String::new(),
                at_ms: now_ms(),
            };
            log::error!(actor = self.name, id = quarantined.id.as_str(), kind = quarantined.kind; "message quarantined: its actor died of it three times");
            self.stats.quarantined.fetch_add(1, Ordering::Relaxed);
            let mut quarantine = lock(&self.quarantine);
            if quarantine.len() == QUARANTINE_MAX {
                quarantine.pop_front();
            }
            quarantine.push_back(quarantined);
            drop(quarantine);
            self.release(1, entry.bytes);
        }
    }
}

/// Against whom the death of an actor is counted.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Blame {
    Nobody,
    First,
    All,
}

/// What the supervisor may do with a mailbox; without the type of its messages.
pub(crate) trait Ward: Observable {
    fn stats(&self) -> &Stats;
    fn name(&self) -> &'static str;
    /// Begins the next incarnation: what was in hand goes back to the front, and every older lease and fence is void.
    fn next_epoch(&self, blame: bool) -> u64;
    /// What was in hand at the last death; and which of it is in quarantine now.
    fn take_blamed(&self) -> (Vec<MsgId>, Vec<MsgId>);
    fn note_words(&self, words: &str);
    fn wake(&self);
    /// Takes no further message; the actor ends once it has drained.
    fn close(&self);
}

impl<M: Mail> Ward for Cell<M> {
    fn stats(&self) -> &Stats {
        &self.stats
    }

    fn name(&self) -> &'static str {
        self.name
    }

    fn next_epoch(&self, blame: bool) -> u64 {
        let mut quarantined = Vec::new();
        let epoch = {
            let mut queue = lock(&self.queue);
            let rest = std::mem::take(&mut queue.in_hand);
            self.put_back(&mut queue, &rest, if blame { Blame::All } else { Blame::Nobody }, &mut quarantined);
            queue.waker = None;
            self.epoch.fetch_add(1, Ordering::AcqRel) + 1
        };
        self.stats.in_hand_since.store(0, Ordering::Relaxed);
        self.bury(quarantined);
        epoch
    }

    fn take_blamed(&self) -> (Vec<MsgId>, Vec<MsgId>) {
        let blamed = std::mem::take(&mut lock(&self.queue).blamed);
        let quarantine = lock(&self.quarantine);
        let buried = blamed.iter().copied().filter(|id| quarantine.iter().any(|q| q.id == id.to_string())).collect();
        (blamed, buried)
    }

    fn note_words(&self, words: &str) {
        words.clone_into(&mut lock(&self.stats.last_words));
        if let Some(last) = lock(&self.quarantine).back_mut().filter(|q| q.last_words.is_empty()) {
            words.clone_into(&mut last.last_words);
        }
    }

    fn wake(&self) {
        let waker = lock(&self.queue).waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn close(&self) {
        lock(&self.queue).closed = true;
        self.room.close();
        self.wake();
    }
}

impl<M: Mail> Observable for Cell<M> {
    fn view(&self) -> View {
        let (depth, in_hand) = {
            let queue = lock(&self.queue);
            (queue.waiting.len(), queue.in_hand.first().map(|e| e.message.kind()))
        };
        let s = &self.stats;
        let now = s.now();
        let since = s.in_hand_since.load(Ordering::Relaxed);
        View {
            name: self.name.to_owned(),
            state: State::from_raw(s.state.load(Ordering::Relaxed)),
            epoch: self.epoch.load(Ordering::Relaxed),
            depth,
            capacity: self.capacity,
            bytes: s.bytes.load(Ordering::Relaxed),
            handled: s.handled.load(Ordering::Relaxed),
            failed: s.failed.load(Ordering::Relaxed),
            refused: s.refused.load(Ordering::Relaxed),
            quarantined: s.quarantined.load(Ordering::Relaxed),
            restarts: s.restarts.load(Ordering::Relaxed),
            panics: s.panics.load(Ordering::Relaxed),
            hangs: s.hangs.load(Ordering::Relaxed),
            in_hand: in_hand.filter(|_| since > 0),
            in_hand_ms: if since > 0 { (now + 1).saturating_sub(since) } else { 0 },
            idle_ms: if since > 0 { 0 } else { now.saturating_sub(s.idle_since.load(Ordering::Relaxed)) },
            p50_us: s.took.quantile_us(0.5),
            p99_us: s.took.quantile_us(0.99),
            last_words: s.words(),
        }
    }

    fn quarantine(&self) -> Vec<Quarantined> {
        lock(&self.quarantine).iter().cloned().collect()
    }
}

/// Sends to one mailbox; valid for the life of the process, whatever happens to the actor behind it.
pub struct Handle<M>(pub(crate) Arc<Cell<M>>);

impl<M> Clone for Handle<M> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<M> std::fmt::Debug for Handle<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Handle({})", self.0.name)
    }
}

/// A message that was not taken; it is given back.
#[derive(thiserror::Error)]
pub enum SendError<M> {
    /// No room, in messages or in bytes.
    #[error("the mailbox is full")]
    Full(M),
    /// The actor is stopping.
    #[error("the mailbox is closed")]
    Closed(M),
}

impl<M> std::fmt::Debug for SendError<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "Full",
            Self::Closed(_) => "Closed",
        })
    }
}

impl<M: Mail> Handle<M> {
    /// Name of the actor behind the mailbox.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.0.name
    }

    /// Sends without waiting, from any thread.
    ///
    /// # Errors
    /// `Full` (counted as refused) and `Closed` give the message back.
    pub fn try_send(&self, message: M) -> Result<MsgId, SendError<M>> {
        self.try_post(Meta::new("direct"), message)
    }

    /// Sends without waiting, with a given header.
    ///
    /// # Errors
    /// `Full` (counted as refused) and `Closed` give the message back.
    pub fn try_post(&self, meta: Meta, message: M) -> Result<MsgId, SendError<M>> {
        if !self.0.has_bytes(message.bytes()) {
            self.0.stats.refused.fetch_add(1, Ordering::Relaxed);
            return Err(SendError::Full(message));
        }
        match self.0.room.try_acquire() {
            Ok(permit) => {
                permit.forget();
                Ok(self.0.push(meta, message))
            }
            Err(tokio::sync::TryAcquireError::NoPermits) => {
                self.0.stats.refused.fetch_add(1, Ordering::Relaxed);
                Err(SendError::Full(message))
            }
            Err(tokio::sync::TryAcquireError::Closed) => Err(SendError::Closed(message)),
        }
    }

    /// Sends, and waits for room (beehive's `Send`, manual ch. 6.6.1). Never inside a ring of actors.
    ///
    /// # Errors
    /// `Closed` gives the message back.
    pub async fn send(&self, message: M) -> Result<MsgId, SendError<M>> {
        self.post(Meta::new("direct"), message).await
    }

    /// Like [`Self::send`], with a given header.
    ///
    /// # Errors
    /// `Closed` gives the message back.
    pub async fn post(&self, meta: Meta, message: M) -> Result<MsgId, SendError<M>> {
        let bytes = message.bytes();
        loop {
            let freed = self.0.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            if self.0.has_bytes(bytes) {
                break;
            }
            freed.await;
        }
        match self.0.room.acquire().await {
            Ok(permit) => {
                permit.forget();
                Ok(self.0.push(meta, message))
            }
            Err(_) => Err(SendError::Closed(message)),
        }
    }

    /// Asks, with a deadline that covers the wait for room and for the answer (beehive's `SendSync`, manual ch. 6.6.4).
    ///
    /// # Errors
    /// See [`AskError`].
    pub async fn ask<T>(&self, within: Duration, question: impl FnOnce(Reply<T>) -> M) -> Result<T, AskError> {
        let (reply, answer) = Reply::channel();
        tokio::time::timeout(within, async move {
            self.send(question(reply)).await.map_err(|_| AskError::Closed)?;
            answer.await.map_err(|_| AskError::Dropped)
        })
        .await
        .unwrap_or(Err(AskError::Deadline))
    }

    /// Takes room for one message, to be sent later without fail. `None` if there is none.
    #[must_use]
    pub fn try_reserve(&self) -> Option<Room<M>> {
        let permit = self.0.room.clone().try_acquire_owned().ok()?;
        Some(Room { permit, cell: self.0.clone() })
    }

    /// Waits for room for one message. `None` if the mailbox is closed.
    pub async fn reserve(&self) -> Option<Room<M>> {
        let permit = self.0.room.clone().acquire_owned().await.ok()?;
        Some(Room { permit, cell: self.0.clone() })
    }

    /// A future that ends when there is room, or the mailbox is closed; for [`crate::Lease::postpone_from`].
    pub fn room(&self) -> impl Future<Output = ()> + 'static {
        let room = self.0.room.clone();
        async move {
            let _ = room.acquire_owned().await;
        }
    }

    /// Everything that this mailbox has taken so far. Drawn at the border for a message to another actor, it keeps the
    /// order between the two: that actor holds the message back until [`reached`](Self::reached).
    #[must_use]
    pub fn ticket(&self) -> Ticket {
        Ticket(lock(&self.0.queue).accepted)
    }

    /// Whether all that the ticket of this mailbox names is settled, or in quarantine.
    #[must_use]
    pub fn reached(&self, ticket: Ticket) -> bool {
        lock(&self.0.queue).settled() >= ticket.0
    }

    /// Ends when the ticket is [reached](Self::reached); for [`crate::Lease::postpone_from`].
    pub fn until(&self, ticket: Ticket) -> impl Future<Output = ()> + 'static
    where
        M: 'static,
    {
        let mailbox = self.clone();
        async move {
            loop {
                let freed = mailbox.0.freed.notified();
                tokio::pin!(freed);
                freed.as_mut().enable();
                if mailbox.reached(ticket) {
                    return;
                }
                freed.await;
            }
        }
    }

    /// What the page reads.
    #[must_use]
    pub fn observe(&self) -> Arc<dyn Observable> {
        self.0.clone()
    }
}

/// Room for one message; goes back when it is dropped unused.
pub struct Room<M> {
    permit: OwnedSemaphorePermit,
    cell: Arc<Cell<M>>,
}

impl<M: Mail> Room<M> {
    /// Sends; cannot fail.
    pub fn send(self, meta: Meta, message: M) -> MsgId {
        self.permit.forget();
        self.cell.push(meta, message)
    }
}

/// Several mailboxes of one kind of message (a beehive group, manual ch. 6.5.2).
#[derive(Clone, Debug)]
pub struct Group<M>(Vec<Handle<M>>);

impl<M: Mail + Clone> Group<M> {
    /// A group of these members.
    #[must_use]
    pub fn new(members: Vec<Handle<M>>) -> Self {
        Self(members)
    }

    /// Sends to every member that has room and returns how many took it (beehive's `Send2Group`, manual ch. 6.6.2).
    pub fn try_send(&self, message: &M) -> usize {
        self.0.iter().filter(|h| h.try_send(message.clone()).is_ok()).count()
    }
}
