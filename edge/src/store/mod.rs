//! The edge's SQLite database: the only place that knows Diesel.
//!
//! One write connection behind a lock that serves in the order of asking; readers use a pool of
//! two. A module calls [`Store::write`] once for a whole batch of messages: the functions of
//! [`device`], [`attribute`], [`twin`], [`meta`] and [`pending_report`] inside, its effects after.
//!
//! Invariant: what `write` returned `Ok` for survives a power cut (`synchronous=FULL`).
//! Invariant: an actor that was replaced commits nothing: its fence is read right before COMMIT.
//! Invariant: a file that is damaged is never written: it is looked at read-only first, and set aside ([`Store::open_or_begin_anew`]).
//! Invariant: a transaction that lasts [`STUCK_AFTER`] ends the process, for nobody else can write meanwhile.
//!
//! The columns that KubeEdge has stand first and in its order (tools read `SELECT *` by position).
//!
//! The operations of manual ch. 10.4 and what does them here; each has a test of its name (in snake case), which shows
//! what it promises. "Multi" is several calls in one [`Store::write`]; "Trans" is what a module does for one message, in
//! one [`Store::write_batch`], and its test makes it fail at every row that it changes.
//!
//! | device | |
//! |---|---|
//! | Save Device | [`device::insert`] |
//! | Delete Device By ID, Delete Device Trans | [`device::remove`], by Membership |
//! | Update Device Field | [`device::set_uid`] |
//! | Update Device Fields, Multi | [`device::set_state`] |
//! | Query Device, All | [`device::row`], [`device::load`]; [`device::all`], [`device::known`] |
//! | Add Device Trans | [`device::insert`], [`twin::put`], [`attribute::put`], by Membership |
//!
//! | attribute, twin | |
//! |---|---|
//! | Save Device Attr, Device Twin | [`attribute::put`], [`twin::put`] |
//! | Delete Device Attr By ID, Delete Device Attr | [`attribute::delete`]: (device, name) is unique, so there is one row, and one id |
//! | Delete Device Twin By Device ID | [`device::remove`] |
//! | Delete Device Twin | [`twin::put`] of a tombstone: without its versions an older message could bring it back |
//! | Update Device Attr Field, Fields, Multi; Update Device Twin Field, Fields, Multi | [`attribute::put`], [`twin::put`]: a row is written as a whole, and keeps its id |
//! | Query Device Attr, Query Device Twin | [`attribute::load`], [`twin::load`] |
//! | Device Attr Trans, Device Twin Trans (the manual prints "Delete Device … Trans") | by Device and by Twin |

pub mod attribute;
mod batch;
mod census;
mod connection;
mod damage;
pub mod device;
mod error;
mod foreign;
mod lock;
pub mod meta;
pub mod pending_report;
mod schema;
mod space;
pub mod subscription;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
pub mod twin;
mod watch;

use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use actor::Fence;
use diesel::SqliteConnection;

use connection::{Readers, Transaction};
use error::query;
use lock::FairLock;
use watch::Watch;

pub use batch::Batch;
pub use census::Counts;
pub use damage::SetAside;
pub use error::StoreError;
pub use foreign::{
    Damage, Extent, Foreign, ForeignAttribute, ForeignDevice, ForeignError, ForeignObject, ForeignProperty, ForeignRow, SOURCE_BYTES_MAX, scratch,
};
pub use space::Size;
pub use watch::{LATENCY_BUCKETS, STUCK_AFTER, STUCK_EXIT_CODE, Stuck, WriteStats};

/// The open database; cheap to clone.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

/// How large a database may become where nobody says otherwise, in bytes (`database.max-size`).
pub const BYTES_MAX: u64 = 1 << 30;

struct Inner {
    path: PathBuf,
    bytes_max: u64,
    /// `None` after a failure that left the connection unusable; the next writer opens it again.
    writer: FairLock<Option<SqliteConnection>>,
    readers: Readers,
    watch: Arc<Watch>,
    census: census::Census,
    /// Grows with each commit that changed devices or their twins, before the next writer begins.
    devices_revision: AtomicU64,
    /// Why the last transaction failed, if that concerns every other too.
    fault: Mutex<Option<String>>,
    alarm: damage::Alarm,
}

impl Store {
    /// Opens the database at `path`, creates it and its directory if they are missing, and
    /// brings its schema up to date.
    ///
    /// # Errors
    /// [`StoreError::TooNew`] when a later program wrote the file (which is left as it is),
    /// [`StoreError::NotWritable`], [`StoreError::NoSpace`], [`StoreError::Corrupt`],
    /// [`StoreError::Migrate`], and [`StoreError::Open`] for everything else. All of them are
    /// reasons to end the process (exit code 74).
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        Self::open_limited(path, BYTES_MAX)
    }

    /// As [`Store::open`], for a file that may grow to `bytes_max`: what would make it larger is [`StoreError::NoSpace`].
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_limited(path: impl AsRef<Path>, bytes_max: u64) -> Result<Self, StoreError> {
        let path = path.as_ref().to_owned();
        let writer = connection::prepare(&path, bytes_max)?;
        let readers = connection::readers(&path)?;
        let inner = Inner {
            path,
            bytes_max,
            writer: FairLock::new(Some(writer)),
            readers,
            watch: Arc::new(Watch::new()),
            census: census::Census::default(),
            devices_revision: AtomicU64::new(0),
            fault: Mutex::default(),
            alarm: damage::Alarm::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Runs `body` in one transaction and makes it durable before returning.
    ///
    /// `body` holds the only write connection: it may use Diesel (through this module's table
    /// functions) and pure code, and must not wait for anything else. Whatever goes wrong, an
    /// `Err` of `body`, a panic, a lost fence, a failed COMMIT, leaves the database as it was.
    ///
    /// # Errors
    /// What `body` returned; [`StoreError::Fenced`]; [`StoreError::NoSpace`] and
    /// [`StoreError::Query`] from BEGIN and COMMIT.
    pub fn write<T>(&self, fence: &Fence, body: impl FnOnce(&mut Tx<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let mut writer = self.inner.writer.lock();
        let _busy = self.inner.watch.enter();
        if writer.is_none() {
            let opened = connection::writer(&self.inner.path, self.inner.bytes_max);
            self.note_fault(opened.as_ref().err());
            *writer = Some(opened?);
        }
        let open = writer.as_mut().expect("opened above");
        let result = self.transact(open, fence, body);
        self.note_fault(result.as_ref().err());
        if let Err(error) = &result {
            self.inner.watch.rolled_back(matches!(error, StoreError::Fenced));
            if !connection::is_usable(open) {
                *writer = None;
            }
        }
        result
    }

    fn note_fault(&self, error: Option<&StoreError>) {
        let mut fault = self.inner.fault.lock().unwrap_or_else(PoisonError::into_inner);
        match error {
            None => *fault = None,
            Some(error) if error.is_of_the_whole_store() => *fault = Some(actor::chain(error)),
            Some(_) => {}
        }
        drop(fault);
        self.note_damage(error);
    }

    fn transact<T>(
        &self,
        connection: &mut SqliteConnection,
        fence: &Fence,
        body: impl FnOnce(&mut Tx<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut transaction = Transaction::begin(connection, "BEGIN IMMEDIATE").map_err(query("begin a transaction", "sqlite"))?;
        let revision = self.devices_revision();
        let mut tx = Tx { read: Read { connection: transaction.connection() }, revision, changes_devices: false };
        let value = body(&mut tx)?;
        let changes_devices = tx.changes_devices;
        if !fence.holds() {
            return Err(StoreError::Fenced);
        }
        let started = Instant::now();
        transaction.commit().map_err(query("commit", "sqlite"))?;
        self.inner.watch.committed(started.elapsed());
        self.inner.devices_revision.fetch_add(u64::from(changes_devices), Ordering::SeqCst);
        Ok(value)
    }

    /// Runs `body` on one consistent state of the database; it cannot write.
    ///
    /// # Errors
    /// What `body` returned; [`StoreError::Open`] when no reader became free within 5 s.
    pub fn read<T>(&self, body: impl FnOnce(&mut Read<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let mut pooled = self.inner.readers.get().map_err(|source| StoreError::Open { path: self.inner.path.clone(), source: source.into() })?;
        let mut transaction = Transaction::begin(&mut pooled, "BEGIN").map_err(query("begin reading", "sqlite"))?;
        let result = body(&mut Read { connection: transaction.connection() });
        self.note_damage(result.as_ref().err());
        result
    }

    /// A number that is another one after each commit that changed devices or their twins. What was read after it is of this
    /// revision or a later one; while it stays the same nothing of them has changed but by a commit that has not returned.
    pub fn devices_revision(&self) -> u64 {
        self.inner.devices_revision.load(Ordering::SeqCst)
    }

    /// Calls `hook` once, on a thread of its own, when a transaction has lasted `limit`.
    ///
    /// An actor that hangs inside a transaction cannot be fenced, for it holds the only write
    /// connection; see [`Store::end_process_when_stuck`].
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn when_stuck(&self, limit: Duration, hook: impl FnOnce(Stuck) + Send + 'static) -> std::io::Result<()> {
        watch::spawn(&self.inner.watch, limit, hook)
    }

    /// Ends the process with [`STUCK_EXIT_CODE`] when a transaction has lasted `limit`; the daemon
    /// gives [`STUCK_AFTER`]. What was not committed is rolled back by the next start.
    ///
    /// # Errors
    /// When the system gives no thread.
    #[allow(clippy::disallowed_methods, reason = "nothing can be drained: every commit waits for the one that hangs")]
    pub fn end_process_when_stuck(&self, limit: Duration) -> std::io::Result<()> {
        self.when_stuck(limit, |stuck| {
            let secs = stuck.held_for.as_secs_f64();
            log::error!(held_for_secs = secs, exit_code = STUCK_EXIT_CODE; "a transaction hangs, the process ends");
            std::process::exit(STUCK_EXIT_CODE);
        })
    }

    /// For a drill: takes the write connection into a transaction on a thread of its own and keeps it for ever, as a disk
    /// that does not answer would.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn hang_on_purpose(&self) -> std::io::Result<()> {
        let store = self.clone();
        let hang = move || {
            // No fence is lost and nothing is written: it never comes to that.
            let mut writer = store.inner.writer.lock();
            let _busy = store.inner.watch.enter();
            let transaction = writer.as_mut().map(|open| Transaction::begin(open, "BEGIN IMMEDIATE"));
            let (_keep, never) = std::sync::mpsc::channel::<()>();
            let _ = never.recv();
            drop(transaction);
        };
        std::thread::Builder::new().name("store-hang".into()).stack_size(256 * 1024).spawn(hang).map(drop)
    }

    /// What the write connection has done so far.
    pub fn stats(&self) -> WriteStats {
        self.inner.watch.stats()
    }

    /// How many threads write or wait to write.
    pub fn writers(&self) -> u64 {
        self.inner.writer.waiting()
    }

    /// Where the database is.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("path", &self.inner.path).finish_non_exhaustive()
    }
}

/// One consistent state of the database; given to the reading functions of the tables.
pub struct Read<'c> {
    connection: &'c mut SqliteConnection,
}

/// A transaction that may write; it is also a [`Read`] that sees its own writes.
pub struct Tx<'c> {
    read: Read<'c>,
    revision: u64,
    changes_devices: bool,
}

impl Tx<'_> {
    /// [`Store::devices_revision`] of what this transaction sees, and of what there is after it, if it commits as it is now.
    pub fn devices_revisions(&self) -> (u64, u64) {
        (self.revision, self.revision + u64::from(self.changes_devices))
    }

    /// This transaction changes devices or their twins.
    fn changes_devices(&mut self) {
        self.changes_devices = true;
    }
}

impl<'c> Deref for Tx<'c> {
    type Target = Read<'c>;
    fn deref(&self) -> &Read<'c> {
        &self.read
    }
}

impl<'c> DerefMut for Tx<'c> {
    fn deref_mut(&mut self) -> &mut Read<'c> {
        &mut self.read
    }
}
