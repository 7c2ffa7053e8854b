//! The scheduler: a pod without node goes to the ready node with the fewest pods that it may run on and that has room for it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::json;

use super::placement::{NodeFacts, Obstacle, PodFacts, obstacles, summary};
use super::room::{Demand, Load};
use super::{object_of, parse};
use crate::embedded::history::{Change, Event};
use crate::embedded::kind::{self, Kind};
use crate::embedded::object::{Object, time};
use crate::embedded::operations;
use crate::embedded::store::{JobError, Key, Store, StoreError, Tx};

type PodName = (String, String);

/// What the scheduler remembers.
#[derive(Default)]
pub struct Scheduler {
    nodes: BTreeMap<String, NodeFacts>,
    /// What the pods of a node take together; a node without pods has no entry.
    loads: HashMap<String, Load>,
    /// Where each pod is that takes room, and how much it takes.
    placed: HashMap<PodName, (String, Demand)>,
    /// Pods to look at in the next round.
    fresh: BTreeSet<PodName>,
    /// Pods for which there was no node; looked at again when a node changes or has room for them again.
    waiting: BTreeMap<PodName, PodFacts>,
    /// Nodes that a pod left since the last round.
    freed: BTreeSet<String>,
}

impl Scheduler {
    /// The nodes that exist.
    pub fn nodes(&self) -> &BTreeMap<String, NodeFacts> {
        &self.nodes
    }

    /// Takes in an object that was there at the start.
    pub fn existing(&mut self, kind: &Kind, object: &Object) {
        if *kind == kind::NODES {
            self.node(object.name(), Some(NodeFacts::of(object)));
        } else if *kind == kind::PODS {
            let pod = (object.namespace().to_owned(), object.name().to_owned());
            let node = object.str_at("/spec/nodeName");
            if node.is_empty() {
                self.fresh.insert(pod);
            } else if !is_over(object.str_at("/status/phase")) {
                self.hold(pod, node, Demand::of(object));
            }
        }
    }

    /// Takes in a change.
    pub fn observe(&mut self, event: &Event) {
        if *event.kind == kind::NODES {
            let facts = object_of(event).filter(|_| event.change != Change::Deleted).map(|node| NodeFacts::of(&node));
            self.node(&event.name, facts);
        } else if *event.kind == kind::PODS {
            self.pod(event);
        }
    }

    fn node(&mut self, name: &str, facts: Option<NodeFacts>) {
        if self.nodes.get(name) == facts.as_ref() {
            return;
        }
        match facts {
            Some(facts) => self.nodes.insert(name.to_owned(), facts),
            None => self.nodes.remove(name),
        };
        self.fresh.extend(std::mem::take(&mut self.waiting).into_keys());
    }

    fn pod(&mut self, event: &Event) {
        let pod = (event.namespace.clone(), event.name.clone());
        let node = if event.change == Change::Deleted { "" } else { event.traits.field(event.kind, "spec.nodeName") };
        if node.is_empty() || is_over(event.traits.field(event.kind, "status.phase")) {
            self.release(&pod);
        } else if self.placed.get(&pod).is_none_or(|(on, _)| on != node)
            && let Some(object) = object_of(event)
        {
            self.hold(pod.clone(), node, Demand::of(&object));
        }
        self.waiting.remove(&pod);
        if event.change == Change::Deleted || !node.is_empty() {
            self.fresh.remove(&pod);
        } else {
            self.fresh.insert(pod);
        }
    }

    /// Counts a pod on a node, once: the list at the start and the events after it may both tell of it.
    fn hold(&mut self, pod: PodName, node: &str, demand: Demand) {
        self.release(&pod);
        self.loads.entry(node.to_owned()).or_default().add(&demand);
        self.placed.insert(pod, (node.to_owned(), demand));
    }

    fn release(&mut self, pod: &PodName) {
        let Some((node, demand)) = self.placed.remove(pod) else { return };
        if let Some(load) = self.loads.get_mut(&node) {
            load.remove(&demand);
            if load.pods() == 0 {
                self.loads.remove(&node);
            }
        }
        self.freed.insert(node);
    }

    /// Tries to place every pod that is due.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn act(&mut self, store: &Store) -> Result<(), StoreError> {
        let freed = std::mem::take(&mut self.freed);
        if !freed.is_empty() {
            // Each is judged when it is its turn: the one before it may have taken the room.
            for pod in self.waiting.keys().cloned().collect::<Vec<_>>() {
                if self.waiting.get(&pod).is_some_and(|facts| freed.iter().any(|node| self.takes(node, facts))) {
                    self.waiting.remove(&pod);
                    self.place(store, pod).await?;
                }
            }
        }
        for pod in std::mem::take(&mut self.fresh) {
            self.place(store, pod).await?;
        }
        Ok(())
    }

    async fn place(&mut self, store: &Store, name: PodName) -> Result<(), StoreError> {
        let key = Key::new(&kind::PODS, &name.0, &name.1);
        let again = key.clone();
        let Some(text) = store.read_async(move |snapshot| snapshot.text(&again)).await? else { return Ok(()) };
        let Some(pod) = parse(&text).filter(wants_node) else { return Ok(()) };
        let facts = PodFacts::of(&pod);
        match self.choose(&facts) {
            Ok(node) => {
                let to = node.clone();
                // Its event comes after the other pods of this round.
                if write(store.write(move |tx| assign(tx, &key, &to)).await)? {
                    self.hold(name, &node, facts.demand);
                }
            }
            Err(why) => {
                write(store.write(move |tx| report(tx, &key, &why)).await)?;
                self.waiting.insert(name, facts);
            }
        }
        Ok(())
    }

    fn takes(&self, node: &str, pod: &PodFacts) -> bool {
        let empty = Load::default();
        let load = self.loads.get(node).unwrap_or(&empty);
        self.nodes.get(node).is_some_and(|facts| obstacles(pod, node, facts, load).is_empty())
    }

    /// The node with the fewest pods, or why there is none.
    fn choose(&self, pod: &PodFacts) -> Result<String, String> {
        let empty = Load::default();
        let mut found: BTreeMap<Obstacle, usize> = BTreeMap::new();
        let mut best: Option<(u64, &str)> = None;
        for (name, facts) in &self.nodes {
            let load = self.loads.get(name).unwrap_or(&empty);
            let obstacles = obstacles(pod, name, facts, load);
            if obstacles.is_empty() && best.is_none_or(|(fewest, _)| load.pods() < fewest) {
                best = Some((load.pods(), name));
            }
            for obstacle in obstacles {
                *found.entry(obstacle).or_default() += 1;
            }
        }
        best.map(|(_, name)| name.to_owned()).ok_or_else(|| summary(&found, self.nodes.len()))
    }
}

/// A pod that ended takes no room.
fn is_over(phase: &str) -> bool {
    matches!(phase, "Succeeded" | "Failed")
}

fn wants_node(pod: &Object) -> bool {
    let gates = pod.list_at("/spec/schedulingGates");
    let ours = pod.str_at("/spec/schedulerName") == "default-scheduler";
    pod.str_at("/spec/nodeName").is_empty() && !pod.is_deleting() && gates.is_empty() && ours
}

/// Whether it was written. A refusal means that the pod changed meanwhile; its event brings it back.
fn write(outcome: Result<(), JobError>) -> Result<bool, StoreError> {
    match outcome {
        Ok(()) => Ok(true),
        Err(JobError::Refused(why)) => {
            log::debug!(reason:% = why; "embedded API: pod not placed");
            Ok(false)
        }
        Err(JobError::Store(error)) => Err(error),
    }
}

fn assign(tx: &mut Tx<'_>, key: &Key, node: &str) -> Result<(), JobError> {
    let pod = operations::bind(tx, key, node, false)?;
    let message = format!("Successfully assigned {}/{} to {node}", key.namespace, key.name);
    record(tx, &pod, "Normal", "Scheduled", &message)
}

fn report(tx: &mut Tx<'_>, key: &Key, why: &str) -> Result<(), JobError> {
    let Some(old) = tx.get(key)?.filter(wants_node) else { return Ok(()) };
    let told = old.list_at("/status/conditions").iter().any(|one| one["type"] == "PodScheduled" && one["message"] == why);
    if told {
        return Ok(());
    }
    let mut next = old.clone();
    let at = time(tx.now());
    let condition = json!({
        "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": why, "lastProbeTime": null, "lastTransitionTime": at,
    });
    operations::set_condition(&mut next, condition);
    tx.put(key, next, Some(&old))?;
    record(tx, &old, "Warning", "FailedScheduling", why)
}

/// Writes an Event about a pod; that its namespace is being deleted is no reason to fail.
fn record(tx: &mut Tx<'_>, pod: &Object, kind: &str, reason: &str, message: &str) -> Result<(), JobError> {
    let at = time(tx.now());
    let event = json!({
        "apiVersion": "v1", "kind": "Event",
        "metadata": {"generateName": format!("{}.", pod.name())},
        "involvedObject": {"apiVersion": "v1", "kind": "Pod", "namespace": pod.namespace(), "name": pod.name(), "uid": pod.uid()},
        "type": kind, "reason": reason, "message": message, "count": 1, "firstTimestamp": at, "lastTimestamp": at,
        "source": {"component": "default-scheduler"}, "reportingComponent": "default-scheduler", "reportingInstance": "skep-cloud",
    });
    let Ok(event) = Object::new(event) else { return Ok(()) };
    match operations::create(tx, &kind::EVENTS, pod.namespace(), event, false) {
        Ok(_) | Err(JobError::Refused(_)) => Ok(()),
        Err(error) => Err(error),
    }
}
