//! CloudHub's actor: hands what the controllers say to the nodes' outboxes, and watches the sessions.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use actix::{Actor, AsyncContext as _, Context, Handler};
use actor::{EventKind, Lease, Meta};
use model::NodeName;
use wire::hub::{Downstream, Frame, OutboxKey};

use super::nodes::{Answer, Change};
use super::{CloudHubMessage, Hub};
use crate::device_controller::DeviceControllerMessage;
use crate::edge_controller::downstream::DownstreamMessage;
use crate::edge_controller::upstream::UpstreamMessage;

const SOURCE: &str = "cloud_hub";

/// The actor. Its state is in [`Hub`], so a new incarnation goes on where the last one ended.
pub struct CloudHub {
    hub: Arc<Hub>,
}

impl CloudHub {
    /// An actor over the shared state.
    #[must_use]
    pub fn new(hub: Arc<Hub>) -> Self {
        Self { hub }
    }

    fn send(&self, name: &NodeName, key: &OutboxKey, frame: &Frame<Downstream>) {
        let counters = &self.hub.nodes.counters;
        let Some(node) = self.hub.nodes.get(name) else {
            counters.not_connected.fetch_add(1, Ordering::Relaxed);
            return;
        };
        if !node.push(key.clone(), frame.clone()) {
            counters.outbox_full.fetch_add(1, Ordering::Relaxed);
            log::warn!(node:% = name; "outbox full, the node will be sent everything anew");
        }
    }

    fn answer(&self, name: &NodeName, frame: &Frame<Downstream>) {
        let counters = &self.hub.nodes.counters;
        let Some(node) = self.hub.nodes.get(name) else {
            counters.not_connected.fetch_add(1, Ordering::Relaxed);
            return;
        };
        if !node.answer(Answer::Frame(frame.clone())) {
            counters.answers_dropped.fetch_add(1, Ordering::Relaxed);
            log::warn!(node:% = name, kind = frame.body.kind(); "answer dropped, too many wait");
        }
    }

    /// Tells the controllers which nodes came and went, by the difference to what they were told last. A node for which a
    /// mailbox has no room is tried again at the next sweep.
    fn announce(&self) {
        let peers = &self.hub.peers;
        for name in self.hub.nodes.changed() {
            let change = self.hub.nodes.change_of(&name);
            if let Some(change) = change {
                // Room in all before the first is told, so that all of them see the same.
                let (Ok(upstream), Ok(downstream), Ok(devices)) =
                    (peers.upstream.try_reserve(), peers.downstream.try_reserve(), peers.devices.try_reserve())
                else {
                    return;
                };
                let node = name.clone();
                let meta = || Meta::new(SOURCE);
                match change {
                    Change::Connected(_) => {
                        upstream.send(meta(), UpstreamMessage::NodeConnected { node: node.clone() });
                        downstream.send(meta(), DownstreamMessage::NodeConnected { node: node.clone() });
                        devices.send(meta(), DeviceControllerMessage::NodeConnected { node });
                    }
                    Change::Disconnected => {
                        upstream.send(meta(), UpstreamMessage::NodeDisconnected { node: node.clone() });
                        downstream.send(meta(), DownstreamMessage::NodeDisconnected { node: node.clone() });
                        devices.send(meta(), DeviceControllerMessage::NodeDisconnected { node });
                    }
                }
            }
            self.hub.nodes.told(&name, change);
        }
    }
}

impl Actor for CloudHub {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(self.hub.config.sweep_every, |hub, _| {
            // Full: a sweep is in the queue already, or will be tried again at the next tick.
            let _ = hub.hub.peers.cloud_hub.try_send(CloudHubMessage::SweepDue);
        });
    }
}

impl Handler<Lease<CloudHubMessage>> for CloudHub {
    type Result = ();

    fn handle(&mut self, lease: Lease<CloudHubMessage>, _: &mut Self::Context) {
        lease.each(|_, message| match message {
            CloudHubMessage::Send { node, key, frame } => self.send(node, key, frame),
            CloudHubMessage::Answer { node, frame } => self.answer(node, frame),
            CloudHubMessage::Connected { node, session } => {
                log::info!(node:% = node, session = *session; "node connected");
                self.hub.note(node, EventKind::Connected, format!("node {node}, session {session}"));
                self.announce();
            }
            CloudHubMessage::Disconnected { node, session, reason } => {
                log::info!(node:% = node, session = *session, reason = reason.as_str(); "node disconnected");
                self.hub.note(node, EventKind::Disconnected, format!("node {node}, session {session}: {reason}"));
                self.announce();
            }
            CloudHubMessage::SweepDue => {
                let tuning = self.hub.tuning();
                self.hub.nodes.sweep(tuning.keepalive, tuning.write_timeout);
                self.announce();
            }
        });
    }
}
