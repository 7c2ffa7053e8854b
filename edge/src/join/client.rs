//! One HTTPS request with a bounded answer: all that joining needs of HTTP.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::{CertificateError, ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::error::JoinError;

/// Largest answer, headers included, bytes. A certificate has about 600.
pub const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// For the whole request, from the first packet to the last.
const WITHIN: Duration = Duration::from_secs(20);

/// Where the cloud's HTTPS port is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    host: String,
    port: u16,
}

impl Endpoint {
    /// Reads `https://host[:port]`, with or without the scheme and a final slash; the port is 10002 by default.
    pub fn parse(cloud: &str) -> Option<Self> {
        let rest = cloud.strip_prefix("https://").unwrap_or(cloud);
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match rest.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']')?;
                (host, port.strip_prefix(':').or(port.is_empty().then_some("10002"))?)
            }
            None => rest.split_once(':').unwrap_or((rest, "10002")),
        };
        let port = port.parse().ok().filter(|port| *port != 0)?;
        ServerName::try_from(host).ok()?;
        Some(Self { host: host.to_owned(), port })
    }

    /// Host and port for messages.
    pub fn address(&self) -> String {
        if self.host.contains(':') { format!("[{}]:{}", self.host, self.port) } else { format!("{}:{}", self.host, self.port) }
    }
}

/// Sends one request and returns the body of a 200.
///
/// # Errors
/// `Refused` with the body's first line for any other status; see [`JoinError`] for the rest.
pub async fn get(endpoint: &Endpoint, tls: Arc<ClientConfig>, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Vec<u8>, JoinError> {
    let exchange = exchange(endpoint, tls, path, headers, body);
    let answer =
        tokio::time::timeout(WITHIN, exchange).await.map_err(|_| JoinError::Timeout { address: endpoint.address(), seconds: WITHIN.as_secs() })??;
    let wrong = |detail| JoinError::Answer { address: endpoint.address(), detail };
    let (status, body) = parse(&answer).map_err(wrong)?;
    if status != 200 {
        let text = String::from_utf8_lossy(body);
        let reason = text.lines().next().unwrap_or_default().chars().take(300).filter(|c| !c.is_control()).collect();
        return Err(JoinError::Refused { address: endpoint.address(), status, reason });
    }
    Ok(body.to_vec())
}

async fn exchange(endpoint: &Endpoint, tls: Arc<ClientConfig>, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Vec<u8>, JoinError> {
    let address = endpoint.address();
    let socket = TcpStream::connect((endpoint.host.as_str(), endpoint.port))
        .await
        .map_err(|source| JoinError::Connect { address: address.clone(), source })?;
    let name = ServerName::try_from(endpoint.host.clone()).map_err(|_| JoinError::CloudAddress { cloud: address.clone() })?;
    let failed = |source: io::Error| match tls_error(&source) {
        Some(rustls::Error::InvalidCertificate(CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. })) => {
            JoinError::HostNotAdvertised { host: endpoint.host.clone() }
        }
        _ => JoinError::Tls { address: address.clone(), source },
    };
    let mut stream = TlsConnector::from(tls).connect(name, socket).await.map_err(failed)?;

    // HTTP/1.0: the answer is never chunked, and the connection ends after it.
    let mut request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    let mut request = request.into_bytes();
    request.extend_from_slice(body);
    stream.write_all(&request).await.map_err(failed)?;
    stream.flush().await.map_err(failed)?;

    let mut answer = Vec::with_capacity(4096);
    loop {
        match stream.read_buf(&mut answer).await {
            Ok(0) => return Ok(answer),
            Ok(_) if answer.len() > ANSWER_BYTES_MAX => {
                return Err(JoinError::Answer { address, detail: "the answer is too large" });
            }
            Ok(_) => {}
            // Without close_notify: whether it is complete is decided by Content-Length.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(answer),
            Err(source) => return Err(failed(source)),
        }
    }
}

fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// Status and body of a complete HTTP/1 answer.
fn parse(answer: &[u8]) -> Result<(u16, &[u8]), &'static str> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").ok_or("no HTTP answer")?;
    let head = std::str::from_utf8(&answer[..end]).map_err(|_| "no HTTP answer")?;
    let body = &answer[end + 4..];
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .filter(|line| line.starts_with("HTTP/1."))
        .and_then(|line| line.split(' ').nth(1))
        .and_then(|status| status.parse().ok())
        .ok_or("no HTTP answer")?;
    let length = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .map(|(_, value)| value.trim().parse::<usize>().map_err(|_| "bad Content-Length"))
        .transpose()?;
    match length {
        Some(length) if body.len() < length => Err("the answer is cut off"),
        Some(length) => Ok((status, &body[..length])),
        None => Err("no Content-Length"),
    }
}

/// Trusts the given authority alone.
pub fn trusting(ca: &[u8]) -> Result<Arc<ClientConfig>, rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(ca.to_vec()))?;
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}
