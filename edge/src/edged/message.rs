//! What Edged is told.

use actor::{Mail, brief};
use model::ResourceKey;

use super::housekeeping::Tidied;
use super::pressure::Signals;
use super::probes::Probed;
use super::runtime::{RuntimeError, RuntimeEvent, Summary};
use super::static_pods::StaticPods;
use super::worker::{Passed, Pull};

/// Everything that can make Edged act. Outside messages are hints: Edged reads what shall be from the store.
#[derive(Debug)]
pub enum EdgedMessage {
    /// From MetaManager: an object was stored. Followed by a look at the pods that it concerns.
    ObjectChanged {
        /// Which.
        key: ResourceKey,
    },
    /// From MetaManager: an object is gone from the store.
    ObjectDeleted {
        /// Which.
        key: ResourceKey,
    },
    /// From EdgeHub: the cloud is there. Followed by registration and status of the node.
    CloudConnected,
    /// From EdgeHub: the cloud is away. Pods keep running.
    CloudDisconnected,
    /// From MetaManager: the cloud did not register the node. Tried again after a pause.
    RegistrationRefused {
        /// The cloud's words.
        reason: String,
    },
    /// From a timer of its own: register again.
    RegisterDue,
    /// From the engine's event stream.
    Runtime(RuntimeEvent),
    /// From Edged's own timer: compare everything.
    ReconcileDue,
    /// From the list that `ReconcileDue` asked for.
    Listed(Result<Vec<Summary>, RuntimeError>),
    /// From Edged's own timer (`edged.node-status-update-frequency`).
    StatusDue,
    /// From the task that reads `edged.static-pod-path`: what the files say now.
    StaticPods(Box<StaticPods>),
    /// From a timer of its own: a pause of this pod is over.
    PodDue {
        /// The pod.
        uid: String,
    },
    /// From a pod's worker: what it saw; the last one of a pass says that the pod is free again.
    Passed(Box<Passed>),
    /// From the task that asks a container.
    Probed(Probed),
    /// From a pull.
    Pulled {
        /// Which image, for whom.
        pull: Pull,
        /// How it went.
        result: Result<(), RuntimeError>,
    },
    /// From MetaManager: the last status of this pod could not be stored, and nobody heard of it.
    StatusLost {
        /// The pod.
        uid: String,
    },
    /// From the task that looks after the machine: what is free of it.
    Housekept(Signals),
    /// From a job of housekeeping: what came of it.
    Tidied(Box<Tidied>),
}

impl Mail for EdgedMessage {
    fn kind(&self) -> &'static str {
        match self {
            Self::ObjectChanged { .. } => "ObjectChanged",
            Self::ObjectDeleted { .. } => "ObjectDeleted",
            Self::CloudConnected => "CloudConnected",
            Self::CloudDisconnected => "CloudDisconnected",
            Self::RegistrationRefused { .. } => "RegistrationRefused",
            Self::RegisterDue => "RegisterDue",
            Self::Runtime(_) => "Runtime",
            Self::ReconcileDue => "ReconcileDue",
            Self::Listed(_) => "Listed",
            Self::StatusDue => "StatusDue",
            Self::StaticPods(_) => "StaticPods",
            Self::PodDue { .. } => "PodDue",
            Self::Passed(_) => "Passed",
            Self::Probed(_) => "Probed",
            Self::Pulled { .. } => "Pulled",
            Self::StatusLost { .. } => "StatusLost",
            Self::Housekept(_) => "Housekept",
            Self::Tidied(_) => "Tidied",
        }
    }

    fn describe(&self) -> String {
        let kind = self.kind();
        match self {
            Self::ObjectChanged { key } | Self::ObjectDeleted { key } => format!("{kind} {key}"),
            Self::Runtime(event) => format!("{kind} {}", brief(&format!("{event:?}"))),
            Self::StaticPods(found) => format!("{kind} {} and {} errors", found.pods.len(), found.errors.len()),
            Self::PodDue { uid } | Self::StatusLost { uid } => format!("{kind} {}", brief(uid)),
            Self::Passed(passed) => format!("{kind} {}", brief(&passed.uid)),
            Self::Pulled { pull, result } => format!("{kind} {} {}", brief(&pull.image), if result.is_ok() { "ok" } else { "failed" }),
            Self::Probed(probed) => format!("{kind} {} {} {:?}", brief(&probed.uid), brief(&probed.container), probed.result.kind),
            Self::Listed(result) => format!("{kind} {}", result.as_ref().map_or(0, Vec::len)),
            Self::RegistrationRefused { reason } => format!("{kind}: {}", brief(reason)),
            Self::Tidied(tidied) => match tidied.excessive.iter().chain(&tidied.chosen).next() {
                Some((uid, _)) => format!("{kind} {}", brief(uid)),
                None => kind.into(),
            },
            Self::Housekept(_) | Self::CloudConnected | Self::CloudDisconnected | Self::RegisterDue | Self::ReconcileDue | Self::StatusDue => {
                kind.into()
            }
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Listed(Ok(list)) => 256 + 1024 * list.len(),
            Self::Passed(_) => 4096,
            Self::Probed(_) => 2048,
            Self::StaticPods(found) => 256 + found.pods.values().map(|pod| pod.json.len()).sum::<usize>(),
            Self::Tidied(tidied) => 256 + 512 * (tidied.images.as_ref().map_or(0, Vec::len) + tidied.excessive.len()),
            Self::ObjectChanged { .. }
            | Self::ObjectDeleted { .. }
            | Self::CloudConnected
            | Self::CloudDisconnected
            | Self::RegistrationRefused { .. }
            | Self::RegisterDue
            | Self::Runtime(_)
            | Self::ReconcileDue
            | Self::Listed(Err(_))
            | Self::StatusDue
            | Self::PodDue { .. }
            | Self::StatusLost { .. }
            | Self::Pulled { .. }
            | Self::Housekept(_) => 256,
        }
    }
}
