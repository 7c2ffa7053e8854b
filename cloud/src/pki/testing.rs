//! For tests of the TLS servers: clients with any certificate.
#![allow(clippy::unwrap_used, missing_docs, reason = "a failed step ends the test")]

use std::sync::Arc;
use std::time::SystemTime;

use model::NodeName;
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::{Config, Pki};

/// A certificate with its key.
pub struct Shown(pub CertificateDer<'static>, pub PrivateKeyDer<'static>);

pub fn pki(dir: &tempfile::TempDir) -> Arc<Pki> {
    Arc::new(Pki::open(Config::new(dir.path().join("pki"))).unwrap())
}

/// A signing request without a subject, and its key.
pub fn csr() -> (Vec<u8>, PrivateKeyDer<'static>) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(&key).unwrap().der().to_vec();
    (request, PrivateKeyDer::try_from(key.serialize_der()).unwrap())
}

pub fn node(pki: &Pki, name: &str) -> Shown {
    let (request, key) = csr();
    Shown(pki.sign_node(&request, &NodeName::new(name).unwrap(), SystemTime::now()).unwrap(), key)
}

pub fn admin(dir: &tempfile::TempDir) -> Shown {
    let file = |name: &str| dir.path().join("pki").join(name);
    Shown(CertificateDer::from_pem_file(file("admin.crt")).unwrap(), PrivateKeyDer::from_pem_file(file("admin.key")).unwrap())
}

/// Trusts `pki`, shows what is given.
pub fn client(pki: &Pki, shown: Option<Shown>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(pki.ca_der().clone()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    Arc::new(match shown {
        Some(Shown(certificate, key)) => builder.with_client_auth_cert(vec![certificate], key).unwrap(),
        None => builder.with_no_client_auth(),
    })
}
