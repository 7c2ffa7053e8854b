//! The settings of the edge daemon: one YAML file, every key overridable by environment.
//!
//! Keys are KubeEdge's where it has them (manual ch. 7, 8.8, 9; its `edge.yaml`), so that an `edge.yaml` written for it
//! loads; ours stand beside them. Unknown keys are errors. Everything is checked before a port is opened or a file
//! written.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use model::{Namespace, NodeName};
use serde::{Deserialize, Serialize};

use crate::tls::Files;

pub use admin::settings::LoadError;

/// The commented default file, as `skep-edge config` prints it.
pub const DEFAULT_YAML: &str = include_str!("default.yaml");
/// Where the file is looked for when none is named.
pub const DEFAULT_PATH: &str = "/etc/skep/edge.yaml";
/// Prefix of the environment variables that override keys.
pub const ENVIRONMENT_PREFIX: &str = "SKEP";

/// The edge daemon's settings.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct EdgeConfig {
    /// Directory of everything that this node keeps.
    pub data_dir: PathBuf,
    /// MQTT: broker and clients.
    pub mqtt: Mqtt,
    /// The connection to the cloud.
    pub edgehub: EdgeHub,
    /// Pods and the node object.
    pub edged: Edged,
    /// MetaManager.
    pub meta: Meta,
    /// The database file.
    pub database: Database,
    /// Which modules run.
    pub modules: Modules,
    /// The admin page.
    pub admin: Admin,
    /// Logging.
    pub log: Log,
}

/// MQTT settings (manual ch. 14.4).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Mqtt {
    /// URL of the external broker.
    pub server: String,
    /// URL on which the embedded broker listens.
    pub internal_server: String,
    /// 0: embedded broker only; 1: both; 2: external broker only.
    pub mode: u8,
    /// QoS of what is published through the embedded broker: 0, 1 or 2.
    pub qos: u8,
    /// Whether what is published through the embedded broker is retained.
    pub retain: bool,
    /// Messages kept for an absent client with a persistent session.
    pub session_queue_size: usize,
}

/// The connection to the cloud (manual ch. 9).
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct EdgeHub {
    /// The WebSocket.
    pub websocket: WebSocket,
    /// Identity and placement.
    pub controller: Controller,
}

/// The WebSocket to CloudHub.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct WebSocket {
    /// `wss://host:port`, to which `/{project-id}/{node-id}/events` is added, or a whole URL, taken as it is.
    pub url: String,
    /// Certificate authority of the cloud; `<data-dir>/pki/ca.crt` if empty.
    pub cafile: PathBuf,
    /// Certificate of this node; `<data-dir>/pki/edge.crt` if empty.
    pub certfile: PathBuf,
    /// Its key; `<data-dir>/pki/edge.key` if empty.
    pub keyfile: PathBuf,
    /// Seconds for the TLS and WebSocket handshake.
    pub handshake_timeout: u64,
    /// Seconds for writing one frame.
    pub write_deadline: u64,
    /// Seconds without a frame after which the connection is given up; at least two heartbeats are waited.
    pub read_deadline: u64,
}

/// Identity of the node and where its cloud is.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Controller {
    /// Ask the placement server for the URL.
    pub placement: bool,
    /// URL of the placement server.
    pub placement_url: String,
    /// Seconds between keepalives.
    pub heartbeat: u64,
    /// First segment of CloudHub's path.
    pub project_id: String,
    /// Name of this node; its host name if empty.
    pub node_id: String,
    /// Of older KubeEdge; accepted and without effect.
    pub refresh_ak_sk_interval: Option<u64>,
    /// Of older KubeEdge; accepted and without effect.
    pub auth_info_files_path: Option<String>,
}

/// Pods and the node object (manual ch. 5.2, 14.8).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Edged {
    /// Namespace in the resource of the node's messages.
    pub register_node_namespace: String,
    /// Must be the node's name if set (KubeEdge has both keys).
    pub hostname_override: String,
    /// Network interface whose address is the node's; found by the default route if empty.
    pub interface_name: String,
    /// Seconds between two reports of the node's status that did not change.
    pub node_status_update_frequency: u64,
    /// The engine's socket.
    pub docker_address: String,
    /// Address of the read-only pods endpoint, a loopback address.
    pub read_only_address: IpAddr,
    /// Its port; 0: none.
    pub read_only_port: u16,
    /// Reported as the node's version; the program's own if empty.
    pub version: String,
    /// Of KubeEdge; images are not collected yet.
    pub image_gc_high_threshold: u8,
    /// Of KubeEdge; images are not collected yet.
    pub image_gc_low_threshold: u8,
    /// Dead containers kept per container.
    pub maximum_dead_containers_per_container: u32,
    /// Of KubeEdge; only `false` is possible.
    pub device_plugin_enabled: bool,
    /// Of KubeEdge; only `false` is possible.
    pub gpu_plugin_enabled: bool,
}

/// MetaManager's settings (manual ch. 8.8).
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Meta {
    /// Synchronisation.
    pub sync: Sync,
}

/// Synchronisation of pod statuses.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Sync {
    /// Of pod statuses.
    pub podstatus: PodStatusSync,
}

/// Period of the synchronisation.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct PodStatusSync {
    /// Seconds between two reports of all pod statuses.
    pub interval: u64,
}

/// The database.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Database {
    /// `sqlite3`, KubeEdge's only one, or empty.
    pub driver: String,
    /// Of KubeEdge; without effect.
    pub name: String,
    /// The file; `<data-dir>/edge.db` if empty.
    pub source: PathBuf,
}

/// Which modules run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Modules {
    /// KubeEdge's names: `eventbus`, `websocket`, `metaManager`, `edged`, `twin`.
    pub enabled: Vec<Module>,
}

/// A module that can be left out (manual ch. 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Module {
    /// MQTT.
    #[serde(rename = "eventbus")]
    EventBus,
    /// EdgeHub.
    #[serde(rename = "websocket")]
    WebSocket,
    /// MetaManager; always runs, because others store through it.
    #[serde(rename = "metaManager")]
    MetaManager,
    /// Pods.
    #[serde(rename = "edged")]
    Edged,
    /// Membership, Twin, Device and Communication; always run.
    #[serde(rename = "twin")]
    Twin,
    /// KubeEdge's test module; without effect.
    #[serde(rename = "dbTest")]
    DbTest,
}

/// The admin page.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Admin {
    /// A loopback address.
    pub address: IpAddr,
    /// Its port; 0 lets the system choose.
    pub port: u16,
}

/// Logging.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Log {
    /// `error`, `warn`, `info`, `debug` or `trace`, or env_logger's `module=level,…`. `RUST_LOG` wins.
    pub level: String,
}

impl Default for EdgeConfig {
    fn default() -> Self {
        Self {
            data_dir: "/var/lib/skep".into(),
            mqtt: Mqtt::default(),
            edgehub: EdgeHub::default(),
            edged: Edged::default(),
            meta: Meta::default(),
            database: Database::default(),
            modules: Modules::default(),
            admin: Admin::default(),
            log: Log::default(),
        }
    }
}

impl Default for Mqtt {
    fn default() -> Self {
        Self {
            server: "tcp://127.0.0.1:1883".into(),
            internal_server: "tcp://127.0.0.1:1884".into(),
            mode: 0,
            qos: 0,
            retain: false,
            session_queue_size: 100,
        }
    }
}

impl Default for WebSocket {
    fn default() -> Self {
        Self {
            url: "wss://127.0.0.1:10000".into(),
            cafile: PathBuf::new(),
            certfile: PathBuf::new(),
            keyfile: PathBuf::new(),
            handshake_timeout: 30,
            write_deadline: 15,
            read_deadline: 15,
        }
    }
}

impl Default for Controller {
    fn default() -> Self {
        Self {
            placement: false,
            placement_url: String::new(),
            heartbeat: 15,
            project_id: "e632aba927ea4ac2b575ec1603d56f10".into(),
            node_id: String::new(),
            refresh_ak_sk_interval: None,
            auth_info_files_path: None,
        }
    }
}

impl Default for Edged {
    fn default() -> Self {
        Self {
            register_node_namespace: "default".into(),
            hostname_override: String::new(),
            interface_name: String::new(),
            node_status_update_frequency: 10,
            docker_address: "unix:///var/run/docker.sock".into(),
            read_only_address: Ipv4Addr::LOCALHOST.into(),
            read_only_port: 10255,
            version: String::new(),
            image_gc_high_threshold: 80,
            image_gc_low_threshold: 40,
            maximum_dead_containers_per_container: 1,
            device_plugin_enabled: false,
            gpu_plugin_enabled: false,
        }
    }
}

impl Default for PodStatusSync {
    fn default() -> Self {
        Self { interval: 60 }
    }
}

impl Default for Modules {
    fn default() -> Self {
        Self { enabled: vec![Module::EventBus, Module::WebSocket, Module::MetaManager, Module::Edged, Module::Twin] }
    }
}

impl Default for Admin {
    fn default() -> Self {
        Self { address: Ipv4Addr::LOCALHOST.into(), port: 10360 }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".into() }
    }
}

/// A key whose value cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{key}` is {value}: {advice}")]
pub struct Invalid {
    /// The key, dotted.
    pub key: &'static str,
    /// Its value.
    pub value: String,
    /// What to write instead.
    pub advice: String,
}

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

    fn check(&self) -> Result<(), Invalid> {
        let invalid = |key, value: &dyn std::fmt::Display, advice: &str| Err(Invalid { key, value: format!("`{value}`"), advice: advice.to_owned() });
        let node = &self.edgehub.controller.node_id;
        if let Err(e) = NodeName::try_from(node.as_str()) {
            return invalid("edgehub.controller.node-id", node, &format!("set the node's name as Kubernetes writes it ({e})"));
        }
        if !self.edged.hostname_override.is_empty() && self.edged.hostname_override != *node {
            return invalid("edged.hostname-override", &self.edged.hostname_override, "it must be the same as edgehub.controller.node-id, or empty");
        }
        if let Err(e) = Namespace::try_from(self.edged.register_node_namespace.as_str()) {
            return invalid("edged.register-node-namespace", &self.edged.register_node_namespace, &format!("write a namespace ({e})"));
        }
        if self.mqtt.mode > 2 {
            return invalid("mqtt.mode", &self.mqtt.mode, "write 0 (embedded broker), 1 (both) or 2 (external broker)");
        }
        if self.mqtt.qos > 2 {
            return invalid("mqtt.qos", &self.mqtt.qos, "write 0, 1 or 2");
        }
        if self.mqtt.session_queue_size == 0 {
            return invalid("mqtt.session-queue-size", &0, "write a number above 0");
        }
        if !self.edgehub.websocket.url.starts_with("wss://") {
            return invalid("edgehub.websocket.url", &self.edgehub.websocket.url, "write wss://HOST:PORT");
        }
        if self.edgehub.controller.placement && !self.edgehub.controller.placement_url.starts_with("https://") {
            return invalid("edgehub.controller.placement-url", &self.edgehub.controller.placement_url, "write https://… or set placement: false");
        }
        for (key, seconds) in [
            ("edgehub.controller.heartbeat", self.edgehub.controller.heartbeat),
            ("edgehub.websocket.handshake-timeout", self.edgehub.websocket.handshake_timeout),
            ("edgehub.websocket.write-deadline", self.edgehub.websocket.write_deadline),
            ("edged.node-status-update-frequency", self.edged.node_status_update_frequency),
            ("meta.sync.podstatus.interval", self.meta.sync.podstatus.interval),
        ] {
            if seconds == 0 || seconds > 86_400 {
                return invalid(key, &seconds, "write seconds between 1 and 86400");
            }
        }
        if !self.edged.docker_address.starts_with("unix:///") {
            return invalid("edged.docker-address", &self.edged.docker_address, "write unix:///path/of/the.sock");
        }
        if !matches!(self.database.driver.as_str(), "" | "sqlite3") {
            return invalid("database.driver", &self.database.driver, "sqlite3 is the only one");
        }
        for (key, on) in
            [("edged.device-plugin-enabled", self.edged.device_plugin_enabled), ("edged.gpu-plugin-enabled", self.edged.gpu_plugin_enabled)]
        {
            if on {
                return invalid(key, &on, "there is no such plugin in this version; write false");
            }
        }
        for (key, address) in [("admin.address", self.admin.address), ("edged.read-only-address", self.edged.read_only_address)] {
            if !address.is_loopback() {
                return invalid(key, &address, "this endpoint has no authentication; write a loopback address such as 127.0.0.1");
            }
        }
        if !self.data_dir.is_absolute() && self.data_dir.as_os_str().is_empty() {
            return invalid("data-dir", &self.data_dir.display(), "name a directory");
        }
        Ok(())
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
        SocketAddr::new(self.admin.address, self.admin.port)
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

#[cfg(test)]
mod tests;
