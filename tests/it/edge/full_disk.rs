//! A full disk is survived: reads go on, writers are told, and it works again when there is space, without a restart.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;

use actor::testing::{Lack, leave_out};
use harness::mqtt::Listener;
use harness::{CloudUnderTest, EdgeOptions, EdgeUnderTest, eventually, http, names, sqlite};
use serde_json::Value;

use crate::world::value_of;

/// A file system in memory over a directory, which goes with this value.
struct Small(PathBuf);

impl Small {
    /// `None`, said loudly, where this user may not mount.
    fn over(directory: PathBuf) -> Option<Self> {
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=8m,mode=700", "tmpfs"]).arg(&directory).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(directory)),
            Ok(output) => {
                let why = String::from_utf8_lossy(&output.stderr);
                leave_out(Lack::Machine, format!("no small file system: {}; run as root", why.trim()));
                None
            }
            Err(error) => {
                leave_out(Lack::Machine, format!("no small file system: {error}"));
                None
            }
        }
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }

    fn fill(&self) {
        let mut file = std::fs::File::create(self.ballast()).unwrap();
        for bytes in [64 << 10, 512] {
            while file.write_all(&vec![7; bytes]).is_ok() {}
        }
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn store_is(port: u16, wanted: u16, word: &str) -> Result<(), String> {
    match http::get(port, "/readyz/store")? {
        (status, body) if status == wanted && body.contains(word) => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

/// What the device has been told was stored, and what was refused.
struct Told {
    listener: Listener,
    device: String,
    stored: BTreeMap<String, String>,
}

impl Told {
    /// Reports a value and waits for the answer: `Ok` when it was stored.
    fn report(&mut self, edge: &EdgeUnderTest, property: &str, value: &str) -> Result<(), Value> {
        let (event, topic) = (names::unique("event"), format!("$hw/events/device/{}/twin/update", self.device));
        edge.publish(&topic, &format!(r#"{{"event_id":"{event}","timestamp":1,"twin":{{"{property}":{{"actual":{{"value":"{value}"}}}}}}}}"#));
        let answer = eventually!(20, "an answer", self.listener.find(&format!("{topic}/result"), |body| body["event_id"] == event.as_str()));
        if answer["code"].is_null() {
            self.stored.insert(property.to_owned(), value.to_owned());
            Ok(())
        } else {
            Err(answer)
        }
    }

    /// What is answered is what was told, for each property.
    fn holds(&self, edge: &EdgeUnderTest) {
        let event = names::unique("event");
        edge.publish(&format!("$hw/events/device/{}/twin/get", self.device), &format!(r#"{{"event_id":"{event}","timestamp":1}}"#));
        let topic = format!("$hw/events/device/{}/twin/get/result", self.device);
        let answer = eventually!(20, "the twin is answered", self.listener.find(&topic, |body| body["event_id"] == event.as_str()));
        for (property, value) in &self.stored {
            assert_eq!(value_of(&answer, property, "actual"), Some(value.as_str()), "{property}");
        }
        let answered: Vec<_> = answer["twin"].as_object().unwrap().keys().filter(|name| *name != "temperature").collect();
        assert_eq!(answered, self.stored.keys().collect::<Vec<_>>(), "nothing that was refused is there");
    }
}

#[test]
fn with_a_full_disk_reads_go_on_writers_are_told_and_it_recovers_without_a_restart() {
    let cloud = CloudUnderTest::start();
    let mut edge = EdgeUnderTest::prepare(EdgeOptions { hub_port: cloud.hub_port, ..EdgeOptions::default() });
    let Some(disk) = Small::over(edge.data()) else { return };
    edge.join(&cloud);
    edge.run();
    edge.answers();
    let device = names::unique("device");
    cloud.kubectl().apply(&format!(
        "apiVersion: devices.kubeedge.io/v1beta1\nkind: Device\nmetadata: {{name: {device}}}\n\
         spec: {{nodeName: {}, properties: [{{name: temperature, reportToCloud: true}}]}}\n",
        edge.node
    ));
    eventually!(30, "the edge knows the device", edge.knows(&device));
    let listener = Listener::subscribe(edge.mqtt_port, &format!("$hw/events/device/{device}/twin/#"));
    let mut told = Told { listener, device, stored: BTreeMap::new() };
    told.report(&edge, "before", "1").unwrap();
    store_is(edge.admin_port, 200, "ok").unwrap();

    disk.fill();
    eventually!(20, "not ready, because of the disk", store_is(edge.admin_port, 503, "free"));
    // What the log has room for is still stored.
    let refused = (0..1000).find_map(|number| told.report(&edge, &format!("p{number}"), &"x".repeat(500)).err());
    let refused = refused.expect("the disk is full, and nothing is refused");
    assert_eq!(refused["code"], 500, "{refused}");
    assert!(refused["reason"].as_str().unwrap().contains("no space"), "{refused}");
    told.holds(&edge);
    edge.daemon().must_run().unwrap();

    std::fs::remove_file(disk.ballast()).unwrap();
    eventually!(20, "a value is stored again", told.report(&edge, "after", "2").map_err(|answer| answer.to_string()));
    eventually!(20, "ready again", store_is(edge.admin_port, 200, "ok"));
    told.holds(&edge);
    edge.daemon().must_run().unwrap();
    edge.stop();
    assert_eq!(sqlite::query(&edge.database(), "PRAGMA integrity_check").unwrap(), "ok");
    // The edge's files before the file system under them.
    drop(edge);
    drop(disk);
}
