//! The embedded Kubernetes API: what `skep-cloud` serves where there is no cluster.
//!
//! Enough of the real protocol that an unchanged `kubectl` and the `kube` crate cannot tell the difference for
//! the kinds in [`kind::KINDS`]; everything else is the API's own 404. HTTPS with client certificates, on its own
//! threads, over SQLite.
//!
//! | file | duty |
//! |---|---|
//! | `http`, `tls` | threads, connections, who may use the API |
//! | `api`, `request`, `protobuf`, `form`, `list`, `watch` | from a request to an operation and back: paths, bodies, answers |
//! | `discovery`, `openapi` | what clients ask before they ask anything |
//! | `operations/` | create, update, patch, delete: read, decide, write, inside one transaction |
//! | `admission`, `validate`, `defaults`, `schema`, `typed`, `names` | what is checked and filled in |
//! | `patch/` | JSON, merge, strategic merge patch, server-side apply |
//! | `store/`, `history` | SQLite, one writer; the recent events for watches |
//! | `selector`, `table/` | label and field selectors, printed columns |
//! | `controllers/` | binding of pods, health of nodes, garbage |
//!
//! Invariant: an answer leaves only after the commit. Invariant: every error is a `kind: Status`.

mod admission;
mod api;
mod controllers;
mod defaults;
mod discovery;
mod form;
mod history;
mod http;
pub mod kind;
mod list;
mod names;
mod object;
mod openapi;
mod operations;
mod patch;
mod protobuf;
mod request;
mod schema;
mod selector;
mod status_error;
mod store;
mod table;
#[cfg(test)]
mod tests;
mod tls;
mod typed;
mod validate;
mod watch;

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use store::{Store, StoreError};

pub use store::Commits;

/// What the embedded API needs to start.
#[derive(Clone, Debug)]
pub struct EmbeddedConfig {
    /// Address to listen on; 127.0.0.1 unless the operator says otherwise.
    pub address: IpAddr,
    /// Port; 10443 by default, 0 lets the system choose.
    pub port: u16,
    /// The SQLite file, `<data>/cloud.db`. Its directory has to exist.
    pub database: PathBuf,
    /// PEM certificate (chain) of the server.
    pub server_certificate: PathBuf,
    /// PEM key of the server.
    pub server_key: PathBuf,
    /// PEM certificates of the authorities that sign clients.
    pub client_ca: PathBuf,
    /// A node whose lease and status are older than this becomes `Unknown`; 40 s in Kubernetes.
    pub lease_duration: Duration,
}

/// Why the embedded API did not start. Each is one sentence that says what, where, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// Another process has the port.
    #[error("the port of the embedded API, {address}, is in use: stop the other process or set another port")]
    PortOccupied {
        /// The address that was tried.
        address: SocketAddr,
    },
    /// The address cannot be used for another reason.
    #[error("cannot listen on {address} for the embedded API: {source}")]
    Listen {
        /// The address that was tried.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The directory of the database is missing or not writable.
    #[error("the state directory `{path}` is not writable ({source}): create it or give this user write permission")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A newer program wrote the database.
    #[error("the database `{path}` is at schema {found}, this program knows up to {known}: start the newer program, or move the file away")]
    DatabaseTooNew {
        /// The file.
        path: PathBuf,
        /// Newest migration in the file.
        found: String,
        /// Newest migration of this program.
        known: String,
    },
    /// The database cannot be opened.
    #[error("cannot use the database `{path}`: {why}")]
    Database {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        why: String,
    },
    /// A certificate or key cannot be used.
    #[error("cannot use `{path}` for the embedded API: {why}")]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A thread could not be started.
    #[error("cannot start the threads of the embedded API: {0}")]
    Thread(String),
}

/// The running API. Dropping it does not stop it; see [`EmbeddedApi::stop`].
#[derive(Debug)]
pub struct EmbeddedApi {
    /// Where it listens, with the port that the system chose for port 0.
    pub addr: SocketAddr,
    /// How long the commits of its store took.
    pub commits: Arc<Commits>,
    stop: tokio::sync::watch::Sender<bool>,
    ended: tokio::sync::watch::Receiver<bool>,
}

impl EmbeddedApi {
    /// Closes all watches and connections and waits until the API has ended.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        // An error means that the thread is gone already.
        let _ = self.ended.wait_for(|ended| *ended).await;
    }

    /// Resolves when the API has ended, whether it was stopped or died.
    pub async fn ended(&self) {
        let _ = self.ended.clone().wait_for(|ended| *ended).await;
    }
}

/// Opens the database, binds the port and serves on threads of its own. Blocks for the migrations and one `fsync`;
/// when it returns, connections are accepted.
///
/// # Errors
/// See [`EmbeddedError`]; nothing is left running.
pub fn start(config: EmbeddedConfig) -> Result<EmbeddedApi, EmbeddedError> {
    let tls = tls::server_config(&config.server_certificate, &config.server_key, &config.client_ca)?;
    let listener = listen(SocketAddr::new(config.address, config.port))?;
    let addr = listener.local_addr().map_err(|source| EmbeddedError::Listen { address: SocketAddr::new(config.address, config.port), source })?;
    let store = open_store(&config.database)?;
    operations::create_namespaces(&store).map_err(|error| EmbeddedError::Database { path: config.database.clone(), why: error.to_string() })?;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let commits = Arc::clone(store.commits());
    let ended = http::serve(http::Serving { store, listener, tls, stopped, lease_duration: config.lease_duration })?;
    log::info!(address:% = addr, database:% = config.database.display(); "embedded API listens");
    Ok(EmbeddedApi { addr, commits, stop, ended })
}

fn listen(address: SocketAddr) -> Result<TcpListener, EmbeddedError> {
    TcpListener::bind(address).map_err(|source| match source.kind() {
        std::io::ErrorKind::AddrInUse => EmbeddedError::PortOccupied { address },
        _ => EmbeddedError::Listen { address, source },
    })
}

fn open_store(database: &Path) -> Result<Store, EmbeddedError> {
    let directory = database.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
    writable(directory).map_err(|source| EmbeddedError::Directory { path: directory.to_owned(), source })?;
    Store::open(database).map_err(|error| match error {
        StoreError::TooNew { found, known } => EmbeddedError::DatabaseTooNew { path: database.to_owned(), found, known },
        other => EmbeddedError::Database { path: database.to_owned(), why: other.to_string() },
    })
}

/// SQLite needs to create files beside the database, so this tries exactly that.
fn writable(directory: &Path) -> Result<(), std::io::Error> {
    let probe = directory.join(format!(".skep-write-probe-{}", std::process::id()));
    std::fs::OpenOptions::new().write(true).create(true).truncate(true).open(&probe)?;
    std::fs::remove_file(&probe)
}
