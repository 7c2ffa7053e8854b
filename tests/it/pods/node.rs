//! The node as its configuration describes it, and what it does when something is short.

use harness::{EdgeUnderTest, eventually};
use serde_json::json;

use super::{FOREVER, Site, pod_name, shell, shell_with};

/// Adds keys below `edged` to the configuration file.
fn configure(edge: &EdgeUnderTest, keys: &str) {
    let text = std::fs::read_to_string(edge.config()).unwrap();
    std::fs::write(edge.config(), text.replace("edged:\n", &format!("edged:\n{keys}"))).unwrap();
}

/// When the pod was evicted, as its event says; the seconds of two rounds differ.
fn evicted_at(site: &Site, pod: &str) -> Result<String, String> {
    let of = format!("involvedObject.name={pod},reason=Evicted");
    site.kubectl.run(&["get", "events", "--field-selector", &of, "-o", "jsonpath={.items[0].firstTimestamp}"])
}

#[test]
fn a_node_registers_with_the_labels_taints_and_limits_of_its_configuration() {
    let keys = "  node-labels: {site: hall-3, topology.kubernetes.io/zone: berlin}\n  \
                node-taints: [\"dedicated=press:NoSchedule\"]\n  max-pods: 7\n  system-reserved: {memory: 200Mi}\n";
    let Some(site) = Site::with(|edge| configure(edge, keys)) else { return };
    let node = site.kubectl.get("node", &site.edge.node).unwrap();
    let found = site.kubectl.run(&["get", "nodes", "-o", "name", "-l", "site=hall-3,topology.kubernetes.io/zone=berlin"]).unwrap();
    assert_eq!(found, format!("node/{}", site.edge.node));
    assert_eq!(node["metadata"]["labels"]["kubernetes.io/hostname"], site.edge.node.as_str(), "{node}");
    let taints = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
    assert!(taints.contains(&json!({"key": "dedicated", "value": "press", "effect": "NoSchedule"})), "{taints:?}");
    assert_eq!((&node["status"]["capacity"]["pods"], &node["status"]["allocatable"]["pods"]), (&json!("7"), &json!("7")), "{node}");
    assert_ne!(node["status"]["capacity"]["memory"], node["status"]["allocatable"]["memory"], "{node}");
    for condition in ["MemoryPressure", "PIDPressure"] {
        site.node_condition(condition, "False").unwrap();
    }
}

#[test]
fn a_pod_more_than_the_node_takes_is_turned_away_and_the_others_run() {
    let Some(site) = Site::with(|edge| configure(edge, "  max-pods: 2\n")) else { return };
    let pods = [pod_name("first"), pod_name("second"), pod_name("third")];
    let pod = |name: &str| site.pod(name, &json!([shell("c", FOREVER)]), json!({}));
    for name in &pods[..2] {
        site.apply(&pod(name));
        eventually!(60, "it runs", site.is_ready(name));
    }
    site.apply(&pod(&pods[2]));
    let status = eventually!(30, "it is turned away", site.has_phase(&pods[2], "Failed", "OutOfpods"));
    assert!(status["message"].as_str().is_some_and(|text| text.contains("capacity: 2")), "{status}");
    assert!(site.made(&pods[2]).unwrap().names().is_empty());
    for name in &pods[..2] {
        site.is_ready(name).unwrap();
    }
    // A pod that ended takes no room.
    site.delete(&[&pods[0], &pods[2]]);
    eventually!(60, "the first is gone", site.kubectl.is_gone("pod", &pods[0]));
    eventually!(60, "the third is gone", site.kubectl.is_gone("pod", &pods[2]));
    site.apply(&pod(&pods[2]));
    eventually!(60, "now there is room", site.is_ready(&pods[2]));
}

#[test]
fn under_memory_pressure_the_node_says_so_and_ends_first_who_asked_for_nothing_and_never_a_pod_from_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let kept = pod_name("kept");
    let spec = json!({"terminationGracePeriodSeconds": 1, "containers": [shell("c", FOREVER)]});
    let from_file = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": kept}, "spec": spec});
    std::fs::write(directory.path().join("pod.json"), from_file.to_string()).unwrap();
    let keys = format!("  static-pod-path: {}\n", directory.path().display());
    let Some(mut site) = Site::with(|edge| configure(edge, &keys)) else { return };
    let (best_effort, modest) = (pod_name("best-effort"), pod_name("modest"));
    site.apply(&site.pod(&best_effort, &json!([shell("c", FOREVER)]), json!({})));
    let asks = shell_with("c", FOREVER, json!({"resources": {"requests": {"memory": "64Mi"}}}));
    site.apply(&site.pod(&modest, &json!([asks]), json!({})));
    eventually!(60, "one runs", site.is_ready(&best_effort));
    eventually!(60, "the other runs", site.is_ready(&modest));
    let kept = format!("{kept}-{}", site.edge.node);
    let running = eventually!(30, "that of the file runs", {
        let running = site.made(&kept)?.running()?;
        if running.len() == 2 { Ok(running) } else { Err(format!("{running:?}")) }
    });
    site.node_condition("MemoryPressure", "False").unwrap();

    site.edge.stop();
    // More than any machine has.
    let text = std::fs::read_to_string(site.edge.config()).unwrap();
    let asked = "  eviction-hard:\n";
    assert!(text.contains(asked), "{text}");
    std::fs::write(site.edge.config(), text.replace(asked, &format!("{asked}    memory-available: 900Ti\n"))).unwrap();
    site.run_edge();
    let status = eventually!(60, "it is evicted", site.has_phase(&best_effort, "Failed", "Evicted"));
    assert!(status["message"].as_str().is_some_and(|text| text.contains("low on resource: memory")), "{status}");
    eventually!(30, "the node says so", site.node_condition("MemoryPressure", "True"));
    eventually!(20, "its event says so", site.has_event(&best_effort, "Warning Evicted", "memory"));
    eventually!(30, "nothing of it runs", {
        let running = site.made(&best_effort)?.running()?;
        if running.is_empty() { Ok(()) } else { Err(format!("{running:?}")) }
    });
    let late = pod_name("late");
    site.apply(&site.pod(&late, &json!([shell("c", FOREVER)]), json!({})));
    let status = eventually!(30, "another one is turned away", site.has_phase(&late, "Failed", "Evicted"));
    assert!(status["message"].as_str().is_some_and(|text| text.contains("MemoryPressure")), "{status}");
    // The shortage lasts: the other one's turn comes with a later round.
    eventually!(90, "the other is evicted, too", site.has_phase(&modest, "Failed", "Evicted"));
    let first = eventually!(20, "when the one was", evicted_at(&site, &best_effort));
    let second = eventually!(20, "when the other was", evicted_at(&site, &modest));
    assert!(first < second, "who asked for nothing was ended at {first}, who asked for something at {second}");
    assert_eq!(site.made(&kept).unwrap().running().unwrap(), running, "that of the file is left alone");
}
