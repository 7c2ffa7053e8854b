//! Which devices the node has, as a mapper hears it and as the rows show it.

use harness::mqtt::Listener;
use harness::{eventually, names, sqlite};

use crate::world::World;

#[test]
fn a_mapper_is_told_of_each_device_and_of_its_leaving() {
    let world = World::start();
    let node = &world.edge.node;
    let updated = format!("$hw/events/node/{node}/membership/updated");
    let listener = Listener::subscribe(world.edge.mqtt_port, &format!("$hw/events/node/{node}/membership/#"));
    let device = world.thermometer.device.clone();
    world.bind_device();
    let has = |list: &str, body: &serde_json::Value| body[list].as_array().is_some_and(|all| all.iter().any(|one| one["id"] == device.as_str()));
    eventually!(10, "the device is announced", listener.find(&updated, |body| has("added_devices", body)));

    let event = names::unique("event");
    world.edge.publish(&format!("$hw/events/node/{node}/membership/get"), &format!(r#"{{"event_id":"{event}","timestamp":1}}"#));
    let result = format!("$hw/events/node/{node}/membership/get/result");
    eventually!(10, "the list has it", listener.find(&result, |body| body["event_id"] == event.as_str() && has("devices", body)));

    world.kubectl.run(&["delete", "device", &device]).unwrap();
    eventually!(10, "its leaving is announced", listener.find(&updated, |body| has("removed_devices", body)));
}

#[test]
fn a_device_deleted_while_the_edge_was_away_goes_with_its_rows_when_it_connects() {
    let mut world = World::start();
    let device = world.thermometer.device.clone();
    world.bind_device();
    let value = names::reading(10);
    world.edge.report(&device, "temperature", &value);
    eventually!(10, "the twin is stored", world.edge.twin_is(&device, "temperature", "actual", &value));
    world.edge.stop();
    world.kubectl.run(&["delete", "device", &device]).unwrap();
    world.edge.run();
    world.edge.answers();
    eventually!(30, "no row of it is left", {
        let rows = sqlite::query(&world.edge.database(), "SELECT (SELECT count(*) FROM device) || '/' || (SELECT count(*) FROM device_twin)")?;
        if rows == "0/0" { Ok(()) } else { Err(format!("devices/twins: {rows}")) }
    });
}

#[test]
fn a_device_created_again_while_the_edge_was_away_gets_nothing_of_its_predecessor() {
    let mut world = World::start();
    let device = world.thermometer.device.clone();
    world.bind_device();
    let value = names::reading(10);
    world.edge.report(&device, "temperature", &value);
    eventually!(10, "the value is in the cloud", world.reported_is(&value));
    // One more value that the cloud has not heard when the device it is of goes.
    world.cloud.stop();
    let unheard = names::reading(40);
    world.edge.report(&device, "temperature", &unheard);
    eventually!(10, "the unheard value is stored", world.edge.twin_is(&device, "temperature", "actual", &unheard));
    world.edge.stop();
    world.cloud.run();
    world.cloud.answers();
    world.kubectl.run(&["delete", "device", &device]).unwrap();
    world.kubectl.apply(&world.thermometer.device());
    world.edge.run();
    world.edge.answers();
    eventually!(30, "the old value is gone", world.edge.twin_is(&device, "temperature", "actual", ""));
    assert!(world.kubectl.reported(&device, "temperature").is_err_and(|words| words.contains("NotFound")), "the new device has a status already");
    let fresh = names::reading(10);
    world.edge.report(&device, "temperature", &fresh);
    eventually!(10, "the new value is in the cloud", world.reported_is(&fresh));
}
