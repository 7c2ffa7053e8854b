//! What pods take of the machine, and which limits of their own they exceed.

use std::path::PathBuf;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream;

use super::super::pod::{Container, Pod, Refusal, Volume};
use super::super::pressure::{Consumer, EVICTED, Signal, Suspect};
use super::super::quantity;
use super::super::runtime::{Usage, label};
use super::super::shared::Shared;
use super::super::volume;
use super::disk::{self, Taken};
use super::job::QUESTIONS_MAX;

/// Name of the resource, and of its limit.
const STORAGE: &str = "ephemeral-storage";

/// What is known of a pod before it is measured.
#[derive(Clone, Debug)]
pub struct Measured {
    /// The pod.
    pub uid: String,
    /// Its object.
    pub pod: Arc<Pod>,
    /// It does not run any more, or is about to end.
    pub is_over: bool,
    /// Name and id of the containers that run.
    pub running: Vec<(String, String)>,
    /// Ids of ended containers that nobody needs.
    pub ended: Vec<String>,
}

impl Measured {
    /// The running containers of the object: the sandbox is not one.
    fn containers(&self) -> impl Iterator<Item = (&Container, &str)> {
        let running = self.running.iter().filter(|(name, _)| name != label::SANDBOX_NAME);
        running.filter_map(|(name, id)| Some((self.pod.container(name)?, id.as_str())))
    }
}

/// Measures pods.
pub struct Measures<'a> {
    /// Engine and directories.
    pub shared: &'a Arc<Shared>,
    /// Whether images and volumes are on the same disk.
    pub one_disk: bool,
}

impl Measures<'_> {
    /// What each pod that runs takes of what is short.
    pub async fn suspects(&self, signal: Signal, pods: &[Measured]) -> Vec<Suspect> {
        let candidates = pods.iter().filter(|pod| !pod.is_over && !pod.running.is_empty());
        stream::iter(candidates).map(|pod| self.suspect(signal, pod)).buffer_unordered(QUESTIONS_MAX).collect().await
    }

    async fn suspect(&self, signal: Signal, pod: &Measured) -> Suspect {
        let mut suspect = Suspect { uid: pod.uid.clone(), priority: pod.pod.priority(), is_critical: pod.pod.is_critical(), ..Suspect::default() };
        for (container, id) in pod.containers() {
            let (used, request) = match signal {
                Signal::Memory => (self.usage(id).await.memory_working_set, container.memory_request().ok().flatten().unwrap_or(0)),
                Signal::Pids => (self.usage(id).await.pids, 0),
                Signal::Nodefs | Signal::Imagefs => {
                    let is_there = self.one_disk || signal == Signal::Imagefs;
                    let used = if is_there { self.container_bytes(id).await } else { 0 };
                    (used, storage(&container.resources.requests).or(storage(&container.resources.limits)).unwrap_or(0))
                }
                Signal::Inodes => (0, 0),
            };
            suspect.containers.push(Consumer { name: container.name.clone(), used, request });
        }
        suspect.shared = match signal {
            Signal::Nodefs => self.volumes(&pod.pod).await.bytes,
            Signal::Imagefs if self.one_disk => self.volumes(&pod.pod).await.bytes,
            Signal::Inodes => self.volumes(&pod.pod).await.inodes,
            Signal::Memory | Signal::Pids | Signal::Imagefs => 0,
        };
        suspect
    }

    /// A container that does not answer takes nothing: there are others to choose from.
    async fn usage(&self, id: &str) -> Usage {
        self.shared.runtime.usage(id).await.ok().flatten().unwrap_or_default()
    }

    /// Bytes of a container's own files and of its log.
    async fn container_bytes(&self, id: &str) -> u64 {
        let layer = self.shared.runtime.layer_bytes(id).await.ok().flatten().unwrap_or(0);
        let root = self.shared.house().root.clone();
        let log = match root {
            // Docker keeps a container's log, and little else, in a directory of its own.
            Some(root) => self.taken(root.join("containers").join(id), u64::MAX).await.bytes,
            None => 0,
        };
        layer.saturating_add(log)
    }

    /// What the emptyDirs on disk of a pod take.
    async fn volumes(&self, pod: &Pod) -> Taken {
        let mut sum = Taken::default();
        for path in on_disk(pod).filter_map(|one| volume::source(&self.shared.pods, pod, one)) {
            let taken = self.taken(path, u64::MAX).await;
            sum = Taken { bytes: sum.bytes.saturating_add(taken.bytes), inodes: sum.inodes.saturating_add(taken.inodes) };
        }
        sum
    }

    async fn taken(&self, path: PathBuf, enough: u64) -> Taken {
        tokio::task::spawn_blocking(move || disk::taken(&path, enough)).await.unwrap_or_default()
    }

    /// The pods that take more than they may, each with the first limit that it exceeds; critical ones are not ended for that
    /// (the kubelet's rule). One after the other: this is no hurry.
    pub async fn excessive(&self, pods: &[Measured]) -> Vec<(String, Refusal)> {
        let mut found = Vec::new();
        for pod in pods.iter().filter(|pod| !pod.is_over && !pod.pod.is_critical()) {
            if let Some(message) = self.exceeds(pod).await {
                found.push((pod.uid.clone(), Refusal { reason: EVICTED.into(), message }));
            }
        }
        found
    }

    async fn exceeds(&self, pod: &Measured) -> Option<String> {
        for one in on_disk(&pod.pod) {
            let Some(limit) = one.size_limit().ok().flatten() else { continue };
            let Some(path) = volume::source(&self.shared.pods, &pod.pod, one) else { continue };
            if self.taken(path, limit).await.bytes > limit {
                return Some(format!("Usage of EmptyDir volume \"{}\" exceeds the limit \"{}\".", one.name, written(one, limit)));
            }
        }
        let all = storage_limit(&pod.pod)?;
        let mut total = self.volumes(&pod.pod).await.bytes;
        let mut fat = None;
        for (container, id) in pod.containers() {
            let used = self.container_bytes(id).await;
            total = total.saturating_add(used);
            let limit = storage(&container.resources.limits);
            fat = fat.or_else(|| limit.filter(|limit| used > *limit).map(|limit| (container.name.clone(), limit)));
        }
        if total > all {
            return Some(format!("Pod ephemeral local storage usage exceeds the total limit of containers {}.", quantity::binary(all)));
        }
        fat.map(|(name, limit)| format!("Container {name} exceeded its local ephemeral storage limit \"{}\".", quantity::binary(limit)))
    }
}

/// The emptyDirs of a pod that are not in memory.
fn on_disk(pod: &Pod) -> impl Iterator<Item = &Volume> {
    let is_other = |one: &Volume| {
        one.is_api_access()
            || one.host_path.is_some()
            || one.config_map.is_some()
            || one.secret.is_some()
            || one.downward_api.is_some()
            || one.projected.is_some()
    };
    pod.spec.volumes.iter().filter(move |one| !one.is_memory() && !is_other(one))
}

/// The most local storage that a pod as a whole may take: the sum of its containers and sidecars, or what an init container
/// may take together with the sidecars before it, if that is more (Kubernetes' `PodLimits`). `None` without any limit.
pub(super) fn storage_limit(pod: &Pod) -> Option<u64> {
    let limit = |one: &Container| storage(&one.resources.limits);
    pod.all_containers().find_map(limit)?;
    let (mut sidecars, mut most) = (0_u64, 0_u64);
    for init in &pod.spec.init_containers {
        let together = sidecars.saturating_add(limit(init).unwrap_or(0));
        most = most.max(together);
        if init.is_sidecar() {
            sidecars = together;
        }
    }
    Some(pod.spec.containers.iter().filter_map(limit).fold(sidecars, u64::saturating_add).max(most))
}

/// The amount of local storage in a list of resources; the spec's checks have read it before.
fn storage(list: &std::collections::BTreeMap<String, serde_json::Value>) -> Option<u64> {
    list.get(STORAGE).and_then(|value| quantity::units(value).ok()).filter(|bytes| *bytes > 0)
}

/// The limit as it was written.
fn written(volume: &Volume, limit: u64) -> String {
    let text = volume.empty_dir.as_ref().and_then(|dir| dir.size_limit.as_ref()).and_then(serde_json::Value::as_str);
    text.map_or_else(|| quantity::binary(limit), str::to_owned)
}
