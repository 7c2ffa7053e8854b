//! The pods.

use serde_json::{Value, json};

use super::IMAGE;

/// A pod that sleeps. It ends with SIGKILL a second after it was asked to: a first process that does not listen to SIGTERM
/// does not hear it.
pub fn sleeper(name: &str, node: &str, is_on_host_network: bool) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {
            "nodeName": node, "hostNetwork": is_on_host_network, "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "main", "image": IMAGE, "imagePullPolicy": "Never", "args": ["sleep", "1000000"]}],
        },
    })
}

/// The same with a ConfigMap and a Secret as volumes of these names.
pub fn reader(name: &str, node: &str, config_map: &str, secret: &str) -> Value {
    let mut pod = sleeper(name, node, false);
    pod["spec"]["volumes"] = json!([{"name": config_map, "configMap": {"name": config_map}}, {"name": secret, "secret": {"secretName": secret}}]);
    let mount = |name: &str| json!({"name": name, "mountPath": format!("/{name}")});
    pod["spec"]["containers"][0]["volumeMounts"] = json!([mount(config_map), mount(secret)]);
    pod
}

/// The same with a readiness probe that asks a port of this machine every ten seconds.
pub fn probed(name: &str, node: &str, port: u16) -> Value {
    let mut pod = sleeper(name, node, false);
    pod["spec"]["containers"][0]["readinessProbe"] = json!({"tcpSocket": {"host": "127.0.0.1", "port": port}, "periodSeconds": 10});
    pod
}
