//! Table `meta`: Kubernetes objects as the cloud sent them, and what this node says of them.

use diesel::prelude::*;
use model::{Namespace, ResourceKey, ResourceKind, Timestamp};
use wire::link::HeldObject;

use super::error::{damaged, query};
use super::schema::meta::{self, dsl};
use super::{Read, StoreError, Tx};

const TABLE: &str = "meta";

/// Most objects of one node, statuses of pods included. KubeEdge has no limit; this is ours.
pub const OBJECTS_MAX: u64 = 10_000;

/// One object as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredObject {
    /// Which object.
    pub key: ResourceKey,
    /// The object as received, JSON.
    pub value: String,
    /// `metadata.uid`, if it has one.
    pub uid: Option<String>,
    /// Its version in the cloud; compared for equality, never for order.
    pub resource_version: Option<String>,
    /// When it was stored.
    pub stored_at: Timestamp,
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = meta)]
struct MetaRow {
    key: String,
    value: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    stored_at: i64,
}

impl MetaRow {
    fn into_object(self) -> Result<StoredObject, StoreError> {
        Ok(StoredObject {
            key: parse(&self.key)?,
            value: self.value.unwrap_or_default(),
            uid: self.uid,
            resource_version: self.resource_version,
            stored_at: Timestamp(self.stored_at),
        })
    }
}

fn parse(key: &str) -> Result<ResourceKey, StoreError> {
    key.parse().map_err(|error: model::resource::ResourceKeyError| damaged(TABLE, key, error))
}

/// The object of that key.
///
/// # Errors
/// [`StoreError::Query`].
pub fn get(read: &mut Read<'_>, key: &ResourceKey) -> Result<Option<StoredObject>, StoreError> {
    dsl::meta
        .find(key.to_string())
        .select(MetaRow::as_select())
        .first(read.connection)
        .optional()
        .map_err(query("read", TABLE))?
        .map(MetaRow::into_object)
        .transpose()
}

/// All objects of a kind, in one namespace or in all, by key.
///
/// # Errors
/// [`StoreError::Query`]; [`StoreError::Damaged`] for a row that cannot be understood.
pub fn list(read: &mut Read<'_>, kind: ResourceKind, namespace: Option<&Namespace>) -> Result<Vec<StoredObject>, StoreError> {
    let rows: Vec<MetaRow> = dsl::meta
        .filter(dsl::kind.eq(kind.as_str()))
        .select(MetaRow::as_select())
        .order(dsl::key)
        .load(read.connection)
        .map_err(query("list", TABLE))?;
    // A node holds a few hundred objects at most: a second index would cost more than this.
    let objects = rows.into_iter().map(MetaRow::into_object);
    objects
        .filter(|object| object.as_ref().is_ok_and(|object| namespace.is_none_or(|wanted| object.key.namespace == *wanted)) || object.is_err())
        .collect()
}

/// Which versions of which objects of these kinds are here, by key.
///
/// # Errors
/// [`StoreError::Query`]; [`StoreError::Damaged`] for a row that cannot be understood.
pub fn held(read: &mut Read<'_>, kinds: &[ResourceKind]) -> Result<Vec<HeldObject>, StoreError> {
    let kinds = kinds.iter().map(|kind| kind.as_str());
    let rows: Vec<(String, Option<String>, Option<String>)> = dsl::meta
        .filter(dsl::kind.eq_any(kinds))
        .select((dsl::key, dsl::uid, dsl::resource_version))
        .order(dsl::key)
        .load(read.connection)
        .map_err(query("list", TABLE))?;
    rows.into_iter().map(|(key, uid, resource_version)| Ok(HeldObject { resource: parse(&key)?, uid, resource_version })).collect()
}

/// How many objects there are.
///
/// # Errors
/// [`StoreError::Query`].
pub fn count(read: &mut Read<'_>) -> Result<u64, StoreError> {
    let count: i64 = dsl::meta.count().get_result(read.connection).map_err(query("count", TABLE))?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// Stores an object, in place of the one that has its key.
///
/// # Errors
/// [`StoreError::Query`].
pub fn put(tx: &mut Tx<'_>, new: &StoredObject) -> Result<(), StoreError> {
    diesel::replace_into(dsl::meta)
        .values((
            dsl::key.eq(new.key.to_string()),
            dsl::kind.eq(new.key.kind.as_str()),
            dsl::value.eq(&new.value),
            dsl::uid.eq(&new.uid),
            dsl::resource_version.eq(&new.resource_version),
            dsl::stored_at.eq(new.stored_at.millis()),
        ))
        .execute(tx.connection)
        .map_err(query("write", TABLE))?;
    Ok(())
}

/// Deletes an object; tells whether it was there.
///
/// # Errors
/// [`StoreError::Query`].
pub fn delete(tx: &mut Tx<'_>, key: &ResourceKey) -> Result<bool, StoreError> {
    let gone = diesel::delete(dsl::meta.find(key.to_string())).execute(tx.connection).map_err(query("delete", TABLE))?;
    Ok(gone > 0)
}
