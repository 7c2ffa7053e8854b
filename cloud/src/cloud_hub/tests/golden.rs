//! What an edge writes, byte for byte, reaches the controller that it is for.

use futures_util::SinkExt as _;
use tokio_tungstenite::tungstenite::Message;
use wire::fixtures::UPSTREAM;

use super::fixture::*;
use crate::device_controller::DeviceControllerMessage;
use crate::edge_controller::upstream::UpstreamMessage;

/// Who hears the golden message of this name.
fn reader(name: &str) -> &'static str {
    match name.trim_end_matches("_v0") {
        "node_register" | "node_status" | "pod_status" | "event" | "event_update" | "query" => "upstream",
        "membership_get" | "twin_report" | "twin_report_namespaced" | "device_state_report" | "device_state_report_namespaced" => "devices",
        // CloudHub itself: the session, the outbox, the counter of uploads.
        "keepalive" | "held" | "upload" | "ack" | "ack_twin" | "refusal" => "hub",
        other => panic!("say who reads the golden message `{other}`"),
    }
}

#[actix_web::test]
async fn every_golden_message_of_an_edge_reaches_the_controller_it_is_for() {
    let cloud = start(patient());
    // One that may say what it holds.
    let (mut edge, _) = cloud.connect_saying("edge-1", "digest").await;
    edge.settled().await;
    for (name, text) in UPSTREAM {
        edge.0.send(Message::text(*text)).await.unwrap();
        let answers = edge.settled().await;
        assert!(answers.is_empty(), "{name} was answered at the border: {answers:?}");
        let heard = |is_upstream: usize, is_devices: usize| match (is_upstream, is_devices) {
            (1, 0) => "upstream",
            (0, 1) => "devices",
            (0, 0) => "hub",
            both => panic!("{name}: {both:?}"),
        };
        let upstream = cloud.upstream.drain().iter().filter(|taken| matches!(***taken, UpstreamMessage::FromEdge { .. })).count();
        let devices = cloud.devices.drain().iter().filter(|taken| matches!(***taken, DeviceControllerMessage::FromEdge { .. })).count();
        assert_eq!(heard(upstream, devices), reader(name), "{name}");
    }
    assert_eq!(cloud.hub.totals().garbage, 0);
}
