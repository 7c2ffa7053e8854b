//! Pure decisions about sessions: why one ends, and when.

use std::time::Duration;

use actix_web_actors::ws::{CloseCode, CloseReason};

/// Why a session ends. Its text is said to the node in the close frame and to the operator in the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum End {
    /// The node closed, or its connection broke.
    #[error("closed by the node")]
    ByNode,
    /// The same node connected again.
    #[error("replaced by a newer connection of the same node")]
    Replaced,
    /// Nothing came within the keepalive interval.
    #[error("nothing was received within the keepalive interval")]
    Silent,
    /// The socket took nothing within the write timeout.
    #[error("nothing could be written within the write timeout")]
    Stuck,
    /// A frame above [`wire::hub::codec::FRAME_BYTES_MAX`].
    #[error("a message is too large")]
    TooLarge,
    /// A binary frame: messages are text.
    #[error("messages are text frames, binary ones are not taken")]
    Binary,
    /// The WebSocket protocol was violated.
    #[error("the WebSocket protocol was violated")]
    Protocol,
    /// Only garbage for [`GARBAGE_MAX`] frames.
    #[error("too many messages in a row that are none")]
    Garbage,
    /// This process stops.
    #[error("the cloud is stopping")]
    ShuttingDown,
}

/// So many frames in a row that are no messages end a session.
pub const GARBAGE_MAX: u32 = 32;

impl End {
    /// The close frame that says so; `None` where the peer closed first.
    pub fn close_reason(&self) -> Option<CloseReason> {
        let code = match self {
            End::ByNode => return None,
            End::Replaced | End::Silent | End::Stuck | End::Garbage => CloseCode::Policy,
            End::TooLarge => CloseCode::Size,
            End::Binary => CloseCode::Unsupported,
            End::Protocol => CloseCode::Protocol,
            End::ShuttingDown => CloseCode::Away,
        };
        Some(CloseReason { code, description: Some(self.to_string()) })
    }
}

/// What can be seen of a session from outside, in milliseconds of the hub's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vitals {
    /// When the last frame came.
    pub heard_ms: u64,
    /// When the socket last took something.
    pub written_ms: u64,
    /// Something was handed to the socket that it has not taken.
    pub unwritten: bool,
    /// It waits for room in a controller's mailbox and does not read meanwhile: our fault, not the node's.
    pub waits_for_us: bool,
}

/// Whether a session is to be cut now.
pub fn verdict(now_ms: u64, vitals: Vitals, keepalive: Duration, write_timeout: Duration) -> Option<End> {
    let older = |since_ms: u64, limit: Duration| u128::from(now_ms.saturating_sub(since_ms)) > limit.as_millis();
    if vitals.unwritten {
        // The session is frozen by its socket and reads nothing: only the writing can be judged.
        return older(vitals.written_ms, write_timeout).then_some(End::Stuck);
    }
    (!vitals.waits_for_us && older(vitals.heard_ms, keepalive)).then_some(End::Silent)
}
