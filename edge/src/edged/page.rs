//! What Edged knows, for the page and for its next incarnation.

use std::collections::BTreeMap;
use std::sync::{MutexGuard, PoisonError};

use actor::EventKind;
use serde::Serialize;

use super::node::Readiness;
use super::shared::Shared;
use super::state::Edged;

/// What Edged knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Snapshot {
    /// Whether the container engine answers; `None` before it was asked.
    pub engine_answers: Option<bool>,
    /// Its name and version, as last heard.
    pub engine: String,
    /// Why it does not answer.
    pub reason: String,
    /// Pods, by phase; `Unknown` for one that was not looked at yet.
    pub pods: BTreeMap<String, u64>,
    /// Pods that are being looked at.
    pub passes: u64,
    /// Images that are being pulled.
    pub pulls: u64,
}

impl Snapshot {
    /// All pods.
    pub fn pods(&self) -> u64 {
        self.pods.values().sum()
    }

    /// What was last heard of the engine.
    pub(super) fn readiness(&self) -> Option<Readiness> {
        self.engine_answers.map(|answers| if answers { Readiness::Ready(self.engine.clone()) } else { Readiness::NotReady(self.reason.clone()) })
    }
}

impl Shared {
    /// What the module knows.
    pub fn page(&self) -> MutexGuard<'_, Snapshot> {
        // Under this lock values are set one by one; none is left half-way.
        self.page.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Edged {
    /// For the page.
    pub(super) fn publish(&self) {
        let mut page = self.shared.page();
        page.pods.clear();
        for entry in self.pods.values().filter(|entry| entry.key.is_some()) {
            let phase = entry.previous.as_ref().map_or("Unknown", |status| status.phase.as_str());
            match page.pods.get_mut(phase) {
                Some(count) => *count += 1,
                None => drop(page.pods.insert(phase.to_owned(), 1)),
            }
        }
        page.passes = self.pods.values().filter(|entry| entry.is_busy).count() as u64;
        page.pulls = self.pulling.len() as u64;
    }

    /// Remembers what was heard of the engine, and notes when it comes or goes.
    pub(super) fn note_engine(&self, readiness: &Readiness) {
        let mut page = self.shared.page();
        let was = page.engine_answers;
        let (kind, text) = match readiness {
            Readiness::Ready(engine) => {
                (page.engine_answers, page.engine, page.reason) = (Some(true), engine.clone(), String::new());
                (EventKind::Connected, format!("the container engine answers: {engine}"))
            }
            Readiness::NotReady(reason) => {
                (page.engine_answers, page.reason) = (Some(false), reason.clone());
                (EventKind::Disconnected, format!("the container engine is away: {reason}"))
            }
        };
        if was != page.engine_answers {
            self.peers.own.note(kind, text);
        }
    }
}
