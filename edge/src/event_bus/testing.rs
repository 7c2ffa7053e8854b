//! mosquitto's clients and broker as foreign parties for tests.
#![allow(clippy::print_stderr, reason = "a test that cannot run says so loudly")]

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How long a test waits for something that should come at once.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// Polls until `true`, with a deadline.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {SOON:?}: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// Says loudly when a test cannot run.
pub(crate) fn clients_are_installed() -> bool {
    let found = ["mosquitto_pub", "mosquitto_sub"].iter().all(|name| Command::new(name).arg("--help").output().is_ok());
    if !found {
        eprintln!("SKIPPED: mosquitto_pub and mosquitto_sub are not installed (apt-get install mosquitto-clients)");
    }
    found
}

/// A running `mosquitto_sub` that is subscribed.
pub(crate) struct Client {
    child: Child,
    lines: mpsc::Receiver<String>,
    early: VecDeque<String>,
}

impl Client {
    /// Returns when the broker has acknowledged the subscription.
    pub(crate) fn subscribe(broker: SocketAddr, arguments: &[&str]) -> Self {
        // `-d` writes protocol lines to standard output, before which nothing can be missed. Line buffering
        // comes from stdbuf, because mosquitto_sub buffers when it writes to a pipe.
        let mut child = Command::new("stdbuf")
            .args(["-oL", "mosquitto_sub", "-d", "-v", "-h", &broker.ip().to_string(), "-p", &broker.port().to_string()])
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("stdbuf and mosquitto_sub run");
        let output = child.stdout.take().expect("piped");
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        // A lasting session delivers what waited before it acknowledges the subscription.
        let mut early = VecDeque::new();
        let mut client = Self { child, lines, early: VecDeque::new() };
        loop {
            let line = client.raw_line();
            if line.starts_with("Subscribed (mid") {
                break;
            }
            if !line.starts_with("Client ") {
                early.push_back(line);
            }
        }
        client.early = early;
        client
    }

    /// Whether it is still connected, as far as it knows.
    pub(crate) fn runs(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|ended| ended.is_none())
    }

    /// Whether a message has arrived that was not asked for yet.
    pub(crate) fn heard(&mut self) -> bool {
        let now = self.lines.try_iter().filter(|line| !line.starts_with("Client ") && !line.starts_with("Subscribed (mid"));
        self.early.extend(now);
        !self.early.is_empty()
    }

    fn raw_line(&self) -> String {
        self.lines.recv_timeout(SOON).expect("a line of mosquitto_sub")
    }

    /// The next message, as `topic body`.
    pub(crate) fn line(&mut self) -> String {
        if let Some(line) = self.early.pop_front() {
            return line;
        }
        loop {
            let line = self.raw_line();
            if !line.starts_with("Client ") && !line.starts_with("Subscribed (mid") {
                return line;
            }
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // TERM and not KILL: it says goodbye, so the broker knows at once.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

/// Publishes with `mosquitto_pub`; `true` if the broker took it.
pub(crate) fn try_publish(broker: SocketAddr, arguments: &[&str]) -> bool {
    Command::new("timeout")
        .args(["5", "mosquitto_pub", "-h", &broker.ip().to_string(), "-p", &broker.port().to_string()])
        .args(arguments)
        .stderr(Stdio::null())
        .status()
        .expect("mosquitto_pub runs")
        .success()
}

/// Publishes with `mosquitto_pub`.
pub(crate) fn publish(broker: SocketAddr, arguments: &[&str]) {
    assert!(try_publish(broker, arguments), "mosquitto_pub failed");
}

/// A real mosquitto on a port of its own.
pub(crate) struct Mosquitto {
    child: Option<Child>,
    pub(crate) address: SocketAddr,
    dir: tempfile::TempDir,
}

impl Mosquitto {
    /// `None`, said loudly, where mosquitto is not installed.
    pub(crate) fn start() -> Option<Self> {
        let Some(program) = program() else {
            eprintln!("SKIPPED: mosquitto is not installed (apt-get install mosquitto)");
            return None;
        };
        let address = TcpListener::bind("127.0.0.1:0").and_then(|probe| probe.local_addr()).expect("a free port");
        let dir = tempfile::tempdir().expect("a directory");
        let config = format!("listener {} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 10000\n", address.port());
        std::fs::write(dir.path().join("mosquitto.conf"), config).expect("writable");
        let mut mosquitto = Self { child: None, address, dir };
        mosquitto.run(&program);
        Some(mosquitto)
    }

    fn run(&mut self, program: &PathBuf) {
        let child = Command::new(program)
            .arg("-c")
            .arg(self.dir.path().join("mosquitto.conf"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("mosquitto runs");
        self.child = Some(child);
        let address = self.address;
        eventually("mosquitto listens", || TcpStream::connect(address).is_ok());
    }

    /// Ends it like a power cut.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it again on the same port; it remembers nothing.
    pub(crate) fn restart(&mut self) {
        self.kill();
        self.run(&program().expect("it was there before"));
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.kill();
    }
}

fn program() -> Option<PathBuf> {
    ["/usr/sbin/mosquitto", "/usr/bin/mosquitto", "/usr/local/sbin/mosquitto"].iter().map(PathBuf::from).find(|path| path.exists())
}
