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
}

impl Seen {
    /// Reads the labels; a container without them is not of a pod.
    pub fn new(container: Container) -> Option<Self> {
        let number = |name: &str| container.labels.get(name).and_then(|text| text.parse().ok()).unwrap_or(0);
        let (attempt, level) = (number(label::RESTARTS), number(label::LEVEL));
        let name = container.labels.get(label::CONTAINER)?.clone();
        Some(Self { container, name, attempt, level })
    }

    /// Whether its process runs.
    pub fn is_running(&self) -> bool {
        matches!(self.container.state, ContainerState::Running { .. })
    }

    /// The container whose network namespace it has joined.
    pub fn joined(&self) -> Option<&str> {
        self.container.labels.get(label::NETWORK).map(String::as_str).filter(|id| !id.is_empty())
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
}

impl Observed {
    /// Sorts what the engine listed.
    pub fn new(containers: impl IntoIterator<Item = Container>) -> Self {
        let mut seen: Vec<Seen> = containers.into_iter().filter_map(Seen::new).collect();
        seen.sort_by(|a, b| (&a.name, a.attempt, &a.container.id).cmp(&(&b.name, b.attempt, &b.container.id)));
        Self { seen }
    }

    /// All of them.
    pub fn all(&self) -> &[Seen] {
        &self.seen
    }

    /// The newest container of that name.
    pub fn current(&self, name: &str) -> Option<&Seen> {
        self.seen.iter().rev().find(|seen| seen.name == name)
    }

    /// The one before the newest.
    pub fn previous(&self, name: &str) -> Option<&Seen> {
        self.seen.iter().rev().filter(|seen| seen.name == name).nth(1)
    }

    /// Whether anything runs.
    pub fn any_running(&self) -> bool {
        self.seen.iter().any(Seen::is_running)
    }

    /// The running container whose network the pod's further containers join.
    pub fn network_owner(&self) -> Option<&Seen> {
        self.seen.iter().find(|seen| seen.is_running() && seen.joined().is_none())
    }

    /// The pod's address on the bridge.
    pub fn ip(&self) -> Option<&str> {
        self.network_owner().and_then(|seen| seen.container.ip.as_deref())
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

    /// The reason while waiting for the retry: after the second failure of a pull it is the back-off that one waits for.
    pub fn waiting_reason(&self) -> &str {
        match self.reason.as_str() {
            "ErrImagePull" if self.failures > 1 => "ImagePullBackOff",
            reason => reason,
        }
    }
}

/// What went wrong lately, by container name. Lost at a restart of the module, which only means one try more.
pub type Troubles = BTreeMap<String, Trouble>;
