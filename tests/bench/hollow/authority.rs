//! The cloud's authority, out of its data directory: who holds that signs as many nodes as it likes.

use std::path::Path;
use std::sync::Arc;

use model::NodeName;
use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair};
use rustls::client::WebPkiServerVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use wire::identity;

/// The authority, and one key that all hollow nodes share: a key of its own for each would make no handshake dearer.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root_pem: String,
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
    verifier: Arc<WebPkiServerVerifier>,
    key: KeyPair,
}

fn words(error: impl std::fmt::Display) -> String {
    format!("certificates: {error}")
}

impl Authority {
    /// Reads `ca.crt` and `ca.key` in the `pki` directory of a cloud that has been started before.
    ///
    /// # Errors
    /// A file is missing or is no such thing.
    pub fn load(pki: &Path) -> Result<Self, String> {
        let read = |name: &str| std::fs::read_to_string(pki.join(name)).map_err(|error| format!("{}: {error}", pki.join(name).display()));
        let root_pem = read("ca.crt")?;
        let issuer = Issuer::from_ca_cert_pem(&root_pem, KeyPair::from_pem(&read("ca.key")?).map_err(words)?).map_err(words)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(root_pem.as_bytes()).map_err(words)?).map_err(words)?;
        let roots = Arc::new(roots);
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone()).build().map_err(words)?;
        Ok(Self { issuer, root_pem, roots, provider, verifier, key: KeyPair::generate().map_err(words)? })
    }

    fn sign(&self, node: &NodeName) -> Result<rcgen::Certificate, String> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, identity::NODES);
        params.distinguished_name.push(DnType::CommonName, identity::common_name(node));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.signed_by(&self.key, &self.issuer).map_err(words)
    }

    /// What a node connects with.
    ///
    /// # Errors
    /// rcgen's or rustls' words.
    pub fn of_node(&self, node: &NodeName) -> Result<Arc<ClientConfig>, String> {
        let key = PrivateKeyDer::try_from(self.key.serialize_der()).map_err(words)?;
        let mut config = self.client(vec![self.sign(node)?.der().clone()], key)?;
        // The sessions that a cloud remembers end with it: after its return each handshake is a whole one.
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Arc::new(config))
    }

    /// What the administrator connects to the embedded API with: the pair that the cloud has made for its kubeconfig.
    ///
    /// # Errors
    /// A file is missing or is no such thing.
    pub fn of_administrator(&self, pki: &Path) -> Result<Arc<ClientConfig>, String> {
        let certificate = CertificateDer::from_pem_file(pki.join("admin.crt")).map_err(words)?;
        let key = PrivateKeyDer::from_pem_file(pki.join("admin.key")).map_err(words)?;
        self.client(vec![certificate], key).map(Arc::new)
    }

    /// What the cloud serves nodes with.
    ///
    /// # Errors
    /// A file is missing or is no such thing.
    pub fn of_server(&self, pki: &Path) -> Result<Arc<ServerConfig>, String> {
        let certificate = CertificateDer::from_pem_file(pki.join("server.crt")).map_err(words)?;
        let key = PrivateKeyDer::from_pem_file(pki.join("server.key")).map_err(words)?;
        let verifier = WebPkiClientVerifier::builder_with_provider(self.roots.clone(), self.provider.clone()).build().map_err(words)?;
        let config = ServerConfig::builder_with_provider(self.provider.clone()).with_safe_default_protocol_versions().map_err(words)?;
        config.with_client_cert_verifier(verifier).with_single_cert(vec![certificate], key).map(Arc::new).map_err(words)
    }

    fn client(&self, chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<ClientConfig, String> {
        let config = ClientConfig::builder_with_provider(self.provider.clone()).with_safe_default_protocol_versions().map_err(words)?;
        config.with_webpki_verifier(self.verifier.clone()).with_client_auth_cert(chain, key).map_err(words)
    }

    /// Writes what `skep-edge join` writes.
    ///
    /// # Errors
    /// The operating system's words.
    pub fn write_for(&self, node: &NodeName, directory: &Path) -> Result<(), String> {
        let files = [("ca.crt", self.root_pem.clone()), ("edge.crt", self.sign(node)?.pem()), ("edge.key", self.key.serialize_pem())];
        std::fs::create_dir_all(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
        for (name, text) in files {
            std::fs::write(directory.join(name), text).map_err(|error| format!("{}: {error}", directory.join(name).display()))?;
        }
        Ok(())
    }
}
