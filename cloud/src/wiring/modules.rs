//! The mailboxes, and how each module is started.

use std::sync::Arc;

use actor::{ChildSpec, Handle, Registry, Supervisor, mailbox_with_bytes};
use model::{Clock, SystemClock};

use super::api::connect;
use crate::cloud_hub::{CloudHub, CloudHubMessage, Hub};
use crate::config::{CloudConfig, MailboxConfig};
use crate::device_controller::{self, DeviceController, DeviceControllerMessage};
use crate::edge_controller::downstream::{self, Downstream, DownstreamMessage};
use crate::edge_controller::upstream::{self, Upstream, UpstreamMessage};
use crate::standing::Standing;

const MIB: usize = 1 << 20;

/// Messages that a module takes at once.
const BATCH: usize = 256;

/// Messages and MiB of a mailbox where the configuration does not say otherwise.
type Room = (usize, usize);
const CLOUD_HUB: Room = (8192, 64);
const DOWNSTREAM: Room = (1024, 16);
const UPSTREAM: Room = (4096, 32);
const DEVICE_CONTROLLER: Room = (4096, 32);

/// Every mailbox of the service, made before any actor. Cheap to clone.
#[derive(Clone)]
pub struct Mailboxes {
    pub cloud_hub: Handle<CloudHubMessage>,
    pub downstream: Handle<DownstreamMessage>,
    pub upstream: Handle<UpstreamMessage>,
    pub device_controller: Handle<DeviceControllerMessage>,
}

impl Mailboxes {
    /// With the room that the configuration gives.
    pub fn new(config: &MailboxConfig) -> Self {
        fn make<M: actor::Mail>(name: &'static str, (messages, bytes): Room) -> Handle<M> {
            mailbox_with_bytes(name, messages, bytes)
        }
        Self {
            cloud_hub: make("cloud_hub", room(config, CLOUD_HUB)),
            downstream: make("downstream", room(config, DOWNSTREAM)),
            upstream: make("upstream", room(config, UPSTREAM)),
            device_controller: make("device_controller", room(config, DEVICE_CONTROLLER)),
        }
    }

    /// Gives them another room. What is above a smaller one is worked off.
    pub fn set_limits(&self, config: &MailboxConfig) {
        fn set<M: actor::Mail>(mailbox: &Handle<M>, (messages, bytes): Room) {
            mailbox.set_limits(messages, bytes);
        }
        set(&self.cloud_hub, room(config, CLOUD_HUB));
        set(&self.downstream, room(config, DOWNSTREAM));
        set(&self.upstream, room(config, UPSTREAM));
        set(&self.device_controller, room(config, DEVICE_CONTROLLER));
    }
}

/// Messages and bytes.
fn room(config: &MailboxConfig, (messages, mib): Room) -> Room {
    (config.messages.unwrap_or(messages), config.bytes.unwrap_or(mib) * MIB)
}

/// What the controllers have seen of the API; outlives their incarnations.
#[derive(Clone, Default)]
pub struct Api {
    downstream: Standing,
    upstream: Standing,
    device_controller: Standing,
}

impl Api {
    /// Why the API cannot be used, if it cannot.
    ///
    /// # Errors
    /// What the first of the controllers lacks.
    pub fn check(&self) -> Result<(), String> {
        self.downstream.check().and_then(|()| self.upstream.check()).and_then(|()| self.device_controller.check())
    }
}

/// The actors, in start order. Each incarnation has a client of its own, whose connections live on its arbiter and end
/// with it.
pub fn tree(config: &CloudConfig, mail: &Mailboxes, hub: &Arc<Hub>, kube: &kube::Config, api: &Api, registry: &Registry) -> Supervisor {
    let namespace = config.controller.kube.namespace.clone();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let cloud_hub = ChildSpec::new(&mail.cloud_hub, {
        let hub = hub.clone();
        move || CloudHub::new(hub.clone())
    });
    let cloud_hub = cloud_hub.snapshot({
        let hub = hub.clone();
        move || hub.snapshot()
    });
    let (known, standing) = (downstream::Shared::default(), api.downstream.clone());
    let page = (known.clone(), standing.clone());
    let downstream = ChildSpec::new(&mail.downstream, {
        let settings = downstream::Config { namespace: namespace.clone() };
        let peers = downstream::Peers { downstream: mail.downstream.clone(), cloud_hub: mail.cloud_hub.clone() };
        let (kube, clock) = (kube.clone(), clock.clone());
        move || Downstream::new(settings.clone(), peers.clone(), connect(&kube).seen_by(standing.clone()), clock.clone()).publishing(known.clone())
    })
    .snapshot(move || downstream::Snapshot::of(&page.0, &page.1));
    let (known, standing) = (upstream::state::Shared::default(), api.upstream.clone());
    let page = (known.clone(), standing.clone());
    let upstream = ChildSpec::new(&mail.upstream, {
        let peers = upstream::Peers { upstream: mail.upstream.clone(), downstream: mail.downstream.clone(), cloud_hub: mail.cloud_hub.clone() };
        let (kube, clock) = (kube.clone(), clock.clone());
        move || Upstream::new(peers.clone(), connect(&kube).seen_by(standing.clone()), clock.clone()).publishing(known.clone())
    })
    .snapshot(move || upstream::state::Snapshot::of(&page.0, &page.1));
    let (known, standing) = (device_controller::page::Shared::default(), api.device_controller.clone());
    let page = (known.clone(), standing.clone());
    let device_controller = ChildSpec::new(&mail.device_controller, {
        let settings = device_controller::Config { namespace };
        let peers = device_controller::Peers { device_controller: mail.device_controller.clone(), cloud_hub: mail.cloud_hub.clone() };
        let kube = kube.clone();
        move || {
            DeviceController::new(settings.clone(), peers.clone(), connect(&kube).seen_by(standing.clone()), clock.clone()).publishing(known.clone())
        }
    })
    .snapshot(move || device_controller::page::Snapshot::of(&page.0, &page.1));
    Supervisor::new("skep-cloud", config.supervision.policy())
        .registered(registry)
        .child(cloud_hub)
        .child(downstream.batch(BATCH))
        .child(upstream.batch(BATCH))
        .child(device_controller.batch(BATCH))
}
