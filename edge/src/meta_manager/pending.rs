//! Events that the cloud has not confirmed: pure.
//!
//! In memory only. An Event is told so that somebody may look at it, and is worth less than a write to flash: what a
//! restart of the daemon or of MetaManager loses is told again when it happens again.

use std::collections::BTreeMap;

use model::{ResourceKey, Timestamp};
use wire::hub::{MsgId, RawJson};

/// Most Events that wait; of more the one that waits longest goes.
pub const EVENTS_MAX: usize = 256;
/// Most bytes of them.
pub const EVENTS_BYTES_MAX: usize = 512 * 1024;
/// Messages on their way at a time, so that Events leave room for statuses.
pub const IN_FLIGHT_MAX: usize = 16;
/// After so long without an answer an Event is sent again, in milliseconds.
const AGAIN_MS: i64 = 60_000;
/// Times that an Event stays without an answer; with [`AGAIN_MS`] it is an hour, as long as Kubernetes keeps an Event.
const UNANSWERED_MAX: u32 = 60;

/// The newest state of one Event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingEvent {
    /// `{namespace}/event/{name}`.
    pub key: ResourceKey,
    /// An earlier state of it went to the cloud.
    pub is_update: bool,
    /// The Event.
    pub object: RawJson,
    /// The message by which it came.
    pub cause: actor::MsgId,
}

#[derive(Debug)]
struct One {
    event: PendingEvent,
    /// Place in the queue.
    place: u64,
    /// Where it is on its way.
    sent: Option<(MsgId, Timestamp)>,
    unanswered: u32,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Pending {
    events: BTreeMap<ResourceKey, One>,
    bytes: usize,
    places: u64,
    dropped: u64,
}

impl Pending {
    /// Keeps the state of an Event in the place of an earlier one.
    pub fn put(&mut self, event: PendingEvent) {
        let place = match self.remove(&event.key) {
            Some(earlier) => earlier.place,
            None => self.next_place(),
        };
        let bytes = event.object.len();
        while !self.events.is_empty() && (self.events.len() >= EVENTS_MAX || self.bytes + bytes > EVENTS_BYTES_MAX) {
            self.drop_first();
        }
        self.bytes += bytes;
        self.events.insert(event.key.clone(), One { event, place, sent: None, unanswered: 0 });
    }

    /// What is to be sent now, the longest waiting first, as long as there is room for messages on their way.
    pub fn due(&mut self, now: Timestamp) -> Vec<PendingEvent> {
        self.expire(now);
        let on_their_way = self.in_flight();
        let mut waiting: Vec<&One> = self.events.values().filter(|one| one.sent.is_none()).collect();
        waiting.sort_by_key(|one| one.place);
        waiting.into_iter().take(IN_FLIGHT_MAX.saturating_sub(on_their_way)).map(|one| one.event.clone()).collect()
    }

    /// It went out. A cloud that does not confirm Events (KubeEdge's) has heard it then, or never will.
    pub fn sent(&mut self, key: &ResourceKey, id: MsgId, now: Timestamp, is_confirmed: bool) {
        if !is_confirmed {
            self.remove(key);
        } else if let Some(one) = self.events.get_mut(key) {
            one.sent = Some((id, now));
        }
    }

    /// The cloud has settled that message, for good or ill. A newer state that has come since is still open. `false` for one
    /// that is not on its way.
    pub fn settled(&mut self, id: &MsgId) -> bool {
        let key = self.events.iter().find(|(_, one)| one.sent.as_ref().is_some_and(|(sent, _)| sent == id)).map(|(key, _)| key.clone());
        key.and_then(|key| self.remove(&key)).is_some()
    }

    /// A session ends or begins: what was on its way is not any more.
    pub fn forget_sent(&mut self) {
        self.events.values_mut().for_each(|one| one.sent = None);
    }

    /// Events that are kept.
    pub fn count(&self) -> usize {
        self.events.len()
    }

    /// Events that went without having reached the cloud, since the start.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    fn in_flight(&self) -> usize {
        self.events.values().filter(|one| one.sent.is_some()).count()
    }

    /// What stays without an answer goes to the end of the queue, and at last away.
    fn expire(&mut self, now: Timestamp) {
        // A clock that was set back ends the wait too.
        let is_fresh = |at: Timestamp| (0..AGAIN_MS).contains(&now.millis().saturating_sub(at.millis()));
        let late = |one: &One| one.sent.as_ref().is_some_and(|(_, at)| !is_fresh(*at));
        let mut keys: Vec<(u64, ResourceKey)> = self.events.iter().filter(|(_, one)| late(one)).map(|(key, one)| (one.place, key.clone())).collect();
        keys.sort();
        for (_, key) in keys {
            let place = self.next_place();
            let Some(one) = self.events.get_mut(&key) else { continue };
            (one.sent, one.place, one.unanswered) = (None, place, one.unanswered + 1);
            if one.unanswered >= UNANSWERED_MAX {
                self.dropped += 1;
                self.remove(&key);
            }
        }
    }

    fn next_place(&mut self) -> u64 {
        self.places += 1;
        self.places
    }

    fn drop_first(&mut self) {
        let first = self.events.values().min_by_key(|one| one.place).map(|one| one.event.key.clone());
        if let Some(key) = first {
            self.dropped += 1;
            self.remove(&key);
        }
    }

    fn remove(&mut self, key: &ResourceKey) -> Option<One> {
        let one = self.events.remove(key)?;
        self.bytes -= one.event.object.len();
        Some(one)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    fn event(name: usize, state: &str) -> PendingEvent {
        let key = format!("default/event/web.{name:04}").parse().unwrap();
        PendingEvent { key, is_update: false, object: RawJson::from_str_value(state), cause: actor::MsgId::fresh() }
    }

    fn id(text: &str) -> MsgId {
        MsgId::new(text).unwrap()
    }

    fn states(due: &[PendingEvent]) -> Vec<String> {
        due.iter().map(|event| event.object.as_string().unwrap()).collect()
    }

    /// Sends what is due under its state and the time as id.
    fn send(pending: &mut Pending, now: i64) -> Vec<String> {
        let due = pending.due(Timestamp(now));
        for event in &due {
            pending.sent(&event.key, id(&format!("{}@{now}", event.object.as_string().unwrap())), Timestamp(now), true);
        }
        states(&due)
    }

    #[test]
    fn an_event_is_sent_until_exactly_its_newest_state_is_confirmed() {
        let mut pending = Pending::default();
        pending.put(event(1, "a"));
        assert_eq!(send(&mut pending, 0), ["a"]);
        assert!(pending.due(Timestamp(AGAIN_MS - 1)).is_empty(), "it is on its way");
        pending.put(event(1, "b"));
        assert_eq!(send(&mut pending, 5), ["b"]);
        assert!(!pending.settled(&id("a@0")), "of an earlier state");
        assert!(pending.settled(&id("b@5")) && !pending.settled(&id("b@5")) && pending.count() == 0);
    }

    #[test]
    fn a_new_session_a_silent_cloud_and_a_clock_set_back_let_it_be_sent_again() {
        let mut pending = Pending::default();
        pending.put(event(1, "a"));
        assert_eq!(send(&mut pending, 0), ["a"]);
        pending.forget_sent();
        assert_eq!(send(&mut pending, 1), ["a"]);
        assert_eq!(send(&mut pending, 1 + AGAIN_MS), ["a"]);
        assert_eq!(send(&mut pending, -5), ["a"]);
        assert!(pending.settled(&id("a@-5")));
    }

    #[test]
    fn an_event_that_nobody_ever_answers_is_given_up() {
        let mut pending = Pending::default();
        pending.put(event(1, "a"));
        let sent = (0..2 * i64::from(UNANSWERED_MAX)).filter(|n| !send(&mut pending, n * AGAIN_MS).is_empty()).count();
        assert_eq!((sent, pending.count(), pending.dropped()), (UNANSWERED_MAX as usize, 0, 1));
        pending.put(event(2, "b"));
        pending.sent(&event(2, "b").key, id("x"), Timestamp(0), false);
        assert!(pending.count() == 0, "a cloud of KubeEdge's is told once");
    }

    #[test]
    fn few_are_on_their_way_at_a_time_and_those_that_wait_longest_go_first() {
        let mut pending = Pending::default();
        for n in (0..40).rev() {
            pending.put(event(n, &n.to_string()));
        }
        let first = send(&mut pending, 0);
        assert_eq!((first.len(), first[0].as_str()), (IN_FLIGHT_MAX, "39"));
        assert!(send(&mut pending, 1).is_empty());
        assert!(pending.settled(&id("39@0")) && pending.settled(&id("30@0")));
        assert_eq!(send(&mut pending, 2), ["23", "22"]);
        // Without an answer those that never had their turn come before the others.
        assert_eq!(send(&mut pending, 10 * AGAIN_MS)[0], "21");
    }

    #[test]
    fn number_and_bytes_have_a_limit_and_the_longest_waiting_goes() {
        let mut pending = Pending::default();
        for n in 0..EVENTS_MAX + 3 {
            pending.put(event(n, &n.to_string()));
        }
        assert_eq!((pending.count(), pending.dropped(), states(&pending.due(Timestamp(0)))[0].as_str()), (EVENTS_MAX, 3, "3"));
        let large = "x".repeat(16 * 1024 - 2);
        for n in 0..100 {
            pending.put(event(1000 + n, &large));
        }
        assert_eq!((pending.count(), pending.bytes), (32, EVENTS_BYTES_MAX));
        pending.put(event(1099, "short"));
        assert_eq!((pending.count(), pending.bytes), (32, EVENTS_BYTES_MAX - 16 * 1024 + 7), "its own earlier state makes room");
    }
}
