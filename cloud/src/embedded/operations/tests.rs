#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
use serde_json::{Value, json};
use tempfile::TempDir;

use super::delete::Propagation;
use super::*;
use crate::embedded::admission::{FieldValidation, decode};
use crate::embedded::patch::{MERGE, Patch, STRATEGIC};
use crate::embedded::store::Store;

struct Fixture {
    store: Store,
    _folder: TempDir,
}

fn fixture() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("cloud.db")).unwrap();
    let fixture = Fixture { store, _folder: folder };
    fixture.create(&kind::NAMESPACES, "", json!({"metadata": {"name": "default"}})).unwrap();
    fixture
}

impl Fixture {
    fn create(&self, kind: &'static Kind, namespace: &'static str, body: Value) -> Result<Object, JobError> {
        let (object, _) = decode(kind, Object::new(body).unwrap(), FieldValidation::Ignore).unwrap();
        self.store.write_blocking(move |tx| create(tx, kind, namespace, object.clone(), false)).map(|written| written.object)
    }

    fn pod(&self, name: &str, node: Option<&str>) -> Key {
        let spec = json!({"nodeName": node, "containers": [{"name": "a", "image": "x:1"}]});
        self.create(&kind::PODS, "default", json!({"metadata": {"name": name}, "spec": spec})).unwrap();
        Key::new(&kind::PODS, "default", name)
    }

    fn patch(&self, key: &Key, half: Half, content_type: &str, body: Value) -> Result<Object, JobError> {
        let (key, body) = (key.clone(), Patch::parse(key.kind, content_type, body.to_string().as_bytes()).unwrap());
        self.store.write_blocking(move |tx| patch(tx, &key, &body, half, FieldValidation::Warn, false)).map(|written| written.object)
    }

    fn delete(&self, key: &Key, options: DeleteOptions) -> Result<Deleted, JobError> {
        let key = key.clone();
        self.store.write_blocking(move |tx| delete(tx, &key, &options))
    }

    fn get(&self, key: &Key) -> Option<Object> {
        let text = self.store.read(|snapshot| snapshot.text(key)).unwrap();
        text.map(|text| Object::new(serde_json::from_str(&text).unwrap()).unwrap())
    }
}

fn code<T>(outcome: Result<T, JobError>) -> u16 {
    StatusError::from(outcome.err().unwrap()).code()
}

#[test]
fn a_name_is_taken_once_and_its_namespace_has_to_exist() {
    let fixture = fixture();
    let map = json!({"metadata": {"name": "c"}});
    fixture.create(&kind::CONFIG_MAPS, "default", map.clone()).unwrap();
    assert_eq!(code(fixture.create(&kind::CONFIG_MAPS, "default", map.clone())), 409);
    assert_eq!(code(fixture.create(&kind::CONFIG_MAPS, "nowhere", map)), 404);
}

#[test]
fn a_write_decided_on_an_older_version_is_refused() {
    let fixture = fixture();
    let key = fixture.pod("p", None);
    let old = fixture.get(&key).unwrap();
    fixture.patch(&key, Half::Main, MERGE, json!({"metadata": {"labels": {"a": "b"}}})).unwrap();
    let again = key.clone();
    let stale = fixture.store.write_blocking(move |tx| update(tx, &again, old.clone(), Half::Main, false));
    assert_eq!(code(stale), 409);
    assert_eq!(code(fixture.patch(&key, Half::Main, MERGE, json!({"metadata": {"uid": "another"}}))), 409);
}

#[test]
fn each_half_of_an_object_leaves_the_other_alone() {
    let fixture = fixture();
    let key = fixture.pod("p", None);
    let both = json!({"spec": {"containers": [{"name": "a", "image": "x:2"}]}, "status": {"phase": "Running"}});
    let main = fixture.patch(&key, Half::Main, STRATEGIC, both.clone()).unwrap();
    assert_eq!((main.str_at("/status/phase"), main.str_at("/spec/containers/0/image")), ("Pending", "x:2"));
    assert_eq!(main.meta()["generation"], 2);
    let key = fixture.pod("q", None);
    let status = fixture.patch(&key, Half::Status, STRATEGIC, both).unwrap();
    assert_eq!((status.str_at("/status/phase"), status.str_at("/spec/containers/0/image")), ("Running", "x:1"));
    assert_eq!(status.meta()["generation"], 1);
}

#[test]
fn a_write_that_changes_nothing_makes_no_version() {
    let fixture = fixture();
    let key = fixture.pod("p", None);
    let before = fixture.get(&key);
    fixture.patch(&key, Half::Main, MERGE, json!({"spec": {"restartPolicy": "Always"}})).unwrap();
    assert_eq!(fixture.get(&key), before);
}

#[test]
fn a_bound_pod_waits_for_its_node_and_an_unbound_one_goes_at_once() {
    let fixture = fixture();
    let unbound = fixture.pod("u", None);
    assert!(matches!(fixture.delete(&unbound, DeleteOptions::default()).unwrap(), Deleted::Gone(_)));
    let bound = fixture.pod("b", Some("edge-1"));
    let Deleted::Marked(marked) = fixture.delete(&bound, DeleteOptions::default()).unwrap() else { panic!("it waits for the node") };
    assert_eq!(marked.meta()["deletionGracePeriodSeconds"], 30);
    let longer = DeleteOptions { grace_secs: Some(60), ..DeleteOptions::default() };
    let Deleted::Marked(same) = fixture.delete(&bound, longer).unwrap() else { panic!("it still waits") };
    assert_eq!(same.resource_version(), marked.resource_version());
    let now = DeleteOptions { grace_secs: Some(0), ..DeleteOptions::default() };
    assert!(matches!(fixture.delete(&bound, now).unwrap(), Deleted::Gone(_)));
    assert!(fixture.get(&bound).is_none());
}

#[test]
fn a_pod_with_an_endless_grace_can_still_be_deleted() {
    let fixture = fixture();
    let key = fixture.pod("p", Some("edge-1"));
    let endless = DeleteOptions { grace_secs: Some(i64::MAX), ..DeleteOptions::default() };
    assert!(matches!(fixture.delete(&key, endless), Ok(Deleted::Marked(_))));
    let spec = json!({"nodeName": "edge-1", "terminationGracePeriodSeconds": i64::MAX, "containers": [{"name": "a", "image": "x:1"}]});
    fixture.create(&kind::PODS, "default", json!({"metadata": {"name": "q"}, "spec": spec})).unwrap();
    assert!(matches!(fixture.delete(&Key::new(&kind::PODS, "default", "q"), DeleteOptions::default()), Ok(Deleted::Marked(_))));
}

#[test]
fn preconditions_protect_another_incarnation() {
    let fixture = fixture();
    let key = fixture.pod("p", None);
    let other = DeleteOptions { uid: Some("another".to_owned()), ..DeleteOptions::default() };
    assert_eq!(code(fixture.delete(&key, other)), 409);
    assert!(fixture.get(&key).is_some());
}

#[test]
fn finalizers_hold_an_object_until_the_last_one_is_gone() {
    let fixture = fixture();
    fixture.create(&kind::CONFIG_MAPS, "default", json!({"metadata": {"name": "c", "finalizers": ["skep.io/x"]}})).unwrap();
    let key = Key::new(&kind::CONFIG_MAPS, "default", "c");
    assert!(matches!(fixture.delete(&key, DeleteOptions::default()).unwrap(), Deleted::Marked(_)));
    assert!(fixture.get(&key).unwrap().is_deleting());
    fixture.patch(&key, Half::Main, MERGE, json!({"metadata": {"finalizers": null}})).unwrap();
    assert!(fixture.get(&key).is_none());
}

#[test]
fn orphaning_takes_the_owner_out_of_its_dependents() {
    let fixture = fixture();
    let owner = fixture.create(&kind::CONFIG_MAPS, "default", json!({"metadata": {"name": "o"}})).unwrap();
    let reference = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "o", "uid": owner.uid()}]);
    fixture.create(&kind::CONFIG_MAPS, "default", json!({"metadata": {"name": "d", "ownerReferences": reference}})).unwrap();
    let orphan = DeleteOptions { propagation: Propagation::Orphan, ..DeleteOptions::default() };
    fixture.delete(&Key::new(&kind::CONFIG_MAPS, "default", "o"), orphan).unwrap();
    assert!(fixture.get(&Key::new(&kind::CONFIG_MAPS, "default", "d")).unwrap().owners().is_empty());
}

#[test]
fn the_namespaces_of_the_start_cannot_be_deleted() {
    let fixture = fixture();
    assert_eq!(code(fixture.delete(&Key::new(&kind::NAMESPACES, "", "default"), DeleteOptions::default())), 403);
}

#[test]
fn a_pod_is_bound_once() {
    let fixture = fixture();
    let key = fixture.pod("p", None);
    let bind_to = |node: &'static str| {
        let key = key.clone();
        fixture.store.write_blocking(move |tx| bind(tx, &key, node, false))
    };
    let bound = bind_to("edge-1").unwrap();
    assert_eq!(bound.value()["status"]["conditions"][0]["type"], "PodScheduled");
    assert_eq!(code(bind_to("edge-2")), 409);
}

#[test]
fn a_dry_run_answers_and_writes_nothing() {
    let fixture = fixture();
    let object = Object::new(json!({"metadata": {"name": "c"}})).unwrap();
    let written = fixture.store.write_blocking(move |tx| create(tx, &kind::CONFIG_MAPS, "default", object.clone(), true)).unwrap();
    assert!(written.created && !written.object.uid().is_empty());
    assert!(fixture.get(&Key::new(&kind::CONFIG_MAPS, "default", "c")).is_none());
}

#[test]
fn a_patch_of_the_wrong_type_is_refused_and_the_object_stays() {
    let fixture = fixture();
    let key = fixture.pod("p", None);
    let before = fixture.get(&key);
    for body in [json!({"spec": {"containers": "none"}}), json!({"metadata": {"labels": [1]}}), json!({"metadata": 3}), json!({"spec": null})] {
        let code = code(fixture.patch(&key, Half::Main, MERGE, body.clone()));
        assert!(code == 400 || code == 422, "{code} for {body}");
    }
    assert_eq!(fixture.get(&key), before);
}
