//! Durations in powers of two: one plain store to record, no allocation, quantiles within a factor of two.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::registry::Bucket;

const BUCKETS: usize = 40;

/// Counts of durations; bucket `n` holds those of 2ⁿ⁻¹ to 2ⁿ − 1 ns.
#[derive(Debug)]
pub(crate) struct Histogram([AtomicU64; BUCKETS]);

impl Default for Histogram {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Histogram {
    pub(crate) fn record(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let bucket = (64 - nanos.leading_zeros() as usize).min(BUCKETS - 1);
        // One writer at a time: whoever holds the desk.
        self.0[bucket].store(self.0[bucket].load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// The buckets between the first and the last that count anything.
    pub(crate) fn buckets(&self) -> Vec<Bucket> {
        let counts: Vec<u64> = self.0.iter().map(|c| c.load(Ordering::Relaxed)).collect();
        let Some(first) = counts.iter().position(|c| *c > 0) else { return Vec::new() };
        let last = counts.iter().rposition(|c| *c > 0).unwrap_or(first);
        (first..=last).map(|bucket| Bucket { up_to_us: (1u64 << bucket) as f64 / 1000.0, count: counts[bucket] }).collect()
    }

    /// Upper bound, in µs, of the bucket in which the quantile lies; 0 if nothing was recorded.
    pub(crate) fn quantile_us(&self, quantile: f64) -> f64 {
        let counts: Vec<u64> = self.0.iter().map(|c| c.load(Ordering::Relaxed)).collect();
        let total: u64 = counts.iter().sum();
        if total == 0 {
            return 0.0;
        }
        let wanted = ((total as f64) * quantile).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (bucket, count) in counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return (1u64 << bucket) as f64 / 1000.0;
            }
        }
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_lies_within_a_factor_of_two_of_what_was_recorded() {
        let histogram = Histogram::default();
        for _ in 0..99 {
            histogram.record(Duration::from_micros(10));
        }
        histogram.record(Duration::from_millis(10));
        assert!((10.0..=20.0).contains(&histogram.quantile_us(0.5)));
        assert!((10_000.0..=20_000.0).contains(&histogram.quantile_us(1.0)));
    }
}
