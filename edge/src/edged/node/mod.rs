//! The Node object of this machine and its status (manual ch. 5.2).
//!
//! The status holds nothing that moves by itself: MetaManager sends it when it differs from what the cloud has confirmed.

mod machine;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use model::NodeName;
use serde_json::{Value, json};

use super::env::Capacity;
use super::pressure::{Pressure, Threshold};
use super::runtime::Image;
use super::status::seconds;
use crate::config::{Labels, Taint};

pub use machine::{Address, Machine, Origin};

/// Pods that a node takes (KubeEdge and kubelet: 110).
pub const PODS_MAX: u32 = 110;
/// Images in the node's status (the kubelet's number).
pub const IMAGES_MAX: usize = 50;
/// Names of one image in the node's status (the kubelet's number).
const IMAGE_NAMES_MAX: usize = 5;
/// Longest name of an image that is shown, in bytes.
const IMAGE_NAME_BYTES_MAX: usize = 300;
/// Memory that is kept back for the system and this daemon (KubeEdge: 100 MiB).
const MEMORY_RESERVED: u64 = 100 << 20;
/// The uid that KubeEdge's edges send in every node status; its cloud does not read it.
pub const STATUS_UID: &str = "38796d14-1df3-11e8-8e5a-286ed488f209";

/// What the configuration says about the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Labels beside those that every edge node has.
    pub labels: Labels,
    /// Taints with which it registers.
    pub taints: Vec<Taint>,
    /// Pods that it takes.
    pub pods_max: u32,
    /// Images in its status.
    pub images_max: usize,
    /// What pods do not get.
    pub reserved: Capacity,
    /// Memory that must stay free.
    pub memory_kept: Option<Threshold>,
    /// Disk that must stay free.
    pub storage_kept: Option<Threshold>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            labels: Labels::new(),
            taints: Vec::new(),
            pods_max: PODS_MAX,
            images_max: IMAGES_MAX,
            reserved: Capacity { cpu_nano: 0, memory: MEMORY_RESERVED },
            memory_kept: None,
            storage_kept: None,
        }
    }
}

impl Settings {
    /// What pods may have together of this machine.
    ///
    /// Of the memory the larger of two is kept back, not their sum: what is reserved and what must stay free are the same bytes
    /// in an idle system, and KubeEdge's nodes show 100 MiB less than they have.
    pub fn allocatable(&self, machine: &Machine) -> Capacity {
        let (cpu, memory) = (machine.cpus.saturating_mul(CPU_NANO), machine.memory_mib.saturating_mul(1 << 20));
        let kept = self.reserved.memory.max(self.memory_kept.map_or(0, |threshold| threshold.of(memory)));
        Capacity { cpu_nano: cpu.saturating_sub(self.reserved.cpu_nano), memory: memory.saturating_sub(kept) }
    }
}

/// Billionths of a CPU in one.
const CPU_NANO: u64 = 1_000_000_000;

/// Whether the node can run pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// The engine answers; its name and version.
    Ready(String),
    /// Why not.
    NotReady(String),
}

/// What the cloud is told about this machine.
#[derive(Clone, Debug)]
pub struct NodeReport {
    /// Name of the node.
    pub node: NodeName,
    /// The machine.
    pub machine: Machine,
    /// `nodeInfo.kubeletVersion`.
    pub version: String,
    settings: Settings,
    /// Engine's name and version as last seen, for `nodeInfo`.
    engine: String,
    ready: bool,
    reason: String,
    since: jiff::Timestamp,
    pressures: BTreeSet<Pressure>,
    /// When each pressure came or went.
    turned: BTreeMap<Pressure, jiff::Timestamp>,
    images: Vec<ShownImage>,
}

/// An image as the status shows it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct ShownImage {
    names: Vec<String>,
    size_bytes: u64,
}

impl NodeReport {
    /// A node that has not yet heard of its engine.
    pub fn new(node: NodeName, machine: Machine, version: String, now: jiff::Timestamp) -> Self {
        Self {
            node,
            machine,
            version,
            settings: Settings::default(),
            engine: String::new(),
            ready: false,
            reason: "the container engine was not asked yet".into(),
            since: now,
            pressures: BTreeSet::new(),
            turned: Pressure::ALL.map(|pressure| (pressure, now)).into(),
            images: Vec::new(),
        }
    }

    /// As configured.
    #[must_use]
    pub fn with(self, settings: Settings) -> Self {
        Self { settings, ..self }
    }

    /// Takes in what the engine says; `true` if the node's condition changed by it.
    pub fn set(&mut self, readiness: Readiness, now: jiff::Timestamp) -> bool {
        let (ready, reason) = match readiness {
            Readiness::Ready(engine) => {
                self.engine = engine;
                (true, String::new())
            }
            Readiness::NotReady(reason) => (false, reason),
        };
        let changed = (ready, &reason) != (self.ready, &self.reason);
        if ready != self.ready {
            self.since = now;
        }
        (self.ready, self.reason) = (ready, reason);
        changed
    }

    /// Takes in which pressures hold; `true` if one came or went.
    pub fn set_pressures(&mut self, held: &BTreeSet<Pressure>, now: jiff::Timestamp) -> bool {
        let turned: Vec<Pressure> = held.symmetric_difference(&self.pressures).copied().collect();
        self.turned.extend(turned.iter().map(|pressure| (*pressure, now)));
        self.pressures.clone_from(held);
        !turned.is_empty()
    }

    /// Takes in which images are here; `true` if the status shows others by it.
    pub fn set_images(&mut self, images: &[Image]) -> bool {
        let mut sorted: Vec<&Image> = images.iter().collect();
        sorted.sort_by(|a, b| (b.bytes, &a.id).cmp(&(a.bytes, &b.id)));
        let show = |image: &&Image| {
            let mut names: Vec<String> = image.names.iter().filter(|name| name.len() <= IMAGE_NAME_BYTES_MAX).cloned().collect();
            names.sort();
            names.truncate(IMAGE_NAMES_MAX);
            ShownImage { names, size_bytes: image.bytes.min(i64::MAX as u64) }
        };
        // One without a name can be nobody's reason to choose this node.
        let shown: Vec<ShownImage> = sorted.iter().map(show).filter(|one| !one.names.is_empty()).take(self.settings.images_max).collect();
        let changed = shown != self.images;
        self.images = shown;
        changed
    }

    /// Which pressures hold.
    pub fn pressures(&self) -> &BTreeSet<Pressure> {
        &self.pressures
    }

    /// Name and version of the engine, if it ever answered.
    pub fn engine(&self) -> Option<String> {
        Some(self.engine.clone()).filter(|engine| !engine.is_empty())
    }

    /// Whether the engine answers.
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// `status` of the Node.
    pub fn status(&self, now: jiff::Timestamp) -> Value {
        let machine = &self.machine;
        json!({
            "capacity": self.resources(Capacity { cpu_nano: machine.cpus.saturating_mul(CPU_NANO), memory: machine.memory_mib << 20 }, 0),
            "allocatable": self.resources(
                self.settings.allocatable(machine),
                self.settings.storage_kept.map_or(0, |threshold| threshold.of(machine.storage_bytes)),
            ),
            "phase": "Running",
            "conditions": self.conditions(now),
            "addresses": [{"type": "InternalIP", "address": machine.address.ip}, {"type": "Hostname", "address": machine.hostname}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 0}},
            "nodeInfo": {
                "machineID": machine.machine_id, "systemUUID": machine.system_uuid, "bootID": machine.boot_id,
                "kernelVersion": machine.kernel, "osImage": machine.os_image, "operatingSystem": "linux", "architecture": machine.architecture,
                "containerRuntimeVersion": self.engine, "kubeletVersion": self.version, "kubeProxyVersion": "",
            },
            "images": self.images,
        })
    }

    fn resources(&self, of: Capacity, storage_kept: u64) -> Value {
        let milli = of.cpu_nano / (CPU_NANO / 1000);
        let cpu = if milli.is_multiple_of(1000) { (milli / 1000).to_string() } else { format!("{milli}m") };
        let mut resources = json!({"cpu": cpu, "memory": format!("{}Mi", of.memory >> 20), "pods": self.settings.pods_max.to_string()});
        if self.machine.storage_bytes > 0 {
            resources["ephemeral-storage"] = format!("{}Ki", self.machine.storage_bytes.saturating_sub(storage_kept) >> 10).into();
        }
        resources
    }

    fn conditions(&self, now: jiff::Timestamp) -> Vec<Value> {
        let condition = |kind: &str, is: bool, reason: &str, message: &str, since: jiff::Timestamp| {
            json!({
                "type": kind, "status": if is { "True" } else { "False" }, "reason": reason, "message": message,
                "lastHeartbeatTime": seconds(now), "lastTransitionTime": seconds(since),
            })
        };
        let (reason, message) = match self.ready {
            true => ("EdgeReady", "edge is posting ready status"),
            false => ("EdgeNotReady", self.reason.as_str()),
        };
        let mut all = vec![condition("Ready", self.ready, reason, message, self.since)];
        for pressure in Pressure::ALL {
            let is = self.pressures.contains(&pressure);
            let (reason, message) = words(pressure, is);
            all.push(condition(pressure.condition(), is, reason, message, self.turned.get(&pressure).copied().unwrap_or(now)));
        }
        all
    }

    /// The content of a node status message: KubeEdge's form with its capital names.
    pub fn content(&self, now: jiff::Timestamp) -> Value {
        json!({"UID": STATUS_UID, "Status": self.status(now), "ExtendResources": null})
    }

    /// The Node object for registration. Taints of pressures and silence are the cloud's to set.
    pub fn object(&self, now: jiff::Timestamp) -> Value {
        let mut labels = self.settings.labels.clone();
        let own = [
            ("kubernetes.io/arch", self.machine.architecture.as_str()),
            ("kubernetes.io/hostname", self.node.as_str()),
            ("kubernetes.io/os", "linux"),
            ("node-role.kubernetes.io/edge", ""),
        ];
        labels.extend(own.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let mut spec = json!({});
        if !self.settings.taints.is_empty() {
            let taint = |taint: &Taint| json!({"key": taint.key, "value": taint.value, "effect": taint.effect});
            spec["taints"] = self.settings.taints.iter().map(taint).collect();
        }
        json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": self.node.as_str(), "labels": labels},
            "spec": spec,
            "status": self.status(now),
        })
    }
}

/// The kubelet's words for a pressure.
fn words(pressure: Pressure, is: bool) -> (&'static str, &'static str) {
    match (pressure, is) {
        (Pressure::Memory, true) => ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
        (Pressure::Memory, false) => ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        (Pressure::Disk, true) => ("KubeletHasDiskPressure", "kubelet has disk pressure"),
        (Pressure::Disk, false) => ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        (Pressure::Pid, true) => ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
        (Pressure::Pid, false) => ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
    }
}

/// Makes the directory of all pods. Blocks on the disk.
///
/// # Errors
/// The data directory cannot be written.
pub fn prepare_dir(pods: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o750).create(pods)
}
