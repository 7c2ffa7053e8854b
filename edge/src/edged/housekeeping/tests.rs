#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use actor::eventually;
use actor::testing::{Probe, start_here};
use model::{ManualClock, NodeName, Timestamp};
use serde_json::{Value, json};

use super::super::message::EdgedMessage;
use super::super::node::{Address, Machine, Readiness};
use super::super::pod::{Pod, Refusal};
use super::super::pressure::{Consumer, Shortage, Signal, Signals, Threshold, Thresholds};
use super::super::runtime::docker::DockerRuntime;
use super::super::runtime::testing::{Engine, Images, built, engine};
use super::super::runtime::{ContainerRuntime, RuntimeEvent, label};
use super::super::{Config, Edged, Peers, Shared, node, volume};
use super::job::Job;
use super::measure::{Measured, Measures, storage_limit};
use super::{Settings, Tidied, keep};
use crate::meta_manager::MetaManagerMessage;
use crate::store::Store;
use crate::store::meta::{self, StoredObject};

const SOON: Duration = Duration::from_secs(60);
const START: i64 = 1_700_000_000_000;

/// Edged with a store and a clock of its own.
struct Fixture {
    edged: Edged,
    store: Store,
    shared: Arc<Shared>,
    meta: Probe<MetaManagerMessage>,
    own: Probe<EdgedMessage>,
    clock: ManualClock,
    _dir: tempfile::TempDir,
}

fn settings() -> Settings {
    let thresholds = Thresholds { memory: Some(Threshold::Amount(100)), imagefs: Some(Threshold::Share(1500)), ..Thresholds::default() };
    Settings { thresholds, transition: Duration::from_secs(300), images_high: 80, images_low: 40, ..Settings::default() }
}

fn fixture_on(socket: &str, node: &str) -> Fixture {
    fixture_with(socket, node, settings())
}

fn fixture_with(socket: &str, node: &str, settings: Settings) -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("edge.db")).unwrap();
    let (meta, own) = (Probe::new("metaManager", 64), Probe::new("edged", 64));
    let node = NodeName::new(node).unwrap();
    let clock = ManualClock::at(Timestamp(START));
    let runtime = Arc::new(DockerRuntime::new(socket).unwrap());
    let shared = Shared::with_clock(runtime, own.handle(), &node, Address::default(), dir.path(), Arc::new(clock.clone())).unwrap();
    let shared = Arc::new(shared.with(node::Settings::default(), settings));
    let config = Config { node, version: "v1".into(), status_interval: Duration::from_secs(10) };
    let peers = Peers { meta_manager: meta.handle(), own: own.handle() };
    let edged = Edged::new(store.clone(), shared.clone(), Machine::default(), config, peers);
    Fixture { edged, store, shared, meta, own, clock, _dir: dir }
}

fn fixture() -> Fixture {
    fixture_on("unix:///nowhere.sock", "n1")
}

impl Fixture {
    /// The conditions in the last status that was told, by type; empty if none was.
    fn conditions(&self) -> Vec<String> {
        let told = self.meta.drain().into_iter().filter_map(|message| match &*message {
            MetaManagerMessage::NodeStatus { content } => Some(content.to::<Value>().unwrap()["Status"]["conditions"].clone()),
            _ => None,
        });
        let Some(last) = told.last() else { return Vec::new() };
        let is_true = last.as_array().unwrap().iter().filter(|one| one["status"] == "True");
        is_true.map(|one| one["type"].as_str().unwrap().to_owned()).collect()
    }

    fn put(&self, pod: &Value) {
        let uid = pod["metadata"]["uid"].as_str().unwrap().to_owned();
        let key = format!("default/pod/{}", pod["metadata"]["name"].as_str().unwrap()).parse().unwrap();
        let row = StoredObject { key, value: pod.to_string(), uid: Some(uid), resource_version: None, stored_at: Timestamp(1) };
        self.store.write(&actor::Fence::unfenced(), |tx| meta::put(tx, &row)).unwrap();
    }
}

fn fine() -> Signals {
    Signals { memory_available: 500, memory_total: 1000, imagefs_available: 50, imagefs_total: 100, ..Signals::default() }
}

fn pod(name: &str, spec: Value) -> Value {
    json!({"metadata": {"name": name, "namespace": "default", "uid": format!("u-{name}")}, "spec": spec})
}

fn plain(name: &str) -> Value {
    pod(name, json!({"containers": [{"name": "a", "image": "i:1"}]}))
}

#[actix_rt::test]
async fn a_shortage_becomes_a_condition_at_once_and_outlives_its_cause_and_the_actor() {
    let mut fixture = fixture();
    fixture.edged.housekept(&fine());
    assert!(fixture.conditions().is_empty(), "nothing to say");
    fixture.edged.housekept(&Signals { memory_available: 99, ..fine() });
    assert_eq!(fixture.conditions(), ["MemoryPressure"]);
    fixture.clock.advance(299_000);
    fixture.edged.housekept(&fine());
    assert!(fixture.meta.try_next().is_none(), "still shown, so nothing changed");
    let again =
        Edged::new(fixture.store.clone(), fixture.shared.clone(), Machine::default(), fixture.edged.config.clone(), fixture.edged.peers.clone());
    assert_eq!(again.node.pressures().len(), 1, "another incarnation begins with it");
    fixture.clock.advance(2_000);
    fixture.edged.housekept(&fine());
    let told = fixture.meta.try_next().is_some();
    assert!(told && fixture.edged.node.pressures().is_empty());
}

#[test]
fn a_job_is_made_only_when_something_is_due() {
    let mut fixture = fixture();
    let second = |fixture: &Fixture, signals: &Signals| {
        let shortages = settings().thresholds.crossed(signals);
        let job = fixture.edged.job(signals, shortages, fixture.shared.now());
        job.map(|job| (job.lists, job.clears, job.measures, job.evicts))
    };
    let full = Signals { imagefs_available: 18, ..fine() };
    let short = Signals { memory_available: 1, imagefs_available: 1, ..fine() };
    assert_eq!(second(&fixture, &short), None, "an engine that is away is not asked, and nobody is ended without it");
    fixture.edged.node.set(Readiness::Ready("docker://1".into()), fixture.shared.now());
    assert_eq!(second(&fixture, &fine()), Some((true, false, false, false)), "the first list");
    fixture.shared.house().images_at = Some(fixture.shared.now());
    assert_eq!(second(&fixture, &fine()), None, "an idle round does nothing");
    assert_eq!(second(&fixture, &full), Some((true, true, false, false)), "above the high threshold");
    assert_eq!(second(&fixture, &full), None, "not again at once");
    fixture.clock.advance(60_000);
    assert_eq!(second(&fixture, &Signals { imagefs_available: 21, ..fine() }), None, "below it");
    assert_eq!(second(&fixture, &Signals { imagefs_available: 14, ..fine() }), Some((true, true, false, true)), "disk pressure");
    assert_eq!(second(&fixture, &Signals { memory_available: 1, ..fine() }), Some((false, false, false, true)));
    fixture.shared.house().images_changed();
    assert_eq!(second(&fixture, &fine()), Some((true, false, false, false)), "one came");
    fixture.shared.house().images_at = Some(fixture.shared.now());

    fixture.put(&pod("sized", json!({"containers": [{"name": "a", "image": "i:1"}], "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}]})));
    fixture.put(&pod(
        "memory",
        json!({"containers": [{"name": "a", "image": "i:1"}], "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Mi", "medium": "Memory"}}]}),
    ));
    fixture.edged.begin_pass("u-memory").unwrap();
    assert_eq!(second(&fixture, &fine()), None, "the engine bounds that one");
    fixture.edged.begin_pass("u-sized").unwrap();
    assert_eq!(second(&fixture, &fine()), Some((false, false, true, false)));
    assert_eq!(second(&fixture, &fine()), None);
    // The clock was set back: better once too often than not for a day.
    fixture.clock.advance(-86_400_000);
    assert!(second(&fixture, &fine()).is_some());
}

#[actix_rt::test]
async fn the_chosen_pod_is_ended_and_the_next_waits_for_what_it_frees() {
    let mut fixture = fixture();
    fixture.put(&plain("a"));
    fixture.edged.begin_pass("u-a").unwrap();
    fixture.edged.node.set(Readiness::Ready("docker://1".into()), fixture.shared.now());
    let refusal = Refusal { reason: "Evicted".into(), message: "The node was low on resource: memory.".into() };
    fixture.edged.tidied(&Tidied { chosen: Some(("u-a".into(), refusal.clone())), ..Tidied::default() });
    assert_eq!(fixture.edged.pods["u-a"].failure.as_ref(), Some(&refusal));
    assert_eq!(fixture.edged.pods["u-a"].grace_secs, Some(0));
    let low = Signals { memory_available: 1, ..fine() };
    let evicts = |fixture: &Fixture| {
        let job = fixture.edged.job(&low, settings().thresholds.crossed(&low), fixture.shared.now());
        job.is_some_and(|job| job.evicts)
    };
    assert!(!evicts(&fixture), "its pass is under way: what it wrote may still be there");
    fixture.edged.pods.get_mut("u-a").unwrap().is_busy = false;
    assert!(!evicts(&fixture), "nobody has looked at it: it may be the next to go");
    fixture.edged.pods.get_mut("u-a").unwrap().seen = Some(super::super::observed::Observed::default());
    assert!(evicts(&fixture), "nothing of it runs");
    let container = super::super::runtime::Container {
        id: "c".into(),
        labels: [(label::CONTAINER.to_owned(), "a".to_owned())].into(),
        state: super::super::runtime::ContainerState::Running { started_at: fixture.shared.now() },
        image: "i:1".into(),
        image_id: "sha256:1".into(),
        ip: None,
        created_at: fixture.shared.now(),
    };
    fixture.edged.pods.get_mut("u-a").unwrap().seen = Some(super::super::observed::Observed::new([container]));
    assert!(!evicts(&fixture), "it is ending");
    fixture.clock.advance(30_000);
    assert!(evicts(&fixture), "it does not end, and the machine cannot wait for ever");
    fixture.edged.pods.get_mut("u-a").unwrap().is_busy = true;
    assert!(evicts(&fixture), "nor for a pass that does not");
    fixture.put(&plain("b"));
    fixture.edged.begin_pass("u-b").unwrap();
    fixture.edged.tidied(&Tidied { excessive: vec![("u-gone".into(), refusal.clone()), ("u-b".into(), refusal)], ..Tidied::default() });
    assert_eq!(fixture.edged.pods["u-b"].grace_secs, Some(0), "as the kubelet");
}

#[test]
fn images_go_from_the_disk_that_is_short_or_full_and_with_a_threshold_of_100_never() {
    let on = |images_high: u8, is_full: bool, short: Option<Signal>, one_disk: bool| {
        let fixture = fixture_with("unix:///nowhere.sock", "n1", Settings { images_high, ..settings() });
        let shortages = short.map(|signal| Shortage { signal, threshold: 100, available: 1 }).into_iter().collect();
        let shared = fixture.shared;
        let job = Job { shared, shortages, is_full, lists: true, clears: true, measures: false, evicts: false, pods: Vec::new() };
        let is_short = job.is_short(one_disk);
        (is_short, job.removes_images(is_short))
    };
    for signal in [Signal::Nodefs, Signal::Inodes] {
        assert_eq!(on(80, false, Some(signal), true), (true, true));
        assert_eq!(on(80, false, Some(signal), false), (false, false), "images are on another disk");
        assert_eq!(on(80, true, Some(signal), false), (false, true));
        assert_eq!(on(100, false, Some(signal), true), (true, false), "ended containers only");
    }
    assert_eq!(on(80, false, Some(Signal::Imagefs), false), (true, true));
    assert_eq!(on(100, false, Some(Signal::Imagefs), false), (true, false));
    assert_eq!((on(80, true, None, true), on(80, false, Some(Signal::Memory), true)), ((false, true), (false, false)));
    let mut fixture = fixture();
    fixture.edged.node.set(Readiness::Ready("docker://1".into()), fixture.shared.now());
    let is_full = |signals: &Signals| fixture.edged.job(signals, Vec::new(), fixture.shared.now()).unwrap().is_full;
    assert!(!is_full(&fine()) && is_full(&Signals { imagefs_available: 18, ..fine() }));
}

fn measured(pod: &Value) -> Measured {
    let pod = Pod::parse(&pod.to_string()).unwrap();
    Measured { uid: pod.metadata.uid.clone(), pod: Arc::new(pod), is_over: false, running: Vec::new(), ended: Vec::new() }
}

#[actix_rt::test]
async fn a_pod_whose_volume_exceeds_its_limit_is_named_with_the_kubelets_words() {
    let fixture = fixture();
    let volumes = json!([
        {"name": "small", "emptyDir": {"sizeLimit": "1Mi"}},
        {"name": "open", "emptyDir": {}},
        {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1"}},
        {"name": "host", "hostPath": {"path": "/"}},
    ]);
    let one = measured(&pod("one", json!({"containers": [{"name": "a", "image": "i:1"}], "volumes": volumes})));
    let put = |name: &str, bytes: usize| {
        let dir = volume::source(&fixture.shared.pods, &one.pod, one.pod.volume(name).unwrap()).unwrap();
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("file"), vec![1; bytes]).unwrap();
    };
    let measures = Measures { shared: &fixture.shared, one_disk: true };
    put("small", 900 << 10);
    put("open", 5 << 20);
    assert_eq!(measures.excessive(std::slice::from_ref(&one)).await, []);
    put("small", 2 << 20);
    let found = measures.excessive(std::slice::from_ref(&one)).await;
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].0.as_str(), found[0].1.reason.as_str()), ("u-one", "Evicted"));
    assert_eq!(found[0].1.message, "Usage of EmptyDir volume \"small\" exceeds the limit \"1Mi\".");
    let critical = Arc::new(Pod { is_static: true, ..(*one.pod).clone() });
    assert_eq!(measures.excessive(&[Measured { pod: critical, ..one.clone() }]).await, [], "the node needs it more");
    assert_eq!(measures.excessive(&[Measured { is_over: true, ..one }]).await, []);

    let limits = json!([{"name": "a", "image": "i:1", "resources": {"limits": {"ephemeral-storage": "1Mi"}}}]);
    let two = measured(&pod("two", json!({"containers": limits, "volumes": [{"name": "v", "emptyDir": {}}]})));
    assert_eq!(measures.excessive(std::slice::from_ref(&two)).await, []);
    let dir = volume::source(&fixture.shared.pods, &two.pod, &two.pod.spec.volumes[0]).unwrap();
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("file"), vec![1; 2 << 20]).unwrap();
    let found = measures.excessive(&[two]).await;
    assert_eq!(found[0].1.message, "Pod ephemeral local storage usage exceeds the total limit of containers 1Mi.");
}

#[test]
fn a_pods_limit_of_local_storage_is_the_larger_one_of_its_beginning_and_of_what_runs_then() {
    let one = |limit: &str| json!({"name": "c", "image": "i:1", "resources": {"limits": {"ephemeral-storage": limit}}});
    let sidecar = |limit: &str| {
        let mut container = one(limit);
        container["restartPolicy"] = json!("Always");
        container
    };
    let open = json!({"name": "o", "image": "i:1"});
    let limit = |inits: Value, containers: Value| {
        let object = pod("one", json!({"initContainers": inits, "containers": containers}));
        storage_limit(&Pod::parse(&object.to_string()).unwrap())
    };
    assert_eq!(limit(json!([open]), json!([open])), None);
    assert_eq!(limit(json!([]), json!([one("3"), open, one("4")])), Some(7));
    assert_eq!(limit(json!([one("9"), one("8")]), json!([one("7")])), Some(9), "init containers run one after the other");
    assert_eq!(limit(json!([one("9")]), json!([open])), Some(9));
    assert_eq!(limit(json!([sidecar("2")]), json!([one("7")])), Some(9));
    assert_eq!(limit(json!([sidecar("2"), one("9"), sidecar("3")]), json!([one("5")])), Some(11), "with the sidecars before it");
    assert_eq!(limit(json!([one("9"), sidecar("2"), sidecar("3")]), json!([one("5")])), Some(10));
}

#[actix_rt::test]
async fn a_request_of_local_storage_counts_also_where_containers_write_to_another_disk() {
    let fixture = fixture();
    let asking =
        json!({"name": "a", "image": "i:1", "resources": {"requests": {"ephemeral-storage": "1Gi"}, "limits": {"ephemeral-storage": "2Gi"}}});
    let one = measured(&pod("one", json!({"containers": [asking], "volumes": [{"name": "v", "emptyDir": {}}]})));
    let one = Measured { running: vec![("a".into(), "id".into())], ..one };
    let dir = volume::source(&fixture.shared.pods, &one.pod, &one.pod.spec.volumes[0]).unwrap();
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("file"), vec![1; 2 << 20]).unwrap();
    let measures = Measures { shared: &fixture.shared, one_disk: false };
    let suspects = measures.suspects(Signal::Nodefs, std::slice::from_ref(&one)).await;
    assert_eq!(suspects[0].containers, [Consumer { name: "a".into(), used: 0, request: 1 << 30 }]);
    assert!((2 << 20..3 << 20).contains(&suspects[0].shared), "{suspects:?}");
    let suspects = measures.suspects(Signal::Inodes, &[one]).await;
    assert_eq!(suspects[0].containers, [Consumer { name: "a".into(), used: 0, request: 0 }], "nobody asks for files");
}

#[test]
fn a_limit_of_local_storage_is_possible_and_a_request_above_it_is_not() {
    let with = |resources: Value| {
        let spec = json!({"containers": [{"name": "a", "image": "i:1", "resources": resources}]});
        Pod::parse(&pod("one", spec).to_string()).unwrap().check()
    };
    assert_eq!(with(json!({"limits": {"ephemeral-storage": "1Gi"}, "requests": {"ephemeral-storage": "1Mi"}})), Ok(()));
    assert!(with(json!({"limits": {"ephemeral-storage": "1Mi"}, "requests": {"ephemeral-storage": "1Gi"}})).is_err());
    assert!(with(json!({"limits": {"ephemeral-storage": "-1"}})).is_err());
    assert!(with(json!({"limits": {"nvidia.com/gpu": "1"}})).is_err());
}

#[actix_rt::test]
async fn what_is_free_is_told_from_the_first_moment_on_and_until_the_mailbox_is_closed() {
    let fixture = fixture();
    let task = actix_rt::spawn(keep(fixture.shared.clone()));
    let first = fixture.own.next(SOON).await.unwrap();
    let EdgedMessage::Housekept(signals) = &*first else { panic!("something else") };
    assert!(signals.memory_total > 0 && signals.nodefs_total > 0 && signals.imagefs_total == 0, "{signals:?}");
    task.abort();
}

const SOCKET: &str = "unix:///var/run/docker.sock";

/// An image that nobody else has.
async fn image(engine: &Engine, name: &str) -> String {
    use docker_api::opts::ImageBuildOpts;
    use futures_util::StreamExt;
    let context = tempfile::tempdir().unwrap();
    std::fs::copy("/bin/busybox", context.path().join("busybox")).unwrap();
    std::fs::write(context.path().join("stamp"), name).unwrap();
    std::fs::write(context.path().join("Dockerfile"), format!("FROM scratch\nCOPY busybox stamp /bin/\nLABEL only={name}\n")).unwrap();
    let images = engine.docker.images();
    let opts = ImageBuildOpts::builder(context.path()).tag(name).build();
    let mut steps = images.build(&opts);
    while let Some(step) = steps.next().await {
        built(step);
    }
    engine.runtime.image(name).await.unwrap().unwrap().id
}

/// A job that removes images because the disk is short, on an engine of which only `ours` are older than the age.
async fn clear(engine: &Engine, settings: Settings, ours: &BTreeSet<String>, pods: Vec<Measured>) -> Tidied {
    let fixture = fixture_with(SOCKET, &engine.node, settings);
    let now = fixture.shared.now();
    // Images of others on this engine are seen for the first time by the job: too young to go.
    let listed: Vec<_> = engine.runtime.images().await.unwrap().into_iter().filter(|image| ours.contains(&image.id)).collect();
    assert_eq!(listed.len(), ours.len());
    fixture.shared.house().history.listed(&listed, now);
    fixture.clock.advance(121_000);
    let shortages = vec![Shortage { signal: Signal::Imagefs, threshold: 100, available: 1 }];
    let shared = fixture.shared.clone();
    let job = Job { shared, shortages, is_full: false, lists: true, clears: true, measures: false, evicts: false, pods };
    job.work().await
}

#[actix_rt::test]
async fn an_unused_image_goes_and_one_of_a_container_or_a_pod_or_the_edge_itself_stays() {
    let Some(engine) = engine().await else { return };
    let id = engine.node.trim_start_matches("test-");
    let names = [format!("skep-test-gone-{id}:1"), format!("skep-test-used-{id}:1"), format!("skep-test-named-{id}:1"), format!("skep-pause-{id}:1")];
    let _images = Images(&engine, names.to_vec());
    let mut ids = Vec::new();
    for name in &names {
        ids.push(image(&engine, name).await);
    }
    let mut spec = engine.spec("u-1", &["true"]);
    spec.image.clone_from(&names[1]);
    engine.runtime.create(&spec).await.unwrap();
    let named = measured(&pod("named", json!({"containers": [{"name": "a", "image": names[2]}]})));

    let tidied = clear(&engine, settings(), &ids.iter().cloned().collect(), vec![named]).await;
    let left: BTreeSet<String> = tidied.images.unwrap().into_iter().map(|image| image.id).collect();
    assert_eq!(ids.iter().map(|id| left.contains(id)).collect::<Vec<_>>(), [false, true, true, true]);
    for (name, stays) in names.iter().zip([false, true, true, true]) {
        assert_eq!(engine.runtime.image(name).await.unwrap().is_some(), stays, "{name}");
    }
}

#[actix_rt::test]
async fn for_disk_pressure_the_ended_containers_of_a_pod_that_is_over_go_first() {
    let Some(engine) = engine().await else { return };
    let id = engine.runtime.create(&engine.spec("u-over", &["true"])).await.unwrap();
    let over = Measured { is_over: true, ended: vec![id.clone()], ..measured(&plain("over")) };
    let name = format!("skep-test-kept-{}:1", engine.node.trim_start_matches("test-"));
    let _images = Images(&engine, vec![name.clone()]);
    let unused = image(&engine, &name).await;
    let tidied = clear(&engine, Settings { images_high: 100, ..settings() }, &[unused.clone()].into(), vec![over]).await;
    assert_eq!(engine.runtime.inspect(&id).await.unwrap(), None);
    assert!(tidied.images.unwrap().iter().any(|image| image.id == unused), "images are never removed");
    assert!(engine.runtime.image(&name).await.unwrap().is_some());
}

#[actix_rt::test]
async fn what_a_container_writes_outside_of_volumes_counts_against_its_limit() {
    let Some(engine) = engine().await else { return };
    let fixture = fixture_on(SOCKET, &engine.node);
    let id = engine.runtime.create(&engine.spec("u-fat", &["sh", "-c", "dd if=/dev/zero of=/fat bs=1024 count=3000; sleep 100"])).await.unwrap();
    engine.runtime.start(&id).await.unwrap();
    eventually!(SOON, engine.runtime.layer_bytes(&id).await.unwrap().unwrap_or(0) >= 3000 << 10);
    assert_eq!(engine.runtime.layer_bytes("no-such-container").await.unwrap(), None);
    let limited = |name: &str, limit: &str, other: &str| {
        let container = |name: &str, limit: &str| json!({"name": name, "image": "i:1", "resources": {"limits": {"ephemeral-storage": limit}}});
        let pod = measured(&pod(name, json!({"containers": [container("a", limit), container("b", other)]})));
        Measured { running: vec![("a".into(), id.clone())], ..pod }
    };
    let measures = Measures { shared: &fixture.shared, one_disk: true };
    let found = measures.excessive(&[limited("fat", "1Mi", "1Gi"), limited("slim", "1Gi", "1Gi"), limited("all", "1Mi", "1Mi")]).await;
    let found: Vec<_> = found.iter().map(|(uid, refusal)| (uid.as_str(), refusal.message.as_str())).collect();
    assert_eq!(
        found,
        [
            ("u-fat", "Container a exceeded its local ephemeral storage limit \"1Mi\"."),
            ("u-all", "Pod ephemeral local storage usage exceeds the total limit of containers 2Mi."),
        ]
    );
    let suspects = measures.suspects(Signal::Memory, &[limited("fat", "1Mi", "1Gi")]).await;
    assert!(suspects[0].containers[0].used > 0 && suspects[0].containers[0].name == "a", "{suspects:?}");
    let suspects = measures.suspects(Signal::Nodefs, &[limited("fat", "1Mi", "1Gi")]).await;
    assert!(suspects[0].containers[0].used >= 3000 << 10 && suspects[0].containers[0].request == 1 << 20, "{suspects:?}");
}

#[actix_rt::test]
async fn a_pod_that_takes_memory_is_ended_when_the_machine_is_short_of_it_and_a_critical_one_is_not() {
    let Some(engine) = engine().await else { return };
    let fixture = fixture_on(SOCKET, &engine.node);
    let sleeper = |name: &str| {
        let command = ["/bin/busybox", "sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"];
        let mut pod = pod(
            name,
            json!({"nodeName": engine.node, "hostNetwork": true, "containers": [{"name": "main", "image": engine.image, "command": command}]}),
        );
        pod["metadata"]["uid"] = json!(format!("{}-{name}", engine.node));
        pod
    };
    let (mut victim, mut critical) = (sleeper("victim"), sleeper("critical"));
    victim["spec"]["volumes"] = json!([{"name": "cache", "emptyDir": {}}]);
    critical["spec"]["priority"] = json!(2_000_001_000);
    let written = Pod::parse(&victim.to_string()).unwrap();
    let written = volume::source(&fixture.shared.pods, &written, &written.spec.volumes[0]).unwrap();
    fixture.put(&victim);
    fixture.put(&critical);
    let Fixture { edged, meta, own, shared, _dir, .. } = fixture;
    let own = own.handle();
    start_here(&own, edged);
    let version = engine.runtime.version().await.unwrap();
    own.send(EdgedMessage::Runtime(RuntimeEvent::Up(version))).await.unwrap();
    let runs = async |name: &str| {
        let uid = format!("{}-{name}", engine.node);
        engine.containers().await.iter().any(|one| one.labels.get(label::POD_UID) == Some(&uid) && one.state == "running")
    };
    eventually!(SOON, runs("victim").await && runs("critical").await);
    std::fs::write(written.join("file"), "x").unwrap();
    let mut reasons = Vec::new();
    eventually!(SOON, {
        // The first rounds may come before the module has seen the containers.
        own.send(EdgedMessage::Housekept(Signals { memory_available: 1, ..fine() })).await.unwrap();
        for message in meta.drain() {
            if let MetaManagerMessage::PodStatus { key, report } = &*message {
                let status: Value = report.status.to().unwrap();
                reasons.push((key.name.clone().unwrap().to_string(), status["phase"].clone(), status["reason"].clone()));
            }
        }
        reasons.contains(&("victim".to_owned(), json!("Failed"), json!("Evicted"))) && !runs("victim").await
    });
    eventually!(SOON, !written.exists());
    assert!(runs("critical").await && !reasons.iter().any(|(name, phase, _)| name == "critical" && phase == "Failed"), "{reasons:?}");
    assert!(shared.house().pressures().held().len() == 1 && Path::new(&shared.pods).exists());
}
