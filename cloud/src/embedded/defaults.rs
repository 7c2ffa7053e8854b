//! What the API server fills in before an object is stored.

use serde_json::{Map, Value, json};

use super::kind::{self, Kind};
use super::object::{Object, section};

/// Fills in defaults on every write; fields that are there stay.
pub fn fill(kind: &Kind, object: &mut Object) {
    if *kind == kind::PODS {
        pod(object.section_mut("spec"));
    } else if *kind == kind::SECRETS {
        secret(object.fields_mut());
    } else if *kind == kind::NAMESPACES {
        namespace(object);
    } else if *kind == kind::EVENTS {
        event(object.fields_mut());
    }
}

/// Sets the status that a new object begins with, for kinds where the client has no say in it.
pub fn first_status(kind: &Kind, object: &mut Object) {
    if *kind == kind::PODS {
        let status = json!({"phase": "Pending", "qosClass": quality_of_service(object)});
        object.fields_mut().insert("status".to_owned(), status);
    } else if *kind == kind::NAMESPACES {
        object.fields_mut().insert("status".to_owned(), json!({"phase": "Active"}));
    }
}

fn put(map: &mut Map<String, Value>, field: &str, value: Value) {
    let absent = map.get(field).is_none_or(|value| value.is_null() || value == "");
    if absent {
        map.insert(field.to_owned(), value);
    }
}

fn objects<'a>(map: &'a mut Map<String, Value>, field: &str) -> impl Iterator<Item = &'a mut Map<String, Value>> {
    map.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut)
}

fn pod(spec: &mut Map<String, Value>) {
    put(spec, "restartPolicy", json!("Always"));
    put(spec, "dnsPolicy", json!("ClusterFirst"));
    put(spec, "schedulerName", json!("default-scheduler"));
    put(spec, "terminationGracePeriodSeconds", json!(30));
    put(spec, "securityContext", json!({}));
    put(spec, "enableServiceLinks", json!(true));
    let host_network = spec.get("hostNetwork") == Some(&Value::Bool(true));
    for list in ["initContainers", "containers"] {
        for item in objects(spec, list) {
            container(item, host_network);
        }
    }
    for volume in objects(spec, "volumes") {
        for source in ["configMap", "secret", "projected", "downwardAPI"] {
            if let Some(source) = volume.get_mut(source).and_then(Value::as_object_mut) {
                put(source, "defaultMode", json!(420));
            }
        }
        if let Some(path) = volume.get_mut("hostPath").and_then(Value::as_object_mut) {
            path.entry("type").or_insert_with(|| json!(""));
        }
        // A volume without a source is an empty directory.
        if volume.len() == 1 && volume.contains_key("name") {
            volume.insert("emptyDir".to_owned(), json!({}));
        }
    }
}

fn container(container: &mut Map<String, Value>, host_network: bool) {
    let image = container.get("image").and_then(Value::as_str).unwrap_or_default();
    let policy = if follows_latest(image) { "Always" } else { "IfNotPresent" };
    put(container, "imagePullPolicy", json!(policy));
    put(container, "terminationMessagePath", json!("/dev/termination-log"));
    put(container, "terminationMessagePolicy", json!("File"));
    let resources = section(container, "resources");
    if let Some(limits) = resources.get("limits").and_then(Value::as_object).cloned() {
        let requests = section(resources, "requests");
        for (name, limit) in limits {
            put(requests, &name, limit);
        }
    }
    for port in objects(container, "ports") {
        put(port, "protocol", json!("TCP"));
        if host_network && let Some(number) = port.get("containerPort").cloned() {
            put(port, "hostPort", number);
        }
    }
    for variable in objects(container, "env") {
        let source = variable.get_mut("valueFrom").and_then(|from| from.get_mut("fieldRef")).and_then(Value::as_object_mut);
        if let Some(reference) = source {
            put(reference, "apiVersion", json!("v1"));
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.get_mut(name).and_then(Value::as_object_mut) {
            for (field, value) in [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)] {
                put(probe, field, json!(value));
            }
            if let Some(get) = probe.get_mut("httpGet").and_then(Value::as_object_mut) {
                put(get, "path", json!("/"));
                put(get, "scheme", json!("HTTP"));
            }
        }
    }
}

/// No tag, or the tag `latest`, and no digest.
fn follows_latest(image: &str) -> bool {
    if image.contains('@') {
        return false;
    }
    let last = image.rsplit('/').next().unwrap_or_default();
    last.split_once(':').is_none_or(|(_, tag)| tag == "latest")
}

/// Kubernetes' quality-of-service class: Guaranteed when cpu and memory are limited everywhere and requested in full,
/// BestEffort when nothing is asked for.
fn quality_of_service(pod: &Object) -> &'static str {
    let containers: Vec<&Value> = pod.list_at("/spec/containers").iter().chain(pod.list_at("/spec/initContainers")).collect();
    let empty = |container: &&Value, field: &str| container["resources"][field].as_object().is_none_or(Map::is_empty);
    if containers.iter().all(|container| empty(container, "limits") && empty(container, "requests")) {
        return "BestEffort";
    }
    let guaranteed = |container: &&Value| {
        ["cpu", "memory"].iter().all(|resource| {
            let limit = &container["resources"]["limits"][resource];
            !limit.is_null() && *limit == container["resources"]["requests"][resource]
        })
    };
    if containers.iter().all(guaranteed) { "Guaranteed" } else { "Burstable" }
}

fn secret(fields: &mut Map<String, Value>) {
    use base64::Engine as _;
    put(fields, "type", json!("Opaque"));
    if let Some(Value::Object(plain)) = fields.remove("stringData") {
        let data = section(fields, "data");
        for (key, value) in plain {
            let text = value.as_str().unwrap_or_default();
            data.insert(key, base64::engine::general_purpose::STANDARD.encode(text).into());
        }
    }
}

fn namespace(object: &mut Object) {
    let name = object.name().to_owned();
    section(object.meta_mut(), "labels").insert("kubernetes.io/metadata.name".to_owned(), name.into());
    let spec = object.section_mut("spec");
    put(spec, "finalizers", json!(["kubernetes"]));
}

fn event(fields: &mut Map<String, Value>) {
    put(fields, "type", json!("Normal"));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn filled(kind: &Kind, value: Value) -> Value {
        let mut object = Object::new(value).unwrap();
        fill(kind, &mut object);
        first_status(kind, &mut object);
        object.into_value()
    }

    #[test]
    fn a_pod_gets_the_defaults_of_the_api_server_and_keeps_what_it_says() {
        let pod = filled(
            &kind::PODS,
            json!({"spec": {"hostNetwork": true, "terminationGracePeriodSeconds": 5, "containers": [
            {"name": "a", "image": "registry:5000/x", "ports": [{"containerPort": 80}], "livenessProbe": {"httpGet": {"port": 80}}},
            {"name": "b", "image": "x:1.2", "imagePullPolicy": "Never"}],
            "volumes": [{"name": "c", "configMap": {"name": "c"}}, {"name": "e"}]}}),
        );
        let at = |pointer: &str| pod.pointer(pointer).cloned().unwrap_or_default();
        assert_eq!(at("/spec/restartPolicy"), "Always");
        assert_eq!(at("/spec/dnsPolicy"), "ClusterFirst");
        assert_eq!(at("/spec/terminationGracePeriodSeconds"), 5);
        assert_eq!(at("/spec/containers/0/imagePullPolicy"), "Always");
        assert_eq!(at("/spec/containers/1/imagePullPolicy"), "Never");
        assert_eq!(at("/spec/containers/0/ports/0"), json!({"containerPort": 80, "hostPort": 80, "protocol": "TCP"}));
        assert_eq!(at("/spec/containers/0/livenessProbe/httpGet/scheme"), "HTTP");
        assert_eq!(at("/spec/volumes/0/configMap/defaultMode"), 420);
        assert_eq!(at("/spec/volumes/1/emptyDir"), json!({}));
        assert_eq!(at("/status"), json!({"phase": "Pending", "qosClass": "BestEffort"}));
    }

    #[test]
    fn limits_become_requests_and_decide_the_quality_of_service() {
        let pod = filled(
            &kind::PODS,
            json!({"spec": {"containers": [
            {"name": "a", "image": "x:1", "resources": {"limits": {"cpu": "1", "memory": "1Mi"}}}]}}),
        );
        assert_eq!(pod["spec"]["containers"][0]["resources"]["requests"]["memory"], "1Mi");
        assert_eq!(pod["status"]["qosClass"], "Guaranteed");
    }

    #[test]
    fn string_data_of_a_secret_becomes_data_and_is_not_kept() {
        let secret = filled(&kind::SECRETS, json!({"data": {"a": "eA=="}, "stringData": {"b": "y"}}));
        assert_eq!(secret["data"], json!({"a": "eA==", "b": "eQ=="}));
        assert!(secret.get("stringData").is_none());
        assert_eq!(secret["type"], "Opaque");
    }

    #[test]
    fn filling_in_twice_changes_nothing() {
        let once = filled(&kind::PODS, json!({"spec": {"containers": [{"name": "a", "image": "b"}], "volumes": [{"name": "v"}]}}));
        assert_eq!(filled(&kind::PODS, once.clone()), once);
    }
}
