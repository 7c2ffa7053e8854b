//! The supervisor at work: starts, watches, restarts, gives up, and stops in order.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix::{Actor, ActorContext, AsyncContext, Context, StreamHandler};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::cell::lock;
use crate::child::{Birth, ChildSpec, Exit, Life, What, Why};
use crate::command::{Answer, Command, ControlError};
use crate::drill::{self, Drill};
use crate::history;
use crate::mail::MsgId;
use crate::panic;
use crate::registry::{EventKind, Registry, State, TreeView};
use crate::restart::{Intensity, Policy, Restart, Strategy, Verdict};
use crate::stats::PING;
use crate::supervisor::Plan;

/// Beats that the root supervisor may miss before the process counts as unwatched.
const BEATS_MISSED_MAX: u32 = 3;
/// On top of that, for a machine that is busy.
const BEAT_GRACE: Duration = Duration::from_secs(10);

/// Who hears that a supervisor gave up or died.
pub(crate) enum Above {
    Process(Box<dyn FnOnce(String)>),
    Supervisor { parent: &'static str, child: u64, epoch: u64, report: mpsc::UnboundedSender<Command> },
}

/// Starts a supervisor on the running actix system, in a task that is watched as those of actors are.
pub(crate) fn start(plan: Arc<Plan>, registry: Registry, above: Above) -> mpsc::UnboundedSender<Command> {
    let (commands, mut inbox) = mpsc::unbounded_channel();
    let end: Rc<RefCell<Option<Why>>> = Rc::default();
    let parent = match &above {
        Above::Process(_) => "",
        Above::Supervisor { parent, .. } => parent,
    };
    let (policy, strategy) = (lock(&plan.policy).clone(), *lock(&plan.strategy));
    let on_escalate: OnEscalate = Rc::default();
    let report_end = match above {
        Above::Process(tell) => {
            *on_escalate.borrow_mut() = Some(tell);
            None
        }
        Above::Supervisor { child, epoch, report, .. } => Some((child, epoch, report)),
    };
    let supervision = Supervision {
        name: plan.name,
        parent,
        policy,
        strategy,
        children: Vec::new(),
        next_key: 0,
        registry,
        report: commands.clone(),
        zombies: 0,
        phase: Phase::Running,
        end: end.clone(),
        on_escalate: on_escalate.clone(),
        plan,
    };
    let mut ctx = Context::new();
    ctx.add_stream(futures_util::stream::poll_fn(move |cx| inbox.poll_recv(cx)));
    let life = actix_rt::spawn(ctx.into_future(supervision));
    actix_rt::spawn(async move {
        let ended = life.await;
        let why = match (ended, end.borrow_mut().take()) {
            (Ok(()), Some(why)) => why,
            (Ok(()), None) => Why::Normal,
            (Err(e), _) if e.is_panic() => Why::Panic(panic::last_words(&*e.into_panic())),
            (Err(_), _) => Why::Killed,
        };
        if let Some((child, epoch, report)) = report_end {
            let _ = report.send(Command::Exit(Exit { child, epoch, why }));
        } else if let Why::Panic(words) = why
            && let Some(tell) = on_escalate.borrow_mut().take()
        {
            tell(format!("the supervisor itself panicked: {words}"));
        }
    });
    commands
}

type OnEscalate = Rc<RefCell<Option<Box<dyn FnOnce(String)>>>>;

struct Child {
    key: u64,
    spec: Arc<ChildSpec>,
    life: Option<Life>,
    /// Ended on purpose, so that its end is no death; and who waits for it.
    ending: Option<Ending>,
    deaths: Intensity,
    /// Incarnations of a supervisor; an actor's are counted by its mailbox.
    epoch: u64,
}

enum Ending {
    /// The next incarnation starts when this one has ended.
    Restart,
    /// The child goes.
    Remove(Answer),
    /// A sibling died, and the strategy restarts this one too.
    WithSibling,
}

enum Phase {
    Running,
    /// Siblings of a dead child are being ended, last first; then all of `start` start again, after the pause.
    Gathering {
        start: Vec<u64>,
        pause: Duration,
    },
    Stopping(Vec<oneshot::Sender<()>>),
    /// Gave up, or was told to end at once: children are being ended, last first.
    Ending(Why),
}

struct Supervision {
    name: &'static str,
    parent: &'static str,
    policy: Policy,
    strategy: Strategy,
    plan: Arc<Plan>,
    children: Vec<Child>,
    next_key: u64,
    registry: Registry,
    report: mpsc::UnboundedSender<Command>,
    zombies: usize,
    phase: Phase,
    /// Why it ends; read by its watcher.
    end: Rc<RefCell<Option<Why>>>,
    /// Of the root: tells the process, once.
    on_escalate: OnEscalate,
}

impl Actor for Supervision {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.guarded(ctx, |this, ctx| {
            let specs = lock(&this.plan.children).clone();
            for spec in specs {
                let key = this.put(spec);
                this.boot(key);
            }
            this.timers(ctx);
        });
    }
}

impl StreamHandler<Command> for Supervision {
    fn handle(&mut self, command: Command, ctx: &mut Self::Context) {
        self.guarded(ctx, |this, ctx| this.take(command, ctx));
    }
}

impl Supervision {
    /// A panic in here must not unwind through actix, which would poll the dying supervisor again: it ends in order, its
    /// children are aborted with it, and whoever is above hears why.
    fn guarded(&mut self, ctx: &mut Context<Self>, act: impl FnOnce(&mut Self, &mut Context<Self>)) {
        let acted = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| act(self, ctx)));
        if let Err(payload) = acted {
            let words = panic::last_words(&*payload);
            log::error!(supervisor = self.name, words = words.as_str(); "the supervisor itself panicked");
            self.registry.note(self.name, EventKind::Died, format!("the supervisor itself panicked: {words}"));
            self.publish(State::GaveUp);
            self.close_with(Why::Panic(words), ctx);
        }
    }

    fn timers(&mut self, ctx: &mut Context<Self>) {
        self.ping_later(ctx);
        self.sweep_later(ctx);
        if self.is_root() {
            self.beat();
            ctx.run_interval(history::EVERY, |this, _| this.registry.sample());
        }
        self.publish(State::Up);
    }

    // Each period is read when it begins, so that a changed policy counts from the next one on.
    fn ping_later(&self, ctx: &mut Context<Self>) {
        ctx.run_later(self.policy.ping_every, |this, ctx| {
            this.guarded(ctx, |this, ctx| {
                this.ping();
                this.ping_later(ctx);
            });
        });
    }

    fn sweep_later(&self, ctx: &mut Context<Self>) {
        ctx.run_later(self.policy.sweep_every, |this, ctx| {
            this.guarded(ctx, |this, ctx| {
                this.sweep(ctx);
                this.sweep_later(ctx);
            });
        });
    }

    fn beat(&self) {
        let within = self.policy.sweep_every * BEATS_MISSED_MAX + BEAT_GRACE;
        self.registry.beat(u64::try_from(within.as_millis()).unwrap_or(u64::MAX));
    }

    fn is_root(&self) -> bool {
        self.parent.is_empty()
    }

    fn take(&mut self, command: Command, ctx: &mut Context<Self>) {
        match command {
            Command::Exit(exit) => self.exited(exit, ctx),
            Command::Restart(name, answer) => self.restart(&name, answer, ctx),
            Command::Add(spec, answer) => self.add(*spec, answer),
            Command::Remove(name, answer) => self.remove(&name, answer, ctx),
            Command::Replace(spec, answer) => self.replace(*spec, answer, ctx),
            Command::Drill(name, drill, answer) => self.drill(&name, drill, answer),
            Command::Policy(policy) => {
                for child in &self.children {
                    if let What::Tree(tree) = &child.spec.what {
                        *lock(&tree.0.policy) = (*policy).clone();
                        if let Some(Life { .. }) = &child.life {
                            self.forward(child, Command::Policy(policy.clone()));
                        }
                    }
                }
                self.policy = *policy;
            }
            Command::Kill => self.end(Why::Killed, ctx),
            Command::Shutdown(done) => self.shutdown(done, ctx),
        }
        self.publish(self.state());
    }

    // ---- one child ---------------------------------------------------------------------------------------------------

    fn put(&mut self, spec: Arc<ChildSpec>) -> u64 {
        let key = self.next_key;
        self.next_key += 1;
        if let What::Actor(actor) = &spec.what {
            actor.ward.adopt(&self.registry);
            self.registry.add(actor.observe.clone());
        }
        self.children.push(Child { key, spec, life: None, ending: None, deaths: Intensity::default(), epoch: 0 });
        key
    }

    fn index(&self, key: u64) -> Option<usize> {
        self.children.iter().position(|child| child.key == key)
    }

    fn boot(&mut self, key: u64) {
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

    fn exited(&mut self, exit: Exit, ctx: &mut Context<Self>) {
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
            Some(Ending::Restart) => {
                self.bury(&spec, &words);
                self.boot(exit.child);
            }
            Some(Ending::WithSibling) => {
                self.bury(&spec, &words);
                self.gather(ctx);
            }
            Some(Ending::Remove(answer)) => {
                self.bury(&spec, &words);
                self.note_stopped(&spec);
                self.forget(exit.child);
                let _ = answer.send(Ok(()));
            }
            None => self.died(exit.child, words, ended_well, ctx),
        }
    }

    /// A child that nobody asked to end has ended.
    fn died(&mut self, key: u64, words: String, ended_well: bool, ctx: &mut Context<Self>) {
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

    fn bury(&self, spec: &ChildSpec, words: &str) -> (Vec<MsgId>, Vec<MsgId>) {
        match &spec.what {
            What::Actor(actor) => actor.ward.bury(words),
            What::Tree(_) => (Vec::new(), Vec::new()),
        }
    }

    fn set_state(&self, spec: &ChildSpec, state: State) {
        if let What::Actor(actor) = &spec.what {
            actor.ward.stats().state.store(state as u32, Ordering::Relaxed);
        }
    }

    fn note_stopped(&self, spec: &ChildSpec) {
        self.set_state(spec, State::Stopped);
        self.note(spec.name(), EventKind::Stopped, "stopped".to_owned());
    }

    fn forget(&mut self, key: u64) {
        if let Some(index) = self.index(key) {
            let child = self.children.remove(index);
            lock(&self.plan.children).retain(|spec| !Arc::ptr_eq(spec, &child.spec));
            self.registry.remove(child.spec.name());
        }
    }

    // ---- strategies --------------------------------------------------------------------------------------------------

    fn restart_with_siblings(&mut self, key: u64, pause: Duration, ctx: &mut Context<Self>) {
        let at = self.index(key).unwrap_or(0);
        let touched = match self.strategy {
            Strategy::OneForOne => at..at + 1,
            Strategy::RestForOne => at..self.children.len(),
            Strategy::OneForAll => 0..self.children.len(),
        };
        let mut start: Vec<u64> =
            self.children[touched].iter().filter(|c| c.key == key || c.spec.restart != Restart::Temporary).map(|c| c.key).collect();
        if self.strategy == Strategy::OneForOne {
            return self.boot_after(start, pause, ctx);
        }
        // A second death while siblings are being ended: both restart together.
        let mut longest = pause;
        if let Phase::Gathering { start: earlier, pause } = &self.phase {
            start.extend(earlier);
            longest = longest.max(*pause);
        }
        self.phase = Phase::Gathering { start, pause: longest };
        self.gather(ctx);
    }

    /// Ends the last sibling that still lives; its exit leads back here. When none is left, all start again.
    fn gather(&mut self, ctx: &mut Context<Self>) {
        let Phase::Gathering { start, pause } = &self.phase else { return };
        let (mut start, pause) = (start.clone(), *pause);
        let at = |key: &u64| self.children.iter().position(|c| c.key == *key);
        let touched = start.iter().filter_map(at).min().unwrap_or(0);
        let last = self.children.iter().enumerate().skip(touched).rev().find(|(_, c)| c.life.is_some());
        match last.map(|(index, child)| (index, child.key)) {
            Some((index, key)) => {
                if self.children[index].ending.is_none() {
                    self.children[index].ending = Some(Ending::WithSibling);
                    self.abort(key, ctx);
                }
            }
            None => {
                start.sort_by_key(|key| self.index(*key));
                start.dedup();
                self.phase = Phase::Running;
                self.boot_after(start, pause, ctx);
            }
        }
    }

    fn boot_after(&mut self, keys: Vec<u64>, pause: Duration, ctx: &mut Context<Self>) {
        if pause.is_zero() {
            return keys.into_iter().for_each(|key| self.boot(key));
        }
        ctx.run_later(pause, move |this, ctx| {
            this.guarded(ctx, |this, _| {
                if matches!(this.phase, Phase::Running) {
                    for key in keys {
                        if this.index(key).is_some_and(|index| this.children[index].life.is_none()) {
                            this.boot(key);
                        }
                    }
                }
                this.publish(this.state());
            });
        });
    }

    /// Aborts a child, and fences it if it does not end within the grace.
    fn abort(&self, key: u64, ctx: &mut Context<Self>) {
        let Some(index) = self.index(key) else { return };
        let Some(life) = &self.children[index].life else { return };
        life.abort();
        let epoch = life.epoch;
        ctx.run_later(self.policy.kill_grace, move |this, ctx| {
            this.guarded(ctx, |this, ctx| this.fence(key, epoch, ctx));
        });
    }

    /// The incarnation did not end after its abort: its thread is blocked and is left behind.
    fn fence(&mut self, key: u64, epoch: u64, ctx: &mut Context<Self>) {
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
            Some(Ending::Restart) => self.boot(key),
            Some(Ending::WithSibling) => self.gather(ctx),
            Some(Ending::Remove(answer)) => {
                self.note_stopped(&spec);
                self.forget(key);
                let _ = answer.send(Ok(()));
            }
            None => self.died(key, words, false, ctx),
        }
        self.publish(self.state());
    }

    // ---- signs of life -----------------------------------------------------------------------------------------------

    fn ping(&self) {
        for child in self.children.iter().filter(|c| c.life.is_some()) {
            if let What::Actor(actor) = &child.spec.what {
                actor.ward.stats().signals.fetch_or(PING, Ordering::Release);
                actor.ward.wake();
            }
        }
    }

    fn sweep(&mut self, ctx: &mut Context<Self>) {
        if self.is_root() {
            self.beat();
        }
        let silent_for = self.policy.silent_for.as_millis();
        let mut hung = Vec::new();
        for child in self.children.iter().filter(|c| c.life.is_some() && c.ending.is_none()) {
            let What::Actor(actor) = &child.spec.what else { continue };
            let stats = actor.ward.stats();
            let silent = stats.now().saturating_sub(stats.pong.load(Ordering::Relaxed));
            let up = stats.state.load(Ordering::Relaxed) == State::Up as u32;
            if up && u128::from(silent) > silent_for {
                stats.state.store(State::Hung as u32, Ordering::Relaxed);
                stats.hangs.fetch_add(1, Ordering::Relaxed);
                hung.push((child.key, child.spec.name(), silent));
            }
        }
        for (key, name, silent) in hung {
            self.note(name, EventKind::Hung, format!("no sign of life for {} s", silent / 1000));
            // A handler that awaits ends by the abort, and its exit is reported. A blocked thread does not: it is fenced.
            self.abort(key, ctx);
        }
        self.publish(self.state());
    }

    // ---- what it is told -----------------------------------------------------------------------------------------------

    fn find(&self, name: &str) -> Option<u64> {
        self.children.iter().find(|c| c.spec.name() == name).map(|c| c.key)
    }

    /// The living supervisor below which that name is.
    fn below(&self, name: &str) -> Option<&Child> {
        self.children.iter().find(|child| match &child.spec.what {
            What::Tree(tree) => child.life.is_some() && knows(tree, name),
            What::Actor(_) => false,
        })
    }

    fn forward(&self, child: &Child, command: Command) {
        if let Some(life) = &child.life {
            life.tell(command);
        }
    }

    /// Finds who a command is for, here or further down; answers those that nobody knows.
    fn for_whom(&mut self, name: &str, answer: Answer, down: impl FnOnce(Answer) -> Command) -> Option<(u64, Answer)> {
        if matches!(self.phase, Phase::Stopping(_) | Phase::Ending(_)) {
            let _ = answer.send(Err(ControlError::Stopping));
            return None;
        }
        if let Some(key) = self.find(name) {
            return Some((key, answer));
        }
        match self.below(name) {
            Some(child) => self.forward(child, down(answer)),
            None => {
                let _ = answer.send(Err(ControlError::Unknown(name.to_owned())));
            }
        }
        None
    }

    fn restart(&mut self, name: &str, answer: Answer, ctx: &mut Context<Self>) {
        let Some((key, answer)) = self.for_whom(name, answer, |answer| Command::Restart(name.to_owned(), answer)) else { return };
        let Some(index) = self.index(key) else { return };
        let _ = answer.send(Ok(()));
        if self.children[index].life.is_none() {
            return self.boot(key);
        }
        if self.children[index].ending.is_none() {
            self.children[index].ending = Some(Ending::Restart);
            self.abort(key, ctx);
        }
    }

    fn add(&mut self, spec: ChildSpec, answer: Answer) {
        let refused = if matches!(self.phase, Phase::Stopping(_) | Phase::Ending(_)) {
            Some(ControlError::Stopping)
        } else if self.find(spec.name()).is_some() || self.registry.knows(spec.name()) {
            Some(ControlError::Taken(spec.name().to_owned()))
        } else {
            None
        };
        if let Some(refused) = refused {
            let _ = answer.send(Err(refused));
            return;
        }
        let spec = Arc::new(spec);
        lock(&self.plan.children).push(spec.clone());
        let key = self.put(spec);
        self.boot(key);
        let _ = answer.send(Ok(()));
    }

    fn remove(&mut self, name: &str, answer: Answer, ctx: &mut Context<Self>) {
        let Some((key, answer)) = self.for_whom(name, answer, |answer| Command::Remove(name.to_owned(), answer)) else { return };
        let Some(index) = self.index(key) else { return };
        let child = &mut self.children[index];
        if child.life.is_none() {
            self.forget(key);
            let _ = answer.send(Ok(()));
            return;
        }
        child.ending = Some(Ending::Remove(answer));
        close(child);
        ctx.run_later(self.policy.shutdown_for, move |this, ctx| this.guarded(ctx, |this, ctx| this.abort(key, ctx)));
    }

    fn replace(&mut self, spec: ChildSpec, answer: Answer, ctx: &mut Context<Self>) {
        let name = spec.name();
        if self.find(name).is_none()
            && let Some(child) = self.below(name)
            && !matches!(self.phase, Phase::Stopping(_) | Phase::Ending(_))
        {
            return self.forward(child, Command::Replace(Box::new(spec), answer));
        }
        let Some((key, answer)) = self.for_whom(name, answer, |answer| Command::Remove(name.to_owned(), answer)) else { return };
        let Some(index) = self.index(key) else { return };
        let spec = Arc::new(spec);
        if let Some(known) = lock(&self.plan.children).iter_mut().find(|known| Arc::ptr_eq(known, &self.children[index].spec)) {
            *known = spec.clone();
        }
        self.children[index].spec = spec;
        self.restart(name, answer, ctx);
    }

    fn drill(&mut self, name: &str, drill: Drill, answer: Answer) {
        if name == self.name && drill == Drill::Panic {
            let _ = answer.send(Ok(()));
            panic!("{}", drill::WORDS);
        }
        let Some((key, answer)) = self.for_whom(name, answer, |answer| Command::Drill(name.to_owned(), drill, answer)) else { return };
        let Some(index) = self.index(key) else { return };
        let child = &self.children[index];
        match &child.spec.what {
            What::Actor(actor) => {
                log::warn!(actor = name, drill:? = drill; "fault drill");
                self.registry.note(name, EventKind::Operator, format!("fault drill: {drill:?}"));
                actor.ward.drill(drill);
                let _ = answer.send(Ok(()));
            }
            What::Tree(_) if drill == Drill::Panic => self.forward(child, Command::Drill(name.to_owned(), drill, answer)),
            What::Tree(_) => {
                let _ = answer.send(Err(ControlError::NotAnActor(name.to_owned())));
            }
        }
    }

    // ---- the end -------------------------------------------------------------------------------------------------------

    /// The root tells the process and goes on watching the others, so that it ends in order; a supervisor below ends its
    /// children and leaves the decision to the one above.
    fn escalate(&mut self, spec: &ChildSpec, why: String, ctx: &mut Context<Self>) {
        self.note(spec.name(), EventKind::GaveUp, why.clone());
        let why = format!("{}: {why}", self.name);
        if !self.is_root() {
            return self.end(Why::Escalated(why), ctx);
        }
        let tell = self.on_escalate.borrow_mut().take();
        if let Some(tell) = tell {
            tell(why);
        }
    }

    fn end(&mut self, why: Why, ctx: &mut Context<Self>) {
        if matches!(self.phase, Phase::Ending(_)) {
            return;
        }
        self.phase = Phase::Ending(why);
        self.stop_next(ctx);
    }

    fn shutdown(&mut self, done: oneshot::Sender<()>, ctx: &mut Context<Self>) {
        match &mut self.phase {
            Phase::Stopping(waiting) => return waiting.push(done),
            Phase::Ending(_) => return, // Dropping `done` ends the caller's wait.
            Phase::Running | Phase::Gathering { .. } => {}
        }
        self.phase = Phase::Stopping(vec![done]);
        ctx.run_later(self.policy.shutdown_for, |this, ctx| {
            for child in this.children.iter().filter(|c| c.life.is_some()) {
                log::warn!(actor = child.spec.name(); "did not stop within the deadline: aborted");
                if let Some(life) = &child.life {
                    life.abort();
                    life.leave_behind();
                }
            }
            this.finish(ctx);
        });
        self.stop_next(ctx);
    }

    /// Ends the last living child, in order or at once; its exit leads back here.
    fn stop_next(&mut self, ctx: &mut Context<Self>) {
        let Some(index) = self.children.iter().rposition(|c| c.life.is_some()) else { return self.finish(ctx) };
        match self.phase {
            Phase::Stopping(_) => close(&mut self.children[index]),
            Phase::Ending(_) => {
                let key = self.children[index].key;
                self.children[index].ending.get_or_insert(Ending::WithSibling);
                self.abort(key, ctx);
            }
            Phase::Running | Phase::Gathering { .. } => {}
        }
    }

    fn finish(&mut self, ctx: &mut Context<Self>) {
        let why = match std::mem::replace(&mut self.phase, Phase::Stopping(Vec::new())) {
            Phase::Stopping(waiting) => {
                for done in waiting {
                    let _ = done.send(());
                }
                self.publish(State::Stopped);
                Why::Normal
            }
            Phase::Ending(why) => why,
            Phase::Running | Phase::Gathering { .. } => Why::Normal,
        };
        if self.is_root() && why == Why::Normal {
            self.registry.rest();
        }
        self.close_with(why, ctx);
    }

    fn close_with(&mut self, why: Why, ctx: &mut Context<Self>) {
        self.end.borrow_mut().get_or_insert(why);
        ctx.terminate();
    }

    // ---- what is seen ----------------------------------------------------------------------------------------------------

    fn state(&self) -> State {
        match self.phase {
            Phase::Running => State::Up,
            Phase::Gathering { .. } => State::BackingOff,
            Phase::Stopping(_) => State::Stopped,
            Phase::Ending(_) => State::GaveUp,
        }
    }

    fn publish(&mut self, state: State) {
        let now = Instant::now();
        let policy = self.policy.clone();
        let deaths = self.children.iter_mut().map(|c| c.deaths.count(&policy, now)).max().unwrap_or(0);
        self.registry.put_tree(TreeView {
            name: self.name.to_owned(),
            parent: self.parent.to_owned(),
            strategy: self.strategy.name().to_owned(),
            state,
            children: self.children.iter().map(|c| c.spec.name().to_owned()).collect(),
            deaths,
            deaths_max: self.policy.intensity,
            zombies: self.zombies,
        });
    }

    fn note(&self, actor: &'static str, kind: EventKind, text: String) {
        match kind {
            EventKind::Died | EventKind::Hung => log::warn!(actor = actor, what = text.as_str(); "actor {}", words(kind)),
            EventKind::GaveUp => log::error!(actor = actor, what = text.as_str(); "actor {}", words(kind)),
            EventKind::Restarted => log::info!(actor = actor, what = text.as_str(); "actor {}", words(kind)),
            _ => log::debug!(actor = actor, what = text.as_str(); "actor {}", words(kind)),
        }
        self.registry.note(actor, kind, text);
    }
}

fn close(child: &mut Child) {
    match &child.spec.what {
        What::Actor(actor) => actor.ward.close(),
        What::Tree(_) => {
            if let Some(life) = &child.life {
                let (done, _) = oneshot::channel();
                life.tell(Command::Shutdown(done));
            }
        }
    }
}

/// Whether an actor or supervisor of that name is anywhere below.
fn knows(tree: &crate::Supervisor, name: &str) -> bool {
    lock(&tree.0.children).iter().any(|spec| spec.name() == name || matches!(&spec.what, What::Tree(below) if knows(below, name)))
}

const fn words(kind: EventKind) -> &'static str {
    match kind {
        EventKind::Started => "started",
        EventKind::Restarted => "restarted",
        EventKind::Died => "died",
        EventKind::Hung => "hung",
        EventKind::GaveUp => "gave up",
        EventKind::Stopped => "stopped",
        EventKind::Quarantined | EventKind::Connected | EventKind::Disconnected | EventKind::Configured | EventKind::Operator => "noted",
    }
}
