//! What the store measures of itself, and the watcher that ends a process whose commit hangs.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

/// How long a transaction may hold the write connection before the process is ended.
pub const STUCK_AFTER: Duration = Duration::from_secs(30);

/// Exit code of a process that ends because of [`STUCK_AFTER`] (systemd restarts it).
pub const STUCK_EXIT_CODE: i32 = admin::exit::STUCK as i32;

/// Buckets of the commit latency: the n-th counts commits of less than 2ⁿ⁺⁷ µs (128 µs … 4 s), the last all others.
pub const LATENCY_BUCKETS: usize = 17;

/// A transaction that has held the write connection for too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stuck {
    /// For how long so far.
    pub held_for: Duration,
}

/// Counters of the write connection since the start, for the metrics page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteStats {
    /// Transactions that became durable.
    pub commits: u64,
    /// Transactions that were rolled back, for whatever reason.
    pub rollbacks: u64,
    /// Those of `rollbacks` whose actor had been replaced.
    pub fenced: u64,
    /// Duration of the last COMMIT statement, µs.
    pub commit_last_us: u64,
    /// Longest COMMIT statement, µs.
    pub commit_max_us: u64,
    /// Sum of all COMMIT statements, µs.
    pub commit_total_us: u64,
    /// How many commits took how long; see [`LATENCY_BUCKETS`].
    pub commit_buckets: [u64; LATENCY_BUCKETS],
}

/// Shared between the store, its watcher thread and whoever reads the figures.
pub(super) struct Watch {
    born: Instant,
    /// When the present holder took the connection, µs since `born`, plus one; 0 while it is free.
    busy_since: AtomicU64,
    commits: AtomicU64,
    rollbacks: AtomicU64,
    fenced: AtomicU64,
    last: AtomicU64,
    max: AtomicU64,
    total: AtomicU64,
    buckets: [AtomicU64; LATENCY_BUCKETS],
}

impl Watch {
    pub(super) fn new() -> Self {
        Self {
            born: Instant::now(),
            busy_since: AtomicU64::new(0),
            commits: AtomicU64::new(0),
            rollbacks: AtomicU64::new(0),
            fenced: AtomicU64::new(0),
            last: AtomicU64::new(0),
            max: AtomicU64::new(0),
            total: AtomicU64::new(0),
            buckets: Default::default(),
        }
    }

    /// Stamps the beginning; the stamp goes when the returned value is dropped, by a panic too.
    pub(super) fn enter(&self) -> Busy<'_> {
        self.busy_since.store(micros(self.born.elapsed()) + 1, Relaxed);
        Busy(self)
    }

    pub(super) fn committed(&self, took: Duration) {
        let took = micros(took);
        self.commits.fetch_add(1, Relaxed);
        self.last.store(took, Relaxed);
        self.max.fetch_max(took, Relaxed);
        self.total.fetch_add(took, Relaxed);
        let bucket = (64 - took.leading_zeros()).saturating_sub(7) as usize;
        self.buckets[bucket.min(LATENCY_BUCKETS - 1)].fetch_add(1, Relaxed);
    }

    pub(super) fn rolled_back(&self, fenced: bool) {
        self.rollbacks.fetch_add(1, Relaxed);
        if fenced {
            self.fenced.fetch_add(1, Relaxed);
        }
    }

    pub(super) fn stats(&self) -> WriteStats {
        WriteStats {
            commits: self.commits.load(Relaxed),
            rollbacks: self.rollbacks.load(Relaxed),
            fenced: self.fenced.load(Relaxed),
            commit_last_us: self.last.load(Relaxed),
            commit_max_us: self.max.load(Relaxed),
            commit_total_us: self.total.load(Relaxed),
            commit_buckets: std::array::from_fn(|bucket| self.buckets[bucket].load(Relaxed)),
        }
    }

    pub(super) fn stuck(&self, limit: Duration) -> Option<Stuck> {
        let since = self.busy_since.load(Relaxed).checked_sub(1)?;
        let held_for = self.born.elapsed().saturating_sub(Duration::from_micros(since));
        (held_for >= limit).then_some(Stuck { held_for })
    }
}

/// Marks the write connection as in use.
pub(super) struct Busy<'w>(&'w Watch);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.busy_since.store(0, Relaxed);
    }
}

/// Calls `hook` once, from a thread of its own, when a transaction has lasted `limit`.
///
/// The thread ends with the store. It looks ten times per `limit`; the time a machine sleeps
/// does not count.
pub(super) fn spawn(watch: &Arc<Watch>, limit: Duration, hook: impl FnOnce(Stuck) + Send + 'static) -> std::io::Result<()> {
    let watch = Arc::downgrade(watch);
    thread::Builder::new().name("store-watch".into()).stack_size(128 * 1024).spawn(move || {
        while let Some(watch) = watch.upgrade() {
            if let Some(stuck) = watch.stuck(limit) {
                hook(stuck);
                return;
            }
            drop(watch);
            thread::park_timeout(limit / 10);
        }
    })?;
    Ok(())
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
