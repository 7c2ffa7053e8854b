//! The five steps of `make demo`, each with random values and each confirmed from outside.

use std::path::Path;
use std::time::Duration;

use harness::mqtt::Listener;
use harness::{docker, eventually, names};

use crate::world::{World, value_of};

#[test]
fn a_joined_machine_becomes_a_ready_node_with_its_own_certificate() {
    let world = World::start();
    let node = world.kubectl.get("node", &world.edge.node).unwrap();
    assert_eq!(node["metadata"]["labels"]["node-role.kubernetes.io/edge"], "", "{node}");
    assert!(node["status"]["addresses"].as_array().is_some_and(|addresses| !addresses.is_empty()), "{node}");
    let table = world.kubectl.run(&["get", "nodes"]).unwrap();
    assert!(table.lines().any(|line| line.contains(&world.edge.node) && line.contains("Ready")), "{table}");
    let subject = std::process::Command::new("openssl")
        .args(["x509", "-noout", "-subject", "-nameopt", "RFC2253", "-in"])
        .arg(world.edge.file("pki/edge.crt"))
        .output()
        .unwrap();
    let subject = String::from_utf8_lossy(&subject.stdout).into_owned();
    assert!(subject.contains(&format!("CN=system:node:{}", world.edge.node)) && subject.contains("O=system:nodes"), "{subject}");
}

#[test]
fn an_applied_pod_runs_with_its_config_map_mounted_and_its_status_comes_back() {
    if !docker::required() {
        return;
    }
    let world = World::start();
    world.kubectl.apply(&world.thermometer.workload());

    let container = eventually!(30, "the container runs", world.container());
    let mounts = container["Mounts"].as_array().unwrap();
    let mount = mounts.iter().find(|mount| mount["Destination"] == "/etc/thermometer").unwrap();
    let file = Path::new(mount["Source"].as_str().unwrap()).join("thermometer.yaml");
    let mounted = std::fs::read_to_string(&file).unwrap();
    assert!(mounted.contains(&format!("value: \"{}\"", world.thermometer.value)), "{mounted}");

    eventually!(30, "the phase is back", world.pod_is("Running"));
    let ready = "{.status.conditions[?(@.type==\"Ready\")].status}";
    eventually!(30, "the condition is back", world.kubectl.value_is("pod", &world.thermometer.pod, ready, "True"));
    let pod = world.kubectl.get("pod", &world.thermometer.pod).unwrap();
    for field in ["podIP", "hostIP"] {
        let address = pod["status"][field].as_str().unwrap_or_default();
        assert!(address.parse::<std::net::IpAddr>().is_ok(), "{field}: {}", pod["status"]);
    }
    let id = pod["status"]["containerStatuses"][0]["containerID"].as_str().unwrap_or_default();
    assert_eq!(id, format!("docker://{}", container["Id"].as_str().unwrap()), "{}", pod["status"]);
}

#[test]
fn a_reported_value_is_stored_answered_and_shown_by_kubectl() {
    let world = World::start();
    world.bind_device();
    let listener = Listener::subscribe(world.edge.mqtt_port, &world.topic("#"));
    let device = &world.thermometer.device;

    for value in [names::reading(10), names::reading(40)] {
        world.edge.report(device, "temperature", &value);
        let actual = |body: &serde_json::Value| value_of(body, "temperature", "actual") == Some(value.as_str());
        eventually!(10, "the result is published", listener.find(&world.topic("update/result"), actual));
        let changed = |body: &serde_json::Value| body["twin"]["temperature"]["current"]["actual"]["value"] == value.as_str();
        eventually!(10, "the document is published", listener.find(&world.topic("update/document"), changed));
        // Told only after it was stored: no waiting here.
        world.edge.twin_is(device, "temperature", "actual", &value).unwrap();
        eventually!(10, "kubectl shows it", world.reported_is(&value));
    }
}

#[test]
fn a_desired_value_reaches_the_thermometer_which_follows_also_a_second_time() {
    if !docker::required() {
        return;
    }
    let world = World::start();
    let device = world.thermometer.device.clone();
    world.bind_device();
    world.kubectl.apply(&world.thermometer.workload());
    eventually!(30, "the thermometer's own value is reported", world.reported_is(&world.thermometer.value));
    let listener = Listener::subscribe(world.edge.mqtt_port, &world.topic("#"));

    // The second one comes when the edge has changed the twin already: the original refuses it as a version conflict.
    for wanted in [names::reading(40), names::reading(70)] {
        world.kubectl.desire(&device, "temperature", &wanted);
        let asks = |body: &serde_json::Value| body["delta"]["temperature"] == wanted.as_str();
        eventually!(15, "the delta is published", listener.find(&world.topic("update/delta"), asks));
        eventually!(15, "the edge stored the desired value", world.edge.twin_is(&device, "temperature", "expected", &wanted));
        eventually!(15, "the thermometer follows", world.edge.twin_is(&device, "temperature", "actual", &wanted));
        eventually!(15, "kubectl shows that it did", world.reported_is(&wanted));
    }
}

#[test]
fn a_deleted_pod_stops_gracefully_and_its_object_goes() {
    if !docker::required() {
        return;
    }
    let world = World::start();
    let pod = world.thermometer.pod.clone();
    world.kubectl.apply(&world.thermometer.workload());
    eventually!(30, "the pod runs", world.pod_is("Running"));
    let id = world.container().unwrap()["Id"].as_str().unwrap().to_owned();
    // `docker wait` prints the code with which the program ended: 0 for a SIGTERM that it answered, 137 for a kill.
    let ended = std::thread::spawn(move || docker::docker(&["wait", &id]));

    world.kubectl.run(&["delete", "pod", &pod, "--wait=false"]).unwrap();
    eventually!(30, "the object is gone", world.kubectl.is_gone("pod", &pod));
    eventually!(
        30,
        "no container is left",
        match docker::containers(&world.edge.node, Some(&pod)) {
            Ok(left) if left.is_empty() => Ok(()),
            left => Err(format!("{left:?}")),
        }
    );
    assert_eq!(ended.join().unwrap().unwrap(), "0", "the program ended by itself");
    // And it does not come back.
    harness::wait::never("the pod comes back", Duration::from_secs(2), || world.kubectl.is_gone("pod", &pod));
}

#[test]
fn both_daemons_stop_on_sigterm_with_code_0_and_the_pod_stays() {
    if !docker::required() {
        return;
    }
    let mut world = World::start();
    world.kubectl.apply(&world.thermometer.workload());
    eventually!(30, "the pod runs", world.pod_is("Running"));
    let id = world.container().unwrap()["Id"].as_str().unwrap().to_owned();

    world.edge.stop();
    world.cloud.stop();
    // The edge's pods do not depend on its daemon.
    let after = world.container().unwrap();
    assert_eq!(after["Id"], id.as_str());

    world.cloud.run();
    world.cloud.answers();
    world.edge.run();
    world.edge.answers();
    eventually!(30, "the node is Ready again", world.node_is("True"));
    eventually!(30, "the pod runs", world.pod_is("Running"));
    assert_eq!(world.container().unwrap()["Id"], id.as_str(), "the container was taken over, not started again");
}
