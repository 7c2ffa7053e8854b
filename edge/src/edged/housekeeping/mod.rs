//! Looks after the machine: what is free of it, which images and ended containers may go, which pod must.
//!
//! A task beside the actor reads what is free, every ten seconds; the actor turns it into the node's conditions and, when
//! something is due, starts one task that does it and tells what came of it. What may be due: a list of the images, every five
//! minutes or after one came; removing images, when the engine's disk is full; measuring volumes and containers with a limit,
//! every minute; ending a pod, when something is short. A round without anything due reads six small files.
//!
//! | file | duty |
//! |---|---|
//! | `signals`, `disk` | reading the machine |
//! | `images` | which images may go (pure) |
//! | `job` | what is done beside the actor |
//! | `measure` | what pods take, and which limits they exceed |
//! | `handlers` | what the actor does with it |

mod disk;
mod handlers;
mod images;
mod job;
mod measure;
mod signals;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use super::message::EdgedMessage;
use super::pod::Refusal;
use super::pressure::{Pressures, Signals, Thresholds};
use super::runtime::Image;
use super::shared::Shared;

use images::History;

/// Pause between two looks (the kubelet's eviction manager: 10 s).
pub const EVERY: Duration = Duration::from_secs(10);

/// What is watched and cleared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What must stay free.
    pub thresholds: Thresholds,
    /// For how long a pressure is still shown.
    pub transition: Duration,
    /// Percent of the engine's disk from which on images are removed; 100: never.
    pub images_high: u8,
    /// Percent down to which they are.
    pub images_low: u8,
    /// For how long an image stays that nobody uses.
    pub image_age: Duration,
    /// Ended containers of each name of a pod that stay beside the current one; the planner removes the others.
    pub ended_kept: usize,
}

impl Default for Settings {
    /// Nothing is watched, and of the machine nothing removed.
    fn default() -> Self {
        let thresholds = Thresholds::default();
        Self {
            thresholds,
            transition: Duration::from_secs(300),
            images_high: 100,
            images_low: 40,
            image_age: Duration::from_secs(120),
            ended_kept: 1,
        }
    }
}

/// What is remembered from look to look, and by the next incarnation of the actor.
#[derive(Debug, Default)]
pub struct House {
    /// Where the engine keeps images and containers, once it said so.
    root: Option<PathBuf>,
    pressures: Pressures,
    history: History,
    /// As last listed.
    images: Vec<Image>,
    /// `None`: to be listed.
    images_at: Option<Timestamp>,
    /// When images were removed last.
    cleared_at: Option<Timestamp>,
    /// When limits were measured last.
    measured_at: Option<Timestamp>,
    /// Who was ended last for a shortage: what it frees is waited for.
    ended: Option<(String, Timestamp)>,
}

impl House {
    /// As last listed.
    pub fn images(&self) -> &[Image] {
        &self.images
    }

    /// As last seen.
    pub fn pressures(&self) -> &Pressures {
        &self.pressures
    }

    /// Images came or went.
    pub fn images_changed(&mut self) {
        self.images_at = None;
    }
}

impl Shared {
    /// What housekeeping remembers.
    pub fn house(&self) -> MutexGuard<'_, House> {
        // Under this lock values are set one by one; none is left half-way.
        self.house.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What came of a job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tidied {
    /// The images that are here, if they were listed.
    pub images: Option<Vec<Image>>,
    /// Pods that exceed a limit of their own.
    pub excessive: Vec<(String, Refusal)>,
    /// The pod that has to go because something is short.
    pub chosen: Option<(String, Refusal)>,
}

/// Tells Edged what is free, for ever. Ends only when Edged's mailbox is closed.
pub async fn keep(shared: Arc<Shared>) {
    loop {
        let signals = look(&shared).await;
        if shared.edged.send(EdgedMessage::Housekept(signals)).await.is_err() {
            return;
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Reads what is free now.
async fn look(shared: &Shared) -> Signals {
    let known = shared.house().root.clone();
    let root = match known {
        Some(root) => Some(root),
        // An engine that is away is asked again the next time.
        None => shared.runtime.root_dir().await.ok(),
    };
    shared.house().root.clone_from(&root);
    let nodefs = shared.pods.clone();
    // A disk may hang; the thread of the actors must not.
    tokio::task::spawn_blocking(move || signals::read(&nodefs, root.as_deref())).await.unwrap_or_default()
}
