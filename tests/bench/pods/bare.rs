//! The same containers by Docker's API alone: what each kubelet pays at least.

use std::time::Instant;

use harness::docker;
use serde_json::{Value, json};

use super::socket::{self, Call, Socket};

/// Label of the node in containers of the edge.
const NODE: &str = "io.skep.node";

/// Makes and starts what these calls of the edge made, in the same order and through the same forwarder, under other names
/// and for a node that does not exist; removes it. Tells the ms from the first request to the last answer.
///
/// # Errors
/// Docker's words.
pub fn again(socket: &Socket, creates: &[Call], node: &str) -> Result<f64, String> {
    let mut made: Vec<(String, String)> = Vec::new();
    // The names were used before.
    socket.clear();
    let measured = all(socket, creates, node, &mut made);
    docker::remove_all(node);
    measured
}

/// `made`: ids, the original and its copy.
fn all(socket: &Socket, creates: &[Call], node: &str, made: &mut Vec<(String, String)>) -> Result<f64, String> {
    let mut span: Option<(Instant, Instant)> = None;
    for create in creates {
        let (Some(original), Some(mut body)) = (id_of(create), create.body()) else { return Err("a create that cannot be read".to_owned()) };
        body["Labels"][NODE] = json!(node);
        for mode in ["NetworkMode", "IpcMode", "PidMode"] {
            let joined = body["HostConfig"][mode].as_str().and_then(|mode| mode.strip_prefix("container:"));
            if let Some((_, copy)) = joined.and_then(|joined| made.iter().find(|(original, _)| original == joined)) {
                body["HostConfig"][mode] = json!(format!("container:{copy}"));
            }
        }
        let name = format!("{node}-{}", made.len());
        socket::ask(&socket.path(), &format!("/containers/create?name={name}"), &body.to_string())?;
        let created = answered(socket, &|call| call.is_create() && call.line().ends_with(&format!("?name={name}")))?;
        let id = id_of(&created).ok_or("Docker gave no id")?;
        socket::ask(&socket.path(), &format!("/containers/{id}/start"), "")?;
        let started = answered(socket, &|call| call.starts().as_ref() == Some(&id))?;
        let end = started.answered.ok_or("no answer was noted")?;
        span = Some((span.map_or(created.asked, |(first, _)| first), end));
        made.push((original, id));
    }
    span.map(|(first, last)| super::ms(first, last)).ok_or_else(|| "nothing was made".to_owned())
}

/// The id in the answer to a request that made a container.
pub fn id_of(create: &Call) -> Option<String> {
    create.answer().and_then(|answer: Value| answer["Id"].as_str().map(str::to_owned))
}

fn answered(socket: &Socket, is_it: &dyn Fn(&Call) -> bool) -> Result<Call, String> {
    socket.first(is_it).ok_or_else(|| "the forwarder did not note a request".to_owned())
}
