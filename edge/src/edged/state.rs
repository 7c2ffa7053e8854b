//! What Edged knows of its pods beside the store and the engine.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use actor::Fence;
use jiff::Timestamp;
use model::{ObjectName, ResourceKey, ResourceKind};
use wire::hub::PodStatusReport;

use super::admission::{self, Room};
use super::check::is_uid;
use super::entry::Entry;
use super::events::{EventLog, Severity};
use super::node::{Machine, NodeReport};
use super::objects::{KeyedObject, Objects};
use super::observed::{Observed, Troubles};
use super::pod::{Pod, Refusal};
use super::shared::Shared;
use super::static_pods::StaticPods;
use super::status::{Facts, News, PodStatus, news, pod_status};
use super::worker::{Desired, End, Pass, Pull};
use super::{Config, Peers, pressure};
use crate::store::meta::{self, StoredObject};
use crate::store::{Read, Store, StoreError};

/// The module.
pub struct Edged {
    pub(super) store: Store,
    pub(super) config: Config,
    pub(super) peers: Peers,
    pub(super) shared: Arc<Shared>,
    pub(super) pods: HashMap<String, Entry>,
    pub(super) uids: HashMap<ResourceKey, String>,
    pub(super) pulling: BTreeSet<Pull>,
    pub(super) node: NodeReport,
    /// Pods from files of this machine.
    pub(super) statics: StaticPods,
    pub(super) events: EventLog,
    pub(super) fence: Option<Fence>,
    /// Pause before the next comparison of everything.
    pub(super) relist: Duration,
    pub(super) relist_timer: Option<actix::SpawnHandle>,
    /// The job of housekeeping that runs; one at a time.
    pub(super) tidying: Option<actix_rt::task::JoinHandle<()>>,
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
        // The machine may have moved since the first incarnation.
        let machine = Machine { address: *shared.address(), ..machine };
        let mut node = NodeReport::new(config.node.clone(), machine, config.version.clone(), shared.now()).with(shared.node_settings.clone());
        {
            let house = shared.house();
            node.set_pressures(&house.pressures().held(), shared.now());
            node.set_images(house.images());
        }
        // The stream of events outlives an incarnation and says only once that the engine answers.
        if let Some(readiness) = shared.page().readiness() {
            node.set(readiness, shared.now());
        }
        let statics = shared.statics.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let events = EventLog::new(config.node.as_str());
        Self {
            store,
            config,
            peers,
            shared,
            events,
            pods: HashMap::new(),
            uids: HashMap::new(),
            pulling: BTreeSet::new(),
            node,
            statics,
            fence: None,
            relist: super::RELIST_FIRST,
            relist_timer: None,
            tidying: None,
        }
    }

    /// The uid of the pod that the store has under this key.
    pub(super) fn stored_uid(&self, key: &ResourceKey) -> Result<Option<String>, StoreError> {
        Ok(self.store.read(|read| meta::get(read, key))?.as_ref().and_then(uid_of))
    }

    /// Which pods shall exist, by uid: those of the store and those from files.
    pub(super) fn stored_pods(&self) -> Result<HashMap<String, ResourceKey>, StoreError> {
        let rows = self.store.read(|read| meta::list(read, ResourceKind::Pod, None))?;
        let from_files = self.statics.present().map(|(uid, pod)| (uid.clone(), pod.key.clone()));
        Ok(rows.into_iter().filter_map(|row| Some((uid_of(&row)?, row.key))).chain(from_files).collect())
    }

    /// Takes in what the files say now.
    pub(super) fn take_static_pods(&mut self, found: &StaticPods) {
        let found = found.clone().keeping(&self.statics).ending_those_of(&self.statics, &super::status::seconds(self.shared.now()));
        if found == self.statics {
            return;
        }
        found.complain(&self.statics);
        let before = self.statics.clone();
        self.set_statics(found);
        let is_changed = |uid: &str| self.statics.get(uid) != before.get(uid);
        let changed: Vec<(String, ResourceKey)> =
            self.statics.present().filter(|(uid, _)| is_changed(uid)).map(|(uid, pod)| (uid.clone(), pod.key.clone())).collect();
        for (uid, key) in changed {
            self.know(&uid, &key);
            // One whose file is back begins anew, whatever its end has come to.
            if let Some(entry) = self.pods.get_mut(&uid).filter(|_| self.statics.pods.contains_key(&uid)) {
                (entry.previous, entry.failure, entry.grace_secs, entry.is_admitted) = (None, None, None, false);
            }
            self.hurry(&uid);
            self.pass(&uid);
        }
    }

    fn set_statics(&mut self, statics: StaticPods) {
        // The next incarnation must not take its pods for nobody's.
        *self.shared.statics.lock().unwrap_or_else(PoisonError::into_inner) = statics.clone();
        self.statics = statics;
    }

    /// A pod whose file is gone has ended: what is left of it goes, and the one that waited for its name comes.
    pub(super) fn static_pod_ended(&mut self, uid: &str) {
        let mut statics = self.statics.clone();
        let Some(ended) = statics.ending.remove(uid) else { return };
        self.set_statics(statics);
        self.shared.local.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
        self.forget_key(uid);
        let next = self.statics.present().find(|(_, pod)| pod.key == ended.key).map(|(uid, _)| uid.clone());
        if let Some(next) = next {
            self.know(&next, &ended.key);
            self.pass(&next);
        }
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
        let from_file = self.statics.get(uid).map(|pod| pod.json.as_str());
        let loaded = self.store.read(|read| load(read, &key, uid, from_file, !entry.is_loaded))?;
        let Some(Loaded { desired, version, previous }) = loaded else {
            (entry.key, entry.desired) = (None, None);
            self.uids.remove(&key);
            return Ok(true);
        };
        if !entry.is_loaded {
            (entry.is_loaded, entry.previous) = (true, previous);
        }
        let is_new = entry.version != version || entry.desired.is_none();
        entry.version = version;
        entry.define(desired);
        if let (Some(desired), Some(failure)) = (&mut entry.desired, &entry.failure) {
            desired.refusal.get_or_insert_with(|| failure.clone());
        }
        Ok(is_new)
    }

    /// Ends a pod for good, whatever its object says: its containers are stopped, with this grace in seconds or their own,
    /// and its status is `Failed` with this reason.
    pub(super) fn fail_pod(&mut self, uid: &str, failure: Refusal, grace_secs: Option<u64>) {
        if let Some(entry) = self.pods.get_mut(uid)
            && entry.failure.is_none()
            && !entry.previous.as_ref().is_some_and(PodStatus::is_over)
        {
            log::warn!(uid = uid, reason = failure.reason.as_str(), message = failure.message.as_str(); "a pod is ended");
            (entry.failure, entry.grace_secs) = (Some(failure.clone()), grace_secs);
            self.hurry(uid);
            self.event(uid, None, Severity::Warning, &failure.reason, &failure.message);
            self.pass(uid);
        }
    }

    /// Turns a pod away that was not here before, if the node has no room for it.
    fn admit(&mut self, uid: &str) {
        let Some(entry) = self.pods.get_mut(uid) else { return };
        if std::mem::replace(&mut entry.is_admitted, true) {
            return;
        }
        let is_new = entry.previous.is_none() && entry.seen.is_none() && entry.failure.is_none();
        let wanted = entry.desired.as_ref().filter(|desired| is_new && desired.refusal.is_none() && !desired.pod.is_deleting());
        let Some(pod) = wanted.map(|desired| desired.pod.clone()) else { return };
        // No scheduler sees the pods from files: whom it sent would be replaced by the next one, for ever. And one whose file is
        // gone makes room.
        let counts = |other: &str, of_other: &Pod| !of_other.is_static || pod.is_static && !self.statics.ending.contains_key(other);
        let active = self.pods.iter().filter(|(other, entry)| *other != uid && entry.is_active());
        let active = active.filter_map(|(other, entry)| Some((other, &*entry.desired.as_ref()?.pod)));
        let others: Vec<&Pod> = active.filter(|(other, of_other)| counts(other, of_other)).map(|(_, of_other)| of_other).collect();
        let room = Room { pods_max: self.shared.node_settings.pods_max, allocatable: self.shared.capacity };
        let admitted = pressure::admit(&pod, self.node.pressures()).and_then(|()| admission::admit(&pod, &others, room));
        if let (Err(refusal), Some(entry)) = (admitted, self.pods.get_mut(uid)) {
            log::warn!(pod = pod.full_name().as_str(), reason = refusal.reason.as_str(), message = refusal.message.as_str(); "a pod is turned away");
            if let Some(desired) = &mut entry.desired {
                desired.refusal = Some(refusal.clone());
            }
            entry.failure = Some(refusal);
        }
    }

    /// A pass over the pod as the store has it now; `None` while one is under way (it is repeated then).
    pub(super) fn begin_pass(&mut self, uid: &str) -> Option<Pass> {
        if let Some(entry) = self.pods.get_mut(uid).filter(|entry| entry.is_busy) {
            entry.is_dirty = true;
            return None;
        }
        if let Err(error) = self.reload(uid) {
            log::error!(uid = uid, error = error.to_string().as_str(); "a pod cannot be read from the store");
            // The next comparison tries again.
            self.pods.entry(uid.to_owned()).or_default().is_cut_short = true;
            return None;
        }
        self.admit(uid);
        let now = self.shared.now();
        let entry = self.pods.get_mut(uid)?;
        entry.apply_changes();
        entry.apply_pulls(now);
        (entry.is_busy, entry.is_dirty) = (true, false);
        // A new one: what the last pass was told is not for this one.
        (entry.pass_ends, entry.interrupt) = (entry.ends_with(), Arc::default());
        entry.pass_runs = entry.pass_ends.is_none();
        let stopped = entry.seen.iter().flat_map(|seen| seen.all()).filter(|one| one.is_replaced);
        let replaced = stopped.map(|one| one.container.id.clone()).collect();
        Some(Pass {
            uid: uid.to_owned(),
            desired: entry.desired.clone(),
            troubles: entry.troubles.clone(),
            healths: entry.healths.clone(),
            fresh: entry.fresh.clone(),
            previous: entry.previous.clone(),
            cause: entry.cause,
            shared: self.shared.clone(),
            fence: self.fence.clone(),
            notes: Vec::new(),
            pod_ip: String::new(),
            images: BTreeMap::new(),
            grace_secs: entry.grace_secs,
            replaced,
            interrupt: entry.interrupt.clone(),
            is_interrupted: false,
        })
    }

    /// Ends the waiting of a pass that knows of no end of its pod, or of a later one.
    pub(super) fn hurry(&mut self, uid: &str) {
        if !self.pods.get(uid).is_some_and(|entry| entry.is_busy) || self.reload(uid).is_err() {
            return;
        }
        let Some(entry) = self.pods.get_mut(uid) else { return };
        let ends = entry.ends_with();
        if ends.is_some_and(|ends| entry.pass_ends.is_none_or(|known| ends < known)) {
            entry.pass_ends = ends;
            entry.interrupt.notify_one();
        }
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
        let host_ip = self.shared.host_ip();
        let facts = Facts {
            pod: &desired.pod,
            seen,
            troubles: &entry.troubles,
            healths: &entry.healths,
            refusal: desired.refusal.as_ref(),
            previous: entry.previous.as_ref(),
            host_ip: &host_ip,
            now: self.shared.now(),
        };
        let status = pod_status(&facts);
        // A pass that does not know of the end may start something before it is over.
        if entry.is_busy && entry.pass_runs && status.is_over() && entry.ends_with().is_some() {
            return None;
        }
        if entry.previous.as_ref() == Some(&status) && !entry.is_unreported {
            return None;
        }
        let report = report(uid, key.name.clone()?, &status);
        let news = news(&desired.pod, entry.previous.as_ref(), &status);
        entry.previous = Some(status);
        for News { container, reason, message } in news {
            self.event(uid, container.as_deref(), Severity::Warning, reason, &message);
        }
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

fn load(read: &mut Read<'_>, key: &ResourceKey, uid: &str, from_file: Option<&str>, with_status: bool) -> Result<Option<Loaded>, StoreError> {
    let mut hasher = DefaultHasher::new();
    let json = match from_file {
        // Another content is another uid.
        Some(json) => json.to_owned(),
        None => {
            let Some(row) = meta::get(read, key)?.filter(|row| row.uid.as_deref() == Some(uid)) else { return Ok(None) };
            (row.stored_at.millis(), &row.resource_version, row.value.len()).hash(&mut hasher);
            row.value
        }
    };
    let (mut pod, refusal) = match Pod::parse(&json) {
        Ok(pod) => {
            let refusal = pod.check().err();
            (pod, refusal)
        }
        Err(refusal) => (nameless(key, uid), Some(refusal)),
    };
    pod.is_static = from_file.is_some();
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
