//! Cells of a pod's row: how kubectl sums a pod up in one word.

use serde_json::Value;

use super::age::since;
use super::columns::NONE;
use crate::embedded::object::Object;

/// `1/2`: containers that are ready, of all.
pub fn ready(pod: &Object) -> String {
    let all = pod.list_at("/spec/containers").len();
    let ready = pod.list_at("/status/containerStatuses").iter().filter(|status| is_ready(status)).count();
    format!("{ready}/{all}")
}

fn is_ready(status: &Value) -> bool {
    status["ready"] == true && status["state"]["running"].is_object()
}

/// `3 (5m ago)`: restarts of all containers, and when the last one ended.
pub fn restarts(pod: &Object, now: jiff::Timestamp) -> String {
    let statuses = pod.list_at("/status/containerStatuses");
    let restarts: i64 = statuses.iter().filter_map(|status| status["restartCount"].as_i64()).sum();
    let ended = statuses.iter().filter_map(|status| status.pointer("/lastState/terminated/finishedAt"));
    match ended.max_by_key(|at| at.as_str().unwrap_or_default().to_owned()) {
        Some(at) if restarts > 0 => format!("{restarts} ({} ago)", since(Some(at), now)),
        _ => restarts.to_string(),
    }
}

/// The reason that matters most: deletion, then init containers, then containers, then the phase.
pub fn status(pod: &Object) -> String {
    let phase = pod.str_at("/status/phase");
    let given = pod.str_at("/status/reason");
    if pod.is_deleting() && given == "NodeLost" {
        return "Unknown".to_owned();
    }
    if pod.is_deleting() && !matches!(phase, "Succeeded" | "Failed") {
        return "Terminating".to_owned();
    }
    let plain = if given.is_empty() { phase } else { given };
    initializing(pod).or_else(|| containers(pod)).unwrap_or_else(|| plain.to_owned())
}

fn initializing(pod: &Object) -> Option<String> {
    let all = pod.list_at("/spec/initContainers").len();
    for (index, status) in pod.list_at("/status/initContainerStatuses").iter().enumerate() {
        let state = &status["state"];
        if state["terminated"]["exitCode"] == 0 {
            continue;
        }
        if let Some(reason) = terminated(state) {
            return Some(format!("Init:{reason}"));
        }
        return match state["waiting"]["reason"].as_str() {
            Some(reason) if !reason.is_empty() && reason != "PodInitializing" => Some(format!("Init:{reason}")),
            _ => Some(format!("Init:{index}/{all}")),
        };
    }
    None
}

fn containers(pod: &Object) -> Option<String> {
    let statuses = pod.list_at("/status/containerStatuses");
    let mut reason = None;
    for status in statuses.iter().rev() {
        let state = &status["state"];
        let waiting = state["waiting"]["reason"].as_str().filter(|reason| !reason.is_empty()).map(str::to_owned);
        reason = waiting.or_else(|| terminated(state)).or(reason);
    }
    // One finished container beside running ones does not make a pod completed.
    if reason.as_deref() == Some("Completed") && statuses.iter().any(is_ready) {
        let ready = pod.list_at("/status/conditions").iter().any(|one| one["type"] == "Ready" && one["status"] == "True");
        return Some(if ready { "Running" } else { "NotReady" }.to_owned());
    }
    reason
}

fn terminated(state: &Value) -> Option<String> {
    let terminated = state["terminated"].as_object()?;
    match terminated.get("reason").and_then(Value::as_str) {
        Some(reason) if !reason.is_empty() => Some(reason.to_owned()),
        _ => {
            let number = |field: &str| terminated.get(field).and_then(Value::as_i64).unwrap_or_default();
            Some(match number("signal") {
                0 => format!("ExitCode:{}", number("exitCode")),
                signal => format!("Signal:{signal}"),
            })
        }
    }
}

/// `1/2` readiness gates that hold, or `<none>`.
pub fn gates(pod: &Object) -> String {
    let gates = pod.list_at("/spec/readinessGates");
    if gates.is_empty() {
        return NONE.to_owned();
    }
    let conditions = pod.list_at("/status/conditions");
    let holds = |gate: &&Value| conditions.iter().any(|one| one["type"] == gate["conditionType"] && one["status"] == "True");
    format!("{}/{}", gates.iter().filter(holds).count(), gates.len())
}
