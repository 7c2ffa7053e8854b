//! For tests of modules: probes in place of peers, leases without a supervisor, deadlines in place of sleeps.

use std::io::Write as _;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, AsyncContext as _, Context, Handler};

use crate::cell::Take;
use crate::lease::Lease;
use crate::mail::{Mail, Meta};
use crate::mailbox::{Handle, mailbox};
use crate::pump::Pump;
use crate::queue::{Batch, Blame};
use crate::ward::Ward;

/// Why a test cannot run here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// Something that `deploy/setup.sh --for test` installs.
    Program,
    /// Something that a machine or a user may not have, such as the right to mount; or somebody asked to leave the test out.
    Machine,
}

/// Says loudly that this test is left out: a test that did nothing must not look like one that passed.
///
/// # Panics
/// When `CI=true` and a program is missing: there nothing is left out but what the machine cannot have.
#[track_caller]
pub fn leave_out(lack: Lack, reason: impl std::fmt::Display) {
    let is_ci = std::env::var("CI").as_deref() == Ok("true");
    assert!(lack == Lack::Machine || !is_ci, "this test cannot run, and CI=true leaves none out: {reason}");
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    // Not by a macro: the test runner hides what a test that passes prints by one.
    let _ = writeln!(std::io::stderr(), "\nSKIPPED {test}: {reason}");
}

/// A mailbox whose messages a test takes out itself.
pub struct Probe<M: Mail> {
    handle: Handle<M>,
    epoch: u64,
}

/// A message that a [`Probe`] took out.
pub struct Taken<M>(Arc<Batch<M>>);

impl<M> Taken<M> {
    /// Its header.
    #[must_use]
    pub fn meta(&self) -> &Meta {
        &self.0.entry(0).meta
    }
}

impl<M> std::ops::Deref for Taken<M> {
    type Target = M;
    fn deref(&self) -> &M {
        &self.0.entry(0).message
    }
}

impl<M: Mail> Probe<M> {
    /// A probe with its mailbox.
    #[must_use]
    pub fn new(name: &'static str, capacity: usize) -> Self {
        Self::of(&mailbox(name, capacity))
    }

    /// A probe that reads a given mailbox, in place of its actor.
    #[must_use]
    pub fn of(handle: &Handle<M>) -> Self {
        Self { epoch: handle.0.next_epoch(false), handle: handle.clone() }
    }

    /// Handle for the module under test.
    #[must_use]
    pub fn handle(&self) -> Handle<M> {
        self.handle.clone()
    }

    /// The next message, if there is one.
    #[must_use]
    pub fn try_next(&self) -> Option<Taken<M>> {
        match self.handle.0.take(1, self.epoch, std::task::Waker::noop(), tokio::time::Instant::now) {
            Take::Batch(batch) => {
                let now = tokio::time::Instant::now();
                self.handle.0.finish(self.epoch, &batch, batch.len(), Blame::Nobody, now, now);
                Some(Taken(batch))
            }
            Take::Empty | Take::Fenced | Take::Finished => None,
        }
    }

    /// Up to `max` of the messages that are there, lent as an actor gets them; what the lease leaves is there again.
    #[must_use]
    pub fn lend(&self, max: usize) -> Option<Lease<M>> {
        match self.handle.0.take(max, self.epoch, std::task::Waker::noop(), tokio::time::Instant::now) {
            Take::Batch(batch) => Some(Lease::new(self.handle.0.clone(), self.epoch, batch, tokio::time::Instant::now(), Rc::default())),
            Take::Empty | Take::Fenced | Take::Finished => None,
        }
    }

    /// All messages that are there.
    #[must_use]
    pub fn drain(&self) -> Vec<Taken<M>> {
        std::iter::from_fn(|| self.try_next()).collect()
    }

    /// The next message, waited for up to `within`.
    pub async fn next(&self, within: Duration) -> Option<Taken<M>> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(taken) = self.try_next() {
                return Some(taken);
            }
            if Instant::now() > deadline {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// A lease over these messages, for calling a handler by hand. The probe's mailbox takes back what is not settled.
#[must_use]
pub fn lease<M: Mail>(messages: Vec<M>) -> (Lease<M>, Probe<M>) {
    lease_posted(messages.into_iter().map(|message| (Meta::new("test"), message)).collect())
}

/// As [`lease`], with given headers.
#[must_use]
pub fn lease_posted<M: Mail>(messages: Vec<(Meta, M)>) -> (Lease<M>, Probe<M>) {
    let probe = Probe::new("under-test", messages.len().max(1));
    for (meta, message) in messages {
        assert!(probe.handle.try_post(meta, message).is_ok(), "the mailbox has room for all");
    }
    let Some(lease) = probe.lend(usize::MAX) else { panic!("a lease needs a message") };
    (lease, probe)
}

/// Starts an actor on the thread of the test, without a supervisor: it lives by the test's clock, which may stand still.
pub fn start_here<A, M>(mailbox: &Handle<M>, actor: A)
where
    A: Actor<Context = Context<A>> + Handler<Lease<M>>,
    M: Mail,
{
    let mut ctx = Context::new();
    ctx.spawn(Pump::new(mailbox.0.clone(), mailbox.0.next_epoch(false), 1));
    actix_rt::spawn(ctx.into_future(actor));
}

/// Waits until a condition holds, up to a deadline; polls every few ms and panics with the text of the condition.
#[macro_export]
macro_rules! eventually {
    ($within:expr, $condition:expr) => {{
        let deadline = ::std::time::Instant::now() + $within;
        while !$condition {
            assert!(::std::time::Instant::now() < deadline, "not within {:?}: {}", $within, stringify!($condition));
            $crate::testing::breathe().await;
        }
    }};
}

/// A pause between two looks.
pub async fn breathe() {
    tokio::time::sleep(Duration::from_millis(2)).await;
}
