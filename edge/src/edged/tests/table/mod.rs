//! Pod specs on a real engine: each row is a pod, what becomes of it, what it saw inside, and that nothing of it is left.
//!
//! The rows of one test run side by side on one edge. For each row the statuses of its whole life are checked, too: phases
//! only go forward, times that must stay stay, every container is in every status, restarts are never taken back. Pods that
//! stay are looked at once more when all others have come to what they come to: nobody disturbed them.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod limits;
mod network;
mod order;
mod probes;
mod process;
mod refused;
mod rights;
mod volumes;

use std::path::Path;
use std::time::{Duration, Instant};

use actor::eventually;
use serde_json::{Value, json};

use super::super::pod::{CONTAINERS_MAX, Pod};
use super::super::runtime::testing::{Engine, engine};
use super::super::runtime::{ContainerRuntime, label};
use super::module::{Ground, SOCKET, start_on};

/// What may be true after this long at the latest; rows share two cores.
const SOON: Duration = Duration::from_secs(120);

/// One pod and what is expected of it.
#[derive(Default)]
struct Row {
    pod: Value,
    /// ConfigMaps and Secrets: kind and object.
    objects: Vec<(&'static str, Value)>,
    phase: &'static str,
    /// Reason of the pod's status, or of the state of its first container that has one.
    reason: &'static str,
    /// Part of the message beside it.
    message: &'static str,
    /// Whether it is Ready when it runs.
    ready: bool,
    /// What none of its statuses may contain.
    hidden: Vec<&'static str>,
    /// Parts of what its containers wrote.
    output: Vec<String>,
    /// Pointers into the main container's HostConfig, and their values.
    host: Vec<(&'static str, Value)>,
}

/// A pod of this name whose container `main` runs a script and is not started again.
fn row(name: &str, script: &str) -> Row {
    let pod = json!({
        "metadata": {"name": name, "namespace": "default", "labels": {"app": "demo"}, "annotations": {"note": "a \"quoted\" word"}},
        "spec": {"restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "containers": [{"name": "main", "command": ["/bin/busybox", "sh", "-c", script]}]},
    });
    Row { pod, phase: "Succeeded", ready: true, ..Row::default() }
}

/// A pod that stays.
fn service(name: &str, script: &str) -> Row {
    row(name, &format!("trap 'exit 0' TERM; {script} while :; do sleep 0.2; done")).spec("/restartPolicy", json!("Always")).phase("Running")
}

impl Row {
    /// Sets a field of the spec.
    fn spec(mut self, pointer: &str, value: Value) -> Self {
        put(&mut self.pod["spec"], pointer, value);
        self
    }

    /// Sets a field of the container `main`.
    fn main(mut self, pointer: &str, value: Value) -> Self {
        put(&mut self.pod["spec"]["containers"][0], pointer, value);
        self
    }

    /// Adds a container to a list of the spec; its image is the test's.
    fn with(mut self, list: &str, name: &str, script: &str, rest: Value) -> Self {
        let mut container = json!({"name": name, "command": ["/bin/busybox", "sh", "-c", script]});
        container.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        let place = &mut self.pod["spec"][list];
        if place.is_null() {
            *place = json!([]);
        }
        place.as_array_mut().unwrap().push(container);
        self
    }

    /// An emptyDir that all containers have at `/d`.
    fn shared(self) -> Self {
        let mut row = self.spec("/volumes", json!([{"name": "d", "emptyDir": {}}]));
        for list in ["containers", "initContainers"] {
            for container in row.pod["spec"][list].as_array_mut().into_iter().flatten() {
                container["volumeMounts"] = json!([{"name": "d", "mountPath": "/d"}]);
            }
        }
        row
    }

    fn object(mut self, kind: &'static str, name: &str, data: Value) -> Self {
        self.objects.push((
            kind,
            json!({"metadata": {"name": name, "namespace": "default", "uid": format!("{kind}-{name}"), "resourceVersion": "1"}, "data": data}),
        ));
        self
    }

    fn phase(self, phase: &'static str) -> Self {
        Self { phase, ..self }
    }

    fn fails(self, phase: &'static str, reason: &'static str, message: &'static str) -> Self {
        Self { phase, reason, message, ..self }
    }

    /// Runs, and is never Ready.
    fn unready(self) -> Self {
        Self { ready: false, ..self }
    }

    fn hides(mut self, text: &'static str) -> Self {
        self.hidden.push(text);
        self
    }

    fn says(mut self, text: impl Into<String>) -> Self {
        self.output.push(text.into());
        self
    }

    fn host(mut self, pointer: &'static str, value: Value) -> Self {
        self.host.push((pointer, value));
        self
    }

    fn name(&self) -> &str {
        self.pod["metadata"]["name"].as_str().unwrap()
    }

    /// Whether it runs until it is deleted, and has nothing to complain of.
    fn stays(&self) -> bool {
        self.phase == "Running" && self.reason.is_empty()
    }
}

fn put(object: &mut Value, pointer: &str, value: Value) {
    let (parent, last) = pointer.rsplit_once('/').unwrap();
    let mut place = object;
    for part in parent.split('/').filter(|part| !part.is_empty()) {
        place = match part.parse::<usize>() {
            Ok(index) => &mut place[index],
            Err(_) => &mut place[part],
        };
    }
    match last.parse::<usize>() {
        Ok(index) => place[index] = value,
        Err(_) => place[last] = value,
    }
}

/// Runs rows side by side. `prepare` gets the data directory before the edge starts.
async fn run(prepare: impl FnOnce(&Path), rows: impl FnOnce(&Path) -> Vec<Row>) {
    let Some(engine) = engine().await else { return };
    run_on(&engine, Ground::default(), prepare, rows).await;
}

/// As [`run`], on an engine that was asked something before, and on this ground.
async fn run_on(engine: &Engine, ground: Ground, prepare: impl FnOnce(&Path), rows: impl FnOnce(&Path) -> Vec<Row>) {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path());
    let rows: Vec<Row> = rows(dir.path()).into_iter().map(|row| of_test(row, engine)).collect();
    let edge = start_on(engine, dir.path(), SOCKET, ground);
    for row in &rows {
        for (kind, object) in &row.objects {
            edge.apply(kind, object).await;
        }
        edge.apply("pod", &row.pod).await;
    }
    for row in &rows {
        let name = row.name();
        let began = Instant::now();
        eventually!(SOON * 2, is_there(row, &edge.statuses(name)) || began.elapsed() > SOON);
        assert!(is_there(row, &edge.statuses(name)), "{name}: not {}, {}, {:?} but {}", row.phase, row.reason, row.message, edge.status(name));
        check_life(row, &edge.statuses(name));
        // What runs may be Ready before it has written anything.
        let (began, says_all) = (Instant::now(), |text: &str| row.output.iter().all(|part| text.contains(part.as_str())));
        eventually!(SOON * 2, !row.stays() || says_all(&written(engine, row).await) || began.elapsed() > SOON);
        let written = written(engine, row).await;
        for part in &row.output {
            assert!(written.contains(part.as_str()), "{name}: no {part:?} in {written:?}");
        }
        if !row.host.is_empty() {
            let host = host_config(engine, row).await;
            for (pointer, want) in &row.host {
                assert_eq!(host.pointer(pointer), Some(want), "{name}: {pointer} of {host}");
            }
        }
    }
    // By now all of them have come to what they come to.
    for row in rows.iter().filter(|row| row.stays()) {
        let name = row.name();
        // One whose probe failed once, on a machine that has much to do, is Ready again soon.
        eventually!(SOON, is_there(row, &edge.statuses(name)));
        let statuses = edge.statuses(name);
        check_life(row, &statuses);
        assert!(row.ready || !statuses.iter().any(is_ready), "{name}: {statuses:?}");
        assert_eq!(statuses.last().map(restarts), Some(0), "{name}: {statuses:?}");
    }
    for row in &rows {
        edge.delete("pod", &row.pod).await;
    }
    eventually!(SOON, engine.things().await == 0);
    eventually!(SOON, std::fs::read_dir(dir.path().join("pods")).unwrap().next().is_none());
    edge.stop().await;
}

/// Completes a row: uid, node, images.
fn of_test(mut row: Row, engine: &Engine) -> Row {
    row.pod["metadata"]["uid"] = json!(format!("{}-{}", engine.node, row.name()));
    row.pod["spec"]["nodeName"] = json!(engine.node);
    for list in ["containers", "initContainers"] {
        for container in row.pod["spec"][list].as_array_mut().into_iter().flatten() {
            if container["image"].is_null() {
                container["image"] = json!(engine.image);
            }
        }
    }
    row
}

/// All containers of a status, init containers first.
fn containers(status: &Value) -> impl Iterator<Item = &Value> {
    ["initContainerStatuses", "containerStatuses"].into_iter().flat_map(|list| status[list].as_array().into_iter().flatten())
}

fn is_ready(status: &Value) -> bool {
    status["conditions"].as_array().is_some_and(|all| all.iter().any(|one| one["type"] == "Ready" && one["status"] == "True"))
}

fn restarts(status: &Value) -> u64 {
    containers(status).map(|one| one["restartCount"].as_u64().unwrap_or(0)).sum()
}

/// Whether the row is where it should be: the last status of one that has nothing to complain of, any status of another (a
/// pull that fails is waited for under another name a moment later).
fn is_there(row: &Row, statuses: &[Value]) -> bool {
    if row.reason.is_empty() {
        return statuses.last().is_some_and(|status| status["phase"] == row.phase && (row.phase != "Running" || is_ready(status) == row.ready));
    }
    let says = |place: &Value| place["reason"] == row.reason && place["message"].as_str().unwrap_or_default().contains(row.message);
    let state = |one: &Value| ["waiting", "terminated"].iter().any(|kind| says(&one["state"][kind]) || says(&one["lastState"][kind]));
    statuses.iter().any(|status| status["phase"] == row.phase && (says(status) || containers(status).any(state)))
}

/// What holds in the life of every pod.
fn check_life(row: &Row, statuses: &[Value]) {
    let name = row.name();
    let rank = |status: &Value| ["Pending", "Running", "Succeeded", "Failed"].iter().position(|phase| status["phase"] == *phase);
    // Of an object that cannot be read no container is known; one that is refused for having too many shows the first.
    let most = if Pod::parse(&row.pod.to_string()).is_ok() { CONTAINERS_MAX } else { 0 };
    let names: Vec<&Value> = ["initContainers", "containers"]
        .iter()
        .flat_map(|list| row.pod["spec"][list].as_array().into_iter().flatten().take(most))
        .map(|one| &one["name"])
        .collect();
    for status in statuses {
        assert!(rank(status).is_some(), "{name}: {status}");
        assert!(["BestEffort", "Burstable", "Guaranteed"].iter().any(|class| status["qosClass"] == *class), "{name}: {status}");
        assert_eq!((&status["hostIP"], &status["startTime"]), (&json!("10.1.2.3"), &statuses[0]["startTime"]), "{name}");
        assert!(containers(status).map(|one| &one["name"]).eq(names.iter().copied()), "{name}: not {names:?} in {status}");
        let runs = containers(status).any(|one| one["state"]["running"].is_object());
        assert!(!runs || !["Succeeded", "Failed"].iter().any(|phase| status["phase"] == *phase), "{name}: over, and one still runs in {status}");
        let text = status.to_string();
        assert!(!row.hidden.iter().any(|hidden| text.contains(hidden)), "{name}: one of {:?} in {text}", row.hidden);
    }
    for pair in statuses.windows(2) {
        assert!(rank(&pair[0]) <= rank(&pair[1]), "{name}: from {} to {}", pair[0], pair[1]);
        assert!(restarts(&pair[0]) <= restarts(&pair[1]), "{name}: {pair:?}");
    }
}

fn uid(row: &Row) -> &str {
    row.pod["metadata"]["uid"].as_str().unwrap()
}

/// What all containers of a pod have written.
async fn written(engine: &Engine, row: &Row) -> String {
    let mut text = String::new();
    for one in engine.containers().await.iter().filter(|one| one.labels.get(label::POD_UID).is_some_and(|of| of == uid(row))) {
        text.push_str(&engine.output(&one.id).await);
    }
    text
}

async fn host_config(engine: &Engine, row: &Row) -> Value {
    let found = engine.runtime.list(&[(label::POD_UID, uid(row)), (label::CONTAINER, "main")]).await.unwrap();
    engine.docker.containers().get(&found[0].id).inspect().await.unwrap().host_config.unwrap()
}
