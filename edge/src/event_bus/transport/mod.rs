//! The MQTT client: one connection to each broker that is not ours, on a thread of its own beside the EventBus actor. At
//! our own the daemon is at home and needs none; it fills and empties the same [`Link`] (`broker::resident`).
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
mod link;
mod login;
mod packets;
mod tls_files;
mod tls_words;
mod tunnel;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use log::error;
use tokio::sync::watch;

use super::outbox::Publication;

use connection::Line;
pub use link::{Figures, Link, Manner, Wanted};
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
    /// So many fruitless sessions in a row make the next one begin anew, without what the broker kept for us.
    pub barren: u32,
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
            // With three, a busy machine whose network was cut again and again lost what the broker kept for it.
            barren: 10,
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
    /// How is published there.
    pub manner: Manner,
    /// `tcp://host:port`, or `ssl://host:port` with [`Endpoint::tls`].
    pub server: String,
    /// Unique among the clients of that broker; stays the same over restarts.
    pub client_id: String,
    /// Quality of service of the subscriptions: 0, 1 or 2.
    pub subscribe_qos: u8,
    /// Who we are there; `None`: nobody asks.
    pub login: Option<Login>,
    /// How the broker is reached by TLS; `None`: by plain TCP at [`Endpoint::server`].
    pub tls: Option<TlsBroker>,
}

impl Endpoint {
    /// Publications that may be on their way at once.
    fn window(&self) -> usize {
        if self.manner.qos == 2 { IN_FLIGHT_QOS_2_MAX } else { IN_FLIGHT_MAX }
    }

    /// What is behind the tunnel.
    fn remote(&self) -> Remote {
        let address = self.server.split_once("://").map_or(self.server.as_str(), |(_, address)| address);
        self.tls.clone().map_or_else(|| Remote::Plain(address.trim_end_matches('/').to_owned()), Remote::Tls)
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
    #[error("no socket towards the {endpoint} MQTT broker: is the directory for temporary files (TMPDIR) there, writable, and its name short?")]
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

/// Handle on the running connections: cheap to clone, valid from any thread.
#[derive(Clone, Debug)]
pub struct Transport {
    links: Arc<[Arc<Link>]>,
    /// That to our own broker, which is among them.
    own: Option<Arc<Link>>,
    wanted: Arc<Wanted>,
}

/// Ends the connections when dropped and waits for their thread, some four seconds at most.
#[derive(Debug)]
pub struct TransportGuard {
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Transport {
    /// Starts to connect to `endpoints`, subscribing to `filters` on each, and returns at once. `own`: the link to our own
    /// broker, which that broker drives.
    ///
    /// # Errors
    /// `Client`, `Tunnel` or `Thread`. A broker that does not answer is no error: connecting is repeated for ever.
    pub fn start(
        own: Option<Arc<Link>>,
        endpoints: Vec<Endpoint>,
        filters: Vec<String>,
        inbound: Arc<dyn Inbound>,
    ) -> Result<(Self, TransportGuard), TransportError> {
        Self::start_with(own, endpoints, filters, inbound, Patience::default())
    }

    /// The same with another patience.
    ///
    /// # Errors
    /// See [`Transport::start`].
    pub fn start_with(
        own: Option<Arc<Link>>,
        endpoints: Vec<Endpoint>,
        filters: Vec<String>,
        inbound: Arc<dyn Inbound>,
        patience: Patience,
    ) -> Result<(Self, TransportGuard), TransportError> {
        let wanted = Wanted::new(filters);
        let mut lines = Vec::with_capacity(endpoints.len());
        let mut listeners = Vec::new();
        for endpoint in endpoints {
            let opened = Tunnel::open(endpoint.remote(), patience.connect);
            let (tunnel, listener) = opened.map_err(|source| TransportError::Tunnel { endpoint: endpoint.manner.name, source })?;
            listeners.push((tunnel.clone(), listener));
            lines.push(Line::new(endpoint, tunnel, patience, &inbound)?);
        }
        let links = own.iter().cloned().chain(lines.iter().map(Line::link)).collect();
        let transport = Self { links, own, wanted: wanted.clone() };
        let (stop, stopped) = watch::channel(false);
        if lines.is_empty() {
            return Ok((transport, TransportGuard { stop, thread: None }));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(TransportError::Thread)?;
        let thread = std::thread::Builder::new()
            .name("mqtt-client".into())
            .spawn(move || {
                runtime.block_on(async {
                    for (tunnel, listener) in listeners {
                        tokio::spawn(tunnel.serve(listener));
                    }
                    connection::run(&lines, &wanted, inbound.as_ref(), &stopped).await;
                });
            })
            .map_err(TransportError::Thread)?;
        Ok((transport, TransportGuard { stop, thread: Some(thread) }))
    }

    /// What is subscribed, for our own broker.
    pub fn wanted(&self) -> Arc<Wanted> {
        self.wanted.clone()
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
        self.wanted.change(|extra| {
            extra.insert(filter.to_owned());
        });
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
        self.wanted.change(|extra| {
            extra.remove(filter);
        });
    }

    /// Topic filters that are subscribed at each broker: those of the devices, and those that the cloud asked for.
    pub fn subscriptions(&self) -> usize {
        self.wanted.filters().len()
    }

    /// How many brokers bring back what is published under this name: ours does not.
    pub fn deliveries(&self, name: &str) -> usize {
        let others = self.links.len() - usize::from(self.own.is_some());
        if others > 0 && self.wanted.takes_in(name) { others } else { 0 }
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
