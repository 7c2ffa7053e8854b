//! One question to a container.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{grpc, http};
use crate::edged::pod::{Container, Handler, TcpSocketAction};
use crate::edged::runtime::{ContainerRuntime, RuntimeError};

/// Most bytes that are shown of what a container or the system says.
pub const TEXT_BYTES_MAX: usize = 1024;

/// Where the container is.
#[derive(Clone)]
pub struct Target {
    /// Address of the pod; empty while it has none.
    pub pod_ip: String,
    /// The engine's id.
    pub container_id: String,
    /// The engine.
    pub runtime: Arc<dyn ContainerRuntime>,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is well.
    Success,
    /// It is not, in the kubelet's words, at most [`TEXT_BYTES_MAX`].
    Failure(String),
    /// It could not be asked, for a reason that says nothing of it.
    Unknown(String),
}

impl Outcome {
    /// A failure in these words, shortened.
    pub(super) fn failure(text: impl fmt::Display) -> Self {
        Self::Failure(shown(&text.to_string()))
    }

    /// Not asked, for this reason, shortened.
    pub(super) fn unknown(text: impl fmt::Display) -> Self {
        Self::Unknown(shown(&text.to_string()))
    }
}

/// Asks a container as its probe says. The answer comes within `limit`, or a failure does. `late` is the probe's own: its last
/// program, by the engine's id, if that had no end in time.
pub async fn ask(handler: &Handler, container: &Container, target: &Target, limit: Duration, late: &mut Option<String>) -> Outcome {
    let Handler { exec, http_get, tcp_socket, grpc, sleep: _ } = handler;
    if let Some(exec) = exec {
        ask_program(&exec.command, target, limit, late).await
    } else if let Some(get) = http_get {
        match http::Request::new(get, container, &target.pod_ip) {
            Ok(request) => ask_http(&request, limit).await,
            Err(error) => Outcome::unknown(error),
        }
    } else if let Some(tcp) = tcp_socket {
        ask_tcp(tcp, container, target, limit).await
    } else if let Some(action) = grpc {
        match Place::new("", &Value::from(action.port), container, &target.pod_ip) {
            Ok(place) => grpc::ask(&place, &action.service, limit).await,
            Err(error) => Outcome::unknown(error),
        }
    } else {
        Outcome::unknown("the probe has no action")
    }
}

/// A program that hangs would get company in each period, as engines cannot end it: while it runs, there is no other.
async fn ask_program(command: &[String], target: &Target, limit: Duration, late: &mut Option<String>) -> Outcome {
    let timed_out = format!("command timed out after {}s", limit.as_secs_f32());
    if let Some(program) = late {
        match timeout(limit, target.runtime.goes_on(program)).await {
            Ok(Ok(false)) => *late = None,
            Ok(Ok(true)) => return Outcome::failure(format_args!("{timed_out}, and still runs")),
            Ok(Err(error)) => return Outcome::unknown(error),
            Err(_) => return Outcome::failure(timed_out),
        }
    }
    match target.runtime.exec(&target.container_id, command, limit).await {
        Ok(executed) if executed.code == 0 => Outcome::Success,
        Ok(executed) => Outcome::failure(executed.output.trim_end()),
        Err(RuntimeError::TimedOut { .. }) => Outcome::failure(timed_out),
        Err(RuntimeError::GoesOn { program, .. }) => {
            *late = Some(program);
            Outcome::failure(timed_out)
        }
        Err(error) => Outcome::unknown(error),
    }
}

async fn ask_http(request: &http::Request, limit: Duration) -> Outcome {
    match timeout(limit, request.status()).await {
        Ok(Ok(200..400)) => Outcome::Success,
        Ok(Ok(status)) => Outcome::failure(format_args!("HTTP probe failed with statuscode: {status}")),
        Ok(Err(error)) => Outcome::failure(format_args!("Get {:?}: {error}", request.url())),
        Err(_) => {
            Outcome::failure(format_args!("Get {:?}: context deadline exceeded (Client.Timeout exceeded while awaiting headers)", request.url()))
        }
    }
}

async fn ask_tcp(tcp: &TcpSocketAction, container: &Container, target: &Target, limit: Duration) -> Outcome {
    let place = match Place::new(&tcp.host, &tcp.port, container, &target.pod_ip) {
        Ok(place) => place,
        Err(error) => return Outcome::unknown(error),
    };
    match timeout(limit, place.connect()).await {
        Ok(Ok(_)) => Outcome::Success,
        Ok(Err(error)) => Outcome::failure(error),
        Err(_) => Outcome::failure(format_args!("dial tcp {place}: i/o timeout")),
    }
}

/// Where a question goes: prints as `host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Name or address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// Why there is nowhere to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    /// Neither the probe nor the engine names one.
    #[error("the pod has no address")]
    NoAddress,
    /// The probe's port is none, nor the name of one of the container.
    #[error("the probe names no port of the container")]
    NoPort,
}

impl Place {
    /// `host` where the probe names one, else the pod's address; `port` by number or by its name in the container.
    pub fn new(host: &str, port: &Value, container: &Container, pod_ip: &str) -> Result<Self, PlaceError> {
        let host = if host.is_empty() { pod_ip } else { host };
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host).to_owned();
        if host.is_empty() {
            return Err(PlaceError::NoAddress);
        }
        Ok(Self { host, port: container.port(port).ok_or(PlaceError::NoPort)? })
    }

    pub async fn connect(&self) -> Result<TcpStream, DialError> {
        let failed = |source| DialError { place: self.clone(), source };
        TcpStream::connect((self.host.as_str(), self.port)).await.map_err(failed)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// A connection that was not made, in Go's words.
#[derive(Debug, thiserror::Error)]
#[error("dial tcp {place}: connect: {}", words(source))]
pub struct DialError {
    place: Place,
    source: io::Error,
}

fn words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".into(),
        io::ErrorKind::HostUnreachable => "no route to host".into(),
        io::ErrorKind::NetworkUnreachable => "network is unreachable".into(),
        io::ErrorKind::TimedOut => "connection timed out".into(),
        _ => error.to_string(),
    }
}

/// At most [`TEXT_BYTES_MAX`] of a text, whole characters.
pub(super) fn shown(text: &str) -> String {
    text[..text.floor_char_boundary(TEXT_BYTES_MAX)].to_owned()
}
