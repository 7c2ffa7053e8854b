//! `skep-cloud` as a process.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use crate::daemon::{Daemon, End, program, run};
use crate::wait::eventually;
use crate::{Kubectl, names};

/// What differs from the defaults.
#[derive(Clone, Debug, Default)]
pub struct CloudOptions {
    /// Kubeconfig of another API; the embedded one otherwise.
    pub kubeconfig: Option<PathBuf>,
    /// Environment of the process.
    pub environment: Vec<(String, String)>,
}

/// A `skep-cloud` on free ports and with a directory of its own.
#[derive(Debug)]
pub struct CloudUnderTest {
    // First, so that it ends before its directory goes.
    daemon: Option<Daemon>,
    /// Where its data, configuration and log are.
    pub dir: TempDir,
    /// Port of the WebSocket.
    pub hub_port: u16,
    /// Port of the certificates.
    pub join_port: u16,
    /// Port of the embedded API.
    pub api_port: u16,
    /// Port of the admin page.
    pub admin_port: u16,
    options: CloudOptions,
}

impl CloudUnderTest {
    /// Starts one with the embedded API, and waits until that answers kubectl.
    #[track_caller]
    pub fn start() -> Self {
        Self::start_with(CloudOptions::default())
    }

    /// Starts one with options, and waits until it answers.
    ///
    /// # Panics
    /// When it does not within 20 s.
    #[track_caller]
    pub fn start_with(options: CloudOptions) -> Self {
        let mut cloud = Self::prepare(options);
        cloud.run();
        cloud.answers();
        cloud
    }

    /// Writes the configuration and starts nothing.
    ///
    /// # Panics
    /// When there is no temporary directory.
    pub fn prepare(options: CloudOptions) -> Self {
        let dir = TempDir::with_prefix("skep-cloud-").expect("a temporary directory");
        let [hub_port, join_port, api_port, admin_port] = std::array::from_fn(|_| names::port());
        let cloud = Self { dir, hub_port, join_port, api_port, admin_port, options, daemon: None };
        std::fs::create_dir(cloud.data()).expect("a directory in it");
        let (enabled, kubeconfig) = match &cloud.options.kubeconfig {
            Some(path) => (false, path.display().to_string()),
            None => (true, String::new()),
        };
        let text = format!(
            "data-dir: {data}\n\
             cloudhub:\n  address: 127.0.0.1\n  port: {hub_port}\n  https:\n    port: {join_port}\n\
             controller:\n  kube:\n    kubeconfig: \"{kubeconfig}\"\n\
             embedded:\n  enabled: {enabled}\n  port: {api_port}\n  kubeconfig: {own}\n\
             admin:\n  port: {admin_port}\n",
            data = cloud.data().display(),
            own = cloud.kubeconfig().display(),
        );
        std::fs::write(cloud.config(), text).expect("the directory takes a file");
        cloud
    }

    /// The configuration file.
    pub fn config(&self) -> PathBuf {
        self.dir.path().join("cloud.yaml")
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// The kubeconfig that it writes for its embedded API.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("kubeconfig")
    }

    /// The embedded API's database.
    pub fn database(&self) -> PathBuf {
        self.data().join("cloud.db")
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("cloud.log")
    }

    fn arguments(&self) -> Vec<String> {
        vec!["run".into(), "--config".into(), self.config().display().to_string()]
    }

    /// Starts the process without waiting for anything.
    pub fn run(&mut self) {
        self.daemon = Some(Daemon::start(&program("skep-cloud"), &self.arguments(), &self.options.environment, &self.log()));
    }

    /// Waits until the certificate port is open and, with the embedded API, kubectl is answered.
    ///
    /// # Panics
    /// When that takes more than 20 s, or the process ends.
    #[track_caller]
    pub fn answers(&mut self) {
        let kubectl = self.options.kubeconfig.is_none().then(|| self.kubectl());
        let (join_port, hub_port) = (self.join_port, self.hub_port);
        let mut daemon = self.daemon.take().expect("it was started");
        eventually("skep-cloud answers", Duration::from_secs(20), || {
            daemon.must_run()?;
            for port in [join_port, hub_port] {
                std::net::TcpStream::connect(("127.0.0.1", port)).map_err(|error| format!("port {port}: {error}"))?;
            }
            kubectl.as_ref().map_or(Ok(String::new()), |kubectl| kubectl.run(&["get", "--raw", "/version"]))
        });
        self.daemon = Some(daemon);
    }

    /// Starts it where it is expected to end by itself, and says how.
    #[track_caller]
    pub fn ends(&mut self) -> End {
        run(&program("skep-cloud"), &self.arguments(), &self.options.environment, self.dir.path(), Duration::from_secs(20))
    }

    /// kubectl with its kubeconfig.
    pub fn kubectl(&self) -> Kubectl {
        Kubectl::new(&self.kubeconfig(), self.dir.path())
    }

    /// The running process.
    ///
    /// # Panics
    /// When it was stopped.
    pub fn daemon(&mut self) -> &mut Daemon {
        self.daemon.as_mut().expect("skep-cloud runs")
    }

    /// Stops it with SIGTERM.
    #[track_caller]
    pub fn stop(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            daemon.stop();
        }
    }

    /// Kills it.
    pub fn kill(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            daemon.kill();
        }
    }

    /// A token with which an edge may join.
    ///
    /// # Panics
    /// When `skep-cloud token` gives none.
    #[track_caller]
    pub fn token(&self) -> String {
        let output = std::process::Command::new(program("skep-cloud")).args(["token", "--config"]).arg(self.config()).output();
        let output = output.expect("skep-cloud starts");
        assert!(output.status.success(), "skep-cloud token: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Path of a file below the data directory.
    pub fn file(&self, name: impl AsRef<Path>) -> PathBuf {
        self.data().join(name)
    }
}
