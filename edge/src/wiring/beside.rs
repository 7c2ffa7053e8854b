//! What stands beside the actors for as long as their module is enabled: broker and MQTT client, the link, the engine.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use actor::chain;
use admin::Exit;

use super::mail::Mailboxes;
use crate::config::{EdgeConfig, Module};
use crate::edge_hub::{self, Link};
use crate::edged::{Engine, EngineError};
use crate::event_bus::{self, Sockets};
use crate::store::{Store, subscription};
use crate::tls::{self, NodeTls};

/// The sockets and the engine that are there now. They are read by the page's thread, and taken out by whoever closes them.
#[derive(Default)]
pub struct Beside {
    mqtt: Mutex<Option<Sockets>>,
    link: Mutex<Option<Link>>,
    engine: Mutex<Option<Engine>>,
    watch: Mutex<Option<tokio::task::JoinHandle<()>>>,
}

impl Beside {
    /// Broker and MQTT client; `None` once they are closed, or where EventBus does not run.
    pub fn mqtt(&self) -> MutexGuard<'_, Option<Sockets>> {
        lock(&self.mqtt)
    }

    /// The connection to the cloud; `None` once it is closed, or where EdgeHub does not run.
    pub fn link(&self) -> MutexGuard<'_, Option<Link>> {
        lock(&self.link)
    }

    /// The container engine; `None` where Edged does not run.
    pub fn engine(&self) -> MutexGuard<'_, Option<Engine>> {
        lock(&self.engine)
    }

    /// Follows the engine's events from now on. They stay on the calling thread.
    pub fn watch_engine(&self) {
        let watch = self.engine().as_ref().map(|engine| actix_rt::spawn(engine.watch()));
        *lock(&self.watch) = watch;
    }

    /// Says goodbye to the cloud; waits for its thread, some seconds at most.
    pub async fn close_link(&self) {
        let link = self.link().take();
        drop_elsewhere(link).await;
    }

    /// Says goodbye to the brokers and stops the embedded one; waits for their threads, some seconds at most.
    pub async fn close_mqtt(&self) {
        let mqtt = self.mqtt().take();
        drop_elsewhere(mqtt).await;
    }

    /// Looks at the engine no more. Its containers go on running.
    pub fn leave_engine(&self) {
        if let Some(watch) = lock(&self.watch).take() {
            watch.abort();
        }
        self.engine().take();
    }
}

/// A drop that blocks: the supervisor's thread must go on.
async fn drop_elsewhere<T: Send + 'static>(what: T) {
    let _ = tokio::task::spawn_blocking(move || drop(what)).await;
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing under these locks can panic half-way.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Broker and MQTT client.
///
/// # Errors
/// [`Exit`]: an address that cannot be used, a port that is taken.
pub fn start_mqtt(config: &EdgeConfig, mail: &Mailboxes, store: &Store) -> Result<Sockets, Exit> {
    let mut settings =
        event_bus::Config::new(&config.mqtt, config.node()).map_err(|error| Exit::Configuration(format!("in the configuration, {error}")))?;
    settings.in_hand = config.mailbox.messages * 3 / 4;
    let peers = event_bus::Peers {
        twin: mail.twin.clone(),
        membership: mail.membership.clone(),
        device: mail.device.clone(),
        communication: mail.communication.clone(),
        own: mail.event_bus.clone(),
    };
    // Without them devices are served all the same.
    let subscriptions = store.read(subscription::all).unwrap_or_else(|error| {
        log::error!(error = chain(&error).as_str(); "the cloud's MQTT subscriptions cannot be read; they are missing until it makes them again");
        Vec::new()
    });
    Sockets::start(settings, peers, subscriptions).map_err(|error| Exit::Unavailable(chain(&error)))
}

/// The connection to the cloud. It begins at once, and is tried again for ever.
///
/// # Errors
/// [`Exit`]: no thread.
pub fn start_link(config: &EdgeConfig, mail: &Mailboxes) -> Result<Link, Exit> {
    let files = config.identity();
    let tls = Arc::new(move || tls::load_files(files.clone(), SystemTime::now()).map(|identity| identity.config).map_err(|error| chain(&error)));
    // A cloud that is not trusted is like one that is away: devices and pods are served, and the log says what to do. Only
    // certificates that do not fit together on this machine end the daemon, before anything starts.
    let link = Link::start(edge_hub::Config::new(config), tls, mail.edge_hub.clone(), |_| {});
    link.map_err(|error| Exit::State(format!("cannot start the connection's thread: {error}")))
}

/// The container engine, which need not answer yet.
///
/// # Errors
/// [`Exit`]: an address that cannot be used, a directory that cannot be made.
pub fn open_engine(config: &EdgeConfig, mail: &Mailboxes) -> Result<Engine, Exit> {
    Engine::open(config, mail.edged.clone()).map_err(|error| engine_unusable(&error))
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
///
/// # Errors
/// [`Exit`].
pub async fn engine_at_first_start(config: &EdgeConfig) -> Result<(), Exit> {
    if !config.runs(Module::Edged) || config.database().exists() {
        return Ok(());
    }
    Engine::answers(config).await.map_err(|error| engine_unusable(&error))
}

/// The node's certificate, checked before anything starts.
///
/// # Errors
/// [`Exit::Certificate`].
pub fn identity(config: &EdgeConfig) -> Result<NodeTls, Exit> {
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
    Ok(identity)
}

/// Makes the directory of everything that is kept.
///
/// # Errors
/// [`Exit::State`].
pub fn prepare_directory(directory: &Path) -> Result<(), Exit> {
    std::fs::create_dir_all(directory).map_err(|error| {
        Exit::State(format!("cannot make the state directory `{}`: {error}; give this user the right to, or set `data-dir`", directory.display()))
    })
}
