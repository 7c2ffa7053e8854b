//! Edged: runs the pods of this node on a container engine, and says how they and the node are (manual ch. 5.2).
//!
//! | from | message | what follows |
//! |---|---|---|
//! | MetaManager | [`EdgedMessage::ObjectChanged`], [`EdgedMessage::ObjectDeleted`] | a pass over the pods that it concerns |
//! | engine | [`EdgedMessage::Runtime`] | a pass over that pod; the node's condition |
//! | own timers | [`EdgedMessage::ReconcileDue`], [`EdgedMessage::PodDue`] | comparison of everything; a pass |
//! | own timers | [`EdgedMessage::StatusDue`], [`EdgedMessage::RegisterDue`] | status, with a look where the machine is, and registration of the node to MetaManager |
//! | own workers | [`EdgedMessage::Passed`], [`EdgedMessage::Pulled`], [`EdgedMessage::Listed`] | status to MetaManager, the next step |
//! | own tasks | [`EdgedMessage::Housekept`], [`EdgedMessage::Tidied`] | the node's conditions and images; a pod is ended |
//! | EdgeHub | [`EdgedMessage::CloudConnected`] | registration and status of the node to MetaManager |
//! | EdgeHub | [`EdgedMessage::CloudDisconnected`] | – |
//! | MetaManager | [`EdgedMessage::RegistrationRefused`], [`EdgedMessage::StatusLost`] | registration after a pause, status with the next tick |
//!
//! What shall be is read from the store, what is from the engine by labels, at each pass; a message is only a reason to
//! look. So a restart of this module or of the daemon touches no running container, and a lost hint costs time, not truth.
//!
//! | file | duty |
//! |---|---|
//! | `pod`, `check`, `env`, `downward`, `objects`, `pull_secret` | reading what is wanted, and refusing what cannot be |
//! | `admission` | whether the node has room for one pod more (pure) |
//! | `container` | what the engine is told to make (pure) |
//! | `observed`, `plan`, `status` | what is there → what to do, what to say (pure) |
//! | `volume` | files of a pod on the machine |
//! | `runtime` | the engine behind a trait |
//! | `entry`, `pulls` | what is known of one pod; images on their way |
//! | `relist` | what the engine says: its events, and its lists compared with the store |
//! | `worker`, `watch` | tasks beside the actor: one pass over one pod; the event stream |
//! | `probe`, `probes` | asking containers whether they are well; hooks; what follows from it |
//! | `page` | what the page shows, and the next incarnation takes over |
//! | `events` | what `kubectl describe` shows as Events (pure), to MetaManager |
//! | `node`, `read_only` | the node's status; what this machine may read: `GET /pods`, `/stats/summary`, `/containerLogs` |
//! | `pressure` | what is short, and who has to go (pure) |
//! | `housekeeping` | looking after the machine: conditions, images, ended containers, evictions |
//! | `settings` | from the configuration to what is worked with |
//!
//! Invariant: no call to the engine runs inside a handler.
//! Invariant: at most one pass over a pod at a time; containers of another node or of nobody are never touched.

mod admission;
mod check;
mod container;
pub mod downward;
mod engine;
mod entry;
pub mod env;
pub mod events;
mod handlers;
pub mod housekeeping;
mod message;
pub mod node;
pub mod objects;
pub mod observed;
mod page;
pub mod pause;
pub mod plan;
pub mod pod;
pub mod pressure;
pub mod probe;
mod probes;
pub mod pull_secret;
mod pulls;
pub mod read_only;
mod relist;
pub mod runtime;
mod settings;
mod shared;
mod state;
pub mod static_pods;
pub mod status;
#[cfg(test)]
mod tests;
pub mod volume;
mod watch;
pub mod worker;

use std::time::Duration;

use actor::Handle;
use model::NodeName;

use crate::meta_manager::MetaManagerMessage;

pub(crate) use check::is_subdomain;
pub use container::Surroundings;
pub use engine::{Engine, EngineError};
pub use message::EdgedMessage;
pub use model::quantity;
pub use page::Snapshot;
pub use shared::Shared;
pub use state::Edged;
pub use watch::{watch, watch_files};

/// Pause before the first comparison after something happened; doubles while nothing does.
pub const RELIST_FIRST: Duration = Duration::from_secs(1);
/// Longest pause between two comparisons.
pub const RELIST_MAX: Duration = Duration::from_secs(60);

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
