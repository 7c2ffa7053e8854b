//! Merging lists of conditions, for nodes and pods alike.

use serde_json::Value;
use wire::RawJson;

/// Most conditions that a node or pod may report (Kubernetes' own have ten at most): merging compares each with each.
const CONDITIONS_MAX: usize = 64;
/// Longest status of one object, in bytes: an API server takes no object above 1.5 MiB.
const STATUS_BYTES_MAX: usize = 1 << 20;

/// A status that is not looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StatusError {
    /// More conditions than are merged.
    #[error("a status has at most {CONDITIONS_MAX} conditions, this one has {0}")]
    Conditions(usize),
    /// Longer than is stored.
    #[error("a status has at most {STATUS_BYTES_MAX} bytes, this one has {0}")]
    Bytes(usize),
}

/// Reads a status of a node or pod, which is no longer and has no more conditions than can be merged and stored.
///
/// # Errors
/// See [`StatusError`]. What is no JSON is null.
pub fn read(said: &RawJson, status: impl Fn(&Value) -> &Value) -> Result<Value, StatusError> {
    if said.len() > STATUS_BYTES_MAX {
        return Err(StatusError::Bytes(said.len()));
    }
    let said: Value = said.to().unwrap_or_default();
    match status(&said)["conditions"].as_array().map_or(0, Vec::len) {
        count if count > CONDITIONS_MAX => Err(StatusError::Conditions(count)),
        _ => Ok(said),
    }
}

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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use serde_json::json;

    use super::*;

    #[test]
    fn a_status_is_read_up_to_what_can_be_merged_and_stored() {
        let said = |count: usize, words: usize| {
            let conditions: Vec<Value> = (0..count).map(|n| json!({"type": format!("x{n}"), "status": "True"})).collect();
            RawJson::from_value(&json!({"Status": {"conditions": conditions, "message": "w".repeat(words)}})).unwrap()
        };
        let read = |said: &RawJson| read(said, |said| &said["Status"]);
        assert_eq!(read(&said(64, 0)).unwrap()["Status"]["conditions"].as_array().unwrap().len(), 64);
        assert_eq!(read(&said(65, 0)), Err(StatusError::Conditions(65)));
        assert_eq!(read(&said(10_000, 0)), Err(StatusError::Conditions(10_000)));
        assert!(matches!(read(&said(1, 1 << 20)), Err(StatusError::Bytes(_))));
    }
}
