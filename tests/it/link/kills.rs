//! Killed again and again, cloud and edge have what was accepted, and a pod that nobody changed does not notice.

use std::time::Duration;

use harness::examples::Thermometer;
use harness::{docker, eventually, names};
use rand::Rng as _;

use super::changes::Changes;
use super::{IN_STEP_SECS, Linked, pass};

/// Kills of one test.
const KILLS: usize = 10;

/// Kills cloud and edge in turn while both sides change things, and both in the end.
#[track_caller]
fn kill_at_random(deletes: bool) {
    if !docker::required() {
        return;
    }
    let mut linked = Linked::direct();
    let thermometer = Thermometer {
        node: linked.node.edge.node.clone(),
        pod: names::unique("pod"),
        device: names::unique("device"),
        broker_port: linked.node.edge.mqtt_port,
        value: names::reading(10),
    };
    linked.kubectl.apply(&thermometer.workload());
    let running = |linked: &Linked| docker::running(&linked.node.edge.node, &thermometer.pod, "thermometer");
    let before = eventually!(30, "the container runs", running(&linked));

    let changes = Changes::of(&linked.node, *linked.api, deletes);
    for kill in 0..KILLS {
        let lived = rand::rng().random_range(0..1_500);
        pass(&mut linked.node.edge, Duration::from_millis(lived));
        if kill % 2 == 0 {
            linked.cloud.kill();
            linked.cloud.run();
        } else {
            linked.node.edge.kill();
            linked.node.edge.run();
        }
    }
    linked.cloud.answers();
    linked.node.edge.answers();
    // The last one takes both, with whatever was accepted a moment ago.
    let accepted = changes.end();
    linked.cloud.kill();
    linked.node.edge.kill();
    linked.cloud.run();
    linked.node.edge.run();
    linked.cloud.answers();
    linked.node.edge.answers();
    eventually!(IN_STEP_SECS, "edge, cloud and what was accepted are the same", accepted.is_everywhere(&linked.node, &linked.api));
    assert!(accepted.count > KILLS, "only {} changes", accepted.count);

    let after = running(&linked).unwrap();
    assert_eq!((&after["Id"], &after["State"]["StartedAt"]), (&before["Id"], &before["State"]["StartedAt"]), "the container was left alone");
    eventually!(10, "the API names the same container", {
        let path = "{.status.containerStatuses[0].containerID}";
        let id = format!("docker://{}", before["Id"].as_str().unwrap());
        linked.kubectl.value_is("pod", &thermometer.pod, path, &id)
    });
}

#[test]
fn after_many_kills_edge_and_cloud_have_what_was_accepted_last_and_a_container_runs_on() {
    kill_at_random(false);
}

#[test]
fn after_many_kills_what_was_deleted_is_gone_on_both_sides() {
    kill_at_random(true);
}
