//! What EventBus does with each message.

use actix::{Actor, Context, Handler};
use actor::Lease;

use super::EventBusMessage;
use super::state::EventBus;

impl Actor for EventBus {
    type Context = Context<Self>;
}

impl Handler<Lease<EventBusMessage>> for EventBus {
    type Result = ();

    fn handle(&mut self, lease: Lease<EventBusMessage>, _: &mut Self::Context) {
        self.settle(lease);
    }
}

impl EventBus {
    /// Hands on message by message, until a connection that stands has no room: the rest waits in the mailbox.
    pub(super) fn settle(&mut self, lease: Lease<EventBusMessage>) {
        let mut handled = 0;
        for (meta, message) in lease.iter() {
            match message {
                EventBusMessage::Publish { .. } if !self.transport.has_room() => break,
                EventBusMessage::Publish { topic, payload } => {
                    log::debug!(id:% = meta.id, parent:% = meta.parent_or_dash(), topic:% = topic; "published");
                    self.publish(topic, payload);
                }
                EventBusMessage::Subscribe { filter } => self.subscribe(&lease.fence(), filter),
                EventBusMessage::Unsubscribe { filter } => self.unsubscribe(&lease.fence(), filter),
                // The transport has said so in the log, and keeps the figures.
                EventBusMessage::TransportUp { .. } | EventBusMessage::TransportDown { .. } => {}
            }
            handled += 1;
        }
        if handled == lease.len() {
            lease.done();
        } else {
            let transport = self.transport.clone();
            lease.postpone_from(handled, async move { transport.room().await });
        }
    }
}
