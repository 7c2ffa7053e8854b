//! What waits to be published at one broker: bounded in messages and bytes, shared by the actor that
//! fills it and the transport that empties it.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

/// Messages that may wait for one broker.
pub const WAITING_MAX: usize = 4_096;
/// Payload bytes that may wait for one broker. One message is always taken, however large.
pub const WAITING_BYTES_MAX: usize = 8 << 20;

/// One message on its way to a broker. Quality of service and retain flag belong to the endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    /// Full topic name.
    pub topic: String,
    /// The body as it goes out.
    pub payload: Bytes,
}

/// A publication with its place in the queue.
#[derive(Debug, PartialEq, Eq)]
pub struct Queued {
    /// Grows by one with each message of this outbox.
    pub number: u64,
    /// How often the library gave it back while the connection stood.
    pub attempts: u32,
    /// What is to be published.
    pub publication: Publication,
}

impl Queued {
    fn bytes(&self) -> usize {
        self.publication.topic.len() + self.publication.payload.len()
    }
}

/// A bounded queue with one filler (EventBus) and one emptier (the transport's task).
#[derive(Debug, Default)]
pub struct Outbox {
    waiting: Mutex<Waiting>,
    filled: Notify,
    emptied: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    /// In the order of their numbers.
    queue: VecDeque<Queued>,
    bytes: usize,
    pushed: u64,
    dropped: u64,
}

impl Waiting {
    fn has_room(&self) -> bool {
        self.queue.len() < WAITING_MAX && self.bytes < WAITING_BYTES_MAX
    }
}

impl Outbox {
    /// Whether [`Outbox::push`] would drop nothing.
    pub fn has_room(&self) -> bool {
        self.lock().has_room()
    }

    /// Resolves when something was taken out. Check [`Outbox::has_room`] again afterwards.
    pub async fn emptied(&self) {
        self.emptied.notified().await;
    }

    /// Appends a message; without room the oldest ones go, because a newer document of a device
    /// replaces an older one. Returns how many went.
    pub fn push(&self, publication: Publication) -> u64 {
        let mut gone = 0;
        {
            let mut waiting = self.lock();
            while !waiting.has_room() {
                match waiting.queue.pop_front() {
                    Some(oldest) => waiting.bytes -= oldest.bytes(),
                    None => break,
                }
                gone += 1;
            }
            waiting.dropped += gone;
            waiting.pushed += 1;
            let queued = Queued { number: waiting.pushed, attempts: 0, publication };
            waiting.bytes += queued.bytes();
            waiting.queue.push_back(queued);
        }
        self.filled.notify_one();
        gone
    }

    /// Puts back what the broker did not get, at its old place. May exceed the bounds by the window of
    /// messages in flight.
    pub fn put_back(&self, queued: Queued) {
        let mut waiting = self.lock();
        waiting.bytes += queued.bytes();
        let place = waiting.queue.partition_point(|other| other.number < queued.number);
        waiting.queue.insert(place, queued);
        drop(waiting);
        self.filled.notify_one();
    }

    /// Takes the oldest message; waits for one.
    pub async fn take(&self) -> Queued {
        loop {
            if let Some(queued) = self.try_take() {
                return queued;
            }
            self.filled.notified().await;
        }
    }

    /// How many messages wait, and how many were dropped since the start.
    pub fn depth(&self) -> (usize, u64) {
        let waiting = self.lock();
        (waiting.queue.len(), waiting.dropped)
    }

    /// Takes the oldest message, if there is one.
    pub fn try_take(&self) -> Option<Queued> {
        let mut waiting = self.lock();
        let queued = waiting.queue.pop_front()?;
        waiting.bytes -= queued.bytes();
        drop(waiting);
        self.emptied.notify_one();
        Some(queued)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing in this file panics with the lock held, and a count off by one would harm nobody.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publication(number: usize, bytes: usize) -> Publication {
        Publication { topic: number.to_string(), payload: Bytes::from(vec![0; bytes]) }
    }

    fn taken(outbox: &Outbox) -> Queued {
        outbox.try_take().expect("something waits")
    }

    #[test]
    fn without_room_the_oldest_messages_go_and_are_counted() {
        let outbox = Outbox::default();
        for number in 0..WAITING_MAX {
            assert_eq!(outbox.push(publication(number, 1)), 0);
        }
        assert!(!outbox.has_room());
        assert_eq!(outbox.push(publication(WAITING_MAX, 1)), 1);
        assert_eq!(outbox.depth(), (WAITING_MAX, 1));
        assert_eq!(taken(&outbox).publication.topic, "1");
    }

    #[test]
    fn large_messages_fill_the_outbox_by_their_bytes() {
        let outbox = Outbox::default();
        for number in 0..8 {
            outbox.push(publication(number, 1 << 20));
        }
        assert!(!outbox.has_room());
        assert!(outbox.push(publication(8, 1 << 20)) >= 1);
        assert_eq!(outbox.push(publication(9, WAITING_BYTES_MAX * 2)), 1);
        assert!(!outbox.has_room());
        while outbox.try_take().is_some() {}
        assert_eq!(outbox.lock().bytes, 0);
    }

    #[test]
    fn what_the_broker_did_not_get_takes_its_old_place_again() {
        let outbox = Outbox::default();
        for number in 1..=4 {
            outbox.push(publication(number, 1));
        }
        let (first, second, third) = (taken(&outbox), taken(&outbox), taken(&outbox));
        outbox.put_back(second);
        outbox.put_back(third);
        outbox.put_back(first);
        let order: Vec<_> = (0..4).map(|_| taken(&outbox).publication.topic).collect();
        assert_eq!(order, ["1", "2", "3", "4"]);
    }
}
