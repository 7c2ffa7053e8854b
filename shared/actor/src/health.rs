//! Is the process well? A pure question to the counters.

use crate::registry::{State, TreeView, View};

/// The state of the whole process, read by the watchdog, `/healthz` and `/readyz`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// Every actor is up.
    Green,
    /// Some actor is between two lives; the supervisor is at work.
    Yellow(String),
    /// The supervisor gave up, or is gone itself: the process should be restarted.
    Red(String),
}

impl Health {
    /// Judges the actors and supervisors of a process.
    #[must_use]
    pub fn of(actors: &[View], trees: &[TreeView]) -> Self {
        let states = || actors.iter().map(|v| (v.name.as_str(), v.state)).chain(trees.iter().map(|t| (t.name.as_str(), t.state)));
        let first = |wanted: State| states().find(|(_, state)| *state == wanted).map(|(name, _)| name.to_owned());
        if let Some(name) = first(State::GaveUp) {
            return Self::Red(format!("{name} died too often"));
        }
        match first(State::BackingOff).or_else(|| first(State::Hung)).or_else(|| first(State::Down)) {
            Some(name) => Self::Yellow(format!("{name} is not up")),
            None => Self::Green,
        }
    }
}
