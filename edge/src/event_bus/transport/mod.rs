//! The MQTT client: one connection to each broker, on a thread of its own beside the EventBus actor.
//!
//! The paho library calls back from its own C threads. A callback here never blocks and never unwinds
//! into C: it hands the message to [`Inbound`], which only tries mailboxes, under `catch_unwind`.
//!
//! Each connection is a lasting session (MQTT "clean session" off) under a fixed client id, so a broker
//! that supports it keeps what devices publish with QoS 1 while this daemon restarts. Publications wait
//! in an [`Outbox`]; at most [`IN_FLIGHT_MAX`] are on their way at once, and one that the library gives
//! back unanswered returns to its old place. The library's own reconnection and off-line buffer are not
//! used: they are bounded in messages only and repeat in whole seconds.

mod connection;
mod guard;
mod judge;
mod login;
mod tls_files;
mod tls_words;
mod tunnel;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use log::{error, warn};
use tokio::sync::{Notify, watch};

use super::outbox::{Outbox, Publication};

pub use login::Login;
pub use tls_files::TlsFiles;
pub use tunnel::TlsBroker;
use tunnel::{Remote, Tunnel};

/// Publications handed to the library and not yet answered by the broker (QoS 0: not yet written).
pub const IN_FLIGHT_MAX: usize = 256;
/// The same with QoS 2, as many as mosquitto takes at a time by default (`max_inflight_messages`). It queues what is above,
/// takes that for a repetition when the connection is made again, and acknowledges what it never delivered (2.0.11).
pub const IN_FLIGHT_QOS_2_MAX: usize = 20;
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

/// How long the client waits for a broker, and when.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For the connection, and again for the answers to the subscriptions.
    pub connect: Duration,
    /// For any answer while publications wait for theirs; then the connection is made again.
    pub answer: Duration,
    /// After which a broker that answers nothing holds up nobody: what it cannot take is dropped by the outbox's rule.
    pub stalled: Duration,
    /// A connection that stood so long makes the next attempt immediate.
    pub stable: Duration,
    /// A connection that stood so long was not dropped at once.
    pub settle: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            // KubeEdge waits 120 s for each publication; a packet of 1 MB takes a minute on a bad line.
            answer: Duration::from_secs(60),
            stalled: Duration::from_secs(5),
            stable: Duration::from_secs(5),
            settle: Duration::from_secs(2),
        }
    }
}

impl Patience {
    /// How often it is looked at.
    fn tick(&self) -> Duration {
        self.stalled.min(self.settle) / 2
    }
}

/// One broker to connect to, and how to publish there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// `internal` or `external`: for the log and the status page.
    pub name: &'static str,
    /// `tcp://host:port`, or `ssl://host:port` with [`Endpoint::tls`].
    pub server: String,
    /// Unique among the clients of that broker; stays the same over restarts.
    pub client_id: String,
    /// Quality of service of what is published: 0, 1 or 2.
    pub qos: u8,
    /// Quality of service of the subscriptions: 0, 1 or 2.
    pub subscribe_qos: u8,
    /// Whether what is published is retained by the broker.
    pub retain: bool,
    /// Who we are there; `None`: nobody asks.
    pub login: Option<Login>,
    /// How the broker is reached by TLS; `None`: by plain TCP at [`Endpoint::server`].
    pub tls: Option<TlsBroker>,
    /// The broker is this process's own: what it sends may be trusted.
    pub is_ours: bool,
}

impl Endpoint {
    /// Publications that may be on their way at once.
    fn window(&self) -> usize {
        if self.qos == 2 { IN_FLIGHT_QOS_2_MAX } else { IN_FLIGHT_MAX }
    }

    /// What is behind the tunnel; `None` where the library goes by itself, because the broker is our own.
    fn remote(&self) -> Option<Remote> {
        let plain = || self.server.split_once("://").map(|(_, address)| Remote::Plain(address.trim_end_matches('/').to_owned()));
        self.tls.clone().map(Remote::Tls).or_else(|| if self.is_ours { None } else { plain() })
    }
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
    /// The operating system gave no socket for the way to the broker.
    #[error(
        "no socket towards TLS for the {endpoint} MQTT broker: is the directory for temporary files (TMPDIR) there, writable, and its name short?"
    )]
    Tunnel {
        /// Name of the endpoint.
        endpoint: &'static str,
        /// What the operating system said.
        source: std::io::Error,
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
    /// Why it does not stand, in words; empty while it does, and before the first attempt.
    pub trouble: String,
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
    /// The way to a broker that is not ours.
    tunnel: Option<Arc<Tunnel>>,
    outbox: Outbox,
    patience: Patience,
    connected: AtomicBool,
    /// The broker is connected and answers nothing.
    stalled: AtomicBool,
    trouble: Mutex<String>,
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
        Self::start_with(endpoints, filters, inbound, Patience::default())
    }

    /// The same with another patience.
    ///
    /// # Errors
    /// See [`Transport::start`].
    pub fn start_with(
        endpoints: Vec<Endpoint>,
        filters: Vec<String>,
        inbound: Arc<dyn Inbound>,
        patience: Patience,
    ) -> Result<(Self, TransportGuard), TransportError> {
        let wanted = Arc::new(Wanted { always: filters, extra: Mutex::default(), changed: watch::Sender::new(0) });
        let mut connections = Vec::with_capacity(endpoints.len());
        let mut tunnels = Vec::new();
        for endpoint in endpoints {
            let name = endpoint.name;
            let opened = endpoint.remote().map(|remote| Tunnel::open(remote, patience.connect)).transpose();
            let (tunnel, listener) = opened.map_err(|source| TransportError::Tunnel { endpoint: name, source })?.unzip();
            tunnels.extend(tunnel.clone().zip(listener));
            let link = Arc::new(Link::new(endpoint, tunnel, patience));
            let client = connection::client(&link, &inbound)?;
            connections.push((link, client));
        }
        let links = connections.iter().map(|(link, _)| link.clone()).collect();
        let (stop, stopped) = watch::channel(false);
        let transport = Self { links, wanted: wanted.clone() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(TransportError::Thread)?;
        let thread = std::thread::Builder::new()
            .name("mqtt-client".into())
            .spawn(move || {
                runtime.block_on(async {
                    for (tunnel, listener) in tunnels {
                        tokio::spawn(tunnel.serve(listener));
                    }
                    connection::run(&connections, &wanted, inbound.as_ref(), &stopped).await;
                });
            })
            .map_err(TransportError::Thread)?;
        let guard = TransportGuard { stop, thread: Some(thread) };
        Ok((transport, guard))
    }

    /// Whether [`Transport::publish`] would drop nothing.
    ///
    /// A connection that is down, or whose broker has stopped answering, always has room: what it cannot hold is dropped by
    /// the outbox's rule, so that one broker never holds up the others.
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
        self.check(filter)?;
        self.wanted.extra().insert(filter.to_owned());
        self.wanted.changed.send_modify(|version| *version += 1);
        Ok(())
    }

    /// Whether one more filter can be subscribed.
    ///
    /// # Errors
    /// `Filter` for an invalid one, `TooManyFilters` at the limit.
    pub fn check(&self, filter: &str) -> Result<(), TransportError> {
        if !wire::mqtt::is_filter(filter) {
            return Err(TransportError::Filter { filter: filter.to_owned() });
        }
        let extra = self.wanted.extra();
        if extra.len() >= EXTRA_FILTERS_MAX && !extra.contains(filter) {
            return Err(TransportError::TooManyFilters { filter: filter.to_owned() });
        }
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

    /// How many brokers bring back what is published under this name.
    pub fn deliveries(&self, name: &str) -> usize {
        if self.wanted.takes_in(name) { self.links.len() } else { 0 }
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
    fn new(endpoint: Endpoint, tunnel: Option<Arc<Tunnel>>, patience: Patience) -> Self {
        Self {
            endpoint,
            tunnel,
            outbox: Outbox::default(),
            patience,
            connected: AtomicBool::new(false),
            stalled: AtomicBool::new(false),
            trouble: Mutex::default(),
            published: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            arrived: AtomicU64::new(0),
            panics: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            lost: Notify::new(),
        }
    }

    fn has_room(&self) -> bool {
        !self.connected.load(Ordering::Relaxed) || self.stalled.load(Ordering::Relaxed) || self.outbox.has_room()
    }

    /// The broker has stopped answering.
    fn stall(&self) {
        if !self.stalled.swap(true, Ordering::Relaxed) {
            let (endpoint, secs) = (self.endpoint.name, self.patience.stalled.as_secs());
            warn!(endpoint, secs; "the MQTT broker answers nothing; what is published waits, and without room the oldest goes");
            "it is connected and answers nothing".clone_into(&mut self.trouble());
        }
    }

    /// The broker answers, or is gone.
    fn answers(&self) {
        if self.stalled.load(Ordering::Relaxed) && self.stalled.swap(false, Ordering::Relaxed) {
            self.trouble().clear();
        }
    }

    fn trouble(&self) -> std::sync::MutexGuard<'_, String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn figures(&self) -> Figures {
        let (waiting, dropped) = self.outbox.depth();
        Figures {
            endpoint: self.endpoint.name,
            connected: self.connected.load(Ordering::Relaxed),
            trouble: self.trouble().clone(),
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

    fn takes_in(&self, name: &str) -> bool {
        let matches = |filter: &String| wire::mqtt::filter::matches(filter, name);
        self.always.iter().any(matches) || self.extra().iter().any(matches)
    }

    fn filters(&self) -> BTreeSet<String> {
        self.always.iter().cloned().chain(self.extra().iter().cloned()).collect()
    }
}
