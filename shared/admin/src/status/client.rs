//! One HTTP/1.1 GET over a blocking socket: bounded in time and in bytes, no redirect, no reuse.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

/// From the connection to the last byte.
const WITHIN: Duration = Duration::from_secs(5);
/// Largest head of an answer, in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Largest body of an answer, in bytes. A status of a hundred actors has less than a tenth.
const BODY_BYTES_MAX: usize = 4 << 20;
/// Most headers of an answer.
const HEADERS_MAX: usize = 64;

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No connection, or it broke.
    #[error("the connection failed")]
    Connection(#[source] io::Error),
    /// TLS was not agreed on.
    #[error("TLS cannot be used")]
    Tls(#[source] rustls::Error),
    /// More than five seconds.
    #[error("no complete answer within {} s", WITHIN.as_secs())]
    Late,
    /// More bytes than a status has.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
    /// It is no HTTP.
    #[error("the answer is not HTTP/1.1")]
    NotHttp,
}

/// What was answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

/// Asks for `path`.
pub(super) fn get(
    address: SocketAddr,
    path: &str,
    token: Option<&str>,
    tls: Option<&(Arc<ClientConfig>, ServerName<'static>)>,
) -> Result<Answer, ClientError> {
    let deadline = Instant::now() + WITHIN;
    let stream = TcpStream::connect_timeout(&address, WITHIN).map_err(failed)?;
    let timed = Timed { stream, deadline };
    let authorization = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n{authorization}Accept: application/json\r\nConnection: close\r\n\r\n");
    match tls {
        None => exchange(timed, &request),
        Some((config, name)) => {
            let session = ClientConnection::new(config.clone(), name.clone()).map_err(ClientError::Tls)?;
            exchange(StreamOwned::new(session, timed), &request)
        }
    }
}

/// A socket whose every wait ends at one deadline, so that an answer in single bytes is late, too.
struct Timed {
    stream: TcpStream,
    deadline: Instant,
}

impl Timed {
    fn left(&self) -> io::Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}

impl Read for Timed {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(self.left()?))?;
        self.stream.read(into)
    }
}

impl Write for Timed {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(self.left()?))?;
        self.stream.write(from)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

fn failed(error: io::Error) -> ClientError {
    match error.kind() {
        ErrorKind::TimedOut | ErrorKind::WouldBlock => ClientError::Late,
        _ => ClientError::Connection(error),
    }
}

fn exchange(mut stream: impl Read + Write, request: &str) -> Result<Answer, ClientError> {
    stream.write_all(request.as_bytes()).and_then(|()| stream.flush()).map_err(failed)?;
    let mut received = Vec::new();
    let mut more = |received: &mut Vec<u8>| -> Result<usize, ClientError> {
        let mut part = [0; 8192];
        match stream.read(&mut part) {
            Ok(n) => {
                received.extend_from_slice(&part[..n]);
                Ok(n)
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(1),
            Err(error) => Err(failed(error)),
        }
    };
    let (mut rest, status, framing) = loop {
        if let Some((length, status, framing)) = head(&received)? {
            break (received.split_off(length), status, framing);
        }
        if received.len() > HEAD_BYTES_MAX {
            return Err(ClientError::TooLarge(HEAD_BYTES_MAX));
        }
        if more(&mut received)? == 0 {
            return Err(ClientError::NotHttp);
        }
    };
    loop {
        let body = match framing {
            Framing::Length(wanted) if wanted > BODY_BYTES_MAX => return Err(ClientError::TooLarge(BODY_BYTES_MAX)),
            Framing::Length(wanted) => (rest.len() >= wanted).then(|| rest[..wanted].to_vec()),
            Framing::Chunked => unchunked(&rest)?,
        };
        if let Some(body) = body {
            return Ok(Answer { status, body });
        }
        // Chunks carry their lengths beside the bytes.
        if rest.len() > 2 * BODY_BYTES_MAX {
            return Err(ClientError::TooLarge(BODY_BYTES_MAX));
        }
        if more(&mut rest)? == 0 {
            return Err(ClientError::NotHttp);
        }
    }
}

/// How the end of a body is told.
#[derive(Clone, Copy)]
enum Framing {
    Length(usize),
    Chunked,
}

/// Length of the head, status, and how the body ends; `None` while the head is incomplete.
fn head(received: &[u8]) -> Result<Option<(usize, u16, Framing)>, ClientError> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut answer = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(length) = answer.parse(received).map_err(|_| ClientError::NotHttp)? else { return Ok(None) };
    let status = answer.code.ok_or(ClientError::NotHttp)?;
    let value = |name: &str| answer.headers.iter().find(|h| h.name.eq_ignore_ascii_case(name)).and_then(|h| std::str::from_utf8(h.value).ok());
    let framing = match (value("transfer-encoding"), value("content-length")) {
        (Some(coding), None) if coding.eq_ignore_ascii_case("chunked") => Framing::Chunked,
        (None, Some(length)) => Framing::Length(length.trim().parse().map_err(|_| ClientError::NotHttp)?),
        // Both at once, or neither, or another coding: nothing that our server sends.
        _ => return Err(ClientError::NotHttp),
    };
    Ok(Some((length, status, framing)))
}

/// The body, when its last chunk is there.
fn unchunked(mut rest: &[u8]) -> Result<Option<Vec<u8>>, ClientError> {
    let mut body = Vec::new();
    loop {
        let httparse::Status::Complete((at, size)) = httparse::parse_chunk_size(rest).map_err(|_| ClientError::NotHttp)? else { return Ok(None) };
        let size = usize::try_from(size).ok().filter(|size| *size <= BODY_BYTES_MAX - body.len()).ok_or(ClientError::TooLarge(BODY_BYTES_MAX))?;
        if size == 0 {
            return Ok(Some(body));
        }
        let Some(chunk) = rest.get(at..at + size + 2) else { return Ok(None) };
        if !chunk.ends_with(b"\r\n") {
            return Err(ClientError::NotHttp);
        }
        body.extend_from_slice(&chunk[..size]);
        rest = &rest[at + size + 2..];
    }
}
