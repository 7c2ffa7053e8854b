//! Whether a pod can run here as it is written: pure.
//!
//! A field that a node agent may leave unread is on a list below; every other field that is not understood is refused by
//! name, because a pod without the field that somebody wrote is another pod.
//!
//! | file | duty |
//! |---|---|
//! | `container` | one container: image, ports, environment, resources, rights, mounts |
//! | `handler` | probes and hooks |
//! | `volume` | one volume |

mod container;
mod handler;
mod volume;

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::Value;

use super::pod::{CONTAINERS_MAX, Pod, Profile, Refusal, Rest, VOLUMES_MAX};

/// What a scheduler, a service mesh or the cluster reads, and a node agent may leave unread.
const SPEC_IGNORED: &[&str] = &[
    "affinity",
    "automountServiceAccountToken",
    "enableServiceLinks",
    "nodeSelector",
    "overhead",
    "preemptionPolicy",
    "priorityClassName",
    "schedulerName",
    "schedulingGates",
    "serviceAccount",
    "subdomain",
    "tolerations",
    "topologySpreadConstraints",
];
/// Of a pod's security context: meant for other systems.
const CONTEXT_IGNORED: &[&str] = &["windowsOptions"];
/// Largest user or group id.
const ID_MAX: i64 = i32::MAX as i64;
/// Most entries of a small list (host aliases, sysctls, groups, secrets).
const LIST_MAX: usize = 256;

/// The first field of `rest` that has a meaning and is not on the list.
fn unknown<'a>(rest: &'a Rest, ignored: &[&str]) -> Option<&'a str> {
    rest.iter().find(|(name, value)| !ignored.contains(&name.as_str()) && !says_nothing(value)).map(|(name, _)| name.as_str())
}

/// Go's zero values, which an encoder may write for an absent field.
fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::String(text) => text.is_empty(),
        Value::Bool(true) | Value::Number(_) => false,
    }
}

/// A DNS label: 1–63 of `[a-z0-9-]`, not at an end a hyphen.
fn is_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// A DNS subdomain: labels joined by dots, at most 253 bytes.
pub(crate) fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_label)
}

/// A uid that may become part of a path and of a container's name: 1–128 of `[A-Za-z0-9-]`.
pub(super) fn is_uid(text: &str) -> bool {
    (1..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// An absolute path in a container that leaves nothing upwards, as Kubernetes has it without a colon: engines separate by it.
fn check_path(field: &str, path: &str) -> Result<(), Refusal> {
    check_machine_path(field, path)?;
    if path.contains(':') { Err(Refusal::invalid(field, "must not contain `:`")) } else { Ok(()) }
}

/// An absolute path of the machine that leaves nothing upwards. Names below `/dev/serial/by-path` have colons.
fn check_machine_path(field: &str, path: &str) -> Result<(), Refusal> {
    if !path.starts_with('/') {
        return Err(Refusal::invalid(field, format_args!("must be absolute, not `{}`", shown(path))));
    }
    if path.len() > 4096 || path.contains(['\0', '\n']) {
        return Err(Refusal::invalid(field, "must have at most 4096 bytes and no control characters"));
    }
    if path.split('/').any(|part| part == "..") {
        return Err(Refusal::invalid(field, "must not contain `..`"));
    }
    Ok(())
}

/// A value for a message: its beginning, without control characters.
pub(super) fn shown(text: &str) -> String {
    text.chars().take(64).map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn check_number(field: &str, value: Option<i64>, least: i64, most: i64) -> Result<(), Refusal> {
    match value {
        Some(number) if !(least..=most).contains(&number) => Err(Refusal::invalid(field, format_args!("must be {least}–{most}, not {number}"))),
        _ => Ok(()),
    }
}

fn check_profile(field: &str, profile: Option<&Profile>) -> Result<(), Refusal> {
    let Some(profile) = profile else { return Ok(()) };
    let name = &profile.localhost_profile;
    let is_plain = name.split('/').all(|part| !part.is_empty() && part != ".." && part != ".")
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/".contains(&b))
        && name.len() <= 255;
    match (profile.kind.as_str(), name.is_empty()) {
        ("RuntimeDefault" | "Unconfined", true) => Ok(()),
        ("Localhost", false) if is_plain => Ok(()),
        ("Localhost", _) => Err(Refusal::invalid(format_args!("{field}.localhostProfile"), "must be a relative path without `..`")),
        ("RuntimeDefault" | "Unconfined", false) => Err(Refusal::invalid(format_args!("{field}.localhostProfile"), "goes only with type Localhost")),
        (other, _) => {
            let why = format!("must be RuntimeDefault, Unconfined or Localhost, not `{}`", shown(other));
            Err(Refusal::invalid(format_args!("{field}.type"), why))
        }
    }
}

fn check_list<T>(field: &str, list: &[T]) -> Result<(), Refusal> {
    if list.len() > LIST_MAX { Err(Refusal::invalid(field, format_args!("must have at most {LIST_MAX} entries"))) } else { Ok(()) }
}

impl Pod {
    /// Decides whether this edge can run the pod as it is written.
    ///
    /// # Errors
    /// The first field that would be wrong to ignore, or that is out of range.
    pub fn check(&self) -> Result<(), Refusal> {
        let (metadata, spec) = (&self.metadata, &self.spec);
        if !is_subdomain(&metadata.name) || !is_label(&metadata.namespace) {
            return Err(Refusal::invalid("metadata.name", "and metadata.namespace must be DNS names"));
        }
        if let Some(field) = unknown(&spec.rest, SPEC_IGNORED) {
            return Err(Refusal::unsupported(format_args!("spec.{field}")));
        }
        if spec.host_users == Some(false) {
            return Err(Refusal::unsupported("spec.hostUsers: false"));
        }
        if spec.os.as_ref().is_some_and(|os| !os.name.is_empty() && os.name != "linux") {
            return Err(Refusal::unsupported("spec.os other than linux"));
        }
        if spec.hostname.as_deref().is_some_and(|name| !name.is_empty() && !is_label(name)) {
            return Err(Refusal::invalid("spec.hostname", "must be a DNS label"));
        }
        if spec.host_pid && spec.share_process_namespace {
            return Err(Refusal::invalid("spec.shareProcessNamespace", "and hostPID cannot both be set"));
        }
        if spec.containers.is_empty() || self.all_containers().count() > CONTAINERS_MAX {
            return Err(Refusal::invalid("spec.containers", format_args!("must have 1–{CONTAINERS_MAX} entries, init containers included")));
        }
        if spec.volumes.len() > VOLUMES_MAX {
            return Err(Refusal::invalid("spec.volumes", format_args!("must have at most {VOLUMES_MAX} entries")));
        }
        check_number("spec.terminationGracePeriodSeconds", spec.termination_grace_period_seconds, 0, i64::from(u32::MAX))?;
        check_number("spec.activeDeadlineSeconds", spec.active_deadline_seconds, 1, i64::from(i32::MAX))?;
        self.check_names()?;
        self.check_context()?;
        self.check_volumes()?;
        let (mut names, mut ports) = (BTreeSet::new(), BTreeSet::new());
        let lists = [("spec.initContainers", &spec.init_containers, true), ("spec.containers", &spec.containers, false)];
        for (list, containers, is_init) in lists {
            for container in containers {
                if !names.insert(container.name.as_str()) {
                    return Err(Refusal::invalid(list, format_args!("has the name `{}` twice", shown(&container.name))));
                }
                self.check_container(list, container, is_init, &mut ports)?;
            }
        }
        Ok(())
    }

    /// Names that the pod is to know: its resolver, its hosts, the secrets of its registries.
    fn check_names(&self) -> Result<(), Refusal> {
        let spec = &self.spec;
        let (config, policy) = (&spec.dns_config, spec.dns_policy.as_str());
        if !["", "Default", "ClusterFirst", "ClusterFirstWithHostNet", "None"].contains(&policy) {
            return Err(Refusal::invalid(
                "spec.dnsPolicy",
                format_args!("must be Default, ClusterFirst, ClusterFirstWithHostNet or None, not `{}`", shown(policy)),
            ));
        }
        if policy == "None" && config.nameservers.is_empty() {
            return Err(Refusal::invalid("spec.dnsConfig.nameservers", "must have an entry with dnsPolicy None"));
        }
        if config.nameservers.len() > 3 || config.nameservers.iter().any(|server| server.parse::<IpAddr>().is_err()) {
            return Err(Refusal::invalid("spec.dnsConfig.nameservers", "must be at most 3 addresses"));
        }
        if config.searches.len() > 32 || config.searches.iter().any(|domain| !is_subdomain(domain.trim_end_matches('.'))) {
            return Err(Refusal::invalid("spec.dnsConfig.searches", "must be at most 32 DNS names"));
        }
        check_list("spec.dnsConfig.options", &config.options)?;
        let is_word = |text: &str| !text.is_empty() && text.len() <= 64 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        if config.options.iter().any(|one| !is_word(&one.name) || one.value.as_deref().is_some_and(|value| !is_word(value))) {
            return Err(Refusal::invalid("spec.dnsConfig.options", "must have a name and a value of letters and digits"));
        }
        check_list("spec.hostAliases", &spec.host_aliases)?;
        for alias in &spec.host_aliases {
            check_list("spec.hostAliases.hostnames", &alias.hostnames)?;
            if alias.ip.parse::<IpAddr>().is_err() || alias.hostnames.iter().any(|name| !is_subdomain(name)) {
                return Err(Refusal::invalid("spec.hostAliases", format_args!("must have an address and DNS names, unlike `{}`", shown(&alias.ip))));
            }
        }
        check_list("spec.imagePullSecrets", &spec.image_pull_secrets)?;
        if let Some(secret) = spec.image_pull_secrets.iter().find(|secret| !is_subdomain(&secret.name)) {
            return Err(Refusal::invalid("spec.imagePullSecrets", format_args!("must name objects, not `{}`", shown(&secret.name))));
        }
        Ok(())
    }

    fn check_context(&self) -> Result<(), Refusal> {
        let context = &self.spec.security_context;
        if let Some(name) = unknown(&context.rest, CONTEXT_IGNORED) {
            return Err(Refusal::unsupported(format_args!("spec.securityContext.{name}")));
        }
        for (name, id) in [("runAsUser", context.run_as_user), ("runAsGroup", context.run_as_group), ("fsGroup", context.fs_group)] {
            check_number(&format!("spec.securityContext.{name}"), id, 0, ID_MAX)?;
        }
        check_list("spec.securityContext.supplementalGroups", &context.supplemental_groups)?;
        for id in &context.supplemental_groups {
            check_number("spec.securityContext.supplementalGroups", Some(*id), 0, ID_MAX)?;
        }
        if !["", "Always", "OnRootMismatch"].contains(&context.fs_group_change_policy.as_str()) {
            return Err(Refusal::invalid("spec.securityContext.fsGroupChangePolicy", "must be Always or OnRootMismatch"));
        }
        check_profile("spec.securityContext.seccompProfile", context.seccomp_profile.as_ref())?;
        check_profile("spec.securityContext.appArmorProfile", context.app_armor_profile.as_ref())?;
        check_list("spec.securityContext.sysctls", &context.sysctls)?;
        for sysctl in &context.sysctls {
            let name = sysctl.name.replace('/', ".");
            let field = format!("spec.securityContext.sysctls[{}]", shown(&name));
            let is_word = name.split('.').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-'));
            if !is_word || name.len() > 253 || sysctl.value.len() > 4096 {
                return Err(Refusal::invalid(field, "is not a kernel parameter"));
            }
            let of_network = name.starts_with("net.");
            let of_ipc = name.starts_with("kernel.shm") || name.starts_with("kernel.msg") || name == "kernel.sem" || name.starts_with("fs.mqueue.");
            if !of_network && !of_ipc {
                return Err(Refusal::invalid(field, "is not a parameter of a pod's own namespaces"));
            }
            if of_network && self.spec.host_network || of_ipc && self.spec.host_ipc {
                return Err(Refusal::invalid(field, "cannot be set in a namespace of the machine"));
            }
        }
        Ok(())
    }
}
