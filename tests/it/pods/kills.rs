//! kill -9 of the edge, of a container's process, and of what holds a pod together.

use std::process::Command;

use harness::{docker, eventually};
use serde_json::json;

use super::{FOREVER, Made, Site, host_path, lines, pod_name, shell, shell_with};

/// What a pod of these tests is made of, sandbox and init container included.
const PARTS: [&str; 5] = ["POD", "a", "b", "init", "side"];

/// Two containers, one init container that ends, and a sidecar.
fn pod(site: &Site, name: &str) -> serde_json::Value {
    let sidecar = shell_with("side", FOREVER, json!({"restartPolicy": "Always"}));
    site.pod(name, &json!([shell("a", FOREVER), shell("b", FOREVER)]), json!({"initContainers": [shell("init", "true"), sidecar]}))
}

/// `Ok` when each part is there once and all but the init container run.
fn is_whole(made: &Made) -> Result<(), String> {
    let running: Vec<String> = made.running()?.into_keys().collect();
    let is = made.names() == PARTS && made.sandboxes() == 1 && running == ["POD", "a", "b", "side"];
    if is { Ok(()) } else { Err(format!("there is {:?}, and {running:?} run", made.names())) }
}

#[test]
fn an_edge_that_is_killed_while_it_makes_a_pod_or_later_makes_nothing_twice_and_ends_nothing() {
    let Some(mut site) = Site::start() else { return };
    // Killed as soon as so many parts of a pod are there; the pods before it run meanwhile.
    let mut pods: Vec<String> = Vec::new();
    for parts in 1..=PARTS.len() {
        let name = pod_name("pod");
        let earlier: Vec<_> = pods.iter().map(|pod| site.made(pod).unwrap().running().unwrap()).collect();
        site.apply(&pod(&site, &name));
        eventually!(30, &format!("{parts} parts are made"), {
            let made = site.made(&name)?.names();
            if made.len() >= parts { Ok(()) } else { Err(format!("{made:?}")) }
        });
        site.edge.kill();
        // The engine may still be taking back what nobody waits for any more.
        let mut last = None;
        let before = eventually!(10, "the engine is at rest", {
            let made = site.made(&name)?;
            let now = (made.names(), made.running()?);
            if last.replace(now.clone()).as_ref() == Some(&now) { Ok(now.1) } else { Err(format!("{now:?}")) }
        });
        site.run_edge();
        eventually!(60, "the pod is Ready", site.is_ready(&name));
        eventually!(10, "each part is there once", is_whole(&site.made(&name)?));
        let after = site.made(&name).unwrap().running().unwrap();
        // An init container may have ended meanwhile.
        for (part, id) in before.iter().filter(|(part, _)| *part != "init") {
            assert_eq!(after.get(part), Some(id), "{part} of the pod that was being made, killed at {parts} parts");
        }
        for (pod, running) in pods.iter().zip(earlier) {
            assert_eq!(site.made(pod).unwrap().running().unwrap(), running, "a pod that ran when the edge was killed");
        }
        for part in ["a", "b", "side"] {
            let status = site.container_status(&name, part).unwrap();
            assert_eq!(status["restartCount"], 0, "{status}");
        }
        pods.push(name);
    }
}

/// Kills a process of the engine's.
fn kill_process(site: &Site, pod: &str, container: &str) {
    let made = site.made(pod).unwrap();
    let pid = made.pid(container).unwrap().to_string();
    let killed = Command::new("kill").args(["-9", &pid]).output().is_ok_and(|output| output.status.success());
    if !killed {
        // Not root: the engine does it.
        docker::docker(&["kill", "--signal", "KILL", &made.running().unwrap()[container]]).unwrap();
    }
}

#[test]
fn a_container_whose_process_is_killed_runs_again_and_its_end_is_told() {
    let Some(site) = Site::start() else { return };
    let name = pod_name("pod");
    site.apply(&pod(&site, &name));
    eventually!(60, "the pod is Ready", site.is_ready(&name));
    let before = site.made(&name).unwrap().running().unwrap();

    kill_process(&site, &name, "a");
    let status = eventually!(30, "the container runs again", {
        let status = site.container_status(&name, "a")?;
        if status["restartCount"] == 1 && status["state"]["running"].is_object() { Ok(status) } else { Err(status.to_string()) }
    });
    let ended = &status["lastState"]["terminated"];
    assert_eq!((&ended["exitCode"], &ended["reason"]), (&json!(137), &json!("Error")), "{status}");
    assert_eq!(ended["containerID"], format!("docker://{}", before["a"]), "{status}");
    eventually!(20, "the second start is an event", site.has_event(&name, "Normal Started", "container a x2"));

    let after = site.made(&name).unwrap().running().unwrap();
    for part in ["POD", "b", "side"] {
        assert_eq!(after[part], before[part], "{part} is left alone");
    }
    eventually!(20, "the pod is Ready again", site.is_ready(&name));
}

#[test]
fn a_sidecar_whose_process_is_killed_runs_again_and_nothing_else_does() {
    let Some(site) = Site::start() else { return };
    let name = pod_name("pod");
    site.apply(&pod(&site, &name));
    eventually!(60, "the pod is Ready", site.is_ready(&name));
    let before = site.made(&name).unwrap().running().unwrap();
    kill_process(&site, &name, "side");
    eventually!(30, "the sidecar runs again", {
        let status = site.container_status(&name, "side")?;
        if status["restartCount"] == 1 && status["ready"] == true { Ok(()) } else { Err(status.to_string()) }
    });
    let after = site.made(&name).unwrap().running().unwrap();
    for part in ["POD", "a", "b"] {
        assert_eq!(after[part], before[part], "{part} is left alone");
    }
}

#[test]
fn a_pod_whose_sandbox_is_removed_begins_anew_in_another_one_init_containers_first() {
    let Some(site) = Site::start() else { return };
    let dir = tempfile::tempdir().unwrap();
    let (name, file) = (pod_name("pod"), dir.path().join("order"));
    let writes = |container: &str, script: &str| {
        let mounts = json!({"volumeMounts": [{"name": "log", "mountPath": "/log"}]});
        shell_with(container, &format!("echo {container} >> /log/order; {script}"), mounts)
    };
    let pod = site.pod(
        &name,
        &json!([writes("main", FOREVER)]),
        json!({"initContainers": [writes("first", "true"), writes("second", "true")], "volumes": [host_path("log", dir.path())]}),
    );
    site.apply(&pod);
    eventually!(60, "the pod is Ready", site.is_ready(&name));
    let before = site.made(&name).unwrap().running().unwrap();
    eventually!(10, "all of them ran, in order", {
        let lines = lines(&file);
        if lines == ["first", "second", "main"] { Ok(()) } else { Err(format!("{lines:?}")) }
    });

    docker::docker(&["rm", "--force", &before["POD"]]).unwrap();
    eventually!(60, "everything ran again, in order", {
        let lines = lines(&file);
        if lines == ["first", "second", "main", "first", "second", "main"] { Ok(()) } else { Err(format!("{lines:?}")) }
    });
    let after = eventually!(30, "one sandbox and the container run", {
        let made = site.made(&name)?;
        let running = made.running()?;
        if made.sandboxes() == 1 && running.len() == 2 { Ok(running) } else { Err(format!("{running:?}")) }
    });
    assert_ne!(after["POD"], before["POD"]);
    assert_ne!(after["main"], before["main"]);
    eventually!(30, "the pod is Ready again", site.is_ready(&name));
    eventually!(20, "the end of the first run is an event", site.has_event(&name, "Normal Killing", "sandbox changed"));
    assert_eq!(site.container_status(&name, "main").unwrap()["restartCount"], 1);
}
