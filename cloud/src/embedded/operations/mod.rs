//! What clients and controllers do with objects: read, decide, write, inside one transaction.
//!
//! Everything here runs in the store's writer and may run twice, so it decides on what the transaction shows alone.

mod bind;
mod create;
mod delete;
mod update;

use serde_json::json;

use super::kind::{self, Kind};
use super::object::Object;
use super::status_error::StatusError;
use super::store::{JobError, Key, Store, Tx};

pub use bind::{bind, set_condition};
pub use create::create;
pub use delete::{DeleteOptions, Deleted, delete};
pub use update::{Half, patch, update};

/// Namespaces that exist from the start and cannot be deleted.
pub const NAMESPACES: [&str; 4] = ["default", "kube-system", "skep", "kube-node-lease"];

/// The outcome of a write.
#[derive(Debug)]
pub struct Written {
    /// The object as stored, or as it would be stored in a dry run.
    pub object: Object,
    /// Whether it is new.
    pub created: bool,
    /// Warnings for the client.
    pub warnings: Vec<String>,
}

/// Reads an object.
///
/// # Errors
/// 404 when it does not exist.
pub fn get(tx: &mut Tx<'_>, key: &Key) -> Result<Object, JobError> {
    Ok(tx.get(key)?.ok_or_else(|| StatusError::not_found(key.kind, &key.name))?)
}

/// Creates the namespaces of the start that do not exist. Blocks.
///
/// # Errors
/// When the store fails.
pub fn create_namespaces(store: &Store) -> Result<(), JobError> {
    for name in NAMESPACES {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        let namespace = Object::new(namespace).map_err(StatusError::internal)?;
        let outcome = store.write_blocking(move |tx| create(tx, &kind::NAMESPACES, "", namespace.clone(), false).map(|_| ()));
        match outcome {
            Err(JobError::Refused(refused)) if refused.code() == 409 => {}
            other => other?,
        }
    }
    Ok(())
}

/// Writes unless this is a dry run.
fn store(tx: &mut Tx<'_>, key: &Key, object: Object, previous: Option<&Object>, dry_run: bool) -> Result<Object, JobError> {
    if dry_run { Ok(object) } else { tx.put(key, object, previous) }
}

/// Refuses new objects in a namespace that does not exist or is being deleted.
fn check_namespace(tx: &mut Tx<'_>, kind: &Kind, namespace: &str) -> Result<(), JobError> {
    if !kind.namespaced {
        return Ok(());
    }
    let found = get(tx, &Key::new(&kind::NAMESPACES, "", namespace))?;
    if found.is_deleting() {
        let message = format!("unable to create new content in namespace {namespace} because it is being terminated");
        return Err(StatusError::forbidden(message).into());
    }
    Ok(())
}

#[cfg(test)]
mod tests;
