//! Garbage: dependents without owner, contents of namespaces that are going, pods whose node is gone, old Events.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::placement::NodeFacts;
use super::{for_each, object_of};
use crate::embedded::history::{Change, Event};
use crate::embedded::kind::{self, Kind};
use crate::embedded::object::Object;
use crate::embedded::operations::{self, DeleteOptions};
use crate::embedded::store::{JobError, Key, Store, StoreError, Tx};

/// How long an Event is kept, as in Kubernetes.
const EVENT_LIFE: Duration = Duration::from_secs(3600);
/// How often old Events are looked for.
const EVENT_SWEEP: Duration = Duration::from_secs(300);

/// What there is to collect.
pub struct Collector {
    look_for_orphans: bool,
    namespaces: BTreeSet<String>,
    /// Pods that are being deleted, with their nodes.
    leaving: BTreeMap<(String, String), String>,
    next_sweep: Instant,
}

impl Default for Collector {
    fn default() -> Self {
        Self { look_for_orphans: true, namespaces: BTreeSet::new(), leaving: BTreeMap::new(), next_sweep: Instant::now() }
    }
}

impl Collector {
    /// Takes in an object that was there at the start, or one that changed.
    pub fn existing(&mut self, kind: &Kind, object: &Object) {
        if *kind == kind::NAMESPACES && object.is_deleting() {
            self.namespaces.insert(object.name().to_owned());
        } else if *kind == kind::PODS && object.is_deleting() {
            let pod = (object.namespace().to_owned(), object.name().to_owned());
            self.leaving.insert(pod, object.str_at("/spec/nodeName").to_owned());
        }
    }

    /// Takes in a change.
    pub fn observe(&mut self, event: &Event) {
        if event.change == Change::Deleted {
            self.look_for_orphans = true;
            self.leaving.remove(&(event.namespace.clone(), event.name.clone()));
            return;
        }
        self.look_for_orphans |= event.body.contains("\"ownerReferences\"") && event.change == Change::Added;
        if event.body.contains("\"deletionTimestamp\"")
            && let Some(object) = object_of(event)
        {
            self.existing(event.kind, &object);
        }
    }

    /// Collects what there is.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn act(&mut self, store: &Store, nodes: &BTreeMap<String, NodeFacts>) -> Result<(), StoreError> {
        if std::mem::take(&mut self.look_for_orphans) {
            for key in store.read_async(|snapshot| snapshot.orphans()).await? {
                done(store.write(move |tx| orphan(tx, &key)).await)?;
            }
        }
        for namespace in std::mem::take(&mut self.namespaces) {
            if !empty(store, &namespace).await? {
                self.namespaces.insert(namespace);
            }
        }
        let lost = self.leaving.iter().filter(|(_, node)| !nodes.contains_key(*node)).map(|(pod, _)| pod.clone());
        for (namespace, name) in lost.collect::<Vec<_>>() {
            let key = Key::new(&kind::PODS, &namespace, &name);
            done(store.write(move |tx| at_once(tx, &key)).await)?;
        }
        if self.next_sweep <= Instant::now() {
            self.next_sweep = Instant::now() + EVENT_SWEEP;
            sweep_events(store).await?;
        }
        Ok(())
    }
}

/// What was refused is gone already or holds on to a finalizer; its next event brings it back.
fn done(outcome: Result<(), JobError>) -> Result<(), StoreError> {
    match outcome {
        Ok(()) | Err(JobError::Refused(_)) => Ok(()),
        Err(JobError::Store(error)) => Err(error),
    }
}

/// Deletes an object when none of its owners exists any more.
fn orphan(tx: &mut Tx<'_>, key: &Key) -> Result<(), JobError> {
    let Some(object) = tx.get(key)?.filter(|object| !object.is_deleting()) else { return Ok(()) };
    for uid in object.owners() {
        if tx.uid_exists(uid)? {
            return Ok(());
        }
    }
    operations::delete(tx, key, &DeleteOptions::default())?;
    Ok(())
}

fn at_once(tx: &mut Tx<'_>, key: &Key) -> Result<(), JobError> {
    if tx.get(key)?.is_some_and(|pod| pod.is_deleting()) {
        operations::delete(tx, key, &DeleteOptions { grace_secs: Some(0), ..DeleteOptions::default() })?;
    }
    Ok(())
}

/// Deletes what a namespace holds and, when nothing is left, the namespace. Says whether it is gone.
async fn empty(store: &Store, namespace: &str) -> Result<bool, StoreError> {
    let name = namespace.to_owned();
    for key in store.read_async(move |snapshot| snapshot.in_namespace(&name)).await? {
        let delete = move |tx: &mut Tx<'_>| {
            if tx.get(&key)?.is_some_and(|object| !object.is_deleting()) {
                operations::delete(tx, &key, &DeleteOptions::default())?;
            }
            Ok(())
        };
        done(store.write(delete).await)?;
    }
    let name = namespace.to_owned();
    if !store.read_async(move |snapshot| snapshot.in_namespace(&name)).await?.is_empty() {
        return Ok(false);
    }
    let key = Key::new(&kind::NAMESPACES, "", namespace);
    let remove = move |tx: &mut Tx<'_>| {
        if let Some(last) = tx.get(&key)?.filter(Object::is_deleting) {
            tx.remove(&key, last)?;
        }
        Ok(())
    };
    done(store.write(remove).await)?;
    Ok(true)
}

/// When an Event told of something last. Of those who write them some have a wrong clock: one that is ahead would keep it for
/// ever, one that is behind not at all.
fn last_time<'a>(text_at: impl Fn(&str) -> &'a str, now: jiff::Timestamp) -> Option<jiff::Timestamp> {
    let times = ["/series/lastObservedTime", "/lastTimestamp", "/eventTime", "/metadata/creationTimestamp"];
    times.iter().filter_map(|pointer| text_at(pointer).parse().ok()).filter(|time| *time <= now).max()
}

async fn sweep_events(store: &Store) -> Result<(), StoreError> {
    let now = jiff::Timestamp::now();
    let limit = now - jiff::SignedDuration::from_secs(EVENT_LIFE.as_secs().cast_signed());
    let mut old = Vec::new();
    for_each(store, &kind::EVENTS, |event| {
        if last_time(|pointer| event.str_at(pointer), now).is_none_or(|last| last < limit) {
            old.push(Key::new(&kind::EVENTS, event.namespace(), event.name()));
        }
    })
    .await?;
    for key in old {
        let delete = move |tx: &mut Tx<'_>| operations::delete(tx, &key, &DeleteOptions::default()).map(|_| ());
        done(store.write(delete).await)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_lives_by_the_latest_of_its_times_that_has_come() {
        let now: jiff::Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
        for (last, want) in [
            ("2026-01-01T11:59:00Z", Some("2026-01-01T11:59:00Z")),
            ("9999-12-30T00:00:00Z", Some("2026-01-01T10:00:00Z")),
            ("1970-01-01T00:00:05Z", Some("2026-01-01T10:00:00Z")),
            ("soon", Some("2026-01-01T10:00:00Z")),
        ] {
            let event = json!({"lastTimestamp": last, "metadata": {"creationTimestamp": "2026-01-01T10:00:00Z"}});
            let text_at = |pointer: &str| event.pointer(pointer).and_then(serde_json::Value::as_str).unwrap_or_default();
            assert_eq!(last_time(text_at, now), want.map(|time| time.parse().unwrap()), "{last}");
        }
        assert_eq!(last_time(|_| "", now), None);
    }
}
