//! What a handler gets: a batch that is lent until it is settled.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context as TaskContext, Poll};

use actix::dev::{MessageResponse, OneshotSender};
use actix::{Actor, ActorContext, ActorFuture, AsyncContext, Context};
use tokio::time::Instant;

use crate::cell::{Cell, lock};
use crate::chain::chain;
use crate::mail::{Mail, Meta};
use crate::panic;
use crate::queue::{Batch, Blame};

/// What a pump and its leases share.
#[derive(Default)]
pub(crate) struct Shared {
    /// What the pump waits for before it takes the next batch.
    pub(crate) until: RefCell<Option<Pin<Box<dyn Future<Output = ()>>>>>,
    /// When the last lease ended, if it ended in this turn of the pump: the next one begins then.
    pub(crate) ended: std::cell::Cell<Option<Instant>>,
}

/// A batch of messages, lent to a handler.
///
/// [`done`](Self::done) settles them. A lease that is dropped otherwise (a panic, an aborted handler) puts its messages
/// back to the front of the mailbox and counts the death against them; they are then handed out one by one, which finds
/// the message that kills, and at its third death it goes to the quarantine. Handlers are therefore idempotent: they
/// commit before they tell, and what was committed twice is the same.
pub struct Lease<M: Mail> {
    cell: Arc<Cell<M>>,
    epoch: u64,
    batch: Arc<Batch<M>>,
    settled: usize,
    /// The handler settles one by one: a death is the fault of the first that is left.
    singly: bool,
    finished: bool,
    began: Instant,
    shared: Rc<Shared>,
}

impl<M: Mail> actix::Message for Lease<M> {
    type Result = ();
}

impl<M: Mail> Lease<M> {
    pub(crate) fn new(cell: Arc<Cell<M>>, epoch: u64, batch: Arc<Batch<M>>, began: Instant, shared: Rc<Shared>) -> Self {
        Self { cell, epoch, batch, settled: 0, singly: false, finished: false, began, shared }
    }

    /// The messages, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&Meta, &M)> {
        self.batch.entries(self.settled..self.batch.len()).map(|entry| (&entry.meta, &entry.message))
    }

    /// How many messages there are; at least one.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "a lease is never empty")]
    pub fn len(&self) -> usize {
        self.batch.len() - self.settled
    }

    /// Handles the messages one by one; each is settled when `handle` returns. For actors without a transaction.
    pub fn each(mut self, mut handle: impl FnMut(&Meta, &M)) {
        self.singly = true;
        let batch = self.batch.clone();
        for entry in batch.entries(0..batch.len()) {
            handle(&entry.meta, &entry.message);
            self.settled += 1;
        }
        self.done();
    }

    /// Counts an error against the actor and logs it with its chain; the message is settled with the rest. While the
    /// same error goes on (a full disk fails every message) one line in ten seconds says how often it came.
    pub fn fail(&self, index: usize, error: &dyn std::error::Error) {
        self.cell.stats.failed.fetch_add(1, Ordering::Relaxed);
        let text = chain(error);
        let (id, kind) = if self.settled + index < self.batch.len() {
            let entry = self.batch.entry(self.settled + index);
            (entry.meta.id.to_string(), entry.message.kind())
        } else {
            (String::new(), "?")
        };
        let now = self.cell.stats.now();
        if let Some(unsaid) = lock(&self.cell.stats.complaint).heard(&text, now) {
            log::warn!(actor = self.cell.name, kind = kind, id = id.as_str(), error = text.as_str(), unsaid = unsaid; "message failed");
        }
    }

    /// Settles the first `index` messages and puts the rest back to the front, unblamed; the mailbox rests until `until`
    /// has ended.
    pub fn postpone_from(mut self, index: usize, until: impl Future<Output = ()> + 'static) {
        self.settled = (self.settled + index).min(self.batch.len());
        *self.shared.until.borrow_mut() = Some(Box::pin(until));
        self.finish(Blame::Nobody);
    }

    /// A token that says whether this incarnation is still the one; to be checked immediately before a commit.
    #[must_use]
    pub fn fence(&self) -> Fence {
        Fence::new(self.cell.epoch.clone(), self.epoch)
    }

    /// Settles all messages.
    pub fn done(mut self) {
        self.settled = self.batch.len();
        self.finish(Blame::Nobody);
    }

    fn finish(&mut self, blame: Blame) {
        if !self.finished {
            self.finished = true;
            let now = Instant::now();
            self.shared.ended.set(Some(now));
            self.cell.finish(self.epoch, &self.batch, self.settled, blame, self.began, now);
        }
    }
}

impl<M: Mail> Drop for Lease<M> {
    fn drop(&mut self) {
        self.finish(if self.singly { Blame::First } else { Blame::All });
    }
}

/// Says whether an incarnation is still the living one (a fencing token of the store).
#[derive(Clone, Debug)]
pub struct Fence {
    current: Option<Arc<AtomicU64>>,
    mine: u64,
}

impl Fence {
    pub(crate) fn new(current: Arc<AtomicU64>, mine: u64) -> Self {
        Self { current: Some(current), mine }
    }

    /// A fence for writers that are not supervised actors (start-up, tools): always holds.
    #[must_use]
    pub const fn unfenced() -> Self {
        Self { current: None, mine: 0 }
    }

    /// `false` once the incarnation was replaced.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.current.as_ref().is_none_or(|c| c.load(Ordering::Acquire) == self.mine)
    }
}

/// The result of a handler that must wait: the mailbox rests until the work has ended, and a panic in it is a death of
/// the actor like any other. It owns the lease and settles it at its end.
pub struct Work<A: Actor>(Option<Pin<Box<dyn ActorFuture<A, Output = ()>>>>);

impl<A: Actor> Work<A> {
    /// Work that is still to be done.
    pub fn new(future: impl ActorFuture<A, Output = ()> + 'static) -> Self {
        Self(Some(Box::pin(future)))
    }

    /// Nothing to wait for.
    #[must_use]
    pub const fn done() -> Self {
        Self(None)
    }
}

impl<A, M> MessageResponse<A, Lease<M>> for Work<A>
where
    A: Actor<Context = Context<A>>,
    M: Mail,
{
    fn handle(self, ctx: &mut Context<A>, _: Option<OneshotSender<()>>) {
        if let Some(future) = self.0 {
            ctx.wait(Guarded(future));
        }
    }
}

/// Catches a panic, so that the actor's `stopped` and `drop` run outside of unwinding: a second panic there would abort
/// the process.
struct Guarded<A>(Pin<Box<dyn ActorFuture<A, Output = ()>>>);

impl<A: Actor<Context = Context<A>>> ActorFuture<A> for Guarded<A> {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, actor: &mut A, ctx: &mut Context<A>, task: &mut TaskContext<'_>) -> Poll<()> {
        match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.0.as_mut().poll(actor, ctx, task))) {
            Ok(poll) => poll,
            Err(payload) => {
                panic::note_death(panic::last_words(&*payload));
                ctx.terminate();
                Poll::Ready(())
            }
        }
    }
}
