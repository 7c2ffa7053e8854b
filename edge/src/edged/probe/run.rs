//! The task that asks one container, from its start until somebody aborts it.
//!
//! It sleeps between two questions, and tells only what changes: a hundred pods with a probe every ten seconds are ten
//! questions in a second.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join;
use tokio::time::{Instant, sleep};

use super::ask::{Outcome, Target, ask};
use super::machine::{Change, Kind, ProbeState, Terms};
use crate::edged::Shared;
use crate::edged::pod::{Container, Probe};

/// Whom to ask.
#[derive(Clone)]
pub struct Job {
    /// With its probes.
    pub container: Container,
    /// Where it is.
    pub target: Target,
    /// Who knows where that is, if it is on the machine's own network: a machine may move while the container runs.
    pub home: Option<Arc<Shared>>,
    /// How long it has been running.
    pub running_for: Duration,
    /// How long the daemon has been running: shortly after its start the first questions are spread over a period.
    pub daemon_for: Duration,
    /// Its startup probe has succeeded before, as far as its last status says.
    pub has_started: bool,
    /// Whether it was ready, as far as its last status says: a restart of the daemon makes nobody unready.
    pub was_ready: Option<bool>,
}

/// What a probe has found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeResult {
    /// Which probe.
    pub kind: Kind,
    /// What.
    pub change: Change,
}

/// Asks until there is nothing to ask any more: the container has no probe (left), or is to be replaced. May be dropped at
/// any point.
pub async fn run(job: Job, tell: impl Fn(ProbeResult)) {
    let Job { container, target, home, running_for, daemon_for, has_started, was_ready } = job;
    let begun = Instant::now();
    let clock = || running_for + begun.elapsed();
    let target = || match &home {
        Some(home) => Target { pod_ip: home.home_ip(), ..target.clone() },
        None => target.clone(),
    };
    let (container, target, clock, tell) = (&container, &target, &clock, &tell);
    let follow = |kind, probe: &Option<Probe>, earlier| {
        let probe = probe.clone();
        async move {
            let Some(probe) = probe else { return true };
            let terms = Terms::of(&probe);
            let mut state = ProbeState::new(kind, terms, Duration::ZERO, clock(), earlier);
            if daemon_for < terms.period {
                state.delay_first(rand::random());
            }
            let mut late = None;
            let ask = async |limit| ask(&probe.handler, container, &target(), limit, &mut late).await;
            follow(state, clock, ask, |change| tell(ProbeResult { kind, change })).await
        }
    };
    if !has_started && !follow(Kind::Startup, &container.startup_probe, None).await {
        return;
    }
    join(follow(Kind::Liveness, &container.liveness_probe, None), follow(Kind::Readiness, &container.readiness_probe, was_ready)).await;
}

/// Follows one probe to its end; whether it ended well.
async fn follow(mut state: ProbeState, clock: &impl Fn() -> Duration, mut ask: impl AsyncFnMut(Duration) -> Outcome, tell: impl Fn(Change)) -> bool {
    while let Some(at) = state.next_at() {
        sleep(at.saturating_sub(clock())).await;
        let asked = clock();
        let outcome = ask(state.timeout()).await;
        if let Some(change) = state.observe(asked, clock(), outcome) {
            tell(change);
        }
    }
    state.is_success()
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// Follows a probe over these answers, each after so many milliseconds; what was told, and when each question came.
    async fn followed(kind: Kind, probe: &Probe, answers: &[(char, u64)]) -> (Vec<(u64, Change)>, Vec<u64>, Option<bool>) {
        let begun = Instant::now();
        let clock = || begun.elapsed();
        let seconds = || begun.elapsed().as_secs();
        let (told, asked) = (RefCell::new(Vec::new()), RefCell::new(Vec::new()));
        let ask = async |limit: Duration| {
            let (answer, millis) = *answers.get(asked.borrow().len()).unwrap_or(&('.', 0));
            asked.borrow_mut().push(seconds());
            match tokio::time::timeout(limit, sleep(Duration::from_millis(millis))).await {
                Err(_) => Outcome::Failure("late".into()),
                Ok(()) if answer == '+' => Outcome::Success,
                Ok(()) if answer == '-' => Outcome::Failure("no".into()),
                Ok(()) => std::future::pending().await,
            }
        };
        let state = ProbeState::new(kind, Terms::of(probe), Duration::ZERO, clock(), None);
        let followed = follow(state, &clock, ask, |change| told.borrow_mut().push((seconds(), change)));
        let end = tokio::time::timeout(Duration::from_secs(3600), followed).await.ok();
        (told.into_inner(), asked.into_inner(), end)
    }

    #[tokio::test(start_paused = true)]
    async fn questions_come_once_in_a_period_and_only_changes_are_told() {
        let probe = Probe { initial_delay_seconds: 7, period_seconds: 5, timeout_seconds: 3, ..Probe::default() };
        let (told, asked, end) = followed(Kind::Readiness, &probe, &[('+', 0), ('+', 2000), ('-', 0), ('+', 9000), ('-', 0), ('+', 0)]).await;
        assert_eq!(asked, [7, 12, 17, 22, 27, 32, 37]);
        assert_eq!(
            told,
            [(7, Change::Succeeded), (17, Change::Unwell("no".into())), (27, Change::Failed("no".into())), (32, Change::Succeeded)],
            "an answer that came too late is a failure"
        );
        assert_eq!(end, None, "readiness has no end");
    }

    #[tokio::test(start_paused = true)]
    async fn a_liveness_that_has_failed_and_a_startup_that_has_an_end_ask_no_more() {
        let probe = Probe { failure_threshold: 2, ..Probe::default() };
        let (told, asked, end) = followed(Kind::Liveness, &probe, &[('+', 0), ('-', 0), ('-', 0), ('+', 0)]).await;
        assert_eq!((asked, end), (vec![0, 10, 20], Some(false)));
        assert_eq!(told, [(10, Change::Unwell("no".into())), (20, Change::Failed("no".into()))]);
        let (told, asked, end) = followed(Kind::Startup, &probe, &[('-', 0), ('+', 0), ('+', 0)]).await;
        assert_eq!((asked, end), (vec![0, 10], Some(true)));
        assert_eq!(told, [(0, Change::Unwell("no".into())), (10, Change::Succeeded)]);
    }
}
