//! Devices are served from disk, and what breaks the rules is answered.

use harness::mqtt::Listener;
use harness::{eventually, names, sqlite};

use crate::world::{World, value_of};

#[test]
fn after_kill_9_and_with_no_cloud_a_stored_value_is_answered_from_disk() {
    let mut world = World::start();
    let device = world.thermometer.device.clone();
    world.bind_device();
    let value = names::reading(10);
    let listener = Listener::subscribe(world.edge.mqtt_port, &world.topic("#"));
    world.edge.report(&device, "temperature", &value);
    eventually!(10, "the result is published", listener.find(&world.topic("update/result"), |body| body["twin"].is_object()));
    // The result was told, so the value is durable: nothing may be lost by what follows.
    world.edge.kill();
    world.cloud.kill();

    world.edge.run();
    world.edge.answers();
    let listener = Listener::subscribe(world.edge.mqtt_port, &world.topic("#"));
    let event = names::unique("event");
    world.edge.publish(&world.topic("get"), &format!(r#"{{"event_id":"{event}","timestamp":1}}"#));
    let answer = eventually!(10, "the twin is answered", listener.find(&world.topic("get/result"), |body| body["event_id"] == event.as_str()));
    assert_eq!(value_of(&answer, "temperature", "actual"), Some(value.as_str()), "{answer}");
}

#[test]
fn what_the_cloud_has_not_heard_survives_kill_9_as_one_row_and_is_there_when_the_cloud_is_back() {
    let mut world = World::start();
    let device = world.thermometer.device.clone();
    world.bind_device();
    world.cloud.stop();
    let values: Vec<String> = (0..5).map(|number| format!("{number}.5")).collect();
    for value in &values {
        world.edge.report(&device, "temperature", value);
        eventually!(20, "the value is stored", world.edge.twin_is(&device, "temperature", "actual", value));
    }
    world.edge.kill();
    let rows = |world: &World| sqlite::query(&world.edge.database(), "SELECT group_concat(property) FROM pending_report");
    assert_eq!(rows(&world).unwrap(), "temperature");
    world.edge.run();
    world.edge.answers();
    world.cloud.run();
    world.cloud.answers();
    eventually!(60, "the last value is in the cloud", world.reported_is(&values[4]));
    eventually!(
        30,
        "nothing is left to tell",
        match rows(&world)?.as_str() {
            "" => Ok(()),
            left => Err(left.to_owned()),
        }
    );
    let versions = world.edge.twin(&device, "temperature", "actual_version").unwrap();
    assert_eq!(versions, r#"{"cloud":0,"edge":5}"#, "none was done twice");
}

#[test]
fn a_report_that_breaks_the_rules_is_answered_on_its_devices_topic_and_changes_nothing() {
    let world = World::start();
    let device = world.thermometer.device.clone();
    world.bind_device();
    let value = names::reading(10);
    world.edge.report(&device, "temperature", &value);
    eventually!(10, "the good value is stored", world.edge.twin_is(&device, "temperature", "actual", &value));
    let listener = Listener::subscribe(world.edge.mqtt_port, &world.topic("#"));

    let long = "x".repeat(513);
    for bad in [
        "not json",
        r#"{"event_id":"e","timestamp":1}"#,
        r#"{"event_id":"e","timestamp":1,"twin":{"bad key":{"actual":{"value":"1"}}}}"#,
        &format!(r#"{{"event_id":"e","timestamp":1,"twin":{{"temperature":{{"actual":{{"value":"{long}"}}}}}}}}"#),
    ] {
        let before = listener.all().len();
        world.edge.publish(&world.topic("update"), bad);
        eventually!(10, &format!("an answer 400 to {bad:.60}"), {
            let heard = listener.all();
            let refused =
                heard[before..].iter().any(|message| message.topic == world.topic("update/result") && message.payload.contains("\"code\":400"));
            if refused { Ok(()) } else { Err(format!("{:?}", &heard[before..])) }
        });
    }
    world.edge.twin_is(&device, "temperature", "actual", &value).unwrap();
}

#[test]
fn a_report_for_an_unknown_device_is_answered_404() {
    let world = World::start();
    let stranger = names::unique("stranger");
    let listener = Listener::subscribe(world.edge.mqtt_port, "$hw/events/device/#");
    world.edge.report(&stranger, "temperature", "1");
    let topic = format!("$hw/events/device/{stranger}/twin/update/result");
    eventually!(10, "the refusal", listener.find(&topic, |body| body["code"] == 404));
}
