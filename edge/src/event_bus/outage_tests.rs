//! Brokers that are away, hang, drop, or talk nonsense: none of them may cost a message, hold up the daemon, or be
//! connected to without a pause.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests: a panic is the failure")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::outbox::WAITING_MAX;
use super::scripted::{ACCEPTED, Answer, CONNECT, PINGREQ, PUBLISH, Packet, SUBSCRIBE, Scripted};
use super::testing::{
    Client, Mosquitto, Recorder, clients_are_installed, connected, endpoint, eventually, figures, free_address, message, publish, start,
};
use super::transport::{Patience, Transport, TransportGuard};

/// What would be seconds and minutes is tenths of a second.
const HASTY: Patience = Patience {
    connect: Duration::from_secs(1),
    answer: Duration::from_millis(600),
    stalled: Duration::from_millis(200),
    stable: Duration::from_secs(1),
    settle: Duration::from_millis(200),
    barren: 3,
};

fn hasty(broker: &Scripted, qos: u8) -> (Transport, TransportGuard, Arc<Recorder>) {
    let recorder = Arc::new(Recorder::default());
    let filters = vec!["SYS/dis/upload_records".to_owned()];
    let (transport, guard) = Transport::start_with(None, vec![endpoint(broker.address, qos)], filters, recorder.clone(), HASTY).unwrap();
    (transport, guard, recorder)
}

/// Without pauses that grow: for what takes many sessions.
fn hastiest(broker: &Scripted) -> (Transport, TransportGuard) {
    let patience = Patience { stable: Duration::ZERO, ..HASTY };
    Transport::start_with(None, vec![endpoint(broker.address, 1)], vec!["x".to_owned()], Arc::new(Recorder::default()), patience).unwrap()
}

fn bodies(count: usize) -> BTreeSet<String> {
    (0..count).map(|number| number.to_string()).collect()
}

fn publish_all(transport: &Transport, count: usize) {
    for number in 0..count {
        assert!(transport.has_room(), "nobody may be held up");
        assert_eq!(transport.publish(message("t", number.to_string())), 0);
    }
}

fn all_arrive(transport: &Transport, broker: &Scripted, count: usize) {
    eventually("everything is delivered", || figures(transport).published == count as u64);
    let arrived: BTreeSet<String> = broker.payloads().into_iter().collect();
    assert_eq!(arrived, bodies(count));
    assert_eq!(figures(transport).dropped, 0);
}

#[test]
fn a_broker_that_is_absent_at_boot_is_found_when_it_comes_and_gets_everything() {
    if !clients_are_installed() {
        return;
    }
    let address = free_address();
    let (transport, _guard, recorder) = start(endpoint(address, 1));
    eventually("it is said", || !figures(&transport).trouble.is_empty());
    publish_all(&transport, 100);
    let Some(_broker) = Mosquitto::at(address) else { return };
    connected(&transport);
    eventually("everything is taken", || figures(&transport).published == 100);
    publish(address, &["-q", "1", "-t", "SYS/dis/upload_records", "-m", "heard"]);
    eventually("subscribed", || recorder.bodies() == ["heard"]);
}

/// Each fault for as long as it takes to see three connections of it, with messages that wait; then the broker behaves.
fn survives(what: &str, fault: impl Fn(&Packet) -> Answer + Send + Sync + 'static, keeps_sessions: bool) {
    let broker = Scripted::start(fault);
    if keeps_sessions {
        broker.keep_sessions();
    }
    let (transport, _guard, recorder) = hasty(&broker, 1);
    publish_all(&transport, 300);
    eventually(&format!("{what}: three connections"), || broker.connections() >= 3);
    // A loop without a pause makes thousands.
    let began = (Instant::now(), broker.connections());
    eventually("two seconds", || began.0.elapsed() >= Duration::from_secs(2));
    let made = broker.connections() - began.1;
    assert!(made <= 30, "{what}: {made} connections in two seconds");
    assert!(transport.has_room(), "{what}: nobody may be held up");
    assert_eq!(figures(&transport).dropped, 0, "{what}: nothing may be lost");
    broker.recover();
    all_arrive(&transport, &broker, 300);
    assert!(recorder.bodies().is_empty(), "{what}: nothing was published");
}

#[test]
fn a_broker_that_accepts_and_drops_costs_nothing() {
    survives("drops at once", |_| Answer::Close, false);
    survives("drops at CONNECT", |packet| if packet.kind == ACCEPTED { Answer::Properly } else { Answer::Close }, false);
    survives("drops at SUBSCRIBE", |packet| if packet.kind == SUBSCRIBE { Answer::Close } else { Answer::Properly }, false);
    survives("drops at PUBLISH", |packet| if packet.kind == PUBLISH { Answer::Close } else { Answer::Properly }, false);
}

#[test]
fn a_broker_that_keeps_the_session_and_drops_costs_nothing() {
    survives("drops at SUBSCRIBE", |packet| if packet.kind == SUBSCRIBE { Answer::Close } else { Answer::Properly }, true);
    survives("drops at PUBLISH", |packet| if packet.kind == PUBLISH { Answer::Close } else { Answer::Properly }, true);
}

#[test]
fn a_broker_that_hangs_costs_nothing() {
    survives("takes connections only", |_| Answer::Silence, false);
    survives("answers CONNECT only", |packet| if packet.kind == CONNECT { Answer::Properly } else { Answer::Silence }, false);
    let answers = |packet: &Packet| match packet.kind {
        PUBLISH | PINGREQ => Answer::Silence,
        _ => Answer::Properly,
    };
    survives("answers no PUBLISH", answers, false);
    survives("answers no PUBLISH and keeps the session", answers, true);
}

#[test]
fn a_broker_that_talks_nonsense_costs_nothing() {
    for (what, at) in [("at once", ACCEPTED), ("instead of CONNACK", CONNECT), ("instead of SUBACK", SUBSCRIBE), ("instead of PUBACK", PUBLISH)] {
        for nonsense in [
            &b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"[..],
            // CONNACK with a length that never ends.
            b"\x20\xff\xff\xff\xff\xff\xff",
            // Answers to what was never asked.
            b"\x40\x02\x12\x34\x50\x02\x12\x34\x70\x02\x12\x34\x90\x04\x12\x34\x00\x01\xb0\x02\x12\x34\xd0\x00",
            // A publication whose topic is longer than the packet.
            b"\x30\x04\xff\xffab",
            b"\x00\x00\x00\x00",
            b"\xf0\x01\xff",
        ] {
            let said = nonsense.to_vec();
            let script = move |packet: &Packet| if packet.kind == at { Answer::Bytes(said.clone()) } else { Answer::Properly };
            let broker = Scripted::start(script);
            let (transport, _guard, _) = hasty(&broker, 1);
            publish_all(&transport, 20);
            eventually(&format!("{what}: {nonsense:?}"), || broker.connections() >= 2 || broker.packets(PUBLISH).len() >= 20);
            broker.recover();
            eventually(&format!("after nonsense {what}, {nonsense:?}, everything is delivered"), || {
                broker.payloads().into_iter().collect::<BTreeSet<_>>() == bodies(20)
            });
        }
    }
}

#[test]
fn a_message_that_makes_the_broker_close_is_found_and_given_up_and_the_others_arrive() {
    for keeps_sessions in [false, true] {
        let poisoned = |packet: &Packet| match packet.kind {
            PUBLISH if packet.publication().1 == "poison" => Answer::Close,
            _ => Answer::Properly,
        };
        let broker = Scripted::start(poisoned);
        if keeps_sessions {
            broker.keep_sessions();
        }
        let (transport, _guard) = hastiest(&broker);
        transport.publish(message("t", "poison"));
        for number in 0..20 {
            transport.publish(message("t", number.to_string()));
        }
        eventually("the others are delivered", || figures(&transport).published == 20);
        assert_eq!(figures(&transport).dropped, 1, "sessions kept: {keeps_sessions}");
    }
}

#[test]
fn a_broker_that_answers_nothing_holds_up_nobody_and_the_newest_messages_are_kept() {
    let broker = Scripted::start(|packet| if packet.kind == PUBLISH { Answer::Silence } else { Answer::Properly });
    let (transport, _guard, _) = hasty(&broker, 1);
    connected(&transport);
    for number in 0..WAITING_MAX + 500 {
        transport.publish(message("t", number.to_string()));
    }
    eventually("there is room although nothing is taken", || transport.has_room());
    let waiting = figures(&transport).waiting;
    assert!(waiting <= WAITING_MAX + super::transport::IN_FLIGHT_MAX, "{waiting}");
}

#[test]
fn a_subscription_that_the_broker_refuses_does_not_stop_the_others() {
    let refused = Arc::new(AtomicUsize::new(0));
    let count = refused.clone();
    let broker = Scripted::start(move |packet| match packet.kind {
        SUBSCRIBE if packet.subscriptions()[0].0 == "not/allowed" => {
            count.fetch_add(1, Ordering::SeqCst);
            Answer::Bytes(vec![0x90, 3, packet.id_bytes()[0], packet.id_bytes()[1], 0x80])
        }
        _ => Answer::Properly,
    });
    let (transport, _guard, _) = hasty(&broker, 1);
    connected(&transport);
    transport.subscribe("not/allowed").unwrap();
    eventually("it was asked for", || refused.load(Ordering::SeqCst) == 1);
    publish_all(&transport, 10);
    all_arrive(&transport, &broker, 10);
    assert_eq!(broker.connections(), 1);
}

#[test]
fn while_connected_to_a_real_broker_a_cut_in_the_middle_loses_nothing() {
    if !clients_are_installed() {
        return;
    }
    let Some(mut broker) = Mosquitto::start() else { return };
    let (transport, _guard, _) = start(endpoint(broker.address, 1));
    connected(&transport);
    publish_all(&transport, 500);
    broker.restart();
    let mut device = Client::subscribe(broker.address, &["-q", "1", "-t", "end"]);
    transport.publish(message("end", "x"));
    assert_eq!(device.line(), "end x");
    eventually("everything is taken", || figures(&transport).published == 501);
    assert_eq!(figures(&transport).dropped, 0);
}
