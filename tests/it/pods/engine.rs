//! Docker is stopped underneath, or the machine loses power: pods are back from the store.

use harness::{EdgeOptions, eventually, http};
use serde_json::{Value, json};

use super::dockerd::Dockerd;
use super::{FOREVER, Made, Site, host_path, lines, pod_name, shell, shell_with};

/// An edge over an engine of its own.
fn site(dockerd: &Dockerd) -> Site {
    Site::over(EdgeOptions { docker_socket: dockerd.socket(), ..EdgeOptions::default() }, |_| {})
}

/// A pod that can do without a bridge; of one container alone it also can without a sandbox.
fn host_pod(site: &Site, name: &str, containers: &Value, more: Value) -> Value {
    let mut all = json!({"hostNetwork": true});
    super::merge(&mut all, more);
    site.pod(name, containers, all)
}

fn made(dockerd: &Dockerd, site: &Site, pod: &str) -> Result<Made, String> {
    Made::look(&|arguments| dockerd.docker(arguments), &site.edge.node, pod)
}

fn runs(dockerd: &Dockerd, site: &Site, pod: &str, wanted: &[&str]) -> Result<(), String> {
    let running: Vec<String> = made(dockerd, site, pod)?.running()?.into_keys().collect();
    if running == wanted { Ok(()) } else { Err(format!("{running:?} run")) }
}

/// Status of a pod as this machine tells it.
fn local_status(site: &Site, pod: &str) -> Result<Value, String> {
    let (_, body) = http::get(site.edge.pods_port, "/pods")?;
    let list: Value = serde_json::from_str(&body).map_err(|error| format!("{error}: {body:.200}"))?;
    let found = list["items"].as_array().into_iter().flatten().find(|one| one["metadata"]["name"] == pod);
    found.map(|pod| pod["status"].clone()).ok_or(body)
}

#[test]
fn a_node_whose_engine_is_stopped_says_why_it_is_not_ready_and_its_pods_run_when_it_is_back() {
    let Some(mut dockerd) = Dockerd::start() else { return };
    let site = site(&dockerd);
    let name = pod_name("pod");
    site.apply(&host_pod(&site, &name, &json!([shell("c", FOREVER)]), json!({})));
    eventually!(60, "the pod is Ready", site.is_ready(&name));

    dockerd.stop();
    let why = eventually!(30, "the node is not Ready", {
        let node = site.kubectl.get("node", &site.edge.node)?;
        let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let ready = conditions.into_iter().find(|one| one["type"] == "Ready").unwrap_or_default();
        if ready["status"] == "False" { Ok(ready["message"].as_str().unwrap_or_default().to_owned()) } else { Err(ready.to_string()) }
    });
    assert!(why.contains("docker.sock") || why.contains("engine"), "{why}");
    let described = site.kubectl.run(&["describe", "node", &site.edge.node]).unwrap();
    assert!(described.contains("NodeNotReady"), "{described}");
    let table = site.kubectl.run(&["get", "nodes"]).unwrap();
    assert!(table.contains("NotReady"), "{table}");

    dockerd.run();
    eventually!(60, "the node is Ready", site.node_condition("Ready", "True"));
    eventually!(60, "the pod runs", runs(&dockerd, &site, &name, &["c"]));
    eventually!(30, "and is Ready", site.is_ready(&name));
}

#[test]
fn after_a_power_cut_and_with_no_cloud_pods_run_from_the_store_and_what_had_ended_does_not() {
    let Some(mut dockerd) = Dockerd::start() else { return };
    let mut site = site(&dockerd);
    let dir = tempfile::tempdir().unwrap();
    let (stays, ended) = (pod_name("stays"), pod_name("ended"));
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": stays}, "data": {"word": "kept"}});
    site.kubectl.apply(&map.to_string());
    let word = json!({"name": "WORD", "valueFrom": {"configMapKeyRef": {"name": stays, "key": "word"}}});
    let mount = json!([{"name": "log", "mountPath": "/log"}]);
    let writes = |script: &str| shell_with("c", script, json!({"volumeMounts": mount, "env": [word]}));
    let volumes = json!([host_path("log", dir.path())]);
    let begins = format!("echo $WORD >> /log/stays; {FOREVER}");
    site.apply(&host_pod(&site, &stays, &json!([writes(&begins)]), json!({"volumes": volumes})));
    let once = json!([writes("echo once >> /log/ended")]);
    site.apply(&host_pod(&site, &ended, &once, json!({"volumes": volumes, "restartPolicy": "Never"})));
    eventually!(60, "one runs", site.is_ready(&stays));
    eventually!(60, "one has ended", site.has_phase(&ended, "Succeeded", ""));

    site.edge.kill();
    dockerd.lose_power();
    site.cloud.kill();
    // Whether the engine still has the ended containers or not: here somebody also tidied up.
    dockerd.run();
    let left = dockerd.docker(&["ps", "--all", "--quiet"]).unwrap();
    for id in left.split_whitespace() {
        dockerd.docker(&["rm", "--force", id]).unwrap();
    }
    site.run_edge();
    eventually!(60, "the pod runs from the store", runs(&dockerd, &site, &stays, &["c"]));
    eventually!(10, "with its ConfigMap", {
        let lines = lines(&dir.path().join("stays"));
        if lines == ["kept", "kept"] { Ok(()) } else { Err(format!("{lines:?}")) }
    });
    eventually!(10, "which the machine says", {
        let status = local_status(&site, &stays)?;
        let container = &status["containerStatuses"][0];
        if container["state"]["running"].is_object() && container["restartCount"] == 1 { Ok(()) } else { Err(status.to_string()) }
    });
    // Whatever was to be started has been by now.
    assert_eq!(lines(&dir.path().join("ended")), ["once"]);
    assert_eq!(local_status(&site, &ended).unwrap()["phase"], "Succeeded");
    assert!(made(&dockerd, &site, &ended).unwrap().names().is_empty());
}

#[test]
fn after_a_power_cut_the_containers_that_are_left_on_the_disk_are_no_hindrance() {
    let Some(mut dockerd) = Dockerd::start() else { return };
    let mut site = site(&dockerd);
    let name = pod_name("pod");
    site.apply(&host_pod(&site, &name, &json!([shell("a", FOREVER), shell("b", FOREVER)]), json!({})));
    eventually!(60, "the pod is Ready", site.is_ready(&name));
    site.edge.kill();
    dockerd.lose_power();
    site.cloud.kill();
    dockerd.run();
    site.run_edge();
    eventually!(90, "the pod runs from the store", runs(&dockerd, &site, &name, &["POD", "a", "b"]));
    eventually!(20, "in one sandbox", {
        let sandboxes = made(&dockerd, &site, &name)?.sandboxes();
        if sandboxes == 1 { Ok(()) } else { Err(sandboxes.to_string()) }
    });
    // The cloud hears of it when it is there again.
    site.cloud.run();
    site.cloud.answers();
    eventually!(90, "the cloud knows", {
        let status = site.container_status(&name, "a")?;
        if status["restartCount"] == 1 && status["ready"] == true { Ok(()) } else { Err(status.to_string()) }
    });
}
