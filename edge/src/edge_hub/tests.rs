//! EdgeHub with probes in place of the modules: its match, its questions, and the whole link against a TLS server.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests: a panic is the failure")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use actor::testing::{Probe, lease, lease_posted};
use actor::{Meta, Reply, eventually};
use futures_util::SinkExt as _;
use model::{DeviceId, ManualClock, Namespace, ObjectName, ResourceKey, ResourceKind, Timestamp};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use wire::hub::{Downstream, Envelope, Frame, MsgId, ObjectOperation, Operation, RawJson, Resource, Upstream, codec};
use wire::link::Capabilities;

use super::message::Answer;
use super::socket::Socket;
use super::socket_tests::{Cloud, Pki, SOON, text};
use super::state::Shared;
use super::{Address, Config, EdgeHub, EdgeHubMessage, Link, Peers, REQUESTS_MAX, ROOM_WITHIN, RequestError};
use crate::communication::CommunicationMessage;
use crate::device::DeviceMessage;
use crate::edged::EdgedMessage;
use crate::event_bus::EventBusMessage;
use crate::membership::MembershipMessage;
use crate::meta_manager::{MetaManagerMessage, Session};
use crate::twin::TwinMessage;

pub(super) struct World {
    pub(super) own: Probe<EdgeHubMessage>,
    pub(super) meta_manager: Probe<MetaManagerMessage>,
    pub(super) membership: Probe<MembershipMessage>,
    pub(super) twin: Probe<TwinMessage>,
    pub(super) device: Probe<DeviceMessage>,
    pub(super) communication: Probe<CommunicationMessage>,
    pub(super) event_bus: Probe<EventBusMessage>,
    pub(super) edged: Probe<EdgedMessage>,
}

impl World {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            own: Probe::new("edgehub", 64),
            meta_manager: Probe::new("metamanager", capacity),
            membership: Probe::new("membership", capacity),
            twin: Probe::new("twin", capacity),
            device: Probe::new("device", capacity),
            communication: Probe::new("communication", capacity),
            event_bus: Probe::new("eventbus", capacity),
            edged: Probe::new("edged", capacity),
        }
    }

    fn peers(&self) -> Peers {
        Peers {
            own: self.own.handle(),
            meta_manager: self.meta_manager.handle(),
            membership: self.membership.handle(),
            twin: self.twin.handle(),
            device: self.device.handle(),
            communication: self.communication.handle(),
            event_bus: Some(self.event_bus.handle()),
            edged: Some(self.edged.handle()),
        }
    }

    fn is_quiet(&self) -> bool {
        self.meta_manager.try_next().is_none()
            && self.membership.try_next().is_none()
            && self.twin.try_next().is_none()
            && self.device.try_next().is_none()
            && self.communication.try_next().is_none()
            && self.event_bus.try_next().is_none()
            && self.edged.try_next().is_none()
    }
}

pub(super) struct Scene {
    pub(super) world: World,
    hub: EdgeHub,
    shared: Arc<Shared>,
    socket: Socket,
    pub(super) frames: Receiver<String>,
}

pub(super) fn scene(capacity: usize) -> Scene {
    let (world, socket, shared) = (World::new(capacity), Socket::default(), Arc::new(Shared::default()));
    let frames = socket.attach(1);
    let hub = EdgeHub::new(socket.clone(), shared.clone(), world.peers(), Arc::new(ManualClock::at(Timestamp(7))));
    Scene { world, hub, shared, socket, frames }
}

impl Scene {
    /// Handles the messages; returns what stays in the mailbox.
    pub(super) fn handle(&mut self, messages: Vec<EdgeHubMessage>) -> Probe<EdgeHubMessage> {
        let (lease, probe) = lease(messages);
        self.hub.settle(lease);
        probe
    }

    /// The same with headers.
    pub(super) fn handle_posted(&mut self, messages: Vec<(Meta, EdgeHubMessage)>) -> Probe<EdgeHubMessage> {
        let (lease, probe) = lease_posted(messages);
        self.hub.settle(lease);
        probe
    }

    fn receive(&mut self, frame: &Frame<Downstream>) -> Probe<EdgeHubMessage> {
        self.handle(vec![received(codec::encode(frame).unwrap())])
    }

    fn sent(&mut self) -> Envelope {
        codec::decode_envelope(&self.frames.try_recv().expect("a frame for the cloud")).unwrap()
    }
}

/// An EdgeHub without a cloud, some of whose peers are others than the probes.
pub(super) fn hub_of(world: &World, change: impl FnOnce(&mut Peers)) -> EdgeHub {
    let mut peers = world.peers();
    change(&mut peers);
    EdgeHub::new(Socket::default(), Arc::new(Shared::default()), peers, Arc::new(ManualClock::at(Timestamp(7))))
}

pub(super) fn received(text: String) -> EdgeHubMessage {
    EdgeHubMessage::Received { session: 1, text }
}

fn down(body: Downstream) -> Frame<Downstream> {
    Frame::new(MsgId::new("from-cloud").unwrap(), Timestamp(1), body)
}

fn answer(parent: &MsgId, body: Downstream) -> Frame<Downstream> {
    Frame::answer(MsgId::random(), parent.clone(), Timestamp(1), body)
}

fn key(kind: ResourceKind) -> ResourceKey {
    ResourceKey::object(Namespace::default(), kind, ObjectName::new("web").unwrap())
}

fn json(text: &str) -> RawJson {
    RawJson::from_text(text.into()).unwrap()
}

fn question() -> Frame<Upstream> {
    Frame::new(MsgId::random(), Timestamp(1), Upstream::Query { key: key(ResourceKind::ConfigMap) })
}

fn ask(frame: &Frame<Upstream>) -> (EdgeHubMessage, tokio::sync::oneshot::Receiver<Answer>) {
    let (reply, answer) = Reply::channel();
    (EdgeHubMessage::Request { frame: frame.clone(), within: Duration::from_secs(60), reply }, answer)
}

fn lamp() -> DeviceId {
    DeviceId::new("lamp").unwrap()
}

fn membership(body: &str) -> Downstream {
    let text = format!(
        r#"{{"header":{{"msg_id":"m"}},"route":{{"source":"devicecontroller","group":"twin","operation":"update","resource":"membership{body}"}},"content":{{"event_id":"e","timestamp":1,"devices":[],"added_devices":[],"removed_devices":null}}}}"#
    );
    codec::decode::<Downstream>(&text).unwrap().body
}

#[tokio::test]
async fn each_message_of_the_cloud_goes_to_its_module_with_the_frame_to_acknowledge() {
    let mut scene = scene(8);
    let object = Downstream::Object { operation: ObjectOperation::Insert, key: key(ResourceKind::Pod), object: json(r#"{"a":1}"#) };
    scene.receive(&down(object).with_resource_version("42"));
    let taken = scene.world.meta_manager.try_next().unwrap();
    let MetaManagerMessage::FromCloud { id, key: k, resource_version, object, .. } = &*taken else { panic!("{:?}", *taken) };
    assert_eq!((id.as_str(), k, resource_version.as_deref(), object.as_str()), ("from-cloud", &key(ResourceKind::Pod), Some("42"), r#"{"a":1}"#));

    scene.receive(&down(membership("/detail")));
    assert!(matches!(&*scene.world.membership.try_next().unwrap(), MembershipMessage::Detail { frame, .. } if frame.as_str() == "from-cloud"));
    scene.receive(&down(membership("")));
    assert!(matches!(&*scene.world.membership.try_next().unwrap(), MembershipMessage::Update { .. }));

    let twin = |resource: &str, group: &str, operation: &str, content: &str| {
        received(format!(
            r#"{{"header":{{"msg_id":"t"}},"route":{{"source":"devicecontroller","group":"{group}","operation":"{operation}","resource":"{resource}"}},"content":{content}}}"#
        ))
    };
    scene.handle(vec![
        twin("device/lamp/twin/cloud_updated", "twin", "update", r#"{"event_id":"e","twin":{}}"#),
        twin("device/lamp", "twin", "updated", r#"{"event_id":"e","attributes":{}}"#),
        twin("some/topic", "user", "publish", r#""text""#),
        twin("a/+", "user", "subscribe", "null"),
        twin("a/+", "user", "unsubscribe", "null"),
    ]);
    assert!(
        matches!(&*scene.world.twin.try_next().unwrap(), TwinMessage::CloudSync { device, frame, .. } if *device == lamp() && frame.as_str() == "t")
    );
    assert!(matches!(&*scene.world.device.try_next().unwrap(), DeviceMessage::Attributes { device, .. } if *device == lamp()));
    assert!(
        matches!(&*scene.world.event_bus.try_next().unwrap(), EventBusMessage::Publish { topic, payload } if topic.to_string() == "some/topic" && payload == "text")
    );
    assert!(matches!(&*scene.world.event_bus.try_next().unwrap(), EventBusMessage::Subscribe { filter } if filter == "a/+"));
    assert!(matches!(&*scene.world.event_bus.try_next().unwrap(), EventBusMessage::Unsubscribe { .. }));
    assert!(scene.world.is_quiet() && scene.frames.try_recv().is_err());
}

#[tokio::test]
async fn a_confirmation_goes_to_whoever_reported() {
    let mut scene = scene(8);
    let parent = MsgId::new("p").unwrap();
    scene.receive(&answer(&parent, Downstream::Confirm { resource: Resource::Twin }));
    assert!(matches!(&*scene.world.communication.try_next().unwrap(), CommunicationMessage::Confirmed { parent } if parent.as_str() == "p"));
    scene.receive(&answer(&parent, Downstream::Refusal { resource: Resource::Twin, reason: "no".into() }));
    assert!(matches!(&*scene.world.communication.try_next().unwrap(), CommunicationMessage::Refused { reason, .. } if reason == "no"));
    let pods = Resource::Object(ResourceKey::list(Namespace::default(), ResourceKind::PodStatus));
    scene.receive(&answer(&parent, Downstream::Confirm { resource: pods.clone() }));
    assert!(matches!(&*scene.world.meta_manager.try_next().unwrap(), MetaManagerMessage::Confirmed { .. }));
    scene.receive(&answer(&parent, Downstream::Refusal { resource: pods, reason: "no".into() }));
    assert!(matches!(&*scene.world.meta_manager.try_next().unwrap(), MetaManagerMessage::Refused { .. }));
    assert!(scene.world.is_quiet());
}

#[tokio::test]
async fn an_answer_goes_to_its_question_once_and_a_late_one_to_meta_manager() {
    let mut scene = scene(8);
    let question = question();
    let (request, waiting) = ask(&question);
    scene.handle(vec![request]);
    assert_eq!(scene.sent().header.msg_id, question.id.as_str());
    let body = || Downstream::QueryAnswer { key: key(ResourceKind::ConfigMap), result: Ok(json("{}")) };
    scene.receive(&answer(&question.id, body()));
    assert_eq!(waiting.await.unwrap().unwrap().body, body());
    assert!(scene.world.is_quiet());
    scene.receive(&answer(&question.id, body()));
    assert!(matches!(&*scene.world.meta_manager.try_next().unwrap(), MetaManagerMessage::LateAnswer { answer: Ok(_), .. }));
}

#[tokio::test]
async fn a_question_fails_at_once_without_a_cloud_and_when_the_session_ends() {
    let mut scene = scene(8);
    let (request, waiting) = ask(&question());
    scene.handle(vec![request, EdgeHubMessage::Disconnected { session: 1, reason: "cut".into() }]);
    assert_eq!(waiting.await.unwrap(), Err(RequestError::Disconnected));
    scene.socket.abandon();
    let (request, waiting) = ask(&question());
    scene.handle(vec![request]);
    assert_eq!(waiting.await.unwrap(), Err(RequestError::Disconnected));
}

#[tokio::test]
async fn a_question_of_the_next_session_survives_the_end_of_the_last_one() {
    let mut scene = scene(8);
    let _frames = scene.socket.attach(2);
    let (request, mut waiting) = ask(&question());
    scene.handle(vec![request, EdgeHubMessage::Disconnected { session: 1, reason: "cut".into() }]);
    assert!(waiting.try_recv().is_err());
}

#[tokio::test]
async fn a_question_that_nobody_answers_fails_at_its_deadline_and_not_before() {
    let mut scene = scene(8);
    let (request, mut waiting) = ask(&question());
    scene.handle(vec![request]);
    let now = tokio::time::Instant::now();
    scene.handle(vec![EdgeHubMessage::RequestsDue]);
    scene.hub.requests.expire(now + Duration::from_secs(59));
    assert!(waiting.try_recv().is_err());
    scene.hub.requests.expire(now + Duration::from_secs(61));
    assert_eq!(waiting.await.unwrap(), Err(RequestError::Deadline(Duration::from_secs(60))));
}

#[tokio::test]
async fn questions_are_bounded_and_those_that_nobody_waits_for_make_room() {
    let mut scene = scene(8);
    let mut waiting = Vec::new();
    for _ in 0..REQUESTS_MAX {
        let (request, answer) = ask(&question());
        scene.handle(vec![request]);
        waiting.push(answer);
    }
    let (request, refused) = ask(&question());
    scene.handle(vec![request]);
    assert_eq!(refused.await.unwrap(), Err(RequestError::Busy));
    waiting.pop();
    let (request, mut taken) = ask(&question());
    scene.handle(vec![EdgeHubMessage::RequestsDue, request]);
    assert!(taken.try_recv().is_err(), "it waits like the others");
}

#[tokio::test]
async fn an_answer_that_cannot_be_read_fails_its_question_at_once_and_is_not_answered() {
    let mut scene = scene(8);
    let question = question();
    let (request, waiting) = ask(&question);
    scene.handle(vec![request]);
    scene.sent();
    let id = &question.id;
    let long = "x".repeat(200);
    scene.handle(vec![received(format!(
        r#"{{"header":{{"msg_id":"{long}","parent_msg_id":"{id}"}},"route":{{"group":"resource","operation":"response","resource":"default/configmap/web"}},"content":{{}}}}"#
    ))]);
    assert!(matches!(waiting.await.unwrap(), Err(RequestError::Unreadable(_))));
    assert!(scene.frames.try_recv().is_err());
}

#[tokio::test]
async fn what_is_no_message_is_counted_and_answered_only_if_it_has_an_id() {
    let mut scene = scene(8);
    let deep = format!(r#"{{"content":{}}}"#, "[".repeat(10_000));
    for garbage in ["", "null", "[]", "\u{0}", r#"{"header":5}"#, &deep] {
        scene.handle(vec![received(garbage.into())]);
    }
    scene.handle(vec![received("{}".into())]);
    assert!(scene.frames.try_recv().is_err());
    scene.handle(vec![received(
        r#"{"header":{"msg_id":"u1"},"route":{"source":"cloudhub","group":"resource","operation":"dance","resource":"default/pod/web"},"content":null}"#.into(),
    )]);
    let answer = scene.sent();
    assert_eq!((answer.header.parent_msg_id.as_str(), &answer.route.operation), ("u1", &Operation::Error));
    assert!(answer.content.as_string().unwrap().contains("dance"));
    scene.handle(vec![received(
        r#"{"header":{"msg_id":"u2","parent_msg_id":"u1"},"route":{"group":"nowhere","operation":"error","resource":"x"},"content":"why"}"#.into(),
    )]);
    assert!(scene.frames.try_recv().is_err(), "an error is not answered with an error");
    let figures = scene.shared.figures(true);
    assert!(figures.unreadable >= 5 && figures.unknown >= 1, "{figures:?}");
}

#[tokio::test]
async fn a_topic_that_cannot_be_published_is_refused_to_the_cloud() {
    let mut scene = scene(8);
    for (topic, payload) in [("a/#", "x".to_owned()), ("", String::new()), ("ok", "x".repeat(1 << 20))] {
        let frame = down(Downstream::Publish { topic: topic.into(), payload });
        scene.handle(vec![received(codec::encode(&frame).unwrap())]);
        assert_eq!(scene.sent().route.operation, Operation::Error, "{topic}");
    }
    assert!(scene.world.is_quiet());
}

#[tokio::test]
async fn a_frame_goes_out_as_it_is_and_is_counted_when_the_cloud_is_away_or_takes_nothing() {
    let mut scene = scene(8);
    let send = || EdgeHubMessage::Send(question());
    scene.handle(vec![send()]);
    assert_eq!(scene.sent().route.operation, Operation::Query);
    let large = Upstream::Upload { topic: "t".into(), payload: "x".repeat(17 << 20) };
    scene.handle(vec![EdgeHubMessage::Send(Frame::new(MsgId::random(), Timestamp(1), large))]);
    for _ in 0..super::socket::WAITING_MAX + 3 {
        scene.handle(vec![send()]);
    }
    scene.socket.abandon();
    scene.handle(vec![send(), send()]);
    let figures = scene.shared.figures(false);
    assert_eq!((figures.dropped_too_large, figures.dropped_full, figures.dropped_away), (1, 3, 2));
}

#[tokio::test]
async fn what_is_true_in_one_session_only_goes_out_in_no_other() {
    let mut scene = scene(8);
    let mut frames = scene.socket.attach(2);
    let send = |session| EdgeHubMessage::SendIn { session, frame: question() };
    scene.handle(vec![send(1), send(2), send(3)]);
    assert!(frames.try_recv().is_ok() && frames.try_recv().is_err());
    assert_eq!(scene.shared.figures(true).dropped_away, 2);
}

#[tokio::test]
async fn everybody_hears_that_the_cloud_came_and_went() {
    let mut scene = scene(8);
    scene.handle(vec![
        EdgeHubMessage::Connected { session: 1, capabilities: Capabilities::OURS },
        EdgeHubMessage::Disconnected { session: 1, reason: "cut".into() },
    ]);
    let meta: Vec<_> = scene.world.meta_manager.drain();
    assert!(matches!(&*meta[0], MetaManagerMessage::NodeConnection { cloud: Some(Session { number: 1, capabilities: Capabilities::OURS }) }));
    assert!(matches!(&*meta[1], MetaManagerMessage::NodeConnection { cloud: None }));
    let communication: Vec<_> = scene.world.communication.drain();
    assert!(matches!(&*communication[0], CommunicationMessage::CloudConnected));
    assert!(matches!(&*communication[1], CommunicationMessage::CloudDisconnected));
    let edged: Vec<_> = scene.world.edged.drain();
    assert!(matches!((&*edged[0], &*edged[1]), (EdgedMessage::CloudConnected, EdgedMessage::CloudDisconnected)));
}

#[test]
fn a_full_module_holds_up_the_cloud_for_a_while_and_then_only_itself() {
    // A real actor, because what is put back must come again: two objects for a module with room for one.
    actix_rt::System::new().block_on(async {
        let world = World::new(1);
        let (socket, shared) = (Socket::default(), Arc::new(Shared::default()));
        let mut frames = socket.attach(1);
        let hub = actor::mailbox::<EdgeHubMessage>("edgehub", 64);
        let (peers, counters) = (world.peers(), shared.clone());
        let clock: Arc<dyn model::Clock> = Arc::new(ManualClock::default());
        let running = actor::Supervisor::new("edge", actor::Policy::default())
            .child(actor::ChildSpec::new(&hub, move || EdgeHub::new(socket.clone(), counters.clone(), peers.clone(), clock.clone())))
            .start(|why| panic!("{why}"));
        let object = down(Downstream::Object { operation: ObjectOperation::Update, key: key(ResourceKind::Pod), object: json("{}") });
        let object = codec::encode(&object).unwrap();
        for _ in 0..2 {
            assert!(hub.try_send(received(object.clone())).is_ok());
        }
        assert!(hub.try_send(EdgeHubMessage::Send(question())).is_ok());
        // The second object waits, and what is behind it waits in order.
        assert!(timeout(Duration::from_millis(200), frames.recv()).await.is_err());
        assert!(world.meta_manager.next(SOON).await.is_some());
        assert!(timeout(SOON, frames.recv()).await.is_ok(), "room makes it go on");
        assert!(world.meta_manager.next(SOON).await.is_some());
        assert_eq!(shared.figures(true).dropped_no_room, 0);
        // A module that stays full loses its message after the limit; the others hear the notice then.
        assert!(world.edged.handle().try_send(EdgedMessage::ReconcileDue).is_ok());
        let began = std::time::Instant::now();
        assert!(hub.try_send(EdgeHubMessage::Connected { session: 1, capabilities: Capabilities::default() }).is_ok());
        assert!(world.communication.next(SOON).await.is_some());
        assert!(began.elapsed() >= ROOM_WITHIN);
        eventually!(SOON, shared.figures(true).dropped_no_room == 1);
        assert!(matches!(&*world.meta_manager.next(SOON).await.unwrap(), MetaManagerMessage::NodeConnection { cloud: Some(_) }));
        running.shutdown().await;
    });
}

fn config(destination: Address) -> Config {
    let seconds = Duration::from_secs;
    Config {
        destination,
        headers: vec![("node_id".into(), "edge-1".into())],
        handshake_within: seconds(10),
        write_within: seconds(5),
        heartbeat: seconds(15),
        silence_max: seconds(15),
        clock: Arc::new(ManualClock::at(Timestamp(7))),
    }
}

#[tokio::test]
async fn the_link_reports_sessions_and_frames_to_the_mailbox_and_outlives_the_actor() {
    let (pki, world) = (Pki::new(), World::new(8));
    let cloud = Cloud::new(&pki).await;
    let tls = pki.client_config();
    let link =
        Link::start(config(Address::Fixed(cloud.url())), Arc::new(move || Ok(tls.clone())), world.own.handle(), |why| panic!("{why}")).unwrap();
    let mut peer = cloud.accept().await;
    let keepalive = codec::decode::<Upstream>(&text(&mut peer).await).unwrap();
    assert_eq!((keepalive.body, keepalive.timestamp), (Upstream::Keepalive, Timestamp(7)));
    assert!(matches!(&*world.own.next(SOON).await.unwrap(), EdgeHubMessage::Connected { session: 1, .. }));
    let factory = link.factory(world.peers());
    for _ in 0..2 {
        // Each incarnation sends over the same session.
        let mut hub = factory();
        let (lease, _probe) = lease(vec![EdgeHubMessage::Send(question())]);
        hub.settle(lease);
        assert_eq!(codec::decode_envelope(&text(&mut peer).await).unwrap().route.operation, Operation::Query);
    }
    peer.send(Message::text("hello")).await.unwrap();
    assert!(matches!(&*world.own.next(SOON).await.unwrap(), EdgeHubMessage::Received { session: 1, text } if text == "hello"));
    assert!(link.is_connected() && link.figures().sent == 2);
    drop(peer);
    assert!(matches!(&*world.own.next(SOON).await.unwrap(), EdgeHubMessage::Disconnected { session: 1, .. }));
    tokio::task::spawn_blocking(move || drop(link)).await.unwrap();
}

#[tokio::test]
async fn a_cloud_of_another_authority_is_told_to_the_operator_and_a_lost_certificate_as_well() {
    let (ours, theirs, world) = (Pki::new(), Pki::new(), World::new(8));
    let cloud = Cloud::new(&theirs).await;
    let tls = ours.client_config();
    let heard = Arc::new(Mutex::new(String::new()));
    let ear = heard.clone();
    let link = Link::start(config(Address::Fixed(cloud.url())), Arc::new(move || Ok(tls.clone())), world.own.handle(), move |why| {
        *ear.lock().unwrap() = why.to_owned();
    })
    .unwrap();
    let (stream, _) = cloud.listener.accept().await.unwrap();
    assert!(cloud.acceptor.accept(stream).await.is_err());
    actor::eventually!(SOON, heard.lock().unwrap().contains("do not trust each other"));
    tokio::task::spawn_blocking(move || drop(link)).await.unwrap();
    assert!(world.own.try_next().is_none());
}

#[tokio::test]
async fn the_placement_server_tells_where_the_cloud_is() {
    let (pki, world) = (Pki::new(), World::new(8));
    let (cloud, placement) = (Cloud::new(&pki).await, Cloud::new(&pki).await);
    let (tls, base) = (pki.client_config(), format!("wss://localhost:{}", cloud.address().port()));
    let url = format!("https://localhost:{}/v1/placement", placement.address().port());
    let destination = Address::Placement { url, path: "/project/node/events".into() };
    let link = Link::start(config(destination), Arc::new(move || Ok(tls.clone())), world.own.handle(), |why| panic!("{why}")).unwrap();
    let mut answers = ["HTTP/1.1 400 Bad Request\r\n\r\n".to_owned(), format!("HTTP/1.1 200 OK\r\n\r\n{base}/\n")].into_iter();
    let serve = async {
        for answer in answers.by_ref() {
            let (stream, _) = placement.listener.accept().await.unwrap();
            let mut stream = placement.acceptor.accept(stream).await.unwrap();
            let mut request = vec![0; 4_096];
            let bytes = stream.read(&mut request).await.unwrap();
            assert!(request[..bytes].starts_with(b"GET /v1/placement HTTP/1.1\r\n"));
            stream.write_all(answer.as_bytes()).await.unwrap();
            let _ = stream.shutdown().await;
        }
    };
    let (_peer, ()) = tokio::join!(cloud.accept(), serve);
    assert!(matches!(&*world.own.next(SOON).await.unwrap(), EdgeHubMessage::Connected { session: 1, .. }));
    tokio::task::spawn_blocking(move || drop(link)).await.unwrap();
}

#[tokio::test]
async fn the_settings_give_address_headers_and_periods() {
    let mut settings = crate::config::EdgeConfig::default();
    settings.edgehub.controller.node_id = "edge-1".into();
    let config = Config::new(&settings);
    let url = "wss://127.0.0.1:10000/e632aba927ea4ac2b575ec1603d56f10/edge-1/events";
    assert_eq!(config.destination, Address::Fixed(url.into()));
    assert_eq!(config.headers[0], ("node_id".into(), "edge-1".into()));
    assert_eq!(config.heartbeat, Duration::from_secs(15));
    settings.edgehub.controller.placement = true;
    settings.edgehub.controller.placement_url = "https://p".into();
    let Address::Placement { url, path } = Config::new(&settings).destination else { panic!("placement is on") };
    assert_eq!((url.as_str(), path.as_str()), ("https://p", "/e632aba927ea4ac2b575ec1603d56f10/edge-1/events"));
}
