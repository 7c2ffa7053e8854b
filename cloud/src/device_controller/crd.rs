//! KubeEdge's custom resources `devices.kubeedge.io/v1beta1`, as far as they are read or written here.
//!
//! Fields that only mappers read (`visitors`, `pushMethod`, `protocol`, …) are not listed: what we read is never written
//! back, so nothing gets lost.
//! Source: KubeEdge `apis/devices/v1beta1`, `build/crds/devices`.

use std::collections::BTreeMap;

use kube::CustomResource;
use serde::{Deserialize, Serialize};

/// One device: on which node it is, what it is, and what is wanted of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, CustomResource)]
#[kube(group = "devices.kubeedge.io", version = "v1beta1", kind = "Device", plural = "devices", namespaced, schema = "disabled")]
#[serde(rename_all = "camelCase", default)]
pub struct DeviceSpec {
    /// The model.
    pub device_model_ref: Option<ModelRef>,
    /// The node; empty: nowhere yet.
    pub node_name: Option<String>,
    /// The properties.
    pub properties: Vec<DeviceProperty>,
}

/// Names a DeviceModel of the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelRef {
    /// Its name.
    pub name: String,
}

/// One property of a device.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeviceProperty {
    /// Its name.
    pub name: String,
    /// What it should be; absent or empty: nothing is wanted.
    pub desired: Option<TwinValue>,
}

/// A value with its metadata.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TwinValue {
    /// The value, always as text.
    pub value: String,
    /// `timestamp` (decimal milliseconds) and `type`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
}

/// What devices of a kind have in common.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, CustomResource)]
#[kube(group = "devices.kubeedge.io", version = "v1beta1", kind = "DeviceModel", plural = "devicemodels", namespaced, schema = "disabled")]
#[serde(rename_all = "camelCase", default)]
pub struct DeviceModelSpec {
    /// The properties.
    pub properties: Vec<ModelProperty>,
}

/// One property of a model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ModelProperty {
    /// Its name.
    pub name: String,
    /// `INT`, `FLOAT`, `DOUBLE`, `STRING`, `BOOLEAN`, `BYTES` or `STREAM`.
    #[serde(rename = "type")]
    pub kind: String,
}

/// What is known of one property, in `DeviceStatus.status.twins`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TwinStatus {
    /// The property.
    pub property_name: String,
    /// What the device says it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reported: Option<TwinValue>,
    /// The wanted value that has arrived at the edge.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_desired: Option<TwinValue>,
}
