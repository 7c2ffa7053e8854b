#![allow(clippy::unwrap_used, missing_docs)] // a failed step is the test's failure

use model::{NodeName, ResourceKey, ResourceKind};
use serde_json::{Value, json};
use wire::hub::ObjectOperation::{self, Delete, Insert, Update};
use wire::link::{Held, HeldObject};

use super::state::{Desired, Outgoing, WATCHED};
use super::{Permission, watch};
use crate::edge_controller::resource::observed::Observed;
use crate::watching::Change;

fn read(kind: ResourceKind, object: Value) -> Observed {
    Observed::read(watch::kind(kind).unwrap(), kind, serde_json::from_value(object).unwrap()).unwrap()
}

fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

fn edge(name: &str) -> Observed {
    read(ResourceKind::Node, json!({"metadata": {"name": name, "uid": "n", "labels": {"node-role.kubernetes.io/edge": ""}}}))
}

fn pod(name: &str, on: Option<&str>, uid: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "default", "uid": uid, "resourceVersion": "1"},
        "spec": {"nodeName": on, "containers": [{"name": "c", "envFrom": [{"secretRef": {"name": "tok"}}]}],
            "volumes": [{"name": "v", "configMap": {"name": "cfg"}}]}, "status": {"phase": "Pending"}})
}

fn data(kind: ResourceKind, name: &str, value: &str) -> Observed {
    read(
        kind,
        json!({"metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}"), "resourceVersion": value}, "data": {"k": value}}),
    )
}

/// Nothing there, and that is known.
fn empty() -> Desired {
    let mut desired = Desired::default();
    for kind in WATCHED {
        assert!(desired.apply(kind, &Change::Begin).is_empty() && desired.apply(kind, &Change::Complete).is_empty());
    }
    desired
}

/// One edge node `n1`, a ConfigMap `cfg` and a Secret `tok`, nothing needed yet.
fn fixture() -> Desired {
    let mut desired = empty();
    assert!(step(&mut desired, edge("n1")).is_empty());
    assert!(step(&mut desired, data(ResourceKind::ConfigMap, "cfg", "1")).is_empty());
    assert!(step(&mut desired, data(ResourceKind::Secret, "tok", "1")).is_empty());
    desired
}

fn step(desired: &mut Desired, object: Observed) -> Vec<(String, ObjectOperation, String)> {
    told(desired.apply(object.key.kind, &Change::Applied(object)))
}

fn told(out: Vec<Outgoing>) -> Vec<(String, ObjectOperation, String)> {
    out.into_iter().map(|out| (out.node.to_string(), out.operation, out.key.to_string())).collect()
}

fn expect(entries: &[(&str, ObjectOperation, &str)]) -> Vec<(String, ObjectOperation, String)> {
    entries.iter().map(|(node, operation, key)| ((*node).to_owned(), *operation, (*key).to_owned())).collect()
}

#[test]
fn what_a_pod_needs_goes_out_before_the_pod() {
    let mut desired = fixture();
    assert_eq!(
        step(&mut desired, read(ResourceKind::Pod, pod("web", Some("n1"), "u"))),
        expect(&[("n1", Insert, "default/configmap/cfg"), ("n1", Update, "default/secret/tok"), ("n1", Insert, "default/pod/web")])
    );
    // A second pod finds them there.
    assert_eq!(step(&mut desired, read(ResourceKind::Pod, pod("web-2", Some("n1"), "u2"))), expect(&[("n1", Insert, "default/pod/web-2")]));
}

#[test]
fn a_changed_object_goes_to_the_nodes_whose_pods_need_it_and_to_no_other() {
    let mut desired = fixture();
    step(&mut desired, edge("n2"));
    step(&mut desired, read(ResourceKind::Pod, pod("web", Some("n1"), "u")));
    assert_eq!(step(&mut desired, data(ResourceKind::ConfigMap, "cfg", "2")), expect(&[("n1", Update, "default/configmap/cfg")]));
    assert_eq!(step(&mut desired, data(ResourceKind::ConfigMap, "other", "1")), []);
}

#[test]
fn a_change_of_the_status_alone_is_not_sent() {
    let mut desired = fixture();
    step(&mut desired, read(ResourceKind::Pod, pod("web", Some("n1"), "u")));
    let mut changed = pod("web", Some("n1"), "u");
    changed["status"]["phase"] = json!("Running");
    changed["metadata"]["resourceVersion"] = json!("2");
    assert_eq!(step(&mut desired, read(ResourceKind::Pod, changed)), []);
}

#[test]
fn a_graceful_deletion_is_an_update_and_the_end_is_a_delete() {
    let mut desired = fixture();
    step(&mut desired, read(ResourceKind::Pod, pod("web", Some("n1"), "u")));
    let mut deleting = pod("web", Some("n1"), "u");
    deleting["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    let deleting = read(ResourceKind::Pod, deleting);
    assert_eq!(step(&mut desired, deleting.clone()), expect(&[("n1", Update, "default/pod/web")]));
    assert_eq!(
        told(desired.apply(ResourceKind::Pod, &Change::Deleted(deleting))),
        expect(&[("n1", Delete, "default/pod/web"), ("n1", Delete, "default/configmap/cfg"), ("n1", Delete, "default/secret/tok")])
    );
}

#[test]
fn a_pod_of_another_node_that_is_no_edge_node_is_not_sent() {
    let mut desired = fixture();
    assert_eq!(step(&mut desired, read(ResourceKind::Pod, pod("web", Some("server-1"), "u"))), []);
    assert_eq!(step(&mut desired, read(ResourceKind::Pod, pod("pending", None, "u2"))), []);
    // Until it becomes one.
    assert_eq!(
        step(&mut desired, edge("server-1")),
        expect(&[("server-1", Insert, "default/configmap/cfg"), ("server-1", Update, "default/secret/tok"), ("server-1", Insert, "default/pod/web")])
    );
}

#[test]
fn a_node_that_connects_is_sent_everything_it_should_have() {
    let mut desired = fixture();
    step(&mut desired, read(ResourceKind::Pod, pod("web", Some("n1"), "u")));
    assert_eq!(
        told(desired.node_lacks(&node("n1"), Held::default())),
        expect(&[("n1", Insert, "default/configmap/cfg"), ("n1", Update, "default/secret/tok"), ("n1", Insert, "default/pod/web")])
    );
    assert_eq!(told(desired.node_lacks(&node("n2"), Held::default())), []);
}

#[test]
fn what_vanished_while_nobody_watched_is_deleted_when_the_next_list_is_complete() {
    let mut desired = fixture();
    step(&mut desired, read(ResourceKind::Pod, pod("web", Some("n1"), "u")));
    step(&mut desired, read(ResourceKind::Pod, pod("stays", Some("n1"), "u2")));
    assert_eq!(told(desired.apply(ResourceKind::Pod, &Change::Begin)), []);
    let stays = read(ResourceKind::Pod, pod("stays", Some("n1"), "u2"));
    assert_eq!(told(desired.apply(ResourceKind::Pod, &Change::Listed(stays))), []);
    assert_eq!(told(desired.apply(ResourceKind::Pod, &Change::Complete)), expect(&[("n1", Delete, "default/pod/web")]));
}

#[test]
fn a_pod_that_was_replaced_under_its_name_is_inserted_anew_and_leaves_its_old_node() {
    let mut desired = fixture();
    step(&mut desired, edge("n2"));
    step(&mut desired, read(ResourceKind::Pod, pod("web", Some("n1"), "u")));
    assert_eq!(
        step(&mut desired, read(ResourceKind::Pod, pod("web", Some("n1"), "other"))),
        expect(&[("n1", Insert, "default/pod/web")]),
        "the same node: the new object replaces the old one"
    );
    assert_eq!(
        step(&mut desired, read(ResourceKind::Pod, pod("web", Some("n2"), "third"))),
        expect(&[
            ("n1", Delete, "default/pod/web"),
            ("n2", Insert, "default/configmap/cfg"),
            ("n2", Update, "default/secret/tok"),
            ("n2", Insert, "default/pod/web"),
            ("n1", Delete, "default/configmap/cfg"),
            ("n1", Delete, "default/secret/tok"),
        ])
    );
}

#[test]
fn a_config_map_that_comes_after_its_pod_goes_out_when_it_comes() {
    let mut desired = empty();
    step(&mut desired, edge("n1"));
    assert_eq!(step(&mut desired, read(ResourceKind::Pod, pod("web", Some("n1"), "u"))), expect(&[("n1", Insert, "default/pod/web")]));
    assert_eq!(step(&mut desired, data(ResourceKind::ConfigMap, "cfg", "1")), expect(&[("n1", Insert, "default/configmap/cfg")]));
}

#[test]
fn nothing_goes_out_before_every_kind_is_listed_and_then_everything_in_order() {
    let mut desired = Desired::default();
    let listed = |desired: &mut Desired, objects: Vec<Observed>, kind| {
        let mut out = told(desired.apply(kind, &Change::Begin));
        objects.into_iter().for_each(|object| out.extend(told(desired.apply(kind, &Change::Listed(object)))));
        out.extend(told(desired.apply(kind, &Change::Complete)));
        out
    };
    // The pods come first, as they may: the watches are independent.
    assert_eq!(listed(&mut desired, vec![read(ResourceKind::Pod, pod("web", Some("n1"), "u"))], ResourceKind::Pod), []);
    assert_eq!(listed(&mut desired, vec![edge("n1")], ResourceKind::Node), []);
    assert_eq!(told(desired.node_lacks(&node("n1"), Held::default())), []);
    assert_eq!(listed(&mut desired, vec![data(ResourceKind::Secret, "tok", "1")], ResourceKind::Secret), []);
    assert_eq!(
        listed(&mut desired, vec![data(ResourceKind::ConfigMap, "cfg", "1")], ResourceKind::ConfigMap),
        expect(&[("n1", Insert, "default/configmap/cfg"), ("n1", Update, "default/secret/tok"), ("n1", Insert, "default/pod/web")])
    );
}

#[test]
fn a_node_may_read_what_its_pods_name_and_nothing_else() {
    let key = |text: &str| text.parse::<ResourceKey>().unwrap();
    let mut desired = Desired::default();
    assert_eq!(desired.may_read(&node("n1"), &key("default/secret/tok")), Permission::NotYet);
    desired.apply(ResourceKind::Pod, &Change::Begin);
    desired.apply(ResourceKind::Pod, &Change::Listed(read(ResourceKind::Pod, pod("web", Some("n1"), "u"))));
    assert_eq!(desired.may_read(&node("n1"), &key("default/secret/tok")), Permission::Granted);
    desired.apply(ResourceKind::Pod, &Change::Complete);
    assert_eq!(desired.may_read(&node("n2"), &key("default/secret/tok")), Permission::Refused);
    assert_eq!(desired.may_read(&node("n1"), &key("default/secret/other")), Permission::Refused);
    assert_eq!(desired.may_read(&node("n1"), &key("kube-system/secret/tok")), Permission::Refused);
}

fn held(objects: &[(&str, &str, &str)]) -> Held {
    let objects = objects.iter().map(|(key, uid, version)| HeldObject {
        resource: key.parse().unwrap(),
        uid: Some((*uid).to_owned()),
        resource_version: Some((*version).to_owned()),
    });
    objects.collect()
}

#[test]
fn a_node_that_says_what_it_holds_is_sent_the_difference_deletions_included() {
    let mut desired = fixture();
    step(&mut desired, read(ResourceKind::Pod, pod("web", Some("n1"), "u")));
    let same = [("default/configmap/cfg", "uid-cfg", "1"), ("default/secret/tok", "uid-tok", "1"), ("default/pod/web", "u", "1")];
    assert_eq!(told(desired.node_lacks(&node("n1"), held(&same))), [], "nothing");
    let mut other_version = same;
    other_version[0].2 = "2";
    assert_eq!(told(desired.node_lacks(&node("n1"), held(&other_version))), expect(&[("n1", Insert, "default/configmap/cfg")]));
    let mut other_object = same;
    other_object[2].1 = "earlier";
    assert_eq!(told(desired.node_lacks(&node("n1"), held(&other_object))), expect(&[("n1", Insert, "default/pod/web")]), "a uid is another object");
    let more = [same[0], same[1], same[2], ("default/configmap/old", "x", "1"), ("default/pod/gone", "y", "1")];
    let out = desired.node_lacks(&node("n1"), held(&more));
    assert_eq!(out.iter().map(|out| out.uid.as_str()).collect::<Vec<_>>(), ["y", "x"]);
    assert_eq!(told(out), expect(&[("n1", Delete, "default/pod/gone"), ("n1", Delete, "default/configmap/old")]));
}

#[test]
fn a_status_that_changed_makes_no_difference_to_a_node_that_holds_the_pod() {
    let mut desired = fixture();
    step(&mut desired, read(ResourceKind::Pod, pod("web", Some("n1"), "u")));
    let mut changed = pod("web", Some("n1"), "u");
    changed["status"]["phase"] = json!("Running");
    changed["metadata"]["resourceVersion"] = json!("2");
    assert_eq!(step(&mut desired, read(ResourceKind::Pod, changed)), []);
    let same = [("default/configmap/cfg", "uid-cfg", "1"), ("default/secret/tok", "uid-tok", "1"), ("default/pod/web", "u", "1")];
    assert_eq!(told(desired.node_lacks(&node("n1"), held(&same))), []);
}

#[test]
fn what_a_node_holds_waits_until_every_kind_is_listed_and_it_is_an_edge_node() {
    let mut desired = Desired::default();
    let surplus = [("default/pod/gone", "y", "1")];
    assert_eq!(told(desired.node_lacks(&node("n1"), held(&surplus))), []);
    assert_eq!(told(desired.node_lacks(&node("n2"), held(&surplus))), []);
    assert_eq!(told(desired.node_lacks(&node("n3"), held(&surplus))), []);
    desired.node_gone(&node("n3"));
    let mut out = Vec::new();
    for kind in WATCHED {
        out.extend(desired.apply(kind, &Change::Begin));
        for name in ["n1", "n3"].iter().filter(|_| kind == ResourceKind::Node) {
            out.extend(desired.apply(kind, &Change::Listed(edge(name))));
        }
        out.extend(desired.apply(kind, &Change::Complete));
    }
    assert_eq!(told(out), expect(&[("n1", Delete, "default/pod/gone")]));
    assert_eq!(step(&mut desired, edge("n2")), expect(&[("n2", Delete, "default/pod/gone")]));
}

#[test]
fn what_lies_in_a_namespace_that_is_not_watched_is_left_alone() {
    let mut desired = Desired::of(Some("house".parse().unwrap()));
    for kind in WATCHED {
        desired.apply(kind, &Change::Begin);
        desired.apply(kind, &Change::Complete);
    }
    assert!(step(&mut desired, edge("n1")).is_empty());
    let surplus = [("default/pod/other", "x", "1"), ("house/pod/gone", "y", "1")];
    assert_eq!(told(desired.node_lacks(&node("n1"), held(&surplus))), expect(&[("n1", Delete, "house/pod/gone")]));
}

#[test]
fn a_node_that_speaks_of_a_pod_that_is_gone_hears_what_stands_in_its_place() {
    let mut desired = fixture();
    step(&mut desired, read(ResourceKind::Pod, pod("web", Some("n1"), "u")));
    let (n1, n2, web) = (node("n1"), node("n2"), "default/pod/web".parse().unwrap());
    step(&mut desired, edge("n2"));
    assert_eq!(told(desired.node_has(&n1, &web, "u")), [], "its deletion, if it is gone, comes from the watch");
    assert_eq!(told(desired.node_has(&n1, &web, "earlier")), expect(&[("n1", Insert, "default/pod/web")]));
    assert_eq!(told(desired.node_has(&n2, &web, "u")), expect(&[("n2", Delete, "default/pod/web")]), "it is bound elsewhere");
    let gone = "default/pod/gone".parse().unwrap();
    assert_eq!(told(desired.node_has(&n1, &gone, "x")), expect(&[("n1", Delete, "default/pod/gone")]));
    let mut early = Desired::default();
    assert_eq!(told(early.node_has(&n1, &gone, "x")), [], "before everything is listed nothing is known to be gone");
    let mut out = Vec::new();
    for kind in WATCHED {
        out.extend(early.apply(kind, &Change::Begin));
        if kind == ResourceKind::Node {
            out.extend(early.apply(kind, &Change::Listed(edge("n1"))));
        }
        out.extend(early.apply(kind, &Change::Complete));
    }
    assert_eq!(told(out), expect(&[("n1", Delete, "default/pod/gone")]));
}
