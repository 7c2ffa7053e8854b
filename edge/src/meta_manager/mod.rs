//! MetaManager: keeps what the cloud says of this node's objects, and what this node says of its pods (manual ch. 8).
//!
//! | from | message | what follows |
//! |---|---|---|
//! | EdgeHub | [`MetaManagerMessage::FromCloud`] | stored; then acknowledged to the cloud, hint to Edged |
//! | Edged | [`MetaManagerMessage::PodStatus`] | stored; then `podstatus` to the cloud, if it says anything new |
//! | Edged | [`MetaManagerMessage::Query`] | answer from the store; a ConfigMap or Secret that is not here is asked from the cloud |
//! | Edged | [`MetaManagerMessage::NodeStatus`] | to the cloud, if it is there and has not confirmed the same within a minute |
//! | Edged | [`MetaManagerMessage::Event`] | kept in memory; to the cloud when it is there, until it has confirmed it |
//! | Edged | [`MetaManagerMessage::NodeRegister`] | to the cloud, if it is there |
//! | EdgeHub | [`MetaManagerMessage::LateAnswer`] | an object is stored; an error is logged, of a registration told to Edged |
//! | EdgeHub | [`MetaManagerMessage::Confirmed`], [`MetaManagerMessage::Refused`] | those statuses are not sent again before they change, those Events never |
//! | EdgeHub | [`MetaManagerMessage::NodeConnection`] | what this node holds (the cloud sends the difference), the status of every pod, and Events, to the cloud |
//! | EdgeHub | [`MetaManagerMessage::HeldGet`] | what this node holds, to the cloud |
//! | itself | [`MetaManagerMessage::RemoteAnswered`] | stored; the answer to whoever asked |
//! | own timer | [`MetaManagerMessage::SyncDue`] | what the cloud has not confirmed, again |
//!
//! | manual ch. 8 | here | tests |
//! |---|---|---|
//! | Insert, Update, Delete, Query, from cloud and edge, online and offline | all of the above | `each_operation_does_the_same_…` |
//! | Insert | [`FromCloud`](MetaManagerMessage::FromCloud), [`NodeRegister`](MetaManagerMessage::NodeRegister) | `an_object_is_stored_then_acknowledged_…`, `an_insert_of_a_known_key_…` |
//! | Update | [`FromCloud`](MetaManagerMessage::FromCloud), [`PodStatus`](MetaManagerMessage::PodStatus), [`NodeStatus`](MetaManagerMessage::NodeStatus) | `an_update_that_changes_nothing_…`, `a_status_is_stored_and_sent_once_…`, `the_status_of_the_node_…` |
//! | Delete | [`FromCloud`](MetaManagerMessage::FromCloud) | `a_delete_takes_the_pod_and_its_status_…` |
//! | Query, local, remote, quick | [`Query`](MetaManagerMessage::Query) | `a_query_answers_one_object_or_all_…`, `a_secret_that_is_not_here_…`, `a_cloud_that_has_no_answer_…` |
//! | Response | [`Confirmed`](MetaManagerMessage::Confirmed), [`Refused`](MetaManagerMessage::Refused), [`LateAnswer`](MetaManagerMessage::LateAnswer) | `a_refused_registration_is_told_…` |
//! | NodeConnection | [`NodeConnection`](MetaManagerMessage::NodeConnection) | `on_connect_every_status_…`, `a_cloud_that_takes_it_hears_on_connect_…` |
//! | MetaSync | [`SyncDue`](MetaManagerMessage::SyncDue) | `on_connect_every_status_is_sent_in_its_own_namespace_…` |
//!
//! Where the manual (ch. 8) and KubeEdge's code disagree, this is done: an object replaces the one that has
//! its key, also on `insert`; one that equals the stored one is neither written nor passed on, and still answered; statuses
//! are sent in their own namespace; an object or a list of one is taken.
//!
//! Invariant: what is acknowledged is durable.
//! Invariant: what is said to be held is said in the session for which it was read, and contains all that earlier ones brought.
//! Invariant: a status of a pod that is not stored, or of an earlier pod of that name, goes nowhere.

#[cfg(test)]
mod event_tests;
mod handlers;
mod message;
mod normal;
mod pending;
mod state;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use actor::Handle;
use model::{Clock, Namespace, NodeName, SystemClock};

use crate::edge_hub::EdgeHubMessage;
use crate::edged::EdgedMessage;

pub use message::{Found, MetaManagerMessage, QueryError, Session};
pub use normal::OBJECT_BYTES_MAX;
pub(crate) use normal::{Normal, normal};
pub use pending::{EVENTS_BYTES_MAX, EVENTS_MAX};
pub(crate) use state::status_of;
pub use state::{Caused, Effect, MetaManager, ReportRow, Shared, Snapshot, StoredStatuses, apply, by_namespace, statuses};

/// Shortest period of the synchronisation (KubeEdge raises what is below).
pub const SYNC_INTERVAL_MIN: Duration = Duration::from_secs(60);

/// Settings of MetaManager.
#[derive(Clone)]
pub struct Config {
    /// This node.
    pub node: NodeName,
    /// `edged.register-node-namespace`: namespace of the node's messages.
    pub namespace: Namespace,
    /// `meta.sync.podstatus.interval`.
    pub sync_interval: Duration,
    /// How long the cloud may take for an object.
    pub remote_query_timeout: Duration,
    /// Stamps what is stored and sent.
    pub clock: Arc<dyn Clock>,
}

impl Config {
    /// Settings with this period, at least 60 s, by the machine's clock.
    pub fn new(node: NodeName, namespace: Namespace, sync_interval: Duration) -> Self {
        let sync_interval = sync_interval.max(SYNC_INTERVAL_MIN);
        Self { node, namespace, sync_interval, remote_query_timeout: Duration::from_secs(15), clock: Arc::new(SystemClock) }
    }
}

/// The mailboxes that MetaManager uses.
#[derive(Clone, Debug)]
pub struct Peers {
    /// To the cloud.
    pub edge_hub: Handle<EdgeHubMessage>,
    /// Gets the hints, where the module runs.
    pub edged: Option<Handle<EdgedMessage>>,
    /// Its own, for timers and answers that come later.
    pub own: Handle<MetaManagerMessage>,
}
