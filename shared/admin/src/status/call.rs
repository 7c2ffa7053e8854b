//! The `status` command of a daemon: where it asks, and as whom.

use std::io::{self, ErrorKind, IsTerminal as _};
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use actor::chain;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

use super::{Credentials, Options, StatusError, run};
use crate::Exit;
use crate::keys::{Admin, Daemon};

/// How the command was called; what is not said comes from the daemon's configuration.
#[derive(Clone, Debug, Default)]
pub struct Call {
    /// `HOST:PORT` of the page.
    pub admin: Option<String>,
    /// File with the page's token.
    pub token_file: Option<PathBuf>,
    /// PEM files of a page that asks for certificates: the visitor's, its key, and the authority of the page's own.
    pub certificate: Option<[PathBuf; 3]>,
    /// How it is printed.
    pub options: Options,
}

/// Prints the status on standard output. `admin`: what the configuration says of the page, where one was read.
///
/// # Errors
/// [`Exit`], with the sentence for the operator.
pub fn call<D: Daemon>(call: &Call, admin: Option<&Admin<D>>) -> Result<(), Exit> {
    let (address, host) = match (&call.admin, admin) {
        (Some(named), _) => resolve(named)?,
        (None, Some(admin)) => (admin.listen(), admin.hosts.first().cloned().unwrap_or_else(|| admin.address.to_string())),
        (None, None) => (Admin::<D>::default().listen(), "localhost".to_owned()),
    };
    let token = || call.token_file.clone().or_else(|| admin.map(|admin| admin.token_file.clone())).filter(|path| !path.as_os_str().is_empty());
    let credentials = match (&call.certificate, token()) {
        (Some([certificate, key, authority]), _) => certified(certificate, key, authority, host)?,
        (None, Some(token)) => Credentials::Token(token),
        (None, None) if admin.is_some_and(|admin| !admin.client_ca_file.as_os_str().is_empty()) => {
            return Err(Exit::Certificate("this page asks for certificates (admin.client-ca-file): give --cert, --key and --ca".to_owned()));
        }
        (None, None) => Credentials::None,
    };
    let options = Options { terminal: io::stdout().is_terminal(), ..call.options };
    match run(address, &credentials, options, &mut io::stdout().lock()) {
        // A pager that was closed.
        Err(StatusError::Write(error)) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        Err(error @ StatusError::Token(_)) => Err(Exit::Configuration(chain(&error))),
        Err(error) => Err(Exit::Unavailable(chain(&error))),
        Ok(()) => Ok(()),
    }
}

fn resolve(named: &str) -> Result<(SocketAddr, String), Exit> {
    let wrong = || Exit::Configuration(format!("`{named}` is no address of an admin page: write --admin HOST:PORT"));
    let (host, _) = named.rsplit_once(':').ok_or_else(wrong)?;
    let address = named.to_socket_addrs().ok().and_then(|mut found| found.next()).ok_or_else(wrong)?;
    Ok((address, host.trim_matches(['[', ']']).to_owned()))
}

fn certified(certificate: &Path, key: &Path, authority: &Path, host: String) -> Result<Credentials, Exit> {
    let unusable =
        |path: &Path, why: &dyn std::fmt::Display| Exit::Certificate(format!("cannot use `{}`: {why}; give it a PEM file", path.display()));
    let read = |path: &Path| -> Result<Vec<CertificateDer<'static>>, Exit> {
        let all = CertificateDer::pem_file_iter(path).map_err(|error| unusable(path, &error))?;
        all.collect::<Result<_, _>>().map_err(|error| unusable(path, &error))
    };
    let mut roots = RootCertStore::empty();
    for root in read(authority)? {
        roots.add(root).map_err(|error| unusable(authority, &error))?;
    }
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| unusable(key, &error))?;
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(certificate, &error))?
        .with_root_certificates(roots)
        .with_client_auth_cert(read(certificate)?, secret)
        .map_err(|error| unusable(certificate, &error))?;
    let name = ServerName::try_from(host.clone()).map_err(|error| Exit::Configuration(format!("`{host}` is no name of a server: {error}")))?;
    Ok(Credentials::Certificate(Arc::new(config), name))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, missing_docs)] // a failed step is the test's failure

    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        assert_eq!(resolve("127.0.0.1:1").unwrap(), ("127.0.0.1:1".parse().unwrap(), "127.0.0.1".to_owned()));
        assert_eq!(resolve("[::1]:1").unwrap(), ("[::1]:1".parse().unwrap(), "::1".to_owned()));
        for wrong in ["", "localhost", "127.0.0.1:many", "http://127.0.0.1:1/"] {
            assert!(matches!(resolve(wrong), Err(Exit::Configuration(why)) if why.contains("--admin")), "{wrong}");
        }
    }

    #[test]
    fn a_certificate_that_cannot_be_read_is_named() {
        let nothing = Path::new("/nonexistent/x.pem");
        assert!(
            matches!(certified(nothing, nothing, nothing, "localhost".into()), Err(Exit::Certificate(why)) if why.contains("/nonexistent/x.pem"))
        );
    }
}
