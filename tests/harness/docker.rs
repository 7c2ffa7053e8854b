//! What Docker says, by its command line.

use std::process::{Command, Stdio};

use actor::testing::{Lack, leave_out};
use serde_json::Value;

/// Runs `docker`.
///
/// # Errors
/// Its words.
pub fn docker(arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("docker").args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("cannot start docker: {error}; run deploy/setup.sh --for test"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// True when Docker answers. False only when `SKEP_SKIP=docker` asks to leave such tests out, which is said.
///
/// # Panics
/// When Docker does not answer and nobody asked to leave the test out.
#[track_caller]
pub fn required() -> bool {
    if std::env::var("SKEP_SKIP").is_ok_and(|skip| skip == "docker") {
        leave_out(Lack::Machine, "this test needs Docker, and SKEP_SKIP=docker is set");
        return false;
    }
    if let Err(words) = docker(&["version", "--format", "{{.Server.Version}}"]) {
        panic!(
            "this test needs a Docker engine that answers ({words}): run deploy/setup.sh --for test, or leave such tests out with SKEP_SKIP=docker"
        );
    }
    true
}

/// Ids of all containers, running or not, that the edge of this node made; of one pod if named.
///
/// # Errors
/// Docker's words.
pub fn containers(node: &str, pod: Option<&str>) -> Result<Vec<String>, String> {
    let mut arguments =
        vec!["ps".to_owned(), "--all".into(), "--quiet".into(), "--no-trunc".into(), "--filter".into(), format!("label=io.skep.node={node}")];
    if let Some(pod) = pod {
        arguments.extend(["--filter".into(), format!("label=io.kubernetes.pod.name={pod}")]);
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    Ok(docker(&arguments)?.split_whitespace().map(str::to_owned).collect())
}

/// `docker inspect` of one container.
///
/// # Errors
/// Docker's words.
pub fn inspect(id: &str) -> Result<Value, String> {
    let text = docker(&["inspect", id])?;
    let all: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    Ok(all[0].clone())
}

/// The running container of one pod's container, inspected.
///
/// # Errors
/// What there is instead.
pub fn running(node: &str, pod: &str, container: &str) -> Result<Value, String> {
    let mut seen = Vec::new();
    for id in containers(node, Some(pod))? {
        let one = inspect(&id)?;
        let name = one["Config"]["Labels"]["io.kubernetes.container.name"].as_str().unwrap_or_default();
        if name == container && one["State"]["Running"] == true {
            return Ok(one);
        }
        seen.push(format!("{name}: {}", one["State"]["Status"]));
    }
    Err(format!("containers of pod {pod}: {seen:?}"))
}

/// Names of all volumes that the edge of this node made.
///
/// # Errors
/// Docker's words.
pub fn volumes(node: &str) -> Result<Vec<String>, String> {
    let names = docker(&["volume", "ls", "--quiet", "--filter", &format!("label=io.skep.node={node}")])?;
    Ok(names.split_whitespace().map(str::to_owned).collect())
}

/// Removes whatever the edge of this node has left.
pub fn remove_all(node: &str) {
    for id in containers(node, None).unwrap_or_default() {
        let _ = docker(&["rm", "--force", "--volumes", &id]);
    }
    for name in volumes(node).unwrap_or_default() {
        let _ = docker(&["volume", "rm", "--force", &name]);
    }
}
