//! Upstream: what the edges report about themselves and their pods.

mod message;

pub use message::UpstreamMessage;
pub(crate) use message::bytes_of;
