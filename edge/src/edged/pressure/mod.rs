//! Whether the machine runs short of something, and who has to go then: pure.
//!
//! The kubelet's rules: what must stay free is compared with what is free; a shortage is shown as a condition of the node
//! until it has been gone for the transition period; and while it lasts, one pod after the other is ended, memory first.
//!
//! | file | duty |
//! |---|---|
//! | `threshold` | how much must stay free |
//! | `order` | which pod is ended |

mod order;
mod threshold;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;

use super::pod::{Pod, Refusal, qos_class};

pub use order::{Consumer, Suspect, eviction};
pub use threshold::{Threshold, ThresholdError};

/// Why a pod was ended (the kubelet's word).
pub const EVICTED: &str = "Evicted";

/// What a machine has and what is free of it, at one moment. A total of 0 means that it is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Signals {
    /// Bytes of memory that programs can still get without swapping.
    pub memory_available: u64,
    /// Bytes of memory.
    pub memory_total: u64,
    /// Free bytes of the disk with the data directory.
    pub nodefs_available: u64,
    /// Its size.
    pub nodefs_total: u64,
    /// Files that can still be made there.
    pub inodes_free: u64,
    /// Files that it can have; 0 for a file system without a bound.
    pub inodes_total: u64,
    /// Free bytes of the disk with the engine's images.
    pub imagefs_available: u64,
    /// Its size.
    pub imagefs_total: u64,
    /// Processes and threads that can still be made.
    pub pids_available: u64,
    /// Processes and threads that there can be.
    pub pids_total: u64,
}

impl Signals {
    /// Percent of the engine's disk that are in use (the kubelet's formula: what is not available); 0 if that is not known.
    pub fn imagefs_used_percent(&self) -> u8 {
        let free = u128::from(self.imagefs_available.min(self.imagefs_total)) * 100;
        let free = free.checked_div(u128::from(self.imagefs_total)).unwrap_or(100);
        u8::try_from(100 - free.min(100)).unwrap_or(0)
    }

    fn read(&self, signal: Signal) -> (u64, u64) {
        match signal {
            Signal::Memory => (self.memory_available, self.memory_total),
            Signal::Nodefs => (self.nodefs_available, self.nodefs_total),
            Signal::Inodes => (self.inodes_free, self.inodes_total),
            Signal::Imagefs => (self.imagefs_available, self.imagefs_total),
            Signal::Pids => (self.pids_available, self.pids_total),
        }
    }
}

/// What can run short, in the order in which it is looked after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    /// Memory.
    Memory,
    /// Bytes on the disk with the data directory.
    Nodefs,
    /// Files on it.
    Inodes,
    /// Bytes on the disk with the images.
    Imagefs,
    /// Processes.
    Pids,
}

impl Signal {
    const ALL: [Self; 5] = [Self::Memory, Self::Nodefs, Self::Inodes, Self::Imagefs, Self::Pids];

    /// The node's condition that shows it.
    pub fn pressure(self) -> Pressure {
        match self {
            Self::Memory => Pressure::Memory,
            Self::Nodefs | Self::Inodes | Self::Imagefs => Pressure::Disk,
            Self::Pids => Pressure::Pid,
        }
    }

    /// The kubelet's word for what is short.
    pub fn resource(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Nodefs | Self::Imagefs => "ephemeral-storage",
            Self::Inodes => "inodes",
            Self::Pids => "pids",
        }
    }
}

/// A condition of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pressure {
    /// `MemoryPressure`.
    Memory,
    /// `DiskPressure`.
    Disk,
    /// `PIDPressure`.
    Pid,
}

impl Pressure {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Memory, Self::Disk, Self::Pid];

    /// Type of the condition.
    pub fn condition(self) -> &'static str {
        match self {
            Self::Memory => "MemoryPressure",
            Self::Disk => "DiskPressure",
            Self::Pid => "PIDPressure",
        }
    }
}

/// What must stay free of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Thresholds {
    /// Of memory.
    pub memory: Option<Threshold>,
    /// Of the bytes on the disk with the data directory.
    pub nodefs: Option<Threshold>,
    /// Of the files on it.
    pub inodes: Option<Threshold>,
    /// Of the bytes on the disk with the images.
    pub imagefs: Option<Threshold>,
    /// Of the processes.
    pub pids: Option<Threshold>,
}

impl Thresholds {
    fn of(&self, signal: Signal) -> Option<Threshold> {
        match signal {
            Signal::Memory => self.memory,
            Signal::Nodefs => self.nodefs,
            Signal::Inodes => self.inodes,
            Signal::Imagefs => self.imagefs,
            Signal::Pids => self.pids,
        }
    }

    /// What is short now, memory first.
    pub fn crossed(&self, signals: &Signals) -> Vec<Shortage> {
        let shortage = |signal: Signal| {
            let (available, total) = signals.read(signal);
            let threshold = self.of(signal).filter(|_| total > 0)?.of(total);
            (available < threshold).then_some(Shortage { signal, threshold, available })
        };
        Signal::ALL.into_iter().filter_map(shortage).collect()
    }
}

/// Less is free than must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// Of what.
    pub signal: Signal,
    /// What must be free.
    pub threshold: u64,
    /// What is.
    pub available: u64,
}

/// Which pressures there are, and since when each was not seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pressures {
    seen: BTreeMap<Pressure, Timestamp>,
}

impl Pressures {
    /// Takes in what is short now. A pressure that was seen less than `period` ago still holds: a value that goes up and down
    /// around its threshold must not draw pods here and send them away in turn.
    pub fn observe(&mut self, shortages: &[Shortage], now: Timestamp, period: Duration) {
        // A clock that was set back must not hold a pressure for as long as the step.
        self.seen.retain(|_, at| *at <= now && now.duration_since(*at).unsigned_abs() < period);
        self.seen.extend(shortages.iter().map(|shortage| (shortage.signal.pressure(), now)));
    }

    /// Those that hold.
    pub fn held(&self) -> BTreeSet<Pressure> {
        self.seen.keys().copied().collect()
    }
}

/// Whether a pod that was not here before may begin under these pressures (the kubelet's rule): a critical one always, under
/// memory pressure alone every one that asks for something or tolerates the pressure, under others none.
///
/// # Errors
/// `Evicted`, naming the conditions.
pub fn admit(pod: &Pod, held: &BTreeSet<Pressure>) -> Result<(), Refusal> {
    let tolerates = || {
        let of = |one: &serde_json::Value| {
            let says = |name: &str| one.get(name).and_then(serde_json::Value::as_str).unwrap_or_default();
            let is_key = says("key") == "node.kubernetes.io/memory-pressure" || (says("key").is_empty() && says("operator") == "Exists");
            is_key && ["", "NoSchedule"].contains(&says("effect")) && (says("operator") == "Exists" || says("value").is_empty())
        };
        pod.spec.rest.get("tolerations").and_then(serde_json::Value::as_array).is_some_and(|all| all.iter().any(of))
    };
    let is_memory_alone = held.iter().all(|pressure| *pressure == Pressure::Memory);
    if held.is_empty() || pod.is_critical() || is_memory_alone && (qos_class(pod) != "BestEffort" || tolerates()) {
        return Ok(());
    }
    let names: Vec<&str> = held.iter().map(|pressure| pressure.condition()).collect();
    Err(Refusal { reason: EVICTED.into(), message: format!("The node had condition: [{}].", names.join(" ")) })
}

/// Priority from which on a pod is critical (Kubernetes: `system-cluster-critical`).
const CRITICAL: i64 = 2_000_000_000;

impl Pod {
    /// Its priority; without one, that of the two classes that every cluster has, else 0.
    pub fn priority(&self) -> i64 {
        let class = self.spec.rest.get("priorityClassName").and_then(serde_json::Value::as_str);
        let by_class = match class {
            Some("system-node-critical") => CRITICAL + 1000,
            Some("system-cluster-critical") => CRITICAL,
            _ => 0,
        };
        self.spec.priority.unwrap_or(by_class)
    }

    /// Whether the node needs it more than what it takes (the kubelet's rule): static, or of a critical priority.
    pub fn is_critical(&self) -> bool {
        self.is_static || self.priority() >= CRITICAL
    }
}
