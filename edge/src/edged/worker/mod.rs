//! One pod's work with the engine: look, plan, act, look again, until nothing is left to do.
//!
//! A pass runs in a task of its own beside the actor, at most one for a pod; it tells what it saw by message. It holds
//! nothing that matters: whatever it did until it is cut short is found by labels at the next look.
//!
//! | file | duty |
//! |---|---|
//! | `make` | create and start |
//! | `sandbox` | what the containers of a pod share |
//! | `start` | one container: image, environment, volumes, rights, start, hook |
//! | `stop` | hooks, signals, grace; the end of a pod's files |

mod make;
mod sandbox;
mod start;
mod stop;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use actor::{Fence, MsgId, chain};
use futures_util::StreamExt;
use futures_util::future::join_all;
use jiff::Timestamp;
use tokio::sync::Notify;

use super::env;
use super::message::EdgedMessage;
use super::objects::{LookupError, Objects};
use super::observed::{BACKOFF_FIRST, Healths, Observed, Seen, Trouble, Troubles};
use super::plan::{self, Action, Situation, plan};
use super::pod::{Pod, Refusal};
use super::runtime::{ContainerState, Image, LogQuery, Login, RuntimeError, label};
use super::shared::Shared;
use super::status::{Facts, PodStatus, pod_status};
use super::volume::{self, Failed, VolumeError};

/// Looks of one pass; a pod that needs more gets another pass.
const LOOKS_MAX: usize = 4 * super::pod::CONTAINERS_MAX;
/// Pause after the engine failed a stop or a removal (KubeEdge: 2 s).
const RETRY: Duration = Duration::from_secs(2);
/// What is shown of a log in the place of last words (the kubelet's values).
const LOG_LINES: u64 = 80;
/// The same in bytes.
const LOG_BYTES: usize = 2048;
/// How long reading it may take.
const LOG_LIMIT: Duration = Duration::from_secs(5);
/// Reasons that are found anew in each pass.
const CONFIG_REASONS: [&str; 2] = [CREATING, "CreateContainerConfigError"];
/// Waiting for a volume or an image.
pub const CREATING: &str = "ContainerCreating";
/// A volume that failed.
const FAILED_MOUNT: &str = "FailedMount";

/// A pod that shall exist.
#[derive(Clone, Debug)]
pub struct Desired {
    /// The object.
    pub pod: Arc<Pod>,
    /// What it reads.
    pub objects: Arc<Objects>,
    /// Why it does not run here.
    pub refusal: Option<Refusal>,
}

/// What a pass needs to know.
pub struct Pass {
    /// The pod.
    pub uid: String,
    /// `None`: everything of it shall go.
    pub desired: Option<Desired>,
    /// What went wrong before.
    pub troubles: Troubles,
    /// What the probes said.
    pub healths: Healths,
    /// Containers for which the registry was just asked (policy `Always`).
    pub fresh: BTreeSet<String>,
    /// Last reported.
    pub previous: Option<PodStatus>,
    /// The cloud's message that it follows from, where that is known.
    pub cause: Option<MsgId>,
    /// What does not change from pass to pass.
    pub shared: Arc<Shared>,
    /// Holds as long as the actor that began the pass.
    pub fence: Option<Fence>,
    /// What happened and was not told yet.
    pub notes: Vec<Note>,
    /// The grace with which a pod ends that the node ends, in seconds; `None` is its own.
    pub grace_secs: Option<u64>,
    /// The pod's address as it was seen last; empty before.
    pub pod_ip: String,
    /// Images that were asked for while the sandbox was made, by reference.
    pub images: BTreeMap<String, Image>,
    /// Engine's ids of containers that were stopped so that others take their place.
    pub replaced: BTreeSet<String>,
    /// Told when the pod has to end sooner than this pass knows: then it waits for no hook and no grace any more.
    pub interrupt: Arc<Notify>,
    /// It was.
    pub is_interrupted: bool,
}

/// Something that a person may want to know of: becomes an event of the pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Something is wrong.
    pub is_warning: bool,
    /// One word, the kubelet's.
    pub reason: &'static str,
    /// For a person.
    pub message: String,
    /// Which container; `None` is the pod.
    pub container: Option<String>,
}

/// What a pass saw and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// The pod.
    pub uid: String,
    /// What is there; `None` if the engine did not say.
    pub seen: Option<Observed>,
    /// What went wrong.
    pub troubles: Troubles,
    /// What happened since the last message of the pass.
    pub notes: Vec<Note>,
    /// Set in the last message of a pass.
    pub end: Option<End>,
}

/// An image that is to be fetched, and who asks for it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pull {
    /// Reference.
    pub image: String,
    /// Tried one after the other; without any, nobody in particular asks.
    pub logins: Vec<Login>,
}

/// How a pass ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct End {
    /// Look again then, if nothing happens before.
    pub wake_at: Option<Timestamp>,
    /// Images to be pulled, by container.
    pub images: BTreeMap<String, Pull>,
    /// Objects that are missing: `(is it a Secret, name)`.
    pub objects: BTreeSet<(bool, String)>,
    /// Containers that used up what was pulled for them.
    pub started: BTreeSet<String>,
    /// Nothing of the pod is left.
    pub is_gone: bool,
    /// The engine's failure that ended the pass early.
    pub failure: Option<RuntimeError>,
}

/// An engine that is not there, or does not answer: nothing is known of what was asked.
fn is_lost(error: &RuntimeError) -> bool {
    matches!(error, RuntimeError::Unreachable { .. } | RuntimeError::TimedOut { .. })
}

/// Under which name its trouble is kept: no container has one with a space.
fn volume_key(volume: &str) -> String {
    format!("volume {volume}")
}

impl Pass {
    /// Does what is to be done and tells about it; the last message has an end.
    pub async fn run(mut self) {
        let mut end = End::default();
        let mut seen = None;
        if let Err(failure) = self.work(&mut seen, &mut end).await {
            // An engine that is away tells when it is back; everything else is tried again soon.
            if !matches!(failure, RuntimeError::Unreachable { .. }) {
                log::warn!(uid = self.uid.as_str(), reason = failure.to_string().as_str(); "a look at a pod was cut short");
                end.wake_at = self.shared.now().saturating_add(RETRY).ok();
            }
            end.failure = Some(failure);
        }
        self.tell(seen, Some(end)).await;
    }

    async fn tell(&mut self, mut seen: Option<Observed>, end: Option<End>) {
        let notes = std::mem::take(&mut self.notes);
        if let Some(seen) = &mut seen {
            self.mark(seen);
        }
        let passed = Passed { uid: self.uid.clone(), seen, troubles: self.troubles.clone(), notes, end };
        // A closed mailbox: the daemon ends, and the next one looks for itself.
        let _ = self.shared.edged.send(EdgedMessage::Passed(Box::new(passed))).await;
    }

    async fn work(&mut self, last: &mut Option<Observed>, end: &mut End) -> Result<(), RuntimeError> {
        self.troubles.retain(|_, trouble| !CONFIG_REASONS.contains(&trouble.reason.as_str()));
        let mut seen = self.look().await?;
        *last = Some(seen.clone());
        // Before anything follows from it: somebody may remove what has ended while this pass is at work.
        if self.remember_ends(&seen) {
            self.tell(last.clone(), None).await;
        }
        let volumes_at = self.prepare_volumes(&seen, end).await;
        for _ in 0..LOOKS_MAX {
            let next = self.plan(&seen);
            end.wake_at = next.wake_at.into_iter().chain(volumes_at).min();
            if next.actions.is_empty() {
                self.remove_empty_dirs(&seen).await;
                return Ok(());
            }
            // After a sandbox nothing else is new, and a person waits for what comes in it.
            let mut only_new = None;
            let is_single = next.actions.len() == 1;
            for action in next.actions {
                if self.fence.as_ref().is_some_and(|fence| !fence.holds()) {
                    return Ok(());
                }
                match action {
                    Action::Stop(mut stop) => {
                        if let (None, Some(grace_secs)) = (&self.desired, self.grace_secs) {
                            stop.grace_secs = stop.grace_secs.min(grace_secs);
                        }
                        if stop.is_replacement {
                            self.replaced.extend(stop.together.iter().chain(&stop.afterwards).map(|(id, _)| id.clone()));
                        }
                        self.stop(&stop).await?;
                    }
                    Action::Remove { id } => self.shared.call(self.shared.runtime.remove(&id)).await?,
                    Action::StartSandbox { attempt } => only_new = self.start_sandbox(attempt).await?.filter(|_| is_single),
                    Action::Start { container, attempt, level, sandbox } => {
                        let number = start::Number { attempt, level };
                        self.start(&container, number, sandbox.as_deref(), &seen, end).await?;
                    }
                    Action::RemoveDirectory => {
                        self.remove_files().await?;
                        end.is_gone = true;
                        *last = Some(Observed::default());
                        return Ok(());
                    }
                }
                // The next pass knows why, and what was begun before is there.
                if self.is_interrupted {
                    *last = Some(self.look().await?);
                    return Ok(());
                }
            }
            seen = match only_new {
                Some(id) => self.look_at(&seen, &id).await?,
                None => self.look().await?,
            };
            if last.as_ref() != Some(&seen) {
                *last = Some(seen.clone());
                self.remember_ends(&seen);
                // At once: a person waits for Running.
                self.tell(last.clone(), None).await;
            }
        }
        Ok(())
    }

    /// Takes in what has ended for good, so that the next look's plan knows it. Whether anything has since the last one.
    fn remember_ends(&mut self, seen: &Observed) -> bool {
        let Some(Desired { pod, refusal: None, .. }) = self.desired.as_ref().filter(|desired| !desired.pod.is_deleting()) else { return false };
        let (previous, host_ip) = (self.previous.as_ref(), self.shared.host_ip());
        let status = pod_status(&Facts {
            pod,
            seen,
            troubles: &self.troubles,
            healths: &self.healths,
            refusal: None,
            previous,
            host_ip: &host_ip,
            now: self.shared.now(),
        });
        let has_ended = |status: &PodStatus, name: &str| status.is_over() || status.has_ended(name, pod.spec.restart_policy);
        let is_new = |name: &str| has_ended(&status, name) && !previous.is_some_and(|previous| has_ended(previous, name));
        let any_new = pod.spec.containers.iter().any(|one| is_new(&one.name));
        if any_new {
            self.previous = Some(status);
        }
        any_new
    }

    /// Whether the pod has an object and runs no more: refused, ended by the node, or at its end.
    fn is_over(&self) -> bool {
        let is_final = |desired: &Desired| desired.refusal.is_some() || desired.pod.is_over();
        self.desired.as_ref().is_some_and(|desired| is_final(desired) || self.previous.as_ref().is_some_and(PodStatus::is_over))
    }

    fn plan(&self, seen: &Observed) -> plan::Plan {
        let (is_over, previous) = (self.is_over(), self.previous.as_ref());
        let desired = self.desired.as_ref().map(|one| plan::Desired { pod: &one.pod, is_over, previous, grace_secs: self.grace_secs });
        let ended_kept = self.shared.housekeeping.ended_kept;
        plan(desired, &Situation { seen, troubles: &self.troubles, healths: &self.healths, ended_kept, now: self.shared.now() })
    }

    async fn look(&mut self) -> Result<Observed, RuntimeError> {
        let shared = &self.shared;
        let listed = shared.call(shared.runtime.list(&[(label::NODE, &shared.node), (label::POD_UID, &self.uid)])).await?;
        let found = join_all(listed.iter().map(|one| shared.call(shared.runtime.inspect(&one.id)))).await;
        let mut seen = Observed::new(found.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().flatten());
        if let Some(ip) = seen.ip() {
            self.pod_ip = ip.to_owned();
        }
        // Of older ones nothing is reported, and reading a log takes its time.
        let is_reported = |one: &Seen| seen.of(&one.name).take(2).any(|other| other.container.id == one.container.id);
        let reported: Vec<bool> = seen.all().iter().map(is_reported).collect();
        for (one, _) in seen.all_mut().iter_mut().zip(reported).filter(|(_, reported)| *reported) {
            one.words = self.words(one).await;
        }
        self.mark(&mut seen);
        Ok(seen)
    }

    /// Which of them were stopped for others only this program knows.
    fn mark(&self, seen: &mut Observed) {
        for one in seen.all_mut() {
            one.is_replaced = self.replaced.contains(&one.container.id);
        }
    }

    /// What is there, after this one was made and nothing else was done.
    async fn look_at(&mut self, seen: &Observed, id: &str) -> Result<Observed, RuntimeError> {
        match self.shared.call(self.shared.runtime.inspect(id)).await? {
            Some(found) => {
                self.pod_ip = found.ip.clone().unwrap_or_default();
                Ok(seen.with(found))
            }
            None => self.look().await,
        }
    }

    /// What an ended container left: its file, else the end of its log where it asked for that. What was read once is kept.
    async fn words(&self, one: &Seen) -> String {
        let ContainerState::Exited(exit) = &one.container.state else { return String::new() };
        let reported = self.previous.as_ref().and_then(|previous| previous.container(&one.name));
        let states = reported.into_iter().flat_map(|status| [&status.state, &status.last_state]).filter_map(|state| state.terminated.as_ref());
        if let Some(known) = states.into_iter().find(|end| end.container_id.ends_with(&one.container.id)) {
            return known.message.clone();
        }
        let (pods, uid, name, attempt) = (self.shared.pods.clone(), self.uid.clone(), one.name.clone(), one.attempt);
        let read = tokio::task::spawn_blocking(move || volume::read_termination_file(&pods, &uid, &name, attempt)).await;
        if let Ok(Some(words)) = read {
            return words;
        }
        let asks = one.container.labels.get(label::MESSAGE_POLICY).is_some_and(|policy| policy == "FallbackToLogsOnError");
        if asks && exit.code != 0 { self.last_lines(&one.container.id).await } else { String::new() }
    }

    /// The end of a container's log.
    async fn last_lines(&self, id: &str) -> String {
        let query = LogQuery { tail: Some(LOG_LINES), ..LogQuery::default() };
        let mut lines = self.shared.runtime.logs(id, &query);
        let mut bytes = Vec::new();
        let read = async {
            while let Some(Ok(chunk)) = lines.next().await {
                bytes.extend(chunk);
                let surplus = bytes.len().saturating_sub(LOG_BYTES);
                bytes.drain(..surplus);
            }
        };
        // A log that does not end is as good as what came of it.
        let _ = tokio::time::timeout(LOG_LIMIT, read).await;
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// A pod that shall run, and may.
    fn runnable(&self) -> Option<&Desired> {
        self.desired.as_ref().filter(|desired| !desired.pod.is_deleting() && !self.is_over())
    }

    /// Makes the pod's volumes, or brings them up to date. One that was never made keeps every container from its start; one
    /// that has its old files keeps none. Gives when those that failed are to be tried again.
    async fn prepare_volumes(&mut self, seen: &Observed, end: &mut End) -> Option<Timestamp> {
        let Desired { pod, objects, .. } = self.runnable().cloned()?;
        // The machine's size among them: it stands for limits that a container has not set.
        let (pods, facts) = (self.shared.pods.clone(), self.facts(&pod, seen));
        let prepared = {
            let pod = pod.clone();
            tokio::task::spawn_blocking(move || volume::prepare(&pods, &pod, &facts, &objects)).await
        };
        let failed = match prepared {
            Ok(failed) => failed,
            Err(error) => {
                let message = format!("the volumes were not made: {error}");
                self.note(true, FAILED_MOUNT, None, message.clone());
                self.hold_back(&pod, seen, &message);
                return None;
            }
        };
        self.troubles.retain(|of, trouble| trouble.reason != FAILED_MOUNT || failed.iter().any(|one| *of == volume_key(&one.volume)));
        for one in &failed {
            if let VolumeError::Object(LookupError::Missing { kind, name }) = &one.error {
                end.objects.insert((*kind == "secret", name.clone()));
            }
            self.volume_failed(&pod, one);
        }
        if let Some(never_made) = failed.iter().find(|one| !one.has_old_files) {
            self.hold_back(&pod, seen, &chain(&never_made.error));
        }
        failed.iter().filter_map(|one| self.troubles.get(&volume_key(&one.volume))).map(|trouble| trouble.retry_at).min()
    }

    /// Tells it when it is new, and each time when it was tried again after a pause that doubles: each look at the pod meets
    /// it, and a pod may only say so much.
    fn volume_failed(&mut self, pod: &Pod, failed: &Failed) {
        let (key, message, now) = (volume_key(&failed.volume), failed.words(), self.shared.now());
        let known = self.troubles.get(&key);
        if known.is_some_and(|known| known.is_known(&message, now)) {
            return;
        }
        log::warn!(pod = pod.full_name().as_str(), has_old_files = failed.has_old_files, reason = message.as_str(); "a volume of a pod cannot be made");
        let trouble = Trouble::after(known, FAILED_MOUNT, message.clone(), now);
        self.troubles.insert(key, trouble);
        self.note(true, FAILED_MOUNT, None, message);
    }

    /// Keeps what does not run from its start, as a kubelet does until it has all volumes.
    fn hold_back(&mut self, pod: &Pod, seen: &Observed, message: &str) {
        self.troubles.insert(label::SANDBOX_NAME.to_owned(), self.pause(CREATING, message.to_owned()));
        for container in pod.all_containers() {
            if !seen.current(&container.name).is_some_and(Seen::is_running) {
                self.troubles.insert(container.name.clone(), self.pause(CREATING, message.to_owned()));
            }
        }
    }

    /// Trouble that is looked at again soon, and at once when the missing thing comes.
    fn pause(&self, reason: &str, message: String) -> Trouble {
        Trouble { reason: reason.into(), message, failures: 0, retry_at: self.shared.now().saturating_add(BACKOFF_FIRST).unwrap_or(Timestamp::MAX) }
    }

    /// Trouble that is tried again after a pause that doubles.
    fn fails(&mut self, container: &str, reason: &str, message: String) {
        log::warn!(uid = self.uid.as_str(), container = container, reason = reason, message = message.as_str(); "container cannot be started");
        let trouble = Trouble::after(self.troubles.get(container), reason, message, self.shared.now());
        self.troubles.insert(container.to_owned(), trouble);
    }

    fn note(&mut self, is_warning: bool, reason: &'static str, container: Option<&str>, message: String) {
        self.notes.push(Note { is_warning, reason, message, container: container.map(str::to_owned) });
    }

    /// What the pod's processes may ask for.
    fn facts(&self, pod: &Pod, seen: &Observed) -> env::Facts {
        let host_ip = self.shared.host_ip();
        let pod_ip = if pod.spec.host_network { host_ip.clone() } else { seen.ip().unwrap_or(&self.pod_ip).to_owned() };
        env::Facts { host_ip, pod_ip, machine: self.shared.capacity }
    }
}
