//! Who looks from outside: `sqlite3` at the disk of a killed daemon, `kubectl` at what the cloud was told.

use std::io::BufReader;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use harness::{CloudUnderTest, sqlite};
use serde_json::Value;

use crate::ledger::{PROPERTIES, Row, Stored};

/// The twins of `devices`, read from a copy of the files, so that the daemon recovers from what the kill has left. Without
/// the shared memory, which a power cut takes.
///
/// # Errors
/// `sqlite3`'s words: the file is damaged.
pub fn on_disk(database: &Path, devices: &[String]) -> Result<Vec<Row>, String> {
    let dir = tempfile::tempdir().unwrap();
    let name = |suffix: &str| format!("{}{suffix}", database.display());
    for suffix in ["", "-wal", "-journal"] {
        if Path::new(&name(suffix)).exists() {
            std::fs::copy(name(suffix), dir.path().join(format!("edge.db{suffix}"))).unwrap();
        }
    }
    let statement = "SELECT 'integrity', integrity_check FROM pragma_integrity_check;
         SELECT deviceid, name, actual, json_extract(actual_version, '$.edge') FROM device_twin WHERE actual <> ''";
    let text = sqlite::query(&dir.path().join("edge.db"), statement)?;
    let mut lines = text.lines();
    if lines.next() != Some("integrity|ok") {
        return Err(format!("the database is damaged: {text}"));
    }
    let mut rows = vec![Row::default(); devices.len()];
    for line in lines {
        let cells: Vec<&str> = line.split('|').collect();
        let [device, property, value, version] = cells[..] else { return Err(line.to_owned()) };
        let device = devices.iter().position(|known| known == device).ok_or(line)?;
        let property = PROPERTIES.iter().position(|known| *known == property).ok_or(line)?;
        let number = |text: &str| text.parse().map_err(|_| line.to_owned());
        rows[device][property] = Stored { value: number(value)?, version: number(version)? };
    }
    Ok(rows)
}

/// A reported value as the API shows it.
#[derive(Clone, Debug)]
pub struct Reported {
    pub device: String,
    pub property: usize,
    pub value: u64,
}

/// A running `kubectl get devicestatus --watch`: every state of each object, in order.
pub struct Watch {
    child: Child,
    seen: Receiver<Reported>,
}

impl Watch {
    /// Starts one.
    pub fn start(cloud: &CloudUnderTest) -> Self {
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "TERM", "kubectl", "--kubeconfig"])
            .arg(cloud.kubeconfig())
            .arg("--cache-dir")
            .arg(cloud.dir.path().join("kube-cache"))
            .args(["get", "devicestatus", "--all-namespaces", "--watch", "-o", "json"])
            .env_remove("KUBECONFIG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start kubectl: {error}; run deploy/setup.sh --for test"));
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (into, seen) = channel();
        std::thread::spawn(move || {
            for object in serde_json::Deserializer::from_reader(stdout).into_iter::<Value>().map_while(Result::ok) {
                for reported in values(&object) {
                    if into.send(reported).is_err() {
                        return;
                    }
                }
            }
        });
        Self { child, seen }
    }

    /// What was seen since the last call.
    ///
    /// # Panics
    /// When `kubectl` has ended: then nobody looks.
    pub fn seen(&mut self) -> Vec<Reported> {
        assert!(matches!(self.child.try_wait(), Ok(None)), "kubectl has ended, its words are above");
        self.seen.try_iter().collect()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn values(object: &Value) -> Vec<Reported> {
    let device = object["metadata"]["name"].as_str().unwrap_or_default();
    let twins = object["status"]["twins"].as_array().map(Vec::as_slice).unwrap_or_default();
    let reported = |twin: &Value| {
        let property = PROPERTIES.iter().position(|known| twin["propertyName"] == *known)?;
        let value = twin["reported"]["value"].as_str()?.parse().ok()?;
        Some(Reported { device: device.to_owned(), property, value })
    };
    twins.iter().filter_map(reported).collect()
}
