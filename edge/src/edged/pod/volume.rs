//! Volumes of a pod: fields and their JSON.

use serde::Deserialize;
use serde_json::Value;

use super::container::{FieldRef, ResourceFieldRef};
use super::object::{Rest, nullable};

/// Where a volume appears.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeMount {
    /// The volume.
    #[serde(default, deserialize_with = "nullable")]
    pub name: String,
    /// Absolute path inside.
    #[serde(default, deserialize_with = "nullable")]
    pub mount_path: String,
    /// Writes fail.
    #[serde(default, deserialize_with = "nullable")]
    pub read_only: bool,
    /// A file or directory of the volume instead of all.
    #[serde(default, deserialize_with = "nullable")]
    pub sub_path: String,
    /// The same with `$(VAR)`.
    #[serde(default, deserialize_with = "nullable")]
    pub sub_path_expr: String,
    /// `None`, `HostToContainer` or `Bidirectional`.
    #[serde(default, deserialize_with = "nullable")]
    pub mount_propagation: String,
    /// `Disabled`, `IfPossible` or `Enabled`.
    #[serde(default, deserialize_with = "nullable")]
    pub recursive_read_only: String,
    #[serde(flatten)]
    pub(in crate::edged) rest: Rest,
}

/// One volume.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Volume {
    /// Unique in the pod.
    #[serde(default, deserialize_with = "nullable")]
    pub name: String,
    /// Files from a ConfigMap.
    #[serde(default)]
    pub config_map: Option<KeyedVolume>,
    /// Files from a Secret.
    #[serde(default)]
    pub secret: Option<KeyedVolume>,
    /// A directory that lives as long as the pod.
    #[serde(default)]
    pub empty_dir: Option<EmptyDir>,
    /// A path of the machine.
    #[serde(default)]
    pub host_path: Option<HostPath>,
    /// Files with fields of the pod.
    #[serde(default, rename = "downwardAPI")]
    pub downward_api: Option<DownwardVolume>,
    /// Files from several sources in one directory.
    #[serde(default)]
    pub projected: Option<ProjectedVolume>,
    #[serde(flatten)]
    pub(in crate::edged) rest: Rest,
}

/// Files from the keys of a ConfigMap or Secret.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyedVolume {
    /// The object (`name` of a ConfigMap, `secretName` of a Secret).
    #[serde(default, alias = "secretName", deserialize_with = "nullable")]
    pub name: String,
    /// Only these keys; empty is all.
    #[serde(default, deserialize_with = "nullable")]
    pub items: Vec<KeyToPath>,
    /// File mode, decimal in JSON; 0644 when absent.
    #[serde(default)]
    pub default_mode: Option<i64>,
    /// The object may be absent: an empty volume.
    #[serde(default, deserialize_with = "nullable")]
    pub optional: bool,
}

/// One key and the path that it gets.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct KeyToPath {
    /// Key.
    #[serde(default, deserialize_with = "nullable")]
    pub key: String,
    /// Relative path.
    #[serde(default, deserialize_with = "nullable")]
    pub path: String,
    /// File mode.
    #[serde(default)]
    pub mode: Option<i64>,
}

/// A directory that lives as long as the pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EmptyDir {
    /// Empty is the disk, `Memory` a file system in memory.
    #[serde(default, deserialize_with = "nullable")]
    pub medium: String,
    /// Most bytes that it may have.
    #[serde(default)]
    pub size_limit: Option<Value>,
}

/// A path of the machine.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct HostPath {
    /// Absolute.
    #[serde(default, deserialize_with = "nullable")]
    pub path: String,
    /// What must be there: `Directory`, `FileOrCreate` …
    #[serde(default, rename = "type", deserialize_with = "nullable")]
    pub kind: String,
}

/// Files with fields of the pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DownwardVolume {
    /// One entry a file.
    #[serde(default, deserialize_with = "nullable")]
    pub items: Vec<DownwardFile>,
    /// File mode, decimal in JSON; 0644 when absent.
    #[serde(default)]
    pub default_mode: Option<i64>,
}

/// A file with a field of the pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DownwardFile {
    /// Relative path.
    #[serde(default, deserialize_with = "nullable")]
    pub path: String,
    /// A field of the pod.
    #[serde(default)]
    pub field_ref: Option<FieldRef>,
    /// A request or limit of a container.
    #[serde(default)]
    pub resource_field_ref: Option<ResourceFieldRef>,
    /// File mode.
    #[serde(default)]
    pub mode: Option<i64>,
}

/// Files from several sources in one directory.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProjectedVolume {
    /// In order: a later one wins.
    #[serde(default, deserialize_with = "nullable")]
    pub sources: Vec<ProjectedSource>,
    /// File mode, decimal in JSON; 0644 when absent.
    #[serde(default)]
    pub default_mode: Option<i64>,
}

/// One source of a projected volume; exactly one is set.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProjectedSource {
    /// Keys of a ConfigMap.
    #[serde(default)]
    pub config_map: Option<KeyedVolume>,
    /// Keys of a Secret.
    #[serde(default)]
    pub secret: Option<KeyedVolume>,
    /// Fields of the pod.
    #[serde(default, rename = "downwardAPI")]
    pub downward_api: Option<DownwardVolume>,
    #[serde(flatten)]
    pub(in crate::edged) rest: Rest,
}
