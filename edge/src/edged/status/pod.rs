//! The status of a pod as a whole: pure.

use std::collections::BTreeMap;

use super::super::pod::{CONTAINERS_MAX, Container, RestartPolicy, qos_class};
use super::container::container_status;
use super::{Address, Condition, ContainerStatus, Facts, PodStatus, seconds};

/// Makes the status.
pub fn pod_status(facts: &Facts<'_>) -> PodStatus {
    let Facts { pod, seen, previous, host_ip, .. } = *facts;
    let spec = &pod.spec;
    // One that is refused for having more says so in fewer words.
    let inits: Vec<ContainerStatus> =
        spec.init_containers.iter().take(CONTAINERS_MAX).map(|one| container_status(facts, one, true, "PodInitializing")).collect();
    let open = open_inits(&spec.init_containers, &inits);
    // As `kubectl` shows it: while init containers are at work the others wait for them.
    let waits_for = if open.is_empty() && inits.is_empty() { "ContainerCreating" } else { "PodInitializing" };
    let containers: Vec<ContainerStatus> =
        spec.containers.iter().take(CONTAINERS_MAX).map(|one| container_status(facts, one, false, waits_for)).collect();
    let (phase, reason, message) = phase(facts, &inits, &containers);
    let pod_ip = if spec.host_network { Some(host_ip) } else { seen.ip() };
    // While its sandbox is being replaced a pod has no address; a pod that has ended keeps the last it had.
    let pod_ip = pod_ip.map(str::to_owned).or_else(|| previous.map(|p| p.pod_ip.clone())).unwrap_or_default();
    let address = |ip: &str| if ip.is_empty() { Vec::new() } else { vec![Address { ip: ip.to_owned() }] };
    let known = previous.and_then(|p| p.start_time.clone()).or_else(|| pod.status.start_time.clone());
    PodStatus {
        conditions: conditions(facts, &phase, &inits, &containers),
        phase,
        reason,
        message,
        host_ips: address(host_ip),
        host_ip: host_ip.to_owned(),
        pod_ips: address(&pod_ip),
        pod_ip,
        start_time: Some(known.unwrap_or_else(|| seconds(facts.now))),
        init_container_statuses: inits,
        container_statuses: containers,
        qos_class: qos_class(pod).to_owned(),
    }
}

/// Names of the init containers that the others still wait for.
fn open_inits<'a>(inits: &'a [Container], statuses: &[ContainerStatus]) -> Vec<&'a str> {
    let is_open = |init: &Container, status: &ContainerStatus| match init.is_sidecar() {
        true => !status.started,
        false => status.state.terminated.as_ref().is_none_or(|end| end.exit_code != 0),
    };
    inits.iter().zip(statuses).filter(|(init, status)| is_open(init, status)).map(|(init, _)| init.name.as_str()).collect()
}

fn has_begun(status: &ContainerStatus) -> bool {
    status.state.waiting.is_none() || status.last_state.terminated.is_some()
}

/// Phase, reason and message of the pod.
fn phase(facts: &Facts<'_>, inits: &[ContainerStatus], containers: &[ContainerStatus]) -> (String, String, String) {
    let text = |phase: &str| (phase.to_owned(), String::new(), String::new());
    let pod = facts.pod;
    // Whoever reads that a pod is over may start another in its place: not before the last of its containers has ended.
    if let Some(refusal) = facts.refusal.filter(|_| !facts.seen.any_running()) {
        return ("Failed".into(), refusal.reason.clone(), refusal.message.clone());
    }
    if let Some(previous) = facts.previous.filter(|p| p.is_over()) {
        return (previous.phase.clone(), previous.reason.clone(), previous.message.clone());
    }
    if pod.is_over() {
        return text(&pod.status.phase);
    }
    let failed = |one: &ContainerStatus| one.state.terminated.as_ref().is_some_and(|end| end.exit_code != 0);
    let any_failed = containers.iter().any(failed);
    if pod.is_deleting() && !facts.seen.any_running() {
        return text(if any_failed { "Failed" } else { "Succeeded" });
    }
    let policy = pod.spec.restart_policy;
    let is_plain = |status: &&ContainerStatus| pod.container(&status.name).is_some_and(|init| !init.is_sidecar());
    if policy == RestartPolicy::Never && !facts.seen.any_running() && inits.iter().filter(is_plain).any(failed) {
        return text("Failed");
    }
    if !containers.iter().all(has_begun) {
        return text("Pending");
    }
    // Sidecars are stopped after the others, and the pod is over after them.
    let any_replaced = containers.iter().any(|one| facts.seen.current(&one.name).is_some_and(|seen| seen.is_replaced));
    let all_ended = !facts.seen.any_running() && !any_replaced && containers.iter().all(|one| one.state.terminated.is_some());
    match (all_ended, policy) {
        (false, _) | (true, RestartPolicy::Always) => text("Running"),
        (true, RestartPolicy::OnFailure) => text(if any_failed { "Running" } else { "Succeeded" }),
        (true, RestartPolicy::Never) => text(if any_failed { "Failed" } else { "Succeeded" }),
    }
}

fn conditions(facts: &Facts<'_>, phase: &str, inits: &[ContainerStatus], containers: &[ContainerStatus]) -> Vec<Condition> {
    let Facts { pod, previous, now, .. } = *facts;
    let open = open_inits(&pod.spec.init_containers, inits);
    // What runs already shows that its init containers did their work, whatever is left of them.
    let is_initialized = open.is_empty() || containers.iter().any(has_begun);
    let mut unready: Vec<&str> = containers.iter().filter(|one| !one.ready).map(|one| one.name.as_str()).collect();
    let sidecars = inits.iter().filter(|one| !one.ready && pod.container(&one.name).is_some_and(Container::is_sidecar));
    unready.extend(sidecars.map(|one| one.name.as_str()));
    let (ready, reason, message) = match phase {
        "Succeeded" => (false, "PodCompleted", String::new()),
        "Failed" => (false, "PodFailed", String::new()),
        _ if unready.is_empty() => (true, "", String::new()),
        _ => (false, "ContainersNotReady", format!("containers with unready status: [{}]", unready.join(" "))),
    };
    let initialized = match phase {
        "Succeeded" => (true, "PodCompleted", String::new()),
        "Failed" if facts.refusal.is_some() => (is_initialized, "PodFailed", String::new()),
        _ if is_initialized => (true, "", String::new()),
        _ => (false, "ContainersNotInitialized", format!("containers with incomplete status: [{}]", open.join(" "))),
    };
    let has_sandbox = !matches!(phase, "Succeeded" | "Failed") && (!pod.needs_sandbox() || facts.seen.sandbox().is_some());
    let before: BTreeMap<&str, &Condition> = previous.iter().flat_map(|p| &p.conditions).map(|c| (c.kind.as_str(), c)).collect();
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
    let trouble = facts.troubles.get(super::super::runtime::label::SANDBOX_NAME).filter(|_| !has_sandbox);
    let (why, words) = trouble.map_or(("", ""), |trouble| (trouble.reason.as_str(), trouble.message.as_str()));
    vec![
        make("PodReadyToStartContainers", has_sandbox, why, words),
        make("Initialized", initialized.0, initialized.1, &initialized.2),
        make("Ready", ready, reason, &message),
        make("ContainersReady", ready, reason, &message),
        make("PodScheduled", true, "", ""),
    ]
}
