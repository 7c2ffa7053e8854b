#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod container;
mod ends;
mod module;
mod mounts;
mod plan;
mod pod;
mod pressure;
mod pulls;
mod registry;
mod state;
mod status;
mod table;
mod volume;
mod volume_files;

use std::collections::BTreeMap;
use std::path::Path;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::env::Facts;
use super::objects::Objects;
use super::observed::Observed;
use super::pod::Pod;
use super::runtime::{Container, ContainerState, Exit, label};
use super::volume::{VolumeError, prepare as prepare_volumes};

/// Second number `second` of the test's time.
fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

/// A pod `default/web`, uid `u-1`, with this spec.
fn pod(spec: Value) -> Pod {
    Pod::parse(&pod_json(spec).to_string()).unwrap()
}

fn pod_json(spec: Value) -> Value {
    json!({"metadata": {"name": "web", "namespace": "default", "uid": "u-1"}, "spec": spec})
}

/// Prepares its volumes; the first that fails is the error.
fn prepare(pods: &Path, pod: &Pod, facts: &Facts, objects: &Objects) -> Result<(), VolumeError> {
    prepare_volumes(pods, pod, facts, objects).into_iter().next().map_or(Ok(()), |failed| Err(failed.error))
}

/// A spec with containers of these names and image `i:1`.
fn spec(names: &[&str], policy: &str) -> Value {
    let containers: Vec<Value> = names.iter().map(|name| json!({"name": name, "image": "i:1"})).collect();
    json!({"containers": containers, "restartPolicy": policy})
}

/// A container of that pod.
struct Box {
    name: &'static str,
    attempt: u32,
    level: u32,
    joined: &'static str,
    state: ContainerState,
    hash: String,
    is_replaced: bool,
}

/// The sandbox of that pod, `POD-0`.
fn sandbox() -> Box {
    Box { joined: "", ..running("POD") }
}

/// A container in the sandbox `POD-0`.
fn running(name: &'static str) -> Box {
    let hash = pod(spec(&[name], "Always")).spec.containers[0].hash();
    Box { name, attempt: 0, level: 0, joined: "POD-0", state: ContainerState::Running { started_at: at(0) }, hash, is_replaced: false }
}

fn exited(name: &'static str, code: i64, from: i64, to: i64) -> Box {
    let exit = Exit { code, oom_killed: false, error: String::new(), started_at: at(from), finished_at: at(to) };
    Box { state: ContainerState::Exited(exit), ..running(name) }
}

impl Box {
    fn attempt(self, attempt: u32, level: u32) -> Self {
        Self { attempt, level, ..self }
    }

    fn joined(self, joined: &'static str) -> Self {
        Self { joined, ..self }
    }

    fn state(self, state: ContainerState) -> Self {
        Self { state, ..self }
    }

    /// Stopped so that another takes its place.
    fn replaced(self) -> Self {
        Self { is_replaced: true, ..self }
    }

    /// Its id is `name-attempt`; one with a network of its own has an address.
    fn container(self) -> Container {
        let labels = [
            (label::CONTAINER, self.name.to_owned()),
            (label::RESTARTS, self.attempt.to_string()),
            (label::LEVEL, self.level.to_string()),
            (label::HASH, self.hash),
        ];
        let mut labels: BTreeMap<String, String> = labels.map(|(k, v)| (k.to_owned(), v)).into_iter().collect();
        if !self.joined.is_empty() {
            labels.insert(label::SANDBOX.to_owned(), self.joined.to_owned());
        }
        let ip = self.joined.is_empty().then(|| "172.17.0.9".to_owned());
        Container {
            id: format!("{}-{}", self.name, self.attempt),
            labels,
            state: self.state,
            image: "i:1".into(),
            image_id: "sha256:1".into(),
            ip,
            created_at: at(0),
        }
    }
}

/// What is there: these, and the sandbox.
fn within(boxes: impl IntoIterator<Item = Box>) -> Observed {
    seen(boxes.into_iter().chain([sandbox()]))
}

/// What is there: just these.
fn seen(boxes: impl IntoIterator<Item = Box>) -> Observed {
    let boxes: Vec<Box> = boxes.into_iter().collect();
    let replaced: Vec<String> = boxes.iter().filter(|one| one.is_replaced).map(|one| format!("{}-{}", one.name, one.attempt)).collect();
    let mut seen = Observed::new(boxes.into_iter().map(Box::container));
    for one in seen.all_mut() {
        one.is_replaced = replaced.contains(&one.container.id);
    }
    seen
}
