//! What stands behind a mailbox: the queue, what is in hand, the counters. Older and younger than any actor that reads it.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;

use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use crate::drill::Drill;
use crate::mail::{Entry, Mail, Meta, MsgId, Ticket};
use crate::mailbox::weight;
use crate::queue::{Batch, Blame, Desk, Inbox, Item};
use crate::registry::Registry;
use crate::stats::Stats;

/// Reads what a module publishes about itself.
pub(crate) type Snapshot = dyn Fn() -> serde_json::Value + Send + Sync;

/// Permits of settled messages are given back together, up to this many: the semaphore's own lock is taken once for them.
const RELEASED_TOGETHER: usize = 64;

pub(crate) struct Cell<M> {
    pub(crate) name: &'static str,
    capacity: AtomicUsize,
    bytes_max: AtomicUsize,
    pub(crate) room: Arc<Semaphore>,
    /// Permits that a smaller capacity still has to take out of circulation.
    owed: AtomicUsize,
    freed: Notify,
    /// How many wait for `freed`.
    watchers: AtomicUsize,
    /// Taken before `inbox` where both are.
    pub(crate) desk: Mutex<Desk<M>>,
    pub(crate) inbox: Mutex<Inbox<M>>,
    /// Number of the living incarnation. Moves only under the lock of `desk`.
    pub(crate) epoch: Arc<AtomicU64>,
    /// Where this mailbox is seen; set when it first gets a supervisor.
    pub(crate) registry: OnceLock<Registry>,
    pub(crate) snapshot: Mutex<Option<Arc<Snapshot>>>,
    pub(crate) drill: Mutex<Option<Drill>>,
    pub(crate) stats: Stats,
}

pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing under these locks can panic half-way: each holds for a push or a pop.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the pump gets when it asks for the next batch.
pub(crate) enum Take<M> {
    Batch(Arc<Batch<M>>),
    Empty,
    /// Another incarnation lives.
    Fenced,
    /// Closed and drained.
    Finished,
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
            watchers: AtomicUsize::new(0),
            desk: Mutex::default(),
            inbox: Mutex::default(),
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
        self.tell_watchers();
    }

    /// Permits go back into circulation, as far as none are owed to a smaller capacity.
    pub(crate) fn give_back(&self, permits: usize) {
        let mut paid = 0;
        if self.owed.load(Ordering::Relaxed) > 0 {
            let pay = |owed: usize| {
                paid = owed.min(permits);
                Some(owed - paid)
            };
            let _ = self.owed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, pay);
        }
        if permits > paid {
            self.room.add_permits(permits - paid);
        }
    }

    /// Wakes who waits for bytes or for a ticket. What they wait for was changed under a lock that they take, too: so
    /// either they see the change, or this sees them.
    fn tell_watchers(&self) {
        if self.watchers.load(Ordering::SeqCst) > 0 {
            self.freed.notify_waiters();
        }
    }

    /// Ends when `is` holds; looks again whenever something was settled.
    pub(crate) async fn watch(&self, is: impl Fn(&Self) -> bool) {
        struct Watcher<'c>(&'c AtomicUsize);
        impl Drop for Watcher<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::SeqCst);
            }
        }
        self.watchers.fetch_add(1, Ordering::SeqCst);
        let _watcher = Watcher(&self.watchers);
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            if is(self) {
                return;
            }
            freed.await;
        }
    }

    pub(crate) fn has_bytes(&self, more: usize) -> bool {
        let held = lock(&self.inbox).bytes;
        self.fits(held, more)
    }

    /// One message above the limit is taken if the mailbox is empty.
    fn fits(&self, held: usize, more: usize) -> bool {
        held == 0 || held.saturating_add(more) <= self.bytes_max.load(Ordering::Relaxed)
    }

    /// Messages taken so far.
    pub(crate) fn accepted(&self) -> u64 {
        lock(&self.inbox).accepted
    }

    /// Those of them that are handled, or in quarantine; they leave in the order in which they came.
    pub(crate) fn settled(&self) -> u64 {
        lock(&self.desk).settled
    }

    pub(crate) fn depth(&self) -> usize {
        let desk = lock(&self.desk);
        desk.waiting.len() + lock(&self.inbox).items.len()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.room.is_closed()
    }

    /// No further message is taken; the actor ends once it has drained.
    pub(crate) fn close(&self) {
        // Before the lock: who looks at the bytes under it afterwards sees that the mailbox is closed, too.
        self.room.close();
        lock(&self.inbox).closed = true;
        self.tell_watchers();
        self.wake();
    }

    pub(crate) fn wake(&self) {
        let waker = lock(&self.inbox).waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Registers the pump's waker for a ping while it waits for something else than a message.
    pub(crate) fn keep_waker(&self, waker: &Waker) {
        lock(&self.inbox).waker = Some(waker.clone());
    }

    /// The memory of a flood that is over goes back.
    pub(crate) fn tidy(&self) {
        lock(&self.desk).tidy();
        lock(&self.inbox).tidy();
    }
}

impl<M: Mail> Cell<M> {
    /// Queues a message for which there is a permit. `limited`: unless there is no room for its bytes; then it is given
    /// back.
    pub(crate) fn push(&self, mut meta: Meta, message: M, limited: bool) -> Result<MsgId, (Meta, M)> {
        let id = meta.id;
        let bytes = weight(&meta, &message);
        let waker = {
            let mut inbox = lock(&self.inbox);
            if limited && !self.fits(inbox.bytes, bytes) {
                return Err((meta, message));
            }
            inbox.bytes += bytes;
            inbox.accepted += 1;
            meta.place = Ticket(inbox.accepted);
            inbox.items.push_back(Item::Own(Entry { meta, message, attempts: AtomicU32::new(0), bytes }));
            inbox.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(id)
    }

    pub(crate) fn take(&self, max: usize, epoch: u64, waker: &Waker, now: impl FnOnce() -> Instant) -> Take<M> {
        let mut desk = lock(&self.desk);
        if self.epoch.load(Ordering::Relaxed) != epoch {
            return Take::Fenced;
        }
        if desk.waiting.len() < max {
            let mut inbox = lock(&self.inbox);
            if !desk.waiting.is_empty() {
                desk.waiting.append(&mut inbox.items);
            } else if !inbox.items.is_empty() {
                std::mem::swap(&mut desk.waiting, &mut inbox.items);
            } else if inbox.closed {
                return Take::Finished;
            } else {
                if !inbox.waker.as_ref().is_some_and(|w| w.will_wake(waker)) {
                    inbox.waker = Some(waker.clone());
                }
                return Take::Empty;
            }
        }
        match desk.take(max) {
            Some(batch) => {
                self.stats.in_hand_since.store(self.stats.at(now()) + 1, Ordering::Relaxed);
                Take::Batch(batch)
            }
            None => Take::Empty,
        }
    }

    /// A lease ends: `settled` of its messages are done; the rest goes back to the front. `blame` counts a death
    /// against the rest, or, if the handler settles one by one, against the first of the rest.
    pub(crate) fn finish(&self, epoch: u64, batch: &Arc<Batch<M>>, settled: usize, blame: Blame, began: Instant, now: Instant) {
        let release = {
            let mut desk = lock(&self.desk);
            if self.epoch.load(Ordering::Relaxed) != epoch {
                return; // Fenced: the messages were put back when the epoch moved.
            }
            desk.in_hand = None;
            desk.put_back(batch, settled..batch.len(), blame);
            desk.settled += settled as u64;
            desk.unreleased += settled;
            let stats = &self.stats;
            let at = stats.at(now);
            stats.in_hand_since.store(0, Ordering::Relaxed);
            stats.idle_since.store(at, Ordering::Relaxed);
            if settled > 0 {
                // The only writer is whoever holds the desk.
                stats.handled.store(stats.handled.load(Ordering::Relaxed) + settled as u64, Ordering::Relaxed);
                stats.took.record(now.duration_since(began) / u32::try_from(settled).unwrap_or(u32::MAX));
            }
            let together = (self.capacity.load(Ordering::Relaxed) / 8).clamp(1, RELEASED_TOGETHER);
            if desk.waiting.is_empty() || desk.unreleased >= together { std::mem::take(&mut desk.unreleased) } else { 0 }
        };
        if settled > 0 {
            let bytes: usize = batch.entries(0..settled).map(|entry| entry.bytes).sum();
            if bytes > 0 {
                lock(&self.inbox).bytes -= bytes;
            }
        }
        if release > 0 {
            self.give_back(release);
        }
        self.tell_watchers();
    }
}
