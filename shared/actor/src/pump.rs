//! The pump: takes batches from the mailbox and lends them to the actor's handler.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context as TaskContext, Poll};

use actix::dev::MessageResponse;
use actix::{Actor, ActorContext, ActorFuture, AsyncContext, Context, Handler};

use crate::cell::{Cell, Take};
use crate::lease::{Lease, Parking};
use crate::mail::Mail;
use crate::panic;

/// Batches handled in one poll before the arbiter's other futures get their turn.
const BATCHES_PER_POLL: usize = 32;

pub(crate) struct Pump<M: Mail> {
    cell: Arc<Cell<M>>,
    epoch: u64,
    batch: usize,
    parking: Parking,
}

impl<M: Mail> Pump<M> {
    pub(crate) fn new(cell: Arc<Cell<M>>, epoch: u64, batch: usize) -> Self {
        Self { cell, epoch, batch, parking: Rc::new(RefCell::new(None)) }
    }
}

impl<A, M> ActorFuture<A> for Pump<M>
where
    A: Actor<Context = Context<A>> + Handler<Lease<M>>,
    M: Mail,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, actor: &mut A, ctx: &mut Context<A>, task: &mut TaskContext<'_>) -> Poll<()> {
        let this = self.get_mut();
        let stats = &this.cell.stats;
        if stats.ping.swap(false, Ordering::AcqRel) {
            stats.pong.store(stats.now(), Ordering::Relaxed);
        }
        for _ in 0..BATCHES_PER_POLL {
            if ctx.waiting() {
                return Poll::Pending;
            }
            let parked = this.parking.borrow_mut().take();
            if let Some(mut until) = parked
                && until.as_mut().poll(task).is_pending()
            {
                *this.parking.borrow_mut() = Some(until);
                this.cell.keep_waker(task.waker());
                return Poll::Pending;
            }
            match this.cell.take(this.batch, this.epoch, task.waker()) {
                Take::Batch(batch) => {
                    let lease = Lease::new(this.cell.clone(), this.epoch, batch, this.parking.clone());
                    let handled = catch_unwind(AssertUnwindSafe(|| {
                        actor.handle(lease, ctx).handle(ctx, None);
                    }));
                    if let Err(payload) = handled {
                        // Ends the actor outside of unwinding; see `Guarded`.
                        panic::note_death(panic::last_words(&*payload));
                        ctx.terminate();
                        return Poll::Ready(());
                    }
                }
                Take::Empty => return Poll::Pending,
                Take::Fenced => {
                    ctx.terminate();
                    return Poll::Ready(());
                }
                Take::Finished => {
                    ctx.stop();
                    return Poll::Ready(());
                }
            }
        }
        task.waker().wake_by_ref();
        Poll::Pending
    }
}
