//! Writes what a node reports as Events. Best effort: an Event is told so that somebody may look at it.

use model::{Namespace, NodeName, ObjectName};
use serde_json::Value;
use wire::RawJson;

use super::scribe::{Scribe, Verdict};
use super::state::EVENTS_BURST;
use crate::cluster::{self, ClusterError, Part};
use crate::edge_controller::resource::event::{self, Subject};

/// Whether a node may tell of something.
enum Permission {
    Granted,
    /// The pod is gone.
    Moot,
    Refused(String),
}

impl Scribe {
    /// Writes an Event of one of the node's pods or of the node itself. One of a pod that is gone is settled without being
    /// written: nobody can tell any more whose it was.
    pub(super) async fn event(&self, node: &NodeName, namespace: &Namespace, name: &ObjectName, said: &RawJson) -> Verdict {
        let event = match event::read(node, namespace, name, said) {
            Ok(event) => event,
            Err(error) => {
                self.known.event_dropped();
                return Verdict::Refused(error.to_string());
            }
        };
        if !self.known.may_write_event(node, self.clock.now().millis()) {
            self.known.event_dropped();
            return Verdict::Refused(format!("node `{node}` writes too many Events: {EVENTS_BURST} at once, then one a second"));
        }
        let verdict = match self.may_report(node, namespace, &event.subject).await {
            Ok(Permission::Granted) => self.write_event(namespace, name, &event.object).await.unwrap_or_else(Verdict::from),
            Ok(Permission::Moot) => {
                log::debug!(node = node.as_str(), event = name.as_str(); "an event tells of a pod that is gone; it is not written");
                self.known.event_moot();
                return Verdict::Confirmed;
            }
            Ok(Permission::Refused(reason)) => Verdict::Refused(reason),
            Err(error) => error.into(),
        };
        match &verdict {
            Verdict::Confirmed => self.known.event_written(),
            Verdict::Refused(_) | Verdict::Unanswered(_) | Verdict::Answered { .. } | Verdict::Ignored => self.known.event_dropped(),
        }
        verdict
    }

    async fn may_report(&self, node: &NodeName, namespace: &Namespace, subject: &Subject) -> Result<Permission, ClusterError> {
        let Subject::Pod { name, uid } = subject else { return Ok(Permission::Granted) };
        let found = match self.cluster.get(&cluster::POD, Some(namespace.as_str()), name.as_str()).await {
            Err(ClusterError::NotFound) => return Ok(Permission::Moot),
            found => found?,
        };
        Ok(match (found["metadata"]["uid"] == uid.as_str(), found["spec"]["nodeName"] == node.as_str()) {
            (true, true) => Permission::Granted,
            (false, true | false) => Permission::Moot,
            (true, false) => Permission::Refused(format!("the pod `{namespace}/{name}` is not bound to node `{node}`")),
        })
    }

    async fn write_event(&self, namespace: &Namespace, name: &ObjectName, object: &Value) -> Result<Verdict, ClusterError> {
        let (kind, scope) = (&cluster::EVENT, Some(namespace.as_str()));
        match self.cluster.create(kind, scope, object).await {
            Ok(_) => return Ok(Verdict::Confirmed),
            Err(ClusterError::Conflict(_)) => {}
            // The namespace is gone, and its pod with it.
            Err(ClusterError::NotFound) => return Ok(Verdict::Refused(format!("there is no namespace `{namespace}`"))),
            Err(error) => return Err(error),
        }
        // Read first: the name may be that of an Event of somebody else's.
        let stored = self.cluster.get(kind, scope, name.as_str()).await?;
        match event::patch(&stored, object) {
            Ok(None) => {}
            Ok(Some(patch)) => drop(self.cluster.patch(kind, scope, name.as_str(), Part::Main, &patch).await?),
            Err(error) => return Ok(Verdict::Refused(error.to_string())),
        }
        Ok(Verdict::Confirmed)
    }
}
