//! One attempt to connect: TCP, TLS, the upgrade, and why it failed.

use std::io::ErrorKind;
#[cfg(test)]
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue, Request, Uri};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use wire::link::{Capabilities, HEADER};

use super::ear::{Ear, Heard};
use super::{Config, Destination, FRAME_BYTES_MAX};

/// The library's default of 128 KiB would be a sixth of this daemon's memory.
const READ_BUFFER_BYTES: usize = 16 << 10;
const WRITE_BUFFER_BYTES: usize = 16 << 10;

/// Why an attempt failed or a session ended.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The destination is not known.
    #[error("the address of the cloud is not known: {0}")]
    Destination(String),
    /// The URL cannot be used.
    #[error("`{url}` cannot be connected to: {reason}; set `edgehub.websocket.url` to wss://host:port/{{project}}/{{node}}/events")]
    Url {
        /// The URL of the configuration or the placement server.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// No TCP connection.
    #[error("{host}:{port} cannot be reached: {source}")]
    Connect {
        /// Host of the URL.
        host: String,
        /// Port of the URL.
        port: u16,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// One side refused the other's certificate.
    #[error(
        "{host} and this node do not trust each other's certificate: {reason}; \
         check that `pki/ca.crt` is the CA of this cloud, or run `skep-edge join` again with a token of it"
    )]
    Untrusted {
        /// Host of the URL.
        host: String,
        /// What rustls said.
        reason: String,
    },
    /// The TLS handshake failed otherwise.
    #[error("TLS with {host} failed: {source}")]
    Tls {
        /// Host of the URL.
        host: String,
        /// What rustls said.
        source: std::io::Error,
    },
    /// The upgrade was refused, with a status such as 401, 403 or 429.
    #[error("the cloud refused the connection with HTTP status {status}")]
    Refused {
        /// HTTP status.
        status: u16,
    },
    /// Nothing from the peer for two heartbeats.
    #[error("nothing was heard from the cloud for {0:?}")]
    Silent(Duration),
    /// A frame could not be written in time.
    #[error("the cloud took no data for {0:?}")]
    Stuck(Duration),
    /// Connecting took too long.
    #[error("no connection within {0:?}")]
    Slow(Duration),
    /// The peer closed the connection.
    #[error("the cloud closed the connection")]
    Closed,
    /// The connection ended without a goodbye: the cloud died, or something between cut it.
    #[error("the connection was cut: the cloud or the network between ended it without a goodbye")]
    Cut,
    /// The peer broke the WebSocket protocol or a limit.
    #[error("WebSocket: {0}")]
    Protocol(Box<tungstenite::Error>),
}

impl SocketError {
    /// Nobody listens at the cloud's address, which its machine says at once and without work: another attempt costs
    /// nobody anything, so the cloud's return need not be waited for long.
    pub(super) fn is_nobody_there(&self) -> bool {
        matches!(self, Self::Connect { source, .. } if source.kind() == ErrorKind::ConnectionRefused)
    }
}

impl From<tungstenite::Error> for SocketError {
    fn from(error: tungstenite::Error) -> Self {
        match error {
            tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => Self::Closed,
            tungstenite::Error::Http(response) => Self::Refused { status: response.status().as_u16() },
            tungstenite::Error::Io(error)
                if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) =>
            {
                Self::Cut
            }
            tungstenite::Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Self::Cut,
            other => Self::Protocol(Box::new(other)),
        }
    }
}

/// A connection that was upgraded.
pub(super) type WebSocket = tokio_tungstenite::WebSocketStream<tokio_rustls::client::TlsStream<Heard<TcpStream>>>;

/// TCP, TLS, upgrade; and what hears the cloud on this connection.
///
/// Says what this edge can do beyond KubeEdge's protocol, and returns what both sides can.
pub(super) async fn connect<D: Destination>(config: &Config, destination: &D) -> Result<(WebSocket, Ear, Capabilities), SocketError> {
    let (url, tls) = destination.resolve().await.map_err(SocketError::Destination)?;
    let (request, host, port) = upgrade_request(&url, &config.headers)?;
    let name = ServerName::try_from(host.clone()).map_err(|_| bad_url(&url, "its host is neither a DNS name nor an IP address"))?;
    let stream = TcpStream::connect((host.as_str(), port)).await.map_err(|source| SocketError::Connect { host: host.clone(), port, source })?;
    let _ = stream.set_nodelay(true);
    let ear = Ear::new();
    let stream = Heard::new(stream, ear.clone());
    let stream = TlsConnector::from(tls).connect(name, stream).await.map_err(|source| tls_error(&host, source))?;
    let limits = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_write_buffer_size(FRAME_BYTES_MAX + 2 * WRITE_BUFFER_BYTES)
        .max_frame_size(Some(FRAME_BYTES_MAX))
        .max_message_size(Some(FRAME_BYTES_MAX));
    match tokio_tungstenite::client_async_with_config(request, stream, Some(limits)).await {
        Ok((stream, answer)) => {
            let of_cloud = answer.headers().get(HEADER).and_then(|value| value.to_str().ok()).map(Capabilities::read);
            Ok((stream, ear, of_cloud.unwrap_or_default().and(Capabilities::OURS)))
        }
        // In TLS 1.3 the server judges our certificate after the handshake has ended for us.
        Err(tungstenite::Error::Io(error)) => Err(tls_error(&host, error)),
        Err(error) => Err(error.into()),
    }
}

/// One attempt to connect, for tests of what it says.
#[cfg(test)]
pub(in crate::edge_hub) async fn try_once(config: &Config, url: String, tls: Arc<rustls::ClientConfig>) -> Result<(), SocketError> {
    struct Here(String, Arc<rustls::ClientConfig>);
    impl Destination for Here {
        async fn resolve(&self) -> Result<(String, Arc<rustls::ClientConfig>), String> {
            Ok((self.0.clone(), self.1.clone()))
        }
    }
    connect(config, &Here(url, tls)).await.map(drop)
}

fn tls_error(host: &str, source: std::io::Error) -> SocketError {
    let host = host.to_owned();
    let cause = source.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    match cause {
        Some(rustls::Error::InvalidCertificate(cause)) => SocketError::Untrusted { host, reason: format!("the cloud's certificate: {cause}") },
        Some(rustls::Error::AlertReceived(alert)) => {
            use rustls::AlertDescription as Alert;
            match alert {
                Alert::BadCertificate
                | Alert::UnsupportedCertificate
                | Alert::CertificateRevoked
                | Alert::CertificateExpired
                | Alert::CertificateUnknown
                | Alert::UnknownCA
                | Alert::AccessDenied
                | Alert::DecryptError
                | Alert::CertificateRequired => SocketError::Untrusted { host, reason: format!("the cloud refused ours: {alert:?}") },
                _ => SocketError::Tls { host, source },
            }
        }
        _ => SocketError::Tls { host, source },
    }
}

/// Builds the upgrade request. Returns it with host (without brackets) and port.
fn upgrade_request(url: &str, headers: &[(String, String)]) -> Result<(Request<()>, String, u16), SocketError> {
    let uri: Uri = url.parse().map_err(|_| bad_url(url, "it is no URL"))?;
    if uri.scheme_str() != Some("wss") {
        return Err(bad_url(url, "only wss:// is spoken with the cloud"));
    }
    let authority = uri.authority().ok_or_else(|| bad_url(url, "it names no host"))?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = match authority.port_u16() {
        Some(port) => port,
        // The parser drops a port above 65535 without a word.
        None if authority.as_str().ends_with(authority.host()) => 443,
        None => return Err(bad_url(url, "its port is no number from 1 to 65535")),
    };
    let mut request = uri.into_client_request().map_err(|_| bad_url(url, "it is no URL"))?;
    if let Some(value) = Capabilities::OURS.header() {
        request.headers_mut().insert(HeaderName::from_static(HEADER), HeaderValue::from_static(value));
    }
    for (name, value) in headers {
        let header = HeaderName::try_from(name.as_str()).ok().zip(HeaderValue::try_from(value.as_str()).ok());
        let Some((name, value)) = header else {
            return Err(bad_url(url, "a header of the upgrade (node_id, project_id) holds characters that HTTP does not allow"));
        };
        request.headers_mut().insert(name, value);
    }
    Ok((request, host, port))
}

fn bad_url(url: &str, reason: &'static str) -> SocketError {
    SocketError::Url { url: url.to_owned(), reason }
}
