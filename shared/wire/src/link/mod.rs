//! The rules of the link as pure machines: no socket, no clock, no random number inside. `now` is any millisecond count
//! that never goes back; identities of frames are given from outside.
//!
//! | machine | whose | decides |
//! |---|---|---|
//! | [`CloudLink`] | CloudHub, one per connected node | what goes out next, what an answer settles, which session counts, when the node is to be sent what it lacks |
//! | [`Outbox`](crate::hub::Outbox) | inside of it | what the node must still be told |
//! | [`Held`], [`Assembly`] | inside of it | what the node says that it has |
//! | [`Questions`] | EdgeHub | which question an answer is for, and when one has failed |
//! | [`Window`] | Communication | which reports of devices are on their way, and what a confirmation settles |
//! | [`Statuses`] | MetaManager | which statuses of pods the cloud has confirmed in this session |
//!
//! The actors around them read sockets, clocks and the store. `tests/sim` drives exactly these machines.

mod capabilities;
mod cloud;
mod held;
mod questions;
mod statuses;
mod window;

pub use capabilities::{Capabilities, HEADER};
pub use cloud::{
    ANSWERS_BYTES_MAX, ANSWERS_MAX, Answer, Backlog, CloudLink, DIGEST_EVERY_MS, DIGEST_WITHIN_MS, Heard, Pushed, RESYNC_EVERY_MS, Ticked,
};
pub use held::{Assembly, HELD_KINDS, HELD_MAX, HELD_PART_MAX, Held, HeldError, HeldObject, HeldPart, parts_of};
pub use questions::Questions;
pub use statuses::{IN_FLIGHT_MAX, Statuses};
pub use window::{OVERDUE_MAX, Window};

/// Identity of one WebSocket session; a later one is greater.
pub type SessionId = u64;
