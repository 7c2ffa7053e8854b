//! A message that kills its actor three times is set aside: its sender is answered, and an administrator lets it in again
//! or drops it.

use std::path::Path;
use std::time::Duration;

use harness::mqtt::{Heard, Listener};
use harness::{CloudOptions, CloudUnderTest, EdgeOptions, eventually, http, names, wait};
use serde_json::Value;

use crate::world::{World, value_of};

/// Both daemons, on machines that may fail.
fn fragile() -> World {
    let environment = vec![("SKEP_ADMIN__FAULT_INJECTION".to_owned(), "true".to_owned())];
    let cloud = CloudUnderTest::start_with(CloudOptions { environment: environment.clone(), ..CloudOptions::default() });
    let world = World::of(cloud, EdgeOptions { environment, ..EdgeOptions::default() });
    world.bind_device();
    world
}

/// The next message that this actor takes will kill it three times.
#[track_caller]
fn poison(port: u16, actor: &str) {
    let (status, words) = http::post(port, &format!("/debug/actors/{actor}/panic?in-hand=3")).unwrap();
    assert_eq!(status, 200, "{words}");
}

fn set_aside(port: u16) -> Result<Vec<Value>, String> {
    let (_, body) = http::get(port, "/api/quarantine")?;
    serde_json::from_str(&body).map_err(|error| format!("{error}: {body}"))
}

/// The only message that is set aside.
fn only(port: u16) -> Result<Value, String> {
    let mut list = set_aside(port)?;
    match (list.pop(), list.is_empty()) {
        (Some(one), true) => Ok(one),
        other => Err(format!("{other:?}")),
    }
}

fn none(port: u16) -> Result<(), String> {
    let list = set_aside(port)?;
    if list.is_empty() { Ok(()) } else { Err(format!("{list:?}")) }
}

fn files(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.filter_map(|path| std::fs::read_to_string(path).ok()).collect()
}

fn id(kept: &Value) -> &str {
    kept["id"].as_str().unwrap()
}

#[test]
fn a_poison_update_is_kept_with_topic_and_bytes_answered_500_and_let_in_again_or_dropped() {
    let world = fragile();
    let (device, port) = (world.thermometer.device.clone(), world.edge.admin_port);
    let listener = Listener::subscribe(world.edge.mqtt_port, &world.topic("#"));
    let results = |accept: &dyn Fn(&Value) -> bool| {
        let is_result = |heard: &Heard| heard.topic == world.topic("update/result");
        let body = |heard: &Heard| serde_json::from_str::<Value>(&heard.payload).unwrap();
        listener.all().iter().filter(|heard| is_result(heard)).map(body).filter(|body| accept(body)).count()
    };

    poison(port, "twin");
    let value = names::reading(20);
    world.edge.report(&device, "temperature", &value);
    let kept = eventually!(30, "the update is set aside", only(port));
    assert_eq!((kept["actor"].as_str(), kept["border"].as_str()), (Some("twin"), Some("mqtt")), "{kept}");
    assert_eq!(kept["address"], world.topic("update").as_str(), "{kept}");
    assert!(kept["can_retry"] == true && kept["text"].as_str().unwrap().contains("temperature"), "{kept}");
    let refused = |body: &Value| body["code"] == 500 && body["reason"].as_str().is_some_and(|reason| reason.contains(id(&kept)));
    let answer = eventually!(10, "the device hears an error", listener.find(&world.topic("update/result"), refused));
    assert!(answer["event_id"].as_str().is_some_and(|event| event.starts_with("event")), "{answer}");
    let directory = world.edge.file("quarantine");
    eventually!(10, "its bytes are on disk", if files(&directory).iter().any(|text| text.contains(&value)) { Ok(()) } else { Err("none") });
    assert!(world.edge.twin_is(&device, "temperature", "actual", &value).is_err());

    let (status, words) = http::post(port, &format!("/api/quarantine/{}/retry", id(&kept))).unwrap();
    assert_eq!(status, 200, "{words}");
    eventually!(10, "it takes effect", world.edge.twin_is(&device, "temperature", "actual", &value));
    none(port).unwrap();
    let done = |body: &Value| value_of(body, "temperature", "actual") == Some(value.as_str());
    eventually!(10, "its result is published", if results(&done) > 0 { Ok(()) } else { Err("no result") });
    eventually!(15, "the cloud hears of it", world.reported_is(&value));
    assert_eq!((results(&done), results(&refused)), (1, 1), "each once");

    poison(port, "twin");
    let dropped = names::reading(50);
    world.edge.report(&device, "temperature", &dropped);
    let kept = eventually!(30, "the second one is set aside", only(port));
    let (status, words) = http::delete(port, &format!("/api/quarantine/{}", id(&kept))).unwrap();
    assert_eq!(status, 200, "{words}");
    none(port).unwrap();
    eventually!(10, "its file is gone", if files(&directory).is_empty() { Ok(()) } else { Err("a file") });
    let (status, _) = http::post(port, &format!("/api/quarantine/{}/retry", id(&kept))).unwrap();
    assert_eq!(status, 404);
    wait::never("it takes effect", Duration::from_secs(1), || world.edge.twin_is(&device, "temperature", "actual", &value));
}

#[test]
fn a_poison_frame_of_the_cloud_is_refused_to_it_and_not_sent_for_ever() {
    let mut world = fragile();
    let (device, port) = (world.thermometer.device.clone(), world.edge.admin_port);
    poison(port, "twin");
    let wanted = names::reading(60);
    world.kubectl.desire(&device, "temperature", &wanted);
    let kept = eventually!(30, "the frame is set aside", only(port));
    assert_eq!((kept["border"].as_str(), kept["kind"].as_str()), (Some("cloud"), Some("CloudSync")), "{kept}");
    let said = format!("set aside as {}", id(&kept));
    eventually!(10, "the cloud parks it", {
        let log = world.cloud.daemon().output();
        let line = log.lines().find(|line| line.contains("not sent again until it changes") && line.contains(&said));
        line.map(str::to_owned).ok_or_else(|| world.cloud.daemon().tail())
    });
    // Longer than the first wait of the cloud for an answer.
    wait::never("it is sent again", Duration::from_secs(7), || only(port).map(drop));
    assert!(world.edge.twin_is(&device, "temperature", "expected", &wanted).is_err());

    let (status, words) = http::post(port, &format!("/api/quarantine/{}/retry", id(&kept))).unwrap();
    assert_eq!(status, 200, "{words}");
    eventually!(10, "it takes effect", world.edge.twin_is(&device, "temperature", "expected", &wanted));
    none(port).unwrap();
}

#[test]
fn a_poison_report_of_a_node_is_refused_to_it_and_let_in_again_by_the_cloud() {
    let mut world = fragile();
    let (device, port) = (world.thermometer.device.clone(), world.cloud.admin_port);
    poison(port, "device_controller");
    let value = names::reading(30);
    world.edge.report(&device, "temperature", &value);
    let kept = eventually!(30, "the report is set aside", only(port));
    assert_eq!((kept["border"].as_str(), kept["address"].as_str()), (Some("node"), Some(world.edge.node.as_str())), "{kept}");
    let said = format!("set aside as {}", id(&kept));
    eventually!(10, "the edge gives the report up", {
        let log = world.edge.daemon().output();
        let line = log.lines().find(|line| line.contains("the cloud refused a report") && line.contains(&said));
        line.map(str::to_owned).ok_or_else(|| world.edge.daemon().tail())
    });
    assert!(world.reported_is(&value).is_err());

    let (status, words) = http::post(port, &format!("/api/quarantine/{}/retry", id(&kept))).unwrap();
    assert_eq!(status, 200, "{words}");
    eventually!(10, "it takes effect", world.reported_is(&value));
    none(port).unwrap();
}
