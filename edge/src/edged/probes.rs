//! The probes of running containers: which tasks ask, and what follows from what they find out.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::task::AbortHandle;

use super::entry::Entry;
use super::events::Severity;
use super::message::EdgedMessage;
use super::observed::{Health, Seen};
use super::pod::{Container, Probe};
use super::probe::{self, Change, Job, Kind, ProbeResult, Target};
use super::runtime::ContainerState;
use super::state::Edged;

/// The task that asks one container; ends with this.
pub struct Prober(AbortHandle);

impl Drop for Prober {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Those of a pod, by the engine's id of the container.
pub type Probers = BTreeMap<String, Prober>;

/// What a probe found out about a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probed {
    /// The pod.
    pub uid: String,
    /// Engine's id of the container.
    pub id: String,
    /// Its name in the pod.
    pub container: String,
    /// What.
    pub result: ProbeResult,
}

fn has_probes(container: &Container) -> bool {
    container.startup_probe.is_some() || container.liveness_probe.is_some() || container.readiness_probe.is_some()
}

impl Entry {
    /// Containers that run, have probes, and are to be asked.
    fn to_be_asked(&self) -> Vec<(Container, Seen)> {
        let (Some(desired), Some(seen)) = (&self.desired, &self.seen) else { return Vec::new() };
        if desired.pod.is_deleting() || desired.refusal.is_some() {
            return Vec::new();
        }
        let running = |container: &Container| seen.current(&container.name).filter(|one| one.is_running()).cloned();
        desired.pod.all_containers().filter(|one| has_probes(one)).filter_map(|one| Some((one.clone(), running(one)?))).collect()
    }
}

impl Edged {
    /// Begins to ask containers that came, and ceases to ask those that went.
    pub(super) fn watch_health(&mut self, uid: &str) {
        let (now, shared) = (self.shared.now(), self.shared.clone());
        let Some(entry) = self.pods.get_mut(uid) else { return };
        let asked = entry.to_be_asked();
        let is_asked = |id: &String| asked.iter().any(|(_, seen)| seen.container.id == *id);
        entry.probers.retain(|id, _| is_asked(id));
        entry.healths.retain(|id, _| is_asked(id));
        let pod_ip = match &entry.desired {
            Some(desired) if desired.pod.spec.host_network => Some(shared.host_ip.clone()),
            _ => entry.seen.as_ref().and_then(|seen| seen.ip()).map(str::to_owned),
        };
        for (container, seen) in asked {
            let id = seen.container.id.clone();
            if entry.probers.contains_key(&id) {
                continue;
            }
            let ContainerState::Running { started_at } = seen.container.state else { continue };
            // What the last incarnation, or daemon, said of this very container still holds: a restart makes nobody unready.
            let known =
                entry.previous.as_ref().and_then(|previous| previous.container(&container.name)).filter(|one| one.container_id.ends_with(&id));
            let (has_started, was_ready) = (known.is_some_and(|one| one.started), known.map(|one| one.ready));
            let health = Health {
                started: container.startup_probe.as_ref().map(|_| has_started),
                ready: container.readiness_probe.as_ref().map(|_| was_ready.unwrap_or(false)),
                failed: None,
            };
            entry.healths.insert(id.clone(), health);
            let job = Job {
                target: Target { pod_ip: pod_ip.clone().unwrap_or_default(), container_id: id.clone(), runtime: shared.runtime.clone() },
                running_for: Duration::try_from(now.duration_since(started_at)).unwrap_or_default(),
                daemon_for: shared.began.elapsed(),
                has_started: has_started && container.startup_probe.is_some(),
                was_ready,
                container: container.clone(),
            };
            let (edged, pod, of) = (shared.edged.clone(), uid.to_owned(), id.clone());
            let tell = move |result: ProbeResult| {
                let probed = Probed { uid: pod.clone(), id: of.clone(), container: container.name.clone(), result };
                let edged = edged.clone();
                // A closed mailbox: the daemon ends.
                actix_rt::spawn(async move { edged.send(EdgedMessage::Probed(probed)).await });
            };
            let task = actix_rt::spawn(probe::run(job, tell));
            entry.probers.insert(id, Prober(task.abort_handle()));
        }
    }

    /// Takes in what a probe found out.
    pub(super) fn probed(&mut self, probed: &Probed) {
        let Probed { uid, id, container, result: ProbeResult { kind, change } } = probed;
        let Some(entry) = self.pods.get_mut(uid).filter(|entry| entry.probers.contains_key(id)) else { return };
        let Some(health) = entry.healths.get_mut(id) else { return };
        let spec = entry.desired.as_ref().and_then(|desired| desired.pod.container(container));
        let grace = |probe: fn(&Container) -> &Option<Probe>| {
            let seconds = spec.and_then(|container| probe(container).as_ref())?.termination_grace_period_seconds?;
            u64::try_from(seconds).ok()
        };
        let mut needs_pass = false;
        match (kind, change) {
            (Kind::Startup, Change::Succeeded) => {
                health.started = Some(true);
                // The next init container may have waited for it.
                needs_pass = true;
            }
            (Kind::Readiness, Change::Succeeded) => health.ready = Some(true),
            (Kind::Readiness, Change::Failed(_)) => health.ready = Some(false),
            (Kind::Startup, Change::Failed(_)) => {
                health.failed = Some((format!("Container {container} failed startup probe, will be restarted"), grace(|one| &one.startup_probe)));
                needs_pass = true;
            }
            (Kind::Liveness, Change::Failed(_)) => {
                health.failed = Some((format!("Container {container} failed liveness probe, will be restarted"), grace(|one| &one.liveness_probe)));
                needs_pass = true;
            }
            (Kind::Liveness, Change::Succeeded) | (_, Change::Unwell(_)) => {}
        }
        if let Change::Failed(text) | Change::Unwell(text) = change {
            self.event(uid, Some(container), Severity::Warning, "Unhealthy", &format!("{} probe failed: {text}", kind.as_str()));
        }
        self.report_now(uid);
        if needs_pass {
            self.pass(uid);
        }
    }
}
