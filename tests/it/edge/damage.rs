//! A damaged database is set aside and the daemon serves; what could be read of it is in the new one.

use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use harness::mqtt::Listener;
use harness::{EdgeUnderTest, eventually, http, names, sqlite};

use crate::world::{World, value_of};

const STATE: i32 = 74;

/// The databases that were set aside.
fn set_aside(edge: &EdgeUnderTest) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(edge.data()).unwrap().map(|entry| entry.unwrap().path());
    let is_one = |path: &Path| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        name.starts_with("edge.db.damaged-") && !name.ends_with("-wal") && !name.ends_with("-shm")
    };
    entries.filter(|path| is_one(path)).collect()
}

/// Overwrites the pages of a table or index, with everything moved out of the log before.
fn spoil(database: &Path, tree: &str) {
    sqlite::execute(database, "PRAGMA wal_checkpoint(TRUNCATE)");
    let pages = sqlite::query(database, &format!("SELECT pageno FROM dbstat WHERE name = '{tree}' ORDER BY pageno")).unwrap();
    let file = std::fs::File::options().write(true).open(database).unwrap();
    for page in pages.lines() {
        file.write_all_at(&[0x5a; 4096], (page.parse::<u64>().unwrap() - 1) * 4096).unwrap();
    }
    file.sync_all().unwrap();
}

/// One device with one value, and the daemon stopped.
fn stopped(value: &str) -> World {
    let mut world = World::start();
    world.bind_device();
    let device = world.thermometer.device.clone();
    world.edge.report(&device, "temperature", value);
    eventually!(20, "the value is stored", world.edge.twin_is(&device, "temperature", "actual", value));
    eventually!(20, "the cloud has it", world.reported_is(value));
    world.edge.stop();
    world
}

fn says(world: &mut World, words: &[&str]) {
    eventually!(20, "the log says what was done", {
        world.edge.daemon().must_run()?;
        let output = world.edge.daemon().output();
        let line = output.lines().find(|line| line.contains("ERROR") && words.iter().all(|word| line.contains(word)));
        line.map(drop).ok_or(output)
    });
}

#[test]
fn a_file_that_is_no_database_is_set_aside_and_filled_by_the_cloud() {
    let mut world = stopped("20");
    let database = world.edge.database();
    let letter = "this is a letter, not a database\n".repeat(1000);
    // A log that is still there would bring all pages back.
    sqlite::execute(&database, "PRAGMA wal_checkpoint(TRUNCATE)");
    std::fs::write(&database, &letter).unwrap();
    world.edge.run();
    world.edge.answers();
    says(&mut world, &["edge.db.damaged-", "the database was damaged", "nothing could be taken from it"]);
    let [kept] = &set_aside(&world.edge)[..] else { panic!("{:?}", set_aside(&world.edge)) };
    assert_eq!(std::fs::read_to_string(kept).unwrap(), letter);
    let device = world.thermometer.device.clone();
    eventually!(30, "the cloud binds the device again", world.edge.knows(&device));
    world.edge.report(&device, "temperature", "21");
    eventually!(20, "the cloud hears", world.reported_is("21"));
    let (_, events) = http::get(world.edge.admin_port, "/api/events").unwrap();
    assert!(events.contains("\"damaged\"") && events.contains("edge.db.damaged-"), "{events}");
}

#[test]
fn of_a_database_with_damaged_pages_the_rest_is_served_while_the_cloud_is_away() {
    let mut world = stopped("20");
    world.cloud.stop();
    // Attributes are in a table of their own; what is lost with it is not the twin.
    spoil(&world.edge.database(), "device_attr");
    world.edge.run();
    world.edge.answers();
    says(&mut world, &["edge.db.damaged-", "1 devices, 1 properties"]);
    assert_eq!(set_aside(&world.edge).len(), 1);
    let listener = Listener::subscribe(world.edge.mqtt_port, &world.topic("#"));
    let event = names::unique("event");
    world.edge.publish(&world.topic("get"), &format!(r#"{{"event_id":"{event}","timestamp":1}}"#));
    let answer = eventually!(20, "the twin is answered", listener.find(&world.topic("get/result"), |body| body["event_id"] == event.as_str()));
    assert_eq!(value_of(&answer, "temperature", "actual"), Some("20"), "{answer}");
}

#[test]
fn damage_that_is_met_while_running_ends_the_process_with_74_and_the_next_start_serves() {
    let mut world = stopped("20");
    world.edge.run();
    world.edge.answers();
    eventually!(30, "the node is Ready", world.node_is("True"));
    // Under the running daemon, as a dying flash does it. A commit of somebody else makes it read its pages anew.
    spoil(&world.edge.database(), "device_twin");
    sqlite::execute(&world.edge.database(), "INSERT INTO counter VALUES ('test', 1)");
    let device = world.thermometer.device.clone();
    let status = eventually!(40, "the daemon ends", {
        let event = names::unique("event");
        let body = format!(r#"{{"event_id":"{event}","timestamp":1,"twin":{{"temperature":{{"actual":{{"value":"{}"}}}}}}}}"#, names::reading(10));
        let _ = harness::mqtt::publish(world.edge.mqtt_port, &format!("$hw/events/device/{device}/twin/update"), &body);
        world.edge.daemon().wait(Duration::from_millis(100)).ok_or("it runs")
    });
    assert_eq!(status.code(), Some(STATE), "{}", world.edge.daemon().tail());
    world.edge.run();
    world.edge.answers();
    says(&mut world, &["edge.db.damaged-"]);
    eventually!(30, "the device is known again", world.edge.knows(&device));
    eventually!(30, "a value is stored and reported", {
        world.edge.report(&device, "temperature", "33");
        world.reported_is("33")
    });
}
