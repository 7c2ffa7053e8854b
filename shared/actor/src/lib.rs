//! Mailboxes that outlive their actors, and the supervisor over actix actors.
//!
//! A module is a plain [`actix::Actor`] with a [`Handler`](actix::Handler) for [`Lease<M>`]. Three things are added here,
//! because actix 0.13 has none of them: its own `Supervisor` does not restart after a panic, what was queued is lost
//! with the actor, and its bounded mailboxes are neither bounded nor observable.
//!
//! * The [mailbox](mailbox()) belongs to no incarnation. A [`Handle`] is valid before the actor starts and after each
//!   restart; what is queued stays queued, in order.
//! * A pump (one future inside the actor's context) leases messages to the handler. A lease that is dropped before it is
//!   settled, by a panic or because its thread hangs, puts its messages back to the front. A message that was in hand
//!   at three deaths goes to the [quarantine](Quarantined).
//! * The [`Supervisor`] starts each actor on an arbiter of its own, restarts the dead with back-off, asks each for a
//!   sign of life beside the mailbox, fences and replaces the silent, and escalates when deaths come too often. It is a
//!   [child](ChildSpec::tree) like any other, with OTP's [strategies](Strategy) and [kinds of children](Restart).
//! * The [`Quarantine`] outlives the process and keeps the form in which a message came from outside, so that it can
//!   enter again. The [`Registry`] shows all of this to others and asks no actor.
//!
//! ```text
//! sender ── Handle::try_send ──▶ mailbox (bounded, keeps what is in hand) ── Lease ──▶ Handler<Lease<M>> on its arbiter
//!                                    ▲ put back at panic, hang, postpone                     │ panic, exit
//!                                    └────────────────────── Supervisor ◀────────────────────┘
//! ```
//!
//! # A module
//! ```
//! use actor::{ChildSpec, Lease, Mail, Policy, Reply, Supervisor};
//!
//! pub enum CounterMessage { Add(u64), Get { reply: Reply<u64> } }
//! impl Mail for CounterMessage {
//!     fn kind(&self) -> &'static str { match self { Self::Add(_) => "Add", Self::Get { .. } => "Get" } }
//! }
//!
//! #[derive(Default)]
//! pub struct Counter { sum: u64 }
//! impl actix::Actor for Counter { type Context = actix::Context<Self>; }
//! impl actix::Handler<Lease<CounterMessage>> for Counter {
//!     type Result = ();
//!     fn handle(&mut self, lease: Lease<CounterMessage>, _: &mut Self::Context) {
//!         lease.each(|_meta, message| match message {
//!             CounterMessage::Add(n) => self.sum += n,
//!             CounterMessage::Get { reply } => { reply.send(self.sum); }
//!         });
//!     }
//! }
//!
//! # actix_rt::System::new().block_on(async {
//! let counter = actor::mailbox::<CounterMessage>("counter", 128);
//! let system = Supervisor::new("root", Policy::default())
//!     .child(ChildSpec::new(&counter, Counter::default))
//!     .start(|why| panic!("{why}"));
//! counter.try_send(CounterMessage::Add(2)).map_err(|_| "full").unwrap();
//! let sum = counter.ask(std::time::Duration::from_secs(5), |reply| CounterMessage::Get { reply }).await.unwrap();
//! assert_eq!(sum, 2);
//! system.shutdown().await;
//! # });
//! ```
//!
//! # Where beehive's operations are (manual ch. 6)
//!
//! | beehive | here | what is promised besides |
//! |---|---|---|
//! | `AddModule` | [`Supervisor::child`], [`Running::add`] | a handle is valid before and after |
//! | `AddModuleGroup` | [`Group::new`], [`Group::add`] | one kind of message, checked by the compiler |
//! | `CleanUp` | [`Running::remove`] | what was accepted is handled first; groups forget the member |
//! | enabled modules | [`ChildSpec::disabled`], [`Running::replace`] | at start and at run time |
//! | `Send` | [`Handle::send`], [`Handle::try_send`] | bounded; what is not taken is given back |
//! | `Send2Group` | [`Group::try_send`] | tells how many took it |
//! | `Receive` | [`Lease`] | kept until it is settled, whatever happens to the actor |
//! | `SendSync` | [`Handle::ask`] | the deadline is not optional, the answer's type is checked |
//! | `Send2GroupSync` | [`Group::ask`] | the answers of all, or who did not answer and why |
//! | `SendResp` | [`Reply::send`] | a lost reply fails its asker at once |
//!
//! No word of a domain appears in this package.

#[cfg(panic = "abort")]
compile_error!("Skep restarts actors after a panic: build with panic = \"unwind\"");

mod cell;
mod chain;
mod child;
mod command;
mod drill;
mod group;
mod health;
mod histogram;
mod history;
mod lease;
mod mail;
mod mailbox;
mod panic;
mod pump;
mod quarantine;
mod queue;
mod registry;
mod reply;
mod restart;
mod stats;
mod supervision;
mod supervisor;
pub mod testing;
#[cfg(test)]
mod tests;
mod ward;

pub use chain::chain;
pub use child::ChildSpec;
pub use command::ControlError;
pub use drill::Drill;
pub use group::{Group, GroupError};
pub use health::Health;
pub use history::Sample;
pub use lease::{Fence, Lease, Work};
pub use mail::{Held, Mail, Meta, MsgId, NotAMsgId, Ticket, brief};
pub use mailbox::{BYTES_MAX, Handle, NoRoom, Room, SendError, mailbox, mailbox_with_bytes};
pub use panic::install_panic_hook;
pub use quarantine::{Ingress, Quarantine, Quarantined, RetryError};
pub use registry::{Bucket, Details, Event, EventKind, Observable, Registry, State, TreeView, View};
pub use reply::{AskError, Reply};
pub use restart::{Intensity, Policy, Restart, Strategy, Verdict};
pub use supervisor::{Running, Supervisor};
