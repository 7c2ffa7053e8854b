//! One MQTT client that sends as fast as it can, and another that must still be answered.

use std::io::Write as _;
use std::process::{Child, Command, Stdio};

use harness::mqtt::Listener;
use harness::{EdgeOptions, EdgeUnderTest, eventually, names, sqlite};

/// Clients that send one line again and again, until this is dropped.
struct Flood(Vec<Child>);

impl Flood {
    fn of(port: u16, topic: &str, line: &str) -> Child {
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "TERM", "mosquitto_pub", "-h", "127.0.0.1", "-p", &port.to_string(), "-t", topic, "-l"])
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (mut input, lines) = (child.stdin.take().unwrap(), format!("{line}\n").repeat(1_000));
        std::thread::spawn(move || while input.write_all(lines.as_bytes()).is_ok() {});
        child
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Most memory that the process has had resident, in KiB.
fn peak(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn a_flood_from_one_client_leaves_no_request_of_another_unanswered_and_takes_no_memory() {
    let mut edge = EdgeUnderTest::prepare(EdgeOptions::default());
    let text = std::fs::read_to_string(edge.config()).unwrap();
    std::fs::write(edge.config(), format!("{text}modules: {{enabled: [eventbus, metaManager, twin]}}\n")).unwrap();
    edge.run();
    edge.answers();
    edge.stop();
    let (loud, quiet) = (names::unique("loud"), names::unique("quiet"));
    for device in [&loud, &quiet] {
        sqlite::execute(&edge.database(), &format!("INSERT INTO device (id, name, incarnation) VALUES ('{device}', '{device}', 1)"));
    }
    edge.run();
    edge.answers();
    let listener = Listener::subscribe(edge.mqtt_port, &format!("$hw/events/device/{quiet}/twin/+/result"));
    let results = |listener: &Listener, word: &str, id: &str| {
        listener.find(&format!("$hw/events/device/{quiet}/twin/{word}/result"), |body| body["event_id"] == id).and_then(|body| {
            match body.get("code") {
                None => Ok(()),
                Some(_) => Err(body.to_string()),
            }
        })
    };
    edge.publish(&format!("$hw/events/device/{quiet}/twin/get"), r#"{"event_id":"before"}"#);
    eventually!(20, "a request is answered before the flood", results(&listener, "get", "before"));
    let before = peak(edge.daemon().pid());

    let update = |value: &str| format!(r#"{{"event_id":"{value}","timestamp":1,"twin":{{"t":{{"actual":{{"value":"{value}"}}}}}}}}"#);
    let topic = format!("$hw/events/device/{loud}/twin/update");
    let flood = Flood(vec![Flood::of(edge.mqtt_port, &topic, &update("1")), Flood::of(edge.mqtt_port, &topic, "{\"not\": json")]);
    eventually!(20, "the flood is heard", edge.twin(&loud, "t", "actual").and_then(|value| if value == "1" { Ok(()) } else { Err(value) }));
    for number in 0..40 {
        let id = format!("quiet-{number}");
        if number % 2 == 0 {
            edge.publish(&format!("$hw/events/device/{quiet}/twin/get"), &format!(r#"{{"event_id":"{id}"}}"#));
            eventually!(30, "its question is answered", results(&listener, "get", &id));
        } else {
            edge.publish(&format!("$hw/events/device/{quiet}/twin/update"), &update(&id));
            eventually!(30, "its update is answered", results(&listener, "update", &id));
        }
    }
    edge.twin_is(&quiet, "t", "actual", "quiet-39").unwrap();
    let grown = peak(edge.daemon().pid()).saturating_sub(before);
    assert!(grown < 48 << 10, "the flood took {grown} KiB");
    drop(flood);
    edge.daemon().must_run().unwrap();
    edge.stop();
}
