//! Reads on one consistent snapshot.

use diesel::prelude::*;

use super::schema::{object, owner};
use super::{Key, StoreError, tx};
use crate::embedded::kind::Kind;

/// Committed state at one moment.
pub struct Snapshot<'c> {
    connection: &'c mut SqliteConnection,
}

/// Some objects of a list, in the order of namespace and name.
#[derive(Debug)]
pub struct Page {
    /// The revision of the snapshot that this page was read from.
    pub revision: i64,
    /// Namespace, name and JSON text of each object.
    pub items: Vec<(String, String, String)>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<(String, String)>,
}

pub(super) fn snapshot<T>(connection: &mut SqliteConnection, read: impl FnOnce(&mut Snapshot<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
    let mut outcome = None;
    let ended: Result<(), diesel::result::Error> = connection.transaction(|connection| {
        outcome = Some(read(&mut Snapshot { connection }));
        Ok(())
    });
    ended.map_err(StoreError::query("read a snapshot"))?;
    outcome.unwrap_or(Err(StoreError::Closed))
}

impl Snapshot<'_> {
    /// The revision of this snapshot.
    ///
    /// # Errors
    /// When the database fails.
    pub fn revision(&mut self) -> Result<i64, StoreError> {
        tx::stored_revision(self.connection)
    }

    /// The JSON text of an object.
    ///
    /// # Errors
    /// When the database fails.
    pub fn text(&mut self, key: &Key) -> Result<Option<String>, StoreError> {
        object::table
            .filter(object::kind.eq(key.kind.plural))
            .filter(object::namespace.eq(&key.namespace))
            .filter(object::name.eq(&key.name))
            .select(object::body)
            .first(self.connection)
            .optional()
            .map_err(StoreError::query("read an object"))
    }

    /// Up to `limit` objects of a kind (in one namespace, or in all when empty) after a position.
    ///
    /// # Errors
    /// When the database fails.
    pub fn page(&mut self, kind: &Kind, namespace: &str, after: Option<&(String, String)>, limit: usize) -> Result<Page, StoreError> {
        let revision = self.revision()?;
        let mut query = object::table
            .filter(object::kind.eq(kind.plural))
            .select((object::namespace, object::name, object::body))
            .order((object::namespace, object::name))
            .limit(i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1))
            .into_boxed();
        if !namespace.is_empty() {
            query = query.filter(object::namespace.eq(namespace.to_owned()));
        }
        if let Some((in_namespace, name)) = after {
            let same = object::namespace.eq(in_namespace.clone()).and(object::name.gt(name.clone()));
            query = query.filter(object::namespace.gt(in_namespace.clone()).or(same));
        }
        let mut items: Vec<(String, String, String)> = query.load(self.connection).map_err(StoreError::query("list objects"))?;
        let more = items.len() > limit;
        items.truncate(limit);
        let next = if more { items.last().map(|(namespace, name, _)| (namespace.clone(), name.clone())) } else { None };
        Ok(Page { revision, items, next })
    }

    /// Keys of all objects in a namespace, of every kind.
    ///
    /// # Errors
    /// When the database fails.
    pub fn in_namespace(&mut self, namespace: &str) -> Result<Vec<Key>, StoreError> {
        let rows: Vec<(String, String, String)> = object::table
            .filter(object::namespace.eq(namespace))
            .select((object::kind, object::namespace, object::name))
            .load(self.connection)
            .map_err(StoreError::query("list a namespace"))?;
        Ok(rows.into_iter().filter_map(tx::key_of).collect())
    }

    /// Keys of objects that have owners, at least one of which does not exist.
    ///
    /// # Errors
    /// When the database fails.
    pub fn orphans(&mut self) -> Result<Vec<Key>, StoreError> {
        let owners = diesel::alias!(object as owner_object);
        let rows: Vec<(String, String, String)> = owner::table
            .inner_join(object::table)
            .filter(diesel::dsl::not(diesel::dsl::exists(owners.filter(owners.field(object::uid).eq(owner::uid)).select(owners.field(object::id)))))
            .select((object::kind, object::namespace, object::name))
            .distinct()
            .load(self.connection)
            .map_err(StoreError::query("find objects without owner"))?;
        Ok(rows.into_iter().filter_map(tx::key_of).collect())
    }
}
