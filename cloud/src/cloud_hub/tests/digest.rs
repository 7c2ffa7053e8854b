//! What a node says that it holds, from the upgrade to the controllers.

use actor::eventually;
use wire::hub::{Downstream, Upstream};
use wire::link::{DIGEST_WITHIN_MS, Held, HeldObject, HeldPart, parts_of};

use super::fixture::*;
use crate::cloud_hub::CloudHubMessage;
use crate::edge_controller::downstream::DownstreamMessage;

fn object(n: usize) -> HeldObject {
    HeldObject { resource: format!("default/pod/p{n}").parse().unwrap(), uid: Some("u".into()), resource_version: Some("1".into()) }
}

async fn lacks(cloud: &Fixture) -> Held {
    match &*cloud.downstream.next(SOON).await.expect("news") {
        DownstreamMessage::NodeLacks { held, .. } => held.clone(),
        other => panic!("unexpected {other:?}"),
    }
}

#[actix_web::test]
async fn the_controllers_hear_what_a_node_holds_once_it_has_said_all_of_it() {
    let cloud = start(patient());
    let (mut edge, can) = cloud.connect_saying("edge-1", "logs, digest").await;
    assert_eq!(can.as_deref(), Some("digest"));
    let parts = parts_of((0..1500).map(object).collect());
    assert_eq!(parts.len(), 2);
    edge.say(Upstream::Held(parts[0].clone())).await;
    edge.settled().await;
    assert!(cloud.downstream.try_next().is_none(), "half of it is nothing");
    edge.say(Upstream::Held(parts[1].clone())).await;
    assert_eq!(lacks(&cloud).await, (0..1500).map(object).collect());
    assert_eq!(cloud.hub.totals().digests, 1);
}

#[actix_web::test]
async fn a_peer_that_says_nothing_of_it_is_served_as_kubeedge_does() {
    let cloud = start(patient());
    let (_edge, can) = cloud.connect_saying("edge-1", "something-else").await;
    assert_eq!((can, lacks(&cloud).await), (None, Held::default()));
}

#[actix_web::test]
async fn a_digest_that_is_none_or_that_nobody_asked_for_is_refused_in_words() {
    let cloud = start(patient());
    let mut kubeedge = cloud.connect("edge-2").await;
    assert_eq!(lacks(&cloud).await, Held::default());
    let (mut edge, _) = cloud.connect_saying("edge-1", "digest").await;
    let node_object = HeldObject { resource: "default/node/edge-1".parse().unwrap(), ..object(0) };
    for (who, part, says) in [
        (0, HeldPart { part: 3, last: true, objects: vec![] }, "part 3 came where part 0 was expected"),
        (0, HeldPart { part: 0, last: true, objects: vec![node_object] }, "`default/node/edge-1` is no object that a node is sent"),
        (0, HeldPart { part: 0, last: true, objects: (0..1025).map(object).collect() }, "lists 1025, at most 1024 are taken"),
        (1, HeldPart { part: 0, last: true, objects: vec![] }, "was not asked for now"),
    ] {
        let edge = if who == 0 { &mut edge } else { &mut kubeedge };
        let id = edge.say(Upstream::Held(part)).await;
        let answer = edge.next().await;
        assert_eq!(answer.parent, Some(id));
        let Downstream::Refusal { reason, .. } = answer.body else { panic!("{says}: {answer:?}") };
        assert!(reason.contains(says), "{reason}");
    }
    assert!(cloud.downstream.try_next().is_none());
    edge.say(Upstream::Held(HeldPart { part: 0, last: true, objects: vec![object(1)] })).await;
    assert_eq!(lacks(&cloud).await, [object(1)].into_iter().collect());
    // A node that never stops saying it is heard once.
    for _ in 0..20 {
        edge.say(Upstream::Held(HeldPart { part: 0, last: true, objects: vec![] })).await;
    }
    edge.settled().await;
    assert!(cloud.downstream.try_next().is_none());
    assert_eq!((cloud.hub.totals().digests, cloud.hub.totals().digests_refused), (1, 23));
}

#[actix_web::test]
async fn when_it_is_not_known_any_more_what_the_nodes_were_told_each_is_asked() {
    let cloud = start(patient());
    let (mut edge, _) = cloud.connect_saying("edge-1", "digest").await;
    edge.say(Upstream::Held(HeldPart { part: 0, last: true, objects: vec![] })).await;
    assert_eq!(lacks(&cloud).await, Held::default());
    let _kubeedge = cloud.connect("edge-2").await;
    assert_eq!(lacks(&cloud).await, Held::default());
    assert!(cloud.hub.peers.cloud_hub.try_send(CloudHubMessage::OutOfStep).is_ok());
    assert_eq!(lacks(&cloud).await, Held::default(), "edge-2");
    assert_eq!(edge.next().await.body, Downstream::HeldGet);
    edge.say(Upstream::Held(HeldPart { part: 0, last: true, objects: vec![object(1)] })).await;
    assert_eq!(lacks(&cloud).await, [object(1)].into_iter().collect());
}

#[actix_web::test]
async fn a_node_that_announces_and_then_says_nothing_is_asked() {
    let cloud = start(patient());
    let began = std::time::Instant::now();
    let (mut edge, _) = cloud.connect_saying("edge-1", "digest").await;
    assert_eq!(edge.next().await.body, Downstream::HeldGet);
    assert!(began.elapsed().as_millis() >= u128::from(DIGEST_WITHIN_MS));
    eventually!(SOON, cloud.hub.totals().connected == 1);
}
