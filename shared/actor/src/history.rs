//! The last minutes of an actor: what its sparkline shows.

use std::collections::VecDeque;
use std::time::Duration;

/// Time between two samples.
pub(crate) const EVERY: Duration = Duration::from_secs(2);
/// Samples that are kept: ten minutes.
const SAMPLES_MAX: usize = 300;
/// Samples over which the present rate is taken.
const RATE_OVER: usize = 3;

/// What happened between two samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Sample {
    /// Messages settled meanwhile.
    pub handled: u32,
    /// Messages that waited at the end.
    pub depth: u32,
}

impl Sample {
    /// Seconds between two samples.
    pub const SECONDS: u64 = EVERY.as_secs();
}

#[derive(Debug, Default)]
pub(crate) struct History {
    samples: VecDeque<Sample>,
    handled: u64,
}

impl History {
    pub(crate) fn add(&mut self, handled: u64, depth: usize) {
        if self.samples.len() == SAMPLES_MAX {
            self.samples.pop_front();
        }
        let since = u32::try_from(handled.saturating_sub(self.handled)).unwrap_or(u32::MAX);
        self.handled = handled;
        self.samples.push_back(Sample { handled: since, depth: u32::try_from(depth).unwrap_or(u32::MAX) });
    }

    pub(crate) fn samples(&self) -> Vec<Sample> {
        self.samples.iter().copied().collect()
    }

    pub(crate) fn per_second(&self) -> f64 {
        let last: Vec<_> = self.samples.iter().rev().take(RATE_OVER).collect();
        let handled: u64 = last.iter().map(|s| u64::from(s.handled)).sum();
        match last.len() {
            0 => 0.0,
            n => handled as f64 / (EVERY.as_secs_f64() * n as f64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_samples_go_and_the_rate_is_of_the_last_seconds() {
        let mut history = History::default();
        for n in 0..1000 {
            history.add(n * 20, 7);
        }
        assert_eq!(history.samples().len(), SAMPLES_MAX);
        assert_eq!(history.samples()[0], Sample { handled: 20, depth: 7 });
        assert!((history.per_second() - 10.0).abs() < f64::EPSILON);
        assert!(History::default().per_second().abs() < f64::EPSILON);
    }
}
