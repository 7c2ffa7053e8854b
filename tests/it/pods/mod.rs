//! Pods on a real engine: what is killed under them, what their operator sees, and what is left behind.
//!
//! | file | promise |
//! |---|---|
//! | `kills` | the edge, a process or a sandbox is killed: nothing twice, nothing lost |
//! | `engine` | Docker goes away, or the whole machine: pods are back from the store |
//! | `operator` | `kubectl` says what goes on |
//! | `machine` | the person at the machine, while the cloud is away |
//! | `node` | labels, taints, limits and conditions of the node |
//! | `leaks` | pods that cannot run leave nothing, and no other pod alone |
//! | `podman` | another engine behind the same socket |
//!
//! Every pod is of busybox, in an image made on this machine.

mod dockerd;
mod engine;
mod kills;
mod leaks;
mod machine;
mod node;
mod operator;
mod podman;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use harness::{CloudUnderTest, EdgeOptions, EdgeUnderTest, Kubectl, docker, eventually, names};
use serde_json::{Value, json};

/// The image of all pods here.
const IMAGE: &str = "skep/busybox:test";
/// A program that runs until it is told to end.
const FOREVER: &str = "trap 'exit 0' TERM; sleep 100000 & wait";

/// The image as an archive: one program under the names by which a shell calls it.
fn image_archive() -> &'static [u8] {
    static ARCHIVE: OnceLock<Vec<u8>> = OnceLock::new();
    ARCHIVE.get_or_init(|| {
        let root = tempfile::tempdir().unwrap();
        let bin = root.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        std::fs::create_dir(root.path().join("tmp")).unwrap();
        let program = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
        let program = program.expect("a static busybox: run deploy/setup.sh --for test");
        std::fs::copy(program, bin.join("busybox")).unwrap();
        for name in ["sh", "sleep", "cat", "echo", "true", "false", "date", "ls", "id", "kill", "dd"] {
            std::os::unix::fs::symlink("busybox", bin.join(name)).unwrap();
        }
        let output = Command::new("tar").args(["--create", "--sort=name", "--mtime=@0", "--directory"]).arg(root.path()).arg(".").output().unwrap();
        assert!(output.status.success(), "tar: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    })
}

/// Makes the image in the engine that this `docker` or `podman` talks to.
#[track_caller]
fn import_image(program: &str, arguments: &[&str]) {
    let mut command = Command::new(program);
    command.args(arguments).args(["import", "--change", "ENV PATH=/bin", "-", IMAGE]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(image_archive()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{program} import: {}", String::from_utf8_lossy(&output.stderr));
}

/// The image in the system's engine, made once in a test run.
fn have_image() {
    static MADE: OnceLock<()> = OnceLock::new();
    MADE.get_or_init(|| import_image("docker", &[]));
}

/// A cloud and a Ready edge.
struct Site {
    // The edge first: fields are dropped in order, and it still talks to the cloud.
    edge: EdgeUnderTest,
    kubectl: Kubectl,
    cloud: CloudUnderTest,
}

impl Site {
    /// Over the system's Docker; `None`, said loudly, where tests with Docker are to be left out.
    #[track_caller]
    fn start() -> Option<Self> {
        Self::with(|_| {})
    }

    /// As `start`, with an edge that is configured before it runs.
    #[track_caller]
    fn with(configure: impl FnOnce(&mut EdgeUnderTest)) -> Option<Self> {
        if !docker::required() {
            return None;
        }
        have_image();
        Some(Self::over(EdgeOptions::default(), configure))
    }

    /// Over the engine of these options.
    #[track_caller]
    fn over(options: EdgeOptions, configure: impl FnOnce(&mut EdgeUnderTest)) -> Self {
        let cloud = CloudUnderTest::start();
        let mut edge = EdgeUnderTest::prepare(EdgeOptions { hub_port: cloud.hub_port, ..options });
        edge.join(&cloud);
        configure(&mut edge);
        edge.run();
        edge.answers();
        let site = Self { edge, kubectl: cloud.kubectl(), cloud };
        eventually!(30, "the node is Ready", site.node_condition("Ready", "True"));
        site
    }

    /// Starts the edge again after its end.
    #[track_caller]
    fn run_edge(&mut self) {
        self.edge.run();
        self.edge.answers();
    }

    fn node_condition(&self, condition: &str, wanted: &str) -> Result<(), String> {
        self.kubectl.value_is("node", &self.edge.node, &format!("{{.status.conditions[?(@.type==\"{condition}\")].status}}"), wanted)
    }

    /// A pod of this node, with what `more` says beside its containers.
    fn pod(&self, name: &str, containers: &Value, more: Value) -> Value {
        let mut spec = json!({"nodeName": self.edge.node, "terminationGracePeriodSeconds": 2, "containers": containers});
        merge(&mut spec, more);
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})
    }

    #[track_caller]
    fn apply(&self, pod: &Value) {
        self.kubectl.apply(&pod.to_string());
    }

    /// Deletes pods without waiting for their end.
    #[track_caller]
    fn delete(&self, pods: &[&str]) {
        let mut arguments = vec!["delete", "pod", "--wait=false", "--ignore-not-found"];
        arguments.extend(pods);
        self.kubectl.run(&arguments).unwrap();
    }

    fn status(&self, pod: &str) -> Result<Value, String> {
        Ok(self.kubectl.get("pod", pod)?["status"].clone())
    }

    /// `Ok` when the pod's condition Ready is True.
    fn is_ready(&self, pod: &str) -> Result<(), String> {
        let status = self.status(pod)?;
        let is = |one: &Value| one["type"] == "Ready" && one["status"] == "True";
        if status["conditions"].as_array().is_some_and(|all| all.iter().any(is)) { Ok(()) } else { Err(status.to_string()) }
    }

    /// `Ok` when it has this phase, and this reason unless that is empty.
    fn has_phase(&self, pod: &str, phase: &str, reason: &str) -> Result<Value, String> {
        let status = self.status(pod)?;
        let is = status["phase"] == phase && (reason.is_empty() || status["reason"] == reason);
        if is { Ok(status) } else { Err(status.to_string()) }
    }

    /// One container's status, of either list.
    fn container_status(&self, pod: &str, container: &str) -> Result<Value, String> {
        let status = self.status(pod)?;
        let mut lists = ["containerStatuses", "initContainerStatuses"].into_iter().filter_map(|list| status[list].as_array()).flatten();
        lists.find(|one| one["name"] == container).cloned().ok_or_else(|| format!("no container {container}: {status}"))
    }

    /// Events of a pod, each as `reason message`.
    fn events(&self, pod: &str) -> Result<Vec<String>, String> {
        let of = format!("involvedObject.name={pod}");
        let list = self.kubectl.run(&["get", "events", "--field-selector", &of, "-o", "json"])?;
        let list: Value = serde_json::from_str(&list).map_err(|error| error.to_string())?;
        let text = |event: &Value| {
            let say = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
            format!("{} {} {} x{}", say("type"), say("reason"), say("message"), event["count"])
        };
        Ok(list["items"].as_array().into_iter().flatten().map(text).collect())
    }

    /// `Ok` when an event of the pod begins with these words (`Warning BackOff`) and contains the others.
    fn has_event(&self, pod: &str, begins: &str, contains: &str) -> Result<(), String> {
        let events = self.events(pod)?;
        if events.iter().any(|event| event.starts_with(begins) && event.contains(contains)) { Ok(()) } else { Err(format!("{events:?}")) }
    }

    /// Everything that the system's Docker has of a pod.
    fn made(&self, pod: &str) -> Result<Made, String> {
        Made::look(&docker::docker, &self.edge.node, pod)
    }
}

/// Puts the members of one object into another.
fn merge(object: &mut Value, more: Value) {
    if let (Some(object), Value::Object(more)) = (object.as_object_mut(), more) {
        object.extend(more);
    }
}

/// A container that runs a shell's script.
fn shell(name: &str, script: &str) -> Value {
    json!({"name": name, "image": IMAGE, "imagePullPolicy": "Never", "command": ["/bin/sh", "-c", script]})
}

/// A container with what `more` says beside its script.
fn shell_with(name: &str, script: &str, more: Value) -> Value {
    let mut container = shell(name, script);
    merge(&mut container, more);
    container
}

/// What an engine has of one pod.
#[derive(Debug)]
struct Made(Vec<Value>);

impl Made {
    /// Asks the engine behind this `docker`.
    fn look(docker: &dyn Fn(&[&str]) -> Result<String, String>, node: &str, pod: &str) -> Result<Self, String> {
        let (node, pod) = (format!("label=io.skep.node={node}"), format!("label=io.kubernetes.pod.name={pod}"));
        let ids = docker(&["ps", "--all", "--quiet", "--no-trunc", "--filter", &node, "--filter", &pod])?;
        let ids: Vec<&str> = ids.split_whitespace().collect();
        if ids.is_empty() {
            return Ok(Self(Vec::new()));
        }
        let text = docker(&[&["inspect"], &ids[..]].concat())?;
        serde_json::from_str(&text).map(Self).map_err(|error| error.to_string())
    }

    fn name(one: &Value) -> String {
        one["Config"]["Labels"]["io.kubernetes.container.name"].as_str().unwrap_or_default().to_owned()
    }

    /// Names of all containers in order, one as often as it is there; the sandbox is `POD`.
    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.0.iter().map(Self::name).collect();
        names.sort();
        names
    }

    /// Ids of what runs, by name.
    ///
    /// # Errors
    /// A name that runs twice.
    fn running(&self) -> Result<BTreeMap<String, String>, String> {
        let mut running = BTreeMap::new();
        for one in self.0.iter().filter(|one| one["State"]["Running"] == true) {
            let id = one["Id"].as_str().unwrap_or_default().to_owned();
            if let Some(other) = running.insert(Self::name(one), id.clone()) {
                return Err(format!("{} runs twice: {other} and {id}", Self::name(one)));
            }
        }
        Ok(running)
    }

    /// Process of the running container of that name.
    fn pid(&self, name: &str) -> Option<u64> {
        self.0.iter().find(|one| Self::name(one) == name && one["State"]["Running"] == true)?["State"]["Pid"].as_u64()
    }

    /// How many are sandboxes.
    fn sandboxes(&self) -> usize {
        self.0.iter().filter(|one| one["Config"]["Labels"]["io.kubernetes.docker.type"] == "sandbox").count()
    }
}

/// A directory for a hostPath volume, and the volume.
fn host_path(name: &str, directory: &Path) -> Value {
    json!({"name": name, "hostPath": {"path": directory, "type": "Directory"}})
}

/// Lines of a file; none while it is not there.
fn lines(file: &Path) -> Vec<String> {
    std::fs::read_to_string(file).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// A name for a pod that no other test uses.
fn pod_name(what: &str) -> String {
    names::unique(what)
}
