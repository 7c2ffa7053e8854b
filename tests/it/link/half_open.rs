//! A connection that stands and carries nothing is found by both sides, and made again when something passes.

use std::time::{Duration, Instant};

use harness::api::{CORE, DEVICES};
use harness::{Fault, Way, eventually};
use serde_json::json;

use super::{HEARTBEAT_SECS, KEEPALIVE_SECS, Linked, property};

/// What a look takes on a busy machine, beyond what the settings allow.
const SLACK: Duration = Duration::from_secs(10);

const HOLE: Way = Way { delay: Duration::ZERO, bytes_per_second: 0, is_hole: true };

/// Makes the line bad while both sides have news for each other.
#[track_caller]
fn is_found_and_mended(fault: Fault) {
    let mut linked = Linked::start();
    linked.cloud_sees(1).unwrap();
    let made = linked.line.made();
    linked.line.set(fault);
    let began = Instant::now();
    let node = &linked.node;
    node.edge.report(&node.device, &property(0), "reported");
    linked.api.patch(&format!("{CORE}/configmaps/{}", node.map(0)), &json!({"data": {"value": "changed"}})).unwrap();
    node.desire(&linked.api, &property(1), "desired").unwrap();

    eventually!(20, "the edge finds it", node.is_disconnected());
    let found = began.elapsed();
    assert!(found < Duration::from_secs(2 * HEARTBEAT_SECS) + SLACK, "the edge took {found:?}");
    // The edge's new attempts hang in the hole, so the cloud sees nobody once it has missed the old session.
    eventually!(20, "the cloud finds it", linked.cloud_sees(0));
    let found = began.elapsed();
    // It looks every second.
    assert!(found < Duration::from_secs(KEEPALIVE_SECS + 1) + SLACK, "the cloud took {found:?}");
    assert!(linked.is_in_step().is_err(), "something passed the hole");

    linked.line.mend();
    linked.must_be_in_step_soon();
    linked.node.is_connected().unwrap();
    linked.cloud_sees(1).unwrap();
    assert!(linked.line.made() > made, "it is another connection");
    linked.node.edge.daemon().must_run().unwrap();
}

#[test]
fn a_connection_that_carries_nothing_is_found_by_both_sides_and_made_again() {
    is_found_and_mended(Fault::hole());
}

#[test]
fn a_connection_that_carries_nothing_to_the_cloud_is_found_by_both_sides_and_made_again() {
    is_found_and_mended(Fault { up: HOLE, ..Fault::default() });
}

#[test]
fn a_connection_that_carries_nothing_to_the_edge_is_found_by_both_sides_and_made_again() {
    is_found_and_mended(Fault { down: HOLE, ..Fault::default() });
}

#[test]
fn a_connection_that_is_far_stands_and_both_sides_are_in_step() {
    let linked = Linked::patient();
    // A satellite: it is there, and takes its time.
    let way = Way { delay: Duration::from_millis(200), ..Way::default() };
    linked.line.set(Fault { up: way, down: way });
    let made = linked.line.made();
    for round in 0..3 {
        let (node, value) = (&linked.node, format!("far-{round}"));
        node.edge.report(&node.device, &property(0), &value);
        linked.api.patch(&format!("{CORE}/configmaps/{}", node.map(0)), &json!({"data": {"value": value}})).unwrap();
        node.desire(&linked.api, &property(1), &value).unwrap();
        linked.must_be_in_step_soon();
    }
    let device = linked.api.get(&format!("{DEVICES}/devicestatuses/{}", linked.node.device)).unwrap();
    assert!(device["status"]["twins"].to_string().contains("far-2"), "{device}");
    assert_eq!(linked.line.made(), made, "the connection stands");
}
