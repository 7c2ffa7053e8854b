//! mosquitto's clients and broker as foreign parties for tests, and what records what the MQTT client tells.
#![allow(clippy::unwrap_used, reason = "tests: a panic is the failure")]

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use actor::testing::{Lack, leave_out};
use bytes::Bytes;

use super::outbox::Publication;
use super::transport::{Endpoint, Figures, Inbound, Manner, Transport, TransportGuard};

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
        leave_out(Lack::Program, "mosquitto_pub and mosquitto_sub are not installed (Debian package mosquitto-clients)");
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

    /// Ends it like a power cut.
    pub(crate) fn kill(mut self) {
        let _ = self.child.kill();
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

/// Publishes each line as a message with one `mosquitto_pub`.
pub(crate) fn publish_lines(broker: SocketAddr, arguments: &[&str], lines: &str) {
    let mut child = Command::new("mosquitto_pub")
        .args(["-h", &broker.ip().to_string(), "-p", &broker.port().to_string(), "-l"])
        .args(arguments)
        .stdin(Stdio::piped())
        .spawn()
        .expect("mosquitto_pub runs");
    child.stdin.take().expect("piped").write_all(lines.as_bytes()).expect("it reads");
    assert!(child.wait().expect("it ends").success(), "mosquitto_pub failed");
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
        Self::configured(|_| "allow_anonymous true\n".to_owned())
    }

    /// On a given port.
    pub(crate) fn at(address: SocketAddr) -> Option<Self> {
        Self::configured_at(address, |_| "allow_anonymous true\n".to_owned())
    }

    /// With more lines of configuration, for a directory of its own.
    pub(crate) fn configured(more: impl FnOnce(&Path) -> String) -> Option<Self> {
        Self::configured_at(free_address(), more)
    }

    fn configured_at(address: SocketAddr, more: impl FnOnce(&Path) -> String) -> Option<Self> {
        let Some(program) = program() else {
            leave_out(Lack::Program, "mosquitto is not installed (Debian package mosquitto)");
            return None;
        };
        let dir = tempfile::tempdir().expect("a directory");
        // Started by root it would become another user, who may not read the directory.
        let config = format!("user root\nlistener {} 127.0.0.1\nmax_queued_messages 10000\n{}", address.port(), more(dir.path()));
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

    /// Ends it in order: it saves what its configuration lets it keep.
    pub(crate) fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = Command::new("kill").arg(child.id().to_string()).status();
            let _ = child.wait();
        }
    }

    /// Starts it again on the same port; one that was killed remembers what it had saved.
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

/// Stands between a client and a broker, and can cut all connections at once.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Proxy {
    pub(crate) fn start(broker: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Self { address: listener.local_addr().unwrap(), open: Arc::default() };
        let open = proxy.open.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(broker) = TcpStream::connect(broker) else { continue };
                for (from, to) in [(&client, &broker), (&broker, &client)] {
                    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    std::thread::spawn(move || {
                        let _ = std::io::copy(&mut from, &mut to);
                        let _ = to.shutdown(Shutdown::Both);
                    });
                }
                open.lock().unwrap().extend([client, broker]);
            }
        });
        proxy
    }

    /// Cuts what is open now.
    pub(crate) fn cut(&self) {
        for stream in self.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// A port on which nobody listens.
pub(crate) fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|probe| probe.local_addr()).expect("a free port")
}

fn program() -> Option<PathBuf> {
    ["/usr/sbin/mosquitto", "/usr/bin/mosquitto", "/usr/local/sbin/mosquitto"].iter().map(PathBuf::from).find(|path| path.exists())
}

/// Takes what the MQTT client tells, and keeps it.
#[derive(Default)]
pub(crate) struct Recorder {
    pub(crate) arrived: Mutex<Vec<(String, Vec<u8>)>>,
    pub(crate) moves: Mutex<Vec<&'static str>>,
    pub(crate) panics_to_come: AtomicUsize,
}

impl Inbound for Recorder {
    fn arrived(&self, topic: &str, payload: &[u8]) {
        assert!(payload != b"panic", "a test's panic, on purpose");
        self.arrived.lock().unwrap().push((topic.to_owned(), payload.to_owned()));
    }
    fn up(&self, _: &'static str) {
        let panics = self.panics_to_come.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        assert!(panics.is_err(), "a test's panic, on purpose");
        self.moves.lock().unwrap().push("up");
    }
    fn down(&self, _: &'static str, _: String) {
        self.moves.lock().unwrap().push("down");
    }
}

impl Recorder {
    pub(crate) fn bodies(&self) -> Vec<String> {
        self.arrived.lock().unwrap().iter().map(|(_, body)| String::from_utf8_lossy(body).into_owned()).collect()
    }
}

/// A broker without TLS and login.
pub(crate) fn endpoint(address: SocketAddr, qos: u8) -> Endpoint {
    Endpoint {
        manner: Manner { name: "internal", qos, retain: false },
        server: format!("tcp://{address}"),
        client_id: "skep-edge-test".into(),
        subscribe_qos: 1,
        login: None,
        tls: None,
    }
}

pub(crate) fn start(endpoint: Endpoint) -> (Transport, TransportGuard, Arc<Recorder>) {
    start_with(endpoint, Recorder::default())
}

pub(crate) fn start_with(endpoint: Endpoint, recorder: Recorder) -> (Transport, TransportGuard, Arc<Recorder>) {
    let recorder = Arc::new(recorder);
    let filters = vec!["$hw/events/device/+/twin/+".to_owned(), "SYS/dis/upload_records".to_owned()];
    let (transport, guard) = Transport::start(None, vec![endpoint], filters, recorder.clone()).unwrap();
    (transport, guard, recorder)
}

pub(crate) fn connected(transport: &Transport) {
    eventually("connected", || figures(transport).connected);
}

pub(crate) fn figures(transport: &Transport) -> Figures {
    transport.figures().remove(0)
}

pub(crate) fn message(topic: &str, body: impl Into<Vec<u8>>) -> Publication {
    Publication { topic: topic.into(), payload: Bytes::from(body.into()) }
}
