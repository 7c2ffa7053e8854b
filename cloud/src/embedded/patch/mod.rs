//! The four kinds of patch.

mod json;
mod strategic;

use serde_json::Value;

use super::kind::{Kind, Schema};
use super::status_error::StatusError;

/// A parsed patch, ready to be applied as often as the writer needs it.
#[derive(Clone, Debug)]
pub enum Patch {
    /// RFC 6902.
    Json(json_patch::Patch),
    /// RFC 7386.
    Merge(Value),
    /// Kubernetes' own: lists merge by key.
    Strategic(Value),
    /// Server-side apply, thin: a merge of what is applied. Conflicts and removal by field ownership are not done yet.
    Apply(Value),
}

/// The `Content-Type`s of patches.
pub const JSON: &str = "application/json-patch+json";
/// RFC 7386.
pub const MERGE: &str = "application/merge-patch+json";
/// Kubernetes' strategic merge patch.
pub const STRATEGIC: &str = "application/strategic-merge-patch+json";
/// Server-side apply; YAML, of which JSON is a part.
pub const APPLY: &str = "application/apply-patch+yaml";

impl Patch {
    /// Parses a body by its content type.
    ///
    /// # Errors
    /// 415 for a type that this kind does not take, 400 for a body that is not such a patch.
    pub fn parse(kind: &Kind, content_type: &str, body: &[u8]) -> Result<Self, StatusError> {
        let built_in = matches!(kind.schema, Schema::BuiltIn(_));
        match content_type {
            JSON => {
                let operations = serde_json::from_slice(body);
                Ok(Self::Json(operations.map_err(|error| StatusError::bad_request(format!("error decoding JSON patch: {error}")))?))
            }
            MERGE => Ok(Self::Merge(map(super::request::json(body)?)?)),
            STRATEGIC if built_in => Ok(Self::Strategic(map(super::request::json(body)?)?)),
            APPLY | "application/apply-patch+json" => Ok(Self::Apply(map(super::request::yaml(body)?)?)),
            _ => {
                let mut accepted = vec![JSON, MERGE];
                if built_in {
                    accepted.push(STRATEGIC);
                }
                accepted.push(APPLY);
                Err(StatusError::unsupported_media_type(format!(
                    "the body of the request was in an unknown format - accepted media types include: {}",
                    accepted.join(", ")
                )))
            }
        }
    }

    /// Whether a missing object is created from the patch: only with server-side apply.
    pub fn creates(&self) -> Option<&Value> {
        match self {
            Self::Apply(value) => Some(value),
            _ => None,
        }
    }

    /// The object after the patch.
    ///
    /// # Errors
    /// 422 when an operation of a JSON patch does not apply, 400 when a directive is malformed.
    pub fn apply(&self, kind: &Kind, object: &Value) -> Result<Value, StatusError> {
        let mut patched = object.clone();
        match self {
            Self::Json(operations) => json::apply(&mut patched, operations)?,
            Self::Merge(patch) => json_patch::merge(&mut patched, patch),
            Self::Strategic(patch) => strategic::merge(&mut patched, patch).map_err(StatusError::bad_request)?,
            Self::Apply(patch) => match kind.schema {
                Schema::BuiltIn(_) => strategic::merge(&mut patched, patch).map_err(StatusError::bad_request)?,
                Schema::Custom(_) => json_patch::merge(&mut patched, patch),
            },
        }
        Ok(patched)
    }
}

fn map(value: Value) -> Result<Value, StatusError> {
    if value.is_object() { Ok(value) } else { Err(StatusError::bad_request("the patch must be a JSON object")) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use serde_json::json;

    use super::*;
    use crate::embedded::kind;

    #[test]
    fn a_custom_resource_takes_no_strategic_patch() {
        let error = Patch::parse(&kind::DEVICE, STRATEGIC, b"{}").unwrap_err();
        assert_eq!(error.code(), 415);
        assert!(!error.to_string().contains("strategic"), "{error}");
        assert!(Patch::parse(&kind::PODS, STRATEGIC, b"{}").is_ok());
    }

    #[test]
    fn a_patch_of_the_wrong_shape_is_a_bad_request() {
        for (content_type, body) in [(JSON, "{}"), (JSON, "[{\"op\":\"jump\"}]"), (MERGE, "[]"), (MERGE, "{"), (STRATEGIC, "3"), (APPLY, "- a")] {
            assert_eq!(Patch::parse(&kind::PODS, content_type, body.as_bytes()).unwrap_err().code(), 400, "{content_type} {body}");
        }
    }

    #[test]
    fn a_json_patch_whose_test_fails_changes_nothing() {
        let body = br#"[{"op":"test","path":"/data/a","value":"x"},{"op":"remove","path":"/data/a"}]"#;
        let patch = Patch::parse(&kind::CONFIG_MAPS, JSON, body).unwrap();
        assert_eq!(patch.apply(&kind::CONFIG_MAPS, &json!({"data": {"a": "y"}})).unwrap_err().code(), 422);
        assert_eq!(patch.apply(&kind::CONFIG_MAPS, &json!({"data": {"a": "x"}})).unwrap(), json!({"data": {}}));
    }
}
