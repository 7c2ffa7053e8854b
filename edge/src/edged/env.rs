//! Environment, command and arguments of a container: pure.

use std::collections::BTreeMap;

use super::downward;
use super::objects::{LookupError, Objects};
use super::pod::{Container, EnvSource, Pod};

/// Most bytes of environment, command and arguments of a container, with what `$(NAME)` stands for. The kernel takes some
/// 2 MB, and the engine keeps all of it beside each container.
pub const PROCESS_BYTES_MAX: usize = 1024 * 1024;
/// Most bytes of one of these strings: the kernel's limit is 128 KiB with the zero byte at its end.
pub const STRING_BYTES_MAX: usize = 128 * 1024 - 1;

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
    /// More than [`STRING_BYTES_MAX`] in one string.
    #[error("{0} has more than {STRING_BYTES_MAX} bytes, which no process can be given: put it into a file of a volume")]
    StringTooLarge(String),
    /// More than [`PROCESS_BYTES_MAX`] in all.
    #[error(
        "environment, command and arguments have more than {PROCESS_BYTES_MAX} bytes with what $(NAME) stands for: put large values into files of a volume"
    )]
    TooLarge,
}

/// Addresses and sizes that a container may ask for.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The machine's address.
    pub host_ip: String,
    /// The pod's address; with the machine's network the machine's.
    pub pod_ip: String,
    /// What stands for a limit that is not set.
    pub machine: Capacity,
}

/// What the machine gives to pods at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capacity {
    /// Billionths of a CPU.
    pub cpu_nano: u64,
    /// Bytes.
    pub memory: u64,
}

fn text(name: &str, bytes: &[u8]) -> Result<String, EnvError> {
    let text = std::str::from_utf8(bytes).ok().filter(|text| !text.contains('\0'));
    text.map(str::to_owned).ok_or_else(|| EnvError::NotText(name.to_owned()))
}

/// Kubernetes' classic rule for a variable's name: letters, digits, `-`, `_` and `.`, first no digit; not `.` nor `..…`.
fn is_variable(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        && name.bytes().next().is_some_and(|b| !b.is_ascii_digit())
        && name != "."
        && !name.starts_with("..")
}

fn from_source(
    pod: &Pod,
    container: &Container,
    name: &str,
    source: &EnvSource,
    facts: &Facts,
    objects: &Objects,
) -> Result<Option<String>, EnvError> {
    if let Some(reference) = &source.field_ref {
        return Ok(Some(downward::field(pod, &reference.field_path, facts)));
    }
    if let Some(reference) = &source.resource_field_ref {
        // Without a name, the container that asks.
        let named = pod.container(&reference.container_name).unwrap_or(container);
        return Ok(Some(downward::resource(named, reference, facts.machine)));
    }
    let (is_secret, kind, reference) = match (&source.config_map_key_ref, &source.secret_key_ref) {
        (Some(reference), _) => (false, "ConfigMap", reference),
        (None, Some(reference)) => (true, "Secret", reference),
        (None, None) => return Ok(None),
    };
    let Some(object) = objects.get_optional(is_secret, &reference.name, reference.optional)? else { return Ok(None) };
    match object.variable(&reference.key) {
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
    /// The environment by name, for `subPathExpr`.
    pub values: BTreeMap<String, String>,
}

/// Resolves the environment of a container in the order that it is written and expands `$(NAME)` in values, command and
/// arguments. No shell is involved.
///
/// # Errors
/// A required object or key is missing, a value is not text, or it is more than a process can be given.
pub fn process(pod: &Pod, container: &Container, facts: &Facts, objects: &Objects) -> Result<Process, EnvError> {
    let mut made = Making::default();
    for from in &container.env_from {
        let references = [(false, &from.config_map_ref), (true, &from.secret_ref)];
        for (is_secret, reference) in references {
            let Some(reference) = reference else { continue };
            let Some(object) = objects.get_optional(is_secret, &reference.name, reference.optional)? else { continue };
            for (key, bytes) in object.variables() {
                let name = format!("{}{key}", from.prefix);
                // A key that is no variable name is left out, as the kubelet does.
                if is_variable(&name) {
                    let value = text(&name, bytes)?;
                    made.set(&name, value)?;
                }
            }
        }
    }
    for var in &container.env {
        let value = match &var.value_from {
            None => Some(made.expand(&var.name, &var.value)?),
            Some(source) => from_source(pod, container, &var.name, source, facts, objects)?,
        };
        if let Some(value) = value {
            made.set(&var.name, value)?;
        }
    }
    let command = made.expand_all("command", &container.command)?;
    let args = made.expand_all("args", &container.args)?;
    let env = made.order.iter().map(|name| format!("{name}={}", made.values[name])).collect();
    Ok(Process { env, command, args, values: made.values })
}

/// An environment as it grows. `$(A)$(A)` in twenty lines would be a million times the first: all that is kept is counted.
#[derive(Default)]
struct Making {
    order: Vec<String>,
    values: BTreeMap<String, String>,
    bytes: usize,
}

impl Making {
    fn count(&mut self, bytes: usize) -> Result<(), EnvError> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > PROCESS_BYTES_MAX { Err(EnvError::TooLarge) } else { Ok(()) }
    }

    fn set(&mut self, name: &str, value: String) -> Result<(), EnvError> {
        if name.len() + 1 + value.len() > STRING_BYTES_MAX {
            return Err(EnvError::StringTooLarge(format!("the value for {}", name.chars().take(64).collect::<String>())));
        }
        self.count(name.len() + 2 + value.len())?;
        match self.values.insert(name.to_owned(), value) {
            None => self.order.push(name.to_owned()),
            Some(earlier) => self.bytes = self.bytes.saturating_sub(name.len() + 2 + earlier.len()),
        }
        Ok(())
    }

    fn expand(&self, name: &str, text: &str) -> Result<String, EnvError> {
        expand(text, &self.values).ok_or_else(|| EnvError::StringTooLarge(format!("the value for {}", name.chars().take(64).collect::<String>())))
    }

    fn expand_all(&mut self, field: &str, list: &[String]) -> Result<Vec<String>, EnvError> {
        let mut all = Vec::with_capacity(list.len());
        for text in list {
            let word = expand(text, &self.values).ok_or_else(|| EnvError::StringTooLarge(format!("a word of {field}")))?;
            self.count(word.len() + 1)?;
            all.push(word);
        }
        Ok(all)
    }
}

/// Replaces `$(NAME)` by its value; an unknown name stays as it is, `$$(NAME)` gives `$(NAME)` (Kubernetes' rule). `None`
/// for more than [`STRING_BYTES_MAX`].
fn expand(text: &str, values: &BTreeMap<String, String>) -> Option<String> {
    expand_with(text, |name| values.get(name).map(String::as_str), &mut Vec::new())
}

/// Replaces each `$(NAME)` by its value, and says which names have none.
///
/// # Errors
/// The first name without a value; the text itself where the result has more than [`STRING_BYTES_MAX`] bytes.
pub fn expand_strictly(text: &str, values: &BTreeMap<String, String>) -> Result<String, String> {
    let mut unknown = Vec::new();
    let expanded = expand_with(text, |name| values.get(name).map(String::as_str), &mut unknown);
    match (unknown.into_iter().next(), expanded) {
        (Some(name), _) => Err(name),
        (None, Some(expanded)) => Ok(expanded),
        (None, None) => Err(text.to_owned()),
    }
}

fn expand_with<'v>(text: &str, value: impl Fn(&str) -> Option<&'v str>, unknown: &mut Vec<String>) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let tail = &rest[at + 1..];
        if let Some(after) = tail.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = tail.strip_prefix('(').and_then(|t| t.split_once(')')) {
            match value(name) {
                Some(value) => out.push_str(value),
                None => {
                    unknown.push(name.to_owned());
                    out.push_str(&rest[at..at + name.len() + 3]);
                }
            }
            rest = after;
        } else {
            out.push('$');
            rest = tail;
        }
        if out.len() > STRING_BYTES_MAX {
            return None;
        }
    }
    out.push_str(rest);
    (out.len() <= STRING_BYTES_MAX).then_some(out)
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

    fn facts(host_ip: &str) -> Facts {
        Facts { host_ip: host_ip.into(), ..Facts::default() }
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
            assert_eq!(expand(given, &values).as_deref(), Some(want), "{given}");
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
        let made = process(&pod, &pod.spec.containers[0], &facts("10.0.0.2"), &objects()).unwrap();
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
            assert_eq!(process(&pod, &pod.spec.containers[0], &facts(""), &objects()).unwrap_err().to_string(), want);
        }
    }

    #[test]
    fn keys_that_are_no_variable_names_are_left_out() {
        let mut objects = Objects::default();
        let data = r#"{"data":{"1a":"x","a-b.c":"y","_":"z","..":"u",".":"v",".ok":"w","bad key":"k"}}"#;
        objects.insert(false, "cfg".into(), KeyedObject::parse(false, data));
        let plain = pod(r#"{"name":"c","image":"i","envFrom":[{"configMapRef":{"name":"cfg"}}]}"#);
        assert_eq!(process(&plain, &plain.spec.containers[0], &facts(""), &objects).unwrap().env, [".ok=w", "_=z", "a-b.c=y"]);
        // The prefix is part of the name.
        let prefixed = pod(r#"{"name":"c","image":"i","envFrom":[{"prefix":"P","configMapRef":{"name":"cfg"}}]}"#);
        let env = process(&prefixed, &prefixed.spec.containers[0], &facts(""), &objects).unwrap().env;
        assert_eq!(env, ["P.=v", "P..=u", "P.ok=w", "P1a=x", "P_=z", "Pa-b.c=y"]);
    }

    #[test]
    fn binary_data_of_a_config_map_is_no_part_of_an_environment() {
        let mut objects = Objects::default();
        objects.insert(false, "cfg".into(), KeyedObject::parse(false, r#"{"data":{"a":"1"},"binaryData":{"logo.png":"/w==","b":"Mg=="}}"#));
        let env = |container: &str| {
            let pod = pod(container);
            process(&pod, &pod.spec.containers[0], &facts(""), &objects).map(|made| made.env)
        };
        assert_eq!(env(r#"{"name":"c","image":"i","envFrom":[{"configMapRef":{"name":"cfg"}}]}"#).unwrap(), ["a=1"]);
        let by_key = |optional: bool| {
            env(&format!(
                r#"{{"name":"c","image":"i","env":[{{"name":"X","valueFrom":{{"configMapKeyRef":{{"name":"cfg","key":"b","optional":{optional}}}}}}}]}}"#
            ))
        };
        assert_eq!(by_key(false).unwrap_err().to_string(), "couldn't find key b in ConfigMap ns/cfg");
        assert_eq!(by_key(true).unwrap(), [""; 0]);
    }

    #[test]
    fn resources_of_this_and_of_another_container_are_answered() {
        let pod = pod(r#"{"name":"c","image":"i","resources":{"limits":{"memory":"1Mi"}},"env":[
            {"name":"M","valueFrom":{"resourceFieldRef":{"resource":"limits.memory"}}},
            {"name":"O","valueFrom":{"resourceFieldRef":{"containerName":"d","resource":"limits.cpu","divisor":"1m"}}}]},
            {"name":"d","image":"i"}"#);
        let facts = Facts { machine: Capacity { cpu_nano: 2_000_000_000, memory: 1 << 30 }, ..Facts::default() };
        assert_eq!(process(&pod, &pod.spec.containers[0], &facts, &Objects::default()).unwrap().env, ["M=1048576", "O=2000"]);
    }

    #[test]
    fn an_environment_that_grows_by_expansion_ends_with_an_error_before_it_is_large() {
        let doubling = |lines: usize, first: usize| {
            let mut env = vec![format!(r#"{{"name":"V0","value":"{}"}}"#, "x".repeat(first))];
            env.extend((1..lines).map(|n| format!(r#"{{"name":"V{n}","value":"$(V{0})$(V{0})"}}"#, n - 1)));
            pod(&format!(r#"{{"name":"c","image":"i","env":[{}]}}"#, env.join(",")))
        };
        let made = |pod: &Pod| process(pod, &pod.spec.containers[0], &facts(""), &Objects::default()).map(|made| made.env.len());
        assert_eq!(made(&doubling(10, 10)), Ok(10));
        assert!(matches!(made(&doubling(60, 10)), Err(EnvError::StringTooLarge(what)) if what == "the value for V14"));
        let many: Vec<String> = (0..20).map(|n| format!(r#"{{"name":"W{n}","value":"{}"}}"#, "x".repeat(100_000))).collect();
        let many = pod(&format!(r#"{{"name":"c","image":"i","env":[{}]}}"#, many.join(",")));
        assert_eq!(made(&many), Err(EnvError::TooLarge));
        // A variable that is set again counts once.
        let again: Vec<String> = (0..20).map(|_| format!(r#"{{"name":"W","value":"{}"}}"#, "x".repeat(100_000))).collect();
        let again = pod(&format!(r#"{{"name":"c","image":"i","env":[{}]}}"#, again.join(",")));
        assert_eq!(made(&again), Ok(1));
        let words = format!(r#""{}""#, "$(A)".repeat(1000));
        let words = pod(&format!(r#"{{"name":"c","image":"i","args":[{words}],"env":[{{"name":"A","value":"{}"}}]}}"#, "x".repeat(1000)));
        assert_eq!(made(&words), Err(EnvError::StringTooLarge("a word of args".into())));
    }

    #[test]
    fn a_strict_expansion_names_what_it_does_not_know() {
        let values = BTreeMap::from([("A".to_owned(), "1".to_owned())]);
        for (given, want) in [("$(A)/x", Ok("1/x")), ("$$(B)", Ok("$(B)")), ("$(B)$(C)", Err("B")), ("$(", Ok("$(")), ("$()", Err(""))] {
            assert_eq!(expand_strictly(given, &values), want.map(str::to_owned).map_err(str::to_owned), "{given}");
        }
    }
}
