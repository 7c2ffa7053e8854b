//! Through which doors clients come, and what each has to prove there.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::access::Access;
use super::tls::{Tls, TlsFiles};
use crate::config::{Invalid, Mqtt};

/// What a client has to prove.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Proof {
    /// Nothing; a user who gives a name has to give the password too.
    #[default]
    Nothing,
    /// A user's password.
    Password,
    /// A certificate of the clients' authority.
    Certificate,
}

/// The TLS entrance.
#[derive(Debug)]
pub struct Secure {
    /// Where it listens (`mqtt.internal-tls-server`).
    pub address: SocketAddr,
    /// Its certificate.
    pub tls: Tls,
    /// What its clients prove.
    pub proof: Proof,
}

/// The public entrances of the embedded broker. By default: one, without TLS and for everybody.
#[derive(Debug, Default)]
pub struct Entrances {
    /// Who is known, and what each may do.
    pub access: Arc<Access>,
    /// What clients prove without TLS.
    pub plain: Proof,
    /// The one with TLS.
    pub secure: Option<Secure>,
}

impl Entrances {
    /// Takes over the settings and reads the files; `plain` is where the entrance without TLS will be.
    ///
    /// # Errors
    /// `Invalid`: a file that cannot be used, a rule that says nothing, an entrance that would be open to a whole network.
    pub fn new(mqtt: &Mqtt, plain: SocketAddr) -> Result<Self, Invalid> {
        let access = Access::new(mqtt)?;
        let users = access.users.is_some();
        let anonymous = |address: SocketAddr| mqtt.allow_anonymous.unwrap_or(address.ip().is_loopback() && !users);
        let proof = |address| if anonymous(address) { Proof::Nothing } else { Proof::Password };
        let open = |key, address: SocketAddr, url: &str| match proof(address) {
            Proof::Password if !users && !address.ip().is_loopback() => Err(Invalid {
                key,
                value: format!("`{url}`"),
                advice: "other machines could speak for every device there: set mqtt.internal-users-file (names and passwords), or \
                         mqtt.internal-tls-server with mqtt.internal-tls.client-ca-file (certificates) and leave mqtt.internal-server on \
                         127.0.0.1; or say mqtt.allow-anonymous: true if that is meant"
                    .into(),
            }),
            proof => Ok(proof),
        };
        let secure = match mqtt.internal_tls_server.as_str() {
            "" => None,
            url => {
                let address = listen("mqtt.internal-tls-server", url)?;
                let tls = Tls::read(&files(mqtt)?).map_err(|problem| {
                    problem.of("mqtt.internal-tls.cert-file", "name a certificate, its key, and the clients' authority if they have certificates")
                })?;
                let proof = if tls.by_certificate { Proof::Certificate } else { open("mqtt.internal-tls-server", address, url)? };
                Some(Secure { address, tls, proof })
            }
        };
        let plain = open("mqtt.internal-server", plain, &mqtt.internal_server)?;
        Ok(Self { access: Arc::new(access), plain, secure })
    }
}

fn files(mqtt: &Mqtt) -> Result<TlsFiles, Invalid> {
    let given = |key, path: &Path| {
        let missing = || Invalid { key, value: "``".into(), advice: "mqtt.internal-tls-server needs it: name a PEM file".into() };
        if path.as_os_str().is_empty() { Err(missing()) } else { Ok(path.to_owned()) }
    };
    let tls = &mqtt.internal_tls;
    Ok(TlsFiles {
        certificate: given("mqtt.internal-tls.cert-file", &tls.cert_file)?,
        key: given("mqtt.internal-tls.key-file", &tls.key_file)?,
        client_ca: Some(tls.client_ca_file.clone()).filter(|path: &PathBuf| !path.as_os_str().is_empty()),
    })
}

fn listen(key: &'static str, url: &str) -> Result<SocketAddr, Invalid> {
    let authority = url.split_once("://").and_then(|(scheme, rest)| matches!(scheme, "mqtts" | "ssl" | "tls").then(|| rest.trim_end_matches('/')));
    let address = authority.and_then(|authority| authority.to_socket_addrs().ok()).and_then(|mut addresses| addresses.next());
    address.ok_or_else(|| Invalid {
        key,
        value: format!("`{url}`"),
        advice: "write mqtts://ADDRESS:PORT with an address of this machine, such as mqtts://0.0.0.0:8883".into(),
    })
}
