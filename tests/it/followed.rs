//! One message is followed from MQTT to the API, and from the API to the container, by its id in the logs.

use harness::mqtt::Listener;
use harness::{CloudOptions, CloudUnderTest, EdgeOptions, docker, eventually, names};

use crate::world::{World, value_of};

/// Both daemons, saying what they do with each message.
fn talkative() -> World {
    let environment = vec![("RUST_LOG".to_owned(), "debug".to_owned())];
    let cloud = CloudUnderTest::start_with(CloudOptions { environment: environment.clone(), ..CloudOptions::default() });
    World::of(cloud, EdgeOptions { environment, ..EdgeOptions::default() })
}

/// The line of a log with all these words.
fn line(log: &str, words: &[&str]) -> Result<String, String> {
    let found = log.lines().find(|line| words.iter().all(|word| line.contains(word)));
    found.map(str::to_owned).ok_or_else(|| format!("no line with {words:?}"))
}

/// What a line says of `key`.
fn field<'a>(line: &'a str, key: &str) -> &'a str {
    let (_, rest) = line.split_once(&format!(" {key}=")).unwrap_or_else(|| panic!("no `{key}` in: {line}"));
    rest.split([' ', '"']).find(|text| !text.is_empty()).unwrap_or_default()
}

#[test]
fn an_update_has_one_id_in_the_edges_log_in_the_answer_on_the_wire_and_where_the_status_is_written() {
    let mut world = talkative();
    world.bind_device();
    let device = world.thermometer.device.clone();
    let listener = Listener::subscribe(world.edge.mqtt_port, &world.topic("#"));
    let value = names::reading(20);
    world.edge.report(&device, "temperature", &value);
    let actual = |body: &serde_json::Value| value_of(body, "temperature", "actual") == Some(value.as_str());
    eventually!(10, "the result is published", listener.find(&world.topic("update/result"), actual));
    eventually!(15, "kubectl shows it", world.reported_is(&value));

    let edge = world.edge.daemon().output();
    let arrived = line(&edge, &["MQTT message arrived", &world.topic("update")]).unwrap();
    let id = field(&arrived, "id").to_owned();
    assert_eq!(id.len(), 36, "{arrived}");
    let answered = line(&edge, &["published", &world.topic("update/result"), &format!("parent={id}")]).unwrap();
    assert_ne!(field(&answered, "id"), id);

    let cloud = eventually!(10, "the cloud's log has it", {
        let log = world.cloud.daemon().output();
        line(&log, &["device status written", &id]).map(|written| (log, written))
    });
    let (log, written) = cloud;
    assert!(written.contains(&format!("node={}", world.edge.node)) && written.contains(&device), "{written}");
    // The frame between them has an id of its own, which both ends know; the update is its cause.
    let frame = field(&written, "id");
    let entered = line(&log, &["frame of a node arrived", &format!("id={frame}"), &format!("parent={id}")]).unwrap();
    assert!(entered.contains(&world.edge.node), "{entered}");
}

#[test]
fn a_container_names_the_message_of_the_cloud_that_it_follows_from() {
    if !docker::required() {
        return;
    }
    let mut world = talkative();
    world.kubectl.apply(&world.thermometer.workload());
    eventually!(30, "the pod runs", world.pod_is("Running"));
    let edge = world.edge.daemon().output();
    let started = line(&edge, &["container follows from a message of the cloud", &world.thermometer.pod]).unwrap();
    let id = field(&started, "id");
    let arrived = line(&edge, &["frame of the cloud arrived", &format!("id={id}")]).unwrap();
    assert!(arrived.contains("default/pod/") || arrived.contains("default/configmap/"), "{arrived}");
    let sent = line(&world.cloud.daemon().output(), &["frame handed to the socket", &format!("id={id}")]).unwrap();
    assert!(sent.contains(&world.edge.node), "{sent}");
}
