//! Nodes: which of them are edge nodes, how one registers, how its status is written.

use serde_json::{Map, Value, json};

use super::conditions;

/// The label that makes a node an edge node (value: empty, as KubeEdge has it).
pub const EDGE_LABEL: &str = "node-role.kubernetes.io/edge";

/// Domains of labels that a node may set on itself (Kubernetes, NodeRestriction), beside labels outside `kubernetes.io`.
const OWN_LABELS: [&str; 9] = [
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "node.kubernetes.io/instance-type",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
    "node-role.kubernetes.io/agent",
];

/// Whether a node may set this label on itself: a stolen certificate must not draw pods of a protected group.
fn is_own_label(label: &str) -> bool {
    let domain = label.split_once('/').map_or("", |(domain, _)| domain);
    let reserved = domain == "kubernetes.io" || domain.ends_with(".kubernetes.io") || domain == "k8s.io" || domain.ends_with(".k8s.io");
    let delegated = |suffix: &str| domain == suffix || domain.strip_suffix(suffix).is_some_and(|rest| rest.ends_with('.'));
    label == EDGE_LABEL || OWN_LABELS.contains(&label) || delegated("kubelet.kubernetes.io") || delegated("node.kubernetes.io") || !reserved
}

fn labels_of(registered: &Value) -> Map<String, Value> {
    let mut labels: Map<String, Value> = registered["metadata"]["labels"]
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(label, value)| value.is_string() && is_own_label(label))
        .map(|(label, value)| (label.clone(), value.clone()))
        .collect();
    labels.insert(EDGE_LABEL.into(), Value::String(String::new()));
    labels
}

/// The Node object to create for a node that registers for the first time: its labels, annotations, taints and status,
/// under the name that its certificate proves.
pub fn registration(name: &str, registered: &Value) -> Value {
    let mut node = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": { "name": name, "labels": labels_of(registered) },
        "spec": {},
    });
    if registered["metadata"]["annotations"].is_object() {
        node["metadata"]["annotations"] = registered["metadata"]["annotations"].clone();
    }
    for field in ["taints", "podCIDR", "podCIDRs", "providerID"] {
        if !registered["spec"][field].is_null() {
            node["spec"][field] = registered["spec"][field].clone();
        }
    }
    if registered["status"].is_object() {
        node["status"] = registered["status"].clone();
    }
    node
}

/// The merge patch that adds the registered labels to an existing Node; `None` when it has them all.
///
/// Everything else of the Node (taints, unschedulable, the operator's labels) stays the operator's.
pub fn label_patch(existing: &Value, registered: &Value) -> Option<Value> {
    let labels: Map<String, Value> =
        labels_of(registered).into_iter().filter(|(label, value)| existing["metadata"]["labels"][label] != *value).collect();
    (!labels.is_empty()).then(|| json!({ "metadata": { "labels": labels } }))
}

/// The merge patch that makes the reported status the Node's status.
///
/// Quantities that are no longer reported go; conditions of other types, `volumesAttached` and fields that the edge does
/// not report stay. `lastHeartbeatTime` is the reported one, else `now`; `lastTransitionTime` moves only with `status`.
pub fn status_patch(node: &Value, reported: &Value, now: &str) -> Option<Value> {
    let mut status = reported.as_object()?.clone();
    status.remove("volumesAttached");
    for field in ["capacity", "allocatable"] {
        let Some(wanted) = status.get_mut(field).and_then(Value::as_object_mut) else { continue };
        for quantity in node["status"][field].as_object().into_iter().flat_map(Map::keys) {
            wanted.entry(quantity.clone()).or_insert(Value::Null);
        }
    }
    let mut list = conditions::merged(&node["status"]["conditions"], &reported["conditions"], now);
    let reported_types: Vec<&str> =
        reported["conditions"].as_array().into_iter().flatten().filter_map(|condition| condition["type"].as_str()).collect();
    for condition in list.as_array_mut().into_iter().flatten() {
        if condition["type"].as_str().is_some_and(|kind| reported_types.contains(&kind)) && !condition["lastHeartbeatTime"].is_string() {
            condition["lastHeartbeatTime"] = Value::String(now.to_owned());
        }
    }
    if list.as_array().is_some_and(|list| !list.is_empty()) {
        status.insert("conditions".into(), list);
    }
    Some(json!({ "status": status }))
}

/// The Lease of a node: created in `kube-node-lease` at the first renewal, owned by the Node so that it goes with it.
pub fn lease(name: &str, node_uid: Option<&str>, now_micros: &str) -> Value {
    let mut lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": { "name": name, "namespace": LEASE_NAMESPACE },
        "spec": { "holderIdentity": name, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": now_micros },
    });
    if let Some(uid) = node_uid {
        lease["metadata"]["ownerReferences"] = json!([{ "apiVersion": "v1", "kind": "Node", "name": name, "uid": uid }]);
    }
    lease
}

/// The merge patch of a renewal.
pub fn renewal(name: &str, now_micros: &str) -> Value {
    json!({ "spec": { "holderIdentity": name, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": now_micros } })
}

/// Namespace of node leases (Kubernetes).
pub const LEASE_NAMESPACE: &str = "kube-node-lease";

/// After so many seconds without a renewal a node counts as gone (Kubernetes `nodeLeaseDurationSeconds`).
pub const LEASE_SECONDS: u32 = 40;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, missing_docs)] // a failed step is the test's failure

    use super::*;

    const NOW: &str = "2026-01-02T03:04:05Z";

    #[test]
    fn a_node_registers_under_its_proven_name_with_the_edge_label() {
        let node = registration("n1", &json!({"metadata": {"name": "other", "uid": "x", "labels": {"zone": "a"}}, "status": {"phase": "Running"}}));
        assert_eq!(node["metadata"]["name"], "n1");
        assert_eq!(node["metadata"]["labels"], json!({"zone": "a", EDGE_LABEL: ""}));
        assert_eq!(node["status"]["phase"], "Running");
        assert!(node["metadata"].get("uid").is_none());
    }

    #[test]
    fn a_node_cannot_give_itself_reserved_labels() {
        let labels = json!({"node-restriction.kubernetes.io/pci": "1", "node-role.kubernetes.io/control-plane": "", "evilkubernetes.io/x": "1",
            "kubernetes.io/hostname": "h", "node.kubernetes.io/gpu": "1", "count": 3});
        let node = registration("n1", &json!({"metadata": {"labels": labels}}));
        let kept: Vec<&String> = node["metadata"]["labels"].as_object().unwrap().keys().collect();
        assert_eq!(kept, ["evilkubernetes.io/x", "kubernetes.io/hostname", "node-role.kubernetes.io/edge", "node.kubernetes.io/gpu"]);
    }

    #[test]
    fn registering_again_adds_only_what_is_missing() {
        let existing = json!({"metadata": {"labels": {EDGE_LABEL: "", "operator": "x", "zone": "b"}}});
        assert_eq!(label_patch(&existing, &json!({"metadata": {"labels": {"zone": "a"}}})), Some(json!({"metadata": {"labels": {"zone": "a"}}})));
        assert_eq!(label_patch(&existing, &json!({"metadata": {"labels": {"zone": "b"}}})), None);
        assert_eq!(label_patch(&json!({}), &json!({})), Some(json!({"metadata": {"labels": {EDGE_LABEL: ""}}})));
    }

    #[test]
    fn a_node_status_replaces_quantities_and_keeps_foreign_conditions() {
        let node = json!({"status": {"capacity": {"cpu": "4", "gpu": "1"}, "volumesAttached": [1], "conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": "2020-01-01T00:00:00Z", "lastHeartbeatTime": "2020-01-01T00:00:00Z"},
            {"type": "NetworkUnavailable", "status": "False"}]}});
        let reported = json!({"capacity": {"cpu": "2"}, "volumesAttached": [], "conditions": [{"type": "Ready", "status": "True"}]});
        let patch = status_patch(&node, &reported, NOW).unwrap();
        let status = &patch["status"];
        assert_eq!(status["capacity"], json!({"cpu": "2", "gpu": null}));
        assert!(status.get("volumesAttached").is_none());
        assert_eq!(
            status["conditions"],
            json!([{"type": "Ready", "status": "True", "lastTransitionTime": "2020-01-01T00:00:00Z", "lastHeartbeatTime": NOW},
                {"type": "NetworkUnavailable", "status": "False"}])
        );
    }

    #[test]
    fn a_lease_belongs_to_its_node_and_lasts_forty_seconds() {
        let lease = lease("n1", Some("u"), "2026-01-02T03:04:05.000000Z");
        assert_eq!(lease["spec"]["leaseDurationSeconds"], 40);
        assert_eq!(lease["metadata"]["ownerReferences"][0]["uid"], "u");
    }
}
