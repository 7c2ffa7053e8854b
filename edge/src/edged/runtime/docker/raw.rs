//! What the crate cannot say or read, over the same socket: a body with all fields, lists with empty labels, logs of a
//! terminal, figures without waiting for the next ones.

use bytes::Bytes;
use containers_api::conn::hyper::{self, Body, Response, StatusCode};
use containers_api::conn::{Headers, Payload, RequestClient, Transport};
use futures_util::TryStreamExt;
use futures_util::stream::{self, Stream};
use hyperlocal::UnixConnector;
use serde::Deserialize;
use serde_json::{Value, json};
use std::pin::Pin;

use super::super::{Image, LogQuery, RuntimeError, Usage};
use super::body::CreateBody;

/// Longest piece of a log that is taken in at once. Docker cuts lines at 16 KiB.
const FRAME_MAX: usize = 1024 * 1024;

/// Requests with bodies and answers of our own.
pub struct RawClient {
    client: RequestClient<docker_api::Error>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Created {
    id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListedImage {
    id: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    repo_digests: Option<Vec<String>>,
    #[serde(default)]
    size: i64,
    #[serde(default)]
    created: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Sized {
    size_rw: Option<i64>,
}

impl RawClient {
    /// Over this socket.
    pub fn new(path: &str) -> Self {
        // A connection for each request, as the crate has it: an engine that was restarted leaves no dead one behind.
        let client = hyper::Client::builder().pool_max_idle_per_host(0).build(UnixConnector);
        Self { client: RequestClient::new(Transport::Unix { client, path: path.into() }, Box::new(checked)) }
    }

    /// Makes a container and gives its id.
    pub async fn create(&self, name: &str, body: &CreateBody<'_>) -> docker_api::Result<String> {
        // Names are made of a pod's, all of them safe in a query.
        let endpoint = format!("/containers/create?name={name}");
        let made: Created = self.client.post_json(endpoint, Payload::Json(serde_json::to_vec(body)?), Headers::none()).await?;
        Ok(made.id)
    }

    /// Makes a program ready to be run in a container and gives its id.
    pub async fn exec(&self, id: &str, command: &[String]) -> docker_api::Result<String> {
        let body = json!({"AttachStdout": true, "AttachStderr": true, "Cmd": command}).to_string();
        let made: Created = self.client.post_json(format!("/containers/{id}/exec"), Payload::Json(body), Headers::none()).await?;
        Ok(made.id)
    }

    /// What a container takes, for [`usage`]. Without `one-shot` (API 1.41) the engine would first measure for a second or two.
    pub async fn stats(&self, id: &str) -> docker_api::Result<Value> {
        self.client.get_json(format!("/containers/{id}/stats?stream=false&one-shot=true")).await
    }

    /// All images.
    pub async fn images(&self) -> docker_api::Result<Vec<Image>> {
        let found: Vec<ListedImage> = self.client.get_json("/images/json").await?;
        let image = |one: ListedImage| Image {
            id: one.id,
            names: one
                .repo_tags
                .into_iter()
                .flatten()
                .chain(one.repo_digests.into_iter().flatten())
                .filter(|name| !name.contains("<none>"))
                .collect(),
            user: String::new(),
            bytes: u64::try_from(one.size).unwrap_or(0),
            created: jiff::Timestamp::from_second(one.created).unwrap_or(jiff::Timestamp::UNIX_EPOCH),
        };
        Ok(found.into_iter().map(image).collect())
    }

    /// Bytes of a container's own layer.
    pub async fn layer_bytes(&self, id: &str) -> docker_api::Result<Option<u64>> {
        let found: Sized = self.client.get_json(format!("/containers/{id}/json?size=1")).await?;
        Ok(found.size_rw.and_then(|bytes| u64::try_from(bytes).ok()))
    }

    /// The bytes of a log as the engine sends them.
    pub fn logs<'a>(&'a self, id: &str, query: &LogQuery) -> impl Stream<Item = docker_api::Result<Bytes>> + 'a + use<'a> {
        let LogQuery { follow, tail, since, timestamps } = query;
        let mut endpoint = format!("/containers/{id}/logs?stdout=1&stderr=1&follow={}&timestamps={}", u8::from(*follow), u8::from(*timestamps));
        if let Some(lines) = tail {
            endpoint.push_str(&format!("&tail={lines}"));
        }
        if let Some(second) = since {
            endpoint.push_str(&format!("&since={second}"));
        }
        self.client.get_stream(endpoint)
    }
}

fn checked(response: Response<Body>) -> Pin<Box<dyn Future<Output = docker_api::Result<Response<Body>>> + Send + Sync>> {
    #[derive(Deserialize)]
    struct Fault {
        message: String,
    }
    Box::pin(async move {
        let code = response.status();
        if code.is_success() || code == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(response);
        }
        let bytes = hyper::body::to_bytes(response.into_body()).await.map_err(containers_api::conn::Error::from)?;
        let text = || String::from_utf8_lossy(&bytes).into_owned();
        let message = serde_json::from_slice(&bytes).map_or_else(|_| text(), |fault: Fault| fault.message);
        Err(docker_api::Error::Fault { code, message })
    })
}

/// Takes the frames of a log apart: one byte for the stream, three of zero, four of length (big endian), the bytes.
pub fn frames(bytes: impl Stream<Item = Result<Bytes, RuntimeError>> + Send + Unpin) -> impl Stream<Item = Result<Vec<u8>, RuntimeError>> + Send {
    stream::try_unfold((bytes, Vec::new()), |(mut bytes, mut buffer)| async move {
        loop {
            match take_frame(&mut buffer)? {
                Some(frame) => return Ok(Some((frame, (bytes, buffer)))),
                None => match bytes.try_next().await? {
                    Some(more) => buffer.extend_from_slice(&more),
                    None => return Ok(None),
                },
            }
        }
    })
}

/// The first whole frame, if there is one.
fn take_frame(buffer: &mut Vec<u8>) -> Result<Option<Vec<u8>>, RuntimeError> {
    let [kind, 0, 0, 0, a, b, c, d, ..] = buffer[..] else {
        return match buffer.len() {
            0..8 => Ok(None),
            _ => Err(RuntimeError::Protocol("a log that is not made of frames".into())),
        };
    };
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if kind > 2 || length > FRAME_MAX {
        return Err(RuntimeError::Protocol(format!("a log frame of kind {kind} and {length} bytes")));
    }
    if buffer.len() < 8 + length {
        return Ok(None);
    }
    let rest = buffer.split_off(8 + length);
    let mut frame = std::mem::replace(buffer, rest);
    frame.drain(..8);
    Ok(Some(frame))
}

/// Reads an answer of the stats; `None` for a container that does not run.
pub fn usage(stats: &Value) -> Option<Usage> {
    let number = |path: &str| stats.pointer(path).and_then(Value::as_u64);
    // An ended container has an empty object here.
    let memory_usage = number("/memory_stats/usage")?;
    // cgroup v2 has `inactive_file` only; in v1 that leaves out the groups within, which `total_inactive_file` has (Docker's CLI).
    let inactive = number("/memory_stats/stats/total_inactive_file").or_else(|| number("/memory_stats/stats/inactive_file")).unwrap_or(0);
    let networks = stats.get("networks").and_then(Value::as_object);
    let sum = |field: &str| networks.map_or(0, |all| all.values().filter_map(|one| one.get(field).and_then(Value::as_u64)).sum());
    Some(Usage {
        cpu_nanos: number("/cpu_stats/cpu_usage/total_usage").unwrap_or(0),
        memory_working_set: memory_usage.saturating_sub(inactive),
        memory_usage,
        pids: number("/pids_stats/current").unwrap_or(0),
        network_received: sum("rx_bytes"),
        network_sent: sum("tx_bytes"),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use futures_util::StreamExt;

    async fn read(chunks: &[&[u8]]) -> Vec<Result<Vec<u8>, RuntimeError>> {
        let chunks: Vec<Result<Bytes, RuntimeError>> = chunks.iter().map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
        frames(stream::iter(chunks)).collect().await
    }

    #[actix_rt::test]
    async fn a_log_is_read_however_its_frames_are_cut() {
        let whole = [&[1, 0, 0, 0, 0, 0, 0, 3][..], b"one", &[2, 0, 0, 0, 0, 0, 0, 4], b"two!", &[1, 0, 0, 0, 0, 0, 0, 0]].concat();
        for at in 0..whole.len() {
            let read: Vec<_> = read(&[&whole[..at], &whole[at..]]).await.into_iter().map(Result::unwrap).collect();
            assert_eq!(read, [b"one".to_vec(), b"two!".to_vec(), Vec::new()], "cut at {at}");
        }
    }

    #[actix_rt::test]
    async fn bytes_that_are_no_frames_are_refused_and_a_cut_end_is_left_out() {
        for nonsense in [&b"plain text that is long enough"[..], &[7, 0, 0, 0, 0, 0, 0, 1, 65], &[1, 0, 0, 0, 255, 255, 255, 255, 0]] {
            assert!(matches!(read(&[nonsense]).await[..], [Err(RuntimeError::Protocol(_))]), "{nonsense:?}");
        }
        assert!(read(&[&[1, 0, 0, 0, 0, 0, 0, 9, 65]]).await.is_empty());
    }

    #[test]
    fn usage_is_read_from_both_cgroup_versions_and_not_from_an_ended_container() {
        let stats = |memory: Value| {
            json!({"memory_stats": {"usage": 100, "stats": memory}, "cpu_stats": {"cpu_usage": {"total_usage": 7}},
                "pids_stats": {"current": 2}, "networks": {"eth0": {"rx_bytes": 1, "tx_bytes": 2}, "eth1": {"rx_bytes": 10, "tx_bytes": 20}}})
        };
        let want = Usage { cpu_nanos: 7, memory_working_set: 60, memory_usage: 100, pids: 2, network_received: 11, network_sent: 22 };
        for memory in [json!({"inactive_file": 40}), json!({"inactive_file": 7, "total_inactive_file": 40})] {
            assert_eq!(usage(&stats(memory)), Some(want));
        }
        assert_eq!(usage(&json!({"memory_stats": {}})), None);
    }
}
