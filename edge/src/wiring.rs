//! The one place where mailboxes meet: capacities, peers, start order, and the orderly stop.
//!
//! Start order: certificates and store are checked, ports are bound, then the actors start under their supervisors, and
//! the sockets last. Stop order is the reverse: each actor drains, then the sockets say goodbye; the page goes last,
//! because it shows the drain.
//!
//! ```text
//! skep-edge ─┬─ event-bus
//!            ├─ edge-hub
//!            ├─ device-twin ─┬─ communication
//!            │               ├─ membership
//!            │               ├─ twin
//!            │               └─ device
//!            ├─ meta-manager
//!            └─ edged
//! ```
//!
//! | mailbox (`mailbox.messages`, `mailbox.bytes`) | when it is full |
//! |---|---|
//! | `twin`, `membership`, `device` | MQTT: the request is answered with an error; cloud: the frame is not acknowledged and comes again |
//! | `communication` | its senders reserve room before they commit, and wait |
//! | `event-bus` | Communication waits, then drops publications and counts them |
//! | `meta-manager`, `edge-hub` | the cloud link reads no further |
//! | `edged` | hints are dropped: it lists the store again anyway |

mod beside;
mod mail;
mod modules;
mod page;

use std::path::Path;
use std::sync::Arc;

use actor::{EventKind, Quarantine, Registry, Running, chain};
use admin::systemd::{self, Patience};
use admin::{AdminServer, Exit, LogControl};
use model::{Clock as _, SystemClock};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

pub use beside::Beside;
pub(crate) use beside::{identity, open_engine, prepare_directory, start_link, start_mqtt};
pub(crate) use mail::{Mailboxes, waiting};
pub(crate) use modules::{Modules, Shared};

use crate::config::{ConfigError, EdgeConfig, Module};
use crate::reload::Reload;
use crate::store::{STUCK_AFTER, SetAside, Store};
use crate::{figures, import, quarantine as borders};

/// Runs the daemon until SIGTERM or SIGINT. `reread` gives the configuration anew at each SIGHUP.
///
/// # Errors
/// See [`Exit`]; each ends the process with a stated code.
pub fn run(config: EdgeConfig, log: LogControl, reread: impl Fn() -> Result<EdgeConfig, ConfigError> + 'static) -> Result<(), Exit> {
    actor::install_panic_hook();
    // One provider for all TLS of this process; a second install would only return the first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    actix_rt::System::new().block_on(serve(config, log, Box::new(reread)))
}

async fn serve(config: EdgeConfig, log: LogControl, reread: Box<dyn Fn() -> Result<EdgeConfig, ConfigError>>) -> Result<(), Exit> {
    // First, so that a signal during start-up is not lost.
    let mut signals = Signals::listen()?;
    beside::prepare_directory(&config.data_dir)?;
    if config.runs(Module::WebSocket) {
        identity(&config)?;
    }
    beside::engine_at_first_start(&config).await?;
    let _claim = admin::claim(&config.database())?;
    let (store, damage) = open_store(&config)?;
    store.end_process_when_stuck(STUCK_AFTER).map_err(|error| Exit::State(format!("cannot start the store's watch: {error}")))?;
    let quarantine = open_quarantine(&config)?;
    let registry = Registry::with_quarantine(quarantine.clone());
    if let Some(damage) = &damage {
        registry.note("store", EventKind::Damaged, damage.clone());
    }

    let mail = Mailboxes::new(&config.mailbox);
    let beside = Arc::new(Beside::default());
    borders::attach(&quarantine, &mail, &beside);
    *beside.mqtt() = config.runs(Module::EventBus).then(|| start_mqtt(&config, &mail, &store)).transpose()?;
    *beside.link() = config.runs(Module::WebSocket).then(|| start_link(&config, &mail)).transpose()?;
    *beside.engine() = config.runs(Module::Edged).then(|| open_engine(&config, &mail)).transpose()?;

    let modules = Modules { config, mail, store: store.clone(), beside: beside.clone(), shared: Shared::default() };
    let (escalate, mut escalated) = mpsc::unbounded_channel();
    let damaged = escalate.clone();
    store.when_damaged(move |why| {
        let _ = damaged.send(Exit::State(why));
    });
    let running = modules.tree(&registry).start(move |why| {
        let _ = escalate.send(Exit::Supervision(why));
    });
    beside.watch_engine();
    let seen = Arc::new(figures::Sources { store, damage, beside: beside.clone(), reports: modules.shared.communication.clone() });
    let admin = match page::start(&modules.config, &running, seen.clone(), &log) {
        Ok(admin) => admin,
        Err(exit) => {
            stop(&running, &beside, None).await;
            return Err(exit);
        }
    };
    log::info!(node = modules.config.node().as_str(), admin = format!("http://{}", modules.config.admin()).as_str(); "skep-edge is up");
    systemd::ready();
    let patience = Patience::new(&modules.config.supervision.policy());
    let watch = actix_rt::spawn(systemd::watch(registry.clone(), patience.clone(), move || seen.line(&registry)));
    let mut reload = Reload::new(modules, running.clone(), patience, log, reread);

    let end = loop {
        tokio::select! {
            _ = signals.terminate.recv() => break Ok("SIGTERM"),
            _ = signals.interrupt.recv() => break Ok("SIGINT"),
            _ = signals.hangup.recv() => reload.now().await,
            why = escalated.recv() => break Err(why.unwrap_or_else(|| Exit::Supervision(String::new()))),
        }
    };
    watch.abort();
    systemd::stopping();
    if let Ok(signal) = end {
        log::info!(signal = signal; "stopping");
    }
    let again = async {
        tokio::select! {
            _ = signals.terminate.recv() => {}
            _ = signals.interrupt.recv() => {}
        }
    };
    tokio::select! {
        () = stop(&running, &beside, Some(&admin)) => {
            quarantine.flush();
            log::info!("stopped");
        }
        () = again => {
            log::warn!("second signal: ending at once, what is queued is lost");
            // Their drop would say goodbye and wait for it.
            std::mem::forget(beside);
        }
    }
    end.map(|_| ())
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> Result<Self, Exit> {
        let to = |kind| signal(kind).map_err(|error| Exit::State(format!("cannot listen for signals: {error}")));
        Ok(Self { terminate: to(SignalKind::terminate())?, interrupt: to(SignalKind::interrupt())?, hangup: to(SignalKind::hangup())? })
    }
}

fn open_quarantine(config: &EdgeConfig) -> Result<Quarantine, Exit> {
    let directory = config.quarantine_dir();
    Quarantine::open(&directory).map_err(|error| {
        Exit::State(format!(
            "cannot use the quarantine's directory `{}`: {error}; give this user the right to, or set `data-dir`",
            directory.display()
        ))
    })
}

/// Opens the database. A damaged one is set aside; what could be taken from it is in the new one, and the sentence says
/// what happened.
fn open_store(config: &EdgeConfig) -> Result<(Store, Option<String>), Exit> {
    let database = config.database();
    let (store, set_aside) =
        Store::open_or_begin_anew(&database, config.database_bytes_max()).map_err(|error| database_unusable(&database, &chain(&error)))?;
    let damage = set_aside.map(|SetAside { file, why }| {
        let taken = import::salvage(&store, &file, SystemClock.now());
        let damage = format!(
            "the database was damaged and a new one is begun, which the cloud fills; the old one is kept as `{}`; {taken}; {why}",
            file.display()
        );
        log::error!("{damage}");
        damage
    });
    Ok((store, damage))
}

/// Some of the store's errors can come at any time and do not name the file; at the start the operator needs its name.
fn database_unusable(database: &Path, why: &str) -> Exit {
    let file = database.display().to_string();
    Exit::State(if why.contains(&file) { why.to_owned() } else { format!("cannot use the database `{file}`: {why}") })
}

/// The actors drain, last started first: mailboxes close towards the border, so what was accepted is still answered. Then
/// the sockets say goodbye; the page goes last, because it shows the drain.
async fn stop(running: &Running, beside: &Beside, admin: Option<&AdminServer>) {
    running.shutdown().await;
    beside.leave_engine();
    tokio::join!(beside.close_link(), beside.close_mqtt());
    if let Some(admin) = admin {
        admin.stop().await;
    }
}
