//! When to restart, when to give up: pure.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::MsgId;

/// The numbers by which a supervisor acts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How often each actor is asked for a sign of life (manual ch. 10.2.4).
    pub ping_every: Duration,
    /// Silent for longer: fenced and replaced (manual ch. 10.2.4).
    pub silent_for: Duration,
    /// How often the supervisor looks at the signs of life.
    pub sweep_every: Duration,
    /// How long an aborted actor may take to go before its thread is left behind.
    pub kill_grace: Duration,
    /// Deadline of an orderly shutdown, for all actors together.
    pub shutdown_for: Duration,
    /// More deaths than this within `period`: escalate.
    pub intensity: usize,
    /// See `intensity`.
    pub period: Duration,
    /// Pause before the second restart; doubles with each further death. The first restart is immediate.
    pub backoff: Duration,
    /// Longest pause.
    pub backoff_max: Duration,
    /// More blocked threads left behind than this: escalate.
    pub zombies_max: usize,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            ping_every: Duration::from_secs(60),
            silent_for: Duration::from_secs(120),
            sweep_every: Duration::from_secs(5),
            kill_grace: Duration::from_secs(1),
            shutdown_for: Duration::from_secs(10),
            intensity: 5,
            period: Duration::from_secs(600),
            backoff: Duration::from_millis(100),
            backoff_max: Duration::from_secs(30),
            zombies_max: 8,
        }
    }
}

/// What the death of a child means for its siblings (OTP's names).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Strategy {
    /// Nothing: it is restarted alone.
    #[default]
    OneForOne,
    /// Those that were started after it are ended, last first, and restarted with it.
    RestForOne,
    /// All are ended, last first, and restarted.
    OneForAll,
}

impl Strategy {
    /// Its name on the page.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::OneForOne => "one-for-one",
            Self::RestForOne => "rest-for-one",
            Self::OneForAll => "one-for-all",
        }
    }
}

/// After which ends a child is started again (OTP's names).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Restart {
    /// After each.
    #[default]
    Permanent,
    /// After a panic, a hang or an escalation; not when it ended by itself.
    Transient,
    /// Never.
    Temporary,
}

/// What follows from a death.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Start the next incarnation after this pause.
    RestartAfter(Duration),
    /// Too many deaths within the period.
    Escalate,
}

/// The deaths of one actor within the period.
#[derive(Debug, Default)]
pub struct Intensity(VecDeque<(Instant, Vec<MsgId>)>);

impl Intensity {
    /// Deaths within the period; older ones are forgotten.
    pub fn count(&mut self, policy: &Policy, now: Instant) -> usize {
        while self.0.front().is_some_and(|(at, _)| now.duration_since(*at) > policy.period) {
            self.0.pop_front();
        }
        self.0.len()
    }

    /// Records a death at which `in_hand` was being handled, and judges.
    ///
    /// Deaths by a message that is in quarantine now (`buried`) are taken back: a hostile sender must not be able to stop
    /// the process.
    pub fn died(&mut self, policy: &Policy, now: Instant, in_hand: Vec<MsgId>, buried: &[MsgId]) -> Verdict {
        self.0.push_back((now, in_hand));
        self.0.retain(|(_, in_hand)| !buried.iter().any(|id| in_hand.contains(id)));
        let deaths = self.count(policy, now);
        if deaths > policy.intensity {
            return Verdict::Escalate;
        }
        Verdict::RestartAfter(match deaths {
            0 | 1 => Duration::ZERO,
            n => policy.backoff.saturating_mul(1 << (n - 2).min(16)).min(policy.backoff_max),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> Policy {
        Policy { intensity: 3, ..Policy::default() }
    }

    #[test]
    fn the_first_restart_is_immediate_and_then_the_pause_doubles() {
        let (mut deaths, now) = (Intensity::default(), Instant::now());
        assert_eq!(deaths.died(&policy(), now, vec![], &[]), Verdict::RestartAfter(Duration::ZERO));
        assert_eq!(deaths.died(&policy(), now, vec![], &[]), Verdict::RestartAfter(Duration::from_millis(100)));
        assert_eq!(deaths.died(&policy(), now, vec![], &[]), Verdict::RestartAfter(Duration::from_millis(200)));
        assert_eq!(deaths.died(&policy(), now, vec![], &[]), Verdict::Escalate);
    }

    #[test]
    fn deaths_older_than_the_period_are_forgotten() {
        let (mut deaths, now) = (Intensity::default(), Instant::now());
        for minute in 0..20 {
            let at = now + Duration::from_secs(minute * 601);
            assert_eq!(deaths.died(&policy(), at, vec![], &[]), Verdict::RestartAfter(Duration::ZERO));
        }
    }

    #[test]
    fn deaths_by_a_quarantined_message_do_not_count() {
        let (mut deaths, now) = (Intensity::default(), Instant::now());
        for _ in 0..20 {
            let poison = MsgId::fresh();
            for buried in [&[][..], &[], &[poison]] {
                assert_ne!(deaths.died(&policy(), now, vec![poison], buried), Verdict::Escalate);
            }
        }
    }
}
