//! Which devices there are, what their nodes were told of them, and what they told back. Pure.
//!
//! Versions. Each expected value travels with a pair of counters, and the edge takes it only if neither counter is
//! behind its own. The cloud's counter is the Device's resourceVersion (KubeEdge), but never less than what the edge last
//! told, so that a database that was made anew does not lock its devices out. The edge's counter is what the edge last
//! told. KubeEdge always sends 0 there, and so can never again set a value that the device has changed once.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use model::membership::is_another;
use model::twin::{PROPERTIES_MAX, RequestedType, is_value};
use model::{
    DeviceEntry, DeviceId, NodeName, PropertyChange, PropertyName, PropertySet, SideChange, Timestamp, TwinChange, TwinProperty, TwinType,
    TwinVersion,
};
use wire::mqtt::payload::TwinReport;

use super::crd::{Device, DeviceModel};
use super::status::TwinUpdate;
use crate::watching::Change;

/// How often one wanted value is sent again because the edge was ahead. Each time takes a change by the device in
/// between, so that a device that always overrules the cloud ends the argument.
pub const RESENDS_MAX: u8 = 3;

/// Label of a Device whose value is its description (KubeEdge).
const DESCRIPTION_LABEL: &str = "description";

/// What a node must hear.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// A device is bound to it, or something that was missing of it is there.
    Added(NodeName, DeviceEntry),
    /// A device is no longer bound to it.
    Removed(NodeName, DeviceEntry),
    /// What is wanted of a device has changed: all its properties.
    Sync {
        /// Where it is bound.
        node: NodeName,
        /// The device.
        device: DeviceId,
        /// Which creation of it.
        uid: String,
        /// Its properties.
        change: TwinChange,
    },
}

/// Why a report is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The devices are not all known yet: no answer, the edge repeats.
    #[error("the devices are not all known yet")]
    NotYet,
    /// There is no such Device.
    #[error("there is no Device `{0}`")]
    Unknown(DeviceId),
    /// It is bound to another node, or to none.
    #[error("the Device `{0}` is not bound to this node")]
    Elsewhere(DeviceId),
    /// It is of an object that is gone, and another has its name now.
    #[error("the Device `{0}` was created again since")]
    Earlier(DeviceId),
}

/// The object behind a device id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// uid.
    pub uid: String,
}

/// What follows from a report.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The device whose status it is.
    pub owner: Owner,
    /// What changes in the status.
    pub twins: Vec<TwinUpdate>,
    /// Properties that the status may have.
    pub known: BTreeSet<PropertyName>,
    /// What the node must hear again, with the versions learned.
    pub again: Option<Effect>,
}

/// How much is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Known {
    /// Whether devices and models were listed completely; before that no report is taken.
    pub complete: bool,
    /// Devices.
    pub devices: usize,
    /// Those that are bound to a node.
    pub bound: usize,
    /// Models.
    pub models: usize,
}

type ModelKey = (String, String);

#[derive(Clone, Debug)]
struct One {
    owner: Owner,
    description: String,
    node: Option<NodeName>,
    model: Option<ModelKey>,
    resource_version: i64,
    wanted: BTreeMap<PropertyName, Option<String>>,
    /// What the node was last told of each wanted value.
    sent: BTreeMap<PropertyName, Sent>,
    /// What the edge last told of each property.
    told: BTreeMap<PropertyName, Told>,
    /// Properties that are gone from the Device; deleting one twice does no harm.
    removed: BTreeSet<PropertyName>,
    /// The node knows the device but not its twin, because the model is missing: a type, once given, stays.
    waits_for_model: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Sent {
    value: String,
    version: TwinVersion,
    resends: u8,
}

/// The versions of a property as the edge told them, and when it did.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    expected: Option<TwinVersion>,
    actual: Option<TwinVersion>,
    at: Timestamp,
}

impl Told {
    fn of(property: &TwinProperty, at: Timestamp) -> Self {
        Self { expected: property.expected_version, actual: property.actual_version, at }
    }

    /// Whether `other` was told before this, as a report is that was set aside and let in again. Versions and the clock
    /// must both say so: they begin again at an edge whose database was made anew, and it does at one without a battery.
    fn is_after(&self, other: &Self) -> bool {
        let ahead = |own: Option<TwinVersion>, other: Option<TwinVersion>| matches!((own, other), (Some(own), Some(other)) if !own.admits(other));
        other.at < self.at && (ahead(self.expected, other.expected) || ahead(self.actual, other.actual))
    }

    fn then(self, later: Self) -> Self {
        Self { expected: later.expected.or(self.expected), actual: later.actual.or(self.actual), at: later.at }
    }
}

/// All devices and models.
#[derive(Debug, Default)]
pub struct Devices {
    devices: BTreeMap<DeviceId, One>,
    models: HashMap<ModelKey, BTreeMap<PropertyName, TwinType>>,
    listed_devices: Option<HashSet<DeviceId>>,
    listed_models: Option<HashSet<ModelKey>>,
    devices_complete: bool,
    models_complete: bool,
}

impl Devices {
    /// Takes one step of the watch of Devices.
    pub fn device(&mut self, change: &Change<Box<Device>>) -> Vec<Effect> {
        let mut out = Vec::new();
        match change {
            Change::Begin => self.listed_devices = Some(HashSet::new()),
            Change::Listed(device) | Change::Applied(device) => {
                let Some(id) = id_of(device) else { return out };
                if let Some(listed) = &mut self.listed_devices {
                    listed.insert(id.clone());
                }
                self.put(id, device, &mut out);
            }
            Change::Complete => {
                let listed = self.listed_devices.take().unwrap_or_default();
                let gone: Vec<DeviceId> = self.devices.keys().filter(|id| !listed.contains(*id)).cloned().collect();
                for id in gone {
                    self.forget(&id, &mut out);
                }
                self.devices_complete = true;
            }
            Change::Deleted(device) => {
                if let Some(id) = id_of(device) {
                    self.forget(&id, &mut out);
                }
            }
        }
        out
    }

    /// Takes one step of the watch of DeviceModels.
    pub fn model(&mut self, change: &Change<Box<DeviceModel>>) -> Vec<Effect> {
        match change {
            Change::Begin => self.listed_models = Some(HashSet::new()),
            Change::Listed(model) | Change::Applied(model) => {
                let key = (model.metadata.namespace.clone().unwrap_or_default(), model.metadata.name.clone().unwrap_or_default());
                if let Some(listed) = &mut self.listed_models {
                    listed.insert(key.clone());
                }
                let types = model.spec.properties.iter();
                let types = types.filter_map(|property| Some((PropertyName::new(&property.name).ok()?, type_of(&property.kind)))).collect();
                self.models.insert(key.clone(), types);
                return self.model_arrived(&key);
            }
            Change::Complete => {
                let listed = self.listed_models.take().unwrap_or_default();
                self.models.retain(|key, _| listed.contains(key));
                self.models_complete = true;
            }
            Change::Deleted(model) => {
                self.models.remove(&(model.metadata.namespace.clone().unwrap_or_default(), model.metadata.name.clone().unwrap_or_default()));
            }
        }
        Vec::new()
    }

    /// Whether all devices and models were listed at least once: before that nothing is answered, because a list that is
    /// not complete would delete devices at the edge.
    pub fn is_complete(&self) -> bool {
        self.devices_complete && self.models_complete
    }

    /// How much is known.
    pub fn known(&self) -> Known {
        let bound = self.devices.values().filter(|device| device.node.is_some()).count();
        Known { complete: self.is_complete(), devices: self.devices.len(), bound, models: self.models.len() }
    }

    /// All devices of a node, with what is wanted of them.
    pub fn of_node(&mut self, node: &NodeName) -> Vec<DeviceEntry> {
        let models = &self.models;
        let of_node = self.devices.iter_mut().filter(|(_, known)| known.node.as_ref() == Some(node));
        of_node.map(|(id, known)| known.entry(id, models)).collect()
    }

    /// The object behind a device that is bound to `node`; `uid` says which creation of it is meant, or is empty.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn owned_by(&self, node: &NodeName, device: &DeviceId, uid: &str) -> Result<Owner, Refused> {
        if !self.is_complete() {
            return Err(Refused::NotYet);
        }
        let known = self.devices.get(device).ok_or_else(|| Refused::Unknown(device.clone()))?;
        if known.node.as_ref() != Some(node) {
            return Err(Refused::Elsewhere(device.clone()));
        }
        if is_another(&known.owner.uid, uid) {
            return Err(Refused::Earlier(device.clone()));
        }
        Ok(known.owner.clone())
    }

    /// Takes what a node reports of a device's twin.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn reported(&mut self, node: &NodeName, device: &DeviceId, report: &TwinReport) -> Result<Report, Refused> {
        let owner = self.owned_by(node, device, &report.uid)?;
        let models = &self.models;
        let known = self.devices.get_mut(device).ok_or_else(|| Refused::Unknown(device.clone()))?;
        let types = known.model.as_ref().and_then(|key| models.get(key));
        let properties: BTreeSet<PropertyName> = known.wanted.keys().cloned().chain(types.into_iter().flat_map(BTreeMap::keys).cloned()).collect();
        let mut twins = Vec::new();
        let mut overruled = false;
        for (name, property) in &report.properties {
            let (before, told) = (known.told.get(name).copied(), Told::of(property, report.timestamp));
            if before.is_some_and(|before| before.is_after(&told)) {
                log::debug!(device = device.as_str(), property = name.as_str(); "an earlier report of a property is passed over");
                continue;
            }
            // A node that invents names must not fill our memory.
            if properties.contains(name) || known.told.len() < PROPERTIES_MAX || before.is_some() {
                known.told.insert(name.clone(), before.unwrap_or_default().then(told));
            }
            if let Some(version) = property.expected_version {
                overruled |= known.is_overruled(name, property.expected.as_ref().map(|side| side.value.as_str()), version);
            }
            if properties.contains(name) {
                twins.push(TwinUpdate::of(name, property, report.timestamp));
            }
        }
        let again = overruled.then(|| known.sync(node.clone(), device.clone(), models));
        Ok(Report { owner, twins, known: properties, again })
    }

    #[cfg(test)]
    pub(super) fn versions_held(&self, device: &DeviceId) -> usize {
        self.devices[device].told.len()
    }

    fn put(&mut self, id: DeviceId, device: &Device, out: &mut Vec<Effect>) {
        let mut known = One::read(device);
        let before = self.devices.remove(&id);
        match before {
            Some(before) if before.owner.uid == known.owner.uid && before.node == known.node => {
                let gone = before.wanted.keys().filter(|name| !known.wanted.contains_key(*name)).cloned();
                known.removed = before.removed.iter().cloned().chain(gone).filter(|name| !known.wanted.contains_key(name)).collect();
                let changed = known.wanted != before.wanted;
                known.sent = before.sent.into_iter().filter(|(name, _)| known.wanted.contains_key(name)).collect();
                known.told = before.told;
                known.waits_for_model = before.waits_for_model;
                if let (true, Some(node)) = (changed, known.node.clone()) {
                    if known.is_ready(&self.models) && !known.waits_for_model {
                        out.push(known.sync(node, id.clone(), &self.models));
                    } else {
                        out.push(Effect::Added(node, known.entry(&id, &self.models)));
                    }
                }
            }
            before => {
                // Another node, or another object under the old name. On one node a removal must come first, else the
                // new device would inherit the rows of the old one.
                let leaves = before.and_then(|before| Some((before.node.clone()?, before)));
                let same_node = leaves.as_ref().is_some_and(|(node, _)| known.node.as_ref() == Some(node));
                let removed = leaves.map(|(node, before)| Effect::Removed(node, before.named(&id)));
                let added = known.node.clone().map(|node| Effect::Added(node, known.entry(&id, &self.models)));
                let (first, second) = if same_node { (removed, added) } else { (added, removed) };
                out.extend(first.into_iter().chain(second));
            }
        }
        self.devices.insert(id, known);
    }

    fn forget(&mut self, id: &DeviceId, out: &mut Vec<Effect>) {
        if let Some(known) = self.devices.remove(id)
            && let Some(node) = known.node.clone()
        {
            out.push(Effect::Removed(node, known.named(id)));
        }
    }

    fn model_arrived(&mut self, key: &ModelKey) -> Vec<Effect> {
        let models = &self.models;
        let waiting = self.devices.iter_mut().filter(|(_, known)| known.waits_for_model && known.model.as_ref() == Some(key));
        waiting.filter_map(|(id, known)| Some(Effect::Added(known.node.clone()?, known.entry(id, models)))).collect()
    }
}

impl One {
    fn read(device: &Device) -> Self {
        let meta = &device.metadata;
        let mut wanted = BTreeMap::new();
        for property in &device.spec.properties {
            let Ok(name) = PropertyName::new(&property.name) else {
                log::warn!(device = meta.name.as_deref().unwrap_or_default(), property = property.name.as_str(); "property left out: no device can have this name");
                continue;
            };
            let desired = property.desired.as_ref().map(|desired| desired.value.as_str()).filter(|value| !value.is_empty());
            let desired = desired.filter(|value| {
                let fits = is_value(value);
                if !fits {
                    log::warn!(device = meta.name.as_deref().unwrap_or_default(), property = property.name.as_str(); "desired value left out: too long, or with characters that no device can read");
                }
                fits
            });
            wanted.insert(name, desired.map(str::to_owned));
        }
        let owner = Owner {
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
        };
        let model = device.spec.device_model_ref.as_ref().filter(|model| !model.name.is_empty());
        Self {
            description: meta.labels.as_ref().and_then(|labels| labels.get(DESCRIPTION_LABEL)).cloned().unwrap_or_default(),
            node: device.spec.node_name.as_deref().and_then(|node| NodeName::new(node).ok()),
            model: model.map(|model| (owner.namespace.clone(), model.name.clone())),
            // Compared for equality everywhere else; here KubeEdge's protocol wants a number, and any will do.
            resource_version: meta.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(1),
            owner,
            wanted,
            sent: BTreeMap::new(),
            told: BTreeMap::new(),
            removed: BTreeSet::new(),
            waits_for_model: false,
        }
    }

    fn is_ready(&self, models: &HashMap<ModelKey, BTreeMap<PropertyName, TwinType>>) -> bool {
        self.model.as_ref().is_none_or(|key| models.contains_key(key))
    }

    fn named(&self, id: &DeviceId) -> DeviceEntry {
        DeviceEntry { uid: self.owner.uid.clone(), description: self.description.clone(), ..DeviceEntry::named(id.clone()) }
    }

    fn entry(&mut self, id: &DeviceId, models: &HashMap<ModelKey, BTreeMap<PropertyName, TwinType>>) -> DeviceEntry {
        self.waits_for_model = !self.is_ready(models);
        let twin = if self.waits_for_model { TwinChange::default() } else { self.change(models) };
        DeviceEntry { twin, ..self.named(id) }
    }

    fn sync(&mut self, node: NodeName, device: DeviceId, models: &HashMap<ModelKey, BTreeMap<PropertyName, TwinType>>) -> Effect {
        Effect::Sync { node, device, uid: self.owner.uid.clone(), change: self.change(models) }
    }

    /// All that is wanted, each value with the version under which it was first sent.
    fn change(&mut self, models: &HashMap<ModelKey, BTreeMap<PropertyName, TwinType>>) -> TwinChange {
        let types = self.model.as_ref().and_then(|key| models.get(key));
        let mut change = TwinChange::default();
        for (name, desired) in &self.wanted {
            let mut set = PropertySet {
                kind: types.and_then(|types| types.get(name)).map(|kind| RequestedType::Known(*kind)),
                // A device may not delete what its Device lists.
                optional: Some(false),
                ..PropertySet::default()
            };
            if let Some(value) = desired {
                let told = self.told.get(name).and_then(|told| told.expected).unwrap_or_default();
                let fresh =
                    Sent { value: value.clone(), version: TwinVersion { cloud: self.resource_version.max(told.cloud), edge: told.edge }, resends: 0 };
                let sent = self.sent.entry(name.clone()).or_insert_with(|| fresh.clone());
                if sent.value != *value {
                    *sent = fresh;
                }
                set.expected = Some(SideChange { value: value.clone() });
                set.expected_version = Some(sent.version);
            } else {
                self.sent.remove(name);
            }
            change.properties.insert(name.clone(), PropertyChange::Set(set));
        }
        for name in &self.removed {
            // Without versions, which a deletion may be: nothing at the edge is ahead of it.
            let set = PropertySet { kind: Some(RequestedType::Known(TwinType::Deleted)), ..PropertySet::default() };
            change.properties.insert(name.clone(), PropertyChange::Set(set));
        }
        change
    }

    /// Did the edge refuse our value because it was ahead? Then the value gets the learned version, to be sent again.
    ///
    /// The same cloud counter with another value means that it took ours and the device has changed it since: that is
    /// the device's right until the cloud wants something new.
    fn is_overruled(&mut self, name: &PropertyName, expected: Option<&str>, at_edge: TwinVersion) -> bool {
        let Some(sent) = self.sent.get_mut(name) else { return false };
        let ahead = at_edge.cloud > sent.version.cloud || (at_edge.edge > sent.version.edge && at_edge.cloud != sent.version.cloud);
        if !ahead || expected == Some(sent.value.as_str()) {
            return false;
        }
        if sent.resends == RESENDS_MAX {
            log::warn!(device = self.owner.name.as_str(), property = name.as_str(); "the device keeps overruling the desired value, it is not sent again until it changes");
            return false;
        }
        sent.resends += 1;
        sent.version = TwinVersion { cloud: sent.version.cloud.max(at_edge.cloud), edge: at_edge.edge };
        true
    }
}

/// The type of a property at the edge, which knows fewer than the model.
pub fn type_of(kind: &str) -> TwinType {
    match kind.to_ascii_uppercase().as_str() {
        "INT" => TwinType::Int,
        "FLOAT" | "DOUBLE" => TwinType::Float,
        "BOOLEAN" => TwinType::Boolean,
        // STRING, BYTES, STREAM, and what later versions invent.
        _ => TwinType::String,
    }
}

fn id_of(device: &Device) -> Option<DeviceId> {
    let (namespace, name) = (device.metadata.namespace.as_deref().unwrap_or("default"), device.metadata.name.as_deref().unwrap_or_default());
    let id = DeviceId::in_namespace(namespace, name);
    if let Err(error) = &id {
        log::warn!(error = error.to_string().as_str(); "Device ignored: its name cannot stand in a topic");
    }
    id.ok()
}
