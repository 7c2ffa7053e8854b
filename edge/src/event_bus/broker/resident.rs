//! The daemon itself at its own broker. It lives in the house and comes in through no door: what it has subscribed the
//! library's router hands to it, and what it publishes it hands to the router. So between a device and a module there is
//! one socket, the device's own.
//!
//! Nobody waits for it and it waits for nobody: a message that arrives goes into a module's mailbox or is answered at once,
//! and a subscriber that does not read is left to the [door](super::door).

use std::collections::BTreeSet;
use std::sync::Arc;

use log::error;
use mqtt5::broker::router::{DeliveryLanes, LaneReceivers, MessageRouter, RoutableMessage, SubscriptionRequest};
use mqtt5::packet::publish::PublishPacket;
use mqtt5::{ProtocolVersion, QoS};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::super::outbox::Publication;
use super::super::transport::{Inbound, Link, Wanted};
use super::limits::{CONNECTIONS_MAX, RESIDENT_LANE};
use super::retained::Retained;
use super::slow::Readers;

/// The daemon: what it publishes, what it has subscribed, and who takes what arrives.
#[derive(Clone)]
pub struct Resident {
    /// Where its publications wait.
    pub link: Arc<Link>,
    /// What it has subscribed.
    pub wanted: Arc<Wanted>,
    /// Who takes what arrives.
    pub inbound: Arc<dyn Inbound>,
}

impl std::fmt::Debug for Resident {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Resident").field("link", &self.link).finish_non_exhaustive()
    }
}

/// Where the router puts what the daemon has subscribed; there are as many places as the daemon may be behind.
#[derive(Clone, Debug)]
pub(super) struct Lane(mpsc::Sender<RoutableMessage>);

impl Lane {
    /// Waits until each client could put one message more. So a client waits at its own socket, and nothing is dropped for
    /// want of a place.
    pub(super) async fn room(&self) {
        if self.0.capacity() < CONNECTIONS_MAX {
            // `Err`: the daemon has moved out, and the house is about to be closed.
            drop(self.0.reserve_many(CONNECTIONS_MAX).await);
        }
    }
}

/// One life in one house.
pub(super) struct Life {
    resident: Resident,
    id: Arc<str>,
    router: Arc<MessageRouter>,
    readers: Arc<Readers>,
    arriving: LaneReceivers,
    subscribed: BTreeSet<String>,
    /// The router would say here that another client has taken the daemon's id; the door lets none in that tries.
    _displaced: oneshot::Receiver<mqtt5::broker::router::TakeoverNotice>,
}

impl Life {
    /// Moves in and subscribes.
    pub(super) async fn begin(resident: Resident, id: Arc<str>, router: Arc<MessageRouter>, readers: Arc<Readers>) -> (Self, Lane) {
        let (lanes, arriving) = DeliveryLanes::channel(RESIDENT_LANE);
        let (displace, displaced) = oneshot::channel();
        let lane = Lane(lanes.qos0_tx.clone());
        let queue = router.queue_handle(&id);
        router.register_session(id.to_string(), lanes, queue, displace, true).await;
        let mut life = Self { resident, id, router, readers, arriving, subscribed: BTreeSet::new(), _displaced: displaced };
        life.subscribe().await;
        life.resident.link.stands();
        life.resident.inbound.up(life.resident.link.manner().name);
        (life, lane)
    }

    /// Takes and publishes until it is to stop; never in the middle of a message.
    pub(super) async fn go_on(&mut self, mut stopped: watch::Receiver<bool>) {
        let mut changed = self.resident.wanted.changes();
        let link = self.resident.link.clone();
        loop {
            tokio::select! {
                message = self.arriving.recv() => match message {
                    Some(message) => self.take(&message.publish),
                    None => return,
                },
                queued = link.next() => self.publish(queued.publication).await,
                _ = changed.changed() => self.subscribe().await,
                _ = stopped.wait_for(|stopped| *stopped) => return,
            }
        }
    }

    /// Publishes what waits.
    pub(super) async fn empty(&mut self) {
        while let Some(queued) = self.resident.link.try_next() {
            self.publish(queued.publication).await;
        }
    }

    fn take(&self, message: &PublishPacket) {
        self.resident.link.take(self.resident.inbound.as_ref(), &message.topic_name, &message.payload);
    }

    async fn publish(&self, Publication { topic, payload }: Publication) {
        let manner = self.resident.link.manner();
        self.readers.published(payload.len());
        let mut packet = PublishPacket::new(topic, payload, QoS::from(manner.qos));
        packet.retain = manner.retain && Retained(self.router.clone()).has_room(&packet.topic_name, packet.payload.len()).await;
        self.router.route_message_with_deadline(&packet, Some(&self.id), Instant::now()).await;
        self.resident.link.count_published();
    }

    /// Brings the router's subscriptions to what is wanted.
    async fn subscribe(&mut self) {
        let wanted = self.resident.wanted.filters();
        for filter in self.subscribed.difference(&wanted) {
            self.router.unsubscribe(&self.id, filter, None).await;
        }
        for filter in wanted.difference(&self.subscribed) {
            // QoS 0 is a place in the lane, which has always one (see `Lane::room`). What the daemon publishes does not
            // come back to it.
            let request =
                SubscriptionRequest::new(&*self.id, filter, QoS::AtMostOnce).with_no_local(true).with_protocol_version(ProtocolVersion::V311);
            if let Err(error) = self.router.subscribe(request).await {
                error!(filter, error:% = error; "the embedded MQTT broker refused a subscription of the daemon");
                continue;
            }
            for retained in self.router.get_retained_messages(filter).await {
                self.take(&retained);
            }
        }
        self.subscribed = wanted;
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        let reason = "the embedded broker ended";
        self.resident.link.is_gone(reason);
        self.resident.inbound.down(self.resident.link.manner().name, reason.into());
    }
}
