//! The mailboxes, made before any actor, so that rings need no registry.

use actor::{Handle, Mail, mailbox_with_bytes};

use crate::communication::CommunicationMessage;
use crate::config::Mailbox;
use crate::device::DeviceMessage;
use crate::edge_hub::EdgeHubMessage;
use crate::edged::EdgedMessage;
use crate::event_bus::EventBusMessage;
use crate::membership::MembershipMessage;
use crate::meta_manager::MetaManagerMessage;
use crate::twin::TwinMessage;

/// Every mailbox of the daemon. Cheap to clone.
#[derive(Clone)]
pub struct Mailboxes {
    pub twin: Handle<TwinMessage>,
    pub membership: Handle<MembershipMessage>,
    pub device: Handle<DeviceMessage>,
    pub communication: Handle<CommunicationMessage>,
    pub event_bus: Handle<EventBusMessage>,
    pub edge_hub: Handle<EdgeHubMessage>,
    pub meta_manager: Handle<MetaManagerMessage>,
    pub edged: Handle<EdgedMessage>,
}

impl Mailboxes {
    /// All of that room.
    pub fn new(room: &Mailbox) -> Self {
        Self {
            twin: make("twin", room),
            membership: make("membership", room),
            device: make("device", room),
            communication: make("communication", room),
            event_bus: make("event-bus", room),
            edge_hub: make("edge-hub", room),
            meta_manager: make("meta-manager", room),
            edged: make("edged", room),
        }
    }

    /// Gives all of them another room. What is above a smaller one is worked off.
    pub fn set_limits(&self, room: &Mailbox) {
        let (messages, bytes) = (room.messages, room.bytes << 20);
        self.twin.set_limits(messages, bytes);
        self.membership.set_limits(messages, bytes);
        self.device.set_limits(messages, bytes);
        self.communication.set_limits(messages, bytes);
        self.event_bus.set_limits(messages, bytes);
        self.edge_hub.set_limits(messages, bytes);
        self.meta_manager.set_limits(messages, bytes);
        self.edged.set_limits(messages, bytes);
    }
}

fn make<M: Mail>(name: &'static str, room: &Mailbox) -> Handle<M> {
    mailbox_with_bytes(name, room.messages, room.bytes << 20)
}

/// Messages that wait in a mailbox.
pub fn waiting<M: Mail>(mailbox: &Handle<M>) -> usize {
    mailbox.observe().view().depth
}
