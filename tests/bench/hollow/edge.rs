//! `skep-edge` as a process, at its default settings, connected to a cloud.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use harness::{Daemon, http, names};
use model::NodeName;
use tempfile::TempDir;

use super::{Authority, program};
use crate::figures;

const DOCKER: &str = "/var/run/docker.sock";
/// An edge that does not do what it should for so long has failed the bench.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at its page.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// An edge with a certificate of the cloud's authority.
pub struct Edge {
    running: Option<Daemon>,
    dir: TempDir,
    mqtt_port: u16,
    admin_port: u16,
    has_engine: bool,
}

impl Edge {
    /// Starts one that connects to `hub_port`, which may be a forwarder's, and waits until it is connected.
    ///
    /// Without a container engine on this machine it says that it is not ready; nothing else differs.
    ///
    /// # Errors
    /// The program is missing; a file cannot be written; it ends or does not connect.
    pub fn start(node: &NodeName, authority: &Authority, hub_port: u16) -> Result<Self, String> {
        let below = figures::directory();
        let made = std::fs::create_dir_all(&below).and_then(|()| TempDir::with_prefix_in("edge-", &below));
        let dir = made.map_err(|error| format!("no directory in {}: {error}", below.display()))?;
        authority.write_for(node, &dir.path().join("pki"))?;
        let has_engine = UnixStream::connect(DOCKER).is_ok();
        let mut edge = Self { running: None, dir, mqtt_port: names::port(), admin_port: names::port(), has_engine };
        if !has_engine {
            // For the first time it would not start with an engine that does not answer.
            edge.configure(node, hub_port, "modules:\n  enabled: [eventbus, twin]\n")?;
            edge.run()?;
            edge.eventually("/readyz answers", |edge| http::get(edge.admin_port, "/readyz").map(|(status, _)| status == 200))?;
            edge.stop()?;
        }
        edge.configure(node, hub_port, "")?;
        edge.run()?;
        edge.connected()?;
        Ok(edge)
    }

    fn configure(&self, node: &NodeName, hub_port: u16, more: &str) -> Result<(), String> {
        let text = format!(
            "data-dir: {data}\n\
             mqtt:\n  internal-server: tcp://127.0.0.1:{mqtt}\n\
             edgehub:\n  websocket:\n    url: wss://127.0.0.1:{hub_port}\n  controller:\n    node-id: {node}\n\
             edged:\n  docker-address: unix://{DOCKER}\n  read-only-port: {pods}\n\
             admin:\n  port: {admin}\n{more}",
            data = self.dir.path().display(),
            mqtt = self.mqtt_port,
            pods = names::port(),
            admin = self.admin_port,
        );
        let path = self.dir.path().join("edge.yaml");
        std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))
    }

    fn run(&mut self) -> Result<(), String> {
        let arguments = ["run".to_owned(), "--config".to_owned(), self.dir.path().join("edge.yaml").display().to_string()];
        let environment = [("MALLOC_ARENA_MAX".to_owned(), "8".to_owned())];
        let daemon = Daemon::start(&program("skep-edge")?, &arguments, &environment, &self.dir.path().join("edge.log"));
        self.running.insert(daemon).must_run()
    }

    fn stop(&mut self) -> Result<(), String> {
        let Some(mut daemon) = self.running.take() else { return Ok(()) };
        daemon.must_run()?;
        daemon.stop();
        Ok(())
    }

    /// Waits until a session with the cloud stands; tells when that was.
    ///
    /// # Errors
    /// It ended, or does not connect.
    pub fn connected(&mut self) -> Result<Instant, String> {
        self.eventually("it is connected", |edge| edge.metric("cloud_connected").map(|value| value > 0.0))
    }

    /// Waits until it has noticed that no session stands.
    ///
    /// # Errors
    /// It ended, or believes to be connected.
    pub fn disconnected(&mut self) -> Result<Instant, String> {
        self.eventually("it has noticed that the cloud is away", |edge| edge.metric("cloud_connected").map(|value| value == 0.0))
    }

    /// Looks until `check` gives true; tells when that was.
    ///
    /// # Errors
    /// It ended, or `what` does not come true.
    pub fn eventually(&mut self, what: &str, mut check: impl FnMut(&Self) -> Result<bool, String>) -> Result<Instant, String> {
        let began = Instant::now();
        loop {
            let seen = check(self);
            if seen == Ok(true) {
                return Ok(Instant::now());
            }
            let running = self.running.as_mut().map_or_else(|| Err("skep-edge does not run".to_owned()), Daemon::must_run);
            running?;
            if began.elapsed() > PATIENCE {
                let seen = seen.err().map(|error| format!(" ({error})")).unwrap_or_default();
                return Err(self.with_log(format!("skep-edge: not within {} s: {what}{seen}", PATIENCE.as_secs())));
            }
            super::pause(LOOK_EVERY);
        }
    }

    /// The value of `skep_edge_<name>` in its metrics.
    ///
    /// # Errors
    /// There is none, or the page does not answer.
    pub fn metric(&self, name: &str) -> Result<f64, String> {
        let (status, text) = http::get(self.admin_port, "/metrics")?;
        let value = text.lines().find_map(|line| line.strip_prefix("skep_edge_")?.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
        value.ok_or_else(|| format!("/metrics of skep-edge (status {status}) has no skep_edge_{name}"))
    }

    /// Whether this machine has a container engine for it.
    pub fn has_engine(&self) -> bool {
        self.has_engine
    }

    /// `HOST:PORT` of its broker.
    pub fn mqtt(&self) -> String {
        format!("127.0.0.1:{}", self.mqtt_port)
    }

    /// Its database.
    pub fn database(&self) -> PathBuf {
        self.dir.path().join("edge.db")
    }

    /// An error with the end of its log.
    pub fn with_log(&self, error: impl std::fmt::Display) -> String {
        match &self.running {
            Some(daemon) => format!("{error}; the log of skep-edge ends:\n{}", daemon.tail()),
            None => error.to_string(),
        }
    }
}
