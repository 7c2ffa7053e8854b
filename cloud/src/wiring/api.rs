//! Which Kubernetes API the controllers use, and the embedded one.

use std::path::Path;
use std::time::Duration;

use actor::chain;
use admin::Exit;
use kube::config::{KubeConfigOptions, Kubeconfig};

use super::unsettled;
use crate::cluster::Cluster;
use crate::config::{ApiSource, CloudConfig};
use crate::embedded::{self, EmbeddedApi, EmbeddedConfig, EmbeddedError};
use crate::pki::Pki;

/// A node whose lease and status are older becomes `Unknown` in the embedded API (Kubernetes: 40 s).
const NODE_LOST_AFTER: Duration = Duration::from_secs(40);

/// Starts the embedded API and writes the administrator's kubeconfig for it.
///
/// # Errors
/// [`Exit`], by what is wrong.
pub async fn start_embedded(config: &CloudConfig, certificates: &Pki) -> Result<EmbeddedApi, Exit> {
    let dir = config.pki_dir();
    let settings = EmbeddedConfig {
        address: config.embedded.address,
        port: config.embedded.port,
        database: config.database(),
        server_certificate: dir.join("server.crt"),
        server_key: dir.join("server.key"),
        client_ca: dir.join("ca.crt"),
        lease_duration: NODE_LOST_AFTER,
    };
    // It blocks for the migrations and one fsync.
    let started = tokio::task::spawn_blocking(move || embedded::start(settings)).await;
    let started = started.map_err(|error| Exit::State(format!("the embedded API did not start: {error}")))?;
    let api = started.map_err(|error| {
        let text = chain(&error);
        match error {
            EmbeddedError::PortOccupied { .. } | EmbeddedError::Listen { .. } => Exit::Unavailable(format!("{text} (`embedded.port`)")),
            EmbeddedError::Directory { .. } | EmbeddedError::DatabaseTooNew { .. } | EmbeddedError::Database { .. } => Exit::State(text),
            EmbeddedError::Certificate { .. } => Exit::Certificate(text),
            EmbeddedError::Thread(_) => Exit::Unavailable(text),
        }
    })?;
    // Behind an address that means "all of them" the loopback one is reachable from here.
    let host = match api.addr.ip() {
        ip if ip.is_unspecified() => "127.0.0.1".to_owned(),
        std::net::IpAddr::V6(ip) => format!("[{ip}]"),
        ip => ip.to_string(),
    };
    let server = format!("https://{host}:{}", api.addr.port());
    certificates.write_kubeconfig(&config.admin_kubeconfig(), &server).map_err(|error| Exit::from(&error))?;
    log::info!(kubeconfig:% = config.admin_kubeconfig().display(), server = server.as_str(); "kubeconfig written");
    Ok(api)
}

/// How the API is reached.
///
/// # Errors
/// [`Exit::Configuration`]: a file or a certificate that cannot be used.
pub async fn kube_config(config: &CloudConfig, source: &ApiSource) -> Result<kube::Config, Exit> {
    let from_file = async |path: &Path, key: &str| {
        let unusable = |why: String| unsettled(format!("cannot use the kubeconfig `{}`: {why}; correct the file or `{key}`", path.display()));
        let file = Kubeconfig::read_from(path).map_err(|error| unusable(error.to_string()))?;
        kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.map_err(|error| unusable(error.to_string()))
    };
    let kube = match source {
        ApiSource::Kubeconfig(path) => from_file(path, "controller.kube.kubeconfig").await?,
        ApiSource::Embedded => from_file(&config.admin_kubeconfig(), "embedded.kubeconfig").await?,
        ApiSource::InCluster => kube::Config::incluster().map_err(|error| {
            unsettled(format!("cannot use the service account of this pod: {}; mount it, or set `controller.kube.kubeconfig`", chain(&error)))
        })?,
    };
    // Once here, where a certificate that cannot be used has one clear end; `connect` builds the same again.
    Cluster::connect(&kube).map_err(|error| unsettled(format!("cannot use the credentials of the API: {}", chain(&error))))?;
    log::info!(server:% = kube.cluster_url; "controllers use this API");
    Ok(kube)
}

/// A client of its own, whose connections live and end with the caller's thread.
pub fn connect(kube: &kube::Config) -> Cluster {
    Cluster::connect(kube).expect("the same configuration made a client at start-up")
}
