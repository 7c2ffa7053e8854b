//! What passes between a node and the controllers.

use futures_util::SinkExt as _;
use model::Namespace;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame as RawFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use wire::hub::codec::FRAME_BYTES_MAX;
use wire::hub::{Downstream, Upstream, codec};

use actor::eventually;

use super::fixture::*;
use crate::cloud_hub::state::GARBAGE_MAX;
use crate::device_controller::DeviceControllerMessage;
use crate::edge_controller::upstream::UpstreamMessage;

#[actix_web::test]
async fn each_kind_of_frame_reaches_its_controller_with_the_nodes_name() {
    let cloud = start(patient());
    let mut edge = cloud.connect("edge-1").await;
    edge.say(Upstream::Keepalive).await;
    let status = edge.say(node_status("edge-1")).await;
    let query = edge.say(Upstream::Query { key: key("settings") }).await;
    let get = edge.say(Upstream::MembershipGet { event_id: "e".into(), node: node("edge-1") }).await;
    edge.settled().await;

    let to_upstream: Vec<_> = cloud
        .upstream
        .drain()
        .iter()
        .filter_map(|taken| match &**taken {
            UpstreamMessage::FromEdge { node, frame, .. } => Some((node.to_string(), frame.id.clone())),
            _ => None,
        })
        .collect();
    assert_eq!(to_upstream, [("edge-1".to_owned(), status), ("edge-1".to_owned(), query)]);
    let to_devices: Vec<_> = cloud
        .devices
        .drain()
        .iter()
        .filter_map(|taken| match &**taken {
            DeviceControllerMessage::FromEdge { node, frame, .. } => Some((node.to_string(), frame.id.clone())),
            _ => None,
        })
        .collect();
    assert_eq!(to_devices, [("edge-1".to_owned(), get)]);
}

#[actix_web::test]
async fn a_node_cannot_speak_for_another() {
    let cloud = start(patient());
    let mut edge = cloud.connect("edge-1").await;
    let id = edge.say(node_status("edge-2")).await;
    let answer = edge.next().await;
    assert_eq!(answer.parent, Some(id));
    assert!(matches!(answer.body, Downstream::Refusal { ref reason, .. } if reason.contains("edge-2")), "{answer:?}");
    edge.say(Upstream::MembershipGet { event_id: "e".into(), node: node("edge-2") }).await;
    assert!(matches!(edge.next().await.body, Downstream::Refusal { .. }));
    assert!(!cloud.upstream.drain().iter().any(|taken| matches!(**taken, UpstreamMessage::FromEdge { .. })));
    assert!(!cloud.devices.drain().iter().any(|taken| matches!(**taken, DeviceControllerMessage::FromEdge { .. })));
}

#[actix_web::test]
async fn an_envelope_that_is_no_message_is_answered_and_the_connection_stays() {
    let cloud = start(patient());
    let mut edge = cloud.connect("edge-1").await;
    let unknown =
        r#"{"header":{"msg_id":"q7"},"route":{"source":"edged","group":"meta","operation":"juggle","resource":"default/pod/web"},"content":1}"#;
    edge.0.send(Message::text(unknown)).await.unwrap();
    let answer = edge.next().await;
    assert_eq!(answer.parent.unwrap().as_str(), "q7");
    assert!(matches!(answer.body, Downstream::Refusal { .. }));
    for garbage in ["", "hello", "[]", "{", "{\"header\":7}", &"[".repeat(100_000)] {
        edge.0.send(Message::text(garbage)).await.unwrap();
    }
    assert!(edge.settled().await.is_empty());
    assert_eq!(cloud.hub.totals().garbage, 7);
}

#[actix_web::test]
async fn a_connection_that_carries_only_garbage_is_closed() {
    let cloud = start(patient());
    let mut edge = cloud.connect("edge-1").await;
    for _ in 0..GARBAGE_MAX {
        edge.0.send(Message::text("garbage")).await.unwrap();
    }
    assert_eq!(edge.closed().await.unwrap().code, CloseCode::Policy);
}

#[actix_web::test]
async fn a_binary_frame_and_a_frame_too_large_end_their_own_connection_only() {
    let cloud = start(patient());
    let mut other = cloud.connect("edge-2").await;

    let mut edge = cloud.connect("edge-1").await;
    edge.0.send(Message::binary(vec![1, 2, 3])).await.unwrap();
    assert_eq!(edge.closed().await.unwrap().code, CloseCode::Unsupported);

    let mut edge = cloud.connect("edge-1").await;
    // The server closes while this is still being written.
    let _ = edge.0.send(Message::text("x".repeat(FRAME_BYTES_MAX + 1))).await;
    assert!(edge.closed().await.is_none_or(|reason| reason.code == CloseCode::Size));

    other.settled().await;
    eventually!(SOON, cloud.hub.totals().connected == 1);
}

#[actix_web::test]
async fn a_message_in_fragments_is_one_message_and_too_many_fragments_are_too_large() {
    let cloud = start(patient());
    let mut edge = cloud.connect("edge-1").await;
    let fragment = |bytes: &[u8], opcode: Data, last: bool| Message::Frame(RawFrame::message(bytes.to_vec(), OpCode::Data(opcode), last));
    let text = codec::encode(&wire::hub::Frame::new(wire::hub::MsgId::new("whole").unwrap(), at(), node_status("edge-1"))).unwrap();
    let (first, rest) = text.as_bytes().split_at(10);
    let (second, third) = rest.split_at(20);
    edge.0.send(fragment(first, Data::Text, false)).await.unwrap();
    edge.0.send(fragment(second, Data::Continue, false)).await.unwrap();
    edge.0.send(fragment(third, Data::Continue, true)).await.unwrap();
    edge.settled().await;
    let found = cloud.upstream.drain();
    assert!(found.iter().any(|taken| matches!(&**taken, UpstreamMessage::FromEdge { frame, .. } if frame.id.as_str() == "whole")));

    let piece = vec![b'x'; 4 << 20];
    edge.0.send(fragment(&piece, Data::Text, false)).await.unwrap();
    for _ in 0..4 {
        let _ = edge.0.send(fragment(&piece, Data::Continue, false)).await;
    }
    assert!(edge.closed().await.is_none_or(|reason| reason.code == CloseCode::Size));
}

#[actix_web::test]
async fn what_is_larger_than_one_read_arrives_whole() {
    let cloud = start(patient());
    let mut edge = cloud.connect("edge-1").await;
    let large = "x".repeat(5 << 20);
    cloud.send("edge-1", "large", &large);
    assert_eq!(text_of(&edge.next().await).len(), large.len());
    let namespace = Namespace::new("default").unwrap();
    let content = wire::hub::RawJson::from_str_value(&large);
    edge.say(Upstream::NodeStatus { namespace, node: node("edge-1"), content }).await;
    edge.settled().await;
    assert!(cloud.upstream.drain().iter().any(|taken| matches!(**taken, UpstreamMessage::FromEdge { .. })));
}

#[actix_web::test]
async fn a_node_that_floods_waits_for_itself_and_another_finds_room() {
    let cloud = start(patient());
    let mut flood = cloud.connect("edge-1").await;
    let mut other = cloud.connect("edge-2").await;
    let said = 300;
    for _ in 0..said {
        flood.say(node_status("edge-1")).await;
    }
    let waits = || cloud.hub.nodes.get(&node("edge-1")).is_some_and(|node| node.link().vitals().waits_for_us);
    eventually!(SOON, waits());
    other.say(node_status("edge-2")).await;
    other.settled().await;
    let mut before = 0;
    loop {
        match &*cloud.upstream.try_next().expect("the other's frame is in the queue") {
            UpstreamMessage::FromEdge { node, .. } if node.as_str() == "edge-2" => break,
            UpstreamMessage::FromEdge { .. } => before += 1,
            _ => {}
        }
    }
    assert!(before <= 128, "{before} frames of one node were before it");
    let mut after = 0;
    while before + after < said {
        let taken = cloud.upstream.next(SOON).await.expect("the rest of the flood");
        after += usize::from(matches!(&*taken, UpstreamMessage::FromEdge { .. }));
    }
}

#[actix_web::test]
async fn a_status_of_more_pods_than_a_node_has_is_refused() {
    let cloud = start(patient());
    let mut edge = cloud.connect("edge-1").await;
    let report = wire::hub::PodStatusReport { uid: "u".into(), name: "p".parse().unwrap(), status: wire::hub::RawJson::null() };
    let reports = vec![report; wire::hub::POD_STATUSES_MAX + 1];
    edge.say(Upstream::PodStatus { namespace: Namespace::new("default").unwrap(), reports }).await;
    assert!(matches!(edge.next().await.body, Downstream::Refusal { ref reason, .. } if reason.contains("at most 512")));
    assert!(!cloud.upstream.drain().iter().any(|taken| matches!(**taken, UpstreamMessage::FromEdge { .. })));
}
