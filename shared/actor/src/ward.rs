//! A mailbox as its supervisor and the page see it: without the type of its messages.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::Quarantined;
use crate::cell::{Blame, Cell, Snapshot, lock};
use crate::drill::Drill;
use crate::mail::{Mail, MsgId, now_ms};
use crate::registry::{Bucket, EventKind, Observable, Registry, State, View};
use crate::stats::{DRILL, Stats};

/// What the supervisor may do with a mailbox.
pub(crate) trait Ward: Observable {
    fn stats(&self) -> &Stats;
    /// Becomes visible in that registry; the first one counts.
    fn adopt(&self, registry: &Registry);
    fn set_snapshot(&self, snapshot: Option<Arc<Snapshot>>);
    /// Begins the next incarnation: what was in hand goes back to the front, and every older lease and fence is void.
    fn next_epoch(&self, blame: bool) -> u64;
    /// After a death: what was in hand; and which of it goes into quarantine now, with these last words.
    fn bury(&self, words: &str) -> (Vec<MsgId>, Vec<MsgId>);
    fn wake(&self);
    /// Takes no further message; the actor ends once it has drained.
    fn close(&self);
    /// Gives the next poll of the pump something to suffer from.
    fn drill(&self, drill: Drill);
}

impl<M: Mail> Ward for Cell<M> {
    fn stats(&self) -> &Stats {
        &self.stats
    }

    fn adopt(&self, registry: &Registry) {
        let _ = self.registry.set(registry.clone());
    }

    fn set_snapshot(&self, snapshot: Option<Arc<Snapshot>>) {
        *lock(&self.snapshot) = snapshot;
    }

    fn next_epoch(&self, blame: bool) -> u64 {
        let epoch = {
            let mut queue = lock(&self.queue);
            let rest = std::mem::take(&mut queue.in_hand);
            queue.put_back(&rest, if blame { Blame::All } else { Blame::Nobody });
            queue.waker = None;
            self.epoch.fetch_add(1, Ordering::AcqRel) + 1
        };
        self.stats.in_hand_since.store(0, Ordering::Relaxed);
        epoch
    }

    fn bury(&self, words: &str) -> (Vec<MsgId>, Vec<MsgId>) {
        let (blamed, doomed) = {
            let mut queue = lock(&self.queue);
            (std::mem::take(&mut queue.blamed), std::mem::take(&mut queue.doomed))
        };
        let buried = doomed.iter().map(|entry| entry.meta.id).collect();
        for entry in doomed {
            let quarantined = Quarantined {
                id: entry.meta.id.to_string(),
                parent: entry.meta.parent.map(|parent| parent.to_string()),
                actor: self.name.to_owned(),
                kind: entry.message.kind().to_owned(),
                source: entry.meta.source.to_owned(),
                text: entry.message.describe(),
                last_words: words.to_owned(),
                at_ms: now_ms(),
                ingress: entry.meta.ingress.as_deref().cloned(),
            };
            log::error!(actor = self.name, id = quarantined.id.as_str(), kind = quarantined.kind.as_str(); "message quarantined: its actor died of it three times");
            self.stats.quarantined.fetch_add(1, Ordering::Relaxed);
            if let Some(registry) = self.registry.get() {
                registry.note(self.name, EventKind::Quarantined, format!("message {} ({}): {words}", quarantined.id, quarantined.kind));
                registry.quarantine().put(quarantined);
            }
            self.release(1, entry.bytes);
        }
        (blamed, buried)
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
        self.freed.notify_waiters();
        self.wake();
    }

    fn drill(&self, drill: Drill) {
        *lock(&self.drill) = Some(drill);
        self.stats.signals.fetch_or(DRILL, Ordering::Release);
        self.wake();
    }
}

impl<M: Mail> Observable for Cell<M> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn view(&self) -> View {
        let (depth, in_hand) = {
            let queue = lock(&self.queue);
            (queue.waiting.len(), queue.in_hand.first().map(|e| (e.message.kind(), e.meta.id)))
        };
        let s = &self.stats;
        let now = s.now();
        let since = s.in_hand_since.load(Ordering::Relaxed);
        let in_hand = in_hand.filter(|_| since > 0);
        let (last_words, last_words_at_ms) = s.words();
        let (capacity, bytes_max) = self.limits();
        View {
            name: self.name.to_owned(),
            parent: s.parent(),
            state: State::from_raw(s.state.load(Ordering::Relaxed)),
            epoch: self.epoch.load(Ordering::Relaxed),
            depth,
            capacity,
            bytes: s.bytes.load(Ordering::Relaxed),
            bytes_max,
            handled: s.handled.load(Ordering::Relaxed),
            per_second: 0.0,
            failed: s.failed.load(Ordering::Relaxed),
            refused: s.refused.load(Ordering::Relaxed),
            quarantined: s.quarantined.load(Ordering::Relaxed),
            in_quarantine: self.registry.get().map_or(0, |registry| registry.quarantine().count(self.name)),
            restarts: s.restarts.load(Ordering::Relaxed),
            panics: s.panics.load(Ordering::Relaxed),
            hangs: s.hangs.load(Ordering::Relaxed),
            in_hand: in_hand.map(|(kind, _)| kind),
            in_hand_id: in_hand.map(|(_, id)| id.to_string()),
            in_hand_ms: if since > 0 { (now + 1).saturating_sub(since) } else { 0 },
            idle_ms: if since > 0 { 0 } else { now.saturating_sub(s.idle_since.load(Ordering::Relaxed)) },
            p50_us: s.took.quantile_us(0.5),
            p99_us: s.took.quantile_us(0.99),
            last_words,
            last_words_at_ms,
        }
    }

    fn histogram(&self) -> Vec<Bucket> {
        self.stats.took.buckets()
    }

    fn snapshot(&self) -> Option<serde_json::Value> {
        let read = lock(&self.snapshot).clone();
        read.map(|read| read())
    }

    fn sample(&self) -> (u64, usize) {
        (self.stats.handled.load(Ordering::Relaxed), lock(&self.queue).waiting.len())
    }
}
