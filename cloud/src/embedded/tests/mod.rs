//! The embedded API as its clients see it: over TLS, with the real kubectl and the `kube` crate.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod controllers;
mod hostile;
mod kubectl;
mod library;
mod start;

use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;

use super::{EmbeddedApi, EmbeddedConfig, start};

/// A running API in a directory of its own, with certificates made for the occasion.
struct Fixture {
    folder: TempDir,
    api: Option<EmbeddedApi>,
}

fn fixture() -> Fixture {
    fixture_with_lease(Duration::from_secs(40))
}

fn fixture_with_lease(lease_duration: Duration) -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let api = start(EmbeddedConfig { lease_duration, ..config(folder.path()) }).unwrap();
    Fixture { folder, api: Some(api) }
}

/// A configuration on a free port over the files of [`certificates`].
fn config(folder: &Path) -> EmbeddedConfig {
    EmbeddedConfig {
        address: [127, 0, 0, 1].into(),
        port: 0,
        database: folder.join("cloud.db"),
        server_certificate: folder.join("server.crt"),
        server_key: folder.join("server.key"),
        client_ca: folder.join("ca.crt"),
        lease_duration: Duration::from_secs(40),
    }
}

/// `ca`, `server`, `admin` (O=system:masters) and `node` (an edge's certificate).
fn certificates(folder: &Path) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "test CA");
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    std::fs::write(folder.join("ca.crt"), authority.pem()).unwrap();
    for (file, name, group) in [("server", "server", ""), ("admin", "somebody", "system:masters"), ("node", "system:node:edge-1", "system:nodes")] {
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        if !group.is_empty() {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap();
        std::fs::write(folder.join(format!("{file}.crt")), certificate.pem()).unwrap();
        std::fs::write(folder.join(format!("{file}.key")), key.serialize_pem()).unwrap();
    }
}

impl Fixture {
    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    fn url(&self) -> String {
        format!("https://{}", self.api.as_ref().unwrap().addr)
    }

    /// Writes a kubeconfig for one of the certificates and returns its path.
    fn kubeconfig(&self, user: &str) -> PathBuf {
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
             clusters: [{{name: c, cluster: {{server: \"{}\", certificate-authority: \"{}\"}}}}]\n\
             users: [{{name: c, user: {{client-certificate: \"{}\", client-key: \"{}\"}}}}]\n\
             contexts: [{{name: c, context: {{cluster: c, user: c}}}}]\n",
            self.url(),
            self.path("ca.crt").display(),
            self.path(&format!("{user}.crt")).display(),
            self.path(&format!("{user}.key")).display(),
        );
        let path = self.path(&format!("{user}.kubeconfig"));
        std::fs::write(&path, text).unwrap();
        path
    }

    /// A client of the `kube` crate.
    async fn client(&self) -> kube::Client {
        // Another test of this process may have installed it already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let config = kube::config::Kubeconfig::read_from(self.kubeconfig("admin")).unwrap();
        let config = kube::Config::from_custom_kubeconfig(config, &kube::config::KubeConfigOptions::default()).await.unwrap();
        kube::Client::try_from(config).unwrap()
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        if let Some(api) = self.api.take() {
            api.stop.send_replace(true);
        }
    }
}

/// Runs a future on a runtime of its own, with a deadline.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(30), future).await.unwrap() })
}
