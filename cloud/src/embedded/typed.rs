//! Bodies of Kubernetes' own kinds: decoded with the types of `k8s-openapi` and encoded again.
//!
//! What does not decode is refused, and what does not come back is a field that the type does not have: reported
//! when the client asked for strict validation, pruned in any case, as the real API server does.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use wire::field;

/// A body that went through its schema.
#[derive(Debug)]
pub struct Checked {
    /// The body without unknown fields.
    pub value: Value,
    /// Paths of the fields that were pruned.
    pub unknown: Vec<String>,
}

/// Decodes and encodes `value` as `T`.
///
/// # Errors
/// The field that has the wrong type, and the decoder's sentence.
pub fn check<T: DeserializeOwned + Serialize>(value: Value) -> Result<Checked, String> {
    let text = value.to_string();
    let typed: T = serde_json::from_str(&text).map_err(|error| match field::explain(&text, &error) {
        (field, words) if field.is_empty() => words,
        (field, words) => format!("{field}: {words}"),
    })?;
    let typed = serde_json::to_value(&typed).map_err(|error| error.to_string())?;
    let mut unknown = Vec::new();
    compare(&value, &typed, "", &mut unknown);
    Ok(Checked { value: typed, unknown })
}

fn compare(given: &Value, kept: &Value, path: &str, unknown: &mut Vec<String>) {
    match (given, kept) {
        (Value::Object(given), Value::Object(kept)) => {
            for (field, value) in given {
                let path = if path.is_empty() { field.clone() } else { format!("{path}.{field}") };
                match kept.get(field) {
                    Some(kept) => compare(value, kept, &path, unknown),
                    None if value.is_null() => {}
                    None => unknown.push(path),
                }
            }
        }
        (Value::Array(given), Value::Array(kept)) => {
            for (index, (given, kept)) in given.iter().zip(kept).enumerate() {
                compare(given, kept, &format!("{path}[{index}]"), unknown);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use k8s_openapi::api::core::v1::{Lifecycle, Pod, Secret};
    use serde_json::json;

    use super::*;

    #[test]
    fn a_field_that_the_type_does_not_have_is_named_with_its_path_and_pruned() {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "colour": "red"},
            "spec": {"containers": [{"name": "a", "image": "b", "imagePullPolcy": "Never"}], "hostPID": null}});
        let checked = check::<Pod>(pod).unwrap();
        assert_eq!(checked.unknown, ["metadata.colour", "spec.containers[0].imagePullPolcy"]);
        assert!(checked.value.pointer("/spec/containers/0/imagePullPolcy").is_none());
    }

    #[test]
    fn a_field_of_the_wrong_type_is_refused() {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {}, "spec": {"containers": "none"}});
        assert!(check::<Pod>(pod).unwrap_err().starts_with("spec.containers: invalid type: string \"none\""));
        let ports = json!([{"containerPort": 80}, {"containerPort": "http"}]);
        let pod = json!({"metadata": {}, "spec": {"containers": [{"name": "a", "ports": ports}]}});
        assert!(check::<Pod>(pod).unwrap_err().starts_with("spec.containers[0].ports[1].containerPort: invalid type: string \"http\""));
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {}, "data": {"a": "not base64!"}});
        assert!(check::<Secret>(secret).is_err());
        assert!(check::<Lifecycle>(json!(3)).is_err());
    }
}
