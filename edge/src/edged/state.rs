//! What Edged knows of its pods beside the store and the engine.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use actor::Fence;
use jiff::Timestamp;
use model::{ObjectName, ResourceKey, ResourceKind};
use wire::hub::PodStatusReport;

use super::check::is_uid;
use super::node::{Machine, NodeReport};
use super::objects::{KeyedObject, Objects};
use super::observed::{Observed, Trouble, Troubles};
use super::pod::Pod;
use super::runtime::Summary;
use super::status::{Facts, PodStatus, pod_status};
use super::worker::{CREATING, Desired, End, Pass, Shared};
use super::{Config, Peers};
use crate::store::meta::{self, StoredObject};
use crate::store::{Read, Store, StoreError};

/// Pause before an object that is missing is asked from the cloud again.
const ASK_AGAIN: Duration = Duration::from_secs(10);

/// The module.
pub struct Edged {
    pub(super) store: Store,
    pub(super) config: Config,
    pub(super) peers: Peers,
    pub(super) shared: Arc<Shared>,
    pub(super) pods: HashMap<String, Entry>,
    pub(super) uids: HashMap<ResourceKey, String>,
    pub(super) pulling: BTreeSet<String>,
    pub(super) node: NodeReport,
    pub(super) fence: Option<Fence>,
    /// Pause before the next comparison of everything.
    pub(super) relist: Duration,
    pub(super) relist_timer: Option<actix::SpawnHandle>,
}

/// What is known of one pod.
#[derive(Default)]
pub struct Entry {
    /// Its key, while the store has it.
    pub key: Option<ResourceKey>,
    pub desired: Option<Desired>,
    /// Of the stored object and of all that it reads: differs when any of them was stored anew.
    pub version: u64,
    pub is_busy: bool,
    /// Something happened during the pass.
    pub is_dirty: bool,
    pub seen: Option<Observed>,
    pub troubles: Troubles,
    pub fresh: BTreeSet<String>,
    /// Images that containers wait for.
    pub images: BTreeMap<String, String>,
    /// Pulls that ended: image, and the engine's words if it failed.
    pub pulled: Vec<(String, Result<(), String>)>,
    /// The cloud's message that changed the pod, or what it reads, last; only for the log.
    pub cause: Option<actor::MsgId>,
    /// What was told to MetaManager last; loaded from the store at first sight.
    pub previous: Option<PodStatus>,
    pub is_loaded: bool,
    /// MetaManager had no room for the last status.
    pub is_unreported: bool,
    /// The last pass was cut short by the engine.
    pub is_cut_short: bool,
    pub timer: Option<actix::SpawnHandle>,
    pub asked: BTreeMap<(bool, String), Timestamp>,
}

impl Entry {
    /// Whether the engine's list shows something else than what was seen last.
    pub fn differs_from(&self, listed: &[&Summary]) -> bool {
        let Some(seen) = &self.seen else { return true };
        // Paused is running: its process is there.
        let runs = |state: &str| matches!(state, "running" | "paused" | "restarting");
        let is_running = |id: &str| seen.all().iter().find(|one| one.container.id == id).map(super::observed::Seen::is_running);
        listed.len() != seen.all().len() || listed.iter().any(|one| is_running(&one.id) != Some(runs(&one.state)))
    }

    /// Takes in the pulls that ended.
    pub fn apply_pulls(&mut self, now: Timestamp) {
        for (image, result) in std::mem::take(&mut self.pulled) {
            let waiting: Vec<String> = self.images.iter().filter(|(_, wanted)| **wanted == image).map(|(name, _)| name.clone()).collect();
            for container in waiting {
                self.images.remove(&container);
                let trouble = self.troubles.remove(&container);
                match &result {
                    Ok(()) => {
                        self.fresh.insert(container);
                    }
                    Err(message) => {
                        let earlier = trouble.filter(|trouble| trouble.reason != CREATING);
                        let text = format!("failed to pull image \"{image}\": {message}");
                        self.troubles.insert(container, Trouble::after(earlier.as_ref(), "ErrImagePull", text, now));
                    }
                }
            }
        }
    }

    /// Objects of those missing that are to be asked from the cloud now.
    pub fn due_questions(&mut self, missing: &BTreeSet<(bool, String)>, now: Timestamp) -> Vec<(bool, String)> {
        self.asked.retain(|object, at| missing.contains(object) && now.duration_since(*at).unsigned_abs() < ASK_AGAIN);
        let open: Vec<_> = missing.iter().filter(|object| !self.asked.contains_key(*object)).cloned().collect();
        self.asked.extend(open.iter().map(|object| (object.clone(), now)));
        open
    }
}

/// A pod as it is read from the store.
struct Loaded {
    desired: Desired,
    version: u64,
    previous: Option<PodStatus>,
}

impl Edged {
    /// A module over this store and engine.
    pub fn new(store: Store, shared: Arc<Shared>, machine: Machine, config: Config, peers: Peers) -> Self {
        let mut node = NodeReport::new(config.node.clone(), machine, config.version.clone(), shared.now());
        // The stream of events outlives an incarnation and says only once that the engine answers.
        if let Some(readiness) = shared.page().readiness() {
            node.set(readiness, shared.now());
        }
        Self {
            store,
            config,
            peers,
            shared,
            pods: HashMap::new(),
            uids: HashMap::new(),
            pulling: BTreeSet::new(),
            node,
            fence: None,
            relist: super::RELIST_FIRST,
            relist_timer: None,
        }
    }

    /// The uid of the pod that the store has under this key.
    pub(super) fn stored_uid(&self, key: &ResourceKey) -> Result<Option<String>, StoreError> {
        Ok(self.store.read(|read| meta::get(read, key))?.as_ref().and_then(uid_of))
    }

    /// Which pods the store has, by uid.
    pub(super) fn stored_pods(&self) -> Result<HashMap<String, ResourceKey>, StoreError> {
        let rows = self.store.read(|read| meta::list(read, ResourceKind::Pod, None))?;
        Ok(rows.into_iter().filter_map(|row| Some((uid_of(&row)?, row.key))).collect())
    }

    pub(super) fn know(&mut self, uid: &str, key: &ResourceKey) {
        self.uids.insert(key.clone(), uid.to_owned());
        self.pods.entry(uid.to_owned()).or_default().key = Some(key.clone());
    }

    /// Remembers which message of the cloud the next pass follows from.
    pub(super) fn note_cause(&mut self, uid: &str, by: Option<actor::MsgId>) {
        if let Some(entry) = self.pods.get_mut(uid) {
            entry.cause = by;
        }
    }

    /// Reads the pod anew. `Ok(true)` if it or something that it reads was stored since.
    pub(super) fn reload(&mut self, uid: &str) -> Result<bool, StoreError> {
        // An event may come before this incarnation has compared everything: only the store says that a pod is not wanted.
        if self.pods.get(uid).is_none_or(|entry| entry.key.is_none())
            && let Some(key) = self.stored_pods()?.remove(uid)
        {
            self.know(uid, &key);
        }
        let entry = self.pods.entry(uid.to_owned()).or_default();
        let Some(key) = entry.key.clone() else {
            entry.desired = None;
            return Ok(false);
        };
        let loaded = self.store.read(|read| load(read, &key, uid, !entry.is_loaded))?;
        let Some(Loaded { desired, version, previous }) = loaded else {
            (entry.key, entry.desired) = (None, None);
            self.uids.remove(&key);
            return Ok(true);
        };
        if !entry.is_loaded {
            (entry.is_loaded, entry.previous) = (true, previous);
        }
        let is_new = entry.version != version || entry.desired.is_none();
        (entry.version, entry.desired) = (version, Some(desired));
        Ok(is_new)
    }

    /// A pass over the pod as the store has it now; `None` while one is under way (it is repeated then).
    pub(super) fn begin_pass(&mut self, uid: &str) -> Option<Pass> {
        if let Some(entry) = self.pods.get_mut(uid).filter(|entry| entry.is_busy) {
            entry.is_dirty = true;
            return None;
        }
        if let Err(error) = self.reload(uid) {
            log::error!(uid = uid, error = error.to_string().as_str(); "a pod cannot be read from the store");
            return None;
        }
        let now = self.shared.now();
        let entry = self.pods.get_mut(uid)?;
        entry.apply_pulls(now);
        (entry.is_busy, entry.is_dirty) = (true, false);
        Some(Pass {
            uid: uid.to_owned(),
            desired: entry.desired.clone(),
            troubles: entry.troubles.clone(),
            fresh: entry.fresh.clone(),
            previous: entry.previous.clone(),
            cause: entry.cause,
            shared: self.shared.clone(),
            fence: self.fence.clone(),
        })
    }

    /// Takes in what a pass saw. The report is what the cloud does not know yet.
    pub(super) fn take_in(
        &mut self,
        uid: &str,
        seen: Option<Observed>,
        troubles: Troubles,
        end: Option<&End>,
    ) -> Option<(ResourceKey, PodStatusReport)> {
        let entry = self.pods.get_mut(uid)?;
        if let Some(seen) = seen {
            entry.seen = Some(seen);
        }
        entry.troubles = troubles;
        if let Some(end) = end {
            entry.is_busy = false;
            entry.is_cut_short = end.failure.is_some();
            // A pull that is under way is still waited for, whatever this pass looked at.
            let troubles = &entry.troubles;
            entry.images.retain(|container, _| troubles.get(container).is_some_and(|trouble| trouble.retry_at == Timestamp::MAX));
            entry.images.extend(end.images.clone());
            entry.fresh.retain(|container| !end.started.contains(container));
        }
        let (desired, seen, key) = (entry.desired.as_ref()?, entry.seen.as_ref()?, entry.key.clone()?);
        let facts = Facts {
            pod: &desired.pod,
            seen,
            troubles: &entry.troubles,
            refusal: desired.refusal.as_ref(),
            previous: entry.previous.as_ref(),
            host_ip: &self.shared.host_ip,
            now: self.shared.now(),
        };
        let status = pod_status(&facts);
        if entry.previous.as_ref() == Some(&status) && !entry.is_unreported {
            return None;
        }
        let report = report(uid, key.name.clone()?, &status);
        entry.previous = Some(status);
        Some((key, report))
    }
}

/// A status in the form in which it crosses the link.
fn report(uid: &str, name: ObjectName, status: &PodStatus) -> PodStatusReport {
    let status = wire::hub::RawJson::from_value(status).expect("a status has text keys and plain values only");
    PodStatusReport { uid: uid.to_owned(), name, status }
}

fn uid_of(row: &StoredObject) -> Option<String> {
    let uid = row.uid.clone().filter(|uid| is_uid(uid));
    if uid.is_none() {
        log::warn!(key = row.key.to_string().as_str(); "a pod without a usable uid is left alone");
    }
    uid
}

fn load(read: &mut Read<'_>, key: &ResourceKey, uid: &str, with_status: bool) -> Result<Option<Loaded>, StoreError> {
    let Some(row) = meta::get(read, key)?.filter(|row| row.uid.as_deref() == Some(uid)) else { return Ok(None) };
    let mut hasher = DefaultHasher::new();
    (row.stored_at.millis(), &row.resource_version, row.value.len()).hash(&mut hasher);
    let (pod, refusal) = match Pod::parse(&row.value) {
        Ok(pod) => {
            let refusal = pod.check().err();
            (pod, refusal)
        }
        Err(refusal) => (nameless(key, uid), Some(refusal)),
    };
    let mut objects = Objects::default();
    for (is_secret, name) in pod.references() {
        let Ok(object_name) = ObjectName::new(&name) else { continue };
        let kind = if is_secret { ResourceKind::Secret } else { ResourceKind::ConfigMap };
        let Some(found) = meta::get(read, &ResourceKey::object(key.namespace.clone(), kind, object_name))? else { continue };
        (&name, found.stored_at.millis(), &found.resource_version, found.value.len()).hash(&mut hasher);
        objects.insert(is_secret, name, KeyedObject::parse(is_secret, &found.value));
    }
    let status_key = ResourceKey { kind: ResourceKind::PodStatus, ..key.clone() };
    let stored = if with_status { meta::get(read, &status_key)? } else { None };
    let previous = stored.filter(|row| row.uid.as_deref() == Some(uid)).and_then(|row| {
        let report: PodStatusReport = serde_json::from_str(&row.value).ok()?;
        report.status.to::<PodStatus>().ok()
    });
    let desired = Desired { pod: Arc::new(pod), objects: Arc::new(objects), refusal };
    Ok(Some(Loaded { desired, version: hasher.finish(), previous }))
}

/// What is known of a pod whose object cannot be read.
fn nameless(key: &ResourceKey, uid: &str) -> Pod {
    let mut pod = Pod::default();
    pod.metadata.name = key.name.as_ref().map(ToString::to_string).unwrap_or_default();
    pod.metadata.namespace = key.namespace.to_string();
    pod.metadata.uid = uid.to_owned();
    pod
}
