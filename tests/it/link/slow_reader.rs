//! One node that takes next to nothing holds up no other, and costs the cloud no more than what it has to be told.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use harness::api::CORE;
use harness::{Api, CloudOptions, CloudUnderTest, EdgeOptions, Fault, Line, Way, eventually, http, mqtt, names, sqlite};
use serde_json::json;

use super::{Linked, Node, attentive_cloud, attentive_edge, config_map, environment, pod, resident};

/// What the slow node has to be told: 2 MiB, which take more than half an hour at a thousand bytes in a second.
const OBJECTS: usize = 256;
const OBJECT_BYTES: usize = 8 << 10;
/// How often all of it changes.
const ROUNDS: usize = 3;
/// Latencies of which the median is taken.
const SAMPLES: usize = 21;
/// Below this, twice as long is no difference that a busy machine would not make by itself; who waits for the slow node waits
/// for minutes.
const FLOOR: Duration = Duration::from_millis(500);
/// What the cloud may take more: the backlog in its outbox, in the API's history and on its way, several times over.
const GROWN_KIB_MAX: u64 = 48 << 10;

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

/// From the request to the API until the edge has stored the object, by the edge's own stamp.
fn latency(api: &Api, node: &Node) -> Duration {
    let (map, value) = (node.map(0), names::unique("value"));
    let asked = now();
    api.patch(&format!("{CORE}/configmaps/{map}"), &json!({"data": {"value": value}})).unwrap();
    let stored = format!("SELECT stored_at FROM meta WHERE key = 'default/configmap/{map}' AND json_extract(value, '$.data.value') = '{value}'");
    let stored = eventually!(20, "the edge has the object", {
        let at = sqlite::query(&node.edge.database(), &stored)?;
        at.parse().map_err(|_| format!("not stored: `{at}`"))
    });
    Duration::from_millis(stored).saturating_sub(asked)
}

/// Changes all of what the slow node is to be told, and looks now and then how long the other waits.
fn latencies_under_changes(api: &Api, quick: &Node, many: &[String], letter: char) -> Duration {
    let mut all = Vec::new();
    for round in 0..ROUNDS {
        let value = format!("{round}{}", letter.to_string().repeat(OBJECT_BYTES));
        for (number, name) in many.iter().enumerate() {
            api.patch(&format!("{CORE}/configmaps/{name}"), &json!({"data": {"value": value}})).unwrap();
            if number % (OBJECTS * ROUNDS / SAMPLES) == 0 {
                all.push(latency(api, quick));
            }
        }
    }
    all.sort();
    all[all.len() / 2]
}

#[test]
#[allow(clippy::print_stdout, reason = "how long it took is for whoever reads the output")]
fn a_node_that_reads_a_thousand_bytes_in_a_second_delays_no_other_and_takes_no_memory() {
    // The slow node is slow for as long as the test takes, and not cut for it.
    let environment = environment(&[("SKEP_CLOUDHUB__WRITE_TIMEOUT", 300)]);
    let mut cloud = CloudUnderTest::start_with(CloudOptions { environment, ..CloudOptions::default() });
    let api = Api::start(&cloud.kubectl());
    let line = Line::tcp(cloud.hub_port);
    let quick = Node::start(&cloud, &api, EdgeOptions::default());
    let slow = Node::start(&cloud, &api, EdgeOptions { hub_port: line.port(), ..EdgeOptions::default() });
    let many: Vec<String> = (0..OBJECTS).map(|number| format!("{}-{number}", slow.pod)).collect();
    for name in &many {
        api.create(&format!("{CORE}/configmaps"), &config_map(name, "new")).unwrap();
    }
    // The same changes, while no node needs these objects.
    let alone = latencies_under_changes(&api, &quick, &many, 'a');
    let before = resident(cloud.daemon().pid());

    line.set(Fault { down: Way { bytes_per_second: 1_000, ..Way::default() }, ..Fault::default() });
    api.create(&format!("{CORE}/pods"), &pod(&names::unique("heavy"), &slow.edge.node, &many)).unwrap();
    let is_behind = || match http::metric(cloud.admin_port, "skep_cloud_outbox_bytes")? {
        bytes if bytes > (OBJECTS * OBJECT_BYTES / 2) as f64 => Ok(()),
        bytes => Err(format!("{bytes} bytes wait")),
    };
    eventually!(20, "the slow node has a backlog", is_behind());
    let beside = latencies_under_changes(&api, &quick, &many, 'b');
    eventually!(30, "the slow node still has a backlog", is_behind());
    let grown = resident(cloud.daemon().pid()).saturating_sub(before);
    println!("alone {alone:?}, beside a slow node {beside:?}; the cloud grew by {grown} KiB");
    assert!(beside <= (2 * alone).max(FLOOR), "alone {alone:?}, beside a slow node {beside:?}");
    assert!(grown < GROWN_KIB_MAX, "the cloud took {grown} KiB more");
    quick.is_in_step(&api).unwrap();
}

#[test]
fn an_object_that_is_longer_on_its_way_than_the_edge_waits_for_a_word_arrives() {
    let linked = Linked::patient();
    // Ten seconds; after four in which it hears nothing the edge gives up.
    linked.line.set(Fault { down: Way { bytes_per_second: 20 << 10, ..Way::default() }, ..Fault::default() });
    let made = linked.line.made();
    let value = "x".repeat(200 << 10);
    linked.api.patch(&format!("{CORE}/configmaps/{}", linked.node.map(0)), &json!({"data": {"value": value}})).unwrap();
    eventually!(25, "the object is at the edge", {
        let row = format!("SELECT length(value) FROM meta WHERE key = 'default/configmap/{}'", linked.node.map(0));
        match sqlite::query(&linked.node.edge.database(), &row)?.parse::<usize>() {
            Ok(bytes) if bytes > value.len() => Ok(()),
            other => Err(format!("{other:?}, after {} further connections", linked.line.made() - made)),
        }
    });
    assert_eq!(linked.line.made(), made, "in the session that stood");
}

#[test]
fn a_message_that_is_longer_on_its_way_than_the_cloud_waits_for_a_word_arrives() {
    let cloud = CloudUnderTest::start_with(attentive_cloud());
    let line = Line::tcp(cloud.hub_port);
    let api = Api::start(&cloud.kubectl());
    // An edge with patience: its pings stand behind the message, and so do the answers.
    let mut options = attentive_edge(line.port());
    options.environment.push(("SKEP_EDGEHUB__WEBSOCKET__READ_DEADLINE".into(), "60".into()));
    let node = Node::start(&cloud, &api, options);
    // Six seconds, of which the cloud misses a node that says nothing after three.
    line.set(Fault { up: Way { bytes_per_second: 20 << 10, ..Way::default() }, ..Fault::default() });
    let made = line.made();
    let uploads = || http::metric(cloud.admin_port, "skep_cloud_uploads_dropped_total");
    let before = uploads().unwrap();
    mqtt::publish(node.edge.mqtt_port, "SYS/dis/upload_records", &"x".repeat(120 << 10)).unwrap();
    eventually!(25, "the message is in the cloud", {
        match uploads()? {
            uploads if uploads > before => Ok(()),
            _ => Err(format!("not there, after {} further connections", line.made() - made)),
        }
    });
    assert_eq!(line.made(), made, "in the session that stood");
}
