//! The end of a run: everything works again, and both sides must agree.

use std::collections::BTreeMap;

use model::{ResourceKey, ResourceKind};
use serde_json::{Value, json};
use skep_edge::store::{device, meta, twin};
use wire::link::HELD_KINDS;

use super::{EDGES, World, key, lamp, node};
use crate::api::WATCHED;
use crate::checks::Checker;

/// Rounds of a second in which the world must be in step after all have connected anew.
const ROUNDS_ANEW: usize = 5;
/// The same where connections go on that have frames without an answer: twice the longest wait between two sendings.
const ROUNDS: usize = 150;

impl World {
    /// Everything works again, and all sides must agree soon. In one half of the seeds all connect anew, in the other half
    /// what stands goes on; in one half something changes all the time until the rest agrees.
    pub fn heal(&mut self) {
        self.healing = true;
        let anew = self.chance(2);
        for edge in 0..EDGES {
            let works = self.edges[edge].connection.as_ref().is_some_and(|tcp| tcp.cloud_holds && !tcp.down_is_black && !tcp.up_is_black);
            if anew || !works {
                self.leave(edge);
            }
        }
        while !self.left.is_empty() {
            self.old_connections();
        }
        for edge in 0..EDGES {
            if self.edges[edge].connection.is_none() {
                self.connect(edge);
            }
        }
        let rounds = if anew { ROUNDS_ANEW } else { ROUNDS };
        if self.chance(2) {
            self.rounds(rounds, true);
        }
        self.rounds(rounds, false);
    }

    fn rounds(&mut self, most: usize, is_busy: bool) {
        for _ in 0..most {
            if is_busy {
                let number = self.number();
                self.api.put(&key(ResourceKind::ConfigMap, "busy"), json!({ "data": { "k": number.to_string() } }));
                self.api.put(&key(ResourceKind::Pod, "busy"), busy_pod());
            }
            self.round();
            if self.checks.found().is_some() || self.differences(is_busy).is_empty() {
                return;
            }
        }
        let first = self.differences(is_busy).swap_remove(0);
        self.checks.fail(if is_busy { Checker::Progress } else { Checker::Agree }, format!("after {most} s: {first}"));
    }

    /// A second in which all that can move does.
    fn round(&mut self) {
        for watched in WATCHED {
            while self.cloud.watch(&self.api, watched) {}
        }
        let mut moved = true;
        while moved {
            moved = self.control();
            for edge in 0..EDGES {
                moved |= self.pull(edge) | self.arrive_at_edge(edge) | self.handle(edge) | self.arrive_at_cloud(edge);
            }
        }
        self.pass(1_000);
    }

    /// What is not as it should be; without what changes all the time.
    fn differences(&self, is_busy: bool) -> Vec<String> {
        let quiet = |key: &ResourceKey| !is_busy || key.name.as_ref().is_none_or(|name| name.as_str() != "busy");
        let mut found = Vec::new();
        for (index, edge) in self.edges.iter().enumerate() {
            let wanted = self.wanted_objects(index);
            let held = edge.store.read(|read| meta::held(read, &HELD_KINDS)).unwrap();
            let held: BTreeMap<ResourceKey, Option<String>> = held.into_iter().map(|held| (held.resource, held.uid)).collect();
            for (key, object) in wanted.iter().filter(|(key, _)| quiet(key)) {
                let row = edge.store.read(|read| meta::get(read, key)).unwrap();
                let said = row.map(|row| serde_json::from_str::<Value>(&row.value).unwrap()).unwrap_or_default();
                let same = |part: &str| said[part] == object[part];
                if said["metadata"]["uid"] != object["metadata"]["uid"] || !same("spec") || !same("data") {
                    found.push(format!("{} has of {key} {said}, the API {object}", edge.name));
                }
            }
            for key in held.keys().filter(|key| !wanted.contains_key(*key) && quiet(key)) {
                found.push(format!("{} still has {key}, which it should not", edge.name));
            }
            let Some(_) = edge.store.read(|read| device::row(read, &lamp(index))).unwrap() else {
                found.push(format!("{} does not know its device", edge.name));
                continue;
            };
            let twin = edge.store.read(|read| twin::load(read, &lamp(index))).unwrap();
            let side = |name: &str, expected: bool| {
                let property = twin.properties.get(name)?;
                let side = if expected { &property.expected } else { &property.actual };
                side.as_ref()?.value.parse::<u64>().ok()
            };
            for (name, value) in self.wanted.get(&index).into_iter().flatten() {
                if side(name, true) != Some(*value) {
                    found.push(format!("{} expects of {name} {:?}, wanted is {value}", edge.name, side(name, true)));
                }
            }
            for (place, value) in &edge.promised {
                let name = place.rsplit('/').next().unwrap();
                if side(name, false) != Some(*value) {
                    found.push(format!("{} has of {place} {:?}, the device was told that {value} is kept", edge.name, side(name, false)));
                }
                if self.api.reported.get(place) != Some(value) {
                    found.push(format!("the API has of {place} {:?}, the device said {value}", self.api.reported.get(place)));
                }
            }
        }
        found
    }

    /// What an edge should hold: its pods, and what they name.
    fn wanted_objects(&self, edge: usize) -> BTreeMap<ResourceKey, &Value> {
        let mut wanted = BTreeMap::new();
        let pods = self.api.objects.iter().filter(|(key, object)| key.kind == ResourceKind::Pod && object["spec"]["nodeName"] == node(edge).as_str());
        for (pod, object) in pods {
            wanted.insert(pod.clone(), object);
            for volume in object["spec"]["volumes"].as_array().into_iter().flatten() {
                let config = volume["configMap"]["name"].as_str().map(|name| key(ResourceKind::ConfigMap, name));
                let secret = volume["secret"]["secretName"].as_str().map(|name| key(ResourceKind::Secret, name));
                for named in [config, secret].into_iter().flatten() {
                    if let Some(object) = self.api.objects.get(&named) {
                        wanted.insert(named, object);
                    }
                }
            }
        }
        wanted
    }
}

/// A pod that needs what changes all the time.
fn busy_pod() -> Value {
    json!({ "spec": { "nodeName": node(0).as_str(), "containers": [{ "name": "c" }], "volumes": [{ "name": "v", "configMap": { "name": "busy" } }] } })
}
