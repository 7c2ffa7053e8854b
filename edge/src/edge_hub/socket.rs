//! The WebSocket to the cloud: a task of its own beside the EdgeHub actor, so that an actor which
//! restarts does not cut the connection.
//!
//! Connects with full-jitter back-off, announces each session and each frame to the actor's mailbox, and
//! writes what it finds in a bounded queue. Reading and writing are independent: two peers that both
//! write large frames would otherwise wait for each other.
//!
//! A peer that says nothing for two heartbeats is taken for dead; because each heartbeat also sends a
//! WebSocket ping, a living but silent cloud (KubeEdge's never answers a keepalive) is not cut.

use std::future::Future;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{Sink, SinkExt as _, Stream, StreamExt as _};
use log::{debug, info, warn};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue, Request, Uri};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};

use crate::backoff::Backoff;

/// Largest frame that is read or written.
pub const FRAME_BYTES_MAX: usize = 16 << 20;
/// Frames that may wait to be written.
pub const WAITING_MAX: usize = 512;
/// Bytes that may wait to be written; one frame is always taken.
pub const WAITING_BYTES_MAX: usize = 32 << 20;
/// The library's default of 128 KiB would be a sixth of this daemon's memory.
const READ_BUFFER_BYTES: usize = 16 << 10;
const WRITE_BUFFER_BYTES: usize = 16 << 10;

/// What the socket needs to know. All durations are wall-clock.
#[derive(Clone)]
pub struct Config {
    /// Headers of the upgrade request beside the WebSocket's own, such as `node_id`.
    pub headers: Vec<(String, String)>,
    /// From TCP connect to the end of the upgrade.
    pub handshake_within: Duration,
    /// A frame that is not written by then ends the connection.
    pub write_within: Duration,
    /// Interval of keepalives and pings.
    pub heartbeat: Duration,
    /// The peer is dead after so long a silence; two heartbeats are waited at least.
    pub silence_max: Duration,
}

/// Where the cloud is and how it proves itself; asked before each attempt, so that a renewed certificate
/// or a moved cloud is found.
pub trait Destination: Send + Sync + 'static {
    /// The `wss://` URL to connect to, and the TLS configuration for it.
    fn resolve(&self) -> impl Future<Output = Result<(String, Arc<rustls::ClientConfig>), String>> + Send;
}

/// What happens on the socket, told in order. The calls may wait: the socket reads no further meanwhile.
pub trait Events: Send + Sync + 'static {
    /// A session stands.
    fn connected(&self, session: u64) -> impl Future<Output = ()> + Send;
    /// The session is over.
    fn disconnected(&self, session: u64, reason: String) -> impl Future<Output = ()> + Send;
    /// A text frame arrived.
    fn received(&self, session: u64, text: String) -> impl Future<Output = ()> + Send;
    /// Cloud and edge do not trust each other's certificate. Told once per attempt; attempts go on.
    fn untrusted(&self, why: &str);
    /// The next keepalive frame (wire.md §7; the first right after the upgrade).
    fn keepalive(&self) -> String;
}

/// Why an attempt failed or a session ended.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The destination is not known.
    #[error("the address of the cloud is not known: {0}")]
    Destination(String),
    /// The URL cannot be used.
    #[error("`{url}` cannot be connected to: {reason}; set `edgehub.websocket.url` to wss://host:port/{{project}}/{{node}}/events")]
    Url {
        /// The URL of the configuration or the placement server.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// No TCP connection.
    #[error("{host}:{port} cannot be reached: {source}")]
    Connect {
        /// Host of the URL.
        host: String,
        /// Port of the URL.
        port: u16,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// One side refused the other's certificate.
    #[error(
        "{host} and this node do not trust each other's certificate: {reason}; \
         check that `pki/ca.crt` is the CA of this cloud, or run `skep-edge join` again with a token of it"
    )]
    Untrusted {
        /// Host of the URL.
        host: String,
        /// What rustls said.
        reason: String,
    },
    /// The TLS handshake failed otherwise.
    #[error("TLS with {host} failed: {source}")]
    Tls {
        /// Host of the URL.
        host: String,
        /// What rustls said.
        source: std::io::Error,
    },
    /// The upgrade was refused, with a status such as 401, 403 or 429.
    #[error("the cloud refused the connection with HTTP status {status}")]
    Refused {
        /// HTTP status.
        status: u16,
    },
    /// Nothing from the peer for two heartbeats.
    #[error("nothing was heard from the cloud for {0:?}")]
    Silent(Duration),
    /// A frame could not be written in time.
    #[error("the cloud took no data for {0:?}")]
    Stuck(Duration),
    /// Connecting took too long.
    #[error("no connection within {0:?}")]
    Slow(Duration),
    /// The peer closed the connection.
    #[error("the cloud closed the connection")]
    Closed,
    /// The peer broke the WebSocket protocol or a limit.
    #[error("WebSocket: {0}")]
    Protocol(Box<tungstenite::Error>),
}

/// Why a frame was not taken.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum OfferError {
    /// No session stands.
    #[error("not connected to the cloud")]
    Disconnected,
    /// Too much waits already.
    #[error("the queue to the cloud is full")]
    Full,
    /// The frame is above [`FRAME_BYTES_MAX`].
    #[error("a frame of {bytes} bytes is above the limit of {FRAME_BYTES_MAX}")]
    TooLarge {
        /// Size of the frame.
        bytes: usize,
    },
}

/// Handle on the socket task: cheap to clone, valid from any thread and across sessions.
#[derive(Clone, Debug, Default)]
pub struct Socket(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// The queue of the living session.
    session: Mutex<Option<(u64, mpsc::Sender<String>)>>,
    waiting_bytes: AtomicUsize,
    sessions: AtomicU64,
}

impl Socket {
    /// Queues a text frame for the living session and returns its number.
    ///
    /// # Errors
    /// `Disconnected`, `Full` or `TooLarge`. A frame that was taken can still be lost with its session.
    pub fn offer(&self, text: String) -> Result<u64, OfferError> {
        let bytes = text.len();
        if bytes > FRAME_BYTES_MAX {
            return Err(OfferError::TooLarge { bytes });
        }
        let session = self.session();
        let Some((number, queue)) = session.as_ref() else { return Err(OfferError::Disconnected) };
        let waiting = self.0.waiting_bytes.load(Ordering::Relaxed);
        if waiting > 0 && waiting + bytes > WAITING_BYTES_MAX {
            return Err(OfferError::Full);
        }
        self.0.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        queue.try_send(text).map_err(|error| {
            self.0.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
            match error {
                mpsc::error::TrySendError::Full(_) => OfferError::Full,
                mpsc::error::TrySendError::Closed(_) => OfferError::Disconnected,
            }
        })?;
        Ok(*number)
    }

    /// Number of the session that stands, if one does. Grows with each session.
    pub fn living_session(&self) -> Option<u64> {
        self.session().as_ref().map(|(number, _)| *number)
    }

    /// Forgets the living session, if there is one, and returns its number: its task has panicked.
    pub(super) fn abandon(&self) -> Option<u64> {
        self.session().take().map(|(number, _)| number)
    }

    /// A session without a network, for tests of what is offered.
    #[cfg(test)]
    pub(super) fn attach(&self, number: u64) -> mpsc::Receiver<String> {
        let (queue, frames) = mpsc::channel(WAITING_MAX);
        self.0.waiting_bytes.store(0, Ordering::Relaxed);
        *self.session() = Some((number, queue));
        frames
    }

    /// Connects, serves and connects again until `stop` turns true.
    pub async fn run<D: Destination, E: Events>(self, config: Config, destination: D, events: E, mut stop: watch::Receiver<bool>) {
        let stopping = stop.clone();
        tokio::select! {
            () = self.for_ever(&config, &destination, &events, stopping) => {}
            // A session that stands says goodbye by itself; an attempt is just dropped.
            () = async { told_to_stop(&mut stop).await; tokio::time::sleep(config.write_within).await } => {}
        }
    }

    async fn for_ever<D: Destination, E: Events>(&self, config: &Config, destination: &D, events: &E, mut stop: watch::Receiver<bool>) {
        let mut backoff = Backoff::default();
        let mut last_complaint = String::new();
        loop {
            let wait = backoff.next_wait(&mut rand::rng());
            let attempt = async {
                tokio::time::sleep(wait).await;
                timeout(config.handshake_within, connect(config, destination)).await.unwrap_or(Err(SocketError::Slow(config.handshake_within)))
            };
            let attempt = tokio::select! {
                attempt = attempt => attempt,
                () = told_to_stop(&mut stop) => return,
            };
            match attempt {
                Ok(stream) => {
                    last_complaint.clear();
                    let number = self.0.sessions.fetch_add(1, Ordering::Relaxed) + 1;
                    let (queue, frames) = mpsc::channel(WAITING_MAX);
                    self.0.waiting_bytes.store(0, Ordering::Relaxed);
                    *self.session() = Some((number, queue));
                    info!(session = number; "connected to the cloud");
                    events.connected(number).await;
                    let began = Instant::now();
                    let ended = self.serve(config, events, number, stream, frames, &mut stop).await;
                    *self.session() = None;
                    match &ended {
                        None => info!(session = number; "disconnected from the cloud: the daemon stops"),
                        Some(why) => warn!(session = number, reason:% = why; "disconnected from the cloud"),
                    }
                    let over = ended.is_none();
                    events.disconnected(number, ended.map_or_else(|| "the daemon stops".into(), |why| why.to_string())).await;
                    if over {
                        return;
                    }
                    // A cloud that accepts and cuts at once must not be hammered: only a session that
                    // stood makes the next attempt immediate.
                    if began.elapsed() >= config.heartbeat {
                        backoff.reset();
                    }
                }
                Err(why) => {
                    let complaint = why.to_string();
                    if matches!(why, SocketError::Untrusted { .. }) {
                        events.untrusted(&complaint);
                    }
                    if complaint == last_complaint {
                        debug!(reason = complaint; "the cloud cannot be reached");
                    } else {
                        warn!(reason = complaint; "the cloud cannot be reached; trying again with growing pauses");
                        last_complaint = complaint;
                    }
                }
            }
        }
    }

    /// One session. `None` when the daemon stops.
    async fn serve<E: Events, S>(
        &self,
        config: &Config,
        events: &E,
        number: u64,
        stream: S,
        frames: mpsc::Receiver<String>,
        stop: &mut watch::Receiver<bool>,
    ) -> Option<SocketError>
    where
        S: Stream<Item = Result<Message, tungstenite::Error>> + Sink<Message, Error = tungstenite::Error>,
    {
        let (sink, stream) = stream.split();
        tokio::select! {
            why = self.read(config, events, number, stream) => Some(why),
            why = self.write(config, events, sink, frames, stop.clone()) => why,
        }
    }

    async fn read<E: Events, S>(&self, config: &Config, events: &E, number: u64, mut stream: S) -> SocketError
    where
        S: Stream<Item = Result<Message, tungstenite::Error>> + Unpin,
    {
        let silence_max = config.silence_max.max(config.heartbeat * 2);
        loop {
            match timeout(silence_max, stream.next()).await {
                Err(_) => return SocketError::Silent(silence_max),
                Ok(None | Some(Ok(Message::Close(_)))) => return SocketError::Closed,
                Ok(Some(Err(error))) => return SocketError::from(error),
                Ok(Some(Ok(Message::Text(text)))) => events.received(number, text.as_str().to_owned()).await,
                // KubeEdge frames are text; pings are answered by the library.
                Ok(Some(Ok(Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_)))) => {}
            }
        }
    }

    async fn write<E: Events, S>(
        &self,
        config: &Config,
        events: &E,
        mut sink: S,
        mut frames: mpsc::Receiver<String>,
        mut stop: watch::Receiver<bool>,
    ) -> Option<SocketError>
    where
        S: Sink<Message, Error = tungstenite::Error> + Unpin,
    {
        // The first tick is immediate.
        let mut heartbeat = tokio::time::interval(config.heartbeat);
        heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let writing = tokio::select! {
                frame = frames.recv() => {
                    let Some(frame) = frame else { return Some(SocketError::Closed) };
                    self.0.waiting_bytes.fetch_sub(frame.len(), Ordering::Relaxed);
                    timeout(config.write_within, sink.send(Message::text(frame))).await
                }
                _ = heartbeat.tick() => {
                    let beat = async {
                        sink.feed(Message::text(events.keepalive())).await?;
                        sink.send(Message::Ping(Default::default())).await
                    };
                    timeout(config.write_within, beat).await
                }
                () = told_to_stop(&mut stop) => {
                    let _ = timeout(config.write_within, sink.close()).await;
                    return None;
                }
            };
            match writing {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Some(SocketError::from(error)),
                Err(_) => return Some(SocketError::Stuck(config.write_within)),
            }
        }
    }

    fn session(&self) -> std::sync::MutexGuard<'_, Option<(u64, mpsc::Sender<String>)>> {
        self.0.session.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<tungstenite::Error> for SocketError {
    fn from(error: tungstenite::Error) -> Self {
        match error {
            tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => Self::Closed,
            tungstenite::Error::Http(response) => Self::Refused { status: response.status().as_u16() },
            other => Self::Protocol(Box::new(other)),
        }
    }
}

type WebSocket = tokio_tungstenite::WebSocketStream<tokio_rustls::client::TlsStream<TcpStream>>;

async fn connect<D: Destination>(config: &Config, destination: &D) -> Result<WebSocket, SocketError> {
    let (url, tls) = destination.resolve().await.map_err(SocketError::Destination)?;
    let (request, host, port) = upgrade_request(&url, &config.headers)?;
    let name = ServerName::try_from(host.clone()).map_err(|_| bad_url(&url, "its host is neither a DNS name nor an IP address"))?;
    let stream = TcpStream::connect((host.as_str(), port)).await.map_err(|source| SocketError::Connect { host: host.clone(), port, source })?;
    let _ = stream.set_nodelay(true);
    let stream = TlsConnector::from(tls).connect(name, stream).await.map_err(|source| tls_error(&host, source))?;
    let limits = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_write_buffer_size(FRAME_BYTES_MAX + 2 * WRITE_BUFFER_BYTES)
        .max_frame_size(Some(FRAME_BYTES_MAX))
        .max_message_size(Some(FRAME_BYTES_MAX));
    match tokio_tungstenite::client_async_with_config(request, stream, Some(limits)).await {
        Ok((stream, _)) => Ok(stream),
        // In TLS 1.3 the server judges our certificate after the handshake has ended for us.
        Err(tungstenite::Error::Io(error)) => Err(tls_error(&host, error)),
        Err(error) => Err(error.into()),
    }
}

/// One attempt to connect, for tests of what it says.
#[cfg(test)]
pub(super) async fn try_once(config: &Config, url: String, tls: Arc<rustls::ClientConfig>) -> Result<(), SocketError> {
    struct Here(String, Arc<rustls::ClientConfig>);
    impl Destination for Here {
        async fn resolve(&self) -> Result<(String, Arc<rustls::ClientConfig>), String> {
            Ok((self.0.clone(), self.1.clone()))
        }
    }
    connect(config, &Here(url, tls)).await.map(drop)
}

fn tls_error(host: &str, source: std::io::Error) -> SocketError {
    let host = host.to_owned();
    let cause = source.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    match cause {
        Some(rustls::Error::InvalidCertificate(cause)) => SocketError::Untrusted { host, reason: format!("the cloud's certificate: {cause}") },
        Some(rustls::Error::AlertReceived(alert)) => {
            use rustls::AlertDescription as Alert;
            match alert {
                Alert::BadCertificate
                | Alert::UnsupportedCertificate
                | Alert::CertificateRevoked
                | Alert::CertificateExpired
                | Alert::CertificateUnknown
                | Alert::UnknownCA
                | Alert::AccessDenied
                | Alert::DecryptError
                | Alert::CertificateRequired => SocketError::Untrusted { host, reason: format!("the cloud refused ours: {alert:?}") },
                _ => SocketError::Tls { host, source },
            }
        }
        _ => SocketError::Tls { host, source },
    }
}

/// Builds the upgrade request. Returns it with host (without brackets) and port.
fn upgrade_request(url: &str, headers: &[(String, String)]) -> Result<(Request<()>, String, u16), SocketError> {
    let uri: Uri = url.parse().map_err(|_| bad_url(url, "it is no URL"))?;
    if uri.scheme_str() != Some("wss") {
        return Err(bad_url(url, "only wss:// is spoken with the cloud"));
    }
    let authority = uri.authority().ok_or_else(|| bad_url(url, "it names no host"))?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = match authority.port_u16() {
        Some(port) => port,
        // The parser drops a port above 65535 without a word.
        None if authority.as_str().ends_with(authority.host()) => 443,
        None => return Err(bad_url(url, "its port is no number from 1 to 65535")),
    };
    let mut request = uri.into_client_request().map_err(|_| bad_url(url, "it is no URL"))?;
    for (name, value) in headers {
        let header = HeaderName::try_from(name.as_str()).ok().zip(HeaderValue::try_from(value.as_str()).ok());
        let Some((name, value)) = header else {
            return Err(bad_url(url, "a header of the upgrade (node_id, project_id) holds characters that HTTP does not allow"));
        };
        request.headers_mut().insert(name, value);
    }
    Ok((request, host, port))
}

async fn told_to_stop(stop: &mut watch::Receiver<bool>) {
    // A sender that is gone can tell nothing more: that is an end as well.
    let _ = stop.wait_for(|stop| *stop).await;
}

fn bad_url(url: &str, reason: &'static str) -> SocketError {
    SocketError::Url { url: url.to_owned(), reason }
}
