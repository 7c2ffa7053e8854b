//! Faults made on purpose, for tests and for an operator's game day.

use std::time::Duration;

/// A fault that an actor is told to have. It strikes at the pump's next turn, outside of any transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drill {
    /// Panics at once, with nothing in hand.
    Panic,
    /// Panics with a message in hand, that many times; three times quarantine the first message.
    PanicInHand(u32),
    /// Blocks its thread until it is fenced, for that long at most.
    Hang(Duration),
    /// Waits that long before each batch, until another drill says otherwise; zero ends it.
    Slow(Duration),
}

impl Drill {
    /// Longest hang and longest pause that may be asked for.
    pub const LONGEST: Duration = Duration::from_secs(600);
    /// Most panics that one drill may ask for.
    pub const PANICS_MAX: u32 = 100;

    /// The same within its limits.
    #[must_use]
    pub fn bounded(self) -> Self {
        match self {
            Self::Panic => Self::Panic,
            Self::PanicInHand(times) => Self::PanicInHand(times.clamp(1, Self::PANICS_MAX)),
            Self::Hang(time) => Self::Hang(time.min(Self::LONGEST)),
            Self::Slow(time) => Self::Slow(time.min(Self::LONGEST)),
        }
    }
}

/// What last words say of a panic that was asked for.
pub(crate) const WORDS: &str = "fault drill: told to panic";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drill_is_bounded() {
        assert_eq!(Drill::PanicInHand(0).bounded(), Drill::PanicInHand(1));
        assert_eq!(Drill::PanicInHand(u32::MAX).bounded(), Drill::PanicInHand(Drill::PANICS_MAX));
        assert_eq!(Drill::Hang(Duration::MAX).bounded(), Drill::Hang(Drill::LONGEST));
        assert_eq!(Drill::Slow(Duration::ZERO).bounded(), Drill::Slow(Duration::ZERO));
    }
}
