//! Hooks, and the end of containers and of a pod's files.

use std::time::Duration;

use actor::chain;
use futures_util::future::join_all;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::super::observed::Observed;
use super::super::plan::Stop;
use super::super::pod::{Container, Handler, Pod};
use super::super::probe::{Target, run_hook};
use super::super::runtime::{RuntimeError, label};
use super::super::volume;
use super::{Note, Pass};

/// Longest time that a hook after the start may take.
const POST_START_LIMIT: Duration = Duration::from_secs(600);
/// What is left of a grace at least for the stop signal after a hook has used it up (the kubelet's value).
const GRACE_MIN: Duration = Duration::from_secs(2);

/// Waits for this, unless the pod has to end sooner than the pass knows.
async fn unless<T>(interrupt: &Notify, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        done = work => Some(done),
        () = interrupt.notified() => None,
    }
}

impl Pass {
    /// Ends containers: their hooks, the stop signal, the kill.
    pub(super) async fn stop(&mut self, stop: &Stop) -> Result<(), RuntimeError> {
        let grace = Duration::from_secs(stop.grace_secs);
        let until = Instant::now() + grace;
        for (_, name) in stop.together.iter().chain(&stop.afterwards) {
            let why = stop.reason.as_ref().map_or_else(|| format!("Stopping container {name}"), |why| why.clone());
            self.note(false, "Killing", Some(name), why);
        }
        // Now, not afterwards: with the status that follows the API may lose the pod, and nobody could say whose event it was.
        self.tell(None, None).await;
        let interrupt = self.interrupt.clone();
        let all = async {
            let mut results = join_all(stop.together.iter().map(|one| self.stop_one(one, grace, until))).await;
            for one in &stop.afterwards {
                results.push(self.stop_one(one, grace, until).await);
            }
            results
        };
        // What has begun goes on at the engine, and the next pass asks it for less patience.
        let Some(results) = unless(&interrupt, all).await else { return self.interrupted() };
        let mut failure = Ok(());
        for result in results {
            match result {
                Ok(note) => self.notes.extend(note),
                Err(error) => failure = Err(error),
            }
        }
        failure
    }

    async fn stop_one(&self, (id, name): &(String, String), grace: Duration, until: Instant) -> Result<Option<Note>, RuntimeError> {
        let mut note = None;
        let hooked = self.desired.as_ref().and_then(|desired| {
            let container = desired.pod.container(name)?;
            Some((desired.pod.clone(), container.clone(), container.lifecycle.pre_stop.clone()?))
        });
        if let Some((pod, container, hook)) = hooked.filter(|_| !grace.is_zero()) {
            let left = until.saturating_duration_since(Instant::now());
            if let Err(why) = self.hook(&hook, &pod, &container, id, left).await {
                let message = format!("PreStopHook failed: {why}");
                note = Some(Note { is_warning: true, reason: "FailedPreStopHook", message, container: Some(name.clone()) });
            }
        }
        let left = until.saturating_duration_since(Instant::now()).max(GRACE_MIN.min(grace));
        self.shared.runtime.stop(id, left).await.map(|()| note)
    }

    /// The hook after the start; a container whose hook fails is ended.
    pub(super) async fn after_start(&mut self, pod: &Pod, container: &Container, id: &str) -> Result<(), RuntimeError> {
        let name = &container.name;
        let Some(hook) = &container.lifecycle.post_start else {
            self.troubles.remove(name);
            return Ok(());
        };
        let interrupt = self.interrupt.clone();
        match unless(&interrupt, self.hook(hook, pod, container, id, POST_START_LIMIT)).await {
            Some(Ok(())) => {
                self.troubles.remove(name);
                Ok(())
            }
            Some(Err(why)) => {
                let message = format!("PostStartHook failed: {why}");
                self.note(true, "FailedPostStartHook", Some(name), message.clone());
                self.fails(name, "PostStartHookError", message);
                match unless(&interrupt, self.shared.runtime.stop(id, Duration::from_secs(pod.grace_secs()))).await {
                    Some(stopped) => stopped,
                    None => self.interrupted(),
                }
            }
            None => self.interrupted(),
        }
    }

    fn interrupted(&mut self) -> Result<(), RuntimeError> {
        self.is_interrupted = true;
        Ok(())
    }

    async fn hook(&self, hook: &Handler, pod: &Pod, container: &Container, id: &str, limit: Duration) -> Result<(), String> {
        let pod_ip = if pod.spec.host_network { self.shared.home_ip() } else { self.pod_ip.clone() };
        let target = Target { pod_ip, container_id: id.to_owned(), runtime: self.shared.runtime.clone() };
        run_hook(hook, container, &target, limit).await.map_err(|error| chain(&error))
    }

    /// Everything of the pod on the disk and at the engine that is no container.
    pub(super) async fn remove_files(&self) -> Result<(), RuntimeError> {
        let shared = &self.shared;
        let labels = [(label::NODE, shared.node.as_str()), (label::POD_UID, self.uid.as_str())];
        for name in shared.call(shared.runtime.volumes(&labels)).await? {
            shared.call(shared.runtime.remove_volume(&name)).await?;
        }
        let (pods, uid) = (shared.pods.clone(), self.uid.clone());
        let removed = tokio::task::spawn_blocking(move || volume::remove(&pods, &uid)).await;
        if let Ok(Err(error)) = removed {
            // Found again by the next comparison, which lists the directories too.
            log::warn!(uid = self.uid.as_str(), error = chain(&error).as_str(); "directory of a pod cannot be removed");
        }
        Ok(())
    }

    /// What a pod that is over took of the disk: its object may stay for long, and one that was ended for a full disk has to
    /// free it (the kubelet's rule). Another incarnation may start again what this one takes to be over.
    pub(super) async fn remove_empty_dirs(&self, seen: &Observed) {
        if !self.is_over() || seen.any_running() || self.fence.as_ref().is_some_and(|fence| !fence.holds()) {
            return;
        }
        let (pods, uid) = (self.shared.pods.clone(), self.uid.clone());
        let removed = tokio::task::spawn_blocking(move || volume::remove_empty_dirs(&pods, &uid)).await;
        if let Ok(Err(error)) = removed {
            // Tried again by the next pass, and by the end of the object.
            log::warn!(uid = self.uid.as_str(), error = chain(&error).as_str(); "emptyDirs of a pod cannot be removed");
        }
    }
}
