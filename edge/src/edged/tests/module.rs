//! The module with MetaManager, a real store and a real engine; the cloud is a probe in EdgeHub's place.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actor::testing::Probe;
use actor::{ChildSpec, Handle, Policy, Running, Supervisor, eventually, mailbox};
use model::{Clock, Namespace, NodeName, SystemClock, Timestamp};
use serde_json::{Value, json};
use wire::hub::{Downstream, Frame, MsgId, ObjectOperation, RawJson, Upstream};

use super::super::container::Surroundings;
use super::super::env::Capacity;
use super::super::node::{self, Address, Machine, Origin};
use super::super::runtime::docker::DockerRuntime;
use super::super::runtime::testing::{Engine, engine, free_port};
use super::super::runtime::{ContainerRuntime, label};
use super::super::{Config, Edged, EdgedMessage, Peers, Shared, housekeeping, read_only, watch};
use crate::edge_hub::EdgeHubMessage;
use crate::meta_manager::{self, MetaManager, MetaManagerMessage};
use crate::store::Store;

const SOON: Duration = Duration::from_secs(60);

/// One edge: its modules run until it is stopped; engine and directory stay.
pub(super) struct Edge {
    meta: Handle<MetaManagerMessage>,
    pub(super) edged: Handle<EdgedMessage>,
    cloud: Probe<EdgeHubMessage>,
    store: Store,
    running: Running,
    watch: actix_rt::task::JoinHandle<()>,
    told: RefCell<Told>,
    /// Where a look finds the machine.
    found: Arc<Mutex<Address>>,
}

fn routed(ip: [u8; 4]) -> Address {
    Address { ip: ip.into(), origin: Origin::Route }
}

#[derive(Default)]
struct Told {
    pods: BTreeMap<String, Vec<Value>>,
    nodes: Vec<Value>,
    registrations: Vec<Value>,
    asked: Vec<String>,
    events: Vec<Value>,
}

/// What an edge stands on.
pub(super) struct Ground {
    /// What waits for a time waits for this one's.
    pub(super) clock: Arc<dyn Clock>,
    /// The machine's; nobody answers there, but a test that needs it says another.
    pub(super) address: [u8; 4],
    /// See [`Surroundings::pids`].
    pub(super) pids: Option<u64>,
    /// What is kept and cleared.
    pub(super) settings: housekeeping::Settings,
}

impl Default for Ground {
    fn default() -> Self {
        Self { clock: Arc::new(SystemClock), address: [10, 1, 2, 3], pids: None, settings: housekeeping::Settings::default() }
    }
}

pub(super) fn start(engine: &Engine, dir: &Path, socket: &str) -> Edge {
    start_on(engine, dir, socket, Ground::default())
}

/// With another clock.
pub(super) fn start_at(engine: &Engine, dir: &Path, socket: &str, clock: Arc<dyn Clock>) -> Edge {
    start_on(engine, dir, socket, Ground { clock, ..Ground::default() })
}

pub(super) fn start_on(engine: &Engine, dir: &Path, socket: &str, ground: Ground) -> Edge {
    let node = NodeName::new(&engine.node).unwrap();
    let store = Store::open(dir.join("edge.db")).unwrap();
    let (meta, edged) = (mailbox("metaManager", 256), mailbox("edged", 256));
    let cloud = Probe::new("websocket", 256);
    let runtime: Arc<dyn ContainerRuntime> = Arc::new(DockerRuntime::new(socket).unwrap());
    let machine = Machine { cpus: 2, memory_mib: 1024, address: routed(ground.address), ..Machine::default() };
    let found = Arc::new(Mutex::new(machine.address));
    let finds = found.clone();
    let shared = Shared::with_clock(runtime.clone(), edged.clone(), &node, machine.address, dir, ground.clock).unwrap();
    let shared = shared.found_by(move |_| *finds.lock().unwrap());
    let surroundings = Surroundings { pids: ground.pids, ..Surroundings::default() };
    let shared = shared.on(surroundings, Capacity { cpu_nano: 2_000_000_000, memory: 1 << 30 });
    let shared = Arc::new(shared.with(node::Settings::default(), ground.settings));
    let meta_peers = meta_manager::Peers { edge_hub: cloud.handle(), edged: Some(edged.clone()), own: meta.clone() };
    let meta_config = meta_manager::Config::new(node.clone(), Namespace::new("default").unwrap(), Duration::from_secs(60));
    let edged_peers = Peers { meta_manager: meta.clone(), own: edged.clone() };
    let edged_config = Config { node: node.clone(), version: "test".into(), status_interval: Duration::from_secs(1) };
    let (store_a, store_b) = (store.clone(), store.clone());
    let running = Supervisor::new("edge", Policy::default())
        .child(ChildSpec::new(&meta, move || MetaManager::new(store_a.clone(), meta_config.clone(), meta_peers.clone())).batch(64))
        .child(ChildSpec::new(&edged, move || {
            Edged::new(store_b.clone(), shared.clone(), machine.clone(), edged_config.clone(), edged_peers.clone())
        }))
        .start(|why| panic!("{why}"));
    let watch = actix_rt::spawn(watch(runtime, node, edged.clone()));
    Edge { meta, edged, cloud, store, running, watch, told: RefCell::default(), found }
}

pub(super) const SOCKET: &str = "unix:///var/run/docker.sock";

impl Edge {
    async fn say(&self, operation: ObjectOperation, kind: &str, object: &Value) {
        let (namespace, name) = (object["metadata"]["namespace"].as_str().unwrap_or("default"), object["metadata"]["name"].as_str().unwrap());
        let key = format!("{namespace}/{kind}/{name}").parse().unwrap();
        let object = RawJson::from_value(object).unwrap();
        let message = MetaManagerMessage::FromCloud { id: MsgId::random(), operation, key, resource_version: None, object };
        self.meta.send(message).await.unwrap();
    }

    pub(super) async fn apply(&self, kind: &str, object: &Value) {
        self.say(ObjectOperation::Update, kind, object).await;
    }

    pub(super) async fn delete(&self, kind: &str, object: &Value) {
        self.say(ObjectOperation::Delete, kind, object).await;
    }

    /// Reads what the edge told since the last look; answers questions for objects from `answers`.
    fn listen(&self) {
        let mut told = self.told.borrow_mut();
        for message in self.cloud.drain() {
            match &*message {
                EdgeHubMessage::Send(frame) => match &frame.body {
                    Upstream::PodStatus { reports, .. } => {
                        for report in reports {
                            told.pods.entry(report.name.to_string()).or_default().push(report.status.to().unwrap());
                        }
                    }
                    Upstream::Event { object, .. } => {
                        told.events.push(object.to().unwrap());
                        // Only so many are on their way at a time.
                        let _ = self.meta.try_send(MetaManagerMessage::Confirmed { parent: frame.id.clone() });
                    }
                    Upstream::NodeStatus { content, .. } => told.nodes.push(content.to().unwrap()),
                    Upstream::NodeRegister { object, .. } => told.registrations.push(object.to().unwrap()),
                    _ => {}
                },
                EdgeHubMessage::Request { frame, reply, .. } => {
                    let Upstream::Query { key } = &frame.body else { panic!("an unknown question") };
                    told.asked.push(key.to_string());
                    let object = json!({"metadata": {"name": key.name.as_ref().unwrap().as_str(), "uid": "s-1"}, "data": {"token": "aHVudGVyMg=="}});
                    let body = Downstream::QueryAnswer { key: key.clone(), result: Ok(RawJson::from_value(&object).unwrap()) };
                    reply.send(Ok(Frame::answer(MsgId::random(), frame.id.clone(), Timestamp(1), body)));
                }
                _ => {}
            }
        }
    }

    /// All statuses of a pod so far, in order.
    pub(super) fn statuses(&self, pod: &str) -> Vec<Value> {
        self.listen();
        self.told.borrow().pods.get(pod).cloned().unwrap_or_default()
    }

    /// The last status of a pod; null before the first.
    pub(super) fn status(&self, pod: &str) -> Value {
        self.statuses(pod).pop().unwrap_or_default()
    }

    /// Reasons of the Events about a pod so far.
    pub(super) fn reasons(&self, pod: &str) -> Vec<String> {
        self.listen();
        let told = self.told.borrow();
        let of_pod = told.events.iter().filter(|event| event["involvedObject"]["name"] == pod);
        of_pod.map(|event| event["reason"].as_str().unwrap().to_owned()).collect()
    }

    /// What the Events about a pod with this reason said so far.
    fn messages(&self, pod: &str, reason: &str) -> Vec<String> {
        self.listen();
        let told = self.told.borrow();
        let of_pod = told.events.iter().filter(|event| event["involvedObject"]["name"] == pod && event["reason"] == reason);
        of_pod.map(|event| event["message"].as_str().unwrap().to_owned()).collect()
    }

    pub(super) fn is_ready(&self, pod: &str) -> bool {
        let status = self.status(pod);
        let ready = |c: &Value| c["type"] == "Ready" && c["status"] == "True";
        status["phase"] == "Running" && status["conditions"].as_array().is_some_and(|all| all.iter().any(ready))
    }

    /// Reason for which the first container waits.
    pub(super) fn waits(&self, pod: &str) -> String {
        self.status(pod)["containerStatuses"][0]["state"]["waiting"]["reason"].as_str().unwrap_or_default().to_owned()
    }

    fn node_condition(&self) -> Value {
        self.listen();
        self.told.borrow().nodes.last().map(|content| content["Status"]["conditions"][0].clone()).unwrap_or_default()
    }

    fn node_address(&self) -> String {
        self.listen();
        let address = self.told.borrow().nodes.last().map(|content| content["Status"]["addresses"][0]["address"].clone());
        address.unwrap_or_default().as_str().unwrap_or_default().to_owned()
    }

    pub(super) async fn stop(self) {
        self.watch.abort();
        self.running.shutdown().await;
    }
}

/// A pod that sleeps until it is told to stop, which it does at once.
pub(super) fn sleeper(engine: &Engine, name: &str) -> Value {
    busybox(engine, name, "trap 'exit 0' TERM; while :; do sleep 0.1; done")
}

pub(super) fn busybox(engine: &Engine, name: &str, script: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "default", "uid": format!("{}-{name}", engine.node)},
        "spec": {"nodeName": engine.node, "containers": [{"name": "main", "image": engine.image, "command": ["/bin/busybox", "sh", "-c", script]}]},
    })
}

fn pods_dir(dir: &Path, pod: &Value) -> PathBuf {
    dir.join("pods").join(pod["metadata"]["uid"].as_str().unwrap())
}

/// Ids of the containers of a pod that run.
pub(super) async fn running_ids(engine: &Engine, pod: &Value) -> Vec<String> {
    let uid = pod["metadata"]["uid"].as_str().unwrap();
    let found =
        engine.containers().await.into_iter().filter(|one| one.labels.get(label::POD_UID).is_some_and(|u| u == uid) && one.state == "running");
    let mut ids: Vec<String> = found.map(|one| one.id).collect();
    ids.sort();
    ids
}

pub(super) async fn leave(edge: &Edge, engine: &Engine, pod: &Value) {
    edge.delete("pod", pod).await;
    eventually!(SOON, engine.things().await == 0);
}

#[actix_rt::test]
async fn a_pod_runs_with_its_config_map_follows_a_change_and_goes_gracefully() {
    let Some(engine) = engine().await else { return };
    let dir = tempfile::tempdir().unwrap();
    let edge = start(&engine, dir.path(), SOCKET);
    let config = |value: &str| json!({"metadata": {"name": "cfg", "namespace": "default", "uid": "c-1", "resourceVersion": value}, "data": {"greeting": value}});
    let mut pod = busybox(&engine, "web", "trap 'exit 0' TERM; while :; do echo \"$WHO $(cat /etc/cfg/greeting)\"; sleep 0.1; done");
    pod["spec"]["volumes"] = json!([{"name": "cfg", "configMap": {"name": "cfg"}}]);
    pod["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "cfg", "mountPath": "/etc/cfg"}]);
    pod["spec"]["containers"][0]["env"] = json!([{"name": "WHO", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]);
    edge.apply("configmap", &config("first")).await;
    edge.apply("pod", &pod).await;
    eventually!(SOON, edge.is_ready("web"));
    let status = edge.status("web");
    assert!(status["podIP"].as_str().unwrap().parse::<std::net::IpAddr>().is_ok() && status["hostIP"] == "10.1.2.3", "{status}");
    assert_eq!((&status["qosClass"], &status["containerStatuses"][0]["restartCount"]), (&json!("BestEffort"), &json!(0)));
    let ids = running_ids(&engine, &pod).await;
    assert_eq!(ids.len(), 1);
    let seen = engine.runtime.inspect(&ids[0]).await.unwrap().unwrap();
    let name = engine.docker.containers().get(&ids[0]).inspect().await.unwrap().name.unwrap();
    let uid = pod["metadata"]["uid"].as_str().unwrap();
    assert_eq!(name, format!("/k8s_main_web_default_{uid}_0"));
    assert_eq!(seen.labels["io.kubernetes.container.name"], "main");
    assert_eq!(seen.labels["io.skep.managed"], "true");
    eventually!(SOON, engine.output(&ids[0]).await.contains("web first"));

    edge.apply("configmap", &config("second")).await;
    eventually!(SOON, engine.output(&ids[0]).await.contains("web second"));
    assert_eq!(running_ids(&engine, &pod).await, ids, "a changed ConfigMap restarts nothing");
    let listed = read_only::pod_list(&edge.store).unwrap();
    assert_eq!((&listed["items"][0]["metadata"]["name"], &listed["items"][0]["status"]["phase"]), (&json!("web"), &json!("Running")));

    pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    pod["metadata"]["deletionGracePeriodSeconds"] = json!(20);
    edge.apply("pod", &pod).await;
    eventually!(SOON, edge.status("web")["phase"] == "Succeeded");
    assert_eq!(edge.status("web")["containerStatuses"][0]["state"]["terminated"]["reason"], "Completed");
    assert!(!engine.containers().await.is_empty(), "the containers stay until the object goes");
    leave(&edge, &engine, &pod).await;
    eventually!(SOON, !pods_dir(dir.path(), &pod).exists());
    edge.stop().await;
}

/// One object gone, the other changed: each volume is on its own, and what was made once is enough to start with.
#[actix_rt::test]
async fn a_volume_whose_object_is_gone_keeps_its_files_and_holds_back_neither_the_others_nor_a_start() {
    let Some(engine) = engine().await else { return };
    let dir = tempfile::tempdir().unwrap();
    let edge = start(&engine, dir.path(), SOCKET);
    let config = |name: &str, value: &str| json!({"metadata": {"name": name, "namespace": "default", "uid": name, "resourceVersion": value}, "data": {"k": value}});
    let mut pod = busybox(&engine, "two", "trap 'exit 0' TERM; while :; do echo \"$(cat /a/k) and $(cat /b/k)\"; sleep 0.1; done");
    let volume = |name: &str| json!({"name": name, "configMap": {"name": name, "items": [{"key": "k", "path": "k"}]}});
    pod["spec"]["volumes"] = json!([volume("a"), volume("b")]);
    pod["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "a", "mountPath": "/a"}, {"name": "b", "mountPath": "/b"}]);
    for name in ["a", "b"] {
        edge.apply("configmap", &config(name, "first")).await;
    }
    edge.apply("pod", &pod).await;
    eventually!(SOON, edge.is_ready("two"));
    let ids = running_ids(&engine, &pod).await;
    eventually!(SOON, engine.output(&ids[0]).await.contains("first and first"));

    edge.delete("configmap", &config("a", "first")).await;
    edge.apply("configmap", &config("b", "second")).await;
    eventually!(SOON, engine.output(&ids[0]).await.contains("first and second"));
    assert_eq!(running_ids(&engine, &pod).await, ids);
    // The cloud is asked for it; what it answers here has no such key.
    eventually!(SOON, edge.messages("two", "FailedMount").len() == 2);
    engine.docker.containers().get(&ids[0]).kill(None).await.unwrap();
    eventually!(SOON, edge.status("two")["containerStatuses"][0]["restartCount"] == 1 && edge.is_ready("two"));
    let again = running_ids(&engine, &pod).await;
    assert_ne!(again, ids);
    eventually!(SOON, engine.output(&again[0]).await.contains("first and second"));
    let said = ["configmap \"a\" not found", "references non-existent config key: k"];
    let said = said.map(|why| format!("MountVolume.SetUp failed for volume \"a\" : {why}"));
    // A slow machine may have tried it again meanwhile, after ten seconds and more.
    let mut told = edge.messages("two", "FailedMount");
    told.dedup();
    assert_eq!(told, said);

    edge.apply("configmap", &config("a", "third")).await;
    eventually!(SOON, engine.output(&again[0]).await.contains("third and second"));
    leave(&edge, &engine, &pod).await;
    edge.stop().await;
}

#[actix_rt::test]
async fn containers_of_a_pod_share_a_network_and_a_host_port_reaches_it() {
    let Some(engine) = engine().await else { return };
    let dir = tempfile::tempdir().unwrap();
    let edge = start(&engine, dir.path(), SOCKET);
    let port = free_port();
    let mut pod = sleeper(&engine, "two");
    let server = "trap 'exit 0' TERM; while :; do nc -l -p 8080 -e /bin/busybox echo pong; done";
    pod["spec"]["containers"].as_array_mut().unwrap().push(json!({
        "name": "server", "image": engine.image, "command": ["/bin/busybox", "sh", "-c", server],
        "ports": [{"containerPort": 8080, "hostPort": port, "hostIP": "127.0.0.1"}],
        "resources": {"limits": {"memory": "32Mi", "cpu": "500m"}},
    }));
    // The shell does not hear the signal while `nc` listens.
    pod["spec"]["terminationGracePeriodSeconds"] = json!(1);
    edge.apply("pod", &pod).await;
    eventually!(SOON, edge.is_ready("two"));
    assert_eq!(running_ids(&engine, &pod).await.len(), 2);
    let ask = || {
        let mut text = String::new();
        let stream = std::net::TcpStream::connect(("127.0.0.1", port));
        let _ = stream.and_then(|mut stream| std::io::Read::read_to_string(&mut stream, &mut text));
        text
    };
    eventually!(SOON, ask().contains("pong"));
    assert!(edge.status("two")["podIP"].is_string());
    leave(&edge, &engine, &pod).await;
    edge.stop().await;
}

#[actix_rt::test]
async fn a_restart_touches_no_running_container_and_removes_what_nobody_wants() {
    let Some(engine) = engine().await else { return };
    let other = super::super::runtime::testing::engine().await.expect("there was an engine a moment ago");
    let dir = tempfile::tempdir().unwrap();
    let edge = start(&engine, dir.path(), SOCKET);
    let (keep, leave_behind) = (sleeper(&engine, "keep"), sleeper(&engine, "orphan"));
    edge.apply("pod", &keep).await;
    edge.apply("pod", &leave_behind).await;
    eventually!(SOON, edge.is_ready("keep") && edge.is_ready("orphan"));
    let ids = running_ids(&engine, &keep).await;
    // The actor alone first, then the whole edge, with the object of one pod gone in between.
    edge.running.restart("edged").await.unwrap();
    edge.running.restart("metaManager").await.unwrap();
    edge.told.borrow_mut().pods.clear();
    let foreign = other.runtime.create(&other.spec("foreign", &["sleep", "100"])).await.unwrap();
    other.runtime.start(&foreign).await.unwrap();
    edge.stop().await;
    assert_eq!(running_ids(&engine, &keep).await, ids);
    let store = Store::open(dir.path().join("edge.db")).unwrap();
    store.write(&actor::Fence::unfenced(), |tx| crate::store::meta::delete(tx, &"default/pod/orphan".parse().unwrap())).unwrap();
    drop(store);

    let again = start(&engine, dir.path(), SOCKET);
    eventually!(SOON, running_ids(&engine, &leave_behind).await.is_empty());
    eventually!(SOON, engine.containers().await.len() == 1);
    eventually!(SOON, !pods_dir(dir.path(), &leave_behind).exists());
    assert_eq!(running_ids(&engine, &keep).await, ids);
    assert!(again.statuses("keep").is_empty(), "what was said before is not said again");
    assert_eq!(other.containers().await.len(), 1, "another node's container is left alone");
    // It is really in charge: a container that dies comes back.
    engine.docker.containers().get(&ids[0]).kill(None).await.unwrap();
    eventually!(SOON, again.is_ready("keep"));
    let status = again.status("keep");
    assert_eq!(status["containerStatuses"][0]["restartCount"], 1);
    assert_eq!(status["containerStatuses"][0]["lastState"]["terminated"]["exitCode"], 137);
    assert_ne!(running_ids(&engine, &keep).await, ids);
    leave(&again, &engine, &keep).await;
    again.stop().await;
}

#[actix_rt::test]
async fn ended_containers_are_kept_as_configured_and_how_the_last_one_ended_is_told_in_any_case() {
    let Some(engine) = engine().await else { return };
    for ended_kept in [0, 1] {
        let dir = tempfile::tempdir().unwrap();
        let settings = housekeeping::Settings { ended_kept, ..housekeeping::Settings::default() };
        let edge = start_on(&engine, dir.path(), SOCKET, Ground { settings, ..Ground::default() });
        let mut pod = busybox(&engine, "fell", "[ -e /d/x ] || { touch /d/x; exit 3; }; trap 'exit 0' TERM; while :; do sleep 0.1; done");
        pod["spec"]["volumes"] = json!([{"name": "d", "emptyDir": {}}]);
        pod["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "d", "mountPath": "/d"}]);
        edge.apply("pod", &pod).await;
        let restarts = || edge.status("fell")["containerStatuses"][0]["restartCount"] == 1;
        eventually!(SOON, edge.is_ready("fell") && restarts());
        eventually!(SOON, engine.containers().await.len() == 1 + ended_kept);
        // Whoever looks anew finds no more than that.
        edge.running.restart("edged").await.unwrap();
        edge.apply("pod", &sleeper(&engine, "beside")).await;
        eventually!(SOON, edge.is_ready("beside"));
        assert_eq!(engine.containers().await.len(), 2 + ended_kept);
        let status = edge.status("fell");
        assert_eq!(status["containerStatuses"][0]["lastState"]["terminated"]["exitCode"], 3, "{ended_kept}: {status}");
        edge.delete("pod", &sleeper(&engine, "beside")).await;
        leave(&edge, &engine, &pod).await;
        edge.stop().await;
    }
}

#[actix_rt::test]
async fn a_container_that_falls_at_once_waits_in_crash_loop_back_off() {
    let Some(engine) = engine().await else { return };
    let dir = tempfile::tempdir().unwrap();
    let edge = start(&engine, dir.path(), SOCKET);
    let pod = busybox(&engine, "falls", "exit 3");
    edge.apply("pod", &pod).await;
    // The first fall is followed at once, the second waits.
    eventually!(SOON, edge.waits("falls") == "CrashLoopBackOff");
    let status = edge.status("falls");
    assert_eq!(status["containerStatuses"][0]["lastState"]["terminated"]["exitCode"], 3);
    assert_eq!((&status["containerStatuses"][0]["restartCount"], &status["phase"]), (&json!(1), &json!("Running")));
    leave(&edge, &engine, &pod).await;

    let mut once = busybox(&engine, "once", "exit 4");
    once["spec"]["restartPolicy"] = json!("Never");
    edge.apply("pod", &once).await;
    eventually!(SOON, edge.status("once")["phase"] == "Failed");
    let mut done = busybox(&engine, "done", "exit 0");
    done["spec"]["restartPolicy"] = json!("OnFailure");
    edge.apply("pod", &done).await;
    eventually!(SOON, edge.status("done")["phase"] == "Succeeded");
    // Their containers taken away, they still are not started again.
    for one in engine.containers().await {
        engine.runtime.remove(&one.id).await.unwrap();
    }
    edge.edged.send(EdgedMessage::ReconcileDue).await.unwrap();
    edge.edged.send(EdgedMessage::ReconcileDue).await.unwrap();
    eventually!(SOON, edge.status("once")["phase"] == "Failed" && engine.containers().await.is_empty());
    edge.delete("pod", &once).await;
    leave(&edge, &engine, &done).await;
    edge.stop().await;
}

#[actix_rt::test]
async fn a_missing_image_is_said_and_the_pod_runs_when_it_comes() {
    let Some(engine) = engine().await else { return };
    let dir = tempfile::tempdir().unwrap();
    let edge = start(&engine, dir.path(), SOCKET);
    // A registry that nobody runs: nothing leaves the machine.
    let image = format!("127.0.0.1:1/{}:1", engine.node);
    let mut pod = sleeper(&engine, "late");
    pod["spec"]["containers"][0]["image"] = json!(image);
    edge.apply("pod", &pod).await;
    eventually!(SOON, edge.waits("late") == "ErrImagePull");
    assert_eq!(edge.status("late")["phase"], "Pending");
    // Images that come to other tests make it try again.
    eventually!(SOON, edge.reasons("late").starts_with(&["Pulling".into(), "Failed".into()]));
    let mut never = sleeper(&engine, "never");
    never["spec"]["containers"][0]["image"] = json!(format!("{image}-never"));
    never["spec"]["containers"][0]["imagePullPolicy"] = json!("Never");
    edge.apply("pod", &never).await;
    eventually!(SOON, edge.waits("never") == "ErrImageNeverPull");
    engine.build(&image).await;
    eventually!(SOON, edge.is_ready("late"));
    edge.delete("pod", &never).await;
    leave(&edge, &engine, &pod).await;
    let _ = engine.docker.images().get(&image).delete().await;
    edge.stop().await;
}

#[actix_rt::test]
async fn what_cannot_run_fails_with_a_reason_and_leaves_nothing() {
    let Some(engine) = engine().await else { return };
    let dir = tempfile::tempdir().unwrap();
    let edge = start(&engine, dir.path(), SOCKET);
    let mut claims = sleeper(&engine, "claims");
    claims["spec"]["volumes"] = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "x"}}]);
    edge.apply("pod", &claims).await;
    eventually!(SOON, edge.status("claims")["reason"] == "Unsupported");
    let status = edge.status("claims");
    assert_eq!(status["phase"], "Failed");
    assert!(status["message"].as_str().unwrap().contains("persistentVolumeClaim"), "{status}");

    let mut broken = sleeper(&engine, "broken");
    broken["spec"]["containers"] = json!("none");
    edge.apply("pod", &broken).await;
    eventually!(SOON, edge.status("broken")["reason"] == "InvalidSpec");
    assert!(edge.status("broken")["message"].as_str().unwrap().starts_with("spec.containers cannot be read: invalid type"));

    let mut entrypoint = sleeper(&engine, "entrypoint");
    entrypoint["spec"]["containers"][0]["command"] = json!(["/no/such/program; reboot"]);
    edge.apply("pod", &entrypoint).await;
    eventually!(SOON, edge.waits("entrypoint") == "RunContainerError");

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut port = sleeper(&engine, "port");
    port["spec"]["containers"][0]["ports"] = json!([{"containerPort": 80, "hostPort": taken.local_addr().unwrap().port(), "hostIP": "127.0.0.1"}]);
    edge.apply("pod", &port).await;
    eventually!(SOON, edge.waits("port") == "CreatePodSandboxError");
    assert!(edge.status("port")["containerStatuses"][0]["state"]["waiting"]["message"].as_str().unwrap().contains("of this machine is taken"));
    // Others are not affected.
    let fine = sleeper(&engine, "fine");
    edge.apply("pod", &fine).await;
    eventually!(SOON, edge.is_ready("fine"));
    // One that cannot be started is there while it is tried.
    eventually!(SOON, engine.containers().await.len() == 1);
    for pod in [&claims, &broken, &entrypoint, &port] {
        edge.delete("pod", pod).await;
    }
    leave(&edge, &engine, &fine).await;
    edge.stop().await;
}

#[actix_rt::test]
async fn a_secret_that_is_not_here_is_asked_for_and_the_pod_waits_for_it() {
    let Some(engine) = engine().await else { return };
    let dir = tempfile::tempdir().unwrap();
    let edge = start(&engine, dir.path(), SOCKET);
    let mut pod = busybox(&engine, "reader", "echo \"secret $(cat /s/token)\"; trap 'exit 0' TERM; while :; do sleep 0.1; done");
    pod["spec"]["volumes"] = json!([{"name": "s", "secret": {"secretName": "tok"}}, {"name": "e", "emptyDir": {}}]);
    pod["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "s", "mountPath": "/s"}, {"name": "e", "mountPath": "/e"}]);
    edge.apply("pod", &pod).await;
    eventually!(SOON, edge.is_ready("reader"));
    assert_eq!(edge.told.borrow().asked, ["default/secret/tok"]);
    let first = edge.statuses("reader").remove(0);
    let waiting = &first["containerStatuses"][0]["state"]["waiting"];
    assert_eq!((&waiting["reason"], &waiting["message"]), (&json!("ContainerCreating"), &json!("secret \"tok\" not found")));
    let ids = running_ids(&engine, &pod).await;
    eventually!(SOON, engine.output(&ids[0]).await.contains("secret hunter2"));
    leave(&edge, &engine, &pod).await;
    edge.stop().await;
}

#[actix_rt::test]
async fn an_engine_that_is_away_makes_the_node_not_ready_until_it_is_back() {
    let Some(engine) = engine().await else { return };
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("docker.sock");
    let edge = start(&engine, dir.path(), &format!("unix://{}", socket.display()));
    edge.edged.send(EdgedMessage::CloudConnected).await.unwrap();
    let pod = sleeper(&engine, "patient");
    edge.apply("pod", &pod).await;
    eventually!(SOON, edge.node_condition()["message"].as_str().is_some_and(|text| text.contains("docker.sock does not answer")));
    assert_eq!((edge.node_condition()["status"].clone(), edge.node_condition()["reason"].clone()), (json!("False"), json!("EdgeNotReady")));
    let registered = edge.told.borrow().registrations.last().cloned().unwrap();
    assert_eq!(registered["metadata"]["name"], engine.node);
    assert_eq!(registered["metadata"]["labels"]["node-role.kubernetes.io/edge"], "");

    std::os::unix::fs::symlink("/var/run/docker.sock", &socket).unwrap();
    eventually!(SOON, edge.node_condition()["status"] == "True");
    eventually!(SOON, edge.is_ready("patient"));
    let ids = running_ids(&engine, &pod).await;
    let told = edge.told.borrow().nodes.last().cloned().unwrap();
    assert!(told["Status"]["nodeInfo"]["containerRuntimeVersion"].as_str().unwrap().starts_with("docker://"), "{told}");

    // Away again: what runs keeps running. The open stream does not notice a missing file, so the next call has to.
    std::fs::remove_file(&socket).unwrap();
    edge.edged.send(EdgedMessage::ReconcileDue).await.unwrap();
    eventually!(SOON, edge.node_condition()["status"] == "False");
    assert_eq!(running_ids(&engine, &pod).await, ids);
    std::os::unix::fs::symlink("/var/run/docker.sock", &socket).unwrap();
    eventually!(SOON, edge.node_condition()["status"] == "True");
    leave(&edge, &engine, &pod).await;
    edge.stop().await;
}

#[actix_rt::test]
async fn a_machine_that_moves_tells_its_new_address_and_asks_the_pods_of_its_own_network_there() {
    let Some(engine) = engine().await else { return };
    let dir = tempfile::tempdir().unwrap();
    let edge = start(&engine, dir.path(), SOCKET);
    edge.edged.send(EdgedMessage::CloudConnected).await.unwrap();
    // What listens here listens on the network of such a pod, too.
    let before = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = before.local_addr().unwrap().port();
    let mut pod = sleeper(&engine, "wide");
    pod["spec"]["hostNetwork"] = json!(true);
    let probe = json!({"tcpSocket": {"port": port}, "periodSeconds": 1, "failureThreshold": 2});
    (pod["spec"]["containers"][0]["livenessProbe"], pod["spec"]["containers"][0]["readinessProbe"]) = (probe.clone(), probe);
    edge.apply("pod", &pod).await;
    // The machine does not have the address: the pod is found at home.
    eventually!(SOON, edge.is_ready("wide"));
    assert_eq!((&edge.status("wide")["hostIP"], &edge.status("wide")["podIP"]), (&json!("10.1.2.3"), &json!("10.1.2.3")));
    eventually!(SOON, edge.node_address() == "10.1.2.3");
    let ids = running_ids(&engine, &pod).await;

    let after = tokio::net::TcpListener::bind(("127.0.0.2", port)).await.unwrap();
    *edge.found.lock().unwrap() = routed([127, 0, 0, 2]);
    eventually!(SOON, edge.status("wide")["hostIP"] == "127.0.0.2" && edge.node_address() == "127.0.0.2");
    assert_eq!(edge.status("wide")["podIP"], "127.0.0.2");
    drop(before);
    for _ in 0..6 {
        tokio::time::timeout(SOON, after.accept()).await.unwrap().unwrap();
    }
    assert!(edge.is_ready("wide"));
    assert_eq!(running_ids(&engine, &pod).await, ids, "nobody is replaced for it");

    // Without a network the address stays.
    *edge.found.lock().unwrap() = Address::default();
    edge.edged.send(EdgedMessage::StatusDue).await.unwrap();
    let late = sleeper(&engine, "late");
    edge.apply("pod", &late).await;
    eventually!(SOON, edge.is_ready("late"));
    assert_eq!((&edge.status("late")["hostIP"], edge.node_address().as_str()), (&json!("127.0.0.2"), "127.0.0.2"));
    edge.delete("pod", &late).await;
    leave(&edge, &engine, &pod).await;
    edge.stop().await;
}
