//! How many messages the last batch of a module had: what its page shows beside the counts of the store.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// Outlives the incarnations of its module: made once, cloned into each.
#[derive(Clone, Debug, Default)]
pub struct LastBatch(Arc<AtomicU64>);

impl LastBatch {
    /// A batch of that many messages is settled.
    pub fn took(&self, messages: usize) {
        self.0.store(messages as u64, Relaxed);
    }

    /// Messages in the last batch; 0 before the first.
    #[must_use]
    pub fn messages(&self) -> u64 {
        self.0.load(Relaxed)
    }
}
