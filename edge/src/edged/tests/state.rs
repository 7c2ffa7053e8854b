//! What the module decides without an engine.

use std::collections::BTreeMap;
use std::sync::Arc;

use actor::testing::Probe;
use model::{NodeName, Timestamp};
use serde_json::json;
use wire::hub::{PodStatusReport, RawJson};

use super::super::node::{Address, Machine, Origin};
use super::super::observed::{Observed, Trouble, Troubles};
use super::super::runtime::docker::DockerRuntime;
use super::super::worker::{End, Pull};
use super::super::{Config, Edged, Peers, Shared, static_pods};
use super::{at, exited, pod_json, running, seen, spec};
use crate::meta_manager::MetaManagerMessage;
use crate::store::Store;
use crate::store::meta::{self, StoredObject};

/// A machine that has moved by one whenever it is looked for, and that has no network in the third place.
fn next_door(known: Address) -> Address {
    match known.ip.octets() {
        [10, 0, 0, 3] => Address::default(),
        [10, 0, 0, end] => Address { ip: [10, 0, 0, end + 1].into(), origin: Origin::Route },
        _ => Address { ip: [10, 0, 0, 1].into(), origin: Origin::Route },
    }
}

struct Fixture {
    edged: Edged,
    store: Store,
    meta: Probe<MetaManagerMessage>,
    _dir: tempfile::TempDir,
}

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("edge.db")).unwrap();
    let (meta, own) = (Probe::new("metaManager", 8), actor::mailbox("edged", 8));
    let node = NodeName::new("n1").unwrap();
    let runtime = Arc::new(DockerRuntime::new("unix:///nowhere.sock").unwrap());
    let shared = Arc::new(Shared::open(runtime, own.clone(), &node, Address::default(), dir.path()).unwrap().found_by(next_door));
    let config = Config { node, version: "v1".into(), status_interval: std::time::Duration::from_secs(10) };
    let peers = Peers { meta_manager: meta.handle(), own };
    let edged = Edged::new(store.clone(), shared, Machine::default(), config, peers);
    Fixture { edged, store, meta, _dir: dir }
}

impl Fixture {
    fn put(&self, key: &str, uid: &str, value: &serde_json::Value) {
        let row = StoredObject {
            key: key.parse().unwrap(),
            value: value.to_string(),
            uid: Some(uid.into()),
            resource_version: None,
            stored_at: Timestamp(1),
        };
        self.store.write(&actor::Fence::unfenced(), |tx| meta::put(tx, &row)).unwrap();
    }
}

#[test]
fn an_event_before_the_first_comparison_does_not_make_a_stored_pod_unwanted() {
    let mut fixture = fixture();
    fixture.put("default/pod/web", "u-1", &pod_json(spec(&["a"], "Always")));
    assert!(fixture.edged.begin_pass("u-1").unwrap().desired.is_some());
    assert!(fixture.edged.begin_pass("u-2").unwrap().desired.is_none());
}

#[test]
fn a_pod_has_one_pass_at_a_time_and_what_came_meanwhile_gives_another() {
    let mut fixture = fixture();
    fixture.put("default/pod/web", "u-1", &pod_json(spec(&["a"], "Always")));
    assert!(fixture.edged.begin_pass("u-1").is_some());
    assert!(fixture.edged.begin_pass("u-1").is_none());
    let entry = &fixture.edged.pods["u-1"];
    assert!(entry.is_busy && entry.is_dirty);
    fixture.edged.take_in("u-1", Some(Observed::default()), Troubles::new(), Some(&End::default()));
    assert!(!fixture.edged.pods["u-1"].is_busy);
    assert!(fixture.edged.begin_pass("u-1").is_some());
}

#[test]
fn a_status_is_told_once_and_what_was_told_before_a_restart_is_not_told_again() {
    let mut fixture = fixture();
    fixture.put("default/pod/web", "u-1", &pod_json(spec(&["a"], "Always")));
    fixture.edged.begin_pass("u-1").unwrap();
    let up = || Some(seen([running("a")]));
    let (key, report) = fixture.edged.take_in("u-1", up(), Troubles::new(), None).unwrap();
    assert_eq!((key.to_string().as_str(), report.uid.as_str()), ("default/pod/web", "u-1"));
    assert!(fixture.edged.take_in("u-1", up(), Troubles::new(), Some(&End::default())).is_none());
    fixture.put("default/podstatus/web", "u-1", &serde_json::to_value(&report).unwrap());

    let Fixture { edged, store, meta, _dir } = fixture;
    let shared = edged.shared.clone();
    let again = Edged::new(store.clone(), shared, Machine::default(), edged.config.clone(), edged.peers.clone());
    let mut fixture = Fixture { edged: again, store, meta, _dir };
    let pass = fixture.edged.begin_pass("u-1").unwrap();
    assert_eq!(pass.previous.unwrap().phase, "Running");
    assert!(fixture.edged.take_in("u-1", up(), Troubles::new(), Some(&End::default())).is_none());
    assert!(fixture.meta.try_next().is_none());
}

#[test]
fn the_status_of_an_earlier_pod_of_that_name_is_not_taken_over() {
    let mut fixture = fixture();
    fixture.put("default/pod/web", "u-1", &pod_json(spec(&["a"], "Never")));
    let old = PodStatusReport { uid: "u-0".into(), name: "web".parse().unwrap(), status: RawJson::from_value(&json!({"phase": "Failed"})).unwrap() };
    fixture.put("default/podstatus/web", "u-0", &serde_json::to_value(&old).unwrap());
    assert!(fixture.edged.begin_pass("u-1").unwrap().previous.is_none());
}

#[test]
fn a_pod_that_cannot_be_read_is_refused_under_its_own_name() {
    let mut fixture = fixture();
    fixture.put("default/pod/web", "u-1", &json!({"metadata": {"name": "web", "uid": "u-1"}, "spec": {"containers": 7}}));
    let desired = fixture.edged.begin_pass("u-1").unwrap().desired.unwrap();
    assert_eq!(desired.refusal.unwrap().reason, "InvalidSpec");
    let (_, report) = fixture.edged.take_in("u-1", Some(Observed::default()), Troubles::new(), None).unwrap();
    let status: serde_json::Value = report.status.to().unwrap();
    assert_eq!((&status["phase"], report.name.as_str()), (&json!("Failed"), "web"));
}

#[test]
fn a_pull_that_ends_during_a_pass_is_not_forgotten() {
    let mut fixture = fixture();
    fixture.put("default/pod/web", "u-1", &pod_json(spec(&["a"], "Always")));
    fixture.edged.begin_pass("u-1").unwrap();
    let wants = End { images: BTreeMap::from([("a".to_owned(), Pull { image: "i:1".into(), logins: Vec::new() })]), ..End::default() };
    fixture.edged.take_in("u-1", Some(Observed::default()), Troubles::new(), Some(&wants));
    fixture.edged.begin_pass("u-1").unwrap();
    // The pull fails while the second pass is under way, which itself sees nothing to do.
    fixture.edged.pods.get_mut("u-1").unwrap().pulled.push((Pull { image: "i:1".into(), logins: Vec::new() }, Err("no route".into())));
    fixture.edged.take_in("u-1", Some(Observed::default()), Troubles::new(), Some(&wants));
    let pass = fixture.edged.begin_pass("u-1").unwrap();
    let trouble = &pass.troubles["a"];
    assert_eq!((trouble.reason.as_str(), trouble.failures), ("ErrImagePull", 1));
    assert!(trouble.message.contains("no route") && trouble.retry_at > at(0));
}

#[test]
fn a_missing_object_is_not_asked_for_again_at_once() {
    let mut fixture = fixture();
    fixture.put("default/pod/web", "u-1", &pod_json(spec(&["a"], "Always")));
    fixture.edged.begin_pass("u-1").unwrap();
    let missing = [(true, "tok".to_owned())].into_iter().collect();
    let entry = fixture.edged.pods.get_mut("u-1").unwrap();
    assert_eq!(entry.due_questions(&missing, at(0)).len(), 1);
    assert_eq!(entry.due_questions(&missing, at(5)).len(), 0);
    assert_eq!(entry.due_questions(&missing, at(11)).len(), 1);
}

#[test]
fn only_a_pod_from_a_file_is_static_whatever_an_object_says() {
    let mut fixture = fixture();
    let mut json = pod_json(spec(&["a"], "Always"));
    json["metadata"]["annotations"] = json!({"kubernetes.io/config.source": "file", "kubernetes.io/config.mirror": "x"});
    fixture.put("default/pod/web", "u-1", &json);
    let file = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"own"},"spec":{"containers":[{"name":"a","image":"i:1"}]}}"#;
    let (uid, pod) = static_pods::parse(file, "own.json", "n1").unwrap();
    fixture.edged.statics.pods.insert(uid.clone(), pod);
    let mut is_static = |uid: &str| fixture.edged.begin_pass(uid).unwrap().desired.unwrap().pod.is_static;
    assert!(is_static(&uid) && !is_static("u-1"));
}

#[test]
fn a_node_takes_as_many_pods_as_it_has_places() {
    let mut fixture = fixture();
    let max = fixture.edged.shared.node_settings.pods_max;
    for n in 0..=max {
        let uid = format!("u-{n}");
        let mut json = pod_json(spec(&["a"], "Always"));
        (json["metadata"]["name"], json["metadata"]["uid"]) = (json!(format!("web{n}")), json!(uid));
        fixture.put(&format!("default/pod/web{n}"), &uid, &json);
        let desired = fixture.edged.begin_pass(&uid).unwrap().desired.unwrap();
        let refused = desired.refusal.map(|refusal| refusal.reason);
        assert_eq!(refused.as_deref(), (n == max).then_some("OutOfpods"), "{n}");
    }
}

#[test]
fn pods_from_files_keep_out_none_that_a_scheduler_sends_and_one_that_ends_keeps_out_none() {
    let mut fixture = fixture();
    let host = json!({"hostNetwork": true, "containers": [{"name": "a", "image": "i:1", "ports": [{"containerPort": 8080}]}]});
    let from_file = |name: &str| {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": host});
        static_pods::parse(&pod.to_string(), &format!("{name}.json"), "n1").unwrap()
    };
    let refusal = |fixture: &mut Fixture, uid: &str| {
        fixture.edged.begin_pass(uid).unwrap().desired.unwrap().refusal.map(|refusal| refusal.reason).unwrap_or_default()
    };
    let (first, second, third) = (from_file("first"), from_file("second"), from_file("third"));
    fixture.edged.statics.pods.insert(first.0.clone(), first.1.clone());
    assert_eq!(refusal(&mut fixture, &first.0), "");
    fixture.put("default/pod/web", "u-1", &pod_json(host.clone()));
    assert_eq!(refusal(&mut fixture, "u-1"), "", "nobody who sent it knew");
    fixture.edged.statics.pods.insert(second.0.clone(), second.1);
    assert_eq!(refusal(&mut fixture, &second.0), "NodePorts");
    // The first and the one of the scheduler go.
    fixture.edged.pods.remove("u-1");
    fixture.edged.statics.pods.remove(&first.0);
    fixture.edged.statics.ending.insert(first.0, first.1);
    fixture.edged.statics.pods.insert(third.0.clone(), third.1);
    assert_eq!(refusal(&mut fixture, &third.0), "");
}

#[test]
fn a_pod_that_is_deleted_during_a_pass_is_not_over_before_that_pass_is() {
    let mut fixture = fixture();
    let mut json = pod_json(spec(&["a"], "Always"));
    fixture.put("default/pod/web", "u-1", &json);
    fixture.edged.begin_pass("u-1").unwrap();
    json["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    fixture.put("default/pod/web", "u-1", &json);
    fixture.edged.hurry("u-1");
    assert!(fixture.edged.take_in("u-1", Some(seen([])), Troubles::new(), None).is_none(), "it may start something yet");
    let (_, report) = fixture.edged.take_in("u-1", Some(seen([])), Troubles::new(), Some(&End::default())).unwrap();
    assert_eq!(report.status.to::<serde_json::Value>().unwrap()["phase"], "Succeeded");
}

#[test]
fn a_pod_whose_file_is_back_before_its_end_is_over_begins_anew() {
    let mut fixture = fixture();
    let file = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"own"},"spec":{"containers":[{"name":"a","image":"i:1"}]}}"#;
    let (uid, pod) = static_pods::parse(file, "own.json", "n1").unwrap();
    let found = static_pods::StaticPods { pods: [(uid.clone(), pod)].into(), ..Default::default() };
    fixture.edged.statics = found.clone();
    fixture.edged.begin_pass(&uid).unwrap();
    fixture.edged.take_in(&uid, Some(seen([])), Troubles::new(), Some(&End::default()));
    fixture.edged.statics = static_pods::StaticPods::default().ending_those_of(&found, "2026-01-01T00:00:00Z");
    fixture.edged.begin_pass(&uid).unwrap();
    fixture.edged.take_in(&uid, Some(seen([])), Troubles::new(), Some(&End::default()));
    assert!(fixture.edged.pods[&uid].previous.as_ref().unwrap().is_over());
    fixture.edged.pods.get_mut(&uid).unwrap().is_busy = true;
    fixture.edged.take_static_pods(&found);
    let entry = fixture.edged.pods.get_mut(&uid).unwrap();
    assert!(entry.previous.is_none() && entry.is_dirty, "and is looked at again");
    entry.is_busy = false;
    let pass = fixture.edged.begin_pass(&uid).unwrap();
    assert!(!pass.desired.unwrap().pod.is_deleting());
}

/// Whether the pass that is under way is told to hurry.
fn is_hurried(pass: &super::super::worker::Pass) -> bool {
    use std::future::Future as _;
    let mut told = std::pin::pin!(pass.interrupt.notified());
    told.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())).is_ready()
}

#[test]
fn a_pass_is_told_when_its_pod_has_to_end_sooner_than_it_knows() {
    let mut fixture = fixture();
    let object = |grace: Option<u64>| {
        let mut json = pod_json(spec(&["a"], "Always"));
        if let Some(grace) = grace {
            json["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            json["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
        }
        json
    };
    let key = || "default/pod/web".parse().unwrap();
    fixture.put("default/pod/web", "u-1", &object(None));
    let pass = fixture.edged.begin_pass("u-1").unwrap();
    fixture.edged.hurry("u-1");
    assert!(!is_hurried(&pass), "nothing has changed");
    for (grace, want) in [(3600, true), (3600, false), (4000, false), (5, true)] {
        fixture.put("default/pod/web", "u-1", &object(Some(grace)));
        fixture.edged.hurry("u-1");
        assert_eq!(is_hurried(&pass), want, "{grace}");
    }
    // Deleted by force meanwhile.
    fixture.store.write(&actor::Fence::unfenced(), |tx| meta::delete(tx, &key())).unwrap();
    fixture.edged.forget_key("u-1");
    assert!(is_hurried(&pass));
    fixture.edged.take_in("u-1", Some(seen([running("a")])), Troubles::new(), Some(&End::default()));
    let next = fixture.edged.begin_pass("u-1").unwrap();
    assert!(next.desired.is_none() && next.grace_secs == Some(1) && !is_hurried(&next));
}

#[test]
fn another_image_does_not_wait_for_the_failure_of_the_one_before() {
    let mut fixture = fixture();
    let mut json = pod_json(spec(&["a", "b"], "Always"));
    fixture.put("default/pod/web", "u-1", &json);
    fixture.edged.begin_pass("u-1").unwrap();
    let trouble = |name: &str| (name.to_owned(), Trouble::after(None, "ErrImagePull", "no".into(), at(0)));
    let troubles = || Troubles::from([trouble("a"), trouble("b")]);
    // Changed while a pass is under way, which does not know it yet.
    json["spec"]["containers"][0]["image"] = json!("i:2");
    fixture.put("default/pod/web", "u-1", &json);
    fixture.edged.hurry("u-1");
    fixture.edged.take_in("u-1", Some(Observed::default()), troubles(), Some(&End::default()));
    let pass = fixture.edged.begin_pass("u-1").unwrap();
    assert_eq!(pass.troubles.keys().collect::<Vec<_>>(), ["b"]);
}

#[test]
fn what_was_stopped_for_another_is_remembered_until_that_comes() {
    let mut fixture = fixture();
    fixture.put("default/pod/web", "u-1", &pod_json(spec(&["a"], "OnFailure")));
    assert!(fixture.edged.begin_pass("u-1").unwrap().replaced.is_empty());
    let stopped = || Some(seen([exited("a", 0, 0, 1).replaced()]));
    fixture.edged.take_in("u-1", stopped(), Troubles::new(), Some(&End::default()));
    let pass = fixture.edged.begin_pass("u-1").unwrap();
    assert_eq!(pass.replaced.iter().collect::<Vec<_>>(), ["a-0"]);
    assert!(!fixture.edged.pods["u-1"].previous.as_ref().unwrap().is_over());
}

#[test]
fn a_machine_that_moves_tells_it_of_each_pod_and_one_without_a_network_keeps_its_address() {
    let mut fixture = fixture();
    for name in ["web", "db"] {
        fixture.put(&format!("default/pod/{name}"), name, &pod_json(spec(&["a"], "Always")));
        fixture.edged.begin_pass(name).unwrap();
        fixture.edged.take_in(name, Some(seen([running("a")])), Troubles::new(), None).unwrap();
    }
    // One that nobody has looked at yet.
    fixture.put("default/pod/late", "late", &pod_json(spec(&["a"], "Always")));
    fixture.edged.begin_pass("late").unwrap();
    let mut look = || {
        fixture.edged.locate();
        let told = fixture.meta.drain();
        let address = |message: &MetaManagerMessage| match message {
            MetaManagerMessage::PodStatus { report, .. } => report.status.to::<serde_json::Value>().unwrap()["hostIP"].as_str().unwrap().to_owned(),
            other => panic!("{other:?}"),
        };
        (told.iter().map(|message| address(message)).collect::<Vec<_>>(), fixture.edged.node.machine.address.ip.to_string())
    };
    for ip in ["10.0.0.1", "10.0.0.2", "10.0.0.3"] {
        assert_eq!(look(), (vec![ip.to_owned(); 2], ip.to_owned()));
    }
    assert_eq!(look(), (Vec::new(), "10.0.0.3".to_owned()), "there is no network");
    let edged = &fixture.edged;
    let again = Edged::new(fixture.store.clone(), edged.shared.clone(), Machine::default(), edged.config.clone(), edged.peers.clone());
    assert_eq!(again.node.machine.address.ip.to_string(), "10.0.0.3", "another incarnation begins with it");
}
