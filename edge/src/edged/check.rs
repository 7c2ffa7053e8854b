//! Whether a pod can run here as it is written: pure.
//!
//! A field that a node agent may leave unread is on a list below; every other field that is not understood is refused by
//! name, because a pod without the probe or the init container that somebody wrote is another pod.

use std::collections::BTreeSet;

use serde_json::Value;

use super::pod::{CONTAINERS_MAX, Container, Pod, Port, Refusal, Rest, VOLUMES_MAX};

/// What a scheduler, a service mesh or the cluster reads, and a node agent may leave unread.
const SPEC_IGNORED: &[&str] = &[
    "affinity",
    "automountServiceAccountToken",
    "enableServiceLinks",
    // An image that needs them cannot be pulled, which the container's status then says.
    "imagePullSecrets",
    "nodeSelector",
    "overhead",
    "preemptionPolicy",
    "priority",
    "priorityClassName",
    "schedulerName",
    "schedulingGates",
    "serviceAccount",
    "subdomain",
    "tolerations",
    "topologySpreadConstraints",
];
const CONTAINER_IGNORED: &[&str] = &["resizePolicy"];
const MOUNT_DEFAULTS: &[(&str, &str)] = &[("mountPropagation", "None"), ("recursiveReadOnly", "Disabled")];

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
pub(super) fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_label)
}

/// A uid that may become part of a path and of a container's name: 1–128 of `[A-Za-z0-9-]`.
pub(super) fn is_uid(text: &str) -> bool {
    (1..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// An absolute path that can stand in Docker's `source:target` notation and leaves nothing upwards.
fn check_path(field: &str, path: &str) -> Result<(), Refusal> {
    if !path.starts_with('/') {
        return Err(Refusal::invalid(field, format_args!("must be absolute, not `{path}`")));
    }
    if path.len() > 4096 || path.contains([':', '\0', '\n']) {
        return Err(Refusal::invalid(field, "must have at most 4096 bytes and neither `:` nor control characters"));
    }
    if path.split('/').any(|part| part == "..") {
        return Err(Refusal::invalid(field, "must not contain `..`"));
    }
    Ok(())
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
        if spec.dns_policy == "None" {
            return Err(Refusal::unsupported("spec.dnsPolicy: None"));
        }
        if spec.os.as_ref().is_some_and(|os| !os.name.is_empty() && os.name != "linux") {
            return Err(Refusal::unsupported("spec.os other than linux"));
        }
        if spec.hostname.as_deref().is_some_and(|name| !name.is_empty() && !is_label(name)) {
            return Err(Refusal::invalid("spec.hostname", "must be a DNS label"));
        }
        if spec.containers.is_empty() || spec.containers.len() > CONTAINERS_MAX {
            return Err(Refusal::invalid("spec.containers", format_args!("must have 1–{CONTAINERS_MAX} entries")));
        }
        if spec.volumes.len() > VOLUMES_MAX {
            return Err(Refusal::invalid("spec.volumes", format_args!("must have at most {VOLUMES_MAX} entries")));
        }
        if spec.termination_grace_period_seconds.is_some_and(|secs| secs < 0) {
            return Err(Refusal::invalid("spec.terminationGracePeriodSeconds", "must not be negative"));
        }
        self.check_volumes()?;
        let mut names = BTreeSet::new();
        let mut host_ports = BTreeSet::new();
        for container in &spec.containers {
            if !names.insert(container.name.as_str()) {
                return Err(Refusal::invalid("spec.containers", format_args!("has `{}` twice", container.name)));
            }
            self.check_container(container, &mut host_ports)?;
        }
        Ok(())
    }

    fn check_volumes(&self) -> Result<(), Refusal> {
        let mut names = BTreeSet::new();
        for volume in &self.spec.volumes {
            let field = format!("spec.volumes[{}]", volume.name);
            if !is_label(&volume.name) || !names.insert(volume.name.as_str()) {
                return Err(Refusal::invalid(field, "must have a name of its own that is a DNS label"));
            }
            if volume.is_api_access() {
                continue;
            }
            if let Some(kind) = unknown(&volume.rest, &[]) {
                return Err(Refusal::unsupported(format_args!("{field}.{kind}")));
            }
            let kinds = [volume.config_map.is_some(), volume.secret.is_some(), volume.empty_dir.is_some(), volume.host_path.is_some()];
            match kinds.iter().filter(|is| **is).count() {
                // Kubernetes reads a volume without a kind as an emptyDir.
                0 | 1 => {}
                _ => return Err(Refusal::invalid(field, "must have one kind only")),
            }
            for source in volume.config_map.iter().chain(&volume.secret) {
                if !is_subdomain(&source.name) {
                    return Err(Refusal::invalid(field, "must name an object"));
                }
            }
            if let Some(dir) = &volume.empty_dir {
                if !dir.medium.is_empty() {
                    return Err(Refusal::unsupported(format_args!("{field}.emptyDir.medium: {}", dir.medium)));
                }
                if dir.size_limit.as_ref().is_some_and(|limit| !says_nothing(limit)) {
                    return Err(Refusal::unsupported(format_args!("{field}.emptyDir.sizeLimit")));
                }
            }
            if let Some(host) = &volume.host_path {
                check_path(&format!("{field}.hostPath.path"), &host.path)?;
                if !HOST_PATH_KINDS.contains(&host.kind.as_str()) {
                    return Err(Refusal::invalid(field, format_args!("has an unknown hostPath type `{}`", host.kind)));
                }
            }
        }
        Ok(())
    }

    fn check_container(&self, container: &Container, host_ports: &mut BTreeSet<(i64, String, String)>) -> Result<(), Refusal> {
        let field = format!("spec.containers[{}]", container.name);
        if !is_label(&container.name) {
            return Err(Refusal::invalid(field, "must have a name that is a DNS label"));
        }
        if let Some(name) = unknown(&container.rest, CONTAINER_IGNORED) {
            return Err(Refusal::unsupported(format_args!("{field}.{name}")));
        }
        if let Some(name) = unknown(&container.security_context.rest, &[]) {
            return Err(Refusal::unsupported(format_args!("{field}.securityContext.{name}")));
        }
        if container.security_context.allow_privilege_escalation == Some(false) {
            return Err(Refusal::unsupported(format_args!("{field}.securityContext.allowPrivilegeEscalation: false")));
        }
        let image_ok = !container.image.is_empty()
            && container.image.len() <= 512
            && container.image.bytes().all(|b| b.is_ascii_graphic() && !b"?#%&\\\"'".contains(&b));
        if !image_ok || container.image.split('/').any(|part| part == "..") {
            return Err(Refusal::invalid(format_args!("{field}.image"), "is not an image reference"));
        }
        if !["", "Always", "IfNotPresent", "Never"].contains(&container.image_pull_policy.as_str()) {
            return Err(Refusal::invalid(format_args!("{field}.imagePullPolicy"), "must be Always, IfNotPresent or Never"));
        }
        for port in &container.ports {
            port.check(&field, self.spec.host_network)?;
            if port.host_port != 0 && !host_ports.insert((port.host_port, port.protocol().into(), port.host_ip.clone())) {
                return Err(Refusal::invalid(format_args!("{field}.ports"), format_args!("uses hostPort {} twice", port.host_port)));
            }
        }
        for var in &container.env {
            if var.name.is_empty() || var.name.contains(['=', '\0']) || var.value.contains('\0') {
                return Err(Refusal::invalid(format_args!("{field}.env"), format_args!("has an impossible name or value `{}`", var.name)));
            }
            if let Some(name) = var.value_from.as_ref().and_then(|source| unknown(&source.rest, &[])) {
                return Err(Refusal::unsupported(format_args!("{field}.env[{}].valueFrom.{name}", var.name)));
            }
            let path = var.value_from.as_ref().and_then(|source| source.field_ref.as_ref()).map(|r| r.field_path.as_str());
            if let Some(path) = path.filter(|path| !super::env::is_answerable(path, self.spec.host_network)) {
                return Err(Refusal::unsupported(format_args!("{field}.env[{}] fieldRef {path}", var.name)));
            }
        }
        if let Some(name) = container.resources.limits.keys().find(|name| !["cpu", "memory"].contains(&name.as_str())) {
            return Err(Refusal::unsupported(format_args!("{field}.resources.limits.{name}")));
        }
        if let Some(name) = unknown(&container.resources.rest, &[]) {
            return Err(Refusal::unsupported(format_args!("{field}.resources.{name}")));
        }
        container
            .cpu_limit_nano()
            .and(container.cpu_request_milli().map(Some))
            .map_err(|e| Refusal::invalid(format_args!("{field}.resources cpu"), e))?;
        container.memory_limit().map_err(|e| Refusal::invalid(format_args!("{field}.resources memory"), e))?;
        self.check_mounts(container, &field)
    }

    fn check_mounts(&self, container: &Container, field: &str) -> Result<(), Refusal> {
        if !container.working_dir.is_empty() {
            check_path(&format!("{field}.workingDir"), &container.working_dir)?;
        }
        let mut targets = BTreeSet::new();
        for mount in container.mounts() {
            let field = format!("{field}.volumeMounts[{}]", mount.name);
            let is_default = |name: &str, value: &Value| MOUNT_DEFAULTS.iter().any(|(n, v)| *n == name && value.as_str() == Some(v));
            if let Some((name, _)) = mount.rest.iter().find(|(name, value)| !says_nothing(value) && !is_default(name, value)) {
                return Err(Refusal::unsupported(format_args!("{field}.{name}")));
            }
            check_path(&format!("{field}.mountPath"), &mount.mount_path)?;
            if mount.mount_path.trim_end_matches('/').is_empty() {
                return Err(Refusal::invalid(format_args!("{field}.mountPath"), "must not be the root"));
            }
            if !targets.insert(mount.mount_path.trim_end_matches('/')) {
                return Err(Refusal::invalid(format_args!("{field}.mountPath"), "is used twice"));
            }
            if self.volume(&mount.name).is_none() {
                return Err(Refusal::invalid(field, "names a volume that the pod has not"));
            }
        }
        Ok(())
    }
}

const HOST_PATH_KINDS: &[&str] = &["", "DirectoryOrCreate", "Directory", "FileOrCreate", "File", "Socket", "CharDevice", "BlockDevice"];

impl Port {
    fn check(&self, field: &str, host_network: bool) -> Result<(), Refusal> {
        let field = format!("{field}.ports");
        if !["", "TCP", "UDP", "SCTP"].contains(&self.protocol.as_str()) {
            return Err(Refusal::invalid(field, format_args!("has an unknown protocol `{}`", self.protocol)));
        }
        if !(1..=65_535).contains(&self.container_port) || !(0..=65_535).contains(&self.host_port) {
            return Err(Refusal::invalid(field, "must be 1–65535"));
        }
        if !self.host_ip.is_empty() && self.host_ip.parse::<std::net::IpAddr>().is_err() {
            return Err(Refusal::invalid(field, "has a hostIP that is no address"));
        }
        if host_network && self.host_port != 0 && self.host_port != self.container_port {
            return Err(Refusal::invalid(field, "must have hostPort equal to containerPort with hostNetwork"));
        }
        Ok(())
    }
}
