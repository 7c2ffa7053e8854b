//! What Edged is told.

use actor::{Mail, brief};
use model::ResourceKey;

use super::runtime::{RuntimeError, RuntimeEvent, Summary};
use super::worker::Passed;

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
    /// From a timer of its own: a pause of this pod is over.
    PodDue {
        /// The pod.
        uid: String,
    },
    /// From a pod's worker: what it saw; the last one of a pass says that the pod is free again.
    Passed(Box<Passed>),
    /// From a pull.
    Pulled {
        /// Which image.
        image: String,
        /// How it went.
        result: Result<(), RuntimeError>,
    },
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
            Self::PodDue { .. } => "PodDue",
            Self::Passed(_) => "Passed",
            Self::Pulled { .. } => "Pulled",
        }
    }

    fn describe(&self) -> String {
        let kind = self.kind();
        match self {
            Self::ObjectChanged { key } | Self::ObjectDeleted { key } => format!("{kind} {key}"),
            Self::Runtime(event) => format!("{kind} {}", brief(&format!("{event:?}"))),
            Self::PodDue { uid } => format!("{kind} {}", brief(uid)),
            Self::Passed(passed) => format!("{kind} {}", brief(&passed.uid)),
            Self::Pulled { image, result } => format!("{kind} {} {}", brief(image), if result.is_ok() { "ok" } else { "failed" }),
            Self::Listed(result) => format!("{kind} {}", result.as_ref().map_or(0, Vec::len)),
            Self::RegistrationRefused { reason } => format!("{kind}: {}", brief(reason)),
            Self::CloudConnected | Self::CloudDisconnected | Self::RegisterDue | Self::ReconcileDue | Self::StatusDue => kind.into(),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Listed(Ok(list)) => 256 + 1024 * list.len(),
            Self::Passed(_) => 4096,
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
            | Self::Pulled { .. } => 256,
        }
    }
}
