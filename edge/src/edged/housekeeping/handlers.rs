//! What the actor does about the machine.

use std::time::Duration;

use jiff::Timestamp;

use super::super::entry::Entry;
use super::super::observed::Observed;
use super::super::pressure::{Pressure, Shortage, Signals};
use super::super::state::Edged;
use super::super::status::PodStatus;
use super::job::Job;
use super::measure::Measured;
use super::{House, Tidied};

/// Pause between two lists of the images (the kubelet: 5 min).
const IMAGES_EVERY: Duration = Duration::from_secs(300);
/// Pause between two removals of images.
const CLEAR_EVERY: Duration = Duration::from_secs(60);
/// Pause between two looks at what pods with limits take of the disk.
const MEASURE_EVERY: Duration = Duration::from_secs(60);
/// How long after the start the first pod to go waits until all were looked at; one of them may hang.
const LOOKED_AT_WITHIN: Duration = Duration::from_secs(30);
/// How long the next pod waits for what the last one frees (the kubelet: 30 s).
const FREES_WITHIN: Duration = Duration::from_secs(30);

/// Whether that time has passed. A clock that was set back counts as passed.
fn is_due(last: Option<Timestamp>, every: Duration, now: Timestamp) -> bool {
    last.is_none_or(|last| last > now || now.duration_since(last).unsigned_abs() >= every)
}

impl Edged {
    /// Takes in what is free now.
    pub(in super::super) fn housekept(&mut self, signals: &Signals) {
        let now = self.shared.now();
        let settings = self.shared.housekeeping;
        let shortages = settings.thresholds.crossed(signals);
        let held = {
            let mut house = self.shared.house();
            let seen = self.pods.values().filter_map(|entry| entry.seen.as_ref()).flat_map(|seen| seen.all());
            house.history.used(seen.map(|one| one.container.image_id.as_str()), now);
            house.pressures.observe(&shortages, now, settings.transition);
            house.pressures.held()
        };
        if self.node.set_pressures(&held, now) {
            let names: Vec<&str> = held.iter().copied().map(Pressure::condition).collect();
            log::warn!(pressures = names.join(" ").as_str(), signals:? = signals; "the pressures on this node have changed");
            self.post_node_status();
        }
        if self.tidying.as_ref().is_none_or(actix_rt::task::JoinHandle::is_finished)
            && let Some(job) = self.job(signals, shortages, now)
        {
            self.tidying = Some(actix_rt::spawn(job.run()));
        }
    }

    /// What is to be done beside the actor, if anything is.
    pub(super) fn job(&self, signals: &Signals, shortages: Vec<Shortage>, now: Timestamp) -> Option<Job> {
        let settings = &self.shared.housekeeping;
        let mut house = self.shared.house();
        let is_full = settings.images_high < 100 && signals.imagefs_used_percent() >= settings.images_high;
        let clears = self.node.is_ready()
            && (is_full || shortages.iter().any(|one| one.signal.pressure() == Pressure::Disk))
            && is_due(house.cleared_at, CLEAR_EVERY, now);
        let lists = self.node.is_ready() && (clears || is_due(house.images_at, IMAGES_EVERY, now));
        let measures = is_due(house.measured_at, MEASURE_EVERY, now) && self.pods.values().any(has_limits);
        // An engine that is away would neither say who takes what nor stop anybody; and who is the first to go is known when all
        // were looked at, which they are not at the start.
        let is_known = |entry: &Entry| entry.desired.is_none() || entry.seen.is_some();
        let knows_all = self.shared.began.elapsed() > LOOKED_AT_WITHIN || self.pods.values().all(is_known);
        let evicts = self.node.is_ready() && !shortages.is_empty() && !self.is_freeing(&house, now) && knows_all;
        if clears {
            house.cleared_at = Some(now);
        }
        if measures {
            house.measured_at = Some(now);
        }
        let pods = if clears || measures || evicts { self.pods.iter().filter_map(|(uid, entry)| measured(uid, entry)).collect() } else { Vec::new() };
        let is_needed = lists || measures || evicts;
        is_needed.then(|| Job { shared: self.shared.clone(), shortages, is_full, lists, clears, measures, evicts, pods })
    }

    /// Whether what the last ended pod frees is still waited for: its processes, then what it wrote.
    fn is_freeing(&self, house: &House, now: Timestamp) -> bool {
        let Some((uid, at)) = &house.ended else { return false };
        let is_ending = |entry: &Entry| entry.is_busy || entry.seen.as_ref().is_some_and(Observed::any_running);
        self.pods.get(uid).is_some_and(is_ending) && !is_due(Some(*at), FREES_WITHIN, now)
    }

    /// Takes in what was done.
    pub(in super::super) fn tidied(&mut self, tidied: &Tidied) {
        if let Some(images) = &tidied.images
            && self.node.set_images(images)
        {
            self.post_node_status();
        }
        // At once, as the kubelet: what takes more than it may does not take more while it ends.
        for (uid, refusal) in &tidied.excessive {
            self.fail_pod(uid, refusal.clone(), Some(0));
        }
        if let Some((uid, refusal)) = &tidied.chosen {
            let now = self.shared.now();
            self.shared.house().ended = Some((uid.clone(), now));
            // As the kubelet at a hard threshold: what is short is short now.
            self.fail_pod(uid, refusal.clone(), Some(0));
        }
    }
}

/// Whether a pod has a limit that nobody but this program looks after.
fn has_limits(entry: &Entry) -> bool {
    entry.desired.as_ref().is_some_and(|desired| {
        let limits = |container: &super::super::pod::Container| container.resources.limits.contains_key("ephemeral-storage");
        let sized = |volume: &super::super::pod::Volume| !volume.is_memory() && volume.size_limit().is_ok_and(|limit| limit.is_some());
        desired.pod.all_containers().any(limits) || desired.pod.spec.volumes.iter().any(sized)
    })
}

/// What a job has to know of a pod.
fn measured(uid: &str, entry: &Entry) -> Option<Measured> {
    let desired = entry.desired.as_ref()?;
    let is_over =
        entry.failure.is_some() || desired.refusal.is_some() || desired.pod.is_over() || entry.previous.as_ref().is_some_and(PodStatus::is_over);
    let seen = entry.seen.iter().flat_map(|seen| seen.all());
    let (running, ended): (Vec<_>, Vec<_>) = seen.partition(|one| one.is_running());
    Some(Measured {
        uid: uid.to_owned(),
        pod: desired.pod.clone(),
        is_over: is_over || desired.pod.is_deleting(),
        running: running.into_iter().map(|one| (one.name.clone(), one.container.id.clone())).collect(),
        // Of a pod that goes on, the ended containers are its memory of what happened, and so they are while nobody has stored
        // its end.
        ended: if is_over && !entry.is_unreported { ended.into_iter().map(|one| one.container.id.clone()).collect() } else { Vec::new() },
    })
}
