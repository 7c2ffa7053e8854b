//! What a write job can do inside the writer's transaction.

use std::sync::Arc;

use diesel::prelude::*;
use serde_json::Value;

use super::schema::{object, owner, revision};
use super::{JobError, Key, OBJECT_BYTES_MAX, OBJECTS_MAX, StoreError};
use crate::embedded::history::{Change, Event};
use crate::embedded::kind;
use crate::embedded::object::Object;
use crate::embedded::selector::Traits;
use crate::embedded::status_error::StatusError;

/// One job's view of the write transaction.
pub struct Tx<'c> {
    connection: &'c mut SqliteConnection,
    revision: i64,
    objects: i64,
    events: Vec<Event>,
    now: jiff::Timestamp,
}

impl<'c> Tx<'c> {
    pub(super) fn new(connection: &'c mut SqliteConnection, revision: i64, objects: i64) -> Self {
        Self { connection, revision, objects, events: Vec::new(), now: jiff::Timestamp::now() }
    }

    /// Revision, number of objects and events after the jobs ran.
    pub(super) fn into_parts(self) -> (i64, i64, Vec<Event>) {
        (self.revision, self.objects, self.events)
    }

    pub(super) fn writes(&self) -> usize {
        self.events.len()
    }

    pub(super) fn save_revision(&mut self) -> Result<(), StoreError> {
        diesel::update(revision::table)
            .set(revision::value.eq(self.revision))
            .execute(self.connection)
            .map_err(StoreError::query("store the revision"))?;
        Ok(())
    }

    /// The time of this transaction.
    pub fn now(&self) -> jiff::Timestamp {
        self.now
    }

    /// The object as stored, uncommitted writes of this transaction included.
    ///
    /// # Errors
    /// When the database fails or the stored text is not an object.
    pub fn get(&mut self, key: &Key) -> Result<Option<Object>, StoreError> {
        let body: Option<String> = object::table
            .filter(object::kind.eq(key.kind.plural))
            .filter(object::namespace.eq(&key.namespace))
            .filter(object::name.eq(&key.name))
            .select(object::body)
            .first(self.connection)
            .optional()
            .map_err(StoreError::query("read an object"))?;
        body.map(|body| parse(key, &body)).transpose()
    }

    /// Writes an object with a new resourceVersion and returns it as stored.
    /// `previous` is what [`Self::get`] gave, or `None` for a new object.
    ///
    /// # Errors
    /// Refused when the object is too large or there are too many.
    pub fn put(&mut self, key: &Key, mut new: Object, previous: Option<&Object>) -> Result<Object, JobError> {
        let revision = self.revision + 1;
        new.meta_mut().insert("resourceVersion".to_owned(), revision.to_string().into());
        let body = new.to_text();
        if body.len() > OBJECT_BYTES_MAX {
            return Err(StatusError::too_large(OBJECT_BYTES_MAX).into());
        }
        let id = match previous {
            Some(_) => self.update(key, revision, &body)?,
            None => self.insert(key, &new, revision, &body)?,
        };
        let owners_changed = previous.is_none_or(|previous| previous.owners() != new.owners());
        if owners_changed {
            self.set_owners(id, &new, previous.is_some())?;
        }
        self.revision = revision;
        let change = if previous.is_some() { Change::Modified } else { Change::Added };
        self.record(key, change, &new, body, previous);
        Ok(new)
    }

    fn insert(&mut self, key: &Key, new: &Object, revision: i64, body: &str) -> Result<i64, JobError> {
        if self.objects >= OBJECTS_MAX {
            let message = format!("the embedded API holds its maximum of {OBJECTS_MAX} objects; delete some first");
            return Err(StatusError::forbidden(message).into());
        }
        let id = diesel::insert_into(object::table)
            .values((
                object::kind.eq(key.kind.plural),
                object::namespace.eq(&key.namespace),
                object::name.eq(&key.name),
                object::uid.eq(new.uid()),
                object::resource_version.eq(revision),
                object::body.eq(body),
            ))
            .returning(object::id)
            .get_result(self.connection)
            .map_err(StoreError::query("insert an object"))?;
        self.objects += 1;
        Ok(id)
    }

    fn update(&mut self, key: &Key, revision: i64, body: &str) -> Result<i64, StoreError> {
        diesel::update(object::table)
            .filter(object::kind.eq(key.kind.plural))
            .filter(object::namespace.eq(&key.namespace))
            .filter(object::name.eq(&key.name))
            .set((object::resource_version.eq(revision), object::body.eq(body)))
            .returning(object::id)
            .get_result(self.connection)
            .map_err(StoreError::query("update an object"))
    }

    fn set_owners(&mut self, id: i64, new: &Object, existed: bool) -> Result<(), StoreError> {
        if existed {
            diesel::delete(owner::table.filter(owner::object.eq(id))).execute(self.connection).map_err(StoreError::query("forget owners"))?;
        }
        for uid in new.owners() {
            diesel::insert_or_ignore_into(owner::table)
                .values((owner::uid.eq(uid), owner::object.eq(id)))
                .execute(self.connection)
                .map_err(StoreError::query("store an owner"))?;
        }
        Ok(())
    }

    /// Removes an object and returns its last state, with the resourceVersion of the removal.
    ///
    /// # Errors
    /// When the database fails.
    pub fn remove(&mut self, key: &Key, mut last: Object) -> Result<Object, StoreError> {
        diesel::delete(object::table)
            .filter(object::kind.eq(key.kind.plural))
            .filter(object::namespace.eq(&key.namespace))
            .filter(object::name.eq(&key.name))
            .execute(self.connection)
            .map_err(StoreError::query("delete an object"))?;
        let previous = last.clone();
        self.revision += 1;
        self.objects -= 1;
        last.meta_mut().insert("resourceVersion".to_owned(), self.revision.to_string().into());
        let body = last.to_text();
        self.record(key, Change::Deleted, &last, body, Some(&previous));
        Ok(last)
    }

    fn record(&mut self, key: &Key, change: Change, new: &Object, body: String, previous: Option<&Object>) {
        self.events.push(Event {
            revision: self.revision,
            kind: key.kind,
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            change,
            body: Arc::from(body),
            traits: Traits::of(key.kind, new),
            previous: previous.map(|previous| Traits::of(key.kind, previous)),
        });
    }

    /// Objects that name this uid as an owner.
    ///
    /// # Errors
    /// When the database fails.
    pub fn dependents(&mut self, uid: &str) -> Result<Vec<Key>, StoreError> {
        let rows: Vec<(String, String, String)> = owner::table
            .inner_join(object::table)
            .filter(owner::uid.eq(uid))
            .select((object::kind, object::namespace, object::name))
            .load(self.connection)
            .map_err(StoreError::query("find dependents"))?;
        Ok(rows.into_iter().filter_map(key_of).collect())
    }

    /// Whether an object with this uid exists.
    ///
    /// # Errors
    /// When the database fails.
    pub fn uid_exists(&mut self, uid: &str) -> Result<bool, StoreError> {
        diesel::select(diesel::dsl::exists(object::table.filter(object::uid.eq(uid))))
            .get_result(self.connection)
            .map_err(StoreError::query("find an owner"))
    }
}

pub(super) fn key_of((plural, namespace, name): (String, String, String)) -> Option<Key> {
    Some(Key { kind: kind::by_plural(&plural)?, namespace, name })
}

pub(super) fn parse(key: &Key, body: &str) -> Result<Object, StoreError> {
    let value: Result<Value, _> = serde_json::from_str(body);
    value.map_err(|error| error.to_string()).and_then(Object::new).map_err(|why| StoreError::Corrupt {
        kind: key.kind.plural,
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        why,
    })
}

pub(super) fn stored_revision(connection: &mut SqliteConnection) -> Result<i64, StoreError> {
    revision::table.select(revision::value).first(connection).map_err(StoreError::query("read the revision"))
}

pub(super) fn count_objects(connection: &mut SqliteConnection) -> Result<i64, StoreError> {
    object::table.count().get_result(connection).map_err(StoreError::query("count the objects"))
}
