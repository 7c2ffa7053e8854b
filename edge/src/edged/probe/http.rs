//! A GET request of HTTP/1.1, of whose answer only the status is of interest. Within its host it follows redirections, as the
//! kubelet's probes do; one to another host is an answer by itself.

use std::io;
use std::time::Duration;

use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use url::Url;

use super::ask::{DialError, Place, PlaceError, shown};
use crate::anybody::trusting_anything;
use crate::edged::pod::{Container, HttpGetAction};

/// Longest first line of an answer, in bytes.
const STATUS_LINE_MAX: usize = 1024;
/// Most bytes of an answer's headers, those of interim answers before it among them (Go's limit is 10 MiB).
const HEADERS_MAX: usize = 64 * 1024;
/// Most bytes that are read behind them (the kubelet's limit of a body).
const BODY_MAX: usize = 10 * 1024;
/// So long the body of an answer is waited for, so that a polite server can finish its sentence.
const BODY_WITHIN: Duration = Duration::from_millis(100);
/// Requests, until one answer decides (Go's number).
const REDIRECTS_MAX: usize = 10;
/// Statuses that say where else to ask.
const REDIRECTS: [u16; 5] = [301, 302, 303, 307, 308];
/// Headers that belong to the connection, which is ours.
const OURS: [&str; 5] = ["connection", "content-length", "host", "transfer-encoding", "upgrade"];

/// A request, ready to be sent any number of times.
#[derive(Clone, Debug)]
pub struct Request {
    place: Place,
    is_tls: bool,
    path: String,
    /// What the probe gives as `Host`.
    host: Option<String>,
    /// Lines behind `Host`.
    headers: String,
}

/// What is of interest in an answer.
struct Answer {
    status: u16,
    /// Where else to ask.
    location: Option<String>,
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
    /// It ended within an answer.
    #[error("net/http: HTTP/1.x transport connection broken: unexpected EOF")]
    Cut,
    /// Its headers have no end.
    #[error("net/http: server response headers exceeded {HEADERS_MAX} bytes; aborted")]
    Headers,
    /// What came is no HTTP.
    #[error("net/http: HTTP/1.x transport connection broken: malformed HTTP response {0:?}")]
    Malformed(String),
    /// It sends elsewhere, and that is no place.
    #[error("failed to parse Location header {0:?}")]
    Location(String),
    /// It sends to the same host for something that is no HTTP.
    #[error("unsupported protocol scheme {0:?}")]
    Scheme(String),
    /// It sends from place to place.
    #[error("stopped after {REDIRECTS_MAX} redirects")]
    Redirects,
}

impl Request {
    /// The request that a probe or hook describes.
    pub fn new(get: &HttpGetAction, container: &Container, pod_ip: &str) -> Result<Self, PlaceError> {
        let place = Place::new(&get.host, &get.port, container, pod_ip)?;
        let is_tls = get.scheme == "HTTPS";
        let slash = if get.path.starts_with('/') { "" } else { "/" };
        let path = format!("{slash}{}", get.path);
        let given = |name: &str| get.http_headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        let host = given("host").map(|header| header.value.clone()).filter(|host| !host.is_empty());
        let mut headers = String::from("Connection: close\r\n");
        for (name, value) in [("User-Agent", "skep-probe"), ("Accept", "*/*")] {
            if given(name).is_none() {
                headers.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        for header in get.http_headers.iter().filter(|header| !OURS.contains(&header.name.to_ascii_lowercase().as_str())) {
            headers.push_str(&format!("{}: {}\r\n", header.name, header.value));
        }
        Ok(Self { place, is_tls, path, host, headers })
    }

    /// As the kubelet shows it.
    pub fn url(&self) -> String {
        format!("{}://{}{}", if self.is_tls { "https" } else { "http" }, self.place, self.path)
    }

    fn head(&self) -> String {
        let host = self.host.clone().unwrap_or_else(|| self.place.to_string());
        format!("GET {} HTTP/1.1\r\nHost: {host}\r\n{}\r\n", self.path, self.headers)
    }

    /// The same at another place; `None` if that is another host.
    fn redirected(&self, location: &str) -> Result<Option<Self>, HttpError> {
        let wrong = || HttpError::Location(shown(location));
        let here = Url::parse(&self.url()).map_err(|_| wrong())?;
        let (there, is_absolute) = match Url::parse(location) {
            Ok(there) => (there, true),
            Err(url::ParseError::RelativeUrlWithoutBase) => (here.join(location).map_err(|_| wrong())?, false),
            Err(_) => return Err(wrong()),
        };
        if there.host_str() != here.host_str() {
            return Ok(None);
        }
        if !["http", "https"].contains(&there.scheme()) {
            return Err(HttpError::Scheme(shown(there.scheme())));
        }
        let (is_tls, port) = (there.scheme() == "https", there.port_or_known_default().ok_or_else(wrong)?);
        let query = there.query().map(|query| format!("?{query}")).unwrap_or_default();
        let place = Place { host: self.place.host.clone(), port };
        // Go keeps the name that the probe gave until an answer says where else in full.
        let host = self.host.clone().filter(|_| !is_absolute);
        Ok(Some(Self { place, is_tls, path: format!("{}{query}", there.path()), host, headers: self.headers.clone() }))
    }

    /// Sends it and reads the status of the answer, of the last one behind redirections. Has no time limit of its own.
    pub async fn status(&self) -> Result<u16, HttpError> {
        let mut request = self.clone();
        for _ in 0..REDIRECTS_MAX {
            let Answer { status, location } = request.send().await?;
            let Some(location) = location else { return Ok(status) };
            match request.redirected(&location)? {
                Some(next) => request = next,
                None => return Ok(status),
            }
        }
        Err(HttpError::Redirects)
    }

    async fn send(&self) -> Result<Answer, HttpError> {
        let stream = self.place.connect().await?;
        if !self.is_tls {
            return self.exchange(stream).await;
        }
        let other = |error| HttpError::Tls(io::Error::other(error));
        let tls = trusting_anything().map_err(|error| HttpError::Tls(io::Error::other(error)))?;
        let name = ServerName::try_from(self.place.host.clone()).map_err(other)?;
        self.exchange(TlsConnector::from(tls).connect(name, stream).await.map_err(HttpError::Tls)?).await
    }

    async fn exchange(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) -> Result<Answer, HttpError> {
        stream.write_all(self.head().as_bytes()).await.map_err(HttpError::Broken)?;
        stream.flush().await.map_err(HttpError::Broken)?;
        let (mut read, mut before) = (Vec::with_capacity(256), 0);
        let (status, end) = loop {
            let (status, end) = read_head(&mut stream, &mut read, before).await?;
            // An interim answer: the real one is still to come (RFC 9110 §15.2).
            if !(100..200).contains(&status) || status == 101 {
                break (status, end);
            }
            before += end;
            read.drain(..end);
        };
        if REDIRECTS.contains(&status) {
            return Ok(Answer { status, location: location_of(&read[..end]) });
        }
        let body = async { while read.len() < end + BODY_MAX && stream.read_buf(&mut read).await.is_ok_and(|bytes| bytes > 0) {} };
        // The answer is decided; how it ends changes nothing.
        let _ = timeout(BODY_WITHIN, body).await;
        Ok(Answer { status, location: None })
    }
}

/// Reads on until there is a whole head in `read`, which may hold some of it already: its status, and where it ends. `before`
/// are the bytes of heads before it.
async fn read_head(stream: &mut (impl AsyncRead + Unpin), read: &mut Vec<u8>, before: usize) -> Result<(u16, usize), HttpError> {
    let (mut status, mut looked) = (None, 0);
    loop {
        // What is no HTTP is known by its first line.
        if status.is_none() && (read.contains(&b'\n') || read.len() > STATUS_LINE_MAX) {
            status = Some(status_of(read).ok_or_else(|| malformed(read))?);
        }
        if let (Some(status), Some(end)) = (status, head_end(read, looked)) {
            return Ok((status, end));
        }
        looked = read.len();
        if before + looked > HEADERS_MAX {
            return Err(HttpError::Headers);
        }
        match stream.read_buf(read).await {
            Ok(0) if before + looked == 0 => return Err(HttpError::Ended),
            Ok(0) if status.is_none() && looked > 0 => return Err(malformed(read)),
            Ok(0) => return Err(HttpError::Cut),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(if before + looked == 0 { HttpError::Ended } else { HttpError::Cut });
            }
            Err(error) => return Err(HttpError::Broken(error)),
        }
    }
}

/// Where the headers of an answer end, if they do, and that not before `looked`.
fn head_end(answer: &[u8], looked: usize) -> Option<usize> {
    (looked + 1..=answer.len()).find(|end| answer[..*end].ends_with(b"\n\n") || answer[..*end].ends_with(b"\n\r\n"))
}

/// The header of an answer that says where else to ask.
fn location_of(answer: &[u8]) -> Option<String> {
    let lines = answer.split(|byte| *byte == b'\n').map(|line| line.trim_ascii_end());
    let headers = lines.skip(1).take_while(|line| !line.is_empty()).filter_map(|line| std::str::from_utf8(line).ok()?.split_once(':'));
    headers.into_iter().find(|(name, _)| name.eq_ignore_ascii_case("location")).map(|(_, value)| value.trim().to_owned()).filter(|to| !to.is_empty())
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
            plain.head(),
            "GET /healthz?full=1 HTTP/1.1\r\nHost: 10.0.0.7:8080\r\nConnection: close\r\nUser-Agent: skep-probe\r\nAccept: */*\r\n\r\n"
        );
        let headers = json!([{"name": "host", "value": "shop.example"}, {"name": "user-agent", "value": "me"}, {"name": "X-A", "value": "1"},
            {"name": "Connection", "value": "keep-alive"}, {"name": "Transfer-Encoding", "value": "chunked"}]);
        let given = request(json!({"port": 443, "host": "::1", "scheme": "HTTPS", "httpHeaders": headers}));
        assert_eq!((given.url().as_str(), given.is_tls), ("https://[::1]:443/", true));
        assert_eq!(given.head(), "GET / HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\nAccept: */*\r\nuser-agent: me\r\nX-A: 1\r\n\r\n");
    }

    #[test]
    fn a_redirection_is_followed_within_the_host_only() {
        let from =
            request(json!({"port": 8080, "path": "/a/b?c=1", "httpHeaders": [{"name": "Host", "value": "shop"}, {"name": "X-A", "value": "1"}]}));
        for (location, url, host) in [
            ("/x", "http://10.0.0.7:8080/x", "shop"),
            ("http://10.0.0.7:8080/x", "http://10.0.0.7:8080/x", "10.0.0.7:8080"),
            ("x?y=2#z", "http://10.0.0.7:8080/a/x?y=2", "shop"),
            ("?y", "http://10.0.0.7:8080/a/b?y", "shop"),
            ("http://10.0.0.7/", "http://10.0.0.7:80/", "10.0.0.7:80"),
            ("//10.0.0.7:8443/", "http://10.0.0.7:8443/", "shop"),
            ("HTTPS://10.0.0.7/s", "https://10.0.0.7:443/s", "10.0.0.7:443"),
            ("/a b\u{e9}", "http://10.0.0.7:8080/a%20b%C3%A9", "shop"),
        ] {
            let to = from.redirected(location).unwrap().unwrap();
            assert_eq!((to.url().as_str(), &to.headers), (url, &from.headers), "{location}");
            assert!(to.head().contains(&format!("\r\nHost: {host}\r\n")), "{location}: {}", to.head());
        }
        for location in ["http://10.0.0.8:8080/", "http://example.org", "ftp://10.0.0.8/", "http:x", "//evil/", "javascript:x"] {
            assert!(from.redirected(location).unwrap().is_none(), "{location}");
        }
        for location in ["http://", "http://[::1", "http://10.0.0.7:99999/"] {
            assert!(matches!(from.redirected(location), Err(HttpError::Location(_))), "{location}");
        }
        for location in ["ftp://10.0.0.7/", "x-own://10.0.0.7:8080/"] {
            let scheme = location.split(':').next().unwrap();
            let error = from.redirected(location).unwrap_err().to_string();
            assert_eq!(error, format!("unsupported protocol scheme \"{scheme}\""));
        }
        // A name that was dropped does not come back.
        let dropped = from.redirected("http://10.0.0.7:8080/x").unwrap().unwrap().redirected("/y").unwrap().unwrap();
        assert!(dropped.head().starts_with("GET /y HTTP/1.1\r\nHost: 10.0.0.7:8080\r\n"), "{}", dropped.head());
        let six = request(json!({"port": 80, "host": "[::1]"}));
        assert_eq!(six.redirected("http://[0:0::1]:8080/x").unwrap().unwrap().url(), "http://[::1]:8080/x");
    }

    #[test]
    fn headers_end_at_the_first_empty_line_however_they_came() {
        for (answer, end) in
            [("HTTP/1.1 200\r\n\r\nbody\r\n\r\n", Some(16)), ("HTTP/1.1 200\nX: y\n\n", Some(19)), ("HTTP/1.1 200\r\nX: y\r\n", None)]
        {
            for looked in 0..end.unwrap_or(answer.len()) {
                assert_eq!(head_end(answer.as_bytes(), looked), end, "{answer} from {looked}");
            }
        }
        for (answer, to) in [("L: x\r\nlocation: /a\r\nLocation: /b\r\n\r\n", Some("/a")), ("Location: \r\n\r\n", None), ("\r\nLocation: /a", None)] {
            assert_eq!(location_of(format!("HTTP/1.1 302 Found\r\n{answer}").as_bytes()).as_deref(), to, "{answer}");
        }
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
