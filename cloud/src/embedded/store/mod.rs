//! The store of the embedded API: objects as JSON in SQLite, one writer, a few readers.
//!
//! A write is a job that runs in the writer's transaction. The writer takes what waits (up to
//! [`writer::BATCH_MAX`] jobs) into one transaction, commits with `synchronous=FULL`, appends the events to
//! the [`History`] and only then answers each job. Readers see committed state only.
//!
//! Invariant: an event is in the history only after its commit, and in the order of its revision.
//! Invariant: a revision is given out once, also across restarts.

mod commits;
mod open;
mod reader;
mod schema;
mod tx;
mod writer;

use std::path::Path;
use std::sync::Arc;

use diesel::r2d2::{ConnectionManager, Pool};
use diesel::sqlite::SqliteConnection;
use tokio::sync::oneshot;

use super::history::{self, History};
use super::kind::Kind;
use super::status_error::StatusError;

pub use commits::Commits;
pub use reader::{Page, Snapshot};
pub use tx::Tx;

/// The most objects that are kept, over all kinds.
pub const OBJECTS_MAX: i64 = 100_000;
/// The largest object, as JSON.
pub const OBJECT_BYTES_MAX: usize = 3 << 20;

/// What can go wrong with the database.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be opened or created.
    #[error("cannot open the database: {0}")]
    Open(String),
    /// A migration failed.
    #[error("cannot bring the database to this program's schema: {0}")]
    Migration(String),
    /// A newer program wrote this file.
    #[error("the database is at schema {found}, this program knows up to {known}")]
    TooNew {
        /// The newest migration in the file.
        found: String,
        /// The newest migration of this program.
        known: String,
    },
    /// A statement failed.
    #[error("cannot {action}: {source}")]
    Query {
        /// What was being done.
        action: &'static str,
        /// Why it failed.
        source: diesel::result::Error,
    },
    /// No read connection became free.
    #[error("no free connection to the database: {0}")]
    Pool(String),
    /// A stored object is not JSON any more.
    #[error("the stored {kind} {namespace}/{name} cannot be read: {why}")]
    Corrupt {
        /// Plural of its kind.
        kind: &'static str,
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// The queue of writes is full.
    #[error("the write queue is full")]
    Busy,
    /// The writer has ended.
    #[error("the store is closed")]
    Closed,
    /// A job panicked; it wrote nothing.
    #[error("a write ended in a panic")]
    Panicked,
}

impl StoreError {
    pub(super) fn query(action: &'static str) -> impl FnOnce(diesel::result::Error) -> Self {
        move |source| Self::Query { action, source }
    }
}

/// Why a job did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// The client is told this; nothing was written.
    #[error(transparent)]
    Refused(#[from] StatusError),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<JobError> for StatusError {
    fn from(error: JobError) -> Self {
        match error {
            JobError::Refused(status) => status,
            JobError::Store(error) => error.into(),
        }
    }
}

/// Which object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Its kind.
    pub kind: &'static Kind,
    /// Its namespace, empty for kinds without one.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Key {
    /// A key; give an empty namespace for kinds without one.
    pub fn new(kind: &'static Kind, namespace: &str, name: &str) -> Self {
        Self { kind, namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

type Readers = Pool<ConnectionManager<SqliteConnection>>;

struct Shared {
    readers: Readers,
    writer: writer::Writing,
    history: Arc<History>,
    commits: Arc<Commits>,
}

/// A handle to the store. Cheap to clone; dropping the last one waits for the writer to end.
#[derive(Clone)]
pub struct Store(Arc<Shared>);

impl Store {
    /// Opens or creates the database, migrates it and starts the writer.
    ///
    /// # Errors
    /// See [`StoreError`]; nothing is written to a file of a newer schema.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::open_with_history(path, history::EVENTS_MAX, history::BYTES_MAX)
    }

    /// [`Self::open`] with another bound on the history.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_with_history(path: &Path, events_max: usize, bytes_max: usize) -> Result<Self, StoreError> {
        let mut connection = open::writer(path)?;
        let revision = tx::stored_revision(&mut connection)?;
        let objects = tx::count_objects(&mut connection)?;
        let history = Arc::new(History::new(revision, events_max, bytes_max));
        let readers = open::readers(path)?;
        let commits = Arc::new(Commits::default());
        let writer = writer::start(connection, revision, objects, Arc::clone(&history), Arc::clone(&commits))?;
        Ok(Self(Arc::new(Shared { readers, writer, history, commits })))
    }

    /// The events since this process started, as far as they are kept.
    pub fn history(&self) -> &Arc<History> {
        &self.0.history
    }

    /// How long its commits took.
    pub fn commits(&self) -> &Arc<Commits> {
        &self.0.commits
    }

    /// Runs `read` on one consistent snapshot. Blocks: call it off the async threads.
    ///
    /// # Errors
    /// What `read` returns, or that no connection was free within ten seconds.
    pub fn read<T>(&self, read: impl FnOnce(&mut Snapshot<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let mut connection = self.0.readers.get().map_err(|error| StoreError::Pool(error.to_string()))?;
        reader::snapshot(&mut connection, read)
    }

    /// [`Self::read`] on the blocking pool of the current runtime.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub async fn read_async<T: Send + 'static>(
        &self,
        read: impl FnOnce(&mut Snapshot<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let store = self.clone();
        tokio::task::spawn_blocking(move || store.read(read)).await.map_err(|_| StoreError::Panicked)?
    }

    /// Runs `job` in the next write transaction and answers after the commit. The job may run twice when a
    /// neighbour in its batch failed, so it has to be repeatable.
    ///
    /// # Errors
    /// What the job returns; [`StoreError::Busy`] when too many writes wait.
    pub async fn write<T: Send + 'static>(&self, job: impl Fn(&mut Tx<'_>) -> Result<T, JobError> + Send + 'static) -> Result<T, JobError> {
        let (reply, answer) = oneshot::channel();
        self.submit(job, reply)?;
        answer.await.map_err(|_| JobError::Store(StoreError::Closed))?
    }

    /// [`Self::write`] for a thread that may block.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn write_blocking<T: Send + 'static>(&self, job: impl Fn(&mut Tx<'_>) -> Result<T, JobError> + Send + 'static) -> Result<T, JobError> {
        let (reply, answer) = oneshot::channel();
        self.submit(job, reply)?;
        answer.blocking_recv().map_err(|_| JobError::Store(StoreError::Closed))?
    }

    fn submit<T: Send + 'static>(
        &self,
        job: impl Fn(&mut Tx<'_>) -> Result<T, JobError> + Send + 'static,
        reply: oneshot::Sender<Result<T, JobError>>,
    ) -> Result<(), JobError> {
        let job = Box::new(writer::Typed::new(job, reply));
        Ok(self.0.writer.submit(job)?)
    }
}

#[cfg(test)]
mod tests;
