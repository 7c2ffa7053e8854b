//! The one writer: a thread that turns waiting jobs into transactions.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Instant;

use diesel::connection::SimpleConnection;
use diesel::sqlite::SqliteConnection;
use tokio::sync::oneshot;

use super::tx::Tx;
use super::{Commits, JobError, StoreError};
use crate::embedded::history::{Event, History};

/// How many jobs share a transaction at most.
pub const BATCH_MAX: usize = 256;
/// How many jobs wait at most; the next one is answered "too many requests".
pub const QUEUE_MAX: usize = 1024;

/// How a job's run went, for the writer.
pub enum Ran {
    /// It may stay in the transaction.
    Clean,
    /// The transaction is no longer what the other jobs expect: roll back.
    Spoiled,
}

/// A write without its types.
pub trait Job: Send {
    /// Runs the work and keeps its outcome.
    fn run(&mut self, tx: &mut Tx<'_>) -> Ran;
    /// Answers with the kept outcome; called after the commit, or after a rollback for a job that failed.
    fn settle(self: Box<Self>);
    /// Answers that the transaction failed.
    fn fail(self: Box<Self>, error: StoreError);
}

/// A job with its closure and the place where its answer goes.
pub struct Typed<T, F> {
    work: F,
    outcome: Option<Result<T, JobError>>,
    reply: oneshot::Sender<Result<T, JobError>>,
}

impl<T, F> Typed<T, F> {
    /// A job that has not run.
    pub fn new(work: F, reply: oneshot::Sender<Result<T, JobError>>) -> Self {
        Self { work, outcome: None, reply }
    }
}

impl<T: Send, F: Fn(&mut Tx<'_>) -> Result<T, JobError> + Send> Job for Typed<T, F> {
    fn run(&mut self, tx: &mut Tx<'_>) -> Ran {
        let writes = tx.writes();
        let outcome = catch_unwind(AssertUnwindSafe(|| (self.work)(tx))).unwrap_or(Err(JobError::Store(StoreError::Panicked)));
        // A refusal before the first write leaves no trace; anything else that failed does.
        let spoiled = match &outcome {
            Ok(_) => false,
            Err(JobError::Refused(_)) => tx.writes() != writes,
            Err(JobError::Store(_)) => true,
        };
        self.outcome = Some(outcome);
        if spoiled { Ran::Spoiled } else { Ran::Clean }
    }

    fn settle(self: Box<Self>) {
        let outcome = self.outcome.unwrap_or(Err(JobError::Store(StoreError::Closed)));
        // A client that went away is no reason to undo a committed write.
        let _ = self.reply.send(outcome);
    }

    fn fail(self: Box<Self>, error: StoreError) {
        let _ = self.reply.send(Err(JobError::Store(error)));
    }
}

struct Writer {
    connection: SqliteConnection,
    revision: i64,
    objects: i64,
    history: Arc<History>,
    commits: Arc<Commits>,
}

/// The running writer. Dropping it lets the writer finish what waits and close the database.
pub struct Writing {
    jobs: Option<SyncSender<Box<dyn Job>>>,
    thread: Option<JoinHandle<()>>,
}

impl Writing {
    /// Hands a job to the writer.
    pub fn submit(&self, job: Box<dyn Job>) -> Result<(), StoreError> {
        let jobs = self.jobs.as_ref().ok_or(StoreError::Closed)?;
        jobs.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => StoreError::Busy,
            TrySendError::Disconnected(_) => StoreError::Closed,
        })
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.jobs = None;
        // The writer catches the panics of its jobs; should it have died all the same, there is nothing to wait for.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Starts the writer thread.
pub fn start(connection: SqliteConnection, revision: i64, objects: i64, history: Arc<History>, commits: Arc<Commits>) -> Result<Writing, StoreError> {
    let (sender, jobs) = sync_channel(QUEUE_MAX);
    let mut writer = Writer { connection, revision, objects, history, commits };
    let thread = std::thread::Builder::new()
        .name("api-writer".to_owned())
        .spawn(move || writer.run(&jobs))
        .map_err(|error| StoreError::Open(format!("cannot start the writer thread: {error}")))?;
    Ok(Writing { jobs: Some(sender), thread: Some(thread) })
}

impl Writer {
    fn run(&mut self, jobs: &Receiver<Box<dyn Job>>) {
        while let Ok(first) = jobs.recv() {
            let mut batch = vec![first];
            // Whatever arrived during the last commit shares the next one.
            batch.extend(jobs.try_iter().take(BATCH_MAX - 1));
            self.write(batch);
        }
    }

    fn write(&mut self, mut batch: Vec<Box<dyn Job>>) {
        match self.transaction(&mut batch) {
            Ok(()) => batch.into_iter().for_each(Job::settle),
            Err(Failed::Spoiled) if batch.len() == 1 => batch.into_iter().for_each(Job::settle),
            Err(Failed::Database(error)) if batch.len() == 1 => {
                if let Some(job) = batch.pop() {
                    job.fail(StoreError::Query { action: error.0, source: error.1 });
                }
            }
            // One job spoils the batch for all: each gets a transaction of its own.
            Err(_) => batch.into_iter().for_each(|job| self.write(vec![job])),
        }
    }

    fn transaction(&mut self, batch: &mut [Box<dyn Job>]) -> Result<(), Failed> {
        let Self { connection, revision, objects, history, commits } = self;
        connection.batch_execute("BEGIN IMMEDIATE").map_err(|error| Failed::Database(("begin a transaction", error)))?;
        let mut tx = Tx::new(connection, *revision, *objects);
        let mut outcome = Ok(());
        for job in batch {
            if let Ran::Spoiled = job.run(&mut tx) {
                outcome = Err(Failed::Spoiled);
                break;
            }
        }
        let outcome = outcome.and_then(|()| {
            if tx.writes() > 0 {
                tx.save_revision().map_err(Failed::from)?;
            }
            Ok(())
        });
        let (new_revision, new_objects, events) = tx.into_parts();
        let began = Instant::now();
        let outcome = outcome.and_then(|()| connection.batch_execute("COMMIT").map_err(|error| Failed::Database(("commit a transaction", error))));
        if let Err(failed) = outcome {
            // After a failed COMMIT SQLite may have rolled back already; then there is nothing to do here.
            if let Err(error) = connection.batch_execute("ROLLBACK") {
                log::debug!(error:% = error; "embedded API: nothing to roll back");
            }
            return Err(failed);
        }
        commits.record(began.elapsed());
        (*revision, *objects) = (new_revision, new_objects);
        publish(history, events, new_revision);
        Ok(())
    }
}

fn publish(history: &History, events: Vec<Event>, revision: i64) {
    if !events.is_empty() {
        history.append(events, revision);
    }
}

enum Failed {
    Spoiled,
    Database((&'static str, diesel::result::Error)),
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Query { action, source } => Self::Database((action, source)),
            _ => Self::Spoiled,
        }
    }
}
