//! What systemd is told: READY, RELOADING, WATCHDOG while the actors are well, STATUS in one line, STOPPING.
//!
//! Without `NOTIFY_SOCKET` nothing is sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use actor::{Health, Policy, Registry, State, View};
use sd_notify::NotifyState;

/// Between two looks when there is no watchdog.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Says that the daemon is up, or has read its configuration again.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// Says that the daemon reads its configuration again; [`ready`] has to follow.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => log::debug!(error:% = error; "no monotonic clock for systemd"),
    }
}

/// Says that the daemon is going down.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Feeds the watchdog at half its period while every module is [well](Wellness), and tells in one line how things stand,
/// whenever that line has changed.
pub async fn watch(registry: Registry, patience: Patience, line: impl Fn() -> String) {
    let watchdog = sd_notify::watchdog_enabled();
    let every = watchdog.map_or(LOOK_EVERY, |period| (period / 2).clamp(Duration::from_millis(100), LOOK_EVERY));
    let mut tick = tokio::time::interval(every);
    let (mut wellness, mut said) = (Wellness::default(), String::new());
    loop {
        tick.tick().await;
        let ill = wellness.look(&registry.health(), &registry.views(), tokio::time::Instant::now(), patience.get());
        if ill.is_none() {
            tell(&[NotifyState::Watchdog]);
        }
        let status = ill.unwrap_or_else(&line);
        if status != said {
            tell(&[NotifyState::Status(&status)]);
            said = status;
        }
    }
}

/// How long an actor may be between two lives: as long as its supervisor may need to find that it is silent, and then
/// pause. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct Patience(Arc<AtomicU64>);

impl Patience {
    /// By these numbers.
    #[must_use]
    pub fn new(policy: &Policy) -> Self {
        let patience = Self(Arc::default());
        patience.set(policy);
        patience
    }

    /// By other numbers.
    pub fn set(&self, policy: &Policy) {
        let secs = (policy.silent_for + policy.backoff_max).as_secs();
        self.0.store(secs, Ordering::Relaxed);
    }

    fn get(&self) -> Duration {
        Duration::from_secs(self.0.load(Ordering::Relaxed))
    }
}

/// Whether the watchdog may be fed: not when supervision gave up or is silent itself, nor when an actor has been out of
/// `Up` for longer than its supervisor could need to find and replace it.
#[derive(Debug, Default)]
pub struct Wellness(Vec<(String, tokio::time::Instant)>);

impl Wellness {
    /// Looks at the actors as they are now; `Some` says what is wrong.
    pub fn look(&mut self, health: &Health, actors: &[View], now: tokio::time::Instant, patience: Duration) -> Option<String> {
        let is_out = |view: &View| match view.state {
            State::Down | State::BackingOff | State::Hung | State::GaveUp => true,
            State::Up | State::Stopped | State::Disabled => false,
        };
        self.0.retain(|(name, _)| actors.iter().any(|view| view.name == *name && is_out(view)));
        for view in actors.iter().filter(|view| is_out(view)) {
            if !self.0.iter().any(|(name, _)| *name == view.name) {
                self.0.push((view.name.clone(), now));
            }
        }
        if let Health::Red(why) = health {
            return Some(why.clone());
        }
        let (name, since) = self.0.iter().find(|(_, since)| now.duration_since(*since) > patience)?;
        Some(format!("{name} has not been up for {} s", now.duration_since(*since).as_secs()))
    }
}

/// How many actors are up, of those that are enabled: the first words of a daemon's line.
#[must_use]
pub fn actors_up(views: &[View]) -> String {
    let enabled = views.iter().filter(|view| view.state != State::Disabled).count();
    let up = views.iter().filter(|view| view.state == State::Up).count();
    if up == enabled { format!("{up} actors up") } else { format!("{up} of {enabled} actors up") }
}

/// A count with its word.
#[must_use]
pub fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        log::debug!(error = error.to_string().as_str(); "systemd was not told");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, missing_docs)] // a failed step is the test's failure

    use tokio::time::Instant;

    use super::*;

    fn one(state: State) -> Vec<View> {
        struct Nothing;
        impl actor::Mail for Nothing {
            fn kind(&self) -> &'static str {
                "Nothing"
            }
        }
        vec![View { state, ..actor::mailbox::<Nothing>("twin", 1).observe().view() }]
    }

    #[test]
    fn the_watchdog_is_fed_while_an_actor_is_replaced_and_not_when_it_stays_away() {
        let (mut wellness, start, patience) = (Wellness::default(), Instant::now(), Duration::from_secs(150));
        let at = |secs| start + Duration::from_secs(secs);
        let yellow = Health::Yellow("twin is not up".into());
        assert_eq!(wellness.look(&yellow, &one(State::Hung), at(0), patience), None);
        assert_eq!(wellness.look(&yellow, &one(State::BackingOff), at(150), patience), None);
        assert_eq!(wellness.look(&yellow, &one(State::BackingOff), at(151), patience).unwrap(), "twin has not been up for 151 s");
        assert_eq!(wellness.look(&Health::Green, &one(State::Up), at(152), patience), None);
        assert_eq!(wellness.look(&yellow, &one(State::BackingOff), at(160), patience), None, "the time begins anew");
        assert_eq!(wellness.look(&Health::Green, &one(State::Disabled), at(900), patience), None);
    }

    #[test]
    fn the_watchdog_is_not_fed_when_supervision_is_gone() {
        let red = Health::Red("the supervisor has given no sign of life for 30 s".into());
        assert!(Wellness::default().look(&red, &one(State::Up), Instant::now(), Duration::MAX).unwrap().contains("no sign of life"));
    }

    #[test]
    fn the_line_counts_the_enabled_ones_only() {
        let all: Vec<View> = [State::Up, State::Up, State::Disabled].into_iter().flat_map(one).collect();
        assert_eq!(actors_up(&all), "2 actors up");
        let all: Vec<View> = [State::Up, State::Hung].into_iter().flat_map(one).collect();
        assert_eq!(actors_up(&all), "1 of 2 actors up");
    }
}
