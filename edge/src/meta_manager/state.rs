//! What MetaManager knows beside the store, and what each message means for the store.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use actor::Meta;
use model::{Namespace, ResourceKey, ResourceKind, Timestamp};
use serde::Serialize;
use serde_json::Value;
use wire::hub::{MsgId, ObjectOperation, PodStatusReport, RawJson};
use wire::link::Statuses;

use super::normal::{Normal, is_kept, normal};
use super::pending::Pending;
use super::{Config, MetaManagerMessage, Peers};
use crate::store::meta::{self, StoredObject};
use crate::store::{Read, Store, StoreError, Tx};

/// The module.
pub struct MetaManager {
    pub(super) store: Store,
    pub(super) config: Config,
    pub(super) peers: Peers,
    pub(super) reported: Statuses,
    pub(super) node_status: NodeStatus,
    pub(super) events: Pending,
    /// The cloud answers Events; KubeEdge's does not.
    pub(super) confirms_events: bool,
    /// `None` until EdgeHub has said something: after a restart of this module the cloud may well be there.
    pub(super) connected: Option<bool>,
    pub(super) shared: Shared,
}

/// What outlives an incarnation of MetaManager: what the page shows. Made once, cloned into each incarnation.
#[derive(Clone, Debug, Default)]
pub struct Shared(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    last_batch: AtomicU64,
    unconfirmed: AtomicU64,
    events: AtomicU64,
    events_dropped: AtomicU64,
}

/// What MetaManager knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Snapshot {
    /// Objects and statuses that are stored, by kind, by the last count of the store.
    pub objects: BTreeMap<String, u64>,
    /// Messages with statuses that the cloud has not confirmed.
    pub unconfirmed: u64,
    /// Messages in the last transaction.
    pub last_batch: u64,
    /// Events that the cloud has not confirmed.
    pub events: u64,
    /// Events that it will never hear of, because there were too many or it never answered.
    pub events_dropped: u64,
}

impl Snapshot {
    /// As it is now.
    pub fn of(shared: &Shared, store: &Store) -> Self {
        let Counters { last_batch, unconfirmed, events, events_dropped } = &*shared.0;
        Self {
            objects: store.counts().objects,
            unconfirmed: unconfirmed.load(Relaxed),
            last_batch: last_batch.load(Relaxed),
            events: events.load(Relaxed),
            events_dropped: events_dropped.load(Relaxed),
        }
    }
}

impl MetaManager {
    /// A module over this store.
    pub fn new(store: Store, config: Config, peers: Peers) -> Self {
        Self {
            store,
            config,
            peers,
            reported: Statuses::default(),
            node_status: NodeStatus::default(),
            events: Pending::default(),
            confirms_events: true,
            connected: None,
            shared: Shared::default(),
        }
    }

    /// The same, seen on the page.
    #[must_use]
    pub fn publishing(mut self, shared: Shared) -> Self {
        self.shared = shared;
        self
    }

    pub(super) fn took(&self, messages: usize) {
        let Counters { last_batch, unconfirmed, events, events_dropped } = &*self.shared.0;
        events.store(self.events.count() as u64, Relaxed);
        events_dropped.store(self.events.dropped(), Relaxed);
        last_batch.store(messages as u64, Relaxed);
        unconfirmed.store(self.reported.in_flight() as u64, Relaxed);
    }
}

/// What the cloud has of this node's own status in this session: it is said when it changes, until it is confirmed, and
/// otherwise every minute. That the node lives says its lease, which the cloud renews; but a node that was taken for gone while
/// the API server was away is Ready again only when its status is written (Kubernetes reports every five minutes).
#[derive(Debug, Default)]
pub struct NodeStatus {
    on_its_way: Option<(MsgId, u64)>,
    confirmed: Option<(u64, Timestamp)>,
}

/// See [`NodeStatus`], in milliseconds.
const NODE_STATUS_EVERY_MS: i64 = 60_000;

impl NodeStatus {
    /// Whether the cloud must hear this now.
    pub fn is_due(&self, content: &RawJson, now: Timestamp) -> bool {
        let fresh = |at: Timestamp| (0..NODE_STATUS_EVERY_MS).contains(&(now.millis() - at.millis()));
        self.confirmed.is_none_or(|(shape, at)| shape != shape_of(content) || !fresh(at))
    }

    /// It was given to EdgeHub.
    pub fn sent(&mut self, id: MsgId, content: &RawJson) {
        self.on_its_way = Some((id, shape_of(content)));
    }

    /// The cloud has it, if this was the last that was said.
    pub fn confirmed(&mut self, id: &MsgId, now: Timestamp) {
        if let Some((_, shape)) = self.on_its_way.take_if(|(sent, _)| sent == id) {
            self.confirmed = Some((shape, now));
        }
    }
}

/// Changes with anything but the time of the heartbeats.
fn shape_of(content: &RawJson) -> u64 {
    let mut value: Value = content.to().unwrap_or_default();
    for condition in value["Status"]["conditions"].as_array_mut().into_iter().flatten() {
        if let Some(condition) = condition.as_object_mut() {
            condition.remove("lastHeartbeatTime");
        }
    }
    let mut hasher = DefaultHasher::new();
    value.to_string().hash(&mut hasher);
    hasher.finish()
}

/// What is to be told once the store has it, and the message from which it follows.
pub type Caused = (actor::MsgId, Effect);

/// What is to be told once the store has it.
#[derive(Debug)]
pub enum Effect {
    /// To the cloud: stored.
    Acknowledge {
        /// The cloud's message.
        id: MsgId,
        /// The object that it was about.
        key: ResourceKey,
    },
    /// To the cloud: not stored, and never will be as it is.
    Refuse {
        /// The cloud's message.
        id: MsgId,
        /// The object that it was about.
        key: ResourceKey,
        /// Why.
        reason: String,
    },
    /// To Edged: look.
    Changed(ResourceKey),
    /// To Edged: look.
    Deleted(ResourceKey),
    /// To Edged, about the pod of this uid: its status is not stored, and was told to nobody.
    Unreported(String),
    /// To the cloud.
    Report {
        /// The status' row.
        key: ResourceKey,
        /// Its text.
        text: String,
        /// What it says.
        report: PodStatusReport,
    },
}

/// The row of a pod's status.
pub fn status_key(pod: &ResourceKey) -> ResourceKey {
    ResourceKey { kind: ResourceKind::PodStatus, ..pod.clone() }
}

fn pod_key(status: &ResourceKey) -> ResourceKey {
    ResourceKey { kind: ResourceKind::Pod, ..status.clone() }
}

/// Writes what follows from a part of a batch. Questions and timers write nothing here.
///
/// # Errors
/// The store's.
pub fn apply(tx: &mut Tx<'_>, part: &[(&Meta, &MetaManagerMessage)], now: Timestamp, all: &mut Vec<Caused>) -> Result<(), StoreError> {
    let mut of_message = Vec::new();
    for (meta, message) in part {
        let effects = &mut of_message;
        match message {
            MetaManagerMessage::FromCloud { id, operation, key, resource_version, object } => {
                let settled = match operation {
                    ObjectOperation::Insert | ObjectOperation::Update => keep(tx, key, resource_version.as_deref(), object, now, effects)?,
                    ObjectOperation::Delete => remove(tx, key, effects)?,
                };
                let (id, key) = (id.clone(), key.clone());
                effects.push(match settled {
                    Ok(()) => Effect::Acknowledge { id, key },
                    Err(reason) => Effect::Refuse { id, key, reason },
                });
            }
            MetaManagerMessage::RemoteAnswered { key, resource_version, answer: Ok(object), .. }
            | MetaManagerMessage::LateAnswer { key, resource_version, answer: Ok(object) }
                if is_kept(key.kind) =>
            {
                if let Err(reason) = keep(tx, key, resource_version.as_deref(), object, now, effects)? {
                    log::warn!(key = key.to_string().as_str(), reason = reason.as_str(); "the cloud's answer cannot be kept");
                }
            }
            MetaManagerMessage::PodStatus { key, report } => status(tx, key, report, now, effects)?,
            MetaManagerMessage::RemoteAnswered { .. }
            | MetaManagerMessage::LateAnswer { .. }
            | MetaManagerMessage::Query { .. }
            | MetaManagerMessage::NodeStatus { .. }
            | MetaManagerMessage::NodeRegister { .. }
            | MetaManagerMessage::Event { .. }
            | MetaManagerMessage::Confirmed { .. }
            | MetaManagerMessage::Refused { .. }
            | MetaManagerMessage::NodeConnection { .. }
            | MetaManagerMessage::HeldGet { .. }
            | MetaManagerMessage::SyncDue => {}
        }
        all.extend(of_message.drain(..).map(|effect| (meta.id, effect)));
    }
    Ok(())
}

/// Stores what differs. `Ok(Err(_))` is a content that cannot be kept.
fn keep(
    tx: &mut Tx<'_>,
    key: &ResourceKey,
    resource_version: Option<&str>,
    object: &RawJson,
    now: Timestamp,
    effects: &mut Vec<Effect>,
) -> Result<Result<(), String>, StoreError> {
    let objects = match normal(key, object) {
        Ok(objects) => objects,
        Err(error) => return Ok(Err(error.to_string())),
    };
    let from_header = resource_version.filter(|_| objects.len() == 1).map(str::to_owned);
    for Normal { key, text, uid, resource_version } in objects {
        let new = StoredObject { key, value: text, uid, resource_version: from_header.clone().or(resource_version), stored_at: now };
        let old = meta::get(tx, &new.key)?;
        if old.as_ref().is_some_and(|old| old.value == new.value && old.resource_version == new.resource_version) {
            continue;
        }
        if old.is_none() && meta::count(tx)? >= meta::OBJECTS_MAX {
            return Ok(Err(format!("this node keeps at most {} objects", meta::OBJECTS_MAX)));
        }
        // The status of an earlier pod of that name says nothing of this one.
        if new.key.kind == ResourceKind::Pod && old.is_some_and(|old| old.uid != new.uid) {
            meta::delete(tx, &status_key(&new.key))?;
        }
        meta::put(tx, &new)?;
        effects.push(Effect::Changed(new.key));
    }
    Ok(Ok(()))
}

fn remove(tx: &mut Tx<'_>, key: &ResourceKey, effects: &mut Vec<Effect>) -> Result<Result<(), String>, StoreError> {
    if key.name.is_none() {
        return Ok(Err(format!("{key} names no object to delete")));
    }
    meta::delete(tx, key)?;
    if key.kind == ResourceKind::Pod {
        meta::delete(tx, &status_key(key))?;
    }
    effects.push(Effect::Deleted(key.clone()));
    Ok(Ok(()))
}

fn status(tx: &mut Tx<'_>, pod: &ResourceKey, report: &PodStatusReport, now: Timestamp, effects: &mut Vec<Effect>) -> Result<(), StoreError> {
    let current = meta::get(tx, &pod_key(pod))?;
    let is_current = current.is_some_and(|row| row.uid.as_deref().unwrap_or_default() == report.uid);
    let row = status_of(status_key(pod), report, now);
    if !is_current || meta::get(tx, &row.key)?.is_some_and(|old| old.value == row.value) {
        return Ok(());
    }
    meta::put(tx, &row)?;
    effects.push(Effect::Report { key: row.key, text: row.value, report: report.clone() });
    Ok(())
}

/// The row of a pod's status.
pub fn status_of(key: ResourceKey, report: &PodStatusReport, now: Timestamp) -> StoredObject {
    let value = serde_json::to_string(report).expect("a report has text keys and plain values only");
    StoredObject { key, value, uid: Some(report.uid.clone()), resource_version: None, stored_at: now }
}

/// Statuses that are stored, and those among them whose pod is gone.
pub struct StoredStatuses {
    /// Of pods that are here.
    pub current: Vec<StoredObject>,
    /// Left over.
    pub orphans: Vec<ResourceKey>,
}

/// Reads the statuses of all pods.
///
/// # Errors
/// The store's.
pub fn statuses(read: &mut Read<'_>) -> Result<StoredStatuses, StoreError> {
    let pods: HashMap<ResourceKey, Option<String>> = meta::list(read, ResourceKind::Pod, None)?.into_iter().map(|row| (row.key, row.uid)).collect();
    let rows = meta::list(read, ResourceKind::PodStatus, None)?;
    let (current, orphans): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| pods.get(&pod_key(&row.key)).is_some_and(|uid| *uid == row.uid));
    Ok(StoredStatuses { current, orphans: orphans.into_iter().map(|row| row.key).collect() })
}

/// A stored status: its row's key and text, and what it says.
pub type ReportRow = (ResourceKey, String, PodStatusReport);

/// Statuses by namespace, in messages of bounded size: a cloud applies the namespace of the message to all of them.
pub fn by_namespace(rows: impl IntoIterator<Item = ReportRow>) -> Vec<(Namespace, Vec<ReportRow>)> {
    /// Reports and bytes of one message.
    const REPORTS_MAX: usize = 128;
    const BYTES_MAX: usize = 1024 * 1024;
    let mut groups: BTreeMap<Namespace, Vec<Vec<ReportRow>>> = BTreeMap::new();
    for row in rows {
        let messages = groups.entry(row.0.namespace.clone()).or_default();
        let fits = messages
            .last()
            .is_some_and(|last| last.len() < REPORTS_MAX && last.iter().map(|(_, text, _)| text.len()).sum::<usize>() + row.1.len() < BYTES_MAX);
        if !fits {
            messages.push(Vec::new());
        }
        if let Some(last) = messages.last_mut() {
            last.push(row);
        }
    }
    groups.into_iter().flat_map(|(namespace, messages)| messages.into_iter().map(move |rows| (namespace.clone(), rows))).collect()
}
