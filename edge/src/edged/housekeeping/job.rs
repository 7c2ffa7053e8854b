//! What is done beside the actor: listing and removing images, measuring, choosing a pod.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream;

use super::super::message::EdgedMessage;
use super::super::pause::REPOSITORY;
use super::super::pressure::{Pressure, Shortage, Signal, eviction};
use super::super::runtime::{Image, RuntimeError};
use super::super::shared::Shared;
use super::measure::{Measured, Measures};
use super::{Tidied, disk, look};

/// Questions to the engine at once.
pub(super) const QUESTIONS_MAX: usize = 16;

/// One round's work.
pub struct Job {
    pub(super) shared: Arc<Shared>,
    /// What is short.
    pub(super) shortages: Vec<Shortage>,
    /// The engine's disk is fuller than images may make it.
    pub(super) is_full: bool,
    /// List the images.
    pub(super) lists: bool,
    /// Remove images and, for disk pressure, ended containers.
    pub(super) clears: bool,
    /// Measure what has a limit.
    pub(super) measures: bool,
    /// End a pod if something is still short.
    pub(super) evicts: bool,
    /// The pods of this node.
    pub(super) pods: Vec<Measured>,
}

impl Job {
    /// Does it and tells Edged.
    pub(super) async fn run(self) {
        let tidied = self.work().await;
        // A closed mailbox: the daemon ends.
        let _ = self.shared.edged.send(EdgedMessage::Tidied(Box::new(tidied))).await;
    }

    pub(super) async fn work(&self) -> Tidied {
        let mut tidied = Tidied::default();
        let one_disk = self.is_one_disk().await;
        let measures = Measures { shared: &self.shared, one_disk };
        if self.measures {
            tidied.excessive = measures.excessive(&self.pods).await;
        }
        if self.lists {
            match self.images(one_disk).await {
                Ok(images) => tidied.images = Some(images),
                Err(error) => log::info!(reason = error.to_string().as_str(); "images were not looked after"),
            }
        }
        if self.evicts && tidied.excessive.is_empty() {
            let shortages = if self.clears { self.shared.housekeeping.thresholds.crossed(&look(&self.shared).await) } else { self.shortages.clone() };
            if let Some(shortage) = shortages.first() {
                tidied.chosen = eviction(shortage, &measures.suspects(shortage.signal, &self.pods).await);
                if tidied.chosen.is_none() {
                    log::debug!(resource = shortage.signal.resource(); "something is short, and there is no pod that could be ended");
                }
            }
        }
        tidied
    }

    /// Whether images and volumes share a disk. So they do on most machines; where the engine's directory cannot be seen it is
    /// taken to be so.
    async fn is_one_disk(&self) -> bool {
        let (pods, root) = (self.shared.pods.clone(), self.shared.house().root.clone());
        let compare = move || root.is_none_or(|root| disk::is_same(&pods, &root));
        tokio::task::spawn_blocking(compare).await.unwrap_or(true)
    }

    /// Whether the disk with the images is what is short.
    pub(super) fn is_short(&self, one_disk: bool) -> bool {
        self.shortages.iter().any(|one| one.signal == Signal::Imagefs || one_disk && one.signal.pressure() == Pressure::Disk)
    }

    /// Whether images go: not from a disk that has room, and with a threshold of 100 percent never.
    pub(super) fn removes_images(&self, is_short: bool) -> bool {
        self.shared.housekeeping.images_high < 100 && (self.is_full || is_short)
    }

    /// Lists the images, removes what may go, and gives what is left.
    async fn images(&self, one_disk: bool) -> Result<Vec<Image>, RuntimeError> {
        let (shared, now) = (&self.shared, self.shared.now());
        let mut images = shared.runtime.images().await?;
        {
            let mut house = shared.house();
            house.history.listed(&images, now);
            house.images_at = Some(now);
        }
        if self.clears {
            let is_short = self.is_short(one_disk);
            if is_short {
                self.remove_ended().await?;
            }
            if self.removes_images(is_short) {
                let removed = self.remove_images(&images, is_short).await?;
                images.retain(|image| !removed.contains(&image.id));
            }
        }
        shared.house().images.clone_from(&images);
        Ok(images)
    }

    /// Removes the containers of pods that are over.
    async fn remove_ended(&self) -> Result<(), RuntimeError> {
        for id in self.pods.iter().flat_map(|pod| &pod.ended) {
            self.shared.runtime.remove(id).await?;
            log::info!(container = id.as_str(); "ended container removed: the disk is full");
        }
        Ok(())
    }

    /// Removes images until the disk has room again, or all that nobody uses when it is short.
    async fn remove_images(&self, images: &[Image], is_short: bool) -> Result<BTreeSet<String>, RuntimeError> {
        let shared = &self.shared;
        let settings = &shared.housekeeping;
        let kept = self.kept_images().await?;
        let order = shared.house().history.removable(images, &kept, |name| name.starts_with(REPOSITORY), settings.image_age, shared.now());
        let mut removed = BTreeSet::new();
        for id in order {
            // Layers are shared, so what an image frees is only known afterwards.
            if !is_short && look(shared).await.imagefs_used_percent() <= settings.images_low {
                break;
            }
            match shared.runtime.remove_image(&id).await {
                Ok(()) => {
                    log::info!(image = id.as_str(); "image removed: nobody uses it, and the disk is full");
                    removed.insert(id);
                }
                // A container was made of it meanwhile, or another image is built on it.
                Err(RuntimeError::Refused { message, .. }) => log::info!(image = id.as_str(), reason = message.as_str(); "image not removed"),
                Err(error) => return Err(error),
            }
        }
        Ok(removed)
    }

    /// Images that a container has, whosever it is, and those that a pod of this node names.
    async fn kept_images(&self) -> Result<BTreeSet<String>, RuntimeError> {
        let runtime = &self.shared.runtime;
        let containers = runtime.list(&[]).await?;
        let of_container = |id: String| async move { Ok::<_, RuntimeError>(runtime.inspect(&id).await?.map(|found| found.image_id)) };
        let names: BTreeSet<String> = self.pods.iter().flat_map(|pod| pod.pod.all_containers()).map(|one| one.image.clone()).collect();
        let of_name = |name: String| async move { Ok::<_, RuntimeError>(runtime.image(&name).await?.map(|found| found.id)) };
        let used: Vec<_> = stream::iter(containers).map(|one| of_container(one.id)).buffer_unordered(QUESTIONS_MAX).collect().await;
        let named: Vec<_> = stream::iter(names).map(of_name).buffer_unordered(QUESTIONS_MAX).collect().await;
        used.into_iter().chain(named).filter_map(Result::transpose).collect()
    }
}
