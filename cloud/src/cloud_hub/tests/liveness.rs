//! Silent, stuck and slow nodes; controllers that are full; what the controllers are told.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use actor::eventually;
use actor::testing::Probe;
use futures_util::SinkExt as _;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::fixture::*;
use crate::cloud_hub::Config;
use crate::cloud_hub::state::{End, Vitals, verdict};
use crate::device_controller::DeviceControllerMessage;
use crate::edge_controller::downstream::DownstreamMessage;
use crate::edge_controller::upstream::UpstreamMessage;

const SHORT: Duration = Duration::from_millis(400);
/// So long that who speaks is heard within it on a machine that stands still for a moment, too.
const LONG: Duration = Duration::from_secs(3);

#[test]
fn a_session_is_judged_by_what_it_could_do() {
    let minute = Duration::from_secs(60);
    let quiet = Vitals { heard_ms: 0, written_ms: 0, unwritten: false, waits_for_us: false };
    let cases = [
        (quiet, 60_000, None),
        (quiet, 60_001, Some(End::Silent)),
        (Vitals { heard_ms: 1, ..quiet }, 60_001, None),
        (Vitals { waits_for_us: true, ..quiet }, 600_000, None),
        (Vitals { unwritten: true, written_ms: 50_000, ..quiet }, 100_000, None),
        (Vitals { unwritten: true, heard_ms: 100_000, ..quiet }, 100_000, Some(End::Stuck)),
    ];
    for (vitals, now_ms, expected) in cases {
        assert_eq!(verdict(now_ms, vitals, minute, minute), expected, "{vitals:?} at {now_ms}");
    }
}

#[actix_web::test]
async fn a_node_that_says_nothing_is_cut_and_any_frame_keeps_it() {
    let cloud = start(Config { keepalive: LONG, ..patient() });
    let mut silent = cloud.connect("edge-1").await;
    let mut pinging = cloud.connect("edge-2").await;
    let until = std::time::Instant::now() + SOON;
    while cloud.hub.totals().silent == 0 {
        assert!(std::time::Instant::now() < until, "nobody is cut");
        pinging.settled().await;
        tokio::time::sleep(LONG / 50).await;
    }
    let reason = silent.closed().await.unwrap();
    assert!(reason.code == CloseCode::Policy && reason.reason.contains("keepalive"), "{reason:?}");
    pinging.settled().await;
    let totals = cloud.hub.totals();
    assert_eq!((totals.connected, totals.silent), (1, 1));
}

#[actix_web::test]
async fn a_node_that_never_reads_is_cut_although_it_still_speaks() {
    let cloud = start(Config { write_timeout: SHORT, ..patient() });
    let mut edge = cloud.connect("edge-1").await;
    for number in 0..32 {
        cloud.send("edge-1", &format!("large-{number}"), &"x".repeat(1 << 20));
    }
    // Writing without reading; the socket is closed by CloudHub, not by us.
    let deadline = std::time::Instant::now() + SOON;
    while edge.0.send(Message::Ping(vec![1].into())).await.is_ok() {
        assert!(std::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    eventually!(SOON, cloud.hub.totals().connected == 0);
    assert_eq!(cloud.hub.totals().stuck, 1);
    // It may come back and gets what it should have, from the controllers.
    cloud.connect("edge-1").await.settled().await;
}

/// A link that takes 16 KiB every 6 ms.
struct Slow<S> {
    inner: S,
    rest: Pin<Box<tokio::time::Sleep>>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Slow<S> {
    fn poll_read(mut self: Pin<&mut Self>, task: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        std::task::ready!(self.rest.as_mut().poll(task));
        self.rest.as_mut().reset(tokio::time::Instant::now() + Duration::from_millis(6));
        let mut part = vec![0; buffer.remaining().min(16 * 1024)];
        let mut part = ReadBuf::new(&mut part);
        let polled = Pin::new(&mut self.inner).poll_read(task, &mut part);
        buffer.put_slice(part.filled());
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Slow<S> {
    fn poll_write(mut self: Pin<&mut Self>, task: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(task, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(task)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(task)
    }
}

#[actix_web::test]
async fn a_large_object_over_a_slow_link_takes_longer_than_the_write_timeout_and_arrives() {
    // So long that a busy machine, too, takes something within it.
    let write_timeout = Duration::from_secs(4);
    let cloud = start(Config { write_timeout, ..patient() });
    let stream = cloud.dial(cloud.node_tls("edge-1")).await.unwrap();
    let slow = Slow { inner: stream, rest: Box::pin(tokio::time::sleep(Duration::ZERO)) };
    let request = "wss://127.0.0.1/p/edge-1/events".into_client_request().unwrap();
    let mut edge = Edge(tokio_tungstenite::client_async(request, slow).await.unwrap().0);
    let began = std::time::Instant::now();
    cloud.send("edge-1", "large", &"x".repeat(12 << 20));
    assert_eq!(text_of(&edge.next().await).len(), 12 << 20);
    assert!(began.elapsed() > write_timeout, "the link was not slow: {:?}", began.elapsed());
    // Not even sentenced: the session goes on.
    edge.settled().await;
    assert_eq!(cloud.hub.totals().stuck, 0);
}

#[actix_web::test]
async fn while_a_controller_is_full_its_node_waits_and_nothing_is_lost() {
    let cloud = start_with_upstream(Config { keepalive: LONG, ..patient() }, 2);
    let mut edge = cloud.connect("edge-1").await;
    eventually!(SOON, cloud.downstream.try_next().is_some());
    let mut said = Vec::new();
    for _ in 0..40 {
        said.push(edge.say(node_status("edge-1")).await);
    }
    // Longer than the keepalive interval: the wait is ours, so the node is not cut for it.
    tokio::time::sleep(LONG + SHORT).await;
    assert_eq!(cloud.hub.totals().connected, 1);
    let mut heard = Vec::new();
    while heard.len() < said.len() {
        let taken = cloud.upstream.next(SOON).await.expect("the rest");
        if let UpstreamMessage::FromEdge { frame, .. } = &*taken {
            heard.push(frame.id.clone());
        }
    }
    assert_eq!(heard, said);
}

async fn told(probe: &Probe<DownstreamMessage>) -> String {
    match &*probe.next(SOON).await.expect("news") {
        DownstreamMessage::NodeLacks { node, held } if held.is_empty() => format!("+{node}"),
        DownstreamMessage::NodeDisconnected { node } => format!("-{node}"),
        other => panic!("unexpected {other:?}"),
    }
}

#[actix_web::test]
async fn the_controllers_are_told_who_comes_and_goes() {
    let cloud = start(patient());
    let edge = cloud.connect("edge-1").await;
    assert_eq!(told(&cloud.downstream).await, "+edge-1");
    // A newer session of the same node is an arrival, not a departure.
    let again = cloud.connect("edge-1").await;
    assert_eq!(told(&cloud.downstream).await, "+edge-1");
    drop(edge);
    drop(again);
    assert_eq!(told(&cloud.downstream).await, "-edge-1");
    assert_eq!(cloud.downstream.drain().len(), 0);
    // They are told one after the other.
    for number in 1..=3 {
        let _ = cloud.upstream.next(SOON).await.expect("as many as to the others");
        let to_devices = cloud.devices.next(SOON).await.expect("as many as to the others");
        assert_eq!(matches!(*to_devices, DeviceControllerMessage::NodeDisconnected { .. }), number == 3);
    }
    assert_eq!((cloud.upstream.drain().len(), cloud.devices.drain().len()), (0, 0));
}

#[actix_web::test]
async fn a_controller_that_is_full_is_told_later_and_holds_back_none_of_the_others() {
    let cloud = start_with_upstream(patient(), 1);
    let _first = cloud.connect("edge-1").await;
    assert_eq!(told(&cloud.downstream).await, "+edge-1");
    let _second = cloud.connect("edge-2").await;
    assert_eq!(told(&cloud.downstream).await, "+edge-2", "its pods do not wait for the statuses of others");
    let told_later = async || match &*cloud.upstream.next(SOON).await.expect("news") {
        UpstreamMessage::NodeConnected { node } => node.to_string(),
        other => panic!("unexpected {other:?}"),
    };
    assert_eq!(told_later().await, "edge-1");
    assert_eq!(told_later().await, "edge-2");
}

#[actix_web::test]
async fn at_the_end_every_session_is_told_good_bye() {
    let cloud = start(patient());
    let mut edges = [cloud.connect("edge-1").await, cloud.connect("edge-2").await];
    cloud.hub.close_all();
    for edge in &mut edges {
        assert_eq!(edge.closed().await.unwrap().code, CloseCode::Away);
    }
    eventually!(SOON, cloud.hub.totals().connected == 0);
}

#[actix_web::test]
async fn what_a_replaced_session_could_not_deliver_in_time_is_not_delivered_late() {
    let cloud = start_with_upstream(patient(), 1);
    let mut older = cloud.connect("edge-1").await;
    assert_eq!(told(&cloud.downstream).await, "+edge-1");
    // The arrival fills the only place, so this waits.
    older.say(node_status("edge-1")).await;
    let waits = || cloud.hub.nodes.get(&node("edge-1")).is_some_and(|node| node.link().vitals().waits_for_us);
    eventually!(SOON, waits());
    let mut newer = cloud.connect("edge-1").await;
    let mut fresh = None;
    let mut heard = Vec::new();
    while heard.is_empty() {
        let taken = cloud.upstream.next(SOON).await.expect("the newer session's frame");
        if let UpstreamMessage::FromEdge { frame, .. } = &*taken {
            heard.push(frame.id.clone());
        } else if fresh.is_none() {
            fresh = Some(newer.say(node_status("edge-1")).await);
        }
    }
    assert_eq!(heard, [fresh.unwrap()]);
}
