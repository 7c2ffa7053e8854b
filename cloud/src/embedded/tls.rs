//! TLS of the embedded API: every client shows a certificate of our authority.

use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::EmbeddedError;

/// Builds the server's TLS configuration from PEM files.
///
/// # Errors
/// [`EmbeddedError::Certificate`] names the file and what is wrong with it.
pub fn server_config(certificate: &Path, key: &Path, client_ca: &Path) -> Result<ServerConfig, EmbeddedError> {
    let bad = |path: &Path, why: String| EmbeddedError::Certificate { path: path.to_owned(), why };
    let chain = certificates(certificate)?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| bad(key, error.to_string()))?;
    let mut roots = RootCertStore::empty();
    for authority in certificates(client_ca)? {
        roots.add(authority).map_err(|error| bad(client_ca, error.to_string()))?;
    }
    let provider = Arc::new(default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .map_err(|error| bad(client_ca, error.to_string()))?;
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| bad(certificate, error.to_string()))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, private)
        .map_err(|error| bad(certificate, format!("it does not go with the key `{}`: {error}", key.display())))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, EmbeddedError> {
    let bad = |why: String| EmbeddedError::Certificate { path: path.to_owned(), why };
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).map_err(|error| bad(error.to_string()))?.collect();
    let found = found.map_err(|error| bad(error.to_string()))?;
    if found.is_empty() { Err(bad("it holds no certificate".to_owned())) } else { Ok(found) }
}
