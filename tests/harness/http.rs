//! One plain HTTP request to a port of the loopback: what `curl` would show.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

/// Largest answer that is read.
const ANSWER_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Status and body of `GET path`.
///
/// # Errors
/// The port does not answer, or not in HTTP.
pub fn get(port: u16, path: &str) -> Result<(u16, String), String> {
    ask(port, "GET", path, "")
}

/// Status and body of `POST path` without a body, as an administrator's program sends it.
///
/// # Errors
/// The port does not answer, or not in HTTP.
pub fn post(port: u16, path: &str) -> Result<(u16, String), String> {
    ask(port, "POST", path, "X-Skep-Action: 1\r\nContent-Length: 0\r\n")
}

/// Status and body of `DELETE path`, as an administrator's program sends it.
///
/// # Errors
/// The port does not answer, or not in HTTP.
pub fn delete(port: u16, path: &str) -> Result<(u16, String), String> {
    ask(port, "DELETE", path, "X-Skep-Action: 1\r\n")
}

/// Status and body of a request with a JSON body of this media type.
///
/// # Errors
/// The port does not answer, or not in HTTP.
pub fn send(port: u16, method: &str, path: &str, media_type: &str, body: &str) -> Result<(u16, String), String> {
    exchange(port, method, path, &format!("Content-Type: {media_type}\r\nContent-Length: {}\r\n", body.len()), body)
}

/// Value of a figure of `GET /metrics`, by its name with its labels.
///
/// # Errors
/// The port does not answer, or has no such figure.
pub fn metric(port: u16, name: &str) -> Result<f64, String> {
    let (_, text) = get(port, "/metrics")?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.trim().parse().ok()).ok_or_else(|| format!("no `{name}` in /metrics of port {port}"))
}

fn ask(port: u16, method: &str, path: &str, headers: &str) -> Result<(u16, String), String> {
    exchange(port, method, path, headers, "")
}

fn exchange(port: u16, method: &str, path: &str, headers: &str, body: &str) -> Result<(u16, String), String> {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        write!(stream, "{method} {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n{headers}\r\n{body}")?;
        let mut bytes = Vec::new();
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let answer = ask().map_err(|error| format!("port {port}: {error}"))?;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    let (_, body) = answer.split_once("\r\n\r\n").ok_or_else(|| format!("no HTTP answer: {answer:.80}"))?;
    status.map(|status| (status, body.to_owned())).ok_or_else(|| format!("no HTTP answer: {answer:.80}"))
}
