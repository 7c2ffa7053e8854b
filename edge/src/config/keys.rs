//! The keys: types, meanings, units, defaults.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use admin::keys::{Admin, Daemon, Log, Supervision};
use serde::{Deserialize, Serialize};

use super::node::{EvictionHard, Labels, SystemReserved};

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
    /// When an actor counts as silent or hopeless.
    pub supervision: Supervision,
    /// Room of each mailbox.
    pub mailbox: Mailbox,
    /// The admin page.
    pub admin: Admin<Page>,
    /// Logging.
    pub log: Log,
}

/// The page of the edge daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page;

impl Daemon for Page {
    const PORT: u16 = 10360;
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
    /// QoS of what is published and subscribed at the external broker: 0, 1 or 2.
    pub external_qos: u8,
    /// Whether what is published through the embedded broker is retained.
    pub retain: bool,
    /// Messages kept for an absent client with a persistent session.
    pub session_queue_size: usize,
    /// Whether clients of the embedded broker may be nobody; unset: on the loopback, as long as there is no users' file.
    pub allow_anonymous: Option<bool>,
    /// File of the users of the embedded broker and their hashed passwords; empty: none.
    pub internal_users_file: PathBuf,
    /// What each client of the embedded broker may do; empty: everything.
    pub internal_rules: Vec<MqttRule>,
    /// URL on which the embedded broker listens for TLS; empty: nowhere.
    pub internal_tls_server: String,
    /// Its certificate, and its clients'.
    pub internal_tls: InternalTls,
    /// Which form of a device's topics is published.
    pub device_topics: DeviceTopics,
    /// User name at the external broker; empty: none.
    pub username: String,
    /// File with its password; empty: none.
    pub password_file: PathBuf,
    /// Client id at the external broker; `skep-edge-NODE` if empty.
    pub client_id: String,
    /// TLS to the external broker, with `ssl://` in `server`.
    pub tls: MqttTls,
}

/// What one client of the embedded broker may do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct MqttRule {
    /// User name, or common name of the certificate; `*`: everybody who has no rule.
    pub user: String,
    /// Devices for which it speaks; `{user}`: the one of its own name.
    pub devices: Vec<String>,
    /// Whether it may send to the cloud.
    pub upload: bool,
    /// Filters of further topics on which it may publish.
    pub publish: Vec<String>,
    /// Filters of further topics that it may subscribe.
    pub subscribe: Vec<String>,
}

/// TLS of the embedded broker. PEM files; a changed one is used from the next connection on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct InternalTls {
    /// The broker's certificate.
    pub cert_file: PathBuf,
    /// Its key.
    pub key_file: PathBuf,
    /// Authority of the clients' certificates; empty: clients need none.
    pub client_ca_file: PathBuf,
}

/// TLS to the external broker (KubeEdge's `eventBusTLS`). PEM files, read at each connection.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct MqttTls {
    /// Authorities, of which one signed the broker's certificate.
    pub ca_file: PathBuf,
    /// Our certificate; empty: none is shown.
    pub cert_file: PathBuf,
    /// Its key.
    pub key_file: PathBuf,
}

/// Form of the topics on which is published for a device of the namespace `default`; both forms are always understood.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceTopics {
    /// The form in which the device's mapper speaks; both until it was heard.
    #[default]
    Auto,
    /// `$hw/events/device/{name}/…` (KubeEdge to 1.16).
    Short,
    /// `$hw/events/device/{namespace}/{name}/…` (KubeEdge since 1.17).
    Long,
    /// Both.
    Both,
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
    /// Seconds without a byte after which the connection is given up; at least two heartbeats are waited.
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
    /// Network interface whose address is the node's; found by the default route if empty. Looked up with each status.
    pub interface_name: String,
    /// Seconds between two reports of the node's status that did not change.
    pub node_status_update_frequency: u64,
    /// What runs the containers.
    pub container_runtime: RuntimeKind,
    /// The engine's socket.
    pub docker_address: String,
    /// Directory of pods as files, absolute; empty: none.
    pub static_pod_path: PathBuf,
    /// Address of the read-only pods endpoint, a loopback address.
    pub read_only_address: IpAddr,
    /// Its port; 0: none.
    pub read_only_port: u16,
    /// Reported as the node's version; the program's own if empty.
    pub version: String,
    /// Further labels of the node.
    pub node_labels: Labels,
    /// Taints with which the node registers, `key=value:Effect`.
    pub node_taints: Vec<String>,
    /// Pods that the node takes.
    pub max_pods: u32,
    /// Images in the node's status, the largest first; 0: none.
    pub node_status_max_images: u32,
    /// What pods do not get.
    pub system_reserved: SystemReserved,
    /// What must stay free; below it pods are ended.
    pub eviction_hard: EvictionHard,
    /// Seconds for which a pressure is still shown after it has gone.
    pub eviction_pressure_transition_period: u64,
    /// Percent of the engine's disk in use from which on images are removed; 100: never.
    pub image_gc_high_threshold: u8,
    /// Percent down to which they are.
    pub image_gc_low_threshold: u8,
    /// Seconds for which an image stays that nobody uses.
    pub image_minimum_gc_age: u64,
    /// Ended runs of each container of a pod that are kept beside its newest, for their logs; 0: none.
    pub maximum_dead_containers_per_container: u32,
    /// Processes and threads that one container may have; 0: as many as the machine lets it.
    pub pod_pids_limit: u64,
    /// Of KubeEdge; only `false` is possible.
    pub device_plugin_enabled: bool,
    /// Of KubeEdge; only `false` is possible.
    pub gpu_plugin_enabled: bool,
}

/// What runs the containers of the pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RuntimeKind {
    /// Docker, or an engine that speaks its API (Podman).
    #[default]
    Docker,
    /// Nothing runs: for measuring and tests of scale.
    Hollow,
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
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Database {
    /// `sqlite3`, KubeEdge's only one, or empty.
    pub driver: String,
    /// Of KubeEdge; without effect.
    pub name: String,
    /// The file; `<data-dir>/edge.db` if empty.
    pub source: PathBuf,
    /// MiB that it may have; what would make it larger is refused.
    pub max_size: u64,
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
    /// MetaManager: objects of the cloud, and the statuses of pods.
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

/// Room of each mailbox.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Mailbox {
    /// Messages that may wait or be in hand.
    pub messages: usize,
    /// MiB of them.
    pub bytes: usize,
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
            supervision: Supervision::default(),
            mailbox: Mailbox::default(),
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
            external_qos: 1,
            retain: false,
            session_queue_size: 100,
            allow_anonymous: None,
            internal_users_file: PathBuf::new(),
            internal_rules: Vec::new(),
            internal_tls_server: String::new(),
            internal_tls: InternalTls::default(),
            device_topics: DeviceTopics::Auto,
            username: String::new(),
            password_file: PathBuf::new(),
            client_id: String::new(),
            tls: MqttTls::default(),
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
            container_runtime: RuntimeKind::Docker,
            static_pod_path: PathBuf::new(),
            docker_address: "unix:///var/run/docker.sock".into(),
            read_only_address: Ipv4Addr::LOCALHOST.into(),
            read_only_port: 10255,
            version: String::new(),
            node_labels: Labels::new(),
            node_taints: Vec::new(),
            max_pods: 110,
            node_status_max_images: 50,
            system_reserved: SystemReserved::default(),
            eviction_hard: EvictionHard::default(),
            eviction_pressure_transition_period: 300,
            image_gc_high_threshold: 80,
            image_gc_low_threshold: 40,
            image_minimum_gc_age: 120,
            maximum_dead_containers_per_container: 1,
            pod_pids_limit: 0,
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

impl Default for Database {
    fn default() -> Self {
        Self { driver: String::new(), name: String::new(), source: PathBuf::new(), max_size: 1024 }
    }
}

impl Default for Modules {
    fn default() -> Self {
        Self { enabled: vec![Module::EventBus, Module::WebSocket, Module::MetaManager, Module::Edged, Module::Twin] }
    }
}

impl Default for Mailbox {
    fn default() -> Self {
        Self { messages: 1024, bytes: 64 }
    }
}
