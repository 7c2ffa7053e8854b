//! Fairness at the door of the embedded broker: how much of one client may be on its way to durable.
//!
//! A request takes credits where the broker reads it and gives them back when its module has settled it, so a client that
//! sends faster than the modules work waits at its own socket: the broker reads no further from it. Of all clients
//! together no more is on its way than the modules' mailboxes hold, and those that wait are served in turn, each with one
//! request. So a flood neither fills a mailbox for others nor makes anything of theirs be dropped.
//!
//! Between broker and border the request goes through the broker's router, which carries no name of its sender. Its credits
//! wait here under its topic meanwhile; the next request of that topic that arrives takes them. Two clients that speak for
//! one device may so give back each other's, which changes nothing in sum.

use std::collections::VecDeque;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wire::mqtt::SUBSCRIBE_FILTERS;
use wire::mqtt::filter::matches;

/// Credits of one connection. A request takes one for each [`BYTES_PER_CREDIT`] that it has begun: 64 small requests, or
/// one of a megabyte.
pub const CLIENT_CREDITS: u32 = 64;
/// Bytes of payload that one credit stands for.
pub const BYTES_PER_CREDIT: usize = 16 << 10;
/// What has not arrived by then never will (QoS 2 that was not released): its credits go
/// back.
const LOST_AFTER: Duration = Duration::from_secs(5);

/// The credits of all clients of the embedded broker.
#[derive(Debug)]
pub struct Credits {
    total: u32,
    all: Arc<Semaphore>,
    hasher: RandomState,
    on_the_way: Mutex<VecDeque<Sent>>,
}

/// Credits that a request holds until it is dropped with the request's header.
#[derive(Debug)]
pub struct Credit {
    _own: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

#[derive(Debug)]
struct Sent {
    topic: u64,
    at: Instant,
    credit: Credit,
}

impl Credits {
    /// Credits for all clients together: as many as messages may be in hand, below what one mailbox holds.
    pub fn new(in_hand: usize) -> Arc<Self> {
        let total = u32::try_from(in_hand).unwrap_or(u32::MAX).clamp(1, 1 << 20);
        Arc::new(Self { total, all: Arc::new(Semaphore::new(total as usize)), hasher: RandomState::new(), on_the_way: Mutex::default() })
    }

    /// The purse of one connection.
    pub fn purse(self: &Arc<Self>) -> Purse {
        Purse { own: Arc::new(Semaphore::new(CLIENT_CREDITS as usize)), credits: self.clone() }
    }

    /// Takes the credits of a request that has arrived at the border. `None` for what came another way: from an external
    /// broker, or as a last will.
    pub fn arrived(&self, topic: &str) -> Option<Credit> {
        let topic = self.hasher.hash_one(topic);
        let mut on_the_way = self.on_the_way();
        // Requests arrive in the order in which they were sent, but for those of another QoS: it is at the front.
        let index = on_the_way.iter().position(|sent| sent.topic == topic)?;
        on_the_way.remove(index).map(|sent| sent.credit)
    }

    fn sent(&self, topic: &str, credit: Credit) {
        let sent = Sent { topic: self.hasher.hash_one(topic), at: Instant::now(), credit };
        self.on_the_way().push_back(sent);
    }

    fn forget_lost(&self, now: Instant) {
        let mut on_the_way = self.on_the_way();
        while on_the_way.front().is_some_and(|sent| now.duration_since(sent.at) >= LOST_AFTER) {
            on_the_way.pop_front();
        }
    }

    fn on_the_way(&self) -> std::sync::MutexGuard<'_, VecDeque<Sent>> {
        self.on_the_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one connection may have on its way.
#[derive(Debug)]
pub struct Purse {
    own: Arc<Semaphore>,
    credits: Arc<Credits>,
}

impl Purse {
    /// Waits until this connection may send a message of that size on, and notes that it is on its way. Returns at once
    /// for what is no request: it meets no mailbox of ours.
    pub async fn pay(&self, topic: &str, bytes: usize) {
        if !SUBSCRIBE_FILTERS.iter().any(|filter| matches(filter, topic)) {
            return;
        }
        let price = price(bytes).min(self.credits.total);
        let own = self.take(&self.own, price).await;
        let all = self.take(&self.credits.all, price).await;
        if let (Some(own), Some(all)) = (own, all) {
            self.credits.sent(topic, Credit { _own: own, _all: all });
        }
    }

    /// In turn with the others that wait. `None` never happens: these semaphores are not closed.
    async fn take(&self, from: &Arc<Semaphore>, price: u32) -> Option<OwnedSemaphorePermit> {
        if let Ok(permit) = from.clone().try_acquire_many_owned(price) {
            return Some(permit);
        }
        loop {
            match tokio::time::timeout(LOST_AFTER, from.clone().acquire_many_owned(price)).await {
                Ok(permit) => return permit.ok(),
                Err(_) => self.credits.forget_lost(Instant::now()),
            }
        }
    }
}

fn price(bytes: usize) -> u32 {
    let begun = bytes.div_ceil(BYTES_PER_CREDIT).max(1);
    u32::try_from(begun).unwrap_or(CLIENT_CREDITS).min(CLIENT_CREDITS)
}
