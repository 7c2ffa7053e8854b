//! The MQTT client against the embedded broker and against a real mosquitto.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests: a panic is the failure")]

use std::sync::atomic::AtomicUsize;

use super::broker::{Broker, Config};
use super::testing::{
    Client, Mosquitto, Recorder, clients_are_installed, connected, endpoint, eventually, figures, message, publish, start, start_with,
};
use super::transport::TransportError;

fn embedded() -> Broker {
    Broker::start(Config { address: "127.0.0.1:0".parse().unwrap(), session_queue_size: 100 }).unwrap()
}

#[test]
fn what_a_device_publishes_arrives_and_what_is_published_reaches_a_device() {
    if !clients_are_installed() {
        return;
    }
    let broker = embedded();
    let (transport, _guard, recorder) = start(endpoint(broker.address(), 0));
    connected(&transport);
    publish(broker.address(), &["-t", "$hw/events/device/d1/twin/update", "-m", "hello"]);
    publish(broker.address(), &["-t", "not/subscribed", "-m", "unseen"]);
    publish(broker.address(), &["-q", "1", "-t", "SYS/dis/upload_records", "-m", "second"]);
    eventually("two messages", || recorder.bodies() == ["hello", "second"]);

    let mut device = Client::subscribe(broker.address(), &["-t", "$hw/events/device/d1/twin/update/+"]);
    assert_eq!(transport.publish(message("$hw/events/device/d1/twin/update/result", "ok")), 0);
    assert_eq!(device.line(), "$hw/events/device/d1/twin/update/result ok");
    eventually("counted", || figures(&transport).published == 1);
}

#[test]
fn a_panic_while_a_message_is_taken_loses_that_message_only() {
    if !clients_are_installed() {
        return;
    }
    let broker = embedded();
    let (transport, _guard, recorder) = start(endpoint(broker.address(), 0));
    connected(&transport);
    publish(broker.address(), &["-t", "SYS/dis/upload_records", "-m", "panic"]);
    publish(broker.address(), &["-t", "SYS/dis/upload_records", "-m", "next"]);
    eventually("the next message", || recorder.bodies() == ["next"]);
    assert_eq!(figures(&transport).panics, 1);
}

#[test]
fn a_broker_that_dies_and_returns_loses_nothing_that_was_published_meanwhile() {
    if !clients_are_installed() {
        return;
    }
    let Some(mut broker) = Mosquitto::start() else { return };
    let (transport, _guard, recorder) = start(endpoint(broker.address, 1));
    connected(&transport);
    broker.kill();
    eventually("noticed", || !figures(&transport).connected);
    for number in 0..40 {
        assert_eq!(transport.publish(message("outage", number.to_string())), 0);
    }
    broker.restart();
    connected(&transport);
    eventually("all were taken by the broker", || figures(&transport).published == 40);
    assert_eq!(figures(&transport).dropped, 0);
    publish(broker.address, &["-t", "$hw/events/device/d1/twin/get", "-m", "again"]);
    eventually("subscribed again", || recorder.bodies() == ["again"]);
    assert_eq!(*recorder.moves.lock().unwrap(), ["up", "down", "up"]);
}

#[test]
fn messages_keep_their_order_and_their_bodies_through_a_full_window() {
    if !clients_are_installed() {
        return;
    }
    let broker = embedded();
    let (transport, _guard, _) = start(endpoint(broker.address(), 1));
    connected(&transport);
    let mut device = Client::subscribe(broker.address(), &["-q", "1", "-t", "order"]);
    for number in 0..2_000 {
        assert_eq!(transport.publish(message("order", number.to_string())), 0);
    }
    for number in 0..2_000 {
        assert_eq!(device.line(), format!("order {number}"));
    }
}

#[test]
fn while_the_broker_is_away_the_newest_messages_are_kept_and_the_rest_counted() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|probe| probe.local_addr()).unwrap();
    let (transport, _guard, _) = start(endpoint(free, 1));
    for number in 0..super::outbox::WAITING_MAX + 10 {
        assert!(transport.has_room(), "an absent broker must not hold up anybody");
        transport.publish(message("x", number.to_string()));
    }
    assert_eq!(figures(&transport).waiting, super::outbox::WAITING_MAX);
    assert_eq!(figures(&transport).dropped, 10);
}

#[test]
fn a_filter_that_the_cloud_asks_for_is_subscribed_at_once_and_ended_at_once() {
    if !clients_are_installed() {
        return;
    }
    let Some(mut broker) = Mosquitto::start() else { return };
    let (transport, _guard, recorder) = start(endpoint(broker.address, 1));
    connected(&transport);
    transport.subscribe("extra/+").unwrap();
    eventually("it arrives", || {
        publish(broker.address, &["-t", "extra/1", "-m", "x"]);
        !recorder.bodies().is_empty()
    });
    broker.restart();
    recorder.arrived.lock().unwrap().clear();
    eventually("it arrives after a reconnection", || {
        publish(broker.address, &["-t", "extra/1", "-m", "x"]);
        !recorder.bodies().is_empty()
    });
    transport.unsubscribe("extra/+");
    eventually("it ends", || {
        recorder.arrived.lock().unwrap().clear();
        publish(broker.address, &["-t", "extra/1", "-m", "x"]);
        publish(broker.address, &["-t", "SYS/dis/upload_records", "-m", "marker"]);
        eventually("the marker", || recorder.bodies().contains(&"marker".to_owned()));
        recorder.bodies() == ["marker"]
    });
    for filter in ["", "a/#/b", "a+", "a/b#"] {
        assert!(matches!(transport.subscribe(filter), Err(TransportError::Filter { .. })), "{filter}");
    }
    for number in 0..super::transport::EXTRA_FILTERS_MAX {
        transport.subscribe(&format!("many/{number}")).unwrap();
    }
    assert!(matches!(transport.subscribe("one/more"), Err(TransportError::TooManyFilters { .. })));
}

#[test]
fn stopping_does_not_wait_for_a_broker_that_is_away() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|probe| probe.local_addr()).unwrap();
    let (_, guard, _) = start(endpoint(free, 1));
    let began = std::time::Instant::now();
    drop(guard);
    assert!(began.elapsed() < std::time::Duration::from_secs(10));
}

#[test]
fn a_panic_of_the_client_itself_costs_a_reconnection() {
    if !clients_are_installed() {
        return;
    }
    let broker = embedded();
    let recorder = Recorder { panics_to_come: AtomicUsize::new(1), ..Recorder::default() };
    let (_transport, _guard, recorder) = start_with(endpoint(broker.address(), 1), recorder);
    eventually("connected again", || *recorder.moves.lock().unwrap() == ["up"]);
    publish(broker.address(), &["-t", "SYS/dis/upload_records", "-m", "heard"]);
    eventually("heard", || recorder.bodies() == ["heard"]);
}

#[test]
fn what_waits_when_the_daemon_stops_still_goes_out() {
    if !clients_are_installed() {
        return;
    }
    let broker = embedded();
    let (transport, guard, _) = start(endpoint(broker.address(), 1));
    connected(&transport);
    let mut device = Client::subscribe(broker.address(), &["-q", "1", "-t", "last"]);
    // As many as go out without waiting for the broker's answers: the end waits for those a second only.
    for number in 0..256 {
        transport.publish(message("last", number.to_string()));
    }
    drop(guard);
    for number in 0..256 {
        assert_eq!(device.line(), format!("last {number}"));
    }
}
