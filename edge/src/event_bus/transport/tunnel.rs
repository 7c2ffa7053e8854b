//! From the MQTT library to a broker, by TLS or plain TCP: the library connects to a Unix socket of this process, behind which
//! each of its connections is one to the broker.
//!
//! Two reasons. The library's own TLS would be OpenSSL; here it is rustls, and certificates are read again for each
//! connection. And a publication with QoS 1 or 2 whose write fails, because the broker has just closed the connection, stays
//! in the library's list of unanswered ones after its text was freed (paho C 1.3.16, `MQTTAsync_processCommand`): the next
//! connection sends, and frees again, whatever is there by then. So no write of the library may fail: its side of a
//! connection that is over is closed by itself alone, when it has read to the end, and until then what it writes is taken
//! and thrown away. That made the corruption rarer and did not end it: with a broker that hangs, or cuts a connection in the
//! middle of a publication, the process was still seen to abort (`event_bus::outage_tests`, whose tests of that are ignored).
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
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use log::warn;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, copy, sink};
use tokio::net::{TcpStream, UnixListener as TokioListener, UnixStream};
use tokio::sync::{oneshot, watch};
use tokio_rustls::TlsConnector;

use super::tls_files::{TlsFiles, TlsFilesError};

/// TCP and TLS handshakes together; shorter than the library waits.
const CONNECT_WITHIN: Duration = Duration::from_secs(8);
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
    #[error("no connection to {address} within {} s", CONNECT_WITHIN.as_secs())]
    Slow { address: String },
    #[error("the connection was cut: {0}")]
    Cut(io::Error),
    #[error("{0}")]
    Tls(String),
}

/// The library's way into a tunnel. The tunnel exists as long as this.
#[derive(Debug)]
pub(super) struct Tunnel {
    remote: Remote,
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
    pub(super) fn open(remote: Remote) -> io::Result<(Arc<Self>, UnixListener)> {
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
        let tunnel = Self { remote, socket, failure: Mutex::default(), busy: watch::Sender::new(false) };
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
        let connected = tokio::time::timeout(CONNECT_WITHIN, self.remote.connect()).await;
        let broker = connected.unwrap_or_else(|_| Err(TunnelError::Slow { address: self.remote.address() }))?;
        let (mut from_broker, mut to_broker) = tokio::io::split(broker);
        let (mut from_library, mut to_library) = library.split();
        let ended = tokio::select! {
            ended = copy(&mut from_library, &mut to_broker) => ended,
            // In TLS 1.3 the broker judges our certificate after the handshake has ended for us: its word comes here.
            ended = copy(&mut from_broker, &mut to_library) => ended,
        };
        let _ = tokio::time::timeout(CLOSE_WITHIN, to_broker.shutdown()).await;
        ended.map(|_| ()).map_err(|error| match &self.remote {
            Remote::Plain(_) => TunnelError::Cut(error),
            Remote::Tls(broker) => TunnelError::Tls(in_words(broker, &error)),
        })
    }
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

/// What went wrong and what to do, from the error of a TLS handshake.
fn handshake_in_words(broker: &TlsBroker, error: &io::Error) -> String {
    let TlsBroker { host, port, .. } = broker;
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => {
            format!("{host}:{port} ended the TLS handshake: name its TLS port in mqtt.server, or look at the broker's log")
        }
        _ => in_words(broker, error),
    }
}

/// What went wrong and what to do, from the error of a TLS connection.
fn in_words(TlsBroker { host, port, files }: &TlsBroker, error: &io::Error) -> String {
    use rustls::{AlertDescription as Alert, CertificateError as Bad, Error as Tls};
    let ca = files.ca.display();
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Tls>()) {
        Some(Tls::InvalidCertificate(Bad::UnknownIssuer | Bad::BadSignature)) => {
            format!("the certificate of {host} was not signed by an authority in `{ca}`: name the broker's authority in mqtt.tls.ca-file")
        }
        Some(Tls::InvalidCertificate(Bad::NotValidForName | Bad::NotValidForNameContext { .. })) => {
            format!("the broker's certificate is not for `{host}`: write a name that stands in it into mqtt.server")
        }
        Some(Tls::InvalidCertificate(Bad::Expired | Bad::ExpiredContext { .. })) => {
            format!("the certificate of {host} has expired: renew it, or set the clock of this machine")
        }
        Some(Tls::InvalidCertificate(Bad::NotValidYet | Bad::NotValidYetContext { .. })) => {
            format!("the certificate of {host} is not valid yet: set the clock of this machine")
        }
        Some(Tls::AlertReceived(Alert::CertificateRequired)) => {
            format!("{host} asks for a certificate: name one, and its key, in mqtt.tls.cert-file and mqtt.tls.key-file")
        }
        Some(Tls::AlertReceived(Alert::CertificateExpired)) => {
            format!("{host} says that our certificate has expired: renew the files of mqtt.tls.cert-file and mqtt.tls.key-file")
        }
        Some(Tls::AlertReceived(alert)) => {
            format!("{host} refused the TLS connection ({alert:?}): look at its log, and at mqtt.tls.cert-file and mqtt.tls.key-file")
        }
        Some(Tls::InvalidMessage(_)) => format!("{host}:{port} does not speak TLS: name its TLS port in mqtt.server, or write tcp://"),
        Some(other) => format!("TLS with {host}: {other}"),
        None if error.kind() == io::ErrorKind::UnexpectedEof => format!("{host} ended the connection without a goodbye"),
        None => format!("TLS with {host}: {error}"),
    }
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
        let (tunnel, listener) = Tunnel::open(Remote::Tls(TlsBroker { host: "localhost".into(), port, files: TlsFiles { ca, own: None } })).unwrap();
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
        let (tunnel, listener) = Tunnel::open(Remote::Plain(broker.local_addr().unwrap().to_string())).unwrap();
        let path = tunnel.url().strip_prefix("unix://").unwrap().to_owned();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.spawn(tunnel.serve(listener));
        for stop_first in [false, true] {
            let mut library = StdStream::connect(&path).unwrap();
            let (mut stream, _) = broker.accept().unwrap();
            stream.write_all(b"last words").unwrap();
            drop(stream);
            let mut heard = Vec::new();
            library.read_to_end(&mut heard).unwrap();
            assert_eq!(heard, b"last words");
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
        let (tunnel, _listener) = Tunnel::open(Remote::Tls(TlsBroker { host: "localhost".into(), port: 1, files })).unwrap();
        let path = tunnel.url().strip_prefix("unix://").unwrap().to_owned();
        let target = std::fs::read_link(path).unwrap();
        assert!(!target.exists() && target.to_string_lossy().ends_with("(deleted)"), "{}", target.display());
        assert!(!target.parent().unwrap().exists());
    }
}
