//! TLS at the door: the broker's certificate, and whom it knows by theirs.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use log::{info, warn};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::files::{Problem, Watched};

/// Where the broker's certificate is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Its certificate, and those between it and the root, PEM.
    pub certificate: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
    /// Authorities of the clients, PEM: with them each client must show a certificate of theirs. None if empty.
    pub client_ca: Option<PathBuf>,
}

/// The TLS side of a listener; files that have changed are used from the next handshake on.
pub struct Tls {
    files: Watched<ServerConfig>,
    /// Whether clients show certificates.
    pub by_certificate: bool,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("by_certificate", &self.by_certificate).finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads and checks the files.
    ///
    /// # Errors
    /// The file that cannot be used, and why.
    pub fn read(files: &TlsFiles) -> Result<Self, Problem> {
        let mut paths = vec![files.certificate.clone(), files.key.clone()];
        paths.extend(files.client_ca.clone());
        let named = paths.clone();
        let files_read = Watched::read(paths, move |contents| server(&named, contents))?;
        Ok(Self { files: files_read, by_certificate: files.client_ca.is_some() })
    }

    /// What a handshake that begins now uses.
    pub fn current(&self) -> Arc<ServerConfig> {
        self.files.current()
    }
}

fn server(paths: &[PathBuf], contents: &[Vec<u8>]) -> Result<ServerConfig, String> {
    let certificates = chain(&paths[0], &contents[0])?;
    let key_path = paths[1].display();
    let key = PrivateKeyDer::from_pem_slice(&contents[1]).map_err(|_| format!("its key `{key_path}` is not a private key in PEM form"))?;
    say_validity(&paths[0], &certificates[0])?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let refused = |error: rustls::Error| match error {
        rustls::Error::InconsistentKeys(_) => format!("it does not belong to the key in `{key_path}`"),
        error => format!("TLS refuses it: {error}"),
    };
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().map_err(refused)?;
    let builder = match paths.get(2).zip(contents.get(2)) {
        None => builder.with_no_client_auth(),
        Some((path, pem)) => {
            let mut roots = RootCertStore::empty();
            for authority in chain(path, pem)? {
                roots.add(authority).map_err(|error| format!("the clients' authority `{}` cannot be used: {error}", path.display()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder
                .with_client_cert_verifier(verifier.map_err(|error| format!("the clients' authority `{}` cannot be used: {error}", path.display()))?)
        }
    };
    builder.with_single_cert(certificates, key).map_err(refused)
}

fn chain(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let not_pem = || format!("`{}` is not a certificate in PEM form", path.display());
    let certificates = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>().map_err(|_| not_pem())?;
    if certificates.is_empty() { Err(not_pem()) } else { Ok(certificates) }
}

/// A certificate that is too old is said and used: the clients refuse it by themselves, and pods go on.
fn say_validity(path: &Path, certificate: &CertificateDer<'_>) -> Result<(), String> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| format!("`{}` is not a certificate", path.display()))?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let (from, until) = (parsed.validity().not_before, parsed.validity().not_after);
    if until.timestamp() <= now {
        warn!(path:% = path.display(), expired:% = until; "the certificate of the embedded MQTT broker has expired: clients will refuse it");
    } else if from.timestamp() > now {
        warn!(path:% = path.display(), valid_from:% = from; "the certificate of the embedded MQTT broker is not valid yet: check this machine's clock");
    } else {
        info!(path:% = path.display(), valid_until:% = until; "the embedded MQTT broker has its certificate");
    }
    Ok(())
}

/// The common name of a client's certificate.
pub fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let mut names = parsed.subject().iter_common_name();
    // Two names are none: the rules of one of them would be anybody's guess.
    let name = names.next()?.as_str().ok()?.to_owned();
    names.next().is_none().then_some(name)
}
