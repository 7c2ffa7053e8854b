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
pub struct Prober {
    task: AbortHandle,
    /// It knows that the pod is being deleted.
    is_ending: bool,
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.task.abort();
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

/// A container with the probes that are still asked. In a pod that is being deleted none is replaced any more, and clients come
/// until it stops: that leaves readiness (the kubelet's `StopLivenessAndStartup`).
fn asked_of(mut container: Container, is_ending: bool) -> Container {
    if is_ending {
        (container.startup_probe, container.liveness_probe) = (None, None);
    }
    container
}

impl Entry {
    fn is_ending(&self) -> bool {
        self.desired.as_ref().is_some_and(|desired| desired.pod.is_deleting())
    }

    /// Containers that run, have probes, and are to be asked.
    fn to_be_asked(&self) -> Vec<(Container, Seen)> {
        let (Some(desired), Some(seen)) = (&self.desired, &self.seen) else { return Vec::new() };
        if desired.refusal.is_some() {
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
        let (asked, is_ending) = (entry.to_be_asked(), entry.is_ending());
        let is_asked = |id: &String| asked.iter().any(|(_, seen)| seen.container.id == *id);
        entry.probers.retain(|id, _| is_asked(id));
        entry.healths.retain(|id, _| is_asked(id));
        let is_at_home = entry.desired.as_ref().is_some_and(|desired| desired.pod.spec.host_network);
        let pod_ip = entry.seen.as_ref().and_then(|seen| seen.ip()).unwrap_or_default().to_owned();
        for (container, seen) in asked {
            let id = seen.container.id.clone();
            if entry.probers.get(&id).is_some_and(|prober| prober.is_ending == is_ending) {
                continue;
            }
            let ContainerState::Running { started_at } = seen.container.state else { continue };
            // What the last incarnation, or daemon, said of this very container still holds: a restart makes nobody unready.
            let known =
                entry.previous.as_ref().and_then(|previous| previous.container(&container.name)).filter(|one| one.container_id.ends_with(&id));
            let (has_started, was_ready) = match entry.healths.get(&id) {
                Some(health) => (health.started == Some(true), health.ready),
                None => (known.is_some_and(|one| one.started), known.map(|one| one.ready)),
            };
            // As the kubelet has it: nobody waits for the start of what ends.
            let has_started = has_started || is_ending;
            let health = Health {
                started: container.startup_probe.as_ref().map(|_| has_started),
                ready: container.readiness_probe.as_ref().map(|_| was_ready.unwrap_or(false)),
                failed: None,
            };
            entry.healths.insert(id.clone(), health);
            let job = Job {
                target: Target { pod_ip: pod_ip.clone(), container_id: id.clone(), runtime: shared.runtime.clone() },
                home: is_at_home.then(|| shared.clone()),
                running_for: Duration::try_from(now.duration_since(started_at)).unwrap_or_default(),
                daemon_for: shared.began.elapsed(),
                has_started: has_started && container.startup_probe.is_some(),
                was_ready,
                container: asked_of(container.clone(), is_ending),
            };
            let (edged, pod, of) = (shared.edged.clone(), uid.to_owned(), id.clone());
            let tell = move |result: ProbeResult| {
                let probed = Probed { uid: pod.clone(), id: of.clone(), container: container.name.clone(), result };
                let edged = edged.clone();
                // A closed mailbox: the daemon ends.
                actix_rt::spawn(async move { edged.send(EdgedMessage::Probed(probed)).await });
            };
            let task = actix_rt::spawn(probe::run(job, tell));
            entry.probers.insert(id, Prober { task: task.abort_handle(), is_ending });
        }
    }

    /// Takes in what a probe found out.
    pub(super) fn probed(&mut self, probed: &Probed) {
        let Probed { uid, id, container, result: ProbeResult { kind, change } } = probed;
        let Some(entry) = self.pods.get_mut(uid).filter(|entry| entry.probers.contains_key(id)) else { return };
        if entry.is_ending() && *kind != Kind::Readiness {
            // It was asked before anybody here knew.
            self.watch_health(uid);
            return self.report_now(uid);
        }
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use std::sync::Arc;

    use actor::testing::Probe;
    use model::NodeName;
    use serde_json::{Value, json};
    use tokio::net::TcpListener;

    use super::super::node::{Address, Machine};
    use super::super::observed::Observed;
    use super::super::pod::Pod;
    use super::super::runtime::docker::DockerRuntime;
    use super::super::runtime::{self, label};
    use super::super::worker::Desired;
    use super::super::{Config, Peers, Shared};
    use super::*;
    use crate::store::Store;

    const SOON: Duration = Duration::from_secs(20);

    fn running(name: &str) -> runtime::Container {
        runtime::Container {
            id: name.to_owned(),
            labels: [(label::CONTAINER.to_owned(), name.to_owned())].into(),
            state: ContainerState::Running { started_at: jiff::Timestamp::now() },
            image: "i".into(),
            image_id: "i".into(),
            ip: None,
            created_at: jiff::Timestamp::now(),
        }
    }

    #[actix_rt::test]
    async fn in_a_pod_that_is_being_deleted_only_readiness_is_asked_and_what_is_known_stays() {
        let (dir, own) = (tempfile::tempdir().unwrap(), Probe::new("edged", 8));
        let (node, runtime) = (NodeName::new("n1").unwrap(), Arc::new(DockerRuntime::new("unix:///nowhere.sock").unwrap()));
        let shared = Arc::new(Shared::open(runtime, own.handle(), &node, Address::default(), dir.path()).unwrap());
        let config = Config { node, version: "v1".into(), status_interval: Duration::from_secs(10) };
        let peers = Peers { meta_manager: Probe::new("metaManager", 8).handle(), own: own.handle() };
        let mut edged = Edged::new(Store::open(dir.path().join("edge.db")).unwrap(), shared, Machine::default(), config, peers);
        let open = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let tcp = |port: u16, more: Value| {
            let mut probe = json!({"tcpSocket": {"port": port, "host": "127.0.0.1"}, "periodSeconds": 1});
            probe.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            probe
        };
        let well = tcp(open.local_addr().unwrap().port(), json!({}));
        let ill = tcp(closed, json!({"failureThreshold": 1, "initialDelaySeconds": 600}));
        let containers = json!([{"name": "up", "image": "i", "readinessProbe": ill, "livenessProbe": ill},
            {"name": "starts", "image": "i", "startupProbe": ill, "readinessProbe": well}, {"name": "lives", "image": "i", "startupProbe": well}]);
        let want = |edged: &mut Edged, deleted: Value| {
            let json = json!({"metadata": {"name": "web", "uid": "u-1", "deletionTimestamp": deleted}, "spec": {"containers": containers}});
            let pod = Arc::new(Pod::parse(&json.to_string()).unwrap());
            let entry = edged.pods.entry("u-1".to_owned()).or_default();
            entry.desired = Some(Desired { pod, objects: Arc::default(), refusal: None });
            entry.seen = Some(Observed::new(["up", "starts", "lives"].map(running)));
            edged.watch_health("u-1");
        };
        let health = |started, ready| Health { started, ready, failed: None };
        want(&mut edged, json!(null));
        let healths = &mut edged.pods.get_mut("u-1").unwrap().healths;
        assert_eq!(healths["up"], health(None, Some(false)));
        assert_eq!((&healths["starts"], &healths["lives"]), (&health(Some(false), Some(false)), &health(Some(false), None)));
        healths.get_mut("up").unwrap().ready = Some(true);
        let next = async || match &*own.next(SOON).await.unwrap() {
            EdgedMessage::Probed(probed) => (probed.container.clone(), probed.result.kind, probed.result.change.clone()),
            other => panic!("{other:?}"),
        };
        assert_eq!(next().await, ("lives".to_owned(), Kind::Startup, Change::Succeeded));

        want(&mut edged, json!("2026-01-01T00:00:00Z"));
        let healths = &edged.pods["u-1"].healths;
        assert_eq!(healths["up"], health(None, Some(true)), "it stays ready");
        assert_eq!((&healths["starts"], &healths["lives"]), (&health(Some(true), Some(false)), &health(Some(true), None)));
        assert_eq!(next().await, ("starts".to_owned(), Kind::Readiness, Change::Succeeded));
        // What was on the way.
        let change = Change::Failed("no".into());
        let late = Probed { uid: "u-1".into(), id: "up".into(), container: "up".into(), result: ProbeResult { kind: Kind::Liveness, change } };
        edged.probed(&late);
        assert_eq!(edged.pods["u-1"].healths["up"], health(None, Some(true)));
    }
}
