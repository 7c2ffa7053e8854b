//! The downward API: what a pod may ask about itself, in its environment and in files. Pure.

use std::collections::BTreeMap;

use super::env::{Capacity, Facts};
use super::pod::{Container, Pod, ResourceFieldRef};
use super::quantity;

/// Whether a `fieldRef` path can be answered in an environment.
pub fn is_answerable(path: &str) -> bool {
    let plain = [
        "metadata.name",
        "metadata.namespace",
        "metadata.uid",
        "spec.nodeName",
        "spec.serviceAccountName",
        "status.hostIP",
        "status.hostIPs",
        "status.podIP",
        "status.podIPs",
    ];
    plain.contains(&path) || keyed(path).is_some()
}

/// Whether a `fieldRef` path can be answered in a file of a downwardAPI volume.
pub fn is_file_answerable(path: &str) -> bool {
    ["metadata.name", "metadata.namespace", "metadata.uid", "metadata.labels", "metadata.annotations"].contains(&path) || keyed(path).is_some()
}

/// `metadata.labels['x']` → `("labels", "x")`.
fn keyed(path: &str) -> Option<(&str, &str)> {
    let (kind, key) = path.strip_prefix("metadata.")?.split_once("['")?;
    let key = key.strip_suffix("']")?;
    (["labels", "annotations"].contains(&kind) && !key.is_empty()).then_some((kind, key))
}

/// The value of a `fieldRef`; empty for a path that the checks refuse and for a label that the pod has not.
pub fn field(pod: &Pod, path: &str, facts: &Facts) -> String {
    let metadata = &pod.metadata;
    match path {
        "metadata.name" => metadata.name.clone(),
        "metadata.namespace" => metadata.namespace.clone(),
        "metadata.uid" => metadata.uid.clone(),
        "metadata.labels" => lines(&metadata.labels),
        "metadata.annotations" => lines(&metadata.annotations),
        "spec.nodeName" => pod.spec.node_name.clone(),
        "spec.serviceAccountName" => pod.spec.service_account_name.clone(),
        "status.hostIP" | "status.hostIPs" => facts.host_ip.clone(),
        "status.podIP" | "status.podIPs" => facts.pod_ip.clone(),
        other => match keyed(other) {
            Some(("labels", key)) => metadata.labels.get(key).cloned().unwrap_or_default(),
            Some((_, key)) => metadata.annotations.get(key).cloned().unwrap_or_default(),
            None => String::new(),
        },
    }
}

/// The value of a `resourceFieldRef` of a container: CPU in whole units of the divisor, rounded up from thousandths, memory
/// in bytes by the divisor, rounded up (Kubernetes' rules). A limit that is not set is what the machine has.
pub fn resource(container: &Container, reference: &ResourceFieldRef, machine: Capacity) -> String {
    // The checks of the spec have read these quantities before.
    let divisor = reference.divisor.as_ref().filter(|divisor| !divisor.is_null());
    let milli = |nano: u64| nano.div_ceil(1_000_000);
    let cpu = |milli_cpu: u64| {
        // A divisor of zero is read as one, and so is none.
        let unit = divisor.and_then(|divisor| quantity::nano(divisor).ok()).map(milli).filter(|unit| *unit > 0).unwrap_or(1000);
        milli_cpu.div_ceil(unit)
    };
    let memory = |bytes: u64| {
        let unit = divisor.and_then(|divisor| quantity::units(divisor).ok()).filter(|unit| *unit > 0).unwrap_or(1);
        bytes.div_ceil(unit)
    };
    let answer = match reference.resource.as_str() {
        "limits.cpu" => cpu(milli(container.cpu_limit_nano().ok().flatten().unwrap_or(machine.cpu_nano))),
        "limits.memory" => memory(container.memory_limit().ok().flatten().unwrap_or(machine.memory)),
        "requests.cpu" => cpu(container
            .resources
            .requests
            .get("cpu")
            .or_else(|| container.resources.limits.get("cpu"))
            .map_or(0, |asked| milli(quantity::nano(asked).unwrap_or(0)))),
        "requests.memory" => memory(container.memory_request().ok().flatten().unwrap_or(0)),
        _ => 0,
    };
    answer.to_string()
}

/// Labels or annotations as a file has them: `key="value"`, sorted by key, each on a line (the kubelet's form, which has no
/// newline at the end).
fn lines(map: &BTreeMap<String, String>) -> String {
    map.iter().map(|(key, value)| format!("{key}={}", quoted(value))).collect::<Vec<_>>().join("\n")
}

/// As Go's `%q` writes it: a reader of the file knows how to undo that.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x0b' => out.push_str("\\v"),
            c if c.is_ascii_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c if is_shown(c) => out.push(c),
            c if u32::from(c) < 0x1_0000 => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push_str(&format!("\\U{:08x}", u32::from(c))),
        }
    }
    out.push('"');
    out
}

/// Whether a character has a form of its own. Behind another one, where a combining mark has one too.
fn is_shown(c: char) -> bool {
    c.is_ascii() || format!("a{c}").escape_debug().nth(1) == Some(c)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn only_fields_that_a_node_knows_are_accepted() {
        for path in ["metadata.name", "metadata.annotations['a/b']", "spec.nodeName", "status.podIP"] {
            assert!(is_answerable(path), "{path}");
        }
        for path in ["metadata.labels", "metadata.labels['']", "spec.containers", "", "metadata.finalizers['x']"] {
            assert!(!is_answerable(path), "{path}");
        }
        assert!(is_file_answerable("metadata.labels") && !is_file_answerable("status.podIP"));
    }

    #[test]
    fn labels_in_a_file_are_sorted_and_quoted_as_go_does() {
        let pod = json!({"metadata": {"name": "web", "uid": "u", "labels": {"b": "2", "a": "x"}, "annotations": {
            "k": "two\nlines\t\"q\" \\ \u{1}\u{7f} é e\u{301} \u{a0}\u{200b}\u{e0001}"}}});
        let pod = Pod::parse(&pod.to_string()).unwrap();
        let facts = Facts::default();
        assert_eq!(field(&pod, "metadata.labels", &facts), "a=\"x\"\nb=\"2\"");
        let want = "k=\"two\\nlines\\t\\\"q\\\" \\\\ \\x01\\x7f é e\u{301} \\u00a0\\u200b\\U000e0001\"";
        assert_eq!(field(&pod, "metadata.annotations", &facts), want);
        assert_eq!(field(&pod, "metadata.labels['none']", &facts), "");
    }

    #[test]
    fn resources_are_rounded_up_and_a_limit_that_is_not_set_is_the_machines() {
        let machine = Capacity { cpu_nano: 4_000_000_000, memory: 8 << 30 };
        let ask = |resources: Value, resource_name: &str, divisor: Value| {
            let container: Container = serde_json::from_value(json!({"name": "c", "image": "i", "resources": resources})).unwrap();
            let reference = ResourceFieldRef { resource: resource_name.into(), divisor: Some(divisor), ..ResourceFieldRef::default() };
            resource(&container, &reference, machine)
        };
        let set = || json!({"limits": {"cpu": "1500m", "memory": "64Mi"}, "requests": {"cpu": "100m"}});
        for (resources, name, divisor, want) in [
            (set(), "limits.cpu", Value::Null, "2"),
            (set(), "limits.cpu", json!("1m"), "1500"),
            (set(), "limits.cpu", json!("0"), "2"),
            (set(), "requests.cpu", json!("1m"), "100"),
            (set(), "requests.cpu", json!(1), "1"),
            (set(), "limits.memory", Value::Null, "67108864"),
            (set(), "limits.memory", json!("1Mi"), "64"),
            (set(), "limits.memory", json!("1M"), "68"),
            (set(), "requests.memory", json!("1Mi"), "64"),
            (json!({}), "limits.cpu", Value::Null, "4"),
            (json!({}), "limits.memory", json!("1Gi"), "8"),
            (json!({}), "requests.cpu", Value::Null, "0"),
            (json!({}), "requests.memory", Value::Null, "0"),
            (json!({}), "limits.gpu", Value::Null, "0"),
        ] {
            assert_eq!(ask(resources, name, divisor.clone()), want, "{name} {divisor}");
        }
    }
}
