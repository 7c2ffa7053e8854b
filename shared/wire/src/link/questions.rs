//! Questions to the cloud that have no answer yet: each is answered once, by the cloud, its deadline, or the end of its session.

use std::collections::HashMap;

use super::SessionId;
use crate::hub::MsgId;

/// `T` is whoever waits for the answer.
#[derive(Debug)]
pub struct Questions<T>(HashMap<MsgId, Open<T>>);

#[derive(Debug)]
struct Open<T> {
    asker: T,
    session: SessionId,
    deadline: u64,
    within: u64,
}

impl<T> Default for Questions<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T> Questions<T> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A question went out in `session`, and may take `within` ms. Returns who asked one with the same id that is open still:
    /// its answer could not be told apart.
    pub fn asked(&mut self, id: MsgId, session: SessionId, now: u64, within: u64, asker: T) -> Option<T> {
        let open = Open { asker, session, deadline: now.saturating_add(within), within };
        self.0.insert(id, open).map(|older| older.asker)
    }

    /// Who waits for the answer to `id`; nobody does afterwards.
    pub fn answered(&mut self, id: &MsgId) -> Option<T> {
        self.0.remove(id).map(|open| open.asker)
    }

    /// The session is over: takes those who asked in it or before.
    pub fn ended(&mut self, session: SessionId) -> Vec<T> {
        self.0.extract_if(|_, open| open.session <= session).map(|(_, open)| open.asker).collect()
    }

    /// Takes those whose time is over, each with the ms that it had, and those who do not wait any more.
    pub fn overdue(&mut self, now: u64, waits: impl Fn(&T) -> bool) -> Vec<(T, u64)> {
        self.0.extract_if(|_, open| open.deadline <= now || !waits(&open.asker)).map(|(_, open)| (open.asker, open.within)).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    fn id(text: &str) -> MsgId {
        MsgId::new(text).unwrap()
    }

    #[test]
    fn a_question_ends_once_by_its_answer_its_deadline_or_its_session() {
        let mut questions = Questions::default();
        for (n, name) in ["answered", "overdue", "ended", "left", "abandoned"].into_iter().enumerate() {
            assert_eq!(questions.asked(id(name), if name == "left" { 2 } else { 1 }, 100, 10 * (n as u64 + 1), name), None);
        }
        assert_eq!(questions.answered(&id("answered")), Some("answered"));
        assert_eq!(questions.answered(&id("answered")), None);
        let mut taken = questions.overdue(120, |asker| *asker != "abandoned");
        taken.sort_unstable();
        assert_eq!(taken, [("abandoned", 50), ("overdue", 20)]);
        assert_eq!(questions.ended(1), ["ended"]);
        assert_eq!(questions.asked(id("left"), 3, 0, 1, "newer"), Some("left"), "an id that stands twice has one answer");
        assert_eq!((questions.len(), questions.ended(3)), (1, vec!["newer"]));
        assert!(questions.is_empty());
    }
}
