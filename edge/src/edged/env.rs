//! Environment, command and arguments of a container: pure.

use std::collections::BTreeMap;

use super::objects::{LookupError, Objects};
use super::pod::{Container, EnvSource, Pod};

/// Why an environment cannot be made (yet).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvError {
    /// The object is missing or unreadable.
    #[error(transparent)]
    Object(#[from] LookupError),
    /// The object has no such key.
    #[error("couldn't find key {key} in {kind} {object}")]
    Key {
        /// `ConfigMap` or `Secret`.
        kind: &'static str,
        /// Its name.
        object: String,
        /// The key.
        key: String,
    },
    /// A value that is not text, or has a zero byte: an environment cannot carry it.
    #[error("the value for {0} is not text")]
    NotText(String),
}

/// Whether a `fieldRef` path can be answered before the container runs.
///
/// The pod's own address is known only with the machine's network: Docker gives a bridge address at the start.
pub fn is_answerable(path: &str, host_network: bool) -> bool {
    match path {
        "metadata.name"
        | "metadata.namespace"
        | "metadata.uid"
        | "spec.nodeName"
        | "spec.serviceAccountName"
        | "status.hostIP"
        | "status.hostIPs" => true,
        "status.podIP" | "status.podIPs" if host_network => true,
        other => keyed(other).is_some(),
    }
}

/// `metadata.labels['x']` → `("labels", "x")`.
fn keyed(path: &str) -> Option<(&str, &str)> {
    let (kind, key) = path.strip_prefix("metadata.")?.split_once("['")?;
    let key = key.strip_suffix("']")?;
    (["labels", "annotations"].contains(&kind) && !key.is_empty()).then_some((kind, key))
}

fn field(pod: &Pod, path: &str, host_ip: &str) -> String {
    let metadata = &pod.metadata;
    match path {
        "metadata.name" => metadata.name.clone(),
        "metadata.namespace" => metadata.namespace.clone(),
        "metadata.uid" => metadata.uid.clone(),
        "spec.nodeName" => pod.spec.node_name.clone(),
        "spec.serviceAccountName" => pod.spec.service_account_name.clone(),
        "status.hostIP" | "status.hostIPs" | "status.podIP" | "status.podIPs" => host_ip.to_owned(),
        other => match keyed(other) {
            Some(("labels", key)) => metadata.labels.get(key).cloned().unwrap_or_default(),
            Some((_, key)) => metadata.annotations.get(key).cloned().unwrap_or_default(),
            None => String::new(),
        },
    }
}

fn text(name: &str, bytes: &[u8]) -> Result<String, EnvError> {
    let text = std::str::from_utf8(bytes).ok().filter(|text| !text.contains('\0'));
    text.map(str::to_owned).ok_or_else(|| EnvError::NotText(name.to_owned()))
}

fn from_source(pod: &Pod, name: &str, source: &EnvSource, host_ip: &str, objects: &Objects) -> Result<Option<String>, EnvError> {
    if let Some(reference) = &source.field_ref {
        return Ok(Some(field(pod, &reference.field_path, host_ip)));
    }
    let (is_secret, kind, reference) = match (&source.config_map_key_ref, &source.secret_key_ref) {
        (Some(reference), _) => (false, "ConfigMap", reference),
        (None, Some(reference)) => (true, "Secret", reference),
        (None, None) => return Ok(None),
    };
    let Some(object) = objects.get_optional(is_secret, &reference.name, reference.optional)? else { return Ok(None) };
    match object.data.get(&reference.key) {
        Some(bytes) => text(name, bytes).map(Some),
        None if reference.optional => Ok(None),
        None => {
            let (object, key) = (format!("{}/{}", pod.metadata.namespace, reference.name), reference.key.clone());
            Err(EnvError::Key { kind, object, key })
        }
    }
}

/// What Docker gets: environment, entrypoint, command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Entrypoint; empty is the image's.
    pub command: Vec<String>,
    /// Command; empty is the image's where the entrypoint is the image's too.
    pub args: Vec<String>,
}

/// Resolves the environment of a container in the order that it is written and expands `$(NAME)` in values, command and
/// arguments. No shell is involved.
///
/// # Errors
/// A required object or key is missing, or a value is not text.
pub fn process(pod: &Pod, container: &Container, host_ip: &str, objects: &Objects) -> Result<Process, EnvError> {
    let mut order: Vec<String> = Vec::new();
    let mut values: BTreeMap<String, String> = BTreeMap::new();
    let mut set = |values: &mut BTreeMap<String, String>, name: &str, value: String| {
        if values.insert(name.to_owned(), value).is_none() {
            order.push(name.to_owned());
        }
    };
    for from in &container.env_from {
        let references = [(false, &from.config_map_ref), (true, &from.secret_ref)];
        for (is_secret, reference) in references {
            let Some(reference) = reference else { continue };
            let Some(object) = objects.get_optional(is_secret, &reference.name, reference.optional)? else { continue };
            for (key, bytes) in &object.data {
                // A key that is no variable name is left out, as the kubelet does.
                if !key.is_empty() && !key.contains(['=', '\0']) {
                    set(&mut values, &format!("{}{key}", from.prefix), text(key, bytes)?);
                }
            }
        }
    }
    for var in &container.env {
        let value = match &var.value_from {
            None => Some(expand(&var.value, &values)),
            Some(source) => from_source(pod, &var.name, source, host_ip, objects)?,
        };
        if let Some(value) = value {
            set(&mut values, &var.name, value);
        }
    }
    let expanded = |list: &[String]| list.iter().map(|text| expand(text, &values)).collect();
    Ok(Process {
        command: expanded(&container.command),
        args: expanded(&container.args),
        env: order.iter().map(|name| format!("{name}={}", values[name])).collect(),
    })
}

/// Replaces `$(NAME)` by its value; an unknown name stays as it is, `$$(NAME)` gives `$(NAME)` (Kubernetes' rule).
fn expand(text: &str, values: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let tail = &rest[at + 1..];
        if let Some(after) = tail.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = tail.strip_prefix('(').and_then(|t| t.split_once(')')) {
            match values.get(name) {
                Some(value) => out.push_str(value),
                None => out.push_str(&rest[at..at + name.len() + 3]),
            }
            rest = after;
        } else {
            out.push('$');
            rest = tail;
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::super::objects::KeyedObject;
    use super::*;

    fn pod(containers: &str) -> Pod {
        let json = format!(
            r#"{{"metadata":{{"name":"web","namespace":"ns","uid":"u-1","labels":{{"app":"x"}}}},"spec":{{"nodeName":"n1","containers":[{containers}]}}}}"#
        );
        Pod::parse(&json).unwrap()
    }

    fn objects() -> Objects {
        let mut objects = Objects::default();
        objects.insert(false, "cfg".into(), KeyedObject::parse(false, r#"{"data":{"a":"1","b":"2"}}"#));
        objects.insert(true, "tok".into(), KeyedObject::parse(true, r#"{"data":{"p":"c2VjcmV0","raw":"/w=="}}"#));
        objects
    }

    #[test]
    fn names_are_expanded_and_unknown_ones_stay() {
        let values = BTreeMap::from([("A".to_owned(), "1".to_owned())]);
        for (given, want) in
            [("$(A)", "1"), ("x$(A)y$(B)", "x1y$(B)"), ("$$(A)", "$(A)"), ("$A $", "$A $"), ("$(A", "$(A"), ("$$$(A)", "$1"), ("ü$(A)ü", "ü1ü")]
        {
            assert_eq!(expand(given, &values), want, "{given}");
        }
    }

    #[test]
    fn the_environment_comes_from_literals_fields_config_maps_and_secrets_in_order() {
        let pod = pod(
            r#"{"name":"c","image":"i","command":["run","$(WHO)"],"args":["$(P)"],"envFrom":[{"prefix":"C_","configMapRef":{"name":"cfg"}}],"env":[
            {"name":"WHO","valueFrom":{"fieldRef":{"fieldPath":"metadata.name"}}},{"name":"APP","valueFrom":{"fieldRef":{"fieldPath":"metadata.labels['app']"}}},
            {"name":"P","valueFrom":{"secretKeyRef":{"name":"tok","key":"p"}}},{"name":"IP","valueFrom":{"fieldRef":{"fieldPath":"status.hostIP"}}},
            {"name":"NO","valueFrom":{"configMapKeyRef":{"name":"none","key":"k","optional":true}}},{"name":"SUM","value":"$(C_a)+$(C_b)"},{"name":"C_a","value":"9"}]}"#,
        );
        let made = process(&pod, &pod.spec.containers[0], "10.0.0.2", &objects()).unwrap();
        assert_eq!(made.env, ["C_a=9", "C_b=2", "WHO=web", "APP=x", "P=secret", "IP=10.0.0.2", "SUM=1+2"]);
        assert_eq!((made.command, made.args), (vec!["run".to_owned(), "web".into()], vec!["secret".to_owned()]));
    }

    #[test]
    fn a_required_object_or_key_that_is_missing_is_named() {
        for (env, want) in [
            (r#"{"name":"X","valueFrom":{"configMapKeyRef":{"name":"none","key":"k"}}}"#, "configmap \"none\" not found"),
            (r#"{"name":"X","valueFrom":{"secretKeyRef":{"name":"tok","key":"k"}}}"#, "couldn't find key k in Secret ns/tok"),
            (r#"{"name":"X","valueFrom":{"secretKeyRef":{"name":"tok","key":"raw"}}}"#, "the value for X is not text"),
        ] {
            let pod = pod(&format!(r#"{{"name":"c","image":"i","env":[{env}]}}"#));
            assert_eq!(process(&pod, &pod.spec.containers[0], "", &objects()).unwrap_err().to_string(), want);
        }
    }

    #[test]
    fn only_fields_that_are_known_before_the_start_are_accepted() {
        for path in ["metadata.name", "metadata.annotations['a/b']", "spec.nodeName"] {
            assert!(is_answerable(path, false), "{path}");
        }
        for path in ["status.podIP", "metadata.labels", "metadata.labels['']", "spec.containers", "", "metadata.finalizers['x']"] {
            assert!(!is_answerable(path, false), "{path}");
        }
        assert!(is_answerable("status.podIP", true));
    }
}
