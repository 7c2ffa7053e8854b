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
