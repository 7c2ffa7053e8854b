//! What stands beside the actor for as long as the daemon runs: the engine, its event stream, the machine's facts.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use actor::Handle;
use model::NodeName;

use super::node::Machine;
use super::runtime::docker::DockerRuntime;
use super::runtime::{ContainerRuntime, RuntimeError};
use super::{Config, Edged, EdgedMessage, Peers, Shared, Snapshot, watch};
use crate::config::EdgeConfig;
use crate::store::Store;

/// Why Edged cannot start.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// `edged.docker-address` is of another form.
    #[error("edged.docker-address cannot be used")]
    Address(#[source] RuntimeError),
    /// Nobody answers there.
    #[error(
        "the container engine at `{address}` does not answer ({reason}): start Docker, correct `edged.docker-address`, or leave `edged` out of `modules.enabled`"
    )]
    NoAnswer {
        /// `edged.docker-address`.
        address: String,
        /// What happened instead.
        reason: String,
    },
    /// The directory of the pods.
    #[error("cannot make the pods' directory below `{data_dir}`")]
    Directory {
        /// `data-dir`.
        data_dir: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// The engine with its surroundings.
pub struct Engine {
    shared: Arc<Shared>,
    machine: Machine,
    config: Config,
    node: NodeName,
    own: Handle<EdgedMessage>,
}

/// How long the engine may take to answer at the first start.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);

impl Engine {
    /// Asks the engine for its version, once.
    ///
    /// # Errors
    /// `Address` and `NoAnswer`.
    pub async fn answers(config: &EdgeConfig) -> Result<(), EngineError> {
        let address = &config.edged.docker_address;
        let runtime = DockerRuntime::new(address).map_err(EngineError::Address)?;
        let reason = match tokio::time::timeout(ANSWERS_WITHIN, runtime.version()).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("nothing within {} s", ANSWERS_WITHIN.as_secs()),
        };
        Err(EngineError::NoAnswer { address: address.clone(), reason })
    }

    /// Prepares everything; the engine itself need not be there yet.
    ///
    /// # Errors
    /// See [`EngineError`].
    pub fn open(config: &EdgeConfig, own: Handle<EdgedMessage>) -> Result<Self, EngineError> {
        let (node, settings) = (config.node(), &config.edged);
        let runtime: Arc<dyn ContainerRuntime> = Arc::new(DockerRuntime::new(&settings.docker_address).map_err(EngineError::Address)?);
        let machine = Machine::probe(Some(settings.interface_name.as_str()).filter(|name| !name.is_empty()));
        let shared = Shared::open(runtime, own.clone(), &node, &machine.address, &config.data_dir)
            .map_err(|source| EngineError::Directory { data_dir: config.data_dir.clone(), source })?;
        let version = if settings.version.is_empty() { concat!("v", env!("CARGO_PKG_VERSION")).to_owned() } else { settings.version.clone() };
        let status_interval = Duration::from_secs(settings.node_status_update_frequency.max(1));
        let config = Config { node: node.clone(), version, status_interval };
        Ok(Self { shared: Arc::new(shared), machine, config, node, own })
    }

    /// Makes the actor, as often as it is needed.
    pub fn factory(&self, store: Store, peers: Peers) -> impl Fn() -> Edged + Send + Sync + 'static {
        let (shared, machine, config) = (self.shared.clone(), self.machine.clone(), self.config.clone());
        move || Edged::new(store.clone(), shared.clone(), machine.clone(), config.clone(), peers.clone())
    }

    /// Reads what Edged knows.
    pub fn snapshot(&self) -> impl Fn() -> Snapshot + Send + Sync + 'static {
        let shared = self.shared.clone();
        move || shared.page().clone()
    }

    /// Follows the engine's events until the mailbox is closed.
    pub fn watch(&self) -> impl Future<Output = ()> + 'static {
        watch(self.shared.runtime.clone(), self.node.clone(), self.own.clone())
    }
}
