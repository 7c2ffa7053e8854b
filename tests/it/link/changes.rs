//! Changes from both sides, one after another, while the link or a daemon comes and goes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use harness::api::CORE;
use harness::{ApiClient, eventually, mqtt, names, sqlite};
use rand::Rng as _;
use serde_json::json;

use super::{MAPS, Node, PROPERTIES, config_map, desire, pod, property};

/// What was accepted last: by the API with a 2xx, by the edge in that it was stored.
#[derive(Debug, Default)]
pub struct Accepted {
    /// Values of the ConfigMaps, by name.
    pub maps: BTreeMap<String, String>,
    /// Values of the pods' annotation, by name. A pod that is not here was deleted.
    pub pods: BTreeMap<String, String>,
    /// Desired values, by property.
    pub desired: BTreeMap<String, String>,
    /// Reported values, by property.
    pub reported: BTreeMap<String, String>,
    /// Everything that was accepted.
    pub count: usize,
}

/// A thread that changes things until it is told to stop. What nobody takes it says again: an operator or device would.
pub struct Changes {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Accepted>>,
}

/// What the thread needs of a node; the node itself stays with the test, which kills it.
struct Hand {
    api: ApiClient,
    node: String,
    device: String,
    maps: Vec<String>,
    mqtt_port: u16,
    database: PathBuf,
    accepted: Accepted,
}

impl Changes {
    /// Begins. `deletes`: whether pods and ConfigMaps are deleted, too.
    pub fn of(node: &Node, api: ApiClient, deletes: bool) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut hand = Hand {
            api,
            node: node.edge.node.clone(),
            device: node.device.clone(),
            maps: node.maps(),
            mqtt_port: node.edge.mqtt_port,
            database: node.edge.database(),
            accepted: Accepted::default(),
        };
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            for number in 0_usize.. {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                hand.change(number, deletes);
            }
            hand.accepted
        });
        Self { stop, thread: Some(thread) }
    }

    /// Stops, and says what was accepted last.
    #[track_caller]
    pub fn end(mut self) -> Accepted {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().expect("everything was accepted in the end")
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Hand {
    fn change(&mut self, number: usize, deletes: bool) {
        let value = format!("v{number}");
        let which = rand::rng().random_range(0..64);
        match number % 5 {
            0 => self.set_map(self.maps[which % MAPS].clone(), value),
            1 => self.desire(property(which % PROPERTIES), value),
            2 | 3 => self.report(property(which % PROPERTIES), value),
            _ if deletes && which % 2 == 0 && !self.accepted.pods.is_empty() => self.delete_pod(),
            _ if self.accepted.pods.len() < 3 => self.create_pod(value),
            _ => self.annotate_pod(value),
        }
        self.accepted.count += 1;
    }

    fn set_map(&mut self, name: String, value: String) {
        let patch = json!({"data": {"value": value}});
        eventually!(30, "the API takes a ConfigMap", self.api.patch(&format!("{CORE}/configmaps/{name}"), &patch));
        self.accepted.maps.insert(name, value);
    }

    fn desire(&mut self, property: String, value: String) {
        eventually!(30, "the API takes a desired value", desire(&self.api, &self.device, &property, &value));
        self.accepted.desired.insert(property, value);
    }

    fn report(&mut self, property: String, value: String) {
        let topic = format!("$hw/events/device/{}/twin/update", self.device);
        let body = json!({"event_id": value, "timestamp": 1, "twin": {&property: {"actual": {"value": value}}}}).to_string();
        let row = format!("SELECT actual FROM device_twin WHERE deviceid = '{}' AND name = '{property}'", self.device);
        let mut looks = 0;
        eventually!(30, "the edge stores a reported value", {
            // A report may go with the daemon that was killed; the device does not see it answered, and repeats it.
            if looks % 20 == 0 {
                mqtt::publish(self.mqtt_port, &topic, &body)?;
            }
            looks += 1;
            match sqlite::query(&self.database, &row)? {
                stored if stored == value => Ok(()),
                stored => Err(format!("it has `{stored}`")),
            }
        });
        self.accepted.reported.insert(property, value);
    }

    /// A pod with a ConfigMap of its own.
    fn create_pod(&mut self, value: String) {
        let name = names::unique("passing");
        let pod = pod(&name, &self.node, std::slice::from_ref(&name));
        for (collection, object) in [("configmaps", config_map(&name, &value)), ("pods", pod)] {
            eventually!(
                30,
                "the API takes a new object",
                match self.api.create(&format!("{CORE}/{collection}"), &object) {
                    // Of an earlier attempt, whose answer was lost.
                    Err(words) if words.starts_with("409") => Ok(()),
                    other => other.map(drop),
                }
            );
        }
        self.accepted.maps.insert(name.clone(), value);
        self.accepted.pods.insert(name, "0".to_owned());
    }

    fn annotate_pod(&mut self, value: String) {
        let Some(name) = self.accepted.pods.keys().next().cloned() else { return };
        let patch = json!({"metadata": {"annotations": {"value": value}}});
        eventually!(30, "the API takes a pod's annotation", self.api.patch(&format!("{CORE}/pods/{name}"), &patch));
        self.accepted.pods.insert(name, value);
    }

    fn delete_pod(&mut self) {
        let Some((name, _)) = self.accepted.pods.pop_first() else { return };
        self.accepted.maps.remove(&name);
        for collection in ["configmaps", "pods"] {
            eventually!(30, "the API deletes", self.api.delete(&format!("{CORE}/{collection}/{name}")));
        }
    }
}

impl Accepted {
    /// Whether both sides have exactly this.
    ///
    /// # Errors
    /// What one has instead.
    pub fn is_everywhere(&self, node: &Node, api: &ApiClient) -> Result<(), String> {
        node.is_in_step(api)?;
        for (name, value) in &self.maps {
            let found = api.get(&format!("{CORE}/configmaps/{name}"))?;
            is(&format!("ConfigMap {name}"), found["data"]["value"].as_str(), value)?;
        }
        for (name, value) in &self.pods {
            let found = api.get(&format!("{CORE}/pods/{name}"))?;
            is(&format!("pod {name}"), found["metadata"]["annotations"]["value"].as_str(), value)?;
        }
        for (side, values) in [("expected", &self.desired), ("actual", &self.reported)] {
            let found = node.column(side)?;
            for (property, value) in values {
                is(&format!("{side} of {property}"), found.get(property).map(String::as_str), value)?;
            }
        }
        Ok(())
    }
}

fn is(what: &str, found: Option<&str>, wanted: &str) -> Result<(), String> {
    if found == Some(wanted) { Ok(()) } else { Err(format!("{what} is {found:?}; accepted was `{wanted}`")) }
}
