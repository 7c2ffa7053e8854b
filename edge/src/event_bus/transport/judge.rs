//! What the fate of one session says about the next one: pure.
//!
//! A session in which the broker answered nothing although something waited for its answer was *barren*. After one, the
//! client is careful: it publishes one message at a time, and only on a connection that has stood for a while. So a
//! message that makes a broker close the connection is found among those that do not, and given up after it has ended
//! [`DEATHS_MAX`] sessions alone; a broker that drops or hangs whatever it is sent costs none.
//! After [`Patience::barren`](super::Patience::barren) barren sessions the next one starts clean, because what broker and library remember of the old
//! ones may be what stands in the way. That gives up what the broker keeps for us, and makes a message with QoS 2 go out
//! again that may have arrived; so it is the last resort, and a network that fails for a while must not lead to it.

use std::collections::BTreeSet;

/// Sessions that a message ends alone before it is given up.
const DEATHS_MAX: u32 = 3;

/// How a session went.
#[derive(Debug)]
pub(super) struct Session<'a> {
    /// All filters were subscribed.
    pub(super) subscribed: bool,
    /// A publication was answered.
    pub(super) answered: bool,
    /// Numbers of the publications that were not answered.
    pub(super) unanswered: &'a BTreeSet<u64>,
    /// The broker ended it, and not at once.
    pub(super) ended_by_broker_later: bool,
}

/// Judges sessions.
#[derive(Debug)]
pub(super) struct Judge {
    /// Barren sessions in a row before a clean one.
    barren_max: u32,
    barren: u32,
    careful: bool,
    /// A message with the sessions that it ended alone.
    suspect: Option<(u64, u32)>,
}

impl Judge {
    /// Suspects nobody.
    pub(super) fn new(barren_max: u32) -> Self {
        Self { barren_max, barren: 0, careful: false, suspect: None }
    }

    /// A session ended.
    pub(super) fn ended(&mut self, session: &Session<'_>) {
        if session.answered || (session.subscribed && session.unanswered.is_empty()) {
            self.barren = 0;
            return;
        }
        self.barren += 1;
        let mut waiting = session.unanswered.iter();
        if let (true, true, Some(number), None) = (self.careful, session.ended_by_broker_later, waiting.next(), waiting.next()) {
            let deaths = self.suspect.filter(|(suspect, _)| suspect == number).map_or(0, |(_, deaths)| deaths);
            self.suspect = Some((*number, deaths + 1));
        }
        self.careful |= !session.unanswered.is_empty();
    }

    /// A publication was answered: nothing is wrong with it, nor with the broker.
    pub(super) fn answered(&mut self) {
        *self = Self::new(self.barren_max);
    }

    /// Whether only one message may be on its way.
    pub(super) fn is_careful(&self) -> bool {
        self.careful
    }

    /// Whether the next session must forget the ones before it.
    pub(super) fn wants_clean(&self) -> bool {
        self.barren >= self.barren_max || self.suspect.is_some_and(|(_, deaths)| deaths >= DEATHS_MAX)
    }

    /// A clean session began.
    pub(super) fn began_clean(&mut self) {
        self.barren = 0;
    }

    /// Whether this message, which was not answered, is given up.
    pub(super) fn gives_up(&mut self, number: u64) -> bool {
        let poison = self.suspect.is_some_and(|(suspect, deaths)| suspect == number && deaths >= DEATHS_MAX);
        if poison {
            self.suspect = None;
        }
        poison
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BARREN_MAX: u32 = 3;

    fn end(judge: &mut Judge, numbers: &[u64], later: bool) {
        let unanswered = numbers.iter().copied().collect();
        judge.ended(&Session { subscribed: true, answered: false, unanswered: &unanswered, ended_by_broker_later: later });
    }

    #[test]
    fn a_message_that_ends_three_sessions_alone_is_given_up_and_the_next_one_is_innocent() {
        let mut judge = Judge::new(BARREN_MAX);
        end(&mut judge, &[1, 2, 3], true);
        assert!(judge.is_careful() && !judge.gives_up(1));
        for _ in 0..DEATHS_MAX {
            assert!(!judge.gives_up(2));
            end(&mut judge, &[2], true);
        }
        assert!(judge.wants_clean());
        judge.began_clean();
        assert!(!judge.gives_up(1) && judge.gives_up(2) && !judge.gives_up(2));
        end(&mut judge, &[3], true);
        assert!(!judge.gives_up(3));
    }

    #[test]
    fn a_broker_that_drops_at_once_or_hangs_costs_no_message() {
        let mut judge = Judge::new(BARREN_MAX);
        for round in 0..100 {
            end(&mut judge, &[7], false);
            assert!(!judge.gives_up(7));
            assert_eq!(judge.wants_clean(), round % BARREN_MAX == BARREN_MAX - 1, "{round}");
            if judge.wants_clean() {
                judge.began_clean();
            }
        }
    }

    #[test]
    fn an_answer_clears_everybody() {
        let mut judge = Judge::new(BARREN_MAX);
        for _ in 0..DEATHS_MAX {
            end(&mut judge, &[1], true);
        }
        judge.answered();
        assert!(!judge.is_careful() && !judge.wants_clean() && !judge.gives_up(1));
    }

    #[test]
    fn a_session_without_anything_to_answer_says_nothing_unless_it_was_not_even_subscribed() {
        let mut judge = Judge::new(BARREN_MAX);
        for _ in 0..10 {
            end(&mut judge, &[], true);
        }
        assert!(!judge.is_careful() && !judge.wants_clean());
        for _ in 0..BARREN_MAX {
            judge.ended(&Session { subscribed: false, answered: false, unanswered: &BTreeSet::new(), ended_by_broker_later: false });
        }
        assert!(judge.wants_clean() && !judge.is_careful());
    }
}
