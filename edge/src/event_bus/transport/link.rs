//! What a broker's connection shares with EventBus, whoever drives it: what waits, what is subscribed, and figures.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use log::{error, warn};
use tokio::sync::watch;

use super::super::outbox::{Outbox, Queued};
use super::Inbound;

/// Figures of one connection for the status page.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Figures {
    /// Name of the endpoint.
    pub endpoint: &'static str,
    /// Whether the connection stands.
    pub connected: bool,
    /// Why it does not stand, in words; empty while it does, and before the first attempt.
    pub trouble: String,
    /// Publications that wait.
    pub waiting: usize,
    /// Publications that the broker took.
    pub published: u64,
    /// Publications that were dropped for lack of room, or refused by the broker.
    pub dropped: u64,
    /// Messages that arrived.
    pub arrived: u64,
    /// Panics while a message was taken: each lost its message and nothing else.
    pub panics: u64,
}

/// What waits for one broker, and how it goes with the connection to it.
#[derive(Debug)]
pub struct Link {
    manner: Manner,
    pub(super) outbox: Outbox,
    connected: AtomicBool,
    /// The broker is connected and answers nothing.
    stalled: AtomicBool,
    trouble: Mutex<String>,
    published: AtomicU64,
    refused: AtomicU64,
    arrived: AtomicU64,
    panics: AtomicU64,
}

/// How is published at one broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manner {
    /// `internal` or `external`: for the log and the status page.
    pub name: &'static str,
    /// Quality of service of what is published: 0, 1 or 2.
    pub qos: u8,
    /// Whether what is published is retained by the broker.
    pub retain: bool,
}

/// What is to be subscribed at each broker.
#[derive(Debug)]
pub struct Wanted {
    always: Vec<String>,
    extra: Mutex<BTreeSet<String>>,
    changed: watch::Sender<u64>,
}

impl Link {
    /// Nothing waits, and there is no connection yet.
    pub fn new(manner: Manner) -> Arc<Self> {
        Arc::new(Self {
            manner,
            outbox: Outbox::default(),
            connected: AtomicBool::new(false),
            stalled: AtomicBool::new(false),
            trouble: Mutex::default(),
            published: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            arrived: AtomicU64::new(0),
            panics: AtomicU64::new(0),
        })
    }

    /// How is published there.
    pub fn manner(&self) -> &Manner {
        &self.manner
    }

    /// Waits for the next publication.
    pub async fn next(&self) -> Queued {
        self.outbox.take().await
    }

    /// The next publication, if one waits.
    pub fn try_next(&self) -> Option<Queued> {
        self.outbox.try_take()
    }

    /// The connection stands, and everything is subscribed.
    pub fn stands(&self) {
        self.connected.store(true, Ordering::Relaxed);
        self.trouble().clear();
    }

    /// The connection is gone.
    pub fn is_gone(&self, reason: &str) {
        self.connected.store(false, Ordering::Relaxed);
        self.answers();
        reason.clone_into(&mut self.trouble());
    }

    /// The broker took a publication.
    pub fn count_published(&self) {
        self.published.fetch_add(1, Ordering::Relaxed);
    }

    /// Publications that the broker took.
    pub(super) fn published(&self) -> u64 {
        self.published.load(Ordering::Relaxed)
    }

    /// A publication is given up.
    pub(super) fn count_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// A message arrived: takes it, and outlives a panic while it is taken.
    pub fn take(&self, inbound: &dyn Inbound, topic: &str, payload: &[u8]) {
        self.arrived.fetch_add(1, Ordering::Relaxed);
        let taken = catch_unwind(AssertUnwindSafe(|| inbound.arrived(topic, payload)));
        if taken.is_err() {
            self.panics.fetch_add(1, Ordering::Relaxed);
            error!(endpoint = self.manner.name; "taking an MQTT message panicked; the message is lost");
        }
    }

    pub(super) fn has_room(&self) -> bool {
        !self.connected.load(Ordering::Relaxed) || self.stalled.load(Ordering::Relaxed) || self.outbox.has_room()
    }

    /// The broker has stopped answering.
    pub(super) fn stall(&self, after: Duration) {
        if !self.stalled.swap(true, Ordering::Relaxed) {
            let (endpoint, secs) = (self.manner.name, after.as_secs());
            warn!(endpoint, secs; "the MQTT broker answers nothing; what is published waits, and without room the oldest goes");
            "it is connected and answers nothing".clone_into(&mut self.trouble());
        }
    }

    /// The broker answers, or is gone.
    pub(super) fn answers(&self) {
        if self.stalled.load(Ordering::Relaxed) && self.stalled.swap(false, Ordering::Relaxed) {
            self.trouble().clear();
        }
    }

    pub(super) fn trouble(&self) -> MutexGuard<'_, String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn figures(&self) -> Figures {
        let (waiting, dropped) = self.outbox.depth();
        Figures {
            endpoint: self.manner.name,
            connected: self.connected.load(Ordering::Relaxed),
            trouble: self.trouble().clone(),
            waiting,
            published: self.published.load(Ordering::Relaxed),
            dropped: dropped + self.refused.load(Ordering::Relaxed),
            arrived: self.arrived.load(Ordering::Relaxed),
            panics: self.panics.load(Ordering::Relaxed),
        }
    }
}

impl Wanted {
    pub(super) fn new(always: Vec<String>) -> Arc<Self> {
        Arc::new(Self { always, extra: Mutex::default(), changed: watch::Sender::new(0) })
    }

    /// Tells each change, and at once that there may have been one since somebody looked last.
    pub fn changes(&self) -> watch::Receiver<u64> {
        let mut changes = self.changed.subscribe();
        changes.mark_changed();
        changes
    }

    /// Adds a filter, or takes it away.
    pub(super) fn change(&self, change: impl FnOnce(&mut BTreeSet<String>)) {
        change(&mut self.extra());
        self.changed.send_modify(|version| *version += 1);
    }

    pub(super) fn extra(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.extra.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn takes_in(&self, name: &str) -> bool {
        let matches = |filter: &String| wire::mqtt::filter::matches(filter, name);
        self.always.iter().any(matches) || self.extra().iter().any(matches)
    }

    /// All of it.
    pub fn filters(&self) -> BTreeSet<String> {
        self.always.iter().cloned().chain(self.extra().iter().cloned()).collect()
    }
}
