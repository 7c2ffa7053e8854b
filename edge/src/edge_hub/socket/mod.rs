//! The WebSocket to the cloud: a task of its own beside the EdgeHub actor, so that an actor which
//! restarts does not cut the connection.
//!
//! Connects with full-jitter back-off, announces each session and each frame to the actor's mailbox, and
//! writes what it finds in a bounded queue. Reading and writing are independent: two peers that both
//! write large frames would otherwise wait for each other.
//!
//! A peer that says nothing for two heartbeats, not even a part of a frame, is taken for dead; because each
//! heartbeat also sends a WebSocket ping, a living but silent cloud (KubeEdge's never answers a keepalive) is not
//! cut.

mod dial;
mod ear;

use std::future::Future;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{Sink, SinkExt as _, Stream, StreamExt as _};
use log::{debug, info, warn};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::{self, Message};

use wire::link::Capabilities;

use crate::backoff::{Backoff, LONGEST_WAIT};

pub use dial::SocketError;
use dial::connect;
#[cfg(test)]
pub(super) use dial::try_once;
use ear::Ear;

/// Largest frame that is read or written.
pub const FRAME_BYTES_MAX: usize = 16 << 20;
/// Frames that may wait to be written.
pub const WAITING_MAX: usize = 512;
/// Bytes that may wait to be written; one frame is always taken.
pub const WAITING_BYTES_MAX: usize = 32 << 20;
/// The longest pause while the cloud's machine answers that nobody listens there: so soon after its return a cloud that
/// was away for hours has this edge again. A machine that does not answer at all, or a cloud that refuses, is spared
/// with the full back-off.
const LONGEST_WAIT_FOR_LISTENER: Duration = Duration::from_secs(1);

/// What the socket needs to know. All durations are wall-clock.
#[derive(Clone)]
pub struct Config {
    /// Headers of the upgrade request beside the WebSocket's own, such as `node_id`.
    pub headers: Vec<(String, String)>,
    /// From TCP connect to the end of the upgrade.
    pub handshake_within: Duration,
    /// A cloud that takes nothing of a frame for so long ends the connection.
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
    /// A session stands; what both sides of it can.
    fn connected(&self, session: u64, capabilities: Capabilities) -> impl Future<Output = ()> + Send;
    /// The session is over.
    fn disconnected(&self, session: u64, reason: String) -> impl Future<Output = ()> + Send;
    /// A text frame arrived.
    fn received(&self, session: u64, text: String) -> impl Future<Output = ()> + Send;
    /// Cloud and edge do not trust each other's certificate. Told once per attempt; attempts go on.
    fn untrusted(&self, why: &str);
    /// The next keepalive frame (KubeEdge `edgehub/process.go`; the first right after the upgrade).
    fn keepalive(&self) -> String;
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
    session: Mutex<Option<Living>>,
    waiting_bytes: AtomicUsize,
    sessions: AtomicU64,
}

#[derive(Debug)]
struct Living {
    number: u64,
    capabilities: Capabilities,
    queue: mpsc::Sender<String>,
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
        let Some(Living { number, queue, .. }) = session.as_ref() else { return Err(OfferError::Disconnected) };
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
        self.session().as_ref().map(|living| living.number)
    }

    /// The session that stands, and what both sides of it can.
    pub(super) fn living(&self) -> Option<(u64, Capabilities)> {
        self.session().as_ref().map(|living| (living.number, living.capabilities))
    }

    /// Forgets the living session, if there is one, and returns its number: its task has panicked.
    pub(super) fn abandon(&self) -> Option<u64> {
        self.session().take().map(|living| living.number)
    }

    /// A session without a network, for tests of what is offered.
    #[cfg(test)]
    pub(super) fn attach(&self, number: u64) -> mpsc::Receiver<String> {
        let (queue, frames) = mpsc::channel(WAITING_MAX);
        self.0.waiting_bytes.store(0, Ordering::Relaxed);
        *self.session() = Some(Living { number, capabilities: Capabilities::OURS, queue });
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
                Ok((stream, ear, capabilities)) => {
                    last_complaint.clear();
                    let number = self.0.sessions.fetch_add(1, Ordering::Relaxed) + 1;
                    let (queue, frames) = mpsc::channel(WAITING_MAX);
                    self.0.waiting_bytes.store(0, Ordering::Relaxed);
                    *self.session() = Some(Living { number, capabilities, queue });
                    info!(session = number, announces = capabilities.digest; "connected to the cloud");
                    events.connected(number, capabilities).await;
                    let began = Instant::now();
                    let ended = self.serve(config, events, number, (stream, ear), frames, &mut stop).await;
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
                    backoff.set_longest(if why.is_nobody_there() { LONGEST_WAIT_FOR_LISTENER } else { LONGEST_WAIT });
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
        (stream, ear): (S, Ear),
        frames: mpsc::Receiver<String>,
        stop: &mut watch::Receiver<bool>,
    ) -> Option<SocketError>
    where
        S: Stream<Item = Result<Message, tungstenite::Error>> + Sink<Message, Error = tungstenite::Error>,
    {
        let (sink, stream) = stream.split();
        tokio::select! {
            why = self.read(config, events, number, stream, &ear) => Some(why),
            why = self.write(config, events, sink, frames, stop.clone(), &ear) => why,
        }
    }

    async fn read<E: Events, S>(&self, config: &Config, events: &E, number: u64, mut stream: S, ear: &Ear) -> SocketError
    where
        S: Stream<Item = Result<Message, tungstenite::Error>> + Unpin,
    {
        let silence_max = config.silence_max.max(config.heartbeat * 2);
        ear.heard();
        loop {
            let next = tokio::select! {
                // First, because nothing is read while a module's mailbox is full: what waited meanwhile was said in time.
                biased;
                next = stream.next() => next,
                () = ear.silence(silence_max) => return SocketError::Silent(silence_max),
            };
            match next {
                None | Some(Ok(Message::Close(_))) => return SocketError::Closed,
                Some(Err(error)) => return SocketError::from(error),
                Some(Ok(Message::Text(text))) => {
                    events.received(number, text.as_str().to_owned()).await;
                    ear.heard();
                }
                // KubeEdge frames are text; pings are answered by the library.
                Some(Ok(Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
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
        ear: &Ear,
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
                    ear.while_taken(config.write_within, sink.send(Message::text(frame))).await
                }
                _ = heartbeat.tick() => {
                    let beat = async {
                        sink.feed(Message::text(events.keepalive())).await?;
                        sink.send(Message::Ping(Default::default())).await
                    };
                    ear.while_taken(config.write_within, beat).await
                }
                () = told_to_stop(&mut stop) => {
                    let _ = timeout(config.write_within, sink.close()).await;
                    return None;
                }
            };
            match writing {
                Some(Ok(())) => {}
                Some(Err(error)) => return Some(SocketError::from(error)),
                None => return Some(SocketError::Stuck(config.write_within)),
            }
        }
    }

    fn session(&self) -> std::sync::MutexGuard<'_, Option<Living>> {
        self.0.session.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn told_to_stop(stop: &mut watch::Receiver<bool>) {
    // A sender that is gone can tell nothing more: that is an end as well.
    let _ = stop.wait_for(|stop| *stop).await;
}
