//! Membership: which devices belong to this node.
//!
//! Takes the cloud's list and its changes, and keeps the rows of devices with all that hangs on
//! them; the rules are `model::membership`.
//!
//! | from | message | what follows, through Communication |
//! |---|---|---|
//! | EventBus | [`MembershipMessage::Get`] | `…/membership/get/result` |
//! | EdgeHub | [`MembershipMessage::Detail`] | `membership/updated` for each that came or went; acknowledgement |
//! | EdgeHub | [`MembershipMessage::Update`] | the same |
//!
//! | manual ch. 10.3.1 | here | tests |
//! |---|---|---|
//! | dealMembershipGet | [`MembershipMessage::Get`] | `who_asks_gets_all_devices_…` |
//! | dealMembershipUpdated | [`MembershipMessage::Update`], `model::membership::plan_update` | `an_update_binds_and_unbinds_…`, `a_removal_is_announced_…`, `model::membership` |
//! | dealMembershipDetail | [`MembershipMessage::Detail`], `model::membership::plan_detail` | `a_listed_device_is_stored_…`, `devices_that_a_full_list_leaves_out_…`, `a_device_that_was_created_again_…` |
//!
//! Both come from the cloud alone: the manual lets them come from MQTT, where KubeEdge does not subscribe them. What cannot
//! be read is refused to the cloud, which KubeEdge only logs: a frame that is not answered would come again for ever.
//!
//! Invariant: a device that goes leaves no row behind, in any table.
//! Invariant: Membership waits for nobody. Every message to Twin and Device carries a ticket of this mailbox, drawn where it
//! came in, and is held back until Membership has committed what came before it: binding, removal and binding again alike.
//! Invariant: what arrived before a device was bound is never done to it, though another had its name ([`Births`]).

mod attributes;
mod births;
mod handlers;
mod message;
#[cfg(test)]
mod order_tests;
mod state;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use actor::{Handle, Lease, Mail, Ticket};
use model::{Clock, NodeName, SystemClock};

use crate::communication::CommunicationMessage;

pub(crate) use attributes::{tell_attributes, write_attributes};
pub use births::Births;
pub use message::MembershipMessage;
pub use state::{Membership, Snapshot};

/// Settings of Membership.
#[derive(Clone)]
pub struct Config {
    /// This node; stands in the topics of its answers.
    pub node: NodeName,
    /// Stamps what is stored and sent.
    pub clock: Arc<dyn Clock>,
}

impl Config {
    /// The settings of that node, by the machine's clock.
    pub fn new(node: NodeName) -> Self {
        Self { node, clock: Arc::new(SystemClock) }
    }
}

/// The mailboxes that Membership uses.
#[derive(Clone, Debug)]
pub struct Peers {
    /// Takes the effects.
    pub communication: Handle<CommunicationMessage>,
    /// Written here, read by Twin and Device.
    pub births: Births,
}

/// The ticket of the message at `index`, which says what Membership has to be done with first. `None` past the end.
pub(crate) fn next_ticket<M: Mail>(lease: &Lease<M>, index: usize) -> Option<Ticket> {
    lease.iter().nth(index).map(|(meta, _)| meta.after)
}
