//! The cloud as one process: its controllers' state and the links, all lost when it is killed.

use std::collections::{BTreeMap, VecDeque};

use model::{NodeName, PropertyName, ResourceKey, ResourceKind, Timestamp};
use serde_json::Value;
use skep_cloud::device_controller::crd::Device;
use skep_cloud::device_controller::early::Early;
use skep_cloud::device_controller::state::{Devices, Effect};
use skep_cloud::edge_controller::downstream::state::{Desired, Outgoing};
use skep_cloud::edge_controller::downstream::watch;
use skep_cloud::edge_controller::resource::observed::Observed;
use skep_cloud::watching::Change;
use wire::hub::codec;
use wire::hub::{Downstream, Frame, ObjectOperation, OutboxKey, Upstream};
use wire::link::{ANSWERS_MAX, Answer, Capabilities, CloudLink, Heard, Ticked};
use wire::mqtt::payload::{MembershipDetail, MembershipUpdate, TwinUpdate};

use crate::api::{Api, WATCHED, Watched};
use crate::checks::{Checker, Checks};
use crate::world::{Broken, Ids};

/// What a watch tells a controller.
pub enum News {
    Object(ResourceKind, Change<Observed>),
    Devices(Change<Box<Device>>),
    /// Models are none, and that is known.
    NoModels,
}

pub struct Cloud {
    desired: Desired,
    devices: Devices,
    early: Early,
    pub links: BTreeMap<NodeName, CloudLink>,
    /// The controllers' mailboxes: of each watch in order.
    pub inbox: VecDeque<News>,
    cursors: BTreeMap<Watched, usize>,
    broken: Option<Broken>,
}

/// What one step of the cloud may touch.
pub struct Around<'a> {
    pub api: &'a mut Api,
    pub checks: &'a mut Checks,
    pub ids: &'a mut Ids,
    pub now: u64,
    /// Whether the API refuses to write now.
    pub api_fails: bool,
}

impl Around<'_> {
    fn at(&self) -> Timestamp {
        Timestamp(1_700_000_000_000 + i64::try_from(self.now).unwrap())
    }
}

impl Cloud {
    /// A process that was just started: its watches list everything.
    pub fn start(api: &Api, broken: Option<Broken>) -> Self {
        let mut cloud = Self {
            desired: Desired::default(),
            devices: Devices::default(),
            early: Early::default(),
            links: BTreeMap::new(),
            inbox: VecDeque::from([News::NoModels]),
            cursors: BTreeMap::new(),
            broken,
        };
        WATCHED.iter().for_each(|watched| cloud.list(api, *watched));
        cloud
    }

    /// The downstream half alone dies and begins anew.
    pub fn restart_downstream(&mut self, around: &mut Around<'_>) {
        self.desired = Desired::default();
        self.inbox.retain(|news| !matches!(news, News::Object(..)));
        for watched in WATCHED.into_iter().filter(|watched| matches!(watched, Watched::Object(_))) {
            self.list(around.api, watched);
        }
        let now = around.now;
        let mut due = Vec::new();
        for (node, link) in &mut self.links {
            if link.out_of_step(now) {
                link.answer(ask(around.ids, Timestamp(0)));
            } else {
                due.push(node.clone());
            }
        }
        due.iter().for_each(|node| self.bring_into_step(node, around));
    }

    /// A full list, as a watch begins or goes on after a gap.
    pub fn list(&mut self, api: &Api, watched: Watched) {
        let objects = api.list(watched);
        match watched {
            Watched::Object(kind) => {
                let form = |object| observed(kind, object);
                self.inbox.push_back(News::Object(kind, Change::Begin));
                self.inbox.extend(objects.into_iter().map(|object| News::Object(kind, Change::Listed(form(object)))));
                self.inbox.push_back(News::Object(kind, Change::Complete));
            }
            Watched::Devices => {
                self.inbox.push_back(News::Devices(Change::Begin));
                self.inbox.extend(objects.into_iter().map(|object| News::Devices(Change::Listed(device(object)))));
                self.inbox.push_back(News::Devices(Change::Complete));
            }
        }
        self.cursors.insert(watched, api.log_len(watched));
    }

    /// The next event of one watch. Whether there was one.
    pub fn watch(&mut self, api: &Api, watched: Watched) -> bool {
        let cursor = self.cursors.entry(watched).or_default();
        let Some(event) = api.log.get(&watched).and_then(|log| log.get(*cursor)).cloned() else { return false };
        *cursor += 1;
        self.inbox.push_back(match watched {
            Watched::Object(kind) => {
                let object = observed(kind, event.object);
                News::Object(kind, if event.deleted { Change::Deleted(object) } else { Change::Applied(object) })
            }
            Watched::Devices => News::Devices(Change::Applied(device(event.object))),
        });
        true
    }

    /// A controller takes its next message. Whether there was one.
    pub fn control(&mut self, around: &mut Around<'_>) -> bool {
        match self.inbox.pop_front() {
            None => return false,
            Some(News::Object(kind, change)) => {
                if let Change::Deleted(object) = &change {
                    around.checks.cloud_saw_deleted(&object.uid);
                }
                let out = self.desired.apply(kind, &change);
                self.send(out, around);
            }
            Some(News::Devices(change)) => {
                let effects = self.devices.device(&change);
                self.tell(effects, around);
            }
            Some(News::NoModels) => {
                for change in [Change::Begin, Change::Complete] {
                    self.devices.model(&change);
                }
            }
        }
        if self.devices.is_complete() {
            for (node, frame) in self.early.take() {
                self.report(&node, &frame, around);
            }
        }
        true
    }

    fn send(&mut self, out: Vec<Outgoing>, around: &mut Around<'_>) {
        for Outgoing { node, operation, key, resource_version, object, .. } in out {
            let mut frame = Frame::new(around.ids.next(), around.at(), Downstream::Object { operation, key: key.clone(), object });
            if !resource_version.is_empty() {
                frame = frame.with_resource_version(resource_version);
            }
            self.push(&node, OutboxKey::Object(key), frame, around);
        }
    }

    fn tell(&mut self, effects: Vec<Effect>, around: &mut Around<'_>) {
        for effect in effects {
            let (event_id, timestamp) = (String::new(), around.at());
            let (node, key, body) = match effect {
                Effect::Added(node, entry) => {
                    let key = OutboxKey::Membership(entry.id.clone());
                    let update = MembershipUpdate { event_id, timestamp, added: vec![entry], removed: Vec::new(), skipped: Vec::new() };
                    (node, key, Downstream::MembershipUpdate(update))
                }
                Effect::Removed(..) => continue,
                Effect::Sync { node, device, uid, change } => {
                    let update = TwinUpdate { event_id, timestamp, uid, change };
                    (node, OutboxKey::Twin(device.clone()), Downstream::TwinSync { device, update })
                }
            };
            let frame = Frame::new(around.ids.next(), timestamp, body);
            self.push(&node, key, frame, around);
        }
    }

    fn push(&mut self, node: &NodeName, key: OutboxKey, frame: Frame<Downstream>, around: &mut Around<'_>) {
        let Some(link) = self.links.get_mut(node) else { return };
        let key = match (self.broken, key) {
            (Some(Broken::AKeyForEachFrame), OutboxKey::Object(key)) => {
                let name = format!("{}-{}", key.name.as_ref().unwrap(), frame.id.as_str());
                OutboxKey::Object(ResourceKey { name: Some(name.parse().unwrap()), ..key })
            }
            (_, key) => key,
        };
        link.push(key, frame, around.now);
        let backlog = link.backlog();
        // What there ever was: objects, devices, their membership.
        around.checks.at_most("keys in an outbox", backlog.waiting + backlog.parked, 24);
        around.checks.at_most("answers in a lane", backlog.answers, ANSWERS_MAX);
    }

    /// An edge has connected.
    pub fn up(&mut self, node: &NodeName, session: u64, around: &mut Around<'_>) {
        around.checks.session_began(node, session);
        match self.links.get_mut(node) {
            Some(link) => link.up(session, Capabilities::OURS, around.now),
            None => drop(self.links.insert(node.clone(), CloudLink::new(session, Capabilities::OURS, around.now))),
        }
    }

    /// A session has ended.
    pub fn down(&mut self, node: &NodeName, session: u64) {
        if self.links.get(node).is_some_and(|link| link.session() == session) {
            self.links.remove(node);
            self.desired.node_gone(node);
        }
    }

    pub fn tick(&mut self, around: &mut Around<'_>) {
        let mut due = Vec::new();
        let mut again = Vec::new();
        for (node, link) in &mut self.links {
            let ticked: Ticked = link.tick(around.now);
            if ticked.ask {
                link.answer(ask(around.ids, Timestamp(0)));
            }
            if ticked.due {
                due.push(node.clone());
            }
            if ticked.again {
                again.push(node.clone());
            }
        }
        due.iter().for_each(|node| self.bring_into_step(node, around));
        for node in again {
            let detail = self.detail(&node, around);
            let frame = Frame::new(around.ids.next(), around.at(), detail);
            self.push(&node, OutboxKey::MembershipDetail, frame, around);
        }
    }

    fn bring_into_step(&mut self, node: &NodeName, around: &mut Around<'_>) {
        let Some(held) = self.links.get_mut(node).and_then(CloudLink::take_due) else { return };
        let mut out = self.desired.node_lacks(node, held);
        if self.broken == Some(Broken::DifferenceWithoutDeletions) {
            out.retain(|out| out.operation != ObjectOperation::Delete);
        }
        self.send(out, around);
    }

    fn detail(&mut self, node: &NodeName, around: &Around<'_>) -> Downstream {
        let devices = self.devices.of_node(node);
        Downstream::MembershipDetail(MembershipDetail { event_id: String::new(), timestamp: around.at(), devices, skipped: Vec::new() })
    }

    /// What goes out next in this session.
    pub fn next(&mut self, node: &NodeName, session: u64, now: u64) -> Option<String> {
        match self.links.get_mut(node)?.next(session, now)? {
            Answer::Frame(frame) => Some(codec::encode(&frame).unwrap()),
            Answer::Envelope(envelope) => Some(codec::encode_envelope(&envelope).unwrap()),
        }
    }

    /// A frame of an edge.
    pub fn heard(&mut self, node: &NodeName, session: u64, text: &str, around: &mut Around<'_>) {
        let frame = codec::decode::<Upstream>(text).unwrap();
        let Some(link) = self.links.get_mut(node) else { return };
        // In the breaking: the session that it came in is not looked at.
        let counted_as = if self.broken == Some(Broken::OlderSessionsCount) { link.session() } else { session };
        let heard = link.heard(counted_as, &frame, around.now);
        if matches!(heard, Heard::Acknowledged(_) | Heard::Refused(_) | Heard::Announced | Heard::Partial) {
            around.checks.session_counted(node, session);
        }
        match heard {
            Heard::Acknowledged(_) => around.checks.cloud_was_told_stored(frame.parent.as_ref().unwrap()),
            Heard::Refused(OutboxKey::Twin(_)) => {}
            Heard::Refused(key) => around.checks.fail(Checker::Agree, format!("{node} refused {key:?}: {:?}", frame.body)),
            Heard::Announced => self.bring_into_step(node, around),
            Heard::Bad(error) => around.checks.fail(Checker::Agree, format!("a digest of {node} is none: {error}")),
            Heard::NotMine if is_of_devices(&frame.body) && !self.devices.is_complete() => drop(self.early.keep(node, &frame)),
            Heard::NotMine => self.report(node, &frame, around),
            Heard::Stale | Heard::Unmatched | Heard::Partial | Heard::Unasked => {}
        }
    }

    fn report(&mut self, node: &NodeName, frame: &Frame<Upstream>, around: &mut Around<'_>) {
        let done = match &frame.body {
            Upstream::MembershipGet { .. } => {
                let detail = self.detail(node, around);
                self.answer(node, Frame::answer(around.ids.next(), frame.id.clone(), around.at(), detail));
                return;
            }
            Upstream::TwinReport { device, report } => {
                let Ok(taken) = self.devices.reported(node, device, report) else { return };
                self.tell(taken.again.into_iter().collect(), around);
                let reported = report.properties.iter().filter_map(|(name, property)| Some((name, property.actual.as_ref()?.value.parse().ok()?)));
                // The rule of the device controller: what it passes over is not written.
                let is_written =
                    |name: &PropertyName| self.broken == Some(Broken::ReportsOvertakeEachOther) || taken.twins.iter().any(|twin| twin.name == *name);
                let written: Vec<(String, u64)> =
                    reported.filter(|(name, _)| is_written(name)).map(|(name, value)| (format!("{device}/{name}"), value)).collect();
                if !around.api_fails {
                    for (place, value) in written {
                        around.checks.value(&format!("API {place}"), value);
                        around.api.reported.insert(place, value);
                    }
                }
                !around.api_fails
            }
            Upstream::PodStatus { namespace, reports } => {
                for report in reports {
                    let key = ResourceKey::object(namespace.clone(), ResourceKind::Pod, report.name.clone());
                    let found = around.api.objects.get(&key).cloned();
                    let bound_here = found.as_ref().is_some_and(|pod| pod["spec"]["nodeName"] == node.as_str());
                    match found {
                        Some(pod) if pod["metadata"]["uid"] == report.uid.as_str() && bound_here => {
                            if !around.api_fails {
                                around.api.set_status(&key, report.status.to().unwrap());
                            }
                        }
                        _ => {
                            let out = self.desired.node_has(node, &key, &report.uid);
                            self.send(out, around);
                        }
                    }
                }
                !around.api_fails
            }
            _ => return,
        };
        if done {
            around.checks.api_took(&frame.id);
        }
        if done || self.broken == Some(Broken::ConfirmedBeforeTheApiHasIt) {
            let confirm = frame.confirm(around.ids.next(), around.at());
            self.answer(node, confirm);
        }
    }

    fn answer(&mut self, node: &NodeName, frame: Frame<Downstream>) {
        if let Some(link) = self.links.get_mut(node) {
            link.answer(Answer::Frame(frame));
        }
    }
}

fn is_of_devices(body: &Upstream) -> bool {
    matches!(body, Upstream::MembershipGet { .. } | Upstream::TwinReport { .. })
}

fn ask(ids: &mut Ids, at: Timestamp) -> Answer {
    Answer::Frame(Frame::new(ids.next(), at, Downstream::HeldGet))
}

fn observed(kind: ResourceKind, object: Value) -> Observed {
    Observed::read(watch::kind(kind).unwrap(), kind, serde_json::from_value(object).unwrap()).unwrap()
}

fn device(object: Value) -> Box<Device> {
    serde_json::from_value(object).unwrap()
}
