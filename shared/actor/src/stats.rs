//! What is counted of one actor.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use tokio::time::Instant;

use crate::cell::lock;
use crate::histogram::Histogram;
use crate::mail::now_ms;
use crate::registry::State;

/// The supervisor asks for a sign of life.
pub(crate) const PING: u32 = 1;
/// A fault drill waits for the pump.
pub(crate) const DRILL: u32 = 2;

/// Counters of one actor; they outlive its incarnations.
pub(crate) struct Stats {
    pub(crate) born: Instant,
    pub(crate) handled: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) quarantined: AtomicU64,
    pub(crate) restarts: AtomicU64,
    pub(crate) panics: AtomicU64,
    pub(crate) hangs: AtomicU64,
    /// ms after `born`, plus 1; 0 = nothing in hand.
    pub(crate) in_hand_since: AtomicU64,
    /// ms after `born` of the last finished batch.
    pub(crate) idle_since: AtomicU64,
    /// ms after `born` of the last answer to a ping.
    pub(crate) pong: AtomicU64,
    /// [`PING`] and [`DRILL`]: what the pump looks for beside the mailbox.
    pub(crate) signals: AtomicU32,
    pub(crate) state: AtomicU32,
    /// Name of its supervisor.
    pub(crate) parent: Mutex<&'static str>,
    pub(crate) took: Histogram,
    /// What the last panic said, and when, in ms since 1970.
    pub(crate) last_words: Mutex<(String, u64)>,
    pub(crate) complaint: Mutex<Complaint>,
}

/// ms between two log lines of an error that goes on.
const COMPLAINT_PERIOD: u64 = 10_000;

/// The error that a handler reported last, so that one that goes on does not fill the log.
#[derive(Default)]
pub(crate) struct Complaint {
    text: String,
    /// ms after `born` of its last line.
    said: u64,
    unsaid: u64,
}

impl Complaint {
    /// Is this error worth a line? Then with how many of the same went without one since the last.
    pub(crate) fn heard(&mut self, text: &str, now: u64) -> Option<u64> {
        if self.text == text && now.saturating_sub(self.said) < COMPLAINT_PERIOD {
            self.unsaid += 1;
            return None;
        }
        let unsaid = if self.text == text { self.unsaid } else { 0 };
        *self = Self { text: text.to_owned(), said: now, unsaid: 0 };
        Some(unsaid)
    }
}

impl Default for Stats {
    fn default() -> Self {
        Self {
            born: Instant::now(),
            handled: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            quarantined: AtomicU64::new(0),
            restarts: AtomicU64::new(0),
            panics: AtomicU64::new(0),
            hangs: AtomicU64::new(0),
            in_hand_since: AtomicU64::new(0),
            idle_since: AtomicU64::new(0),
            pong: AtomicU64::new(0),
            signals: AtomicU32::new(0),
            state: AtomicU32::new(State::Down as u32),
            parent: Mutex::new(""),
            took: Histogram::default(),
            last_words: Mutex::default(),
            complaint: Mutex::default(),
        }
    }
}

impl Stats {
    /// ms after `born`.
    pub(crate) fn at(&self, instant: Instant) -> u64 {
        u64::try_from(instant.duration_since(self.born).as_millis()).unwrap_or(u64::MAX)
    }

    pub(crate) fn now(&self) -> u64 {
        self.at(Instant::now())
    }

    /// ms since the last sign of life: a pong, or a finished batch.
    pub(crate) fn silent(&self) -> u64 {
        let last = self.pong.load(Ordering::Relaxed).max(self.idle_since.load(Ordering::Relaxed));
        self.now().saturating_sub(last)
    }

    pub(crate) fn parent(&self) -> String {
        (*lock(&self.parent)).to_owned()
    }

    pub(crate) fn words(&self) -> (String, u64) {
        lock(&self.last_words).clone()
    }

    pub(crate) fn note_words(&self, words: &str) {
        *lock(&self.last_words) = (words.to_owned(), now_ms());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_that_goes_on_gets_one_line_in_ten_seconds_and_another_error_gets_its_own() {
        let mut complaint = Complaint::default();
        assert_eq!(complaint.heard("disk full", 5), Some(0));
        assert_eq!((6..1_000).filter_map(|now| complaint.heard("disk full", now)).count(), 0);
        assert_eq!(complaint.heard("disk full", 10_005), Some(994));
        assert_eq!(complaint.heard("another", 10_006), Some(0));
        assert_eq!(complaint.heard("disk full", 10_007), Some(0));
    }
}
