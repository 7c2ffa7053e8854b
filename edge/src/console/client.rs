//! One GET of the read-only endpoint: within a time until the answer begins, then as long as it comes.

use std::net::SocketAddr;
use std::time::Duration;

use containers_api::conn::hyper::body::HttpBody as _;
use containers_api::conn::hyper::{self, Body, Client};
use serde_json::Value;

use super::{ConsoleError, plain};

/// From the connection to the head of the answer.
const WITHIN: Duration = Duration::from_secs(30);
/// Most bytes of an answer that is read as a whole.
const BODY_BYTES_MAX: usize = 256 << 20;

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No connection, or it broke.
    #[error(transparent)]
    Http(#[from] hyper::Error),
    /// Nothing in time.
    #[error("nothing within {} s", WITHIN.as_secs())]
    Late,
    /// More than an answer can have.
    #[error("more than {BODY_BYTES_MAX} bytes")]
    TooLarge,
}

/// Asks for a path, which must be one: see [`segment`].
///
/// # Errors
/// `NoAnswer`; `Refused` with the daemon's sentence.
pub async fn get(address: SocketAddr, path: &str) -> Result<Body, ConsoleError> {
    let no_answer = |source| ConsoleError::NoAnswer { address, source };
    let uri = format!("http://{address}{path}").parse().map_err(|_| ConsoleError::NotFound(format!("`{}` is no name of a pod", plain(path))))?;
    let answer = tokio::time::timeout(WITHIN, Client::new().get(uri)).await.map_err(|_| no_answer(ClientError::Late))?;
    let answer = answer.map_err(|error| no_answer(error.into()))?;
    let status = answer.status();
    if status.is_success() {
        return Ok(answer.into_body());
    }
    let said = String::from_utf8_lossy(&whole(address, answer.into_body()).await?).trim().to_owned();
    let said = if said.is_empty() { format!("the daemon on {address} refused with status {}", status.as_u16()) } else { plain(&said) };
    Err(ConsoleError::Refused(said))
}

async fn whole(address: SocketAddr, mut body: Body) -> Result<Vec<u8>, ConsoleError> {
    let broken = |source| ConsoleError::BrokenOff { address, source };
    let mut bytes = Vec::new();
    while let Some(piece) = body.data().await {
        bytes.extend_from_slice(&piece.map_err(|error| broken(error.into()))?);
        if bytes.len() > BODY_BYTES_MAX {
            return Err(broken(ClientError::TooLarge));
        }
    }
    Ok(bytes)
}

/// The pods of the node.
///
/// # Errors
/// As [`get`]; `BrokenOff` and `NotOurs`.
pub async fn pod_list(address: SocketAddr) -> Result<Value, ConsoleError> {
    let bytes = whole(address, get(address, "/pods").await?).await?;
    let list: Option<Value> = serde_json::from_slice(&bytes).ok();
    list.filter(|list| list["items"].is_array()).ok_or(ConsoleError::NotOurs(address))
}

/// A name as a part of a path or a query.
pub fn segment(name: &str) -> String {
    let one = |byte: u8| if byte.is_ascii_alphanumeric() || b"-._".contains(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    name.bytes().map(one).collect()
}
