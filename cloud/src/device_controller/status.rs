//! DeviceStatus objects: what of a report goes into one, and how it is written.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};

use model::{DeviceId, PropertyName, Timestamp, TwinProperty, TwinValue as Side};
use serde_json::{Value, json};
use wire::mqtt::payload::DeviceStateReport;

use super::crd::{TwinStatus, TwinValue};
use super::state::Owner;
use crate::cluster::{self, Cluster, ClusterError, Part};

/// How often a write is tried when somebody else changed the object meanwhile.
const TRIES_MAX: usize = 4;

/// What a report says of one property.
#[derive(Clone, Debug, PartialEq)]
pub struct TwinUpdate {
    /// The property.
    pub name: PropertyName,
    /// Its sides; `None` when it was deleted.
    pub twin: Option<TwinStatus>,
}

impl TwinUpdate {
    /// What `property` means for the status. A side without a time of its own has the time of the report.
    pub fn of(name: &PropertyName, property: &TwinProperty, at: Timestamp) -> Self {
        let side = |side: &Side| {
            let time = if side.timestamp.is_known() { side.timestamp } else { at };
            let metadata = [("timestamp".to_owned(), time.to_string()), ("type".to_owned(), property.kind.to_string())];
            TwinValue { value: side.value.clone(), metadata: metadata.into() }
        };
        let twin = (!property.is_tombstone()).then(|| TwinStatus {
            property_name: name.to_string(),
            reported: property.actual.as_ref().map(side),
            observed_desired: property.expected.as_ref().map(side),
        });
        Self { name: name.clone(), twin }
    }
}

/// Everything that one batch of reports changes in one DeviceStatus.
#[derive(Clone, Debug)]
pub struct Pending {
    /// The device.
    pub owner: Owner,
    /// The changes of its twin, in the order of their arrival.
    pub twins: Vec<TwinUpdate>,
    /// Properties that the status may have; `None` when no report spoke of the twin.
    pub known: Option<BTreeSet<PropertyName>>,
    /// The last state, if there was one.
    pub state: Option<DeviceStateReport>,
}

impl Pending {
    /// Nothing yet.
    pub fn new(owner: Owner) -> Self {
        Self { owner, twins: Vec::new(), known: None, state: None }
    }

    /// The status after the changes; `current` is the object's `status`.
    ///
    /// A side that a report does not have stays. Properties that the device does not have any more go.
    pub fn merged(&self, current: &Value) -> Value {
        let mut twins: Vec<TwinStatus> = serde_json::from_value(current["twins"].clone()).unwrap_or_default();
        if let Some(known) = &self.known {
            twins.retain(|twin| known.contains(twin.property_name.as_str()));
        }
        for update in &self.twins {
            let place = twins.iter().position(|twin| twin.property_name == update.name.as_str());
            match (&update.twin, place) {
                (Some(new), Some(place)) => {
                    let old = &mut twins[place];
                    old.reported = new.reported.clone().or(old.reported.take());
                    old.observed_desired = new.observed_desired.clone().or(old.observed_desired.take());
                }
                (Some(new), None) => twins.push(new.clone()),
                (None, Some(place)) => {
                    twins.remove(place);
                }
                (None, None) => {}
            }
        }
        let mut status = json!({ "twins": twins });
        if let Some(report) = &self.state {
            status["state"] = Value::String(report.state.to_string());
            if !report.last_online.is_empty() {
                status["lastOnlineTime"] = Value::String(report.last_online.clone());
            }
        }
        status
    }
}

/// Writes DeviceStatus objects, remembering the last form of each, so that a report costs one request.
#[derive(Debug, Default)]
pub struct Writer {
    last: Mutex<HashMap<DeviceId, Value>>,
}

impl Writer {
    /// Brings one DeviceStatus up to date; creates it, owned by its Device, where there is none.
    ///
    /// # Errors
    /// The last [`ClusterError`]; nothing may be confirmed then.
    pub async fn write(&self, cluster: &Cluster, id: &DeviceId, pending: &Pending) -> Result<(), ClusterError> {
        let mut failure = ClusterError::NotFound;
        for _ in 0..TRIES_MAX {
            match self.attempt(cluster, id, pending).await {
                Err(error @ (ClusterError::Conflict(_) | ClusterError::NotFound)) => {
                    self.forget(id);
                    failure = error;
                }
                done => return done,
            }
        }
        Err(failure)
    }

    /// Forgets a device that is gone.
    pub fn forget(&self, id: &DeviceId) {
        self.lock().remove(id);
    }

    async fn attempt(&self, cluster: &Cluster, id: &DeviceId, pending: &Pending) -> Result<(), ClusterError> {
        let Owner { namespace, name, uid } = &pending.owner;
        let kind = &cluster::DEVICE_STATUS;
        let last = self.lock().get(id).cloned();
        let current = match last {
            Some(last) => last,
            None => match cluster.get(kind, Some(namespace), name).await {
                Ok(found) if is_of_another(&found, uid) => {
                    // Left over from a device of the same name; Kubernetes would collect it soon, and ours with it.
                    cluster.delete_now(kind, Some(namespace), name, found["metadata"]["uid"].as_str().unwrap_or_default()).await?;
                    cluster.create(kind, Some(namespace), &empty(&pending.owner)).await?
                }
                Ok(found) => found,
                Err(ClusterError::NotFound) => cluster.create(kind, Some(namespace), &empty(&pending.owner)).await?,
                Err(error) => return Err(error),
            },
        };
        let status = pending.merged(&current["status"]);
        let stored = if holds(&current, &status) {
            current
        } else {
            let patch = json!({ "metadata": { "resourceVersion": current["metadata"]["resourceVersion"] }, "status": status });
            let stored = cluster.patch(kind, Some(namespace), name, Part::Main, &patch).await?;
            if holds(&stored, &status) {
                stored
            } else {
                // A definition with a status subresource: the first patch changed nothing.
                cluster.patch(kind, Some(namespace), name, Part::Status, &json!({ "status": status })).await?
            }
        };
        self.lock().insert(id.clone(), stored);
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<DeviceId, Value>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn holds(object: &Value, status: &Value) -> bool {
    status.as_object().into_iter().flatten().all(|(field, value)| {
        let found = &object["status"][field];
        // The API may leave out a list that is empty.
        found == value || (found.is_null() && value.as_array().is_some_and(Vec::is_empty))
    })
}

fn is_of_another(object: &Value, uid: &str) -> bool {
    let owners = object["metadata"]["ownerReferences"].as_array();
    owners.is_some_and(|owners| owners.iter().any(|owner| owner["kind"] == "Device") && !owners.iter().any(|owner| owner["uid"] == uid))
}

fn empty(owner: &Owner) -> Value {
    let (device, status) = (&cluster::DEVICE, &cluster::DEVICE_STATUS);
    json!({
        "apiVersion": status.api_version(), "kind": status.kind,
        "metadata": {
            "namespace": owner.namespace, "name": owner.name,
            "ownerReferences": [{ "apiVersion": device.api_version(), "kind": device.kind, "name": owner.name, "uid": owner.uid,
                "controller": true, "blockOwnerDeletion": false }],
        },
        "spec": {},
    })
}
