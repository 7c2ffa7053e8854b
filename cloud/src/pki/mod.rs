//! The cluster's own certificates: an authority, the server's and the administrator's pair, join tokens,
//! and the HTTPS port where a new edge gets its certificate.
//!
//! | file | what | when it changes |
//! |---|---|---|
//! | `ca.crt`, `ca.key` | the authority, EC P-256, 10 years | never |
//! | `server.crt`, `server.key` | CloudHub, HTTPS and embedded API | certificate: at a start after the advertised addresses changed or 30 days before its end |
//! | `admin.crt`, `admin.key` | the administrator's client certificate, in the kubeconfig | certificate: 30 days before its end |
//!
//! Invariant: a key is written once and never overwritten; the directory appears complete or not at all.

mod authority;
mod error;
mod files;
pub mod https;
#[cfg(test)]
mod https_tests;
mod identity;
mod kubeconfig;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
pub mod token;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use model::NodeName;
use rcgen::KeyPair;
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use wire::identity::pem;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use authority::{Authority, Leaf, alternative_name, belongs};
pub use error::{PkiError, SignError};
pub use identity::{Identity, of_connection};
use kubeconfig::Kubeconfig;

/// Life of our own leaf certificates.
const LEAF_LIFE: Duration = Duration::from_secs(365 * 86_400);
/// Our own leaf certificates are renewed this long before their end.
const RENEW_BEFORE: Duration = Duration::from_secs(30 * 86_400);

const RESTORE_CA: &str = "restore it from a backup, or move the whole directory away to make a new authority; every edge must then join again";
const RESTORE_KEY: &str = "restore it from a backup, or delete the certificate beside it to have a new pair made";

/// What the operator decides about certificates.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the files are: `<data>/pki`.
    pub dir: PathBuf,
    /// IP addresses and DNS names under which edges reach this cloud (`cloudhub.advertise-address`);
    /// 127.0.0.1, ::1 and localhost are always there.
    pub advertise: Vec<String>,
    /// Life of a node's certificate (KubeEdge `edgeCertSigningDuration`: 365 days).
    pub node_life: Duration,
    /// Life of a join token (KubeEdge: 24 hours).
    pub token_life: Duration,
}

impl Config {
    /// The defaults, with the files in `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), advertise: Vec::new(), node_life: LEAF_LIFE, token_life: Duration::from_secs(86_400) }
    }
}

/// Whether a TLS server asks for client certificates. Those shown must be signed by our authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientCertificates {
    /// No certificate, no connection: CloudHub.
    Required,
    /// Checked if shown: the bootstrap port, the embedded API.
    Optional,
}

/// The certificates of this cloud, complete and checked.
pub struct Pki {
    config: Config,
    authority: Authority,
    server: Pair,
    admin: Pair,
}

struct Pair {
    certificate: CertificateDer<'static>,
    key: KeyPair,
}

impl Pki {
    /// Opens the directory, and makes it on the first start.
    ///
    /// # Errors
    /// A file that is missing from a complete set, is unreadable, does not fit its key or was signed by another
    /// authority is an error that names it; nothing is changed then.
    pub fn open(config: Config) -> Result<Self, PkiError> {
        Self::open_at(config, SystemTime::now())
    }

    /// [`Pki::open`] at a given time.
    ///
    /// # Errors
    /// As [`Pki::open`].
    pub fn open_at(config: Config, now: SystemTime) -> Result<Self, PkiError> {
        for address in &config.advertise {
            alternative_name(address)?;
        }
        if is_absent(&config.dir)? && files::create_dir_filled(&config.dir, |dir| fill(dir, &config, now))? {
            log::info!(dir = config.dir.display().to_string().as_str(); "certificate authority created");
        }
        let authority = load_authority(&config.dir, now)?;
        let names = server_names(&config);
        let server = leaf(&config.dir, "server", &Leaf::Server(&names), &authority, now)?;
        let admin = leaf(&config.dir, "admin", &Leaf::Admin, &authority, now)?;
        Ok(Self { config, authority, server, admin })
    }

    /// A join token for a cloud that has been started before: what `skep-cloud token` prints.
    ///
    /// # Errors
    /// `NotCreated` where no authority is; otherwise as [`Pki::open`]. Never writes.
    pub fn token_from(dir: &Path, valid_for: Duration) -> Result<String, PkiError> {
        if is_absent(dir)? {
            return Err(PkiError::NotCreated { dir: dir.to_owned() });
        }
        let now = SystemTime::now();
        let authority = load_authority(dir, now)?;
        Ok(token::issue(authority.certificate(), authority.key_der(), now, valid_for))
    }

    /// A join token that is valid from now for [`Config::token_life`].
    pub fn join_token(&self) -> String {
        token::issue(self.authority.certificate(), self.authority.key_der(), SystemTime::now(), self.config.token_life)
    }

    /// The authority's certificate, DER.
    pub fn ca_der(&self) -> &CertificateDer<'static> {
        self.authority.certificate()
    }

    /// The authority's certificate, PEM.
    pub fn ca_pem(&self) -> String {
        pem(self.ca_der())
    }

    /// Checks the bearer part of a join token.
    pub(crate) fn check_token(&self, bearer: &str, now: SystemTime) -> Result<(), token::TokenError> {
        token::verify(bearer, self.authority.key_der(), now)
    }

    /// Signs the request of `node`, which has proved to be that node or to hold a join token.
    ///
    /// # Errors
    /// See [`SignError`]; the text may be sent to the node.
    pub fn sign_node(&self, request: &[u8], node: &NodeName, now: SystemTime) -> Result<CertificateDer<'static>, SignError> {
        self.authority.sign_node(request, node, now, self.config.node_life)
    }

    /// The TLS configuration of our servers: TLS 1.2 and 1.3, ring, our server certificate.
    ///
    /// # Errors
    /// `Tls` if rustls refuses what was checked at [`Pki::open`].
    pub fn server_tls(&self, clients: ClientCertificates) -> Result<rustls::ServerConfig, PkiError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(self.ca_der().clone()).map_err(|source| self.tls(source))?;
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        let verifier = match clients {
            ClientCertificates::Required => verifier,
            ClientCertificates::Optional => verifier.allow_unauthenticated(),
        };
        let verifier = verifier.build().map_err(|error| self.tls(rustls::Error::General(error.to_string())))?;
        let key = PrivateKeyDer::try_from(self.server.key.serialize_der()).map_err(|error| self.tls(rustls::Error::General(error.to_owned())))?;
        rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|source| self.tls(source))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![self.server.certificate.clone()], key)
            .map_err(|source| self.tls(source))
    }

    /// Writes a kubeconfig for the administrator, with everything embedded, mode 0600.
    ///
    /// # Errors
    /// `ForeignKubeconfig` if a file that we did not write stands at `path`.
    pub fn write_kubeconfig(&self, path: &Path, server: &str) -> Result<(), PkiError> {
        Kubeconfig { server, ca: &self.ca_pem(), certificate: &pem(&self.admin.certificate), key: &self.admin.key.serialize_pem() }.write(path)
    }

    fn tls(&self, source: rustls::Error) -> PkiError {
        PkiError::Tls { dir: self.config.dir.clone(), source }
    }
}

/// No directory, or an empty one (a fresh volume).
fn is_absent(dir: &Path) -> Result<bool, PkiError> {
    match std::fs::read_dir(dir) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(source) => Err(files::failed("read", dir, source)),
    }
}

fn fill(dir: &Path, config: &Config, now: SystemTime) -> Result<(), PkiError> {
    let (authority, key) = Authority::create(now)?;
    files::write(&dir.join("ca.key"), &key.serialize_pem(), 0o600)?;
    files::write(&dir.join("ca.crt"), &pem(authority.certificate()), 0o644)?;
    let names = server_names(config);
    leaf(dir, "server", &Leaf::Server(&names), &authority, now)?;
    leaf(dir, "admin", &Leaf::Admin, &authority, now)?;
    Ok(())
}

fn server_names(config: &Config) -> Vec<String> {
    let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into();
    for address in &config.advertise {
        if !names.contains(address) {
            names.push(address.clone());
        }
    }
    names
}

fn load_authority(dir: &Path, now: SystemTime) -> Result<Authority, PkiError> {
    let (certificate_path, key_path) = (dir.join("ca.crt"), dir.join("ca.key"));
    let missing = |path: &Path| PkiError::Missing { path: path.to_owned(), advice: RESTORE_CA };
    let certificate = certificate(&certificate_path)?.ok_or_else(|| missing(&certificate_path))?;
    let key = key(&key_path)?.ok_or_else(|| missing(&key_path))?;
    let parsed = parse(&certificate, &certificate_path)?;
    if !belongs(&parsed, &key) {
        return Err(PkiError::KeyMismatch { certificate: certificate_path, key: key_path });
    }
    if !parsed.is_ca() {
        return Err(malformed(&certificate_path, "CA certificate", "it may not sign others"));
    }
    let not_after = not_after(&parsed);
    if not_after <= now {
        let not_after = parsed.validity().not_after.to_string();
        return Err(PkiError::Expired { path: certificate_path, not_after });
    }
    if not_after <= now + RENEW_BEFORE {
        log::warn!(not_after = parsed.validity().not_after.to_string().as_str(); "certificate authority expires soon, plan a new one");
    }
    Authority::from_parts(certificate, key, not_after)
}

/// Loads a pair; makes what was never made, and renews a certificate whose names or time ran out.
fn leaf(dir: &Path, name: &str, purpose: &Leaf<'_>, authority: &Authority, now: SystemTime) -> Result<Pair, PkiError> {
    let (certificate_path, key_path) = (dir.join(format!("{name}.crt")), dir.join(format!("{name}.key")));
    let found = certificate(&certificate_path)?;
    let key = match key(&key_path)? {
        Some(key) => key,
        None if found.is_some() => {
            return Err(PkiError::Missing { path: key_path, advice: RESTORE_KEY });
        }
        None => {
            let key = KeyPair::generate().map_err(|source| PkiError::Crypto { action: "make a key", source })?;
            files::write(&key_path, &key.serialize_pem(), 0o600)?;
            key
        }
    };
    if let Some(certificate) = found {
        let parsed = parse(&certificate, &certificate_path)?;
        if !belongs(&parsed, &key) {
            return Err(PkiError::KeyMismatch { certificate: certificate_path, key: key_path });
        }
        if !authority.signed(&parsed) {
            return Err(PkiError::OtherAuthority { path: certificate_path });
        }
        let names_fit = match purpose {
            Leaf::Server(names) => covers(&parsed, names),
            Leaf::Admin => true,
        };
        if names_fit && not_after(&parsed) > now + RENEW_BEFORE {
            return Ok(Pair { certificate, key });
        }
        log::info!(name = name; "certificate renewed");
    }
    let certificate = authority.issue(purpose, &key, now, LEAF_LIFE)?;
    files::write(&certificate_path, &pem(&certificate), 0o644)?;
    Ok(Pair { certificate, key })
}

/// Whether the certificate holds for exactly these names: a name that was taken away must go, too.
fn covers(certificate: &X509Certificate<'_>, names: &[String]) -> bool {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else {
        return false;
    };
    let mut found: Vec<String> = extension.value.general_names.iter().map(name_text).collect();
    let mut wanted: Vec<String> = names.iter().map(|name| name.parse::<std::net::IpAddr>().map_or(name.clone(), |ip| ip.to_string())).collect();
    found.sort_unstable();
    wanted.sort_unstable();
    wanted.dedup();
    found == wanted
}

fn name_text(name: &GeneralName<'_>) -> String {
    match name {
        GeneralName::DNSName(name) => (*name).to_owned(),
        GeneralName::IPAddress(bytes) => match **bytes {
            [a, b, c, d] => std::net::Ipv4Addr::new(a, b, c, d).to_string(),
            _ => <[u8; 16]>::try_from(*bytes).map(|bytes| std::net::Ipv6Addr::from(bytes).to_string()).unwrap_or_default(),
        },
        _ => String::new(),
    }
}

fn certificate(path: &Path) -> Result<Option<CertificateDer<'static>>, PkiError> {
    let Some(text) = files::read(path)? else {
        return Ok(None);
    };
    CertificateDer::from_pem_slice(text.as_bytes()).map(Some).map_err(|error| malformed(path, "PEM certificate", &error.to_string()))
}

fn key(path: &Path) -> Result<Option<KeyPair>, PkiError> {
    let Some(text) = files::read(path)? else {
        return Ok(None);
    };
    KeyPair::from_pem(&text).map(Some).map_err(|error| malformed(path, "PEM private key (PKCS #8)", &error.to_string()))
}

fn parse<'a>(certificate: &'a CertificateDer<'_>, path: &Path) -> Result<X509Certificate<'a>, PkiError> {
    X509Certificate::from_der(certificate).map(|(_, parsed)| parsed).map_err(|error| malformed(path, "PEM certificate", &error.to_string()))
}

fn not_after(certificate: &X509Certificate<'_>) -> SystemTime {
    let seconds = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0);
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn malformed(path: &Path, expected: &'static str, detail: &str) -> PkiError {
    PkiError::Malformed { path: path.to_owned(), expected, detail: detail.to_owned() }
}
