//! Identities across the border: that of a message in a mailbox, and that of the frame that carries it.
//!
//! They are the same, so that one id is found in the log, on the page and on the wire.

use actor::{Meta, MsgId};
use wire::hub::{self, Frame};

/// The identity of a message as it stands in a frame.
pub(crate) fn on_wire(id: MsgId) -> hub::MsgId {
    hub::MsgId::new(&id.to_string()).expect("a UUID is not empty and has 36 bytes")
}

/// The header of the message that a frame is for, or came out of: the frame's own identity, and the last of its causes; an
/// answer comes from its question.
pub(crate) fn meta_of<B>(frame: &Frame<B>, source: &'static str) -> Meta {
    let parent = frame.cause.last().or(frame.parent.as_ref());
    Meta::named(frame.id.as_str(), parent.map(hub::MsgId::as_str), source)
}
