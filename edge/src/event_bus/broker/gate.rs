//! What the library asks us about one connection: who it is, and whether a message of it may go on.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use mqtt5::broker::auth::{AuthProvider, AuthResult};
use mqtt5::broker::storage::ClientSession;
use mqtt5::broker::{BrokerEventHandler, ClientPublishEvent, DynamicStorage, PublishAction, StorageBackend as _};
use mqtt5::packet::connect::ConnectPacket;
use mqtt5::packet::publish::PublishPacket;
use mqtt5::protocol::v5::reason_codes::ReasonCode;

use super::super::credits::Purse;
use super::access::{Access, Inside, Rights};
use super::entrances::Proof;
use super::limits;
use super::resident::Lane;
use super::retained::Retained;
use super::slow::Readers;

type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A guest of the embedded broker: pays for what it sends to our modules, and waits where it cannot.
pub(super) struct Guest {
    pub(super) purse: Purse,
    pub(super) readers: Arc<Readers>,
    /// Where the daemon's share goes.
    pub(super) lane: Option<Lane>,
    pub(super) retained: Retained,
}

impl BrokerEventHandler for Guest {
    // The library reads nothing further from this client until the answer: this is where a flood waits.
    fn on_client_publish<'a>(&'a self, event: ClientPublishEvent) -> Answer<'a, PublishAction> {
        Box::pin(async move {
            self.purse.pay(&event.topic, event.payload.len()).await;
            if let Some(lane) = &self.lane {
                lane.room().await;
            }
            self.readers.published(event.payload.len());
            if event.retain && !self.retained.has_room(&event.topic, event.payload.len()).await {
                return PublishAction::Transform(unretained(event));
            }
            PublishAction::Continue
        })
    }
}

/// The same message, which nobody keeps. It goes on to those who are there: the library would drop it, and tell a client of
/// MQTT 3.1.1 that it was taken. Of its MQTT 5 properties it keeps those that belong to a request.
fn unretained(event: ClientPublishEvent) -> PublishPacket {
    let mut packet = PublishPacket::new(&*event.topic, event.payload, event.qos);
    packet.packet_id = event.packet_id;
    if let Some(topic) = event.response_topic {
        packet.properties.set_response_topic(topic.to_string());
    }
    if let Some(data) = event.correlation_data {
        packet.properties.set_correlation_data(data);
    }
    packet
}

/// Longest that a refusal is kept back: whoever tries passwords waits for each.
const REFUSED_AFTER: Duration = Duration::from_secs(1);

/// A client that comes in through a public entrance.
pub(super) struct Visitor {
    access: Arc<Access>,
    daemon: Arc<str>,
    proof: Proof,
    certificate: Option<String>,
    storage: Arc<DynamicStorage>,
    retained: Retained,
    rights: OnceLock<Rights>,
    inside: Mutex<Option<Inside>>,
}

impl Visitor {
    pub(super) fn new(
        access: Arc<Access>,
        daemon: Arc<str>,
        proof: Proof,
        certificate: Option<String>,
        storage: Arc<DynamicStorage>,
        retained: Retained,
    ) -> Self {
        Self { access, daemon, proof, certificate, storage, retained, rights: OnceLock::new(), inside: Mutex::default() }
    }

    /// Who it is; `Ok(None)`: nobody, which is enough here.
    async fn name(&self, connect: &ConnectPacket) -> Result<Option<String>, ReasonCode> {
        if self.proof == Proof::Certificate {
            return self.certificate.clone().map(Some).ok_or(ReasonCode::NotAuthorized);
        }
        let given = connect.username.clone().filter(|_| self.access.users.is_some());
        let Some(name) = given else {
            return if self.proof == Proof::Nothing { Ok(None) } else { Err(ReasonCode::NotAuthorized) };
        };
        let (access, password) = (self.access.clone(), connect.password.clone().unwrap_or_default());
        // One at a time: each takes a core and 19 MiB for a moment.
        let Ok(_turn) = self.access.one_by_one.acquire().await else { return Err(ReasonCode::ServerUnavailable) };
        let known = tokio::task::spawn_blocking(move || {
            let known = access.users.as_ref().is_some_and(|users| users.know(&name, &password));
            known.then_some(name)
        });
        known.await.ok().flatten().map(Some).ok_or(ReasonCode::BadUsernameOrPassword)
    }

    async fn admit(&self, connect: &ConnectPacket) -> Result<AuthResult, ReasonCode> {
        if connect.client_id == *self.daemon {
            return Err(ReasonCode::ClientIdentifierNotValid);
        }
        if connect.will.as_ref().is_some_and(|will| will.payload.len() > limits::WILL_BYTES_MAX || !limits::sensible(&will.topic)) {
            return Err(ReasonCode::QuotaExceeded);
        }
        if let Some(will) = connect.will.as_ref().filter(|will| will.retain)
            && !self.retained.has_room(&will.topic, will.payload.len()).await
        {
            return Err(ReasonCode::QuotaExceeded);
        }
        let name = self.name(connect).await?;
        let rights = self.access.rules.of(name.as_deref()).ok_or(ReasonCode::NotAuthorized)?;
        if ClientSession::expiry_from_connect(connect) != Some(0) && self.too_many_sessions(&connect.client_id).await {
            return Err(ReasonCode::QuotaExceeded);
        }
        let inside = self.access.enter(&connect.client_id, name.as_deref()).ok_or(ReasonCode::ClientIdentifierNotValid)?;
        *self.inside.lock().unwrap_or_else(PoisonError::into_inner) = Some(inside);
        let _ = self.rights.set(rights);
        Ok(name.map_or_else(AuthResult::success, AuthResult::success_with_user))
    }

    async fn too_many_sessions(&self, id: &str) -> bool {
        let ids = self.storage.session_client_ids().await.unwrap_or_default();
        ids.len() >= limits::SESSIONS_MAX && !ids.iter().any(|known| known == id)
    }

    fn may(&self, what: impl FnOnce(&Rights) -> bool) -> bool {
        self.rights.get().is_some_and(what)
    }
}

impl AuthProvider for Visitor {
    fn authenticate<'a>(&'a self, connect: &'a ConnectPacket, peer: SocketAddr) -> Answer<'a, mqtt5::Result<AuthResult>> {
        Box::pin(async move {
            match self.admit(connect).await {
                Ok(result) => Ok(result),
                Err(reason) => {
                    let user = connect.username.as_deref().or(self.certificate.as_deref()).unwrap_or("-");
                    log::warn!(peer:% = peer, client = connect.client_id, user, reason:? = reason; "an MQTT client was refused");
                    tokio::time::sleep(REFUSED_AFTER).await;
                    Ok(AuthResult::fail(reason))
                }
            }
        })
    }

    fn authorize_publish<'a>(&'a self, _: &str, _: Option<&'a str>, topic: &'a str) -> Answer<'a, bool> {
        Box::pin(std::future::ready(limits::sensible(topic) && self.may(|rights| rights.publishes(topic))))
    }

    fn authorize_subscribe<'a>(&'a self, _: &str, _: Option<&'a str>, filter: &'a str) -> Answer<'a, bool> {
        Box::pin(std::future::ready(limits::sensible(filter) && self.may(|rights| rights.subscribes(filter))))
    }
}
