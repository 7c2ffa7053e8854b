//! What EventBus knows: the way to the brokers, and in which forms devices listen.

use std::sync::Arc;

use bytes::Bytes;
use log::{info, warn};
use wire::mqtt::Topic;

use super::PAYLOAD_BYTES_MAX;
use super::forms::Forms;
use super::ingress;
use super::outbox::Publication;
use super::transport::{Figures, Transport};

/// The actor. It keeps nothing that a restart could lose: queue and subscriptions are the transport's.
pub struct EventBus {
    pub(super) transport: Transport,
    forms: Arc<Forms>,
    too_large: u64,
}

/// What EventBus knows.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Snapshot {
    /// Each broker: whether it is connected, and what waits for it.
    pub brokers: Vec<Figures>,
    /// Topic filters that are subscribed at each.
    pub subscriptions: usize,
    /// What arrived and went no further.
    pub ingress: ingress::Figures,
}

impl EventBus {
    /// An incarnation over the running transport.
    pub fn new(transport: Transport, forms: Arc<Forms>) -> Self {
        Self { transport, forms, too_large: 0 }
    }

    pub(super) fn publish(&mut self, topic: &Topic, payload: &Bytes) {
        if payload.len() > PAYLOAD_BYTES_MAX {
            self.too_large += 1;
            warn!(topic:% = topic, bytes = payload.len(), dropped = self.too_large; "a message is too large for MQTT and was dropped");
            return;
        }
        let mut dropped = self.transport.publish(Publication { topic: topic.to_string(), payload: payload.clone() });
        if let Some(second) = self.forms.second(topic) {
            dropped += self.transport.publish(Publication { topic: second, payload: payload.clone() });
        }
        if dropped > 0 {
            // The transport says once per outage that the broker is away.
            log::debug!(dropped; "older messages made room: a broker is away");
        }
    }

    pub(super) fn subscribe(&self, filter: &str) {
        match self.transport.subscribe(filter) {
            Ok(()) => info!(filter; "the cloud subscribed"),
            Err(error) => warn!(error:% = error; "the cloud's subscription was refused"),
        }
    }

    pub(super) fn unsubscribe(&self, filter: &str) {
        self.transport.unsubscribe(filter);
        info!(filter; "the cloud unsubscribed");
    }
}
