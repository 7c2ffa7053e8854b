//! Joining: how a machine gets its identity from the cloud, once, before the daemon runs.
//!
//! ```text
//! token = hex(sha256(CA)) . JWT
//! 1  GET /ca.crt    over a connection that trusts anybody; the bytes must have the token's fingerprint
//! 2  GET /edge.crt  over a connection that trusts this CA alone; bearer = JWT, body = signing request
//! 3  check all three files as the daemon will, then put them in place in one step
//! ```
//!
//! Routes and headers are KubeEdge's (`edge/pkg/edgehub/certificate`). Invariant: after an error the data directory is as before.

mod client;
mod error;
#[cfg(test)]
mod tests;

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use model::NodeName;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use wire::identity::{self, pem};

pub use client::{ANSWER_BYTES_MAX, Endpoint};
pub use error::JoinError;

use crate::anybody::trusting_anybody;
use crate::tls::{self, NodeTls};

/// Arguments of `skep-edge join`.
#[derive(Debug, Clone, clap::Args)]
pub struct JoinArgs {
    /// The cloud's HTTPS port, for example https://cloud.example.org:10002
    #[arg(long)]
    pub cloud: String,
    /// What `skep-cloud token` printed
    #[arg(long, env = "SKEP_TOKEN", hide_env_values = true)]
    pub token: String,
    /// Name of this node in Kubernetes
    #[arg(long)]
    pub node: String,
    /// Configuration file of the daemon, which says where its state is; /etc/skep/edge.yaml when it exists
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where the state of the daemon is, whatever the file says; the certificates go to `pki` in it
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

/// Gets a certificate for this machine and stores it with its key and the cloud's authority in `pki` below `data_dir`.
///
/// A machine that had joined before gets a new key; its earlier files are kept in `<data>/pki.previous`.
///
/// # Errors
/// See [`JoinError`]; nothing is written then.
pub async fn join(args: &JoinArgs, data_dir: &Path) -> Result<NodeTls, JoinError> {
    let endpoint = Endpoint::parse(&args.cloud).ok_or_else(|| JoinError::CloudAddress { cloud: args.cloud.clone() })?;
    let node = NodeName::new(&args.node)?;
    let (expected, bearer) = split_token(&args.token)?;
    let address = endpoint.address();
    let tls_failed = |source: rustls::Error| JoinError::Tls { address: address.clone(), source: io::Error::other(source) };

    let ca = client::get(&endpoint, trusting_anybody().map_err(tls_failed)?, "/ca.crt", &[], &[]).await?;
    let found = fingerprint(&ca);
    if found != expected {
        return Err(JoinError::OtherCloud { address, found, expected: expected.to_owned() });
    }

    let key = KeyPair::generate().map_err(JoinError::Request)?;
    let request = signing_request(&node, &key).map_err(JoinError::Request)?;
    let authorization = format!("Bearer {bearer}");
    let headers = [("Authorization", authorization.as_str()), ("NodeName", node.as_str()), ("ExtKeyUsages", "[2]")];
    let trusting = client::trusting(&ca).map_err(tls_failed)?;
    let certificate = client::get(&endpoint, trusting, "/edge.crt", &headers, &request).await?;

    let files = [("ca.crt", pem(&ca), 0o644), ("edge.crt", pem(&certificate), 0o644), ("edge.key", key.serialize_pem(), 0o600)];
    store(data_dir, &files, |dir| {
        let loaded = tls::load(dir, SystemTime::now());
        match loaded {
            Ok(tls) if tls.node == node => Ok(tls),
            Ok(_) => Err(JoinError::Answer { address: address.clone(), detail: "its certificate is for another node" }),
            Err(source) => Err(JoinError::Certificate { address: address.clone(), source }),
        }
    })
}

/// Fingerprint and bearer part of a token, which are checked no further here.
fn split_token(token: &str) -> Result<(&str, &str), JoinError> {
    let (fingerprint, bearer) = token.trim().split_once('.').ok_or(JoinError::Token)?;
    let is_print = fingerprint.len() == 64 && fingerprint.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
    // The bearer goes into a header: base64url and dots, nothing that could end the line.
    let is_bearer = bearer.len() <= 4096
        && bearer.split('.').count() == 3
        && bearer.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'));
    if is_print && is_bearer { Ok((fingerprint, bearer)) } else { Err(JoinError::Token) }
}

fn fingerprint(ca: &[u8]) -> String {
    ring::digest::digest(&ring::digest::SHA256, ca).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn signing_request(node: &NodeName, key: &KeyPair) -> Result<Vec<u8>, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, identity::NODES);
    params.distinguished_name.push(DnType::CommonName, identity::common_name(node));
    Ok(params.serialize_request(key)?.der().to_vec())
}

/// Writes `files` into a directory beside `<data>/pki`, lets `check` judge it there, then puts it in place.
fn store<T>(data_dir: &Path, files: &[(&str, String, u32)], check: impl FnOnce(&Path) -> Result<T, JoinError>) -> Result<T, JoinError> {
    let (pki, previous) = (data_dir.join("pki"), data_dir.join("pki.previous"));
    let fresh = data_dir.join(format!(".pki.{}", uuid::Uuid::new_v4().simple()));
    let failed = |action, path: &Path| {
        let path = path.to_owned();
        move |source| JoinError::Write { action, path, source }
    };
    fs::create_dir_all(data_dir).map_err(failed("create", data_dir))?;
    let outcome = (|| {
        fs::create_dir(&fresh).map_err(failed("create", &fresh))?;
        fs::set_permissions(&fresh, Permissions::from_mode(0o700)).map_err(failed("protect", &fresh))?;
        for (name, text, mode) in files {
            let path = fresh.join(name);
            let write = || {
                let mut file = OpenOptions::new().write(true).create_new(true).mode(*mode).open(&path)?;
                file.write_all(text.as_bytes())?;
                file.sync_all()
            };
            write().map_err(failed("write", &path))?;
        }
        sync(&fresh).map_err(failed("sync", &fresh))?;
        let checked = check(&fresh)?;
        if pki.exists() {
            let _ = fs::remove_dir_all(&previous);
            fs::rename(&pki, &previous).map_err(failed("move away", &pki))?;
        }
        fs::rename(&fresh, &pki).map_err(failed("create", &pki))?;
        sync(data_dir).map_err(failed("sync", data_dir))?;
        Ok(checked)
    })();
    if outcome.is_err() {
        let _ = fs::remove_dir_all(&fresh);
    }
    outcome
}

fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
