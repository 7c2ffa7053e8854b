//! When which lease is to be renewed, and how many Events a node may write. Pure.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use model::NodeName;
use serde::Serialize;

use crate::standing::{ApiSnapshot, Standing};

/// Time between two renewals of a lease (Kubernetes: a quarter of its duration), in milliseconds.
pub const RENEW_EVERY_MS: u64 = 10_000;
/// Wait after a renewal that failed, in milliseconds.
pub const RETRY_AFTER_MS: u64 = 1_000;
/// After so long a renewal that was handed out and never came back is handed out again, in milliseconds.
pub const LOST_AFTER_MS: u64 = 60_000;
/// Leases handed out at once: with a look every second, ten thousand nodes are renewed in time, evenly.
pub const DUE_MAX: usize = 1_000;

/// Events that a node may write at once; an edge holds at most 256 for the time after an outage.
pub(super) const EVENTS_BURST: u64 = 1024;

/// The leases of the connected nodes, each with the time of its next renewal.
#[derive(Debug, Default)]
pub struct Leases {
    due: HashMap<NodeName, u64>,
}

/// What outlives an incarnation: what the page shows. Made once, cloned into each.
#[derive(Clone, Debug, Default)]
pub struct Shared(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    nodes: AtomicU64,
    events_written: AtomicU64,
    events_moot: AtomicU64,
    events_dropped: AtomicU64,
    /// What each node may still write.
    allowances: Mutex<HashMap<NodeName, Allowance>>,
}

/// How many Events a node may write: so many at once, and one more each second.
#[derive(Clone, Copy, Debug)]
struct Allowance {
    left: u64,
    /// When it was as much last, in ms.
    at: i64,
}

impl Allowance {
    fn take(&mut self, now: i64) -> bool {
        // A clock that was set back gives nothing and takes nothing.
        let seconds = u64::try_from(now.saturating_sub(self.at) / 1000).unwrap_or(0);
        self.left = self.left.saturating_add(seconds).min(EVENTS_BURST);
        self.at = self.at.saturating_add(i64::try_from(seconds * 1000).unwrap_or(i64::MAX)).min(now);
        let may = self.left > 0;
        self.left = self.left.saturating_sub(1);
        may
    }
}

impl Shared {
    /// Whether this node may write one more Event now, in ms: the API keeps each for an hour, whoever wrote it.
    pub(super) fn may_write_event(&self, node: &NodeName, now: i64) -> bool {
        let mut allowances = self.0.allowances.lock().unwrap_or_else(PoisonError::into_inner);
        allowances.entry(node.clone()).or_insert(Allowance { left: EVENTS_BURST, at: now }).take(now)
    }

    /// So many nodes are connected.
    pub(super) fn set_nodes(&self, nodes: usize) {
        self.0.nodes.store(nodes as u64, Ordering::Relaxed);
    }

    /// The API has an Event of a node.
    pub(super) fn event_written(&self) {
        self.0.events_written.fetch_add(1, Ordering::Relaxed);
    }

    /// An Event told of a pod that the API no longer has.
    pub(super) fn event_moot(&self) {
        self.0.events_moot.fetch_add(1, Ordering::Relaxed);
    }

    /// An Event of a node was refused, or found the API without room.
    pub(super) fn event_dropped(&self) {
        self.0.events_dropped.fetch_add(1, Ordering::Relaxed);
    }
}

/// What Upstream knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Snapshot {
    /// Nodes whose lease is renewed.
    pub nodes: u64,
    /// Events of nodes that the API has.
    pub events_written: u64,
    /// Those of pods that the API no longer had: confirmed, not written.
    pub events_moot: u64,
    /// Those that were refused, or that the API had no room for; of the latter their node repeats what it still has.
    pub events_dropped: u64,
    /// The API.
    pub api: ApiSnapshot,
}

impl Snapshot {
    /// As it is now.
    pub fn of(shared: &Shared, api: &Standing) -> Self {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Counters { nodes, events_written, events_moot, events_dropped, allowances: _ } = &*shared.0;
        Self {
            nodes: read(nodes),
            events_written: read(events_written),
            events_moot: read(events_moot),
            events_dropped: read(events_dropped),
            api: api.snapshot(),
        }
    }
}

impl Leases {
    /// Nodes that are connected.
    pub fn len(&self) -> usize {
        self.due.len()
    }

    /// Whether no node is connected.
    pub fn is_empty(&self) -> bool {
        self.due.is_empty()
    }

    /// A node is connected: its lease is due at once. Says whether that is new.
    pub fn connected(&mut self, node: &NodeName, now: u64) -> bool {
        let new = !self.due.contains_key(node);
        if new {
            self.due.insert(node.clone(), now);
        }
        new
    }

    /// A node has gone: its lease is left to expire.
    pub fn disconnected(&mut self, node: &NodeName) {
        self.due.remove(node);
    }

    /// The leases to renew now, the most overdue first, at most [`DUE_MAX`].
    pub fn take_due(&mut self, now: u64) -> Vec<NodeName> {
        let mut due: Vec<(u64, NodeName)> = self.due.iter().filter(|(_, at)| **at <= now).map(|(node, at)| (*at, node.clone())).collect();
        due.sort();
        due.truncate(DUE_MAX);
        for (_, node) in &due {
            self.due.insert(node.clone(), now + LOST_AFTER_MS);
        }
        due.into_iter().map(|(_, node)| node).collect()
    }

    /// A renewal has ended; a node that has gone meanwhile stays forgotten.
    pub fn ended(&mut self, node: &NodeName, succeeded: bool, now: u64) {
        if let Some(due) = self.due.get_mut(node) {
            *due = now + if succeeded { RENEW_EVERY_MS } else { RETRY_AFTER_MS };
        }
    }
}
