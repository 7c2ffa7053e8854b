#![allow(clippy::unwrap_used, missing_docs)] // a failed step is the test's failure

use super::*;

fn load(yaml: &str, environment: &[(&str, &str)]) -> Result<EdgeConfig, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("edge.yaml");
    std::fs::write(&path, yaml).unwrap();
    EdgeConfig::load(Some(&path), None, environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())))
}

#[test]
fn the_printed_default_file_is_the_default() {
    let printed = load(DEFAULT_YAML, &[("SKEP_EDGEHUB__CONTROLLER__NODE_ID", "edge-1")]).unwrap();
    let mut built_in = load("", &[("SKEP_EDGEHUB__CONTROLLER__NODE_ID", "edge-1")]).unwrap();
    built_in.database.driver = "sqlite3".into();
    assert_eq!(serde_json::to_value(printed).unwrap(), serde_json::to_value(built_in).unwrap());
}

#[test]
fn a_file_written_for_kubeedge_loads() {
    let config = load(
        "mqtt:\n  server: tcp://127.0.0.1:1883\n  internal-server: tcp://127.0.0.1:1884\n  mode: 0\n  qos: 0\n  retain: false\n  session-queue-size: 100\n\
         edgehub:\n  websocket:\n    url: wss://0.0.0.0:10000/e632aba927ea4ac2b575ec1603d56f10/fb4ebb70/events\n    certfile: /etc/kubeedge/certs/edge.crt\n    keyfile: /etc/kubeedge/certs/edge.key\n    handshake-timeout: 30\n    write-deadline: 15\n    read-deadline: 15\n  controller:\n    placement: false\n    heartbeat: 15\n    refresh-ak-sk-interval: 10\n    auth-info-files-path: /var/IEF/secret\n    placement-url: https://10.154.193.32:7444/v1/placement_external/message_queue\n    project-id: e632aba927ea4ac2b575ec1603d56f10\n    node-id: fb4ebb70-2783-42b8-b3ef-63e2fd6d242e\n\
         edged:\n  register-node-namespace: default\n  hostname-override: fb4ebb70-2783-42b8-b3ef-63e2fd6d242e\n  interface-name: eth0\n  node-status-update-frequency: 10\n  device-plugin-enabled: false\n  gpu-plugin-enabled: false\n  image-gc-high-threshold: 80\n  image-gc-low-threshold: 40\n  maximum-dead-containers-per-container: 1\n  docker-address: unix:///var/run/docker.sock\n  version: 2.0.0\n\
         modules:\n  enabled: [eventbus, websocket, metaManager, edged, twin, dbTest]\n",
        &[],
    )
    .unwrap();
    assert_eq!(config.node().as_str(), "fb4ebb70-2783-42b8-b3ef-63e2fd6d242e");
    assert_eq!(config.cloud_url(), "wss://0.0.0.0:10000/e632aba927ea4ac2b575ec1603d56f10/fb4ebb70/events");
}

#[test]
fn an_address_without_a_path_gets_project_and_node() {
    let config = load("edgehub:\n  websocket:\n    url: wss://cloud:10000/\n  controller:\n    node-id: edge-1\n    project-id: p\n", &[]).unwrap();
    assert_eq!(config.cloud_url(), "wss://cloud:10000/p/edge-1/events");
}

#[test]
fn the_form_of_device_topics_is_one_of_four_words() {
    for (word, expected) in [("auto", DeviceTopics::Auto), ("short", DeviceTopics::Short), ("long", DeviceTopics::Long), ("both", DeviceTopics::Both)]
    {
        let config = load(&format!("mqtt:\n  device-topics: {word}\nedgehub:\n  controller:\n    node-id: n\n"), &[]).unwrap();
        assert_eq!(config.mqtt.device_topics, expected);
    }
}

#[test]
fn values_that_cannot_work_are_refused_with_key_and_advice() {
    for (yaml, key) in [
        ("mqtt:\n  mode: 3\n", "mqtt.mode"),
        ("mqtt:\n  qos: 3\n", "mqtt.qos"),
        ("mqtt:\n  external-qos: 3\n", "mqtt.external-qos"),
        ("mqtt:\n  session-queue-size: 0\n", "mqtt.session-queue-size"),
        ("edgehub:\n  websocket:\n    url: ws://x\n", "edgehub.websocket.url"),
        ("edgehub:\n  controller:\n    node-id: ../etc\n", "edgehub.controller.node-id"),
        ("edgehub:\n  controller:\n    node-id: a\nedged:\n  hostname-override: b\n", "edged.hostname-override"),
        ("edgehub:\n  controller:\n    heartbeat: 0\n", "edgehub.controller.heartbeat"),
        ("edged:\n  docker-address: tcp://1.2.3.4:2375\n", "edged.docker-address"),
        ("edged:\n  max-pods: 0\n", "edged.max-pods"),
        ("edged:\n  pod-pids-limit: 4194305\n", "edged.pod-pids-limit"),
        ("edged:\n  node-labels: {\"a b\": x}\n", "edged.node-labels"),
        ("edged:\n  node-labels: {\"-a\": x}\n", "edged.node-labels"),
        ("edged:\n  node-labels: {\"a/b/c\": x}\n", "edged.node-labels"),
        ("edged:\n  node-labels: {\"Site/a\": x}\n", "edged.node-labels"),
        ("edged:\n  node-labels: {\"\": x}\n", "edged.node-labels"),
        ("edged:\n  node-labels: {a: \"x y\"}\n", "edged.node-labels"),
        ("edged:\n  node-labels: {kubernetes.io/arch: amd64}\n", "edged.node-labels"),
        ("edged:\n  node-labels: {node-role.kubernetes.io/control-plane: \"\"}\n", "edged.node-labels"),
        ("edged:\n  node-labels: {evil.k8s.io/x: \"\"}\n", "edged.node-labels"),
        ("edged:\n  node-taints: [\"a=b\"]\n", "edged.node-taints"),
        ("edged:\n  node-taints: [\"a=b:Never\"]\n", "edged.node-taints"),
        ("edged:\n  node-taints: [\"=b:NoSchedule\"]\n", "edged.node-taints"),
        ("edged:\n  node-taints: [\"a=b=c:NoSchedule\"]\n", "edged.node-taints"),
        ("edged:\n  node-taints: [\"a=b:NoSchedule\", \"a=c:NoSchedule\"]\n", "edged.node-taints"),
        ("edged:\n  system-reserved:\n    cpu: much\n", "edged.system-reserved.cpu"),
        ("edged:\n  system-reserved:\n    memory: -1\n", "edged.system-reserved.memory"),
        ("edged:\n  eviction-hard:\n    memory-available: 100MB\n", "edged.eviction-hard.memory-available"),
        ("edged:\n  eviction-hard:\n    nodefs-available: 100%\n", "edged.eviction-hard.nodefs-available"),
        ("edged:\n  eviction-hard:\n    nodefs-inodes-free: -5%\n", "edged.eviction-hard.nodefs-inodes-free"),
        ("edged:\n  eviction-hard:\n    imagefs-available: \"%\"\n", "edged.eviction-hard.imagefs-available"),
        ("edged:\n  eviction-hard:\n    pid-available: few\n", "edged.eviction-hard.pid-available"),
        ("edged:\n  eviction-pressure-transition-period: 2678401\n", "edged.eviction-pressure-transition-period"),
        ("edged:\n  image-minimum-gc-age: 18446744073709551615\n", "edged.image-minimum-gc-age"),
        ("edged:\n  image-gc-high-threshold: 101\n", "edged.image-gc-high-threshold"),
        ("edged:\n  image-gc-low-threshold: 80\n", "edged.image-gc-low-threshold"),
        ("admin:\n  address: 0.0.0.0\n", "admin.address"),
        ("database:\n  driver: mysql\n", "database.driver"),
        ("database:\n  max-size: 15\n", "database.max-size"),
        ("modules:\n  enabled: [eventbus, edged, twin]\n", "modules.enabled"),
        ("mailbox:\n  messages: 0\n", "mailbox.messages"),
        ("mailbox:\n  bytes: 2048\n", "mailbox.bytes"),
        ("supervision:\n  silent-after: 60\n", "supervision.silent-after"),
        ("admin:\n  client-ca-file: /ca.crt\n", "admin.client-ca-file"),
        ("log:\n  level: loud\n", "log.level"),
    ] {
        let error = load(yaml, &[]).unwrap_err();
        assert!(matches!(&error, ConfigError::Invalid(invalid) if invalid.key == key), "{yaml}: {error}");
    }
    assert!(matches!(load("mqtt:\n  device-topics: middle\n", &[]), Err(ConfigError::Load(_))));
    assert!(matches!(load("modules:\n  enabled: [twin, kube-proxy]\n", &[]), Err(ConfigError::Load(_))));
}

#[test]
fn what_a_node_declares_and_protects_can_be_set() {
    let edged = load(
        "edged:\n  node-labels: {site: hall-3, example.com/line: \"\", topology.kubernetes.io/zone: berlin, x.node.kubernetes.io/y: z}\n  \
         node-taints: [\"dedicated=press:NoSchedule\", \"dedicated=press:NoExecute\", \"example.com/x:PreferNoSchedule\"]\n  \
         eviction-hard: {memory-available: 5%, pid-available: 200, nodefs-available: \"\"}\n  system-reserved: {cpu: 250m}\n",
        &[("SKEP_EDGED__SYSTEM_RESERVED__MEMORY", "1Gi")],
    )
    .unwrap()
    .edged;
    assert_eq!((edged.node_labels.len(), edged.node_taints.len(), edged.eviction_hard.pid_available.as_str()), (4, 3, "200"));
    assert_eq!((edged.system_reserved.cpu.as_str(), edged.system_reserved.memory.as_str()), ("250m", "1Gi"));
    assert_eq!(edged.eviction_hard.imagefs_available, "15%", "what is not named keeps its default");
    let taint = Taint::parse(&edged.node_taints[2]).unwrap();
    assert_eq!((taint.key.as_str(), taint.value.as_str(), taint.effect.as_str()), ("example.com/x", "", "PreferNoSchedule"));
    let from_environment = load("", &[("SKEP_EDGED__NODE_TAINTS", "a=b:NoSchedule,c:NoExecute")]).unwrap().edged;
    assert_eq!(from_environment.node_taints, ["a=b:NoSchedule", "c:NoExecute"]);
    assert!(matches!(load("edged:\n  eviction-hard: {memory-free: 1}\n", &[]), Err(ConfigError::Load(_))));
}
