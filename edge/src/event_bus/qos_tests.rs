//! QoS 1 and 2 to an external broker that keeps sessions: nothing is lost over cuts and a restart, and at QoS 2 nothing comes
//! twice. Both ways, against a real mosquitto.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests: a panic is the failure")]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use super::testing::{Client, Mosquitto, Proxy, Recorder, clients_are_installed, connected, endpoint, eventually, figures, message};
use super::transport::{Endpoint, Patience, Transport, TransportGuard};

const ROUNDS: usize = 8;
const EACH: usize = 100;

fn broker() -> Option<Mosquitto> {
    if !clients_are_installed() {
        return None;
    }
    Mosquitto::configured(|dir| format!("allow_anonymous true\npersistence true\npersistence_location {}/\n", dir.display()))
}

/// Connected through a proxy, which cuts often and is not to be waited for longer each time.
fn client(proxy: &Proxy, qos: u8) -> (Transport, TransportGuard, Arc<Recorder>) {
    let recorder = Arc::new(Recorder::default());
    let endpoint = Endpoint { subscribe_qos: qos, ..endpoint(proxy.address, qos) };
    let patience = Patience { stable: Duration::ZERO, ..Patience::default() };
    let (transport, guard) = Transport::start_with(None, vec![endpoint], vec!["SYS/dis/upload_records".into()], recorder.clone(), patience).unwrap();
    connected(&transport);
    (transport, guard, recorder)
}

/// How often each of `0..count` is there; `exactly`: once, else at least once.
fn judge(seen: impl IntoIterator<Item = String>, count: usize, exactly: bool) {
    let mut often: BTreeMap<usize, usize> = (0..count).map(|number| (number, 0)).collect();
    for number in seen {
        *often.get_mut(&number.parse().unwrap()).unwrap() += 1;
    }
    let wrong: Vec<_> = often.iter().filter(|(_, times)| if exactly { **times != 1 } else { **times == 0 }).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

fn out(qos: u8) {
    let Some(mut broker) = broker() else { return };
    let proxy = Proxy::start(broker.address);
    let mut device = Client::subscribe(broker.address, &["-q", &qos.to_string(), "-c", "-i", "device", "-F", "%p", "-t", "out"]);
    let (transport, _guard, recorder) = client(&proxy, qos);
    let mut sent = 0;
    for round in 0..ROUNDS {
        for _ in 0..EACH {
            assert_eq!(transport.publish(message("out", sent.to_string())), 0);
            sent += 1;
        }
        // In the middle of it, with some hundred messages at every stage of their way.
        eventually("some are taken", || figures(&transport).published as usize >= round * EACH + 10);
        if round == ROUNDS / 2 {
            broker.stop();
            broker.restart();
        }
        proxy.cut();
    }
    eventually("all are taken", || figures(&transport).published as usize == sent);
    assert_eq!(figures(&transport).dropped, 0);
    assert!(recorder.moves.lock().unwrap().iter().filter(|what| **what == "down").count() >= 3, "it was cut");
    transport.publish(message("out", "end"));
    let seen: Vec<String> = std::iter::from_fn(|| Some(device.line()).filter(|line| line != "end")).collect();
    judge(seen, sent, qos == 2);
}

fn inward(qos: u8) {
    let Some(mut broker) = broker() else { return };
    let proxy = Proxy::start(broker.address);
    let (transport, _guard, recorder) = client(&proxy, qos);
    let publish = |lines: std::ops::Range<usize>, meanwhile: &dyn Fn()| {
        let mut device = Command::new("mosquitto_pub")
            .args(["-h", "127.0.0.1", "-p", &broker.address.port().to_string(), "-q", &qos.to_string(), "-t", "SYS/dis/upload_records", "-l"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines_in = device.stdin.take().unwrap();
        for number in lines {
            writeln!(lines_in, "{number}").unwrap();
            if number % EACH == EACH / 2 {
                meanwhile();
            }
        }
        drop(lines_in);
        assert!(device.wait().unwrap().success());
    };
    let half = ROUNDS / 2 * EACH;
    publish(0..half, &|| {
        let before = recorder.bodies().len();
        eventually("some arrive", || recorder.bodies().len() > before || !figures(&transport).connected);
        proxy.cut();
    });
    // What the broker keeps for us while we are away outlives its restart.
    proxy.cut();
    broker.stop();
    broker.restart();
    let publish = |lines: std::ops::Range<usize>| {
        for number in lines {
            super::testing::publish(broker.address, &["-q", &qos.to_string(), "-t", "SYS/dis/upload_records", "-m", &number.to_string()]);
            if number % 20 == 0 {
                proxy.cut();
            }
        }
    };
    publish(half..half + 100);
    eventually("all arrive", || {
        let mut seen = recorder.bodies();
        seen.sort_unstable();
        seen.dedup();
        seen.len() == half + 100
    });
    // A repetition would be under way behind the last one.
    super::testing::publish(broker.address, &["-q", &qos.to_string(), "-t", "SYS/dis/upload_records", "-m", "end"]);
    eventually("the end arrives", || recorder.bodies().last().is_some_and(|last| last == "end"));
    judge(recorder.bodies().into_iter().filter(|body| body != "end"), half + 100, qos == 2);
}

#[test]
fn at_qos_1_what_is_published_arrives_at_least_once_over_cuts_and_a_restart_of_the_broker() {
    out(1);
}

#[test]
fn at_qos_2_what_is_published_arrives_exactly_once_over_cuts_and_a_restart_of_the_broker() {
    out(2);
}

#[test]
fn at_qos_1_what_devices_publish_is_heard_at_least_once_over_cuts_and_a_restart_of_the_broker() {
    inward(1);
}

#[test]
fn at_qos_2_what_devices_publish_is_heard_exactly_once_over_cuts_and_a_restart_of_the_broker() {
    inward(2);
}
