//! The MQTT client: one connection to each broker, on a thread of its own beside the EventBus actor.
//!
//! The paho library calls back from its own C threads. A callback here never blocks and never unwinds
//! into C: it hands the message to [`Inbound`], which only tries mailboxes, under `catch_unwind`.
//!
//! Each connection is a lasting session (MQTT "clean session" off) under a fixed client id, so a broker
//! that supports it keeps what devices publish with QoS 1 while this daemon restarts. Publications wait
//! in an [`Outbox`]; at most [`IN_FLIGHT_MAX`] are on their way at once, and one that the library gives
//! back unsent returns to its old place. The library's own reconnection and off-line buffer are not
//! used: they are bounded in messages only and repeat in whole seconds.

mod connection;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use log::error;
use tokio::sync::{Notify, watch};

use super::outbox::{Outbox, Publication};

/// Publications handed to the library and not yet answered by the broker (QoS 0: not yet written).
pub const IN_FLIGHT_MAX: usize = 256;
/// Filters beyond those of the devices that the cloud may have subscribed.
pub const EXTRA_FILTERS_MAX: usize = 256;

/// Takes what arrives. Called from the library's receiving thread: must not block.
pub trait Inbound: Send + Sync + 'static {
    /// A message of one of the subscribed topics arrived.
    fn arrived(&self, topic: &str, payload: &[u8]);
    /// A connection to a broker stands and all filters are subscribed.
    fn up(&self, endpoint: &'static str);
    /// A connection that stood is gone.
    fn down(&self, endpoint: &'static str, reason: String);
}

/// One broker to connect to, and how to publish there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// `internal` or `external`: for the log and the status page.
    pub name: &'static str,
    /// `tcp://host:port`.
    pub server: String,
    /// Unique among the clients of that broker; stays the same over restarts.
    pub client_id: String,
    /// Quality of service of what is published: 0, 1 or 2.
    pub qos: u8,
    /// Whether what is published is retained by the broker.
    pub retain: bool,
}

/// Why the MQTT client did not start.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The library refused the endpoint's address or client id.
    #[error("MQTT client for the {endpoint} broker {server} cannot be made: {reason}")]
    Client {
        /// Name of the endpoint.
        endpoint: &'static str,
        /// Address of the endpoint.
        server: String,
        /// What the library said.
        reason: String,
    },
    /// The operating system gave no thread.
    #[error("the MQTT client's thread cannot be started")]
    Thread(#[source] std::io::Error),
    /// The filter is no valid MQTT topic filter (MQTT 3.1.1 §4.7).
    #[error("`{filter}` is no MQTT topic filter")]
    Filter {
        /// What was asked for.
        filter: String,
    },
    /// So many are subscribed already.
    #[error("{EXTRA_FILTERS_MAX} further topic filters are subscribed already; `{filter}` was not added")]
    TooManyFilters {
        /// What was asked for.
        filter: String,
    },
}

/// Figures of one connection for the status page.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Figures {
    /// Name of the endpoint.
    pub endpoint: &'static str,
    /// Whether the connection stands.
    pub connected: bool,
    /// Publications that wait.
    pub waiting: usize,
    /// Publications that the broker took.
    pub published: u64,
    /// Publications that were dropped for lack of room, or refused by the broker.
    pub dropped: u64,
    /// Messages that arrived.
    pub arrived: u64,
    /// Panics while a message was taken: each lost its message and nothing else.
    pub panics: u64,
}

/// Handle on the running connections: cheap to clone, valid from any thread.
#[derive(Clone, Debug)]
pub struct Transport {
    links: Arc<[Arc<Link>]>,
    wanted: Arc<Wanted>,
}

/// Ends the connections when dropped and waits for their thread, some four seconds at most.
#[derive(Debug)]
pub struct TransportGuard {
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Link {
    endpoint: Endpoint,
    outbox: Outbox,
    connected: AtomicBool,
    published: AtomicU64,
    refused: AtomicU64,
    arrived: AtomicU64,
    panics: AtomicU64,
    /// Stopped: what still arrives is not taken.
    closed: AtomicBool,
    lost: Notify,
}

#[derive(Debug)]
struct Wanted {
    always: Vec<String>,
    extra: Mutex<BTreeSet<String>>,
    changed: watch::Sender<u64>,
}

impl Transport {
    /// Starts to connect to `endpoints`, subscribing to `filters` on each, and returns at once.
    ///
    /// # Errors
    /// `Client` or `Thread`. A broker that does not answer is no error: connecting is repeated for ever.
    pub fn start(endpoints: Vec<Endpoint>, filters: Vec<String>, inbound: Arc<dyn Inbound>) -> Result<(Self, TransportGuard), TransportError> {
        let wanted = Arc::new(Wanted { always: filters, extra: Mutex::default(), changed: watch::Sender::new(0) });
        let mut connections = Vec::with_capacity(endpoints.len());
        for endpoint in endpoints {
            let link = Arc::new(Link::new(endpoint));
            let client = connection::client(&link, &inbound)?;
            connections.push((link, client));
        }
        let links = connections.iter().map(|(link, _)| link.clone()).collect();
        let (stop, stopped) = watch::channel(false);
        let transport = Self { links, wanted: wanted.clone() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(TransportError::Thread)?;
        let thread = std::thread::Builder::new()
            .name("mqtt-client".into())
            .spawn(move || runtime.block_on(connection::run(&connections, &wanted, inbound.as_ref(), &stopped)))
            .map_err(TransportError::Thread)?;
        let guard = TransportGuard { stop, thread: Some(thread) };
        Ok((transport, guard))
    }

    /// Whether [`Transport::publish`] would drop nothing.
    ///
    /// A connection that is down always has room: what it cannot hold is dropped by the outbox's rule,
    /// so that one absent broker never holds up the others.
    pub fn has_room(&self) -> bool {
        self.links.iter().all(|link| link.has_room())
    }

    /// Resolves when [`Transport::has_room`] may be true again.
    pub async fn room(&self) {
        let full = self.links.iter().find(|link| !link.has_room());
        if let Some(link) = full {
            // A connection that breaks while we wait makes room as well; half a second finds it.
            let _ = tokio::time::timeout(Duration::from_millis(500), link.outbox.emptied()).await;
        }
    }

    /// Hands a message to every connection. Returns how many older messages were dropped for it.
    pub fn publish(&self, publication: Publication) -> u64 {
        let mut dropped = 0;
        for link in self.links.iter() {
            dropped += link.outbox.push(publication.clone());
        }
        dropped
    }

    /// Subscribes one more filter on every connection, now and after each reconnection.
    ///
    /// # Errors
    /// `Filter` for an invalid one, `TooManyFilters` at the limit.
    pub fn subscribe(&self, filter: &str) -> Result<(), TransportError> {
        if !wire::mqtt::is_filter(filter) {
            return Err(TransportError::Filter { filter: filter.to_owned() });
        }
        let mut extra = self.wanted.extra();
        if extra.len() >= EXTRA_FILTERS_MAX && !extra.contains(filter) {
            return Err(TransportError::TooManyFilters { filter: filter.to_owned() });
        }
        extra.insert(filter.to_owned());
        drop(extra);
        self.wanted.changed.send_modify(|version| *version += 1);
        Ok(())
    }

    /// Ends a subscription made with [`Transport::subscribe`]. Filters of the devices stay.
    pub fn unsubscribe(&self, filter: &str) {
        self.wanted.extra().remove(filter);
        self.wanted.changed.send_modify(|version| *version += 1);
    }

    /// Topic filters that are subscribed at each broker: those of the devices, and those that the cloud asked for.
    pub fn subscriptions(&self) -> usize {
        self.wanted.filters().len()
    }

    /// Figures of each connection.
    pub fn figures(&self) -> Vec<Figures> {
        self.links.iter().map(|link| link.figures()).collect()
    }
}

impl Drop for TransportGuard {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            error!("the MQTT client's thread had panicked");
        }
    }
}

impl Link {
    fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            outbox: Outbox::default(),
            connected: AtomicBool::new(false),
            published: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            arrived: AtomicU64::new(0),
            panics: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            lost: Notify::new(),
        }
    }

    fn has_room(&self) -> bool {
        !self.connected.load(Ordering::Relaxed) || self.outbox.has_room()
    }

    fn figures(&self) -> Figures {
        let (waiting, dropped) = self.outbox.depth();
        Figures {
            endpoint: self.endpoint.name,
            connected: self.connected.load(Ordering::Relaxed),
            waiting,
            published: self.published.load(Ordering::Relaxed),
            dropped: dropped + self.refused.load(Ordering::Relaxed),
            arrived: self.arrived.load(Ordering::Relaxed),
            panics: self.panics.load(Ordering::Relaxed),
        }
    }
}

impl Wanted {
    fn extra(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        self.extra.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn filters(&self) -> BTreeSet<String> {
        self.always.iter().cloned().chain(self.extra().iter().cloned()).collect()
    }
}
