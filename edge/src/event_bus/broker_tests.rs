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
