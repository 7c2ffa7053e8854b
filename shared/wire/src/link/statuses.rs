//! Which statuses of pods the cloud has confirmed in this session.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use model::ResourceKey;

use crate::hub::MsgId;

/// Messages whose confirmation is awaited; the oldest is given up first.
pub const IN_FLIGHT_MAX: usize = 1024;

/// Forgotten at each connect: then everything is sent.
#[derive(Debug, Default)]
pub struct Statuses {
    in_flight: VecDeque<(MsgId, Vec<(ResourceKey, u64)>)>,
    confirmed: HashMap<ResourceKey, u64>,
}

fn digest(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

impl Statuses {
    /// A message with these statuses went out.
    pub fn sent(&mut self, id: MsgId, statuses: impl IntoIterator<Item = (ResourceKey, String)>) {
        if self.in_flight.len() >= IN_FLIGHT_MAX {
            self.in_flight.pop_front();
        }
        self.in_flight.push_back((id, statuses.into_iter().map(|(key, text)| (key, digest(&text))).collect()));
    }

    /// The cloud has settled that message, for good or ill: it is not sent again as it is. `false` for one that is not on its
    /// way.
    ///
    /// Of several messages about one pod the last one sent counts, in whatever order they are confirmed.
    pub fn settled(&mut self, id: &MsgId) -> bool {
        let Some(index) = self.in_flight.iter().position(|(sent, _)| sent == id) else { return false };
        let Some((_, statuses)) = self.in_flight.remove(index) else { return false };
        let later: HashSet<&ResourceKey> = self.in_flight.iter().skip(index).flat_map(|(_, later)| later.iter().map(|(key, _)| key)).collect();
        let last: Vec<_> = statuses.into_iter().filter(|(key, _)| !later.contains(key)).collect();
        for (_, earlier) in self.in_flight.iter_mut().take(index) {
            earlier.retain(|(key, _)| last.iter().all(|(settled, _)| settled != key));
        }
        self.confirmed.extend(last);
        true
    }

    /// Messages that are on their way.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// A session begins.
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    /// Whether the cloud still has to hear this.
    pub fn is_open(&self, key: &ResourceKey, text: &str) -> bool {
        self.confirmed.get(key) != Some(&digest(text))
    }

    /// Drops what is not stored any more.
    pub fn keep<'a>(&mut self, stored: impl Iterator<Item = &'a ResourceKey> + Clone) {
        if self.confirmed.len() > stored.clone().count() {
            let stored: HashSet<&ResourceKey> = stored.collect();
            self.confirmed.retain(|key, _| stored.contains(key));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    fn key(text: &str) -> ResourceKey {
        text.parse().unwrap()
    }

    fn id(text: &str) -> MsgId {
        MsgId::new(text).unwrap()
    }

    #[test]
    fn a_status_is_open_until_exactly_it_is_confirmed() {
        let (mut statuses, web) = (Statuses::default(), key("default/podstatus/web"));
        assert!(statuses.is_open(&web, "Pending"));
        statuses.sent(id("1"), [(web.clone(), "Pending".into())]);
        assert!(statuses.is_open(&web, "Pending"));
        assert!(statuses.settled(&id("1")) && !statuses.settled(&id("1")));
        assert!(!statuses.is_open(&web, "Pending") && statuses.is_open(&web, "Running"));
        statuses.forget();
        assert!(statuses.is_open(&web, "Pending"));
    }

    #[test]
    fn an_earlier_message_that_is_confirmed_late_moves_nothing_back() {
        let (mut statuses, web) = (Statuses::default(), key("default/podstatus/web"));
        statuses.sent(id("1"), [(web.clone(), "Pending".into())]);
        statuses.sent(id("2"), [(web.clone(), "Running".into())]);
        assert!(statuses.settled(&id("1")));
        assert!(statuses.is_open(&web, "Pending") && statuses.is_open(&web, "Running"), "the second is on its way");
        assert!(statuses.settled(&id("2")));
        assert!(!statuses.is_open(&web, "Running"));
        statuses.sent(id("3"), [(web.clone(), "Failed".into())]);
        statuses.sent(id("4"), [(web.clone(), "Succeeded".into())]);
        assert!(statuses.settled(&id("4")) && statuses.settled(&id("3")));
        assert!(!statuses.is_open(&web, "Succeeded"));
    }

    #[test]
    fn what_is_not_stored_any_more_is_forgotten_and_the_oldest_message_is_given_up() {
        let mut statuses = Statuses::default();
        for n in 0..=IN_FLIGHT_MAX {
            statuses.sent(id(&format!("m{n}")), [(key(&format!("default/podstatus/p{n}")), "x".into())]);
        }
        assert_eq!(statuses.in_flight(), IN_FLIGHT_MAX);
        assert!(!statuses.settled(&id("m0")) && statuses.settled(&id("m1")) && statuses.settled(&id("m2")));
        let kept = [key("default/podstatus/p2")];
        statuses.keep(kept.iter());
        assert!(statuses.is_open(&key("default/podstatus/p1"), "x") && !statuses.is_open(&kept[0], "x"));
    }
}
