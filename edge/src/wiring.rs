//! The one place where mailboxes meet: capacities, peers, start order, and the orderly stop.
//!
//! Start order: certificates and store are checked, ports are bound, then the actors start under their supervisor, and
//! the sockets last. Stop order is the reverse: the sockets first, so that nothing new comes in while what is queued is
//! worked off; then each actor drains.
//!
//! | mailbox | capacity | when it is full |
//! |---|---|---|
//! | `twin`, `membership`, `device` | 1024 | MQTT: the request is answered with an error; cloud: the frame is not acknowledged and comes again |
//! | `communication` | 1024 | its senders reserve room before they commit, and wait |
//! | `event-bus` | 1024 | Communication waits, then drops publications and counts them |
//! | `meta-manager`, `edge-hub` | 1024 | the cloud link reads no further |
//! | `edged` | 1024 | hints are dropped: it lists the store again anyway |

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use actix_web::web;
use actor::{ChildSpec, Handle, Policy, Quarantine, Registry, Running, Supervisor, chain, mailbox};
use admin::{AdminConfig, AdminServer, Exit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::communication::{self, Communication, CommunicationMessage};
use crate::config::{EdgeConfig, Module};
use crate::device::{self, Device, DeviceMessage};
use crate::edge_hub::{self, EdgeHubMessage, Link};
use crate::edged::{self, EdgedMessage, Engine, EngineError};
use crate::event_bus::{self, EventBusMessage, Sockets};
use crate::figures;
use crate::membership::{self, Membership, MembershipMessage};
use crate::meta_manager::{self, MetaManager, MetaManagerMessage};
use crate::store::{STUCK_AFTER, Store};
use crate::systemd;
use crate::tls::{self, NodeTls};
use crate::twin::{self, Twin, TwinMessage};

/// Messages that fit into one mailbox.
const CAPACITY: usize = 1024;
/// Messages that are committed as one transaction (group commit: one sync of the disk for all of them).
const BATCH: usize = 512;

/// Runs the daemon until SIGTERM or SIGINT.
///
/// # Errors
/// See [`Exit`]; each ends the process with a stated code.
pub fn run(config: EdgeConfig) -> Result<(), Exit> {
    actor::install_panic_hook();
    // One provider for all TLS of this process; a second install would only return the first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    actix_rt::System::new().block_on(serve(config))
}

async fn serve(config: EdgeConfig) -> Result<(), Exit> {
    // First, so that a signal during start-up is not lost.
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    admin::outlive_hangup()?;
    prepare_directory(&config.data_dir)?;
    let identity = identity(&config)?;
    engine_at_first_start(&config).await?;
    let _claim = admin::claim(&config.database())?;
    let store = Store::open(config.database()).map_err(|error| database_unusable(&config.database(), &chain(&error)))?;
    store.end_process_when_stuck(STUCK_AFTER).map_err(|error| Exit::State(format!("cannot start the store's watch: {error}")))?;

    // How a message of it enters again, and who hears that one came here, is said by the borders: EventBus and EdgeHub.
    let quarantine = open_quarantine(&config)?;
    let registry = Registry::with_quarantine(quarantine.clone());

    let mail = Mailboxes::new();
    let mqtt = start_mqtt(&config, &mail)?;
    let link = start_link(&config, identity.is_some(), &mail)?;
    let engine = open_engine(&config, &mail)?;
    let reports = communication::Shared::default();
    let (escalate, mut escalated) = mpsc::unbounded_channel();
    let running = supervise(&config, &mail, &store, mqtt.as_ref(), link.as_ref(), engine.as_ref(), &reports)?.registered(&registry).start(move |why| {
        let _ = escalate.send(why);
    });
    let seen = Arc::new(figures::Sources { store, mqtt: Mutex::new(mqtt), link: Mutex::new(link), reports });
    // Ends by itself when Edged's mailbox is closed.
    engine.map(|engine| actix_rt::spawn(engine.watch()));
    let admin = start_admin(&config, &running, seen.clone());
    let admin = match admin {
        Ok(admin) => admin,
        Err(exit) => {
            stop(&running, &seen, None).await;
            return Err(exit);
        }
    };
    log::info!(node = config.node().as_str(), admin = format!("http://{}", config.admin()).as_str(); "skep-edge is up");
    systemd::ready();
    let watch = actix_rt::spawn(systemd::watch(running.registry()));

    let end = tokio::select! {
        _ = terminate.recv() => Ok("SIGTERM"),
        _ = interrupt.recv() => Ok("SIGINT"),
        why = escalated.recv() => Err(Exit::Supervision(why.unwrap_or_default())),
    };
    watch.abort();
    systemd::stopping();
    if let Ok(signal) = end {
        log::info!(signal = signal; "stopping");
    }
    tokio::select! {
        () = stop(&running, &seen, Some(&admin)) => {}
        _ = terminate.recv() => log::warn!("second signal: ending at once"),
        _ = interrupt.recv() => log::warn!("second signal: ending at once"),
    }
    quarantine.flush();
    end.map(|_| ())
}

fn open_quarantine(config: &EdgeConfig) -> Result<Quarantine, Exit> {
    let directory = config.quarantine_dir();
    Quarantine::open(&directory).map_err(|error| {
        Exit::State(format!("cannot use the quarantine's directory `{}`: {error}; give this user the right to, or set `data-dir`", directory.display()))
    })
}

/// Every mailbox of the daemon; made before any actor, so that rings need no registry.
struct Mailboxes {
    twin: Handle<TwinMessage>,
    membership: Handle<MembershipMessage>,
    device: Handle<DeviceMessage>,
    communication: Handle<CommunicationMessage>,
    event_bus: Handle<EventBusMessage>,
    edge_hub: Handle<EdgeHubMessage>,
    meta_manager: Handle<MetaManagerMessage>,
    edged: Handle<EdgedMessage>,
}

impl Mailboxes {
    fn new() -> Self {
        Self {
            twin: mailbox("twin", CAPACITY),
            membership: mailbox("membership", CAPACITY),
            device: mailbox("device", CAPACITY),
            communication: mailbox("communication", CAPACITY),
            event_bus: mailbox("event-bus", CAPACITY),
            edge_hub: mailbox("edge-hub", CAPACITY),
            meta_manager: mailbox("meta-manager", CAPACITY),
            edged: mailbox("edged", CAPACITY),
        }
    }
}

fn start_mqtt(config: &EdgeConfig, mail: &Mailboxes) -> Result<Option<Sockets>, Exit> {
    if !config.runs(Module::EventBus) {
        return Ok(None);
    }
    let settings =
        event_bus::Config::new(&config.mqtt, config.node()).map_err(|error| Exit::Configuration(format!("in the configuration, {error}")))?;
    let peers = event_bus::Peers {
        twin: mail.twin.clone(),
        membership: mail.membership.clone(),
        device: mail.device.clone(),
        communication: mail.communication.clone(),
        own: mail.event_bus.clone(),
    };
    Sockets::start(settings, peers).map(Some).map_err(|error| Exit::Unavailable(chain(&error)))
}

fn start_link(config: &EdgeConfig, joined: bool, mail: &Mailboxes) -> Result<Option<Link>, Exit> {
    if !joined {
        return Ok(None);
    }
    let files = config.identity();
    let tls = Arc::new(move || tls::load_files(files.clone(), SystemTime::now()).map(|identity| identity.config).map_err(|error| chain(&error)));
    // A cloud that is not trusted is like one that is away: devices and pods are served, and the log says what to do. Only
    // certificates that do not fit together on this machine end the daemon, before anything starts.
    let link = Link::start(edge_hub::Config::new(config), tls, mail.edge_hub.clone(), |_| {});
    link.map(Some).map_err(|error| Exit::State(format!("cannot start the connection's thread: {error}")))
}

fn open_engine(config: &EdgeConfig, mail: &Mailboxes) -> Result<Option<Engine>, Exit> {
    if !config.runs(Module::Edged) {
        return Ok(None);
    }
    Engine::open(config, mail.edged.clone()).map(Some).map_err(|error| engine_unusable(&error))
}

fn engine_unusable(error: &EngineError) -> Exit {
    match error {
        EngineError::Address(_) => Exit::Configuration(chain(error)),
        EngineError::Directory { .. } => Exit::State(chain(error)),
        EngineError::NoAnswer { .. } => Exit::Unavailable(chain(error)),
    }
}

/// An engine that does not answer is a mistake in the configuration when a machine starts for the first time, and ends the
/// daemon before anything is written. Later it is an outage: devices are served, the node is not Ready and says why.
async fn engine_at_first_start(config: &EdgeConfig) -> Result<(), Exit> {
    if !config.runs(Module::Edged) || config.database().exists() {
        return Ok(());
    }
    Engine::answers(config).await.map_err(|error| engine_unusable(&error))
}

/// The actors, in start order: who takes effects before who makes them.
fn supervise(
    config: &EdgeConfig,
    mail: &Mailboxes,
    store: &Store,
    mqtt: Option<&Sockets>,
    link: Option<&Link>,
    engine: Option<&Engine>,
    reports: &communication::Shared,
) -> Result<Supervisor, Exit> {
    let node = config.node();
    let mut tree = Supervisor::new("skep-edge", Policy::default());

    tree = tree.child(match mqtt {
        Some(mqtt) => ChildSpec::new(&mail.event_bus, mqtt.factory()),
        None => ChildSpec::disabled(&mail.event_bus),
    });

    let peers = edge_hub::Peers {
        own: mail.edge_hub.clone(),
        meta_manager: mail.meta_manager.clone(),
        membership: mail.membership.clone(),
        twin: mail.twin.clone(),
        device: mail.device.clone(),
        communication: mail.communication.clone(),
        event_bus: mqtt.map(|_| mail.event_bus.clone()),
        edged: config.runs(Module::Edged).then(|| mail.edged.clone()),
    };
    tree = tree.child(match link {
        Some(link) => ChildSpec::new(&mail.edge_hub, link.factory(peers)),
        None => ChildSpec::disabled(&mail.edge_hub),
    });

    let peers = communication::Peers { own: mail.communication.clone(), event_bus: mail.event_bus.clone(), edge_hub: mail.edge_hub.clone() };
    let (settings, kept, shared) = (communication::Config::new(node.clone()), store.clone(), reports.clone());
    tree = tree.child(ChildSpec::new(&mail.communication, move || Communication::new(settings.clone(), kept.clone(), peers.clone(), shared.clone())));

    let peers = membership::Peers { communication: mail.communication.clone() };
    let (settings, kept) = (membership::Config::new(node.clone()), store.clone());
    tree = tree.child(ChildSpec::new(&mail.membership, move || Membership::new(settings.clone(), kept.clone(), peers.clone())).batch(BATCH));

    let peers = twin::Peers { communication: mail.communication.clone(), membership: mail.membership.clone() };
    let kept = store.clone();
    tree = tree.child(ChildSpec::new(&mail.twin, move || Twin::new(twin::Config::default(), kept.clone(), peers.clone())).batch(BATCH));

    let peers = device::Peers { communication: mail.communication.clone(), membership: mail.membership.clone() };
    let kept = store.clone();
    tree = tree.child(ChildSpec::new(&mail.device, move || Device::new(device::Config::default(), kept.clone(), peers.clone())).batch(BATCH));

    let peers = meta_manager::Peers { edge_hub: mail.edge_hub.clone(), edged: engine.map(|_| mail.edged.clone()), own: mail.meta_manager.clone() };
    let period = Duration::from_secs(config.meta.sync.podstatus.interval);
    let (settings, kept) = (meta_manager::Config::new(node, config.namespace(), period), store.clone());
    tree = tree.child(ChildSpec::new(&mail.meta_manager, move || MetaManager::new(kept.clone(), settings.clone(), peers.clone())).batch(BATCH));

    let peers = edged::Peers { meta_manager: mail.meta_manager.clone(), own: mail.edged.clone() };
    tree = tree.child(match engine {
        Some(engine) => ChildSpec::new(&mail.edged, engine.factory(store.clone(), peers)),
        None => ChildSpec::disabled(&mail.edged),
    });
    Ok(tree)
}

fn start_admin(config: &EdgeConfig, running: &Running, seen: Arc<figures::Sources>) -> Result<AdminServer, Exit> {
    let store = web::Data::new(seen.store.clone());
    let admin = AdminConfig {
        listen: vec![config.admin()],
        read_only: config.read_only().filter(|_| config.runs(Module::Edged)).into_iter().collect(),
        hosts: Vec::new(),
        access: admin::Access::Loopback,
        title: format!("skep-edge {}", config.node()),
        prefix: "skep_edge",
        extra: Arc::new(move || seen.metrics()),
        checks: Arc::new(Vec::new),
        fault_injection: false,
        log: None,
        routes: edged::read_only::routes,
        data: Arc::new(move |server| {
            server.app_data(store.clone());
        }),
    };
    admin::serve(admin, running.clone()).map_err(|error| Exit::Unavailable(chain(&error)))
}

/// The actors drain, last started first: mailboxes close towards the border, so what was accepted is still answered. Then
/// the sockets say goodbye; the page goes last, because it shows the drain.
async fn stop(running: &Running, seen: &figures::Sources, admin: Option<&AdminServer>) {
    running.shutdown().await;
    seen.close_sockets().await;
    if let Some(admin) = admin {
        admin.stop().await;
    }
}

fn listen(kind: SignalKind) -> Result<Signal, Exit> {
    signal(kind).map_err(|error| Exit::State(format!("cannot listen for signals: {error}")))
}

fn prepare_directory(directory: &Path) -> Result<(), Exit> {
    std::fs::create_dir_all(directory).map_err(|error| {
        Exit::State(format!("cannot make the state directory `{}`: {error}; give this user the right to, or set `data-dir`", directory.display()))
    })
}

/// Some of the store's errors can come at any time and do not name the file; at the start the operator needs its name.
fn database_unusable(database: &std::path::Path, why: &str) -> Exit {
    let file = database.display().to_string();
    Exit::State(if why.contains(&file) { why.to_owned() } else { format!("cannot use the database `{file}`: {why}") })
}

/// The node's certificate, checked before anything starts. `None` if this edge has no cloud (`websocket` is not enabled).
fn identity(config: &EdgeConfig) -> Result<Option<NodeTls>, Exit> {
    if !config.runs(Module::WebSocket) {
        return Ok(None);
    }
    let files = config.identity();
    let certificate = files.certificate.display().to_string();
    let identity = tls::load_files(files, SystemTime::now()).map_err(|error| Exit::Certificate(chain(&error)))?;
    if identity.node != config.node() {
        return Err(Exit::Certificate(format!(
            "the certificate `{certificate}` is of node `{}`, but this node is called `{}`: set edgehub.controller.node-id to the certificate's name, or join again",
            identity.node,
            config.node()
        )));
    }
    Ok(Some(identity))
}
