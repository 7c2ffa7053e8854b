//! The answer to a message, promised inside the message.

use std::sync::{Mutex, PoisonError};

use tokio::sync::oneshot;

/// Answers the message that carries it, once; the type of the answer is checked (beehive's `SendResp`, manual ch. 6.6.6).
///
/// A `Reply` that is dropped unanswered fails its asker at once with [`AskError::Dropped`].
#[derive(Debug)]
pub struct Reply<T>(Mutex<Option<oneshot::Sender<T>>>);

impl<T> Reply<T> {
    /// A reply and the future of its answer.
    #[must_use]
    pub fn channel() -> (Self, oneshot::Receiver<T>) {
        let (tx, rx) = oneshot::channel();
        (Self(Mutex::new(Some(tx))), rx)
    }

    /// Answers. `false` if it was answered already or nobody waits any more.
    ///
    /// By reference, because a message in a [`crate::Lease`] is only lent: after a panic it is handed out again.
    pub fn send(&self, value: T) -> bool {
        let sender = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        sender.is_some_and(|s| s.send(value).is_ok())
    }

    /// Moves the promise out of a message that is only lent, for an answer that comes after the handler has returned.
    /// What stays behind answers nobody.
    #[must_use]
    pub fn take(&self) -> Self {
        Self(Mutex::new(self.0.lock().unwrap_or_else(PoisonError::into_inner).take()))
    }

    /// Whether somebody still waits for the answer.
    pub fn is_wanted(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).as_ref().is_some_and(|s| !s.is_closed())
    }
}

/// Why a question stayed without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// The actor is stopping and takes no message.
    #[error("the mailbox is closed")]
    Closed,
    /// The question was dropped unanswered: refused, quarantined, or its handler gave up.
    #[error("the question was dropped unanswered")]
    Dropped,
    /// No answer, or no room for the question, within the deadline.
    #[error("no answer within the deadline")]
    Deadline,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    #[test]
    fn a_promise_that_was_taken_out_answers_and_what_stays_behind_does_not() {
        let (reply, mut answer) = Reply::channel();
        let taken = reply.take();
        assert!(!reply.send(1) && !reply.is_wanted());
        drop(reply);
        assert!(taken.send(2));
        assert_eq!(answer.try_recv().unwrap(), 2);
    }
}
