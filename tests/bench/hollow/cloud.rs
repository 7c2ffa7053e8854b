//! `skep-cloud` as a process: embedded API, TLS, loopback, a directory of its own on the disk of the build.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use harness::{Daemon, http, names};
use tempfile::TempDir;

use super::{Api, Authority, program};
use crate::figures;

/// A cloud that does not answer for so long has failed the bench.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at a port.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// What differs from the defaults.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// `cloudhub.node-limit`, if it is not the default.
    pub node_limit: Option<usize>,
    /// Kubeconfig of another API; the embedded one otherwise.
    pub kubeconfig: Option<PathBuf>,
}

/// A cloud that can be killed and started again.
pub struct Cloud {
    running: Option<Daemon>,
    dir: TempDir,
    program: PathBuf,
    hub_port: u16,
    api_port: u16,
    admin_port: u16,
}

impl Cloud {
    /// Starts one with options, and waits until it answers.
    ///
    /// # Errors
    /// The program is missing; a file cannot be written; it ends or does not answer.
    pub fn start_with(options: &Options) -> Result<Self, String> {
        let below = figures::directory();
        let made = std::fs::create_dir_all(&below).and_then(|()| TempDir::with_prefix_in("cloud-", &below));
        let dir = made.map_err(|error| format!("no directory in {}: {error}", below.display()))?;
        let [hub_port, join_port, api_port, admin_port] = std::array::from_fn(|_| names::port());
        let (enabled, kubeconfig) = match &options.kubeconfig {
            Some(path) => (false, path.display().to_string()),
            None => (true, String::new()),
        };
        let node_limit = options.node_limit.map(|limit| format!("  node-limit: {limit}\n")).unwrap_or_default();
        let text = format!(
            "data-dir: {data}/data\n\
             cloudhub:\n  address: 127.0.0.1\n  port: {hub_port}\n{node_limit}  https:\n    port: {join_port}\n\
             controller:\n  kube:\n    kubeconfig: \"{kubeconfig}\"\n\
             embedded:\n  enabled: {enabled}\n  port: {api_port}\n  kubeconfig: {data}/kubeconfig\n\
             admin:\n  port: {admin_port}\n",
            data = dir.path().display(),
        );
        let path = dir.path().join("cloud.yaml");
        std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
        let mut cloud = Self { running: None, dir, program: program("skep-cloud")?, hub_port, api_port, admin_port };
        cloud.run()?;
        cloud.listens()?;
        Ok(cloud)
    }

    /// Starts the process without waiting for anything.
    ///
    /// # Errors
    /// It ended at once.
    pub fn run(&mut self) -> Result<(), String> {
        let arguments = ["run".to_owned(), "--config".to_owned(), self.dir.path().join("cloud.yaml").display().to_string()];
        let daemon = Daemon::start(&self.program, &arguments, &[], &self.dir.path().join("cloud.log"));
        self.running.insert(daemon).must_run()
    }

    /// Waits until nodes can connect; tells when that was.
    ///
    /// # Errors
    /// It ended, or does not listen.
    pub fn listens(&mut self) -> Result<Instant, String> {
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.hub_port)).is_err() {
            self.must_run()?;
            if began.elapsed() > PATIENCE {
                return Err(self.with_log(format!("skep-cloud does not listen after {} s", PATIENCE.as_secs())));
            }
            super::pause(LOOK_EVERY);
        }
        Ok(Instant::now())
    }

    /// An error if it has ended by itself.
    ///
    /// # Errors
    /// Its exit status and last words.
    pub fn must_run(&mut self) -> Result<(), String> {
        self.running.as_mut().map_or(Ok(()), Daemon::must_run)
    }

    /// Kills it: a power cut, as far as its nodes can tell.
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
        let Some(mut daemon) = self.running.take() else { return Ok(()) };
        daemon.must_run()?;
        daemon.stop();
        Ok(())
    }

    /// Process id; 0 while it does not run.
    pub fn pid(&self) -> u32 {
        self.running.as_ref().map_or(0, Daemon::pid)
    }

    /// Port of the nodes.
    pub fn hub_port(&self) -> u16 {
        self.hub_port
    }

    /// Port of the embedded API.
    pub fn api_port(&self) -> u16 {
        self.api_port
    }

    /// Where its certificates are.
    pub fn pki(&self) -> PathBuf {
        self.dir.path().join("data/pki")
    }

    /// Kubeconfig of its embedded API.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("kubeconfig")
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Its authority.
    ///
    /// # Errors
    /// See [`Authority::load`].
    pub fn authority(&self) -> Result<Authority, String> {
        Authority::load(&self.pki())
    }

    /// A connection to its embedded API.
    ///
    /// # Errors
    /// It is refused.
    pub async fn api(&self) -> Result<Api, String> {
        Api::connect(self.api_port, self.authority()?.of_administrator(&self.pki())?).await
    }

    /// The value of `skep_cloud_<name>` in its metrics.
    ///
    /// # Errors
    /// There is none, or the page does not answer.
    pub fn metric(&self, name: &str) -> Result<f64, String> {
        let (status, text) = http::get(self.admin_port, "/metrics")?;
        let value = text.lines().find_map(|line| line.strip_prefix("skep_cloud_")?.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
        value.ok_or_else(|| format!("/metrics of skep-cloud (status {status}) has no skep_cloud_{name}"))
    }

    /// An error with the end of its log.
    pub fn with_log(&self, error: impl std::fmt::Display) -> String {
        match &self.running {
            Some(daemon) => format!("{error}; the log of skep-cloud ends:\n{}", daemon.tail()),
            None => error.to_string(),
        }
    }
}
