//! The part of a Pod that this edge runs.
//!
//! Our own subset of the Kubernetes type: smaller than the generated one, and every field that it does not know is kept
//! in `rest`, so that [`Pod::check`](super::check) can refuse what would be wrong to ignore (a probe, an init container, a volume kind)
//! and let pass what only a scheduler or a cluster reads (tolerations, priorities).

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::check::is_uid;
use super::quantity::{self, QuantityError};

/// Most containers in one pod.
pub const CONTAINERS_MAX: usize = 64;
/// Most volumes in one pod.
pub const VOLUMES_MAX: usize = 128;
/// Grace between the stop signal and the kill where the object names none (Kubernetes' default), in seconds.
pub const GRACE_SECS_DEFAULT: u64 = 30;
/// Longest grace that is honoured, in seconds (one day).
pub const GRACE_SECS_MAX: u64 = 86_400;

/// Volumes and mounts of the API credential that a real API server adds to every pod.
pub(super) const API_ACCESS_PREFIX: &str = "kube-api-access-";

/// Reads `null` as the type's default: Go writes `null` for an empty list or map.
fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// Fields that were not read, by name.
pub(super) type Rest = BTreeMap<String, Value>;

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
    pub(super) rest: Rest,
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
    pub(super) rest: Rest,
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
    pub(super) rest: Rest,
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
    pub(super) rest: Rest,
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
    pub(super) rest: Rest,
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
    pub(super) rest: Rest,
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
    pub(super) rest: Rest,
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

/// When to ask the registry for an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullPolicy {
    /// Before each container.
    Always,
    /// When it is not here.
    IfNotPresent,
    /// Not at all.
    Never,
}

/// Why a pod does not run here. Shown in `kubectl describe pod` as reason and message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{message}")]
pub struct Refusal {
    /// `Unsupported` (this edge cannot) or `InvalidSpec` (nobody could).
    pub reason: String,
    /// Names the field and says what to do.
    pub message: String,
}

impl Refusal {
    /// A field that this edge does not implement.
    pub fn unsupported(field: impl std::fmt::Display) -> Self {
        Self { reason: "Unsupported".into(), message: format!("{field} is not supported by this edge; remove it or use another node") }
    }

    /// A value that no node could run.
    pub fn invalid(field: impl std::fmt::Display, why: impl std::fmt::Display) -> Self {
        Self { reason: "InvalidSpec".into(), message: format!("{field} {why}") }
    }
}

impl Pod {
    /// Reads a pod from JSON.
    ///
    /// # Errors
    /// `InvalidSpec` with the decoder's words; the identity of such an object may still be known from its key.
    pub fn parse(json: &str) -> Result<Self, Refusal> {
        let mut pod: Self = serde_json::from_str(json).map_err(|error| Refusal::invalid("the pod", format_args!("cannot be read: {error}")))?;
        if pod.metadata.namespace.is_empty() {
            pod.metadata.namespace = "default".into();
        }
        if !is_uid(&pod.metadata.uid) {
            return Err(Refusal::invalid("metadata.uid", "must have 1–128 characters of [A-Za-z0-9-]"));
        }
        Ok(pod)
    }

    /// `namespace/name`, for texts.
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.metadata.namespace, self.metadata.name)
    }

    /// Whether somebody asked for the pod to be deleted.
    pub fn is_deleting(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }

    /// Whether the API server already has a final phase.
    pub fn is_over(&self) -> bool {
        matches!(self.status.phase.as_str(), "Succeeded" | "Failed")
    }

    /// Seconds between stop signal and kill: of the delete request, else of the spec, else 30.
    pub fn grace_secs(&self) -> u64 {
        let asked = self.metadata.deletion_grace_period_seconds.or(self.spec.termination_grace_period_seconds);
        asked.map_or(GRACE_SECS_DEFAULT, |secs| u64::try_from(secs).unwrap_or(0)).min(GRACE_SECS_MAX)
    }

    /// The volume of that name.
    pub fn volume(&self, name: &str) -> Option<&Volume> {
        self.spec.volumes.iter().find(|volume| volume.name == name)
    }

    /// The ConfigMaps and Secrets that the pod reads: `(is it a Secret, name)`.
    pub fn references(&self) -> BTreeSet<(bool, String)> {
        let mut found = BTreeSet::new();
        for volume in &self.spec.volumes {
            if let Some(source) = &volume.config_map {
                found.insert((false, source.name.clone()));
            }
            if let Some(source) = &volume.secret {
                found.insert((true, source.name.clone()));
            }
        }
        for container in &self.spec.containers {
            for from in &container.env_from {
                found.extend(from.config_map_ref.iter().map(|r| (false, r.name.clone())));
                found.extend(from.secret_ref.iter().map(|r| (true, r.name.clone())));
            }
            for source in container.env.iter().filter_map(|var| var.value_from.as_ref()) {
                found.extend(source.config_map_key_ref.iter().map(|r| (false, r.name.clone())));
                found.extend(source.secret_key_ref.iter().map(|r| (true, r.name.clone())));
            }
        }
        found
    }
}

impl Volume {
    /// Whether this is the API credential that an API server adds to every pod. There is no API server within a pod's reach
    /// at the edge, so neither the volume nor its mounts are made; a pod that needs them fails by itself.
    pub fn is_api_access(&self) -> bool {
        self.name.starts_with(API_ACCESS_PREFIX) && self.rest.contains_key("projected")
    }
}

impl Port {
    /// The protocol in Docker's spelling.
    pub fn protocol(&self) -> &'static str {
        match self.protocol.as_str() {
            "UDP" => "udp",
            "SCTP" => "sctp",
            _ => "tcp",
        }
    }
}

impl Container {
    /// The mounts, without those of the API credential.
    pub fn mounts(&self) -> impl Iterator<Item = &VolumeMount> {
        self.volume_mounts.iter().filter(|mount| !mount.name.starts_with(API_ACCESS_PREFIX))
    }

    /// The pull policy; without one, `Always` for the tag `latest` or none, else `IfNotPresent` (Kubernetes' default).
    pub fn pull_policy(&self) -> PullPolicy {
        match self.image_pull_policy.as_str() {
            "Always" => PullPolicy::Always,
            "Never" => PullPolicy::Never,
            "IfNotPresent" => PullPolicy::IfNotPresent,
            _ => {
                let last = self.image.rsplit('/').next().unwrap_or_default();
                let floating = !last.contains('@') && (!last.contains(':') || last.ends_with(":latest"));
                if floating { PullPolicy::Always } else { PullPolicy::IfNotPresent }
            }
        }
    }

    /// CPU limit in billionths of a CPU.
    ///
    /// # Errors
    /// The quantity cannot be read.
    pub fn cpu_limit_nano(&self) -> Result<Option<u64>, QuantityError> {
        self.resources.limits.get("cpu").map(quantity::nano).transpose().map(|nano| nano.filter(|n| *n > 0))
    }

    /// CPU request in thousandths of a CPU; the limit where there is no request.
    ///
    /// # Errors
    /// The quantity cannot be read.
    pub fn cpu_request_milli(&self) -> Result<u64, QuantityError> {
        let asked = self.resources.requests.get("cpu").or_else(|| self.resources.limits.get("cpu"));
        Ok(asked.map(quantity::nano).transpose()?.unwrap_or(0) / 1_000_000)
    }

    /// Memory limit in bytes.
    ///
    /// # Errors
    /// The quantity cannot be read.
    pub fn memory_limit(&self) -> Result<Option<u64>, QuantityError> {
        self.resources.limits.get("memory").map(quantity::units).transpose().map(|bytes| bytes.filter(|n| *n > 0))
    }

    /// Hash of what makes a running container another one: its name and image, as the kubelet has it. The rest of a
    /// container cannot change in the API, and a hash of everything would restart all pods when this program learns a field.
    pub fn hash(&self) -> String {
        let mut hash: u32 = 0x811c_9dc5;
        for byte in self.name.bytes().chain([0]).chain(self.image.bytes()) {
            hash = (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
        }
        format!("{hash:08x}")
    }
}

/// Quality of service class of a pod (Kubernetes' rule over cpu and memory of all containers).
pub fn qos_class(pod: &Pod) -> &'static str {
    let value = |map: &BTreeMap<String, Value>, name: &str| map.get(name).and_then(|v| quantity::nano(v).ok()).filter(|n| *n > 0);
    let mut any = false;
    let mut guaranteed = true;
    for container in &pod.spec.containers {
        for name in ["cpu", "memory"] {
            let limit = value(&container.resources.limits, name);
            let request = value(&container.resources.requests, name).or(limit);
            any |= limit.is_some() || request.is_some();
            guaranteed &= limit.is_some() && request == limit;
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}
