#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::sync::Arc;
use std::time::Duration;

use actor::Reply;
use actor::testing::{Probe, lease};
use model::{ManualClock, Namespace, NodeName, ResourceKey, ResourceKind, Timestamp};
use serde_json::json;
use wire::hub::{Downstream, Frame, MsgId, ObjectOperation, PodStatusReport, RawJson, Resource, Upstream};
use wire::link::{Capabilities, HELD_PART_MAX, HeldPart};

use super::{Config, Found, MetaManager, MetaManagerMessage, Peers, QueryError, Session};
use crate::edge_hub::{EdgeHubMessage, RequestError};
use crate::edged::EdgedMessage;
use crate::store::Store;
use crate::store::meta::{self, StoredObject};
use crate::store::testing::tamper;

const SOON: Duration = Duration::from_secs(10);

pub(super) struct Fixture {
    pub(super) clock: Arc<ManualClock>,
    module: MetaManager,
    edge_hub: Probe<EdgeHubMessage>,
    edged: Probe<EdgedMessage>,
    own: Probe<MetaManagerMessage>,
    store: Store,
    dir: tempfile::TempDir,
}

pub(super) fn fixture() -> Fixture {
    fixture_with_room(64)
}

pub(super) fn fixture_with_room(room: usize) -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("edge.db")).unwrap();
    let (edge_hub, edged, own) = (Probe::new("edge_hub", room), Probe::new("edged", room), Probe::new("meta", 64));
    let peers = Peers { edge_hub: edge_hub.handle(), edged: Some(edged.handle()), own: own.handle() };
    let mut config = Config::new(NodeName::new("n1").unwrap(), Namespace::new("default").unwrap(), Duration::from_secs(1));
    let clock = Arc::new(ManualClock::at(Timestamp(1_000)));
    config.clock = clock.clone();
    let module = MetaManager::new(store.clone(), config, peers);
    Fixture { clock, module, edge_hub, edged, own, store, dir }
}

impl Fixture {
    pub(super) fn handle(&mut self, messages: Vec<MetaManagerMessage>) -> Probe<MetaManagerMessage> {
        let (lease, rest) = lease(messages);
        self.module.settle(lease);
        rest
    }

    fn row(&self, key: &str) -> Option<StoredObject> {
        self.store.read(|read| meta::get(read, &key.parse().unwrap())).unwrap()
    }

    fn hints(&self) -> Vec<String> {
        self.edged.drain().iter().map(|message| actor::Mail::describe(&**message)).collect()
    }

    pub(super) fn sent(&self) -> Vec<Frame<Upstream>> {
        let frames = self.edge_hub.drain();
        frames
            .iter()
            .map(|message| match &**message {
                EdgeHubMessage::Send(frame) | EdgeHubMessage::SendIn { session: 7, frame } => frame.clone(),
                other => panic!("not a frame: {other:?}"),
            })
            .collect()
    }

    /// Statuses that were sent: `(message, namespace, names)`.
    fn reports(&self) -> Vec<(MsgId, String, Vec<String>)> {
        let frames = self.sent().into_iter();
        frames
            .map(|frame| match frame.body {
                Upstream::PodStatus { namespace, reports } => (frame.id, namespace.to_string(), reports.iter().map(|r| r.name.to_string()).collect()),
                other => panic!("not a status: {other:?}"),
            })
            .collect()
    }
}

pub(super) fn raw(value: serde_json::Value) -> RawJson {
    RawJson::from_value(&value).unwrap()
}

fn object(name: &str, uid: &str, version: &str) -> RawJson {
    raw(json!({"metadata": {"name": name, "uid": uid, "resourceVersion": version}}))
}

fn cloud(operation: ObjectOperation, key: &str, object: RawJson) -> MetaManagerMessage {
    MetaManagerMessage::FromCloud { id: MsgId::new("m-1").unwrap(), operation, key: key.parse().unwrap(), resource_version: None, object }
}

fn status(pod: &str, uid: &str, phase: &str) -> MetaManagerMessage {
    let key: ResourceKey = pod.parse().unwrap();
    let report = PodStatusReport { uid: uid.into(), name: key.name.clone().unwrap(), status: raw(json!({"phase": phase})) };
    MetaManagerMessage::PodStatus { key, report }
}

fn query(key: &str) -> (MetaManagerMessage, tokio::sync::oneshot::Receiver<Found>) {
    let (reply, answer) = Reply::channel();
    (MetaManagerMessage::Query { key: key.parse().unwrap(), reply }, answer)
}

fn names(found: Found) -> Vec<String> {
    found.unwrap().into_iter().map(|object| object.key.to_string()).collect()
}

use ObjectOperation::{Delete, Insert, Update};

#[test]
fn an_object_is_stored_then_acknowledged_and_hinted() {
    let mut fixture = fixture();
    fixture.handle(vec![cloud(Insert, "default/pod/web", object("web", "u-1", "7"))]);
    let row = fixture.row("default/pod/web").unwrap();
    assert_eq!((row.uid.as_deref(), row.resource_version.as_deref(), row.stored_at), (Some("u-1"), Some("7"), Timestamp(1_000)));
    let sent = fixture.sent();
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].parent, Some(MsgId::new("m-1").unwrap()));
    assert_eq!(sent[0].body, Upstream::Ack { resource: Resource::Object("default/pod/web".parse().unwrap()) });
    assert_eq!(fixture.hints(), ["ObjectChanged default/pod/web"]);
}

#[test]
fn an_insert_of_a_known_key_replaces_and_the_version_of_the_header_wins() {
    let mut fixture = fixture();
    let mut second = cloud(Insert, "default/configmap/cfg", object("cfg", "u-2", "8"));
    if let MetaManagerMessage::FromCloud { resource_version, .. } = &mut second {
        *resource_version = Some("9".into());
    }
    fixture.handle(vec![cloud(Insert, "default/configmap/cfg", object("cfg", "u-1", "7")), second]);
    let row = fixture.row("default/configmap/cfg").unwrap();
    assert_eq!((row.uid.as_deref(), row.resource_version.as_deref()), (Some("u-2"), Some("9")));
    assert_eq!(fixture.sent().len(), 2);
}

#[test]
fn an_update_that_changes_nothing_is_neither_stored_nor_passed_on_but_answered() {
    let mut fixture = fixture();
    fixture.handle(vec![cloud(Insert, "default/pod/web", object("web", "u-1", "7"))]);
    fixture.hints();
    fixture.sent();
    fixture.module.config.clock = Arc::new(ManualClock::at(Timestamp(2_000)));
    fixture.handle(vec![cloud(Update, "default/pod/web", object("web", "u-1", "7"))]);
    assert_eq!(fixture.row("default/pod/web").unwrap().stored_at, Timestamp(1_000));
    assert!(fixture.hints().is_empty());
    assert!(matches!(fixture.sent().as_slice(), [Frame { body: Upstream::Ack { .. }, .. }]));
}

#[test]
fn a_delete_takes_the_pod_and_its_status_and_one_that_is_not_there_is_fine() {
    let mut fixture = fixture();
    fixture.handle(vec![cloud(Insert, "default/pod/web", object("web", "u-1", "7")), status("default/pod/web", "u-1", "Running")]);
    assert!(fixture.row("default/podstatus/web").is_some());
    fixture.sent();
    fixture.hints();
    fixture.handle(vec![cloud(Delete, "default/pod/web", object("web", "u-1", "8")), cloud(Delete, "default/secret/none", RawJson::null())]);
    assert!(fixture.row("default/pod/web").is_none() && fixture.row("default/podstatus/web").is_none());
    assert_eq!(fixture.hints(), ["ObjectDeleted default/pod/web", "ObjectDeleted default/secret/none"]);
    assert!(fixture.sent().iter().all(|frame| matches!(frame.body, Upstream::Ack { .. })));
}

#[test]
fn what_cannot_be_kept_is_refused_with_the_reason_and_its_neighbours_are_not() {
    let mut fixture = fixture();
    fixture.handle(vec![
        cloud(Update, "default/pod/web", RawJson::from_str_value("OK")),
        cloud(Update, "default/lease/l", object("l", "u", "1")),
        cloud(Update, "default/secret/s", object("s", "u", "1")),
    ]);
    let bodies: Vec<Upstream> = fixture.sent().into_iter().map(|frame| frame.body).collect();
    assert!(matches!(&bodies[0], Upstream::Refusal { reason, .. } if reason.contains("not an object")), "{bodies:?}");
    assert!(matches!(&bodies[1], Upstream::Refusal { reason, .. } if reason.contains("lease")), "{bodies:?}");
    assert!(matches!(&bodies[2], Upstream::Ack { .. }));
    assert!(fixture.row("default/pod/web").is_none() && fixture.row("default/secret/s").is_some());
}

#[test]
fn a_node_keeps_10000_objects_and_one_more_is_refused_while_those_it_has_go_on() {
    let mut fixture = fixture();
    let many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000) \
                INSERT INTO meta (key, type, value) SELECT 'default/configmap/c' || i, 'configmap', '{}' FROM n";
    tamper(&fixture.store, many);
    fixture.handle(vec![
        cloud(Update, "default/configmap/above", object("above", "u", "1")),
        cloud(Update, "default/configmap/c7", object("c7", "u", "2")),
        cloud(Delete, "default/configmap/c8", object("c8", "u", "1")),
        cloud(Update, "default/configmap/next", object("next", "u", "1")),
    ]);
    let bodies: Vec<Upstream> = fixture.sent().into_iter().map(|frame| frame.body).collect();
    assert!(matches!(&bodies[0], Upstream::Refusal { reason, .. } if reason.contains("at most 10000 objects")), "{bodies:?}");
    assert!(bodies[1..].iter().all(|body| matches!(body, Upstream::Ack { .. })), "{bodies:?}");
    assert!(fixture.row("default/configmap/above").is_none());
    assert_eq!(fixture.row("default/configmap/c7").unwrap().uid.as_deref(), Some("u"));
    assert!(fixture.row("default/configmap/next").is_some());
}

#[test]
fn a_status_is_stored_and_sent_once_and_only_for_the_pod_that_is_here() {
    let mut fixture = fixture();
    fixture.handle(vec![cloud(Insert, "ns/pod/web", object("web", "u-1", "7"))]);
    fixture.sent();
    fixture.handle(vec![status("ns/pod/web", "u-1", "Running"), status("ns/pod/web", "u-1", "Running")]);
    assert_eq!(fixture.reports().into_iter().map(|(_, ns, names)| (ns, names)).collect::<Vec<_>>(), [("ns".to_owned(), vec!["web".to_owned()])]);
    fixture.handle(vec![status("ns/pod/web", "u-0", "Failed"), status("ns/pod/none", "u-9", "Running"), status("ns/pod/web", "u-1", "Running")]);
    assert!(fixture.reports().is_empty());
    let stored = fixture.row("ns/podstatus/web").unwrap();
    assert_eq!(stored.value, r#"{"UID":"u-1","Name":"web","Status":{"phase":"Running"}}"#);
}

#[test]
fn a_new_pod_of_the_same_name_does_not_inherit_the_status() {
    let mut fixture = fixture();
    fixture.handle(vec![cloud(Insert, "default/pod/web", object("web", "u-1", "7")), status("default/pod/web", "u-1", "Failed")]);
    fixture.handle(vec![cloud(Insert, "default/pod/web", object("web", "u-2", "9"))]);
    assert!(fixture.row("default/podstatus/web").is_none());
}

#[test]
fn on_connect_every_status_is_sent_in_its_own_namespace_and_later_only_what_is_not_confirmed() {
    let mut fixture = fixture();
    fixture.handle(vec![MetaManagerMessage::NodeConnection { cloud: None }]);
    let pods = ["a/pod/x", "a/pod/y", "b/pod/z"];
    for pod in pods {
        let name = pod.rsplit('/').next().unwrap();
        fixture.handle(vec![cloud(Insert, pod, object(name, "u", "1")), status(pod, "u", "Running")]);
    }
    // Left over from a pod that went while nobody looked.
    fixture.handle(vec![cloud(Insert, "b/pod/gone", object("gone", "u", "1")), status("b/pod/gone", "u", "Running")]);
    fixture.store.write(&actor::Fence::unfenced(), |tx| meta::delete(tx, &"b/pod/gone".parse().unwrap())).unwrap();
    assert!(fixture.sent().iter().all(|frame| matches!(frame.body, Upstream::Ack { .. })), "offline nothing is sent");

    fixture.handle(vec![MetaManagerMessage::NodeConnection { cloud: session(false) }]);
    let reports = fixture.reports();
    let shown: Vec<(&str, Vec<&str>)> = reports.iter().map(|(_, ns, names)| (ns.as_str(), names.iter().map(String::as_str).collect())).collect();
    assert_eq!(shown, [("a", vec!["x", "y"]), ("b", vec!["z"])]);
    assert!(fixture.row("b/podstatus/gone").is_none());

    fixture.handle(vec![MetaManagerMessage::Confirmed { parent: reports[0].0.clone() }, MetaManagerMessage::SyncDue]);
    assert_eq!(fixture.reports().into_iter().map(|(_, ns, _)| ns).collect::<Vec<_>>(), ["b"]);
    fixture.handle(vec![status("a/pod/x", "u", "Succeeded")]);
    let again = fixture.reports();
    fixture.handle(vec![MetaManagerMessage::Refused { parent: again[0].0.clone(), reason: "no".into() }, MetaManagerMessage::SyncDue]);
    assert_eq!(fixture.reports().into_iter().map(|(_, ns, _)| ns).collect::<Vec<_>>(), ["b"]);
    // A new session starts from nothing.
    fixture.handle(vec![MetaManagerMessage::NodeConnection { cloud: session(false) }]);
    assert_eq!(fixture.reports().len(), 2);
}

#[test]
fn the_status_of_the_node_is_said_when_it_changes_until_it_is_confirmed_and_otherwise_rarely() {
    let mut fixture = fixture();
    let content = |ready: &str, heartbeat: u32| {
        raw(json!({"UID": "u", "Status": {"conditions": [{"type": "Ready", "status": ready, "lastHeartbeatTime": heartbeat.to_string()}]}}))
    };
    let say = |fixture: &mut Fixture, ready: &str, heartbeat: u32| {
        fixture.handle(vec![MetaManagerMessage::NodeStatus { content: content(ready, heartbeat) }]);
        fixture.sent().into_iter().map(|frame| frame.id).next()
    };
    fixture.handle(vec![MetaManagerMessage::NodeConnection { cloud: session(false) }]);
    let first = say(&mut fixture, "True", 1);
    let again = say(&mut fixture, "True", 2);
    assert!(first.is_some() && again.is_some(), "nobody has confirmed it");
    fixture.handle(vec![MetaManagerMessage::Confirmed { parent: first.unwrap() }]);
    let third = say(&mut fixture, "True", 3).expect("the confirmation of an earlier one is none of the last");
    fixture.handle(vec![MetaManagerMessage::Confirmed { parent: third }]);
    fixture.clock.advance(59_999);
    assert_eq!(say(&mut fixture, "True", 4), None, "the time of a heartbeat is no change");
    let changed = say(&mut fixture, "False", 5).expect("a change is said at once");
    fixture.handle(vec![MetaManagerMessage::Refused { parent: changed, reason: "no".into() }]);
    let changed = say(&mut fixture, "False", 6).expect("what is refused is not confirmed");
    fixture.handle(vec![MetaManagerMessage::Confirmed { parent: changed }]);
    assert_eq!(say(&mut fixture, "False", 7), None);
    fixture.clock.advance(60_000);
    let rare = say(&mut fixture, "False", 8).expect("rarely, all the same");
    fixture.handle(vec![MetaManagerMessage::Confirmed { parent: rare }, MetaManagerMessage::NodeConnection { cloud: session(false) }]);
    assert!(say(&mut fixture, "False", 9).is_some(), "a new session has heard nothing");
    fixture.handle(vec![MetaManagerMessage::NodeConnection { cloud: None }]);
    assert_eq!(say(&mut fixture, "True", 10), None);
}

fn session(digest: bool) -> Option<Session> {
    Some(Session { number: 7, capabilities: Capabilities { digest } })
}

/// Parts of the digest that was said last: each with the question that it answers, its number and what it names.
fn digest(frames: Vec<Frame<Upstream>>) -> Vec<(Option<MsgId>, HeldPart)> {
    let parts = frames.into_iter().filter_map(|frame| if let Upstream::Held(part) = frame.body { Some((frame.parent, part)) } else { None });
    parts.collect()
}

#[test]
fn a_cloud_that_takes_it_hears_on_connect_and_when_it_asks_what_is_held() {
    let mut fixture = fixture();
    fixture.handle(vec![
        cloud(Insert, "default/pod/web", object("web", "u-1", "7")),
        cloud(Insert, "default/configmap/cfg", object("cfg", "u-2", "8")),
        status("default/pod/web", "u-1", "Running"),
    ]);
    fixture.handle(vec![MetaManagerMessage::NodeConnection { cloud: session(false) }]);
    assert!(digest(fixture.sent()).is_empty(), "KubeEdge's cloud does not know what that is");

    // What came before in the same mailbox is part of it.
    let connected = MetaManagerMessage::NodeConnection { cloud: session(true) };
    fixture.handle(vec![cloud(Insert, "default/secret/tok", object("tok", "u-3", "9")), connected]);
    let parts = digest(fixture.sent());
    assert_eq!(parts.len(), 1);
    let (parent, HeldPart { part, last, objects }) = &parts[0];
    assert_eq!((parent, part, last), (&None, &0, &true));
    let named: Vec<String> =
        objects.iter().map(|held| format!("{} {:?} {:?}", held.resource, held.uid.as_deref(), held.resource_version.as_deref())).collect();
    assert_eq!(
        named,
        [r#"default/configmap/cfg Some("u-2") Some("8")"#, r#"default/pod/web Some("u-1") Some("7")"#, r#"default/secret/tok Some("u-3") Some("9")"#],
        "statuses are this node's own"
    );

    let question = MsgId::new("q").unwrap();
    fixture.handle(vec![MetaManagerMessage::HeldGet { id: question.clone(), session: 7 }]);
    assert_eq!(digest(fixture.sent())[0].0, Some(question));
}

#[test]
fn much_that_is_held_is_said_in_parts() {
    let mut fixture = fixture();
    let many = (0..=HELD_PART_MAX).map(|n| cloud(Insert, &format!("default/configmap/c{n}"), object(&format!("c{n}"), "u", "1")));
    fixture
        .store
        .write(&actor::Fence::unfenced(), |tx| {
            let lease = lease(many.collect::<Vec<_>>()).0;
            let part: Vec<_> = lease.iter().collect();
            super::state::apply(tx, &part, Timestamp(1), &mut Vec::new())
        })
        .unwrap();
    fixture.handle(vec![MetaManagerMessage::NodeConnection { cloud: session(true) }]);
    let parts: Vec<_> = digest(fixture.sent()).into_iter().map(|(_, part)| (part.part, part.last, part.objects.len())).collect();
    assert_eq!(parts, [(0, false, HELD_PART_MAX), (1, true, 1)]);
}

#[test]
fn a_query_answers_one_object_or_all_of_a_kind_in_a_namespace() {
    let mut fixture = fixture();
    fixture.handle(vec![
        cloud(Insert, "a/pod/x", object("x", "u", "1")),
        cloud(Insert, "b/pod/y", object("y", "u", "1")),
        cloud(Insert, "a/configmap/c", object("c", "u", "1")),
    ]);
    for (key, want) in [("a/pod", vec!["a/pod/x"]), ("b/pod/y", vec!["b/pod/y"]), ("b/pod/none", vec![]), ("a/configmap/c", vec!["a/configmap/c"])] {
        let (message, mut answer) = query(key);
        fixture.handle(vec![message]);
        assert_eq!(names(answer.try_recv().unwrap()), want, "{key}");
    }
    // In the same batch a question sees what was stored before it.
    let (message, mut answer) = query("a/pod/new");
    fixture.handle(vec![cloud(Insert, "a/pod/new", object("new", "u", "1")), message]);
    assert_eq!(names(answer.try_recv().unwrap()), ["a/pod/new"]);
}

#[actix_rt::test]
async fn a_secret_that_is_not_here_is_asked_from_the_cloud_stored_and_answered() {
    let mut fixture = fixture();
    let (message, answer) = query("default/secret/tok");
    fixture.handle(vec![message]);
    let asked = fixture.edge_hub.next(SOON).await.unwrap();
    let EdgeHubMessage::Request { frame, reply, .. } = &*asked else { panic!("not a request") };
    let key: ResourceKey = "default/secret/tok".parse().unwrap();
    assert_eq!(frame.body, Upstream::Query { key: key.clone() });
    let body = Downstream::QueryAnswer { key: key.clone(), result: Ok(object("tok", "u-3", "5")) };
    assert!(reply.send(Ok(Frame::answer(MsgId::random(), frame.id.clone(), Timestamp(2), body).with_resource_version("6"))));
    let back = fixture.own.next(SOON).await.unwrap();
    let MetaManagerMessage::RemoteAnswered { key, resource_version, answer: object, reply } = &*back else { panic!("not an answer") };
    let message = MetaManagerMessage::RemoteAnswered {
        key: key.clone(),
        resource_version: resource_version.clone(),
        answer: object.clone(),
        reply: reply.take(),
    };
    fixture.handle(vec![message]);
    assert_eq!(names(answer.await.unwrap()), ["default/secret/tok"]);
    assert_eq!(fixture.row("default/secret/tok").unwrap().resource_version.as_deref(), Some("6"));
    assert_eq!(fixture.hints(), ["ObjectChanged default/secret/tok"]);
    // From now on the store answers.
    let (message, mut answer) = query("default/secret/tok");
    fixture.handle(vec![message]);
    assert_eq!(names(answer.try_recv().unwrap()), ["default/secret/tok"]);
    assert!(fixture.edge_hub.try_next().is_none());
}

#[actix_rt::test]
async fn a_cloud_that_has_no_answer_is_an_error_and_offline_the_store_alone_answers() {
    let mut fixture = fixture();
    for (failure, want) in [(Err(RequestError::Disconnected), "the cloud was not reached"), (Ok("not found"), "the cloud has no answer: not found")] {
        let (message, answer) = query("default/configmap/none");
        fixture.handle(vec![message]);
        let asked = fixture.edge_hub.next(SOON).await.unwrap();
        let EdgeHubMessage::Request { frame, reply, .. } = &*asked else { panic!("not a request") };
        let key: ResourceKey = "default/configmap/none".parse().unwrap();
        let said = failure.map(|text| {
            let body = Downstream::QueryAnswer { key, result: Err(text.to_owned()) };
            Frame::answer(MsgId::random(), frame.id.clone(), Timestamp(2), body)
        });
        reply.send(said);
        let back = fixture.own.next(SOON).await.unwrap();
        let MetaManagerMessage::RemoteAnswered { key, answer: object, reply, .. } = &*back else { panic!("not an answer") };
        let message = MetaManagerMessage::RemoteAnswered { key: key.clone(), resource_version: None, answer: object.clone(), reply: reply.take() };
        fixture.handle(vec![message]);
        let error: QueryError = answer.await.unwrap().unwrap_err();
        assert!(error.to_string().starts_with(want), "{error}");
    }
    let (message, mut answer) = query("default/configmap/none");
    fixture.handle(vec![MetaManagerMessage::NodeConnection { cloud: None }, message]);
    assert_eq!(names(answer.try_recv().unwrap()), Vec::<String>::new());
}

/// Manual ch. 8.2 to 8.5: each operation from the cloud and from the edge, with the cloud there and away.
#[test]
fn each_operation_does_the_same_to_the_store_with_and_without_a_cloud_and_tells_whom_it_can() {
    for is_there in [true, false] {
        let mut fixture = fixture();
        fixture.handle(vec![MetaManagerMessage::NodeConnection { cloud: session(false).filter(|_| is_there) }]);
        fixture.sent();
        let kinds = |fixture: &Fixture| fixture.sent().iter().map(|frame| frame.body.kind()).collect::<Vec<_>>();
        let only_there = |kind| if is_there { vec![kind] } else { vec![] };

        // Insert, from the cloud; and from the edge, whose own Node is the one thing that it creates there.
        fixture.handle(vec![cloud(Insert, "default/pod/web", object("web", "u-1", "1"))]);
        assert!(fixture.row("default/pod/web").is_some());
        assert_eq!((kinds(&fixture), fixture.hints().len()), (vec!["ack"], 1), "what still came before the cut is acknowledged in vain");
        fixture.handle(vec![MetaManagerMessage::NodeRegister { object: raw(json!({"kind": "Node"})) }]);
        assert_eq!(kinds(&fixture), only_there("node_register"));

        // Update, from the cloud; and from the edge, of statuses.
        fixture.handle(vec![cloud(Update, "default/pod/web", object("web", "u-1", "2"))]);
        assert_eq!(fixture.row("default/pod/web").unwrap().resource_version.as_deref(), Some("2"));
        assert_eq!((kinds(&fixture), fixture.hints().len()), (vec!["ack"], 1));
        fixture.handle(vec![status("default/pod/web", "u-1", "Running")]);
        assert!(fixture.row("default/podstatus/web").is_some());
        assert_eq!((kinds(&fixture), fixture.hints().len()), (only_there("pod_status"), 0));
        fixture.handle(vec![MetaManagerMessage::NodeStatus { content: raw(json!({"UID": "x"})) }]);
        assert_eq!(kinds(&fixture), only_there("node_status"));

        // Query, from the edge: local, and of what only the cloud has; from the cloud: what is held.
        let (message, mut answer) = query("default/pod/web");
        fixture.handle(vec![message]);
        assert_eq!(names(answer.try_recv().unwrap()), ["default/pod/web"]);
        if !is_there {
            let (message, mut answer) = query("default/secret/none");
            fixture.handle(vec![message]);
            assert_eq!(names(answer.try_recv().unwrap()), Vec::<String>::new(), "the store alone answers, at once");
        }
        fixture.handle(vec![MetaManagerMessage::HeldGet { id: MsgId::new("q").unwrap(), session: 7 }]);
        assert_eq!(digest(fixture.sent())[0].1.objects.len(), 1);

        // Delete, from the cloud; at the edge only what is left over goes by itself.
        fixture.store.write(&actor::Fence::unfenced(), |tx| meta::delete(tx, &"default/pod/web".parse().unwrap())).unwrap();
        fixture.handle(vec![MetaManagerMessage::SyncDue]);
        assert!(fixture.row("default/podstatus/web").is_none());
        fixture
            .handle(vec![cloud(Insert, "default/pod/web", object("web", "u-1", "3")), cloud(Delete, "default/pod/web", object("web", "u-1", "3"))]);
        assert!(fixture.row("default/pod/web").is_none());
        assert_eq!((kinds(&fixture), fixture.hints().len()), (vec!["ack", "ack"], 2));
    }
}

#[test]
fn the_nodes_messages_go_out_while_the_cloud_is_there() {
    let mut fixture = fixture();
    let messages = || {
        vec![
            MetaManagerMessage::NodeRegister { object: raw(json!({"kind": "Node"})) },
            MetaManagerMessage::NodeStatus { content: raw(json!({"UID": "x"})) },
        ]
    };
    fixture.handle(messages());
    let kinds: Vec<&str> = fixture.sent().iter().map(|frame| frame.body.kind()).collect();
    assert_eq!(kinds, ["node_register", "node_status"]);
    fixture.handle(vec![MetaManagerMessage::NodeConnection { cloud: None }]);
    fixture.handle(messages());
    assert!(fixture.sent().is_empty());
}

#[test]
fn a_refused_registration_is_told_to_edged_and_a_late_object_is_kept() {
    let mut fixture = fixture();
    let late = |key: &str, answer| MetaManagerMessage::LateAnswer { key: key.parse().unwrap(), resource_version: None, answer };
    fixture.handle(vec![
        late("default/node/n1", Err("nodes are not created here".into())),
        late("default/node/n1", Ok(object("n1", "u", "1"))),
        late("default/secret/tok", Ok(object("tok", "u", "1"))),
    ]);
    assert_eq!(fixture.hints(), ["ObjectChanged default/secret/tok", "RegistrationRefused: nodes are not created here"]);
    assert!(fixture.row("default/node/n1").is_none() && fixture.row("default/secret/tok").is_some());
}

#[test]
fn without_room_at_a_peer_nothing_is_stored_and_the_messages_wait() {
    let mut fixture = fixture_with_room(1);
    let messages = vec![cloud(Insert, "default/pod/a", object("a", "u", "1")), cloud(Insert, "default/pod/b", object("b", "u", "1"))];
    let rest = fixture.handle(messages);
    assert!(fixture.row("default/pod/a").is_some() && fixture.row("default/pod/b").is_none());
    assert_eq!(rest.drain().len(), 1, "the second waits");
    let rest = fixture.handle(vec![cloud(Insert, "default/pod/c", object("c", "u", "1"))]);
    assert!(fixture.row("default/pod/c").is_none());
    assert_eq!(rest.drain().len(), 1);
}

#[test]
fn what_was_acknowledged_is_there_after_a_restart() {
    let mut fixture = fixture();
    fixture.handle(vec![cloud(Insert, "default/pod/web", object("web", "u-1", "7"))]);
    let Fixture { module, store, dir, .. } = fixture;
    drop((module, store));
    let again = Store::open(dir.path().join("edge.db")).unwrap();
    let rows = again.read(|read| meta::list(read, ResourceKind::Pod, None)).unwrap();
    assert_eq!(rows.len(), 1);
}

#[test]
fn a_status_that_could_not_be_stored_is_told_to_nobody_but_edged_which_says_it_again() {
    let mut fixture = fixture();
    fixture.handle(vec![cloud(ObjectOperation::Insert, "default/pod/web", object("web", "u-1", "1"))]);
    drop((fixture.hints(), fixture.sent()));
    tamper(&fixture.store, "CREATE TRIGGER sabotage BEFORE INSERT ON meta WHEN NEW.type = 'podstatus' BEGIN SELECT RAISE(ABORT, 'no'); END");
    fixture.handle(vec![status("default/pod/web", "u-1", "Succeeded")]);
    assert_eq!((fixture.hints(), fixture.reports().len()), (vec!["StatusLost u-1".to_owned()], 0));
    tamper(&fixture.store, "DROP TRIGGER sabotage");
    fixture.handle(vec![status("default/pod/web", "u-1", "Succeeded")]);
    assert_eq!((fixture.hints(), fixture.reports().len()), (vec![], 1));
}
