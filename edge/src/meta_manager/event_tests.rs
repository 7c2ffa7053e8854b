//! Events on their way to the cloud.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use serde_json::json;
use wire::hub::{Frame, MsgId, Upstream};
use wire::link::Capabilities;

use super::tests::{Fixture, fixture, fixture_with_room, raw};
use super::{MetaManagerMessage, Session};

fn event(name: &str, count: u32) -> MetaManagerMessage {
    let key = format!("default/event/{name}").parse().unwrap();
    MetaManagerMessage::Event { key, is_update: count > 1, object: raw(json!({"metadata": {"name": name, "namespace": "default"}, "count": count})) }
}

fn session(capabilities: Capabilities) -> MetaManagerMessage {
    MetaManagerMessage::NodeConnection { cloud: Some(Session { number: 7, capabilities }) }
}

const AWAY: MetaManagerMessage = MetaManagerMessage::NodeConnection { cloud: None };

/// Events that were sent: message, name and count.
fn sent(fixture: &Fixture) -> Vec<(MsgId, String, u64)> {
    let of_event = |frame: Frame<Upstream>| match frame.body {
        Upstream::Event { name, object, .. } => {
            assert_eq!(frame.cause.len(), 1, "it names the message by which it came");
            Some((frame.id, name.to_string(), object.to::<serde_json::Value>().unwrap()["count"].as_u64().unwrap()))
        }
        _ => None,
    };
    fixture.sent().into_iter().filter_map(of_event).collect()
}

fn told(fixture: &Fixture) -> Vec<(String, u64)> {
    sent(fixture).into_iter().map(|(_, name, count)| (name, count)).collect()
}

fn is(name: &str, count: u64) -> (String, u64) {
    (name.to_owned(), count)
}

#[test]
fn events_wait_for_the_cloud_and_are_repeated_until_it_has_confirmed_their_newest_state() {
    let mut fixture = fixture();
    fixture.handle(vec![AWAY, event("web.1", 1), event("web.2", 1), event("web.1", 2)]);
    assert!(sent(&fixture).is_empty());
    fixture.handle(vec![session(Capabilities::OURS)]);
    assert_eq!(told(&fixture), [is("web.1", 2), is("web.2", 1)]);
    // The connection ends before an answer.
    fixture.handle(vec![AWAY, session(Capabilities::OURS)]);
    let again = sent(&fixture);
    assert_eq!(again.len(), 2);
    fixture.handle(vec![event("web.2", 2), MetaManagerMessage::Confirmed { parent: again[0].0.clone() }]);
    fixture.handle(vec![MetaManagerMessage::Confirmed { parent: again[1].0.clone() }]);
    let newer = sent(&fixture);
    assert_eq!(newer.iter().map(|(_, name, count)| (name.as_str(), *count)).collect::<Vec<_>>(), [("web.2", 2)]);
    fixture.handle(vec![MetaManagerMessage::Refused { parent: newer[0].0.clone(), reason: "no such pod".into() }]);
    fixture.handle(vec![AWAY, session(Capabilities::OURS), MetaManagerMessage::SyncDue]);
    assert!(sent(&fixture).is_empty(), "all are settled");
}

#[test]
fn an_event_without_an_answer_is_sent_again_after_a_minute() {
    let mut fixture = fixture();
    fixture.handle(vec![session(Capabilities::OURS), event("web.1", 1), MetaManagerMessage::SyncDue]);
    assert_eq!(told(&fixture), [is("web.1", 1)]);
    fixture.clock.advance(60_000);
    fixture.handle(vec![MetaManagerMessage::SyncDue]);
    assert_eq!(told(&fixture), [is("web.1", 1)]);
}

#[test]
fn a_cloud_of_kubeedge_s_is_told_once() {
    let mut fixture = fixture();
    fixture.handle(vec![session(Capabilities::default()), event("web.1", 1)]);
    assert_eq!(told(&fixture), [is("web.1", 1)]);
    fixture.handle(vec![AWAY, session(Capabilities::default())]);
    assert!(sent(&fixture).is_empty());
}

#[test]
fn an_event_that_finds_no_room_waits_for_the_next_occasion() {
    let mut fixture = fixture_with_room(2);
    fixture.handle(vec![AWAY]);
    for n in 1..=5 {
        fixture.handle(vec![event(&format!("web.{n}"), 1)]);
    }
    fixture.handle(vec![session(Capabilities::default())]);
    assert_eq!(told(&fixture), [is("web.1", 1), is("web.2", 1)]);
    fixture.handle(vec![MetaManagerMessage::SyncDue]);
    assert_eq!(told(&fixture), [is("web.3", 1), is("web.4", 1)]);
}
