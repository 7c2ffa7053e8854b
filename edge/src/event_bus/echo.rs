//! Our own messages that a broker brings back.
//!
//! Nothing that this daemon publishes makes it act: KubeEdge's embedded broker has it so (`eventbus/mqtt/server.go`), MQTT
//! 5 calls it No Local, and MQTT 3.1.1 has no word for it. Two ways lead back here:
//!
//! - The cloud publishes on a topic that is subscribed (`x/user/y`, say, or one that it subscribed itself). The broker
//!   delivers it to us as to everybody. One delivery per broker and publication is passed over; a device that publishes the
//!   same on the same topic is heard.
//! - A bridge brings what we publish back under another topic, and a result read as a request makes another result, for
//!   ever. So a *request* of a device whose body is, byte for byte, that of an answer of ours of the last minute is passed
//!   over. Answers carry a time and mostly an id: no mapper says the same by chance.

use std::collections::VecDeque;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use wire::mqtt::Topic;

/// A message that comes back later is not known any more.
const REMEMBERED_FOR: Duration = Duration::from_secs(60);
/// Bodies remembered: 64 KiB. A new one takes the place of an old one.
const BODIES: usize = 8_192;
/// Publications on subscribed topics that are awaited.
const AWAITED_MAX: usize = 1_024;

/// What was published lately; shared by the actor, which publishes, and the border, which hears.
#[derive(Debug)]
pub struct Echoes {
    hasher: RandomState,
    started: Instant,
    /// Each: 48 bits of a body's hash, and 16 bits of the second in which it was published.
    bodies: Box<[AtomicU64]>,
    awaited: Mutex<VecDeque<Awaited>>,
}

#[derive(Debug)]
struct Awaited {
    hash: u64,
    until: Instant,
    deliveries: usize,
}

impl Default for Echoes {
    fn default() -> Self {
        let bodies = (0..BODIES).map(|_| AtomicU64::new(0)).collect();
        Self { hasher: RandomState::new(), started: Instant::now(), bodies, awaited: Mutex::default() }
    }
}

impl Echoes {
    /// Remembers what goes out under this name. `deliveries`: how many brokers will bring it back, because it is subscribed
    /// there.
    pub fn published(&self, topic: &Topic, name: &str, payload: &[u8], deliveries: usize) {
        self.published_at(topic, name, payload, deliveries, Instant::now());
    }

    /// Whether what arrived is one of ours.
    pub fn is_echo(&self, topic: &Topic, name: &str, payload: &[u8]) -> bool {
        self.is_echo_at(topic, name, payload, Instant::now())
    }

    fn published_at(&self, topic: &Topic, name: &str, payload: &[u8], deliveries: usize, now: Instant) {
        if topic.is_answer() {
            let body = self.hasher.hash_one(payload);
            self.slot(body).store(self.stamped(body, now), Ordering::Relaxed);
        }
        if deliveries == 0 {
            return;
        }
        let mut awaited = self.awaited();
        while awaited.len() >= AWAITED_MAX || awaited.front().is_some_and(|oldest| oldest.until <= now) {
            awaited.pop_front();
        }
        awaited.push_back(Awaited { hash: self.hasher.hash_one((name, payload)), until: now + REMEMBERED_FOR, deliveries });
    }

    fn is_echo_at(&self, topic: &Topic, name: &str, payload: &[u8], now: Instant) -> bool {
        // Of a request the body alone decides, under whatever topic it comes back.
        if topic.is_request() {
            let body = self.hasher.hash_one(payload);
            let known = self.slot(body).load(Ordering::Relaxed);
            let age = (self.second(now).wrapping_sub(known)) & 0xffff;
            if known >> 16 == body >> 16 && age <= REMEMBERED_FOR.as_secs() {
                return true;
            }
        }
        let mut awaited = self.awaited();
        if awaited.is_empty() {
            return false;
        }
        let hash = self.hasher.hash_one((name, payload));
        let Some(at) = awaited.iter().position(|one| one.hash == hash && one.until > now) else { return false };
        awaited[at].deliveries -= 1;
        if awaited[at].deliveries == 0 {
            awaited.remove(at);
        }
        true
    }

    fn slot(&self, body: u64) -> &AtomicU64 {
        // The low bits, which the stamp takes the place of in the slot itself.
        &self.bodies[body as usize % BODIES]
    }

    fn second(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.started).as_secs() & 0xffff
    }

    fn stamped(&self, body: u64, now: Instant) -> u64 {
        body & !0xffff | self.second(now)
    }

    fn awaited(&self) -> std::sync::MutexGuard<'_, VecDeque<Awaited>> {
        self.awaited.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    const REQUEST: &str = "$hw/events/device/lamp/twin/update";
    const RESULT: &str = "$hw/events/device/lamp/twin/update/result";

    struct World(Echoes, Instant);

    impl World {
        fn new() -> Self {
            let echoes = Echoes::default();
            let now = echoes.started;
            Self(echoes, now)
        }

        fn publish(&self, name: &str, body: &str, deliveries: usize) {
            self.0.published_at(&Topic::parse(name).unwrap(), name, body.as_bytes(), deliveries, self.1);
        }

        fn hears(&self, name: &str, body: &str, after: Duration) -> bool {
            !self.0.is_echo_at(&Topic::parse(name).unwrap(), name, body.as_bytes(), self.1 + after)
        }
    }

    const AT_ONCE: Duration = Duration::ZERO;

    #[test]
    fn a_result_that_comes_back_as_a_request_is_passed_over_however_often_for_a_minute() {
        let world = World::new();
        world.publish(RESULT, "body", 0);
        for _ in 0..100 {
            assert!(!world.hears(REQUEST, "body", AT_ONCE));
        }
        assert!(!world.hears("$hw/events/node/n/membership/get", "body", REMEMBERED_FOR));
        assert!(world.hears(REQUEST, "body", REMEMBERED_FOR + Duration::from_secs(1)));
        assert!(world.hears(REQUEST, "another body", AT_ONCE));
        assert!(world.hears("house/user/x", "body", AT_ONCE), "what goes to the cloud may say the same on another topic");
    }

    #[test]
    fn what_the_cloud_publishes_makes_no_request_with_the_same_body_an_echo() {
        let world = World::new();
        world.publish("any/topic", "{}", 0);
        assert!(world.hears("$hw/events/device/lamp/twin/get", "{}", AT_ONCE));
        world.publish(REQUEST, "{}", 1);
        assert!(!world.hears(REQUEST, "{}", AT_ONCE), "on the very topic it is our own, once");
        assert!(world.hears(REQUEST, "{}", AT_ONCE));
    }

    #[test]
    fn of_a_publication_on_a_subscribed_topic_one_delivery_per_broker_is_passed_over() {
        let world = World::new();
        world.publish("house/user/lamp", "on", 2);
        assert!(world.hears("house/user/fan", "on", AT_ONCE));
        assert!(world.hears("house/user/lamp", "off", AT_ONCE));
        assert!(!world.hears("house/user/lamp", "on", AT_ONCE));
        assert!(!world.hears("house/user/lamp", "on", AT_ONCE));
        assert!(world.hears("house/user/lamp", "on", AT_ONCE), "the third is a device's");
        world.publish("house/user/lamp", "on", 1);
        assert!(world.hears("house/user/lamp", "on", REMEMBERED_FOR), "it never came back, and later it is a device's");
    }

    #[test]
    fn the_memory_is_bounded() {
        let world = World::new();
        for number in 0..100_000 {
            world.publish("a/user", &number.to_string(), 1);
        }
        assert_eq!(world.0.awaited().len(), AWAITED_MAX);
        assert!(!world.hears("a/user", "99999", AT_ONCE) && world.hears("a/user", "0", AT_ONCE));
        assert_eq!(world.0.bodies.len(), BODIES);
    }

    #[test]
    fn the_clock_of_the_memory_may_wrap() {
        let mut world = World::new();
        world.1 += Duration::from_secs(65_530);
        world.publish(RESULT, "body", 0);
        assert!(!world.hears(REQUEST, "body", Duration::from_secs(30)));
        assert!(world.hears(REQUEST, "body", Duration::from_secs(100)));
    }
}
