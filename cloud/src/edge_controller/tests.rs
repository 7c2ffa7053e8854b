//! Both halves against the embedded API.

#![allow(clippy::unwrap_used, missing_docs)] // a failed step is the test's failure

use std::cell::Cell;

use model::{Namespace, ObjectName, ResourceKey};
use serde_json::{Value, json};
use wire::RawJson;
use wire::hub::{Downstream as Body, Frame, ObjectOperation, OutboxKey, PodStatusReport, Upstream as Said};

use super::downstream::DownstreamMessage;
use super::resource::node::EDGE_LABEL;
use super::upstream::UpstreamMessage;
use super::upstream::state::Snapshot;
use crate::cluster::{self, Part};
use crate::standing::Standing;
use crate::testing::{World, node, said};

fn raw(value: Value) -> RawJson {
    RawJson::from_value(&value).unwrap()
}

fn register(named: &str) -> Frame<Said> {
    let object = raw(json!({"metadata": {"name": named, "labels": {"zone": "hall"}}, "status": {"nodeInfo": {"architecture": "amd64"}}}));
    said(Said::NodeRegister { namespace: Namespace::default(), node: node(named), object })
}

fn pod_status(name: &str, uid: &str, status: Value) -> Frame<Said> {
    let report = PodStatusReport { uid: uid.into(), name: ObjectName::new(name).unwrap(), status: raw(status) };
    said(Said::PodStatus { namespace: Namespace::default(), reports: vec![report] })
}

/// What a node says of a pod of `default`, or of a node when there is no uid.
fn event(name: &str, about: (&str, &str), count: i64) -> Frame<Said> {
    let (named, uid) = about;
    let involved = if uid.is_empty() {
        json!({"kind": "Node", "name": named, "uid": named})
    } else {
        json!({"kind": "Pod", "namespace": "default", "name": named, "uid": uid})
    };
    let object = raw(json!({
        "metadata": {"name": name, "namespace": "default"}, "involvedObject": involved, "reason": "BackOff", "type": "Warning",
        "message": format!("for the {count}. time"), "source": {"component": "skep-edge", "host": "n1"}, "reportingComponent": "skep-edge",
        "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": format!("2026-01-01T00:0{count}:00Z"), "count": count,
    }));
    said(Said::Event { namespace: Namespace::default(), name: ObjectName::new(name).unwrap(), is_update: count > 1, object })
}

fn key(text: &str) -> ResourceKey {
    text.parse().unwrap()
}

fn pod(name: &str, on: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"},
        "spec": {"nodeName": on, "containers": [{"name": "c", "image": "i", "envFrom": [{"secretRef": {"name": "tok"}}]}],
            "volumes": [{"name": "v", "configMap": {"name": "cfg"}}]}})
}

impl World {
    fn says(&self, name: &str, frame: &Frame<Said>) {
        assert!(self.upstream.try_send(UpstreamMessage::FromEdge { node: node(name), frame: frame.clone(), credit: Default::default() }).is_ok());
    }

    async fn ask(&self, name: &str, frame: &Frame<Said>) -> Body {
        self.says(name, frame);
        self.answer(name, frame).await
    }

    async fn config(&self) {
        self.create(
            &cluster::CONFIG_MAP,
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cfg", "namespace": "default"}, "data": {"k": "1"}}),
        )
        .await;
        self.create(
            &cluster::SECRET,
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "tok", "namespace": "default"}, "data": {"k": "dg=="}}),
        )
        .await;
        self.seen("configmap", 1).await;
        self.seen("secret", 1).await;
    }
}

#[actix_rt::test]
async fn a_pod_reaches_its_node_after_what_it_needs_and_its_life_comes_back() {
    let world = World::start().await;
    world.config().await;
    let answer = world.ask("n1", &register("n1")).await;
    let Body::QueryAnswer { result: Ok(stored), .. } = answer else { panic!("{answer:?}") };
    assert_eq!(stored.to::<Value>().unwrap()["metadata"]["labels"], json!({"zone": "hall", EDGE_LABEL: ""}));

    let created = world.create(&cluster::POD, pod("web", "n1")).await;
    let uid = created["metadata"]["uid"].as_str().unwrap();
    let mut sent = Vec::new();
    for _ in 0..3 {
        let (to, key, frame) = world.next_send().await;
        let Body::Object { operation, object, .. } = frame.body else { panic!("{frame:?}") };
        assert!(frame.resource_version.is_some());
        sent.push((to, key, operation, object));
    }
    let order: Vec<_> = sent.iter().map(|(to, key, operation, _)| (to.as_str(), key.clone(), *operation)).collect();
    assert_eq!(
        order,
        [
            ("n1", OutboxKey::Object(key("default/configmap/cfg")), ObjectOperation::Insert),
            ("n1", OutboxKey::Object(key("default/secret/tok")), ObjectOperation::Update),
            ("n1", OutboxKey::Object(key("default/pod/web")), ObjectOperation::Insert),
        ]
    );
    assert_eq!(sent[2].3.to::<Value>().unwrap()["metadata"]["uid"], uid);

    let running = json!({"phase": "Running", "podIP": "10.9.0.2", "hostIP": "10.0.0.2", "conditions": [{"type": "Ready", "status": "True"}],
        "containerStatuses": [{"name": "c", "ready": true, "restartCount": 0, "image": "i", "imageID": "", "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}]});
    let answer = world.ask("n1", &pod_status("web", uid, running)).await;
    assert!(matches!(answer, Body::Confirm { .. }), "{answer:?}");
    let stored = world.cluster.get(&cluster::POD, Some("default"), "web").await.unwrap();
    assert_eq!((&stored["status"]["phase"], &stored["status"]["podIP"]), (&json!("Running"), &json!("10.9.0.2")));

    // Graceful deletion: the edge hears of it, ends the containers, and only then the object goes.
    world.cluster.patch(&cluster::CONFIG_MAP, Some("default"), "cfg", Part::Main, &json!({"data": {"k": "2"}})).await.unwrap();
    world
        .told(
            "n1",
            |frame| matches!(&frame.body, Body::Object { operation: ObjectOperation::Update, key, .. } if key.to_string() == "default/configmap/cfg"),
        )
        .await;
    world.delete_gracefully("web").await;
    let update = world.told("n1", |frame| matches!(&frame.body, Body::Object { operation: ObjectOperation::Update, .. })).await;
    let Body::Object { object, .. } = update.body else { panic!() };
    assert!(object.to::<Value>().unwrap()["metadata"]["deletionTimestamp"].is_string());
    let ended = json!({"phase": "Succeeded", "containerStatuses": [{"name": "c", "ready": false, "restartCount": 0, "image": "i", "imageID": "",
        "state": {"terminated": {"exitCode": 0}}}]});
    let report = pod_status("web", uid, ended);
    world.says("n1", &report);
    // The confirmation and what the watch sees come in either order.
    let (mut confirmed, mut gone) = (false, Vec::new());
    while !confirmed || gone.len() < 3 {
        let frame = world.told("n1", |_| true).await;
        match frame.body {
            Body::Confirm { .. } => confirmed = frame.parent == Some(report.id.clone()),
            Body::Object { operation: ObjectOperation::Delete, key, .. } => gone.push(key.to_string()),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(gone, ["default/pod/web", "default/configmap/cfg", "default/secret/tok"]);
    world.until(&cluster::POD, Some("default"), "web", Value::is_null).await;
    world.stop().await;
}

impl World {
    async fn delete_gracefully(&self, name: &str) {
        let api: kube::Api<kube::api::DynamicObject> = kube::Api::namespaced_with(self.cluster.client(), "default", &cluster::POD.resource());
        api.delete(name, &kube::api::DeleteParams::default()).await.unwrap();
    }
}

#[actix_rt::test]
async fn a_pod_that_the_api_does_not_have_has_to_go_at_the_edge() {
    let world = World::start().await;
    world.ask("n1", &register("n1")).await;
    let report = pod_status("ghost", "u-1", json!({"phase": "Running"}));
    world.says("n1", &report);
    // Two actors say so, in either order.
    let (deleted, confirmed) = (Cell::new(false), Cell::new(false));
    let both = |frame: &Frame<Body>| {
        match &frame.body {
            Body::Object { operation: ObjectOperation::Delete, key, .. } => deleted.set(deleted.get() || key.to_string() == "default/pod/ghost"),
            Body::Confirm { .. } => confirmed.set(confirmed.get() || frame.parent.as_ref() == Some(&report.id)),
            _ => {}
        }
        deleted.get() && confirmed.get()
    };
    world.told("n1", both).await;
    world.stop().await;
}

#[actix_rt::test]
async fn a_pod_made_anew_under_its_name_is_sent_again_and_keeps_its_status() {
    let world = World::start().await;
    world.ask("n1", &register("n1")).await;
    world.create(&cluster::POD, pod("web", "n1")).await;
    // As CloudHub says it: what came before everything was listed is sent then.
    assert!(world.downstream.try_send(DownstreamMessage::NodeLacks { node: node("n1"), held: wire::link::Held::default() }).is_ok());
    let is_web = |frame: &Frame<Body>| matches!(&frame.body, Body::Object { operation, key, .. } if key.to_string() == "default/pod/web" && *operation != ObjectOperation::Delete);
    world.told("n1", is_web).await;
    let report = pod_status("web", "an-older-uid", json!({"phase": "Failed"}));
    world.says("n1", &report);
    world.told("n1", is_web).await;
    let stored = world.cluster.get(&cluster::POD, Some("default"), "web").await.unwrap();
    assert_ne!(stored["status"]["phase"], "Failed");
    world.stop().await;
}

#[actix_rt::test]
async fn a_node_writes_its_own_node_and_pods_only() {
    let world = World::start().await;
    world.ask("n1", &register("n1")).await;
    world.ask("n2", &register("n2")).await;
    let created = world.create(&cluster::POD, pod("web", "n1")).await;
    let uid = created["metadata"]["uid"].as_str().unwrap();
    let content = raw(json!({"UID": "x", "Status": {"phase": "Evil"}}));
    for frame in [
        register("n1"),
        said(Said::NodeStatus { namespace: Namespace::default(), node: node("n1"), content }),
        pod_status("web", uid, json!({"phase": "Failed"})),
    ] {
        let answer = world.ask("n2", &frame).await;
        assert!(matches!(answer, Body::Refusal { .. }), "{answer:?}");
    }
    let stored = world.cluster.get(&cluster::POD, Some("default"), "web").await.unwrap();
    assert_ne!(stored["status"]["phase"], "Failed");
    assert_ne!(world.cluster.get(&cluster::NODE, None, "n1").await.unwrap()["status"]["phase"], "Evil");
    world.stop().await;
}

#[actix_rt::test]
async fn a_status_that_could_not_be_merged_is_refused_and_the_next_one_is_written() {
    let world = World::start().await;
    world.ask("n1", &register("n1")).await;
    let uid = world.create(&cluster::POD, pod("web", "n1")).await["metadata"]["uid"].as_str().unwrap().to_owned();
    let many: Vec<Value> = (0..20_000).map(|n| json!({"type": format!("x{n}"), "status": "True"})).collect();
    let of_node = |status: Value| {
        let content = raw(json!({"UID": "n1", "Status": status}));
        said(Said::NodeStatus { namespace: Namespace::default(), node: node("n1"), content })
    };
    let large = json!({"phase": "Running", "message": "x".repeat(1 << 20)});
    for (frame, why) in [
        (of_node(json!({"conditions": many})), "at most 64 conditions"),
        (pod_status("web", &uid, json!({"phase": "Running", "conditions": many})), "at most 64 conditions"),
        (pod_status("web", &uid, large), "at most 1048576 bytes"),
    ] {
        let answer = world.ask("n1", &frame).await;
        assert!(matches!(&answer, Body::Refusal { reason, .. } if reason.contains(why)), "{answer:?}");
    }
    let fine = json!({"phase": "Running", "conditions": &many[..64]});
    assert!(matches!(world.ask("n1", &pod_status("web", &uid, fine)).await, Body::Confirm { .. }));
    assert!(matches!(world.ask("n1", &of_node(json!({"conditions": &many[..64]}))).await, Body::Confirm { .. }));
    world.stop().await;
}

#[actix_rt::test]
async fn an_event_is_created_counts_up_and_is_found_as_kubectl_describe_looks_for_it() {
    let world = World::start().await;
    world.ask("n1", &register("n1")).await;
    let created = world.create(&cluster::POD, pod("web", "n1")).await;
    let uid = created["metadata"]["uid"].as_str().unwrap();
    for count in [1, 2, 2, 1, 4] {
        let answer = world.ask("n1", &event("web.17", ("web", uid), count)).await;
        assert!(matches!(answer, Body::Confirm { .. }), "{answer:?}");
    }
    // One that begins as an update: the cloud never heard of the first, or has forgotten it after an hour.
    assert!(matches!(world.ask("n1", &event("n1.17", ("n1", ""), 7)).await, Body::Confirm { .. }));
    let api: kube::Api<kube::api::DynamicObject> = kube::Api::namespaced_with(world.cluster.client(), "default", &cluster::EVENT.resource());
    for (fields, name, count) in [
        (format!("involvedObject.name=web,involvedObject.namespace=default,involvedObject.uid={uid},involvedObject.kind=Pod"), "web.17", 4),
        ("involvedObject.kind=Node,involvedObject.name=n1,involvedObject.uid=n1".to_owned(), "n1.17", 7),
    ] {
        let found = api.list(&kube::api::ListParams::default().fields(&fields)).await.unwrap().items;
        let [one] = found.as_slice() else { panic!("{fields}: {found:?}") };
        assert_eq!((one.metadata.name.as_deref(), &one.data["count"], &one.data["source"]["host"]), (Some(name), &json!(count), &json!("n1")));
        assert_eq!(one.data["lastTimestamp"], format!("2026-01-01T00:0{count}:00Z"));
    }
    world.stop().await;
}

#[actix_rt::test]
async fn a_node_writes_events_of_its_own_things_only_and_over_its_own_events_only() {
    let world = World::start().await;
    for name in ["n1", "n2"] {
        world.ask(name, &register(name)).await;
    }
    let (web, db) = (world.create(&cluster::POD, pod("web", "n1")).await, world.create(&cluster::POD, pod("db", "n2")).await);
    let uid = |pod: &Value| pod["metadata"]["uid"].as_str().unwrap().to_owned();
    let (web, db) = (uid(&web), uid(&db));
    assert!(matches!(world.ask("n1", &event("web.17", ("web", &web), 1)).await, Body::Confirm { .. }));
    for (frame, why) in [
        (event("web.18", ("web", &web), 1), "not bound to node `n2`"),
        (event("n1.17", ("n1", ""), 1), "may not report Events of node `n1`"),
        // In the name of its own pod over the Event of another's.
        (event("web.17", ("db", &db), 9), "is not this one"),
    ] {
        let answer = world.ask("n2", &frame).await;
        assert!(matches!(&answer, Body::Refusal { reason, .. } if reason.contains(why)), "{answer:?}");
    }
    // Of a pod that is gone: settled, and not written.
    for frame in [event("ghost.1", ("ghost", "u-1"), 1), event("web.19", ("web", "an-older-uid"), 1)] {
        assert!(matches!(world.ask("n1", &frame).await, Body::Confirm { .. }));
    }
    for name in ["web.18", "web.19", "n1.17", "ghost.1"] {
        assert!(world.cluster.get(&cluster::EVENT, Some("default"), name).await.is_err(), "{name}");
    }
    assert_eq!(world.cluster.get(&cluster::EVENT, Some("default"), "web.17").await.unwrap()["count"], 1);
    let told = Snapshot::of(&world.said, &Standing::default());
    assert_eq!((told.events_written, told.events_moot, told.events_dropped), (1, 2, 3));
    world.stop().await;
}

#[actix_rt::test]
async fn a_node_reads_what_its_pods_name_and_hears_why_it_gets_nothing() {
    let world = World::start().await;
    world.config().await;
    world
        .create(&cluster::SECRET, json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "foreign", "namespace": "default"}, "data": {}}))
        .await;
    world.ask("n1", &register("n1")).await;
    let mut with_missing = pod("web", "n1");
    with_missing["spec"]["volumes"] = json!([{"name": "w", "configMap": {"name": "missing", "optional": true}}]);
    world.create(&cluster::POD, with_missing).await;
    world.told("n1", |frame| matches!(&frame.body, Body::Object { key, .. } if key.to_string() == "default/pod/web")).await;
    let query = |text: &str| said(Said::Query { key: key(text) });
    let Body::QueryAnswer { result: Ok(secret), .. } = world.ask("n1", &query("default/secret/tok")).await else { panic!() };
    assert_eq!(secret.to::<Value>().unwrap()["data"]["k"], "dg==");
    for (text, why) in [
        ("default/secret/foreign", "not for node"),
        ("kube-system/secret/tok", "not for node"),
        ("default/configmap/missing", "not found"),
        ("default/node/n2", "not for node"),
        ("default/lease/n1", "not for node"),
    ] {
        let answer = world.ask("n1", &query(text)).await;
        assert!(matches!(&answer, Body::QueryAnswer { result: Err(reason), .. } if reason.contains(why)), "{text}: {answer:?}");
    }
    assert!(matches!(world.ask("n1", &query("default/node/n1")).await, Body::QueryAnswer { result: Ok(_), .. }));
    assert!(matches!(world.ask("n2", &query("default/pod/web")).await, Body::QueryAnswer { result: Err(_), .. }));
    assert!(matches!(world.ask("n1", &query("default/secret")).await, Body::Refusal { .. }));
    world.stop().await;
}

#[actix_rt::test]
async fn a_node_status_is_written_and_several_at_once_are_all_answered() {
    let world = World::start().await;
    let status = |ready: &str| {
        let content = raw(
            json!({"UID": "x", "Status": {"capacity": {"cpu": "4"}, "conditions": [{"type": "Ready", "status": ready, "reason": "R", "message": "m"}]}}),
        );
        said(Said::NodeStatus { namespace: Namespace::default(), node: node("n1"), content })
    };
    let answer = world.ask("n1", &status("True")).await;
    assert!(matches!(&answer, Body::Refusal { reason, .. } if reason.contains("register")), "{answer:?}");
    world.ask("n1", &register("n1")).await;
    let frames = [status("False"), status("Unknown"), status("True")];
    frames.iter().for_each(|frame| world.says("n1", frame));
    let mut answered = Vec::new();
    while answered.len() < frames.len() {
        let answer = world.told("n1", |frame| matches!(frame.body, Body::Confirm { .. })).await;
        answered.push(answer.parent.unwrap());
    }
    assert!(frames.iter().all(|frame| answered.contains(&frame.id)));
    let stored = world.cluster.get(&cluster::NODE, None, "n1").await.unwrap();
    assert_eq!((&stored["status"]["conditions"][0]["status"], &stored["status"]["capacity"]["cpu"]), (&json!("True"), &json!("4")));
    world.stop().await;
}

#[actix_rt::test]
async fn the_lease_of_a_connected_node_is_made_and_belongs_to_it() {
    let world = World::start().await;
    let frame = register("n1");
    assert!(world.upstream.try_send(UpstreamMessage::NodeConnected { node: node("n1") }).is_ok());
    world.ask("n1", &frame).await;
    let lease = world.until(&cluster::LEASE, Some("kube-node-lease"), "n1", |lease| !lease.is_null()).await;
    assert_eq!((&lease["spec"]["leaseDurationSeconds"], &lease["spec"]["holderIdentity"]), (&json!(40), &json!("n1")));
    assert_eq!(lease["metadata"]["ownerReferences"][0]["kind"], "Node");
    world.stop().await;
}

#[actix_rt::test]
async fn while_the_api_is_away_nothing_is_confirmed_and_after_it_everything_goes_on() {
    let mut world = World::start().await;
    world.config().await;
    world.ask("n1", &register("n1")).await;
    let created = world.create(&cluster::POD, pod("web", "n1")).await;
    let uid = created["metadata"]["uid"].as_str().unwrap().to_owned();
    world.told("n1", |frame| matches!(&frame.body, Body::Object { key, .. } if key.to_string() == "default/pod/web")).await;

    world.stop_api().await;
    let report = pod_status("web", &uid, json!({"phase": "Running"}));
    world.says("n1", &report);
    let happened = event("web.17", ("web", &uid), 1);
    world.says("n1", &happened);
    // The next message is looked at after the first, so its refusal shows that the first stayed unanswered.
    let refused = said(Said::Query { key: key("default/secret") });
    world.says("n1", &refused);
    let first = world.told("n1", |frame| frame.parent.is_some()).await;
    assert_eq!(first.parent.as_ref(), Some(&refused.id));

    world.restart_api().await;
    assert!(matches!(world.ask("n1", &report).await, Body::Confirm { .. }), "the edge repeats it");
    assert!(matches!(world.ask("n1", &happened).await, Body::Confirm { .. }), "the edge repeats it");
    world.cluster.patch(&cluster::CONFIG_MAP, Some("default"), "cfg", Part::Main, &json!({"data": {"k": "2"}})).await.unwrap();
    world.told("n1", |frame| matches!(&frame.body, Body::Object { key, object, .. } if key.to_string() == "default/configmap/cfg" && object.as_str().contains("\"2\""))).await;
    world.stop().await;
}

#[actix_rt::test]
async fn a_downstream_half_that_died_tells_a_connecting_node_everything_again() {
    let world = World::start().await;
    world.config().await;
    world.ask("n1", &register("n1")).await;
    world.create(&cluster::POD, pod("web", "n1")).await;
    let is_web = |frame: &Frame<Body>| matches!(&frame.body, Body::Object { key, .. } if key.to_string() == "default/pod/web");
    world.told("n1", is_web).await;
    world.running.restart("downstream").await.unwrap();
    assert!(world.downstream.try_send(DownstreamMessage::NodeLacks { node: node("n1"), held: wire::link::Held::default() }).is_ok());
    world.told("n1", |frame| matches!(&frame.body, Body::Object { key, .. } if key.to_string() == "default/configmap/cfg")).await;
    world.told("n1", is_web).await;
    world.stop().await;
}
