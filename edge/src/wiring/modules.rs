//! How each module is started: its settings, its peers, what it shares with its earlier incarnations.

use std::sync::Arc;
use std::time::Duration;

use actor::{ChildSpec, Registry, Supervisor};

use super::beside::Beside;
use super::mail::Mailboxes;
use crate::communication::{self, Communication};
use crate::config::{EdgeConfig, Module};
use crate::device::{self, Device};
use crate::last_batch::LastBatch;
use crate::membership::{self, Membership};
use crate::meta_manager::{self, MetaManager};
use crate::store::Store;
use crate::twin::{self, Twin};
use crate::{edge_hub, edged};

/// Messages that are committed as one transaction (group commit: one sync of the disk for all of them).
const BATCH: usize = 512;

/// What outlives the incarnations of the modules that have no socket.
#[derive(Clone, Default)]
pub struct Shared {
    pub communication: communication::Shared,
    pub membership: LastBatch,
    pub births: membership::Births,
    pub twin: LastBatch,
    pub device: LastBatch,
    pub meta_manager: meta_manager::Shared,
}

/// Everything that a module is made of.
pub struct Modules {
    /// What is in force; decides which modules run.
    pub config: EdgeConfig,
    pub mail: Mailboxes,
    pub store: Store,
    pub beside: Arc<Beside>,
    pub shared: Shared,
}

impl Modules {
    /// The actors, in start order: who takes effects before who makes them.
    pub fn tree(&self, registry: &Registry) -> Supervisor {
        let policy = self.config.supervision.policy();
        // What the manual calls the DeviceTwin controller (ch. 10.2): one-for-one, because all that they know is in the store.
        let device_twin = Supervisor::new("device-twin", policy.clone())
            .registered(registry)
            .child(self.communication())
            .child(self.membership())
            .child(self.twin())
            .child(self.device());
        Supervisor::new("skep-edge", policy)
            .registered(registry)
            .child(self.event_bus())
            .child(self.edge_hub())
            .child(ChildSpec::tree(device_twin))
            .child(self.meta_manager())
            .child(self.edged())
    }

    pub fn event_bus(&self) -> ChildSpec {
        match self.beside.mqtt().as_ref() {
            Some(mqtt) => ChildSpec::new(&self.mail.event_bus, mqtt.factory(self.store.clone())).snapshot(mqtt.snapshot()),
            None => ChildSpec::disabled(&self.mail.event_bus),
        }
    }

    pub fn edge_hub(&self) -> ChildSpec {
        let mail = &self.mail;
        let peers = edge_hub::Peers {
            own: mail.edge_hub.clone(),
            meta_manager: mail.meta_manager.clone(),
            membership: mail.membership.clone(),
            twin: mail.twin.clone(),
            device: mail.device.clone(),
            communication: mail.communication.clone(),
            event_bus: self.config.runs(Module::EventBus).then(|| mail.event_bus.clone()),
            edged: self.config.runs(Module::Edged).then(|| mail.edged.clone()),
        };
        match self.beside.link().as_ref() {
            Some(link) => ChildSpec::new(&mail.edge_hub, link.factory(peers)).snapshot(link.snapshot()),
            None => ChildSpec::disabled(&mail.edge_hub),
        }
    }

    fn communication(&self) -> ChildSpec {
        let mail = &self.mail;
        let peers = communication::Peers { event_bus: mail.event_bus.clone(), edge_hub: mail.edge_hub.clone() };
        let (settings, store, shared) = (communication::Config::new(self.config.node()), self.store.clone(), self.shared.communication.clone());
        let page = (shared.clone(), store.clone());
        ChildSpec::new(&mail.communication, move || Communication::new(settings.clone(), store.clone(), peers.clone(), shared.clone()))
            .snapshot(move || communication::Snapshot::of(&page.0, &page.1))
    }

    fn membership(&self) -> ChildSpec {
        let peers = membership::Peers { communication: self.mail.communication.clone(), births: self.shared.births.clone() };
        let (settings, store, shared) = (membership::Config::new(self.config.node()), self.store.clone(), self.shared.membership.clone());
        let page = (shared.clone(), store.clone());
        ChildSpec::new(&self.mail.membership, move || Membership::new(settings.clone(), store.clone(), peers.clone()).publishing(shared.clone()))
            .batch(BATCH)
            .snapshot(move || membership::Snapshot::of(&page.0, &page.1))
    }

    fn twin(&self) -> ChildSpec {
        let peers = twin::Peers {
            communication: self.mail.communication.clone(),
            membership: self.mail.membership.clone(),
            births: self.shared.births.clone(),
        };
        let (store, shared) = (self.store.clone(), self.shared.twin.clone());
        let page = (shared.clone(), store.clone());
        let make = move || Twin::new(twin::Config::default(), store.clone(), peers.clone()).publishing(shared.clone());
        ChildSpec::new(&self.mail.twin, make).batch(BATCH).snapshot(move || twin::Snapshot::of(&page.0, &page.1))
    }

    fn device(&self) -> ChildSpec {
        let peers = device::Peers {
            communication: self.mail.communication.clone(),
            membership: self.mail.membership.clone(),
            births: self.shared.births.clone(),
        };
        let (store, shared) = (self.store.clone(), self.shared.device.clone());
        let page = (shared.clone(), store.clone());
        let make = move || Device::new(device::Config::default(), store.clone(), peers.clone()).publishing(shared.clone());
        ChildSpec::new(&self.mail.device, make).batch(BATCH).snapshot(move || device::Snapshot::of(&page.0, &page.1))
    }

    pub fn meta_manager(&self) -> ChildSpec {
        let (mail, config) = (&self.mail, &self.config);
        if !config.runs(Module::MetaManager) {
            return ChildSpec::disabled(&mail.meta_manager);
        }
        let peers = meta_manager::Peers {
            edge_hub: mail.edge_hub.clone(),
            edged: config.runs(Module::Edged).then(|| mail.edged.clone()),
            own: mail.meta_manager.clone(),
        };
        let period = Duration::from_secs(config.meta.sync.podstatus.interval);
        let (settings, store) = (meta_manager::Config::new(config.node(), config.namespace(), period), self.store.clone());
        let shared = self.shared.meta_manager.clone();
        let page = (shared.clone(), store.clone());
        let make = move || MetaManager::new(store.clone(), settings.clone(), peers.clone()).publishing(shared.clone());
        ChildSpec::new(&mail.meta_manager, make).batch(BATCH).snapshot(move || meta_manager::Snapshot::of(&page.0, &page.1))
    }

    pub fn edged(&self) -> ChildSpec {
        let peers = edged::Peers { meta_manager: self.mail.meta_manager.clone(), own: self.mail.edged.clone() };
        match self.beside.engine().as_ref() {
            Some(engine) => ChildSpec::new(&self.mail.edged, engine.factory(self.store.clone(), peers)).snapshot(engine.snapshot()),
            None => ChildSpec::disabled(&self.mail.edged),
        }
    }
}
