//! A real CloudHub on port 0 with real certificates; probes in place of the controllers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actor::testing::Probe;
use actor::{ChildSpec, Handle, Policy, Running, Supervisor};
use futures_util::{SinkExt as _, StreamExt as _};
use model::{Namespace, NodeName, ObjectName, ResourceKey, ResourceKind, Timestamp};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};
use wire::hub::{Downstream, Frame, MsgId, ObjectOperation, OutboxKey, RawJson, Upstream, codec};
use wire::link::HEADER;

use crate::cloud_hub::{CloudHub, CloudHubMessage, Config, Hub, Peers, listener};
use crate::device_controller::DeviceControllerMessage;
use crate::edge_controller::downstream::DownstreamMessage;
use crate::edge_controller::upstream::UpstreamMessage;
use crate::pki::{ClientCertificates, Pki, testing};

/// Long enough for anything on a busy machine.
pub const SOON: Duration = Duration::from_secs(20);

pub struct Fixture {
    pub dir: tempfile::TempDir,
    pub pki: Arc<Pki>,
    pub hub: Arc<Hub>,
    pub address: SocketAddr,
    pub upstream: Probe<UpstreamMessage>,
    pub downstream: Probe<DownstreamMessage>,
    pub devices: Probe<DeviceControllerMessage>,
    _running: Running,
}

/// Periods so long that they play no part.
pub fn patient() -> Config {
    let long = Duration::from_secs(3600);
    Config { address: "127.0.0.1:0".into(), keepalive: long, write_timeout: long, node_limit: 100, sweep_every: Duration::from_millis(20) }
}

pub fn start(config: Config) -> Fixture {
    start_with_upstream(config, 1000)
}

pub fn start_with_upstream(config: Config, upstream_capacity: usize) -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let pki = testing::pki(&dir);
    let (upstream, downstream, devices) =
        (Probe::new("upstream", upstream_capacity), Probe::new("downstream", 1000), Probe::new("device_controller", 1000));
    let cloud_hub: Handle<CloudHubMessage> = actor::mailbox("cloud_hub", 1000);
    let peers = Peers { cloud_hub: cloud_hub.clone(), upstream: upstream.handle(), downstream: downstream.handle(), devices: devices.handle() };
    let hub = Hub::new(config, peers);
    let shared = hub.clone();
    let running = Supervisor::new("test", Policy::default())
        .child(ChildSpec::new(&cloud_hub, move || CloudHub::new(shared.clone())))
        .start(|why| panic!("{why}"));
    let listener = listener::start(hub.clone(), pki.server_tls(ClientCertificates::Required).unwrap()).unwrap();
    let address = listener.address;
    actix_rt::spawn(listener.server);
    Fixture { dir, pki, hub, address, upstream, downstream, devices, _running: running }
}

pub struct Edge<S = TlsStream<TcpStream>>(pub WebSocketStream<S>);

impl Fixture {
    pub fn node_tls(&self, name: &str) -> Arc<ClientConfig> {
        testing::client(&self.pki, Some(testing::node(&self.pki, name)))
    }

    /// One TLS connection, with small buffers in the kernel so that a reader who stops is noticed early.
    pub async fn dial(&self, tls: Arc<ClientConfig>) -> std::io::Result<TlsStream<TcpStream>> {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(64 * 1024)?;
        let socket = socket.connect(self.address).await?;
        TlsConnector::from(tls).connect(ServerName::try_from("127.0.0.1").unwrap(), socket).await
    }

    pub async fn try_connect(&self, tls: Arc<ClientConfig>, path: &str, node_id: Option<&str>) -> Result<Edge, Error> {
        let stream = self.dial(tls).await?;
        let mut request = format!("wss://127.0.0.1{path}").into_client_request()?;
        if let Some(node_id) = node_id {
            request.headers_mut().insert("node_id", node_id.parse().unwrap());
        }
        Ok(Edge(tokio_tungstenite::client_async(request, stream).await?.0))
    }

    pub async fn connect(&self, name: &str) -> Edge {
        self.try_connect(self.node_tls(name), &format!("/project/{name}/events"), Some(name)).await.unwrap()
    }

    /// A connection whose upgrade says `capabilities`; what the cloud says that it can.
    pub async fn connect_saying(&self, name: &str, capabilities: &str) -> (Edge, Option<String>) {
        let stream = self.dial(self.node_tls(name)).await.unwrap();
        let mut request = format!("wss://127.0.0.1/p/{name}/events").into_client_request().unwrap();
        request.headers_mut().insert(HEADER, capabilities.parse().unwrap());
        let (stream, answer) = tokio_tungstenite::client_async(request, stream).await.unwrap();
        (Edge(stream), answer.headers().get(HEADER).map(|value| value.to_str().unwrap().to_owned()))
    }

    /// Sends as a controller does.
    pub fn send(&self, name: &str, key: &str, object: &str) -> MsgId {
        let (key, frame) = object_frame(key, object);
        let id = frame.id.clone();
        let message = CloudHubMessage::Send { node: node(name), key: OutboxKey::Object(key), frame };
        assert!(self.hub.peers.cloud_hub.try_send(message).is_ok());
        id
    }

    pub fn answer(&self, name: &str, parent: &MsgId, text: &str) {
        let question: Frame<Upstream> = Frame::new(parent.clone(), at(), Upstream::Keepalive);
        let frame = question.refusal(MsgId::random(), at(), text);
        assert!(self.hub.peers.cloud_hub.try_send(CloudHubMessage::Answer { node: node(name), frame }).is_ok());
    }
}

impl<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin> Edge<S> {
    pub async fn say(&mut self, body: Upstream) -> MsgId {
        let frame = Frame::new(MsgId::random(), at(), body);
        self.0.send(Message::text(codec::encode(&frame).unwrap())).await.unwrap();
        frame.id
    }

    pub async fn ack(&mut self, frame: &Frame<Downstream>) {
        self.0.send(Message::text(codec::encode(&frame.ack(MsgId::random(), at())).unwrap())).await.unwrap();
    }

    pub async fn refuse(&mut self, frame: &Frame<Downstream>, reason: &str) {
        self.0.send(Message::text(codec::encode(&frame.refusal(MsgId::random(), at(), reason)).unwrap())).await.unwrap();
    }

    pub async fn next(&mut self) -> Frame<Downstream> {
        loop {
            match tokio::time::timeout(SOON, self.0.next()).await.expect("a frame in time").unwrap().unwrap() {
                Message::Text(text) => return codec::decode(&text).unwrap(),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    /// Asks for something that is answered at once, and returns what came before that answer.
    pub async fn settled(&mut self) -> Vec<Frame<Downstream>> {
        let payload = MsgId::random().to_string().into_bytes();
        self.0.send(Message::Ping(payload.clone().into())).await.unwrap();
        let mut before = Vec::new();
        loop {
            match tokio::time::timeout(SOON, self.0.next()).await.expect("a pong in time").unwrap().unwrap() {
                Message::Pong(found) if found == payload => return before,
                Message::Text(text) => before.push(codec::decode(&text).unwrap()),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    /// Reads to the end: the close frame, if there was one.
    pub async fn closed(&mut self) -> Option<CloseFrame> {
        loop {
            match tokio::time::timeout(SOON, self.0.next()).await.expect("the end in time") {
                Some(Ok(Message::Close(reason))) => return reason,
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return None,
            }
        }
    }
}

pub fn at() -> Timestamp {
    Timestamp(1_700_000_000_000)
}

pub fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

pub fn key(name: &str) -> ResourceKey {
    ResourceKey::object(Namespace::new("default").unwrap(), ResourceKind::ConfigMap, ObjectName::new(name).unwrap())
}

pub fn object_frame(name: &str, object: &str) -> (ResourceKey, Frame<Downstream>) {
    let body = Downstream::Object { operation: ObjectOperation::Update, key: key(name), object: RawJson::from_str_value(object) };
    (key(name), Frame::new(MsgId::random(), at(), body))
}

/// The text that [`object_frame`] put in.
pub fn text_of(frame: &Frame<Downstream>) -> String {
    match &frame.body {
        Downstream::Object { object, .. } => object.as_string().unwrap(),
        other => panic!("no object: {other:?}"),
    }
}

pub fn node_status(name: &str) -> Upstream {
    Upstream::NodeStatus {
        namespace: Namespace::new("default").unwrap(),
        node: node(name),
        content: RawJson::from_text(r#"{"UID":"u","Status":{}}"#.into()).unwrap(),
    }
}
