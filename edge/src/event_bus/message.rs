//! What EventBus is told.

use actor::{Mail, brief};
use bytes::Bytes;
use wire::mqtt::Topic;

/// Everything that can make EventBus act. What arrives by MQTT does not come here: the border hands it to
/// Twin, Membership, Device and Communication directly.
#[derive(Debug)]
pub enum EventBusMessage {
    /// From Communication (what follows from a commit), from EdgeHub (the cloud's `publish`) and from the
    /// border (error results). Goes to every broker.
    Publish {
        /// Where.
        topic: Topic,
        /// What; at most [`super::PAYLOAD_BYTES_MAX`].
        payload: Bytes,
    },
    /// From EdgeHub: the cloud wants what is published under this filter (MQTT 3.1.1 §4.7), with QoS 1.
    Subscribe {
        /// Filter, not checked.
        filter: String,
    },
    /// From EdgeHub: the cloud no longer wants it.
    Unsubscribe {
        /// Filter, not checked.
        filter: String,
    },
    /// From the MQTT client: a connection stands and everything is subscribed.
    TransportUp {
        /// `internal` or `external`.
        endpoint: &'static str,
    },
    /// From the MQTT client: a connection is gone; it is made again without further ado.
    TransportDown {
        /// `internal` or `external`.
        endpoint: &'static str,
        /// Why.
        reason: String,
    },
}

impl Mail for EventBusMessage {
    fn kind(&self) -> &'static str {
        match self {
            Self::Publish { .. } => "Publish",
            Self::Subscribe { .. } => "Subscribe",
            Self::Unsubscribe { .. } => "Unsubscribe",
            Self::TransportUp { .. } => "TransportUp",
            Self::TransportDown { .. } => "TransportDown",
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::Publish { topic, payload } => format!("Publish of {} bytes on `{}`", payload.len(), brief(&topic.to_string())),
            Self::Subscribe { filter } => format!("Subscribe `{}`", brief(filter)),
            Self::Unsubscribe { filter } => format!("Unsubscribe `{}`", brief(filter)),
            Self::TransportUp { endpoint } => format!("TransportUp {endpoint}"),
            Self::TransportDown { endpoint, reason } => format!("TransportDown {endpoint}: {}", brief(reason)),
        }
    }

    fn bytes(&self) -> usize {
        128 + match self {
            Self::Publish { payload, .. } => 128 + payload.len(),
            Self::Subscribe { filter } | Self::Unsubscribe { filter } => filter.len(),
            Self::TransportUp { .. } => 0,
            Self::TransportDown { reason, .. } => reason.len(),
        }
    }
}
