//! A Docker engine of the test's own, which can be stopped and pulled from under the edge.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use actor::testing::{Lack, leave_out};
use harness::{Daemon, eventually};
use tempfile::TempDir;

/// Runs until it goes; with it go its containers. It has no bridge, so pods use the machine's network.
pub struct Dockerd {
    // First, so that it ends before its directory goes.
    daemon: Option<Daemon>,
    dir: TempDir,
}

impl Dockerd {
    /// `None`, said loudly, where this user may not run one.
    pub fn start() -> Option<Self> {
        let user = Command::new("id").arg("-u").output().map(|output| output.stdout).unwrap_or_default();
        if user != b"0\n" {
            leave_out(Lack::Machine, "an engine of the test's own needs root");
            return None;
        }
        if !harness::docker::required() {
            return None;
        }
        let dir = TempDir::with_prefix("skep-dockerd-").unwrap();
        // The system's file may name what is given below, and an engine refuses what it is told twice.
        std::fs::write(dir.path().join("daemon.json"), "{}").unwrap();
        let mut dockerd = Self { daemon: None, dir };
        dockerd.run();
        super::import_image("docker", &["--host", &dockerd.host()]);
        Some(dockerd)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn host(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.path("docker.sock")
    }

    /// Starts it and waits until it answers.
    #[track_caller]
    pub fn run(&mut self) {
        let path = |name: &str| self.path(name).display().to_string();
        let arguments = [
            ["--config-file", &path("daemon.json")],
            ["--data-root", &path("data")],
            ["--exec-root", &path("exec")],
            ["--host", &self.host()],
            ["--pidfile", &path("pid")],
            // Leaves no file systems mounted when it is killed.
            ["--storage-driver", "vfs"],
        ];
        let arguments = arguments.into_iter().flatten().chain(["--bridge=none", "--iptables=false", "--ip-masq=false"]);
        // In a network namespace of its own: an engine that is told to have no bridge removes `docker0`, which is the machine's.
        let arguments: Vec<String> = ["--net", "dockerd"].into_iter().chain(arguments).map(str::to_owned).collect();
        let mut daemon = Daemon::start(Path::new("unshare"), &arguments, &[], &self.path("log"));
        eventually!(60, "the engine answers", {
            daemon.must_run()?;
            self.docker(&["version", "--format", "{{.Server.Version}}"])
        });
        self.daemon = Some(daemon);
    }

    /// `docker` that talks to it.
    pub fn docker(&self, arguments: &[&str]) -> Result<String, String> {
        let host = self.host();
        harness::docker::docker(&[&["--host", &host], arguments].concat())
    }

    /// Stops it with SIGTERM. Its containers end with it.
    #[track_caller]
    pub fn stop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.signal("TERM");
            let ended = daemon.wait(std::time::Duration::from_secs(30));
            assert!(ended.is_some(), "dockerd did not stop on SIGTERM; its log ends:\n{}", daemon.tail());
        }
    }

    /// What a power cut leaves of it: its disk, and no process.
    pub fn lose_power(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            daemon.kill();
        }
        // Containers last, once nobody is left who would see their end.
        for pid in self.processes() {
            let children = children(pid);
            kill(pid);
            children.into_iter().for_each(kill);
        }
        unmount(self.dir.path());
        // Directories that are in memory on a real machine.
        let _ = std::fs::remove_dir_all(self.path("exec"));
        for name in ["pid", "docker.sock"] {
            let _ = std::fs::remove_file(self.path(name));
        }
    }

    /// containerd and what it runs containers with: their command lines name the directory.
    fn processes(&self) -> Vec<u32> {
        let exec = self.path("exec").display().to_string();
        let pids = std::fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let is_own = |pid: &u32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let program = line.split(|byte| *byte == 0).next().unwrap_or_default();
            let program = String::from_utf8_lossy(program).into_owned();
            program.contains("containerd") && String::from_utf8_lossy(&line).contains(&exec)
        };
        pids.filter(is_own).collect()
    }
}

/// Takes down what an engine has mounted below its directory.
pub fn unmount(below: &Path) {
    let below = below.display().to_string();
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    let mut points: Vec<&str> = mounts.lines().filter_map(|line| line.split(' ').nth(1)).filter(|point| point.starts_with(&below)).collect();
    points.sort_by_key(|point| std::cmp::Reverse(point.len()));
    for point in points {
        let _ = Command::new("umount").arg("-l").arg(point).stderr(Stdio::null()).status();
    }
}

fn children(pid: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let text: String = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok()).collect();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

fn kill(pid: u32) {
    let _ = Command::new("kill").args(["-9", &pid.to_string()]).stderr(Stdio::null()).status();
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        self.lose_power();
    }
}
