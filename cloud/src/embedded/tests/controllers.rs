//! What happens by itself: binding, node health, garbage.

use k8s_openapi::api::core::v1::{ConfigMap, Event, Namespace, Node, Pod};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::wait::{Condition, await_condition, conditions};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::*;

async fn create<K>(api: &Api<K>, object: Value) -> K
where
    K: kube::Resource + Clone + DeserializeOwned + serde::Serialize + std::fmt::Debug,
{
    api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap()
}

async fn becomes<K>(api: &Api<K>, name: &str, condition: impl Condition<K>) -> Option<K>
where
    K: kube::Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    await_condition(api.clone(), name, condition).await.unwrap()
}

fn node(name: &str, labels: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels},
        "status": {"conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": "2026-01-01T00:00:00Z"}]}})
}

fn pod(name: &str, spec: Value) -> Value {
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [{"name": "a", "image": "x:1"}]}});
    json_patch::merge(&mut pod["spec"], &spec);
    pod
}

fn ready_is(status: &'static str) -> impl Condition<Node> {
    move |node: Option<&Node>| {
        let conditions = node.and_then(|node| node.status.as_ref()).and_then(|status| status.conditions.as_ref());
        conditions.is_some_and(|all| all.iter().any(|one| one.type_ == "Ready" && one.status == status))
    }
}

fn roomy_node(name: &str, allocatable: Value) -> Value {
    let mut node = node(name, json!({}));
    node["status"]["allocatable"] = allocatable;
    node
}

fn asking(name: &str, memory: &str) -> Value {
    pod(name, json!({"containers": [{"name": "a", "image": "x:1", "resources": {"requests": {"memory": memory}}}]}))
}

fn bound_to(node: &'static str) -> impl Condition<Pod> {
    move |pod: Option<&Pod>| pod.and_then(|pod| pod.spec.as_ref()).is_some_and(|spec| spec.node_name.as_deref() == Some(node))
}

fn waits_with(message: &'static str) -> impl Condition<Pod> {
    move |pod: Option<&Pod>| {
        let conditions = pod.and_then(|pod| pod.status.as_ref()).and_then(|status| status.conditions.as_ref());
        conditions.is_some_and(|all| {
            let scheduled = all.iter().find(|one| one.type_ == "PodScheduled" && one.status == "False");
            scheduled.is_some_and(|one| one.reason.as_deref() == Some("Unschedulable") && one.message.as_deref() == Some(message))
        })
    }
}

#[test]
fn a_pod_that_asks_for_more_than_there_is_waits_for_a_node_that_has_it() {
    let fixture = fixture();
    block_on(async {
        let client = fixture.client().await;
        let (nodes, pods): (Api<Node>, Api<Pod>) = (Api::all(client.clone()), Api::default_namespaced(client));
        create(&nodes, roomy_node("small", json!({"cpu": "4", "memory": "2Gi", "pods": "110"}))).await;
        create(&pods, asking("p", "64Gi")).await;
        becomes(&pods, "p", waits_with("0/1 nodes are available: 1 Insufficient memory.")).await;
        create(&nodes, roomy_node("large", json!({"memory": "128Gi"}))).await;
        becomes(&pods, "p", bound_to("large")).await;
    });
}

#[test]
fn of_two_pods_for_which_there_is_room_for_one_the_other_waits_until_that_one_ends_or_is_deleted() {
    let fixture = fixture();
    block_on(async {
        let client = fixture.client().await;
        let (nodes, pods): (Api<Node>, Api<Pod>) = (Api::all(client.clone()), Api::default_namespaced(client));
        for name in ["p1", "p2", "p3"] {
            create(&pods, asking(name, "1.5Gi")).await;
            becomes(&pods, name, waits_with("0/0 nodes are available")).await;
        }
        // All three are looked at in one round.
        create(&nodes, roomy_node("edge-1", json!({"memory": "2Gi"}))).await;
        let full = "0/1 nodes are available: 1 Insufficient memory.";
        becomes(&pods, "p1", bound_to("edge-1")).await;
        becomes(&pods, "p2", waits_with(full)).await;
        becomes(&pods, "p3", waits_with(full)).await;
        pods.patch_status("p1", &PatchParams::default(), &Patch::Merge(json!({"status": {"phase": "Succeeded"}}))).await.unwrap();
        becomes(&pods, "p2", bound_to("edge-1")).await;
        // What is on its way out is still there.
        pods.delete("p2", &DeleteParams::default()).await.unwrap();
        create(&pods, asking("p4", "1.5Gi")).await;
        becomes(&pods, "p4", waits_with(full)).await;
        assert!(pods.get("p3").await.unwrap().spec.unwrap().node_name.is_none());
        pods.delete("p2", &DeleteParams::default().grace_period(0)).await.unwrap();
        becomes(&pods, "p3", bound_to("edge-1")).await;
    });
}

#[test]
fn a_pod_waits_for_its_host_port_and_for_a_place() {
    let fixture = fixture();
    block_on(async {
        let client = fixture.client().await;
        let (nodes, pods): (Api<Node>, Api<Pod>) = (Api::all(client.clone()), Api::default_namespaced(client));
        create(&nodes, roomy_node("edge-1", json!({"pods": "2"}))).await;
        let on_port = |name: &str, number: u16, more: Value| {
            let mut spec = json!({"containers": [{"name": "a", "image": "x:1", "ports": [{"containerPort": number}]}]});
            json_patch::merge(&mut spec, &more);
            pod(name, spec)
        };
        // Bound by whoever made it, and counted all the same.
        create(&pods, on_port("p1", 80, json!({"nodeName": "edge-1", "hostNetwork": true}))).await;
        create(&pods, on_port("p2", 80, json!({"hostNetwork": true}))).await;
        becomes(&pods, "p2", waits_with("0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports.")).await;
        create(&pods, on_port("p3", 80, json!({}))).await;
        becomes(&pods, "p3", bound_to("edge-1")).await;
        create(&pods, on_port("p4", 80, json!({}))).await;
        becomes(&pods, "p4", waits_with("0/1 nodes are available: 1 Too many pods.")).await;
        pods.delete("p1", &DeleteParams::default().grace_period(0)).await.unwrap();
        becomes(&pods, "p2", bound_to("edge-1")).await;
        assert!(pods.get("p4").await.unwrap().spec.unwrap().node_name.is_none());
    });
}

#[test]
fn a_pod_goes_to_a_ready_node_that_its_selector_allows_once_there_is_one() {
    let fixture = fixture();
    block_on(async {
        let client = fixture.client().await;
        let (nodes, pods): (Api<Node>, Api<Pod>) = (Api::all(client.clone()), Api::default_namespaced(client.clone()));
        create(&nodes, node("other", json!({"zone": "b"}))).await;
        create(&pods, pod("p", json!({"nodeSelector": {"zone": "a"}}))).await;
        let unschedulable = |pod: Option<&Pod>| {
            let conditions = pod.and_then(|pod| pod.status.as_ref()).and_then(|status| status.conditions.as_ref());
            conditions.is_some_and(|all| all.iter().any(|one| one.reason.as_deref() == Some("Unschedulable")))
        };
        becomes(&pods, "p", unschedulable).await;
        create(&nodes, node("edge-1", json!({"zone": "a"}))).await;
        let bound = |pod: Option<&Pod>| pod.and_then(|pod| pod.spec.as_ref()).is_some_and(|spec| spec.node_name.as_deref() == Some("edge-1"));
        becomes(&pods, "p", bound).await;
        let events: Api<Event> = Api::default_namespaced(client);
        let reasons = events.list(&ListParams::default()).await.unwrap().items.into_iter().filter_map(|event| event.reason);
        let mut reasons: Vec<String> = reasons.collect();
        reasons.sort();
        assert_eq!(reasons, ["FailedScheduling", "Scheduled"]);
    });
}

#[test]
fn pods_are_spread_over_the_nodes() {
    let fixture = fixture();
    block_on(async {
        let client = fixture.client().await;
        let (nodes, pods): (Api<Node>, Api<Pod>) = (Api::all(client.clone()), Api::default_namespaced(client));
        for name in ["a", "b"] {
            create(&nodes, node(name, json!({}))).await;
        }
        for index in 0..4 {
            let name = format!("p{index}");
            create(&pods, pod(&name, json!({}))).await;
            becomes(&pods, &name, |pod: Option<&Pod>| pod.and_then(|pod| pod.spec.as_ref()).is_some_and(|spec| spec.node_name.is_some())).await;
        }
        let on_a = pods.list(&ListParams::default().fields("spec.nodeName=a")).await.unwrap().items.len();
        assert_eq!(on_a, 2);
    });
}

#[test]
fn a_silent_node_becomes_unknown_and_ready_again_with_its_next_status() {
    let fixture = fixture_with_lease(Duration::from_millis(300));
    block_on(async {
        let nodes: Api<Node> = Api::all(fixture.client().await);
        create(&nodes, node("edge-1", json!({}))).await;
        let silent = becomes(&nodes, "edge-1", ready_is("Unknown")).await.unwrap();
        let conditions = silent.status.unwrap().conditions.unwrap();
        let ready = conditions.iter().find(|one| one.type_ == "Ready").unwrap();
        assert_eq!(ready.reason.as_deref(), Some("NodeStatusUnknown"));
        assert_eq!(ready.message.as_deref(), Some("Kubelet stopped posting node status."));
        assert_eq!(conditions.len(), 1, "a condition that the node never posts would stay unknown for ever: {conditions:?}");
        let status = json!({"status": {"conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": "2026-01-01T00:00:10Z"}]}});
        nodes.patch_status("edge-1", &PatchParams::default(), &Patch::Strategic(status)).await.unwrap();
        becomes(&nodes, "edge-1", ready_is("True")).await;
        becomes(&nodes, "edge-1", ready_is("Unknown")).await;
    });
}

#[test]
fn dependents_go_with_their_last_owner() {
    let fixture = fixture();
    block_on(async {
        let maps: Api<ConfigMap> = Api::default_namespaced(fixture.client().await);
        let owner = create(&maps, json!({"metadata": {"name": "owner"}})).await;
        let reference = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner.metadata.uid});
        let child = create(&maps, json!({"metadata": {"name": "child", "ownerReferences": [reference]}})).await;
        maps.delete("owner", &DeleteParams::default()).await.unwrap();
        becomes(&maps, "child", conditions::is_deleted(&child.metadata.uid.unwrap())).await;
    });
}

#[test]
fn a_namespace_goes_with_its_contents_and_takes_nothing_new_meanwhile() {
    let fixture = fixture();
    block_on(async {
        let client = fixture.client().await;
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let created = create(&namespaces, json!({"metadata": {"name": "shop"}})).await;
        let maps: Api<ConfigMap> = Api::namespaced(client, "shop");
        create(&maps, json!({"metadata": {"name": "a"}})).await;
        create(&maps, json!({"metadata": {"name": "held", "finalizers": ["skep.io/test"]}})).await;
        namespaces.delete("shop", &DeleteParams::default()).await.unwrap();
        let late = maps.create(&PostParams::default(), &serde_json::from_value(json!({"metadata": {"name": "late"}})).unwrap()).await;
        assert!(matches!(&late, Err(kube::Error::Api(status)) if status.code == 403), "{late:?}");
        becomes(&maps, "held", |map: Option<&ConfigMap>| map.is_some_and(|map| map.metadata.deletion_timestamp.is_some())).await;
        let release = Patch::Merge(json!({"metadata": {"finalizers": null}}));
        maps.patch("held", &PatchParams::default(), &release).await.unwrap();
        becomes(&namespaces, "shop", conditions::is_deleted(&created.metadata.uid.unwrap())).await;
    });
}

#[test]
fn a_pod_does_not_wait_for_a_node_that_is_gone() {
    let fixture = fixture();
    block_on(async {
        let client = fixture.client().await;
        let (nodes, pods): (Api<Node>, Api<Pod>) = (Api::all(client.clone()), Api::default_namespaced(client));
        create(&nodes, node("edge-1", json!({}))).await;
        let created = create(&pods, pod("p", json!({"nodeName": "edge-1"}))).await;
        pods.delete("p", &DeleteParams::default()).await.unwrap();
        assert!(pods.get("p").await.unwrap().metadata.deletion_timestamp.is_some());
        nodes.delete("edge-1", &DeleteParams::default()).await.unwrap();
        becomes(&pods, "p", conditions::is_deleted(&created.metadata.uid.unwrap())).await;
    });
}
