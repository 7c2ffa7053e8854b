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

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use log::{debug, error, info, warn};
use paho_mqtt as paho;
use tokio::sync::{Notify, watch};

use super::outbox::{Outbox, Publication, Queued};
use crate::backoff::Backoff;

/// Publications handed to the library and not yet answered by the broker (QoS 0: not yet written).
pub const IN_FLIGHT_MAX: usize = 256;
/// Filters beyond those of the devices that the cloud may have subscribed.
pub const EXTRA_FILTERS_MAX: usize = 256;

const CONNECT_WITHIN: Duration = Duration::from_secs(10);
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// After a panic.
const PAUSE: Duration = Duration::from_secs(1);
/// What waits at the end has so long to go out, and the broker so long again to hear the goodbye.
const GOODBYE_WITHIN: Duration = Duration::from_secs(1);
/// Sessions that may end with the same message unanswered before it is dropped.
const ATTEMPTS_MAX: u32 = 3;
/// Inbound messages are subscribed with QoS 1 (KubeEdge `mqtt/client.go`).
const SUBSCRIBE_QOS: i32 = 1;

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
    /// [`EXTRA_FILTERS_MAX`] are subscribed already.
    #[error("{EXTRA_FILTERS_MAX} further topic filters are subscribed already; `{filter}` was not added")]
    TooManyFilters {
        /// What was asked for.
        filter: String,
    },
}

/// Figures of one connection for the status page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
            let client = client(&link, &inbound)?;
            connections.push((link, client));
        }
        let links = connections.iter().map(|(link, _)| link.clone()).collect();
        let (stop, stopped) = watch::channel(false);
        let transport = Self { links, wanted: wanted.clone() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(TransportError::Thread)?;
        let thread = std::thread::Builder::new()
            .name("mqtt-client".into())
            .spawn(move || runtime.block_on(run(&connections, &wanted, inbound.as_ref(), &stopped)))
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

    fn message(&self, publication: &Publication) -> paho::Message {
        paho::MessageBuilder::new()
            .topic(publication.topic.as_str())
            .payload(publication.payload.to_vec())
            .qos(paho::QoS::from(i32::from(self.endpoint.qos)))
            .retained(self.endpoint.retain)
            .finalize()
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

fn client(link: &Arc<Link>, inbound: &Arc<dyn Inbound>) -> Result<paho::AsyncClient, TransportError> {
    let options = paho::CreateOptionsBuilder::new()
        .server_uri(link.endpoint.server.as_str())
        .client_id(link.endpoint.client_id.as_str())
        .persistence(paho::PersistenceType::None)
        .max_buffered_messages(i32::try_from(2 * IN_FLIGHT_MAX).unwrap_or(i32::MAX))
        .finalize();
    let client = paho::AsyncClient::new(options).map_err(|error| TransportError::Client {
        endpoint: link.endpoint.name,
        server: link.endpoint.server.clone(),
        reason: error.to_string(),
    })?;
    // The library's requests hold references to the client, and the last one to go destroys it. Gone inside a callback,
    // that is a deadlock of the whole library, for every client of the process. So a client is never destroyed; there
    // is one per broker and process, and when it is stopped it is disconnected and deaf.
    std::mem::forget(client.clone());
    let lost = link.clone();
    client.set_connection_lost_callback(move |_| lost.lost.notify_one());
    let (receiver, inbound) = (link.clone(), inbound.clone());
    client.set_message_callback(move |_, message| {
        let Some(message) = message else { return };
        if receiver.closed.load(Ordering::Relaxed) {
            return;
        }
        receiver.arrived.fetch_add(1, Ordering::Relaxed);
        // A panic must not unwind into C, which would end the process.
        let taken = catch_unwind(AssertUnwindSafe(|| {
            inbound.arrived(message.topic(), message.payload());
        }));
        if taken.is_err() {
            receiver.panics.fetch_add(1, Ordering::Relaxed);
            error!(endpoint = receiver.endpoint.name; "taking an MQTT message panicked; the message is lost");
        }
    });
    Ok(client)
}

/// Drives all connections until they are told to stop. A panic loses what is in flight and nothing else.
async fn run(connections: &[(Arc<Link>, paho::AsyncClient)], wanted: &Wanted, inbound: &dyn Inbound, stopped: &watch::Receiver<bool>) {
    loop {
        let drives =
            connections.iter().map(|(link, client)| Drive { link, client, wanted, inbound, in_flight: FuturesUnordered::new(), attempt: None });
        let all = join_all(drives.map(|mut drive| async move { drive.until(stopped.clone()).await }));
        if AssertUnwindSafe(all).catch_unwind().await.is_ok() {
            return;
        }
        error!("the MQTT client panicked; all connections are made again");
        for (link, _) in connections {
            link.connected.store(false, Ordering::Relaxed);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// What drives one connection.
struct Drive<'a> {
    link: &'a Link,
    client: &'a paho::AsyncClient,
    wanted: &'a Wanted,
    inbound: &'a dyn Inbound,
    in_flight: FuturesUnordered<Delivery>,
    /// The attempt to connect that is under way.
    attempt: Option<paho::ConnectToken>,
}

type Delivery = std::pin::Pin<Box<dyn Future<Output = (Queued, paho::Result<()>)>>>;

impl Drive<'_> {
    async fn until(&mut self, mut stopped: watch::Receiver<bool>) {
        tokio::select! {
            () = self.connect_for_ever() => {}
            _ = stopped.wait_for(|stopped| *stopped) => {}
        }
        // An attempt that is under way cannot be called off: it is let end, to be disconnected then.
        if let Some(attempt) = self.attempt.take() {
            let _ = tokio::time::timeout(GOODBYE_WITHIN, attempt).await;
        }
        let _ = tokio::time::timeout(GOODBYE_WITHIN, self.drain()).await;
        self.link.closed.store(true, Ordering::Relaxed);
        self.link.connected.store(false, Ordering::Relaxed);
        let goodbye = self.client.disconnect_after(GOODBYE_WITHIN);
        let _ = tokio::time::timeout(GOODBYE_WITHIN * 2, goodbye).await;
    }

    /// Publishes what waits and waits for the broker's answers.
    async fn drain(&mut self) {
        while self.client.is_connected() {
            let room = self.in_flight.len() < IN_FLIGHT_MAX;
            match room.then(|| self.link.outbox.try_take()).flatten() {
                Some(queued) => {
                    let _ = self.send(queued);
                }
                None => match self.in_flight.next().await {
                    Some((queued, result)) => self.settle(queued, result),
                    None => return,
                },
            }
        }
    }

    async fn connect_for_ever(&mut self) {
        let mut backoff = Backoff::default();
        let mut complained = false;
        loop {
            tokio::time::sleep(backoff.next_wait(&mut rand::rng())).await;
            let endpoint = &self.link.endpoint;
            match self.connect().await {
                Ok(subscribed) => {
                    backoff.reset();
                    complained = false;
                    self.link.connected.store(true, Ordering::Relaxed);
                    info!(endpoint = endpoint.name, server = endpoint.server; "connected to the MQTT broker");
                    self.inbound.up(endpoint.name);
                    let reason = self.work(subscribed).await;
                    self.link.connected.store(false, Ordering::Relaxed);
                    warn!(endpoint = endpoint.name, server = endpoint.server, reason; "the MQTT broker is gone; connecting again");
                    self.inbound.down(endpoint.name, reason);
                }
                Err(reason) if complained => {
                    debug!(endpoint = endpoint.name, reason; "the MQTT broker cannot be reached");
                }
                Err(reason) => {
                    complained = true;
                    warn!(
                        endpoint = endpoint.name, server = endpoint.server, reason;
                        "the MQTT broker cannot be reached; trying again with growing pauses"
                    );
                }
            }
        }
    }

    /// Connects and subscribes. Returns the filters that are subscribed.
    async fn connect(&mut self) -> Result<BTreeSet<String>, String> {
        if self.client.is_connected() {
            within(GOODBYE_WITHIN * 2, self.client.disconnect_after(GOODBYE_WITHIN)).await?;
        }
        let options = paho::ConnectOptionsBuilder::new_v3()
            .clean_session(false)
            .keep_alive_interval(KEEP_ALIVE)
            .connect_timeout(CONNECT_WITHIN)
            .max_inflight(i32::try_from(IN_FLIGHT_MAX).unwrap_or(i32::MAX))
            .finalize();
        let attempt = self.attempt.insert(self.client.connect(options));
        let connected = within(CONNECT_WITHIN * 2, attempt).await;
        self.attempt = None;
        connected?;
        let filters = self.wanted.filters();
        let list: Vec<String> = filters.iter().cloned().collect();
        let subscribed = self.client.subscribe_many_same_qos(&list, SUBSCRIBE_QOS);
        if let Err(reason) = within(CONNECT_WITHIN, subscribed).await {
            return Err(format!("it refused the subscriptions: {reason}"));
        }
        Ok(filters)
    }

    /// Publishes and subscribes until the connection is lost; returns why.
    async fn work(&mut self, mut subscribed: BTreeSet<String>) -> String {
        let mut wanted = self.wanted.changed.subscribe();
        loop {
            tokio::select! {
                biased;
                () = self.link.lost.notified() => {
                    // The notice may be of an earlier connection that broke while it was made.
                    if !self.client.is_connected() {
                        return "the connection was closed".into();
                    }
                }
                Some((queued, result)) = self.in_flight.next() => self.settle(queued, result),
                queued = self.link.outbox.take(), if self.in_flight.len() < IN_FLIGHT_MAX => {
                    if let Err(reason) = self.send(queued) {
                        return reason;
                    }
                }
                _ = wanted.changed() => {
                    if let Err(reason) = self.resubscribe(&mut subscribed).await {
                        return reason;
                    }
                }
            }
        }
    }

    /// Hands one publication to the library. `Err` when the connection is gone.
    fn send(&self, queued: Queued) -> Result<(), String> {
        let message = self.link.message(&queued.publication);
        match self.client.try_publish(message) {
            Ok(token) => {
                self.in_flight.push(Box::pin(async move { (queued, token.await) }));
                Ok(())
            }
            Err(error) if !self.client.is_connected() => {
                self.link.outbox.put_back(queued);
                Err(error.to_string())
            }
            Err(error) => {
                self.refuse(&queued, &error);
                Ok(())
            }
        }
    }

    fn settle(&self, mut queued: Queued, result: paho::Result<()>) {
        match result {
            Ok(()) => {
                self.link.published.fetch_add(1, Ordering::Relaxed);
            }
            // The session ended with the message unanswered: it goes out again in the next one. A message
            // that ends session after session is given up, or it would do so for ever.
            Err(_) if queued.attempts + 1 < ATTEMPTS_MAX => {
                queued.attempts += 1;
                self.link.outbox.put_back(queued);
            }
            Err(error) => self.refuse(&queued, &error),
        }
    }

    fn refuse(&self, queued: &Queued, error: &paho::Error) {
        self.link.refused.fetch_add(1, Ordering::Relaxed);
        warn!(
            endpoint = self.link.endpoint.name, topic = queued.publication.topic, error:% = error;
            "an MQTT message could not be published and is dropped"
        );
    }

    /// Brings the broker's subscriptions to what is wanted.
    async fn resubscribe(&self, subscribed: &mut BTreeSet<String>) -> Result<(), String> {
        let wanted = self.wanted.filters();
        for filter in wanted.difference(subscribed) {
            within(CONNECT_WITHIN, self.client.subscribe(filter.as_str(), SUBSCRIBE_QOS)).await?;
        }
        for filter in subscribed.difference(&wanted) {
            within(CONNECT_WITHIN, self.client.unsubscribe(filter.as_str())).await?;
        }
        *subscribed = wanted;
        Ok(())
    }
}

async fn within<T>(limit: Duration, asked: impl Future<Output = paho::Result<T>>) -> Result<T, String> {
    match tokio::time::timeout(limit, asked).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {} s", limit.as_secs())),
    }
}
