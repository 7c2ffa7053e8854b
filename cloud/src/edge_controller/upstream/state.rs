//! When which lease is to be renewed. Pure.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

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
    events_dropped: AtomicU64,
}

impl Shared {
    /// So many nodes are connected.
    pub(super) fn set_nodes(&self, nodes: usize) {
        self.0.nodes.store(nodes as u64, Ordering::Relaxed);
    }

    /// An Event of a node was settled.
    pub(super) fn event_written(&self) {
        self.0.events_written.fetch_add(1, Ordering::Relaxed);
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
    /// Events of nodes that were settled.
    pub events_written: u64,
    /// Those that were refused, or that the API had no room for; of the latter their node repeats what it still has.
    pub events_dropped: u64,
    /// The API.
    pub api: ApiSnapshot,
}

impl Snapshot {
    /// As it is now.
    pub fn of(shared: &Shared, api: &Standing) -> Self {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Counters { nodes, events_written, events_dropped } = &*shared.0;
        Self { nodes: read(nodes), events_written: read(events_written), events_dropped: read(events_dropped), api: api.snapshot() }
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
