//! Binding a pod to a node.

use serde_json::{Value, json};

use super::get;
use crate::embedded::object::{Object, time};
use crate::embedded::status_error::StatusError;
use crate::embedded::store::{JobError, Key, Tx};

/// Binds a pod to a node and marks it scheduled.
///
/// # Errors
/// 404 for an unknown pod, 409 when it is being deleted or runs elsewhere already.
pub fn bind(tx: &mut Tx<'_>, key: &Key, node: &str, dry_run: bool) -> Result<Object, JobError> {
    let old = get(tx, key)?;
    let refuse = |why: String| JobError::Refused(StatusError::conflict(key.kind, &key.name, &why));
    if old.is_deleting() {
        return Err(refuse(format!("pod {} is being deleted, cannot be assigned to a host", key.name)));
    }
    let bound = old.str_at("/spec/nodeName");
    if !bound.is_empty() {
        return Err(refuse(format!("pod {} is already assigned to node {bound:?}", key.name)));
    }
    let mut next = old.clone();
    next.section_mut("spec").insert("nodeName".to_owned(), node.into());
    let condition = json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": time(tx.now())});
    set_condition(&mut next, condition);
    super::store(tx, key, next, Some(&old), dry_run)
}

/// Puts a condition in the place of the one with the same type.
pub fn set_condition(object: &mut Object, condition: Value) {
    let conditions = object.section_mut("status").entry("conditions").or_insert_with(|| json!([]));
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    let conditions = conditions.as_array_mut().expect("made an array above");
    match conditions.iter_mut().find(|old| old["type"] == condition["type"]) {
        Some(old) => *old = condition,
        None => conditions.push(condition),
    }
}
