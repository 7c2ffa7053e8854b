//! The scheduler: a pod without node goes to the ready node with the fewest pods that it may run on.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::json;

use super::placement::{NodeFacts, Obstacle, obstacle, summary};
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
    pods_on: HashMap<String, i64>,
    /// Pods to look at in the next round.
    fresh: BTreeSet<PodName>,
    /// Pods for which there was no node; looked at again when a node changes.
    waiting: BTreeSet<PodName>,
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
            let node = object.str_at("/spec/nodeName");
            if node.is_empty() {
                self.fresh.insert((object.namespace().to_owned(), object.name().to_owned()));
            } else {
                *self.pods_on.entry(node.to_owned()).or_default() += 1;
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
        self.fresh.append(&mut self.waiting);
    }

    fn pod(&mut self, event: &Event) {
        let field = "spec.nodeName";
        let before = event.previous.as_ref().map_or("", |traits| traits.field(event.kind, field));
        let after = if event.change == Change::Deleted { "" } else { event.traits.field(event.kind, field) };
        if before != after {
            for (node, step) in [(before, -1), (after, 1)] {
                if !node.is_empty() {
                    *self.pods_on.entry(node.to_owned()).or_default() += step;
                }
            }
            self.pods_on.retain(|_, pods| *pods > 0);
        }
        let pod = (event.namespace.clone(), event.name.clone());
        self.waiting.remove(&pod);
        if event.change == Change::Deleted || !after.is_empty() {
            self.fresh.remove(&pod);
        } else {
            self.fresh.insert(pod);
        }
    }

    /// Tries to place every pod that is due.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn act(&mut self, store: &Store) -> Result<(), StoreError> {
        for (namespace, name) in std::mem::take(&mut self.fresh) {
            let key = Key::new(&kind::PODS, &namespace, &name);
            let again = key.clone();
            let Some(text) = store.read_async(move |snapshot| snapshot.text(&again)).await? else { continue };
            let Some(pod) = parse(&text).filter(wants_node) else { continue };
            match self.choose(&pod) {
                Ok(node) => {
                    write(store.write(move |tx| assign(tx, &key, &node)).await)?;
                }
                Err(why) => {
                    write(store.write(move |tx| report(tx, &key, &why)).await)?;
                    self.waiting.insert((namespace, name));
                }
            }
        }
        Ok(())
    }

    /// The node with the fewest pods, or why there is none.
    fn choose(&self, pod: &Object) -> Result<String, String> {
        let mut obstacles: BTreeMap<Obstacle, usize> = BTreeMap::new();
        let mut best: Option<(i64, &str)> = None;
        for (name, facts) in &self.nodes {
            match obstacle(pod, name, facts) {
                Some(found) => *obstacles.entry(found).or_default() += 1,
                None => {
                    let pods = self.pods_on.get(name).copied().unwrap_or_default();
                    if best.is_none_or(|(fewest, _)| pods < fewest) {
                        best = Some((pods, name));
                    }
                }
            }
        }
        best.map(|(_, name)| name.to_owned()).ok_or_else(|| summary(&obstacles, self.nodes.len()))
    }
}

fn wants_node(pod: &Object) -> bool {
    let gates = pod.list_at("/spec/schedulingGates");
    let ours = pod.str_at("/spec/schedulerName") == "default-scheduler";
    pod.str_at("/spec/nodeName").is_empty() && !pod.is_deleting() && gates.is_empty() && ours
}

/// A refusal means that the pod changed meanwhile; its event brings it back.
fn write(outcome: Result<(), JobError>) -> Result<(), StoreError> {
    match outcome {
        Ok(()) => Ok(()),
        Err(JobError::Refused(why)) => {
            log::debug!(reason:% = why; "embedded API: pod not placed");
            Ok(())
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
