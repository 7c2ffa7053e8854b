//! Node health: a node that neither renews its lease nor posts its status becomes `Unknown`
//! (Kubernetes' node lifecycle controller, without evictions: an edge works on while it is cut off).
//!
//! What counts is when *this* machine saw the last change, so that a node's wrong clock does no harm.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::object_of;
use crate::embedded::history::{Change, Event};
use crate::embedded::kind::{self, Kind};
use crate::embedded::object::{Object, time};
use crate::embedded::operations;
use crate::embedded::store::{JobError, Key, Store, StoreError, Tx};

/// Where nodes keep their leases.
const LEASE_NAMESPACE: &str = "kube-node-lease";
const READY: &str = "Ready";
/// The conditions that nobody vouches for when a node is silent.
const CONDITIONS: [&str; 4] = [READY, "MemoryPressure", "DiskPressure", "PIDPressure"];

struct Health {
    lease: String,
    heartbeat: String,
    seen: Instant,
    /// The store says `Unknown`; nothing to do until the node is heard of again.
    told: bool,
}

/// What is known of the nodes' heartbeats.
pub struct Lifecycle {
    nodes: HashMap<String, Health>,
    lease_duration: Duration,
}

impl Lifecycle {
    /// Nothing known yet.
    pub fn new(lease_duration: Duration) -> Self {
        Self { nodes: HashMap::new(), lease_duration }
    }

    /// Takes in an object that was there at the start. Every node gets a full lease from now on, so that a cloud that
    /// was away does not declare its edges dead before they can reconnect.
    pub fn existing(&mut self, kind: &Kind, object: &Object) {
        if *kind == kind::NODES {
            self.node(object);
        } else if *kind == kind::LEASES && object.namespace() == LEASE_NAMESPACE {
            self.lease(object.name(), object.str_at("/spec/renewTime"));
        }
    }

    /// Takes in a change.
    pub fn observe(&mut self, event: &Event) {
        if *event.kind == kind::NODES && event.change == Change::Deleted {
            self.nodes.remove(&event.name);
        } else if event.change != Change::Deleted
            && (*event.kind == kind::NODES || *event.kind == kind::LEASES)
            && let Some(object) = object_of(event)
        {
            self.existing(event.kind, &object);
        }
    }

    fn node(&mut self, node: &Object) {
        let conditions = node.list_at("/status/conditions");
        let ready = conditions.iter().find(|one| one["type"] == "Ready");
        let heartbeat = ready.and_then(|ready| ready["lastHeartbeatTime"].as_str()).unwrap_or_default();
        let told = ready.is_some_and(|ready| ready["status"] == "Unknown");
        match self.nodes.get_mut(node.name()) {
            Some(health) => {
                if health.heartbeat != heartbeat || (health.told && !told) {
                    health.seen = Instant::now();
                    heartbeat.clone_into(&mut health.heartbeat);
                }
                health.told = told;
            }
            None => {
                let health = Health { lease: String::new(), heartbeat: heartbeat.to_owned(), seen: Instant::now(), told };
                self.nodes.insert(node.name().to_owned(), health);
            }
        }
    }

    fn lease(&mut self, node: &str, renewed: &str) {
        if let Some(health) = self.nodes.get_mut(node).filter(|health| health.lease != renewed) {
            renewed.clone_into(&mut health.lease);
            health.seen = Instant::now();
        }
    }

    /// Marks the nodes that have been silent for too long.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn act(&mut self, store: &Store) -> Result<(), StoreError> {
        let now = Instant::now();
        for (name, health) in &mut self.nodes {
            if health.told || now.duration_since(health.seen) <= self.lease_duration {
                continue;
            }
            let key = Key::new(&kind::NODES, "", name);
            match store.write(move |tx| mark(tx, &key)).await {
                Ok(()) => {
                    log::warn!(node = name.as_str(); "node is silent: its state is unknown");
                    health.told = true;
                }
                Err(JobError::Refused(_)) => {}
                Err(JobError::Store(error)) => return Err(error),
            }
        }
        Ok(())
    }
}

fn mark(tx: &mut Tx<'_>, key: &Key) -> Result<(), JobError> {
    let Some(old) = tx.get(key)? else { return Ok(()) };
    let mut next = old.clone();
    let at = time(tx.now());
    for kind in CONDITIONS {
        let known = old.list_at("/status/conditions").iter().find(|one| one["type"] == kind);
        let condition = match known {
            Some(known) if known["status"] == "Unknown" => continue,
            Some(known) => {
                let mut condition = known.clone();
                condition["status"] = "Unknown".into();
                condition["reason"] = "NodeStatusUnknown".into();
                condition["message"] = "Kubelet stopped posting node status.".into();
                condition["lastTransitionTime"] = Value::from(at.as_str());
                condition
            }
            // A condition that the node does not post when it is well would stay `Unknown` for ever.
            None if kind != READY => continue,
            None => json!({
                "type": READY, "status": "Unknown", "reason": "NodeStatusNeverUpdated",
                "message": "Kubelet never posted node status.", "lastHeartbeatTime": old.meta_str("creationTimestamp"),
                "lastTransitionTime": at,
            }),
        };
        operations::set_condition(&mut next, condition);
    }
    if next != old {
        tx.put(key, next, Some(&old))?;
    }
    Ok(())
}
