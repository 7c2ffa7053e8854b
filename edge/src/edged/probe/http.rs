//! A GET request of HTTP/1.1, of whose answer only the status is of interest.

use std::io;
use std::time::Duration;

use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::ask::{DialError, Place, PlaceError};
use crate::anybody::trusting_anybody;
use crate::edged::pod::{Container, HttpGetAction};

/// Longest first line of an answer, in bytes.
const STATUS_LINE_MAX: usize = 1024;
/// Most bytes that are read behind it (the kubelet's limit of a body).
const REST_MAX: usize = 10 * 1024;
/// So long the rest of an answer is waited for, so that a polite server can finish its sentence.
const REST_WITHIN: Duration = Duration::from_millis(100);
/// Headers that belong to the connection, which is ours.
const OURS: [&str; 5] = ["connection", "content-length", "host", "transfer-encoding", "upgrade"];

/// A request, ready to be sent any number of times.
#[derive(Debug)]
pub struct Request {
    place: Place,
    is_tls: bool,
    url: String,
    head: Vec<u8>,
}

/// Why there is no status, in the words of Go's client.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// No connection.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// No TLS; of certificates none is refused.
    #[error("tls: {0}")]
    Tls(io::Error),
    /// The connection broke.
    #[error("{0}")]
    Broken(io::Error),
    /// It ended before an answer.
    #[error("EOF")]
    Ended,
    /// What came is no HTTP.
    #[error("net/http: HTTP/1.x transport connection broken: malformed HTTP response {0:?}")]
    Malformed(String),
}

impl Request {
    /// The request that a probe or hook describes.
    pub fn new(get: &HttpGetAction, container: &Container, pod_ip: &str) -> Result<Self, PlaceError> {
        let place = Place::new(&get.host, &get.port, container, pod_ip)?;
        let is_tls = get.scheme == "HTTPS";
        let slash = if get.path.starts_with('/') { "" } else { "/" };
        let path = format!("{slash}{}", get.path);
        let url = format!("{}://{place}{path}", if is_tls { "https" } else { "http" });
        let given = |name: &str| get.http_headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        let host = given("host").map_or_else(|| place.to_string(), |header| header.value.clone());
        let mut head = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
        for (name, value) in [("User-Agent", "skep-probe"), ("Accept", "*/*")] {
            if given(name).is_none() {
                head.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        for header in get.http_headers.iter().filter(|header| !OURS.contains(&header.name.to_ascii_lowercase().as_str())) {
            head.push_str(&format!("{}: {}\r\n", header.name, header.value));
        }
        head.push_str("\r\n");
        Ok(Self { place, is_tls, url, head: head.into_bytes() })
    }

    /// As the kubelet shows it.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Sends it and reads the status of the answer. Has no time limit of its own.
    pub async fn status(&self) -> Result<u16, HttpError> {
        let stream = self.place.connect().await?;
        if !self.is_tls {
            return self.exchange(stream).await;
        }
        let other = |error| HttpError::Tls(io::Error::other(error));
        let tls = trusting_anybody().map_err(|error| HttpError::Tls(io::Error::other(error)))?;
        let name = ServerName::try_from(self.place.host.clone()).map_err(other)?;
        self.exchange(TlsConnector::from(tls).connect(name, stream).await.map_err(HttpError::Tls)?).await
    }

    async fn exchange(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) -> Result<u16, HttpError> {
        stream.write_all(&self.head).await.map_err(HttpError::Broken)?;
        stream.flush().await.map_err(HttpError::Broken)?;
        let mut line = Vec::with_capacity(256);
        while !line.contains(&b'\n') {
            if line.len() > STATUS_LINE_MAX {
                return Err(malformed(&line));
            }
            match stream.read_buf(&mut line).await {
                Ok(0) if line.is_empty() => return Err(HttpError::Ended),
                Ok(0) => return Err(malformed(&line)),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(HttpError::Ended),
                Err(error) => return Err(HttpError::Broken(error)),
            }
        }
        let status = status_of(&line).ok_or_else(|| malformed(&line))?;
        let mut rest = [0; 2048];
        let drain = async {
            let mut read = line.len();
            while read < REST_MAX {
                match stream.read(&mut rest).await {
                    Ok(0) | Err(_) => break,
                    Ok(bytes) => read += bytes,
                }
            }
        };
        // The answer is decided; how it ends changes nothing.
        let _ = timeout(REST_WITHIN, drain).await;
        Ok(status)
    }
}

/// The number in `HTTP/1.1 200 OK`.
fn status_of(line: &[u8]) -> Option<u16> {
    let line = std::str::from_utf8(line.split(|byte| *byte == b'\n').next()?).ok()?;
    let (version, rest) = line.trim_end_matches('\r').split_once(' ')?;
    let code = rest.split(' ').next()?;
    let is_status = version.starts_with("HTTP/1.") && code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_digit());
    is_status.then(|| code.parse().ok()).flatten().filter(|code| *code >= 100)
}

fn malformed(line: &[u8]) -> HttpError {
    HttpError::Malformed(String::from_utf8_lossy(&line[..line.len().min(64)]).trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use serde_json::json;

    use super::*;

    fn request(get: serde_json::Value) -> Request {
        let container =
            Container { ports: vec![serde_json::from_value(json!({"name": "web", "containerPort": 8080})).unwrap()], ..Container::default() };
        Request::new(&serde_json::from_value(get).unwrap(), &container, "10.0.0.7").unwrap()
    }

    #[test]
    fn a_request_has_the_host_and_the_headers_that_the_probe_says_and_the_connection_is_ours() {
        let plain = request(json!({"port": "web", "path": "healthz?full=1"}));
        assert_eq!(plain.url(), "http://10.0.0.7:8080/healthz?full=1");
        assert_eq!(
            String::from_utf8(plain.head).unwrap(),
            "GET /healthz?full=1 HTTP/1.1\r\nHost: 10.0.0.7:8080\r\nConnection: close\r\nUser-Agent: skep-probe\r\nAccept: */*\r\n\r\n"
        );
        let headers = json!([{"name": "host", "value": "shop.example"}, {"name": "user-agent", "value": "me"}, {"name": "X-A", "value": "1"},
            {"name": "Connection", "value": "keep-alive"}, {"name": "Transfer-Encoding", "value": "chunked"}]);
        let given = request(json!({"port": 443, "host": "::1", "scheme": "HTTPS", "httpHeaders": headers}));
        assert_eq!((given.url(), given.is_tls), ("https://[::1]:443/", true));
        let head = String::from_utf8(given.head).unwrap();
        assert_eq!(head, "GET / HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\nAccept: */*\r\nuser-agent: me\r\nX-A: 1\r\n\r\n");
    }

    #[test]
    fn a_status_line_is_read_and_nothing_else_is_one() {
        for (line, status) in [("HTTP/1.1 200 OK\r\n", 200), ("HTTP/1.0 503\n", 503), ("HTTP/1.1 404 Not Found\r\nX: y\r\n", 404)] {
            assert_eq!(status_of(line.as_bytes()), Some(status), "{line}");
        }
        for line in [
            "",
            "\n",
            "HTTP/1.1\n",
            "HTTP/2 200\n",
            "HTTP/1.1 20\n",
            "HTTP/1.1 2000\n",
            "HTTP/1.1 +20\n",
            "HTTP/1.1 000\n",
            "ICY 200\n",
            "HTTP/1.1  200\n",
        ] {
            assert_eq!(status_of(line.as_bytes()), None, "{line}");
        }
        assert_eq!(status_of(b"HTTP/1.1 \xff00\n"), None);
    }
}
