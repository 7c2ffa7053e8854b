//! Device: the state and the attributes of devices.
//!
//! | from | message | what follows, through Communication |
//! |---|---|---|
//! | EventBus | [`DeviceMessage::StateUpdate`] | `…/state/update/result`; report to the cloud |
//! | EdgeHub | [`DeviceMessage::Attributes`] | `…/updated` if any changed; acknowledgement |
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
