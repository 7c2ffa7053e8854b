//! Outbox and lane of a node, over sessions that come and go.

use actor::eventually;
use model::Timestamp;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use wire::hub::outbox::RESEND_MS_FIRST;
use wire::hub::{Downstream, Frame, MsgId, OutboxKey, Resource, Upstream};
use wire::link::{ANSWERS_MAX, Answer, Capabilities, Heard, Pushed};

use super::fixture::*;
use crate::cloud_hub::nodes::Nodes;
use crate::cloud_hub::state::End;

#[actix_web::test]
async fn what_is_acknowledged_is_not_sent_again_and_what_is_not_is_sent_to_the_next_session() {
    let cloud = start(patient());
    let mut edge = cloud.connect("edge-1").await;
    let (first, second) = (cloud.send("edge-1", "a", "1"), cloud.send("edge-1", "b", "2"));
    let frame = edge.next().await;
    assert_eq!(frame.id, first);
    edge.ack(&frame).await;
    assert_eq!(edge.next().await.id, second);
    edge.settled().await;
    assert_eq!(cloud.hub.totals().acknowledged, 1);

    let mut edge = cloud.connect("edge-1").await;
    let frame = edge.next().await;
    assert_eq!(frame.id, second);
    edge.ack(&frame).await;
    assert!(edge.settled().await.is_empty());
    assert_eq!(cloud.hub.totals().waiting, 0);
}

#[actix_web::test]
async fn a_newer_connection_of_a_node_replaces_and_fences_the_older() {
    let cloud = start(patient());
    let mut older = cloud.connect("edge-1").await;
    let mut newer = cloud.connect("edge-1").await;
    let reason = older.closed().await.unwrap();
    assert_eq!(reason.code, CloseCode::Policy);
    assert!(reason.reason.contains("newer connection"), "{reason:?}");
    cloud.send("edge-1", "a", "1");
    assert_eq!(text_of(&newer.next().await), "1");
    let totals = cloud.hub.totals();
    assert_eq!((totals.connected, totals.sessions, totals.replaced), (1, 2, 1));
}

#[test]
fn an_acknowledgement_from_an_older_session_changes_nothing() {
    let nodes = Nodes::default();
    let (node, older) = nodes.attach(&node("edge-1"), None, 1, Capabilities::default()).unwrap();
    let (key, frame) = object_frame("a", "1");
    let id = frame.id.clone();
    assert_eq!(node.push(OutboxKey::Object(key), frame), Pushed::Taken);
    assert!(node.next(older.session, 0).is_some());
    let (same, newer) = nodes.attach(&super::fixture::node("edge-1"), None, 1, Capabilities::default()).unwrap();
    assert!(same.next(newer.session, 1).is_some(), "what was on its way is sent again");
    let ack = Frame::answer(MsgId::random(), id, Timestamp(1), Upstream::Ack { resource: Resource::Keepalive });
    assert_eq!(node.heard(older.session, &ack, 2), Heard::Stale);
    assert!(node.next(older.session, 2).is_none());
    assert_eq!(older.end(), Some(&End::Replaced));
    assert!(!nodes.detach(&older), "the node stays connected when the older session goes");
    assert_eq!(nodes.totals().waiting, 1);
    assert!(matches!(node.heard(newer.session, &ack, 2), Heard::Acknowledged(_)));
    assert!(nodes.detach(&newer));
    assert_eq!(nodes.totals().connected, 0);
}

#[actix_web::test]
async fn a_frame_without_an_answer_is_sent_again_in_time() {
    let cloud = start(patient());
    let mut edge = cloud.connect("edge-1").await;
    let sent = std::time::Instant::now();
    let id = cloud.send("edge-1", "a", "1");
    assert_eq!(edge.next().await.id, id);
    assert_eq!(edge.next().await.id, id);
    assert!(sent.elapsed().as_millis() >= u128::from(RESEND_MS_FIRST), "{:?}", sent.elapsed());
}

#[actix_web::test]
async fn a_refused_frame_is_parked_until_its_key_changes() {
    let cloud = start(patient());
    let mut edge = cloud.connect("edge-1").await;
    cloud.send("edge-1", "a", "bad");
    let frame = edge.next().await;
    edge.refuse(&frame, "unknown field").await;
    eventually!(SOON, cloud.hub.totals().parked == 1);
    assert!(edge.settled().await.is_empty());
    cloud.send("edge-1", "a", "good");
    assert_eq!(text_of(&edge.next().await), "good");
    assert_eq!(cloud.hub.totals().parked, 0);
}

#[actix_web::test]
async fn what_is_for_a_node_that_is_not_connected_is_dropped_and_counted() {
    let cloud = start(patient());
    cloud.send("edge-1", "a", "1");
    cloud.answer("edge-1", &MsgId::random(), "no");
    eventually!(SOON, cloud.hub.totals().not_connected == 2);
    let mut edge = cloud.connect("edge-1").await;
    assert!(edge.settled().await.is_empty());
}

#[test]
fn answers_go_before_the_outbox_are_bounded_and_end_with_their_session() {
    let nodes = Nodes::default();
    let (desk, link) = nodes.attach(&node("edge-1"), None, 1, Capabilities::default()).unwrap();
    let (key, frame) = object_frame("a", "1");
    assert_eq!(desk.push(OutboxKey::Object(key), frame), Pushed::Taken);
    let answer = || Answer::Frame(object_frame("b", "2").1);
    for _ in 0..ANSWERS_MAX {
        assert!(desk.answer(answer()));
    }
    assert!(!desk.answer(answer()));
    let next = desk.next(link.session, 0);
    assert!(matches!(next, Some(Answer::Frame(frame)) if text_of(&frame) == "2"));

    let (_, newer) = nodes.attach(&node("edge-1"), None, 1, Capabilities::default()).unwrap();
    let next = desk.next(newer.session, 0);
    assert!(matches!(next, Some(Answer::Frame(frame)) if text_of(&frame) == "1"));
    let _ = link;
}

#[actix_web::test]
async fn an_answer_reaches_the_node_once() {
    let cloud = start(patient());
    let mut edge = cloud.connect("edge-1").await;
    let question = MsgId::random();
    cloud.answer("edge-1", &question, "because");
    let frame = edge.next().await;
    assert_eq!(frame.parent, Some(question));
    assert!(matches!(frame.body, Downstream::Refusal { .. }));
    let mut again = cloud.connect("edge-1").await;
    assert!(again.settled().await.is_empty());
}
