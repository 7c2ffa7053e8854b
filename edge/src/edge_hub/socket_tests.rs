//! The socket against a real TLS WebSocket server on a free port, with certificates made for each test.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests: a panic is the failure")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};

use wire::link::Capabilities;

use super::socket::{Config, Destination, Events, FRAME_BYTES_MAX, OfferError, Socket, WAITING_MAX};

pub(super) const SOON: Duration = Duration::from_secs(20);

/// A certificate authority with one certificate for `localhost` and one for a node.
pub(super) struct Pki {
    ca: CertificateDer<'static>,
    server: (CertificateDer<'static>, PrivateKeyDer<'static>),
    node: (CertificateDer<'static>, PrivateKeyDer<'static>),
}

impl Pki {
    pub(super) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut ca = CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let der = ca.self_signed(&key).unwrap().der().clone();
        let issuer = Issuer::new(ca, key);
        let leaf = |names: Vec<String>, usage| {
            let key = KeyPair::generate().unwrap();
            let mut leaf = CertificateParams::new(names).unwrap();
            leaf.extended_key_usages = vec![usage];
            let cert = leaf.signed_by(&key, &issuer).unwrap().der().clone();
            (cert, PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        };
        Self {
            ca: der,
            server: leaf(vec!["localhost".into(), "127.0.0.1".into()], ExtendedKeyUsagePurpose::ServerAuth),
            node: leaf(vec!["node".into()], ExtendedKeyUsagePurpose::ClientAuth),
        }
    }

    fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.ca.clone()).unwrap();
        Arc::new(roots)
    }

    fn server_config(&self) -> Arc<ServerConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(self.roots(), provider.clone()).build().unwrap();
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let (cert, key) = (self.server.0.clone(), self.server.1.clone_key());
        Arc::new(config.with_client_cert_verifier(verifier).with_single_cert(vec![cert], key).unwrap())
    }

    pub(super) fn client_config(&self) -> Arc<ClientConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let (cert, key) = (self.node.0.clone(), self.node.1.clone_key());
        Arc::new(config.with_root_certificates(self.roots()).with_client_auth_cert(vec![cert], key).unwrap())
    }
}

pub(super) type Peer = WebSocketStream<tokio_rustls::server::TlsStream<TcpStream>>;

/// The cloud's end: accepts as often as it is asked to.
pub(super) struct Cloud {
    pub(super) listener: TcpListener,
    pub(super) acceptor: TlsAcceptor,
}

impl Cloud {
    pub(super) async fn new(pki: &Pki) -> Self {
        Self::at(pki, "127.0.0.1:0".parse().unwrap()).await
    }

    pub(super) async fn at(pki: &Pki, address: SocketAddr) -> Self {
        Self { listener: TcpListener::bind(address).await.unwrap(), acceptor: TlsAcceptor::from(pki.server_config()) }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    pub(super) fn url(&self) -> String {
        format!("wss://localhost:{}/project/node/events", self.address().port())
    }

    async fn accept_with(&self, look: impl FnOnce(&Request) + Unpin) -> Peer {
        let (stream, _) = timeout(SOON, self.listener.accept()).await.expect("the edge connects").unwrap();
        let stream = self.acceptor.accept(stream).await.unwrap();
        #[allow(clippy::result_large_err, reason = "the type of the library's callback")]
        let callback = |request: &Request, response: Response| {
            look(request);
            Ok(response)
        };
        tokio_tungstenite::accept_hdr_async(stream, callback).await.unwrap()
    }

    pub(super) async fn accept(&self) -> Peer {
        self.accept_with(|_| {}).await
    }
}

#[derive(Debug, PartialEq)]
enum Event {
    Connected(u64),
    Disconnected(u64, String),
    Received(u64, String),
    Untrusted(String),
}

struct Recorder(mpsc::Sender<Event>);

impl Events for Recorder {
    async fn connected(&self, session: u64, _: Capabilities) {
        self.0.send(Event::Connected(session)).await.unwrap();
    }
    async fn disconnected(&self, session: u64, reason: String) {
        let _ = self.0.send(Event::Disconnected(session, reason)).await;
    }
    async fn received(&self, session: u64, text: String) {
        self.0.send(Event::Received(session, text)).await.unwrap();
    }
    fn untrusted(&self, why: &str) {
        let _ = self.0.try_send(Event::Untrusted(why.to_owned()));
    }
    fn keepalive(&self) -> String {
        "keepalive".into()
    }
}

struct Fixed(String, Arc<ClientConfig>);

impl Destination for Fixed {
    async fn resolve(&self) -> Result<(String, Arc<ClientConfig>), String> {
        Ok((self.0.clone(), self.1.clone()))
    }
}

struct Edge {
    socket: Socket,
    events: mpsc::Receiver<Event>,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Edge {
    fn start(url: String, tls: Arc<ClientConfig>, heartbeat: Duration) -> Self {
        Self::start_with(url, tls, heartbeat, Duration::ZERO)
    }

    fn start_with(url: String, tls: Arc<ClientConfig>, heartbeat: Duration, silence_max: Duration) -> Self {
        let (sender, events) = mpsc::channel(64);
        let (stop, stopped) = watch::channel(false);
        let socket = Socket::default();
        let config = Config {
            headers: vec![("node_id".into(), "node".into()), ("project_id".into(), "project".into())],
            handshake_within: Duration::from_secs(10),
            write_within: Duration::from_secs(2),
            heartbeat,
            silence_max,
        };
        let task = tokio::spawn(socket.clone().run(config, Fixed(url, tls), Recorder(sender), stopped));
        Self { socket, events, stop, task }
    }

    async fn event(&mut self) -> Event {
        timeout(SOON, self.events.recv()).await.expect("an event of the socket").unwrap()
    }
}

const CALM: Duration = Duration::from_secs(60);

pub(super) async fn text(peer: &mut Peer) -> String {
    loop {
        if let Message::Text(text) = timeout(SOON, peer.next()).await.expect("a frame of the edge").unwrap().unwrap() {
            return text.as_str().to_owned();
        }
    }
}

#[tokio::test]
async fn a_session_carries_headers_keepalive_and_frames_both_ways() {
    let pki = Pki::new();
    let cloud = Cloud::new(&pki).await;
    let mut edge = Edge::start(cloud.url(), pki.client_config(), CALM);
    let mut seen = Vec::new();
    let mut peer = cloud
        .accept_with(|request| {
            seen = vec![
                request.uri().path().to_owned(),
                request.headers()["node_id"].to_str().unwrap().to_owned(),
                request.headers()["project_id"].to_str().unwrap().to_owned(),
            ];
        })
        .await;
    assert_eq!(edge.event().await, Event::Connected(1));
    assert_eq!(seen, ["/project/node/events", "node", "project"]);
    assert_eq!(text(&mut peer).await, "keepalive", "the first keepalive goes out at once");
    edge.socket.offer("up".into()).unwrap();
    assert_eq!(text(&mut peer).await, "up");
    peer.send(Message::text("down")).await.unwrap();
    assert_eq!(edge.event().await, Event::Received(1, "down".into()));
    assert_eq!(edge.socket.living_session(), Some(1));
}

#[tokio::test]
async fn a_cut_connection_is_reported_and_made_again_and_the_old_queue_is_gone() {
    let pki = Pki::new();
    let cloud = Cloud::new(&pki).await;
    let mut edge = Edge::start(cloud.url(), pki.client_config(), CALM);
    let peer = cloud.accept().await;
    assert_eq!(edge.event().await, Event::Connected(1));
    drop(peer);
    assert!(matches!(edge.event().await, Event::Disconnected(1, _)));
    let mut peer = cloud.accept().await;
    assert_eq!(edge.event().await, Event::Connected(2));
    assert_eq!(text(&mut peer).await, "keepalive");
    edge.socket.offer("after".into()).unwrap();
    assert_eq!(text(&mut peer).await, "after");
}

#[tokio::test]
async fn a_cloud_that_starts_later_is_found() {
    let pki = Pki::new();
    let cloud = Cloud::new(&pki).await;
    let (address, url) = (cloud.address(), cloud.url());
    drop(cloud);
    let mut edge = Edge::start(url, pki.client_config(), CALM);
    assert_eq!(edge.socket.offer("early".into()), Err(OfferError::Disconnected));
    let cloud = Cloud::at(&pki, address).await;
    let mut peer = cloud.accept().await;
    assert_eq!(edge.event().await, Event::Connected(1));
    assert_eq!(text(&mut peer).await, "keepalive");
}

#[tokio::test]
async fn a_peer_that_falls_silent_is_cut_but_a_quiet_one_that_answers_pings_is_not() {
    let pki = Pki::new();
    let cloud = Cloud::new(&pki).await;
    // So long that a machine that stands still for a moment is not taken for a silent peer.
    let mut edge = Edge::start_with(cloud.url(), pki.client_config(), Duration::from_secs(1), Duration::from_secs(5));
    let mut peer = cloud.accept().await;
    assert_eq!(edge.event().await, Event::Connected(1));
    // Reading answers pings; longer than the silence that is borne, and without a frame of ours.
    for _ in 0..8 {
        assert_eq!(text(&mut peer).await, "keepalive");
    }
    assert!(edge.events.try_recv().is_err());
    // Not reading any more: the connection stays open, nothing comes back.
    let Event::Disconnected(1, reason) = edge.event().await else { panic!("expected the session's end") };
    assert!(reason.contains("nothing was heard"), "{reason}");
    drop(peer);
}

#[tokio::test]
async fn a_cloud_of_another_authority_is_refused_with_the_reason() {
    let (ours, theirs) = (Pki::new(), Pki::new());
    let cloud = Cloud::new(&theirs).await;
    let mut edge = Edge::start(cloud.url(), ours.client_config(), CALM);
    let serve = async {
        let (stream, _) = cloud.listener.accept().await.unwrap();
        assert!(cloud.acceptor.accept(stream).await.is_err());
    };
    let (event, ()) = tokio::join!(edge.event(), serve);
    let Event::Untrusted(why) = event else { panic!("expected a refusal, got {event:?}") };
    assert!(why.contains("localhost") && why.contains("skep-edge join"), "{why}");
    assert_eq!(edge.socket.living_session(), None);
}

#[tokio::test]
async fn a_node_that_the_cloud_does_not_trust_is_told_so() {
    let (ours, theirs) = (Pki::new(), Pki::new());
    let cloud = Cloud::new(&theirs).await;
    // Trusts the cloud, but shows a certificate of another authority.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(theirs.roots())
        .with_client_auth_cert(vec![ours.node.0.clone()], ours.node.1.clone_key())
        .unwrap();
    let mut edge = Edge::start(cloud.url(), Arc::new(tls), CALM);
    let serve = async {
        let (stream, _) = cloud.listener.accept().await.unwrap();
        assert!(cloud.acceptor.accept(stream).await.is_err());
    };
    let (event, ()) = tokio::join!(edge.event(), serve);
    let Event::Untrusted(why) = event else { panic!("expected a refusal, got {event:?}") };
    assert!(why.contains("refused ours"), "{why}");
}

#[tokio::test]
async fn garbage_on_the_wire_ends_the_session_and_a_new_one_follows() {
    use tokio::io::AsyncWriteExt as _;
    let pki = Pki::new();
    let cloud = Cloud::new(&pki).await;
    let mut edge = Edge::start(cloud.url(), pki.client_config(), CALM);
    let mut peer = cloud.accept().await;
    assert_eq!(edge.event().await, Event::Connected(1));
    peer.get_mut().write_all(&[0xff; 64]).await.unwrap();
    peer.get_mut().flush().await.unwrap();
    assert!(matches!(edge.event().await, Event::Disconnected(1, _)));
    let _peer = cloud.accept().await;
    assert_eq!(edge.event().await, Event::Connected(2));
}

#[tokio::test]
async fn a_frame_above_the_limit_ends_the_session_before_it_is_taken_into_memory() {
    use tokio::io::AsyncWriteExt as _;
    let pki = Pki::new();
    let cloud = Cloud::new(&pki).await;
    let mut edge = Edge::start(cloud.url(), pki.client_config(), CALM);
    let mut peer = cloud.accept().await;
    assert_eq!(edge.event().await, Event::Connected(1));
    // A text frame's header that announces one byte too many; the body is never sent.
    let mut header = vec![0x81, 127];
    header.extend((FRAME_BYTES_MAX as u64 + 1).to_be_bytes());
    peer.get_mut().write_all(&header).await.unwrap();
    peer.get_mut().flush().await.unwrap();
    let Event::Disconnected(1, reason) = edge.event().await else { panic!("expected the session's end") };
    assert!(reason.contains("too long"), "{reason}");
}

#[tokio::test]
async fn the_largest_frame_arrives_whole_both_ways() {
    let pki = Pki::new();
    let cloud = Cloud::new(&pki).await;
    let mut edge = Edge::start(cloud.url(), pki.client_config(), CALM);
    let mut peer = cloud.accept().await;
    assert_eq!(edge.event().await, Event::Connected(1));
    let large = "x".repeat(FRAME_BYTES_MAX);
    assert_eq!(edge.socket.offer("y".repeat(FRAME_BYTES_MAX + 1)), Err(OfferError::TooLarge { bytes: FRAME_BYTES_MAX + 1 }));
    edge.socket.offer(large.clone()).unwrap();
    let mut arrived = text(&mut peer).await;
    if arrived == "keepalive" {
        arrived = text(&mut peer).await;
    }
    assert!(arrived == large);
    peer.send(Message::text(large.clone())).await.unwrap();
    assert!(edge.event().await == Event::Received(1, large));
}

#[tokio::test]
async fn a_cloud_that_reads_nothing_fills_the_queue_up_to_its_bound_and_is_cut_by_the_write_deadline() {
    let pki = Pki::new();
    let cloud = Cloud::new(&pki).await;
    let mut edge = Edge::start(cloud.url(), pki.client_config(), CALM);
    let peer = cloud.accept().await;
    assert_eq!(edge.event().await, Event::Connected(1));
    let frame = "z".repeat(1 << 20);
    let mut taken = 0;
    let full = loop {
        match edge.socket.offer(frame.clone()) {
            Ok(_) => taken += 1,
            Err(error) => break error,
        }
        assert!(taken <= WAITING_MAX, "the queue has no bound");
        tokio::task::yield_now().await;
    };
    assert_eq!(full, OfferError::Full);
    assert!(matches!(edge.event().await, Event::Disconnected(1, _)));
    assert_eq!(edge.socket.offer("late".into()), Err(OfferError::Disconnected));
    drop(peer);
}

#[tokio::test]
async fn stopping_says_goodbye_and_ends_the_task() {
    let pki = Pki::new();
    let cloud = Cloud::new(&pki).await;
    let mut edge = Edge::start(cloud.url(), pki.client_config(), CALM);
    let mut peer = cloud.accept().await;
    assert_eq!(edge.event().await, Event::Connected(1));
    edge.stop.send_replace(true);
    loop {
        match timeout(SOON, peer.next()).await.expect("a goodbye") {
            Some(Ok(Message::Close(_))) | None => break,
            Some(Ok(_)) => {}
            Some(Err(error)) => panic!("cut without a goodbye: {error}"),
        }
    }
    assert!(matches!(edge.event().await, Event::Disconnected(1, _)));
    timeout(SOON, edge.task).await.expect("the task ends").unwrap();
}

#[tokio::test]
async fn an_upgrade_that_is_refused_names_the_status() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let pki = Pki::new();
    let cloud = Cloud::new(&pki).await;
    let config = Config { headers: Vec::new(), handshake_within: SOON, write_within: SOON, heartbeat: CALM, silence_max: CALM };
    let connect = super::socket::try_once(&config, cloud.url(), pki.client_config());
    let serve = async {
        let (stream, _) = cloud.listener.accept().await.unwrap();
        let mut stream = cloud.acceptor.accept(stream).await.unwrap();
        let mut request = [0; 4096];
        let _ = stream.read(&mut request).await.unwrap();
        stream.write_all(b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        stream.flush().await.unwrap();
        stream
    };
    let (error, _stream) = tokio::join!(connect, serve);
    assert_eq!(error.unwrap_err().to_string(), "the cloud refused the connection with HTTP status 429");
}

#[tokio::test]
async fn an_address_that_is_no_wss_url_is_refused_with_the_key_to_set() {
    let pki = Pki::new();
    let config = Config { headers: Vec::new(), handshake_within: SOON, write_within: SOON, heartbeat: CALM, silence_max: CALM };
    for url in ["", "ws://cloud:10000/a/b/events", "wss://", "http://cloud", "wss://a b/c", "wss://host:99999/x"] {
        let error = super::socket::try_once(&config, url.into(), pki.client_config()).await.unwrap_err().to_string();
        assert!(error.contains("edgehub.websocket.url"), "{url}: {error}");
    }
    let headers = vec![("node_id".into(), "a\r\nb: c".into())];
    let config = Config { headers, ..config };
    let error = super::socket::try_once(&config, "wss://localhost:1/x".into(), pki.client_config()).await.unwrap_err().to_string();
    assert!(error.contains("node_id"), "{error}");
}
