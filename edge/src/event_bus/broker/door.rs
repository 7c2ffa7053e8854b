//! The door of the embedded broker: listens, counts, asks who it is, and gives the connection to the library.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use log::{debug, warn};
use mqtt5::broker::client_handler::ClientHandler;
use mqtt5::broker::router::MessageRouter;
use mqtt5::broker::storage::QueueLimits;
use mqtt5::broker::sys_topics::BrokerStats;
use mqtt5::broker::tls_acceptor::TlsStreamWrapper;
use mqtt5::broker::transport::BrokerTransport;
use mqtt5::broker::{BrokerConfig, DynamicStorage, MemoryBackend, ResourceLimits, ResourceMonitor, StorageBackend as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{broadcast, mpsc, watch};
use tokio_rustls::TlsAcceptor;

use super::entrances::Proof;
use super::gate::{Guest, Visitor};
use super::resident::{Lane, Life};
use super::retained::Retained;
use super::slow::Readers;
use super::tls::{Tls, common_name};
use super::{Guard, Plan, limits};
use crate::event_bus::ingress::worth_a_line;

/// After an accept that failed, which it does again at once where this process has no file descriptor left.
const BREATH: Duration = Duration::from_millis(100);

/// Which of the entrances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// TCP (`mqtt.internal-server`).
    Plain,
    /// TLS (`mqtt.internal-tls-server`).
    Tls,
}

/// The entrances, each with what listens there.
pub(super) type Doors = Vec<(Entry, TcpListener)>;

/// One life of the broker: the library's parts, and who is inside.
pub(super) struct House {
    config: BrokerConfig,
    router: Arc<MessageRouter>,
    storage: Arc<DynamicStorage>,
    readers: Arc<Readers>,
    monitor: Arc<ResourceMonitor>,
    guard: Guard,
    /// Client id of the daemon: nobody else's.
    daemon: Arc<str>,
    /// Where the daemon gets its share, while it is at home.
    lane: OnceLock<Lane>,
    closing: broadcast::Sender<()>,
    seats: Arc<Seats>,
    turned_away: AtomicU64,
}

impl House {
    /// Makes the library's parts and opens the doors.
    pub(super) fn build(plan: &Plan) -> Result<(Arc<Self>, Doors), String> {
        let config = limits::library_config(plan.session_queue_size);
        config.validate().map_err(|error| error.to_string())?;
        let queue = QueueLimits { max_messages: plan.session_queue_size, max_bytes: limits::SESSION_BYTES_MAX };
        let storage = Arc::new(DynamicStorage::Memory(MemoryBackend::with_queue_limits(queue)));
        let router = MessageRouter::with_storage(storage.clone()).with_retained_limits(limits::RETAINED_WITH_WILLS_MAX, 0);
        // Connections are counted at the door, and no rate is limited by dropping.
        let counted_here = ResourceLimits { max_message_rate_per_client: 0, max_bandwidth_per_client: 0, ..ResourceLimits::default() };
        let doors = plan.listeners.iter().map(|(entry, listener)| Ok((*entry, TcpListener::from_std(listener.try_clone()?)?)));
        let doors = doors.collect::<std::io::Result<_>>().map_err(|error| error.to_string())?;
        let house = Self {
            config,
            router: Arc::new(router),
            storage,
            readers: Arc::default(),
            monitor: Arc::new(ResourceMonitor::new(counted_here)),
            daemon: uuid::Uuid::new_v4().simple().to_string().into(),
            lane: OnceLock::new(),
            guard: plan.guard.clone(),
            closing: broadcast::channel(1).0,
            seats: Arc::new(Seats::new(limits::connections_max())),
            turned_away: AtomicU64::new(0),
        };
        Ok((Arc::new(house), doors))
    }

    /// Lets in until it is told to stop, then says goodbye to all.
    pub(super) async fn keep_open(self: Arc<Self>, doors: Doors, stopped: watch::Receiver<bool>) {
        let mut at_home = self.move_in().await;
        let (inside, mut all_gone) = mpsc::channel::<()>(1);
        let open = futures_util::future::join_all(doors.into_iter().map(|(entry, listener)| self.clone().attend(entry, listener, inside.clone())));
        tokio::select! {
            _ = open => {}
            () = self.sweep() => {}
            () = live(at_home.as_mut(), stopped) => {}
        }
        if let Some(life) = &mut at_home {
            life.empty().await;
            let _ = tokio::time::timeout(limits::LAST_WORDS, self.readers.all_has_gone_out(limits::LAST_WORDS_LOOK)).await;
        }
        drop(inside);
        let _ = self.closing.send(());
        let _ = tokio::time::timeout(limits::STOP_WITHIN, all_gone.recv()).await;
    }

    /// The daemon moves in, if there is one.
    async fn move_in(&self) -> Option<Life> {
        let resident = self.guard.resident.clone()?;
        let (life, lane) = Life::begin(resident, self.daemon.clone(), self.router.clone(), self.readers.clone()).await;
        let _ = self.lane.set(lane);
        Some(life)
    }

    /// Forgets sessions to which nobody returned.
    async fn sweep(&self) {
        loop {
            tokio::time::sleep(limits::SWEEP_EVERY).await;
            if let Err(error) = self.storage.cleanup_expired().await {
                warn!(error:% = error; "sessions of the embedded MQTT broker could not be looked through");
            }
            self.router.sweep_sessions().await;
        }
    }

    async fn attend(self: Arc<Self>, entry: Entry, listener: TcpListener, inside: mpsc::Sender<()>) {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => match self.seats.take(peer.ip()) {
                    Some(seat) => {
                        let (house, inside) = (self.clone(), inside.clone());
                        tokio::spawn(async move {
                            house.receive(entry, stream, peer).await;
                            drop((seat, inside));
                        });
                    }
                    None => self.turn_away(peer),
                },
                Err(error) => {
                    let count = self.turned_away.fetch_add(1, Ordering::Relaxed) + 1;
                    if worth_a_line(count) {
                        warn!(error:% = error, turned_away = count; "the embedded MQTT broker cannot accept a connection");
                    }
                    tokio::time::sleep(BREATH).await;
                }
            }
        }
    }

    fn turn_away(&self, peer: SocketAddr) {
        let count = self.turned_away.fetch_add(1, Ordering::Relaxed) + 1;
        if worth_a_line(count) {
            warn!(peer:% = peer, turned_away = count; "an MQTT connection was turned away: there are too many, in all or from this address");
        }
    }

    fn visitor(&self, proof: Proof, certificate: Option<String>) -> Visitor {
        Visitor::new(
            self.guard.entrances.access.clone(),
            self.daemon.clone(),
            proof,
            certificate,
            self.storage.clone(),
            Retained(self.router.clone()),
        )
    }

    async fn receive(&self, entry: Entry, stream: TcpStream, peer: SocketAddr) {
        let _ = stream.set_nodelay(true);
        let second = stream.as_fd().try_clone_to_owned().ok().map(std::net::TcpStream::from);
        let entrances = &self.guard.entrances;
        let (transport, visitor) = match (entry, &entrances.secure) {
            (Entry::Tls, Some(secure)) => match handshake(&secure.tls, stream).await {
                Ok((stream, name)) => (BrokerTransport::tls(stream), self.visitor(secure.proof, name)),
                Err(error) => {
                    let count = self.turned_away.fetch_add(1, Ordering::Relaxed) + 1;
                    if worth_a_line(count) {
                        warn!(peer:% = peer, error:% = error, turned_away = count; "a TLS connection to the embedded MQTT broker failed");
                    }
                    return;
                }
            },
            _ => (BrokerTransport::tcp(stream), self.visitor(entrances.plain, None)),
        };
        let guest = Guest {
            purse: self.guard.credits.purse(),
            readers: self.readers.clone(),
            lane: self.lane.get().cloned(),
            retained: Retained(self.router.clone()),
        };
        let config = BrokerConfig { event_handler: Some(Arc::new(guest)), ..self.config.clone() };
        // Its own, so that it is seen how much this connection takes.
        let stats = Arc::new(BrokerStats::new());
        let _watched = second.map(|socket| self.readers.watch(peer, socket, stats.clone()));
        let handler = ClientHandler::new(
            transport,
            peer,
            Arc::new(config),
            self.router.clone(),
            Arc::new(visitor),
            Some(self.storage.clone()),
            stats,
            self.monitor.clone(),
            self.closing.subscribe(),
        );
        if let Err(error) = handler.run().await {
            debug!(peer:% = peer, error:% = error; "an MQTT connection ended");
        }
    }
}

/// Until it is to stop: the daemon lives here, if it is at home.
async fn live(life: Option<&mut Life>, mut stopped: watch::Receiver<bool>) {
    match life {
        Some(life) => life.go_on(stopped).await,
        None => drop(stopped.wait_for(|stopped| *stopped).await),
    }
}

/// TLS within its time; with the name in the client's certificate, where it showed one.
async fn handshake(tls: &Tls, stream: TcpStream) -> io::Result<(TlsStreamWrapper, Option<String>)> {
    let accept = TlsAcceptor::from(tls.current()).accept(stream);
    let stream = tokio::time::timeout(limits::HANDSHAKE_WITHIN, accept).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let name = match stream.get_ref().1.peer_certificates().and_then(<[_]>::first) {
        Some(certificate) => Some(common_name(certificate).ok_or_else(|| io::Error::other("the client's certificate has not one common name"))?),
        None => None,
    };
    Ok((TlsStreamWrapper::new(stream), name))
}

/// How many are inside, in all and from each address.
#[derive(Debug)]
pub(super) struct Seats {
    max: usize,
    taken: Mutex<HashMap<IpAddr, usize>>,
}

/// One connection's place; free again when it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Arc<Seats>,
    address: IpAddr,
}

impl Seats {
    pub(super) fn new(max: usize) -> Self {
        Self { max, taken: Mutex::default() }
    }

    /// A place, if there is one. On the loopback all clients have one address, so there only the sum counts.
    pub(super) fn take(self: &Arc<Self>, address: IpAddr) -> Option<Seat> {
        let address = address.to_canonical();
        let mut taken = lock(&self.taken);
        let (all, own) = (taken.values().sum::<usize>(), taken.get(&address).copied().unwrap_or_default());
        if all >= self.max || (own >= limits::PER_ADDRESS_MAX && !address.is_loopback()) {
            return None;
        }
        *taken.entry(address).or_default() += 1;
        Some(Seat { seats: self.clone(), address })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = lock(&self.seats.taken);
        if let Some(count) = taken.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.address);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    fn take(seats: &Arc<Seats>, address: &str, count: usize) -> Vec<Seat> {
        (0..count).map_while(|_| seats.take(address.parse().unwrap())).collect()
    }

    #[test]
    fn of_one_other_machine_128_come_in_and_a_place_is_free_again() {
        let seats = Arc::new(Seats::new(1_000));
        let mut far = take(&seats, "192.0.2.1", 1_000);
        assert_eq!(far.len(), limits::PER_ADDRESS_MAX);
        assert!(take(&seats, "::ffff:192.0.2.1", 1).is_empty(), "the same machine by IPv6");
        assert_eq!(take(&seats, "192.0.2.2", 1).len(), 1);
        far.pop();
        assert_eq!(take(&seats, "192.0.2.1", 2).len(), 1);
        assert_eq!(take(&seats, "127.0.0.1", 1_000).len(), 1_000 - far.len(), "of this machine as many as there are places");
        drop(far);
        assert!(lock(&seats.taken).is_empty());
    }

    #[test]
    fn in_all_no_more_come_in_than_there_are_places() {
        let seats = Arc::new(Seats::new(3));
        let inside = take(&seats, "127.0.0.1", 5);
        assert_eq!(inside.len(), 3);
        assert!(take(&seats, "192.0.2.1", 1).is_empty());
        drop(inside);
        assert_eq!(take(&seats, "192.0.2.1", 5).len(), 3);
    }
}
