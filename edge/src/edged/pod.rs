//! The part of a Pod that this edge runs.
//!
//! Our own subset of the Kubernetes type: smaller than the generated one, and every field that it does not know is kept
//! in `rest`, so that [`Pod::check`] can refuse what would be wrong to ignore (a probe, an init container, a volume kind)
//! and let pass what only a scheduler or a cluster reads (tolerations, priorities).

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::quantity::{self, QuantityError};

/// Most containers in one pod.
pub const CONTAINERS_MAX: usize = 64;
/// Most volumes in one pod.
pub const VOLUMES_MAX: usize = 128;
/// Grace between the stop signal and the kill where the object names none (Kubernetes' default), in seconds.
pub const GRACE_SECS_DEFAULT: u64 = 30;
/// Longest grace that is honoured, in seconds (one day).
pub const GRACE_SECS_MAX: u64 = 86_400;

/// Reads `null` as the type's default: Go writes `null` for an empty list or map.
fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// Fields that were not read, by name.
type Rest = BTreeMap<String, Value>;

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
    rest: Rest,
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
    rest: Rest,
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
    rest: Rest,
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
    rest: Rest,
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
    rest: Rest,
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
    rest: Rest,
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
    rest: Rest,
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

/// What a scheduler, a service mesh or the cluster reads, and a node agent may leave unread.
const SPEC_IGNORED: &[&str] = &[
    "affinity",
    "automountServiceAccountToken",
    "enableServiceLinks",
    // An image that needs them cannot be pulled, which the container's status then says.
    "imagePullSecrets",
    "nodeSelector",
    "overhead",
    "preemptionPolicy",
    "priority",
    "priorityClassName",
    "schedulerName",
    "schedulingGates",
    "serviceAccount",
    "subdomain",
    "tolerations",
    "topologySpreadConstraints",
];
const CONTAINER_IGNORED: &[&str] = &["resizePolicy"];
const MOUNT_DEFAULTS: &[(&str, &str)] = &[("mountPropagation", "None"), ("recursiveReadOnly", "Disabled")];
/// Volumes and mounts of the API credential that a real API server adds to every pod.
const API_ACCESS_PREFIX: &str = "kube-api-access-";

/// The first field of `rest` that has a meaning and is not on the list.
fn unknown<'a>(rest: &'a Rest, ignored: &[&str]) -> Option<&'a str> {
    rest.iter().find(|(name, value)| !ignored.contains(&name.as_str()) && !says_nothing(value)).map(|(name, _)| name.as_str())
}

/// Go's zero values, which an encoder may write for an absent field.
fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::String(text) => text.is_empty(),
        Value::Bool(true) | Value::Number(_) => false,
    }
}

/// A DNS label: 1–63 of `[a-z0-9-]`, not at an end a hyphen.
fn is_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// A DNS subdomain: labels joined by dots, at most 253 bytes.
pub(super) fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_label)
}

/// A uid that may become part of a path and of a container's name: 1–128 of `[A-Za-z0-9-]`.
pub(super) fn is_uid(text: &str) -> bool {
    (1..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// An absolute path that can stand in Docker's `source:target` notation and leaves nothing upwards.
fn check_path(field: &str, path: &str) -> Result<(), Refusal> {
    if !path.starts_with('/') {
        return Err(Refusal::invalid(field, format_args!("must be absolute, not `{path}`")));
    }
    if path.len() > 4096 || path.contains([':', '\0', '\n']) {
        return Err(Refusal::invalid(field, "must have at most 4096 bytes and neither `:` nor control characters"));
    }
    if path.split('/').any(|part| part == "..") {
        return Err(Refusal::invalid(field, "must not contain `..`"));
    }
    Ok(())
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

    /// Decides whether this edge can run the pod as it is written.
    ///
    /// # Errors
    /// The first field that would be wrong to ignore, or that is out of range.
    pub fn check(&self) -> Result<(), Refusal> {
        let (metadata, spec) = (&self.metadata, &self.spec);
        if !is_subdomain(&metadata.name) || !is_label(&metadata.namespace) {
            return Err(Refusal::invalid("metadata.name", "and metadata.namespace must be DNS names"));
        }
        if let Some(field) = unknown(&spec.rest, SPEC_IGNORED) {
            return Err(Refusal::unsupported(format_args!("spec.{field}")));
        }
        if spec.host_users == Some(false) {
            return Err(Refusal::unsupported("spec.hostUsers: false"));
        }
        if spec.dns_policy == "None" {
            return Err(Refusal::unsupported("spec.dnsPolicy: None"));
        }
        if spec.os.as_ref().is_some_and(|os| !os.name.is_empty() && os.name != "linux") {
            return Err(Refusal::unsupported("spec.os other than linux"));
        }
        if spec.hostname.as_deref().is_some_and(|name| !name.is_empty() && !is_label(name)) {
            return Err(Refusal::invalid("spec.hostname", "must be a DNS label"));
        }
        if spec.containers.is_empty() || spec.containers.len() > CONTAINERS_MAX {
            return Err(Refusal::invalid("spec.containers", format_args!("must have 1–{CONTAINERS_MAX} entries")));
        }
        if spec.volumes.len() > VOLUMES_MAX {
            return Err(Refusal::invalid("spec.volumes", format_args!("must have at most {VOLUMES_MAX} entries")));
        }
        if spec.termination_grace_period_seconds.is_some_and(|secs| secs < 0) {
            return Err(Refusal::invalid("spec.terminationGracePeriodSeconds", "must not be negative"));
        }
        self.check_volumes()?;
        let mut names = BTreeSet::new();
        let mut host_ports = BTreeSet::new();
        for container in &spec.containers {
            if !names.insert(container.name.as_str()) {
                return Err(Refusal::invalid("spec.containers", format_args!("has `{}` twice", container.name)));
            }
            self.check_container(container, &mut host_ports)?;
        }
        Ok(())
    }

    fn check_volumes(&self) -> Result<(), Refusal> {
        let mut names = BTreeSet::new();
        for volume in &self.spec.volumes {
            let field = format!("spec.volumes[{}]", volume.name);
            if !is_label(&volume.name) || !names.insert(volume.name.as_str()) {
                return Err(Refusal::invalid(field, "must have a name of its own that is a DNS label"));
            }
            if volume.is_api_access() {
                continue;
            }
            if let Some(kind) = unknown(&volume.rest, &[]) {
                return Err(Refusal::unsupported(format_args!("{field}.{kind}")));
            }
            let kinds = [volume.config_map.is_some(), volume.secret.is_some(), volume.empty_dir.is_some(), volume.host_path.is_some()];
            match kinds.iter().filter(|is| **is).count() {
                // Kubernetes reads a volume without a kind as an emptyDir.
                0 | 1 => {}
                _ => return Err(Refusal::invalid(field, "must have one kind only")),
            }
            for source in volume.config_map.iter().chain(&volume.secret) {
                if !is_subdomain(&source.name) {
                    return Err(Refusal::invalid(field, "must name an object"));
                }
            }
            if let Some(dir) = &volume.empty_dir {
                if !dir.medium.is_empty() {
                    return Err(Refusal::unsupported(format_args!("{field}.emptyDir.medium: {}", dir.medium)));
                }
                if dir.size_limit.as_ref().is_some_and(|limit| !says_nothing(limit)) {
                    return Err(Refusal::unsupported(format_args!("{field}.emptyDir.sizeLimit")));
                }
            }
            if let Some(host) = &volume.host_path {
                check_path(&format!("{field}.hostPath.path"), &host.path)?;
                if !HOST_PATH_KINDS.contains(&host.kind.as_str()) {
                    return Err(Refusal::invalid(field, format_args!("has an unknown hostPath type `{}`", host.kind)));
                }
            }
        }
        Ok(())
    }

    fn check_container(&self, container: &Container, host_ports: &mut BTreeSet<(i64, String, String)>) -> Result<(), Refusal> {
        let field = format!("spec.containers[{}]", container.name);
        if !is_label(&container.name) {
            return Err(Refusal::invalid(field, "must have a name that is a DNS label"));
        }
        if let Some(name) = unknown(&container.rest, CONTAINER_IGNORED) {
            return Err(Refusal::unsupported(format_args!("{field}.{name}")));
        }
        if let Some(name) = unknown(&container.security_context.rest, &[]) {
            return Err(Refusal::unsupported(format_args!("{field}.securityContext.{name}")));
        }
        if container.security_context.allow_privilege_escalation == Some(false) {
            return Err(Refusal::unsupported(format_args!("{field}.securityContext.allowPrivilegeEscalation: false")));
        }
        let image_ok = !container.image.is_empty()
            && container.image.len() <= 512
            && container.image.bytes().all(|b| b.is_ascii_graphic() && !b"?#%&\\\"'".contains(&b));
        if !image_ok || container.image.split('/').any(|part| part == "..") {
            return Err(Refusal::invalid(format_args!("{field}.image"), "is not an image reference"));
        }
        if !["", "Always", "IfNotPresent", "Never"].contains(&container.image_pull_policy.as_str()) {
            return Err(Refusal::invalid(format_args!("{field}.imagePullPolicy"), "must be Always, IfNotPresent or Never"));
        }
        for port in &container.ports {
            port.check(&field, self.spec.host_network)?;
            if port.host_port != 0 && !host_ports.insert((port.host_port, port.protocol().into(), port.host_ip.clone())) {
                return Err(Refusal::invalid(format_args!("{field}.ports"), format_args!("uses hostPort {} twice", port.host_port)));
            }
        }
        for var in &container.env {
            if var.name.is_empty() || var.name.contains(['=', '\0']) || var.value.contains('\0') {
                return Err(Refusal::invalid(format_args!("{field}.env"), format_args!("has an impossible name or value `{}`", var.name)));
            }
            if let Some(name) = var.value_from.as_ref().and_then(|source| unknown(&source.rest, &[])) {
                return Err(Refusal::unsupported(format_args!("{field}.env[{}].valueFrom.{name}", var.name)));
            }
            if let Some(path) = var.value_from.as_ref().and_then(|source| source.field_ref.as_ref()).map(|r| r.field_path.as_str()) {
                super::env::check_field(path, self.spec.host_network)
                    .map_err(|()| Refusal::unsupported(format_args!("{field}.env[{}] fieldRef {path}", var.name)))?;
            }
        }
        if let Some(name) = container.resources.limits.keys().find(|name| !["cpu", "memory"].contains(&name.as_str())) {
            return Err(Refusal::unsupported(format_args!("{field}.resources.limits.{name}")));
        }
        if let Some(name) = unknown(&container.resources.rest, &[]) {
            return Err(Refusal::unsupported(format_args!("{field}.resources.{name}")));
        }
        container
            .cpu_limit_nano()
            .and(container.cpu_request_milli().map(Some))
            .map_err(|e| Refusal::invalid(format_args!("{field}.resources cpu"), e))?;
        container.memory_limit().map_err(|e| Refusal::invalid(format_args!("{field}.resources memory"), e))?;
        self.check_mounts(container, &field)
    }

    fn check_mounts(&self, container: &Container, field: &str) -> Result<(), Refusal> {
        if !container.working_dir.is_empty() {
            check_path(&format!("{field}.workingDir"), &container.working_dir)?;
        }
        let mut targets = BTreeSet::new();
        for mount in container.mounts() {
            let field = format!("{field}.volumeMounts[{}]", mount.name);
            let is_default = |name: &str, value: &Value| MOUNT_DEFAULTS.iter().any(|(n, v)| *n == name && value.as_str() == Some(v));
            if let Some((name, _)) = mount.rest.iter().find(|(name, value)| !says_nothing(value) && !is_default(name, value)) {
                return Err(Refusal::unsupported(format_args!("{field}.{name}")));
            }
            check_path(&format!("{field}.mountPath"), &mount.mount_path)?;
            if mount.mount_path.trim_end_matches('/').is_empty() {
                return Err(Refusal::invalid(format_args!("{field}.mountPath"), "must not be the root"));
            }
            if !targets.insert(mount.mount_path.trim_end_matches('/')) {
                return Err(Refusal::invalid(format_args!("{field}.mountPath"), "is used twice"));
            }
            if self.volume(&mount.name).is_none() {
                return Err(Refusal::invalid(field, "names a volume that the pod has not"));
            }
        }
        Ok(())
    }
}

const HOST_PATH_KINDS: &[&str] = &["", "DirectoryOrCreate", "Directory", "FileOrCreate", "File", "Socket", "CharDevice", "BlockDevice"];

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

    fn check(&self, field: &str, host_network: bool) -> Result<(), Refusal> {
        let field = format!("{field}.ports");
        if !["", "TCP", "UDP", "SCTP"].contains(&self.protocol.as_str()) {
            return Err(Refusal::invalid(field, format_args!("has an unknown protocol `{}`", self.protocol)));
        }
        if !(1..=65_535).contains(&self.container_port) || !(0..=65_535).contains(&self.host_port) {
            return Err(Refusal::invalid(field, "must be 1–65535"));
        }
        if !self.host_ip.is_empty() && self.host_ip.parse::<std::net::IpAddr>().is_err() {
            return Err(Refusal::invalid(field, "has a hostIP that is no address"));
        }
        if host_network && self.host_port != 0 && self.host_port != self.container_port {
            return Err(Refusal::invalid(field, "must have hostPort equal to containerPort with hostNetwork"));
        }
        Ok(())
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
