//! EdgeHub: the connection to the cloud.

mod backoff;
mod message;
mod socket;

pub use backoff::Backoff;
pub use message::{Answer, EdgeHubMessage, RequestError};
pub use socket::{Config as SocketConfig, Destination, Events, FRAME_BYTES_MAX, OfferError, Socket, SocketError};
#[cfg(test)]
mod socket_tests;
