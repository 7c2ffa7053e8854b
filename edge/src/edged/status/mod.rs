//! The status of a pod: its form (manual ch. 11.4; Kubernetes' PodStatus), and how it is made of what is there.
//!
//! | file | duty |
//! |---|---|
//! | `container` | one container |
//! | `pod` | the whole: phase and conditions |
//! | `news` | what of a change is worth an event |

mod container;
mod news;
mod pod;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::observed::{Healths, Observed, Troubles};
use super::pod::{Pod, Refusal, RestartPolicy};

/// `status` of a Pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    /// `Pending`, `Running`, `Succeeded` or `Failed`.
    pub phase: String,
    /// `PodReadyToStartContainers`, `Initialized`, `Ready`, `ContainersReady`, `PodScheduled`.
    pub conditions: Vec<Condition>,
    /// For a person.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// One word, e.g. `Unsupported`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Address of the machine.
    #[serde(rename = "hostIP", skip_serializing_if = "String::is_empty")]
    pub host_ip: String,
    /// The same as a list.
    #[serde(rename = "hostIPs", skip_serializing_if = "Vec::is_empty")]
    pub host_ips: Vec<Address>,
    /// Address of the pod.
    #[serde(rename = "podIP", skip_serializing_if = "String::is_empty")]
    pub pod_ip: String,
    /// The same as a list.
    #[serde(rename = "podIPs", skip_serializing_if = "Vec::is_empty")]
    pub pod_ips: Vec<Address>,
    /// When this edge took the pod on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<String>,
    /// In the order of the spec.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub init_container_statuses: Vec<ContainerStatus>,
    /// In the order of the spec.
    pub container_statuses: Vec<ContainerStatus>,
    /// `Guaranteed`, `Burstable`, `BestEffort`.
    pub qos_class: String,
}

/// One address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// Text form.
    pub ip: String,
}

/// One condition of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Condition {
    /// Which.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True` or `False`.
    pub status: String,
    /// When `status` changed last.
    pub last_transition_time: String,
    /// One word.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// For a person.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// One container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerStatus {
    /// Name in the pod.
    pub name: String,
    /// What it does.
    pub state: State,
    /// How the one before ended.
    pub last_state: State,
    /// Whether it serves.
    pub ready: bool,
    /// How often it was started before.
    pub restart_count: u32,
    /// Image reference.
    pub image: String,
    /// Digest.
    #[serde(rename = "imageID")]
    pub image_id: String,
    /// `docker://<id>`.
    #[serde(rename = "containerID", skip_serializing_if = "String::is_empty")]
    pub container_id: String,
    /// Its process runs.
    pub started: bool,
}

/// What a container does; at most one is set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// Not yet, or not again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Waiting>,
    /// Its process runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub running: Option<Running>,
    /// Its process has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminated: Option<Terminated>,
}

/// Why it does not run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Waiting {
    /// `ContainerCreating`, `CrashLoopBackOff`, `ErrImagePull` …
    pub reason: String,
    /// For a person.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// Since when.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Running {
    /// RFC 3339, seconds.
    pub started_at: String,
}

/// How it ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Terminated {
    /// Exit code of the process.
    pub exit_code: i64,
    /// `Completed`, `Error`, `OOMKilled`.
    pub reason: String,
    /// The engine's words.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// RFC 3339, seconds.
    pub started_at: String,
    /// RFC 3339, seconds.
    pub finished_at: String,
    /// `docker://<id>`.
    #[serde(rename = "containerID")]
    pub container_id: String,
}

impl PodStatus {
    /// Whether the pod has ended for good.
    pub fn is_over(&self) -> bool {
        matches!(self.phase.as_str(), "Succeeded" | "Failed")
    }

    /// How often a container was started before, if it ever was.
    pub fn restarts(&self, container: &str) -> Option<u32> {
        self.container(container).filter(|one| !one.container_id.is_empty()).map(|one| one.restart_count)
    }

    /// Whether a container was reported as ended in a way after which this policy does not start it again.
    pub fn has_ended(&self, container: &str, policy: RestartPolicy) -> bool {
        let end = self.container(container).and_then(|one| one.state.terminated.as_ref());
        end.is_some_and(|end| !policy.starts_again(end.exit_code))
    }

    /// The container of that name, whichever list it is in.
    pub fn container(&self, name: &str) -> Option<&ContainerStatus> {
        self.init_container_statuses.iter().chain(&self.container_statuses).find(|one| one.name == name)
    }
}

/// RFC 3339 in whole seconds, as Kubernetes writes times.
pub fn seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Everything that a status depends on.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The object.
    pub pod: &'a Pod,
    /// What is there.
    pub seen: &'a Observed,
    /// What went wrong.
    pub troubles: &'a Troubles,
    /// What the probes said.
    pub healths: &'a Healths,
    /// Why it does not run here at all.
    pub refusal: Option<&'a Refusal>,
    /// What was reported last.
    pub previous: Option<&'a PodStatus>,
    /// Address of the machine; empty if unknown.
    pub host_ip: &'a str,
    /// The present.
    pub now: Timestamp,
}

pub use news::{News, news};
pub use pod::pod_status;
