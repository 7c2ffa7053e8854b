//! What is known of one pod beside the store and the engine.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use model::ResourceKey;
use tokio::sync::Notify;

use super::observed::{Healths, Observed, Seen, Trouble, Troubles};
use super::pod::{Container, Refusal};
use super::probes::Probers;
use super::runtime::Summary;
use super::status::PodStatus;
use super::worker::{CREATING, Desired, Pull};

/// Pause before an object that is missing is asked from the cloud again.
const ASK_AGAIN: Duration = Duration::from_secs(10);

/// What is known of one pod.
#[derive(Default)]
pub struct Entry {
    /// Its key, while the store has it.
    pub key: Option<ResourceKey>,
    pub desired: Option<Desired>,
    /// Of the stored object and of all that it reads: differs when any of them was stored anew.
    pub version: u64,
    pub is_busy: bool,
    /// Something happened during the pass.
    pub is_dirty: bool,
    /// With how many seconds of grace the pass under way ends the pod; `None` if it does not.
    pub pass_ends: Option<u64>,
    /// The pass under way began while the pod should run: it may start containers yet.
    pub pass_runs: bool,
    /// Ends the pass's waiting.
    pub interrupt: Arc<Notify>,
    pub seen: Option<Observed>,
    pub troubles: Troubles,
    /// What the probes of its running containers said.
    pub healths: Healths,
    /// The tasks that ask them.
    pub probers: Probers,
    pub fresh: BTreeSet<String>,
    /// Images that containers wait for.
    pub images: BTreeMap<String, Pull>,
    /// An image came during a pass or a pull.
    pub has_new_image: bool,
    /// Pulls that ended: image, and the engine's words if it failed.
    pub pulled: Vec<(Pull, Result<(), String>)>,
    /// The cloud's message that changed the pod, or what it reads, last; only for the log.
    pub cause: Option<actor::MsgId>,
    /// What was told to MetaManager last; loaded from the store at first sight.
    pub previous: Option<PodStatus>,
    pub is_loaded: bool,
    /// MetaManager had no room for the last status.
    pub is_unreported: bool,
    /// Why it must end here although its object wants it to run (evicted, deadline): kept until the status that says so is.
    pub failure: Option<Refusal>,
    /// It has a place on this node.
    pub is_admitted: bool,
    /// The grace with which it ends then, in seconds; `None` is its own.
    pub grace_secs: Option<u64>,
    /// The last pass was cut short by the engine.
    pub is_cut_short: bool,
    pub timer: Option<actix::SpawnHandle>,
    pub asked: BTreeMap<(bool, String), Timestamp>,
    /// Containers whose definition changed since the last pass.
    pub changed: BTreeSet<String>,
}

impl Entry {
    /// Whether the engine's list shows something else than what was seen last.
    pub fn differs_from(&self, listed: &[&Summary]) -> bool {
        let Some(seen) = &self.seen else { return true };
        // Paused is running: its process is there.
        let runs = |state: &str| matches!(state, "running" | "paused" | "restarting");
        let is_running = |id: &str| seen.everything().find(|one| one.container.id == id).map(Seen::is_running);
        listed.len() != seen.everything().count() || listed.iter().any(|one| is_running(&one.id) != Some(runs(&one.state)))
    }

    /// Whether its sandbox runs and holds ports of the machine.
    pub fn holds_ports(&self) -> bool {
        // A pod that is wanted no more may have had some.
        let has_ports = self.desired.as_ref().is_none_or(|desired| desired.pod.has_host_ports());
        has_ports && self.seen.as_ref().is_some_and(|seen| seen.sandbox().is_some())
    }

    /// Whether anything of it runs, its sandbox included.
    pub fn is_here(&self) -> bool {
        self.seen.as_ref().is_some_and(|seen| seen.everything().any(Seen::is_running))
    }

    /// Whether it takes one of the node's places: wanted and not over, or still ending.
    pub fn is_active(&self) -> bool {
        let runs = || self.seen.as_ref().is_some_and(Observed::any_running);
        let is_over = || self.previous.as_ref().is_some_and(PodStatus::is_over);
        self.key.is_some() && self.is_admitted && !is_over() && (self.failure.is_none() || runs())
    }

    /// With how many seconds of grace the pod ends as it is known now; `None` if it shall run.
    pub fn ends_with(&self) -> Option<u64> {
        let Some(desired) = &self.desired else { return Some(self.grace_secs.unwrap_or(u64::MAX)) };
        let ends = desired.pod.is_deleting() || desired.refusal.is_some() || self.failure.is_some();
        ends.then(|| self.grace_secs.unwrap_or_else(|| desired.pod.grace_secs()))
    }

    /// Takes in another object: what went wrong with a container tells nothing of it once it is defined anew.
    pub fn define(&mut self, desired: Desired) {
        if let Some(before) = &self.desired {
            let is_other = |one: &&Container| before.pod.container(&one.name).is_some_and(|before| before.hash() != one.hash());
            self.changed.extend(desired.pod.all_containers().filter(is_other).map(|one| one.name.clone()));
        }
        self.desired = Some(desired);
    }

    /// Forgets what went wrong with containers that are defined anew.
    pub fn apply_changes(&mut self) {
        for name in std::mem::take(&mut self.changed) {
            self.troubles.remove(&name);
            self.images.remove(&name);
            self.fresh.remove(&name);
        }
    }

    /// When the pod has failed if it still runs then (`activeDeadlineSeconds`).
    pub fn deadline(&self) -> Option<Timestamp> {
        let previous = self.previous.as_ref().filter(|previous| !previous.is_over() && self.failure.is_none())?;
        let seconds = self.desired.as_ref()?.pod.spec.active_deadline_seconds?;
        let began: Timestamp = previous.start_time.as_ref()?.parse().ok()?;
        began.saturating_add(jiff::SignedDuration::from_secs(seconds)).ok()
    }

    /// Takes in the pulls that ended.
    pub fn apply_pulls(&mut self, now: Timestamp) {
        for (pull, result) in std::mem::take(&mut self.pulled) {
            let waiting: Vec<String> = self.images.iter().filter(|(_, wanted)| **wanted == pull).map(|(name, _)| name.clone()).collect();
            for container in waiting {
                self.images.remove(&container);
                let trouble = self.troubles.remove(&container);
                match &result {
                    Ok(()) => {
                        self.fresh.insert(container);
                    }
                    Err(message) => {
                        let earlier = trouble.filter(|trouble| trouble.reason != CREATING);
                        let text = format!("failed to pull image \"{}\": {message}", pull.image);
                        self.troubles.insert(container, Trouble::after(earlier.as_ref(), "ErrImagePull", text, now));
                    }
                }
            }
        }
        if std::mem::take(&mut self.has_new_image) {
            self.image_came(now);
        }
    }

    /// Whoever waits because of an image tries again; whether somebody does.
    pub fn image_came(&mut self, now: Timestamp) -> bool {
        let waits = |trouble: &&mut Trouble| trouble.reason.starts_with("ErrImage") && trouble.retry_at != Timestamp::MAX;
        self.troubles.values_mut().filter(waits).map(|trouble| trouble.retry_at = now).count() > 0
    }

    /// Objects of those missing that are to be asked from the cloud now.
    pub fn due_questions(&mut self, missing: &BTreeSet<(bool, String)>, now: Timestamp) -> Vec<(bool, String)> {
        self.asked.retain(|object, at| missing.contains(object) && now.duration_since(*at).unsigned_abs() < ASK_AGAIN);
        let open: Vec<_> = missing.iter().filter(|object| !self.asked.contains_key(*object)).cloned().collect();
        self.asked.extend(open.iter().map(|object| (object.clone(), now)));
        open
    }
}
