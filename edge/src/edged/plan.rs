//! Desired against actual → what to do next: pure.
//!
//! One call plans for the moment. Whoever carries the actions out looks again afterwards and asks again, until nothing is
//! left to do; so a crash at any point is repaired by the next look.
//!
//! Rules (the kubelet's):
//! - What the containers share is held by a sandbox. One that has ended takes its containers with it: they are stopped, and
//!   the pod begins anew in another one, init containers first; unless nothing of the pod would be started again anyway.
//! - Init containers run one after the other, each to its good end; those with `restartPolicy: Always` (sidecars) only until
//!   they have started up, and stay. Then the others start, in the order of the spec.
//! - One that ended is followed by another with the next number as the restart policy says, after a pause that doubles with
//!   each fall ([`super::observed::backoff`]). The depth of the back-off is a label of the container, so that a restart of
//!   this program forgets nothing.
//! - Of the ended ones the newest before the current are kept (`lastState`, logs), as many as configured; older ones are
//!   removed.
//! - When all containers have ended for good, the sidecars are stopped in reverse order, and the sandbox goes.
//! - One that is stopped so that another takes its place (a probe that failed, a sandbox that is gone, another definition) is
//!   followed by one however it ended.
//! - A pod that is over (all ended for good, or final in the API) is never started again.

use jiff::Timestamp;

use super::observed::{Healths, Observed, Seen, Troubles, backoff, is_started};
use super::pod::{Container, Pod, RestartPolicy};
use super::runtime::{ContainerState, label};
use super::status::PodStatus;

/// Containers whose object is gone and that carry no grace of their own are stopped with this.
const ORPHAN_GRACE_SECS: u64 = super::pod::GRACE_SECS_DEFAULT;
/// A sandbox that ended within this time is followed by another only after a pause.
const SANDBOX_SHORT: jiff::SignedDuration = jiff::SignedDuration::from_secs(60);

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Stop these.
    Stop(Stop),
    /// Remove one, running or not.
    Remove {
        /// Engine's id.
        id: String,
    },
    /// Make and start a sandbox.
    StartSandbox {
        /// Its number.
        attempt: u32,
    },
    /// Make and start a container.
    Start {
        /// Name in the pod.
        container: String,
        /// Its number.
        attempt: u32,
        /// Depth of its back-off, kept as a label.
        level: u32,
        /// Id of its sandbox; `None` in a pod that needs none.
        sandbox: Option<String>,
    },
    /// Remove the pod's directory and volumes: nothing of it runs and its object is gone.
    RemoveDirectory,
}

/// Containers that are to end, each with its hook, its signal, and the kill after the grace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stop {
    /// Engine's ids and names; all at once.
    pub together: Vec<(String, String)>,
    /// Then these, one after the other, within the same grace.
    pub afterwards: Vec<(String, String)>,
    /// Seconds for all of them, hooks included.
    pub grace_secs: u64,
    /// Why, where it is not the end of the pod: for its event.
    pub reason: Option<String>,
    /// Others are started in their place, however they end.
    pub is_replacement: bool,
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

    fn of(action: Action) -> Self {
        Self { actions: vec![action], wake_at: None }
    }
}

/// What the planner knows of a pod that shall exist.
#[derive(Clone, Copy, Debug)]
pub struct Desired<'a> {
    /// The object.
    pub pod: &'a Pod,
    /// It must not be started (any more): refused, ended by the node, or over.
    pub is_over: bool,
    /// What was reported last: its restart counts go on when the machine was rebooted or somebody removed the containers.
    pub previous: Option<&'a PodStatus>,
    /// The grace of a pod that the node ends, in seconds; `None` is the pod's own.
    pub grace_secs: Option<u64>,
}

/// What the plan is made from.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    /// What is there.
    pub seen: &'a Observed,
    /// What went wrong.
    pub troubles: &'a Troubles,
    /// What the probes said.
    pub healths: &'a Healths,
    /// Ended containers of each name that stay beside the current one.
    pub ended_kept: usize,
    /// The present.
    pub now: Timestamp,
}

/// Plans the next steps. `desired` is `None` when the store has no such pod.
pub fn plan(desired: Option<Desired<'_>>, situation: &Situation<'_>) -> Plan {
    match desired {
        None => remove_all(situation.seen),
        Some(desired) if desired.pod.is_deleting() || desired.is_over => end(&desired, situation.seen),
        Some(desired) => run(&desired, situation),
    }
}

fn named(one: &Seen) -> (String, String) {
    (one.container.id.clone(), one.name.clone())
}

/// Everything of a pod whose object is gone.
fn remove_all(seen: &Observed) -> Plan {
    let running: Vec<&Seen> = seen.all().iter().filter(|one| one.is_running()).collect();
    if running.is_empty() {
        let removals = seen.all().iter().chain(seen.sandboxes()).map(|one| Action::Remove { id: one.container.id.clone() });
        // The engine tells when the last one has left.
        let directory = seen.leaving().is_empty().then_some(Action::RemoveDirectory);
        return Plan { actions: removals.chain(directory).collect(), wake_at: None };
    }
    let grace = |one: &&Seen| one.container.labels.get(label::GRACE).and_then(|text| text.parse().ok()).unwrap_or(ORPHAN_GRACE_SECS);
    let grace_secs = running.iter().map(grace).max().unwrap_or(ORPHAN_GRACE_SECS);
    Plan::of(Action::Stop(Stop { together: running.into_iter().map(named).collect(), grace_secs, ..Stop::default() }))
}

/// Stops what runs of a pod; its ended containers stay for their logs until the object goes.
fn end(desired: &Desired<'_>, seen: &Observed) -> Plan {
    if seen.any_running() {
        let stop = stop_all(desired.pod, seen, None);
        return Plan::of(Action::Stop(Stop { grace_secs: desired.grace_secs.unwrap_or(stop.grace_secs), ..stop }));
    }
    Plan { actions: sandboxes_away(seen), wake_at: None }
}

fn sandboxes_away(seen: &Observed) -> Vec<Action> {
    seen.sandboxes().iter().map(|one| Action::Remove { id: one.container.id.clone() }).collect()
}

/// All that run: first the containers, then the sidecars from the last to the first.
fn stop_all(pod: &Pod, seen: &Observed, reason: Option<String>) -> Stop {
    let running = || seen.all().iter().filter(|one| one.is_running());
    let place = |one: &Seen| pod.spec.init_containers.iter().position(|init| init.name == one.name && init.is_sidecar());
    let mut sidecars: Vec<(usize, &Seen)> = running().filter_map(|one| Some((place(one)?, one))).collect();
    sidecars.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
    Stop {
        together: running().filter(|one| place(one).is_none()).map(named).collect(),
        afterwards: sidecars.into_iter().map(|(_, one)| named(one)).collect(),
        grace_secs: pod.grace_secs(),
        reason,
        is_replacement: false,
    }
}

/// All that run, because their sandbox is gone.
fn stop_lost(pod: &Pod, seen: &Observed) -> Action {
    let stop = stop_all(pod, seen, Some("Pod sandbox changed, it will be killed and re-created.".into()));
    Action::Stop(Stop { is_replacement: pod.spec.restart_policy != RestartPolicy::Never, ..stop })
}

fn stop_one(pod: &Pod, one: &Seen, grace_secs: Option<u64>, reason: impl Into<String>) -> Stop {
    let grace_secs = grace_secs.unwrap_or_else(|| pod.grace_secs());
    Stop { together: vec![named(one)], grace_secs, reason: Some(reason.into()), ..Stop::default() }
}

fn run(desired: &Desired<'_>, situation: &Situation<'_>) -> Plan {
    let (pod, seen) = (desired.pod, situation.seen);
    let away = superfluous(pod, seen, situation.ended_kept);
    if !away.is_empty() {
        return Plan { actions: away, wake_at: None };
    }
    let mut plan = Plan::default();
    let needs_sandbox = pod.needs_sandbox();
    let sandbox = seen.sandbox().filter(|_| needs_sandbox).map(|one| one.container.id.as_str());
    let planner = Planner { desired, situation, sandbox };
    if needs_sandbox && sandbox.is_none() {
        planner.begin(&mut plan);
        return plan;
    }
    // What belongs to a sandbox that is gone has lost its network.
    let lost = |one: &&Seen| one.is_running() && one.sandbox() != sandbox;
    if seen.all().iter().any(|one| lost(&one)) {
        return Plan::of(stop_lost(pod, seen));
    }
    if planner.is_done() {
        plan.actions = if seen.any_running() { vec![Action::Stop(stop_all(pod, seen, None))] } else { sandboxes_away(seen) };
        return plan;
    }
    let mains_began = pod.spec.containers.iter().any(|one| planner.current(one).is_some());
    for init in &pod.spec.init_containers {
        if !planner.init(init, mains_began, &mut plan) && !mains_began {
            return plan;
        }
    }
    for container in &pod.spec.containers {
        planner.container(container, &mut plan);
    }
    plan
}

/// Containers that have nothing to do in the pod any more: of no name of it, or too old.
fn superfluous(pod: &Pod, seen: &Observed, ended_kept: usize) -> Vec<Action> {
    let mut actions = Vec::new();
    for one in seen.all() {
        let is = |other: &Seen| other.container.id == one.container.id;
        // Those before the newest are kept for how they ended and what they wrote: one that somebody started again stands in the
        // newest's way. One that was never started replaces none: when it is discarded, the depth of the back-off is of that.
        let newer = seen.of(&one.name).filter(|other| other.container.state != ContainerState::Created).position(is);
        let is_kept = seen.current(&one.name).is_some_and(is) || newer.is_some_and(|newer| newer <= ended_kept) && !one.is_running();
        if is_kept && pod.container(&one.name).is_some() {
            continue;
        }
        actions.push(match one.is_running() {
            true => Action::Stop(stop_one(pod, one, None, "no container of the pod any more")),
            false => Action::Remove { id: one.container.id.clone() },
        });
    }
    let older = seen.sandboxes().split_last().map(|(_, older)| older).unwrap_or_default();
    actions.extend(older.iter().map(|one| Action::Remove { id: one.container.id.clone() }));
    actions
}

struct Planner<'a> {
    desired: &'a Desired<'a>,
    situation: &'a Situation<'a>,
    /// Id of the running sandbox; `None` in a pod that needs none.
    sandbox: Option<&'a str>,
}

enum Next {
    /// Never started: made by a run that was cut short.
    Discard(String),
    /// Runs and must not: the next look sees it ended.
    Replace(Stop),
    Start {
        attempt: u32,
        level: u32,
    },
    /// Not before then.
    Wait(Timestamp),
}

impl<'a> Planner<'a> {
    /// The newest container of that name that belongs to the present sandbox.
    fn current(&self, container: &Container) -> Option<&'a Seen> {
        self.situation.seen.current(&container.name).filter(|one| one.sandbox() == self.sandbox)
    }

    /// Makes the pod's sandbox, unless nothing would run in it.
    fn begin(&self, plan: &mut Plan) {
        let (pod, seen) = (self.desired.pod, self.situation.seen);
        if seen.any_running() {
            plan.actions.push(stop_lost(pod, seen));
            return;
        }
        let policy = pod.spec.restart_policy;
        let never_again = policy == RestartPolicy::Never && pod.spec.init_containers.iter().any(|init| self.has_failed(init));
        if never_again || pod.spec.containers.iter().all(|one| self.has_ended(one)) {
            plan.actions = sandboxes_away(seen);
            return;
        }
        if let Some(trouble) = self.situation.troubles.get(label::SANDBOX_NAME).filter(|trouble| trouble.retry_at > self.situation.now) {
            return plan.wake(trouble.retry_at);
        }
        // As for a container: its name is free when it has left.
        if seen.leaving().iter().any(|one| one.name == label::SANDBOX_NAME) {
            return;
        }
        let Some(last) = seen.sandboxes().last() else {
            plan.actions.push(Action::StartSandbox { attempt: 0 });
            return;
        };
        if let ContainerState::Exited(exit) = &last.container.state
            && exit.finished_at.duration_since(exit.started_at) < SANDBOX_SHORT
        {
            let at = exit.finished_at.saturating_add(backoff(last.attempt)).unwrap_or(exit.finished_at);
            if at > self.situation.now && exit.finished_at <= self.situation.now {
                return plan.wake(at);
            }
        }
        plan.actions.push(Action::Remove { id: last.container.id.clone() });
        plan.actions.push(Action::StartSandbox { attempt: last.attempt.saturating_add(1) });
    }

    fn has_failed(&self, init: &Container) -> bool {
        matches!(self.situation.seen.current(&init.name).map(|one| &one.container.state), Some(ContainerState::Exited(exit)) if exit.code != 0)
            && !init.is_sidecar()
    }

    /// Whether a container has ended and does not come back, in whichever sandbox: as it is there, or as it was reported
    /// before somebody removed it. By the policy `Never` what was started once has ended when it is gone.
    fn has_ended(&self, container: &Container) -> bool {
        let policy = self.desired.pod.policy_of(container);
        match self.situation.seen.current(&container.name).map(|one| (&one.container.state, one.is_replaced)) {
            Some((ContainerState::Exited(exit), false)) => !policy.starts_again(exit.code),
            Some(_) => false,
            None => self.desired.previous.is_some_and(|previous| {
                previous.has_ended(&container.name, policy) || policy == RestartPolicy::Never && previous.restarts(&container.name).is_some()
            }),
        }
    }

    /// Whether all containers have ended and none comes back, or an init container has ended the pod.
    fn is_done(&self) -> bool {
        let policy = self.desired.pod.spec.restart_policy;
        let init_failed = |init: &Container| policy == RestartPolicy::Never && self.current(init).is_some() && self.has_failed(init);
        self.desired.pod.spec.init_containers.iter().any(init_failed) || self.desired.pod.spec.containers.iter().all(|one| self.has_ended(one))
    }

    /// Whether the next container may begin as far as this init container is concerned; plans what it still needs.
    fn init(&self, init: &Container, mains_began: bool, plan: &mut Plan) -> bool {
        let current = self.current(init);
        if init.is_sidecar() {
            self.container(init, plan);
            let healths = self.situation.healths;
            return current.is_some_and(|one| one.is_running() && is_started(healths, init.startup_probe.is_some(), &one.container.id));
        }
        match current.map(|one| &one.container.state) {
            Some(ContainerState::Exited(exit)) if exit.code == 0 => true,
            // What runs already was let in by an earlier look.
            _ if mains_began => true,
            Some(ContainerState::Running { .. }) => false,
            _ => {
                self.container(init, plan);
                false
            }
        }
    }

    /// Plans the next step of one container.
    fn container(&self, container: &Container, plan: &mut Plan) {
        let Some(step) = self.next(container) else { return };
        match step {
            Next::Wait(at) => plan.wake(at),
            Next::Discard(id) => plan.actions.push(Action::Remove { id }),
            Next::Replace(stop) => plan.actions.push(Action::Stop(stop)),
            Next::Start { attempt, level } => {
                match self.situation.troubles.get(&container.name).filter(|trouble| trouble.retry_at > self.situation.now) {
                    Some(trouble) => plan.wake(trouble.retry_at),
                    None => plan.actions.push(Action::Start {
                        container: container.name.clone(),
                        attempt,
                        level,
                        sandbox: self.sandbox.map(str::to_owned),
                    }),
                }
            }
        }
    }

    fn next(&self, container: &Container) -> Option<Next> {
        let policy = self.desired.pod.policy_of(container);
        let Some(current) = self.situation.seen.current(&container.name) else {
            // Its name is free when it has left, and the engine tells.
            if self.situation.seen.leaving().iter().any(|one| one.name == container.name) {
                return None;
            }
            if !self.desired.pod.is_init(container) && self.has_ended(container) {
                return None;
            }
            let attempt = self.desired.previous.and_then(|p| p.restarts(&container.name)).map_or(0, |before| before.saturating_add(1));
            return Some(Next::Start { attempt, level: 0 });
        };
        let id = &current.container.id;
        let pod = self.desired.pod;
        let another = |level| Some(Next::Start { attempt: current.attempt.saturating_add(1), level });
        let comes_back = |code| current.is_replaced || policy.starts_again(code);
        match &current.container.state {
            // Neither is ever the current one.
            ContainerState::Removing | ContainerState::Dead => None,
            ContainerState::Created => Some(Next::Discard(id.clone())),
            ContainerState::Running { .. } if is_outdated(container, current) => {
                let stop = stop_one(pod, current, None, format!("Container {} definition changed", container.name));
                Some(Next::Replace(Stop { is_replacement: true, ..stop }))
            }
            ContainerState::Running { .. } => {
                let (why, grace_secs) = self.situation.healths.get(id)?.failed.clone()?;
                let stop = stop_one(pod, current, grace_secs, why);
                Some(Next::Replace(Stop { is_replacement: policy != RestartPolicy::Never, ..stop }))
            }
            // In another sandbox the pod begins anew, and with it what prepares it.
            ContainerState::Exited(_) if current.sandbox() != self.sandbox && pod.is_init(container) => another(0),
            ContainerState::Exited(exit) if !comes_back(exit.code) => None,
            ContainerState::Exited(_) if current.sandbox() != self.sandbox || is_outdated(container, current) => another(0),
            ContainerState::Exited(exit) => {
                let (level, at) = current.next_start()?;
                // A clock that was set back would make the pause as long as the step: then it starts at once.
                if at > self.situation.now && exit.finished_at <= self.situation.now { Some(Next::Wait(at)) } else { another(level) }
            }
        }
    }
}

fn is_outdated(container: &Container, current: &Seen) -> bool {
    current.container.labels.get(label::HASH).is_some_and(|hash| *hash != container.hash())
}
