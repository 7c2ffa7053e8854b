//! How many retained messages the embedded broker keeps.
//!
//! The library's own limit does not deliver what it may not keep and acknowledges it, so what clients publish is counted
//! here. A last will goes by no client's hand: one without room is refused with its client, and of those that were let in
//! while there was room each connection may add one. So the library's limit is set where it is not reached but by that.

use std::sync::Arc;

use mqtt5::broker::router::MessageRouter;

use super::limits::{RETAINED_BYTES_MAX, RETAINED_MAX};

/// The retained messages of one house.
#[derive(Clone)]
pub(super) struct Retained(pub(super) Arc<MessageRouter>);

impl Retained {
    /// Whether a message of that size may be kept under this topic: one that takes the place of another, or clears it, always
    /// may.
    pub(super) async fn has_room(&self, topic: &str, bytes: usize) -> bool {
        bytes <= RETAINED_BYTES_MAX && (self.0.retained_count().await < RETAINED_MAX || self.0.has_retained_message(topic).await)
    }
}
