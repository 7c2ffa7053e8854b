//! Pods: what of them goes to the edge, and how the edge's status is merged into the API's.

use serde_json::{Map, Value, json};

use super::{conditions, text};

/// The merge patch that brings the API's status to what the edge reports; `None` when they agree already.
///
/// Kept from the API: conditions of types that the edge does not report (`PodScheduled`, readiness gates),
/// `lastTransitionTime` of a condition whose `status` did not change, `startTime` once set, and fields that the edge does
/// not know. `message` and `reason` go when the edge no longer says them. `pod` is the whole object; the container
/// statuses are put in the order of the spec. Times without a value become `now` (RFC 3339).
///
/// Source: KubeEdge `upstream.go` updatePodStatus; Kubernetes `kubelet/status`.
pub fn status_patch(pod: &Value, reported: &Value, now: &str) -> Option<Value> {
    let none = Map::new();
    let current = pod["status"].as_object().unwrap_or(&none);
    let mut wanted = reported.as_object()?.clone();
    let condition_list = conditions::merged(&current.get("conditions").cloned().unwrap_or_default(), &reported["conditions"], now);
    if condition_list.as_array().is_some_and(|list| !list.is_empty()) {
        wanted.insert("conditions".into(), condition_list);
    }
    let started = text(current.get("startTime")).or_else(|| text(wanted.get("startTime"))).unwrap_or(now).to_owned();
    wanted.insert("startTime".into(), Value::String(started));
    sort_as_spec(&mut wanted, "containerStatuses", &pod["spec"]["containers"]);
    sort_as_spec(&mut wanted, "initContainerStatuses", &pod["spec"]["initContainers"]);
    for field in ["message", "reason"] {
        if !wanted.contains_key(field) && current.contains_key(field) {
            wanted.insert(field.into(), Value::Null);
        }
    }
    let same = |(name, value): (&String, &Value)| match current.get(name) {
        Some(before) => before == value,
        None => value.is_null(),
    };
    if wanted.iter().all(same) {
        return None;
    }
    Some(json!({ "metadata": { "uid": pod["metadata"]["uid"] }, "status": wanted }))
}

fn sort_as_spec(status: &mut Map<String, Value>, field: &str, spec: &Value) {
    let position = |name: Option<&str>| spec.as_array().and_then(|list| list.iter().position(|container| container["name"].as_str() == name));
    if let Some(list) = status.get_mut(field).and_then(Value::as_array_mut) {
        list.sort_by_cached_key(|entry| (position(entry["name"].as_str()).unwrap_or(usize::MAX), entry["name"].as_str().map(str::to_owned)));
    }
}

/// Whether the API may forget the pod: it is being deleted, the edge says that it has ended, and no container runs.
///
/// A container that never started (`waiting`) does not hold the pod: with a final phase it will not start any more.
pub fn may_go(pod: &Value, reported: &Value) -> bool {
    let ended = matches!(reported["phase"].as_str(), Some("Succeeded" | "Failed"));
    let running = |list: &Value| list.as_array().into_iter().flatten().any(|entry| !entry["state"]["running"].is_null());
    let fields = ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"];
    pod["metadata"]["deletionTimestamp"].is_string() && ended && !fields.iter().any(|field| running(&reported[*field]))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, missing_docs)] // a failed step is the test's failure

    use super::*;

    const NOW: &str = "2026-01-02T03:04:05Z";

    fn pod(status: Value) -> Value {
        json!({"metadata": {"uid": "u1"}, "spec": {"containers": [{"name": "b"}, {"name": "a"}]}, "status": status})
    }

    #[test]
    fn an_unchanged_condition_keeps_its_transition_time_and_a_changed_one_gets_the_present() {
        let pod = pod(json!({"conditions": [
            {"type": "Ready", "status": "False", "lastTransitionTime": "2020-01-01T00:00:00Z"},
            {"type": "Initialized", "status": "True", "lastTransitionTime": "2020-01-01T00:00:00Z"},
            {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2019-01-01T00:00:00Z"}]}));
        let patch = status_patch(
            &pod,
            &json!({"phase": "Running", "conditions": [
            {"type": "Ready", "status": "True"}, {"type": "Initialized", "status": "True", "lastTransitionTime": "2025-01-01T00:00:00Z"}]}),
            NOW,
        )
        .unwrap();
        assert_eq!(
            patch["status"]["conditions"],
            json!([
                {"type": "Ready", "status": "True", "lastTransitionTime": NOW},
                {"type": "Initialized", "status": "True", "lastTransitionTime": "2020-01-01T00:00:00Z"},
                {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2019-01-01T00:00:00Z"}])
        );
        assert_eq!(patch["metadata"]["uid"], "u1");
    }

    #[test]
    fn addresses_pass_through_and_the_start_time_stays() {
        let patch = status_patch(
            &pod(json!({"startTime": "2020-01-01T00:00:00Z", "qosClass": "BestEffort"})),
            &json!({"phase": "Running", "podIP": "10.1.0.2", "podIPs": [{"ip": "10.1.0.2"}], "hostIP": "10.0.0.2", "startTime": NOW}),
            NOW,
        )
        .unwrap();
        let status = &patch["status"];
        assert_eq!((status["podIP"].as_str(), status["hostIP"].as_str()), (Some("10.1.0.2"), Some("10.0.0.2")));
        assert_eq!(status["startTime"], "2020-01-01T00:00:00Z");
        assert!(status.get("qosClass").is_none());
    }

    #[test]
    fn a_message_that_the_edge_no_longer_says_goes() {
        let patch = status_patch(&pod(json!({"message": "old", "reason": "Old"})), &json!({"phase": "Running", "reason": "New"}), NOW).unwrap();
        assert_eq!((&patch["status"]["message"], &patch["status"]["reason"]), (&Value::Null, &json!("New")));
    }

    #[test]
    fn the_same_status_again_writes_nothing() {
        let reported = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
        let patch = status_patch(&pod(json!({})), &reported, NOW).unwrap();
        let stored = pod(patch["status"].clone());
        assert_eq!(status_patch(&stored, &reported, "2027-01-01T00:00:00Z"), None);
    }

    #[test]
    fn container_statuses_stand_in_the_order_of_the_spec() {
        let patch = status_patch(&pod(json!({})), &json!({"containerStatuses": [{"name": "z"}, {"name": "a"}, {"name": "b"}]}), NOW).unwrap();
        assert_eq!(patch["status"]["containerStatuses"], json!([{"name": "b"}, {"name": "a"}, {"name": "z"}]));
    }

    #[test]
    fn a_report_that_is_no_object_changes_nothing() {
        for reported in [json!(null), json!("x"), json!([1])] {
            assert_eq!(status_patch(&pod(json!({"phase": "Running"})), &reported, NOW), None);
        }
    }

    #[test]
    fn a_pod_may_go_only_when_it_is_deleted_ended_and_nothing_runs() {
        let deleted = json!({"metadata": {"deletionTimestamp": NOW}});
        let ended = json!({"phase": "Succeeded", "containerStatuses": [{"state": {"terminated": {}}}, {"state": {"waiting": {}}}]});
        assert!(may_go(&deleted, &ended));
        assert!(!may_go(&json!({"metadata": {}}), &ended));
        assert!(!may_go(&deleted, &json!({"phase": "Running", "containerStatuses": []})));
        assert!(!may_go(&deleted, &json!({"phase": "Failed", "containerStatuses": [{"state": {"running": {"startedAt": NOW}}}]})));
    }
}
