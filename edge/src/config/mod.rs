//! The settings of the edge daemon: one YAML file, every key overridable by environment.
//!
//! Keys are KubeEdge's where it has them (manual ch. 7, 8.8, 9; its `edge.yaml`), so that an `edge.yaml` written for it
//! loads; ours stand beside them. Unknown keys are errors. Everything is checked before a port is opened or a file
//! written.

mod check;
mod keys;
mod node;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use model::{Namespace, NodeName};

use crate::tls::Files;

pub use admin::keys::{Admin, Invalid, Log, Supervision};
pub use admin::settings::LoadError;
pub use keys::{
    Controller, Database, DeviceTopics, EdgeConfig, EdgeHub, Edged, InternalTls, Mailbox, Meta, Module, Modules, Mqtt, MqttRule, MqttTls, Page,
    PodStatusSync, RuntimeKind, Sync, WebSocket,
};

pub use node::{EvictionHard, Labels, SystemReserved, Taint};

/// The commented default file, as `skep-edge config` prints it.
pub const DEFAULT_YAML: &str = include_str!("default.yaml");
/// Where the file is looked for when none is named.
pub const DEFAULT_PATH: &str = "/etc/skep/edge.yaml";
/// Prefix of the environment variables that override keys.
pub const ENVIRONMENT_PREFIX: &str = "SKEP";

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not readable, not YAML, an unknown key, another type.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Well-formed and still wrong.
    #[error("in the configuration, {0}")]
    Invalid(#[from] Invalid),
}

impl EdgeConfig {
    /// Reads the file (or, if none is named, [`DEFAULT_PATH`] where it exists) and the environment, and checks the
    /// whole.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn load(
        file: Option<&Path>,
        data_dir: Option<PathBuf>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let default = Path::new(DEFAULT_PATH);
        let file = file.or_else(|| default.exists().then_some(default));
        let mut config: Self = admin::settings::load(file, ENVIRONMENT_PREFIX, environment)?;
        if let Some(data_dir) = data_dir {
            config.data_dir = data_dir;
        }
        if config.edgehub.controller.node_id.is_empty() {
            config.edgehub.controller.node_id =
                if config.edged.hostname_override.is_empty() { host_name() } else { config.edged.hostname_override.clone() };
        }
        config.check()?;
        Ok(config)
    }

    /// Name of this node.
    #[must_use]
    pub fn node(&self) -> NodeName {
        NodeName::try_from(self.edgehub.controller.node_id.as_str()).expect("the name was checked when the configuration was loaded")
    }

    /// Namespace of the node's own messages.
    #[must_use]
    pub fn namespace(&self) -> Namespace {
        Namespace::try_from(self.edged.register_node_namespace.as_str()).expect("the namespace was checked when the configuration was loaded")
    }

    /// Where this node's certificate is.
    #[must_use]
    pub fn identity(&self) -> Files {
        let socket = &self.edgehub.websocket;
        let own = Files::of(&self.data_dir.join("pki"));
        let or = |given: &Path, own: PathBuf| if given.as_os_str().is_empty() { own } else { given.to_owned() };
        Files { ca: or(&socket.cafile, own.ca), certificate: or(&socket.certfile, own.certificate), key: or(&socket.keyfile, own.key) }
    }

    /// The database file.
    #[must_use]
    pub fn database(&self) -> PathBuf {
        if self.database.source.as_os_str().is_empty() { self.data_dir.join("edge.db") } else { self.database.source.clone() }
    }

    /// Bytes that the database file may have.
    #[must_use]
    pub const fn database_bytes_max(&self) -> u64 {
        self.database.max_size << 20
    }

    /// Where messages are kept that killed their actor.
    #[must_use]
    pub fn quarantine_dir(&self) -> PathBuf {
        self.data_dir.join("quarantine")
    }

    /// URL of CloudHub, unless the placement server is asked.
    #[must_use]
    pub fn cloud_url(&self) -> String {
        let (url, controller) = (self.edgehub.websocket.url.trim_end_matches('/'), &self.edgehub.controller);
        let has_path = url.trim_start_matches("wss://").contains('/');
        if has_path { url.to_owned() } else { format!("{url}/{}/{}/events", controller.project_id, controller.node_id) }
    }

    /// Address of the admin page.
    #[must_use]
    pub const fn admin(&self) -> SocketAddr {
        self.admin.listen()
    }

    /// Address of the read-only pods endpoint.
    #[must_use]
    pub fn read_only(&self) -> Option<SocketAddr> {
        (self.edged.read_only_port != 0).then_some(SocketAddr::new(self.edged.read_only_address, self.edged.read_only_port))
    }

    /// Whether a module runs.
    #[must_use]
    pub fn runs(&self, module: Module) -> bool {
        self.modules.enabled.contains(&module)
    }
}

fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_ascii_lowercase()
}
