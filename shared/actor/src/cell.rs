//! What stands behind a mailbox: the queue, what is in hand, the counters. Older and younger than any actor that reads it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};

use crate::drill::Drill;
use crate::mail::{Entry, Mail, Meta, MsgId};
use crate::registry::Registry;
use crate::stats::Stats;

/// Deaths that a message may cause before it goes to the quarantine.
pub(crate) const ATTEMPTS_MAX: u32 = 3;

/// Reads what a module publishes about itself.
pub(crate) type Snapshot = dyn Fn() -> serde_json::Value + Send + Sync;

pub(crate) struct Cell<M> {
    pub(crate) name: &'static str,
    capacity: AtomicUsize,
    bytes_max: AtomicUsize,
    pub(crate) room: Arc<Semaphore>,
    /// Permits that a smaller capacity still has to take out of circulation.
    owed: AtomicUsize,
    pub(crate) freed: Notify,
    pub(crate) queue: Mutex<Queue<M>>,
    /// Number of the living incarnation. Moves only under the lock of `queue`.
    pub(crate) epoch: Arc<AtomicU64>,
    /// Where this mailbox is seen; set when it first gets a supervisor.
    pub(crate) registry: OnceLock<Registry>,
    pub(crate) snapshot: Mutex<Option<Arc<Snapshot>>>,
    pub(crate) drill: Mutex<Option<Drill>>,
    pub(crate) stats: Stats,
}

pub(crate) struct Queue<M> {
    pub(crate) waiting: VecDeque<Arc<Entry<M>>>,
    pub(crate) in_hand: Vec<Arc<Entry<M>>>,
    pub(crate) waker: Option<Waker>,
    pub(crate) closed: bool,
    /// What was in hand at the last death.
    pub(crate) blamed: Vec<MsgId>,
    /// What died too often and waits for its supervisor to bury it.
    pub(crate) doomed: Vec<Arc<Entry<M>>>,
    /// Messages taken since the mailbox was made.
    accepted: u64,
}

impl<M> Queue<M> {
    /// Messages that are settled or quarantined; they leave in the order in which they came.
    fn settled(&self) -> u64 {
        self.accepted - (self.waiting.len() + self.in_hand.len()) as u64
    }

    /// Puts what a lease leaves behind back to the front; what died too often is doomed.
    pub(crate) fn put_back(&mut self, rest: &[Arc<Entry<M>>], blame: Blame) {
        for (index, entry) in rest.iter().enumerate().rev() {
            let blamed = match blame {
                Blame::Nobody => false,
                Blame::First => index == 0,
                Blame::All => true,
            };
            if blamed {
                self.blamed.push(entry.meta.id);
            }
            if blamed && entry.attempts.fetch_add(1, Ordering::Relaxed) + 1 >= ATTEMPTS_MAX {
                self.doomed.push(entry.clone());
            } else {
                self.waiting.push_front(entry.clone());
            }
        }
    }
}

pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
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

/// Against whom the death of an actor is counted.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Blame {
    Nobody,
    First,
    All,
}

impl<M> Cell<M> {
    pub(crate) fn new(name: &'static str, capacity: usize, bytes_max: usize) -> Self {
        Self {
            name,
            capacity: AtomicUsize::new(capacity),
            bytes_max: AtomicUsize::new(bytes_max),
            room: Arc::new(Semaphore::new(capacity)),
            owed: AtomicUsize::new(0),
            freed: Notify::new(),
            queue: Mutex::new(Queue {
                waiting: VecDeque::new(),
                in_hand: Vec::new(),
                waker: None,
                closed: false,
                blamed: Vec::new(),
                doomed: Vec::new(),
                accepted: 0,
            }),
            epoch: Arc::new(AtomicU64::new(0)),
            registry: OnceLock::new(),
            snapshot: Mutex::new(None),
            drill: Mutex::new(None),
            stats: Stats::default(),
        }
    }

    /// Messages that may wait or be in hand, and bytes.
    pub(crate) fn limits(&self) -> (usize, usize) {
        (self.capacity.load(Ordering::Relaxed), self.bytes_max.load(Ordering::Relaxed))
    }

    /// Changes the limits. What is above a smaller one stays and is worked off.
    pub(crate) fn set_limits(&self, capacity: usize, bytes_max: usize) {
        self.bytes_max.store(bytes_max, Ordering::Relaxed);
        let before = self.capacity.swap(capacity, Ordering::Relaxed);
        if capacity > before {
            self.give_back(capacity - before);
        } else {
            let taken = self.room.forget_permits(before - capacity);
            self.owed.fetch_add(before - capacity - taken, Ordering::Relaxed);
        }
        self.freed.notify_waiters();
    }

    /// Permits go back into circulation, as far as none are owed to a smaller capacity.
    fn give_back(&self, permits: usize) {
        let mut paid = 0;
        if self.owed.load(Ordering::Relaxed) > 0 {
            let pay = |owed: usize| {
                paid = owed.min(permits);
                Some(owed - paid)
            };
            let _ = self.owed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, pay);
        }
        self.room.add_permits(permits - paid);
    }
}

impl<M: Mail> Cell<M> {
    pub(crate) fn push(&self, meta: Meta, message: M) -> MsgId {
        let id = meta.id;
        let bytes = message.bytes() + meta.ingress.as_ref().map_or(0, |i| i.payload.len());
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

    /// Messages taken so far.
    pub(crate) fn accepted(&self) -> u64 {
        lock(&self.queue).accepted
    }

    /// Those of them that are handled, or in quarantine.
    pub(crate) fn settled(&self) -> u64 {
        lock(&self.queue).settled()
    }

    pub(crate) fn has_bytes(&self, more: usize) -> bool {
        let held = self.stats.bytes.load(Ordering::Relaxed);
        held == 0 || held.saturating_add(more) <= self.bytes_max.load(Ordering::Relaxed)
    }

    /// The room of finished messages is free again.
    pub(crate) fn release(&self, entries: usize, bytes: usize) {
        self.stats.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.give_back(entries);
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

    /// Registers the pump's waker for a ping while it waits for something else than a message.
    pub(crate) fn keep_waker(&self, waker: &Waker) {
        lock(&self.queue).waker = Some(waker.clone());
    }

    /// A lease ends: `settled` of its messages are done; the rest goes back to the front. `blame` counts a death
    /// against the rest, or, if the handler settles one by one, against the first of the rest.
    pub(crate) fn finish(&self, epoch: u64, batch: &[Arc<Entry<M>>], settled: usize, blame: Blame, took: Duration) {
        {
            let mut queue = lock(&self.queue);
            if self.epoch.load(Ordering::Relaxed) != epoch {
                return; // Fenced: the messages were put back when the epoch moved.
            }
            queue.in_hand.clear();
            queue.put_back(&batch[settled..], blame);
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
    }
}
