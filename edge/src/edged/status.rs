//! The status of a pod, from what is there: pure (manual ch. 11.4; Kubernetes' PodStatus).

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::observed::{Observed, Seen, Troubles, backoff};
use super::plan::starts_again;
use super::pod::{Container, Pod, Refusal, RestartPolicy, qos_class};
use super::runtime::{ContainerState as RuntimeState, Exit};

/// `status` of a Pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    /// `Pending`, `Running`, `Succeeded` or `Failed`.
    pub phase: String,
    /// `PodScheduled`, `Initialized`, `ContainersReady`, `Ready`.
    pub conditions: Vec<Condition>,
    /// For a person.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// One word, e.g. `Unsupported`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Address of the machine.
    #[serde(rename = "hostIP", skip_serializing_if = "String::is_empty")]
    pub host_ip: String,
    /// The same as a list.
    #[serde(rename = "hostIPs", skip_serializing_if = "Vec::is_empty")]
    pub host_ips: Vec<Address>,
    /// Address of the pod.
    #[serde(rename = "podIP", skip_serializing_if = "String::is_empty")]
    pub pod_ip: String,
    /// The same as a list.
    #[serde(rename = "podIPs", skip_serializing_if = "Vec::is_empty")]
    pub pod_ips: Vec<Address>,
    /// When this edge took the pod on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<String>,
    /// By name.
    pub container_statuses: Vec<ContainerStatus>,
    /// `Guaranteed`, `Burstable`, `BestEffort`.
    pub qos_class: String,
}

/// One address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// Text form.
    pub ip: String,
}

/// One condition of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Condition {
    /// Which.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True` or `False`.
    pub status: String,
    /// When `status` changed last.
    pub last_transition_time: String,
    /// One word.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// For a person.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// One container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerStatus {
    /// Name in the pod.
    pub name: String,
    /// What it does.
    pub state: State,
    /// How the one before ended.
    pub last_state: State,
    /// Whether it serves.
    pub ready: bool,
    /// How often it was started before.
    pub restart_count: u32,
    /// Image reference.
    pub image: String,
    /// Digest.
    #[serde(rename = "imageID")]
    pub image_id: String,
    /// `docker://<id>`.
    #[serde(rename = "containerID", skip_serializing_if = "String::is_empty")]
    pub container_id: String,
    /// Its process runs.
    pub started: bool,
}

/// What a container does; at most one is set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// Not yet, or not again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Waiting>,
    /// Its process runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub running: Option<Running>,
    /// Its process has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminated: Option<Terminated>,
}

/// Why it does not run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Waiting {
    /// `ContainerCreating`, `CrashLoopBackOff`, `ErrImagePull` …
    pub reason: String,
    /// For a person.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// Since when.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Running {
    /// RFC 3339, seconds.
    pub started_at: String,
}

/// How it ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Terminated {
    /// Exit code of the process.
    pub exit_code: i64,
    /// `Completed`, `Error`, `OOMKilled`.
    pub reason: String,
    /// The engine's words.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// RFC 3339, seconds.
    pub started_at: String,
    /// RFC 3339, seconds.
    pub finished_at: String,
    /// `docker://<id>`.
    #[serde(rename = "containerID")]
    pub container_id: String,
}

impl PodStatus {
    /// Whether the pod has ended for good.
    pub fn is_over(&self) -> bool {
        matches!(self.phase.as_str(), "Succeeded" | "Failed")
    }

    /// How often a container was started before, if it ever was.
    pub fn restarts(&self, container: &str) -> Option<u32> {
        self.container_statuses.iter().find(|one| one.name == container && !one.container_id.is_empty()).map(|one| one.restart_count)
    }
}

/// RFC 3339 in whole seconds, as Kubernetes writes times.
pub fn seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Everything that a status depends on.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The object.
    pub pod: &'a Pod,
    /// What is there.
    pub seen: &'a Observed,
    /// What went wrong.
    pub troubles: &'a Troubles,
    /// Why it does not run here at all.
    pub refusal: Option<&'a Refusal>,
    /// What was reported last.
    pub previous: Option<&'a PodStatus>,
    /// Address of the machine; empty if unknown.
    pub host_ip: &'a str,
    /// The present.
    pub now: Timestamp,
}

/// Makes the status.
pub fn pod_status(facts: &Facts<'_>) -> PodStatus {
    let Facts { pod, seen, previous, host_ip, now, .. } = *facts;
    let containers: Vec<ContainerStatus> = pod.spec.containers.iter().map(|container| container_status(facts, container)).collect();
    let (phase, reason, message) = phase(facts, &containers);
    let pod_ip = if pod.spec.host_network { Some(host_ip) } else { seen.ip() };
    // While the owner of the network is being replaced the pod has none; a pod that has ended keeps the last it had.
    let pod_ip = pod_ip.map(str::to_owned).or_else(|| previous.map(|p| p.pod_ip.clone())).unwrap_or_default();
    let address = |ip: &str| if ip.is_empty() { Vec::new() } else { vec![Address { ip: ip.to_owned() }] };
    let known = previous.and_then(|p| p.start_time.clone()).or_else(|| pod.status.start_time.clone());
    PodStatus {
        conditions: conditions(&phase, &containers, previous, now),
        phase,
        reason,
        message,
        host_ips: address(host_ip),
        host_ip: host_ip.to_owned(),
        pod_ips: address(&pod_ip),
        pod_ip,
        start_time: Some(known.unwrap_or_else(|| seconds(now))),
        container_statuses: containers,
        qos_class: qos_class(pod).to_owned(),
    }
}

fn container_status(facts: &Facts<'_>, container: &Container) -> ContainerStatus {
    let current = facts.seen.current(&container.name);
    let earlier = facts.previous.and_then(|p| p.container_statuses.iter().find(|one| one.name == container.name));
    let mut status = ContainerStatus { name: container.name.clone(), image: container.image.clone(), ..ContainerStatus::default() };
    let trouble = facts.troubles.get(&container.name);
    let waiting = |reason: &str, message: String| State { waiting: Some(Waiting { reason: reason.into(), message }), ..State::default() };
    let not_yet = || match (facts.refusal, trouble) {
        (Some(refusal), _) => waiting(&refusal.reason, refusal.message.clone()),
        (None, Some(trouble)) => waiting(trouble.waiting_reason(), trouble.message.clone()),
        (None, None) => waiting("ContainerCreating", String::new()),
    };
    let Some(current) = current else {
        // Nothing is there (any more). A pod that is over keeps what was reported of it.
        match (earlier, facts.previous.is_some_and(PodStatus::is_over)) {
            (Some(earlier), true) => return earlier.clone(),
            (Some(earlier), false) => {
                status.restart_count = earlier.restart_count;
                status.last_state = earlier.last_state.clone();
            }
            (None, _) => {}
        }
        status.state = not_yet();
        return status;
    };
    status.restart_count = current.attempt;
    status.image_id = format!("docker://{}", current.container.image_id);
    status.container_id = format!("docker://{}", current.container.id);
    if let Some(before) = facts.seen.previous(&container.name) {
        status.last_state = ended(before);
    } else if let Some(earlier) = earlier.filter(|earlier| earlier.restart_count == current.attempt) {
        status.last_state = earlier.last_state.clone();
    }
    match &current.container.state {
        RuntimeState::Running { started_at } => {
            status.state.running = Some(Running { started_at: seconds(*started_at) });
            (status.ready, status.started) = (true, true);
        }
        RuntimeState::Created | RuntimeState::Dead => status.state = not_yet(),
        RuntimeState::Exited(exit) if comes_back(facts, exit) => match (trouble, current.next_start()) {
            (Some(_), _) => {
                status.last_state = ended(current);
                status.state = not_yet();
            }
            (None, Some((level, at))) if at > facts.now => {
                let metadata = &facts.pod.metadata;
                let pause = backoff(level.saturating_sub(1)).as_secs();
                let message = format!(
                    "back-off {pause}s restarting failed container={} pod={}_{}({})",
                    container.name, metadata.name, metadata.namespace, metadata.uid
                );
                status.last_state = ended(current);
                status.state = waiting("CrashLoopBackOff", message);
            }
            (None, _) => status.state = ended(current),
        },
        RuntimeState::Exited(_) => status.state = ended(current),
    }
    status
}

fn comes_back(facts: &Facts<'_>, exit: &Exit) -> bool {
    let over = facts.refusal.is_some() || facts.pod.is_deleting() || facts.pod.is_over() || facts.previous.is_some_and(PodStatus::is_over);
    !over && starts_again(facts.pod.spec.restart_policy, exit.code)
}

fn ended(seen: &Seen) -> State {
    let RuntimeState::Exited(exit) = &seen.container.state else { return State::default() };
    let reason = match (exit.oom_killed, exit.code) {
        (true, _) => "OOMKilled",
        (false, 0) => "Completed",
        (false, _) => "Error",
    };
    let terminated = Terminated {
        exit_code: exit.code,
        reason: reason.into(),
        message: exit.error.clone(),
        started_at: seconds(exit.started_at),
        finished_at: seconds(exit.finished_at),
        container_id: format!("docker://{}", seen.container.id),
    };
    State { terminated: Some(terminated), ..State::default() }
}

/// Phase, reason and message of the pod.
fn phase(facts: &Facts<'_>, containers: &[ContainerStatus]) -> (String, String, String) {
    let text = |phase: &str| (phase.to_owned(), String::new(), String::new());
    if let Some(refusal) = facts.refusal {
        return ("Failed".into(), refusal.reason.clone(), refusal.message.clone());
    }
    if let Some(previous) = facts.previous.filter(|p| p.is_over()) {
        return (previous.phase.clone(), previous.reason.clone(), previous.message.clone());
    }
    if facts.pod.is_over() {
        return text(&facts.pod.status.phase);
    }
    let running = containers.iter().filter(|one| one.state.running.is_some()).count();
    let failed = |one: &&ContainerStatus| one.state.terminated.as_ref().is_some_and(|t| t.exit_code != 0);
    let any_failed = containers.iter().any(|one| failed(&one));
    if facts.pod.is_deleting() && !facts.seen.any_running() {
        return text(if any_failed { "Failed" } else { "Succeeded" });
    }
    let never_started = containers.iter().any(|one| one.state.waiting.is_some() && one.last_state.terminated.is_none());
    if never_started {
        return text("Pending");
    }
    let all_ended = running == 0 && containers.iter().all(|one| one.state.terminated.is_some());
    match (all_ended, facts.pod.spec.restart_policy) {
        (false, _) | (true, RestartPolicy::Always) => text("Running"),
        (true, RestartPolicy::OnFailure) => text(if any_failed { "Running" } else { "Succeeded" }),
        (true, RestartPolicy::Never) => text(if any_failed { "Failed" } else { "Succeeded" }),
    }
}

fn conditions(phase: &str, containers: &[ContainerStatus], previous: Option<&PodStatus>, now: Timestamp) -> Vec<Condition> {
    let before: BTreeMap<&str, &Condition> = previous.iter().flat_map(|p| &p.conditions).map(|c| (c.kind.as_str(), c)).collect();
    let unready: Vec<&str> = containers.iter().filter(|one| !one.ready).map(|one| one.name.as_str()).collect();
    let (ready, reason, message) = match phase {
        "Succeeded" => (false, "PodCompleted", String::new()),
        "Failed" => (false, "PodFailed", String::new()),
        _ if unready.is_empty() => (true, "", String::new()),
        _ => (false, "ContainersNotReady", format!("containers with unready status: [{}]", unready.join(" "))),
    };
    let make = |kind: &str, is: bool, reason: &str, message: &str| {
        let status = if is { "True" } else { "False" };
        let since = before.get(kind).filter(|c| c.status == status && !c.last_transition_time.is_empty()).map(|c| c.last_transition_time.clone());
        Condition {
            kind: kind.into(),
            status: status.into(),
            last_transition_time: since.unwrap_or_else(|| seconds(now)),
            reason: reason.into(),
            message: message.into(),
        }
    };
    vec![
        make("Initialized", true, if phase == "Succeeded" { "PodCompleted" } else { "" }, ""),
        make("Ready", ready, reason, &message),
        make("ContainersReady", ready, reason, &message),
        make("PodScheduled", true, "", ""),
    ]
}
