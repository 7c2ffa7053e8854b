//! When a container is asked, and what its answers mean: pure. Times are counted from any fixed moment.
//!
//! Source: the kubelet's `pkg/kubelet/prober/worker.go`.

use std::time::Duration;

use super::ask::Outcome;
use crate::edged::pod::Probe;

/// Which of a container's probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Until it succeeds, the other two do not ask; when it fails, the container is replaced.
    Startup,
    /// When it fails, the container is replaced.
    Liveness,
    /// While it fails, the container is not ready.
    Readiness,
}

impl Kind {
    /// As the kubelet writes it in Events: `Liveness probe failed: …`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }
}

/// A probe's numbers, with Kubernetes' defaults for what is 0 or absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// From the container's start to the first question.
    pub initial_delay: Duration,
    /// Between two questions.
    pub period: Duration,
    /// For an answer.
    pub timeout: Duration,
    /// Successes in a row that count.
    pub successes: u32,
    /// Failures in a row that count.
    pub failures: u32,
}

impl Terms {
    /// Those of a probe.
    pub fn of(probe: &Probe) -> Self {
        let or = |value: i64, default: u32| u32::try_from(value).ok().filter(|value| *value > 0).unwrap_or(default);
        let seconds = |value: u32| Duration::from_secs(value.into());
        Self {
            initial_delay: seconds(or(probe.initial_delay_seconds, 0)),
            period: seconds(or(probe.period_seconds, 10)),
            timeout: seconds(or(probe.timeout_seconds, 1)),
            successes: or(probe.success_threshold, 1),
            failures: or(probe.failure_threshold, 3),
        }
    }
}

/// What an answer changed. Answers that change nothing are not told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// So many successes in a row that it counts, and did not before.
    Succeeded,
    /// So many failures in a row that it counts, and did not before.
    Failed(String),
    /// The first failure of a row that does not count yet, or the first question of a row that could not be asked: for the
    /// Event only.
    Unwell(String),
}

/// One probe of one container, from its start to its end.
#[derive(Clone, Debug)]
pub struct ProbeState {
    kind: Kind,
    terms: Terms,
    /// What counts; `None` before a startup probe has an end.
    result: Option<bool>,
    /// What the last answers said, and how many in a row.
    row: Option<(bool, u32)>,
    /// The last question could not be asked.
    is_unsure: bool,
    next_at: Option<Duration>,
}

impl ProbeState {
    /// A probe of a container that started at `started`. `earlier` is what is known of readiness from before a restart of the
    /// daemon.
    pub fn new(kind: Kind, terms: Terms, started: Duration, now: Duration, earlier: Option<bool>) -> Self {
        let result = match kind {
            Kind::Startup => None,
            Kind::Liveness => Some(true),
            Kind::Readiness => Some(earlier.unwrap_or(false)),
        };
        Self { kind, terms, result, row: None, is_unsure: false, next_at: Some(now.max(started + terms.initial_delay)) }
    }

    /// Lets the first question wait for some part of a period, so that after a start of the daemon not everything is asked
    /// at once. `part` is from 0 to 1.
    pub fn delay_first(&mut self, part: f64) {
        let delay = self.terms.period.mul_f64(part.clamp(0.0, 1.0));
        self.next_at = self.next_at.map(|at| at + delay);
    }

    /// When to ask; `None` when there is nothing to ask any more before the container is replaced.
    pub fn next_at(&self) -> Option<Duration> {
        self.next_at
    }

    /// How long an answer may take.
    pub fn timeout(&self) -> Duration {
        self.terms.timeout
    }

    /// What counts at present: whether a readiness or liveness probe succeeds; of a startup probe whether the container has
    /// started.
    pub fn is_success(&self) -> bool {
        self.result == Some(true)
    }

    /// Takes in the answer to the question that was asked at `asked` and answered at `now`.
    pub fn observe(&mut self, asked: Duration, now: Duration, outcome: Outcome) -> Option<Change> {
        // As with Go's ticker: the period runs from question to question, and one that was missed is not made up for.
        self.next_at = Some(now.max(asked + self.terms.period));
        let (is_success, text) = match outcome {
            Outcome::Success => (true, String::new()),
            Outcome::Failure(text) => (false, text),
            // It says nothing of the container: what was counted stays.
            Outcome::Unknown(text) => return (!std::mem::replace(&mut self.is_unsure, true)).then_some(Change::Unwell(text)),
        };
        self.is_unsure = false;
        let earlier = self.row.filter(|(last, _)| *last == is_success).map_or(0, |(_, count)| count);
        self.row = Some((is_success, earlier.saturating_add(1)));
        let is_counted = earlier.saturating_add(1) >= if is_success { self.terms.successes } else { self.terms.failures };
        let is_change = is_counted && self.result != Some(is_success);
        if is_counted {
            self.result = Some(is_success);
            if self.kind == Kind::Startup || (self.kind == Kind::Liveness && !is_success) {
                self.next_at = None;
            }
        }
        match (is_success, is_change) {
            (true, true) => Some(Change::Succeeded),
            (true, false) => None,
            (false, true) => Some(Change::Failed(text)),
            (false, false) => (earlier == 0).then_some(Change::Unwell(text)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn state(kind: Kind, successes: i64, failures: i64) -> ProbeState {
        let probe = Probe { success_threshold: successes, failure_threshold: failures, period_seconds: 5, ..Probe::default() };
        ProbeState::new(kind, Terms::of(&probe), Duration::ZERO, Duration::ZERO, None)
    }

    /// What each of these answers changes: `+` success, `-` failure, `?` unknown; `S`, `F`, `u` and `.` are what it changed.
    fn changes(mut state: ProbeState, answers: &str) -> String {
        let mut changed = String::new();
        for answer in answers.chars() {
            let Some(at) = state.next_at() else { break };
            let outcome = match answer {
                '+' => Outcome::Success,
                '-' => Outcome::Failure("no".into()),
                _ => Outcome::Unknown("away".into()),
            };
            changed.push(match state.observe(at, at, outcome) {
                Some(Change::Succeeded) => 'S',
                Some(Change::Failed(_)) => 'F',
                Some(Change::Unwell(_)) => 'u',
                None => '.',
            });
        }
        changed
    }

    #[test]
    fn answers_count_from_the_threshold_on_and_only_changes_are_told() {
        for (kind, successes, failures, answers, want) in [
            // Readiness begins as failed.
            (Kind::Readiness, 1, 3, "+++--+---+", "S..u..u.FS"),
            (Kind::Readiness, 3, 1, "++-+++-", "..u..SF"),
            (Kind::Readiness, 1, 1, "--+", "u.S"),
            // Liveness begins as well, and asks no more after it has failed.
            (Kind::Liveness, 1, 3, "++--+---+", "..u..u.F"),
            (Kind::Liveness, 1, 1, "-+", "F"),
            // Startup has one end.
            (Kind::Startup, 1, 3, "--+-", "u.S"),
            (Kind::Startup, 1, 3, "---+", "u.F"),
            // What could not be asked interrupts no row, and is said once.
            (Kind::Liveness, 1, 3, "-??-?-", "uu..uF"),
            (Kind::Readiness, 2, 3, "+?+", ".uS"),
            (Kind::Startup, 1, 1, "???+", "u..S"),
        ] {
            assert_eq!(changes(state(kind, successes, failures), answers), want, "{kind:?} {successes} {failures} {answers}");
        }
    }

    #[test]
    fn numbers_that_are_not_given_are_kubernetes_defaults() {
        let terms = Terms { initial_delay: secs(0), period: secs(10), timeout: secs(1), successes: 1, failures: 3 };
        assert_eq!(Terms::of(&Probe::default()), terms);
        let absurd = Probe { period_seconds: -1, timeout_seconds: i64::MAX, ..Probe::default() };
        assert_eq!(Terms::of(&absurd), terms);
    }

    #[test]
    fn the_first_question_waits_for_the_initial_delay_and_the_others_for_the_period() {
        let probe = Probe { initial_delay_seconds: 30, period_seconds: 5, ..Probe::default() };
        let new = |started, now| ProbeState::new(Kind::Liveness, Terms::of(&probe), secs(started), secs(now), None);
        assert_eq!(new(0, 0).next_at(), Some(secs(30)));
        assert_eq!(new(100, 120).next_at(), Some(secs(130)), "the daemon began in between");
        let mut state = new(0, 70);
        assert_eq!(state.next_at(), Some(secs(70)));
        state.observe(secs(70), secs(71), Outcome::Success);
        assert_eq!(state.next_at(), Some(secs(75)));
        // An answer that takes longer than the period delays what follows, and no more.
        state.observe(secs(75), secs(92), Outcome::Success);
        assert_eq!(state.next_at(), Some(secs(92)));
        let mut state = new(0, 70);
        state.delay_first(0.5);
        assert_eq!(state.next_at(), Some(Duration::from_millis(72_500)));
    }

    #[test]
    fn what_counts_is_known_before_the_first_answer() {
        let terms = Terms::of(&Probe::default());
        let new = |kind, earlier| ProbeState::new(kind, terms, Duration::ZERO, Duration::ZERO, earlier).is_success();
        assert!(!new(Kind::Startup, None) && new(Kind::Liveness, None) && !new(Kind::Readiness, None));
        assert!(new(Kind::Readiness, Some(true)), "a restart of the daemon makes nobody unready");
        assert_eq!(changes(ProbeState::new(Kind::Readiness, terms, Duration::ZERO, Duration::ZERO, Some(true)), "+---"), ".u.F");
    }
}
