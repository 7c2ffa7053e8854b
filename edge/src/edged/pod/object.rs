//! The types: fields and their JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// Reads `null` as the type's default: Go writes `null` for an empty list or map.
fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// Fields that were not read, by name.
pub(in crate::edged) type Rest = BTreeMap<String, Value>;

/// A pod as the store holds it.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Pod {
    /// Identity and the wish to be deleted.
    #[serde(default, deserialize_with = "nullable")]
    pub metadata: Metadata,
    /// What shall run.
    #[serde(default, deserialize_with = "nullable")]
    pub spec: PodSpec,
    /// What the API server has as its status; of it only the phase and start time are read.
    #[serde(default, deserialize_with = "nullable")]
    pub status: ApiStatus,
}

/// The part of the API server's status that matters to the edge.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApiStatus {
    /// `Succeeded` or `Failed` mean: never start it again.
    #[serde(default, deserialize_with = "nullable")]
    pub phase: String,
    /// RFC 3339; kept when the edge has no earlier one of its own.
    #[serde(default)]
    pub start_time: Option<String>,
}

/// Object metadata.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    /// Name within the namespace.
    #[serde(default, deserialize_with = "nullable")]
    pub name: String,
    /// Namespace; empty is `default`.
    #[serde(default, deserialize_with = "nullable")]
    pub namespace: String,
    /// Unique for all time: containers and directories carry it.
    #[serde(default, deserialize_with = "nullable")]
    pub uid: String,
    /// Labels, for `fieldRef`.
    #[serde(default, deserialize_with = "nullable")]
    pub labels: BTreeMap<String, String>,
    /// Annotations, for `fieldRef`.
    #[serde(default, deserialize_with = "nullable")]
    pub annotations: BTreeMap<String, String>,
    /// Set when the pod shall go (RFC 3339).
    #[serde(default)]
    pub deletion_timestamp: Option<String>,
    /// Seconds between stop signal and kill, as the delete request set it.
    #[serde(default)]
    pub deletion_grace_period_seconds: Option<i64>,
}

/// What shall run.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodSpec {
    /// In start order.
    #[serde(default, deserialize_with = "nullable")]
    pub containers: Vec<Container>,
    /// What containers may mount.
    #[serde(default, deserialize_with = "nullable")]
    pub volumes: Vec<Volume>,
    /// When an ended container is started again.
    #[serde(default, deserialize_with = "nullable")]
    pub restart_policy: RestartPolicy,
    /// Seconds between stop signal and kill.
    #[serde(default)]
    pub termination_grace_period_seconds: Option<i64>,
    /// Use the machine's network namespace.
    #[serde(default, deserialize_with = "nullable")]
    pub host_network: bool,
    /// Use the machine's process namespace.
    #[serde(default, rename = "hostPID", deserialize_with = "nullable")]
    pub host_pid: bool,
    /// Use the machine's IPC namespace.
    #[serde(default, rename = "hostIPC", deserialize_with = "nullable")]
    pub host_ipc: bool,
    /// `false` asks for a user namespace, which this edge has not.
    #[serde(default)]
    pub host_users: Option<bool>,
    /// Host name inside the containers; the pod's name when absent.
    #[serde(default)]
    pub hostname: Option<String>,
    /// `None` would need `dnsConfig`; all else is what Docker takes from the machine.
    #[serde(default, deserialize_with = "nullable")]
    pub dns_policy: String,
    /// The node that the pod is bound to.
    #[serde(default, deserialize_with = "nullable")]
    pub node_name: String,
    /// For `fieldRef: spec.serviceAccountName`.
    #[serde(default, deserialize_with = "nullable")]
    pub service_account_name: String,
    /// Must be Linux where it is given.
    #[serde(default)]
    pub os: Option<PodOs>,
    #[serde(flatten)]
    pub(in crate::edged) rest: Rest,
}

/// Operating system wish.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct PodOs {
    /// `linux` or `windows`.
    #[serde(default, deserialize_with = "nullable")]
    pub name: String,
}

/// When an ended container is started again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum RestartPolicy {
    /// Whatever the exit code.
    #[default]
    Always,
    /// Only after a code other than 0.
    OnFailure,
    /// Not at all.
    Never,
}

/// One container.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Container {
    /// Unique in the pod.
    #[serde(default, deserialize_with = "nullable")]
    pub name: String,
    /// Image reference.
    #[serde(default, deserialize_with = "nullable")]
    pub image: String,
    /// When to ask the registry; the default depends on the tag ([`Container::pull_policy`]).
    #[serde(default, deserialize_with = "nullable")]
    pub image_pull_policy: String,
    /// Docker's entrypoint.
    #[serde(default, deserialize_with = "nullable")]
    pub command: Vec<String>,
    /// Docker's command.
    #[serde(default, deserialize_with = "nullable")]
    pub args: Vec<String>,
    /// Working directory.
    #[serde(default, deserialize_with = "nullable")]
    pub working_dir: String,
    /// Ports; only those with a `hostPort` are published.
    #[serde(default, deserialize_with = "nullable")]
    pub ports: Vec<Port>,
    /// Environment.
    #[serde(default, deserialize_with = "nullable")]
    pub env: Vec<EnvVar>,
    /// Whole objects as environment.
    #[serde(default, deserialize_with = "nullable")]
    pub env_from: Vec<EnvFrom>,
    /// Requests and limits.
    #[serde(default, deserialize_with = "nullable")]
    pub resources: Resources,
    /// Where volumes appear.
    #[serde(default, deserialize_with = "nullable")]
    pub volume_mounts: Vec<VolumeMount>,
    /// Only `privileged` and the defaults are understood.
    #[serde(default, deserialize_with = "nullable")]
    pub security_context: SecurityContext,
    /// Kept as a label.
    #[serde(default, deserialize_with = "nullable")]
    pub termination_message_path: String,
    /// Kept as a label.
    #[serde(default, deserialize_with = "nullable")]
    pub termination_message_policy: String,
    #[serde(flatten)]
    pub(in crate::edged) rest: Rest,
}

/// The understood part of a container's security context.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecurityContext {
    /// All capabilities and devices.
    #[serde(default, deserialize_with = "nullable")]
    pub privileged: bool,
    /// `true` is what Docker does; `false` is refused.
    #[serde(default)]
    pub allow_privilege_escalation: Option<bool>,
    #[serde(flatten)]
    pub(in crate::edged) rest: Rest,
}

/// A port of a container.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Port {
    /// Inside, 1–65535.
    #[serde(default, deserialize_with = "nullable")]
    pub container_port: i64,
    /// On the machine, 1–65535; 0 or absent is not published.
    #[serde(default, deserialize_with = "nullable")]
    pub host_port: i64,
    /// Address on the machine; empty is every address.
    #[serde(default, rename = "hostIP", deserialize_with = "nullable")]
    pub host_ip: String,
    /// `TCP`, `UDP` or `SCTP`.
    #[serde(default, deserialize_with = "nullable")]
    pub protocol: String,
}

/// One environment variable.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnvVar {
    /// Name.
    #[serde(default, deserialize_with = "nullable")]
    pub name: String,
    /// Literal; `$(OTHER)` is expanded.
    #[serde(default, deserialize_with = "nullable")]
    pub value: String,
    /// Taken from elsewhere.
    #[serde(default)]
    pub value_from: Option<EnvSource>,
}

/// Where a variable's value comes from.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnvSource {
    /// A field of the pod.
    #[serde(default)]
    pub field_ref: Option<FieldRef>,
    /// A key of a ConfigMap.
    #[serde(default)]
    pub config_map_key_ref: Option<KeyRef>,
    /// A key of a Secret.
    #[serde(default)]
    pub secret_key_ref: Option<KeyRef>,
    #[serde(flatten)]
    pub(in crate::edged) rest: Rest,
}

/// A field of the pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FieldRef {
    /// `metadata.name`, `status.hostIP`, `metadata.labels['x']` …
    #[serde(default, deserialize_with = "nullable")]
    pub field_path: String,
}

/// A key of a ConfigMap or Secret.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct KeyRef {
    /// The object, in the pod's namespace.
    #[serde(default, deserialize_with = "nullable")]
    pub name: String,
    /// The key.
    #[serde(default, deserialize_with = "nullable")]
    pub key: String,
    /// Absent object or key: leave the variable out.
    #[serde(default, deserialize_with = "nullable")]
    pub optional: bool,
}

/// A whole ConfigMap or Secret as environment.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnvFrom {
    /// Put before each key.
    #[serde(default, deserialize_with = "nullable")]
    pub prefix: String,
    /// All keys of a ConfigMap.
    #[serde(default)]
    pub config_map_ref: Option<ObjectRef>,
    /// All keys of a Secret.
    #[serde(default)]
    pub secret_ref: Option<ObjectRef>,
}

/// A ConfigMap or Secret of the pod's namespace.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ObjectRef {
    /// Name.
    #[serde(default, deserialize_with = "nullable")]
    pub name: String,
    /// May be absent.
    #[serde(default, deserialize_with = "nullable")]
    pub optional: bool,
}

/// Requests and limits.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Resources {
    /// Enforced.
    #[serde(default, deserialize_with = "nullable")]
    pub limits: BTreeMap<String, Value>,
    /// Weights (cpu) and scheduling (memory).
    #[serde(default, deserialize_with = "nullable")]
    pub requests: BTreeMap<String, Value>,
    #[serde(flatten)]
    pub(in crate::edged) rest: Rest,
}

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
    pub default_mode: Option<u32>,
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
    pub mode: Option<u32>,
}

/// A directory that lives as long as the pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EmptyDir {
    /// Only the default (disk) is supported.
    #[serde(default, deserialize_with = "nullable")]
    pub medium: String,
    /// Would need enforcement.
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
