//! Edged: runs the pods of this node on a container engine, and says how they and the node are (manual ch. 5.2).
//!
//! | from | message | what follows |
//! |---|---|---|
//! | MetaManager | [`EdgedMessage::ObjectChanged`], [`EdgedMessage::ObjectDeleted`] | a pass over the pods that it concerns |
//! | engine | [`EdgedMessage::Runtime`] | a pass over that pod; the node's condition |
//! | own timers | [`EdgedMessage::ReconcileDue`], [`EdgedMessage::PodDue`] | comparison of everything; a pass |
//! | own timers | [`EdgedMessage::StatusDue`], [`EdgedMessage::RegisterDue`] | status, registration of the node to MetaManager |
//! | own workers | [`EdgedMessage::Passed`], [`EdgedMessage::Pulled`], [`EdgedMessage::Listed`] | status to MetaManager, the next step |
//! | EdgeHub | [`EdgedMessage::CloudConnected`] | registration and status of the node to MetaManager |
//! | EdgeHub | [`EdgedMessage::CloudDisconnected`] | – |
//! | MetaManager | [`EdgedMessage::RegistrationRefused`] | registration again after a pause |
//!
//! What shall be is read from the store, what is from the engine by labels, at each pass; a message is only a reason to
//! look. So a restart of this module or of the daemon touches no running container, and a lost hint costs time, not truth.
//!
//! | file | duty |
//! |---|---|
//! | `pod`, `check`, `quantity`, `env`, `objects` | reading what is wanted, and refusing what cannot be |
//! | `container` | what the engine is told to make (pure) |
//! | `observed`, `plan`, `status` | what is there → what to do, what to say (pure) |
//! | `volume` | files of a pod on the machine |
//! | `runtime` | the engine behind a trait |
//! | `worker`, `watch` | tasks beside the actor: one pass over one pod; the event stream |
//! | `page` | what the page shows, and the next incarnation takes over |
//! | `node`, `read_only` | the node's status; `GET /pods` |
//!
//! Invariant: no call to the engine runs inside a handler.
//! Invariant: at most one pass over a pod at a time; containers of another node or of nobody are never touched.

mod check;
mod container;
mod engine;
pub mod env;
mod handlers;
mod message;
pub mod node;
pub mod objects;
pub mod observed;
mod page;
pub mod plan;
pub mod pod;
pub mod quantity;
pub mod read_only;
pub mod runtime;
mod state;
pub mod status;
#[cfg(test)]
mod tests;
pub mod volume;
mod watch;
pub mod worker;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actor::Handle;
use model::{Clock, NodeName, SystemClock};
use tokio::sync::Semaphore;

use crate::meta_manager::MetaManagerMessage;
use runtime::ContainerRuntime;

pub use engine::{Engine, EngineError};
pub use message::EdgedMessage;
pub use page::Snapshot;
pub use state::Edged;
pub use watch::watch;
pub use worker::Shared;

/// Pause before the first comparison after something happened; doubles while nothing does.
pub const RELIST_FIRST: Duration = Duration::from_secs(1);
/// Longest pause between two comparisons.
pub const RELIST_MAX: Duration = Duration::from_secs(60);
/// Short calls to the engine at once.
const CALLS_MAX: usize = 8;
/// Pulls at once.
const PULLS_MAX: usize = 3;

/// Settings of Edged.
#[derive(Clone)]
pub struct Config {
    /// This node; label of its containers.
    pub node: NodeName,
    /// `edged.version`: what the node shows as its version.
    pub version: String,
    /// `edged.node-status-update-frequency`.
    pub status_interval: Duration,
}

/// The mailboxes that Edged uses.
#[derive(Clone, Debug)]
pub struct Peers {
    /// Takes statuses and questions.
    pub meta_manager: Handle<MetaManagerMessage>,
    /// Its own, for timers and workers.
    pub own: Handle<EdgedMessage>,
}

impl Shared {
    /// What the passes of all incarnations share. `data_dir` is the daemon's; the pods are in `pods` below it.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn open(
        runtime: Arc<dyn ContainerRuntime>,
        edged: Handle<EdgedMessage>,
        node: &NodeName,
        host_ip: &str,
        data_dir: &Path,
    ) -> std::io::Result<Self> {
        Self::with_clock(runtime, edged, node, host_ip, data_dir, Arc::new(SystemClock))
    }

    /// As [`Shared::open`], with a clock.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn with_clock(
        runtime: Arc<dyn ContainerRuntime>,
        edged: Handle<EdgedMessage>,
        node: &NodeName,
        host_ip: &str,
        data_dir: &Path,
        clock: Arc<dyn Clock>,
    ) -> std::io::Result<Self> {
        // Docker wants absolute paths to mount.
        let pods: PathBuf = std::path::absolute(data_dir)?.join("pods");
        node::prepare_dir(&pods)?;
        Ok(Self {
            runtime,
            edged,
            node: node.to_string(),
            host_ip: host_ip.to_owned(),
            pods,
            clock,
            calls: Semaphore::new(CALLS_MAX),
            pulls: Semaphore::new(PULLS_MAX),
            page: Mutex::default(),
        })
    }
}
