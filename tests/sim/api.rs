//! The API server: objects with uid and version, a log for each watch, and writes that may fail.

use std::collections::BTreeMap;

use model::{ResourceKey, ResourceKind};
use serde_json::{Value, json};

/// What is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Watched {
    Object(ResourceKind),
    Devices,
}

pub const WATCHED: [Watched; 5] = [
    Watched::Object(ResourceKind::Node),
    Watched::Object(ResourceKind::ConfigMap),
    Watched::Object(ResourceKind::Secret),
    Watched::Object(ResourceKind::Pod),
    Watched::Devices,
];

/// One event of a watch.
#[derive(Clone, Debug)]
pub struct Event {
    pub deleted: bool,
    pub object: Value,
}

#[derive(Default)]
pub struct Api {
    version: u64,
    uid: u64,
    pub objects: BTreeMap<ResourceKey, Value>,
    pub devices: BTreeMap<String, Value>,
    /// What devices reported: by `device/property`.
    pub reported: BTreeMap<String, u64>,
    pub log: BTreeMap<Watched, Vec<Event>>,
}

impl Api {
    fn stamp(&mut self, object: &mut Value) {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
    }

    fn record(&mut self, watched: Watched, deleted: bool, object: &Value) {
        self.log.entry(watched).or_default().push(Event { deleted, object: object.clone() });
    }

    /// Creates or changes an object.
    pub fn put(&mut self, key: &ResourceKey, mut object: Value) {
        let uid = match self.objects.get(key) {
            Some(before) => before["metadata"]["uid"].clone(),
            None => {
                self.uid += 1;
                json!(format!("uid-{}", self.uid))
            }
        };
        let (namespace, name) = (key.namespace.as_str(), key.name.as_ref().unwrap().as_str());
        object["metadata"]["name"] = json!(name);
        object["metadata"]["uid"] = uid;
        if key.kind != ResourceKind::Node {
            object["metadata"]["namespace"] = json!(namespace);
        }
        self.stamp(&mut object);
        self.record(Watched::Object(key.kind), false, &object);
        self.objects.insert(key.clone(), object);
    }

    pub fn delete(&mut self, key: &ResourceKey) {
        if let Some(mut object) = self.objects.remove(key) {
            self.stamp(&mut object);
            self.record(Watched::Object(key.kind), true, &object);
        }
    }

    /// Writes the status of a pod.
    pub fn set_status(&mut self, key: &ResourceKey, status: Value) {
        if let Some(mut object) = self.objects.get(key).cloned()
            && object["status"] != status
        {
            object["status"] = status;
            self.stamp(&mut object);
            self.record(Watched::Object(key.kind), false, &object);
            self.objects.insert(key.clone(), object);
        }
    }

    /// Creates or changes a device with these properties; of some a value is wanted.
    pub fn put_device(&mut self, name: &str, node: &str, properties: &[&str], wanted: &BTreeMap<String, u64>) {
        let property = |name: &&str| match wanted.get(*name) {
            Some(value) => json!({ "name": name, "desired": { "value": value.to_string() } }),
            None => json!({ "name": name }),
        };
        let properties: Vec<Value> = properties.iter().map(property).collect();
        let mut object = json!({
            "apiVersion": "devices.kubeedge.io/v1beta1", "kind": "Device",
            "metadata": { "name": name, "namespace": "default", "uid": format!("uid-{name}") },
            "spec": { "nodeName": node, "properties": properties },
        });
        self.stamp(&mut object);
        self.record(Watched::Devices, false, &object);
        self.devices.insert(name.to_owned(), object);
    }

    /// All that a list of this watch shows.
    pub fn list(&self, watched: Watched) -> Vec<Value> {
        match watched {
            Watched::Object(kind) => self.objects.iter().filter(|(key, _)| key.kind == kind).map(|(_, object)| object.clone()).collect(),
            Watched::Devices => self.devices.values().cloned().collect(),
        }
    }

    pub fn log_len(&self, watched: Watched) -> usize {
        self.log.get(&watched).map_or(0, Vec::len)
    }
}
