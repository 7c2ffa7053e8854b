//! How long to wait before the next attempt to connect. Pure: the caller owns clock and random numbers.

use std::time::Duration;

use rand::Rng;

/// First step of the back-off.
pub const FIRST_STEP: Duration = Duration::from_millis(100);
/// The longest possible wait.
pub const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Full-jitter exponential back-off.
///
/// The first attempt is made at once; the n-th repetition waits a random time between zero and
/// `first · 2ⁿ`, at most `longest`. A thousand machines that lose the same peer in the same second
/// therefore come back spread over the whole interval and not in waves.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    /// Starts fresh: the next wait is zero.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, failures: 0 }
    }

    /// Returns the wait before the next attempt and counts that attempt as made.
    pub fn next_wait(&mut self, random: &mut impl Rng) -> Duration {
        let ceiling = self.ceiling();
        // Not beyond the longest wait: where that becomes longer, the waits go on growing from here. (Machines that lost a
        // cloud for a while find it busy with all of them when it is back; one refusal must not cost half a minute then.)
        if ceiling < self.longest {
            self.failures = self.failures.saturating_add(1);
        }
        if ceiling.is_zero() {
            return Duration::ZERO;
        }
        let micros = u64::try_from(ceiling.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(random.random_range(0..=micros))
    }

    /// Forgets the failures: the next wait is zero again. Called when a connection stands.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// Sets another upper limit for all further waits; what was counted stays.
    pub fn set_longest(&mut self, longest: Duration) {
        self.longest = longest;
    }

    /// Upper end of the next wait: zero for the first attempt, then doubling up to the longest.
    pub fn ceiling(&self) -> Duration {
        match self.failures {
            0 => Duration::ZERO,
            failures => self.first.saturating_mul(1_u32.checked_shl(failures - 1).unwrap_or(u32::MAX)).min(self.longest),
        }
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new(FIRST_STEP, LONGEST_WAIT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    #[test]
    fn the_first_attempt_is_made_at_once() {
        assert_eq!(Backoff::default().next_wait(&mut rand::rng()), Duration::ZERO);
    }

    #[test]
    fn the_ceiling_doubles_from_a_tenth_of_a_second_to_thirty_seconds_and_stays_there() {
        let mut backoff = Backoff::default();
        let mut random = StdRng::seed_from_u64(1);
        let mut ceilings = Vec::new();
        for _ in 0..12 {
            ceilings.push(backoff.ceiling().as_millis());
            backoff.next_wait(&mut random);
        }
        assert_eq!(ceilings, [0, 100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 30_000, 30_000]);
    }

    #[test]
    fn no_wait_is_above_its_ceiling_even_after_a_very_long_outage() {
        let mut backoff = Backoff::default();
        let mut random = StdRng::seed_from_u64(2);
        for _ in 0..10_000 {
            let ceiling = backoff.ceiling();
            assert!(backoff.next_wait(&mut random) <= ceiling);
        }
        backoff.failures = u32::MAX;
        assert!(backoff.next_wait(&mut random) <= LONGEST_WAIT);
        assert_eq!(backoff.failures, u32::MAX);
    }

    #[test]
    fn another_longest_wait_holds_at_once_and_in_both_directions() {
        let mut backoff = Backoff { failures: 100, ..Backoff::default() };
        backoff.set_longest(Duration::from_secs(2));
        assert_eq!(backoff.ceiling(), Duration::from_secs(2));
        backoff.set_longest(LONGEST_WAIT);
        assert_eq!(backoff.ceiling(), LONGEST_WAIT);
    }

    #[test]
    fn a_longest_wait_that_grows_is_reached_by_doubling_as_well() {
        let mut backoff = Backoff::default();
        backoff.set_longest(Duration::from_secs(2));
        for _ in 0..1_000 {
            backoff.next_wait(&mut rand::rng());
        }
        backoff.set_longest(LONGEST_WAIT);
        let ceilings = std::iter::repeat_with(|| {
            backoff.next_wait(&mut rand::rng());
            backoff.ceiling().as_millis()
        });
        assert_eq!(ceilings.take(5).collect::<Vec<_>>(), [6_400, 12_800, 25_600, 30_000, 30_000]);
    }

    #[test]
    fn the_waits_of_many_machines_are_spread_over_the_whole_interval() {
        let mut random = StdRng::seed_from_u64(3);
        let waits: Vec<_> = (0..1_000)
            .map(|_| {
                let mut backoff = Backoff::default();
                (0..8).map(|_| backoff.next_wait(&mut random)).last().unwrap_or_default()
            })
            .collect();
        for tenth in 0..10_u32 {
            let from = Duration::from_millis(640) * tenth;
            let inside = waits.iter().filter(|wait| **wait >= from && **wait < from + Duration::from_millis(640)).count();
            assert!(inside > 50, "{inside} of 1000 machines in tenth {tenth}");
        }
    }

    #[test]
    fn a_connection_that_stood_makes_the_next_attempt_immediate() {
        let mut backoff = Backoff::default();
        for _ in 0..5 {
            backoff.next_wait(&mut rand::rng());
        }
        backoff.reset();
        assert_eq!(backoff.next_wait(&mut rand::rng()), Duration::ZERO);
    }
}
