//! `mqtt.session-queue-size` bounds what waits for a client that is away, and never what is delivered to one that is there.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests: a panic is the failure")]

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use super::testing::{Client, clients_are_installed, publish};
use super::tests::{World, handle, publication, settings, started};
use crate::config::Mqtt;
use wire::mqtt::Topic;

const BURST: usize = 20_000;
const QUEUE: usize = 100;

/// One device that publishes as fast as it can, with QoS 0.
fn burst(broker: SocketAddr) {
    let mut device = Command::new("mosquitto_pub")
        .args(["-h", &broker.ip().to_string(), "-p", &broker.port().to_string(), "-q", "0", "-t", "burst", "-l"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let lines: String = (0..BURST).map(|number| format!("{number}\n")).collect();
    device.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    assert!(device.wait().unwrap().success());
}

#[test]
fn a_burst_of_qos_0_reaches_every_client_that_is_there_whatever_the_queue_for_absent_ones() {
    if !clients_are_installed() {
        return;
    }
    let world = World::new(16);
    let (sockets, mut bus) = started(&world, &Mqtt { session_queue_size: QUEUE, ..settings(0, String::new()) });
    let broker = sockets.broker_address().unwrap();
    let mut plain = Client::subscribe(broker, &["-q", "0", "-t", "burst"]);
    let mut lasting = Client::subscribe(broker, &["-q", "1", "-c", "-i", "lasting", "-t", "burst"]);
    burst(broker);
    for client in [&mut plain, &mut lasting] {
        for number in 0..BURST {
            assert_eq!(client.line(), format!("burst {number}"));
        }
    }
    // And the daemon's.
    for number in 0..1_000 {
        handle(&mut bus, vec![publication(Topic::parse("burst").unwrap(), &number.to_string())]);
    }
    for client in [&mut plain, &mut lasting] {
        for number in 0..1_000 {
            assert_eq!(client.line(), format!("burst {number}"));
        }
    }

    // The same client, away: it finds as many as the key says.
    drop(lasting);
    for number in 0..QUEUE + 20 {
        publish(broker, &["-q", "1", "-t", "burst", "-m", &format!("away {number}")]);
    }
    let mut lasting = Client::subscribe(broker, &["-q", "1", "-c", "-i", "lasting", "-t", "burst"]);
    publish(broker, &["-q", "1", "-t", "burst", "-m", "end"]);
    let waited = std::iter::from_fn(|| Some(lasting.line()).filter(|line| line != "burst end")).count();
    assert_eq!(waited, QUEUE);
}
