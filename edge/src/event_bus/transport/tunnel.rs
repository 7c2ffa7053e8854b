//! From the MQTT library to a broker that is not ours, by TLS or plain TCP: the library connects to a Unix socket of this
//! process, behind which each of its connections is one to the broker.
//!
//! Three reasons. The library's own TLS would be OpenSSL; here it is rustls, and certificates are read again for each
//! connection. The library trusts what a broker sends; here the [`Guard`] lets through what may be trusted. And a
//! publication with QoS 1 or 2 whose write fails, because the broker has just closed the connection, stays in the library's
//! list of unanswered ones after its text was freed (paho C 1.3.16, `MQTTAsync_processCommand`): the next connection sends,
//! and frees again, whatever is there by then. So no write of the library may fail: its side of a connection that is over is
//! closed by itself alone, when it has read to the end, and until then what it writes is taken and thrown away.
//!
//! No other process gets through. The socket is bound in a directory for this user alone and loses its name at once; what
//! remains is `/proc/self/fd/N`, which means it in this process only and which nobody can put another socket in the place
//! of, so the library's password goes nowhere else. And of each connection the kernel says which process made it
//! (`SO_PEERCRED`, unix(7)): another one is turned away.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::net::Shutdown;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use log::warn;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, copy, sink};
use tokio::net::{TcpStream, UnixListener as TokioListener, UnixStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use super::super::broker::PACKET_BYTES_MAX;
use super::super::ingress::worth_a_line;
use super::guard::{Guard, Verdict};
use super::packets::{Next, Nonsense, Packets};
use super::tls_files::{TlsFiles, TlsFilesError};
use super::tls_words::{handshake_in_words, in_words};

/// What the library has written last, its goodbye as a rule, has so long to reach the broker.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);
/// After the operating system gave no connection.
const PAUSE: Duration = Duration::from_millis(100);
/// `O_PATH` of open(2) on the processors that this program is built for: names the socket without opening it.
const O_PATH: i32 = 0o10_000_000;

/// The broker behind a tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsBroker {
    /// Its name, which must stand in its certificate, or its address.
    pub host: String,
    /// Its TLS port.
    pub port: u16,
    /// Whom we trust, and who we are.
    pub files: TlsFiles,
}

/// What is behind a tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Remote {
    /// `host:port`, by plain TCP.
    Plain(String),
    /// By TLS.
    Tls(TlsBroker),
}

/// Why a connection through the tunnel did not come about, or ended. One sentence for the log, with what to do.
#[derive(Debug, thiserror::Error)]
enum TunnelError {
    #[error(transparent)]
    Files(#[from] TlsFilesError),
    #[error("`{0}` is neither a host name nor an address: change mqtt.server")]
    Name(String),
    #[error("no connection to {address}: {source}")]
    Connect { address: String, source: io::Error },
    #[error("no connection to {address} within {} s", within.as_secs())]
    Slow { address: String, within: Duration },
    #[error("it did not answer our CONNECT within {} s", .0.as_secs())]
    Silent(Duration),
    #[error(transparent)]
    Nonsense(#[from] Nonsense),
    #[error("the connection was cut: {0}")]
    Cut(io::Error),
    #[error("{0}")]
    Tls(String),
}

/// The library's way into a tunnel. The tunnel exists as long as this.
#[derive(Debug)]
pub(super) struct Tunnel {
    remote: Remote,
    /// How long the connection may take, and again the broker's answer to CONNECT.
    within: Duration,
    /// Messages that were too large for us.
    left_out: AtomicU64,
    /// Holds the socket, whose only name is the number of this descriptor.
    socket: File,
    /// Why the last connection failed or ended.
    failure: Mutex<Option<String>>,
    busy: watch::Sender<bool>,
}

impl Tunnel {
    /// Makes the socket. [`Tunnel::serve`] is to be run on the listener.
    ///
    /// # Errors
    /// What the operating system said: no temporary directory, or none with a short enough name.
    pub(super) fn open(remote: Remote, within: Duration) -> io::Result<(Arc<Self>, UnixListener)> {
        let dir = std::env::temp_dir().join(format!("skep-{}", uuid::Uuid::new_v4().simple()));
        DirBuilder::new().mode(0o700).create(&dir)?;
        let name = dir.join("mqtt");
        let made = UnixListener::bind(&name).and_then(|listener| {
            listener.set_nonblocking(true)?;
            let socket = OpenOptions::new().read(true).custom_flags(O_PATH).open(&name)?;
            Ok((listener, socket))
        });
        let _ = std::fs::remove_file(&name);
        let _ = std::fs::remove_dir(&dir);
        let (listener, socket) = made?;
        let tunnel = Self { remote, within, left_out: AtomicU64::new(0), socket, failure: Mutex::default(), busy: watch::Sender::new(false) };
        Ok((Arc::new(tunnel), listener))
    }

    /// Where the library is to connect.
    pub(super) fn url(&self) -> String {
        format!("unix:///proc/self/fd/{}", self.socket.as_raw_fd())
    }

    /// Why the last connection failed; told once.
    pub(super) fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Resolves when what the library had written before it left is on its way to the broker.
    pub(super) async fn emptied(&self) {
        let _ = self.busy.subscribe().wait_for(|busy| !busy).await;
    }

    /// Takes the library's connections, one at a time: a new one ends the one before. Never returns.
    pub(super) async fn serve(self: Arc<Self>, listener: UnixListener) {
        let listener = match TokioListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => return self.fail(format!("the socket towards the broker cannot be used: {error}")),
        };
        let mut passage: Option<oneshot::Sender<()>> = None;
        loop {
            let local = match listener.accept().await {
                Ok((local, _)) => local,
                Err(error) => {
                    self.fail(format!("the socket towards the broker gives no connection: {error}"));
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            if !is_ours(&local) {
                warn!("another process tried to use the daemon's connection to the MQTT broker and was turned away");
                continue;
            }
            let (until, superseded) = oneshot::channel();
            // The library has closed the connection before.
            drop(passage.replace(until));
            self.failure();
            self.busy.send_replace(true);
            tokio::spawn(self.clone().take(local, superseded));
        }
    }

    /// One connection of the library, until it has closed it.
    async fn take(self: Arc<Self>, local: UnixStream, superseded: oneshot::Receiver<()>) {
        let mut local = LibraryEnd(Some(local));
        let Some(library) = local.0.as_mut() else { return };
        tokio::select! {
            ended = self.pass(library) => {
                if let Err(error) = ended {
                    // Before the library learns that its connection is gone.
                    self.fail(error.to_string());
                }
                self.busy.send_replace(false);
            }
            _ = superseded => {}
        }
        let _ = library.shutdown().await;
        let _ = copy(library, &mut sink()).await;
        drop(local.0.take());
    }

    fn fail(&self, sentence: String) {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(sentence);
    }

    /// One connection, until either side ends it.
    async fn pass(&self, library: &mut UnixStream) -> Result<(), TunnelError> {
        let connected = tokio::time::timeout(self.within, self.remote.connect()).await;
        let broker = connected.unwrap_or_else(|_| Err(TunnelError::Slow { address: self.remote.address(), within: self.within }))?;
        let (mut from_broker, mut to_broker) = tokio::io::split(broker);
        let (mut from_library, mut to_library) = library.split();
        let guard = Mutex::new(Guard::default());
        let (say, answers) = mpsc::unbounded_channel();
        let ended = tokio::select! {
            ended = self.outwards(&mut from_library, &mut to_broker, &guard, answers) => ended,
            // In TLS 1.3 the broker judges our certificate after the handshake has ended for us: its word comes here.
            ended = self.inwards(&mut from_broker, &mut to_library, &guard, &say) => ended,
        };
        let _ = tokio::time::timeout(CLOSE_WITHIN, to_broker.shutdown()).await;
        ended
    }

    /// What the library sends, and what is answered in its place.
    async fn outwards(
        &self,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
        guard: &Mutex<Guard>,
        mut answers: mpsc::UnboundedReceiver<[u8; 4]>,
    ) -> Result<(), TunnelError> {
        let cut = |error| self.cut(&error);
        let mut packets = Packets::default();
        loop {
            tokio::select! {
                read = from.read_buf(packets.buffer()) => if read.map_err(TunnelError::Cut)? == 0 {
                    return Ok(());
                },
                Some(answer) = answers.recv() => to.write_all(&answer).await.map_err(cut)?,
            }
            while let Some(next) = packets.next()? {
                // The library gets nothing to publish that would be too large.
                let Next::Whole(packet) = next else { return Ok(()) };
                lock(guard).sent(&packet);
                to.write_all(packet.bytes()).await.map_err(cut)?;
            }
            to.flush().await.map_err(cut)?;
        }
    }

    /// What the broker sends, as far as the guard lets it through.
    async fn inwards(
        &self,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
        guard: &Mutex<Guard>,
        say: &mpsc::UnboundedSender<[u8; 4]>,
    ) -> Result<(), TunnelError> {
        let until = Instant::now() + self.within;
        let mut packets = Packets::default();
        loop {
            let read = from.read_buf(packets.buffer());
            let introduced = lock(guard).is_introduced();
            let read = if introduced { read.await } else { timeout_at(until, read).await.map_err(|_| TunnelError::Silent(self.within))? };
            if read.map_err(|error| self.cut(&error))? == 0 {
                return Ok(());
            }
            while let Some(next) = packets.next()? {
                let verdict = lock(guard).heard(&next)?;
                if matches!(next, Next::TooLarge(_)) {
                    self.leave_out();
                }
                let (Next::Whole(packet) | Next::TooLarge(packet)) = next;
                match verdict {
                    Verdict::Pass => to.write_all(packet.bytes()).await.map_err(TunnelError::Cut)?,
                    Verdict::Keep(answer) => {
                        if let Some(answer) = answer {
                            // `Err`: the other way has ended, and with it the connection.
                            let _ = say.send(answer);
                        }
                    }
                }
            }
        }
    }

    fn leave_out(&self) {
        let count = self.left_out.fetch_add(1, Ordering::Relaxed) + 1;
        if worth_a_line(count) {
            warn!(left_out = count; "a message from the MQTT broker has more than {PACKET_BYTES_MAX} bytes and was left out");
        }
    }

    fn cut(&self, error: &io::Error) -> TunnelError {
        match &self.remote {
            Remote::Plain(_) => TunnelError::Cut(io::Error::new(error.kind(), error.to_string())),
            Remote::Tls(broker) => TunnelError::Tls(in_words(broker, error)),
        }
    }
}

fn lock(guard: &Mutex<Guard>) -> MutexGuard<'_, Guard> {
    guard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The tunnel's end of a connection of the library. When the tunnel ends before the library has closed its own, this one
/// says that there is no more to read and stays open: see above.
struct LibraryEnd(Option<UnixStream>);

impl Drop for LibraryEnd {
    fn drop(&mut self) {
        if let Some(Ok(stream)) = self.0.take().map(UnixStream::into_std) {
            let _ = stream.shutdown(Shutdown::Write);
            std::mem::forget(stream);
        }
    }
}

/// A connection to a broker.
trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

impl Remote {
    fn address(&self) -> String {
        match self {
            Self::Plain(address) => address.clone(),
            Self::Tls(TlsBroker { host, port, .. }) => format!("{host}:{port}"),
        }
    }

    async fn connect(&self) -> Result<Box<dyn Connection>, TunnelError> {
        let failed = |source| TunnelError::Connect { address: self.address(), source };
        match self {
            Self::Plain(address) => {
                let stream = TcpStream::connect(address.as_str()).await.map_err(failed)?;
                let _ = stream.set_nodelay(true);
                Ok(Box::new(stream))
            }
            Self::Tls(broker) => {
                let config = broker.files.load()?;
                let name = ServerName::try_from(broker.host.clone()).map_err(|_| TunnelError::Name(broker.host.clone()))?;
                let stream = TcpStream::connect((broker.host.as_str(), broker.port)).await.map_err(failed)?;
                let _ = stream.set_nodelay(true);
                let stream = TlsConnector::from(config).connect(name, stream).await;
                Ok(Box::new(stream.map_err(|error| TunnelError::Tls(handshake_in_words(broker, &error)))?))
            }
        }
    }
}

/// Whether this process made the connection.
fn is_ours(local: &UnixStream) -> bool {
    local.peer_cred().ok().and_then(|peer| peer.pid()).and_then(|pid| u32::try_from(pid).ok()) == Some(std::process::id())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use std::io::ErrorKind;
    use std::net::TcpListener;
    use std::os::unix::net::UnixStream as StdStream;
    use std::process::Command;

    use super::*;

    #[test]
    fn this_process_gets_through_and_another_one_is_turned_away() {
        let broker = TcpListener::bind("127.0.0.1:0").unwrap();
        broker.set_nonblocking(true).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let ca = dir.path().join("ca.crt");
        std::fs::write(&ca, crate::tls::tests::ca().pem).unwrap();
        let port = broker.local_addr().unwrap().port();
        let (tunnel, listener) =
            Tunnel::open(Remote::Tls(TlsBroker { host: "localhost".into(), port, files: TlsFiles { ca, own: None } }), Duration::from_secs(8))
                .unwrap();
        let own_path = tunnel.url().strip_prefix("unix://").unwrap().to_owned();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.spawn(tunnel.serve(listener));

        let path = own_path.replace("self", &std::process::id().to_string());
        let foreign = Command::new("mosquitto_pub").args(["--unix", &path, "-t", "t", "-m", "m"]).output();
        if let Ok(foreign) = foreign {
            assert!(!foreign.status.success(), "another process got through");
            assert_eq!(broker.accept().unwrap_err().kind(), ErrorKind::WouldBlock, "another process reached the broker");
        }
        let _own = StdStream::connect(&own_path).unwrap();
        crate::event_bus::testing::eventually("the broker is reached by this process", || broker.accept().is_ok());
    }

    #[test]
    fn no_write_of_the_library_fails_after_the_broker_has_gone_and_it_reads_to_the_end() {
        use std::io::{Read as _, Write as _};
        let broker = TcpListener::bind("127.0.0.1:0").unwrap();
        let (tunnel, listener) = Tunnel::open(Remote::Plain(broker.local_addr().unwrap().to_string()), Duration::from_secs(8)).unwrap();
        let path = tunnel.url().strip_prefix("unix://").unwrap().to_owned();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.spawn(tunnel.serve(listener));
        for stop_first in [false, true] {
            let mut library = StdStream::connect(&path).unwrap();
            let (mut stream, _) = broker.accept().unwrap();
            stream.write_all(&[0x20, 2, 0, 0]).unwrap();
            drop(stream);
            let mut heard = Vec::new();
            library.read_to_end(&mut heard).unwrap();
            assert_eq!(heard, [0x20, 2, 0, 0]);
            // Where its successor has come, nobody reads: the kernel takes what fits.
            let _successor = stop_first.then(|| StdStream::connect(&path).unwrap());
            library.set_nonblocking(true).unwrap();
            for _ in 0..10_000 {
                if let Err(error) = library.write_all(&[0; 1024]) {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock);
                }
            }
        }
    }

    #[test]
    fn the_socket_has_no_name_by_which_another_could_be_put_in_its_place() {
        let files = TlsFiles { ca: "/nowhere".into(), own: None };
        let (tunnel, _listener) = Tunnel::open(Remote::Tls(TlsBroker { host: "localhost".into(), port: 1, files }), Duration::from_secs(8)).unwrap();
        let path = tunnel.url().strip_prefix("unix://").unwrap().to_owned();
        let target = std::fs::read_link(path).unwrap();
        assert!(!target.exists() && target.to_string_lossy().ends_with("(deleted)"), "{}", target.display());
        assert!(!target.parent().unwrap().exists());
    }
}
