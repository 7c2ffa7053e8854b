//! The link between CloudHub and EdgeHub.

pub mod codec;
pub mod downstream;
pub mod envelope;
pub mod frame;
pub mod outbox;
pub mod resource;
#[cfg(test)]
mod tests;
pub mod upstream;

pub use codec::DecodeError;
pub use downstream::{Downstream, ObjectOperation};
pub use envelope::{CAUSES_MAX, Envelope, Header, MsgId, MsgIdError, Operation, Route};
pub use frame::{Body, BodyError, Frame, Parts};
pub use outbox::{Outbox, OutboxKey, Outgoing};

pub use resource::{Resource, ResourceError};
pub use upstream::{EVENT_BYTES_MAX, POD_STATUSES_MAX, PodStatusReport, Upstream};

pub use crate::json::RawJson;
