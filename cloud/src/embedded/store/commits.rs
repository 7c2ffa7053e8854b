//! How long the commits of the store took.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// Counters since the start; the writer alone counts.
#[derive(Debug, Default)]
pub struct Commits {
    count: AtomicU64,
    total_us: AtomicU64,
    max_us: AtomicU64,
}

impl Commits {
    pub(super) fn record(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.count.fetch_add(1, Relaxed);
        self.total_us.fetch_add(us, Relaxed);
        self.max_us.fetch_max(us, Relaxed);
    }

    /// Transactions that became durable.
    pub fn count(&self) -> u64 {
        self.count.load(Relaxed)
    }

    /// Time spent in COMMIT.
    pub fn total(&self) -> Duration {
        Duration::from_micros(self.total_us.load(Relaxed))
    }

    /// The longest COMMIT.
    pub fn longest(&self) -> Duration {
        Duration::from_micros(self.max_us.load(Relaxed))
    }
}
