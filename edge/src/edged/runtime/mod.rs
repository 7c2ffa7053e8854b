//! The container engine, as Edged sees it.
//!
//! Edged decides; an engine only does what it is told and says what is there. Docker is behind it today; another engine,
//! or a hollow one for scale tests, implements [`ContainerRuntime`] and nothing else changes.

pub mod docker;
pub mod hollow;
mod spec;
#[cfg(test)]
pub mod testing;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use futures_util::stream::Stream;

pub use spec::{ContainerSpec, Limits, Memory, Mount, MountSource, Namespace, Network, Propagation, Publish, Resolver, Security};

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
    /// Id of the sandbox that this container belongs to; absent in a pod without one.
    pub const SANDBOX: &str = "io.kubernetes.sandbox.id";
    /// `sandbox` or `container`.
    pub const KIND: &str = "io.kubernetes.docker.type";
    /// Pod name.
    pub const POD_NAME: &str = "io.kubernetes.pod.name";
    /// Pod namespace.
    pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
    /// Pod uid.
    pub const POD_UID: &str = "io.kubernetes.pod.uid";
    /// Seconds between stop signal and kill, for pods whose object is gone.
    pub const GRACE: &str = "io.kubernetes.pod.terminationGracePeriod";
    /// Container name; [`SANDBOX_NAME`] of the sandbox.
    pub const CONTAINER: &str = "io.kubernetes.container.name";
    /// [`super::super::pod::Container::hash`].
    pub const HASH: &str = "io.kubernetes.container.hash";
    /// How often the container was started before.
    pub const RESTARTS: &str = "io.kubernetes.container.restartCount";
    /// As in the spec.
    pub const MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
    /// As in the spec.
    pub const MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
    /// [`CONTAINER`] of a sandbox: no container of a pod can have this name.
    pub const SANDBOX_NAME: &str = "POD";
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
    /// A program in a container did not end in time, and goes on.
    #[error("the program took longer than {} s", limit.as_secs())]
    GoesOn {
        /// The engine's id of it, for [`ContainerRuntime::goes_on`].
        program: String,
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
    /// The engine is removing it, from before its process is killed on.
    Removing,
    /// Broken so that only removal is left.
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
    /// When it was made.
    pub created_at: jiff::Timestamp,
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
    /// When it was created, in seconds since 1970.
    pub created: i64,
}

/// An image that is here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// `sha256:…`.
    pub id: String,
    /// `repository:tag` and `repository@digest`.
    pub names: Vec<String>,
    /// As the image names it: empty, a name or a number, and a group behind a colon.
    pub user: String,
    /// Bytes on the disk, with what it shares with others.
    pub bytes: u64,
    /// When it was built; [`ContainerRuntime::images`] fills everything but `user`.
    pub created: jiff::Timestamp,
}

/// A login at a registry.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Login {
    /// User.
    pub username: String,
    /// Password or token.
    pub password: String,
    /// The registry that they are for.
    pub server: String,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Login at {} as {}", self.server, self.username)
    }
}

/// How a program in a container ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Executed {
    /// Exit code.
    pub code: i64,
    /// What it wrote, both streams, the first [`EXEC_OUTPUT_MAX`] bytes.
    pub output: String,
}

/// Most bytes that are kept of what a program in a container writes (the kubelet: 10 KiB).
pub const EXEC_OUTPUT_MAX: usize = 10 * 1024;

/// Which lines of a container's log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogQuery {
    /// Go on with what is written later.
    pub follow: bool,
    /// Only so many at the end.
    pub tail: Option<u64>,
    /// Only from then on, in seconds of the epoch.
    pub since: Option<i64>,
    /// The time before each line.
    pub timestamps: bool,
}

/// Bytes of a log, in the order in which they were written, both streams.
pub type LogStream<'a> = Pin<Box<dyn Stream<Item = Result<Vec<u8>, RuntimeError>> + Send + 'a>>;

/// What a container takes now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Nanoseconds of CPU since its start.
    pub cpu_nanos: u64,
    /// Bytes that it would fall by if asked politely are left out (the kubelet's working set).
    pub memory_working_set: u64,
    /// Bytes with the page cache.
    pub memory_usage: u64,
    /// Processes and threads.
    pub pids: u64,
    /// Bytes that came over its network, if that is its own.
    pub network_received: u64,
    /// Bytes that it sent.
    pub network_sent: u64,
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
    /// Runs a program in a running container and waits for its end. When that takes longer than `limit` the answer is
    /// `GoesOn`, as the program does: engines cannot end it. Without word of a program from the engine it is `TimedOut`.
    fn exec<'a>(&'a self, id: &'a str, command: &'a [String], limit: Duration) -> Answer<'a, Executed>;
    /// Whether a program that did not end in time still runs.
    fn goes_on<'a>(&'a self, _program: &'a str) -> Answer<'a, bool> {
        Box::pin(async { Ok(false) })
    }
    /// The container's log.
    fn logs<'a>(&'a self, id: &'a str, query: &'a LogQuery) -> LogStream<'a>;
    /// What a running container takes; `None` when it does not run.
    fn usage<'a>(&'a self, id: &'a str) -> Answer<'a, Option<Usage>>;
    /// Bytes of the files that a container made or changed outside of volumes; `None` when the engine cannot say.
    fn layer_bytes<'a>(&'a self, _id: &'a str) -> Answer<'a, Option<u64>> {
        Box::pin(async { Ok(None) })
    }
    /// The image, if it is here.
    fn image<'a>(&'a self, image: &'a str) -> Answer<'a, Option<Image>>;
    /// All images.
    fn images(&self) -> Answer<'_, Vec<Image>>;
    /// Fetches an image from its registry.
    fn pull<'a>(&'a self, image: &'a str, login: Option<&'a Login>) -> Answer<'a, ()>;
    /// Takes in an archive of images (the form of `docker save`).
    fn load_image(&self, archive: Vec<u8>) -> Answer<'_, ()>;
    /// Removes an image with all its names. One that is gone is fine, one in use is refused.
    fn remove_image<'a>(&'a self, id: &'a str) -> Answer<'a, ()>;
    /// The directory in which the engine keeps images and containers.
    fn root_dir(&self) -> Answer<'_, std::path::PathBuf>;
    /// Makes a file system in memory, which lives while a container uses it. One of that name is fine.
    fn create_volume<'a>(&'a self, name: &'a str, memory: Memory, labels: &'a [(&'a str, &'a str)]) -> Answer<'a, ()>;
    /// Names of the volumes that carry all these labels.
    fn volumes<'a>(&'a self, labels: &'a [(&'a str, &'a str)]) -> Answer<'a, Vec<String>>;
    /// Removes a volume. One that is gone is fine.
    fn remove_volume<'a>(&'a self, name: &'a str) -> Answer<'a, ()>;
    /// Events from now on: containers with this node label, and images.
    fn events<'a>(&'a self, node: &'a str) -> Events<'a>;
}
