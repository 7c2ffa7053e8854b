//! What an engine is told to make.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// Network of a container to be made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// The machine's.
    Host,
    /// One of its own on the engine's default bridge.
    #[default]
    Bridge,
    /// That of the running container with this id.
    Join(String),
}

/// A process or IPC namespace of a container to be made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Namespace {
    /// One of its own.
    #[default]
    Own,
    /// One of its own that others may join.
    Shareable,
    /// The machine's.
    Host,
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

/// Where what is mounted comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountSource {
    /// A path of the machine, which must be there.
    Path(PathBuf),
    /// A path of the machine; the engine makes a directory of it if nothing is there (of one with a colon only Docker 23 and later).
    PathOrDirectory(PathBuf),
    /// A volume that the engine keeps ([`super::ContainerRuntime::create_volume`]).
    Volume(String),
}

/// A file system in memory, in which everybody may write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Most bytes.
    pub bytes: Option<u64>,
    /// The group of all that is made in it.
    pub group: Option<u32>,
}

/// How mounts below a mount are seen on the other side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Propagation {
    /// Not at all.
    #[default]
    Private,
    /// Those of the machine in the container.
    HostToContainer,
    /// Both ways.
    Bidirectional,
}

/// Something of the machine inside a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// On the machine.
    pub source: MountSource,
    /// Inside; absolute.
    pub target: String,
    /// Writes fail.
    pub read_only: bool,
    /// See [`Propagation`].
    pub propagation: Propagation,
}

/// Resolver configuration; empty lists leave what the engine takes from the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolver {
    /// Addresses.
    pub nameservers: Vec<String>,
    /// Domains.
    pub searches: Vec<String>,
    /// `name` or `name:value`.
    pub options: Vec<String>,
}

/// How much a container may take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes; swap is not given beside it.
    pub memory: Option<u64>,
    /// Billionths of a CPU.
    pub cpu_nano: Option<u64>,
    /// Weight in thousandths of a CPU.
    pub cpu_request_milli: u64,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// Who is killed first when the machine runs out of memory, -1000 (never) to 1000.
    pub oom_score_adj: i32,
}

/// What the processes of a container may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Security {
    /// All capabilities and devices.
    pub privileged: bool,
    /// Writes to the image's files fail.
    pub read_only_root: bool,
    /// `CAP_…` or `ALL`, beside the engine's own set.
    pub cap_add: Vec<String>,
    /// Taken from it.
    pub cap_drop: Vec<String>,
    /// In the engine's words: `no-new-privileges`, `seccomp=…`, `apparmor=…`, `label=…`.
    pub options: Vec<String>,
    /// Show all of `/proc`.
    pub unmasked_proc: bool,
}

/// A container to be made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
    /// `uid` or `uid:gid`; empty is the image's.
    pub user: String,
    /// Further groups of each process.
    pub groups: Vec<i64>,
    /// See [`super::label`].
    pub labels: BTreeMap<String, String>,
    /// Volumes.
    pub mounts: Vec<Mount>,
    /// Ports; must be empty when a network is joined or the machine's is used.
    pub ports: Vec<Publish>,
    /// Network.
    pub network: Network,
    /// Ignored when a network is joined or the machine's is used.
    pub hostname: String,
    /// Must be empty when a network is joined.
    pub resolver: Resolver,
    /// Further lines of `/etc/hosts`: name and address. Must be empty when a network is joined.
    pub hosts: Vec<(String, String)>,
    /// Process namespace.
    pub pid: Namespace,
    /// IPC namespace.
    pub ipc: Namespace,
    /// The engine's own first process beside the container's, which waits for orphans.
    pub init: bool,
    /// Kernel parameters of its namespaces.
    pub sysctls: BTreeMap<String, String>,
    /// How much it may take.
    pub limits: Limits,
    /// What it may do.
    pub security: Security,
    /// Empty is the image's, else SIGTERM.
    pub stop_signal: String,
    /// Standard input stays open.
    pub stdin: bool,
    /// Standard input is closed after the first that attached to it.
    pub stdin_once: bool,
    /// A terminal.
    pub tty: bool,
}
