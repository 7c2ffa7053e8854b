//! What an object of each kind has to satisfy, beyond its schema and its metadata.

use std::collections::BTreeSet;

use serde_json::Value;

use super::admission::metadata_causes;
use super::kind::{self, Kind, Schema};
use super::names;
use super::object::Object;
use super::status_error::{Cause, StatusError};

/// ConfigMap and Secret data together (Kubernetes' `MaxSecretSize`).
const DATA_BYTES_MAX: usize = 1 << 20;

/// Checks an object that is about to be stored; `previous` is what it replaces.
///
/// # Errors
/// 422 with one cause per field.
pub fn validate(kind: &Kind, object: &Object, previous: Option<&Object>) -> Result<(), StatusError> {
    let mut causes = metadata_causes(kind, object);
    if *kind == kind::PODS {
        pod(object, &mut causes);
        if let Some(previous) = previous {
            pod_update(object, previous, &mut causes);
        }
    } else if *kind == kind::CONFIG_MAPS || *kind == kind::SECRETS {
        data(object, previous, &mut causes);
    } else if matches!(kind.schema, Schema::Custom(_)) {
        devices(object, &mut causes);
    } else if *kind == kind::EVENTS && previous.is_none() {
        event(object, &mut causes);
    }
    if causes.is_empty() { Ok(()) } else { Err(StatusError::invalid(kind, object.name(), causes)) }
}

fn pod(pod: &Object, causes: &mut Vec<Cause>) {
    if pod.list_at("/spec/containers").is_empty() {
        causes.push(Cause::required("spec.containers", ""));
    }
    let mut seen = BTreeSet::new();
    let volumes: BTreeSet<&str> = pod.list_at("/spec/volumes").iter().filter_map(|volume| volume["name"].as_str()).collect();
    for list in ["containers", "initContainers"] {
        for (index, container) in pod.list_at(&format!("/spec/{list}")).iter().enumerate() {
            let path = format!("spec.{list}[{index}]");
            let name = container["name"].as_str().unwrap_or_default();
            check_name(name, &format!("{path}.name"), causes);
            if !seen.insert(name) {
                causes.push(Cause::duplicate(format!("{path}.name"), name));
            }
            if container["image"].as_str().unwrap_or_default().trim().is_empty() {
                causes.push(Cause::required(format!("{path}.image"), ""));
            }
            check_choice(container, "imagePullPolicy", &["Always", "IfNotPresent", "Never"], &path, causes);
            for (at, mount) in container["volumeMounts"].as_array().into_iter().flatten().enumerate() {
                let name = mount["name"].as_str().unwrap_or_default();
                if !volumes.contains(name) {
                    let message = format!("Not found: {name:?}");
                    let field = format!("{path}.volumeMounts[{at}].name");
                    causes.push(Cause { field, reason: "FieldValueNotFound", message });
                }
            }
            for (at, port) in container["ports"].as_array().into_iter().flatten().enumerate() {
                let number = port["containerPort"].as_i64().unwrap_or_default();
                if !(1..=65_535).contains(&number) {
                    let field = format!("{path}.ports[{at}].containerPort");
                    causes.push(Cause::invalid(field, &number.to_string(), "must be between 1 and 65535, inclusive"));
                }
            }
        }
    }
    let mut seen = BTreeSet::new();
    for (index, volume) in pod.list_at("/spec/volumes").iter().enumerate() {
        let (path, name) = (format!("spec.volumes[{index}].name"), volume["name"].as_str().unwrap_or_default());
        check_name(name, &path, causes);
        if !seen.insert(name) {
            causes.push(Cause::duplicate(path, name));
        }
    }
    let spec = &pod.value()["spec"];
    check_choice(spec, "restartPolicy", &["Always", "OnFailure", "Never"], "spec", causes);
    check_choice(spec, "dnsPolicy", &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"], "spec", causes);
    let grace = spec["terminationGracePeriodSeconds"].as_i64().unwrap_or_default();
    if grace < 0 {
        let field = "spec.terminationGracePeriodSeconds";
        causes.push(Cause::invalid(field, &grace.to_string(), "must be greater than or equal to 0"));
    }
    let node = pod.str_at("/spec/nodeName");
    if !node.is_empty()
        && let Err(rule) = names::dns_subdomain(node)
    {
        causes.push(Cause::invalid("spec.nodeName", node, &rule));
    }
}

fn check_name(name: &str, path: &str, causes: &mut Vec<Cause>) {
    if name.is_empty() {
        causes.push(Cause::required(path, ""));
    } else if let Err(rule) = names::dns_label(name) {
        causes.push(Cause::invalid(path, name, &rule));
    }
}

fn check_choice(value: &Value, field: &str, known: &[&str], path: &str, causes: &mut Vec<Cause>) {
    if let Some(given) = value[field].as_str().filter(|given| !known.contains(given)) {
        causes.push(Cause::unsupported(format!("{path}.{field}"), given, known));
    }
}

/// A running pod is what it is: only images, the deadline and further tolerations may change.
fn pod_update(new: &Object, old: &Object, causes: &mut Vec<Cause>) {
    if frozen(new, None) != frozen(old, Some(new)) {
        causes.push(Cause::forbidden(
            "spec",
            "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,\
             `spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),\
             `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)",
        ));
    }
    let added_only = old.list_at("/spec/tolerations").iter().all(|old| new.list_at("/spec/tolerations").contains(old));
    if !added_only {
        causes.push(Cause::forbidden("spec.tolerations", "existing toleration can not be modified except its tolerationSeconds"));
    }
}

/// The specification without what may change. `bound_like`: a pod that had no node may get one (the scheduler binds it).
fn frozen(pod: &Object, bound_like: Option<&Object>) -> Value {
    let mut spec = pod.value()["spec"].clone();
    for list in ["containers", "initContainers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            container["image"] = Value::Null;
        }
    }
    for field in ["activeDeadlineSeconds", "tolerations"] {
        spec[field] = Value::Null;
    }
    if let Some(new) = bound_like.filter(|_| pod.str_at("/spec/nodeName").is_empty()) {
        spec["nodeName"] = new.value()["spec"]["nodeName"].clone();
    }
    if spec["nodeName"].is_null() {
        spec["nodeName"] = "".into();
    }
    spec
}

fn data(object: &Object, previous: Option<&Object>, causes: &mut Vec<Cause>) {
    let mut bytes = 0;
    for field in ["data", "binaryData"] {
        for (key, value) in object.fields().get(field).and_then(Value::as_object).into_iter().flatten() {
            if let Err(rule) = names::data_key(key) {
                causes.push(Cause::invalid(format!("{field}[{key}]"), key, &rule));
            }
            bytes += value.as_str().map_or(0, str::len);
        }
    }
    if bytes > DATA_BYTES_MAX {
        let message = format!("Too long: may not be more than {DATA_BYTES_MAX} bytes");
        causes.push(Cause { field: "data".to_owned(), reason: "FieldValueTooLong", message });
    }
    let Some(previous) = previous.filter(|previous| previous.value()["immutable"] == true) else { return };
    for field in ["data", "binaryData", "immutable", "type"] {
        if object.fields().get(field) != previous.fields().get(field) {
            causes.push(Cause::forbidden(field, "field is immutable when `immutable` is set"));
        }
    }
}

fn devices(object: &Object, causes: &mut Vec<Cause>) {
    let mut seen = BTreeSet::new();
    for (index, property) in object.list_at("/spec/properties").iter().enumerate() {
        let name = property["name"].as_str().unwrap_or_default();
        let field = format!("spec.properties[{index}].name");
        if name.is_empty() {
            causes.push(Cause::required(field, "a property needs a name"));
        } else if !seen.insert(name) {
            causes.push(Cause::duplicate(field, name));
        }
    }
}

fn event(event: &Object, causes: &mut Vec<Cause>) {
    let involved = event.str_at("/involvedObject/namespace");
    let expected = if involved.is_empty() { "default" } else { involved };
    if event.namespace() != expected {
        causes.push(Cause::invalid("involvedObject.namespace", involved, "does not match event.namespace"));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use serde_json::json;

    use super::*;

    fn pod(spec: Value) -> Object {
        Object::new(json!({"metadata": {"name": "p", "namespace": "default"}, "spec": spec})).unwrap()
    }

    fn message(kind: &Kind, object: &Object, previous: Option<&Object>) -> String {
        let error = validate(kind, object, previous).unwrap_err();
        assert_eq!(error.code(), 422);
        error.to_string()
    }

    #[test]
    fn a_pod_without_containers_or_with_bad_ones_is_invalid() {
        assert!(message(&kind::PODS, &pod(json!({})), None).contains("spec.containers: Required value"));
        let bad = pod(json!({"restartPolicy": "Sometimes", "containers": [{"name": "A"}, {"name": "b", "image": "x"},
            {"name": "b", "image": "x", "volumeMounts": [{"name": "none", "mountPath": "/x"}], "ports": [{"containerPort": 70000}]}]}));
        let message = message(&kind::PODS, &bad, None);
        for part in [
            "spec.containers[0].name: Invalid",
            "spec.containers[0].image: Required",
            "spec.containers[2].name: Duplicate",
            "volumeMounts[0].name: Not found",
            "containerPort: Invalid",
            "spec.restartPolicy: Unsupported",
        ] {
            assert!(message.contains(part), "{part} in {message}");
        }
    }

    #[test]
    fn of_a_stored_pod_only_the_image_may_change_and_the_node_once() {
        let old = pod(json!({"containers": [{"name": "a", "image": "x:1"}]}));
        let mut new = old.clone();
        new.section_mut("spec")["containers"][0]["image"] = "x:2".into();
        assert!(validate(&kind::PODS, &new, Some(&old)).is_ok());
        new.section_mut("spec").insert("nodeName".to_owned(), "edge-1".into());
        assert!(validate(&kind::PODS, &new, Some(&old)).is_ok());
        let bound = new.clone();
        new.section_mut("spec").insert("nodeName".to_owned(), "edge-2".into());
        assert!(message(&kind::PODS, &new, Some(&bound)).contains("may not change"));
        let mut other = old.clone();
        other.section_mut("spec")["containers"][0]["env"] = json!([{"name": "A", "value": "b"}]);
        assert!(message(&kind::PODS, &other, Some(&old)).contains("may not change"));
    }

    #[test]
    fn data_keys_and_sizes_are_checked_and_immutable_data_stays() {
        let map = |value: Value| {
            let mut object = Object::new(json!({"metadata": {"name": "c", "namespace": "default"}})).unwrap();
            object.fields_mut().append(&mut value.as_object().unwrap().clone());
            object
        };
        assert!(message(&kind::CONFIG_MAPS, &map(json!({"data": {"../x": "y"}})), None).contains("data[../x]"));
        assert!(message(&kind::CONFIG_MAPS, &map(json!({"data": {"x": "y".repeat(2 << 20)}})), None).contains("Too long"));
        let old = map(json!({"data": {"a": "b"}, "immutable": true}));
        assert!(message(&kind::CONFIG_MAPS, &map(json!({"data": {"a": "c"}, "immutable": true})), Some(&old)).contains("immutable"));
    }

    #[test]
    fn a_device_property_has_a_name_of_its_own() {
        let device = Object::new(json!({"metadata": {"name": "d", "namespace": "default"},
            "spec": {"properties": [{"name": "t"}, {"name": "t"}, {}]}}))
        .unwrap();
        let message = message(&kind::DEVICE, &device, None);
        assert!(message.contains("properties[1].name: Duplicate") && message.contains("properties[2].name: Required"), "{message}");
    }
}
