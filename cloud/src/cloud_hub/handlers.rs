//! CloudHub's actor: hands what the controllers say to the nodes' outboxes, and watches the sessions.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use actix::{Actor, AsyncContext as _, Context, Handler};
use actor::{EventKind, Handle, Lease, Mail, Meta};
use model::NodeName;
use wire::hub::{Downstream, Frame, OutboxKey};
use wire::link::{Answer, Pushed};

use super::nodes::{Change, Controller};
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
        match node.push(key.clone(), frame.clone()) {
            Pushed::Taken => {}
            Pushed::RunsOver => {
                counters.outbox_full.fetch_add(1, Ordering::Relaxed);
                log::warn!(node:% = name; "outbox full, the node will be brought into step when it has taken half of it");
            }
            Pushed::RanOver => {
                counters.outbox_full.fetch_add(1, Ordering::Relaxed);
            }
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

    /// Tells each controller which nodes came and went, by the difference to what it was told last, and then which nodes lack
    /// something. A node for which a mailbox has no room is tried again at the next sweep.
    fn announce(&self) {
        let peers = &self.hub.peers;
        // That a node has come Downstream hears when it is known what it holds.
        self.announce_to(Controller::Downstream, &peers.downstream, |change, node| match change {
            Change::Connected(_) => None,
            Change::Disconnected => Some(DownstreamMessage::NodeDisconnected { node }),
        });
        self.announce_to(Controller::Upstream, &peers.upstream, |change, node| match change {
            Change::Connected(_) => Some(UpstreamMessage::NodeConnected { node }),
            Change::Disconnected => Some(UpstreamMessage::NodeDisconnected { node }),
        });
        self.announce_to(Controller::Devices, &peers.devices, |change, node| match change {
            Change::Connected(_) => Some(DeviceControllerMessage::NodeConnected { node }),
            Change::Disconnected => Some(DeviceControllerMessage::NodeDisconnected { node }),
        });
        self.announce_gaps();
    }

    fn announce_to<M: Mail>(&self, controller: Controller, mailbox: &Handle<M>, message: impl Fn(Change, NodeName) -> Option<M>) {
        let nodes = &self.hub.nodes;
        for name in nodes.changed(controller) {
            let change = nodes.change_of(controller, &name);
            if let Some(message) = change.and_then(|change| message(change, name.clone())) {
                let Ok(room) = mailbox.try_reserve() else { return };
                room.send(Meta::new(SOURCE), message);
            }
            nodes.told(controller, &name, change);
        }
    }

    fn announce_gaps(&self) {
        let peers = &self.hub.peers;
        for name in self.hub.nodes.overrun() {
            let Ok(room) = peers.devices.try_reserve() else { return };
            room.send(Meta::new(SOURCE), DeviceControllerMessage::NodeLacks { node: name.clone() });
            self.hub.nodes.overrun_told(&name);
        }
        for name in self.hub.nodes.due() {
            let Ok(room) = peers.downstream.try_reserve() else { return };
            // None: gone meanwhile.
            let Some(held) = self.hub.nodes.take_due(&name) else { continue };
            let message = DownstreamMessage::NodeLacks { node: name, held };
            room.send(Meta::new(SOURCE), message);
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
        let mut is_news = false;
        lease.each(|_, message| match message {
            CloudHubMessage::Send { node, key, frame } => self.send(node, key, frame),
            CloudHubMessage::Answer { node, frame } => self.answer(node, frame),
            CloudHubMessage::Connected { node, session } => {
                log::info!(node:% = node, session = *session; "node connected");
                self.hub.note(node, EventKind::Connected, format!("node {node}, session {session}"));
                is_news = true;
            }
            CloudHubMessage::Disconnected { node, session, reason } => {
                log::info!(node:% = node, session = *session, reason = reason.as_str(); "node disconnected");
                self.hub.note(node, EventKind::Disconnected, format!("node {node}, session {session}: {reason}"));
                is_news = true;
            }
            CloudHubMessage::Announced { .. } => is_news = true,
            CloudHubMessage::OutOfStep => {
                self.hub.nodes.out_of_step();
                is_news = true;
            }
            CloudHubMessage::SweepDue => {
                let tuning = self.hub.tuning();
                self.hub.nodes.sweep(tuning.keepalive, tuning.write_timeout);
                is_news = true;
            }
        });
        // Once for all of them: where a controller is full each look would go through all that waits. What a panic here
        // leaves untold the next sweep finds.
        if is_news {
            self.announce();
        }
    }
}
