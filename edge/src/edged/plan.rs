//! Desired against actual → what to do next: pure.
//!
//! One call plans for the moment. Whoever carries the actions out looks again afterwards and asks again, until nothing is
//! left to do; so a crash at any point is repaired by the next look.
//!
//! Rules (Kubernetes' unless said otherwise):
//! - A container is started in the order of the spec; one that ended is followed by another with the next number as the
//!   restart policy says, after a pause that doubles with each fall ([`super::observed::backoff`]). The depth of the
//!   back-off is a label of the container, so that a restart of this program forgets nothing.
//! - Of the ended ones the newest before the current is kept (`lastState`), older ones are removed.
//! - Ours: the first container that comes up without another to join owns the pod's network namespace, the others join it.
//!   When the owner has ended, those that joined have lost their network and are replaced, one of them as the new owner.
//! - A pod that is over (all ended for good, or final in the API) is never started again.

use jiff::Timestamp;

use super::observed::{Observed, Seen, Troubles};
use super::pod::{Container, Pod, RestartPolicy};
use super::runtime::{ContainerState, label};
use super::status::PodStatus;

/// Containers whose object is gone and that carry no grace of their own are stopped with this.
const ORPHAN_GRACE_SECS: u64 = super::pod::GRACE_SECS_DEFAULT;

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Stop these, all at once, and kill what still runs after the grace.
    Stop {
        /// Engine's ids.
        ids: Vec<String>,
        /// Seconds.
        grace_secs: u64,
    },
    /// Remove one that runs no more.
    Remove {
        /// Engine's id.
        id: String,
    },
    /// Make and start a container.
    Start {
        /// Name in the pod.
        container: String,
        /// Its number.
        attempt: u32,
        /// Depth of its back-off, kept as a label.
        level: u32,
        /// Id of the container whose network it joins; `None` is a network of its own.
        join: Option<String>,
    },
    /// Remove the pod's directory: nothing of it runs and its object is gone.
    RemoveDirectory,
}

/// What to do now, and when to look again at the latest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In order.
    pub actions: Vec<Action>,
    /// The next moment at which time alone changes the plan.
    pub wake_at: Option<Timestamp>,
}

impl Plan {
    fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
    }
}

/// What the planner knows of a pod that shall exist.
#[derive(Clone, Copy, Debug)]
pub struct Desired<'a> {
    /// The object.
    pub pod: &'a Pod,
    /// It must not be started (any more): refused, or over.
    pub is_over: bool,
    /// What was reported last: its restart counts go on when the machine was rebooted or somebody removed the containers.
    pub previous: Option<&'a PodStatus>,
}

/// Plans the next steps. `desired` is `None` when the store has no such pod.
pub fn plan(desired: Option<Desired<'_>>, seen: &Observed, troubles: &Troubles, now: Timestamp) -> Plan {
    match desired {
        None => remove_all(seen),
        Some(desired) if desired.pod.is_deleting() || desired.is_over => {
            let ids: Vec<String> = seen.all().iter().filter(|one| one.is_running()).map(|one| one.container.id.clone()).collect();
            let actions = if ids.is_empty() { Vec::new() } else { vec![Action::Stop { ids, grace_secs: desired.pod.grace_secs() }] };
            Plan { actions, wake_at: None }
        }
        Some(desired) => run(&desired, seen, troubles, now),
    }
}

fn remove_all(seen: &Observed) -> Plan {
    let running: Vec<&Seen> = seen.all().iter().filter(|one| one.is_running()).collect();
    if running.is_empty() {
        let removals = seen.all().iter().map(|one| Action::Remove { id: one.container.id.clone() });
        return Plan { actions: removals.chain([Action::RemoveDirectory]).collect(), wake_at: None };
    }
    let grace = |one: &&Seen| one.container.labels.get(label::GRACE).and_then(|text| text.parse().ok()).unwrap_or(ORPHAN_GRACE_SECS);
    let grace_secs = running.iter().map(grace).max().unwrap_or(ORPHAN_GRACE_SECS);
    let ids = running.iter().map(|one| one.container.id.clone()).collect();
    Plan { actions: vec![Action::Stop { ids, grace_secs }], wake_at: None }
}

fn run(desired: &Desired<'_>, seen: &Observed, troubles: &Troubles, now: Timestamp) -> Plan {
    let pod = desired.pod;
    let mut plan = Plan::default();
    for one in seen.all() {
        let keep = [seen.current(&one.name), seen.previous(&one.name)].into_iter().flatten().any(|kept| kept.container.id == one.container.id);
        let known = pod.spec.containers.iter().any(|container| container.name == one.name);
        if (!keep || !known) && !one.is_running() {
            plan.actions.push(Action::Remove { id: one.container.id.clone() });
        } else if !keep || !known {
            plan.actions.push(Action::Stop { ids: vec![one.container.id.clone()], grace_secs: pod.grace_secs() });
        }
    }
    if !plan.actions.is_empty() {
        return plan;
    }
    let join = if pod.spec.host_network { None } else { seen.network_owner().map(|owner| owner.container.id.clone()) };
    for container in &pod.spec.containers {
        let Some(step) = next(desired, container, seen, now, &mut plan) else { continue };
        if let (Next::Start { .. }, Some(trouble)) = (&step, troubles.get(&container.name))
            && trouble.retry_at > now
        {
            plan.wake(trouble.retry_at);
            continue;
        }
        match step {
            Next::Discard(id) => plan.actions.push(Action::Remove { id }),
            Next::Replace { id } => plan.actions.push(Action::Stop { ids: vec![id], grace_secs: pod.grace_secs() }),
            Next::Start { attempt, level } => {
                plan.actions.push(Action::Start { container: container.name.clone(), attempt, level, join: join.clone() });
            }
        }
        // One at a time: the next one may join the network that this one brings.
        return plan;
    }
    plan
}

enum Next {
    /// Never started: made by a run that was cut short, with a network that may be gone.
    Discard(String),
    /// Runs and must not: the next look sees it ended.
    Replace {
        id: String,
    },
    Start {
        attempt: u32,
        level: u32,
    },
}

fn next(desired: &Desired<'_>, container: &Container, seen: &Observed, now: Timestamp, plan: &mut Plan) -> Option<Next> {
    let Some(current) = seen.current(&container.name) else {
        let attempt = desired.previous.and_then(|p| p.restarts(&container.name)).map_or(0, |before| before.saturating_add(1));
        return Some(Next::Start { attempt, level: 0 });
    };
    let id = || current.container.id.clone();
    let another = || Next::Start { attempt: current.attempt.saturating_add(1), level: 0 };
    match &current.container.state {
        ContainerState::Created | ContainerState::Dead => Some(Next::Discard(id())),
        ContainerState::Running { .. } => {
            (is_outdated(container, current) || lost_network(desired.pod, current, seen)).then(|| Next::Replace { id: id() })
        }
        ContainerState::Exited(_) if is_outdated(container, current) => Some(another()),
        ContainerState::Exited(exit) => {
            if !starts_again(desired.pod.spec.restart_policy, exit.code) {
                return None;
            }
            let (level, at) = current.next_start()?;
            // A clock that was set back would make the pause as long as the step: then it starts at once.
            if at > now && exit.finished_at <= now {
                plan.wake(at);
                return None;
            }
            Some(Next::Start { attempt: current.attempt.saturating_add(1), level })
        }
    }
}

/// Whether the policy starts a container again that ended with this code.
pub fn starts_again(policy: RestartPolicy, code: i64) -> bool {
    match policy {
        RestartPolicy::Always => true,
        RestartPolicy::OnFailure => code != 0,
        RestartPolicy::Never => false,
    }
}

fn is_outdated(container: &Container, current: &Seen) -> bool {
    current.container.labels.get(label::HASH).is_some_and(|hash| *hash != container.hash())
}

fn lost_network(pod: &Pod, current: &Seen, seen: &Observed) -> bool {
    let Some(owner) = current.joined() else { return false };
    // A container that must not be started again is left without network rather than stopped.
    let stays = pod.spec.restart_policy == RestartPolicy::Never;
    !stays && !seen.all().iter().any(|one| one.is_running() && one.container.id == owner)
}
