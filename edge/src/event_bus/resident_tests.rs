//! The daemon at home in its own broker, with real clients at the door.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests: a panic is the failure")]

use std::sync::Arc;

use super::broker::{Broker, Config, Guard, Resident};
use super::testing::{Client, Recorder, clients_are_installed, connected, eventually, figures, message, publish};
use super::transport::{Link, Manner, Transport};

const MANNER: Manner = Manner { name: "internal", qos: 1, retain: false };

struct House {
    transport: Transport,
    broker: Broker,
    recorder: Arc<Recorder>,
}

fn house(manner: Manner) -> House {
    let recorder = Arc::new(Recorder::default());
    let link = Link::new(manner);
    let filters = vec!["$hw/events/device/+/twin/+".to_owned(), "SYS/dis/upload_records".to_owned()];
    let (transport, _) = Transport::start(Some(link.clone()), Vec::new(), filters, recorder.clone()).unwrap();
    let resident = Some(Resident { link, wanted: transport.wanted(), inbound: recorder.clone() });
    let config = Config { address: "127.0.0.1:0".parse().unwrap(), session_queue_size: 100 };
    let broker = Broker::open(config, Guard { resident, ..Guard::default() }).unwrap();
    House { transport, broker, recorder }
}

#[test]
fn what_a_client_publishes_first_arrives_and_what_the_daemon_publishes_does_not_come_back() {
    if !clients_are_installed() {
        return;
    }
    for _ in 0..20 {
        let House { transport, broker, recorder } = house(MANNER);
        publish(broker.address(), &["-q", "1", "-t", "$hw/events/device/d1/twin/update", "-m", "first"]);
        eventually("it arrives", || recorder.bodies() == ["first"]);
        transport.publish(message("SYS/dis/upload_records", "own"));
        eventually("published", || figures(&transport).published == 1);
        publish(broker.address(), &["-t", "SYS/dis/upload_records", "-m", "second"]);
        eventually("the next arrives", || recorder.bodies() == ["first", "second"]);
    }
}

#[test]
fn a_filter_of_the_cloud_is_subscribed_with_what_is_retained_and_ended() {
    if !clients_are_installed() {
        return;
    }
    let House { transport, broker, recorder } = house(MANNER);
    publish(broker.address(), &["-r", "-q", "1", "-t", "extra/kept", "-m", "kept"]);
    transport.subscribe("extra/+").unwrap();
    eventually("what is retained", || recorder.bodies() == ["kept"]);
    for qos in ["0", "1", "2"] {
        publish(broker.address(), &["-q", qos, "-t", "extra/1", "-m", qos]);
    }
    eventually("all", || recorder.bodies() == ["kept", "0", "1", "2"]);
    transport.unsubscribe("extra/+");
    eventually("it ends", || {
        let before = recorder.bodies().len();
        publish(broker.address(), &["-q", "1", "-t", "extra/1", "-m", "late"]);
        publish(broker.address(), &["-q", "1", "-t", "SYS/dis/upload_records", "-m", "marker"]);
        eventually("the marker", || recorder.bodies().last().is_some_and(|last| last == "marker"));
        recorder.bodies().len() == before + 1
    });
}

#[test]
fn the_last_will_of_a_device_that_is_cut_off_arrives() {
    if !clients_are_installed() {
        return;
    }
    let House { broker, recorder, .. } = house(MANNER);
    let will = ["--will-topic", "$hw/events/device/d1/twin/update", "--will-payload", "gone", "--will-qos", "1"];
    let device = Client::subscribe(broker.address(), &[&will[..], &["-t", "x"]].concat());
    device.kill();
    eventually("its will", || recorder.bodies() == ["gone"]);
}

#[test]
fn a_flood_on_a_topic_that_the_cloud_has_subscribed_waits_and_loses_nothing() {
    if !clients_are_installed() {
        return;
    }
    const EACH: usize = 30_000;
    let House { transport, broker, recorder } = house(MANNER);
    transport.subscribe("flood/#").unwrap();
    eventually("subscribed", || {
        publish(broker.address(), &["-q", "1", "-t", "flood/probe", "-m", "probe"]);
        !recorder.bodies().is_empty()
    });
    recorder.arrived.lock().unwrap().clear();
    let floods: Vec<_> = (0..2)
        .map(|number| {
            let address = broker.address();
            std::thread::spawn(move || {
                let lines: String = (0..EACH).map(|line| format!("{line}\n")).collect();
                super::testing::publish_lines(address, &["-q", "0", "-t", &format!("flood/{number}")], &lines);
            })
        })
        .collect();
    for flood in floods {
        flood.join().unwrap();
    }
    eventually("everything", || recorder.arrived.lock().unwrap().len() == 2 * EACH);
    assert_eq!(figures(&transport).dropped, 0);
}

#[test]
fn a_panic_while_a_message_is_taken_loses_that_message_only() {
    if !clients_are_installed() {
        return;
    }
    let House { transport, broker, recorder } = house(MANNER);
    publish(broker.address(), &["-t", "SYS/dis/upload_records", "-m", "panic"]);
    publish(broker.address(), &["-t", "SYS/dis/upload_records", "-m", "next"]);
    eventually("the next message", || recorder.bodies() == ["next"]);
    assert_eq!(figures(&transport).panics, 1);
}

#[test]
fn what_waits_when_the_daemon_stops_still_goes_out_at_each_qos() {
    if !clients_are_installed() {
        return;
    }
    for qos in 0..3 {
        let House { transport, broker, recorder } = house(Manner { qos, ..MANNER });
        connected(&transport);
        let mut device = Client::subscribe(broker.address(), &["-q", "2", "-t", "last"]);
        for number in 0..500 {
            assert_eq!(transport.publish(message("last", number.to_string())), 0);
        }
        drop(broker);
        for number in 0..500 {
            assert_eq!(device.line(), format!("last {number}"), "QoS {qos}");
        }
        assert_eq!(*recorder.moves.lock().unwrap(), ["up", "down"]);
        assert!(!figures(&transport).connected);
    }
}

#[test]
fn what_is_to_be_retained_waits_for_a_device_that_comes_later() {
    if !clients_are_installed() {
        return;
    }
    let House { transport, broker, .. } = house(Manner { retain: true, ..MANNER });
    transport.publish(message("kept", "state"));
    eventually("published", || figures(&transport).published == 1);
    let mut device = Client::subscribe(broker.address(), &["-t", "kept"]);
    assert_eq!(device.line(), "kept state");
}
