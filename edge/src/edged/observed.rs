//! What is there of a pod, and what went wrong on the way: the input of [`super::plan`] and [`super::status`].

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::runtime::{Container, ContainerState, label};

/// First pause before a container is started again, and before a failed attempt is repeated.
pub const BACKOFF_FIRST: Duration = Duration::from_secs(10);
/// Longest pause.
pub const BACKOFF_MAX: Duration = Duration::from_secs(300);
/// A container that ran this long starts over without a pause (the kubelet: twice the longest pause).
pub const BACKOFF_RESET: Duration = Duration::from_secs(600);

/// Pause number `n`: none for 0, then 10 s · 2ⁿ⁻¹, at most 300 s.
pub fn backoff(n: u32) -> Duration {
    match n {
        0 => Duration::ZERO,
        n => BACKOFF_FIRST.saturating_mul(1_u32 << (n - 1).min(16)).min(BACKOFF_MAX),
    }
}

/// A container of ours, its labels read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// What the engine says.
    pub container: Container,
    /// Name in the pod.
    pub name: String,
    /// How often it was started before.
    pub attempt: u32,
    /// How often it has fallen in a row before.
    pub level: u32,
    /// Its last words, if it has ended and left any.
    pub words: String,
    /// This program has stopped it to start another in its place, so that one comes however it ended.
    pub is_replaced: bool,
}

impl Seen {
    /// Reads the labels; a container without them is not of a pod.
    pub fn new(container: Container) -> Option<Self> {
        let number = |name: &str| container.labels.get(name).and_then(|text| text.parse().ok()).unwrap_or(0);
        let (attempt, level) = (number(label::RESTARTS), number(label::LEVEL));
        let name = container.labels.get(label::CONTAINER)?.clone();
        Some(Self { container, name, attempt, level, words: String::new(), is_replaced: false })
    }

    /// Whether its process runs.
    pub fn is_running(&self) -> bool {
        matches!(self.container.state, ContainerState::Running { .. })
    }

    fn is_of(&self, name: &str) -> bool {
        self.name == name && self.container.state != ContainerState::Dead
    }

    /// The sandbox that it belongs to; `None` in a pod without one.
    pub fn sandbox(&self) -> Option<&str> {
        self.container.labels.get(label::SANDBOX).map(String::as_str).filter(|id| !id.is_empty())
    }

    /// How deep in back-off the next one would be, and when it may start. `None` while it runs.
    pub fn next_start(&self) -> Option<(u32, Timestamp)> {
        let ContainerState::Exited(exit) = &self.container.state else { return None };
        let ran = exit.finished_at.duration_since(exit.started_at);
        let long = ran >= jiff::SignedDuration::from_secs(BACKOFF_RESET.as_secs() as i64) && exit.started_at != Timestamp::UNIX_EPOCH;
        let level = if long { 0 } else { self.level };
        let at = exit.finished_at.saturating_add(backoff(level)).unwrap_or(exit.finished_at);
        Some((level + 1, at))
    }
}

/// All containers of one pod, newest attempt of each name last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    seen: Vec<Seen>,
    sandboxes: Vec<Seen>,
    /// Of both kinds.
    leaving: Vec<Seen>,
}

impl Observed {
    /// Sorts what the engine listed.
    pub fn new(containers: impl IntoIterator<Item = Container>) -> Self {
        Self::sorted(containers.into_iter().filter_map(Seen::new).collect())
    }

    fn sorted(mut all: Vec<Seen>) -> Self {
        all.sort_by(|a, b| (&a.name, a.attempt, &a.container.id).cmp(&(&b.name, b.attempt, &b.container.id)));
        let (leaving, all): (Vec<Seen>, Vec<Seen>) = all.into_iter().partition(|one| one.container.state == ContainerState::Removing);
        let (sandboxes, seen) = all.into_iter().partition(|one| one.name == label::SANDBOX_NAME);
        Self { seen, sandboxes, leaving }
    }

    /// The same with one that was made since.
    #[must_use]
    pub fn with(&self, container: Container) -> Self {
        let mut all: Vec<Seen> = self.everything().filter(|one| one.container.id != container.id).cloned().collect();
        all.extend(Seen::new(container));
        Self::sorted(all)
    }

    /// All containers; sandboxes are none of them.
    pub fn all(&self) -> &[Seen] {
        &self.seen
    }

    /// The same, to add what else is known of them.
    pub fn all_mut(&mut self) -> &mut [Seen] {
        &mut self.seen
    }

    /// All sandboxes, the newest last.
    pub fn sandboxes(&self) -> &[Seen] {
        &self.sandboxes
    }

    /// What the engine is about to remove, whoever asked for it: nothing is known of it any more, and it is in nobody's list
    /// but [`Observed::everything`].
    pub fn leaving(&self) -> &[Seen] {
        &self.leaving
    }

    /// Everything that the engine has of the pod.
    pub fn everything(&self) -> impl Iterator<Item = &Seen> {
        self.seen.iter().chain(&self.sandboxes).chain(&self.leaving)
    }

    /// All containers of that name, the newest first. What is left of a removal that failed is none.
    pub fn of(&self, name: &str) -> impl Iterator<Item = &Seen> {
        self.seen.iter().rev().filter(move |seen| seen.is_of(name))
    }

    /// The newest.
    pub fn current(&self, name: &str) -> Option<&Seen> {
        self.of(name).next()
    }

    /// The one before the newest.
    pub fn previous(&self, name: &str) -> Option<&Seen> {
        self.of(name).nth(1)
    }

    /// Whether any container runs.
    pub fn any_running(&self) -> bool {
        self.seen.iter().any(Seen::is_running)
    }

    /// The sandbox that holds what the containers share, if it runs.
    pub fn sandbox(&self) -> Option<&Seen> {
        self.sandboxes.last().filter(|seen| seen.is_running())
    }

    /// The pod's address on the bridge.
    pub fn ip(&self) -> Option<&str> {
        self.sandbox().and_then(|seen| seen.container.ip.as_deref())
    }
}

/// A step that failed, and when it may be tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Reason for the status (`ErrImagePull`, `CreateContainerError` …).
    pub reason: String,
    /// The engine's words.
    pub message: String,
    /// How often in a row.
    pub failures: u32,
    /// Not before.
    pub retry_at: Timestamp,
}

impl Trouble {
    /// Counts a further failure after `earlier`.
    pub fn after(earlier: Option<&Trouble>, reason: &str, message: String, now: Timestamp) -> Self {
        let failures = earlier.map_or(0, |trouble| trouble.failures).saturating_add(1);
        let retry_at = now.saturating_add(backoff(failures)).unwrap_or(now);
        Self { reason: reason.into(), message, failures, retry_at }
    }

    /// Whether what failed now is this, met again before its time: then there is nothing new to tell.
    pub fn is_known(&self, message: &str, now: Timestamp) -> bool {
        self.message == message && self.retry_at > now
    }

    /// The reason while waiting for the retry: after the second failure of a pull it is the back-off that one waits for.
    pub fn waiting_reason(&self) -> &str {
        match self.reason.as_str() {
            "ErrImagePull" if self.failures > 1 => "ImagePullBackOff",
            reason => reason,
        }
    }
}

/// What went wrong lately, by container name ([`label::SANDBOX_NAME`]: what concerns the pod as a whole; `volume` and a
/// name: a volume). Lost at a restart of the module, which only means one try more.
pub type Troubles = BTreeMap<String, Trouble>;

/// What the probes of a running container said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Whether its startup probe has succeeded; `None` without one.
    pub started: Option<bool>,
    /// What its readiness probe says; `None` without one.
    pub ready: Option<bool>,
    /// Why it is to be replaced, and with which grace in seconds if not the pod's.
    pub failed: Option<(String, Option<u64>)>,
}

/// What the probes said, by the engine's id of the container.
pub type Healths = BTreeMap<String, Health>;

/// Whether a running container has started up, as far as its probe says.
pub fn is_started(healths: &Healths, has_probe: bool, id: &str) -> bool {
    !has_probe || healths.get(id).and_then(|health| health.started) == Some(true)
}
