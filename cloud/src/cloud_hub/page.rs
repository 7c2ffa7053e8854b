//! What CloudHub knows, and which comings and goings of nodes the diary gets.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use actor::EventKind;
use model::NodeName;
use serde::Serialize;

use super::Hub;
use super::message::SessionId;
use super::totals::Totals;

/// Nodes with most to take that are shown.
const WORST_MAX: usize = 10;
/// A node is noted once as connected and once as disconnected within this time.
const QUIET: Duration = Duration::from_secs(10);

/// What CloudHub knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Snapshot {
    /// Over all nodes.
    #[serde(flatten)]
    pub totals: Totals,
    /// Nodes that may be connected at the same time.
    pub node_limit: usize,
    /// Those with most to take.
    pub worst: Vec<Backlog>,
    /// Comings and goings that were counted only, because their node had just been noted.
    pub flaps: u64,
}

/// What one node still has to take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Backlog {
    /// Which.
    pub node: String,
    /// Its session.
    pub session: SessionId,
    /// Frames in its outbox, unsent or unacknowledged.
    pub waiting: usize,
    /// Objects whose last form it refused.
    pub parked: usize,
    /// Bytes in its outbox.
    pub bytes: usize,
    /// Answers that wait for it.
    pub answers: usize,
    /// Its outbox ran over: it will be sent everything anew.
    pub lagging: bool,
}

impl Hub {
    /// As it is now.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            totals: self.nodes.totals(),
            node_limit: self.tuning().node_limit,
            worst: self.nodes.worst(WORST_MAX),
            flaps: self.diary.lock().flaps,
        }
    }

    /// Notes that a node came or went, unless it flaps: the diary is short.
    pub(super) fn note(&self, node: &NodeName, kind: EventKind, text: String) {
        if self.diary.is_worth_a_note(node, kind, Instant::now()) {
            self.peers.cloud_hub.note(kind, text);
        }
    }
}

/// When each node was noted last. Holds those of the last seconds only.
#[derive(Debug, Default)]
pub(super) struct Diary(Mutex<Lately>);

#[derive(Debug, Default)]
pub(super) struct Lately {
    connected: HashMap<NodeName, Instant>,
    disconnected: HashMap<NodeName, Instant>,
    flaps: u64,
}

impl Diary {
    fn lock(&self) -> std::sync::MutexGuard<'_, Lately> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_worth_a_note(&self, node: &NodeName, kind: EventKind, now: Instant) -> bool {
        let mut lately = self.lock();
        let noted = if kind == EventKind::Connected { &mut lately.connected } else { &mut lately.disconnected };
        noted.retain(|_, at| now.duration_since(*at) < QUIET);
        if noted.contains_key(node) {
            lately.flaps += 1;
            return false;
        }
        noted.insert(node.clone(), now);
        true
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, missing_docs)] // a failed step is the test's failure

    use super::*;

    #[test]
    fn a_node_that_flaps_is_noted_once_each_way_in_ten_seconds() {
        let (diary, start) = (Diary::default(), Instant::now());
        let (flapping, other) = (NodeName::try_from("edge-1").unwrap(), NodeName::try_from("edge-2").unwrap());
        let at = |secs| start + Duration::from_secs(secs);
        let noted = |node, kind, secs| diary.is_worth_a_note(node, kind, at(secs));
        assert!(noted(&flapping, EventKind::Connected, 0) && noted(&flapping, EventKind::Disconnected, 1));
        for secs in 2..10 {
            assert!(!noted(&flapping, EventKind::Connected, secs));
        }
        assert!(noted(&other, EventKind::Connected, 9));
        assert!(noted(&flapping, EventKind::Connected, 10) && !noted(&flapping, EventKind::Disconnected, 10));
        assert_eq!(diary.lock().flaps, 9);
        assert!(noted(&flapping, EventKind::Disconnected, 100));
        assert_eq!(diary.lock().disconnected.len(), 1, "nodes that are quiet are forgotten");
    }
}
