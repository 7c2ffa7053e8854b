//! One exhaustive match; then what it led to is sent and written, and what was written is confirmed.

use std::collections::BTreeMap;
use std::time::Duration;

use actix::{ActorFutureExt as _, AsyncContext as _, Context, Handler, WrapFuture as _};
use actor::{Lease, Work};
use futures_util::{StreamExt as _, stream};
use model::{DeviceId, NodeName, Timestamp};
use wire::hub::{Downstream, Frame, MsgId, OutboxKey, Upstream};
use wire::mqtt::payload::{MembershipDetail, MembershipUpdate, TwinUpdate};

use super::state::{Effect, Owner, Refused};
use super::status::Pending;
use super::{DeviceController, DeviceControllerMessage, WRITES_MAX, watch};
use crate::cloud_hub::CloudHubMessage;
use crate::cluster::ClusterError;
use crate::watching::Change;

/// What a batch of messages leads to.
#[derive(Default)]
struct Outcome {
    /// To be sent whatever the API server says.
    send: Vec<CloudHubMessage>,
    /// To be written, and the answers that may leave after that.
    write: BTreeMap<DeviceId, (Pending, Vec<Confirmed>)>,
}

impl Outcome {
    /// What is to be written of a device. What was gathered for an earlier creation of it goes unanswered, and the edge,
    /// if it should still repeat it, is refused.
    fn of_device(&mut self, device: &DeviceId, owner: Owner) -> &mut (Pending, Vec<Confirmed>) {
        if self.write.get(device).is_some_and(|(pending, _)| pending.owner != owner) {
            self.write.remove(device);
        }
        self.write.entry(device.clone()).or_insert_with(|| (Pending::new(owner), Vec::new()))
    }
}

/// A report that is confirmed once it is stored.
struct Confirmed {
    node: NodeName,
    report: MsgId,
    /// The messages at the edge that led to it; for the log.
    cause: Vec<MsgId>,
    answer: Frame<Downstream>,
}

impl Confirmed {
    fn new(node: &NodeName, report: &Frame<Upstream>, now: Timestamp) -> Self {
        let answer = report.confirm(MsgId::random(), now);
        Self { node: node.clone(), report: report.id.clone(), cause: report.cause.clone(), answer }
    }
}

/// How often the page's figures are brought up to date.
const PUBLISH_EVERY: Duration = Duration::from_secs(2);

impl actix::Actor for DeviceController {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.publish();
        ctx.run_interval(PUBLISH_EVERY, |this, _| this.publish());
        self.watches = watch::start(&self.cluster, &self.config.namespace, &self.peers.device_controller, self.generation);
    }
}

impl Handler<Lease<DeviceControllerMessage>> for DeviceController {
    type Result = Work<Self>;

    fn handle(&mut self, lease: Lease<DeviceControllerMessage>, _: &mut Self::Context) -> Work<Self> {
        let mut outcome = Outcome::default();
        self.is_published = false;
        for (_, message) in lease.iter() {
            self.one(message, &mut outcome);
        }
        if outcome.send.is_empty() && outcome.write.is_empty() {
            lease.done();
            return Work::done();
        }
        let (hub, cluster, writer) = (self.peers.cloud_hub.clone(), self.cluster.clone(), self.writer.clone());
        // CloudHub waits for nobody, so waiting for it is no ring.
        let work = async move {
            for message in outcome.send {
                if hub.send(message).await.is_err() {
                    break;
                }
            }
            let write = |(device, (pending, answers)): (DeviceId, (Pending, Vec<Confirmed>))| {
                let (hub, cluster, writer) = (&hub, &cluster, &writer);
                async move {
                    writer.write(cluster, &device, &pending).await.map_err(|error| (device.clone(), error))?;
                    for Confirmed { node, report, cause, answer } in answers {
                        log::debug!(id:% = report, cause = listed(&cause).as_str(), node:% = node, device:% = device; "device status written");
                        // A mailbox that closes means that the process stops; the edge repeats.
                        let _ = hub.send(CloudHubMessage::Answer { node, frame: answer }).await;
                    }
                    Ok(())
                }
            };
            let failed: Vec<(DeviceId, ClusterError)> =
                stream::iter(outcome.write).map(write).buffer_unordered(WRITES_MAX).filter_map(async |result| result.err()).collect().await;
            if let Some((device, error)) = failed.first() {
                log::warn!(devices = failed.len(), device = device.as_str(), error = error.to_string().as_str();
                    "device status not stored, the edges repeat their reports");
            }
            lease.done();
        };
        Work::new(work.into_actor(self).map(|(), _, _| ()))
    }
}

impl DeviceController {
    fn one(&mut self, message: &DeviceControllerMessage, outcome: &mut Outcome) {
        match message {
            DeviceControllerMessage::FromEdge { node, frame, .. } => self.take(node, frame, outcome),
            DeviceControllerMessage::NodeConnected { .. } | DeviceControllerMessage::NodeDisconnected { .. } => {}
            // Before all devices are known there is nothing that could have run over: it follows from the lists.
            DeviceControllerMessage::NodeLacks { node } if self.devices.is_complete() => {
                let body = self.detail(node, MsgId::random().to_string());
                let frame = Frame::new(MsgId::random(), self.clock.now(), body);
                outcome.send.push(CloudHubMessage::Send { node: node.clone(), key: OutboxKey::MembershipDetail, frame });
            }
            DeviceControllerMessage::NodeLacks { .. } => {}
            DeviceControllerMessage::Device { generation, change } => {
                if *generation == self.generation {
                    if let Change::Deleted(device) = change
                        && let Ok(id) = DeviceId::in_namespace(
                            device.metadata.namespace.as_deref().unwrap_or("default"),
                            device.metadata.name.as_deref().unwrap_or_default(),
                        )
                    {
                        self.writer.forget(&id);
                    }
                    let effects = self.devices.device(change);
                    self.tell(effects, outcome);
                    self.catch_up(outcome);
                }
            }
            DeviceControllerMessage::Model { generation, change } => {
                if *generation == self.generation {
                    let effects = self.devices.model(change);
                    self.tell(effects, outcome);
                    self.catch_up(outcome);
                }
            }
        }
    }

    /// What came before all devices were known.
    fn catch_up(&mut self, outcome: &mut Outcome) {
        if self.devices.is_complete() {
            for (node, frame) in self.early.take() {
                self.take(&node, &frame, outcome);
            }
        }
    }

    fn take(&mut self, node: &NodeName, frame: &Frame<Upstream>, outcome: &mut Outcome) {
        if !self.devices.is_complete() {
            self.early.keep(node, frame);
            return;
        }
        match &frame.body {
            Upstream::MembershipGet { event_id, node: asked } => {
                if asked != node {
                    return self.refuse(node, frame, &format!("the devices of node `{asked}` are not for node `{node}`"), outcome);
                }
                let body = self.detail(node, event_id.clone());
                let answer = Frame::answer(MsgId::random(), frame.id.clone(), self.clock.now(), body);
                outcome.send.push(CloudHubMessage::Answer { node: node.clone(), frame: answer });
            }
            Upstream::TwinReport { device, report } => match self.devices.reported(node, device, report) {
                Ok(taken) => {
                    self.tell(taken.again, outcome);
                    let (pending, answers) = outcome.of_device(device, taken.owner);
                    pending.twins.extend(taken.twins);
                    pending.known = Some(taken.known);
                    answers.push(Confirmed::new(node, frame, self.clock.now()));
                }
                Err(refused) => self.refuse_report(node, frame, &refused, outcome),
            },
            Upstream::DeviceStateReport { device, report } => match self.devices.owned_by(node, device, &report.uid) {
                Ok(owner) => {
                    let (pending, answers) = outcome.of_device(device, owner);
                    pending.state = Some(report.clone());
                    answers.push(Confirmed::new(node, frame, self.clock.now()));
                }
                Err(refused) => self.refuse_report(node, frame, &refused, outcome),
            },
            Upstream::Keepalive
            | Upstream::NodeRegister { .. }
            | Upstream::NodeStatus { .. }
            | Upstream::PodStatus { .. }
            | Upstream::Event { .. }
            | Upstream::Query { .. }
            | Upstream::Upload { .. }
            | Upstream::Held(_)
            | Upstream::Ack { .. }
            | Upstream::Refusal { .. } => {
                log::debug!(node = node.as_str(), kind = frame.body.kind(); "message is not for the device controller");
            }
        }
    }

    /// All devices of a node.
    fn detail(&mut self, node: &NodeName, event_id: String) -> Downstream {
        let detail = MembershipDetail { event_id, timestamp: self.clock.now(), devices: self.devices.of_node(node), skipped: Vec::new() };
        log::info!(node = node.as_str(), devices = detail.devices.len(); "devices listed for a node");
        Downstream::MembershipDetail(detail)
    }

    fn refuse_report(&self, node: &NodeName, frame: &Frame<Upstream>, refused: &Refused, outcome: &mut Outcome) {
        match refused {
            Refused::NotYet => {}
            Refused::Unknown(_) | Refused::Elsewhere(_) | Refused::Earlier(_) => self.refuse(node, frame, &refused.to_string(), outcome),
        }
    }

    fn refuse(&self, node: &NodeName, frame: &Frame<Upstream>, reason: &str, outcome: &mut Outcome) {
        log::warn!(node = node.as_str(), kind = frame.body.kind(), reason = reason; "message of a node refused");
        let frame = frame.refusal(MsgId::random(), self.clock.now(), reason);
        outcome.send.push(CloudHubMessage::Answer { node: node.clone(), frame });
    }

    fn tell(&self, effects: impl IntoIterator<Item = Effect>, outcome: &mut Outcome) {
        let (now, event_id) = (self.clock.now(), || MsgId::random().to_string());
        for effect in effects {
            let membership = |added, removed| {
                Downstream::MembershipUpdate(MembershipUpdate { event_id: event_id(), timestamp: now, added, removed, skipped: Vec::new() })
            };
            let (node, key, body) = match effect {
                Effect::Added(node, entry) => (node, OutboxKey::Membership(entry.id.clone()), membership(vec![entry], Vec::new())),
                Effect::Removed(node, entry) => (node, OutboxKey::Membership(entry.id.clone()), membership(Vec::new(), vec![entry])),
                Effect::Sync { node, device, uid, change } => {
                    let update = TwinUpdate { event_id: event_id(), timestamp: now, uid, change };
                    (node, OutboxKey::Twin(device.clone()), Downstream::TwinSync { device, update })
                }
            };
            outcome.send.push(CloudHubMessage::Send { node, key, frame: Frame::new(MsgId::random(), now, body) });
        }
    }
}

/// Ids for a line of the log.
fn listed(ids: &[MsgId]) -> String {
    ids.iter().map(MsgId::as_str).collect::<Vec<_>>().join(" ")
}
