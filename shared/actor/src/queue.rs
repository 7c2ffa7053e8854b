//! The two halves of a mailbox: what senders fill, and what the actor works on. They meet when the second is empty.
//!
//! A sender takes only the lock of the [`Inbox`], for one push. The actor takes that lock once for all that has gathered
//! there, and works on its [`Desk`] under a lock that nobody else wants but the supervisor and the page. So a thread that
//! sends and one that handles hardly ever wait for each other.

use std::collections::VecDeque;
use std::ops::{Deref, Range};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;

use crate::mail::{Entry, MsgId};

/// Deaths that a message may cause before it goes to the quarantine.
pub(crate) const ATTEMPTS_MAX: u32 = 3;
/// Entries for which an idle mailbox keeps memory.
const KEPT_WHEN_IDLE: usize = 16;

/// A message in a queue: itself, or a share in a batch that was handed out and came back.
pub(crate) enum Item<M> {
    Own(Entry<M>),
    Shared(Arc<Batch<M>>, usize),
}

impl<M> Deref for Item<M> {
    type Target = Entry<M>;
    fn deref(&self) -> &Entry<M> {
        match self {
            Self::Own(entry) => entry,
            Self::Shared(batch, index) => batch.entry(*index),
        }
    }
}

/// Messages that are in hand together. It is shared by the lease and the mailbox, which hands it to the next incarnation
/// if this one dies; large or small, nothing in it is copied.
pub(crate) enum Batch<M> {
    One(Item<M>),
    Many(VecDeque<Item<M>>),
}

impl<M> Batch<M> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Many(items) => items.len(),
        }
    }

    fn item(&self, index: usize) -> &Item<M> {
        match self {
            Self::One(item) => item,
            Self::Many(items) => &items[index],
        }
    }

    pub(crate) fn entry(&self, index: usize) -> &Entry<M> {
        self.item(index)
    }

    pub(crate) fn entries(&self, range: Range<usize>) -> impl Iterator<Item = &Entry<M>> {
        range.map(|index| self.entry(index))
    }

    /// A share in one message. A share in a share is a share in the first batch, so that no chain grows.
    fn share(self: &Arc<Self>, index: usize) -> Item<M> {
        match self.item(index) {
            Item::Own(_) => Item::Shared(self.clone(), index),
            Item::Shared(first, at) => Item::Shared(first.clone(), *at),
        }
    }
}

/// What senders fill.
pub(crate) struct Inbox<M> {
    pub(crate) items: VecDeque<Item<M>>,
    pub(crate) waker: Option<Waker>,
    pub(crate) closed: bool,
    /// Messages taken since the mailbox was made.
    pub(crate) accepted: u64,
    /// Bytes taken since then, less those of settled messages.
    pub(crate) bytes: usize,
}

/// What the actor works on.
pub(crate) struct Desk<M> {
    pub(crate) waiting: VecDeque<Item<M>>,
    pub(crate) in_hand: Option<Arc<Batch<M>>>,
    /// What was in hand at the last death.
    pub(crate) blamed: Vec<MsgId>,
    /// What died too often and waits for its supervisor to bury it.
    pub(crate) doomed: Vec<Item<M>>,
    /// Permits of settled messages that are not yet given back.
    pub(crate) unreleased: usize,
    /// Messages settled, or doomed, since the mailbox was made.
    pub(crate) settled: u64,
}

/// Against whom the death of an actor is counted.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Blame {
    Nobody,
    First,
    All,
}

impl<M> Default for Inbox<M> {
    fn default() -> Self {
        Self { items: VecDeque::new(), waker: None, closed: false, accepted: 0, bytes: 0 }
    }
}

impl<M> Default for Desk<M> {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), in_hand: None, blamed: Vec::new(), doomed: Vec::new(), unreleased: 0, settled: 0 }
    }
}

impl<M> Inbox<M> {
    /// An idle mailbox gives the memory of its last flood back.
    pub(crate) fn tidy(&mut self) {
        if self.items.is_empty() {
            self.items.shrink_to(KEPT_WHEN_IDLE);
        }
    }
}

impl<M> Desk<M> {
    pub(crate) fn tidy(&mut self) {
        if self.waiting.is_empty() {
            self.waiting.shrink_to(KEPT_WHEN_IDLE);
        }
    }

    /// Takes up to `max` messages in hand. What was in hand at a death is handed out alone: so the message that kills is
    /// found.
    pub(crate) fn take(&mut self, max: usize) -> Option<Arc<Batch<M>>> {
        let suspect = |item: &Item<M>| item.attempts.load(Ordering::Relaxed) > 0;
        let first_alone = max == 1 || self.waiting.front().is_some_and(suspect);
        let batch = if first_alone || self.waiting.len() == 1 {
            Batch::One(self.waiting.pop_front()?)
        } else {
            // A share is the only form in which a message can be under suspicion.
            let trusted = |item: &Item<M>| matches!(item, Item::Own(_)) || !suspect(item);
            let count = self.waiting.iter().take(max).take_while(|item| trusted(item)).count();
            if count == 0 {
                return None;
            }
            if count == self.waiting.len() {
                Batch::Many(std::mem::take(&mut self.waiting))
            } else {
                Batch::Many(self.waiting.drain(..count).collect())
            }
        };
        let batch = Arc::new(batch);
        self.in_hand = Some(batch.clone());
        Some(batch)
    }

    /// Puts what a lease leaves behind back to the front; what died too often is doomed.
    pub(crate) fn put_back(&mut self, batch: &Arc<Batch<M>>, rest: Range<usize>, blame: Blame) {
        let first = rest.start;
        for index in rest.rev() {
            let entry = batch.entry(index);
            let blamed = match blame {
                Blame::Nobody => false,
                Blame::First => index == first,
                Blame::All => true,
            };
            if blamed {
                self.blamed.push(entry.meta.id);
            }
            if blamed && entry.attempts.fetch_add(1, Ordering::Relaxed) + 1 >= ATTEMPTS_MAX {
                self.doomed.push(batch.share(index));
                self.settled += 1;
            } else {
                self.waiting.push_front(batch.share(index));
            }
        }
    }
}
