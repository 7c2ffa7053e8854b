//! What every object has to pass before it is stored: its metadata.

use serde_json::{Value, json};

use super::kind::{Kind, NameRule, Schema};
use super::names;
use super::object::{Object, time};
use super::status_error::{Cause, StatusError};

/// All annotations together, keys and values (Kubernetes' `TotalAnnotationSizeLimitB`).
const ANNOTATION_BYTES_MAX: usize = 256 << 10;
/// What `generateName` may have before five random characters follow.
const PREFIX_MAX: usize = 58;

/// What the client wants done about fields that the schema does not know (`fieldValidation`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// Prune them silently.
    Ignore,
    /// Prune them and say so in `Warning` headers: the default of the API.
    #[default]
    Warn,
    /// Refuse the request.
    Strict,
}

/// Checks a body against its kind: `apiVersion`, `kind`, types, unknown fields. Returns the pruned object and warnings.
///
/// # Errors
/// 400 for another kind, wrong types or, when strict, unknown fields; 422 for a custom resource that breaks its schema.
pub fn decode(kind: &Kind, mut object: Object, validation: FieldValidation) -> Result<(Object, Vec<String>), StatusError> {
    let fields = object.fields_mut();
    for (field, expected) in [("apiVersion", kind.api_version()), ("kind", kind.kind.to_owned())] {
        match fields.get(field) {
            None | Some(Value::Null) => {
                fields.insert(field.to_owned(), expected.into());
            }
            Some(Value::String(given)) if given.is_empty() || *given == expected => {
                fields.insert(field.to_owned(), expected.into());
            }
            Some(given) => {
                let given = given.as_str().map_or_else(|| given.to_string(), str::to_owned);
                return Err(StatusError::bad_request(format!("the {field} in the data ({given}) does not match the expected {field} ({expected})")));
            }
        }
    }
    // Field managers are not tracked; what a client sends back of them would only grow old.
    object.meta_mut().remove("managedFields");
    object.meta_mut().remove("selfLink");
    let name = object.name().to_owned();
    let checked = match &kind.schema {
        Schema::BuiltIn(check) => check(object.into_value()).map_err(|why| {
            StatusError::bad_request(format!("{} in version {:?} cannot be handled as a {}: {why}", kind.kind, kind.version, kind.kind))
        })?,
        Schema::Custom(definition) => definition.check(object.into_value()).map_err(|causes| StatusError::invalid(kind, &name, causes))?,
    };
    let unknown: Vec<String> = checked.unknown.iter().map(|path| format!("unknown field {path:?}")).collect();
    if validation == FieldValidation::Strict && !unknown.is_empty() {
        return Err(StatusError::bad_request(format!("strict decoding error: {}", unknown.join(", "))));
    }
    let warnings = if validation == FieldValidation::Warn { unknown } else { Vec::new() };
    let mut object = Object::new(checked.value).map_err(StatusError::bad_request)?;
    // An empty map or list of the metadata is as good as none, and a difference to nobody.
    for field in ["labels", "annotations", "finalizers", "ownerReferences"] {
        let empty = match object.meta().get(field) {
            Some(Value::Object(map)) => map.is_empty(),
            Some(Value::Array(list)) => list.is_empty(),
            _ => false,
        };
        if empty {
            object.meta_mut().remove(field);
        }
    }
    Ok((object, warnings))
}

/// Fills in the metadata of a new object: name, namespace, uid, creation time, generation.
///
/// # Errors
/// 400 when the body names another namespace or name than the path; 422 without any name.
pub fn prepare(kind: &Kind, object: &mut Object, namespace: &str, now: jiff::Timestamp) -> Result<(), StatusError> {
    if !object.resource_version().is_empty() && object.resource_version() != "0" {
        return Err(StatusError::bad_request("resourceVersion should not be set on objects to be created"));
    }
    match object.namespace() {
        "" => {}
        given if given == namespace => {}
        _ => {
            let message = "the namespace of the provided object does not match the namespace sent on the request";
            return Err(StatusError::bad_request(message));
        }
    }
    let prefix = object.meta_str("generateName").to_owned();
    if object.name().is_empty() && !prefix.is_empty() {
        let cut: String = prefix.chars().take(PREFIX_MAX).collect();
        object.meta_mut().insert("name".to_owned(), format!("{cut}{}", suffix()).into());
    }
    if object.name().is_empty() {
        let cause = Cause::required("metadata.name", "name or generateName is required");
        return Err(StatusError::invalid(kind, "", vec![cause]));
    }
    let meta = object.meta_mut();
    if kind.namespaced {
        meta.insert("namespace".to_owned(), namespace.into());
    } else {
        meta.remove("namespace");
    }
    meta.insert("uid".to_owned(), uuid::Uuid::new_v4().to_string().into());
    meta.insert("creationTimestamp".to_owned(), time(now).into());
    meta.remove("deletionTimestamp");
    meta.remove("deletionGracePeriodSeconds");
    meta.remove("resourceVersion");
    meta.remove("generation");
    if kind.generation {
        meta.insert("generation".to_owned(), json!(1));
    }
    Ok(())
}

/// Five characters that cannot spell a word, as Kubernetes chooses them.
fn suffix() -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let bytes = uuid::Uuid::new_v4().into_bytes();
    bytes.iter().take(5).map(|byte| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()])).collect()
}

/// Everything that is wrong with the metadata of an object.
pub fn metadata_causes(kind: &Kind, object: &Object) -> Vec<Cause> {
    let mut causes = Vec::new();
    let name = object.name();
    let rule = match kind.names {
        NameRule::Label => names::dns_label(name),
        NameRule::Subdomain => names::dns_subdomain(name),
    };
    if let Err(rule) = rule {
        causes.push(Cause::invalid("metadata.name", name, &rule));
    }
    if kind.namespaced
        && let Err(rule) = names::dns_label(object.namespace())
    {
        causes.push(Cause::invalid("metadata.namespace", object.namespace(), &rule));
    }
    let map = |field: &str| object.meta().get(field).and_then(Value::as_object).into_iter().flatten();
    for (key, value) in map("labels") {
        if let Err(rule) = names::label_key(key) {
            causes.push(Cause::invalid("metadata.labels", key, &rule));
        }
        match value.as_str() {
            Some(value) => {
                if let Err(rule) = names::label_value(value) {
                    causes.push(Cause::invalid("metadata.labels", value, &rule));
                }
            }
            None => causes.push(Cause::type_mismatch("metadata.labels", key, "must be a string")),
        }
    }
    let mut bytes = 0;
    for (key, value) in map("annotations") {
        // Annotation keys are compared in lower case, labels' keys are not.
        if let Err(rule) = names::label_key(&key.to_lowercase()) {
            causes.push(Cause::invalid("metadata.annotations", key, &rule));
        }
        match value.as_str() {
            Some(value) => bytes += key.len() + value.len(),
            None => causes.push(Cause::type_mismatch("metadata.annotations", key, "must be a string")),
        }
    }
    if bytes > ANNOTATION_BYTES_MAX {
        let message = format!("Too long: may not be more than {ANNOTATION_BYTES_MAX} bytes");
        causes.push(Cause { field: "metadata.annotations".to_owned(), reason: "FieldValueTooLong", message });
    }
    causes.extend(list_causes(object));
    causes
}

fn list_causes(object: &Object) -> Vec<Cause> {
    let mut causes = Vec::new();
    for finalizer in object.finalizers() {
        let text = finalizer.as_str().unwrap_or_default();
        if let Err(rule) = names::label_key(text) {
            causes.push(Cause::invalid("metadata.finalizers", text, &rule));
        }
    }
    for (index, owner) in object.list_at("/metadata/ownerReferences").iter().enumerate() {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if owner[field].as_str().is_none_or(str::is_empty) {
                causes.push(Cause::required(format!("metadata.ownerReferences[{index}].{field}"), "must not be empty"));
            }
        }
    }
    causes
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::embedded::kind;

    fn object(value: Value) -> Object {
        Object::new(value).unwrap()
    }

    fn prepared(value: Value) -> Result<Object, StatusError> {
        let mut object = object(value);
        prepare(&kind::PODS, &mut object, "default", jiff::Timestamp::UNIX_EPOCH)?;
        Ok(object)
    }

    #[test]
    fn a_new_object_gets_its_identity() {
        let pod = prepared(json!({"metadata": {"name": "p", "uid": "forged", "generation": 7}})).unwrap();
        assert_ne!(pod.uid(), "forged");
        assert_eq!(pod.meta()["creationTimestamp"], "1970-01-01T00:00:00Z");
        assert_eq!((pod.namespace(), &pod.meta()["generation"]), ("default", &json!(1)));
    }

    #[test]
    fn generate_name_appends_five_characters_and_is_cut_first() {
        let pod = prepared(json!({"metadata": {"generateName": "x".repeat(70)}})).unwrap();
        assert_eq!(pod.name().len(), 63);
        assert_eq!(prepared(json!({"metadata": {}})).unwrap_err().code(), 422);
    }

    #[test]
    fn another_namespace_than_the_paths_is_refused() {
        assert_eq!(prepared(json!({"metadata": {"name": "p", "namespace": "other"}})).unwrap_err().code(), 400);
        assert_eq!(prepared(json!({"metadata": {"name": "p", "resourceVersion": "7"}})).unwrap_err().code(), 400);
    }

    #[test]
    fn another_kind_than_the_paths_is_refused() {
        let wrong = object(json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "p"}}));
        assert_eq!(decode(&kind::PODS, wrong, FieldValidation::Warn).unwrap_err().code(), 400);
    }

    #[test]
    fn unknown_fields_are_refused_warned_of_or_dropped_as_the_client_asks() {
        let typo = || object(json!({"metadata": {"name": "c"}, "dta": {"a": "b"}}));
        assert_eq!(decode(&kind::CONFIG_MAPS, typo(), FieldValidation::Strict).unwrap_err().code(), 400);
        let (pruned, warnings) = decode(&kind::CONFIG_MAPS, typo(), FieldValidation::Warn).unwrap();
        assert_eq!(warnings, ["unknown field \"dta\""]);
        assert!(pruned.fields().get("dta").is_none());
        assert!(decode(&kind::CONFIG_MAPS, typo(), FieldValidation::Ignore).unwrap().1.is_empty());
    }

    #[test]
    fn bad_metadata_is_named_field_by_field() {
        let bad = object(json!({"metadata": {"name": "../etc", "namespace": "default", "labels": {"a b": "c", "d": "e f"},
            "annotations": {"x": "y".repeat(300 << 10)}, "finalizers": ["no spaces please"], "ownerReferences": [{"uid": "u"}]}}));
        let causes = metadata_causes(&kind::PODS, &bad);
        for field in ["metadata.name", "metadata.labels", "metadata.annotations", "metadata.finalizers", "metadata.ownerReferences[0].kind"] {
            assert!(causes.iter().any(|cause| cause.field == field), "{field}: {causes:?}");
        }
    }
}
