//! Communication: carries out what follows from a commit, towards devices and towards the cloud.
//!
//! Publications go on to EventBus in the order of the commits. What the cloud must hear is read
//! from the store, sent to EdgeHub in a window of frames, and forgotten when it is confirmed.
//!
//! | from | message | what follows |
//! |---|---|---|
//! | Twin, Membership, Device | [`CommunicationMessage::Effects`] | EventBus: publications; EdgeHub: acknowledgements, reports |
//! | EdgeHub | [`CommunicationMessage::CloudConnected`] | EdgeHub: request for the list of devices, uploads, all pending reports |
//! | EdgeHub | [`CommunicationMessage::CloudDisconnected`] | – |
//! | EdgeHub | [`CommunicationMessage::Confirmed`], [`Refused`](CommunicationMessage::Refused) | store: report settled; EdgeHub: the next ones |
//! | own timer | no message, so that traffic cannot starve it | EdgeHub: what was not confirmed for a whole period |
//! | EventBus | [`CommunicationMessage::Upload`] | EdgeHub, or the ring of uploads |
//!
//! | manual ch. 10.3.3 | here | tests |
//! |---|---|---|
//! | dealSendToCloud | rows of `pending_report`, sent while the cloud is there ([`Effect::ReportsPending`]) | `what_changed_while_the_cloud_was_away_…`, `after_a_week_without_the_cloud_…`, `what_is_not_confirmed_is_sent_again_…` |
//! | dealSendToEdge | [`Effect::Publish`], to EventBus | `publications_reach_event_bus_…`, `publications_that_find_no_room_…` |
//! | dealLifeCycle | [`CommunicationMessage::CloudConnected`], [`CloudDisconnected`](CommunicationMessage::CloudDisconnected) | `the_list_of_devices_is_asked_for_…`, `a_new_incarnation_knows_…` |
//! | dealConfirm | [`CommunicationMessage::Confirmed`] | `a_change_while_its_report_is_on_the_way_…`, `an_old_confirmation_settles_only_…`, `a_report_of_a_device_that_was_created_again_…` |
//!
//! KubeEdge drops what it has to send while the cloud is away, keeps what is not confirmed in memory, and sends that again
//! only when nothing else happens for a minute.
//!
//! Invariant: a report is forgotten only by a confirmation (or refusal) of exactly that change.
//! Invariant: there is one report on its way for each device, so the cloud sees its changes in order.
//! Invariant: EventBus sends nothing here that has to wait for EventBus: no ring is closed by waiting for its room.

mod handlers;
mod message;
mod reports;
mod state;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use actor::Handle;
use model::{Clock, NodeName, SystemClock};

use crate::edge_hub::EdgeHubMessage;
use crate::event_bus::EventBusMessage;

pub use message::{Caused, CommunicationMessage, Effect};
pub use reports::{Report, reports_of};
pub use state::{Communication, Snapshot};

/// Uploads that are kept while the cloud is away; the oldest goes when one more comes.
pub const UPLOADS_MAX: usize = 256;

/// Bytes of those uploads; the oldest go when more come.
pub const UPLOADS_BYTES_MAX: usize = 4 << 20;

/// Size of one batch of effects at which a module takes no further message into it.
pub const EFFECTS_BYTES_MAX: usize = 4 << 20;

/// Settings of Communication.
#[derive(Clone)]
pub struct Config {
    /// This node; the list of its devices is asked for.
    pub node: NodeName,
    /// Devices whose report may be on its way at the same time.
    pub window: usize,
    /// A report that was not confirmed for so long is sent again.
    pub resend_every: Duration,
    /// How long publications wait for room at EventBus; what does not fit by then is dropped and
    /// counted: the state itself is in the store, and a `twin/get` tells it.
    pub publish_within: Duration,
    /// How often the list of devices is asked for on one connection (KubeEdge's cloud never answers).
    pub membership_asks: u32,
    /// Stamps what is sent.
    pub clock: Arc<dyn Clock>,
}

impl Config {
    /// The settings of that node: window 64, resend every 10 s, publish within 5 s, 15 asks, the machine's clock.
    pub fn new(node: NodeName) -> Self {
        Self {
            node,
            window: 64,
            resend_every: Duration::from_secs(10),
            publish_within: Duration::from_secs(5),
            membership_asks: 15,
            clock: Arc::new(SystemClock),
        }
    }
}

/// The mailboxes that Communication uses.
#[derive(Clone, Debug)]
pub struct Peers {
    /// Takes publications.
    pub event_bus: Handle<EventBusMessage>,
    /// Takes frames for the cloud.
    pub edge_hub: Handle<EdgeHubMessage>,
}

/// What outlives an incarnation of Communication: whether the cloud is there, and counters for the
/// metrics page. Made once, cloned into each incarnation.
#[derive(Clone, Debug, Default)]
pub struct Shared {
    pub(crate) connected: Arc<AtomicBool>,
    pub(crate) now: Arc<Now>,
    pub(crate) figures: Arc<Figures>,
}

/// What is on its way or waits at this moment.
#[derive(Debug, Default)]
pub struct Now {
    devices: AtomicU64,
    unacknowledged: AtomicU64,
    uploads: AtomicU64,
}

/// Counters since the start of the process.
#[derive(Debug, Default)]
pub struct Figures {
    /// Publications for which EventBus had no room in time.
    pub publications_dropped: AtomicU64,
    /// Uploads that were overwritten in the ring.
    pub uploads_dropped: AtomicU64,
    /// Report frames given to EdgeHub.
    pub reports_sent: AtomicU64,
    /// Reports that the cloud confirmed.
    pub reports_confirmed: AtomicU64,
    /// Reports that the cloud refused.
    pub reports_refused: AtomicU64,
    /// Reports that were not confirmed in time and are sent again.
    pub reports_overdue: AtomicU64,
}

impl Shared {
    /// The counters.
    pub fn figures(&self) -> &Figures {
        &self.figures
    }
}
