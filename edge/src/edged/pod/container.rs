//! Containers of a pod: fields and their JSON.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::object::{Profile, Rest, SeLinuxOptions, nullable};
use super::volume::VolumeMount;

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
    /// What it may do.
    #[serde(default, deserialize_with = "nullable")]
    pub security_context: SecurityContext,
    /// File in the container in which its last words are.
    #[serde(default, deserialize_with = "nullable")]
    pub termination_message_path: String,
    /// `File`, or `FallbackToLogsOnError`.
    #[serde(default, deserialize_with = "nullable")]
    pub termination_message_policy: String,
    /// `Always` makes an init container run beside the others (a sidecar).
    #[serde(default, deserialize_with = "nullable")]
    pub restart_policy: String,
    /// Until it has succeeded, the others do not run.
    #[serde(default)]
    pub startup_probe: Option<Probe>,
    /// When it fails, the container is replaced.
    #[serde(default)]
    pub liveness_probe: Option<Probe>,
    /// While it fails, the container is not ready.
    #[serde(default)]
    pub readiness_probe: Option<Probe>,
    /// What is done after its start and before its end.
    #[serde(default, deserialize_with = "nullable")]
    pub lifecycle: Lifecycle,
    /// Keep its standard input open.
    #[serde(default, deserialize_with = "nullable")]
    pub stdin: bool,
    /// Close it after the first that attached to it has gone.
    #[serde(default, deserialize_with = "nullable")]
    pub stdin_once: bool,
    /// A terminal.
    #[serde(default, deserialize_with = "nullable")]
    pub tty: bool,
    #[serde(flatten)]
    pub(in crate::edged) rest: Rest,
}

/// What a container may do; what it leaves out is the pod's.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecurityContext {
    /// All capabilities and devices.
    #[serde(default, deserialize_with = "nullable")]
    pub privileged: bool,
    /// `false`: no process gets more rights than the first.
    #[serde(default)]
    pub allow_privilege_escalation: Option<bool>,
    /// User id of the first process.
    #[serde(default)]
    pub run_as_user: Option<i64>,
    /// Group id of the first process.
    #[serde(default)]
    pub run_as_group: Option<i64>,
    /// Refuse user 0.
    #[serde(default)]
    pub run_as_non_root: Option<bool>,
    /// Writes to the image's files fail.
    #[serde(default, deserialize_with = "nullable")]
    pub read_only_root_filesystem: bool,
    /// Beside or without the engine's own set.
    #[serde(default, deserialize_with = "nullable")]
    pub capabilities: Capabilities,
    /// Filter of system calls.
    #[serde(default)]
    pub seccomp_profile: Option<Profile>,
    /// Confinement by AppArmor.
    #[serde(default)]
    pub app_armor_profile: Option<Profile>,
    /// SELinux labels.
    #[serde(default)]
    pub se_linux_options: Option<SeLinuxOptions>,
    /// `Default`, or `Unmasked`.
    #[serde(default, deserialize_with = "nullable")]
    pub proc_mount: String,
    #[serde(flatten)]
    pub(in crate::edged) rest: Rest,
}

/// Linux capabilities without `CAP_`, or `ALL`.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Capabilities {
    /// Beside the engine's own set.
    #[serde(default, deserialize_with = "nullable")]
    pub add: Vec<String>,
    /// Taken from it.
    #[serde(default, deserialize_with = "nullable")]
    pub drop: Vec<String>,
}

/// A question whether a container is well.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Probe {
    /// How to ask.
    #[serde(flatten)]
    pub handler: Handler,
    /// Seconds from the container's start to the first question.
    #[serde(default, deserialize_with = "nullable")]
    pub initial_delay_seconds: i64,
    /// Seconds that an answer may take; 0 or absent is 1.
    #[serde(default, deserialize_with = "nullable")]
    pub timeout_seconds: i64,
    /// Seconds between two questions; 0 or absent is 10.
    #[serde(default, deserialize_with = "nullable")]
    pub period_seconds: i64,
    /// Successes in a row that count; 0 or absent is 1.
    #[serde(default, deserialize_with = "nullable")]
    pub success_threshold: i64,
    /// Failures in a row that count; 0 or absent is 3.
    #[serde(default, deserialize_with = "nullable")]
    pub failure_threshold: i64,
    /// Instead of the pod's, when this probe ends the container.
    #[serde(default)]
    pub termination_grace_period_seconds: Option<i64>,
}

/// How to ask a container, or what to do in it; exactly one is set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Handler {
    /// A program in the container; no shell.
    #[serde(default)]
    pub exec: Option<ExecAction>,
    /// A GET request; 200–399 is success.
    #[serde(default)]
    pub http_get: Option<HttpGetAction>,
    /// A connection.
    #[serde(default)]
    pub tcp_socket: Option<TcpSocketAction>,
    /// gRPC's health service (probes only).
    #[serde(default)]
    pub grpc: Option<GrpcAction>,
    /// A pause (hooks only).
    #[serde(default)]
    pub sleep: Option<SleepAction>,
}

/// A program in the container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct ExecAction {
    /// Program and arguments.
    #[serde(default, deserialize_with = "nullable")]
    pub command: Vec<String>,
}

/// A GET request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpGetAction {
    /// Path and query.
    #[serde(default, deserialize_with = "nullable")]
    pub path: String,
    /// Number, or name of a port of the container.
    #[serde(default, deserialize_with = "nullable")]
    pub port: Value,
    /// Name or address; the pod's address when empty.
    #[serde(default, deserialize_with = "nullable")]
    pub host: String,
    /// `HTTP` or `HTTPS` (the certificate is not checked).
    #[serde(default, deserialize_with = "nullable")]
    pub scheme: String,
    /// Further headers.
    #[serde(default, deserialize_with = "nullable")]
    pub http_headers: Vec<HttpHeader>,
}

/// A header of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct HttpHeader {
    /// Name.
    #[serde(default, deserialize_with = "nullable")]
    pub name: String,
    /// Value.
    #[serde(default, deserialize_with = "nullable")]
    pub value: String,
}

/// A connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct TcpSocketAction {
    /// Number, or name of a port of the container.
    #[serde(default, deserialize_with = "nullable")]
    pub port: Value,
    /// Name or address; the pod's address when empty.
    #[serde(default, deserialize_with = "nullable")]
    pub host: String,
}

/// gRPC's health service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct GrpcAction {
    /// Number.
    #[serde(default, deserialize_with = "nullable")]
    pub port: i64,
    /// Asked about; empty is the whole server.
    #[serde(default, deserialize_with = "nullable")]
    pub service: String,
}

/// A pause.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct SleepAction {
    /// How long.
    #[serde(default, deserialize_with = "nullable")]
    pub seconds: i64,
}

/// What is done after a container's start and before its end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lifecycle {
    /// After the start; a failure ends the container.
    #[serde(default)]
    pub post_start: Option<Handler>,
    /// Before the stop signal, within the grace.
    #[serde(default)]
    pub pre_stop: Option<Handler>,
    /// Signal instead of the image's.
    #[serde(default, deserialize_with = "nullable")]
    pub stop_signal: String,
}

/// A port of a container.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Port {
    /// For probes and services.
    #[serde(default, deserialize_with = "nullable")]
    pub name: String,
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
    /// A request or limit of a container.
    #[serde(default)]
    pub resource_field_ref: Option<ResourceFieldRef>,
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

/// A request or limit of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourceFieldRef {
    /// Of which container; empty is the one that asks (environment only).
    #[serde(default, deserialize_with = "nullable")]
    pub container_name: String,
    /// `limits.cpu`, `requests.memory` …
    #[serde(default, deserialize_with = "nullable")]
    pub resource: String,
    /// Unit of the answer; absent is 1.
    #[serde(default)]
    pub divisor: Option<Value>,
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
