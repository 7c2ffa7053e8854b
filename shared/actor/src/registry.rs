//! What can be seen of the actors of a process, without asking any of them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use crate::cell::lock;
use crate::history::{History, Sample};
use crate::mail::now_ms;
use crate::{Health, Quarantine};

/// Events that are remembered; the oldest goes first.
const EVENTS_MAX: usize = 256;

/// Where an actor stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
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
    /// The configuration does not enable it: what is sent to it is forgotten.
    Disabled = 6,
}

impl State {
    pub(crate) const fn from_raw(raw: u32) -> Self {
        match raw {
            1 => Self::Up,
            2 => Self::BackingOff,
            3 => Self::Hung,
            4 => Self::GaveUp,
            5 => Self::Stopped,
            6 => Self::Disabled,
            _ => Self::Down,
        }
    }
}

/// One actor, as the page shows it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct View {
    /// Name of the actor.
    pub name: String,
    /// Name of its supervisor.
    pub parent: String,
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
    /// Bytes that may wait or be in hand.
    pub bytes_max: usize,
    /// Messages settled.
    pub handled: u64,
    /// Messages settled per second, over the last sampled seconds.
    pub per_second: f64,
    /// Messages whose handler reported an error.
    pub failed: u64,
    /// Messages not taken because there was no room.
    pub refused: u64,
    /// Messages put into quarantine since the start.
    pub quarantined: u64,
    /// Messages in quarantine now.
    pub in_quarantine: usize,
    /// Incarnations after the first.
    pub restarts: u64,
    /// Deaths by panic.
    pub panics: u64,
    /// Deaths by silence.
    pub hangs: u64,
    /// Variant of the (first) message in hand.
    pub in_hand: Option<&'static str>,
    /// Its identity.
    pub in_hand_id: Option<String>,
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
    /// When it said that, in ms since 1970; 0: never.
    pub last_words_at_ms: u64,
}

/// A supervisor in the tree.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct TreeView {
    /// Its name.
    pub name: String,
    /// The supervisor above it; empty for the root.
    pub parent: String,
    /// What a death means for the siblings: `one-for-one`, `rest-for-one`, `one-for-all`.
    pub strategy: String,
    /// Where it stands.
    pub state: State,
    /// Names of its children, actors and supervisors, in start order.
    pub children: Vec<String>,
    /// Deaths that count towards its limit, within the period.
    pub deaths: usize,
    /// More than this many: it gives up.
    pub deaths_max: usize,
    /// Blocked threads that were left behind.
    pub zombies: usize,
}

/// One bucket of an actor's histogram.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Bucket {
    /// Upper bound of the time per message, in µs.
    pub up_to_us: f64,
    /// Batches that took at most that, and more than the bucket before.
    pub count: u64,
}

/// Something that can be looked at.
pub trait Observable: Send + Sync {
    /// How it stands.
    fn view(&self) -> View;
    /// How long its messages took; empty buckets at both ends are left out.
    fn histogram(&self) -> Vec<Bucket>;
    /// What the module says that it knows; `None` if it says nothing.
    fn snapshot(&self) -> Option<serde_json::Value>;
    /// Messages settled so far and messages that wait, for the history.
    fn sample(&self) -> (u64, usize);
    /// Its name.
    fn name(&self) -> &'static str;
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
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
    /// A message was put into quarantine.
    Quarantined,
    /// A peer outside the process is connected.
    Connected,
    /// A peer outside the process went away.
    Disconnected,
    /// The configuration was read again, and something changed.
    Configured,
    /// An administrator did something.
    Operator,
    /// What was kept is damaged, and something new was begun.
    Damaged,
}

/// An entry of the process's diary.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Event {
    /// Its place in the order, from 1.
    pub seq: u64,
    /// When, in ms since 1970.
    pub at_ms: u64,
    /// To whom.
    pub actor: String,
    /// What.
    pub kind: EventKind,
    /// In words.
    pub text: String,
}

/// One actor with everything that can be seen of it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Details {
    /// How it stands.
    pub actor: View,
    /// How long its messages took.
    pub histogram: Vec<Bucket>,
    /// What the module says that it knows.
    pub snapshot: Option<serde_json::Value>,
    /// The last minutes, oldest first.
    pub history: Vec<Sample>,
    /// What it died of.
    pub quarantine: Vec<crate::Quarantined>,
}

/// The actors of one process and what happened to them lately. Cheap to clone.
#[derive(Clone)]
pub struct Registry(Arc<Inner>);

struct Inner {
    actors: Mutex<Vec<Watched>>,
    trees: Mutex<Vec<TreeView>>,
    events: Mutex<(u64, VecDeque<Event>)>,
    quarantine: Quarantine,
    changed: watch::Sender<u64>,
    /// ms since the start at which the root supervisor last swept; `u64::MAX` before it runs and after it ended in order.
    beat: AtomicU64,
    /// The supervisor is late after this many ms without a beat.
    beat_within: AtomicU64,
    born: tokio::time::Instant,
}

struct Watched {
    actor: Arc<dyn Observable>,
    history: History,
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

impl Registry {
    /// An empty registry whose quarantine ends with the process.
    #[must_use]
    pub fn new() -> Self {
        Self::with_quarantine(Quarantine::in_memory())
    }

    /// An empty registry with a given quarantine.
    #[must_use]
    pub fn with_quarantine(quarantine: Quarantine) -> Self {
        Self(Arc::new(Inner {
            actors: Mutex::default(),
            trees: Mutex::default(),
            events: Mutex::default(),
            quarantine,
            changed: watch::Sender::new(0),
            beat: AtomicU64::new(u64::MAX),
            beat_within: AtomicU64::new(u64::MAX),
            born: tokio::time::Instant::now(),
        }))
    }

    /// The quarantine of this process.
    #[must_use]
    pub fn quarantine(&self) -> &Quarantine {
        &self.0.quarantine
    }

    /// Every actor as it stands, in start order.
    #[must_use]
    pub fn views(&self) -> Vec<View> {
        let actors: Vec<_> = lock(&self.0.actors).iter().map(|w| (w.actor.clone(), w.history.per_second())).collect();
        actors.into_iter().map(|(actor, per_second)| View { per_second, ..actor.view() }).collect()
    }

    /// Every supervisor, the root first.
    #[must_use]
    pub fn trees(&self) -> Vec<TreeView> {
        lock(&self.0.trees).clone()
    }

    /// One actor with its histogram, snapshot, history and quarantine.
    #[must_use]
    pub fn details(&self, name: &str) -> Option<Details> {
        let (actor, history, per_second) =
            lock(&self.0.actors).iter().find(|w| w.actor.name() == name).map(|w| (w.actor.clone(), w.history.samples(), w.history.per_second()))?;
        Some(Details {
            actor: View { per_second, ..actor.view() },
            histogram: actor.histogram(),
            snapshot: actor.snapshot(),
            history,
            quarantine: self.0.quarantine.of(name),
        })
    }

    /// The last minutes of every actor, in the order of [`views`](Self::views).
    #[must_use]
    pub fn histories(&self) -> Vec<(&'static str, Vec<Sample>)> {
        lock(&self.0.actors).iter().map(|w| (w.actor.name(), w.history.samples())).collect()
    }

    /// What happened lately, oldest first.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        lock(&self.0.events).1.iter().cloned().collect()
    }

    /// Notes what happened, for the page. The log is the caller's.
    pub fn note(&self, actor: &str, kind: EventKind, text: impl Into<String>) {
        {
            let (seq, events) = &mut *lock(&self.0.events);
            *seq += 1;
            if events.len() == EVENTS_MAX {
                events.pop_front();
            }
            events.push_back(Event { seq: *seq, at_ms: now_ms(), actor: actor.to_owned(), kind, text: text.into() });
        }
        self.0.changed.send_modify(|version| *version += 1);
    }

    /// Moves each time something is noted, for those who show it.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }

    /// How the process is.
    #[must_use]
    pub fn health(&self) -> Health {
        if let Some(late) = self.late() {
            return Health::Red(format!("the supervisor has given no sign of life for {} s", late / 1000));
        }
        Health::of(&self.views(), &self.trees())
    }

    // ---- for supervisors --------------------------------------------------------------------------------------------

    pub(crate) fn add(&self, actor: Arc<dyn Observable>) {
        let mut actors = lock(&self.0.actors);
        if !actors.iter().any(|w| w.actor.name() == actor.name()) {
            actors.push(Watched { actor, history: History::default() });
        }
    }

    pub(crate) fn knows(&self, name: &str) -> bool {
        lock(&self.0.actors).iter().any(|w| w.actor.name() == name) || lock(&self.0.trees).iter().any(|t| t.name == name)
    }

    pub(crate) fn remove(&self, name: &str) {
        lock(&self.0.actors).retain(|w| w.actor.name() != name);
    }

    pub(crate) fn put_tree(&self, tree: TreeView) {
        let mut trees = lock(&self.0.trees);
        match trees.iter_mut().find(|t| t.name == tree.name) {
            Some(known) => *known = tree,
            None => trees.push(tree),
        }
    }

    /// Takes a sample of every actor; the root supervisor does so every [`crate::history::EVERY`].
    pub(crate) fn sample(&self) {
        for watched in lock(&self.0.actors).iter_mut() {
            let (handled, depth) = watched.actor.sample();
            watched.history.add(handled, depth);
        }
    }

    /// The root supervisor lives; it will say so again within that many ms.
    pub(crate) fn beat(&self, within_ms: u64) {
        self.0.beat_within.store(within_ms, Ordering::Relaxed);
        self.0.beat.store(self.now(), Ordering::Relaxed);
    }

    /// The root supervisor ends in order: nothing more is expected of it.
    pub(crate) fn rest(&self) {
        self.0.beat.store(u64::MAX, Ordering::Relaxed);
    }

    /// For how many ms the root supervisor has been silent, if that is too long.
    fn late(&self) -> Option<u64> {
        let beat = self.0.beat.load(Ordering::Relaxed);
        let silent = self.now().checked_sub(beat)?;
        (silent > self.0.beat_within.load(Ordering::Relaxed)).then_some(silent)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.0.born.elapsed().as_millis()).unwrap_or(u64::MAX - 1)
    }
}
