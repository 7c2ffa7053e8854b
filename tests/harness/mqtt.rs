//! mosquitto's clients: the foreign MQTT party.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;

use crate::wait::eventually;

/// One message as `mosquitto_sub` printed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Its topic.
    pub topic: String,
    /// Its payload.
    pub payload: String,
}

/// A running `mosquitto_sub`. Keeps everything it hears.
#[derive(Debug)]
pub struct Listener {
    child: Child,
    heard: Arc<Mutex<Vec<Heard>>>,
}

impl Listener {
    /// Subscribes to `filter` at the broker on `port` of the loopback, and returns when the broker has confirmed it.
    ///
    /// # Panics
    /// When `mosquitto_sub` cannot be started, or there is no confirmation within 10 s.
    #[track_caller]
    pub fn subscribe(port: u16, filter: &str) -> Self {
        // -d also prints the protocol's steps, which is the only way to learn when the subscription holds.
        let mut child = Command::new("setpriv")
            .args([
                "--pdeathsig",
                "TERM",
                "stdbuf",
                "-oL",
                "mosquitto_sub",
                "-d",
                "-h",
                "127.0.0.1",
                "-q",
                "1",
                "-F",
                "%t\t%p",
                "-p",
                &port.to_string(),
                "-t",
                filter,
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start mosquitto_sub: {error}; run deploy/setup.sh --for test"));
        let stdout = child.stdout.take().expect("it was asked for");
        let heard = Arc::new(Mutex::new(Vec::new()));
        let confirmed = Arc::new(Mutex::new(false));
        let (into, seen) = (heard.clone(), confirmed.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
                // Whoever publishes what is no text must not deafen the listener.
                let line = String::from_utf8_lossy(&line);
                match line.split_once('\t') {
                    Some((topic, payload)) => {
                        lock(&into).push(Heard { topic: topic.to_owned(), payload: payload.to_owned() });
                    }
                    None if line.contains("SUBACK") => *lock(&seen) = true,
                    None => {}
                }
            }
        });
        let listener = Self { child, heard };
        eventually(&format!("mosquitto_sub subscribed to {filter} on port {port}"), Duration::from_secs(10), || {
            if *lock(&confirmed) { Ok(()) } else { Err("no SUBACK") }
        });
        listener
    }

    /// Everything heard so far.
    pub fn all(&self) -> Vec<Heard> {
        lock(&self.heard).clone()
    }

    /// The first message on `topic` whose JSON payload `accept`s.
    ///
    /// # Errors
    /// The last message on that topic, or that there was none.
    pub fn find(&self, topic: &str, accept: impl Fn(&Value) -> bool) -> Result<Value, String> {
        let heard = lock(&self.heard);
        let mut last = Err(format!("nothing on {topic}"));
        for message in heard.iter().filter(|message| message.topic == topic) {
            match serde_json::from_str::<Value>(&message.payload) {
                Ok(body) if accept(&body) => return Ok(body),
                _ => last = Err(format!("{topic} {}", message.payload)),
            }
        }
        last
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Publishes one message at QoS 1; returns when the broker has acknowledged it.
///
/// # Errors
/// `mosquitto_pub`'s words.
pub fn publish(port: u16, topic: &str, payload: &str) -> Result<(), String> {
    let output = Command::new("timeout")
        .args(["10", "mosquitto_pub", "-h", "127.0.0.1", "-q", "1", "-p", &port.to_string(), "-t", topic, "-m", payload])
        .output()
        .map_err(|error| format!("cannot start mosquitto_pub: {error}; run deploy/setup.sh --for test"))?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()) }
}

/// A mosquitto broker on a free port of the loopback, in memory only.
#[derive(Debug)]
pub struct Broker {
    child: Child,
    /// Its port.
    pub port: u16,
}

impl Broker {
    /// Starts one and waits until it takes connections.
    ///
    /// # Panics
    /// When `mosquitto` cannot be started.
    #[track_caller]
    pub fn start() -> Self {
        let port = crate::names::port();
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "TERM", "mosquitto", "-p", &port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start mosquitto: {error}; run deploy/setup.sh --for test"));
        eventually("mosquitto takes connections", Duration::from_secs(10), || std::net::TcpStream::connect(("127.0.0.1", port)));
        Self { child, port }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
