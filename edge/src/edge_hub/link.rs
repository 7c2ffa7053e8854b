//! The socket's thread: what the socket asks for and what it tells, in terms of EdgeHub.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use actor::{EventKind, Handle, Meta};
use futures_util::FutureExt as _;
use log::error;
use model::Clock;
use rustls::ClientConfig;
use tokio::sync::watch;
use wire::hub::{Frame, MsgId, Upstream, codec};
use wire::link::Capabilities;

use super::socket::{self, Destination, Events, Socket};
use super::state::{EdgeHub, Figures, Shared, Snapshot};
use super::{Address, Config, EdgeHubMessage, Peers, entry, placement};

/// Gives the TLS configuration for one attempt to connect; asked each time, so that a renewed certificate is found.
pub type TlsSource = Arc<dyn Fn() -> Result<Arc<ClientConfig>, String> + Send + Sync>;

/// After a panic of the socket's task.
const PAUSE: Duration = Duration::from_secs(1);

/// The connection to the cloud, on a thread of its own beside the actor. Dropping it says goodbye and waits for the
/// thread, for the write deadline at most.
pub struct Link {
    socket: Socket,
    shared: Arc<Shared>,
    clock: Arc<dyn Clock>,
    own: Handle<EdgeHubMessage>,
    cloud: String,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Link {
    /// Starts to connect and returns at once. `untrusted` is told, with a sentence for the operator, each time cloud and
    /// node do not trust each other's certificate; attempts go on.
    ///
    /// # Errors
    /// When the operating system gives no thread.
    pub fn start(
        config: Config,
        tls: TlsSource,
        own: Handle<EdgeHubMessage>,
        untrusted: impl Fn(&str) + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        let (socket, shared) = (Socket::default(), Arc::new(Shared::default()));
        let (stop, stopped) = watch::channel(false);
        let clock = config.clock.clone();
        let name = match &config.destination {
            Address::Fixed(url) | Address::Placement { url, .. } => url.clone(),
        };
        let cloud = Arc::new(Cloud { address: config.destination, tls, within: config.handshake_within });
        let teller =
            Arc::new(Teller { name: name.clone(), shared: shared.clone(), own: own.clone(), clock: config.clock, untrusted: Box::new(untrusted) });
        let socket_config = socket::Config {
            headers: config.headers,
            handshake_within: config.handshake_within,
            write_within: config.write_within,
            heartbeat: config.heartbeat,
            silence_max: config.silence_max,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(1).build()?;
        let thread = std::thread::Builder::new().name("cloud-link".into()).spawn({
            let socket = socket.clone();
            move || runtime.block_on(serve(&socket, &socket_config, &cloud, &teller, &stopped))
        })?;
        Ok(Self { socket, shared, clock, own, cloud: name, stop, thread: Some(thread) })
    }

    /// What makes an incarnation of the actor.
    pub fn factory(&self, peers: Peers) -> impl Fn() -> EdgeHub + Send + Sync + Clone + 'static {
        let (socket, shared, clock) = (self.socket.clone(), self.shared.clone(), self.clock.clone());
        move || EdgeHub::new(socket.clone(), shared.clone(), peers.clone(), clock.clone())
    }

    /// Whether a session stands.
    pub fn is_connected(&self) -> bool {
        self.socket.living_session().is_some()
    }

    /// Tells the actor again that a session stands, if one does: for modules that were not there when it began.
    pub fn say_again(&self) {
        if let Some((session, capabilities)) = self.socket.living() {
            // Full: it is busy with what the cloud sends, and says of each connection anew.
            let _ = self.own.try_send(EdgeHubMessage::Connected { session, capabilities });
        }
    }

    /// Reads what EdgeHub knows, for as long as this connection is made and made again.
    pub fn snapshot(&self) -> impl Fn() -> Snapshot + Send + Sync + 'static {
        let (socket, shared, cloud) = (self.socket.clone(), self.shared.clone(), self.cloud.clone());
        move || {
            let session = socket.living_session();
            let figures = shared.figures(session.is_some());
            Snapshot {
                cloud: cloud.clone(),
                connected: session.is_some(),
                session,
                since_ms: session.map(|_| shared.since_ms.load(Ordering::Relaxed)),
                unanswered_requests: shared.unanswered.load(Ordering::Relaxed),
                sent: figures.sent,
                received: figures.received,
                dropped: figures.dropped_away + figures.dropped_full + figures.dropped_too_large + figures.dropped_no_room + figures.unreadable,
            }
        }
    }

    /// Counters for the metrics.
    pub fn figures(&self) -> Figures {
        self.shared.figures(self.is_connected())
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            error!("the thread of the connection to the cloud had panicked");
        }
    }
}

async fn serve(socket: &Socket, config: &socket::Config, cloud: &Arc<Cloud>, teller: &Arc<Teller>, stopped: &watch::Receiver<bool>) {
    loop {
        let run = socket.clone().run(config.clone(), cloud.clone(), teller.clone(), stopped.clone());
        if AssertUnwindSafe(run).catch_unwind().await.is_ok() {
            return;
        }
        error!("the connection to the cloud panicked and is made again");
        if let Some(session) = socket.abandon() {
            teller.disconnected(session, "the connection's task panicked".into()).await;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

struct Cloud {
    address: Address,
    tls: TlsSource,
    within: Duration,
}

impl Destination for Arc<Cloud> {
    async fn resolve(&self) -> Result<(String, Arc<ClientConfig>), String> {
        let tls = (self.tls)()?;
        let url = match &self.address {
            Address::Fixed(url) => url.clone(),
            Address::Placement { url, path } => {
                let base = placement::ask(url, tls.clone(), self.within).await.map_err(|error| error.to_string())?;
                format!("{}{path}", base.trim_end_matches('/'))
            }
        };
        Ok((url, tls))
    }
}

struct Teller {
    name: String,
    shared: Arc<Shared>,
    own: Handle<EdgeHubMessage>,
    clock: Arc<dyn Clock>,
    untrusted: Box<dyn Fn(&str) + Send + Sync>,
}

impl Teller {
    /// Waits for room: meanwhile nothing more is read from the cloud. A closed mailbox means that the daemon stops.
    async fn tell(&self, message: EdgeHubMessage) {
        self.post(Meta::new("cloud"), message).await;
    }

    async fn post(&self, meta: Meta, message: EdgeHubMessage) {
        let _ = self.own.post(meta, message).await;
    }
}

impl Events for Arc<Teller> {
    async fn connected(&self, session: u64, capabilities: Capabilities) {
        self.shared.since_ms.store(self.clock.now().millis(), Ordering::Relaxed);
        self.own.note(EventKind::Connected, format!("to the cloud at {}, session {session}", self.name));
        self.tell(EdgeHubMessage::Connected { session, capabilities }).await;
    }

    async fn disconnected(&self, session: u64, reason: String) {
        self.own.note(EventKind::Disconnected, format!("from the cloud, session {session}: {reason}"));
        self.tell(EdgeHubMessage::Disconnected { session, reason }).await;
    }

    async fn received(&self, session: u64, text: String) {
        self.post(entry::meta_of(&text), EdgeHubMessage::Received { session, text }).await;
    }

    fn untrusted(&self, why: &str) {
        (self.untrusted)(why);
    }

    fn keepalive(&self) -> String {
        codec::encode(&Frame::new(MsgId::random(), self.clock.now(), Upstream::Keepalive)).expect("a keepalive is far below the limit of a frame")
    }
}
