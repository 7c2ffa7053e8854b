//! Cells of a node's row.

use serde_json::Value;

use super::columns::NONE;
use crate::embedded::object::Object;

/// `Ready`, `NotReady` or `Unknown`, with `SchedulingDisabled` behind it for a cordoned node.
pub fn status(node: &Object) -> String {
    let ready = node.list_at("/status/conditions").iter().find(|condition| condition["type"] == "Ready");
    let status = match ready.map(|ready| &ready["status"]) {
        None => "Unknown",
        Some(status) if status == "True" => "Ready",
        Some(_) => "NotReady",
    };
    let cordoned = node.value().pointer("/spec/unschedulable") == Some(&Value::Bool(true));
    if cordoned { format!("{status},SchedulingDisabled") } else { status.to_owned() }
}

/// The roles in `node-role.kubernetes.io/<role>` and `kubernetes.io/role`, sorted.
pub fn roles(node: &Object) -> String {
    let labels = node.meta().get("labels").and_then(Value::as_object);
    let mut roles: Vec<&str> = labels
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) => Some(role),
            None if key == "kubernetes.io/role" => value.as_str(),
            None => None,
        })
        .filter(|role| !role.is_empty())
        .collect();
    roles.sort_unstable();
    roles.dedup();
    if roles.is_empty() { NONE.to_owned() } else { roles.join(",") }
}

/// The first address of this type.
pub fn address<'a>(node: &'a Object, kind: &str) -> &'a str {
    let found = node.list_at("/status/addresses").iter().find(|address| address["type"] == kind);
    found.and_then(|address| address["address"].as_str()).unwrap_or(NONE)
}

/// A field of `status.nodeInfo`.
pub fn info<'a>(node: &'a Object, field: &str) -> &'a str {
    match node.str_at(&format!("/status/nodeInfo/{field}")) {
        "" => "<unknown>",
        text => text,
    }
}
