//! Podman behind its Docker socket.

use std::path::Path;
use std::process::{Command, Stdio};

use actor::testing::{Lack, leave_out};
use harness::{Daemon, EdgeOptions, eventually};
use serde_json::json;
use tempfile::TempDir;

use super::{FOREVER, Made, Site, pod_name, shell};

/// `podman system service` over a directory of its own.
struct Podman {
    // First, so that it ends before its directory goes.
    daemon: Option<Daemon>,
    dir: TempDir,
}

impl Podman {
    /// `None`, said loudly, where there is no Podman or this user may not run it.
    fn start() -> Option<Self> {
        let user = Command::new("id").arg("-u").output().map(|output| output.stdout).unwrap_or_default();
        let is_there = |program: &str| Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
        if !is_there("podman") {
            leave_out(Lack::Program, "there is no podman (Debian package podman): run deploy/setup.sh --for test");
            return None;
        }
        if user != b"0\n" {
            leave_out(Lack::Machine, "an engine of the test's own needs root");
            return None;
        }
        Some(Self::run(if is_there("crun") { "crun" } else { "runc" }))
    }

    fn run(runtime: &str) -> Self {
        let dir = TempDir::with_prefix("skep-podman-").unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        // Its defaults are the kernel's limits, which not every root may set.
        std::fs::write(path("containers.conf"), "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n").unwrap();
        let arguments = [
            ["--root", &path("root")],
            ["--runroot", &path("run")],
            ["--storage-driver", "vfs"],
            ["--cgroup-manager", "cgroupfs"],
            ["--events-backend", "file"],
            ["--runtime", runtime],
            ["system", "service"],
        ];
        let socket = format!("unix://{}", path("podman.sock"));
        let arguments = arguments.into_iter().flatten().chain(["--time=0", &socket]).map(str::to_owned).collect::<Vec<_>>();
        let environment = [("CONTAINERS_CONF".to_owned(), path("containers.conf"))];
        let mut daemon = Daemon::start(Path::new("podman"), &arguments, &environment, &dir.path().join("log"));
        let mut podman = Self { daemon: None, dir };
        eventually!(60, "the engine answers", {
            daemon.must_run()?;
            podman.docker(&["version", "--format", "{{.Server.Version}}"])
        });
        super::import_image("docker", &["--host", &socket]);
        podman.daemon = Some(daemon);
        podman
    }

    /// `docker` that talks to it.
    fn docker(&self, arguments: &[&str]) -> Result<String, String> {
        let host = format!("unix://{}", self.dir.path().join("podman.sock").display());
        harness::docker::docker(&[&["--host", &host], arguments].concat())
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let left = self.docker(&["ps", "--all", "--quiet"]).unwrap_or_default();
        for id in left.split_whitespace() {
            let _ = self.docker(&["rm", "--force", id]);
        }
        self.daemon = None;
        super::dockerd::unmount(self.dir.path());
    }
}

#[test]
fn a_pod_runs_falls_runs_again_and_goes_on_podman() {
    let Some(podman) = Podman::start() else { return };
    let options = EdgeOptions { docker_socket: podman.dir.path().join("podman.sock"), ..EdgeOptions::default() };
    let mut site = Site::over(options, |_| {});
    let made = |site: &Site, pod: &str| Made::look(&|arguments| podman.docker(arguments), &site.edge.node, pod);
    let name = pod_name("pod");
    let init = json!({"initContainers": [shell("init", "true")]});
    site.apply(&site.pod(&name, &json!([shell("c", &format!("echo hello; {FOREVER}"))]), init));
    eventually!(60, "the pod is Ready", site.is_ready(&name));
    let running = made(&site, &name).unwrap().running().unwrap();
    assert_eq!(running.keys().collect::<Vec<_>>(), ["POD", "c"]);
    let address = site.status(&name).unwrap()["podIP"].as_str().unwrap_or_default().to_owned();
    assert!(address.parse::<std::net::IpAddr>().is_ok(), "podIP: {address}");
    eventually!(10, "its log is what it wrote", {
        let logs = site.edge.command(&["logs", &name, "-c", "c"]);
        if logs.code == Some(0) && logs.output.trim() == "hello" { Ok(()) } else { Err(format!("{logs:?}")) }
    });
    assert_eq!(site.edge.command(&["exec", &name, "-c", "c", "--", "/bin/sh", "-c", "exit 5"]).code, Some(5));

    site.edge.kill();
    site.run_edge();
    eventually!(30, "the node is Ready", site.node_condition("Ready", "True"));
    assert_eq!(made(&site, &name).unwrap().running().unwrap(), running, "a restart of the edge touches nothing");

    podman.docker(&["kill", &running["c"]]).unwrap();
    eventually!(60, "it runs again", {
        let status = site.container_status(&name, "c")?;
        if status["restartCount"] == 1 && status["ready"] == true { Ok(()) } else { Err(status.to_string()) }
    });
    site.delete(&[&name]);
    eventually!(60, "it is gone", site.kubectl.is_gone("pod", &name));
    eventually!(20, "nothing is left", {
        let made = made(&site, &name)?.names();
        if made.is_empty() { Ok(()) } else { Err(format!("{made:?}")) }
    });
}
