//! Client certificates instead of a token.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

use crate::access::AccessError;
use crate::config::Access;

/// The page over TLS with this certificate and key, for those who have a certificate of the authorities in `authority`
/// (PEM files). The handshake lets others through, because a kubelet's probe has no certificate: they see `/livez`,
/// `/readyz` and `/healthz`, and nothing else.
///
/// # Errors
/// [`AccessError::Certificates`] names the file that cannot be used.
pub fn client_certificates(certificate: &Path, key: &Path, authority: &Path) -> Result<Access, AccessError> {
    let unusable = |path: &Path, reason: String| AccessError::Certificates { path: path.to_owned(), reason };
    let chain = certificates(certificate)?;
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| unusable(key, error.to_string()))?;
    let mut roots = RootCertStore::empty();
    for root in certificates(authority)? {
        roots.add(root).map_err(|error| unusable(authority, error.to_string()))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(|error| unusable(authority, error.to_string()))?;
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_client_cert_verifier(verifier).with_single_cert(chain, secret))
        .map_err(|error| unusable(certificate, error.to_string()))?;
    Ok(Access::ClientCertificates(Arc::new(config)))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, AccessError> {
    let unusable = |reason: String| AccessError::Certificates { path: PathBuf::from(path), reason };
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).map_err(|error| unusable(error.to_string()))?.collect();
    let found = found.map_err(|error| unusable(error.to_string()))?;
    if found.is_empty() { Err(unusable("no certificate is in it".to_owned())) } else { Ok(found) }
}
