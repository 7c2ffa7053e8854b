//! The supervisor at work: starts, watches, restarts, gives up, and stops in order.

mod children;
mod control;
mod end;
mod siblings;
mod signs;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, AsyncContext, Context, StreamHandler};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::cell::lock;
use crate::child::{ChildSpec, Exit, Life, Why};
use crate::command::{Answer, Command};
use crate::history;
use crate::panic;
use crate::registry::{EventKind, Registry, State, TreeView};
use crate::restart::{Intensity, Policy, Strategy};
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
            Command::Policy(policy) => self.set_policy(*policy),
            Command::Kill => self.end(Why::Killed, ctx),
            Command::Shutdown(done) => self.shutdown(done, ctx),
        }
        self.publish(self.state());
    }

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

const fn words(kind: EventKind) -> &'static str {
    match kind {
        EventKind::Started => "started",
        EventKind::Restarted => "restarted",
        EventKind::Died => "died",
        EventKind::Hung => "hung",
        EventKind::GaveUp => "gave up",
        EventKind::Stopped => "stopped",
        EventKind::Quarantined
        | EventKind::Connected
        | EventKind::Disconnected
        | EventKind::Configured
        | EventKind::Operator
        | EventKind::Damaged => "noted",
    }
}
