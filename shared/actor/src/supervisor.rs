//! The supervisor: starts, watches, restarts, gives up, and stops in order.

use std::sync::atomic::Ordering;
use std::time::Duration;

use actix::{Actor, ActorContext, AsyncContext, Context, StreamHandler};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::child::{Birth, ChildSpec, Exit, Life, Why};
use crate::mail::now_ms;
use crate::registry::{Event, EventKind, Registry, State};
use crate::restart::{Intensity, Policy, Verdict};

/// What reaches a supervisor. Its channel is unbounded, but holds at most one exit per incarnation and one command per
/// caller.
#[derive(Debug)]
pub(crate) enum Command {
    Exit(Exit),
    Restart(String),
    Shutdown(oneshot::Sender<()>),
}

struct Child {
    spec: ChildSpec,
    life: Option<Life>,
    deaths: Intensity,
}

/// A supervisor that is being put together; [`start`](Self::start) brings it to life.
///
/// One-for-one, permanent: each child is restarted by itself, whenever it ends. Siblings need not learn anything,
/// because their handles stay valid.
pub struct Supervisor {
    name: &'static str,
    policy: Policy,
    children: Vec<ChildSpec>,
    registry: Registry,
}

impl Supervisor {
    /// A supervisor without children.
    #[must_use]
    pub fn new(name: &'static str, policy: Policy) -> Self {
        Self { name, policy, children: Vec::new(), registry: Registry::new() }
    }

    /// Adds a child. Children start in this order and stop in reverse.
    #[must_use]
    pub fn child(mut self, spec: ChildSpec) -> Self {
        self.registry.add(spec.observe.clone());
        self.children.push(spec);
        self
    }

    /// The registry of its children.
    #[must_use]
    pub fn registry(&self) -> Registry {
        self.registry.clone()
    }

    /// Starts all children on the running actix system. `on_escalate` is called once, with the reason, when an actor
    /// died too often or too many threads are stuck; the process should then end with a stated code.
    pub fn start(self, on_escalate: impl FnOnce(String) + 'static) -> Running {
        let (commands, mut inbox) = mpsc::unbounded_channel();
        let registry = self.registry.clone();
        let report = commands.clone();
        Supervision::create(|ctx| {
            ctx.add_stream(futures_util::stream::poll_fn(move |cx| inbox.poll_recv(cx)));
            Supervision {
                name: self.name,
                policy: self.policy,
                children: self.children.into_iter().map(|spec| Child { spec, life: None, deaths: Intensity::default() }).collect(),
                registry: self.registry,
                report,
                on_escalate: Some(Box::new(on_escalate)),
                zombies: 0,
                stopping: None,
            }
        });
        Running { commands, registry }
    }
}

/// A running supervisor. Cheap to clone.
#[derive(Clone)]
pub struct Running {
    commands: mpsc::UnboundedSender<Command>,
    registry: Registry,
}

impl Running {
    /// What can be seen of the children.
    #[must_use]
    pub fn registry(&self) -> Registry {
        self.registry.clone()
    }

    /// Ends the current incarnation of a child; the next one starts at once.
    pub fn restart(&self, name: &str) {
        let _ = self.commands.send(Command::Restart(name.to_owned()));
    }

    /// Stops the children in reverse start order: each mailbox is closed, drained, and its actor ended, all within
    /// [`Policy::shutdown_for`]; what is left then is aborted.
    pub async fn shutdown(&self) {
        let (done, wait) = oneshot::channel();
        if self.commands.send(Command::Shutdown(done)).is_ok() {
            let _ = wait.await;
        }
    }
}

struct Stopping {
    done: oneshot::Sender<()>,
}

struct Supervision {
    name: &'static str,
    policy: Policy,
    children: Vec<Child>,
    registry: Registry,
    report: mpsc::UnboundedSender<Command>,
    on_escalate: Option<Box<dyn FnOnce(String)>>,
    zombies: usize,
    stopping: Option<Stopping>,
}

impl Actor for Supervision {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        for index in 0..self.children.len() {
            self.boot(index);
        }
        ctx.run_interval(self.policy.ping_every, |this, _| this.ping());
        ctx.run_interval(self.policy.sweep_every, Self::sweep);
    }
}

impl StreamHandler<Command> for Supervision {
    fn handle(&mut self, command: Command, ctx: &mut Self::Context) {
        match command {
            Command::Exit(exit) => self.exited(exit, ctx),
            Command::Restart(name) => {
                if let Some(child) = self.children.iter().find(|c| c.spec.ward.name() == name)
                    && let Some(life) = &child.life
                {
                    life.abort();
                }
            }
            Command::Shutdown(done) => self.shutdown(done, ctx),
        }
    }
}

impl Supervision {
    fn boot(&mut self, index: usize) {
        let child = &mut self.children[index];
        let ward = &child.spec.ward;
        let first = ward.stats().state.load(Ordering::Relaxed) == State::Down as u32;
        let epoch = ward.next_epoch(false);
        let stats = ward.stats();
        stats.pong.store(stats.now(), Ordering::Relaxed);
        stats.ping.store(false, Ordering::Relaxed);
        stats.state.store(State::Up as u32, Ordering::Relaxed);
        if !first {
            stats.restarts.fetch_add(1, Ordering::Relaxed);
        }
        let birth = Birth { child: index, epoch, batch: child.spec.batch, own_thread: child.spec.own_thread, report: self.report.clone() };
        child.life = Some((child.spec.boot)(birth));
        let kind = if first { EventKind::Started } else { EventKind::Restarted };
        self.note(index, kind, format!("incarnation {epoch} is up"));
    }

    fn ping(&self) {
        for child in self.children.iter().filter(|c| c.life.is_some()) {
            child.spec.ward.stats().ping.store(true, Ordering::Release);
            child.spec.ward.wake();
        }
    }

    fn sweep(&mut self, ctx: &mut Context<Self>) {
        for index in 0..self.children.len() {
            let child = &self.children[index];
            let stats = child.spec.ward.stats();
            let silent = stats.now().saturating_sub(stats.pong.load(Ordering::Relaxed));
            let up = stats.state.load(Ordering::Relaxed) == State::Up as u32;
            let Some(life) = child.life.as_ref().filter(|_| up && u128::from(silent) > self.policy.silent_for.as_millis()) else {
                continue;
            };
            stats.state.store(State::Hung as u32, Ordering::Relaxed);
            stats.hangs.fetch_add(1, Ordering::Relaxed);
            // A handler that awaits ends by the abort, and its exit is reported. A blocked thread does not: it is fenced.
            life.abort();
            let epoch = life.epoch;
            self.note(index, EventKind::Hung, format!("no sign of life for {} s", silent / 1000));
            ctx.run_later(self.policy.kill_grace, move |this, ctx| this.fence(index, epoch, ctx));
        }
    }

    /// The incarnation did not end after its abort: its thread is blocked and is left behind.
    fn fence(&mut self, index: usize, epoch: u64, ctx: &mut Context<Self>) {
        let child = &mut self.children[index];
        if child.life.as_ref().is_none_or(|l| l.epoch != epoch) {
            return;
        }
        if let Some(life) = child.life.take() {
            life.leave_behind();
        }
        child.spec.ward.next_epoch(true);
        self.zombies += 1;
        if self.zombies > self.policy.zombies_max {
            self.escalate(index, format!("{} threads are blocked", self.zombies));
            return;
        }
        self.died(index, "its thread is blocked and was left behind".to_owned(), ctx);
    }

    fn exited(&mut self, exit: Exit, ctx: &mut Context<Self>) {
        let child = &mut self.children[exit.child];
        if child.life.as_ref().is_none_or(|l| l.epoch != exit.epoch) {
            self.zombies = self.zombies.saturating_sub(1);
            return;
        }
        child.life = None;
        let stats = child.spec.ward.stats();
        if let Why::Panic(words) = &exit.why {
            stats.panics.fetch_add(1, Ordering::Relaxed);
            child.spec.ward.note_words(words);
        }
        if self.stopping.is_some() {
            stats.state.store(State::Stopped as u32, Ordering::Relaxed);
            self.note(exit.child, EventKind::Stopped, "stopped");
            self.stop_next(ctx);
            return;
        }
        let words = match exit.why {
            Why::Normal => "ended by itself".to_owned(),
            Why::Panic(words) => format!("panic: {words}"),
            Why::Killed => "was ended by its supervisor".to_owned(),
        };
        self.died(exit.child, words, ctx);
    }

    fn died(&mut self, index: usize, words: String, ctx: &mut Context<Self>) {
        let child = &mut self.children[index];
        let (in_hand, buried) = child.spec.ward.take_blamed();
        let verdict = child.deaths.died(&self.policy, Instant::now(), in_hand, &buried);
        match verdict {
            Verdict::RestartAfter(Duration::ZERO) => {
                self.note(index, EventKind::Died, words);
                self.boot(index);
            }
            Verdict::RestartAfter(pause) => {
                child.spec.ward.stats().state.store(State::BackingOff as u32, Ordering::Relaxed);
                self.note(index, EventKind::Died, format!("{words}; again in {} ms", pause.as_millis()));
                ctx.run_later(pause, move |this, _| {
                    if this.stopping.is_none() && this.children[index].life.is_none() {
                        this.boot(index);
                    }
                });
            }
            Verdict::Escalate => {
                self.note(index, EventKind::Died, words.clone());
                let name = self.children[index].spec.ward.name();
                self.escalate(
                    index,
                    format!("{name} died more than {} times in {} s; the last time: {words}", self.policy.intensity, self.policy.period.as_secs()),
                );
            }
        }
    }

    fn escalate(&mut self, index: usize, why: String) {
        self.children[index].spec.ward.stats().state.store(State::GaveUp as u32, Ordering::Relaxed);
        self.note(index, EventKind::GaveUp, why.clone());
        if let Some(on_escalate) = self.on_escalate.take() {
            on_escalate(format!("{}: {why}", self.name));
        }
    }

    fn shutdown(&mut self, done: oneshot::Sender<()>, ctx: &mut Context<Self>) {
        if self.stopping.is_some() {
            return; // Dropping `done` ends the second caller's wait.
        }
        self.stopping = Some(Stopping { done });
        ctx.run_later(self.policy.shutdown_for, |this, ctx| {
            for child in this.children.iter().filter(|c| c.life.is_some()) {
                log::warn!(actor = child.spec.ward.name(); "did not stop within the deadline: aborted");
                if let Some(life) = &child.life {
                    life.abort();
                    life.leave_behind();
                }
            }
            this.finish(ctx);
        });
        self.stop_next(ctx);
    }

    /// Closes the mailbox of the last living child; its exit leads back here.
    fn stop_next(&mut self, ctx: &mut Context<Self>) {
        match self.children.iter().rev().find(|c| c.life.is_some()) {
            Some(child) => child.spec.ward.close(),
            None => self.finish(ctx),
        }
    }

    fn finish(&mut self, ctx: &mut Context<Self>) {
        if let Some(stopping) = self.stopping.take() {
            let _ = stopping.done.send(());
        }
        ctx.stop();
    }

    fn note(&self, index: usize, kind: EventKind, text: impl Into<String>) {
        let actor = self.children[index].spec.ward.name();
        let text = text.into();
        match kind {
            EventKind::Died | EventKind::Hung => log::warn!(actor = actor, what = text.as_str(); "actor {}", words(kind)),
            EventKind::GaveUp => log::error!(actor = actor, what = text.as_str(); "actor {}", words(kind)),
            EventKind::Restarted => log::info!(actor = actor, what = text.as_str(); "actor {}", words(kind)),
            EventKind::Started | EventKind::Stopped => log::debug!(actor = actor, what = text.as_str(); "actor {}", words(kind)),
        }
        self.registry.note(Event { at_ms: now_ms(), actor, kind, text });
    }
}

const fn words(kind: EventKind) -> &'static str {
    match kind {
        EventKind::Started => "started",
        EventKind::Restarted => "restarted",
        EventKind::Died => "died",
        EventKind::Hung => "hung",
        EventKind::GaveUp => "gave up",
        EventKind::Stopped => "stopped",
    }
}
