//! Device: the state and the attributes of devices.
//!
//! | from | message | what follows, through Communication |
//! |---|---|---|
//! | EventBus | [`DeviceMessage::StateUpdate`] | `…/state/update/result`; report to the cloud |
//! | EdgeHub | [`DeviceMessage::Attributes`] | `…/updated` if any changed; acknowledgement |
//!
//! | manual ch. 10.3.4 | here | tests |
//! |---|---|---|
//! | dealDeviceUpdated | [`DeviceMessage::Attributes`], `model::membership::merge_attributes` | `attributes_that_change_…`, `the_state_of_an_unknown_device_…`, `model::membership` |
//! | dealDeviceStateUpdate | [`DeviceMessage::StateUpdate`], `model::DeviceState` | `a_state_is_stored_as_sent_…`, `each_word_for_a_state_…`, `a_device_that_goes_offline_…` |
//!
//! Invariant: nothing is told before it is durable; what the cloud must hear is written with the change.
//! Invariant: no device is kept in memory between two batches.

mod handlers;
mod message;
mod state;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use actor::Handle;
use model::{Clock, SystemClock};

use crate::communication::CommunicationMessage;
use crate::membership::{Births, MembershipMessage};

pub use message::DeviceMessage;
pub use state::{Device, Snapshot};

/// Settings of Device.
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

/// The mailboxes that Device uses.
#[derive(Clone, Debug)]
pub struct Peers {
    /// Takes the effects.
    pub communication: Handle<CommunicationMessage>,
    /// Looked at only: how far it is, for messages that carry a ticket of it.
    pub membership: Handle<MembershipMessage>,
    /// Looked at only: since when each device is there.
    pub births: Births,
}
