//! EventBus: MQTT in and out.

mod broker;
mod message;
mod outbox;
mod transport;

pub use broker::{Broker, BrokerError};
pub use message::EventBusMessage;
pub use outbox::Publication;
pub use transport::{Endpoint, Figures, Inbound, Transport, TransportError, TransportGuard};
/// Largest payload that is published: an MQTT packet that the embedded broker still takes, whatever its topic.
pub const PAYLOAD_BYTES_MAX: usize = (1 << 20) - (66 << 10);

#[cfg(test)]
mod broker_tests;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod transport_tests;
