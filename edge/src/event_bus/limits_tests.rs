//! The embedded broker at its limits, which README tells.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests: a panic is the failure")]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use super::broker::{Broker, Config};
use super::broker_tests::{connected, packet, text};
use super::testing::{Client, SOON, clients_are_installed};

fn start() -> Broker {
    Broker::start(Config { address: "127.0.0.1:0".parse().unwrap(), session_queue_size: 100 }).unwrap()
}

/// Connects with MQTT 3.1.1 and says what the broker answered; `None`: it closed.
fn connect(broker: SocketAddr, id: &str, clean: bool) -> Option<(TcpStream, u8)> {
    let mut client = TcpStream::connect(broker).unwrap();
    client.set_read_timeout(Some(SOON)).unwrap();
    let head = [&b"\x00\x04MQTT\x04"[..], &[u8::from(clean) << 1, 0, 60]].concat();
    client.write_all(&packet(0x10, &[head, text(id)].concat())).unwrap();
    let mut answer = [0; 4];
    client.read_exact(&mut answer).ok()?;
    Some((client, answer[3]))
}

#[test]
fn when_1280_sessions_are_kept_no_new_lasting_one_is_begun() {
    let broker = start();
    let goodbye = |client: Option<(TcpStream, u8)>| {
        let (mut client, code) = client.unwrap();
        assert_eq!(code, 0);
        client.write_all(&[0xe0, 0]).unwrap();
        assert_eq!(client.read(&mut [0; 1]).unwrap(), 0, "it has ended");
    };
    for number in 0..1_280 {
        goodbye(connect(broker.address(), &format!("kept-{number}"), false));
    }
    let refused = connect(broker.address(), "one-more", false);
    assert!(refused.is_none_or(|(_, code)| code != 0), "one more was begun");
    goodbye(connect(broker.address(), "for-now", true));
    goodbye(connect(broker.address(), "kept-7", false));
}

#[test]
fn of_retained_messages_1024_are_kept_and_a_large_one_is_delivered_only() {
    if !clients_are_installed() {
        return;
    }
    let broker = start();
    let mut live = Client::subscribe(broker.address(), &["-F", "%t %l", "-t", "large"]);
    let mut device = connected(&broker, "device");
    let large = [text("large"), vec![b'x'; (16 << 10) + 1]].concat();
    device.write_all(&packet(0x31, &large)).unwrap();
    assert_eq!(live.line(), format!("large {}", (16 << 10) + 1));
    let mut many = Vec::new();
    for number in 0..1_100 {
        many.extend(packet(0x31, &[text(&format!("kept/{number}")), b"x".to_vec()].concat()));
    }
    // The last of all is answered when all were taken.
    many.extend(packet(0x32, &[text("end"), vec![0, 1]].concat()));
    device.write_all(&many).unwrap();
    let mut puback = [0; 4];
    device.read_exact(&mut puback).unwrap();

    let mut late = connected(&broker, "late");
    late.write_all(&packet(0x82, &[vec![0, 1], text("large"), vec![0], text("kept/#"), vec![0]].concat())).unwrap();
    // What is retained comes first, then what is published now, which nobody keeps any more.
    let mut heard = Vec::new();
    let mut buffer = [0; 4096];
    let kept = |heard: &[u8]| heard.windows(5).filter(|window| window == b"kept/").count();
    while kept(&heard) < 1_024 {
        let length = late.read(&mut buffer).unwrap();
        assert!(length > 0);
        heard.extend(&buffer[..length]);
    }
    device.write_all(&packet(0x31, &[text("kept/now"), b"x".to_vec()].concat())).unwrap();
    while !heard.windows(8).any(|window| window == b"kept/now") {
        let length = late.read(&mut buffer).unwrap();
        assert!(length > 0);
        heard.extend(&buffer[..length]);
    }
    assert_eq!(kept(&heard), 1_025);
    assert!(!heard.windows(5).any(|window| window == b"large"));

    // A last will that is to be kept needs a place, too: its own, or that of another message under its topic.
    const RETAINED: u8 = 0x26;
    const FLEETING: u8 = 0x06;
    for (flags, topic, accepted) in [(RETAINED, "will/new", false), (RETAINED, "kept/7", true), (FLEETING, "will/new", true)] {
        let mut client = TcpStream::connect(broker.address()).unwrap();
        client.set_read_timeout(Some(SOON)).unwrap();
        let head = [&b"\x00\x04MQTT\x04"[..], &[flags, 0, 60]].concat();
        client.write_all(&packet(0x10, &[head, text("willing"), text(topic), text("gone")].concat())).unwrap();
        let mut answer = [0; 4];
        let answered = client.read_exact(&mut answer).is_ok();
        assert_eq!(answered && answer[3] == 0, accepted, "{flags:#x} {topic}");
    }
}
