//! What an operator can set: one YAML file, overridden by the environment, overridden by arguments.
//!
//! Keys are KubeEdge's where it has them (`cloudhub.*`, `controller.kube.*`); all durations are seconds.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use admin::keys::Daemon;
pub use admin::keys::{Admin, Log, Supervision};
pub use admin::settings::{LoadError, load};

/// Where the configuration is looked for when no file is named; it may be absent.
pub const DEFAULT_FILE: &str = "/etc/skep/cloud.yaml";

/// What `skep-cloud config` prints: every key with its default.
pub const COMMENTED_DEFAULT: &str = include_str!("default.yaml");

/// The whole configuration of `skep-cloud`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct CloudConfig {
    /// Directory of everything that is kept: `cloud.db`, `pki/`.
    pub data_dir: PathBuf,
    /// The WebSocket and HTTPS server the edges talk to.
    pub cloudhub: CloudHubConfig,
    /// The controllers and their API server.
    pub controller: ControllerConfig,
    /// The embedded Kubernetes API.
    pub embedded: EmbeddedConfig,
    /// When an actor counts as silent or hopeless.
    pub supervision: Supervision,
    /// Room of each mailbox.
    pub mailbox: MailboxConfig,
    /// The page that shows the mailboxes.
    pub admin: Admin<Page>,
    /// Logging.
    pub log: Log,
}

/// `cloudhub.*`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct CloudHubConfig {
    /// Address both servers listen on.
    pub address: IpAddr,
    /// Port of the WebSocket.
    pub port: u16,
    /// The HTTPS server that gives the CA and signs edge certificates.
    pub https: HttpsConfig,
    /// Seconds without a frame after which a node counts as gone.
    pub keepalive_interval: u64,
    /// Seconds a frame may take to be written.
    pub write_timeout: u64,
    /// Nodes connected at the same time; the next one is refused with 429.
    pub node_limit: usize,
    /// Further names and addresses that edges call this service by; they go into the server certificate.
    pub advertise_address: Vec<String>,
}

/// `cloudhub.https.*`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct HttpsConfig {
    /// Its port; the address is the one of `cloudhub`.
    pub port: u16,
}

/// `controller.*`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct ControllerConfig {
    /// Which API server.
    pub kube: KubeConfig,
}

/// `controller.kube.*`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct KubeConfig {
    /// Kubeconfig of the API server; empty: in-cluster when there is one, the embedded API otherwise.
    pub kubeconfig: PathBuf,
    /// Namespace that is watched; empty: all.
    pub namespace: String,
}

/// `embedded.*`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct EmbeddedConfig {
    /// Whether the embedded API runs; absent: when there is neither a kubeconfig nor a cluster.
    pub enabled: Option<bool>,
    /// Address it listens on.
    pub address: IpAddr,
    /// Port it listens on.
    pub port: u16,
    /// Where the administrator's kubeconfig is written; absent: `kubeconfig` in the data directory.
    pub kubeconfig: Option<PathBuf>,
}

/// The page of the cloud service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page;

impl Daemon for Page {
    const PORT: u16 = 10361;
}

/// `mailbox.*`: one room for each mailbox, in place of its own one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct MailboxConfig {
    /// Messages that may wait or be in hand; absent: the number of each.
    pub messages: Option<usize>,
    /// MiB of them; absent: the number of each.
    pub bytes: Option<usize>,
}

impl Default for CloudConfig {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("/var/lib/skep"),
            cloudhub: CloudHubConfig::default(),
            controller: ControllerConfig::default(),
            embedded: EmbeddedConfig::default(),
            supervision: Supervision::default(),
            mailbox: MailboxConfig::default(),
            admin: Admin::default(),
            log: Log::default(),
        }
    }
}

impl Default for CloudHubConfig {
    fn default() -> Self {
        Self {
            address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            port: 10000,
            https: HttpsConfig::default(),
            keepalive_interval: 30,
            write_timeout: 30,
            node_limit: 1000,
            advertise_address: Vec::new(),
        }
    }
}

impl Default for HttpsConfig {
    fn default() -> Self {
        Self { port: 10002 }
    }
}

impl Default for EmbeddedConfig {
    fn default() -> Self {
        Self { enabled: None, address: IpAddr::V4(Ipv4Addr::LOCALHOST), port: 10443, kubeconfig: None }
    }
}

/// Which Kubernetes API the controllers use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiSource {
    /// The one a kubeconfig names.
    Kubeconfig(PathBuf),
    /// The cluster this process runs in.
    InCluster,
    /// The embedded one.
    Embedded,
}

impl CloudConfig {
    /// Reads the configuration: `file`, else [`DEFAULT_FILE`] when it exists, else the defaults; then `SKEP_…` variables.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub fn read(file: Option<&Path>, environment: impl IntoIterator<Item = (String, String)>) -> Result<Self, LoadError> {
        let default = Path::new(DEFAULT_FILE);
        let file = file.or_else(|| default.exists().then_some(default));
        load(file, "SKEP", environment)
    }

    /// Checks what the types cannot: values that are well-formed and still cannot work.
    ///
    /// # Errors
    /// A sentence with the key and what to do.
    pub fn check(&self) -> Result<(), String> {
        let hub = &self.cloudhub;
        for (key, value) in [("cloudhub.keepalive-interval", hub.keepalive_interval), ("cloudhub.write-timeout", hub.write_timeout)] {
            if !(1..=3600).contains(&value) {
                return Err(format!("`{key}` is {value} s; choose 1 to 3600"));
            }
        }
        if hub.node_limit == 0 {
            return Err("`cloudhub.node-limit` is 0, so no node could connect; choose at least 1".into());
        }
        if hub.port != 0 && hub.port == hub.https.port {
            return Err(format!("`cloudhub.port` and `cloudhub.https.port` are both {}; give them two ports", hub.port));
        }
        for (key, value, (least, most)) in
            [("mailbox.messages", self.mailbox.messages, (16, 1_048_576)), ("mailbox.bytes", self.mailbox.bytes, (1, 4096))]
        {
            if let Some(value) = value.filter(|value| !(least..=most).contains(value)) {
                return Err(format!("`{key}` is {value}; choose {least} to {most}, or null for the number of each mailbox"));
            }
        }
        self.supervision.check().and_then(|()| self.admin.check()).and_then(|()| self.log.check()).map_err(|invalid| invalid.to_string())?;
        if self.data_dir.as_os_str().is_empty() {
            return Err("`data-dir` is empty; name a directory".into());
        }
        Ok(())
    }

    /// Decides the API server. `in_cluster`: whether `KUBERNETES_SERVICE_HOST` is set.
    ///
    /// `$KUBECONFIG` and `~/.kube/config` are not looked at: in the demo they name the embedded API of this very process.
    ///
    /// # Errors
    /// `embedded.enabled: false` with no other API; or `true` together with a kubeconfig.
    pub fn api_source(&self, in_cluster: bool) -> Result<ApiSource, String> {
        let kubeconfig = &self.controller.kube.kubeconfig;
        let named = !kubeconfig.as_os_str().is_empty();
        match self.embedded.enabled {
            Some(true) if named => {
                Err(format!("`embedded.enabled` is true and `controller.kube.kubeconfig` names `{}`; remove one of them", kubeconfig.display()))
            }
            Some(true) => Ok(ApiSource::Embedded),
            _ if named => Ok(ApiSource::Kubeconfig(kubeconfig.clone())),
            _ if in_cluster => Ok(ApiSource::InCluster),
            Some(false) => Err("`embedded.enabled` is false and there is no other API; set `controller.kube.kubeconfig`, \
                                or run inside a cluster"
                .into()),
            None => Ok(ApiSource::Embedded),
        }
    }

    /// Address of the WebSocket server.
    pub fn hub_address(&self) -> SocketAddr {
        SocketAddr::new(self.cloudhub.address, self.cloudhub.port)
    }

    /// Address of the HTTPS server for certificates.
    pub fn https_address(&self) -> SocketAddr {
        SocketAddr::new(self.cloudhub.address, self.cloudhub.https.port)
    }

    /// Address of the embedded API.
    pub fn embedded_address(&self) -> SocketAddr {
        SocketAddr::new(self.embedded.address, self.embedded.port)
    }

    /// Address of the admin page.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin.listen()
    }

    /// Directory of certificates and keys.
    pub fn pki_dir(&self) -> PathBuf {
        self.data_dir.join("pki")
    }

    /// Where messages are kept that killed their actor.
    pub fn quarantine_dir(&self) -> PathBuf {
        self.data_dir.join("quarantine")
    }

    /// Database of the embedded API.
    pub fn database(&self) -> PathBuf {
        self.data_dir.join("cloud.db")
    }

    /// Where the administrator's kubeconfig for the embedded API is written.
    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.embedded.kubeconfig.clone().unwrap_or_else(|| self.data_dir.join("kubeconfig"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, missing_docs)] // a failed step is the test's failure

    use super::*;

    #[test]
    fn the_printed_default_is_the_default() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("cloud.yaml");
        std::fs::write(&file, COMMENTED_DEFAULT).unwrap();
        assert_eq!(CloudConfig::read(Some(&file), []).unwrap(), CloudConfig::default());
    }

    #[test]
    fn the_printed_default_names_every_key() {
        fn keys(value: &serde_json::Value, into: &mut Vec<String>) {
            for (key, value) in value.as_object().into_iter().flatten() {
                into.push(key.clone());
                keys(value, into);
            }
        }
        let mut all = Vec::new();
        keys(&serde_json::to_value(CloudConfig::default()).unwrap(), &mut all);
        for key in all {
            assert!(COMMENTED_DEFAULT.contains(&format!("{key}:")), "{key}");
        }
    }

    #[test]
    fn the_environment_reaches_each_level() {
        let variables = [("SKEP_CLOUDHUB__NODE_LIMIT", "7"), ("SKEP_DATA_DIR", "/tmp/x"), ("SKEP_EMBEDDED__ENABLED", "false")];
        let config = CloudConfig::read(Some(Path::new("/dev/null")), variables.map(|(k, v)| (k.to_owned(), v.to_owned()))).unwrap();
        assert_eq!((config.cloudhub.node_limit, config.embedded.enabled), (7, Some(false)));
        assert_eq!(config.pki_dir(), Path::new("/tmp/x/pki"));
    }

    #[test]
    fn the_embedded_api_is_the_choice_where_there_is_no_other() {
        let mut config = CloudConfig::default();
        assert_eq!(config.api_source(false), Ok(ApiSource::Embedded));
        assert_eq!(config.api_source(true), Ok(ApiSource::InCluster));
        config.embedded.enabled = Some(true);
        assert_eq!(config.api_source(true), Ok(ApiSource::Embedded));
        config.controller.kube.kubeconfig = "/k".into();
        assert!(config.api_source(false).is_err());
        config.embedded.enabled = None;
        assert_eq!(config.api_source(true), Ok(ApiSource::Kubeconfig("/k".into())));
        config = CloudConfig::default();
        config.embedded.enabled = Some(false);
        assert!(config.api_source(false).is_err());
    }

    #[test]
    fn values_that_cannot_work_are_refused_with_their_key() {
        let mut config = CloudConfig::default();
        config.cloudhub.node_limit = 0;
        assert!(config.check().unwrap_err().contains("node-limit"));
        config = CloudConfig::default();
        config.cloudhub.write_timeout = 0;
        assert!(config.check().unwrap_err().contains("write-timeout"));
        config = CloudConfig::default();
        config.admin.address = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        assert!(config.check().unwrap_err().contains("admin.address"));
        config = CloudConfig::default();
        config.mailbox.messages = Some(0);
        assert!(config.check().unwrap_err().contains("mailbox.messages"));
        config = CloudConfig::default();
        config.supervision.silent_after = config.supervision.ping_interval;
        assert!(config.check().unwrap_err().contains("supervision.silent-after"));
        config = CloudConfig::default();
        config.cloudhub.https.port = config.cloudhub.port;
        assert!(config.check().unwrap_err().contains("https.port"));
    }
}
