#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use model::{ResourceKey, Timestamp};

use super::*;
use crate::RawJson;
use crate::hub::{ObjectOperation, Resource};
use crate::link::{HeldObject, HeldPart, parts_of};

const ANNOUNCES: Capabilities = Capabilities { digest: true };
const KUBEEDGE: Capabilities = Capabilities { digest: false };

fn key(name: &str) -> ResourceKey {
    format!("default/configmap/{name}").parse().unwrap()
}

fn frame(id: &str, name: &str, content: &str) -> (OutboxKey, Frame<Downstream>) {
    let body = Downstream::Object { operation: ObjectOperation::Update, key: key(name), object: RawJson::from_str_value(content) };
    (OutboxKey::Object(key(name)), Frame::new(MsgId::new(id).unwrap(), Timestamp(1), body))
}

fn up(body: Upstream) -> Frame<Upstream> {
    Frame::new(MsgId::random(), Timestamp(1), body)
}

fn ack(id: &str) -> Frame<Upstream> {
    Frame::answer(MsgId::random(), MsgId::new(id).unwrap(), Timestamp(1), Upstream::Ack { resource: Resource::Keepalive })
}

fn refusal(id: &str) -> Frame<Upstream> {
    let body = Upstream::Refusal { resource: Resource::Keepalive, reason: "no".into() };
    Frame::answer(MsgId::random(), MsgId::new(id).unwrap(), Timestamp(1), body)
}

fn digest(names: &[&str]) -> Vec<Frame<Upstream>> {
    let held = names.iter().map(|name| HeldObject { resource: key(name), uid: Some("u".into()), resource_version: Some("1".into()) });
    parts_of(held.collect()).into_iter().map(|part| up(Upstream::Held(part))).collect()
}

/// Ids of all that goes out now.
fn drained(link: &mut CloudLink, session: SessionId, now: u64) -> Vec<String> {
    let next = || link.next(session, now);
    std::iter::from_fn(next)
        .map(|answer| match answer {
            Answer::Frame(frame) => frame.id.to_string(),
            Answer::Envelope(envelope) => envelope.header.msg_id,
        })
        .collect()
}

#[test]
fn a_node_of_kubeedge_is_sent_everything_at_once_and_its_digest_is_nothing() {
    let mut link = CloudLink::new(1, KUBEEDGE, 0);
    assert_eq!(link.take_due(), Some(Held::default()));
    assert_eq!(link.heard(1, &digest(&["a"])[0], 0), Heard::Unasked);
    assert_eq!((link.take_due(), link.tick(60_000)), (None, Ticked::default()));
}

#[test]
fn a_node_that_announces_is_sent_the_difference_when_its_digest_is_whole() {
    let mut link = CloudLink::new(1, ANNOUNCES, 0);
    assert_eq!(link.take_due(), None);
    assert_eq!(link.heard(1, &digest(&["a", "b"])[0], 5), Heard::Announced);
    let held = link.take_due().unwrap();
    assert!(held.has(&key("a"), "u", "1") && held.has(&key("b"), "u", "1") && held.len() == 2);
    // The next one is welcome after a while, not before.
    assert_eq!(link.heard(1, &digest(&[])[0], DIGEST_EVERY_MS), Heard::Unasked);
    assert_eq!(link.heard(1, &digest(&[])[0], DIGEST_EVERY_MS + 5), Heard::Announced);
}

#[test]
fn a_digest_that_does_not_come_is_asked_for_once_and_then_everything_is_sent() {
    let mut link = CloudLink::new(1, ANNOUNCES, 0);
    assert_eq!(link.tick(DIGEST_WITHIN_MS - 1), Ticked::default());
    assert_eq!(link.tick(DIGEST_WITHIN_MS), Ticked { ask: true, ..Ticked::default() });
    assert_eq!(link.tick(2 * DIGEST_WITHIN_MS - 1), Ticked::default());
    assert_eq!(link.tick(2 * DIGEST_WITHIN_MS), Ticked { due: true, ..Ticked::default() });
    assert_eq!(link.take_due(), Some(Held::default()));
    // One that comes late says what has to be deleted.
    assert_eq!(link.heard(1, &digest(&["a"])[0], 50_000), Heard::Announced);
}

#[test]
fn parts_of_two_sessions_are_never_put_together() {
    let part = |part, last| up(Upstream::Held(HeldPart { part, last, objects: vec![] }));
    let mut link = CloudLink::new(1, ANNOUNCES, 0);
    assert_eq!(link.heard(1, &part(0, false), 0), Heard::Partial);
    link.up(2, ANNOUNCES, 10);
    assert_eq!(link.heard(1, &part(1, true), 11), Heard::Stale);
    assert!(matches!(link.heard(2, &part(1, true), 12), Heard::Bad(HeldError::Gap { said: 1, expected: 0 })));
    assert_eq!(link.heard(2, &part(0, true), 13), Heard::Announced);
}

#[test]
fn an_older_session_takes_and_settles_nothing_and_what_it_had_is_sent_again() {
    let mut link = CloudLink::new(1, ANNOUNCES, 0);
    let (outbox_key, first) = frame("1", "a", "x");
    assert_eq!(link.push(outbox_key.clone(), first, 0), Pushed::Taken);
    assert_eq!(drained(&mut link, 1, 0), ["1"]);
    assert!(link.answer(Answer::Frame(frame("answer", "q", "x").1)));
    link.up(2, ANNOUNCES, 10);
    assert_eq!(link.heard(1, &ack("1"), 11), Heard::Stale);
    assert!(drained(&mut link, 1, 11).is_empty());
    assert_eq!(drained(&mut link, 2, 11), ["1"], "its answers were asked in the older session");
    assert_eq!(link.heard(2, &ack("1"), 12), Heard::Acknowledged(outbox_key));
}

#[test]
fn answers_that_match_nothing_change_nothing() {
    let mut link = CloudLink::new(1, ANNOUNCES, 0);
    let (outbox_key, first) = frame("1", "a", "x");
    link.push(outbox_key.clone(), first, 0);
    assert_eq!(link.heard(1, &ack("1"), 0), Heard::Unmatched, "not sent yet");
    assert_eq!(drained(&mut link, 1, 0), ["1"]);
    assert_eq!(link.heard(1, &ack("never"), 0), Heard::Unmatched);
    assert_eq!(link.heard(1, &up(Upstream::Ack { resource: Resource::Keepalive }), 0), Heard::Unmatched);
    assert_eq!(link.heard(1, &refusal("1"), 0), Heard::Refused(outbox_key));
    assert_eq!(link.heard(1, &refusal("1"), 0), Heard::Unmatched);
    assert_eq!(link.heard(1, &ack("1"), 0), Heard::Unmatched);
    assert_eq!(link.backlog(), Backlog { parked: 1, ..Backlog::default() });
}

#[test]
fn answers_go_before_the_outbox_each_once_and_are_bounded() {
    let mut link = CloudLink::new(1, KUBEEDGE, 0);
    let (outbox_key, first) = frame("outbox", "a", "x");
    link.push(outbox_key, first, 0);
    assert!((0..ANSWERS_MAX).all(|n| link.answer(Answer::Frame(frame(&format!("{n}"), "q", "x").1))));
    assert!(!link.answer(Answer::Frame(frame("more", "q", "x").1)));
    let out = drained(&mut link, 1, 0);
    assert_eq!((out.len(), out.last().unwrap().as_str()), (ANSWERS_MAX + 1, "outbox"));
    let big = "x".repeat(ANSWERS_BYTES_MAX);
    assert!(link.answer(Answer::Frame(frame("big", "q", &big).1)), "one alone may be larger");
    assert!(!link.answer(Answer::Frame(frame("small", "q", "x").1)));
}

#[test]
fn a_node_whose_outbox_ran_over_is_brought_into_step_when_there_is_room() {
    for (capabilities, ask) in [(ANNOUNCES, true), (KUBEEDGE, false)] {
        let mut link = CloudLink::new(1, capabilities, 0);
        link.heard(1, &digest(&[])[0], 0);
        link.take_due();
        let most = Limits::default().keys_max;
        for n in 0..=most {
            let (outbox_key, object) = frame(&n.to_string(), &format!("c{n}"), "x");
            assert_eq!(link.push(outbox_key, object, 1), if n < most { Pushed::Taken } else { Pushed::RunsOver });
        }
        let (outbox_key, object) = frame("more", "more", "x");
        assert_eq!(link.push(outbox_key, object, 1), Pushed::RanOver, "said once");
        assert!(link.backlog().lagging);
        assert!(!link.tick(RESYNC_EVERY_MS + 1).again, "no room yet");
        for n in 0..most {
            assert!(link.next(1, 2).is_some());
            assert!(matches!(link.heard(1, &ack(&n.to_string()), 2), Heard::Acknowledged(_)));
        }
        let ticked = link.tick(RESYNC_EVERY_MS + 2);
        assert_eq!(ticked, Ticked { ask, due: !ask, again: true, resend: false });
        assert!(!link.backlog().lagging);
    }
}

#[test]
fn a_node_of_which_nobody_knows_any_more_what_it_was_told_is_asked_or_sent_everything() {
    let mut link = CloudLink::new(1, ANNOUNCES, 0);
    assert_eq!(link.heard(1, &digest(&["a"])[0], 0), Heard::Announced);
    link.take_due();
    assert!(link.out_of_step(1));
    assert_eq!(link.heard(1, &digest(&["a"])[0], 2), Heard::Announced, "it was asked, however soon");
    let mut link = CloudLink::new(1, KUBEEDGE, 0);
    link.take_due();
    assert!(!link.out_of_step(1));
    assert_eq!(link.take_due(), Some(Held::default()));
}

#[test]
fn what_is_on_its_way_to_a_node_counts_as_held_in_some_version() {
    let mut link = CloudLink::new(1, ANNOUNCES, 0);
    for (id, name) in [("1", "on-its-way"), ("2", "refused"), ("3", "waits")] {
        let (outbox_key, object) = frame(id, name, "x");
        link.push(outbox_key, object, 0);
        if name != "waits" {
            drained(&mut link, 1, 0);
        }
    }
    link.heard(1, &refusal("2"), 0);
    link.heard(1, &digest(&["held", "waits"])[0], 0);
    let held = link.take_due().unwrap();
    let named: Vec<_> = held.objects().map(|(key, uid)| (key.name.as_ref().unwrap().as_str(), uid)).collect();
    assert_eq!(named, [("held", "u"), ("on-its-way", ""), ("refused", ""), ("waits", "")]);
    assert!(held.has(&key("held"), "u", "1") && !held.has(&key("waits"), "u", "1"));
}
