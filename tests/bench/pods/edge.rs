//! `skep-edge` as a process that can be killed and started again on another engine.

use std::path::{Path, PathBuf};
use std::time::Instant;

use harness::{Daemon, docker, http, names};
use model::NodeName;
use tempfile::TempDir;

use super::eventually;
use crate::figures;
use crate::hollow::{Authority, program};

/// Its own copy of the program: an edge of another test, started from the same file, would take over a part of its PSS.
const PROGRAM: &str = "skep-edge";

/// What runs its containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// Docker, through the forwarder.
    Docker,
    /// Nothing (`edged.container-runtime: hollow`).
    Hollow,
}

/// An edge with a certificate of the cloud's authority. Removes its containers when it goes.
pub struct Edge {
    running: Option<Daemon>,
    dir: TempDir,
    node: NodeName,
    hub_port: u16,
    ports: [u16; 3],
}

impl Edge {
    /// Makes its directory and certificate, and starts nothing.
    ///
    /// # Errors
    /// The program is missing; a file cannot be written.
    pub fn prepare(node: &str, authority: &Authority, hub_port: u16) -> Result<Self, String> {
        let below = figures::directory();
        let made = std::fs::create_dir_all(&below).and_then(|()| TempDir::with_prefix_in("pods-", &below));
        let dir = made.map_err(|error| format!("no directory in {}: {error}", below.display()))?;
        let node = NodeName::new(node).map_err(|error| error.to_string())?;
        authority.write_for(&node, &dir.path().join("pki"))?;
        let copied = program("skep-edge").and_then(|program| std::fs::copy(program, dir.path().join(PROGRAM)).map_err(|error| error.to_string()));
        copied.map_err(|error| format!("no skep-edge of its own: {error}"))?;
        Ok(Self { running: None, dir, node, hub_port, ports: std::array::from_fn(|_| names::port()) })
    }

    /// Writes the configuration for an engine whose socket is there.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn configure(&self, engine: Engine, docker_socket: &Path) -> Result<(), String> {
        let [mqtt, pods, admin] = self.ports;
        let engine = match engine {
            Engine::Docker => "docker",
            Engine::Hollow => "hollow",
        };
        // No image of this machine is to go because of a measurement.
        let text = format!(
            "data-dir: {data}\n\
             mqtt:\n  internal-server: tcp://127.0.0.1:{mqtt}\n\
             edgehub:\n  websocket:\n    url: wss://127.0.0.1:{hub}\n  controller:\n    node-id: {node}\n\
             edged:\n  container-runtime: {engine}\n  docker-address: unix://{socket}\n  read-only-port: {pods}\n  \
             image-gc-high-threshold: 100\n\
             admin:\n  port: {admin}\n",
            data = self.dir.path().display(),
            hub = self.hub_port,
            node = self.node,
            socket = docker_socket.display(),
        );
        let path = self.dir.path().join("edge.yaml");
        std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// Starts the process, in the environment of its systemd unit; tells the moment before it.
    ///
    /// # Errors
    /// It ended at once.
    pub fn run(&mut self) -> Result<Instant, String> {
        let arguments = ["run".to_owned(), "--config".to_owned(), self.dir.path().join("edge.yaml").display().to_string()];
        let environment = [("MALLOC_ARENA_MAX".to_owned(), "8".to_owned())];
        let (program, log) = (self.dir.path().join(PROGRAM), self.dir.path().join("edge.log"));
        let began = Instant::now();
        self.running.insert(Daemon::start(&program, &arguments, &environment, &log)).must_run()?;
        Ok(began)
    }

    /// Waits until a session with the cloud stands.
    ///
    /// # Errors
    /// It ended, or does not connect.
    pub fn connected(&mut self) -> Result<(), String> {
        eventually("skep-edge is connected", || {
            self.must_run()?;
            let metric = http::metric(self.ports[2], "skep_edge_cloud_connected");
            Ok(metric.ok().filter(|value| *value > 0.0).map(drop))
        })
    }

    /// An error if it has ended by itself.
    ///
    /// # Errors
    /// Its exit status and last words.
    pub fn must_run(&mut self) -> Result<(), String> {
        self.running.as_mut().map_or_else(|| Err("skep-edge does not run".to_owned()), Daemon::must_run)
    }

    /// Kills it: a power cut, as far as it can tell.
    pub fn kill(&mut self) {
        if let Some(daemon) = self.running.take() {
            daemon.kill();
        }
    }

    /// Stops it in order.
    ///
    /// # Errors
    /// It had ended by itself.
    pub fn stop(&mut self) -> Result<(), String> {
        self.must_run()?;
        if let Some(daemon) = self.running.take() {
            daemon.stop();
        }
        Ok(())
    }

    /// Process id; 0 while it does not run.
    pub fn pid(&self) -> u32 {
        self.running.as_ref().map_or(0, Daemon::pid)
    }

    /// Name of the node.
    pub fn node(&self) -> &str {
        self.node.as_str()
    }

    /// Its database.
    pub fn database(&self) -> PathBuf {
        self.dir.path().join("edge.db")
    }

    /// Where the files of a pod's volume are: `kind` is `configmap` or `secret`.
    pub fn volume(&self, uid: &str, kind: &str, name: &str) -> PathBuf {
        self.dir.path().join("pods").join(uid).join("volumes").join(format!("kubernetes.io~{kind}")).join(name)
    }

    /// An error with the end of its log.
    pub fn with_log(&self, error: impl std::fmt::Display) -> String {
        match &self.running {
            Some(daemon) => format!("{error}; the log of skep-edge ends:\n{}", daemon.tail()),
            None => error.to_string(),
        }
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        // The daemon first: it would start again what is removed under it.
        self.running = None;
        docker::remove_all(self.node.as_str());
    }
}
