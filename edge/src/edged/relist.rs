//! What the engine says: its events, and its lists compared with the store and the directories.

use std::collections::{HashMap, HashSet};

use actix::{AsyncContext, Context};

use super::events::Severity;
use super::message::EdgedMessage;
use super::node::Readiness;
use super::runtime::{RuntimeError, RuntimeEvent, Summary, label};
use super::state::Edged;
use super::{RELIST_FIRST, RELIST_MAX, check, volume};

impl Edged {
    pub(super) fn runtime(&mut self, event: &RuntimeEvent, ctx: &mut Context<Self>) {
        match event {
            RuntimeEvent::Container { pod_uid, .. } => {
                self.relist = RELIST_FIRST;
                self.pass(pod_uid);
            }
            RuntimeEvent::Image => {
                self.shared.house().images_changed();
                // Somebody may wait for just this one: the pause after a failed pull is over.
                let now = self.shared.now();
                let mut waiting = Vec::new();
                for (uid, entry) in &mut self.pods {
                    // What a pass or a pull that is under way will say of it is older.
                    entry.has_new_image = entry.is_busy || !entry.images.is_empty();
                    if entry.image_came(now) {
                        waiting.push(uid.clone());
                    }
                }
                waiting.iter().for_each(|uid| self.pass(uid));
            }
            RuntimeEvent::Up(version) => {
                log::info!(engine = version.name, version = version.version.as_str(); "container engine answers");
                self.set_readiness(Readiness::Ready(format!("{}://{}", version.name, version.version)));
                // What happened before the stream stood is found by comparing, once now and once a moment later.
                self.list();
                self.relist = RELIST_FIRST;
                self.remind_relist(ctx);
            }
            RuntimeEvent::Down { reason } => {
                log::warn!(reason = reason.as_str(); "container engine is away; what runs keeps running");
                self.set_readiness(Readiness::NotReady(reason.clone()));
            }
        }
    }

    pub(super) fn engine_failed(&mut self, failure: &RuntimeError) {
        if matches!(failure, RuntimeError::Unreachable { .. }) {
            self.set_readiness(Readiness::NotReady(failure.to_string()));
        }
    }

    fn set_readiness(&mut self, readiness: Readiness) {
        self.note_engine(&readiness);
        let (severity, reason) = match &readiness {
            Readiness::Ready(_) => (Severity::Normal, "NodeReady"),
            Readiness::NotReady(_) => (Severity::Warning, "NodeNotReady"),
        };
        if self.node.set(readiness, self.shared.now()) {
            self.node_event(severity, reason, &format!("Node {} status is now: {reason}", self.config.node));
            self.post_node_status();
        }
    }

    pub(super) fn list(&self) {
        let shared = self.shared.clone();
        actix_rt::spawn(async move {
            let listed = shared.runtime.list(&[(label::NODE, &shared.node)]).await;
            let _ = shared.edged.send(EdgedMessage::Listed(listed)).await;
        });
    }

    /// Compares store, engine and directories, and looks at each pod that differs from what is known of it.
    pub(super) fn listed(&mut self, result: &Result<Vec<Summary>, RuntimeError>, ctx: &mut Context<Self>) {
        let listed = match result {
            Ok(listed) => listed,
            Err(failure) => {
                self.engine_failed(failure);
                // One that takes the question and does not answer it. A single container that hangs tells nothing of the engine.
                if matches!(failure, RuntimeError::TimedOut { .. }) {
                    self.set_readiness(Readiness::NotReady(failure.to_string()));
                }
                self.relist = RELIST_FIRST;
                return self.remind_relist(ctx);
            }
        };
        // The stream of events may have outlived an engine whose socket was away.
        if let Some(engine) = self.node.engine().filter(|_| !self.node.is_ready()) {
            self.set_readiness(Readiness::Ready(engine));
        }
        let mut by_uid: HashMap<&str, Vec<&Summary>> = HashMap::new();
        for one in listed {
            if let Some(uid) = one.labels.get(label::POD_UID) {
                by_uid.entry(uid).or_default().push(one);
            }
        }
        let stored = match self.stored_pods() {
            Ok(stored) => stored,
            Err(error) => {
                log::error!(error = error.to_string().as_str(); "pods cannot be read from the store");
                return self.remind_relist(ctx);
            }
        };
        for (uid, key) in &stored {
            if let Some(earlier) = self.uids.get(key).cloned().filter(|earlier| earlier != uid) {
                self.forget_key(&earlier);
            }
            self.know(uid, key);
        }
        let directories = volume::directories(&self.shared.pods);
        let mut uids: HashSet<String> = self.pods.keys().cloned().collect();
        uids.extend(by_uid.keys().map(|uid| (*uid).to_owned()));
        uids.extend(directories.into_iter().filter(|uid| check::is_uid(uid)));
        let mut found = 0;
        for uid in uids {
            let is_known = self.pods.get(&uid).is_some_and(|entry| entry.seen.is_some() && !entry.is_cut_short);
            let is_gone = !stored.contains_key(&uid);
            let is_new = !is_gone && self.reload(&uid).unwrap_or(true);
            let listed = by_uid.get(uid.as_str()).map_or(&[][..], Vec::as_slice);
            let differs = self.pods.get(&uid).is_none_or(|entry| entry.differs_from(listed));
            if is_gone {
                self.forget_key(&uid);
            } else if !is_known || is_new || differs {
                self.pass(&uid);
            } else {
                continue;
            }
            found += 1;
        }
        self.relist = if found > 0 { RELIST_FIRST } else { (self.relist * 2).min(RELIST_MAX) };
        self.remind_relist(ctx);
    }

    /// One chain of comparisons, whoever asked for the last one.
    fn remind_relist(&mut self, ctx: &mut Context<Self>) {
        if let Some(earlier) = self.relist_timer.take() {
            ctx.cancel_future(earlier);
        }
        self.relist_timer = Some(self.remind(ctx, self.relist, || EdgedMessage::ReconcileDue));
    }
}
