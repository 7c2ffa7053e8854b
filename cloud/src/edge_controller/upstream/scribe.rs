//! Writes what one node says into the API, and answers it.

use std::sync::Arc;
use std::time::Duration;

use actor::Handle;
use model::{Clock, Namespace, NodeName, ObjectName, ResourceKey, ResourceKind, Timestamp};
use serde_json::Value;
use wire::RawJson;
use wire::hub::{Downstream, Frame, MsgId, PodStatusReport, Upstream};

use super::state::Shared;
use crate::cloud_hub::CloudHubMessage;
use crate::cluster::{self, Cluster, ClusterError, Part};
use crate::edge_controller::downstream::{DownstreamMessage, Permission, watch};
use crate::edge_controller::resource::{conditions, node, pod};

/// How long the downstream half may take to say what a node may read.
const PERMISSION_WITHIN: Duration = Duration::from_secs(5);

/// How a message of a node is answered.
#[derive(Debug)]
pub enum Verdict {
    /// It is stored.
    Confirmed,
    /// It will never be stored as it is; the edge need not repeat it.
    Refused(String),
    /// It asked for an object.
    Answered {
        /// Which.
        key: ResourceKey,
        /// The object with its version, or why there is none.
        result: Result<(RawJson, String), String>,
    },
    /// It cannot be stored now: no answer, the edge repeats it.
    Unanswered(String),
    /// It is for somebody else.
    Ignored,
}

impl From<ClusterError> for Verdict {
    fn from(error: ClusterError) -> Self {
        match error {
            ClusterError::Refused { .. } => Self::Refused(format!("the API {error}")),
            // Somebody else was faster: the repetition finds the new state.
            ClusterError::NotFound | ClusterError::Conflict(_) | ClusterError::Unavailable(_) => Self::Unanswered(error.to_string()),
        }
    }
}

/// One pen for all nodes. Cheap to clone.
#[derive(Clone)]
pub struct Scribe {
    /// The API.
    pub cluster: Cluster,
    /// The time of answers.
    pub clock: Arc<dyn Clock>,
    /// Knows what a node may read.
    pub downstream: Handle<DownstreamMessage>,
    /// Takes the answers.
    pub cloud_hub: Handle<CloudHubMessage>,
    /// Counts Events.
    pub known: Shared,
}

impl Scribe {
    /// Serves the messages of one node in their order. Returns why one of them had to stay unanswered.
    ///
    /// Of several node statuses only the last is written, because it replaces the others; all are answered alike. Behind a
    /// message that the API did not take no Event is tried: it would only keep the statuses behind it waiting.
    pub async fn serve(&self, node: &NodeName, frames: Vec<Frame<Upstream>>) -> Option<String> {
        let mut unanswered: Option<String> = None;
        let last_status = frames.iter().rposition(|frame| matches!(frame.body, Upstream::NodeStatus { .. }));
        let mut replaced = Vec::new();
        for (index, frame) in frames.into_iter().enumerate() {
            if matches!(frame.body, Upstream::NodeStatus { .. }) && Some(index) != last_status {
                replaced.push(frame);
                continue;
            }
            let verdict = match (&frame.body, &unanswered) {
                (Upstream::Event { .. }, Some(why)) => {
                    self.known.event_dropped();
                    Verdict::Unanswered(why.clone())
                }
                (body, _) => self.judge(node, body).await,
            };
            if let Verdict::Unanswered(why) = &verdict {
                unanswered.get_or_insert_with(|| why.clone());
            }
            let same = if Some(index) == last_status { std::mem::take(&mut replaced) } else { Vec::new() };
            for frame in same.into_iter().chain([frame]) {
                self.answer(node, &frame, &verdict).await;
            }
        }
        unanswered
    }

    async fn judge(&self, node: &NodeName, body: &Upstream) -> Verdict {
        match body {
            Upstream::NodeRegister { node: named, object, .. } => match own(node, named) {
                Ok(()) => self.register(node, object).await.unwrap_or_else(Verdict::from),
                Err(refused) => refused,
            },
            Upstream::NodeStatus { node: named, content, .. } => match own(node, named) {
                Ok(()) => self.node_status(node, content).await.unwrap_or_else(Verdict::from),
                Err(refused) => refused,
            },
            Upstream::PodStatus { namespace, reports } => self.pod_statuses(node, namespace, reports).await,
            Upstream::Event { namespace, name, object, .. } => self.event(node, namespace, name, object).await,
            Upstream::Query { key } => self.query(node, key).await,
            Upstream::Keepalive
            | Upstream::MembershipGet { .. }
            | Upstream::TwinReport { .. }
            | Upstream::DeviceStateReport { .. }
            | Upstream::Upload { .. }
            | Upstream::Held(_)
            | Upstream::Ack { .. }
            | Upstream::Refusal { .. } => Verdict::Ignored,
        }
    }

    async fn answer(&self, node: &NodeName, frame: &Frame<Upstream>, verdict: &Verdict) {
        let (id, now) = (MsgId::random(), self.clock.now());
        let answer = match verdict {
            Verdict::Confirmed => {
                log::debug!(id:% = frame.id, cause:? = frame.cause, node = node.as_str(), kind = frame.body.kind(); "status written");
                frame.confirm(id, now)
            }
            Verdict::Refused(reason) => {
                log::warn!(node = node.as_str(), kind = frame.body.kind(), reason = reason.as_str(); "message of a node refused");
                frame.refusal(id, now, reason.as_str())
            }
            Verdict::Answered { key, result } => {
                let body =
                    Downstream::QueryAnswer { key: key.clone(), result: result.as_ref().map(|(object, _)| object.clone()).map_err(Clone::clone) };
                let answer = Frame::answer(id, frame.id.clone(), now, body);
                match result {
                    Ok((_, version)) => answer.with_resource_version(version.as_str()),
                    Err(_) => answer,
                }
            }
            Verdict::Unanswered(why) => {
                log::debug!(node = node.as_str(), kind = frame.body.kind(), reason = why.as_str(); "message of a node stays unanswered");
                return;
            }
            Verdict::Ignored => {
                log::debug!(node = node.as_str(), kind = frame.body.kind(); "message is not for EdgeController");
                return;
            }
        };
        // A mailbox that closes means that the process stops; the edge repeats.
        let _ = self.cloud_hub.send(CloudHubMessage::Answer { node: node.clone(), frame: answer }).await;
    }

    async fn register(&self, name: &NodeName, object: &RawJson) -> Result<Verdict, ClusterError> {
        let Ok(registered) = object.to::<Value>() else { return Ok(Verdict::Refused("the Node object is not JSON".into())) };
        let stored = match self.cluster.get(&cluster::NODE, None, name.as_str()).await {
            Ok(existing) => match node::label_patch(&existing, &registered) {
                Some(patch) => self.cluster.patch(&cluster::NODE, None, name.as_str(), Part::Main, &patch).await?,
                None => existing,
            },
            Err(ClusterError::NotFound) => {
                let stored = self.cluster.create(&cluster::NODE, None, &node::registration(name.as_str(), &registered)).await?;
                log::info!(node = name.as_str(); "node registered");
                stored
            }
            Err(error) => return Err(error),
        };
        let key = node_key(name);
        Ok(Verdict::Answered { key, result: Ok(carried(stored)) })
    }

    async fn node_status(&self, name: &NodeName, content: &RawJson) -> Result<Verdict, ClusterError> {
        let content = match conditions::read(content, |content| &content["Status"]) {
            Ok(content) => content,
            Err(error) => return Ok(Verdict::Refused(format!("node `{name}`: {error}"))),
        };
        let existing = match self.cluster.get(&cluster::NODE, None, name.as_str()).await {
            Err(ClusterError::NotFound) => return Ok(Verdict::Refused(format!("there is no Node `{name}`, it has to register first"))),
            found => found?,
        };
        let Some(patch) = node::status_patch(&existing, &content["Status"], &self.now().rfc3339()) else {
            return Ok(Verdict::Refused("the status of the node is not an object".into()));
        };
        self.cluster.patch(&cluster::NODE, None, name.as_str(), Part::Status, &patch).await?;
        Ok(Verdict::Confirmed)
    }

    async fn pod_statuses(&self, node: &NodeName, namespace: &Namespace, reports: &[PodStatusReport]) -> Verdict {
        let mut refused = Vec::new();
        let mut unanswered = None;
        for report in reports {
            match self.pod_status(node, namespace, report).await.unwrap_or_else(Verdict::from) {
                Verdict::Refused(reason) => refused.push(reason),
                Verdict::Unanswered(why) => unanswered = Some(why),
                Verdict::Confirmed | Verdict::Answered { .. } | Verdict::Ignored => {}
            }
        }
        match unanswered {
            Some(why) => Verdict::Unanswered(why),
            None if refused.is_empty() => Verdict::Confirmed,
            None => Verdict::Refused(refused.join("; ")),
        }
    }

    async fn pod_status(&self, node: &NodeName, namespace: &Namespace, report: &PodStatusReport) -> Result<Verdict, ClusterError> {
        let (kind, scope, name) = (&cluster::POD, Some(namespace.as_str()), report.name.as_str());
        let key = ResourceKey::object(namespace.clone(), ResourceKind::Pod, report.name.clone());
        if report.uid.is_empty() {
            return Ok(Verdict::Refused(format!("the status of pod `{key}` does not say which uid it is of")));
        }
        let reported = match conditions::read(&report.status, |status| status) {
            Ok(reported) => reported,
            Err(error) => return Ok(Verdict::Refused(format!("pod `{key}`: {error}"))),
        };
        let found = match self.cluster.get(kind, scope, name).await {
            Err(ClusterError::NotFound) => return Ok(self.gone(node, key, &report.uid).await),
            found => found?,
        };
        let bound_here = found["spec"]["nodeName"] == node.as_str();
        match (found["metadata"]["uid"] == report.uid.as_str(), bound_here) {
            (true, true) => {}
            (true, false) => return Ok(Verdict::Refused(format!("the pod `{key}` is not bound to node `{node}`"))),
            // The pod that it speaks of is gone.
            (false, true | false) => return Ok(self.gone(node, key, &report.uid).await),
        }
        if let Some(patch) = pod::status_patch(&found, &reported, &self.now().rfc3339()) {
            match self.cluster.patch(kind, scope, name, Part::Status, &patch).await {
                Err(ClusterError::NotFound) => return Ok(self.gone(node, key, &report.uid).await),
                done => done?,
            };
        }
        if pod::may_go(&found, &reported) {
            match self.cluster.delete_now(kind, scope, name, &report.uid).await {
                // Somebody else has deleted it, or put another one in its place.
                Ok(()) | Err(ClusterError::NotFound | ClusterError::Conflict(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Verdict::Confirmed)
    }

    /// A pod that the API does not have (any more) has to go at the edge, and may stand there in the place of another one.
    /// Downstream says which, because all that a node hears of objects comes from there in order.
    async fn gone(&self, node: &NodeName, key: ResourceKey, uid: &str) -> Verdict {
        let _ = self.downstream.send(DownstreamMessage::NodeHas { node: node.clone(), key, uid: uid.to_owned() }).await;
        Verdict::Confirmed
    }

    async fn query(&self, node: &NodeName, key: &ResourceKey) -> Verdict {
        let Some(name) = &key.name else { return Verdict::Refused(format!("`{key}` names no object, and lists are not for nodes")) };
        let allowed = match key.kind {
            ResourceKind::ConfigMap | ResourceKind::Secret => {
                let question = |reply| DownstreamMessage::MayRead { node: node.clone(), key: key.clone(), reply };
                match self.downstream.ask(PERMISSION_WITHIN, question).await {
                    Ok(Permission::Granted) => true,
                    Ok(Permission::Refused) => false,
                    Ok(Permission::NotYet) => return Verdict::Unanswered("the pods are not all known yet".into()),
                    Err(error) => return Verdict::Unanswered(error.to_string()),
                }
            }
            ResourceKind::Node => name.as_str() == node.as_str(),
            // Decided when the pod is there.
            ResourceKind::Pod => true,
            ResourceKind::PodList
            | ResourceKind::PodStatus
            | ResourceKind::NodeStatus
            | ResourceKind::PodPatch
            | ResourceKind::NodePatch
            | ResourceKind::Lease
            | ResourceKind::Event
            | ResourceKind::ServiceAccountToken
            | ResourceKind::Device
            | ResourceKind::DeviceModel => false,
        };
        let Some(kind) = watch::kind(key.kind).filter(|_| allowed) else {
            log::warn!(node = node.as_str(), key = key.to_string().as_str(); "query of a node refused");
            return Verdict::Answered { key: key.clone(), result: Err(format!("`{key}` is not for node `{node}`: none of its pods names it")) };
        };
        let scope = (key.kind != ResourceKind::Node).then(|| key.namespace.as_str());
        match self.cluster.get(kind, scope, name.as_str()).await {
            Ok(object) if key.kind == ResourceKind::Pod && object["spec"]["nodeName"] != node.as_str() => {
                Verdict::Answered { key: key.clone(), result: Err(format!("the pod `{key}` is not bound to node `{node}`")) }
            }
            Ok(object) => Verdict::Answered { key: key.clone(), result: Ok(carried(object)) },
            Err(ClusterError::NotFound) => Verdict::Answered { key: key.clone(), result: Err(format!("`{key}` not found")) },
            Err(error) => error.into(),
        }
    }

    /// Renews the lease of one node; makes it where there is none.
    ///
    /// # Errors
    /// `NotFound` while the node is not registered; the others of [`ClusterError`].
    pub async fn renew(&self, name: &NodeName) -> Result<(), ClusterError> {
        let (kind, scope) = (&cluster::LEASE, Some(node::LEASE_NAMESPACE));
        let now = micros(self.now());
        match self.cluster.patch(kind, scope, name.as_str(), Part::Main, &node::renewal(name.as_str(), &now)).await {
            Err(ClusterError::NotFound) => {}
            done => return done.map(drop),
        }
        let owner = self.cluster.get(&cluster::NODE, None, name.as_str()).await?;
        let lease = node::lease(name.as_str(), owner["metadata"]["uid"].as_str(), &now);
        self.cluster.create(kind, scope, &lease).await.map(drop)
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

fn own(node: &NodeName, named: &NodeName) -> Result<(), Verdict> {
    if node == named { Ok(()) } else { Err(Verdict::Refused(format!("node `{node}` may not speak for node `{named}`"))) }
}

fn node_key(node: &NodeName) -> ResourceKey {
    let name = ObjectName::new(node.as_str()).expect("node names and object names follow one rule");
    ResourceKey::object(Namespace::default(), ResourceKind::Node, name)
}

/// The object as it goes to an edge, and its version.
fn carried(mut object: Value) -> (RawJson, String) {
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove("managedFields");
    }
    let version = object["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
    (RawJson::from_value(&object).expect("a JSON value always serialises"), version)
}

/// `MicroTime` of Kubernetes.
fn micros(at: Timestamp) -> String {
    let seconds = at.rfc3339();
    format!("{}.{:06}Z", seconds.trim_end_matches('Z'), at.millis().rem_euclid(1000) * 1000)
}
