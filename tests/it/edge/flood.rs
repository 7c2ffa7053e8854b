//! One MQTT client that sends as fast as it can, and another that must still be answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use harness::mqtt::Listener;
use harness::raw_mqtt::{RawClient, publication};
use harness::{EdgeOptions, EdgeUnderTest, eventually, names, sqlite};

/// Clients that send one message again and again, as fast as their sockets take it, until this is dropped.
struct Flood {
    stopped: Arc<AtomicBool>,
    clients: Vec<(JoinHandle<()>, Arc<AtomicU64>)>,
    began: Instant,
}

/// Messages in one write.
const AT_ONCE: usize = 1_000;

impl Flood {
    fn of(port: u16, messages: &[(&str, &str)]) -> Self {
        let stopped = Arc::new(AtomicBool::new(false));
        let client = |(topic, body): &(&str, &str)| {
            let many = publication(topic.as_bytes(), body.as_bytes(), None).repeat(AT_ONCE);
            let (stop, sent) = (stopped.clone(), Arc::new(AtomicU64::new(0)));
            let (count, id) = (sent.clone(), names::unique("loud"));
            let thread = std::thread::spawn(move || {
                let mut client = RawClient::connect(port, &id);
                // A write that waits for room in the socket ends when the broker reads on, or goes.
                while !stop.load(Ordering::Relaxed) && client.send(&many).is_ok() {
                    count.fetch_add(AT_ONCE as u64, Ordering::Relaxed);
                }
            });
            (thread, sent)
        };
        let clients = messages.iter().map(client).collect();
        Self { stopped, clients, began: Instant::now() }
    }

    /// Messages that each client has handed to its socket, and how many that was in a second.
    fn sent(&self) -> Vec<(u64, f64)> {
        let seconds = self.began.elapsed().as_secs_f64();
        self.clients.iter().map(|(_, sent)| sent.load(Ordering::Relaxed)).map(|sent| (sent, sent as f64 / seconds)).collect()
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        for (thread, _) in self.clients.drain(..) {
            let _ = thread.join();
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
#[allow(clippy::print_stdout, reason = "how much of a flood it was is for whoever reads the output")]
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
    // The last one meets no module, so nothing but the broker's own fairness holds it back.
    let flood = Flood::of(edge.mqtt_port, &[(&topic, &update("1")), (&topic, "{\"not\": json"), ("elsewhere", "x")]);
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
    let sent = flood.sent();
    assert!(sent.iter().all(|(count, _)| *count > 1_000), "it was no flood: {sent:?}");
    assert!(sent[2].0 > 100_000, "it was no flood: {sent:?}");
    println!("messages that the flood has sent, and in a second: {sent:.0?}");
    drop(flood);
    edge.daemon().must_run().unwrap();
    edge.stop();
}
