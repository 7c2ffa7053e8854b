//! Figures over all nodes.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use super::nodes::Nodes;

/// Only grow.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) sessions: AtomicU64,
    pub(super) replaced: AtomicU64,
    pub(super) silent: AtomicU64,
    pub(super) stuck: AtomicU64,
    pub(super) refused_full: AtomicU64,
    pub(super) refused_identity: AtomicU64,
    pub(super) frames_in: AtomicU64,
    pub(super) frames_out: AtomicU64,
    pub(super) garbage: AtomicU64,
    pub(super) acknowledged: AtomicU64,
    pub(super) refusals: AtomicU64,
    pub(super) not_connected: AtomicU64,
    pub(super) outbox_full: AtomicU64,
    pub(super) answers_dropped: AtomicU64,
    pub(super) uploads_dropped: AtomicU64,
    pub(super) digests: AtomicU64,
    pub(super) digests_refused: AtomicU64,
    pub(super) unmatched: AtomicU64,
}

/// Figures over all nodes; `_total` of a metric where nothing else is said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Nodes connected now.
    pub connected: u64,
    /// Frames in outboxes now, unsent or unacknowledged.
    pub waiting: u64,
    /// Bytes of them now.
    pub waiting_bytes: u64,
    /// Keys now whose last frame a node refused.
    pub parked: u64,
    /// Sessions that began.
    pub sessions: u64,
    /// Sessions that a newer one of the same node replaced.
    pub replaced: u64,
    /// Sessions cut because nothing came.
    pub silent: u64,
    /// Sessions cut because nothing could be written.
    pub stuck: u64,
    /// Connections refused because of the node limit.
    pub refused_full: u64,
    /// Connections refused because of their certificate, path or header.
    pub refused_identity: u64,
    /// Text frames received.
    pub frames_in: u64,
    /// Text frames handed to sockets.
    pub frames_out: u64,
    /// Text frames that were no message.
    pub garbage: u64,
    /// Frames that nodes acknowledged.
    pub acknowledged: u64,
    /// Frames that nodes refused.
    pub refusals: u64,
    /// Messages dropped because their node was not connected.
    pub not_connected: u64,
    /// Messages that found the node's outbox full; the node is brought into step later.
    pub outbox_full: u64,
    /// Answers dropped because too many waited.
    pub answers_dropped: u64,
    /// Uploads of devices, which nothing takes yet.
    pub uploads_dropped: u64,
    /// Digests of what nodes hold that were taken.
    pub digests: u64,
    /// Digests, or parts of one, that were not taken.
    pub digests_refused: u64,
    /// Acknowledgements and refusals of nothing that was on its way: late, given twice, or made up.
    pub unmatched: u64,
}

impl Nodes {
    /// Figures over all nodes.
    pub fn totals(&self) -> Totals {
        let (connected, sum) = self.backlogs();
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let c = &self.counters;
        Totals {
            connected: connected as u64,
            waiting: sum.waiting as u64,
            waiting_bytes: sum.bytes as u64,
            parked: sum.parked as u64,
            sessions: read(&c.sessions),
            replaced: read(&c.replaced),
            silent: read(&c.silent),
            stuck: read(&c.stuck),
            refused_full: read(&c.refused_full),
            refused_identity: read(&c.refused_identity),
            frames_in: read(&c.frames_in),
            frames_out: read(&c.frames_out),
            garbage: read(&c.garbage),
            acknowledged: read(&c.acknowledged),
            refusals: read(&c.refusals),
            not_connected: read(&c.not_connected),
            outbox_full: read(&c.outbox_full),
            answers_dropped: read(&c.answers_dropped),
            uploads_dropped: read(&c.uploads_dropped),
            digests: read(&c.digests),
            digests_refused: read(&c.digests_refused),
            unmatched: read(&c.unmatched),
        }
    }
}
