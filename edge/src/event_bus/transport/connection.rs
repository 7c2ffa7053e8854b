//! One connection to one broker, by the paho library: connect, subscribe, publish, and again.
//!
//! Everything that is particular to the library is here.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use log::{debug, error, info, warn};
use paho_mqtt as paho;
use tokio::sync::watch;

use super::super::outbox::{Publication, Queued};
use super::{Endpoint, IN_FLIGHT_MAX, Inbound, Link, TransportError, Wanted};
use crate::backoff::Backoff;

const CONNECT_WITHIN: Duration = Duration::from_secs(10);
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// After a panic.
const PAUSE: Duration = Duration::from_secs(1);
/// What waits at the end has so long to go out, and the broker so long again to hear the goodbye.
const GOODBYE_WITHIN: Duration = Duration::from_secs(1);
/// Sessions that may end with the same message unanswered before it is dropped.
const ATTEMPTS_MAX: u32 = 3;
/// Inbound messages are subscribed with QoS 1 (KubeEdge `mqtt/client.go`).
const SUBSCRIBE_QOS: i32 = 1;

pub(super) fn client(link: &Arc<Link>, inbound: &Arc<dyn Inbound>) -> Result<paho::AsyncClient, TransportError> {
    let options = paho::CreateOptionsBuilder::new()
        .server_uri(link.endpoint.server.as_str())
        .client_id(link.endpoint.client_id.as_str())
        .persistence(paho::PersistenceType::None)
        .max_buffered_messages(i32::try_from(2 * IN_FLIGHT_MAX).unwrap_or(i32::MAX))
        .finalize();
    let client = paho::AsyncClient::new(options).map_err(|error| TransportError::Client {
        endpoint: link.endpoint.name,
        server: link.endpoint.server.clone(),
        reason: error.to_string(),
    })?;
    // The library's requests hold references to the client, and the last one to go destroys it. Gone inside a callback,
    // that is a deadlock of the whole library, for every client of the process. So a client is never destroyed; there
    // is one per broker and process, and when it is stopped it is disconnected and deaf.
    std::mem::forget(client.clone());
    let lost = link.clone();
    client.set_connection_lost_callback(move |_| lost.lost.notify_one());
    let (receiver, inbound) = (link.clone(), inbound.clone());
    client.set_message_callback(move |_, message| {
        let Some(message) = message else { return };
        if receiver.closed.load(Ordering::Relaxed) {
            return;
        }
        receiver.arrived.fetch_add(1, Ordering::Relaxed);
        // A panic must not unwind into C, which would end the process.
        let taken = catch_unwind(AssertUnwindSafe(|| {
            inbound.arrived(message.topic(), message.payload());
        }));
        if taken.is_err() {
            receiver.panics.fetch_add(1, Ordering::Relaxed);
            error!(endpoint = receiver.endpoint.name; "taking an MQTT message panicked; the message is lost");
        }
    });
    Ok(client)
}

/// Drives all connections until they are told to stop. A panic loses what is in flight and nothing else.
pub(super) async fn run(connections: &[(Arc<Link>, paho::AsyncClient)], wanted: &Wanted, inbound: &dyn Inbound, stopped: &watch::Receiver<bool>) {
    loop {
        let drives =
            connections.iter().map(|(link, client)| Drive { link, client, wanted, inbound, in_flight: FuturesUnordered::new(), attempt: None });
        let all = join_all(drives.map(|mut drive| async move { drive.until(stopped.clone()).await }));
        if AssertUnwindSafe(all).catch_unwind().await.is_ok() {
            return;
        }
        error!("the MQTT client panicked; all connections are made again");
        for (link, _) in connections {
            link.connected.store(false, Ordering::Relaxed);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// What drives one connection.
struct Drive<'a> {
    link: &'a Link,
    client: &'a paho::AsyncClient,
    wanted: &'a Wanted,
    inbound: &'a dyn Inbound,
    in_flight: FuturesUnordered<Delivery>,
    /// The attempt to connect that is under way.
    attempt: Option<paho::ConnectToken>,
}

type Delivery = std::pin::Pin<Box<dyn Future<Output = (Queued, paho::Result<()>)>>>;

impl Drive<'_> {
    async fn until(&mut self, mut stopped: watch::Receiver<bool>) {
        tokio::select! {
            () = self.connect_for_ever() => {}
            _ = stopped.wait_for(|stopped| *stopped) => {}
        }
        // An attempt that is under way cannot be called off: it is let end, to be disconnected then.
        if let Some(attempt) = self.attempt.take() {
            let _ = tokio::time::timeout(GOODBYE_WITHIN, attempt).await;
        }
        let _ = tokio::time::timeout(GOODBYE_WITHIN, self.drain()).await;
        self.link.closed.store(true, Ordering::Relaxed);
        self.link.connected.store(false, Ordering::Relaxed);
        let goodbye = self.client.disconnect_after(GOODBYE_WITHIN);
        let _ = tokio::time::timeout(GOODBYE_WITHIN * 2, goodbye).await;
    }

    /// Publishes what waits and waits for the broker's answers.
    async fn drain(&mut self) {
        while self.client.is_connected() {
            let room = self.in_flight.len() < IN_FLIGHT_MAX;
            match room.then(|| self.link.outbox.try_take()).flatten() {
                Some(queued) => {
                    let _ = self.send(queued);
                }
                None => match self.in_flight.next().await {
                    Some((queued, result)) => self.settle(queued, result),
                    None => return,
                },
            }
        }
    }

    async fn connect_for_ever(&mut self) {
        let mut backoff = Backoff::default();
        let mut complained = false;
        loop {
            tokio::time::sleep(backoff.next_wait(&mut rand::rng())).await;
            let endpoint = &self.link.endpoint;
            match self.connect().await {
                Ok(subscribed) => {
                    backoff.reset();
                    complained = false;
                    self.link.connected.store(true, Ordering::Relaxed);
                    info!(endpoint = endpoint.name, server = endpoint.server; "connected to the MQTT broker");
                    self.inbound.up(endpoint.name);
                    let reason = self.work(subscribed).await;
                    self.link.connected.store(false, Ordering::Relaxed);
                    warn!(endpoint = endpoint.name, server = endpoint.server, reason; "the MQTT broker is gone; connecting again");
                    self.inbound.down(endpoint.name, reason);
                }
                Err(reason) if complained => {
                    debug!(endpoint = endpoint.name, reason; "the MQTT broker cannot be reached");
                }
                Err(reason) => {
                    complained = true;
                    warn!(
                        endpoint = endpoint.name, server = endpoint.server, reason;
                        "the MQTT broker cannot be reached; trying again with growing pauses"
                    );
                }
            }
        }
    }

    /// Connects and subscribes. Returns the filters that are subscribed.
    async fn connect(&mut self) -> Result<BTreeSet<String>, String> {
        if self.client.is_connected() {
            within(GOODBYE_WITHIN * 2, self.client.disconnect_after(GOODBYE_WITHIN)).await?;
        }
        let options = paho::ConnectOptionsBuilder::new_v3()
            .clean_session(false)
            .keep_alive_interval(KEEP_ALIVE)
            .connect_timeout(CONNECT_WITHIN)
            .max_inflight(i32::try_from(IN_FLIGHT_MAX).unwrap_or(i32::MAX))
            .finalize();
        let attempt = self.attempt.insert(self.client.connect(options));
        let connected = within(CONNECT_WITHIN * 2, attempt).await;
        self.attempt = None;
        connected?;
        let filters = self.wanted.filters();
        let list: Vec<String> = filters.iter().cloned().collect();
        let subscribed = self.client.subscribe_many_same_qos(&list, SUBSCRIBE_QOS);
        if let Err(reason) = within(CONNECT_WITHIN, subscribed).await {
            return Err(format!("it refused the subscriptions: {reason}"));
        }
        Ok(filters)
    }

    /// Publishes and subscribes until the connection is lost; returns why.
    async fn work(&mut self, mut subscribed: BTreeSet<String>) -> String {
        let mut wanted = self.wanted.changed.subscribe();
        loop {
            tokio::select! {
                biased;
                () = self.link.lost.notified() => {
                    // The notice may be of an earlier connection that broke while it was made.
                    if !self.client.is_connected() {
                        return "the connection was closed".into();
                    }
                }
                Some((queued, result)) = self.in_flight.next() => self.settle(queued, result),
                queued = self.link.outbox.take(), if self.in_flight.len() < IN_FLIGHT_MAX => {
                    if let Err(reason) = self.send(queued) {
                        return reason;
                    }
                }
                _ = wanted.changed() => {
                    if let Err(reason) = self.resubscribe(&mut subscribed).await {
                        return reason;
                    }
                }
            }
        }
    }

    /// Hands one publication to the library. `Err` when the connection is gone.
    fn send(&self, queued: Queued) -> Result<(), String> {
        let message = message(&self.link.endpoint, &queued.publication);
        match self.client.try_publish(message) {
            Ok(token) => {
                self.in_flight.push(Box::pin(async move { (queued, token.await) }));
                Ok(())
            }
            Err(error) if !self.client.is_connected() => {
                self.link.outbox.put_back(queued);
                Err(error.to_string())
            }
            Err(error) => {
                self.refuse(&queued, &error);
                Ok(())
            }
        }
    }

    fn settle(&self, mut queued: Queued, result: paho::Result<()>) {
        match result {
            Ok(()) => {
                self.link.published.fetch_add(1, Ordering::Relaxed);
            }
            // The session ended with the message unanswered: it goes out again in the next one. A message
            // that ends session after session is given up, or it would do so for ever.
            Err(_) if queued.attempts + 1 < ATTEMPTS_MAX => {
                queued.attempts += 1;
                self.link.outbox.put_back(queued);
            }
            Err(error) => self.refuse(&queued, &error),
        }
    }

    fn refuse(&self, queued: &Queued, error: &paho::Error) {
        self.link.refused.fetch_add(1, Ordering::Relaxed);
        warn!(
            endpoint = self.link.endpoint.name, topic = queued.publication.topic, error:% = error;
            "an MQTT message could not be published and is dropped"
        );
    }

    /// Brings the broker's subscriptions to what is wanted.
    async fn resubscribe(&self, subscribed: &mut BTreeSet<String>) -> Result<(), String> {
        let wanted = self.wanted.filters();
        for filter in wanted.difference(subscribed) {
            within(CONNECT_WITHIN, self.client.subscribe(filter.as_str(), SUBSCRIBE_QOS)).await?;
        }
        for filter in subscribed.difference(&wanted) {
            within(CONNECT_WITHIN, self.client.unsubscribe(filter.as_str())).await?;
        }
        *subscribed = wanted;
        Ok(())
    }
}

async fn within<T>(limit: Duration, asked: impl Future<Output = paho::Result<T>>) -> Result<T, String> {
    match tokio::time::timeout(limit, asked).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {} s", limit.as_secs())),
    }
}

fn message(endpoint: &Endpoint, publication: &Publication) -> paho::Message {
    paho::MessageBuilder::new()
        .topic(publication.topic.as_str())
        .payload(publication.payload.to_vec())
        .qos(paho::QoS::from(i32::from(endpoint.qos)))
        .retained(endpoint.retain)
        .finalize()
}
