//! Merging lists of conditions, for nodes and pods alike.

use serde_json::Value;

/// The reported conditions, then those of other types that the API has.
///
/// `lastTransitionTime` is the API's while `status` is the same, else the reported one, else `now`. Entries without a
/// type are dropped; the last of several entries of one type counts.
pub fn merged(current: &Value, reported: &Value, now: &str) -> Value {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let current = list(current);
    let mut result: Vec<Value> = Vec::new();
    for mut condition in list(reported) {
        let Some(kind) = condition["type"].as_str().map(str::to_owned) else { continue };
        let before = current.iter().find(|before| before["type"] == kind.as_str());
        let kept = before.filter(|before| before["status"] == condition["status"]).and_then(|before| before["lastTransitionTime"].as_str());
        let given = condition["lastTransitionTime"].as_str();
        condition["lastTransitionTime"] = Value::String(kept.or(given).unwrap_or(now).to_owned());
        match result.iter_mut().find(|other| other["type"] == kind.as_str()) {
            Some(other) => *other = condition,
            None => result.push(condition),
        }
    }
    for before in current {
        if before["type"].is_string() && !result.iter().any(|other| other["type"] == before["type"]) {
            result.push(before);
        }
    }
    Value::Array(result)
}
