//! What can be seen of the actors of a process, without asking any of them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use crate::Health;
use crate::cell::{Quarantined, lock};

/// Events that are remembered; the oldest goes first.
const EVENTS_MAX: usize = 256;

/// Where an actor stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u32)]
pub enum State {
    /// Not started yet.
    Down = 0,
    /// Handles messages.
    Up = 1,
    /// Died; the next incarnation starts after a pause.
    BackingOff = 2,
    /// Gives no sign of life; is being replaced.
    Hung = 3,
    /// Died too often.
    GaveUp = 4,
    /// Ended in order.
    Stopped = 5,
}

impl State {
    pub(crate) const fn from_raw(raw: u32) -> Self {
        match raw {
            1 => Self::Up,
            2 => Self::BackingOff,
            3 => Self::Hung,
            4 => Self::GaveUp,
            5 => Self::Stopped,
            _ => Self::Down,
        }
    }
}

/// One actor, as the page shows it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct View {
    /// Name of the actor.
    pub name: String,
    /// Where it stands.
    pub state: State,
    /// Number of its incarnation.
    pub epoch: u64,
    /// Messages that wait.
    pub depth: usize,
    /// Messages that may wait or be in hand.
    pub capacity: usize,
    /// Bytes that wait or are in hand, as the messages estimate themselves.
    pub bytes: usize,
    /// Messages settled.
    pub handled: u64,
    /// Messages whose handler reported an error.
    pub failed: u64,
    /// Messages not taken because there was no room.
    pub refused: u64,
    /// Messages put into quarantine.
    pub quarantined: u64,
    /// Incarnations after the first.
    pub restarts: u64,
    /// Deaths by panic.
    pub panics: u64,
    /// Deaths by silence.
    pub hangs: u64,
    /// Variant of the (first) message in hand.
    pub in_hand: Option<&'static str>,
    /// For how long, in ms.
    pub in_hand_ms: u64,
    /// Time since the last batch, in ms.
    pub idle_ms: u64,
    /// Median time per message, in µs.
    pub p50_us: f64,
    /// 99th percentile of the time per message, in µs.
    pub p99_us: f64,
    /// What the last panic said.
    pub last_words: String,
}

/// Something that can be looked at.
pub trait Observable: Send + Sync {
    /// How it stands.
    fn view(&self) -> View;
    /// Its quarantine, oldest first.
    fn quarantine(&self) -> Vec<Quarantined>;
}

/// What happened to an actor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    /// The first incarnation is up.
    Started,
    /// A further incarnation is up.
    Restarted,
    /// An incarnation died.
    Died,
    /// An incarnation fell silent and was fenced.
    Hung,
    /// The supervisor gave up.
    GaveUp,
    /// Ended in order.
    Stopped,
}

/// An entry of the process's diary.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Event {
    /// When, in ms since 1970.
    pub at_ms: u64,
    /// To whom.
    pub actor: &'static str,
    /// What.
    pub kind: EventKind,
    /// In words.
    pub text: String,
}

/// The actors of one process and what happened to them lately. Cheap to clone.
#[derive(Clone, Default)]
pub struct Registry(Arc<Inner>);

#[derive(Default)]
struct Inner {
    actors: Mutex<Vec<Arc<dyn Observable>>>,
    events: Mutex<VecDeque<Event>>,
}

impl Registry {
    /// An empty registry.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an actor; in the order in which they are started.
    pub fn add(&self, actor: Arc<dyn Observable>) {
        lock(&self.0.actors).push(actor);
    }

    /// Every actor as it stands.
    #[must_use]
    pub fn views(&self) -> Vec<View> {
        let actors = lock(&self.0.actors).clone();
        actors.iter().map(|a| a.view()).collect()
    }

    /// One actor and its quarantine, by name.
    #[must_use]
    pub fn actor(&self, name: &str) -> Option<(View, Vec<Quarantined>)> {
        let actors = lock(&self.0.actors).clone();
        actors.iter().map(|a| (a.view(), a)).find(|(v, _)| v.name == name).map(|(v, a)| (v, a.quarantine()))
    }

    /// What happened lately, oldest first.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        lock(&self.0.events).iter().cloned().collect()
    }

    /// How the process is.
    #[must_use]
    pub fn health(&self) -> Health {
        Health::of(&self.views())
    }

    pub(crate) fn note(&self, event: Event) {
        let mut events = lock(&self.0.events);
        if events.len() == EVENTS_MAX {
            events.pop_front();
        }
        events.push_back(event);
    }
}
