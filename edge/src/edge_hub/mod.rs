//! EdgeHub: the connection to the cloud.
//!
//! The socket is a task of its own ([`Link`]); the actor gives each frame its meaning and passes it on, in one
//! exhaustive match, and keeps the questions that wait for an answer.
//!
//! | from | message | what follows |
//! |---|---|---|
//! | MetaManager, Edged, Communication | [`EdgeHubMessage::Send`] | to the cloud, or dropped and counted |
//! | MetaManager, Edged | [`EdgeHubMessage::Request`] | to the cloud; the answer to whoever asked |
//! | socket | [`EdgeHubMessage::Connected`], [`Disconnected`](EdgeHubMessage::Disconnected) | Communication, MetaManager, Edged |
//! | socket | [`EdgeHubMessage::Received`] | the table below |
//! | own timer | [`EdgeHubMessage::RequestsDue`] | questions that are overdue fail |
//!
//! | the cloud says | goes to |
//! |---|---|
//! | object, question for what is held | MetaManager |
//! | answer, confirmation, refusal | who asked; else MetaManager (objects) or Communication (devices) |
//! | membership | Membership |
//! | twin | Twin |
//! | attributes | Device |
//! | publish, subscribe, unsubscribe | EventBus |
//! | anything else | counted; an error frame back if it has an id |
//!
//! Invariant: a question is answered exactly once: by the cloud, by its deadline, or by the end of its session.
//! Invariant: no frame ends the connection; a peer that breaks the WebSocket protocol does.
//! Invariant: a full mailbox of a peer holds up the cloud (it stops sending), for five seconds a message at most.

pub(crate) mod entry;
mod handlers;
mod link;
mod message;
mod placement;
mod socket;
mod state;

#[cfg(test)]
mod entry_tests;
#[cfg(test)]
mod golden_tests;
#[cfg(test)]
mod socket_tests;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use actor::Handle;
use model::{Clock, SystemClock};

use crate::communication::CommunicationMessage;
use crate::config::EdgeConfig;
use crate::device::DeviceMessage;
use crate::edged::EdgedMessage;
use crate::event_bus::EventBusMessage;
use crate::membership::MembershipMessage;
use crate::meta_manager::MetaManagerMessage;
use crate::twin::TwinMessage;

pub use link::{Link, TlsSource};
pub use message::{Answer, EdgeHubMessage, RequestError};
pub use socket::{FRAME_BYTES_MAX, OfferError, Socket, SocketError};
pub use state::{EdgeHub, Figures, Snapshot};

/// Questions that may wait for the cloud at the same time.
pub const REQUESTS_MAX: usize = 256;

/// How long a message waits for room in its module's mailbox before it is dropped and counted. What is acknowledged is
/// sent again by the cloud.
pub const ROOM_WITHIN: Duration = Duration::from_secs(5);

/// Settings of EdgeHub.
#[derive(Clone)]
pub struct Config {
    /// Where the cloud is.
    pub destination: Address,
    /// `project_id` and `node_id` of the upgrade's headers (newer KubeEdge), and what the configuration adds.
    pub headers: Vec<(String, String)>,
    /// For the TLS and WebSocket handshake, from the TCP connect on.
    pub handshake_within: Duration,
    /// So long the cloud may take nothing of a frame.
    pub write_within: Duration,
    /// Between two keepalives; the first goes out at once.
    pub heartbeat: Duration,
    /// Without a byte from the cloud the connection is given up after this, or after two heartbeats if that is longer.
    pub silence_max: Duration,
    /// Stamps frames.
    pub clock: Arc<dyn Clock>,
}

/// Where the cloud is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// The URL, taken as it is.
    Fixed(String),
    /// Asked from a placement server (manual ch. 9.2).
    Placement {
        /// `https://` URL of the placement server.
        url: String,
        /// `/{project}/{node}/events`: what is added to its answer.
        path: String,
    },
}

impl Config {
    /// Takes over the settings, by the machine's clock.
    pub fn new(settings: &EdgeConfig) -> Self {
        let (websocket, controller) = (&settings.edgehub.websocket, &settings.edgehub.controller);
        let path = format!("/{}/{}/events", controller.project_id, controller.node_id);
        Self {
            destination: if controller.placement {
                Address::Placement { url: controller.placement_url.clone(), path }
            } else {
                Address::Fixed(settings.cloud_url())
            },
            headers: vec![("node_id".into(), controller.node_id.clone()), ("project_id".into(), controller.project_id.clone())],
            handshake_within: Duration::from_secs(websocket.handshake_timeout),
            write_within: Duration::from_secs(websocket.write_deadline),
            heartbeat: Duration::from_secs(controller.heartbeat),
            silence_max: Duration::from_secs(websocket.read_deadline),
            clock: Arc::new(SystemClock),
        }
    }
}

/// The mailboxes that EdgeHub uses.
#[derive(Clone)]
pub struct Peers {
    /// Its own, for its timer.
    pub own: Handle<EdgeHubMessage>,
    /// Objects.
    pub meta_manager: Handle<MetaManagerMessage>,
    /// The full list of devices, and its changes.
    pub membership: Handle<MembershipMessage>,
    /// Twins.
    pub twin: Handle<TwinMessage>,
    /// Attributes.
    pub device: Handle<DeviceMessage>,
    /// Confirmations of device reports.
    pub communication: Handle<CommunicationMessage>,
    /// What the cloud publishes and subscribes; absent when the module does not run.
    pub event_bus: Option<Handle<EventBusMessage>>,
    /// Whether the cloud is there; absent when the module does not run.
    pub edged: Option<Handle<EdgedMessage>>,
}
