//! The part of a Pod that this edge runs.
//!
//! Our own subset of the Kubernetes type: smaller than the generated one, and every field that it does not know is kept
//! in `rest`, so that [`Pod::check`] can refuse what would be wrong to ignore (a probe, an init container, a volume kind)
//! and let pass what only a scheduler or a cluster reads (tolerations, priorities).

mod container;
mod object;
mod volume;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::check::is_uid;
use super::quantity::{self, QuantityError};

pub use container::{
    Capabilities, Container, EnvFrom, EnvSource, EnvVar, ExecAction, FieldRef, GrpcAction, Handler, HttpGetAction, HttpHeader, KeyRef, Lifecycle,
    ObjectRef, Port, Probe, ResourceFieldRef, Resources, SecurityContext, SleepAction, TcpSocketAction,
};
pub(super) use object::Rest;
pub use object::{
    ApiStatus, DnsConfig, DnsOption, HostAlias, LocalRef, Metadata, Pod, PodOs, PodSecurityContext, PodSpec, Profile, RestartPolicy, SeLinuxOptions,
    Sysctl,
};
pub use volume::{DownwardFile, DownwardVolume, EmptyDir, HostPath, KeyToPath, KeyedVolume, ProjectedSource, ProjectedVolume, Volume, VolumeMount};

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

fn unreadable(json: &str, error: &serde_json::Error) -> Refusal {
    let (field, words) = wire::field::explain(json, error);
    Refusal::invalid(if field.is_empty() { "the pod" } else { &field }, format_args!("cannot be read: {words}"))
}

impl Pod {
    /// Reads a pod from JSON.
    ///
    /// # Errors
    /// `InvalidSpec` with the field and the decoder's words; the identity of such an object may still be known from its key.
    pub fn parse(json: &str) -> Result<Self, Refusal> {
        let mut pod: Self = serde_json::from_str(json).map_err(|error| unreadable(json, &error))?;
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

    /// Init containers and containers, in the order in which they start.
    pub fn all_containers(&self) -> impl Iterator<Item = &Container> {
        self.spec.init_containers.iter().chain(&self.spec.containers)
    }

    /// The container of that name, whichever list it is in.
    pub fn container(&self, name: &str) -> Option<&Container> {
        self.all_containers().find(|container| container.name == name)
    }

    /// Whether it prepares the pod, as a sidecar or by its end.
    pub fn is_init(&self, container: &Container) -> bool {
        self.spec.init_containers.iter().any(|init| init.name == container.name)
    }

    /// Which ends of a container are followed by another start: an init container has done its work when it ended well.
    pub fn policy_of(&self, container: &Container) -> RestartPolicy {
        match (self.is_init(container), container.is_sidecar(), self.spec.restart_policy) {
            (true, true, _) => RestartPolicy::Always,
            (true, false, RestartPolicy::Always) => RestartPolicy::OnFailure,
            (_, _, policy) => policy,
        }
    }

    /// Whether something has to hold what the containers share. A single container in the machine's network shares nothing
    /// unless the pod has file systems in memory or kernel parameters, and a small machine is spared a process.
    pub fn needs_sandbox(&self) -> bool {
        let spec = &self.spec;
        let has_shared = spec.volumes.iter().any(Volume::is_memory) || !spec.security_context.sysctls.is_empty();
        !spec.host_network || spec.share_process_namespace || self.all_containers().count() > 1 || has_shared
    }

    /// Whether it publishes ports on the machine.
    pub fn has_host_ports(&self) -> bool {
        self.all_containers().any(|one| one.ports.iter().any(|port| port.host_port != 0))
    }

    /// The volume of that name.
    pub fn volume(&self, name: &str) -> Option<&Volume> {
        self.spec.volumes.iter().find(|volume| volume.name == name)
    }

    /// The ConfigMaps and Secrets that the pod reads: `(is it a Secret, name)`.
    pub fn references(&self) -> BTreeSet<(bool, String)> {
        let mut found = BTreeSet::new();
        for volume in self.spec.volumes.iter().filter(|volume| !volume.is_api_access()) {
            let projected = volume.projected.iter().flat_map(|projected| &projected.sources);
            let config_maps = volume.config_map.iter().chain(projected.clone().filter_map(|source| source.config_map.as_ref()));
            let secrets = volume.secret.iter().chain(projected.filter_map(|source| source.secret.as_ref()));
            found.extend(config_maps.map(|source| (false, source.name.clone())));
            found.extend(secrets.map(|source| (true, source.name.clone())));
        }
        for container in self.all_containers() {
            for from in &container.env_from {
                found.extend(from.config_map_ref.iter().map(|r| (false, r.name.clone())));
                found.extend(from.secret_ref.iter().map(|r| (true, r.name.clone())));
            }
            for source in container.env.iter().filter_map(|var| var.value_from.as_ref()) {
                found.extend(source.config_map_key_ref.iter().map(|r| (false, r.name.clone())));
                found.extend(source.secret_key_ref.iter().map(|r| (true, r.name.clone())));
            }
        }
        found.extend(self.spec.image_pull_secrets.iter().map(|secret| (true, secret.name.clone())));
        found
    }
}

impl Volume {
    /// Whether this is the API credential that an API server adds to every pod. There is no API server within a pod's reach
    /// at the edge, so neither the volume nor its mounts are made; a pod that needs them fails by itself.
    pub fn is_api_access(&self) -> bool {
        let is_token = |source: &ProjectedSource| source.rest.contains_key("serviceAccountToken");
        self.name.starts_with(API_ACCESS_PREFIX) && self.projected.as_ref().is_some_and(|projected| projected.sources.iter().any(is_token))
    }

    /// Whether it is a file system in memory.
    pub fn is_memory(&self) -> bool {
        self.empty_dir.as_ref().is_some_and(|dir| dir.medium == "Memory")
    }

    /// Most bytes that an emptyDir may have.
    ///
    /// # Errors
    /// The quantity cannot be read.
    pub fn size_limit(&self) -> Result<Option<u64>, QuantityError> {
        let limit = self.empty_dir.as_ref().and_then(|dir| dir.size_limit.as_ref()).filter(|limit| !limit.is_null());
        limit.map(quantity::units).transpose().map(|bytes| bytes.filter(|n| *n > 0))
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

    /// Memory request in bytes; the limit where there is no request.
    ///
    /// # Errors
    /// The quantity cannot be read.
    pub fn memory_request(&self) -> Result<Option<u64>, QuantityError> {
        let asked = self.resources.requests.get("memory").or_else(|| self.resources.limits.get("memory"));
        asked.map(quantity::units).transpose()
    }

    /// Whether it is an init container that runs beside the others.
    pub fn is_sidecar(&self) -> bool {
        self.restart_policy == "Always"
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
    let value = |map: &BTreeMap<String, Value>, name: &str| map.get(name).and_then(|v| quantity::of(name, v).ok()).filter(|n| *n > 0);
    let mut any = false;
    let mut guaranteed = true;
    for container in pod.all_containers() {
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
