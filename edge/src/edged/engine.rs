//! What stands beside the actor for as long as the daemon runs: the engine, its event stream, the machine's facts.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use actor::Handle;
use futures_util::future::OptionFuture;
use model::NodeName;

use super::node::Machine;
use super::read_only::Source;
use super::runtime::docker::DockerRuntime;
use super::runtime::hollow::HollowRuntime;
use super::runtime::{ContainerRuntime, RuntimeError};
use super::{Config, Edged, EdgedMessage, Peers, Shared, Snapshot, Surroundings, housekeeping, settings, static_pods, watch, watch_files};
use crate::config::{EdgeConfig, RuntimeKind};
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
    static_pods: Option<PathBuf>,
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
        let runtime = runtime(config)?;
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
        let (node, keys) = (config.node(), &config.edged);
        let runtime = runtime(config)?;
        let interface = Some(keys.interface_name.clone()).filter(|name| !name.is_empty());
        let machine = Machine::probe(interface.as_deref(), &config.data_dir);
        let node_settings = settings::node(keys);
        let shared = Shared::open(runtime, own.clone(), &node, machine.address, &config.data_dir)
            .map_err(|source| EngineError::Directory { data_dir: config.data_dir.clone(), source })?
            .on(surroundings(&machine, keys.pod_pids_limit), node_settings.allocatable(&machine))
            .with(node_settings, settings::housekeeping(keys))
            .found_by(move |known| known.find(interface.as_deref()));
        let version = if keys.version.is_empty() { concat!("v", env!("CARGO_PKG_VERSION")).to_owned() } else { keys.version.clone() };
        let status_interval = Duration::from_secs(keys.node_status_update_frequency.max(1));
        let static_pods = (!keys.static_pod_path.as_os_str().is_empty()).then(|| keys.static_pod_path.clone());
        if let Some(directory) = &static_pods {
            // Before the first comparison, which would take their containers for nobody's.
            let found = static_pods::read(directory, node.as_str());
            found.complain(&static_pods::StaticPods::default());
            *shared.statics.lock().unwrap_or_else(PoisonError::into_inner) = found;
        }
        let config = Config { node: node.clone(), version, status_interval };
        Ok(Self { shared: Arc::new(shared), machine, config, node, own, static_pods })
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

    /// What the read-only endpoint asks.
    pub fn reading(&self) -> Source {
        Source {
            runtime: self.shared.runtime.clone(),
            node: self.shared.node.clone(),
            pods: self.shared.pods.clone(),
            local: self.shared.local.clone(),
        }
    }

    /// Follows the engine's events and the files of static pods, and looks after the machine, until the mailbox is closed.
    pub fn watch(&self) -> impl Future<Output = ()> + 'static {
        let engine = watch(self.shared.runtime.clone(), self.node.clone(), self.own.clone());
        let files = self.static_pods.clone().map(|directory| watch_files(directory, self.node.clone(), self.own.clone()));
        let housekeeping = housekeeping::keep(self.shared.clone());
        async move {
            tokio::join!(engine, OptionFuture::from(files), housekeeping);
        }
    }
}

/// The engine that the configuration names.
fn runtime(config: &EdgeConfig) -> Result<Arc<dyn ContainerRuntime>, EngineError> {
    Ok(match config.edged.container_runtime {
        RuntimeKind::Docker => Arc::new(DockerRuntime::new(&config.edged.docker_address).map_err(EngineError::Address)?),
        RuntimeKind::Hollow => {
            log::warn!("edged.container-runtime is hollow: pods are entries in a map, and nothing runs");
            Arc::new(HollowRuntime::default())
        }
    })
}

fn surroundings(machine: &Machine, pids_limit: u64) -> Surroundings {
    Surroundings { memory: machine.memory_mib << 20, pids: Some(pids_limit).filter(|limit| *limit > 0) }
}
