//! How pods end on the real engine when somebody is in the way, or in a hurry.

use std::sync::Arc;
use std::time::Duration;

use actor::eventually;
use docker_api::opts::ContainerRemoveOpts;
use model::{ManualClock, Timestamp};
use serde_json::{Value, json};

use super::super::EdgedMessage;
use super::super::runtime::testing::{Engine, engine, free_port};
use super::super::static_pods::{self, StaticPods};
use super::module::{Edge, SOCKET, busybox, leave, running_ids, sleeper, start, start_at};

const SOON: Duration = Duration::from_secs(60);
/// Much less than the graces here, much more than a kill takes.
const AT_ONCE: Duration = Duration::from_secs(25);
/// Hears no signal but the kill.
const DEAF: &str = "trap '' TERM; while :; do sleep 1; done";

fn with_policy(engine: &Engine, name: &str, policy: &str, script: &str) -> Value {
    let mut pod = busybox(engine, name, script);
    pod["spec"]["restartPolicy"] = json!(policy);
    pod
}

fn deleted(pod: &Value, grace: u64) -> Value {
    let mut pod = pod.clone();
    pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    pod["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
    pod
}

async fn remove(engine: &Engine, pod: &Value) {
    for id in running_ids(engine, pod).await {
        let opts = ContainerRemoveOpts::builder().force(true).build();
        engine.docker.containers().get(id).remove(&opts).await.unwrap();
    }
}

/// A pod that publishes a port on the loopback.
fn with_port(engine: &Engine, name: &str, port: u16) -> Value {
    let mut pod = sleeper(engine, name);
    pod["spec"]["containers"][0]["ports"] = json!([{"containerPort": 80, "hostPort": port, "hostIP": "127.0.0.1"}]);
    pod
}

fn container(edge: &Edge, pod: &str) -> Value {
    edge.status(pod)["containerStatuses"][0].clone()
}

#[actix_rt::test]
async fn a_container_that_somebody_removes_comes_back_as_its_policy_says() {
    let Some(engine) = engine().await else { return };
    let dir = tempfile::tempdir().unwrap();
    let edge = start(&engine, dir.path(), SOCKET);
    let sleeps = "while :; do sleep 1; done";
    let pods = [with_policy(&engine, "never", "Never", sleeps), with_policy(&engine, "failing", "OnFailure", sleeps)];
    for pod in &pods {
        edge.apply("pod", pod).await;
    }
    for name in ["never", "failing"] {
        eventually!(SOON, edge.is_ready(name));
    }
    for pod in &pods {
        remove(&engine, pod).await;
    }
    eventually!(SOON, edge.status("never")["phase"] == "Failed");
    assert_eq!(container(&edge, "never")["state"]["terminated"]["reason"], "ContainerStatusUnknown");
    eventually!(SOON, container(&edge, "failing")["restartCount"] == 1 && edge.is_ready("failing"));
    assert_eq!(container(&edge, "failing")["lastState"]["terminated"]["reason"], "ContainerStatusUnknown");
    assert_eq!(running_ids(&engine, &pods[0]).await, Vec::<String>::new());
    for name in ["never", "failing"] {
        let went_back = edge.statuses(name).iter().skip_while(|status| status["phase"] != "Running").any(|status| status["phase"] == "Pending");
        assert!(!went_back, "{:?}", edge.statuses(name));
    }
    edge.delete("pod", &pods[1]).await;
    leave(&edge, &engine, &pods[0]).await;
    edge.stop().await;
}

#[actix_rt::test]
async fn a_container_whose_probe_fails_is_started_again_though_it_ends_well() {
    let Some(engine) = engine().await else { return };
    let dir = tempfile::tempdir().unwrap();
    let edge = start(&engine, dir.path(), SOCKET);
    let mut pod = with_policy(&engine, "probed", "OnFailure", "trap 'exit 0' TERM; while :; do sleep 0.1; done");
    pod["spec"]["containers"][0]["livenessProbe"] =
        json!({"exec": {"command": ["/bin/busybox", "false"]}, "periodSeconds": 1, "failureThreshold": 1});
    edge.apply("pod", &pod).await;
    eventually!(SOON, container(&edge, "probed")["restartCount"] == 1);
    let phases: Vec<Value> = edge.statuses("probed").iter().map(|status| status["phase"].clone()).collect();
    assert!(phases.iter().all(|phase| phase == "Pending" || phase == "Running"), "{phases:?}");
    assert_eq!(container(&edge, "probed")["lastState"]["terminated"]["exitCode"], 0);
    leave(&edge, &engine, &pod).await;
    edge.stop().await;
}

#[actix_rt::test]
async fn a_long_grace_can_be_shortened_and_a_pod_can_be_taken_away_by_force() {
    let Some(engine) = engine().await else { return };
    let dir = tempfile::tempdir().unwrap();
    let edge = start(&engine, dir.path(), SOCKET);
    let pods = ["shortened", "forced"].map(|name| busybox(&engine, name, DEAF));
    for pod in &pods {
        edge.apply("pod", pod).await;
    }
    for name in ["shortened", "forced"] {
        eventually!(SOON, edge.is_ready(name));
    }
    for pod in &pods {
        edge.apply("pod", &deleted(pod, 3600)).await;
    }
    for name in ["shortened", "forced"] {
        eventually!(SOON, edge.reasons(name).contains(&"Killing".to_owned()));
    }
    edge.apply("pod", &deleted(&pods[0], 1)).await;
    eventually!(AT_ONCE, edge.status("shortened")["phase"] == "Failed");
    edge.delete("pod", &pods[0]).await;
    edge.delete("pod", &pods[1]).await;
    eventually!(AT_ONCE, engine.things().await == 0);
    edge.stop().await;
}

#[actix_rt::test]
async fn a_hook_that_hangs_does_not_keep_a_pod_that_is_to_go() {
    let Some(engine) = engine().await else { return };
    let dir = tempfile::tempdir().unwrap();
    let edge = start(&engine, dir.path(), SOCKET);
    let mut pod = busybox(&engine, "hooked", "trap 'exit 0' TERM; while :; do sleep 0.1; done");
    pod["spec"]["containers"][0]["lifecycle"] = json!({"postStart": {"exec": {"command": ["/bin/busybox", "sleep", "500"]}}});
    edge.apply("pod", &pod).await;
    eventually!(SOON, !running_ids(&engine, &pod).await.is_empty());
    edge.apply("pod", &deleted(&pod, 5)).await;
    eventually!(AT_ONCE, running_ids(&engine, &pod).await.is_empty());
    leave(&edge, &engine, &pod).await;
    edge.stop().await;
}

#[actix_rt::test]
async fn sidecars_are_stopped_after_the_others_and_the_last_one_first() {
    let Some(engine) = engine().await else { return };
    let (dir, log) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let edge = start(&engine, dir.path(), SOCKET);
    // Who should go sooner takes longer: stopped together they would be written the other way round.
    let script = |name: &str, secs: u8| {
        format!("trap 'sleep {secs}; echo {name} >> /log/order; exit 0' TERM; echo {name} >> /log/up; while :; do sleep 0.1; done")
    };
    let mut pod = busybox(&engine, "ordered", &script("main", 4));
    let sidecar = |name: &str, secs: u8| json!({"name": name, "image": engine.image, "restartPolicy": "Always", "command": ["/bin/busybox", "sh", "-c", script(name, secs)]});
    pod["spec"]["initContainers"] = json!([sidecar("first", 0), sidecar("second", 2)]);
    pod["spec"]["volumes"] = json!([{"name": "log", "hostPath": {"path": log.path()}}]);
    for list in ["initContainers", "containers"] {
        for container in pod["spec"][list].as_array_mut().unwrap() {
            container["volumeMounts"] = json!([{"name": "log", "mountPath": "/log"}]);
        }
    }
    let names = |file: &str| std::fs::read_to_string(log.path().join(file)).unwrap_or_default().lines().map(str::to_owned).collect::<Vec<_>>();
    edge.apply("pod", &pod).await;
    // Each of them hears the signal by now.
    eventually!(SOON, names("up").len() == 3);
    eventually!(SOON, edge.is_ready("ordered"));
    edge.apply("pod", &deleted(&pod, 300)).await;
    eventually!(SOON, running_ids(&engine, &pod).await.is_empty());
    assert_eq!(names("order"), ["main", "second", "first"]);
    leave(&edge, &engine, &pod).await;
    edge.stop().await;
}

#[actix_rt::test]
async fn a_port_that_a_pod_lets_go_is_the_next_ones_at_once() {
    let Some(engine) = engine().await else { return };
    let dir = tempfile::tempdir().unwrap();
    // Time stands still: no pause ever ends.
    let edge = start_at(&engine, dir.path(), SOCKET, Arc::new(ManualClock::at(Timestamp(1_700_000_000_000))));
    let port = free_port();
    let (first, second) = (with_port(&engine, "first", port), with_port(&engine, "second", port));
    edge.apply("pod", &first).await;
    eventually!(SOON, edge.is_ready("first"));
    edge.apply("pod", &second).await;
    eventually!(SOON, edge.waits("second") == "CreatePodSandboxError");
    edge.delete("pod", &first).await;
    eventually!(SOON, edge.is_ready("second"));
    leave(&edge, &engine, &second).await;
    edge.stop().await;
}

#[actix_rt::test]
async fn a_pod_that_the_node_ends_is_not_over_before_its_last_container_is() {
    let Some(engine) = engine().await else { return };
    let dir = tempfile::tempdir().unwrap();
    let edge = start(&engine, dir.path(), SOCKET);
    let mut pod = with_policy(&engine, "late", "Never", DEAF);
    (pod["spec"]["activeDeadlineSeconds"], pod["spec"]["terminationGracePeriodSeconds"]) = (json!(1), json!(4));
    edge.apply("pod", &pod).await;
    eventually!(SOON, edge.status("late")["phase"] == "Failed");
    assert_eq!(edge.status("late")["reason"], "DeadlineExceeded");
    assert_eq!(edge.reasons("late").iter().filter(|reason| *reason == "DeadlineExceeded").count(), 1, "it is said when it begins");
    let runs = |status: &Value| status["containerStatuses"][0]["state"]["running"].is_object();
    let statuses = edge.statuses("late");
    assert!(statuses.iter().any(runs) && !statuses.iter().any(|status| status["phase"] == "Failed" && runs(status)), "{statuses:?}");
    leave(&edge, &engine, &pod).await;
    edge.stop().await;
}

/// A pod from a file that writes into `/log/order` what happens to it.
fn from_file(engine: &Engine, log: &std::path::Path, word: &str) -> StaticPods {
    let writes = |who: &str, script: &str| {
        json!(["/bin/busybox", "sh", "-c", format!("trap 'echo {who} {word} >> /log/order; exit 0' TERM; {script} while :; do sleep 0.1; done")])
    };
    let mounts = json!([{"name": "log", "mountPath": "/log"}]);
    let hook = json!({"preStop": {"exec": {"command": ["/bin/busybox", "sh", "-c", format!("echo hook {word} >> /log/order")]}}});
    let main = writes("main", &format!("echo start {word} >> /log/order;"));
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "own"},
        "spec": {
            "initContainers": [{"name": "side", "image": engine.image, "restartPolicy": "Always", "command": writes("side", ""), "volumeMounts": mounts}],
            "containers": [{"name": "main", "image": engine.image, "command": main, "lifecycle": hook, "volumeMounts": mounts}],
            "volumes": [{"name": "log", "hostPath": {"path": log}}],
        },
    });
    let (uid, pod) = static_pods::parse(&pod.to_string(), "own.json", &engine.node).unwrap();
    StaticPods { pods: [(uid, pod)].into_iter().collect(), ..StaticPods::default() }
}

#[actix_rt::test]
async fn a_pod_whose_file_changes_ends_in_its_order_before_the_next_of_its_name_begins() {
    let Some(engine) = engine().await else { return };
    let (dir, log) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let edge = start(&engine, dir.path(), SOCKET);
    let order = || std::fs::read_to_string(log.path().join("order")).unwrap_or_default();
    let say = async |found: StaticPods| edge.edged.send(EdgedMessage::StaticPods(Box::new(found))).await.unwrap();
    say(from_file(&engine, log.path(), "one")).await;
    eventually!(SOON, order() == "start one\n");
    say(from_file(&engine, log.path(), "two")).await;
    let ended = |word: &str| format!("hook {word}\nmain {word}\nside {word}\n");
    let both = format!("start one\n{}start two\n", ended("one"));
    eventually!(SOON, order() == both);
    eventually!(SOON, engine.containers().await.len() == 2);
    say(StaticPods::default()).await;
    eventually!(SOON, engine.things().await == 0);
    assert_eq!(order(), format!("{both}{}", ended("two")));
    edge.stop().await;
}
