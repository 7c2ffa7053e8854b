//! The types: fields and their JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::container::Container;
use super::volume::Volume;

/// Reads `null` as the type's default: Go writes `null` for an empty list or map.
pub(super) fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
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
    /// It comes from a file of this machine. Never read from the object: whoever writes one could say so.
    #[serde(skip)]
    pub is_static: bool,
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
    /// Before all others, one after the other; those with `restartPolicy: Always` keep running beside what follows.
    #[serde(default, deserialize_with = "nullable")]
    pub init_containers: Vec<Container>,
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
    /// One process namespace for all containers, with the sandbox's first process.
    #[serde(default, deserialize_with = "nullable")]
    pub share_process_namespace: bool,
    /// Seconds after `startTime` at which the pod has failed.
    #[serde(default)]
    pub active_deadline_seconds: Option<i64>,
    /// `None`: only what `dnsConfig` says. All else begins with the machine's servers: there is no cluster DNS at the edge.
    #[serde(default, deserialize_with = "nullable")]
    pub dns_policy: String,
    /// Added to the machine's resolver configuration, or instead of it.
    #[serde(default, deserialize_with = "nullable")]
    pub dns_config: DnsConfig,
    /// Further lines of `/etc/hosts`.
    #[serde(default, deserialize_with = "nullable")]
    pub host_aliases: Vec<HostAlias>,
    /// Secrets with the credentials of registries.
    #[serde(default, deserialize_with = "nullable")]
    pub image_pull_secrets: Vec<LocalRef>,
    /// For all containers, where they say nothing else.
    #[serde(default, deserialize_with = "nullable")]
    pub security_context: PodSecurityContext,
    /// The lower, the sooner it is ended when the machine runs short; 0 when absent.
    #[serde(default)]
    pub priority: Option<i64>,
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

impl RestartPolicy {
    /// Whether a container is started again that ended with this code.
    pub fn starts_again(self, code: i64) -> bool {
        match self {
            Self::Always => true,
            Self::OnFailure => code != 0,
            Self::Never => false,
        }
    }
}

/// Resolver configuration.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct DnsConfig {
    /// Addresses.
    #[serde(default, deserialize_with = "nullable")]
    pub nameservers: Vec<String>,
    /// Domains.
    #[serde(default, deserialize_with = "nullable")]
    pub searches: Vec<String>,
    /// `name` or `name:value`.
    #[serde(default, deserialize_with = "nullable")]
    pub options: Vec<DnsOption>,
}

/// One resolver option.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct DnsOption {
    /// E.g. `ndots`.
    #[serde(default, deserialize_with = "nullable")]
    pub name: String,
    /// E.g. `2`.
    #[serde(default)]
    pub value: Option<String>,
}

/// One line of `/etc/hosts`.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct HostAlias {
    /// Address.
    #[serde(default, deserialize_with = "nullable")]
    pub ip: String,
    /// Names.
    #[serde(default, deserialize_with = "nullable")]
    pub hostnames: Vec<String>,
}

/// The name of an object in the pod's namespace.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct LocalRef {
    /// Name.
    #[serde(default, deserialize_with = "nullable")]
    pub name: String,
}

/// What all containers of a pod may do.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodSecurityContext {
    /// User id of the first process.
    #[serde(default)]
    pub run_as_user: Option<i64>,
    /// Group id of the first process.
    #[serde(default)]
    pub run_as_group: Option<i64>,
    /// Refuse user 0.
    #[serde(default)]
    pub run_as_non_root: Option<bool>,
    /// Group of the volumes, and a further one of each process.
    #[serde(default)]
    pub fs_group: Option<i64>,
    /// When a volume's group is set: `Always`, `OnRootMismatch`.
    #[serde(default, deserialize_with = "nullable")]
    pub fs_group_change_policy: String,
    /// Further groups of each process.
    #[serde(default, deserialize_with = "nullable")]
    pub supplemental_groups: Vec<i64>,
    /// Filter of system calls.
    #[serde(default)]
    pub seccomp_profile: Option<Profile>,
    /// Confinement by AppArmor.
    #[serde(default)]
    pub app_armor_profile: Option<Profile>,
    /// SELinux labels.
    #[serde(default)]
    pub se_linux_options: Option<SeLinuxOptions>,
    /// Kernel parameters of the pod's namespaces.
    #[serde(default, deserialize_with = "nullable")]
    pub sysctls: Vec<Sysctl>,
    #[serde(flatten)]
    pub(in crate::edged) rest: Rest,
}

/// A kernel parameter.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Sysctl {
    /// E.g. `net.ipv4.ip_local_port_range`.
    #[serde(default, deserialize_with = "nullable")]
    pub name: String,
    /// As text.
    #[serde(default, deserialize_with = "nullable")]
    pub value: String,
}

/// A seccomp or AppArmor profile.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Profile {
    /// `RuntimeDefault`, `Unconfined` or `Localhost`.
    #[serde(default, rename = "type", deserialize_with = "nullable")]
    pub kind: String,
    /// For `Localhost`: its name, or its file below the profiles' directory.
    #[serde(default, deserialize_with = "nullable")]
    pub localhost_profile: String,
}

/// SELinux labels of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct SeLinuxOptions {
    /// User.
    #[serde(default, deserialize_with = "nullable")]
    pub user: String,
    /// Role.
    #[serde(default, deserialize_with = "nullable")]
    pub role: String,
    /// Type.
    #[serde(default, rename = "type", deserialize_with = "nullable")]
    pub kind: String,
    /// Level.
    #[serde(default, deserialize_with = "nullable")]
    pub level: String,
}
