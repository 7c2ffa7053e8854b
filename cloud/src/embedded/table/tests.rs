#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
use serde_json::{Value, json};

use super::{RowObject, age, row};
use crate::embedded::kind::{self, Kind};
use crate::embedded::object::Object;

fn cells(kind: &Kind, object: Value) -> Vec<String> {
    let now = "2026-01-01T01:00:00Z".parse().unwrap();
    let row = row(kind, &Object::new(object).unwrap(), RowObject::None, now);
    let text = |cell: &Value| cell.as_str().map_or_else(|| cell.to_string(), str::to_owned);
    row["cells"].as_array().unwrap().iter().map(text).collect()
}

#[test]
fn ages_are_printed_as_kubectl_does() {
    for (seconds, text) in [
        (-5, "<invalid>"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (150, "2m30s"),
        (600, "10m"),
        (10_799, "179m"),
        (10_800, "3h"),
        (11_000, "3h3m"),
        (30_000, "8h"),
        (172_800, "2d"),
        (180_000, "2d2h"),
        (800_000, "9d"),
        (63_072_000, "2y"),
        (70_000_000, "2y80d"),
    ] {
        assert_eq!(age::human(seconds), text);
    }
}

#[test]
fn a_pods_status_names_what_matters_most() {
    let status = |pod: Value| cells(&kind::PODS, pod)[2].clone();
    let waiting = json!({"containerStatuses": [{"state": {"waiting": {"reason": "ImagePullBackOff"}}}], "phase": "Pending"});
    assert_eq!(status(json!({"status": {"phase": "Pending"}})), "Pending");
    assert_eq!(status(json!({"status": waiting})), "ImagePullBackOff");
    assert_eq!(status(json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "status": {"phase": "Running"}})), "Terminating");
    assert_eq!(
        status(json!({"spec": {"initContainers": [{}, {}]}, "status": {"phase": "Pending", "initContainerStatuses": [
        {"state": {"terminated": {"exitCode": 0}}}, {"state": {"running": {}}}]}})),
        "Init:1/2"
    );
    assert_eq!(status(json!({"status": {"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"exitCode": 3}}}]}})), "ExitCode:3");
    assert_eq!(
        status(json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}], "containerStatuses": [
        {"state": {"terminated": {"reason": "Completed", "exitCode": 0}}}, {"ready": true, "state": {"running": {}}}]}})),
        "Running"
    );
}

#[test]
fn a_row_has_one_cell_for_each_column_even_for_an_empty_object() {
    for kind in kind::KINDS {
        assert_eq!(cells(kind, json!({})).len(), kind.columns.len(), "{}", kind.plural);
    }
}

#[test]
fn a_nodes_row_shows_readiness_roles_and_addresses() {
    let node = json!({
        "metadata": {"name": "edge-1", "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"node-role.kubernetes.io/edge": ""}},
        "spec": {"unschedulable": true},
        "status": {"conditions": [{"type": "Ready", "status": "Unknown"}], "nodeInfo": {"kubeletVersion": "v1"},
            "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}]},
    });
    let cells = cells(&kind::NODES, node);
    assert_eq!(cells[..6], ["edge-1", "NotReady,SchedulingDisabled", "edge", "60m", "v1", "10.0.0.1"]);
}

#[test]
fn an_event_that_repeats_says_how_often() {
    let event = json!({"lastTimestamp": "2026-01-01T00:59:50Z", "firstTimestamp": "2026-01-01T00:58:20Z", "count": 3,
        "involvedObject": {"kind": "Pod", "name": "web"}, "reason": "Pulled", "type": "Normal", "message": "x\n"});
    assert_eq!(cells(&kind::EVENTS, event)[..4], ["10s (x3 over 100s)", "Normal", "Pulled", "pod/web"]);
}
