//! What stands behind a mailbox: the queue, what is in hand, the quarantine, the counters. Older and younger than any actor
//! that reads it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use crate::histogram::Histogram;
use crate::mail::{Entry, Mail, Meta, MsgId, now_ms};
use crate::registry::{Observable, State, View};

/// Deaths that a message may cause before it goes to the quarantine.
pub(crate) const ATTEMPTS_MAX: u32 = 3;
/// Messages kept in one actor's quarantine; the oldest goes first.
const QUARANTINE_MAX: usize = 64;
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
    pub(crate) room: Arc<Semaphore>,
    pub(crate) freed: Notify,
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
    pub(crate) complaint: Mutex<Complaint>,
}

/// ms between two log lines of an error that goes on.
const COMPLAINT_PERIOD: u64 = 10_000;

/// The error that a handler reported last, so that one that goes on does not fill the log.
#[derive(Default)]
pub(crate) struct Complaint {
    text: String,
    /// ms after `born` of its last line.
    said: u64,
    unsaid: u64,
}

impl Complaint {
    /// Is this error worth a line? Then with how many of the same went without one since the last.
    pub(crate) fn heard(&mut self, text: &str, now: u64) -> Option<u64> {
        if self.text == text && now.saturating_sub(self.said) < COMPLAINT_PERIOD {
            self.unsaid += 1;
            return None;
        }
        let unsaid = if self.text == text { self.unsaid } else { 0 };
        *self = Self { text: text.to_owned(), said: now, unsaid: 0 };
        Some(unsaid)
    }
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
            complaint: Mutex::default(),
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

impl<M> Cell<M> {
    pub(crate) fn new(name: &'static str, capacity: usize, bytes_max: usize) -> Self {
        Self {
            name,
            capacity,
            bytes_max,
            room: Arc::new(Semaphore::new(capacity)),
            freed: Notify::new(),
            queue: Mutex::new(Queue { waiting: VecDeque::new(), in_hand: Vec::new(), waker: None, closed: false, blamed: Vec::new(), accepted: 0 }),
            epoch: Arc::new(AtomicU64::new(0)),
            quarantine: Mutex::new(VecDeque::new()),
            stats: Stats::default(),
        }
    }
}

impl<M: Mail> Cell<M> {
    pub(crate) fn push(&self, meta: Meta, message: M) -> MsgId {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_that_goes_on_gets_one_line_in_ten_seconds_and_another_error_gets_its_own() {
        let mut complaint = Complaint::default();
        assert_eq!(complaint.heard("disk full", 5), Some(0));
        assert_eq!((6..1_000).filter_map(|now| complaint.heard("disk full", now)).count(), 0);
        assert_eq!(complaint.heard("disk full", 10_005), Some(994));
        assert_eq!(complaint.heard("another", 10_006), Some(0));
        assert_eq!(complaint.heard("disk full", 10_007), Some(0));
    }
}
