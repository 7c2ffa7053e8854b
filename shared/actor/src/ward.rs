//! A mailbox as its supervisor and the page see it: without the type of its messages.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::Quarantined;
use crate::cell::{Cell, Snapshot, lock};
use crate::drill::Drill;
use crate::mail::{Mail, MsgId, now_ms};
use crate::queue::Blame;
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
        let (epoch, release) = {
            let mut desk = lock(&self.desk);
            if let Some(batch) = desk.in_hand.take() {
                desk.put_back(&batch, 0..batch.len(), if blame { Blame::All } else { Blame::Nobody });
            }
            lock(&self.inbox).waker = None;
            self.stats.in_hand_since.store(0, Ordering::Relaxed);
            (self.epoch.fetch_add(1, Ordering::AcqRel) + 1, std::mem::take(&mut desk.unreleased))
        };
        self.give_back(release);
        epoch
    }

    fn bury(&self, words: &str) -> (Vec<MsgId>, Vec<MsgId>) {
        let (blamed, doomed) = {
            let mut desk = lock(&self.desk);
            (std::mem::take(&mut desk.blamed), std::mem::take(&mut desk.doomed))
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
            lock(&self.inbox).bytes -= entry.bytes;
            self.give_back(1);
        }
        (blamed, buried)
    }

    fn wake(&self) {
        Cell::wake(self);
    }

    fn close(&self) {
        Cell::close(self);
    }

    fn drill(&self, drill: Drill) {
        *lock(&self.drill) = Some(drill);
        self.stats.signals.fetch_or(DRILL, Ordering::Release);
        Cell::wake(self);
    }
}

impl<M: Mail> Observable for Cell<M> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn view(&self) -> View {
        let (depth, bytes, in_hand) = {
            let desk = lock(&self.desk);
            let in_hand = desk.in_hand.as_ref().map(|batch| (batch.entry(0).message.kind(), batch.entry(0).meta.id));
            let inbox = lock(&self.inbox);
            (desk.waiting.len() + inbox.items.len(), inbox.bytes, in_hand)
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
            bytes,
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
        (self.stats.handled.load(Ordering::Relaxed), self.depth())
    }
}
