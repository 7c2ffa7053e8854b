//! With any one hop cut exactly its step fails, and it comes true when the hop is mended.

use std::path::Path;
use std::time::Duration;

use harness::wait::never;
use harness::{CloudOptions, CloudUnderTest, EdgeOptions, Line, docker, eventually, names};

use crate::world::World;

/// How long a step must stay away before we believe that the cut holds. Each takes well below a second otherwise.
const AWAY: Duration = Duration::from_secs(4);

fn must_not(seen: Result<(), String>, what: &str) -> Result<(), String> {
    if seen.is_ok() { Err(what.to_owned()) } else { Ok(()) }
}

#[test]
fn with_the_broker_cut_only_the_device_falls_silent() {
    if !docker::required() {
        return;
    }
    let mut world = World::start();
    let wire = Line::tcp(world.edge.mqtt_port);
    world.thermometer.broker_port = wire.port();
    wire.cut();
    world.bind_device();
    world.kubectl.apply(&world.thermometer.workload());

    eventually!(30, "the pod runs without its broker", world.pod_is("Running"));
    never("a value passes the cut", AWAY, || must_not(world.reported_is(&world.thermometer.value), "reported"));
    world.node_is("True").unwrap();

    wire.mend();
    eventually!(30, "the value arrives", world.reported_is(&world.thermometer.value));
}

#[test]
fn with_the_link_cut_the_edge_answers_its_device_and_the_cloud_hears_it_later() {
    let cloud = CloudUnderTest::start();
    let wire = Line::tcp(cloud.hub_port);
    let world = World::of(cloud, EdgeOptions { hub_port: wire.port(), ..EdgeOptions::default() });
    let device = world.thermometer.device.clone();
    world.bind_device();
    let (before, after) = (names::reading(10), names::reading(40));
    world.edge.report(&device, "temperature", &before);
    eventually!(15, "the value arrives", world.reported_is(&before));

    wire.cut();
    let listener = harness::mqtt::Listener::subscribe(world.edge.mqtt_port, &world.topic("#"));
    world.edge.report(&device, "temperature", &after);
    eventually!(10, "the edge answers its device", listener.find(&world.topic("update/result"), |body| body["twin"].is_object()));
    world.edge.twin_is(&device, "temperature", "actual", &after).unwrap();
    let wanted = names::reading(70);
    world.kubectl.desire(&device, "temperature", &wanted);
    never("something passes the cut", AWAY, || {
        must_not(world.reported_is(&after), "reported")?;
        must_not(world.edge.twin_is(&device, "temperature", "expected", &wanted), "desired")
    });

    wire.mend();
    eventually!(30, "what was reported meanwhile is in the cloud", world.reported_is(&after));
    eventually!(30, "what was desired meanwhile is at the edge", world.edge.twin_is(&device, "temperature", "expected", &wanted));
}

#[test]
fn with_docker_cut_only_the_pod_does_not_start() {
    if !docker::required() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let wire = Line::unix(&dir.path().join("docker.sock"), Path::new("/var/run/docker.sock"));
    let world = World::of(CloudUnderTest::start(), EdgeOptions { docker_socket: wire.path().to_owned(), ..EdgeOptions::default() });
    wire.cut();
    world.kubectl.apply(&world.thermometer.workload());
    world.bind_device();
    let value = names::reading(10);
    world.edge.report(&world.thermometer.device, "temperature", &value);
    eventually!(15, "the device is served all the same", world.reported_is(&value));
    never("a container passes the cut", AWAY, || must_not(world.container().map(drop), "a container"));

    wire.mend();
    eventually!(60, "the container runs", world.container());
    eventually!(30, "the pod runs", world.pod_is("Running"));
}

#[test]
fn with_the_api_cut_nothing_new_passes_and_all_of_it_passes_when_it_is_back() {
    // One cloud is the Kubernetes API alone; the other has the controllers and reaches it through the wire.
    let api = CloudUnderTest::start();
    let wire = Line::tcp(api.api_port);
    let through = api.dir.path().join("kubeconfig-through-the-wire");
    let text = std::fs::read_to_string(api.kubeconfig()).unwrap();
    let own = format!(":{}", api.api_port);
    assert!(text.contains(&own), "{text}");
    std::fs::write(&through, text.replace(&own, &format!(":{}", wire.port()))).unwrap();

    let kubectl = api.kubectl();
    let cloud = CloudUnderTest::start_with(CloudOptions { kubeconfig: Some(through), ..CloudOptions::default() });
    let world = World::with_api(cloud, EdgeOptions::default(), kubectl);
    let device = world.thermometer.device.clone();
    world.bind_device();

    wire.cut();
    let (value, wanted) = (names::reading(10), names::reading(40));
    world.edge.report(&device, "temperature", &value);
    world.kubectl.desire(&device, "temperature", &wanted);
    never("something passes the cut", AWAY, || {
        must_not(world.reported_is(&value), "reported")?;
        must_not(world.edge.twin_is(&device, "temperature", "expected", &wanted), "desired")
    });
    world.edge.twin_is(&device, "temperature", "actual", &value).unwrap();

    wire.mend();
    eventually!(60, "the reported value is in the API", world.reported_is(&value));
    eventually!(60, "the desired value is at the edge", world.edge.twin_is(&device, "temperature", "expected", &wanted));
}
