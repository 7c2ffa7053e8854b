//! The recent past: the events that watches replay, bounded in number and bytes.

use std::collections::VecDeque;
use std::sync::{Arc, RwLock};

use tokio::sync::watch;

use super::kind::Kind;
use super::selector::Traits;

/// How many events are kept.
pub const EVENTS_MAX: usize = 4096;
/// How many bytes of objects are kept.
pub const BYTES_MAX: usize = 4 << 20;

/// What a write did to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It did not exist before.
    Added,
    /// It existed and still does.
    Modified,
    /// It is gone; the event carries its last state.
    Deleted,
}

/// One committed write.
#[derive(Debug)]
pub struct Event {
    /// The resourceVersion that this write made.
    pub revision: i64,
    /// The kind of the object.
    pub kind: &'static Kind,
    /// Its namespace, or empty.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What happened.
    pub change: Change,
    /// The object after the write; for a deletion its last state with the new resourceVersion.
    pub body: Arc<str>,
    /// What selectors see of it.
    pub traits: Traits,
    /// What selectors saw before the write: an object can leave or enter a selection.
    pub previous: Option<Traits>,
}

impl Event {
    fn bytes(&self) -> usize {
        256 + self.body.len() + self.traits.bytes() + self.previous.as_ref().map_or(0, Traits::bytes)
    }
}

/// The events asked for are no longer there: the client has to list again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("version {asked} is outside of the history, which begins after {floor}")]
pub struct Gone {
    /// The version asked for.
    pub asked: i64,
    /// The oldest version from which a watch can go on.
    pub floor: i64,
}

struct Inner {
    events: VecDeque<Arc<Event>>,
    bytes: usize,
    /// A watch can go on from this version or a later one.
    floor: i64,
    latest: i64,
}

/// The last [`EVENTS_MAX`] events or [`BYTES_MAX`] bytes, whichever is less. A watch that falls behind is told so.
pub struct History {
    inner: RwLock<Inner>,
    latest: watch::Sender<i64>,
    events_max: usize,
    bytes_max: usize,
}

impl History {
    /// An empty history that begins after `revision`.
    pub fn new(revision: i64, events_max: usize, bytes_max: usize) -> Self {
        let inner = Inner { events: VecDeque::new(), bytes: 0, floor: revision, latest: revision };
        Self { inner: RwLock::new(inner), latest: watch::Sender::new(revision), events_max, bytes_max }
    }

    /// Appends committed events, in order, and wakes the watches.
    pub fn append(&self, events: Vec<Event>, revision: i64) {
        let mut inner = self.inner.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        for event in events {
            inner.bytes += event.bytes();
            inner.events.push_back(Arc::new(event));
        }
        inner.latest = revision;
        while inner.events.len() > self.events_max || inner.bytes > self.bytes_max {
            let Some(oldest) = inner.events.pop_front() else { break };
            inner.bytes -= oldest.bytes();
            inner.floor = oldest.revision;
        }
        drop(inner);
        self.latest.send_replace(revision);
    }

    /// Up to `max` events of `kind` after `revision`, and the version up to which that is everything.
    ///
    /// # Errors
    /// [`Gone`] when events after `revision` were dropped, or when `revision` is from another history.
    pub fn after(&self, revision: i64, kind: Option<&Kind>, max: usize) -> Result<(Vec<Arc<Event>>, i64), Gone> {
        let inner = self.inner.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        if revision < inner.floor {
            return Err(Gone { asked: revision, floor: inner.floor });
        }
        let start = inner.events.partition_point(|event| event.revision <= revision);
        let mut found = Vec::new();
        for event in inner.events.range(start..) {
            if kind.is_some_and(|kind| event.kind != kind) {
                continue;
            }
            if found.len() == max {
                let upto = event.revision - 1;
                return Ok((found, upto));
            }
            found.push(Arc::clone(event));
        }
        Ok((found, inner.latest.max(revision)))
    }

    /// Wakes at each append.
    pub fn subscribe(&self) -> watch::Receiver<i64> {
        self.latest.subscribe()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use serde_json::json;

    use super::*;
    use crate::embedded::kind;
    use crate::embedded::object::Object;

    fn event(revision: i64, kind: &'static Kind) -> Event {
        let traits = Traits::of(kind, &Object::new(json!({})).unwrap());
        let (namespace, name) = ("default".to_owned(), format!("x{revision}"));
        Event { revision, kind, namespace, name, change: Change::Added, body: "{}".into(), traits, previous: None }
    }

    #[test]
    fn a_watch_gets_the_events_of_its_kind_in_order() {
        let history = History::new(10, 100, 1 << 20);
        history.append(vec![event(11, &kind::PODS), event(12, &kind::NODES), event(13, &kind::PODS)], 13);
        let (events, upto) = history.after(10, Some(&kind::PODS), 100).unwrap();
        assert_eq!(events.iter().map(|event| event.revision).collect::<Vec<_>>(), [11, 13]);
        assert_eq!(upto, 13);
        let (events, upto) = history.after(10, Some(&kind::PODS), 1).unwrap();
        assert_eq!((events.len(), upto), (1, 12));
    }

    #[test]
    fn versions_that_fell_out_of_the_history_are_gone() {
        let history = History::new(0, 2, 1 << 20);
        history.append((1..=5).map(|revision| event(revision, &kind::PODS)).collect(), 5);
        assert_eq!(history.after(2, None, 10).unwrap_err(), Gone { asked: 2, floor: 3 });
        assert_eq!(history.after(3, None, 10).unwrap().0.len(), 2);
    }

    #[test]
    fn the_history_is_bounded_in_bytes() {
        let history = History::new(0, 1000, 1000);
        history.append((1..=50).map(|revision| event(revision, &kind::PODS)).collect(), 50);
        let held = history.after(49, None, 100).unwrap().0.len();
        assert_eq!(held, 1);
        assert!(history.after(1, None, 100).is_err());
    }
}
