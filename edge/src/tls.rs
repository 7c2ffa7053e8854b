//! The node's identity towards the cloud: three PEM files, checked before the first connection.
//!
//! | file in `<data>/pki` | what |
//! |---|---|
//! | `ca.crt` | the cloud's certificate authority; nothing else is trusted |
//! | `edge.crt` | `CN=system:node:<name>`, `O=system:nodes` |
//! | `edge.key` | its private key, mode 0600 |
//!
//! `skep-edge join` writes them.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use model::NodeName;
use rustls::server::WebPkiClientVerifier;
use rustls::{CertificateError, ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use wire::identity;
use x509_parser::prelude::{FromDer, X509Certificate};

/// No certificate or key of ours is longer, bytes.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Why the certificates cannot be used. Every message says what, where and what to do.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The machine has not joined, or a file was lost.
    #[error("`{path}` is missing: run `skep-edge join` first")]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("cannot read `{path}`: check its owner and permissions")]
    Read {
        /// The file.
        path: PathBuf,
        /// What it said.
        #[source]
        source: io::Error,
    },
    /// Something else than a certificate or key.
    #[error("`{path}` is not a {expected} in PEM form: run `skep-edge join` again")]
    NotPem {
        /// The file.
        path: PathBuf,
        /// "certificate" or "private key".
        expected: &'static str,
    },
    /// Certificate and key were not made for each other.
    #[error("`{certificate}` does not belong to the key in `{key}`: run `skep-edge join` again")]
    KeyMismatch {
        /// The certificate.
        certificate: PathBuf,
        /// The key that does not fit.
        key: PathBuf,
    },
    /// The node's certificate is too old.
    #[error("`{path}` expired on {not_after}: check the clock, then run `skep-edge join` again")]
    Expired {
        /// The certificate.
        path: PathBuf,
        /// When, RFC 2822.
        not_after: String,
    },
    /// The certificate begins in the future: as a rule the clock of this machine is wrong.
    #[error("`{path}` is valid only from {not_before}: set the clock of this machine")]
    NotYetValid {
        /// The certificate.
        path: PathBuf,
        /// When, RFC 2822.
        not_before: String,
    },
    /// Signed by another authority than `ca.crt`.
    #[error("`{certificate}` was not signed by the authority in `{authority}`: run `skep-edge join` again with a token of this cloud")]
    OtherAuthority {
        /// The node's certificate.
        certificate: PathBuf,
        /// The cloud's.
        authority: PathBuf,
    },
    /// A certificate, but not a node's.
    #[error("`{path}` is for `{found}`, not for a node (CN system:node:NAME, O system:nodes): run `skep-edge join` again")]
    NotANode {
        /// The certificate.
        path: PathBuf,
        /// Its common name.
        found: String,
    },
    /// rustls refused for another reason.
    #[error("cannot use `{path}` for TLS: run `skep-edge join` again")]
    Refused {
        /// The certificate.
        path: PathBuf,
        /// What it said.
        #[source]
        source: rustls::Error,
    },
}

/// The node's identity, ready for a connection to the cloud.
#[derive(Debug, Clone)]
pub struct NodeTls {
    /// Shows our certificate, trusts the cloud's authority alone; TLS 1.2 and 1.3.
    pub config: Arc<ClientConfig>,
    /// Who the certificate says we are.
    pub node: NodeName,
    /// End of the certificate's life.
    pub not_after: SystemTime,
}

/// Where the node's identity is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The cloud's authority.
    pub ca: PathBuf,
    /// The node's certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl Files {
    /// The files that `skep-edge join` writes into `<data>/pki`.
    #[must_use]
    pub fn of(dir: &Path) -> Self {
        Self { ca: dir.join("ca.crt"), certificate: dir.join("edge.crt"), key: dir.join("edge.key") }
    }
}

/// Loads and checks the node's identity in the directory that `skep-edge join` wrote.
///
/// # Errors
/// See [`TlsError`]; each names the file and what to do.
pub fn load(dir: &Path, now: SystemTime) -> Result<NodeTls, TlsError> {
    load_files(Files::of(dir), now)
}

/// Loads and checks the node's identity.
///
/// # Errors
/// See [`TlsError`]; each names the file and what to do.
pub fn load_files(files: Files, now: SystemTime) -> Result<NodeTls, TlsError> {
    let Files { ca: ca_path, certificate: certificate_path, key: key_path } = files;
    let ca = certificate(&ca_path)?;
    let own = certificate(&certificate_path)?;
    let key = PrivateKeyDer::from_pem_slice(read(&key_path)?.as_slice())
        .map_err(|_| TlsError::NotPem { path: key_path.clone(), expected: "private key" })?;
    let not_pem = || TlsError::NotPem { path: certificate_path.clone(), expected: "certificate" };
    let (_, parsed) = X509Certificate::from_der(&own).map_err(|_| not_pem())?;
    let node = node_of(&parsed, &certificate_path)?;
    let not_after = check_time(&parsed, &certificate_path, now)?;

    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(ca).map_err(|_| TlsError::NotPem { path: ca_path.clone(), expected: "certificate" })?;
    let roots = Arc::new(roots);
    let refused = |source: rustls::Error| match source {
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            TlsError::OtherAuthority { certificate: certificate_path.clone(), authority: ca_path.clone() }
        }
        rustls::Error::InconsistentKeys(_) => TlsError::KeyMismatch { certificate: certificate_path.clone(), key: key_path.clone() },
        source => TlsError::Refused { path: certificate_path.clone(), source },
    };
    // The same check as the cloud's, so that a certificate it would refuse is explained here.
    let since_epoch = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
        .build()
        .map_err(|error| rustls::Error::General(error.to_string()))
        .and_then(|verifier| verifier.verify_client_cert(&own, &[], UnixTime::since_unix_epoch(since_epoch)))
        .map_err(refused)?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(refused)?
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![own.clone()], key)
        .map_err(refused)?;
    Ok(NodeTls { config: Arc::new(config), node, not_after })
}

fn node_of(certificate: &X509Certificate<'_>, path: &Path) -> Result<NodeName, TlsError> {
    let subject = certificate.subject();
    let names: Vec<&str> = subject.iter_common_name().filter_map(|name| name.as_str().ok()).collect();
    let organizations = subject.iter_organization().filter_map(|organization| organization.as_str().ok());
    identity::node_of(names.iter().copied(), organizations).ok_or_else(|| TlsError::NotANode { path: path.to_owned(), found: names.join(", ") })
}

fn check_time(certificate: &X509Certificate<'_>, path: &Path, now: SystemTime) -> Result<SystemTime, TlsError> {
    let at = |time: x509_parser::time::ASN1Time| SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(time.timestamp()).unwrap_or(0));
    let validity = certificate.validity();
    if at(validity.not_after) <= now {
        return Err(TlsError::Expired { path: path.to_owned(), not_after: validity.not_after.to_string() });
    }
    if at(validity.not_before) > now {
        return Err(TlsError::NotYetValid { path: path.to_owned(), not_before: validity.not_before.to_string() });
    }
    Ok(at(validity.not_after))
}

fn certificate(path: &Path) -> Result<CertificateDer<'static>, TlsError> {
    CertificateDer::from_pem_slice(&read(path)?).map_err(|_| TlsError::NotPem { path: path.to_owned(), expected: "certificate" })
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => TlsError::Missing { path: path.to_owned() },
        _ => TlsError::Read { path: path.to_owned(), source },
    };
    let mut bytes = Vec::new();
    File::open(path).map_err(failed)?.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used, missing_docs, reason = "a failed step ends the test")]

    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

    use super::*;

    /// An authority and what it signs.
    pub struct TestCa {
        pub issuer: Issuer<'static, KeyPair>,
        pub pem: String,
        pub der: Vec<u8>,
    }

    pub fn ca() -> TestCa {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "test-ca");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        TestCa { pem: certificate.pem(), der: certificate.der().to_vec(), issuer: Issuer::new(params, key) }
    }

    pub fn node_params(name: &str) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, identity::NODES);
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = (SystemTime::now() - Duration::from_secs(3600)).into();
        params.not_after = (SystemTime::now() + Duration::from_secs(3600)).into();
        params
    }

    fn joined(dir: &Path) -> TestCa {
        let (ca, key) = (ca(), KeyPair::generate().unwrap());
        let certificate = node_params("system:node:edge-1").signed_by(&key, &ca.issuer).unwrap();
        std::fs::write(dir.join("ca.crt"), &ca.pem).unwrap();
        std::fs::write(dir.join("edge.crt"), certificate.pem()).unwrap();
        std::fs::write(dir.join("edge.key"), key.serialize_pem()).unwrap();
        ca
    }

    #[test]
    fn a_joined_machine_knows_its_name_and_the_end_of_its_certificate() {
        let dir = tempfile::tempdir().unwrap();
        joined(dir.path());
        let tls = load(dir.path(), SystemTime::now()).unwrap();
        assert_eq!(tls.node.as_str(), "edge-1");
        assert!(tls.not_after > SystemTime::now());
    }

    #[test]
    fn a_missing_file_is_named() {
        for name in ["ca.crt", "edge.crt", "edge.key"] {
            let dir = tempfile::tempdir().unwrap();
            joined(dir.path());
            std::fs::remove_file(dir.path().join(name)).unwrap();
            let error = load(dir.path(), SystemTime::now()).unwrap_err();
            assert!(matches!(error, TlsError::Missing { .. }) && error.to_string().contains(name), "{error}");
        }
    }

    #[test]
    fn a_file_that_is_not_pem_is_named() {
        for name in ["ca.crt", "edge.crt", "edge.key"] {
            for garbage in ["", "hello", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "-----BEGIN CERTIFICATE-----"] {
                let dir = tempfile::tempdir().unwrap();
                joined(dir.path());
                std::fs::write(dir.path().join(name), garbage).unwrap();
                let error = load(dir.path(), SystemTime::now()).unwrap_err();
                assert!(matches!(error, TlsError::NotPem { .. }) && error.to_string().contains(name), "{error}");
            }
        }
    }

    #[test]
    fn a_key_of_another_pair_is_told_from_an_authority_of_another_cloud() {
        let dir = tempfile::tempdir().unwrap();
        joined(dir.path());
        std::fs::write(dir.path().join("edge.key"), KeyPair::generate().unwrap().serialize_pem()).unwrap();
        assert!(matches!(load(dir.path(), SystemTime::now()), Err(TlsError::KeyMismatch { .. })));
        joined(dir.path());
        std::fs::write(dir.path().join("ca.crt"), ca().pem).unwrap();
        assert!(matches!(load(dir.path(), SystemTime::now()), Err(TlsError::OtherAuthority { .. })));
    }

    #[test]
    fn a_certificate_outside_its_time_says_which_side() {
        let dir = tempfile::tempdir().unwrap();
        joined(dir.path());
        let day = Duration::from_secs(86_400);
        assert!(matches!(load(dir.path(), SystemTime::now() + day), Err(TlsError::Expired { .. })));
        assert!(matches!(load(dir.path(), SystemTime::now() - day), Err(TlsError::NotYetValid { .. })));
    }

    #[test]
    fn a_certificate_of_somebody_else_than_a_node_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let ca = joined(dir.path());
        let key = KeyPair::generate().unwrap();
        let certificate = node_params("skep-admin").signed_by(&key, &ca.issuer).unwrap();
        std::fs::write(dir.path().join("edge.crt"), certificate.pem()).unwrap();
        let error = load(dir.path(), SystemTime::now()).unwrap_err();
        assert!(matches!(error, TlsError::NotANode { .. }) && error.to_string().contains("skep-admin"), "{error}");
    }
}
