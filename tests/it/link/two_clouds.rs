//! Two clouds behind one address, of one authority: the edge does what the one wants to which it is connected.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use harness::api::CORE;
use harness::{Api, CloudUnderTest, Line, eventually, names};
use serde_json::json;

use super::{HEARTBEAT_SECS, IN_STEP_SECS, Node, attentive_cloud, attentive_edge, config_map, pass, pod, property};

/// The edge's first connection to a cloud, to which it must make itself known.
const KNOWN_SECS: u64 = 15;
/// A session that lasted so long is followed by another at once.
const STANDS: Duration = Duration::from_millis(1_000 * HEARTBEAT_SECS + 200);

struct Clouds {
    node: Node,
    line: Line,
    apis: [Api; 2],
    clouds: [CloudUnderTest; 2],
}

impl Clouds {
    /// The edge is in step with the first; the second knows nothing of it.
    #[track_caller]
    fn start() -> Self {
        let first = CloudUnderTest::start_with(attentive_cloud());
        let mut second = CloudUnderTest::prepare(attentive_cloud());
        let copied = Command::new("cp").arg("-a").arg(first.file("pki")).arg(second.file("pki")).status().unwrap();
        assert!(copied.success());
        second.run();
        second.answers();
        let apis = [Api::start(&first.kubectl()), Api::start(&second.kubectl())];
        let line = Line::tcp(first.hub_port);
        let node = Node::start(&first, &apis[0], attentive_edge(line.port()));
        Self { node, line, apis, clouds: [first, second] }
    }

    /// The address leads to the other cloud from now on, as after a failover.
    fn lead_to(&self, which: usize) {
        self.line.lead_to(self.clouds[which].hub_port);
        self.line.snap();
    }

    /// Whether the edge has what that cloud wants. What it has reported to the other is another device's.
    fn obeys(&self, which: usize) -> Result<(), String> {
        self.node.is_connected()?;
        self.node.has_what_is_wanted(&self.apis[which])
    }

    fn reported_to(&self, which: usize) -> Result<BTreeMap<String, String>, String> {
        super::reported_in_api(&self.apis[which], &self.node.device)
    }

    /// Leads to the second for the first time, and waits until the node is there.
    #[track_caller]
    fn lead_to_the_unknown(&self) {
        self.lead_to(1);
        let kubectl = self.clouds[1].kubectl();
        eventually!(KNOWN_SECS, "the second cloud has the node", kubectl.get("node", &self.node.edge.node));
    }
}

#[test]
fn what_both_clouds_want_under_one_name_is_what_the_connected_one_wants() {
    let mut clouds = Clouds::start();
    // The same names, and other objects.
    clouds.node.create_objects(&clouds.apis[1]);
    clouds.lead_to_the_unknown();
    eventually!(KNOWN_SECS, "the edge has what the second cloud wants", clouds.obeys(1));
    for round in 0..6 {
        let (here, there) = ((round + 1) % 2, round % 2);
        let (api, value) = (&clouds.apis[there], format!("to-{here}-in-round-{round}"));
        // The device tells the one, while the other changes its own.
        clouds.node.edge.report(&clouds.node.device, &property(0), &value);
        eventually!(IN_STEP_SECS, "the connected cloud is told", super::same("reports", &clouds.reported_to(here)?.get("p0"), &Some(&value)));
        api.patch(&format!("{CORE}/configmaps/{}", clouds.node.map(round % 3)), &json!({"data": {"value": value}})).unwrap();
        clouds.node.desire(api, &property(round % 3), &value).unwrap();
        eventually!(IN_STEP_SECS, "it does what the connected cloud wants", clouds.obeys(here));
        clouds.lead_to(there);
        eventually!(IN_STEP_SECS, "the edge has what the other cloud wants", clouds.obeys(there));
        let told = clouds.reported_to(there).unwrap();
        assert_ne!(told.get("p0"), Some(&value), "the other cloud was told of a device that is not its own");
        pass(&mut clouds.node.edge, STANDS);
    }
}

#[test]
fn the_edge_holds_exactly_what_the_connected_cloud_has_for_it() {
    let mut clouds = Clouds::start();
    let api = &clouds.apis[1];
    let other = names::unique("other");
    clouds.node.create_objects(api);
    api.create(&format!("{CORE}/configmaps"), &config_map(&other, "second")).unwrap();
    api.create(&format!("{CORE}/pods"), &pod(&other, &clouds.node.edge.node, std::slice::from_ref(&other))).unwrap();
    api.delete(&format!("{CORE}/configmaps/{}", clouds.node.map(0))).unwrap();
    clouds.lead_to_the_unknown();
    eventually!(KNOWN_SECS, "the edge has what the second cloud wants, and nothing else", clouds.obeys(1));
    for which in [0, 1, 0] {
        pass(&mut clouds.node.edge, STANDS);
        clouds.lead_to(which);
        eventually!(IN_STEP_SECS, "the edge has what the connected cloud wants, and nothing else", clouds.obeys(which));
    }
}
