//! The status of one container: pure.

use jiff::Timestamp;

use super::super::observed::{Seen, Trouble, backoff, is_started};
use super::super::pod::{Container, Pod};
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
        // Nothing is there (any more). A pod that is over keeps what was reported of it, as does a container that ended for good.
        let policy = facts.pod.policy_of(container);
        let ended_for_good = |previous: &PodStatus| previous.is_over() || previous.has_ended(&container.name, policy);
        if let Some(earlier) = earlier {
            if facts.previous.is_some_and(ended_for_good) {
                return earlier.clone();
            }
            status.restart_count = earlier.restart_count;
            let end = last_end(earlier, facts.now);
            if let Some(ended) = &end.terminated {
                (status.container_id, status.image_id) = (earlier.container_id.clone(), earlier.image_id.clone());
                if !is_init && !policy.starts_again(ended.exit_code) {
                    (status.state, status.last_state) = (end, earlier.last_state.clone());
                    return status;
                }
            }
            status.last_state = end;
        }
        status.state = not_yet();
        return status;
    };
    status.restart_count = current.attempt;
    status.image_id = format!("docker://{}", current.container.image_id);
    // One that was made and not started yet has not been anything.
    if current.container.state != RuntimeState::Created {
        status.container_id = format!("docker://{}", current.container.id);
    }
    if let Some(before) = facts.seen.previous(&container.name) {
        status.last_state = ended(before);
    } else if let Some(earlier) = earlier {
        status.last_state = match current.attempt.checked_sub(earlier.restart_count) {
            Some(0) => earlier.last_state.clone(),
            // The one before was removed by somebody.
            Some(1) => last_end(earlier, facts.now),
            _ => status.last_state,
        };
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
        RuntimeState::Created | RuntimeState::Removing | RuntimeState::Dead => status.state = not_yet(),
        RuntimeState::Exited(exit) if comes_back(facts, container, current.is_replaced, exit) => match (trouble, current.next_start()) {
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

/// How a container ended that was reported and is not there any more. Of one that ran nobody knows (the kubelet's words for
/// that, and its code).
fn last_end(earlier: &ContainerStatus, now: Timestamp) -> State {
    if earlier.state.terminated.is_some() {
        return earlier.state.clone();
    }
    let Some(running) = &earlier.state.running else { return earlier.last_state.clone() };
    let terminated = Terminated {
        exit_code: 137,
        reason: "ContainerStatusUnknown".into(),
        message: "the container ran and is gone: somebody removed it, or the machine was started again".into(),
        started_at: running.started_at.clone(),
        finished_at: seconds(now),
        container_id: earlier.container_id.clone(),
    };
    State { terminated: Some(terminated), ..State::default() }
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

fn comes_back(facts: &Facts<'_>, container: &Container, is_replaced: bool, exit: &Exit) -> bool {
    let over = facts.refusal.is_some() || facts.pod.is_deleting() || facts.pod.is_over() || facts.previous.is_some_and(PodStatus::is_over);
    !over && (is_replaced || facts.pod.policy_of(container).starts_again(exit.code))
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
