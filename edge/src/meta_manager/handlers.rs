//! What MetaManager does with each message.

use std::collections::HashMap;

use actix::{Actor, AsyncContext, Context, Handler};
use actor::{AskError, Lease, Meta, Reply, Room};
use model::{NodeName, ResourceKey, ResourceKind};
use wire::hub::{Downstream, Frame, MsgId, RawJson, Resource, Upstream};
use wire::link::{HELD_KINDS, parts_of};

use super::message::{Found, MetaManagerMessage, QueryError};
use super::pending::PendingEvent;
use super::state::{Caused, Effect, MetaManager, NodeStatus, ReportRow, StoredStatuses, apply, by_namespace, statuses};
use crate::edge_hub::EdgeHubMessage;
use crate::edged::EdgedMessage;
use crate::ids;
use crate::store::{Batch, StoreError, meta};

impl Actor for MetaManager {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(self.config.sync_interval, |this, _| {
            // Full means that much is being done anyway; the next tick asks again.
            let _ = this.peers.own.try_send(MetaManagerMessage::SyncDue);
        });
    }
}

impl Handler<Lease<MetaManagerMessage>> for MetaManager {
    type Result = ();

    fn handle(&mut self, lease: Lease<MetaManagerMessage>, _: &mut Self::Context) {
        self.settle(lease);
    }
}

/// Rooms for what one batch may tell.
struct Rooms {
    edge_hub: Vec<Room<EdgeHubMessage>>,
    edged: Vec<Room<EdgedMessage>>,
}

impl MetaManager {
    pub(super) fn settle(&mut self, lease: Lease<MetaManagerMessage>) {
        // Room before work: each message tells each peer at most one thing.
        let peers = &self.peers;
        let edge_hub: Vec<_> = (0..lease.len()).map_while(|_| peers.edge_hub.try_reserve().ok()).collect();
        if edge_hub.is_empty() {
            return lease.postpone_from(0, peers.edge_hub.room());
        }
        // Edged stops first; without it the store is written all the same.
        let edged = peers.edged.as_ref().filter(|edged| !edged.is_closed());
        let edged: Option<Vec<_>> = edged.map(|edged| (0..lease.len()).map_while(|_| edged.try_reserve().ok()).collect());
        if edged.as_ref().is_some_and(Vec::is_empty) {
            drop(edge_hub);
            return lease.postpone_from(0, peers_room(peers));
        }
        let most = edged.as_ref().map_or(edge_hub.len(), |edged| edged.len().min(edge_hub.len()));
        let edged = edged.unwrap_or_default();
        let now = self.config.clock.now();
        let done = self.store.write_batch(
            &lease,
            |tx, part, effects| {
                let part = &part[..part.len().min(most)];
                apply(tx, part, now, effects)?;
                Ok(part.len())
            },
            // The cloud hears nothing and sends again.
            |meta, message, _| match message {
                MetaManagerMessage::PodStatus { report, .. } => Some((meta.id, Effect::Unreported(report.uid.clone()))),
                _ => None,
            },
        );
        // Replaced: the successor has the messages already, and nothing was written.
        let Ok(Batch { effects, handled, .. }) = done else { return };
        self.tell(effects, Rooms { edge_hub, edged });
        for (meta, message) in lease.iter().take(handled) {
            self.answer(meta, message, &lease);
        }
        self.took(handled);
        if handled == lease.len() {
            lease.done();
        } else {
            let full = peers_room(&self.peers);
            lease.postpone_from(handled, full);
        }
    }

    fn frame(&self, body: Upstream) -> Frame<Upstream> {
        Frame::new(MsgId::random(), self.config.clock.now(), body)
    }

    fn tell(&mut self, effects: Vec<Caused>, mut rooms: Rooms) {
        let mut reports: Vec<ReportRow> = Vec::new();
        let mut causes = HashMap::new();
        for (by, effect) in effects {
            let (id, body) = match effect {
                Effect::Changed(key) => {
                    self.hint(by, EdgedMessage::ObjectChanged { key }, rooms.edged.pop());
                    continue;
                }
                Effect::Deleted(key) => {
                    self.hint(by, EdgedMessage::ObjectDeleted { key }, rooms.edged.pop());
                    continue;
                }
                Effect::Unreported(uid) => {
                    self.hint(by, EdgedMessage::StatusLost { uid }, rooms.edged.pop());
                    continue;
                }
                Effect::Report { key, text, report } => {
                    // Of several in one batch the last counts.
                    reports.retain(|(earlier, _, _)| *earlier != key);
                    causes.insert(key.clone(), by);
                    reports.push((key, text, report));
                    continue;
                }
                Effect::Acknowledge { id, key } => (id, Upstream::Ack { resource: Resource::Object(key) }),
                Effect::Refuse { id, key, reason } => {
                    log::warn!(key = key.to_string().as_str(), reason = reason.as_str(); "object of the cloud refused");
                    (id, Upstream::Refusal { resource: Resource::Object(key), reason })
                }
            };
            let frame = Frame::answer(MsgId::random(), id, self.config.clock.now(), body);
            self.send(frame, rooms.edge_hub.pop());
        }
        for (namespace, rows) in by_namespace(reports) {
            self.report(namespace, rows, &causes, rooms.edge_hub.pop());
        }
    }

    /// A hint that finds no room is lost: Edged's own comparison with the store finds the change within a minute.
    fn hint(&self, by: actor::MsgId, message: EdgedMessage, room: Option<Room<EdgedMessage>>) {
        let meta = Meta::caused_by(Some(by), "metaManager");
        match room {
            Some(room) => {
                room.send(meta, message);
            }
            None => {
                let _ = self.peers.edged.as_ref().map(|edged| edged.try_post(meta, message));
            }
        }
    }

    /// A frame that finds no room is lost: the cloud sends again what is not acknowledged, statuses come with the next sync.
    fn send(&self, frame: Frame<Upstream>, room: Option<Room<EdgeHubMessage>>) -> bool {
        let (meta, message) = (ids::meta_of(&frame, "metaManager"), EdgeHubMessage::Send(frame));
        match room {
            Some(room) => {
                room.send(meta, message);
                true
            }
            None => self.peers.edge_hub.try_post(meta, message).is_ok(),
        }
    }

    fn report(
        &mut self,
        namespace: model::Namespace,
        rows: Vec<ReportRow>,
        causes: &HashMap<ResourceKey, actor::MsgId>,
        room: Option<Room<EdgeHubMessage>>,
    ) {
        if self.connected == Some(false) {
            return;
        }
        let (mut sent, mut reports) = (Vec::with_capacity(rows.len()), Vec::with_capacity(rows.len()));
        for (key, text, report) in rows {
            sent.push((key, text));
            reports.push(report);
        }
        let by: Vec<_> = sent.iter().filter_map(|(key, _)| causes.get(key)).map(|by| ids::on_wire(*by)).collect();
        let frame = self.frame(Upstream::PodStatus { namespace, reports }).with_cause(by);
        let id = frame.id.clone();
        if self.send(frame, room) {
            self.reported.sent(id, sent);
        }
    }

    /// What is done with a message beside the store, after the commit.
    fn answer(&mut self, meta: &Meta, message: &MetaManagerMessage, lease: &Lease<MetaManagerMessage>) {
        match message {
            MetaManagerMessage::Query { key, reply } => self.query(key, reply),
            MetaManagerMessage::RemoteAnswered { key, answer, reply, .. } => {
                let found = match answer {
                    Ok(object) => {
                        super::normal::normal(key, object).map_err(|error| QueryError::Form(error.to_string())).and_then(|_| self.stored(key))
                    }
                    Err(error) => Err(error.clone()),
                };
                reply.send(found);
            }
            MetaManagerMessage::LateAnswer { key, answer: Err(reason), .. } => {
                if key.kind == ResourceKind::Node {
                    self.hint(meta.id, EdgedMessage::RegistrationRefused { reason: reason.clone() }, None);
                } else {
                    log::warn!(key = key.to_string().as_str(), reason = reason.as_str(); "the cloud answered with an error");
                }
            }
            MetaManagerMessage::NodeStatus { content } => {
                if self.node_status.is_due(content, self.config.clock.now()) {
                    let sent = self.of_node(meta, content, |namespace, node, content| Upstream::NodeStatus { namespace, node, content });
                    if let Some(id) = sent {
                        self.node_status.sent(id, content);
                    }
                }
            }
            MetaManagerMessage::NodeRegister { object } => {
                self.of_node(meta, object, |namespace, node, object| Upstream::NodeRegister { namespace, node, object });
            }
            MetaManagerMessage::Event { key, is_update, object } => {
                self.events.put(PendingEvent { key: key.clone(), is_update: *is_update, object: object.clone(), cause: meta.id });
                self.send_events();
            }
            MetaManagerMessage::Confirmed { parent } => {
                if self.events.settled(parent) {
                    self.send_events();
                } else if !self.reported.settled(parent) {
                    self.node_status.confirmed(parent, self.config.clock.now());
                }
            }
            MetaManagerMessage::Refused { parent, reason } => {
                if self.events.settled(parent) {
                    log::debug!(reason = reason.as_str(); "the cloud refused an event");
                    self.send_events();
                } else if self.reported.settled(parent) {
                    log::warn!(reason = reason.as_str(); "the cloud refused the status of pods");
                }
            }
            MetaManagerMessage::NodeConnection { cloud } => {
                self.connected = Some(cloud.is_some());
                self.reported.forget();
                self.node_status = NodeStatus::default();
                self.events.forget_sent();
                self.confirms_events = cloud.is_none_or(|cloud| cloud.capabilities.digest);
                if let Some(cloud) = cloud {
                    if cloud.capabilities.digest {
                        self.announce(cloud.number, None, lease);
                    }
                    self.sync(lease);
                    self.send_events();
                }
            }
            MetaManagerMessage::HeldGet { id, session } => self.announce(*session, Some(id), lease),
            MetaManagerMessage::SyncDue => {
                self.sync(lease);
                self.send_events();
            }
            MetaManagerMessage::FromCloud { .. } | MetaManagerMessage::PodStatus { .. } | MetaManagerMessage::LateAnswer { answer: Ok(_), .. } => {}
        }
    }

    /// To the cloud, if it is there; the frame's id if EdgeHub has it.
    fn of_node(&self, meta: &Meta, content: &RawJson, body: impl FnOnce(model::Namespace, NodeName, RawJson) -> Upstream) -> Option<MsgId> {
        if self.connected == Some(false) {
            return None;
        }
        let frame = self.frame(body(self.config.namespace.clone(), self.config.node.clone(), content.clone())).with_cause([ids::on_wire(meta.id)]);
        let id = frame.id.clone();
        self.send(frame, None).then_some(id)
    }

    /// Tells the cloud the Events that it has not heard. What finds no room waits for the next occasion.
    fn send_events(&mut self) {
        if self.connected == Some(false) {
            return;
        }
        let now = self.config.clock.now();
        for PendingEvent { key, is_update, object, cause } in self.events.due(now) {
            let Some(name) = key.name.clone() else { continue };
            let body = Upstream::Event { namespace: key.namespace.clone(), name, is_update, object };
            let frame = self.frame(body).with_cause([ids::on_wire(cause)]);
            let id = frame.id.clone();
            if !self.send(frame, None) {
                return;
            }
            self.events.sent(&key, id, now, self.confirms_events);
        }
    }

    fn stored(&self, key: &ResourceKey) -> Found {
        let found = self.store.read(|read| match &key.name {
            Some(_) => Ok(meta::get(read, key)?.into_iter().collect()),
            None => meta::list(read, key.kind, Some(&key.namespace)),
        });
        found.map_err(|error: StoreError| QueryError::Store(error.to_string()))
    }

    fn query(&self, key: &ResourceKey, reply: &Reply<Found>) {
        let found = self.stored(key);
        let is_remote = key.name.is_some() && matches!(key.kind, ResourceKind::ConfigMap | ResourceKind::Secret);
        if !is_remote || self.connected == Some(false) || !matches!(&found, Ok(list) if list.is_empty()) {
            reply.send(found);
            return;
        }
        let (edge_hub, own, within) = (self.peers.edge_hub.clone(), self.peers.own.clone(), self.config.remote_query_timeout);
        let (key, reply) = (key.clone(), reply.take());
        let frame = self.frame(Upstream::Query { key: key.clone() }).with_sync();
        actix_rt::spawn(async move {
            // EdgeHub keeps the deadline; the second more is for its mailbox.
            let asked = edge_hub.ask(within + std::time::Duration::from_secs(1), |reply| EdgeHubMessage::Request { frame, within, reply }).await;
            let (answer, resource_version) = match asked {
                Ok(Ok(frame)) => of_cloud(frame),
                Ok(Err(error)) => (Err(QueryError::Unreachable(error.to_string())), None),
                Err(error @ (AskError::Closed | AskError::Dropped | AskError::Deadline)) => (Err(QueryError::Unreachable(error.to_string())), None),
            };
            // A closed mailbox drops the reply, which tells the asker.
            let _ = own.send(MetaManagerMessage::RemoteAnswered { key, resource_version, answer, reply }).await;
        });
    }

    /// Says what this node holds, in this session only: the message that led here stands in the mailbox behind all that came in
    /// earlier sessions, so what those brought is stored by now; what comes in between this and a later one is not in it. A
    /// part that finds no room is missed by the cloud, which asks again.
    fn announce(&self, session: u64, question: Option<&MsgId>, lease: &Lease<MetaManagerMessage>) {
        let held = match self.store.read(|read| meta::held(read, &HELD_KINDS)) {
            Ok(held) => held,
            Err(error) => return lease.fail(0, &error),
        };
        for part in parts_of(held) {
            let frame = Frame { parent: question.cloned(), ..self.frame(Upstream::Held(part)) };
            let meta = ids::meta_of(&frame, "metaManager");
            if self.peers.edge_hub.try_post(meta, EdgeHubMessage::SendIn { session, frame }).is_err() {
                log::warn!("no room to say to the cloud what this node holds; it will ask");
                return;
            }
        }
    }

    /// Sends what the cloud has not confirmed in this session, each namespace by itself (manual ch. 8.8).
    fn sync(&mut self, lease: &Lease<MetaManagerMessage>) {
        let read = self.store.read(statuses);
        let StoredStatuses { current, orphans } = match read {
            Ok(read) => read,
            Err(error) => return lease.fail(0, &error),
        };
        if !orphans.is_empty() {
            let removed = self.store.write(&lease.fence(), |tx| orphans.iter().try_for_each(|key| meta::delete(tx, key).map(|_| ())));
            if let Err(error) = removed {
                lease.fail(0, &error);
            }
        }
        self.reported.keep(current.iter().map(|row| &row.key));
        let open = current.into_iter().filter(|row| self.reported.is_open(&row.key, &row.value));
        let rows: Vec<_> = open
            .filter_map(|row| Some((row.key, serde_json::from_str(&row.value).ok()?, row.value)))
            .map(|(key, report, text)| (key, text, report))
            .collect();
        for (namespace, rows) in by_namespace(rows) {
            self.report(namespace, rows, &HashMap::new(), None);
        }
    }
}

fn of_cloud(frame: Frame<Downstream>) -> (Result<RawJson, QueryError>, Option<String>) {
    let answer = match frame.body {
        Downstream::QueryAnswer { result: Ok(object), .. } => Ok(object),
        Downstream::QueryAnswer { result: Err(reason), .. } | Downstream::Refusal { reason, .. } => Err(QueryError::Cloud(reason)),
        other => Err(QueryError::Form(format!("the cloud answered a query with `{}`", other.kind()))),
    };
    (answer, frame.resource_version)
}

/// Ends when both peers have room.
fn peers_room(peers: &super::Peers) -> impl Future<Output = ()> + 'static {
    let (edge_hub, edged) = (peers.edge_hub.room(), peers.edged.as_ref().map(actor::Handle::room));
    async move {
        edge_hub.await;
        if let Some(edged) = edged {
            edged.await;
        }
    }
}
