//! How the administrator's server is set up.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use actix_web::web;

use crate::access::AccessError;
use crate::health::Check;
use crate::logging::LogControl;
use crate::metrics::Metric;

/// How the server is set up.
#[derive(Clone)]
pub struct AdminConfig {
    /// Addresses of the page and all that belongs to it.
    pub listen: Vec<SocketAddr>,
    /// Addresses, loopback only, on which nothing but [`routes`](Self::routes) is served, to be read without credentials.
    pub read_only: Vec<SocketAddr>,
    /// Names under which the page may be asked for on an address that is not loopback, beside its numbers.
    pub hosts: Vec<String>,
    /// Who may come in.
    pub access: Access,
    /// Title of the page: the daemon's name and node.
    pub title: String,
    /// Prefix of the metrics: `skep_edge`, `skep_cloud`.
    pub prefix: &'static str,
    /// Further figures of the daemon.
    pub extra: Arc<dyn Fn() -> Vec<Metric> + Send + Sync>,
    /// Further checks of the daemon. Asked at each probe, on the server's thread: reads what is there, waits for nothing.
    pub checks: Arc<dyn Fn() -> Vec<Check> + Send + Sync>,
    /// Whether `POST /debug/actors/{name}/…` makes actors fail on purpose (`admin.fault-injection`).
    pub fault_injection: bool,
    /// The log, to change its level; without it the page does not offer that.
    pub log: Option<LogControl>,
    /// Further routes of the daemon.
    pub routes: fn(&mut web::ServiceConfig),
    /// What those routes need.
    pub data: Arc<dyn Fn(&mut web::ServiceConfig) + Send + Sync>,
}

/// Who may use the page. The health endpoints need no credentials, because a kubelet has none.
#[derive(Clone, Debug, Default)]
pub enum Access {
    /// Everybody on this machine; refuses to listen elsewhere.
    #[default]
    Loopback,
    /// Who has the token in this file (16 to 512 bytes, of this user alone): as `Authorization: Bearer`, or as the
    /// password of any user name, so that a browser can. Read once, at the start.
    Token(PathBuf),
    /// Who has a certificate of an authority in this configuration; see [`client_certificates`](crate::client_certificates).
    ClientCertificates(Arc<rustls::ServerConfig>),
}

/// Why the server could not start.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// Somebody else listens there, or the address is not ours.
    #[error("failed to listen on {address} for the admin page: free the port or set `admin.port`")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Without a secret the page is for this machine only.
    #[error(
        "the admin page would be open to the network on {0}: set `admin.address` to 127.0.0.1, or protect it with a token file or client certificates"
    )]
    NotLoopback(SocketAddr),
    /// What protects it cannot be used.
    #[error(transparent)]
    Access(#[from] AccessError),
}
