//! `skep-edge` as a process.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use crate::daemon::{Daemon, End, program, run};
use crate::wait::eventually;
use crate::{CloudUnderTest, docker, mqtt, names, sqlite};

/// What differs from the defaults.
#[derive(Clone, Debug, Default)]
pub struct EdgeOptions {
    /// The program; `skep-edge` if empty.
    pub program: String,
    /// Name of the node; random if empty.
    pub node: String,
    /// Port of CloudHub; that of the cloud if 0.
    pub hub_port: u16,
    /// Docker's socket; the system's if empty.
    pub docker_socket: PathBuf,
    /// Environment of the process.
    pub environment: Vec<(String, String)>,
}

/// However full this machine's disk is, a test removes no image of another and turns no pod away for it.
const KEEPS_IMAGES: &str = "  image-gc-high-threshold: 100\n  eviction-hard:\n    nodefs-available: \"\"\n    imagefs-available: \"\"\n";

/// A `skep-edge` on free ports and with a directory of its own. Removes its containers when it goes.
#[derive(Debug)]
pub struct EdgeUnderTest {
    /// Name of the node.
    pub node: String,
    /// Where its data, configuration and log are.
    pub dir: TempDir,
    /// Port of the embedded broker.
    pub mqtt_port: u16,
    /// Port of the read-only pods endpoint.
    pub pods_port: u16,
    /// Port of the admin page.
    pub admin_port: u16,
    options: EdgeOptions,
    daemon: Option<Daemon>,
}

impl EdgeUnderTest {
    /// Joins the cloud, starts, and waits until the broker answers.
    #[track_caller]
    pub fn start(cloud: &CloudUnderTest) -> Self {
        Self::start_with(cloud, EdgeOptions::default())
    }

    /// Joins the cloud, starts with options, and waits until the broker answers.
    ///
    /// # Panics
    /// When it is refused, or the broker is not there within 20 s.
    #[track_caller]
    pub fn start_with(cloud: &CloudUnderTest, mut options: EdgeOptions) -> Self {
        if options.hub_port == 0 {
            options.hub_port = cloud.hub_port;
        }
        let mut edge = Self::prepare(options);
        edge.join(cloud);
        edge.run();
        edge.answers();
        edge
    }

    /// Writes the configuration and starts nothing.
    ///
    /// # Panics
    /// When there is no temporary directory.
    pub fn prepare(mut options: EdgeOptions) -> Self {
        if options.node.is_empty() {
            options.node = names::unique("node");
        }
        if options.docker_socket.as_os_str().is_empty() {
            options.docker_socket = "/var/run/docker.sock".into();
        }
        if options.program.is_empty() {
            options.program = "skep-edge".into();
        }
        let dir = TempDir::with_prefix("skep-edge-").expect("a temporary directory");
        let [mqtt_port, pods_port, admin_port] = std::array::from_fn(|_| names::port());
        let edge = Self { node: options.node.clone(), dir, mqtt_port, pods_port, admin_port, options, daemon: None };
        std::fs::create_dir(edge.data()).expect("a directory in it");
        let text = format!(
            "data-dir: {data}\n\
             mqtt:\n  internal-server: tcp://127.0.0.1:{mqtt_port}\n\
             edgehub:\n  websocket:\n    url: wss://127.0.0.1:{hub_port}\n  controller:\n    node-id: {node}\n\
             edged:\n  docker-address: unix://{docker}\n  read-only-port: {pods_port}\n{KEEPS_IMAGES}\
             admin:\n  port: {admin_port}\n",
            data = edge.data().display(),
            hub_port = edge.options.hub_port,
            node = edge.node,
            docker = edge.options.docker_socket.display(),
        );
        std::fs::write(edge.config(), text).expect("the directory takes a file");
        edge
    }

    /// Gets this machine's certificate from the cloud.
    ///
    /// # Panics
    /// When the cloud refuses.
    #[track_caller]
    pub fn join(&self, cloud: &CloudUnderTest) {
        let end = self.try_join(cloud.join_port, &cloud.token());
        assert_eq!(end.code, Some(0), "skep-edge join: {}", end.output);
    }

    /// Tries to get a certificate, and says how `skep-edge join` ended.
    pub fn try_join(&self, join_port: u16, token: &str) -> End {
        let cloud = format!("https://127.0.0.1:{join_port}");
        let config = self.config().display().to_string();
        let arguments = ["join", "--cloud", &cloud, "--token", token, "--node", &self.node, "--config", &config].map(str::to_owned);
        run(&program("skep-edge"), &arguments, &[], self.dir.path(), Duration::from_secs(30))
    }

    /// The configuration file.
    pub fn config(&self) -> PathBuf {
        self.dir.path().join("edge.yaml")
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// The database.
    pub fn database(&self) -> PathBuf {
        self.data().join("edge.db")
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("edge.log")
    }

    fn arguments(&self) -> Vec<String> {
        vec!["run".into(), "--config".into(), self.config().display().to_string()]
    }

    /// Sets a variable of its environment for the next start, or takes it away.
    pub fn set_environment(&mut self, name: &str, value: Option<String>) {
        self.options.environment.retain(|(known, _)| known != name);
        self.options.environment.extend(value.map(|value| (name.to_owned(), value)));
    }

    /// Starts the process without waiting for anything.
    pub fn run(&mut self) {
        self.daemon = Some(Daemon::start(&program(&self.options.program), &self.arguments(), &self.options.environment, &self.log()));
    }

    /// Waits until the embedded broker takes connections.
    ///
    /// # Panics
    /// When that takes more than 20 s, or the process ends.
    #[track_caller]
    pub fn answers(&mut self) {
        let port = self.mqtt_port;
        let daemon = self.daemon();
        eventually("skep-edge's broker answers", Duration::from_secs(20), || {
            daemon.must_run()?;
            std::net::TcpStream::connect(("127.0.0.1", port)).map(drop).map_err(|error| format!("port {port}: {error}"))
        });
    }

    /// Runs another subcommand with this configuration, and says how it ended. What follows a `--` is left as it is.
    #[track_caller]
    pub fn command(&self, arguments: &[&str]) -> End {
        let config = self.config().display().to_string();
        let own = arguments.iter().position(|argument| *argument == "--").unwrap_or(arguments.len());
        let (own, others) = arguments.split_at(own);
        let arguments: Vec<String> = [own, &["--config", &config], others].concat().into_iter().map(str::to_owned).collect();
        run(&program("skep-edge"), &arguments, &self.options.environment, self.dir.path(), Duration::from_secs(30))
    }

    /// Starts it where it is expected to end by itself, and says how.
    #[track_caller]
    pub fn ends(&mut self) -> End {
        run(&program("skep-edge"), &self.arguments(), &self.options.environment, self.dir.path(), Duration::from_secs(20))
    }

    /// The running process.
    ///
    /// # Panics
    /// When it was stopped.
    pub fn daemon(&mut self) -> &mut Daemon {
        self.daemon.as_mut().expect("skep-edge runs")
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

    /// Publishes as a device would.
    ///
    /// # Panics
    /// When the broker refuses.
    #[track_caller]
    pub fn publish(&self, topic: &str, payload: &str) {
        mqtt::publish(self.mqtt_port, topic, payload).unwrap_or_else(|words| panic!("mosquitto_pub {topic}: {words}"));
    }

    /// Reports a property's actual value as a device would.
    #[track_caller]
    pub fn report(&self, device: &str, property: &str, value: &str) {
        let body = serde_json::json!({"event_id": names::unique("event"), "timestamp": 1, "twin": {property: {"actual": {"value": value}}}});
        self.publish(&format!("$hw/events/device/{device}/twin/update"), &body.to_string());
    }

    /// A column of the twin's row, read by `sqlite3`.
    ///
    /// # Errors
    /// `sqlite3`'s words.
    pub fn twin(&self, device: &str, property: &str, column: &str) -> Result<String, String> {
        sqlite::query(&self.database(), &format!("SELECT {column} FROM device_twin WHERE deviceid = '{device}' AND name = '{property}'"))
    }

    /// `Ok` when that column has this value.
    ///
    /// # Errors
    /// What it has instead.
    pub fn twin_is(&self, device: &str, property: &str, column: &str, wanted: &str) -> Result<(), String> {
        let found = self.twin(device, property, column)?;
        if found == wanted { Ok(()) } else { Err(format!("device_twin.{column} of {device}/{property} is `{found}`, not `{wanted}`")) }
    }

    /// `Ok` when the edge knows the device.
    ///
    /// # Errors
    /// That it does not.
    pub fn knows(&self, device: &str) -> Result<(), String> {
        let count = sqlite::query(&self.database(), &format!("SELECT count(*) FROM device WHERE id = '{device}'"))?;
        if count == "1" { Ok(()) } else { Err(format!("{count} rows of device {device}")) }
    }

    /// Path of a file below the data directory.
    pub fn file(&self, name: impl AsRef<Path>) -> PathBuf {
        self.data().join(name)
    }
}

impl Drop for EdgeUnderTest {
    fn drop(&mut self) {
        // The daemon first: it would start again what is removed under it.
        self.daemon = None;
        docker::remove_all(&self.node);
    }
}
