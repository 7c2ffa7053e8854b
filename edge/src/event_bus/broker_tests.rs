//! The embedded broker against mosquitto's clients.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests: a panic is the failure")]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};

use super::broker::{Broker, BrokerError, Config, PACKET_BYTES_MAX};
use super::testing::{Client, SOON, clients_are_installed, publish};

fn start() -> Broker {
    start_at("127.0.0.1:0".parse().unwrap()).unwrap()
}

fn start_at(address: SocketAddr) -> Result<Broker, BrokerError> {
    Broker::start(Config { address, session_queue_size: 100 })
}

#[test]
fn topics_with_a_leading_dollar_are_routed_in_both_versions_and_all_qualities() {
    if !clients_are_installed() {
        return;
    }
    let broker = start();
    for version in ["mqttv311", "mqttv5"] {
        for qos in ["0", "1", "2"] {
            let mut client = Client::subscribe(broker.address(), &["-V", version, "-q", qos, "-t", "$hw/events/device/+/twin/+"]);
            let body = format!("{version}-{qos}");
            publish(broker.address(), &["-V", version, "-q", qos, "-t", "$hw/events/device/d1/twin/update", "-m", &body]);
            assert_eq!(client.line(), format!("$hw/events/device/d1/twin/update {body}"));
        }
    }
}

#[test]
fn a_subscriber_of_everything_sees_no_topic_with_a_leading_dollar() {
    if !clients_are_installed() {
        return;
    }
    let broker = start();
    let mut client = Client::subscribe(broker.address(), &["-t", "#"]);
    publish(broker.address(), &["-t", "$hw/events/upload/x", "-m", "hidden"]);
    publish(broker.address(), &["-t", "plain", "-m", "seen"]);
    assert_eq!(client.line(), "plain seen");
}

#[test]
fn a_packet_above_the_limit_is_refused_and_one_below_it_arrives() {
    if !clients_are_installed() {
        return;
    }
    let broker = start();
    let mut client = Client::subscribe(broker.address(), &["-t", "big"]);
    let dir = tempfile::tempdir().unwrap();
    let (large, small) = (dir.path().join("large"), dir.path().join("small"));
    std::fs::write(&large, vec![b'x'; PACKET_BYTES_MAX + 1]).unwrap();
    std::fs::write(&small, vec![b'y'; PACKET_BYTES_MAX - 1024]).unwrap();
    let refused = super::testing::try_publish(broker.address(), &["-q", "1", "-t", "big", "-f", large.to_str().unwrap()]);
    assert!(!refused, "the broker took a packet above its limit");
    publish(broker.address(), &["-q", "1", "-t", "big", "-f", small.to_str().unwrap()]);
    assert_eq!(client.line().len(), "big ".len() + PACKET_BYTES_MAX - 1024);
}

#[test]
fn what_is_published_while_a_lasting_session_is_away_waits_up_to_the_queue_size() {
    if !clients_are_installed() {
        return;
    }
    let broker = Broker::start(Config { address: "127.0.0.1:0".parse().unwrap(), session_queue_size: 3 }).unwrap();
    let session = ["-c", "-i", "lasting", "-q", "1", "-t", "queue"];
    drop(Client::subscribe(broker.address(), &session));
    for number in 0..5 {
        publish(broker.address(), &["-q", "1", "-t", "queue", "-m", &number.to_string()]);
    }
    let mut client = Client::subscribe(broker.address(), &session);
    let lines: Vec<String> = (0..3).map(|_| client.line()).collect();
    publish(broker.address(), &["-q", "1", "-t", "queue", "-m", "end"]);
    assert_eq!(client.line(), "queue end", "more than three waited: {lines:?}");
}

#[test]
fn an_occupied_port_is_a_clear_error_that_names_the_address_and_the_way_out() {
    let occupied = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = occupied.local_addr().unwrap();
    let error = start_at(address).unwrap_err();
    assert!(matches!(&error, BrokerError::Listen { source, .. } if source.kind() == std::io::ErrorKind::AddrInUse));
    let text = error.to_string();
    assert!(text.contains(&address.to_string()) && text.contains("mqtt.internal-server"), "{text}");
}

#[test]
fn stopping_frees_the_port_and_ends_the_clients_and_leaves_no_file() {
    let broker = start();
    let address = broker.address();
    let mut client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(SOON)).unwrap();
    // CONNECT of MQTT 3.1.1 with client id "x"; CONNACK accepted.
    client.write_all(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01x").unwrap();
    let mut answer = [0; 4];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(answer, [0x20, 2, 0, 0]);
    drop(broker);
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).expect("the broker closes its connections");
    drop(start_at(address).unwrap());
    assert!(!std::path::Path::new("mqtt_storage").exists());
}

#[test]
fn bytes_that_are_no_mqtt_end_their_own_connection_only() {
    if !clients_are_installed() {
        return;
    }
    let broker = start();
    let mut device = Client::subscribe(broker.address(), &["-t", "alive"]);
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 4096], b"\x10\xff\xff\xff\x7f", b"\x30\x05\x00\x03a\0b"] {
        let mut client = TcpStream::connect(broker.address()).unwrap();
        client.set_read_timeout(Some(SOON)).unwrap();
        client.write_all(garbage).unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let _ = client.read_to_end(&mut Vec::new());
    }
    publish(broker.address(), &["-t", "alive", "-m", "yes"]);
    assert_eq!(device.line(), "alive yes");
}

/// A client of MQTT 3.1.1 that is connected; keep-alive 60 s.
pub(super) fn connected(broker: &Broker, id: &str) -> TcpStream {
    let mut body = b"\x00\x04MQTT\x04\x02\x00\x3c".to_vec();
    body.extend(u16::try_from(id.len()).unwrap().to_be_bytes());
    body.extend(id.as_bytes());
    let mut client = TcpStream::connect(broker.address()).unwrap();
    client.set_read_timeout(Some(SOON)).unwrap();
    client.write_all(&packet(0x10, &body)).unwrap();
    let mut answer = [0; 4];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(answer, [0x20, 2, 0, 0]);
    client
}

pub(super) fn packet(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![kind];
    let mut length = body.len();
    loop {
        let digit = u8::try_from(length % 128).unwrap();
        length /= 128;
        packet.push(if length > 0 { digit | 128 } else { digit });
        if length == 0 {
            break;
        }
    }
    packet.extend(body);
    packet
}

pub(super) fn text(text: &str) -> Vec<u8> {
    [&u16::try_from(text.len()).unwrap().to_be_bytes()[..], text.as_bytes()].concat()
}

/// Reads until the broker closes the connection.
pub(super) fn ended(mut client: TcpStream) {
    loop {
        match client.read(&mut [0; 4096]) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return,
            Err(error) => panic!("the broker does not end this connection: {error}"),
        }
    }
}

#[test]
fn a_connection_that_says_nothing_is_ended() {
    let broker = start();
    let mut silent = TcpStream::connect(broker.address()).unwrap();
    silent.set_read_timeout(Some(SOON)).unwrap();
    assert_eq!(silent.read(&mut [0]).unwrap(), 0);
}

#[test]
fn what_breaks_the_protocol_ends_its_own_connection_alone() {
    if !clients_are_installed() {
        return;
    }
    let broker = start();
    let mut device = Client::subscribe(broker.address(), &["-t", "alive"]);
    let publish_on = |topic: &[u8]| packet(0x30, &[&u16::try_from(topic.len()).unwrap().to_be_bytes()[..], topic, b"x"].concat());
    for (number, bad) in
        [publish_on(b"a/+/b"), publish_on(b"a/#"), publish_on(b"a\0b"), publish_on(b"a\xff\xfe"), publish_on(b"")].into_iter().enumerate()
    {
        let mut client = connected(&broker, &format!("bad-{number}"));
        client.write_all(&bad).unwrap();
        ended(client);
    }
    let mut client = TcpStream::connect(broker.address()).unwrap();
    client.set_read_timeout(Some(SOON)).unwrap();
    client.write_all(&packet(0x10, &[b"\x00\x04MQTT\x04\x02\x00\x3c".to_vec(), text(&"i".repeat(2_000))].concat())).unwrap();
    ended(client);
    publish(broker.address(), &["-t", "alive", "-m", "yes"]);
    assert_eq!(device.line(), "alive yes");
}

#[test]
fn a_client_has_256_subscriptions_and_its_topics_have_limits() {
    let broker = start();
    let mut client = connected(&broker, "greedy");
    let mut subscribe = |filters: &[String]| {
        let list: Vec<u8> = filters.iter().flat_map(|filter| [text(filter), vec![0]].concat()).collect();
        client.write_all(&packet(0x82, &[vec![0, 1], list].concat())).unwrap();
        // SUBACK: a code for each filter.
        let mut header = [0; 2];
        client.read_exact(&mut header).unwrap();
        let mut length = usize::from(header[1] & 127);
        if header[1] & 128 != 0 {
            let mut high = [0];
            client.read_exact(&mut high).unwrap();
            length += usize::from(high[0]) << 7;
        }
        let mut body = vec![0; length];
        client.read_exact(&mut body).unwrap();
        body.split_off(2)
    };
    assert_eq!(subscribe(&["x/".repeat(40), "y".repeat(1_025)]), [0x80, 0x80], "too many levels, too long");
    let many: Vec<String> = (0..300).map(|number| format!("t/{number}")).collect();
    let codes = subscribe(&many);
    assert_eq!(codes.iter().filter(|code| **code == 0).count(), 256);
    assert_eq!(codes.iter().filter(|code| **code == 0x80).count(), 44);
}

#[test]
fn a_subscriber_that_does_not_read_is_disconnected_before_it_takes_the_memory() {
    if !clients_are_installed() {
        return;
    }
    let broker = start();
    let mut asleep = connected(&broker, "asleep");
    asleep.write_all(&packet(0x82, &[vec![0, 1], text("big"), vec![0]].concat())).unwrap();
    let mut suback = [0; 5];
    asleep.read_exact(&mut suback).unwrap();
    let mut awake = Client::subscribe(broker.address(), &["-t", "small"]);
    // 80 MB, of which it reads nothing until they are published.
    let mut loud = connected(&broker, "loud");
    let large = packet(0x30, &[text("big"), vec![b'x'; 1_000_000]].concat());
    for _ in 0..80 {
        loud.write_all(&large).unwrap();
    }
    loud.write_all(&packet(0x30, &[text("small"), b"done".to_vec()].concat())).unwrap();
    assert_eq!(awake.line(), "small done");
    let mut rest = 0;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match asleep.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => rest += length,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
            Err(error) => panic!("it is still connected after {rest} bytes: {error}"),
        }
    }
    assert!(rest < 48 << 20, "{rest} bytes waited for it");
}

#[test]
fn a_last_will_above_16_kib_is_refused() {
    let broker = start();
    for (size, accepted) in [(16 << 10, true), ((16 << 10) + 1, false)] {
        let will = "w".repeat(size);
        let body = [b"\x00\x04MQTT\x04\x06\x00\x3c".to_vec(), text("dying"), text("will"), text(&will)].concat();
        let mut client = TcpStream::connect(broker.address()).unwrap();
        client.set_read_timeout(Some(SOON)).unwrap();
        client.write_all(&packet(0x10, &body)).unwrap();
        let mut answer = [0; 4];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(answer[3] == 0, accepted, "{answer:?}");
    }
}
