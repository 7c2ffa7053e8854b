//! One child: how it starts, ends, dies, and is fenced.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use actix::{AsyncContext, Context};
use tokio::time::Instant;

use super::{Above, Child, Ending, Phase, Supervision, start};
use crate::cell::lock;
use crate::child::{Birth, ChildSpec, Exit, Life, What, Why};
use crate::mail::MsgId;
use crate::registry::{EventKind, State};
use crate::restart::{Intensity, Restart, Verdict};
use crate::stats::PING;

impl Supervision {
    pub(super) fn put(&mut self, spec: Arc<ChildSpec>) -> u64 {
        let key = self.next_key;
        self.next_key += 1;
        if let What::Actor(actor) = &spec.what {
            actor.ward.adopt(&self.registry);
            self.registry.add(actor.observe.clone());
        }
        self.children.push(Child { key, spec, life: None, ending: None, deaths: Intensity::default(), epoch: 0 });
        key
    }

    pub(super) fn index(&self, key: u64) -> Option<usize> {
        self.children.iter().position(|child| child.key == key)
    }

    pub(super) fn boot(&mut self, key: u64) {
        let Some(index) = self.index(key) else { return };
        let child = &mut self.children[index];
        let spec = child.spec.clone();
        match &spec.what {
            What::Actor(actor) => {
                let ward = &actor.ward;
                let stats = ward.stats();
                let first = stats.state.load(Ordering::Relaxed) == State::Down as u32;
                let epoch = ward.next_epoch(false);
                stats.pong.store(stats.now(), Ordering::Relaxed);
                stats.signals.fetch_and(!PING, Ordering::Relaxed);
                *lock(&stats.parent) = self.name;
                ward.set_snapshot(actor.snapshot.clone());
                let state = if actor.disabled { State::Disabled } else { State::Up };
                stats.state.store(state as u32, Ordering::Relaxed);
                if !first {
                    stats.restarts.fetch_add(1, Ordering::Relaxed);
                }
                child.life = Some(actor.boot(Birth { child: key, epoch, report: self.report.clone() }));
                let kind = if first { EventKind::Started } else { EventKind::Restarted };
                let text =
                    if actor.disabled { "not enabled: what is sent to it is forgotten".to_owned() } else { format!("incarnation {epoch} is up") };
                self.note(spec.name(), kind, text);
            }
            What::Tree(tree) => {
                child.epoch += 1;
                let epoch = child.epoch;
                let above = Above::Supervisor { parent: self.name, child: key, epoch, report: self.report.clone() };
                child.life = Some(Life::tree(epoch, start(tree.0.clone(), self.registry.clone(), above)));
            }
        }
    }

    pub(super) fn exited(&mut self, exit: Exit, ctx: &mut Context<Self>) {
        let Some(index) = self.index(exit.child) else { return };
        let child = &mut self.children[index];
        if child.life.as_ref().is_none_or(|life| life.epoch != exit.epoch) {
            // A thread that was left behind has ended after all.
            self.zombies = self.zombies.saturating_sub(1);
            return;
        }
        child.life = None;
        let spec = child.spec.clone();
        let ending = child.ending.take();
        if let (Why::Panic(words), What::Actor(actor)) = (&exit.why, &spec.what) {
            actor.ward.stats().panics.fetch_add(1, Ordering::Relaxed);
            actor.ward.stats().note_words(words);
        }
        let ended_well = exit.why == Why::Normal;
        let words = match exit.why {
            Why::Normal => "ended by itself".to_owned(),
            Why::Panic(words) => format!("panic: {words}"),
            Why::Killed => "was ended by its supervisor".to_owned(),
            Why::Escalated(why) => why,
        };
        if matches!(self.phase, Phase::Stopping(_) | Phase::Ending(_)) {
            self.bury(&spec, &words);
            self.note_stopped(&spec);
            return self.stop_next(ctx);
        }
        match ending {
            Some(ending) => {
                self.bury(&spec, &words);
                self.ended_on_purpose(exit.child, &spec, ending, ctx);
            }
            None => self.died(exit.child, words, ended_well, ctx),
        }
    }

    /// A child that was meant to end has ended, or its thread was left behind.
    fn ended_on_purpose(&mut self, key: u64, spec: &ChildSpec, ending: Ending, ctx: &mut Context<Self>) {
        match ending {
            Ending::Restart if self.is_gathered(key) => self.start_with_siblings(key),
            Ending::Restart => self.boot(key),
            Ending::WithSibling => {}
            Ending::Remove(answer) => {
                self.note_stopped(spec);
                self.forget(key);
                let _ = answer.send(Ok(()));
            }
        }
        self.gather(ctx);
    }

    /// A child that nobody asked to end has ended.
    pub(super) fn died(&mut self, key: u64, words: String, ended_well: bool, ctx: &mut Context<Self>) {
        let Some(index) = self.index(key) else { return };
        let spec = self.children[index].spec.clone();
        let (in_hand, buried) = self.bury(&spec, &words);
        let again = match spec.restart {
            Restart::Permanent => true,
            Restart::Transient => !ended_well,
            Restart::Temporary => false,
        };
        if !again {
            self.note(spec.name(), if ended_well { EventKind::Stopped } else { EventKind::Died }, format!("{words}; not started again"));
            self.set_state(&spec, State::Stopped);
            return;
        }
        match self.children[index].deaths.died(&self.policy, Instant::now(), in_hand, &buried) {
            Verdict::RestartAfter(pause) => {
                let when = if pause.is_zero() { String::new() } else { format!("; again in {} ms", pause.as_millis()) };
                self.note(spec.name(), EventKind::Died, format!("{words}{when}"));
                self.set_state(&spec, State::BackingOff);
                self.restart_with_siblings(key, pause, ctx);
            }
            Verdict::Escalate => {
                self.note(spec.name(), EventKind::Died, words.clone());
                self.set_state(&spec, State::GaveUp);
                let (most, period) = (self.policy.intensity, self.policy.period.as_secs());
                self.escalate(&spec, format!("{} died more than {most} times in {period} s; the last time: {words}", spec.name()), ctx);
            }
        }
    }

    pub(super) fn bury(&self, spec: &ChildSpec, words: &str) -> (Vec<MsgId>, Vec<MsgId>) {
        match &spec.what {
            What::Actor(actor) => actor.ward.bury(words),
            What::Tree(_) => (Vec::new(), Vec::new()),
        }
    }

    pub(super) fn set_state(&self, spec: &ChildSpec, state: State) {
        if let What::Actor(actor) = &spec.what {
            actor.ward.stats().state.store(state as u32, Ordering::Relaxed);
        }
    }

    pub(super) fn note_stopped(&self, spec: &ChildSpec) {
        self.set_state(spec, State::Stopped);
        self.note(spec.name(), EventKind::Stopped, "stopped".to_owned());
    }

    pub(super) fn forget(&mut self, key: u64) {
        if let Some(index) = self.index(key) {
            let child = self.children.remove(index);
            lock(&self.plan.children).retain(|spec| !Arc::ptr_eq(spec, &child.spec));
            self.registry.remove(child.spec.name());
        }
    }

    /// Aborts a child, and fences it if it does not end within the grace.
    pub(super) fn abort(&self, key: u64, ctx: &mut Context<Self>) {
        let Some(index) = self.index(key) else { return };
        let Some(life) = &self.children[index].life else { return };
        life.abort();
        let epoch = life.epoch;
        ctx.run_later(self.policy.kill_grace, move |this, ctx| {
            this.guarded(ctx, |this, ctx| this.fence(key, epoch, ctx));
        });
    }

    /// The incarnation did not end after its abort: its thread is blocked and is left behind.
    pub(super) fn fence(&mut self, key: u64, epoch: u64, ctx: &mut Context<Self>) {
        let Some(index) = self.index(key) else { return };
        let child = &mut self.children[index];
        if child.life.as_ref().is_none_or(|life| life.epoch != epoch) {
            return;
        }
        let spec = child.spec.clone();
        let What::Actor(actor) = &spec.what else { return };
        if let Some(life) = child.life.take() {
            life.leave_behind();
        }
        let blame = child.ending.is_none();
        actor.ward.next_epoch(blame);
        self.zombies += 1;
        if matches!(self.phase, Phase::Stopping(_) | Phase::Ending(_)) {
            self.note_stopped(&spec);
            return self.stop_next(ctx);
        }
        if self.zombies > self.policy.zombies_max {
            self.set_state(&spec, State::GaveUp);
            return self.escalate(&spec, format!("{} threads are blocked", self.zombies), ctx);
        }
        let words = "its thread is blocked and was left behind".to_owned();
        match self.children[index].ending.take() {
            Some(ending) => self.ended_on_purpose(key, &spec, ending, ctx),
            None => self.died(key, words, false, ctx),
        }
        self.publish(self.state());
    }
}
