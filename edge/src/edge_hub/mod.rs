//! EdgeHub: the connection to the cloud.

mod backoff;
mod socket;

pub use backoff::Backoff;
pub use socket::{Config as SocketConfig, Destination, Events, FRAME_BYTES_MAX, OfferError, Socket, SocketError};
#[cfg(test)]
mod socket_tests;
