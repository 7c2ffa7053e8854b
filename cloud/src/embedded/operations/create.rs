//! Create.

use super::{Written, check_namespace, store};
use crate::embedded::admission::prepare;
use crate::embedded::defaults;
use crate::embedded::kind::Kind;
use crate::embedded::object::Object;
use crate::embedded::status_error::StatusError;
use crate::embedded::store::{JobError, Key, Tx};
use crate::embedded::validate::validate;

/// Creates an object that was decoded for its kind.
///
/// # Errors
/// 404 for an unknown namespace, 409 when the name is taken, 422 when the object is invalid.
pub fn create(tx: &mut Tx<'_>, kind: &'static Kind, namespace: &str, mut object: Object, dry_run: bool) -> Result<Written, JobError> {
    prepare(kind, &mut object, namespace, tx.now())?;
    defaults::fill(kind, &mut object);
    defaults::first_status(kind, &mut object);
    validate(kind, &object, None)?;
    check_namespace(tx, kind, namespace)?;
    let key = Key::new(kind, if kind.namespaced { namespace } else { "" }, object.name());
    if tx.get(&key)?.is_some() {
        return Err(StatusError::already_exists(kind, &key.name).into());
    }
    let object = store(tx, &key, object, None, dry_run)?;
    Ok(Written { object, created: true, warnings: Vec::new() })
}
