//! The container engine, as Edged sees it.
//!
//! Edged decides; an engine only does what it is told and says what is there. Docker is behind it today; another engine,
//! or a hollow one for scale tests, implements [`ContainerRuntime`] and nothing else changes.

pub mod docker;
#[cfg(test)]
pub mod testing;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use futures_util::stream::Stream;

/// Answer of the engine.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, RuntimeError>> + Send + 'a>>;

/// What the engine reports by itself, until it goes away.
pub type Events<'a> = Pin<Box<dyn Stream<Item = Result<RuntimeEvent, RuntimeError>> + Send + 'a>>;

/// Labels of every container that Edged makes. The `io.kubernetes` ones are the kubelet's.
pub mod label {
    /// `true`: made by Skep.
    pub const MANAGED: &str = "io.skep.managed";
    /// The node's name: two edges on one machine leave each other's containers alone.
    pub const NODE: &str = "io.skep.node";
    /// How often this container has fallen in a row ([`super::super::plan`] makes the back-off of it).
    pub const LEVEL: &str = "io.skep.backoff-level";
    /// Id of the container whose network namespace this one has joined.
    pub const NETWORK: &str = "io.skep.network";
    /// Pod name.
    pub const POD_NAME: &str = "io.kubernetes.pod.name";
    /// Pod namespace.
    pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
    /// Pod uid.
    pub const POD_UID: &str = "io.kubernetes.pod.uid";
    /// Seconds between stop signal and kill, for pods whose object is gone.
    pub const GRACE: &str = "io.kubernetes.pod.terminationGracePeriod";
    /// Container name.
    pub const CONTAINER: &str = "io.kubernetes.container.name";
    /// [`super::super::pod::Container::hash`].
    pub const HASH: &str = "io.kubernetes.container.hash";
    /// How often the container was started before.
    pub const RESTARTS: &str = "io.kubernetes.container.restartCount";
    /// As in the spec.
    pub const MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
    /// As in the spec.
    pub const MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
}

/// Why the engine did not do it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuntimeError {
    /// Nobody answers. Everything else is unknown; what runs keeps running.
    #[error("the container engine at {address} does not answer: {cause}")]
    Unreachable {
        /// As configured.
        address: String,
        /// The system's words.
        cause: String,
    },
    /// No such container or image.
    #[error("{0}")]
    NotFound(String),
    /// The engine said no (bad value, name or port taken, entrypoint missing).
    #[error("{message}")]
    Refused {
        /// HTTP status.
        code: u16,
        /// The engine's words.
        message: String,
    },
    /// No answer in time.
    #[error("{what} took longer than {} s", limit.as_secs())]
    TimedOut {
        /// The call.
        what: &'static str,
        /// Its limit.
        limit: Duration,
    },
    /// An answer that is not of the engine's API.
    #[error("unexpected answer of the container engine: {0}")]
    Protocol(String),
}

/// Version of the engine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimeVersion {
    /// `docker`.
    pub name: &'static str,
    /// Of the engine.
    pub version: String,
}

/// What a container does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContainerState {
    /// Made and never started.
    Created,
    /// Its process runs (or is paused).
    Running {
        /// RFC 3339.
        started_at: jiff::Timestamp,
    },
    /// Its process has ended.
    Exited(Exit),
    /// Being removed, or broken so that only removal is left.
    Dead,
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Exit code.
    pub code: i64,
    /// Killed for memory.
    pub oom_killed: bool,
    /// The engine's words, when the process could not be started.
    pub error: String,
    /// When it was started; the epoch if never.
    pub started_at: jiff::Timestamp,
    /// When it ended.
    pub finished_at: jiff::Timestamp,
}

/// A container that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Engine's id.
    pub id: String,
    /// See [`label`].
    pub labels: BTreeMap<String, String>,
    /// What it does.
    pub state: ContainerState,
    /// As it was named at creation.
    pub image: String,
    /// Digest of the image.
    pub image_id: String,
    /// Address on the bridge, if it has one of its own.
    pub ip: Option<String>,
}

/// A line of the container list, without details.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Engine's id.
    pub id: String,
    /// See [`label`].
    pub labels: BTreeMap<String, String>,
    /// `running`, `exited` … in the engine's word.
    pub state: String,
}

/// Network of a container to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Network {
    /// The machine's.
    Host,
    /// One of its own on the engine's default bridge.
    Bridge,
    /// That of the running container with this id.
    Join(String),
}

/// A port to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// Inside.
    pub container_port: u16,
    /// On the machine.
    pub host_port: u16,
    /// `tcp`, `udp`, `sctp`.
    pub protocol: &'static str,
    /// Address on the machine; `None` is every address.
    pub host_ip: Option<String>,
}

/// A path of the machine inside a container. Neither path contains a colon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    /// On the machine.
    pub source: PathBuf,
    /// Inside.
    pub target: String,
    /// Writes fail.
    pub read_only: bool,
}

/// A container to be made.
#[derive(Clone, Debug)]
pub struct ContainerSpec {
    /// Engine-wide unique.
    pub name: String,
    /// Image reference; it must be present.
    pub image: String,
    /// Entrypoint; empty is the image's.
    pub command: Vec<String>,
    /// Command.
    pub args: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Empty is the image's.
    pub working_dir: String,
    /// See [`label`].
    pub labels: BTreeMap<String, String>,
    /// Volumes.
    pub binds: Vec<Bind>,
    /// Ports; must be empty when a network is joined.
    pub ports: Vec<Publish>,
    /// Network.
    pub network: Network,
    /// Ignored when a network is joined or the machine's is used.
    pub hostname: String,
    /// Bytes; swap is not given beside it.
    pub memory: Option<u64>,
    /// Billionths of a CPU.
    pub cpu_nano: Option<u64>,
    /// Weight in thousandths of a CPU.
    pub cpu_request_milli: u64,
    /// All capabilities and devices.
    pub privileged: bool,
    /// The machine's process namespace.
    pub host_pid: bool,
    /// The machine's IPC namespace.
    pub host_ipc: bool,
}

/// What the engine tells by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuntimeEvent {
    /// A container of ours was started, died, was removed …
    Container {
        /// Pod uid from its label.
        pod_uid: String,
        /// The engine's word for it.
        action: String,
    },
    /// An image came (pull, load, tag, import): somebody may wait for it.
    Image,
    /// The stream of events stands.
    Up(RuntimeVersion),
    /// The stream of events broke, or could not be had.
    Down {
        /// For the node's condition and the log.
        reason: String,
    },
}

/// A container engine.
///
/// Every call has its own time limit and may be dropped at any point; what it did until then is found by labels.
pub trait ContainerRuntime: Send + Sync + 'static {
    /// Who answers.
    fn version(&self) -> Answer<'_, RuntimeVersion>;
    /// All containers, running or not, that carry all these labels.
    fn list<'a>(&'a self, labels: &'a [(&'a str, &'a str)]) -> Answer<'a, Vec<Summary>>;
    /// Details; `None` when it is gone.
    fn inspect<'a>(&'a self, id: &'a str) -> Answer<'a, Option<Container>>;
    /// Makes a container and gives its id. Does not start it.
    fn create<'a>(&'a self, spec: &'a ContainerSpec) -> Answer<'a, String>;
    /// Starts a container. One that runs is fine.
    fn start<'a>(&'a self, id: &'a str) -> Answer<'a, ()>;
    /// Stop signal, then kill after `grace`. One that has ended or gone is fine.
    fn stop<'a>(&'a self, id: &'a str, grace: Duration) -> Answer<'a, ()>;
    /// Removes a container and its anonymous volumes, running or not. One that is gone is fine.
    fn remove<'a>(&'a self, id: &'a str) -> Answer<'a, ()>;
    /// Whether the image is here.
    fn has_image<'a>(&'a self, image: &'a str) -> Answer<'a, bool>;
    /// Fetches an image from its registry.
    fn pull<'a>(&'a self, image: &'a str) -> Answer<'a, ()>;
    /// Events from now on: containers with this node label, and images.
    fn events<'a>(&'a self, node: &'a str) -> Events<'a>;
}
