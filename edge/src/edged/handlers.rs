//! What Edged does with each message.

use std::sync::PoisonError;
use std::time::Duration;

use actix::{Actor, AsyncContext, Context, Handler, SpawnHandle, WrapFuture};
use actor::{Lease, Meta, MsgId};
use model::{ObjectName, ResourceKey, ResourceKind};
use serde_json::Value;
use wire::hub::{PodStatusReport, RawJson};

use super::entry::Entry;
use super::events::Severity;
use super::message::EdgedMessage;
use super::pod::Refusal;
use super::runtime::label;
use super::state::Edged;
use super::worker::{Note, Pass, Passed, Pull};
use crate::meta_manager::MetaManagerMessage;

/// Longest time that a missing object is waited for; MetaManager has a deadline of its own below it.
const ASK_LIMIT: Duration = Duration::from_secs(30);
/// Longest pause of a pod that waits for time alone; the comparison comes more often anyway.
const WAKE_MAX: Duration = Duration::from_secs(600);
/// Grace of a pod whose object was deleted by force while it was ending, in seconds (the kubelet's least).
const FORCED_GRACE_SECS: u64 = 1;
/// Pause before the node registers again after a refusal.
const REGISTER_AGAIN: Duration = Duration::from_secs(10);

/// Whom a change of an object concerns here.
enum Concern {
    Pod,
    /// The pods that read it.
    Readers,
    Nobody,
}

fn concern(kind: ResourceKind) -> Concern {
    match kind {
        ResourceKind::Pod => Concern::Pod,
        ResourceKind::ConfigMap | ResourceKind::Secret => Concern::Readers,
        ResourceKind::Node
        | ResourceKind::PodList
        | ResourceKind::PodStatus
        | ResourceKind::NodeStatus
        | ResourceKind::PodPatch
        | ResourceKind::NodePatch
        | ResourceKind::Lease
        | ResourceKind::Event
        | ResourceKind::ServiceAccountToken
        | ResourceKind::Device
        | ResourceKind::DeviceModel => Concern::Nobody,
    }
}

impl Actor for Edged {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.remind(ctx, Duration::ZERO, || EdgedMessage::ReconcileDue);
        ctx.run_interval(self.config.status_interval, |this, _| {
            // Full means that the node is busy with its pods; the next tick is near.
            let _ = this.peers.own.try_send(EdgedMessage::StatusDue);
        });
    }
}

impl Handler<Lease<EdgedMessage>> for Edged {
    type Result = ();

    fn handle(&mut self, lease: Lease<EdgedMessage>, ctx: &mut Self::Context) {
        self.fence = Some(lease.fence());
        lease.each(|meta, message| self.on(meta, message, ctx));
        self.publish();
    }
}

impl Edged {
    fn on(&mut self, meta: &Meta, message: &EdgedMessage, ctx: &mut Context<Self>) {
        match message {
            EdgedMessage::ObjectChanged { key } => self.object_changed(key, meta.parent),
            EdgedMessage::ObjectDeleted { key } => self.object_deleted(key, meta.parent),
            EdgedMessage::CloudConnected => {
                // The network came back, maybe with another address: what is told first is true.
                self.locate();
                self.register();
                self.post_node_status();
            }
            EdgedMessage::CloudDisconnected => {}
            EdgedMessage::RegistrationRefused { reason } => {
                log::warn!(reason = reason.as_str(); "the cloud did not register this node; trying again");
                let _ = self.remind(ctx, REGISTER_AGAIN, || EdgedMessage::RegisterDue);
            }
            EdgedMessage::RegisterDue => self.register(),
            EdgedMessage::Runtime(event) => self.runtime(event, ctx),
            EdgedMessage::ReconcileDue => self.list(),
            EdgedMessage::Listed(result) => self.listed(result, ctx),
            EdgedMessage::StatusDue => {
                self.locate();
                self.post_node_status();
                self.report_again();
            }
            EdgedMessage::StaticPods(found) => self.take_static_pods(found),
            EdgedMessage::PodDue { uid } => {
                if self.pods.contains_key(uid) {
                    self.pass(uid);
                }
            }
            EdgedMessage::StatusLost { uid } => {
                // Told again with the next tick.
                if let Some(entry) = self.pods.get_mut(uid) {
                    entry.is_unreported = true;
                }
            }
            EdgedMessage::Passed(passed) => self.passed(passed, ctx),
            EdgedMessage::Probed(probed) => self.probed(probed),
            EdgedMessage::Pulled { pull, result } => self.pulled(pull, result),
            EdgedMessage::Housekept(signals) => self.housekept(signals),
            EdgedMessage::Tidied(tidied) => self.tidied(tidied),
        }
    }

    /// Sends itself a message later.
    pub(super) fn remind(&self, ctx: &mut Context<Self>, after: Duration, message: impl Fn() -> EdgedMessage + 'static) -> SpawnHandle {
        let own = self.peers.own.clone();
        let wait = async move {
            tokio::time::sleep(after).await;
            let _ = own.send(message()).await;
        };
        ctx.spawn(wait.into_actor(self))
    }

    fn object_changed(&mut self, key: &ResourceKey, by: Option<MsgId>) {
        match concern(key.kind) {
            Concern::Pod => {
                let uid = match self.stored_uid(key) {
                    Ok(uid) => uid,
                    Err(error) => return log::error!(error = error.to_string().as_str(); "a pod cannot be read from the store"),
                };
                // Another pod of that name: the earlier one has to go.
                if let Some(earlier) = self.uids.get(key).cloned().filter(|earlier| Some(earlier) != uid.as_ref()) {
                    self.forget_key(&earlier);
                }
                if let Some(uid) = uid {
                    self.know(&uid, key);
                    self.note_cause(&uid, by);
                    self.hurry(&uid);
                    self.pass(&uid);
                }
            }
            Concern::Readers => self.pass_readers(key, by),
            Concern::Nobody => {}
        }
    }

    fn object_deleted(&mut self, key: &ResourceKey, by: Option<MsgId>) {
        match concern(key.kind) {
            Concern::Pod => {
                if let Some(uid) = self.uids.get(key).cloned() {
                    self.forget_key(&uid);
                }
            }
            Concern::Readers => self.pass_readers(key, by),
            Concern::Nobody => {}
        }
    }

    /// The store has the pod no more: everything of it goes.
    pub(super) fn forget_key(&mut self, uid: &str) {
        if let Some(entry) = self.pods.get_mut(uid)
            && let Some(key) = entry.key.take()
        {
            self.uids.remove(&key);
            // The object goes when nothing runs any more. One that goes before was taken away by force.
            if entry.desired.as_ref().is_some_and(|desired| desired.pod.is_deleting()) {
                entry.grace_secs = Some(FORCED_GRACE_SECS);
            }
            self.hurry(uid);
        }
        self.pass(uid);
    }

    fn pass_readers(&mut self, key: &ResourceKey, by: Option<MsgId>) {
        let Some(name) = &key.name else { return };
        let object = (key.kind == ResourceKind::Secret, name.to_string());
        let reads = |entry: &Entry| {
            entry.key.as_ref().is_some_and(|pod| pod.namespace == key.namespace)
                && entry.desired.as_ref().is_some_and(|d| d.pod.references().contains(&object))
        };
        let readers: Vec<String> = self.pods.iter().filter(|(_, entry)| reads(entry)).map(|(uid, _)| uid.clone()).collect();
        for uid in readers {
            self.note_cause(&uid, by);
            self.pass(&uid);
        }
    }

    pub(super) fn pass(&mut self, uid: &str) {
        if let Some(pass) = self.begin_pass(uid) {
            // A pod that is to go is asked less.
            self.watch_health(uid);
            actix_rt::spawn(Pass::run(pass));
        }
    }

    fn passed(&mut self, passed: &Passed, ctx: &mut Context<Self>) {
        let Passed { uid, seen, troubles, notes, end } = passed;
        self.happened(uid, notes);
        if let (Some(entry), Some(seen)) = (self.pods.get_mut(uid), seen) {
            let has_let_go = entry.holds_ports() && seen.sandbox().is_none();
            entry.seen = Some(seen.clone());
            if has_let_go {
                self.ports_are_free(uid);
            }
        }
        // Before the status is made: a container that has a readiness probe is not ready until it was asked.
        self.watch_health(uid);
        if let Some((key, report)) = self.take_in(uid, seen.clone(), troubles.clone(), end.as_ref()) {
            self.report(uid, key, report);
        }
        let Some(end) = end else { return };
        if let Some(entry) = self.pods.get(uid)
            && entry.deadline().is_some_and(|at| at <= self.shared.now())
        {
            let message = "Pod was active on the node longer than the specified deadline".to_owned();
            self.fail_pod(uid, Refusal { reason: "DeadlineExceeded".into(), message }, None);
        }
        if let Some(failure) = &end.failure {
            self.engine_failed(failure);
        }
        let now = self.shared.now();
        let Some(entry) = self.pods.get_mut(uid) else { return };
        if let Some(earlier) = entry.timer.take() {
            ctx.cancel_future(earlier);
        }
        let pulls: Vec<Pull> = end.images.values().filter(|pull| !entry.pulled.iter().any(|(pulled, _)| pulled == *pull)).cloned().collect();
        let missing = entry.due_questions(&end.objects, now);
        let namespace = entry.key.as_ref().map(|key| key.namespace.clone());
        if entry.is_dirty || !entry.pulled.is_empty() {
            self.pass(uid);
        } else if end.is_gone && entry.key.is_none() {
            log::info!(uid = uid.as_str(); "pod is gone");
            self.pods.remove(uid);
        } else if let Some(at) = end.wake_at.into_iter().chain(entry.deadline()).min() {
            let after = Duration::try_from(at.duration_since(now)).unwrap_or_default().min(WAKE_MAX);
            let due = uid.clone();
            let timer = self.remind(ctx, after, move || EdgedMessage::PodDue { uid: due.clone() });
            if let Some(entry) = self.pods.get_mut(uid) {
                entry.timer = Some(timer);
            }
        }
        let is_at_rest = |entry: &Entry| !entry.is_busy && !entry.is_here();
        if self.statics.ending.contains_key(uid) && end.failure.is_none() && self.pods.get(uid).is_none_or(is_at_rest) {
            self.static_pod_ended(uid);
        }
        pulls.iter().for_each(|pull| self.pull(pull));
        if let Some(namespace) = namespace {
            missing.into_iter().for_each(|(is_secret, name)| self.ask(&namespace, is_secret, &name));
        }
    }

    /// The ports of a pod are nobody's any more: those that wait for a sandbox need not wait longer.
    fn ports_are_free(&mut self, of: &str) {
        let now = self.shared.now();
        let mut waiting = Vec::new();
        for (uid, entry) in self.pods.iter_mut().filter(|(uid, _)| *uid != of) {
            let wants_ports = entry.desired.as_ref().is_some_and(|desired| desired.pod.has_host_ports());
            if let Some(trouble) = entry.troubles.get_mut(label::SANDBOX_NAME).filter(|_| wants_ports) {
                trouble.retry_at = now;
                waiting.push(uid.clone());
            }
        }
        waiting.iter().for_each(|uid| self.pass(uid));
    }

    /// What a person may want to know of a pod.
    fn happened(&mut self, uid: &str, notes: &[Note]) {
        for note in notes {
            let severity = if note.is_warning { Severity::Warning } else { Severity::Normal };
            self.event(uid, note.container.as_deref(), severity, note.reason, &note.message);
        }
    }

    fn report(&mut self, uid: &str, key: ResourceKey, report: PodStatusReport) {
        // The API has no object whose status this would be.
        if let Some(pod) = self.statics.get(uid) {
            let (mut object, status) = (serde_json::from_str::<Value>(&pod.json).unwrap_or_default(), report.status.to().unwrap_or_default());
            object["status"] = status;
            self.shared.local.lock().unwrap_or_else(PoisonError::into_inner).insert(uid.to_owned(), object);
            return;
        }
        // Full: reported with the next tick. Nothing waits here, so that MetaManager can always tell this actor something.
        let is_sent = self.peers.meta_manager.try_send(MetaManagerMessage::PodStatus { key, report }).is_ok();
        if let Some(entry) = self.pods.get_mut(uid) {
            entry.is_unreported = !is_sent;
        }
    }

    fn report_again(&mut self) {
        let open: Vec<String> = self.pods.iter().filter(|(_, entry)| entry.is_unreported && !entry.is_busy).map(|(uid, _)| uid.clone()).collect();
        open.iter().for_each(|uid| self.report_now(uid));
    }

    /// Tells how a pod is, as far as that is not known.
    pub(super) fn report_now(&mut self, uid: &str) {
        let troubles = self.pods.get(uid).map(|entry| entry.troubles.clone()).unwrap_or_default();
        if let Some((key, report)) = self.take_in(uid, None, troubles, None) {
            self.report(uid, key, report);
        }
    }

    /// Asks for an object that a pod needs. Its arrival is hinted like any other change.
    fn ask(&self, namespace: &model::Namespace, is_secret: bool, name: &str) {
        let Ok(name) = ObjectName::new(name) else { return };
        let kind = if is_secret { ResourceKind::Secret } else { ResourceKind::ConfigMap };
        let key = ResourceKey::object(namespace.clone(), kind, name);
        let meta_manager = self.peers.meta_manager.clone();
        actix_rt::spawn(async move {
            let asked = meta_manager.ask(ASK_LIMIT, |reply| MetaManagerMessage::Query { key: key.clone(), reply }).await;
            if let Ok(Err(error)) = asked {
                log::info!(key = key.to_string().as_str(), reason = error.to_string().as_str(); "an object that a pod needs did not come");
            }
        });
    }

    /// Looks where the machine is, as a kubelet does for each status of its node. If it has moved, its pods tell so; the node
    /// does with the status that the caller posts.
    pub(super) fn locate(&mut self) {
        let Some(before) = self.shared.locate() else { return };
        let address = *self.shared.address();
        log::info!(before = before.to_string().as_str(), address = address.ip.to_string().as_str(); "this machine has another address");
        self.node.machine.address = address;
        let uids: Vec<String> = self.pods.keys().cloned().collect();
        uids.iter().for_each(|uid| self.report_now(uid));
    }

    fn register(&self) {
        let object = RawJson::from_value(&self.node.object(self.shared.now())).expect("JSON values always serialise");
        let _ = self.peers.meta_manager.try_send(MetaManagerMessage::NodeRegister { object });
    }

    pub(super) fn post_node_status(&self) {
        let content = RawJson::from_value(&self.node.content(self.shared.now())).expect("JSON values always serialise");
        // Full: the next tick says it.
        let _ = self.peers.meta_manager.try_send(MetaManagerMessage::NodeStatus { content });
    }
}
