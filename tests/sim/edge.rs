//! One edge: its store outlives it, everything else is lost when it is killed.

use std::collections::{BTreeMap, VecDeque};

use actor::{Fence, Meta};
use model::{DeviceEntry, DeviceId, Namespace, NodeName, Origin, ResourceKey, ResourceKind, Timestamp, TwinChange};
use serde_json::json;
use skep_edge::communication::reports_of;
use skep_edge::meta_manager::{Effect, MetaManagerMessage, StoredStatuses, apply, by_namespace, statuses};
use skep_edge::store::pending_report::{self, Seq};
use skep_edge::store::{Store, StoreError, Tx, device, meta, twin};
use skep_edge::twin::Working;
use wire::hub::{Downstream, Frame, MsgId, ObjectOperation, PodStatusReport, RawJson, Resource, Upstream, codec};
use wire::link::{Capabilities, HELD_KINDS, IN_FLIGHT_MAX, OVERDUE_MAX, Statuses, Window, parts_of};
use wire::mqtt::payload::TwinUpdate;

use crate::checks::Checks;
use crate::net::Connection;
use crate::world::{Broken, Ids};

/// `resend_every` of Communication, and the shortest `meta.sync.podstatus.interval`, in ms.
const RESEND_EVERY: u64 = 10_000;
const SYNC_EVERY: u64 = 60_000;
/// Window of Communication.
const WINDOW: usize = 64;

/// What the modules are told.
pub enum Mail {
    Connected { session: u64, capabilities: Capabilities },
    Disconnected,
    Frame { session: u64, text: String },
}

/// The processes' memory.
#[derive(Default)]
struct Memory {
    statuses: Statuses,
    window: Window<Seq>,
    connected: bool,
    membership_wanted: bool,
    resend_at: u64,
    sync_at: u64,
}

pub struct Edge {
    pub name: NodeName,
    pub store: Store,
    _dir: tempfile::TempDir,
    /// What came in and is not handled yet, of all sessions in order.
    pub inbox: VecDeque<Mail>,
    memory: Memory,
    pub connection: Option<Connection>,
    /// The last value that each device was promised to be kept, by `device/property`: outside of the process.
    pub promised: BTreeMap<String, u64>,
    broken: Option<Broken>,
}

/// What one step of an edge may touch.
pub struct Around<'a> {
    pub checks: &'a mut Checks,
    pub ids: &'a mut Ids,
    pub now: u64,
    /// Whether the next transaction fails.
    pub disk_fails: bool,
}

impl Around<'_> {
    fn at(&self) -> Timestamp {
        Timestamp(1_700_000_000_000 + i64::try_from(self.now).unwrap())
    }
}

impl Edge {
    pub fn new(name: NodeName, broken: Option<Broken>) -> Self {
        // Memory, where there is such a file system: what a disk forgets is the business of `make crash`.
        let shm = std::path::Path::new("/dev/shm");
        let dir = if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() }.unwrap();
        let store = Store::open(dir.path().join("edge.db")).unwrap();
        Self { name, store, _dir: dir, inbox: VecDeque::new(), memory: Memory::default(), connection: None, promised: BTreeMap::new(), broken }
    }

    /// The process is killed and started again.
    pub fn kill(&mut self, now: u64) {
        self.memory = Memory { resend_at: now + RESEND_EVERY, sync_at: now + SYNC_EVERY, ..Memory::default() };
        if self.broken != Some(Broken::FramesOfBeforeAreHandledLater) {
            self.inbox.clear();
        }
    }

    fn write<T>(&self, around: &Around<'_>, body: impl FnOnce(&mut Tx<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let fails = around.disk_fails;
        self.store.write(&Fence::unfenced(), |tx| {
            let done = body(tx)?;
            if fails { Err(StoreError::Fenced) } else { Ok(done) }
        })
    }

    /// Into the connection, if there is one; else it is dropped, and whoever must be heard asks the store again.
    fn say(&mut self, frame: &Frame<Upstream>) -> bool {
        match self.connection.as_mut().filter(|connection| connection.edge_holds) {
            Some(connection) if self.memory.connected => {
                connection.up.push_back(codec::encode(frame).unwrap());
                true
            }
            _ => false,
        }
    }

    /// Handles what came next. Whether there was something.
    pub fn handle(&mut self, around: &mut Around<'_>) -> bool {
        match self.inbox.pop_front() {
            None => return false,
            Some(Mail::Connected { session, capabilities }) => {
                self.memory.connected = true;
                self.memory.statuses.forget();
                self.memory.window.clear();
                self.memory.membership_wanted = true;
                if capabilities.digest {
                    self.announce(session, None, around);
                }
                self.sync(around);
                self.ask_for_membership(around);
                self.send_reports(around);
            }
            Some(Mail::Disconnected) => {
                self.memory.connected = false;
                self.memory.window.clear();
            }
            Some(Mail::Frame { session, text }) => {
                let frame = codec::decode::<Downstream>(&text).unwrap();
                self.frame(session, frame, around);
            }
        }
        true
    }

    fn frame(&mut self, session: u64, frame: Frame<Downstream>, around: &mut Around<'_>) {
        let answer = |body, around: &mut Around<'_>| Frame::answer(around.ids.next(), frame.id.clone(), around.at(), body);
        match &frame.body {
            Downstream::Object { operation, key, object } => {
                let (id, resource_version) = (frame.id.clone(), frame.resource_version.clone());
                let message = MetaManagerMessage::FromCloud { id, operation: *operation, key: key.clone(), resource_version, object: object.clone() };
                let before = self.store.read(|read| meta::get(read, key)).unwrap();
                let Some(effects) = self.commit(&message, around) else {
                    if self.broken == Some(Broken::AcknowledgedBeforeTheCommit) {
                        let ack = answer(Upstream::Ack { resource: frame.body.resource() }, around);
                        self.say(&ack);
                    }
                    return;
                };
                around.checks.edge_committed(&frame.id);
                if let Some(uid) = before.and_then(|before| before.uid)
                    && *operation == ObjectOperation::Delete
                {
                    around.checks.edge_removed(&self.name, &uid);
                }
                if let Some(uid) = self.store.read(|read| meta::get(read, key)).unwrap().and_then(|row| row.uid) {
                    around.checks.edge_stored(&self.name, key, &uid);
                }
                for effect in effects {
                    match effect {
                        Effect::Acknowledge { .. } => {
                            let ack = answer(Upstream::Ack { resource: frame.body.resource() }, around);
                            self.say(&ack);
                        }
                        Effect::Refuse { reason, .. } => {
                            let refusal = answer(Upstream::Refusal { resource: frame.body.resource(), reason }, around);
                            self.say(&refusal);
                        }
                        Effect::Changed(_) | Effect::Deleted(_) | Effect::Unreported(_) | Effect::Report { .. } => {}
                    }
                }
            }
            Downstream::HeldGet => self.announce(session, Some(&frame.id), around),
            Downstream::MembershipDetail(detail) => {
                // What could not be stored is asked for again.
                if self.devices(&detail.devices.clone(), around) {
                    self.memory.membership_wanted = false;
                    // Asked for, it is an answer, and not acknowledged.
                    if frame.parent.is_none() {
                        self.acknowledge(&frame, around);
                    }
                }
            }
            Downstream::MembershipUpdate(update) => {
                if self.devices(&update.added.clone(), around) {
                    self.acknowledge(&frame, around);
                }
            }
            Downstream::TwinSync { device, update: TwinUpdate { change, .. } } => {
                match self.merge(device, change, Origin::Cloud, around) {
                    Some(true) => {
                        self.acknowledge(&frame, around);
                        self.send_reports(around);
                    }
                    // The list of devices, which has been asked for, brings it.
                    Some(false) => {
                        let refusal = frame.refusal(around.ids.next(), around.at(), "unknown device");
                        self.say(&refusal);
                    }
                    None => {}
                }
            }
            Downstream::Confirm { resource } => {
                let parent = frame.parent.as_ref().unwrap();
                around.checks.edge_was_told_confirmed(parent);
                if matches!(resource, Resource::Object(_)) {
                    self.memory.statuses.settled(parent);
                } else {
                    self.settle(parent, around);
                }
            }
            other => panic!("no such frame in this world: {other:?}"),
        }
    }

    fn acknowledge(&mut self, frame: &Frame<Downstream>, around: &mut Around<'_>) {
        around.checks.edge_committed(&frame.id);
        let ack = frame.ack(around.ids.next(), around.at());
        self.say(&ack);
    }

    /// MetaManager's rule for one message; `None` if the transaction failed.
    fn commit(&self, message: &MetaManagerMessage, around: &Around<'_>) -> Option<Vec<Effect>> {
        let meta = Meta::new("sim");
        self.write(around, |tx| {
            let mut effects = Vec::new();
            apply(tx, &[(&meta, message)], around.at(), &mut effects)?;
            Ok(effects.into_iter().map(|(_, effect)| effect).collect())
        })
        .ok()
    }

    fn announce(&mut self, session: u64, question: Option<&MsgId>, around: &mut Around<'_>) {
        let held = self.store.read(|read| meta::held(read, &HELD_KINDS)).unwrap();
        // In the session for which it was read, or not at all.
        let stands = self.connection.as_ref().is_some_and(|connection| connection.session == session);
        if !stands && self.broken != Some(Broken::DigestsOfEarlierSessions) {
            return;
        }
        for part in parts_of(held) {
            let frame = Frame::new(around.ids.next(), around.at(), Upstream::Held(part));
            self.say(&Frame { parent: question.cloned(), ..frame });
        }
    }

    /// What the cloud has not confirmed of the pods' statuses.
    fn sync(&mut self, around: &mut Around<'_>) {
        let StoredStatuses { current, .. } = self.store.read(statuses).unwrap();
        self.memory.statuses.keep(current.iter().map(|row| &row.key));
        let open = current.into_iter().filter(|row| self.memory.statuses.is_open(&row.key, &row.value));
        let rows: Vec<_> = open.map(|row| (row.key, row.value.clone(), serde_json::from_str::<PodStatusReport>(&row.value).unwrap())).collect();
        for (namespace, rows) in by_namespace(rows) {
            self.report(namespace, rows, around);
        }
    }

    fn report(&mut self, namespace: Namespace, rows: Vec<(ResourceKey, String, PodStatusReport)>, around: &mut Around<'_>) {
        let (sent, reports): (Vec<_>, Vec<_>) = rows.into_iter().map(|(key, text, report)| ((key, text), report)).unzip();
        let frame = Frame::new(around.ids.next(), around.at(), Upstream::PodStatus { namespace, reports });
        if self.say(&frame) {
            self.memory.statuses.sent(frame.id, sent);
            around.checks.at_most("messages with statuses on their way", self.memory.statuses.in_flight(), IN_FLIGHT_MAX);
        }
    }

    /// Edged looks at one pod and says how it is.
    pub fn look_at_a_pod(&mut self, which: usize, state: u64, around: &mut Around<'_>) {
        let pods = self.store.read(|read| meta::list(read, ResourceKind::Pod, None)).unwrap();
        if pods.is_empty() {
            return;
        }
        let pod = &pods[which % pods.len()];
        let status = RawJson::from_value(&json!({ "phase": "Running", "seen": state })).unwrap();
        let report = PodStatusReport { uid: pod.uid.clone().unwrap_or_default(), name: pod.key.name.clone().unwrap(), status };
        let message = MetaManagerMessage::PodStatus { key: pod.key.clone(), report };
        for effect in self.commit(&message, around).unwrap_or_default() {
            if let Effect::Report { key, text, report } = effect {
                self.report(key.namespace.clone(), vec![(key, text, report)], around);
            }
        }
    }

    fn ask_for_membership(&mut self, around: &mut Around<'_>) {
        let body = Upstream::MembershipGet { event_id: String::new(), node: self.name.clone() };
        let frame = Frame::new(around.ids.next(), around.at(), body);
        self.say(&frame);
    }

    /// Membership: binds what is new and merges what is wanted. Whether it is committed.
    fn devices(&mut self, entries: &[DeviceEntry], around: &mut Around<'_>) -> bool {
        let done = self.write(around, |tx| {
            for entry in entries {
                if device::row(tx, &entry.id)?.is_none() {
                    let new = model::Device {
                        id: entry.id.clone(),
                        name: String::new(),
                        description: String::new(),
                        state: None,
                        last_online: String::new(),
                        attributes: Default::default(),
                        twin: Default::default(),
                    };
                    device::insert(tx, &new)?;
                    device::set_uid(tx, &entry.id, &entry.uid)?;
                }
                merge_in(tx, &entry.id, &entry.twin, Origin::Cloud, around.at())?;
            }
            Ok(())
        });
        if done.is_ok() {
            for entry in entries {
                self.note_expected(&entry.id, around);
            }
        }
        done.is_ok()
    }

    /// Twin: merges one message. Whether the device is known; `None` if the transaction failed.
    pub fn merge(&mut self, device: &DeviceId, change: &TwinChange, origin: Origin, around: &mut Around<'_>) -> Option<bool> {
        let done = self.write(around, |tx| merge_in(tx, device, change, origin, around.at()));
        if done.is_ok() {
            self.note_expected(device, around);
        }
        done.ok()
    }

    fn note_expected(&self, device: &DeviceId, around: &mut Around<'_>) {
        let twin = self.store.read(|read| twin::load(read, device)).unwrap();
        for (name, property) in &twin.properties {
            if let Some(value) = property.expected.as_ref().and_then(|side| side.value.parse().ok()) {
                around.checks.value(&format!("{} expected {device}/{name}", self.name), value);
            }
        }
        let rows = self.store.read(pending_report::count).unwrap();
        around.checks.at_most("rows of reports", usize::try_from(rows).unwrap(), 16);
    }

    pub fn send_reports(&mut self, around: &mut Around<'_>) {
        if !self.memory.connected {
            return;
        }
        let free = WINDOW.saturating_sub(self.memory.window.devices());
        let no_window = self.broken == Some(Broken::ReportsOvertakeEachOther);
        let at = around.at();
        let reports = self.store.read(|read| {
            let devices = pending_report::devices(read, free, |device| no_window || !self.memory.window.holds(device))?;
            devices.into_iter().map(|device| reports_of(read, device, at)).collect::<Result<Vec<_>, _>>()
        });
        for report in reports.unwrap().into_iter().flatten() {
            if self.say(&report.frame) {
                if self.broken == Some(Broken::ForgottenWhenSent) {
                    self.store.write(&Fence::unfenced(), |tx| pending_report::settle(tx, &report.seqs)).unwrap();
                }
                self.memory.window.sent(report.frame.id, report.device, report.seqs, around.now);
                around.checks.at_most("reports on their way", self.memory.window.unanswered(), OVERDUE_MAX + 2 * WINDOW);
            }
        }
    }

    fn settle(&mut self, parent: &MsgId, around: &mut Around<'_>) {
        let Some((device, seqs)) = self.memory.window.answered(parent) else { return };
        let all = self.broken == Some(Broken::AConfirmationSettlesEverything);
        let _ = self.write(around, |tx| {
            let seqs = if all { pending_report::of_device(tx, &device)?.properties.into_iter().map(|(_, row)| row.seq).collect() } else { seqs };
            pending_report::settle(tx, &seqs)
        });
        self.send_reports(around);
    }

    /// Timers.
    pub fn tick(&mut self, around: &mut Around<'_>) {
        if around.now >= self.memory.resend_at {
            self.memory.resend_at = around.now + RESEND_EVERY;
            self.memory.window.expire(around.now, RESEND_EVERY);
            if self.memory.connected && self.memory.membership_wanted {
                self.ask_for_membership(around);
            }
            self.send_reports(around);
        }
        if around.now >= self.memory.sync_at {
            self.memory.sync_at = around.now + SYNC_EVERY;
            self.sync(around);
        }
    }
}

/// Merges into the twin of a device; whether the device is known.
fn merge_in(tx: &mut Tx<'_>, id: &DeviceId, change: &TwinChange, origin: Origin, now: Timestamp) -> Result<bool, StoreError> {
    let Some(stored) = device::load(tx, id)? else { return Ok(false) };
    let mut working = Working::new(stored.incarnation, stored.device.twin);
    if working.merge(change, origin, now, actor::MsgId::fresh()).is_ok() {
        working.write(tx, id, now)?;
    }
    Ok(true)
}
