//! What EventBus knows: the way to the brokers, and in which forms devices listen.

use std::sync::Arc;

use actor::{Fence, chain};
use bytes::Bytes;
use log::{info, warn};
use wire::mqtt::Topic;

use super::PAYLOAD_BYTES_MAX;
use super::echo::Echoes;
use super::forms::Forms;
use super::ingress;
use super::outbox::Publication;
use super::transport::{Figures, Transport, TransportError};
use crate::store::{Store, StoreError, subscription};

/// The actor. It keeps nothing that a restart could lose: the queue is the transport's, and the cloud's subscriptions are in
/// the store.
pub struct EventBus {
    pub(super) transport: Transport,
    forms: Arc<Forms>,
    echoes: Arc<Echoes>,
    store: Store,
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
    pub fn new(transport: Transport, forms: Arc<Forms>, echoes: Arc<Echoes>, store: Store) -> Self {
        Self { transport, forms, echoes, store, too_large: 0 }
    }

    pub(super) fn publish(&mut self, topic: &Topic, payload: &Bytes) {
        if payload.len() > PAYLOAD_BYTES_MAX {
            self.too_large += 1;
            warn!(topic:% = topic, bytes = payload.len(), dropped = self.too_large; "a message is too large for MQTT and was dropped");
            return;
        }
        let (first, second) = self.forms.names(topic);
        let dropped: u64 = std::iter::once(first).chain(second).map(|name| self.hand_over(topic, name, payload)).sum();
        if dropped > 0 {
            // The transport says once per outage that the broker is away.
            log::debug!(dropped; "older messages made room: a broker is away");
        }
    }

    /// To every broker; returns how many older messages were dropped for it.
    fn hand_over(&self, topic: &Topic, name: String, payload: &Bytes) -> u64 {
        // No answer of ours is under a filter that is always subscribed, and what the cloud subscribed beside it is its own.
        let deliveries = if topic.is_answer() { 0 } else { self.transport.deliveries(&name) };
        self.echoes.published(topic, &name, payload, deliveries);
        self.transport.publish(Publication { topic: name, payload: payload.clone() })
    }

    /// Kept first, subscribed then: one that was answered for would else end with the next restart.
    pub(super) fn subscribe(&self, fence: &Fence, filter: &str) {
        let kept = self.transport.check(filter).map_err(SubscribeError::from).and_then(|()| {
            self.store.write(fence, |tx| subscription::add(tx, filter))?;
            self.transport.subscribe(filter)?;
            Ok(())
        });
        match kept {
            Ok(()) => info!(filter; "the cloud subscribed"),
            Err(error) => warn!(filter, error = chain(&error).as_str(); "the cloud's subscription was refused"),
        }
    }

    pub(super) fn unsubscribe(&self, fence: &Fence, filter: &str) {
        if let Err(error) = self.store.write(fence, |tx| subscription::remove(tx, filter)) {
            warn!(filter, error = chain(&error).as_str(); "the end of a subscription could not be stored; it comes back with the next start");
        }
        self.transport.unsubscribe(filter);
        info!(filter; "the cloud unsubscribed");
    }
}

/// Why a subscription of the cloud was refused.
#[derive(Debug, thiserror::Error)]
enum SubscribeError {
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error("it cannot be stored")]
    Store(#[from] StoreError),
}
