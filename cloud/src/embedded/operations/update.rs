//! Replace and patch, of an object's main half or of its status.

use serde_json::Value;

use super::{Written, create, get, store};
use crate::embedded::admission::{FieldValidation, decode};
use crate::embedded::defaults;
use crate::embedded::kind::{self, Kind};
use crate::embedded::object::Object;
use crate::embedded::patch::Patch;
use crate::embedded::status_error::StatusError;
use crate::embedded::store::{JobError, Key, Tx};
use crate::embedded::validate::validate;

/// Which half of an object a write is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// Everything but the status (for kinds where the status is a subresource).
    Main,
    /// The status alone.
    Status,
}

/// Metadata that clients cannot set.
const SYSTEM_FIELDS: [&str; 7] = ["name", "namespace", "uid", "creationTimestamp", "generation", "deletionTimestamp", "deletionGracePeriodSeconds"];

/// Replaces an object by one that was decoded for its kind.
///
/// # Errors
/// 404 when it does not exist, 409 when version or uid are given and different, 422 when the result is invalid.
pub fn update(tx: &mut Tx<'_>, key: &Key, new: Object, half: Half, dry_run: bool) -> Result<Written, JobError> {
    let old = get(tx, key)?;
    let object = replace(tx, key, &old, new, half, dry_run)?;
    Ok(Written { object, created: false, warnings: Vec::new() })
}

/// Patches an object; a server-side apply creates what does not exist.
///
/// # Errors
/// As [`update`], and what is wrong with the patch.
pub fn patch(tx: &mut Tx<'_>, key: &Key, patch: &Patch, half: Half, validation: FieldValidation, dry_run: bool) -> Result<Written, JobError> {
    let Some(old) = tx.get(key)? else {
        let Some(body) = patch.creates().filter(|_| half == Half::Main) else {
            return Err(StatusError::not_found(key.kind, &key.name).into());
        };
        let mut body = Object::new(body.clone()).map_err(StatusError::bad_request)?;
        check_name(key, &body)?;
        body.meta_mut().insert("name".to_owned(), key.name.as_str().into());
        let (body, warnings) = decode(key.kind, body, validation)?;
        let written = create(tx, key.kind, &key.namespace, body, dry_run)?;
        return Ok(Written { warnings, ..written });
    };
    let patched = Object::new(patch.apply(key.kind, old.value())?).map_err(StatusError::bad_request)?;
    let (patched, warnings) = decode(key.kind, patched, validation)?;
    let object = replace(tx, key, &old, patched, half, dry_run)?;
    Ok(Written { object, created: false, warnings })
}

fn check_name(key: &Key, new: &Object) -> Result<(), StatusError> {
    if !new.name().is_empty() && new.name() != key.name {
        return Err(StatusError::bad_request(format!("the name of the object ({}) does not match the name on the URL ({})", new.name(), key.name)));
    }
    if key.kind.namespaced && !new.namespace().is_empty() && new.namespace() != key.namespace {
        let message = "the namespace of the provided object does not match the namespace sent on the request";
        return Err(StatusError::bad_request(message));
    }
    Ok(())
}

fn replace(tx: &mut Tx<'_>, key: &Key, old: &Object, new: Object, half: Half, dry_run: bool) -> Result<Object, JobError> {
    check_name(key, &new)?;
    let kind = key.kind;
    if !new.resource_version().is_empty() && new.resource_version() != old.resource_version() {
        return Err(StatusError::stale(kind, &key.name).into());
    }
    if !new.uid().is_empty() && new.uid() != old.uid() {
        let why = format!("Precondition failed: UID in precondition: {}, UID in object meta: {}", new.uid(), old.uid());
        return Err(StatusError::conflict(kind, &key.name, &why).into());
    }
    let mut next = combine(kind, old, new, half);
    if half == Half::Main {
        defaults::fill(kind, &mut next);
    }
    next.meta_mut().insert("resourceVersion".to_owned(), old.resource_version().into());
    if next == *old {
        return Ok(next);
    }
    count_generation(kind, old, &mut next);
    validate(kind, &next, Some(old))?;
    let finished = next.is_deleting() && next.finalizers().is_empty() && !old.finalizers().is_empty() && !awaits_node(kind, &next);
    if finished && !dry_run {
        return Ok(tx.remove(key, next)?);
    }
    store(tx, key, next, Some(old), dry_run)
}

/// Pods and namespaces have somebody else who ends their deletion.
fn awaits_node(kind: &Kind, object: &Object) -> bool {
    let grace = object.meta().get("deletionGracePeriodSeconds").and_then(Value::as_i64).unwrap_or_default();
    *kind == kind::NAMESPACES || (*kind == kind::PODS && grace > 0)
}

/// The new object with what this half may not touch taken from the old one.
fn combine(kind: &Kind, old: &Object, new: Object, half: Half) -> Object {
    let mut next = match half {
        Half::Main => new,
        Half::Status => {
            let mut next = old.clone();
            match new.fields().get("status") {
                Some(status) => next.fields_mut().insert("status".to_owned(), status.clone()),
                None => next.fields_mut().remove("status"),
            };
            next
        }
    };
    if half == Half::Main && kind.status {
        copy(old.fields(), next.fields_mut(), "status");
    }
    for field in SYSTEM_FIELDS {
        copy(old.meta(), next.meta_mut(), field);
    }
    next
}

fn copy(from: &serde_json::Map<String, Value>, to: &mut serde_json::Map<String, Value>, field: &str) {
    match from.get(field) {
        Some(value) => to.insert(field.to_owned(), value.clone()),
        None => to.remove(field),
    };
}

fn count_generation(kind: &Kind, old: &Object, next: &mut Object) {
    if kind.generation && old.fields().get("spec") != next.fields().get("spec") {
        let generation = old.meta().get("generation").and_then(Value::as_i64).unwrap_or(1) + 1;
        next.meta_mut().insert("generation".to_owned(), generation.into());
    }
}
