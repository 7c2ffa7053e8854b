//! The placement server: tells a node the address of its CloudHub (manual ch. 9.2).
//!
//! One `GET` over mutual TLS, HTTP/1.1, whose body is `wss://host:port` as text.

use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::http::Uri;

/// Longest answer that is read, with its head.
const ANSWER_BYTES_MAX: u64 = 16 << 10;
/// Longest address that is taken.
const ADDRESS_BYTES_MAX: usize = 2_048;

/// Why the placement server gave no address.
#[derive(Debug, thiserror::Error)]
pub enum PlacementError {
    /// The URL cannot be used.
    #[error("`{url}` is no placement server: set `edgehub.controller.placement-url` to https://host[:port]/path")]
    Url {
        /// The URL of the configuration.
        url: String,
    },
    /// No connection, or it broke.
    #[error("the placement server {host}:{port} cannot be asked: {source}")]
    Io {
        /// Host of the URL.
        host: String,
        /// Port of the URL.
        port: u16,
        /// What the operating system or rustls said.
        source: std::io::Error,
    },
    /// No answer in time.
    #[error("the placement server did not answer within {0:?}")]
    Slow(Duration),
    /// Another status than 200.
    #[error("the placement server refused with HTTP status {0}")]
    Status(u16),
    /// The answer is not what it should be.
    #[error("the placement server's answer cannot be used: {0}")]
    Answer(&'static str),
}

/// Asks for the address of CloudHub: `wss://host:port`, without a path.
///
/// # Errors
/// [`PlacementError`]; worth asking again later, whatever it is.
pub async fn ask(url: &str, tls: Arc<ClientConfig>, within: Duration) -> Result<String, PlacementError> {
    tokio::time::timeout(within, ask_for_ever(url, tls)).await.unwrap_or(Err(PlacementError::Slow(within)))
}

async fn ask_for_ever(url: &str, tls: Arc<ClientConfig>) -> Result<String, PlacementError> {
    let bad_url = || PlacementError::Url { url: url.to_owned() };
    let uri: Uri = url.parse().map_err(|_| bad_url())?;
    let authority = uri.authority().filter(|_| uri.scheme_str() == Some("https")).ok_or_else(bad_url)?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = authority.port_u16().unwrap_or(443);
    let name = ServerName::try_from(host.clone()).map_err(|_| bad_url())?;
    let io = |source| PlacementError::Io { host: host.clone(), port, source };
    let stream = TcpStream::connect((host.as_str(), port)).await.map_err(io)?;
    let mut stream = TlsConnector::from(tls).connect(name, stream).await.map_err(io)?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {authority}\r\nContent-Type: application/json\r\nAccept: text/plain\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(io)?;
    let mut answer = Vec::new();
    let read = (&mut stream).take(ANSWER_BYTES_MAX + 1).read_to_end(&mut answer).await;
    match read {
        Ok(_) => {}
        // Many servers close without the TLS goodbye; `Content-Length` tells whether the body is whole.
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof && !answer.is_empty() => {}
        Err(error) => return Err(io(error)),
    }
    if answer.len() as u64 > ANSWER_BYTES_MAX {
        return Err(PlacementError::Answer("it is longer than 16 KiB"));
    }
    address(&answer)
}

/// The address in an answer.
fn address(answer: &[u8]) -> Result<String, PlacementError> {
    let text = std::str::from_utf8(answer).map_err(|_| PlacementError::Answer("it is not text"))?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or(PlacementError::Answer("it is no HTTP"))?;
    let mut lines = head.split("\r\n");
    let status = lines.next().filter(|line| line.starts_with("HTTP/1.")).and_then(|line| line.split(' ').nth(1)?.parse::<u16>().ok());
    match status {
        Some(200) => {}
        Some(status) => return Err(PlacementError::Status(status)),
        None => return Err(PlacementError::Answer("it is no HTTP")),
    }
    let header = |wanted: &str| {
        lines
            .clone()
            .find_map(|line| line.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.trim().to_owned()))
    };
    let chunked = header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"));
    let body = match (chunked, header("content-length").map(|length| length.parse::<usize>())) {
        (true, _) => unchunk(body).ok_or(PlacementError::Answer("its body is cut"))?,
        (false, Some(Ok(length))) => body.get(..length).ok_or(PlacementError::Answer("its body is cut"))?.to_owned(),
        (false, Some(Err(_))) => return Err(PlacementError::Answer("its length is no number")),
        (false, None) => body.to_owned(),
    };
    let address = body.trim().trim_matches('"');
    let plausible = address.strip_prefix("wss://").is_some_and(|rest| !rest.is_empty());
    if !plausible || address.len() > ADDRESS_BYTES_MAX || address.contains(|c: char| c.is_control() || c.is_whitespace()) {
        return Err(PlacementError::Answer("it is not of the form wss://host:port"));
    }
    Ok(address.to_owned())
}

fn unchunk(mut body: &str) -> Option<String> {
    let mut whole = String::new();
    loop {
        let (size, rest) = body.split_once("\r\n")?;
        let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
        if size == 0 {
            return Some(whole);
        }
        whole.push_str(rest.get(..size)?);
        body = rest.get(size..)?.strip_prefix("\r\n")?;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    #[test]
    fn the_address_is_read_from_every_form_of_body() {
        for answer in [
            "HTTP/1.1 200 OK\r\nContent-Length: 22\r\n\r\nwss://cloud.test:10000",
            "HTTP/1.1 200 OK\r\n\r\nwss://cloud.test:10000\n",
            "HTTP/1.0 200 OK\r\ncontent-length: 24\r\n\r\n\"wss://cloud.test:10000\"",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nwss://\r\n10;x=y\r\ncloud.test:10000\r\n0\r\n\r\n",
        ] {
            assert_eq!(address(answer.as_bytes()).unwrap(), "wss://cloud.test:10000", "{answer}");
        }
    }

    #[test]
    fn any_other_answer_is_an_error_and_never_an_address() {
        for answer in [
            "",
            "x",
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\nhttp://cloud",
            "HTTP/1.1 200 OK\r\n\r\nwss://",
            "HTTP/1.1 200 OK\r\n\r\nwss://a\r\nb",
            "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nwss://cut",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nwss://a",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nwss://a\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\u{e9}\r\nwss://a",
            "ICY 200 OK\r\n\r\nwss://a",
        ] {
            assert!(matches!(address(answer.as_bytes()), Err(PlacementError::Answer(_))), "{answer}");
        }
        assert!(matches!(address(b"HTTP/1.1 400 Bad\r\n\r\n"), Err(PlacementError::Status(400))));
        assert!(address(b"\xff\r\n\r\n").is_err());
    }
}
