//! What Communication knows: which reports are on their way, and what waits for the cloud.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use tokio::time::Instant;
use wire::link::Window;

use super::{Config, Peers, Shared, UPLOADS_BYTES_MAX, UPLOADS_MAX};
use crate::store::Store;
use crate::store::pending_report::Seq;

/// The actor.
pub struct Communication {
    pub(super) config: Config,
    pub(super) store: Store,
    pub(super) peers: Peers,
    pub(super) shared: Shared,
    pub(super) window: Window<Seq>,
    /// Milliseconds of the window count from here.
    pub(super) began: Instant,
    pub(super) uploads: Uploads,
    /// How often the list of devices may still be asked for on this connection.
    pub(super) membership_asks_left: u32,
    /// Somebody waits for room at EdgeHub to go on with the reports.
    pub(super) waits_for_hub: bool,
}

impl Communication {
    /// A new incarnation. What was on its way is sent again, from the store.
    pub fn new(config: Config, store: Store, peers: Peers, shared: Shared) -> Self {
        Self {
            config,
            store,
            peers,
            shared,
            window: Window::default(),
            began: Instant::now(),
            uploads: Uploads::default(),
            membership_asks_left: 0,
            waits_for_hub: false,
        }
    }

    /// For the page.
    pub(super) fn publish_figures(&self) {
        let now = &self.shared.now;
        now.devices.store(self.window.devices() as u64, Relaxed);
        now.unacknowledged.store(self.window.unanswered() as u64, Relaxed);
        now.uploads.store(self.uploads.ring.len() as u64, Relaxed);
    }

    pub(super) fn now_ms(&self) -> u64 {
        millis(self.began.elapsed())
    }

    pub(super) fn is_connected(&self) -> bool {
        self.shared.connected.load(Relaxed)
    }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What Communication knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Snapshot {
    /// Whether the cloud is there.
    pub cloud_connected: bool,
    /// Devices with a report on its way.
    pub devices_in_window: u64,
    /// Frames that the cloud has not answered, late ones among them.
    pub unacknowledged: u64,
    /// Changes of which the cloud still has to hear, by the last count of the store.
    pub pending_reports: u64,
    /// Uploads that wait for the cloud.
    pub uploads_waiting: u64,
    /// Report frames given to EdgeHub since the start.
    pub reports_sent: u64,
    /// Reports that the cloud confirmed.
    pub reports_confirmed: u64,
    /// Reports that the cloud refused.
    pub reports_refused: u64,
    /// Reports that were sent again for lack of a confirmation.
    pub reports_overdue: u64,
}

impl Snapshot {
    /// As it is now.
    pub fn of(shared: &Shared, store: &Store) -> Self {
        let (now, figures) = (&shared.now, &shared.figures);
        Self {
            cloud_connected: shared.connected.load(Relaxed),
            devices_in_window: now.devices.load(Relaxed),
            unacknowledged: now.unacknowledged.load(Relaxed),
            pending_reports: store.counts().pending_reports,
            uploads_waiting: now.uploads.load(Relaxed),
            reports_sent: figures.reports_sent.load(Relaxed),
            reports_confirmed: figures.reports_confirmed.load(Relaxed),
            reports_refused: figures.reports_refused.load(Relaxed),
            reports_overdue: figures.reports_overdue.load(Relaxed),
        }
    }
}

/// What a device sent for the cloud.
#[derive(Debug)]
pub(super) struct Upload {
    /// The message in which it came.
    pub(super) by: actor::MsgId,
    pub(super) topic: String,
    pub(super) payload: Bytes,
}

impl Upload {
    fn bytes(&self) -> usize {
        self.topic.len() + self.payload.len()
    }
}

/// Uploads that wait for the cloud: a ring, because events are worth less the older they are.
#[derive(Debug, Default)]
pub(super) struct Uploads {
    ring: VecDeque<Upload>,
    bytes: usize,
}

impl Uploads {
    /// Adds one; returns how many had to go for it.
    pub(super) fn push(&mut self, upload: Upload) -> u64 {
        self.bytes += upload.bytes();
        self.ring.push_back(upload);
        let mut dropped = 0;
        while self.ring.len() > UPLOADS_MAX || self.bytes > UPLOADS_BYTES_MAX {
            self.pop();
            dropped += 1;
        }
        dropped
    }

    /// Takes the oldest.
    pub(super) fn pop(&mut self) -> Option<Upload> {
        let upload = self.ring.pop_front()?;
        self.bytes -= upload.bytes();
        Some(upload)
    }

    /// Puts the one that was taken last back.
    pub(super) fn put_back(&mut self, upload: Upload) {
        self.bytes += upload.bytes();
        self.ring.push_front(upload);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    #[test]
    fn the_ring_of_uploads_keeps_the_last_ones_by_number_and_by_size() {
        let upload = |topic: String, payload: Bytes| Upload { by: actor::MsgId::fresh(), topic, payload };
        let mut uploads = Uploads::default();
        let dropped: u64 = (0..UPLOADS_MAX + 3).map(|n| uploads.push(upload(format!("t{n}"), Bytes::new()))).sum();
        assert_eq!(dropped, 3);
        assert_eq!(uploads.pop().unwrap().topic, "t3");
        let big = Bytes::from(vec![0; UPLOADS_BYTES_MAX - 1]);
        assert!(uploads.push(upload("b".into(), big)) > 200);
        assert_eq!(uploads.pop().unwrap().topic, "b");
        assert_eq!((uploads.bytes, uploads.ring.len()), (0, 0));
        assert_eq!(uploads.push(upload("c".into(), Bytes::from(vec![0; UPLOADS_BYTES_MAX]))), 1);
    }
}
