//! Whom we trust at an external broker, and who we are: PEM files (`mqtt.tls.*`), read at each connection.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// The largest file that is read, bytes: a system's whole bundle of authorities fits.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The PEM files of one broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Authorities of which one must have signed the broker's certificate (`mqtt.tls.ca-file`).
    pub ca: PathBuf,
    /// Our certificate, with those between it and its authority, and its key (`mqtt.tls.cert-file`, `key-file`).
    pub own: Option<(PathBuf, PathBuf)>,
}

/// Why the files cannot be used; each says which and what to do.
#[derive(Debug, thiserror::Error)]
pub enum TlsFilesError {
    /// Not there, or not for us.
    #[error("cannot read `{path}` of {key}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Which setting names it.
        key: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
    /// Something else than it should be.
    #[error("`{path}` of {key} holds no {expected} in PEM form")]
    NotPem {
        /// The file.
        path: PathBuf,
        /// Which setting names it.
        key: &'static str,
        /// "certificate" or "private key".
        expected: &'static str,
    },
    /// Certificate and key were not made for each other, or rustls cannot use them.
    #[error("`{path}` of mqtt.tls.cert-file cannot be used with the key of mqtt.tls.key-file: {source}")]
    Refused {
        /// The certificate.
        path: PathBuf,
        /// What rustls said.
        source: rustls::Error,
    },
}

impl TlsFiles {
    /// Reads the files. TLS 1.2 and 1.3; the broker's certificate and its name are always checked.
    ///
    /// # Errors
    /// See [`TlsFilesError`].
    pub(super) fn load(&self) -> Result<Arc<ClientConfig>, TlsFilesError> {
        let mut roots = RootCertStore::empty();
        // A bundle may hold a certificate that rustls cannot use beside a hundred that it can.
        roots.add_parsable_certificates(certificates(&self.ca, "mqtt.tls.ca-file")?);
        let refused = |source| TlsFilesError::Refused { path: self.own.as_ref().map_or_else(PathBuf::new, |(path, _)| path.clone()), source };
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(refused)?
            .with_root_certificates(roots);
        let config = match &self.own {
            None => config.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = certificates(certificate, "mqtt.tls.cert-file")?;
                config.with_client_auth_cert(chain, private_key(key)?).map_err(refused)?
            }
        };
        Ok(Arc::new(config))
    }
}

fn certificates(path: &Path, key: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsFilesError> {
    let not_pem = || TlsFilesError::NotPem { path: path.to_owned(), key, expected: "certificate" };
    let bytes = read(path, key)?;
    let all: Vec<_> = CertificateDer::pem_slice_iter(&bytes).collect::<Result<_, _>>().map_err(|_| not_pem())?;
    if all.is_empty() { Err(not_pem()) } else { Ok(all) }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsFilesError> {
    let key = "mqtt.tls.key-file";
    PrivateKeyDer::from_pem_slice(&read(path, key)?).map_err(|_| TlsFilesError::NotPem { path: path.to_owned(), key, expected: "private key" })
}

fn read(path: &Path, key: &'static str) -> Result<Vec<u8>, TlsFilesError> {
    let failed = |source| TlsFilesError::Read { path: path.to_owned(), key, source };
    let mut bytes = Vec::new();
    File::open(path).map_err(failed)?.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}
