//! What the edges should have: every object that matters, and which node needs it. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use model::{Namespace, NodeName, ResourceKey, ResourceKind};
use serde::Serialize;
use wire::RawJson;
use wire::hub::ObjectOperation;
use wire::link::{HELD_MAX, Held};

use crate::edge_controller::location::{Locations, Moved};
use crate::edge_controller::resource::observed::{Detail, Observed, identity};
use crate::standing::{ApiSnapshot, Standing};
use crate::watching::Change;

/// Kinds that the downstream half watches.
pub const WATCHED: [ResourceKind; 4] = [ResourceKind::Node, ResourceKind::ConfigMap, ResourceKind::Secret, ResourceKind::Pod];

/// One object on its way to one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Whereto.
    pub node: NodeName,
    /// What happened to it.
    pub operation: ObjectOperation,
    /// Which object.
    pub key: ResourceKey,
    /// Its uid.
    pub uid: String,
    /// Its version.
    pub resource_version: String,
    /// The object; for a deleted Secret its identity only.
    pub object: RawJson,
}

/// Whether a node may read an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// One of its pods names it.
    Granted,
    /// None of its pods names it.
    Refused,
    /// The pods are not all known yet; the question should be asked again.
    NotYet,
}

/// How much is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Known {
    /// Whether every kind was listed completely; before that nothing is sent.
    pub complete: bool,
    /// Nodes that are edges.
    pub edge_nodes: usize,
    /// Objects that are kept, by kind.
    pub objects: BTreeMap<&'static str, usize>,
}

/// What outlives an incarnation: what the page shows. Made once, cloned into each.
#[derive(Clone, Debug, Default)]
pub struct Shared(Arc<Mutex<Known>>);

impl Shared {
    pub(super) fn set(&self, known: Known) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = known;
    }

    pub(crate) fn get(&self) -> Known {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What Downstream knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Snapshot {
    /// The objects.
    #[serde(flatten)]
    pub known: Known,
    /// The API.
    pub api: ApiSnapshot,
}

impl Snapshot {
    /// As it is now.
    pub fn of(shared: &Shared, api: &Standing) -> Self {
        Self { known: shared.get(), api: api.snapshot() }
    }
}

/// The objects as the API server has them, and what follows for the nodes.
///
/// Objects are kept as text, shared with everything that sends them.
#[derive(Debug, Default)]
pub struct Desired {
    objects: HashMap<ResourceKey, Arc<Observed>>,
    locations: Locations,
    edge_nodes: BTreeSet<NodeName>,
    /// What the list that is under way has shown, by kind.
    listing: HashMap<ResourceKind, HashSet<ResourceKey>>,
    complete: HashSet<ResourceKind>,
    /// The namespace that is watched; `None`: all.
    namespace: Option<Namespace>,
    /// Nodes that are to be brought into step when everything is known, each with what it holds.
    waiting: HashMap<NodeName, Held>,
}

impl Desired {
    /// Nothing is known yet. `namespace`: the one that is watched, or all.
    pub fn of(namespace: Option<Namespace>) -> Self {
        Self { namespace, ..Self::default() }
    }

    /// Takes one step of the watch of `kind` and returns what the nodes must hear, in the order in which they must.
    ///
    /// Nothing until every kind is listed: a pod must not go out before what it needs is known. Then each connected node
    /// is brought into step.
    pub fn apply(&mut self, kind: ResourceKind, change: &Change<Observed>) -> Vec<Outgoing> {
        if self.is_complete() {
            return self.step(kind, change);
        }
        self.step(kind, change);
        if !self.is_complete() {
            return Vec::new();
        }
        let mut waiting: Vec<NodeName> = self.waiting.keys().cloned().collect();
        waiting.sort();
        waiting.iter().flat_map(|node| self.bring_into_step(node)).collect()
    }

    /// A connected node is out of step. What it must hear follows now, or as soon as it is known to be an edge node and every
    /// kind is listed. `held`: what it holds.
    pub fn node_lacks(&mut self, node: &NodeName, held: Held) -> Vec<Outgoing> {
        self.waiting.insert(node.clone(), held);
        self.bring_into_step(node)
    }

    /// A connected node speaks of a pod that the API does not have, or has as another one. What it must hear, if that does not
    /// follow from the watch by itself.
    pub fn node_has(&mut self, node: &NodeName, key: &ResourceKey, uid: &str) -> Vec<Outgoing> {
        if !self.is_complete() || !self.edge_nodes.contains(node) {
            // Remembered until it can be said.
            let held = self.waiting.entry(node.clone()).or_default();
            if held.len() < HELD_MAX {
                held.unsure_of(key.clone());
            }
            return Vec::new();
        }
        let bound_here = self.objects.get(key).filter(|_| self.locations.node_of(key) == Some(node));
        match bound_here {
            Some(object) if object.uid == uid => Vec::new(),
            Some(object) => vec![outgoing(node, first(object), object)],
            None => vec![deletion(node, key, uid)],
        }
    }

    /// The node is not connected any more.
    pub fn node_gone(&mut self, node: &NodeName) {
        self.waiting.remove(node);
    }

    fn bring_into_step(&mut self, node: &NodeName) -> Vec<Outgoing> {
        if !self.is_complete() || !self.edge_nodes.contains(node) {
            return Vec::new();
        }
        let held = self.waiting.remove(node).unwrap_or_default();
        self.difference(node, &held)
    }

    /// Deletions of the pods that `node` has and should not, which make room for others; what it should have and does not,
    /// ConfigMaps and Secrets first; and deletions of the other objects, after the pods that use them.
    fn difference(&self, node: &NodeName, held: &Held) -> Vec<Outgoing> {
        let lacks = |object: &&Arc<Observed>| !held.has(&object.key, &object.uid, &object.resource_version);
        let wanted = self.locations.of_node(node).filter_map(|key| self.objects.get(key)).filter(lacks);
        let watched = |key: &ResourceKey| self.namespace.as_ref().is_none_or(|watched| key.namespace == *watched);
        let should_have: HashSet<&ResourceKey> = self.locations.of_node(node).filter(|key| self.objects.contains_key(*key)).collect();
        let surplus = held.objects().filter(|(key, _)| watched(key) && !should_have.contains(key));
        let (pods, data): (Vec<_>, Vec<_>) = surplus.partition(|(key, _)| key.kind == ResourceKind::Pod);
        let deleted = |list: Vec<(&ResourceKey, &str)>| list.into_iter().map(|(key, uid)| deletion(node, key, uid)).collect::<Vec<_>>();
        let wanted = wanted.map(|object| outgoing(node, first(object), object));
        deleted(pods).into_iter().chain(wanted).chain(deleted(data)).collect()
    }

    fn step(&mut self, kind: ResourceKind, change: &Change<Observed>) -> Vec<Outgoing> {
        let mut out = Vec::new();
        match change {
            Change::Begin => {
                self.listing.insert(kind, HashSet::new());
            }
            Change::Listed(object) | Change::Applied(object) => {
                if let Some(listed) = self.listing.get_mut(&kind) {
                    listed.insert(object.key.clone());
                }
                self.put(object, &mut out);
            }
            Change::Complete => {
                // What went away while nobody watched.
                let listed = self.listing.remove(&kind).unwrap_or_default();
                let mut gone: Vec<ResourceKey> = self.objects.keys().filter(|key| key.kind == kind && !listed.contains(*key)).cloned().collect();
                gone.sort();
                for key in gone {
                    self.forget(&key, &mut out);
                }
                self.complete.insert(kind);
            }
            Change::Deleted(object) => self.forget(&object.key, &mut out),
        }
        out
    }

    /// Whether `node` may read `key`.
    pub fn may_read(&self, node: &NodeName, key: &ResourceKey) -> Permission {
        if self.locations.needs(node, key) {
            Permission::Granted
        } else if self.complete.contains(&ResourceKind::Pod) {
            Permission::Refused
        } else {
            Permission::NotYet
        }
    }

    /// How much is known.
    pub fn known(&self) -> Known {
        let mut objects = BTreeMap::new();
        for key in self.objects.keys() {
            *objects.entry(key.kind.as_str()).or_default() += 1;
        }
        Known { complete: self.is_complete(), edge_nodes: self.edge_nodes.len(), objects }
    }

    /// Whether every kind was listed completely at least once.
    pub fn is_complete(&self) -> bool {
        WATCHED.iter().all(|kind| self.complete.contains(kind))
    }

    fn put(&mut self, object: &Observed, out: &mut Vec<Outgoing>) {
        let before = self.objects.get(&object.key).cloned();
        let same_object = before.as_ref().is_some_and(|before| before.uid == object.uid);
        let unchanged = same_object && before.as_ref().is_some_and(|before| before.shape == object.shape);
        // The version that the nodes were sent stays the one that is known, so that one which holds it lacks nothing.
        if unchanged && !matches!(object.detail, Detail::Node { .. }) {
            return;
        }
        match &object.detail {
            Detail::Node { edge } => self.put_node(object, *edge, out),
            Detail::Pod { node: None, .. } => self.forget(&object.key, out),
            Detail::Pod { node: Some(node), needs, .. } => {
                if let Some(before) = &before
                    && let Some(old_node) = self.locations.node_of(&object.key)
                    && old_node != node
                {
                    let old_node = old_node.clone();
                    self.send(&old_node, ObjectOperation::Delete, before, out);
                }
                self.objects.insert(object.key.clone(), Arc::new(object.clone()));
                let moved = self.locations.place(&object.key, node, needs.clone());
                // Before the pod, so that it finds what it needs.
                self.send_gained(&moved, out);
                let operation = if same_object { ObjectOperation::Update } else { first(object) };
                self.send(node, operation, object, out);
                self.send_lost(&moved, out);
            }
            Detail::Data => {
                self.objects.insert(object.key.clone(), Arc::new(object.clone()));
                let operation = if before.is_some() { ObjectOperation::Update } else { first(object) };
                let nodes: Vec<NodeName> = self.locations.nodes_needing(&object.key).cloned().collect();
                for node in nodes {
                    self.send(&node, operation, object, out);
                }
            }
        }
    }

    fn put_node(&mut self, object: &Observed, edge: bool, out: &mut Vec<Outgoing>) {
        let Some(node) = object.key.name.as_ref().and_then(|name| NodeName::new(name.as_str()).ok()) else { return };
        // Only that it exists is kept: an edge hears of its own Node by what it reports.
        let kept = Observed { object: RawJson::null(), ..object.clone() };
        self.objects.insert(object.key.clone(), Arc::new(kept));
        if !edge {
            self.edge_nodes.remove(&node);
        } else if self.edge_nodes.insert(node.clone()) {
            out.extend(self.bring_into_step(&node));
        }
    }

    fn forget(&mut self, key: &ResourceKey, out: &mut Vec<Outgoing>) {
        let Some(object) = self.objects.remove(key) else { return };
        match &object.detail {
            Detail::Node { .. } => {
                if let Some(node) = key.name.as_ref().and_then(|name| NodeName::new(name.as_str()).ok()) {
                    self.edge_nodes.remove(&node);
                }
            }
            Detail::Pod { .. } => {
                if let Some(node) = self.locations.node_of(key).cloned() {
                    self.send(&node, ObjectOperation::Delete, &object, out);
                }
                let moved = self.locations.remove(key);
                self.send_lost(&moved, out);
            }
            Detail::Data => {
                let nodes: Vec<NodeName> = self.locations.nodes_needing(key).cloned().collect();
                for node in nodes {
                    self.send(&node, ObjectOperation::Delete, &object, out);
                }
            }
        }
    }

    fn send_gained(&self, moved: &Moved, out: &mut Vec<Outgoing>) {
        for (node, key) in &moved.gained {
            if let Some(object) = self.objects.get(key) {
                self.send(node, first(object), object, out);
            }
        }
    }

    fn send_lost(&self, moved: &Moved, out: &mut Vec<Outgoing>) {
        for (node, key) in &moved.lost {
            if let Some(object) = self.objects.get(key) {
                self.send(node, ObjectOperation::Delete, object, out);
            }
        }
    }

    fn send(&self, node: &NodeName, operation: ObjectOperation, object: &Observed, out: &mut Vec<Outgoing>) {
        if self.edge_nodes.contains(node) {
            out.push(outgoing(node, operation, object));
        }
    }
}

/// How a node first hears of an object: KubeEdge inserts pods and ConfigMaps, but always updates Secrets, and a pod that
/// is being deleted.
fn first(object: &Observed) -> ObjectOperation {
    match object.detail {
        Detail::Pod { deleting: true, .. } => ObjectOperation::Update,
        _ if object.key.kind == ResourceKind::Secret => ObjectOperation::Update,
        _ => ObjectOperation::Insert,
    }
}

/// The deletion of something that is known by its identity only.
fn deletion(node: &NodeName, key: &ResourceKey, uid: &str) -> Outgoing {
    Outgoing {
        node: node.clone(),
        operation: ObjectOperation::Delete,
        key: key.clone(),
        uid: uid.to_owned(),
        resource_version: String::new(),
        object: identity(key, uid),
    }
}

fn outgoing(node: &NodeName, operation: ObjectOperation, object: &Observed) -> Outgoing {
    Outgoing {
        node: node.clone(),
        operation,
        key: object.key.clone(),
        uid: object.uid.clone(),
        resource_version: object.resource_version.clone(),
        object: if operation == ObjectOperation::Delete { object.farewell() } else { object.object.clone() },
    }
}
