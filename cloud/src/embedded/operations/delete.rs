//! Delete: at once, after the finalizers, or after the node has stopped the pod.

use serde_json::{Value, json};

use super::{NAMESPACES, get, store};
use crate::embedded::kind::{self};
use crate::embedded::object::{Object, time};
use crate::embedded::status_error::StatusError;
use crate::embedded::store::{JobError, Key, Tx};

/// What becomes of an object's dependents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Propagation {
    /// They are deleted afterwards: the default, and what `Foreground` becomes here.
    #[default]
    Background,
    /// They stay and forget this owner.
    Orphan,
}

/// The client's wishes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    /// Seconds a pod gets to stop; `None` is what the pod says itself.
    pub grace_secs: Option<i64>,
    /// Delete only this incarnation.
    pub uid: Option<String>,
    /// Delete only this version.
    pub resource_version: Option<String>,
    /// What becomes of dependents.
    pub propagation: Propagation,
    /// Decide everything, write nothing.
    pub dry_run: bool,
}

impl DeleteOptions {
    /// Reads a `DeleteOptions` body (JSON) over what the query said.
    ///
    /// # Errors
    /// 400 for a propagation policy or a grace period that does not exist.
    pub fn read(mut self, body: &Value) -> Result<Self, StatusError> {
        if let Some(grace) = body["gracePeriodSeconds"].as_i64() {
            self.grace_secs = Some(grace);
        }
        match body["propagationPolicy"].as_str() {
            None | Some("" | "Background" | "Foreground") => {}
            Some("Orphan") => self.propagation = Propagation::Orphan,
            Some(other) => {
                return Err(StatusError::bad_request(format!(
                    "propagationPolicy: Unsupported value: {other:?}: supported values: \"Background\", \"Foreground\", \"Orphan\""
                )));
            }
        }
        if body["orphanDependents"] == true {
            self.propagation = Propagation::Orphan;
        }
        let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        self.uid = text(&body["preconditions"]["uid"]).or(self.uid);
        self.resource_version = text(&body["preconditions"]["resourceVersion"]).or(self.resource_version);
        self.dry_run |= body["dryRun"].as_array().is_some_and(|all| !all.is_empty());
        if self.grace_secs.is_some_and(i64::is_negative) {
            return Err(StatusError::bad_request("gracePeriodSeconds: must be greater than or equal to 0"));
        }
        Ok(self)
    }
}

/// Longest time that a pod gets to stop, in seconds: a year. The end of a longer one may be after the end of all times.
const GRACE_SECS_MAX: i64 = 365 * 86_400;

/// What a delete did.
#[derive(Debug)]
pub enum Deleted {
    /// The object is gone; this was its last state.
    Gone(Object),
    /// The object is marked and goes when its finalizers, its node or its contents allow it.
    Marked(Object),
}

/// Deletes an object or marks it for deletion.
///
/// # Errors
/// 404 when it does not exist, 409 when a precondition does not hold, 403 for a namespace that has to stay.
pub fn delete(tx: &mut Tx<'_>, key: &Key, options: &DeleteOptions) -> Result<Deleted, JobError> {
    let old = get(tx, key)?;
    check(key, &old, options)?;
    let grace = grace(key, &old, options);
    // A namespace goes when the collector has emptied it.
    let waits = grace > 0 || !old.finalizers().is_empty() || *key.kind == kind::NAMESPACES;
    if !waits {
        if options.dry_run {
            return Ok(Deleted::Gone(old));
        }
        if options.propagation == Propagation::Orphan {
            orphan_dependents(tx, old.uid())?;
        }
        return Ok(Deleted::Gone(tx.remove(key, old)?));
    }
    let old_grace = old.meta().get("deletionGracePeriodSeconds").and_then(Value::as_i64);
    // A deletion in progress can be shortened, not prolonged.
    if old.is_deleting() && old_grace.is_none_or(|old| old <= grace) {
        return Ok(Deleted::Marked(old));
    }
    let mut next = old.clone();
    let end = tx.now() + jiff::SignedDuration::from_secs(grace);
    next.meta_mut().insert("deletionTimestamp".to_owned(), time(end).into());
    next.meta_mut().insert("deletionGracePeriodSeconds".to_owned(), json!(grace));
    if *key.kind == kind::NAMESPACES {
        next.section_mut("status").insert("phase".to_owned(), "Terminating".into());
    }
    Ok(Deleted::Marked(store(tx, key, next, Some(&old), options.dry_run)?))
}

fn check(key: &Key, old: &Object, options: &DeleteOptions) -> Result<(), StatusError> {
    let differs = |what: &str, given: &Option<String>, is: &str| {
        let given = given.as_deref().filter(|given| *given != is)?;
        let why = format!("Precondition failed: {what} in precondition: {given}, {what} in object meta: {is}");
        Some(StatusError::conflict(key.kind, &key.name, &why))
    };
    let refused = differs("UID", &options.uid, old.uid());
    let refused = refused.or_else(|| differs("ResourceVersion", &options.resource_version, old.resource_version()));
    if let Some(refused) = refused {
        return Err(refused);
    }
    if *key.kind == kind::NAMESPACES && NAMESPACES.contains(&key.name.as_str()) {
        let message = format!("namespaces {:?} is forbidden: this namespace may not be deleted", key.name);
        return Err(StatusError::forbidden(message));
    }
    Ok(())
}

/// Only a pod that its node may be running gets time to stop.
fn grace(key: &Key, old: &Object, options: &DeleteOptions) -> i64 {
    let finished = matches!(old.str_at("/status/phase"), "Succeeded" | "Failed");
    if *key.kind != kind::PODS || old.str_at("/spec/nodeName").is_empty() || finished {
        return 0;
    }
    let own = old.value().pointer("/spec/terminationGracePeriodSeconds").and_then(Value::as_i64);
    options.grace_secs.or(own).unwrap_or(30).clamp(0, GRACE_SECS_MAX)
}

fn orphan_dependents(tx: &mut Tx<'_>, uid: &str) -> Result<(), JobError> {
    for key in tx.dependents(uid)? {
        let Some(old) = tx.get(&key)? else { continue };
        let mut next = old.clone();
        if let Some(Value::Array(owners)) = next.meta_mut().get_mut("ownerReferences") {
            owners.retain(|owner| owner["uid"] != uid);
        }
        tx.put(&key, next, Some(&old))?;
    }
    Ok(())
}
