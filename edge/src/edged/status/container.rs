//! The status of one container: pure.

use super::super::observed::{Seen, Trouble, backoff, is_started};
use super::super::plan::starts_again;
use super::super::pod::{Container, Pod, RestartPolicy};
use super::super::runtime::{ContainerState as RuntimeState, Exit, label};
use super::{ContainerStatus, Facts, PodStatus, Running, State, Terminated, Waiting, seconds};

/// Longest last words that are reported (Kubernetes' limit), in bytes.
const WORDS_MAX: usize = 4096;

/// Makes it. `is_init` is an init container of either kind, `waits_for` what a container that is not there yet waits for.
pub(super) fn container_status(facts: &Facts<'_>, container: &Container, is_init: bool, waits_for: &str) -> ContainerStatus {
    let current = facts.seen.current(&container.name);
    let earlier = facts.previous.and_then(|previous| previous.container(&container.name));
    let mut status = ContainerStatus { name: container.name.clone(), image: container.image.clone(), ..ContainerStatus::default() };
    let trouble = facts.troubles.get(&container.name);
    let not_yet = || waiting(facts, trouble, waits_for);
    let Some(current) = current else {
        // Nothing is there (any more). A pod that is over keeps what was reported of it, as does an init container that did its work.
        let did_its_work = |one: &ContainerStatus| is_init && one.state.terminated.as_ref().is_some_and(|end| end.exit_code == 0);
        match earlier {
            Some(earlier) if facts.previous.is_some_and(PodStatus::is_over) || did_its_work(earlier) => return earlier.clone(),
            Some(earlier) => {
                status.restart_count = earlier.restart_count;
                status.last_state = earlier.last_state.clone();
            }
            None => {}
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
            status.started = is_started(facts.healths, container.startup_probe.is_some(), &current.container.id);
            let is_ready = match container.readiness_probe {
                Some(_) => facts.healths.get(&current.container.id).and_then(|health| health.ready) == Some(true),
                None => true,
            };
            // An init container is ready when it has ended well.
            status.ready = status.started && is_ready && (!is_init || container.is_sidecar());
        }
        RuntimeState::Created | RuntimeState::Dead => status.state = not_yet(),
        RuntimeState::Exited(exit) if comes_back(facts, container, is_init, exit) => match (trouble, current.next_start()) {
            (Some(_), _) => {
                status.last_state = ended(current);
                status.state = not_yet();
            }
            (None, Some((level, at))) if at > facts.now => {
                status.last_state = ended(current);
                status.state = crash_loop(facts.pod, container, level);
            }
            (None, _) => status.state = ended(current),
        },
        RuntimeState::Exited(exit) => {
            status.state = ended(current);
            status.ready = is_init && !container.is_sidecar() && exit.code == 0;
        }
    }
    status
}

fn reason(reason: &str, message: String) -> State {
    State { waiting: Some(Waiting { reason: reason.into(), message }), ..State::default() }
}

fn waiting(facts: &Facts<'_>, trouble: Option<&Trouble>, waits_for: &str) -> State {
    // What keeps the whole pod from starting keeps each container.
    let trouble = trouble.or_else(|| facts.troubles.get(label::SANDBOX_NAME));
    match (facts.refusal, trouble) {
        (Some(refusal), _) => reason(&refusal.reason, refusal.message.clone()),
        (None, Some(trouble)) => reason(trouble.waiting_reason(), trouble.message.clone()),
        (None, None) => reason(waits_for, String::new()),
    }
}

fn crash_loop(pod: &Pod, container: &Container, level: u32) -> State {
    let metadata = &pod.metadata;
    let pause = backoff(level.saturating_sub(1)).as_secs();
    let message =
        format!("back-off {pause}s restarting failed container={} pod={}_{}({})", container.name, metadata.name, metadata.namespace, metadata.uid);
    reason("CrashLoopBackOff", message)
}

fn comes_back(facts: &Facts<'_>, container: &Container, is_init: bool, exit: &Exit) -> bool {
    let over = facts.refusal.is_some() || facts.pod.is_deleting() || facts.pod.is_over() || facts.previous.is_some_and(PodStatus::is_over);
    let policy = match (is_init, container.is_sidecar(), facts.pod.spec.restart_policy) {
        (true, true, _) => RestartPolicy::Always,
        (true, false, RestartPolicy::Always) => RestartPolicy::OnFailure,
        (_, _, policy) => policy,
    };
    !over && starts_again(policy, exit.code)
}

/// How a container ended, as a state.
pub(super) fn ended(seen: &Seen) -> State {
    let RuntimeState::Exited(exit) = &seen.container.state else { return State::default() };
    let reason = match (exit.oom_killed, exit.code) {
        (true, _) => "OOMKilled",
        (false, 0) => "Completed",
        (false, _) if !exit.error.is_empty() => "ContainerCannotRun",
        (false, _) => "Error",
    };
    let words = if seen.words.is_empty() { &exit.error } else { &seen.words };
    let terminated = Terminated {
        exit_code: exit.code,
        reason: reason.into(),
        message: words.chars().take(WORDS_MAX).collect(),
        started_at: seconds(exit.started_at),
        finished_at: seconds(exit.finished_at),
        container_id: format!("docker://{}", seen.container.id),
    };
    State { terminated: Some(terminated), ..State::default() }
}
