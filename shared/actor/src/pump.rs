//! The pump: takes batches from the mailbox and lends them to the actor's handler.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use actix::dev::MessageResponse;
use actix::{Actor, ActorContext, ActorFuture, AsyncContext, Context, Handler};
use tokio::time::Instant;

use crate::cell::{Cell, Take, lock};
use crate::drill::{self, Drill};
use crate::lease::{Lease, Shared};
use crate::mail::Mail;
use crate::panic;
use crate::stats::{DRILL, PING};

/// Batches handled in one poll before the arbiter's other futures get their turn.
const BATCHES_PER_POLL: usize = 32;

pub(crate) struct Pump<M: Mail> {
    cell: Arc<Cell<M>>,
    epoch: u64,
    batch: usize,
    shared: Rc<Shared>,
    /// Between two batches, because a drill says so.
    pause: Duration,
}

/// What a drill makes of this turn.
enum Strike {
    Nothing,
    Now,
    InHand,
}

impl<M: Mail> Pump<M> {
    pub(crate) fn new(cell: Arc<Cell<M>>, epoch: u64, batch: usize) -> Self {
        Self { cell, epoch, batch, shared: Rc::default(), pause: Duration::ZERO }
    }

    /// Suffers the drill that is set, if one is.
    fn strike(&mut self) -> Strike {
        let mut drill = lock(&self.cell.drill);
        match *drill {
            None => Strike::Nothing,
            Some(Drill::Panic) => {
                *drill = None;
                self.over();
                Strike::Now
            }
            Some(Drill::PanicInHand(_)) => Strike::InHand,
            Some(Drill::Hang(time)) => {
                *drill = None;
                drop(drill);
                self.over();
                self.hang(time);
                Strike::Nothing
            }
            Some(Drill::Slow(pause)) => {
                self.pause = pause;
                if pause.is_zero() {
                    *drill = None;
                    self.over();
                }
                Strike::Nothing
            }
        }
    }

    fn over(&self) {
        self.cell.stats.signals.fetch_and(!DRILL, Ordering::AcqRel);
    }

    /// Counts one panic with a message in hand against the drill; `false` when none is left.
    fn takes_one(&self) -> bool {
        let mut drill = lock(&self.cell.drill);
        let Some(Drill::PanicInHand(left)) = *drill else { return false };
        *drill = (left > 1).then_some(Drill::PanicInHand(left - 1));
        if drill.is_none() {
            self.over();
        }
        left > 0
    }

    /// Blocks this thread until it is fenced.
    fn hang(&self, time: Duration) {
        let began = std::time::Instant::now();
        while began.elapsed() < time && self.cell.epoch.load(Ordering::Acquire) == self.epoch {
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }
}

/// Ends the actor outside of unwinding: a second panic, in its `stopped` or `drop`, would abort the process.
fn die<A: Actor<Context = Context<A>>>(words: String, ctx: &mut Context<A>) -> Poll<()> {
    panic::note_death(words);
    ctx.terminate();
    Poll::Ready(())
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
        let mut panics_in_hand = false;
        if stats.signals.load(Ordering::Relaxed) != 0 {
            if stats.signals.fetch_and(!PING, Ordering::AcqRel) & PING != 0 {
                stats.pong.store(stats.now(), Ordering::Relaxed);
                this.cell.tidy();
            }
            match this.strike() {
                Strike::Nothing => {}
                Strike::InHand => panics_in_hand = true,
                Strike::Now => return die(drill::WORDS.to_owned(), ctx),
            }
        }
        this.shared.ended.set(None);
        for _ in 0..BATCHES_PER_POLL {
            if ctx.waiting() {
                return Poll::Pending;
            }
            let parked = this.shared.until.borrow_mut().take();
            if let Some(mut until) = parked
                && until.as_mut().poll(task).is_pending()
            {
                *this.shared.until.borrow_mut() = Some(until);
                this.cell.keep_waker(task.waker());
                return Poll::Pending;
            }
            let mut began = this.shared.ended.take();
            match this.cell.take(this.batch, this.epoch, task.waker(), || *began.get_or_insert_with(Instant::now)) {
                Take::Batch(batch) => {
                    let lease = Lease::new(this.cell.clone(), this.epoch, batch, began.unwrap_or_else(Instant::now), this.shared.clone());
                    if panics_in_hand && this.takes_one() {
                        drop(lease);
                        return die(drill::WORDS.to_owned(), ctx);
                    }
                    let handled = catch_unwind(AssertUnwindSafe(|| {
                        actor.handle(lease, ctx).handle(ctx, None);
                    }));
                    if let Err(payload) = handled {
                        return die(panic::last_words(&*payload), ctx);
                    }
                    if this.pause > Duration::ZERO {
                        *this.shared.until.borrow_mut() = Some(Box::pin(tokio::time::sleep(this.pause)));
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
