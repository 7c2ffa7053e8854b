//! Keys of what the node declares, keeps back and protects; and which values of them can work.

use std::collections::{BTreeMap, BTreeSet};

use admin::keys::Invalid;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Edged;
use crate::edged::pressure::Threshold;
use crate::edged::quantity;

/// Most labels and taints that a node declares.
const DECLARED_MAX: usize = 128;
/// Longest time of this section, in seconds (a month).
const SECONDS_MAX: u64 = 31 * 86_400;
/// Most processes that a kernel can have.
const PIDS_MAX: u64 = 4_194_304;
/// Labels that the edge gives itself.
const GIVEN_LABELS: [&str; 4] = ["kubernetes.io/arch", "kubernetes.io/hostname", "kubernetes.io/os", "node-role.kubernetes.io/edge"];
/// Labels of Kubernetes' own domains that a node may set on itself (NodeRestriction), beside those below `node.kubernetes.io`
/// and `kubelet.kubernetes.io`. The cloud leaves out every other.
const OPEN_LABELS: [&str; 5] = [
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "node-role.kubernetes.io/agent",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];

/// What is kept back from pods for the system and this daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct SystemReserved {
    /// A quantity of CPUs.
    pub cpu: String,
    /// A quantity of bytes.
    pub memory: String,
}

impl Default for SystemReserved {
    fn default() -> Self {
        Self { cpu: "0".into(), memory: "100Mi".into() }
    }
}

/// What must stay free: a quantity, or a percentage of the whole; empty: not watched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct EvictionHard {
    /// Bytes of memory that programs can still get.
    pub memory_available: String,
    /// Bytes of the disk with `data-dir`.
    pub nodefs_available: String,
    /// Files that can still be made there.
    pub nodefs_inodes_free: String,
    /// Bytes of the disk with the engine's images.
    pub imagefs_available: String,
    /// Processes that can still be made.
    pub pid_available: String,
}

impl Default for EvictionHard {
    fn default() -> Self {
        Self {
            memory_available: "100Mi".into(),
            nodefs_available: "10%".into(),
            nodefs_inodes_free: "5%".into(),
            imagefs_available: "15%".into(),
            pid_available: "100".into(),
        }
    }
}

/// A taint that keeps pods away that do not tolerate it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Taint {
    /// As a label's.
    pub key: String,
    /// As a label's; may be empty.
    pub value: String,
    /// `NoSchedule`, `PreferNoSchedule` or `NoExecute`.
    pub effect: String,
}

impl Taint {
    /// Reads `key=value:Effect` or `key:Effect` (the form of `kubectl taint`); `None` if it is neither.
    pub fn parse(text: &str) -> Option<Self> {
        let (name, effect) = text.rsplit_once(':')?;
        let (key, value) = name.split_once('=').unwrap_or((name, ""));
        let is_effect = ["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&effect);
        (is_effect && is_label_key(key) && is_label_value(value)).then(|| Self { key: key.into(), value: value.into(), effect: effect.into() })
    }
}

/// 1–63 of `[A-Za-z0-9._-]`, at both ends a letter or digit.
fn is_name(text: &str) -> bool {
    let is_edge = |byte: Option<u8>| byte.is_some_and(|b| b.is_ascii_alphanumeric());
    (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        && is_edge(text.bytes().next())
        && is_edge(text.bytes().last())
}

/// A name, or a DNS subdomain, a slash and a name.
fn is_label_key(text: &str) -> bool {
    match text.split_once('/') {
        Some((domain, name)) => crate::edged::is_subdomain(domain) && is_name(name),
        None => is_name(text),
    }
}

fn is_label_value(text: &str) -> bool {
    text.is_empty() || is_name(text)
}

/// Whether the cloud takes this label from a node: a stolen certificate must not draw pods of a protected group.
fn is_open_label(key: &str) -> bool {
    let domain = key.split_once('/').map_or("", |(domain, _)| domain);
    let is_below = |suffix: &str| domain == suffix || domain.strip_suffix(suffix).is_some_and(|rest| rest.ends_with('.'));
    let is_reserved = is_below("kubernetes.io") || is_below("k8s.io");
    !is_reserved || OPEN_LABELS.contains(&key) || is_below("node.kubernetes.io") || is_below("kubelet.kubernetes.io")
}

impl Edged {
    /// The first value of the node's that cannot work.
    pub(super) fn check_node(&self) -> Result<(), Invalid> {
        self.check_labels()?;
        self.check_taints()?;
        if !(1..=100_000).contains(&self.max_pods) {
            return Err(Invalid::new("edged.max-pods", self.max_pods, "write a number between 1 and 100000"));
        }
        if self.pod_pids_limit > PIDS_MAX {
            return Err(Invalid::new("edged.pod-pids-limit", self.pod_pids_limit, format!("write a number up to {PIDS_MAX}; 0 is no limit")));
        }
        let text = |text: &str| Value::String(text.to_owned());
        let reserved = &self.system_reserved;
        for (key, value) in [("edged.system-reserved.cpu", &reserved.cpu), ("edged.system-reserved.memory", &reserved.memory)] {
            quantity::nano(&text(value)).map_err(|error| Invalid::new(key, value, format!("write a quantity such as 500m or 100Mi ({error})")))?;
        }
        for (key, value) in self.eviction_hard.keyed() {
            let advice = |error| format!("write a quantity such as 100Mi, a percentage such as 10%, or \"\" for none ({error})");
            Threshold::parse(value).map_err(|error| Invalid::new(key, value, advice(error)))?;
        }
        for (key, seconds) in [
            ("edged.eviction-pressure-transition-period", self.eviction_pressure_transition_period),
            ("edged.image-minimum-gc-age", self.image_minimum_gc_age),
        ] {
            if seconds > SECONDS_MAX {
                return Err(Invalid::new(key, seconds, format!("write seconds up to {SECONDS_MAX}")));
            }
        }
        let (high, low) = (self.image_gc_high_threshold, self.image_gc_low_threshold);
        if high > 100 {
            return Err(Invalid::new("edged.image-gc-high-threshold", high, "write percent up to 100; 100 turns the collection off"));
        }
        if low >= high {
            return Err(Invalid::new("edged.image-gc-low-threshold", low, "write less than edged.image-gc-high-threshold"));
        }
        Ok(())
    }

    fn check_labels(&self) -> Result<(), Invalid> {
        let invalid = |value: &str, advice: &str| Err(Invalid::new("edged.node-labels", value.chars().take(128).collect::<String>(), advice));
        if self.node_labels.len() > DECLARED_MAX {
            return invalid(&self.node_labels.len().to_string(), "a node declares at most 128 labels");
        }
        for (key, value) in &self.node_labels {
            if !is_label_key(key) {
                return invalid(key, "write a label's key as Kubernetes has it: NAME or DOMAIN/NAME, NAME of 1 to 63 of [A-Za-z0-9._-]");
            }
            if !is_label_value(value) {
                return invalid(&format!("{key}: {value}"), "write a label's value as Kubernetes has it: at most 63 of [A-Za-z0-9._-], or none");
            }
            if GIVEN_LABELS.contains(&key.as_str()) {
                return invalid(key, "the edge sets this label itself; remove it");
            }
            if !is_open_label(key) {
                return invalid(key, "a node may not set this label on itself; use another domain, or `kubectl label node`");
            }
        }
        Ok(())
    }

    fn check_taints(&self) -> Result<(), Invalid> {
        let invalid = |value: &str, advice: &str| Err(Invalid::new("edged.node-taints", value.chars().take(128).collect::<String>(), advice));
        if self.node_taints.len() > DECLARED_MAX {
            return invalid(&self.node_taints.len().to_string(), "a node declares at most 128 taints");
        }
        let mut seen = BTreeSet::new();
        for text in &self.node_taints {
            let Some(taint) = Taint::parse(text) else {
                return invalid(text, "write KEY=VALUE:EFFECT or KEY:EFFECT; EFFECT is NoSchedule, PreferNoSchedule or NoExecute");
            };
            if !seen.insert((taint.key, taint.effect)) {
                return invalid(text, "this key has this effect already");
            }
        }
        Ok(())
    }
}

impl EvictionHard {
    fn keyed(&self) -> [(&'static str, &str); 5] {
        [
            ("edged.eviction-hard.memory-available", &self.memory_available),
            ("edged.eviction-hard.nodefs-available", &self.nodefs_available),
            ("edged.eviction-hard.nodefs-inodes-free", &self.nodefs_inodes_free),
            ("edged.eviction-hard.imagefs-available", &self.imagefs_available),
            ("edged.eviction-hard.pid-available", &self.pid_available),
        ]
    }
}

/// Labels as they stand in the file.
pub type Labels = BTreeMap<String, String>;
