//! One exhaustive match.

use std::time::Duration;

use actix::{ActorFutureExt as _, AsyncContext as _, Context, Handler, WrapFuture as _};
use actor::{Lease, Work};
use wire::hub::{Downstream as Body, Frame, MsgId, OutboxKey};

use super::state::{Known, Outgoing};
use super::{Downstream, DownstreamMessage, watch};
use crate::cloud_hub::CloudHubMessage;

/// How often the page's figures are brought up to date.
const PUBLISH_EVERY: Duration = Duration::from_secs(2);

impl actix::Actor for Downstream {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.known.set(Known::default());
        ctx.run_interval(PUBLISH_EVERY, |this, _| this.publish());
        // Of the first incarnation no node is connected yet. CloudHub waits for nobody, so there will be room.
        let hub = self.peers.cloud_hub.clone();
        ctx.spawn(async move { drop(hub.send(CloudHubMessage::OutOfStep).await) }.into_actor(self));
        self.watches = watch::start(&self.cluster, &self.config.namespace, &self.peers.downstream, self.generation);
    }
}

impl Handler<Lease<DownstreamMessage>> for Downstream {
    type Result = Work<Self>;

    fn handle(&mut self, lease: Lease<DownstreamMessage>, _: &mut Self::Context) -> Work<Self> {
        let mut out = Vec::new();
        self.is_published = false;
        for (_, message) in lease.iter() {
            match message {
                DownstreamMessage::NodeLacks { node, held } => out.extend(self.desired.node_lacks(node, held.clone())),
                DownstreamMessage::NodeHas { node, key, uid } => out.extend(self.desired.node_has(node, key, uid)),
                DownstreamMessage::NodeDisconnected { node } => self.desired.node_gone(node),
                // The last words of the watches of a former incarnation, whose state is gone with it.
                DownstreamMessage::Watch { generation, .. } if *generation != self.generation => {}
                DownstreamMessage::Watch { kind, change, .. } => out.extend(self.desired.apply(*kind, change)),
                DownstreamMessage::MayRead { node, key, reply } => {
                    reply.send(self.desired.may_read(node, key));
                }
            }
        }
        if out.is_empty() {
            lease.done();
            return Work::done();
        }
        let messages: Vec<CloudHubMessage> = out.into_iter().map(|outgoing| self.message(outgoing)).collect();
        let hub = self.peers.cloud_hub.clone();
        // CloudHub waits for nobody, so waiting for it is no ring. While this waits, the watches wait too.
        let send = async move {
            for message in messages {
                if hub.send(message).await.is_err() {
                    break;
                }
            }
            lease.done();
        };
        Work::new(send.into_actor(self).map(|(), _, _| ()))
    }
}

impl Downstream {
    /// Counts for the page, now and then: there may be many objects.
    fn publish(&mut self) {
        if !std::mem::replace(&mut self.is_published, true) {
            self.known.set(self.desired.known());
        }
    }

    fn message(&self, outgoing: Outgoing) -> CloudHubMessage {
        let Outgoing { node, operation, key, resource_version, object, .. } = outgoing;
        let body = Body::Object { operation, key: key.clone(), object };
        let frame = Frame::new(MsgId::random(), self.clock.now(), body).with_resource_version(resource_version);
        CloudHubMessage::Send { node, key: OutboxKey::Object(key), frame }
    }
}
