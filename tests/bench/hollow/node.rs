//! One hollow edge: connects by the rule of `skep-edge`, says what that says, acknowledges what it is sent.
//!
//! It does not announce what it holds, so that it is sent everything at each connection: the dearest case.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use model::{Namespace, NodeName};
use rand::Rng as _;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use wire::RawJson;
use wire::hub::{Downstream, Frame, MsgId, Upstream, codec};

use super::now;

/// `edge/src/backoff.rs` and `edge/src/edge_hub/socket`: the first pause, the longest one while nobody listens, the longest
/// one otherwise.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_WITHOUT_LISTENER: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// `edgehub.websocket.handshake-timeout`.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(30);
/// `edgehub.controller.heartbeat`.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// `edged.node-status-update-frequency`: what was not answered is said again then.
const SAY_AGAIN: Duration = Duration::from_secs(10);
/// Small, because there are thousands.
const BUFFER_BYTES: usize = 4 << 10;

/// What is told of the nodes as it happens, on their thread.
pub trait Sight: Send + Sync + 'static {
    /// The node's session stands.
    fn connected(&self, _node: usize) {}
    /// The node handles what the cloud sent; the number is given to [`Sight::acknowledged`].
    fn received(&self, _node: usize, _frame: &Frame<Downstream>) -> u64 {
        0
    }
    /// The acknowledgement has been handed to the system.
    fn acknowledged(&self, _node: usize, _number: u64) {}
    /// Everything that the node said of itself when it connected has been answered.
    fn greeted(&self, _node: usize) {}
    /// An attempt to connect failed.
    fn failed(&self, _node: usize, _why: &str) {}
    /// The session has ended.
    fn lost(&self, _node: usize, _why: &str) {}
    /// The cloud said what it must not say.
    fn wrong(&self, node: usize, what: String);
}

/// What a node says when it has connected, beside its keepalives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Greeting {
    /// It registers, as every edge does.
    Registers,
    /// The same, its status, and the question for its devices: all that `skep-edge` says.
    Whole,
}

/// How nodes behave.
#[derive(Clone, Debug)]
pub struct Manner {
    /// Port of CloudHub.
    pub port: u16,
    /// Delay of each direction, made here: frames are handled so long after they arrived, answers leave so long after that.
    pub one_way: Duration,
    /// What is said at first.
    pub greeting: Greeting,
}

/// One node.
pub struct Node {
    index: usize,
    name: NodeName,
    tls: Arc<ClientConfig>,
    failures: u32,
}

type Socket = WebSocketStream<TlsStream<TcpStream>>;

/// Why there is no connection.
struct Failure {
    nobody_listens: bool,
    why: String,
}

impl Failure {
    fn new(why: impl std::fmt::Display) -> Self {
        Self { nobody_listens: false, why: why.to_string() }
    }
}

impl Node {
    /// A node that has never been connected.
    pub fn new(index: usize, name: NodeName, tls: Arc<ClientConfig>) -> Self {
        Self { index, name, tls, failures: 0 }
    }

    /// Connects and connects again until it is dropped.
    pub async fn run<S: Sight>(mut self, manner: Arc<Manner>, sight: Arc<S>) {
        let mut longest = LONGEST_PAUSE;
        loop {
            sleep(self.pause(longest)).await;
            let attempt = timeout(HANDSHAKE_WITHIN, self.connect(manner.port)).await;
            match attempt.unwrap_or_else(|_| Err(Failure::new("the handshake took too long"))) {
                Ok(socket) => {
                    let began = Instant::now();
                    sight.connected(self.index);
                    let why = Session::new(&self, &manner, &*sight).serve(socket).await;
                    sight.lost(self.index, &why);
                    if began.elapsed() >= HEARTBEAT {
                        self.failures = 0;
                    }
                }
                Err(failure) => {
                    longest = if failure.nobody_listens { LONGEST_WITHOUT_LISTENER } else { LONGEST_PAUSE };
                    sight.failed(self.index, &failure.why);
                }
            }
        }
    }

    /// The edge's rule: at once, then a random time up to a ceiling that doubles.
    fn pause(&mut self, longest: Duration) -> Duration {
        let ceiling = match self.failures {
            0 => Duration::ZERO,
            failures => FIRST_PAUSE.saturating_mul(1_u32.checked_shl(failures - 1).unwrap_or(u32::MAX)).min(longest),
        };
        if ceiling < longest {
            self.failures = self.failures.saturating_add(1);
        }
        ceiling.mul_f64(rand::rng().random_range(0.0..=1.0))
    }

    async fn connect(&self, port: u16) -> Result<Socket, Failure> {
        let stream = TcpStream::connect(("127.0.0.1", port))
            .await
            .map_err(|error| Failure { nobody_listens: error.kind() == std::io::ErrorKind::ConnectionRefused, why: format!("TCP: {error}") })?;
        stream.set_nodelay(true).map_err(Failure::new)?;
        let name = ServerName::try_from("localhost").expect("a DNS name");
        let stream = TlsConnector::from(self.tls.clone()).connect(name, stream).await.map_err(|error| Failure::new(format!("TLS: {error}")))?;
        let url = format!("wss://localhost:{port}/bench/{}/events", self.name);
        let mut request = url.into_client_request().map_err(Failure::new)?;
        request.headers_mut().insert("node_id", self.name.as_str().try_into().map_err(Failure::new)?);
        let limits = WebSocketConfig::default()
            .read_buffer_size(BUFFER_BYTES)
            .write_buffer_size(BUFFER_BYTES)
            .max_write_buffer_size(1 << 20)
            .max_frame_size(Some(codec::FRAME_BYTES_MAX))
            .max_message_size(Some(codec::FRAME_BYTES_MAX));
        let upgraded = tokio_tungstenite::client_async_with_config(request, stream, Some(limits)).await;
        upgraded.map(|(socket, _)| socket).map_err(|error| Failure::new(format!("upgrade: {error}")))
    }

    /// All that it says of itself.
    fn greeting(&self, greeting: Greeting) -> Vec<Frame<Upstream>> {
        let status = json!({
            "capacity": {"cpu": "4", "memory": "4096Mi", "pods": "110"},
            "allocatable": {"cpu": "4", "memory": "3996Mi", "pods": "110"},
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True", "reason": "EdgeReady", "message": "edge is posting ready status"}],
            "addresses": [{"type": "InternalIP", "address": "192.0.2.1"}, {"type": "Hostname", "address": self.name.as_str()}],
            "nodeInfo": {
                "machineID": "", "systemUUID": "", "bootID": "", "kernelVersion": "6.1", "osImage": "hollow", "operatingSystem": "linux",
                "architecture": "amd64", "containerRuntimeVersion": "none", "kubeletVersion": "bench", "kubeProxyVersion": "",
            },
        });
        let object = json!({
            "apiVersion": "v1", "kind": "Node", "spec": {}, "status": &status,
            "metadata": {"name": self.name.as_str(), "labels": {"node-role.kubernetes.io/edge": "", "kubernetes.io/hostname": self.name.as_str()}},
        });
        let raw = |value: &serde_json::Value| RawJson::from_value(value).expect("a JSON value always serialises");
        let (namespace, node) = (Namespace::default(), self.name.clone());
        let content = json!({"UID": "38796d14-1df3-11e8-8e5a-286ed488f209", "Status": status, "ExtendResources": null});
        let mut said = vec![Upstream::NodeRegister { namespace: namespace.clone(), node: node.clone(), object: raw(&object) }];
        if greeting == Greeting::Whole {
            said.push(Upstream::NodeStatus { namespace, node: node.clone(), content: raw(&content) });
            said.push(Upstream::MembershipGet { event_id: String::new(), node });
        }
        said.into_iter().map(|body| Frame::new(MsgId::random(), now(), body)).collect()
    }
}

/// One session, with a delay line for each direction: whatever is on its way is on its way at the same time.
struct Session<'a, S> {
    node: &'a Node,
    sight: &'a S,
    one_way: Duration,
    arriving: VecDeque<(Instant, String)>,
    leaving: VecDeque<(Instant, Message, Option<u64>)>,
    unanswered: Vec<Frame<Upstream>>,
}

fn text(frame: &Frame<Upstream>) -> Message {
    Message::text(codec::encode(frame).expect("what a hollow node says is small"))
}

impl<'a, S: Sight> Session<'a, S> {
    fn new(node: &'a Node, manner: &Manner, sight: &'a S) -> Self {
        let unanswered = node.greeting(manner.greeting);
        Self { node, sight, one_way: manner.one_way, arriving: VecDeque::new(), leaving: VecDeque::new(), unanswered }
    }

    /// Serves until the connection ends; says why it did.
    async fn serve(mut self, mut socket: Socket) -> String {
        let mut heartbeat = interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut again = interval(SAY_AGAIN);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        loop {
            let due = self.arriving.front().map(|(at, _)| *at).into_iter().chain(self.leaving.front().map(|(at, ..)| *at)).min();
            tokio::select! {
                message = socket.next() => {
                    heard = Instant::now();
                    match message {
                        Some(Ok(Message::Text(text))) => self.arriving.push_back((heard + self.one_way, text.as_str().to_owned())),
                        Some(Ok(Message::Close(reason))) => return reason.map_or_else(|| "closed".to_owned(), |reason| reason.reason.to_string()),
                        Some(Ok(_)) => {}
                        Some(Err(error)) => return error.to_string(),
                        None => return "closed".to_owned(),
                    }
                }
                () = sleep_until(due.unwrap_or(heard)), if due.is_some() => {}
                _ = again.tick(), if !self.unanswered.is_empty() => {
                    let said: Vec<Message> = self.unanswered.iter().map(text).collect();
                    said.into_iter().for_each(|message| self.leave(message, None));
                }
                at = heartbeat.tick() => {
                    if at.saturating_duration_since(heard) > 2 * HEARTBEAT {
                        return "nothing was heard for two heartbeats".to_owned();
                    }
                    self.leave(text(&Frame::new(MsgId::random(), now(), Upstream::Keepalive)), None);
                    self.leave(Message::Ping(Default::default()), None);
                }
            }
            if let Err(error) = self.advance(&mut socket).await {
                return error;
            }
        }
    }

    fn leave(&mut self, message: Message, number: Option<u64>) {
        self.leaving.push_back((Instant::now() + self.one_way, message, number));
    }

    /// Handles and sends what is due.
    async fn advance(&mut self, socket: &mut Socket) -> Result<(), String> {
        while let Some((_, text)) = pop_due(&mut self.arriving, |(at, _)| *at) {
            self.handle(&text);
        }
        let mut numbers = Vec::new();
        let mut is_fed = false;
        while let Some((_, message, number)) = pop_due(&mut self.leaving, |(at, ..)| *at) {
            socket.feed(message).await.map_err(|error| error.to_string())?;
            numbers.extend(number);
            is_fed = true;
        }
        if is_fed {
            socket.flush().await.map_err(|error| error.to_string())?;
        }
        numbers.into_iter().for_each(|number| self.sight.acknowledged(self.node.index, number));
        Ok(())
    }

    fn handle(&mut self, text: &str) {
        let index = self.node.index;
        let frame = match codec::decode::<Downstream>(text) {
            Ok(frame) => frame,
            Err(error) => return self.sight.wrong(index, format!("{}: {error}: {text:.200}", self.node.name)),
        };
        match &frame.body {
            Downstream::Object { .. } | Downstream::MembershipUpdate(_) | Downstream::TwinSync { .. } | Downstream::Attributes { .. } => {
                let number = self.sight.received(index, &frame);
                self.leave(self::text(&frame.ack(MsgId::random(), now())), Some(number));
            }
            Downstream::Refusal { reason, .. } => self.sight.wrong(index, format!("{} was refused: {reason}", self.node.name)),
            Downstream::QueryAnswer { .. } | Downstream::Confirm { .. } | Downstream::MembershipDetail(_) => {
                let before = self.unanswered.len();
                self.unanswered.retain(|said| Some(&said.id) != frame.parent.as_ref());
                if before > 0 && self.unanswered.is_empty() {
                    self.sight.greeted(index);
                }
            }
            Downstream::Publish { .. } | Downstream::Subscribe { .. } | Downstream::Unsubscribe { .. } | Downstream::HeldGet => {}
        }
    }
}

fn pop_due<T>(line: &mut VecDeque<T>, at: impl Fn(&T) -> Instant) -> Option<T> {
    let is_due = line.front().is_some_and(|front| at(front) <= Instant::now());
    if is_due { line.pop_front() } else { None }
}
