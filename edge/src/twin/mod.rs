//! Twin: expected and actual values of device properties.
//!
//! Answers what devices, their mappers and the cloud ask of a twin; the rules are `model::twin::merge`.
//!
//! | from | message | what follows, through Communication |
//! |---|---|---|
//! | EventBus | [`TwinMessage::Update`] | `…/twin/update/result`, `/document`, `/delta`; report to the cloud |
//! | EventBus | [`TwinMessage::Get`] | `…/twin/get/result` |
//! | EdgeHub | [`TwinMessage::CloudSync`] | `/document`, `/delta`; acknowledgement; report of what is newer here |
//!
//! | manual ch. 10.3.2 | here | tests |
//! |---|---|---|
//! | dealTwinUpdate | [`TwinMessage::Update`], merged by `Origin::Device` | `an_update_is_stored_…`, `a_request_is_answered_…`, `a_wrong_value_…`, `an_update_of_an_unknown_device_…`, `model::twin::tests` |
//! | dealTwinGet | [`TwinMessage::Get`] | `a_batch_that_only_asks_…`, `a_question_for_a_device_…`, `a_deleted_property_…` |
//! | dealTwinSync | [`TwinMessage::CloudSync`], merged by `Origin::Cloud`; from MQTT [`TwinMessage::Report`] | `a_change_of_the_cloud_…`, `a_mappers_wish_…` |
//!
//! dealTwinSync brings what the cloud wants to the edge, and only what is refused for its version goes back; the manual
//! says that it "syncs to the cloud". The same text as a KubeEdge's reason stands in each refusal (`wire::mqtt::payload::Fault`,
//! `model::twin::TwinError`).
//!
//! Invariant: nothing is told before it is durable; what the cloud must hear is written with the change.
//! Invariant: between two batches nothing of a twin is kept in memory but what the store has, and only as long as it has it.

mod handlers;
mod message;
mod shelf;
#[cfg(test)]
mod shelf_tests;
mod state;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use actor::Handle;
use model::{Clock, SystemClock};

use crate::communication::CommunicationMessage;
use crate::membership::{Births, MembershipMessage};

pub use message::TwinMessage;
pub use state::{Snapshot, Twin, Working};
// Membership writes its devices' twins itself; Device and Communication name their events the same way.
pub(crate) use state::{fresh_event_id, tell_change};

/// Settings of Twin.
#[derive(Clone)]
pub struct Config {
    /// Stamps what is stored and sent.
    pub clock: Arc<dyn Clock>,
}

impl Default for Config {
    fn default() -> Self {
        Self { clock: Arc::new(SystemClock) }
    }
}

/// The mailboxes that Twin uses.
#[derive(Clone, Debug)]
pub struct Peers {
    /// Takes the effects.
    pub communication: Handle<CommunicationMessage>,
    /// Looked at only: how far it is, for messages that carry a ticket of it.
    pub membership: Handle<MembershipMessage>,
    /// Looked at only: since when each device is there.
    pub births: Births,
}
