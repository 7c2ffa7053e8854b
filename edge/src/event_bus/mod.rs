//! EventBus: MQTT in and out.

mod broker;
mod outbox;
mod transport;

pub use broker::{Broker, BrokerError};
pub use outbox::Publication;
pub use transport::{Endpoint, Figures, Inbound, Transport, TransportError, TransportGuard};
#[cfg(test)]
mod broker_tests;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod transport_tests;
