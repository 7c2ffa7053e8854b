//! A link that is cut again and again loses nothing of what was accepted meanwhile.

use std::time::Duration;

use harness::{eventually, names};
use rand::Rng as _;
use serde_json::json;

use harness::api::CORE;

use super::changes::Changes;
use super::{HEARTBEAT_SECS, IN_STEP_SECS, Linked, config_map, pass};

/// Cuts of one test.
const CUTS: usize = 22;

/// Cuts at random moments while both sides change things, and looks after the last cut.
#[track_caller]
fn cut_at_random(deletes: bool) {
    let mut linked = Linked::start();
    let changes = Changes::of(&linked.node, *linked.api, deletes);
    for _ in 1..CUTS {
        let stood = rand::rng().random_range(0..2_000 * HEARTBEAT_SECS);
        pass(&mut linked.node.edge, Duration::from_millis(stood));
        linked.line.snap();
        eventually!(30, "the edge connects again", linked.node.is_connected());
    }
    // The last cut meets a session that stood for a heartbeat: after one that did not, the edge waits before it comes back.
    pass(&mut linked.node.edge, Duration::from_secs(HEARTBEAT_SECS + 1));
    eventually!(30, "the session stands", linked.node.is_connected());
    let made = linked.line.made();
    let accepted = changes.end();
    linked.line.snap();
    eventually!(IN_STEP_SECS, "edge, cloud and what was accepted are the same", {
        // What was in step before it was noticed that the link is cut says nothing.
        if linked.line.made() == made { Err("no new connection".to_owned()) } else { accepted.is_everywhere(&linked.node, &linked.api) }
    });
    assert!(linked.line.made() >= CUTS as u64, "{} connections for {CUTS} cuts", linked.line.made());
    assert!(accepted.count > CUTS, "only {} changes", accepted.count);
}

#[test]
fn after_the_last_of_many_cuts_edge_and_cloud_have_what_was_accepted_last() {
    cut_at_random(false);
}

#[test]
fn after_the_last_of_many_cuts_what_was_deleted_is_gone_on_both_sides() {
    cut_at_random(true);
}

#[test]
fn a_pod_that_is_deleted_while_the_link_is_cut_goes_when_it_is_mended() {
    let linked = Linked::start();
    linked.line.refuse();
    eventually!(10, "the cloud sees the cut", linked.cloud_sees(0));
    linked.api.delete(&format!("{CORE}/pods/{}", linked.node.pod)).unwrap();
    linked.line.mend();
    eventually!(IN_STEP_SECS, "the pod is gone from the API", linked.kubectl.is_gone("pod", &linked.node.pod));
    linked.must_be_in_step_soon();
}

#[test]
fn what_is_deleted_at_once_while_the_link_is_cut_leaves_the_edge_when_it_is_mended() {
    let linked = Linked::start();
    let other = names::unique("other");
    linked.api.create(&format!("{CORE}/configmaps"), &config_map(&other, "0")).unwrap();
    let pod = super::pod(&other, &linked.node.edge.node, std::slice::from_ref(&other));
    linked.api.create(&format!("{CORE}/pods"), &pod).unwrap();
    linked.must_be_in_step_soon();

    linked.line.refuse();
    eventually!(10, "the cloud sees the cut", linked.cloud_sees(0));
    // A ConfigMap that a pod still names, and a pod of which the edge is not asked.
    linked.api.delete(&format!("{CORE}/configmaps/{}", linked.node.map(0))).unwrap();
    linked.api.patch(&format!("{CORE}/configmaps/{}", linked.node.map(1)), &json!({"data": {"value": "changed"}})).unwrap();
    linked.kubectl.run(&["delete", "pod", &other, "--force", "--grace-period=0"]).unwrap();
    linked.line.mend();
    linked.must_be_in_step_soon();
}
