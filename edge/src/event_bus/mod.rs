//! EventBus: MQTT in and out.
//!
//! What arrives is given its meaning at the border ([`ingress`], on the thread of the embedded broker, or of the client library) and goes straight to the
//! module it is for; the actor only publishes and subscribes.
//!
//! | from | message | what follows |
//! |---|---|---|
//! | Communication, EdgeHub, border | [`EventBusMessage::Publish`] | to every broker |
//! | EdgeHub | [`EventBusMessage::Subscribe`], [`Unsubscribe`](EventBusMessage::Unsubscribe) | in the store, then at every broker, now and after each reconnection and restart |
//! | MQTT client | [`EventBusMessage::TransportUp`], [`TransportDown`](EventBusMessage::TransportDown) | – |
//!
//! | arrives on | goes to |
//! |---|---|
//! | `$hw/events/device/{id}/twin/update`, `/get` | Twin |
//! | `$hw/events/device/{id}/twin/cloud_updated` | nobody, with an error result: the cloud speaks through EdgeHub alone |
//! | `$hw/events/device/{id}/state/update` | Device |
//! | `$hw/events/node/+/membership/get` | Membership |
//! | `$hw/events/upload/#`, `SYS/dis/upload_records`, `+/user/#`, what the cloud subscribed | Communication: upload |
//! | a request that fails validation, or finds its module's mailbox full | back: an error result on the device's topic |
//!
//! The embedded broker and the client are no part of the actor ([`Sockets`]): an actor that restarts disconnects nobody. At
//! the embedded broker the daemon is at home, without a socket; each other broker is reached by the paho library.
//!
//! Invariant: no string of a topic goes further in than this folder.
//! Invariant: nothing that is published here makes this daemon act when a broker brings it back ([`Echoes`]).
//! Invariant: nothing waits on the thread on which it arrives; what finds no room is answered `500` or dropped and counted.

#[cfg(test)]
mod access_tests;
mod broker;
mod credits;
mod echo;
mod external;
mod forms;
mod handlers;
pub mod ingress;
mod message;
mod outbox;
mod state;
mod transport;

#[cfg(test)]
mod broker_tests;
#[cfg(test)]
mod flood_tests;
#[cfg(test)]
mod limits_tests;
#[cfg(test)]
mod outage_tests;
#[cfg(test)]
mod qos_tests;
#[cfg(test)]
mod queue_tests;
#[cfg(test)]
mod resident_tests;
#[cfg(test)]
mod scripted;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tls_tests;
#[cfg(test)]
mod topic_tests;
#[cfg(test)]
mod transport_tests;

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;

use actor::Handle;
use log::warn;
use model::{Clock, NodeName, SystemClock};
use wire::mqtt::SUBSCRIBE_FILTERS;

use crate::communication::CommunicationMessage;
use crate::config::{DeviceTopics, Invalid, Mqtt};
use crate::device::DeviceMessage;
use crate::membership::MembershipMessage;
use crate::store::Store;
use crate::twin::TwinMessage;

pub use broker::{Broker, BrokerError, FILE_BYTES_MAX, PACKET_BYTES_MAX, PASSWORD_BYTES_MAX, check_name};
use broker::{Entrances, Guard, Resident};
use credits::Credits;
pub use echo::Echoes;
pub use forms::Forms;
pub use message::EventBusMessage;
pub use outbox::Publication;
pub use state::{EventBus, Snapshot};
pub use transport::{Endpoint, Figures, Inbound, Link, Login, Manner, TlsBroker, TlsFiles, Transport, TransportError, TransportGuard, Wanted};

/// Largest payload that is published: an MQTT packet that the embedded broker still takes, whatever its topic.
pub const PAYLOAD_BYTES_MAX: usize = PACKET_BYTES_MAX - (66 << 10);

/// Name of the way to the embedded broker, for the log and the page.
const INTERNAL: &str = "internal";

/// Settings of EventBus.
#[derive(Clone)]
pub struct Config {
    /// This node; stands in topics and in the client id.
    pub node: NodeName,
    /// Where the embedded broker listens, in modes 0 and 1, and how the daemon publishes there.
    pub broker: Option<(broker::Config, Manner)>,
    /// Its entrances, and who may come in through which.
    pub entrances: Arc<Entrances>,
    /// Requests of all clients of the embedded broker that may be on their way to the modules at once: less than one
    /// mailbox holds, so that none is ever refused for want of room.
    pub in_hand: usize,
    /// The brokers to connect to, the embedded one not among them.
    pub endpoints: Vec<Endpoint>,
    /// Which form of a device's topics is published (`mqtt.device-topics`).
    pub device_topics: DeviceTopics,
    /// Stamps error results.
    pub clock: Arc<dyn Clock>,
}

impl Config {
    /// Takes over the settings, by the machine's clock.
    ///
    /// # Errors
    /// `Invalid` for an address that cannot be used, with what to write instead.
    pub fn new(mqtt: &Mqtt, node: NodeName) -> Result<Self, Invalid> {
        let mut endpoints = Vec::new();
        let (mut broker, mut entrances) = (None, Arc::default());
        if matches!(mqtt.mode, 0 | 1) {
            let address = socket_address("mqtt.internal-server", &mqtt.internal_server)?;
            entrances = Arc::new(Entrances::new(mqtt, address)?);
            let manner = Manner { name: INTERNAL, qos: mqtt.qos, retain: mqtt.retain };
            broker = Some((broker::Config { address, session_queue_size: mqtt.session_queue_size }, manner));
        }
        if matches!(mqtt.mode, 1 | 2) {
            endpoints.push(external::endpoint(mqtt, &node)?);
        }
        Ok(Self { node, broker, entrances, in_hand: broker::IN_HAND, endpoints, device_topics: mqtt.device_topics, clock: Arc::new(SystemClock) })
    }
}

/// The mailboxes that get what arrives by MQTT.
#[derive(Clone)]
pub struct Peers {
    /// Twin requests.
    pub twin: Handle<TwinMessage>,
    /// Questions for the list of devices.
    pub membership: Handle<MembershipMessage>,
    /// States.
    pub device: Handle<DeviceMessage>,
    /// Uploads to the cloud.
    pub communication: Handle<CommunicationMessage>,
    /// EventBus itself: error results, and the state of the connections.
    pub own: Handle<EventBusMessage>,
}

/// Why MQTT did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The embedded broker: exit 69.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The client.
    #[error(transparent)]
    Transport(#[from] TransportError),
}

/// Broker and client, beside the actor. Dropping it says goodbye to the brokers, then stops the embedded one.
pub struct Sockets {
    transport: Transport,
    forms: Arc<Forms>,
    echoes: Arc<Echoes>,
    ingress: Arc<ingress::Ingress>,
    // Declared in the order in which they are to end.
    _client: TransportGuard,
    broker: Option<Broker>,
}

impl Sockets {
    /// Starts the broker, if there is one, and the client, which subscribes what the cloud has subscribed earlier as well.
    /// Returns when the broker accepts connections; an external
    /// broker that does not answer is tried for ever.
    ///
    /// # Errors
    /// [`StartError`]; nothing keeps running then.
    pub fn start(config: Config, peers: Peers, subscriptions: Vec<String>) -> Result<Self, StartError> {
        let credits = Credits::new(config.in_hand);
        let forms = Arc::new(Forms::new(config.device_topics));
        let echoes = Arc::new(Echoes::default());
        let ingress = ingress::Ingress::new(config.node, config.clock, forms.clone(), echoes.clone(), peers).with_credits(credits.clone());
        let ingress = Arc::new(ingress);
        let own = config.broker.as_ref().map(|(_, manner)| Link::new(manner.clone()));
        let filters = SUBSCRIBE_FILTERS.iter().map(|filter| (*filter).to_owned()).collect();
        let (transport, client) = Transport::start(own.clone(), config.endpoints, filters, ingress.clone())?;
        for filter in subscriptions {
            if let Err(error) = transport.subscribe(&filter) {
                warn!(error:% = error; "a subscription of the cloud that was stored is not made again");
            }
        }
        let resident = own.map(|link| Resident { link, wanted: transport.wanted(), inbound: ingress.clone() });
        let guard = Guard { resident, credits, entrances: config.entrances };
        let broker = config.broker.map(|(broker, _)| Broker::open(broker, guard)).transpose()?;
        Ok(Self { transport, forms, echoes, ingress, _client: client, broker })
    }

    /// What makes an incarnation of the actor. The cloud's subscriptions are kept in that store.
    pub fn factory(&self, store: Store) -> impl Fn() -> EventBus + Send + Sync + Clone + 'static {
        let (transport, forms, echoes) = (self.transport.clone(), self.forms.clone(), self.echoes.clone());
        move || EventBus::new(transport.clone(), forms.clone(), echoes.clone(), store.clone())
    }

    /// Reads what EventBus knows, for as long as these sockets are open.
    pub fn snapshot(&self) -> impl Fn() -> Snapshot + Send + Sync + 'static {
        let (transport, ingress) = (self.transport.clone(), self.ingress.clone());
        move || Snapshot { brokers: transport.figures(), subscriptions: transport.subscriptions(), ingress: ingress.figures() }
    }

    /// Address of the embedded broker, with the port that was taken.
    pub fn broker_address(&self) -> Option<SocketAddr> {
        self.broker.as_ref().map(Broker::address)
    }

    /// Address of the embedded broker's TLS listener, if there is one.
    pub fn broker_tls_address(&self) -> Option<SocketAddr> {
        self.broker.as_ref().and_then(Broker::tls_address)
    }

    /// Figures of each connection, for the metrics.
    pub fn figures(&self) -> Vec<Figures> {
        self.transport.figures()
    }

    /// The border, for what enters again.
    pub(crate) fn border(&self) -> Arc<ingress::Ingress> {
        self.ingress.clone()
    }

    /// Figures of what arrived and went no further.
    pub fn ingress_figures(&self) -> ingress::Figures {
        self.ingress.figures()
    }
}

fn socket_address(key: &'static str, url: &str) -> Result<SocketAddr, Invalid> {
    let resolved = external::listen(key, url)?.to_socket_addrs().ok().and_then(|mut addresses| addresses.next());
    resolved.ok_or_else(|| Invalid {
        key,
        value: format!("`{url}`"),
        advice: "its host is no address of this machine; write tcp://127.0.0.1:1884 or another address to listen on".to_owned(),
    })
}
