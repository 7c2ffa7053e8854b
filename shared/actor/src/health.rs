//! Is the process well? A pure question to the counters.

use crate::registry::{State, View};

/// The state of the whole process, read by the watchdog, `/healthz` and `/readyz`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// Every actor is up.
    Green,
    /// Some actor is between two lives; the supervisor is at work.
    Yellow(String),
    /// The supervisor gave up: the process should be restarted.
    Red(String),
}

impl Health {
    /// Judges the actors of a process.
    #[must_use]
    pub fn of(views: &[View]) -> Self {
        let name = |state: State| views.iter().find(|v| v.state == state).map(|v| v.name.clone());
        if let Some(name) = name(State::GaveUp) {
            return Self::Red(format!("{name} died too often"));
        }
        match name(State::BackingOff).or_else(|| name(State::Hung)).or_else(|| name(State::Down)) {
            Some(name) => Self::Yellow(format!("{name} is not up")),
            None => Self::Green,
        }
    }
}
