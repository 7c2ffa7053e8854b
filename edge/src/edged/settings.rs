//! From the configuration to what Edged works with. The configuration was checked when it was loaded.

use std::time::Duration;

use serde_json::Value;

use super::env::Capacity;
use super::pressure::{Threshold, Thresholds};
use super::{housekeeping, node, quantity};
use crate::config::{Edged, Taint};

fn threshold(text: &str) -> Option<Threshold> {
    Threshold::parse(text).ok().flatten()
}

/// What the node declares and keeps back.
pub(super) fn node(config: &Edged) -> node::Settings {
    let (reserved, hard) = (&config.system_reserved, &config.eviction_hard);
    let value = |text: &str| Value::String(text.to_owned());
    node::Settings {
        labels: config.node_labels.clone(),
        taints: config.node_taints.iter().filter_map(|text| Taint::parse(text)).collect(),
        pods_max: config.max_pods,
        images_max: config.node_status_max_images as usize,
        reserved: Capacity {
            cpu_nano: quantity::nano(&value(&reserved.cpu)).unwrap_or(0),
            memory: quantity::units(&value(&reserved.memory)).unwrap_or(0),
        },
        memory_kept: threshold(&hard.memory_available),
        storage_kept: threshold(&hard.nodefs_available),
    }
}

/// What is watched and cleared.
pub(super) fn housekeeping(config: &Edged) -> housekeeping::Settings {
    let hard = &config.eviction_hard;
    housekeeping::Settings {
        thresholds: Thresholds {
            memory: threshold(&hard.memory_available),
            nodefs: threshold(&hard.nodefs_available),
            inodes: threshold(&hard.nodefs_inodes_free),
            imagefs: threshold(&hard.imagefs_available),
            pids: threshold(&hard.pid_available),
        },
        transition: Duration::from_secs(config.eviction_pressure_transition_period),
        images_high: config.image_gc_high_threshold,
        images_low: config.image_gc_low_threshold,
        image_age: Duration::from_secs(config.image_minimum_gc_age),
        ended_kept: config.maximum_dead_containers_per_container as usize,
    }
}
