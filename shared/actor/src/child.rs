//! One child of a supervisor: how to start an incarnation and how to watch it.

use std::sync::{Arc, Mutex};

use actix::{Actor, AsyncContext, Context, Handler};
use actix_rt::Arbiter;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::AbortHandle;

use crate::cell::{Ward, lock};
use crate::lease::Lease;
use crate::mail::Mail;
use crate::mailbox::Handle;
use crate::panic;
use crate::pump::Pump;
use crate::supervisor::Command;

/// Why an incarnation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// It stopped by itself, or drained after its mailbox was closed.
    Normal,
    Panic(String),
    /// Aborted by the supervisor.
    Killed,
}

/// An incarnation's end.
#[derive(Debug)]
pub(crate) struct Exit {
    pub(crate) child: usize,
    pub(crate) epoch: u64,
    pub(crate) why: Why,
}

/// A living incarnation.
pub(crate) struct Life {
    pub(crate) epoch: u64,
    abort: Arc<Mutex<Option<AbortHandle>>>,
    /// `None` if it shares the supervisor's thread.
    arbiter: Option<Arbiter>,
}

impl Life {
    /// Ends the incarnation at its next await; a blocked thread does not notice.
    pub(crate) fn abort(&self) {
        if let Some(abort) = lock(&self.abort).as_ref() {
            abort.abort();
        }
    }

    /// Gives the thread up; it ends when its blocked handler returns.
    pub(crate) fn leave_behind(&self) {
        if let Some(arbiter) = &self.arbiter {
            arbiter.stop();
        }
    }
}

type Boot = dyn Fn(Birth) -> Life + Send;

/// What an incarnation is told at its start.
pub(crate) struct Birth {
    pub(crate) child: usize,
    pub(crate) epoch: u64,
    pub(crate) batch: usize,
    pub(crate) own_thread: bool,
    pub(crate) report: UnboundedSender<Command>,
}

/// How a supervisor starts one of its children.
pub struct ChildSpec {
    pub(crate) ward: Arc<dyn Ward>,
    pub(crate) observe: Arc<dyn crate::Observable>,
    pub(crate) boot: Box<Boot>,
    pub(crate) batch: usize,
    pub(crate) own_thread: bool,
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
        let boot = move |birth: Birth| {
            let abort = Arc::new(Mutex::new(None));
            let (cell, make, slot) = (cell.clone(), make.clone(), abort.clone());
            let Birth { child, epoch, batch, own_thread, report } = birth;
            let watched = async move {
                let life = actix_rt::spawn(async move {
                    let mut ctx = Context::new();
                    ctx.spawn(Pump::new(cell, epoch, batch));
                    ctx.into_future(make()).await;
                });
                *lock(&slot) = Some(life.abort_handle());
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
            Life { epoch, abort, arbiter }
        };
        Self { ward: handle.0.clone(), observe: handle.0.clone(), boot: Box::new(boot), batch: 1, own_thread: true }
    }

    /// Lends up to `max` messages at once to the handler (1 if not said): for actors that commit them as one
    /// transaction.
    #[must_use]
    pub fn batch(mut self, max: usize) -> Self {
        self.batch = max.max(1);
        self
    }

    /// Runs on the supervisor's own thread. For tests in virtual time; a handler that blocks there blocks the
    /// supervisor.
    #[must_use]
    pub fn here(mut self) -> Self {
        self.own_thread = false;
        self
    }
}
