//! One pod's work with the engine: look, plan, act, look again, until nothing is left to do.
//!
//! A pass runs in a task of its own beside the actor, at most one for a pod; it tells what it saw by message. It holds
//! nothing that matters: whatever it did until it is cut short is found by labels at the next look.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actor::{Fence, Handle, MsgId, chain};
use futures_util::future::join_all;
use jiff::Timestamp;
use model::Clock;
use tokio::sync::Semaphore;

use super::container::spec_of;
use super::env::{self, EnvError};
use super::message::EdgedMessage;
use super::objects::{LookupError, Objects};
use super::observed::{BACKOFF_FIRST, Observed, Trouble, Troubles};
use super::page::Snapshot;
use super::plan::{self, Action, plan};
use super::pod::{Pod, PullPolicy, Refusal};
use super::runtime::{ContainerRuntime, RuntimeError, label};
use super::status::PodStatus;
use super::volume::{self, VolumeError};

/// Looks of one pass; a pod that needs more gets another pass.
const LOOKS_MAX: usize = 4 * super::pod::CONTAINERS_MAX;
/// Pause after the engine failed a stop or a removal (KubeEdge: 2 s).
const RETRY: Duration = Duration::from_secs(2);
/// Reasons that are found anew in each pass.
const CONFIG_REASONS: [&str; 2] = [CREATING, "CreateContainerConfigError"];
/// Waiting for a volume or an image.
pub const CREATING: &str = "ContainerCreating";

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
}

/// What all passes share.
pub struct Shared {
    /// The engine.
    pub runtime: Arc<dyn ContainerRuntime>,
    /// Edged's mailbox.
    pub edged: Handle<EdgedMessage>,
    /// Value of the node label.
    pub node: String,
    /// Address of the machine.
    pub host_ip: String,
    /// Where the directories of the pods are.
    pub pods: PathBuf,
    /// The present.
    pub clock: Arc<dyn Clock>,
    /// Short calls that may be open at the engine at once.
    pub calls: Semaphore,
    /// Pulls that may run at once.
    pub pulls: Semaphore,
    /// What the module knows, for the page and for its next incarnation.
    pub page: Mutex<Snapshot>,
}

impl Shared {
    /// The present.
    pub fn now(&self) -> Timestamp {
        Timestamp::from_millisecond(self.clock.now().millis()).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    async fn call<T>(&self, answer: impl Future<Output = Result<T, RuntimeError>>) -> Result<T, RuntimeError> {
        // The semaphore is never closed; without it the call would still be right.
        let _permit = self.calls.acquire().await;
        answer.await
    }
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
    /// Set in the last message of a pass.
    pub end: Option<End>,
}

/// How a pass ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct End {
    /// Look again then, if nothing happens before.
    pub wake_at: Option<Timestamp>,
    /// Images to be pulled, by container.
    pub images: BTreeMap<String, String>,
    /// Objects that are missing: `(is it a Secret, name)`.
    pub objects: BTreeSet<(bool, String)>,
    /// Containers that used up what was pulled for them.
    pub started: BTreeSet<String>,
    /// Nothing of the pod is left.
    pub is_gone: bool,
    /// The engine's failure that ended the pass early.
    pub failure: Option<RuntimeError>,
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

    async fn tell(&self, seen: Option<Observed>, end: Option<End>) {
        let passed = Passed { uid: self.uid.clone(), seen, troubles: self.troubles.clone(), end };
        // A closed mailbox: the daemon ends, and the next one looks for itself.
        let _ = self.shared.edged.send(EdgedMessage::Passed(Box::new(passed))).await;
    }

    async fn work(&mut self, last: &mut Option<Observed>, end: &mut End) -> Result<(), RuntimeError> {
        self.troubles.retain(|_, trouble| !CONFIG_REASONS.contains(&trouble.reason.as_str()));
        let mut seen = self.look().await?;
        *last = Some(seen.clone());
        self.prepare_volumes(&seen, end).await;
        for _ in 0..LOOKS_MAX {
            let next = self.plan(&seen);
            end.wake_at = next.wake_at;
            if next.actions.is_empty() {
                return Ok(());
            }
            for action in next.actions {
                if self.fence.as_ref().is_some_and(|fence| !fence.holds()) {
                    return Ok(());
                }
                match action {
                    Action::Stop { ids, grace_secs } => self.stop(&ids, Duration::from_secs(grace_secs)).await?,
                    Action::Remove { id } => self.shared.call(self.shared.runtime.remove(&id)).await?,
                    Action::Start { container, attempt, level, join } => self.start(&container, attempt, level, join, end).await?,
                    Action::RemoveDirectory => {
                        self.remove_directory().await;
                        end.is_gone = true;
                        *last = Some(Observed::default());
                        return Ok(());
                    }
                }
            }
            seen = self.look().await?;
            if last.as_ref() != Some(&seen) {
                *last = Some(seen.clone());
                // At once: a person waits for Running.
                self.tell(last.clone(), None).await;
            }
        }
        Ok(())
    }

    fn plan(&self, seen: &Observed) -> plan::Plan {
        let desired = self.desired.as_ref().map(|desired| {
            let is_over = desired.refusal.is_some() || desired.pod.is_over() || self.previous.as_ref().is_some_and(PodStatus::is_over);
            plan::Desired { pod: &desired.pod, is_over, previous: self.previous.as_ref() }
        });
        plan(desired, seen, &self.troubles, self.shared.now())
    }

    async fn look(&self) -> Result<Observed, RuntimeError> {
        let shared = &self.shared;
        let listed = shared.call(shared.runtime.list(&[(label::NODE, &shared.node), (label::POD_UID, &self.uid)])).await?;
        let found = join_all(listed.iter().map(|one| shared.call(shared.runtime.inspect(&one.id)))).await;
        Ok(Observed::new(found.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().flatten()))
    }

    /// A pod that shall run, and may.
    fn runnable(&self) -> Option<&Desired> {
        let is_over = self.previous.as_ref().is_some_and(PodStatus::is_over);
        self.desired.as_ref().filter(|desired| desired.refusal.is_none() && !desired.pod.is_deleting() && !desired.pod.is_over() && !is_over)
    }

    async fn prepare_volumes(&mut self, seen: &Observed, end: &mut End) {
        let Some(Desired { pod, objects, .. }) = self.runnable().cloned() else { return };
        let pods = self.shared.pods.clone();
        let prepared = {
            let pod = pod.clone();
            tokio::task::spawn_blocking(move || volume::prepare(&pods, &pod, &objects)).await
        };
        let message = match prepared {
            Ok(Ok(())) => return,
            Ok(Err(error)) => {
                if let VolumeError::Object(LookupError::Missing { kind, name }) = &error {
                    end.objects.insert((*kind == "secret", name.clone()));
                }
                chain(&error)
            }
            Err(error) => format!("the volumes were not made: {error}"),
        };
        log::warn!(pod = pod.full_name().as_str(), reason = message.as_str(); "volumes of a pod cannot be made");
        for container in &pod.spec.containers {
            if !seen.current(&container.name).is_some_and(super::observed::Seen::is_running) {
                self.troubles.insert(container.name.clone(), self.pause(CREATING, message.clone()));
            }
        }
    }

    /// Trouble that is looked at again soon, and at once when the missing thing comes.
    fn pause(&self, reason: &str, message: String) -> Trouble {
        Trouble { reason: reason.into(), message, failures: 0, retry_at: self.shared.now().saturating_add(BACKOFF_FIRST).unwrap_or(Timestamp::MAX) }
    }

    fn fails(&mut self, container: &str, reason: &str, message: String) {
        log::warn!(uid = self.uid.as_str(), container = container, reason = reason, message = message.as_str(); "container cannot be started");
        let trouble = Trouble::after(self.troubles.get(container), reason, message, self.shared.now());
        self.troubles.insert(container.to_owned(), trouble);
    }

    async fn stop(&self, ids: &[String], grace: Duration) -> Result<(), RuntimeError> {
        let stopped = join_all(ids.iter().map(|id| self.shared.runtime.stop(id, grace))).await;
        stopped.into_iter().collect()
    }

    async fn remove_directory(&self) {
        let (pods, uid) = (self.shared.pods.clone(), self.uid.clone());
        let removed = tokio::task::spawn_blocking(move || volume::remove(&pods, &uid)).await;
        if let Ok(Err(error)) = removed {
            // Found again by the next comparison, which lists the directories too.
            log::warn!(uid = self.uid.as_str(), error = chain(&error).as_str(); "directory of a pod cannot be removed");
        }
    }

    /// Starts a container. Only an engine that does not answer is an error; all else becomes trouble of this container.
    async fn start(&mut self, name: &str, attempt: u32, level: u32, join: Option<String>, end: &mut End) -> Result<(), RuntimeError> {
        let Some(Desired { pod, objects, .. }) = self.desired.clone() else { return Ok(()) };
        let Some(container) = pod.spec.containers.iter().find(|one| one.name == name) else { return Ok(()) };
        let shared = self.shared.clone();
        let policy = container.pull_policy();
        let is_asked = policy == PullPolicy::Always && !self.fresh.contains(name);
        if is_asked || !shared.call(shared.runtime.has_image(&container.image)).await? {
            if policy == PullPolicy::Never {
                let message = format!("Container image \"{}\" is not present with pull policy of Never", container.image);
                self.fails(name, "ErrImageNeverPull", message);
            } else {
                end.images.insert(name.to_owned(), container.image.clone());
                let waits = Trouble { retry_at: Timestamp::MAX, ..self.pause(CREATING, format!("pulling image \"{}\"", container.image)) };
                // While it is tried again, the last failure is what a person wants to see.
                let earlier = self.troubles.remove(name).filter(|trouble| trouble.reason == "ErrImagePull");
                self.troubles.insert(name.to_owned(), earlier.map_or(waits, |trouble| Trouble { retry_at: Timestamp::MAX, ..trouble }));
            }
            return Ok(());
        }
        let process = match env::process(&pod, container, &shared.host_ip, &objects) {
            Ok(process) => process,
            Err(error) => {
                if let EnvError::Object(LookupError::Missing { kind, name }) = &error {
                    end.objects.insert((*kind == "secret", name.clone()));
                }
                self.troubles.insert(name.to_owned(), self.pause("CreateContainerConfigError", error.to_string()));
                return Ok(());
            }
        };
        let mut spec = spec_of(&pod, container, &shared.pods, join);
        (spec.env, spec.command, spec.args) = (process.env, process.command, process.args);
        spec.name = format!("k8s_{name}_{}_{}_{}_{attempt}", pod.metadata.name, pod.metadata.namespace, self.uid);
        spec.labels.extend(
            [(label::NODE, shared.node.clone()), (label::RESTARTS, attempt.to_string()), (label::LEVEL, level.to_string())]
                .map(|(k, v)| (k.to_owned(), v)),
        );
        let id = match shared.call(shared.runtime.create(&spec)).await {
            Ok(id) => id,
            Err(error @ (RuntimeError::Unreachable { .. } | RuntimeError::TimedOut { .. })) => return Err(error),
            Err(error) => {
                self.fails(name, "CreateContainerError", error.to_string());
                return Ok(());
            }
        };
        match shared.call(shared.runtime.start(&id)).await {
            Ok(()) => {
                self.troubles.remove(name);
                self.fresh.remove(name);
                end.started.insert(name.to_owned());
                log::info!(pod = pod.full_name().as_str(), container = name, restarts = attempt; "container started");
                if let Some(id) = self.cause {
                    log::debug!(id:% = id, pod = pod.full_name().as_str(), container = name; "container follows from a message of the cloud");
                }
                Ok(())
            }
            Err(error @ (RuntimeError::Unreachable { .. } | RuntimeError::TimedOut { .. })) => Err(error),
            Err(error) => {
                self.fails(name, "RunContainerError", error.to_string());
                // It never ran: the next try takes its name and number.
                shared.call(shared.runtime.remove(&id)).await
            }
        }
    }
}
