//! The embedded API over one HTTPS connection, request by request.

use std::fmt::Write as _;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A connection of the administrator.
pub struct Api {
    stream: BufReader<TlsStream<TcpStream>>,
    line: String,
}

/// How an answer's body ends.
enum Length {
    Bytes(usize),
    Chunks,
}

fn io(error: std::io::Error) -> String {
    format!("embedded API: {error}")
}

impl Api {
    /// Connects.
    ///
    /// # Errors
    /// It is refused.
    pub async fn connect(port: u16, tls: Arc<ClientConfig>) -> Result<Self, String> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.map_err(io)?;
        stream.set_nodelay(true).map_err(io)?;
        let name = ServerName::try_from("localhost").expect("a DNS name");
        let stream = TlsConnector::from(tls).connect(name, stream).await.map_err(io)?;
        Ok(Self { stream: BufReader::new(stream), line: String::new() })
    }

    /// `POST`s an object.
    ///
    /// # Errors
    /// The API's words.
    pub async fn create(&mut self, path: &str, object: &Value) -> Result<Value, String> {
        self.ask("POST", path, "application/json", Some(object)).await
    }

    /// Sends a merge patch.
    ///
    /// # Errors
    /// The API's words.
    pub async fn patch(&mut self, path: &str, patch: &Value) -> Result<Value, String> {
        self.ask("PATCH", path, "application/merge-patch+json", Some(patch)).await
    }

    /// `GET`s an object or a list.
    ///
    /// # Errors
    /// The API's words.
    pub async fn get(&mut self, path: &str) -> Result<Value, String> {
        self.ask("GET", path, "application/json", None).await
    }

    /// `DELETE`s an object.
    ///
    /// # Errors
    /// The API's words.
    pub async fn delete(&mut self, path: &str) -> Result<Value, String> {
        self.ask("DELETE", path, "application/json", None).await
    }

    async fn ask(&mut self, method: &str, path: &str, form: &str, body: Option<&Value>) -> Result<Value, String> {
        let (status, length) = self.request(method, path, form, body).await?;
        let mut answer = Vec::new();
        match length {
            Length::Bytes(bytes) => {
                answer.resize(bytes, 0);
                self.stream.read_exact(&mut answer).await.map_err(io)?;
            }
            Length::Chunks => while self.chunk(&mut answer).await? {},
        }
        let value: Value = serde_json::from_slice(&answer).map_err(|error| format!("{method} {path}: no JSON: {error}"))?;
        if (200..300).contains(&status) { Ok(value) } else { Err(format!("{method} {path}: {status} {}", value["message"])) }
    }

    /// Begins to watch; [`Api::event`] gives what happens from now on.
    ///
    /// # Errors
    /// The API refuses.
    pub async fn watch(&mut self, path: &str) -> Result<(), String> {
        match self.request("GET", path, "application/json", None).await? {
            (200, Length::Chunks) => Ok(()),
            (status, _) => Err(format!("GET {path}: {status}, no watch")),
        }
    }

    /// What arrived next on the watch: whole lines, as the API writes one chunk for one or more events.
    ///
    /// # Errors
    /// The watch ended.
    pub async fn event(&mut self) -> Result<Vec<Value>, String> {
        let mut text = Vec::new();
        loop {
            if !self.chunk(&mut text).await? {
                return Err("the watch ended".to_owned());
            }
            if text.last() == Some(&b'\n') {
                let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
                return lines.map(|line| serde_json::from_slice(line).map_err(|error| format!("the watch: {error}"))).collect();
            }
        }
    }

    async fn request(&mut self, method: &str, path: &str, form: &str, body: Option<&Value>) -> Result<(u16, Length), String> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let mut text = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n");
        if !body.is_empty() {
            let _ = write!(text, "Content-Type: {form}\r\nContent-Length: {}\r\n", body.len());
        }
        let _ = write!(text, "\r\n{body}");
        let stream = self.stream.get_mut();
        stream.write_all(text.as_bytes()).await.map_err(io)?;
        stream.flush().await.map_err(io)?;
        let status = self.line().await?.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or("the embedded API speaks no HTTP")?;
        let mut length = Length::Bytes(0);
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                return Ok((status, length));
            }
            let Some((name, value)) = line.split_once(':') else { continue };
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = Length::Bytes(value.trim().parse().map_err(|_| "a length that is no number")?),
                "transfer-encoding" => length = Length::Chunks,
                _ => {}
            }
        }
    }

    async fn line(&mut self) -> Result<&str, String> {
        self.line.clear();
        if self.stream.read_line(&mut self.line).await.map_err(io)? == 0 {
            return Err("the embedded API closed the connection".to_owned());
        }
        Ok(self.line.trim_end())
    }

    /// Reads one chunk behind `into`; `false` for the last one, which is empty.
    async fn chunk(&mut self, into: &mut Vec<u8>) -> Result<bool, String> {
        let bytes = usize::from_str_radix(self.line().await?, 16).map_err(|_| "a chunk without a length")?;
        let before = into.len();
        into.resize(before + bytes, 0);
        self.stream.read_exact(&mut into[before..]).await.map_err(io)?;
        self.line().await?;
        Ok(bytes > 0)
    }
}
