//! What the library asks us about one connection: who it is, and whether a message of it may go on.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use mqtt5::broker::auth::{AuthProvider, AuthResult};
use mqtt5::broker::router::MessageRouter;
use mqtt5::broker::{BrokerEventHandler, ClientPublishEvent, PublishAction};
use mqtt5::packet::connect::ConnectPacket;
use mqtt5::packet::publish::PublishPacket;
use mqtt5::protocol::v5::reason_codes::ReasonCode;
use tokio::time::Instant;

use super::super::credits::Purse;

type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A guest of the embedded broker: pays for what it sends to our modules, and waits where it cannot.
pub(super) struct Guest {
    pub(super) purse: Purse,
}

impl BrokerEventHandler for Guest {
    // The library reads nothing further from this client until the answer: this is where a flood waits.
    fn on_client_publish<'a>(&'a self, event: ClientPublishEvent) -> Answer<'a, PublishAction> {
        Box::pin(async move {
            self.purse.pay(&event.topic, event.payload.len()).await;
            PublishAction::Continue
        })
    }
}

/// Everybody may come in, under any name but the daemon's, and do everything.
pub(super) struct Anyone {
    pub(super) daemon: Arc<str>,
}

impl AuthProvider for Anyone {
    fn authenticate<'a>(&'a self, connect: &'a ConnectPacket, _: SocketAddr) -> Answer<'a, mqtt5::Result<AuthResult>> {
        let known = connect.client_id != *self.daemon;
        let result = if known { AuthResult::success() } else { AuthResult::fail(ReasonCode::ClientIdentifierNotValid) };
        Box::pin(std::future::ready(Ok(result)))
    }

    fn authorize_publish<'a>(&'a self, _: &str, _: Option<&'a str>, _: &'a str) -> Answer<'a, bool> {
        Box::pin(std::future::ready(true))
    }

    fn authorize_subscribe<'a>(&'a self, _: &str, _: Option<&'a str>, _: &'a str) -> Answer<'a, bool> {
        Box::pin(std::future::ready(true))
    }
}

/// The daemon's own client, known by its id, which is a secret of this process.
pub(super) struct Daemon {
    pub(super) id: Arc<str>,
    pub(super) router: Arc<MessageRouter>,
}

impl AuthProvider for Daemon {
    fn authenticate<'a>(&'a self, connect: &'a ConnectPacket, _: SocketAddr) -> Answer<'a, mqtt5::Result<AuthResult>> {
        let known = connect.client_id == *self.id;
        let result = if known { AuthResult::success() } else { AuthResult::fail(ReasonCode::NotAuthorized) };
        Box::pin(std::future::ready(Ok(result)))
    }

    fn authorize_publish<'a>(&'a self, _: &str, _: Option<&'a str>, _: &'a str) -> Answer<'a, bool> {
        Box::pin(std::future::ready(true))
    }

    fn authorize_subscribe<'a>(&'a self, _: &str, _: Option<&'a str>, _: &'a str) -> Answer<'a, bool> {
        Box::pin(std::future::ready(true))
    }
}

impl BrokerEventHandler for Daemon {
    // The library would let the publisher wait for a subscriber that does not read, and add the publisher's id to what an
    // MQTT 5 subscriber gets. So what the daemon publishes is routed here: it waits for nobody, and keeps its secret.
    fn on_client_publish<'a>(&'a self, event: ClientPublishEvent) -> Answer<'a, PublishAction> {
        Box::pin(async move {
            let mut packet = PublishPacket::new(&*event.topic, event.payload, event.qos);
            packet.retain = event.retain;
            self.router.route_message_with_deadline(&packet, None, Instant::now()).await;
            PublishAction::Handled
        })
    }
}
