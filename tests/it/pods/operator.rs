//! What `kubectl` says to whoever looks after pods.

use std::net::TcpListener;

use harness::{eventually, names};
use serde_json::json;

use super::{FOREVER, Site, host_path, lines, pod_name, shell, shell_with};

/// The column STATUS of `kubectl get pod -o wide`.
fn shown(site: &Site, pod: &str) -> Result<String, String> {
    let line = site.kubectl.run(&["get", "pod", pod, "-o", "wide", "--no-headers"])?;
    line.split_whitespace().nth(2).map(str::to_owned).ok_or(line)
}

fn shows(site: &Site, pod: &str, wanted: &str) -> Result<(), String> {
    let found = shown(site, pod)?;
    if found == wanted { Ok(()) } else { Err(found) }
}

#[test]
fn a_pod_that_waits_for_its_init_container_completes_or_falls_is_shown_so() {
    let Some(site) = Site::start() else { return };
    let dir = tempfile::tempdir().unwrap();
    let (waits, ends, falls) = (pod_name("waits"), pod_name("ends"), pod_name("falls"));
    let init = shell_with(
        "init",
        "until [ -e /gate/open ]; do sleep 0.1; done",
        json!({"volumeMounts": [{"name": "gate", "mountPath": "/gate", "readOnly": true}]}),
    );
    let gate = json!({"initContainers": [init], "volumes": [host_path("gate", dir.path())]});
    site.apply(&site.pod(&waits, &json!([shell("c", FOREVER)]), gate));
    site.apply(&site.pod(&ends, &json!([shell("c", "true")]), json!({"restartPolicy": "Never"})));
    site.apply(&site.pod(&falls, &json!([shell("c", "echo no; exit 3")]), json!({})));

    eventually!(30, "it waits", shows(&site, &waits, "Init:0/1"));
    eventually!(30, "it is completed", shows(&site, &ends, "Completed"));
    eventually!(30, "it is in back-off", shows(&site, &falls, "CrashLoopBackOff"));
    std::fs::write(dir.path().join("open"), "").unwrap();
    eventually!(30, "it runs", shows(&site, &waits, "Running"));
    let wide = site.kubectl.run(&["get", "pod", &waits, "-o", "wide"]).unwrap();
    let address = site.status(&waits).unwrap()["podIP"].as_str().unwrap_or_default().to_owned();
    assert!(!address.is_empty() && wide.contains(&address) && wide.contains(&site.edge.node), "{wide}");
}

#[test]
fn the_events_of_a_pod_say_that_it_was_started_or_falls_again_and_again() {
    let Some(site) = Site::start() else { return };
    let (runs, falls, broken) = (pod_name("runs"), pod_name("falls"), pod_name("broken"));
    site.apply(&site.pod(&runs, &json!([shell("c", FOREVER)]), json!({})));
    site.apply(&site.pod(&falls, &json!([shell("c", "exit 3")]), json!({})));
    let mut missing = shell("c", "");
    missing["command"] = json!(["/no/such/program"]);
    site.apply(&site.pod(&broken, &json!([missing]), json!({})));

    eventually!(30, "the start is an event", site.has_event(&runs, "Normal Started", "container c"));
    eventually!(30, "a program that is not there is an event", site.has_event(&broken, "Warning Failed", "/no/such/program"));
    eventually!(60, "back-off is an event", site.has_event(&falls, "Warning BackOff", "restarting failed container"));
    // Between two pauses it runs for a moment.
    eventually!(60, "it is described", {
        let described = site.kubectl.run(&["describe", "pod", &falls])?;
        let missing = ["CrashLoopBackOff", "Exit Code:    3", "BackOff", "Started"].into_iter().find(|words| !described.contains(words));
        missing.map_or(Ok(()), |words| Err(format!("`{words}` is not in\n{described}")))
    });
}

#[test]
fn the_stop_of_a_deleted_pod_is_an_event() {
    let Some(site) = Site::start() else { return };
    let name = pod_name("pod");
    site.apply(&site.pod(&name, &json!([shell("c", FOREVER)]), json!({})));
    eventually!(30, "the pod is Ready", site.is_ready(&name));
    site.delete(&[&name]);
    eventually!(30, "it is gone", site.kubectl.is_gone("pod", &name));
    eventually!(10, "the stop is an event", site.has_event(&name, "Normal Killing", "Stopping container c"));
}

#[test]
fn a_pod_whose_host_port_is_taken_says_so_and_runs_when_it_becomes_free() {
    let Some(site) = Site::start() else { return };
    let (name, port) = (pod_name("pod"), names::port());
    let taken = TcpListener::bind(("0.0.0.0", port)).unwrap();
    let container = shell_with("c", FOREVER, json!({"ports": [{"containerPort": 80, "hostPort": port}]}));
    site.apply(&site.pod(&name, &json!([container]), json!({})));
    eventually!(30, "the reason is an event", site.has_event(&name, "Warning FailedCreatePodSandBox", &format!("hostPort {port}/TCP")));
    eventually!(10, "and in the status", {
        let status = site.container_status(&name, "c")?;
        if status["state"]["waiting"]["message"].as_str().is_some_and(|text| text.contains(&port.to_string())) {
            Ok(())
        } else {
            Err(status.to_string())
        }
    });
    assert_eq!(site.status(&name).unwrap()["phase"], "Pending");
    drop(taken);
    eventually!(90, "the pod runs", site.is_ready(&name));
    assert_eq!(site.made(&name).unwrap().names(), ["POD", "c"], "what could not be started is not left");
}

#[test]
fn the_hook_before_the_stop_has_done_its_work_when_the_signal_comes() {
    let Some(site) = Site::start() else { return };
    let dir = tempfile::tempdir().unwrap();
    let (name, file) = (pod_name("pod"), dir.path().join("order"));
    let script = "trap 'echo TERM >> /log/order; exit 0' TERM; echo start >> /log/order; sleep 100000 & wait";
    let hook = json!({"exec": {"command": ["/bin/sh", "-c", "sleep 1; echo hook >> /log/order"]}});
    let more = json!({"lifecycle": {"preStop": hook}, "volumeMounts": [{"name": "log", "mountPath": "/log"}]});
    let pod = json!([shell_with("c", script, more)]);
    site.apply(&site.pod(&name, &pod, json!({"volumes": [host_path("log", dir.path())], "terminationGracePeriodSeconds": 20})));
    eventually!(30, "the pod is Ready", site.is_ready(&name));
    eventually!(10, "it has begun", if lines(&file) == ["start"] { Ok(()) } else { Err(format!("{:?}", lines(&file))) });

    site.delete(&[&name]);
    eventually!(30, "the pod is gone", site.kubectl.is_gone("pod", &name));
    assert_eq!(lines(&file), ["start", "hook", "TERM"]);
    eventually!(10, "nothing is left", {
        let made = site.made(&name)?.names();
        if made.is_empty() { Ok(()) } else { Err(format!("{made:?}")) }
    });
}
