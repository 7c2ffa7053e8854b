//! One child of a supervisor: how to start an incarnation and how to watch it.

use std::sync::{Arc, Mutex};

use actix::{Actor, AsyncContext, Context, Handler};
use actix_rt::Arbiter;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::AbortHandle;

use crate::cell::{Snapshot, lock};
use crate::command::Command;
use crate::lease::Lease;
use crate::mail::Mail;
use crate::mailbox::Handle;
use crate::panic;
use crate::pump::Pump;
use crate::restart::Restart;
use crate::supervisor::Supervisor;
use crate::ward::Ward;

/// Why an incarnation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// It stopped by itself, or drained after its mailbox was closed.
    Normal,
    Panic(String),
    /// Aborted by the supervisor.
    Killed,
    /// A supervisor that gave up on one of its children.
    Escalated(String),
}

/// An incarnation's end.
#[derive(Debug)]
pub(crate) struct Exit {
    pub(crate) child: u64,
    pub(crate) epoch: u64,
    pub(crate) why: Why,
}

/// A living incarnation; one that is dropped is aborted.
pub(crate) struct Life {
    pub(crate) epoch: u64,
    kind: Kind,
}

enum Kind {
    Actor {
        abort: Arc<Mutex<Abort>>,
        /// `None` if it shares the supervisor's thread.
        arbiter: Option<Arbiter>,
    },
    Tree(UnboundedSender<Command>),
}

/// How an incarnation is aborted; it may be told to before its thread has begun with it.
#[derive(Default)]
enum Abort {
    #[default]
    NotBegun,
    Begun(AbortHandle),
    Wanted,
}

impl Abort {
    fn begin(&mut self, life: AbortHandle) {
        if matches!(self, Self::Wanted) {
            life.abort();
        }
        *self = Self::Begun(life);
    }

    fn abort(&mut self) {
        match self {
            Self::NotBegun => *self = Self::Wanted,
            Self::Begun(life) => life.abort(),
            Self::Wanted => {}
        }
    }
}

impl Life {
    pub(crate) fn tree(epoch: u64, commands: UnboundedSender<Command>) -> Self {
        Self { epoch, kind: Kind::Tree(commands) }
    }

    /// Ends the incarnation at its next await; a blocked thread does not notice.
    pub(crate) fn abort(&self) {
        match &self.kind {
            Kind::Actor { abort, .. } => lock(abort).abort(),
            Kind::Tree(commands) => {
                let _ = commands.send(Command::Kill);
            }
        }
    }

    /// Passes a command on to a supervisor.
    pub(crate) fn tell(&self, command: Command) {
        if let Kind::Tree(commands) = &self.kind {
            let _ = commands.send(command);
        }
    }

    /// Gives the thread up; it ends when its blocked handler returns.
    pub(crate) fn leave_behind(&self) {
        if let Kind::Actor { arbiter: Some(arbiter), .. } = &self.kind {
            arbiter.stop();
        }
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        // Its supervisor is gone: nobody would notice its end.
        self.abort();
    }
}

/// What an incarnation is told at its start.
pub(crate) struct Birth {
    pub(crate) child: u64,
    pub(crate) epoch: u64,
    pub(crate) report: UnboundedSender<Command>,
}

/// How a supervisor starts one of its children.
pub struct ChildSpec {
    pub(crate) what: What,
    pub(crate) restart: Restart,
}

/// An actor with its mailbox, or a supervisor with its own children.
pub(crate) enum What {
    Actor(ActorSpec),
    Tree(Supervisor),
}

pub(crate) struct ActorSpec {
    pub(crate) ward: Arc<dyn Ward>,
    pub(crate) observe: Arc<dyn crate::Observable>,
    boot: Arc<dyn Fn(Birth, Placing) -> Life + Send + Sync>,
    placing: Placing,
    pub(crate) snapshot: Option<Arc<Snapshot>>,
    /// It only forgets what is sent to it.
    pub(crate) disabled: bool,
}

#[derive(Clone, Copy)]
pub(crate) struct Placing {
    batch: usize,
    own_thread: bool,
}

impl ActorSpec {
    pub(crate) fn boot(&self, birth: Birth) -> Life {
        (self.boot)(birth, self.placing)
    }
}

impl ChildSpec {
    /// A child that reads the mailbox of `handle`. `make` builds each incarnation on the child's own thread; what an
    /// incarnation knows is lost with it, so `make` gives it everything it needs to read its state again.
    pub fn new<A, M>(handle: &Handle<M>, make: impl Fn() -> A + Send + Sync + 'static) -> Self
    where
        A: Actor<Context = Context<A>> + Handler<Lease<M>>,
        M: Mail,
    {
        let cell = handle.0.clone();
        let make = Arc::new(make);
        let boot = move |birth: Birth, placing: Placing| {
            let abort = Arc::new(Mutex::new(Abort::NotBegun));
            let (cell, make, slot) = (cell.clone(), make.clone(), abort.clone());
            let Birth { child, epoch, report } = birth;
            let Placing { batch, own_thread } = placing;
            let watched = async move {
                let life = actix_rt::spawn(async move {
                    let mut ctx = Context::new();
                    ctx.spawn(Pump::new(cell, epoch, batch));
                    ctx.into_future(make()).await;
                });
                lock(&slot).begin(life.abort_handle());
                let ended = life.await;
                let why = match (ended, panic::take_death()) {
                    (_, Some(words)) => Why::Panic(words),
                    (Ok(()), None) => Why::Normal,
                    (Err(e), None) if e.is_panic() => Why::Panic(panic::last_words(&*e.into_panic())),
                    (Err(_), None) => Why::Killed,
                };
                let _ = report.send(Command::Exit(Exit { child, epoch, why }));
                if own_thread {
                    Arbiter::current().stop();
                }
            };
            let arbiter = own_thread.then(Arbiter::new);
            match &arbiter {
                // An arbiter that was just made takes a task; were its thread gone, no exit and no sign of life would
                // come, and the sweep would replace it.
                Some(arbiter) => {
                    arbiter.spawn(watched);
                }
                None => {
                    actix_rt::spawn(watched);
                }
            }
            Life { epoch, kind: Kind::Actor { abort, arbiter } }
        };
        Self {
            what: What::Actor(ActorSpec {
                ward: handle.0.clone(),
                observe: handle.0.clone(),
                boot: Arc::new(boot),
                placing: Placing { batch: 1, own_thread: true },
                snapshot: None,
                disabled: false,
            }),
            restart: Restart::Permanent,
        }
    }

    /// Stands in for a module that the configuration does not enable: takes what is sent to its mailbox and forgets it.
    pub fn disabled<M: Mail>(handle: &Handle<M>) -> Self {
        let mut spec = Self::new(handle, || Discard).here().batch(usize::MAX);
        if let What::Actor(actor) = &mut spec.what {
            actor.disabled = true;
        }
        spec
    }

    /// A supervisor as a child: when it gives up, the supervisor above decides, as for an actor that died.
    #[must_use]
    pub fn tree(supervisor: Supervisor) -> Self {
        Self { what: What::Tree(supervisor), restart: Restart::Permanent }
    }

    /// After which ends it is started again; [`Restart::Permanent`] if not said.
    #[must_use]
    pub fn restart(mut self, restart: Restart) -> Self {
        self.restart = restart;
        self
    }

    /// Lends up to `max` messages at once to the handler (1 if not said): for actors that commit them as one
    /// transaction.
    #[must_use]
    pub fn batch(self, max: usize) -> Self {
        self.actor(|actor| actor.placing.batch = max.max(1))
    }

    /// Runs on the supervisor's own thread. For tests in virtual time; a handler that blocks there blocks the
    /// supervisor.
    #[must_use]
    pub fn here(self) -> Self {
        self.actor(|actor| actor.placing.own_thread = false)
    }

    /// What the module knows, for the page: `read` is called on the page's thread, so it reads what the module has
    /// published (atomics, a lock held for a copy) and asks nobody.
    #[must_use]
    pub fn snapshot<T: serde::Serialize>(self, read: impl Fn() -> T + Send + Sync + 'static) -> Self {
        let read: Arc<Snapshot> = Arc::new(move || serde_json::to_value(read()).unwrap_or_else(|error| error.to_string().into()));
        self.actor(|actor| actor.snapshot = Some(read))
    }

    fn actor(mut self, change: impl FnOnce(&mut ActorSpec)) -> Self {
        if let What::Actor(actor) = &mut self.what {
            change(actor);
        }
        self
    }

    /// Name of the actor or supervisor.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match &self.what {
            What::Actor(actor) => actor.ward.name(),
            What::Tree(tree) => tree.name(),
        }
    }
}

/// Takes what is sent to it and forgets it.
struct Discard;

impl Actor for Discard {
    type Context = Context<Self>;
}

impl<M: Mail> Handler<Lease<M>> for Discard {
    type Result = ();
    fn handle(&mut self, lease: Lease<M>, _: &mut Self::Context) {
        lease.done();
    }
}
