//! The sandbox of a pod: its image, its file systems in memory, its start.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;

use super::super::container::{memory_volume, parse_resolv_conf, sandbox};
use super::super::pause;
use super::super::pod::{Pod, Port, PullPolicy};
use super::super::runtime::{Image, Resolver, RuntimeError, label};
use super::super::volume;
use super::make::MakeError;
use super::{Desired, Pass, is_lost};

/// Where the machine's resolver configuration is: with systemd's own resolver in the first place is only its address.
const RESOLV_CONFS: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];
/// Reason of a container that waits for it (the kubelet's).
const FAILED: &str = "CreatePodSandboxError";

impl Pass {
    /// Makes and starts it, and gives its id. Only an engine that does not answer is an error; all else becomes trouble of the
    /// pod.
    pub(super) async fn start_sandbox(&mut self, attempt: u32) -> Result<Option<String>, RuntimeError> {
        let Some(Desired { pod, .. }) = self.desired.clone() else { return Ok(None) };
        let (made, images) = tokio::join!(self.make_sandbox(&pod, attempt), self.find_images(&pod));
        self.images = images;
        match made {
            Ok(id) => {
                self.troubles.remove(label::SANDBOX_NAME);
                Ok(Some(id))
            }
            Err(error) if is_lost(&error) => Err(error),
            Err(error) => {
                let message = explained(&pod, &error.to_string());
                log::warn!(pod = pod.full_name().as_str(), reason = error.to_string().as_str(); "the sandbox of a pod cannot be made");
                self.note(true, "FailedCreatePodSandBox", None, format!("Failed to create pod sandbox: {message}"));
                // Tried again after the same pause each time, as the kubelet does: what was in the way may go at any moment.
                self.troubles.insert(label::SANDBOX_NAME.to_owned(), self.pause(FAILED, message));
                Ok(None)
            }
        }
    }

    /// Those of the pod's images that are here and need no question to a registry.
    async fn find_images(&self, pod: &Pod) -> BTreeMap<String, Image> {
        let wanted: BTreeSet<&str> =
            pod.all_containers().filter(|one| one.pull_policy() != PullPolicy::Always && one.has_reference()).map(|one| one.image.as_str()).collect();
        let find = async |image: &str| {
            let found = self.shared.call(self.shared.runtime.image(image)).await;
            found.ok().flatten().map(|found| (image.to_owned(), found))
        };
        join_all(wanted.into_iter().map(find)).await.into_iter().flatten().collect()
    }

    async fn make_sandbox(&self, pod: &Pod, attempt: u32) -> Result<String, RuntimeError> {
        let shared = self.shared.clone();
        self.have_pause_image().await?;
        let labels = [(label::NODE, shared.node.as_str()), (label::POD_UID, self.uid.as_str())];
        for (name, memory) in volume::memory(pod) {
            shared.call(shared.runtime.create_volume(&memory_volume(&self.uid, &name), memory, &labels)).await?;
        }
        let mut spec = sandbox(pod, pause::image(), attempt, &machine_resolver());
        spec.labels.insert(label::NODE.to_owned(), shared.node.clone());
        let made = match self.make(spec.clone()).await {
            // Somebody removed the image since.
            Err(MakeError::Create(RuntimeError::NotFound(_))) => {
                *shared.pause.lock().await = false;
                self.have_pause_image().await?;
                self.make(spec).await
            }
            other => other,
        };
        match made {
            Ok(id) => Ok(id),
            Err(MakeError::Lost(error) | MakeError::Create(error) | MakeError::Start(error)) => Err(error),
        }
    }

    async fn have_pause_image(&self) -> Result<(), RuntimeError> {
        let shared = &self.shared;
        let mut is_there = shared.pause.lock().await;
        if *is_there {
            return Ok(());
        }
        if shared.call(shared.runtime.image(pause::image())).await?.is_none() {
            let archive = pause::archive().map_err(|error| RuntimeError::Protocol(format!("the sandbox's image cannot be made: {error}")))?;
            log::info!(image = pause::image(); "the engine gets the image of the sandboxes");
            shared.call(shared.runtime.load_image(archive)).await?;
        }
        *is_there = true;
        Ok(())
    }
}

/// The machine's resolver configuration, as a pod can use it.
pub(super) fn machine_resolver() -> Resolver {
    let read = |path: &&str| std::fs::read_to_string(path).map(|text| parse_resolv_conf(&text)).unwrap_or_default();
    let found: Vec<Resolver> = RESOLV_CONFS.iter().map(read).collect();
    found.iter().find(|one| !one.nameservers.is_empty()).or(found.first()).cloned().unwrap_or_default()
}

/// The engine's words. Where they are about a port that is taken just that: they have another number each time, and the same
/// event is counted up.
fn explained(pod: &Pod, words: &str) -> String {
    let is_taken = ["port is already allocated", "address already in use"].iter().any(|known| words.contains(known));
    let ports = || pod.all_containers().flat_map(|one| &one.ports).filter(|port| port.host_port != 0);
    // Docker names it as `0.0.0.0:8080`.
    let named = |port: &&Port| words.split(|c: char| !c.is_ascii_digit()).any(|number| number == port.host_port.to_string());
    match ports().find(named).or(ports().next()).filter(|_| is_taken) {
        Some(port) => format!("hostPort {}/{} of this machine is taken", port.host_port, port.protocol().to_uppercase()),
        None => words.to_owned(),
    }
}
