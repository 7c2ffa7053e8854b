//! One connection to one broker, by the paho library: connect, subscribe, publish, and again.
//!
//! Everything that is particular to the library is here.
//!
//! Invariant: whatever a broker does, it is connected to no more often than the back-off allows; that starts anew only
//! after a connection that stood.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use log::{debug, error, info, warn};
use paho_mqtt as paho;
use tokio::sync::{Mutex, Notify, watch};
use tokio::time::{Instant, MissedTickBehavior};

use super::super::outbox::{Publication, Queued};
use super::judge::{Judge, Session};
use super::tunnel::Tunnel;
use super::{Endpoint, IN_FLIGHT_MAX, Inbound, Link, Patience, TransportError, Wanted};
use crate::backoff::Backoff;

const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// After a panic.
const PAUSE: Duration = Duration::from_secs(1);
/// What waits at the end has so long to go out, and the broker so long again to hear the goodbye.
const GOODBYE_WITHIN: Duration = Duration::from_secs(1);
/// What an attempt to connect may take, in times of [`super::Patience::connect`]: one for the connection, one for the
/// broker's answer, one to spare.
const ATTEMPT_LIMITS: u32 = 3;
/// How often the library may give a message back while the connection stands before it is dropped.
const ATTEMPTS_MAX: u32 = 3;

/// The library's client for one broker, with what belongs to it.
pub(super) struct Line {
    link: Arc<Link>,
    endpoint: Endpoint,
    patience: Patience,
    tunnel: Arc<Tunnel>,
    signals: Arc<Signals>,
    client: paho::AsyncClient,
    /// The attempt to connect that is under way. The library has one place for whom to tell, and tells the newest, once for
    /// each attempt: with two under way it would tell one of them twice, and the second time what is no longer there.
    attempt: Mutex<Option<Attempt>>,
}

/// What the library's threads and ours tell each other.
#[derive(Debug, Default)]
struct Signals {
    /// A connection was lost.
    lost: Notify,
    /// Stopped: what still arrives is not taken.
    closed: AtomicBool,
}

/// An attempt to connect.
struct Attempt {
    token: paho::ConnectToken,
    is_clean: bool,
}

impl Line {
    /// Makes the client; nothing is connected yet.
    pub(super) fn new(endpoint: Endpoint, tunnel: Arc<Tunnel>, patience: Patience, inbound: &Arc<dyn Inbound>) -> Result<Self, TransportError> {
        let options = paho::CreateOptionsBuilder::new()
            .server_uri(tunnel.url())
            .client_id(endpoint.client_id.as_str())
            .persistence(paho::PersistenceType::None)
            .max_buffered_messages(i32::try_from(2 * IN_FLIGHT_MAX).unwrap_or(i32::MAX))
            .finalize();
        let client = paho::AsyncClient::new(options).map_err(|error| TransportError::Client {
            endpoint: endpoint.manner.name,
            server: endpoint.server.clone(),
            reason: error.to_string(),
        })?;
        // The library's requests hold references to the client, and the last one to go destroys it. Gone inside a callback,
        // that is a deadlock of the whole library, for every client of the process. So a client is never destroyed; there
        // is one per broker and process, and when it is stopped it is disconnected and deaf.
        std::mem::forget(client.clone());
        let (link, signals) = (Link::new(endpoint.manner.clone()), Arc::new(Signals::default()));
        let lost = signals.clone();
        client.set_connection_lost_callback(move |_| lost.lost.notify_one());
        let (receiver, of, inbound) = (link.clone(), signals.clone(), inbound.clone());
        client.set_message_callback(move |_, message| {
            let Some(message) = message else { return };
            // A panic must not unwind into C, which would end the process: the link keeps it.
            if !of.closed.load(Ordering::Relaxed) {
                receiver.take(inbound.as_ref(), message.topic(), message.payload());
            }
        });
        Ok(Self { link, endpoint, patience, tunnel, signals, client, attempt: Mutex::default() })
    }

    /// What is shared with EventBus.
    pub(super) fn link(&self) -> Arc<Link> {
        self.link.clone()
    }

    /// What the tunnel knows of a connection that failed, of which the library sees its end only.
    fn known_reason(&self) -> Option<String> {
        self.tunnel.failure()
    }

    /// Resolves when the connection is closed.
    async fn closed(&self) {
        loop {
            self.signals.lost.notified().await;
            // The notice may be of an earlier connection that broke while it was made.
            if !self.client.is_connected() {
                return;
            }
        }
    }
}

/// Drives all connections until they are told to stop. A panic loses what is in flight and nothing else.
pub(super) async fn run(lines: &[Line], wanted: &Wanted, inbound: &dyn Inbound, stopped: &watch::Receiver<bool>) {
    loop {
        let drives = lines.iter().map(|line| Drive::new(line, wanted, inbound));
        let all = join_all(drives.map(|mut drive| async move { drive.until(stopped.clone()).await }));
        if AssertUnwindSafe(all).catch_unwind().await.is_ok() {
            return;
        }
        error!("the MQTT client panicked; all connections are made again");
        for line in lines {
            line.link.is_gone("the client panicked");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// What drives one connection.
struct Drive<'a> {
    line: &'a Line,
    wanted: &'a Wanted,
    inbound: &'a dyn Inbound,
    in_flight: FuturesUnordered<Delivery>,
    /// The numbers of what is in flight.
    unanswered: BTreeSet<u64>,
    /// When the broker last answered, or had nothing to answer.
    answered_at: Instant,
    judge: Judge,
}

type Delivery = std::pin::Pin<Box<dyn Future<Output = (Queued, paho::Result<()>)>>>;

/// Why a session is over.
struct End {
    /// It was the broker that closed it, as far as one can see.
    by_broker: bool,
    reason: String,
}

impl End {
    fn ours(reason: String) -> Self {
        Self { by_broker: false, reason }
    }
}

impl<'a> Drive<'a> {
    fn new(line: &'a Line, wanted: &'a Wanted, inbound: &'a dyn Inbound) -> Self {
        Self {
            line,
            wanted,
            inbound,
            in_flight: FuturesUnordered::new(),
            unanswered: BTreeSet::new(),
            answered_at: Instant::now(),
            judge: Judge::new(line.patience.barren),
        }
    }

    async fn until(&mut self, mut stopped: watch::Receiver<bool>) {
        tokio::select! {
            () = self.connect_for_ever() => {}
            _ = stopped.wait_for(|stopped| *stopped) => {}
        }
        // An attempt that is under way cannot be called off: it is let end, to be disconnected then.
        if let Some(attempt) = self.line.attempt.lock().await.take() {
            let _ = tokio::time::timeout(GOODBYE_WITHIN, attempt.token).await;
        }
        let _ = tokio::time::timeout(GOODBYE_WITHIN, self.drain()).await;
        self.line.signals.closed.store(true, Ordering::Relaxed);
        self.line.link.is_gone("stopped");
        let goodbye = self.line.client.disconnect_after(GOODBYE_WITHIN);
        let _ = tokio::time::timeout(GOODBYE_WITHIN * 2, goodbye).await;
        let _ = tokio::time::timeout(GOODBYE_WITHIN, self.line.tunnel.emptied()).await;
    }

    /// Publishes what waits and waits for the broker's answers.
    async fn drain(&mut self) {
        while self.line.client.is_connected() {
            let room = self.in_flight.len() < self.line.endpoint.window();
            match room.then(|| self.line.link.outbox.try_take()).flatten() {
                Some(queued) => {
                    let _ = self.send(queued);
                }
                None => match self.in_flight.next().await {
                    Some((queued, result)) => self.settle(queued, result, true),
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
            let endpoint = &self.line.endpoint;
            match self.connect().await {
                Ok(subscribed) => {
                    complained = false;
                    self.line.link.stands();
                    info!(endpoint = endpoint.manner.name, server = endpoint.server; "connected to the MQTT broker");
                    self.inbound.up(endpoint.manner.name);
                    let reason = self.session(subscribed, &mut backoff).await;
                    self.line.link.is_gone(&reason);
                    warn!(endpoint = endpoint.manner.name, server = endpoint.server, reason; "the MQTT broker is gone; connecting again");
                    self.inbound.down(endpoint.manner.name, reason);
                }
                // Said once, and again when the reason is another one: of a certificate that was mended in part, say.
                Err(reason) if *self.line.link.trouble() == reason && complained => {
                    debug!(endpoint = endpoint.manner.name, reason; "the MQTT broker cannot be reached");
                }
                Err(reason) => {
                    complained = true;
                    self.line.link.trouble().clone_from(&reason);
                    warn!(
                        endpoint = endpoint.manner.name, server = endpoint.server, reason;
                        "the MQTT broker cannot be reached; trying again with growing pauses"
                    );
                }
            }
        }
    }

    /// Connects and subscribes. Returns the filters that are subscribed.
    async fn connect(&mut self) -> Result<BTreeSet<String>, String> {
        if self.line.client.is_connected() {
            within(GOODBYE_WITHIN * 2, self.line.client.disconnect_after(Duration::ZERO)).await?;
        }
        let limit = self.line.patience.connect;
        let mut under_way = self.line.attempt.lock().await;
        let attempt = match under_way.take() {
            Some(attempt) => under_way.insert(attempt),
            None => under_way.insert(self.attempt()?),
        };
        let connected = tokio::time::timeout(limit * ATTEMPT_LIMITS, &mut attempt.token).await;
        let is_clean = attempt.is_clean;
        match connected {
            Ok(result) => {
                *under_way = None;
                result.map_err(|error| self.line.known_reason().unwrap_or_else(|| refusal(&error)))?;
            }
            Err(_) => return Err(format!("no end of the attempt within {} s", (limit * ATTEMPT_LIMITS).as_secs())),
        }
        drop(under_way);
        if is_clean {
            self.judge.began_clean();
        }
        // What the library has given up with the session before goes back to its place before anything new is sent.
        while let Some(Some((queued, result))) = self.in_flight.next().now_or_never() {
            self.settle(queued, result, false);
        }
        let filters = self.wanted.filters();
        if let Err(reason) = self.subscribe(&filters).await {
            self.judge.ended(&Session { subscribed: false, answered: false, unanswered: &self.unanswered, ended_by_broker_later: false });
            return Err(reason);
        }
        Ok(filters)
    }

    /// Begins to connect.
    fn attempt(&self) -> Result<Attempt, String> {
        let is_clean = self.judge.wants_clean();
        let mut options = paho::ConnectOptionsBuilder::new_v3();
        options
            .clean_session(is_clean)
            .keep_alive_interval(KEEP_ALIVE)
            // The tunnel ends an attempt earlier.
            .connect_timeout(self.line.patience.connect * ATTEMPT_LIMITS)
            // Our window is `IN_FLIGHT_MAX`; a subscription must find room beside it.
            .max_inflight(i32::try_from(2 * IN_FLIGHT_MAX).unwrap_or(i32::MAX));
        if let Some(login) = &self.line.endpoint.login {
            options.user_name(login.username.as_str());
            if let Some(password) = login.password().map_err(|error| error.to_string())? {
                options.password(password);
            }
        }
        Ok(Attempt { token: self.line.client.connect(options.finalize()), is_clean })
    }

    /// Subscribes filters, each by a packet of its own: the library trusts the number of answers in one packet. One that the
    /// broker refuses is said and not asked for again on this connection.
    async fn subscribe(&self, filters: &BTreeSet<String>) -> Result<(), String> {
        let qos = i32::from(self.line.endpoint.subscribe_qos);
        let asked = join_all(filters.iter().map(|filter| self.line.client.subscribe(filter.as_str(), qos)));
        let answers = tokio::select! {
            answers = tokio::time::timeout(self.line.patience.connect, asked) => answers,
            () = self.line.closed() => return Err(self.line.known_reason().unwrap_or_else(|| "it closed the connection while we subscribed".into())),
        };
        let Ok(answers) = answers else {
            return Err(format!("it did not answer our subscriptions within {} s", self.line.patience.connect.as_secs()));
        };
        let refused: Vec<_> = filters.iter().zip(&answers).filter(|(_, answer)| answer.is_err()).map(|(filter, _)| filter.as_str()).collect();
        if !refused.is_empty() {
            if !self.line.client.is_connected() {
                return Err(self.line.known_reason().unwrap_or_else(|| "it closed the connection while we subscribed".into()));
            }
            warn!(
                endpoint = self.line.endpoint.manner.name, filters = refused.join(" ");
                "the MQTT broker refused subscriptions: nothing is heard there; look at its access rules"
            );
        }
        Ok(())
    }

    /// One session, from its subscriptions to its end; returns why it ended.
    async fn session(&mut self, subscribed: BTreeSet<String>, backoff: &mut Backoff) -> String {
        let patience = self.line.patience;
        let since = Instant::now();
        let published = self.line.link.published();
        self.answered_at = since;
        let end = self.work(subscribed, since).await;
        let stood = since.elapsed();
        if stood >= patience.stable {
            backoff.reset();
        }
        self.judge.ended(&Session {
            subscribed: true,
            answered: self.line.link.published() > published,
            unanswered: &self.unanswered,
            ended_by_broker_later: end.by_broker && stood >= patience.settle,
        });
        end.reason
    }

    /// Publishes and subscribes until the connection is over.
    async fn work(&mut self, mut subscribed: BTreeSet<String>, since: Instant) -> End {
        let patience = self.line.patience;
        let mut wanted = self.wanted.changes();
        let mut tick = tokio::time::interval(patience.tick());
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let careful = self.judge.is_careful();
            let window = if careful { 1 } else { self.line.endpoint.window() };
            let may_send = self.in_flight.len() < window && (!careful || since.elapsed() >= patience.settle);
            let ticks = careful || !self.unanswered.is_empty();
            tokio::select! {
                biased;
                () = self.line.closed() => {
                    return End { by_broker: true, reason: self.line.known_reason().unwrap_or_else(|| "the connection was closed".into()) };
                }
                Some((queued, result)) = self.in_flight.next() => {
                    let connected = result.is_ok() || self.line.client.is_connected();
                    self.settle(queued, result, connected);
                }
                queued = self.line.link.outbox.take(), if may_send => {
                    if let Err(reason) = self.send(queued) {
                        return End { by_broker: true, reason };
                    }
                }
                _ = wanted.changed() => {
                    if let Err(reason) = self.resubscribe(&mut subscribed).await {
                        return End::ours(reason);
                    }
                }
                _ = tick.tick(), if ticks => {
                    let quiet = self.answered_at.elapsed();
                    if !self.unanswered.is_empty() && quiet >= patience.answer {
                        return End::ours(format!("it has answered nothing for {} s", quiet.as_secs()));
                    }
                    if !self.unanswered.is_empty() && quiet >= patience.stalled {
                        self.line.link.stall(patience.stalled);
                    }
                }
            }
        }
    }

    /// Hands one publication to the library. `Err` when the connection is gone.
    fn send(&mut self, queued: Queued) -> Result<(), String> {
        let message = message(&self.line.endpoint, &queued.publication);
        match self.line.client.try_publish(message) {
            Ok(token) => {
                if self.unanswered.is_empty() {
                    self.answered_at = Instant::now();
                }
                self.unanswered.insert(queued.number);
                self.in_flight.push(Box::pin(async move { (queued, token.await) }));
                Ok(())
            }
            Err(error) if !self.line.client.is_connected() => {
                self.line.link.outbox.put_back(queued);
                Err(error.to_string())
            }
            Err(error) => {
                self.refuse(&queued, &error);
                Ok(())
            }
        }
    }

    /// What became of a publication. `connected`: the session in which it was sent still stands.
    fn settle(&mut self, mut queued: Queued, result: paho::Result<()>, connected: bool) {
        self.unanswered.remove(&queued.number);
        match result {
            Ok(()) => {
                self.line.link.count_published();
                self.line.link.answers();
                self.answered_at = Instant::now();
                self.judge.answered();
            }
            Err(error) if self.judge.gives_up(queued.number) => self.refuse(&queued, &error),
            Err(error) if connected && queued.attempts + 1 >= ATTEMPTS_MAX => self.refuse(&queued, &error),
            // The session ended with the message unanswered: it goes out again in the next one.
            Err(_) => {
                queued.attempts += u32::from(connected);
                self.line.link.outbox.put_back(queued);
            }
        }
    }

    fn refuse(&self, queued: &Queued, error: &paho::Error) {
        self.line.link.count_refused();
        warn!(
            endpoint = self.line.endpoint.manner.name, topic = queued.publication.topic, error:% = error;
            "an MQTT message could not be published and is dropped"
        );
    }

    /// Brings the broker's subscriptions to what is wanted.
    async fn resubscribe(&self, subscribed: &mut BTreeSet<String>) -> Result<(), String> {
        let wanted = self.wanted.filters();
        self.subscribe(&wanted.difference(subscribed).cloned().collect()).await?;
        for filter in subscribed.difference(&wanted) {
            within(self.line.patience.connect, self.line.client.unsubscribe(filter.as_str())).await?;
        }
        *subscribed = wanted;
        Ok(())
    }
}

/// What a broker's answer to CONNECT means (MQTT 3.1.1 §3.2.2.3), with what to do.
fn refusal(error: &paho::Error) -> String {
    use paho::ConnectReturnCode as Code;
    match error {
        // mosquitto says the second one of a wrong password.
        paho::Error::ConnectReturn(Code::BadUserNameOrPassword | Code::NotAuthorized) => {
            "it refused our user name, password or certificate: look at mqtt.username, mqtt.password-file and mqtt.tls, and at the broker's log"
                .into()
        }
        paho::Error::ConnectReturn(Code::IdentifierRejected) => "it refused our client id: set another one in mqtt.client-id".into(),
        paho::Error::ConnectReturn(code) => format!("it refused the connection: {code}"),
        other => other.to_string(),
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
        .qos(paho::QoS::from(i32::from(endpoint.manner.qos)))
        .retained(endpoint.manner.retain)
        .finalize()
}
