//! One container of a pod.

use std::collections::BTreeSet;

use super::super::downward::is_answerable;
use super::super::env::PROCESS_BYTES_MAX;
use super::super::pod::{Container, Pod, Port, Refusal, ResourceFieldRef, VolumeMount};
use super::super::quantity;
use super::{ID_MAX, check_list, check_number, check_path, check_profile, is_label, shown, unknown};

const CONTAINER_IGNORED: &[&str] = &["resizePolicy"];
const CONTEXT_IGNORED: &[&str] = &["windowsOptions"];
/// What a container can ask for and be limited in.
const RESOURCES: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
/// Most ports of one container.
const PORTS_MAX: usize = 1024;

/// Ports of the machine that the pod has taken so far.
pub(super) type HostPorts = BTreeSet<(i64, String, String)>;

impl Pod {
    pub(super) fn check_container(&self, list: &str, container: &Container, is_init: bool, taken: &mut HostPorts) -> Result<(), Refusal> {
        let field = format!("{list}[{}]", shown(&container.name));
        if !is_label(&container.name) {
            return Err(Refusal::invalid(field, "must have a name that is a DNS label"));
        }
        if let Some(name) = unknown(&container.rest, CONTAINER_IGNORED) {
            return Err(Refusal::unsupported(format_args!("{field}.{name}")));
        }
        match (container.restart_policy.as_str(), is_init) {
            ("", _) | ("Always", true) => {}
            (other, true) => {
                return Err(Refusal::invalid(format_args!("{field}.restartPolicy"), format_args!("must be Always, not `{}`", shown(other))));
            }
            (_, false) => return Err(Refusal::unsupported(format_args!("{field}.restartPolicy"))),
        }
        check_image(&field, container)?;
        self.check_ports(&field, container, taken)?;
        self.check_process(&field, container)?;
        check_resources(&field, container)?;
        check_rights(&field, container)?;
        if !["", "File", "FallbackToLogsOnError"].contains(&container.termination_message_policy.as_str()) {
            return Err(Refusal::invalid(format_args!("{field}.terminationMessagePolicy"), "must be File or FallbackToLogsOnError"));
        }
        if !container.termination_message_path.is_empty() {
            check_path(&format!("{field}.terminationMessagePath"), &container.termination_message_path)?;
        }
        container.check_handlers(&field, is_init && !container.is_sidecar())?;
        self.check_mounts(container, &field)
    }

    fn check_ports(&self, field: &str, container: &Container, taken: &mut HostPorts) -> Result<(), Refusal> {
        if container.ports.len() > PORTS_MAX {
            return Err(Refusal::invalid(format_args!("{field}.ports"), format_args!("must have at most {PORTS_MAX} entries")));
        }
        let mut names = BTreeSet::new();
        for port in &container.ports {
            port.check(field, self.spec.host_network)?;
            if !port.name.is_empty() && !names.insert(port.name.as_str()) {
                return Err(Refusal::invalid(format_args!("{field}.ports"), format_args!("has the name `{}` twice", shown(&port.name))));
            }
            if port.host_port != 0 && !taken.insert((port.host_port, port.protocol().into(), port.host_ip.clone())) {
                return Err(Refusal::invalid(format_args!("{field}.ports"), format_args!("uses hostPort {} twice", port.host_port)));
            }
        }
        Ok(())
    }

    fn check_process(&self, field: &str, container: &Container) -> Result<(), Refusal> {
        let words = container.command.iter().chain(&container.args);
        if words.clone().any(|word| word.contains('\0')) {
            return Err(Refusal::invalid(format_args!("{field}.command"), "and args must not contain a zero byte"));
        }
        let bytes = words.map(String::len).sum::<usize>() + container.env.iter().map(|var| var.name.len() + var.value.len()).sum::<usize>();
        if bytes > PROCESS_BYTES_MAX {
            return Err(Refusal::invalid(
                field,
                format_args!("has {bytes} bytes of command and environment, at most {PROCESS_BYTES_MAX} are possible"),
            ));
        }
        if !container.working_dir.is_empty() {
            check_path(&format!("{field}.workingDir"), &container.working_dir)?;
        }
        for var in &container.env {
            let field = format!("{field}.env[{}]", shown(&var.name));
            if var.name.is_empty() || var.name.contains(['=', '\0']) || var.value.contains('\0') {
                return Err(Refusal::invalid(field, "has an impossible name or value"));
            }
            let Some(source) = &var.value_from else { continue };
            if let Some(name) = unknown(&source.rest, &[]) {
                return Err(Refusal::unsupported(format_args!("{field}.valueFrom.{name}")));
            }
            let kinds = [
                source.field_ref.is_some(),
                source.config_map_key_ref.is_some(),
                source.secret_key_ref.is_some(),
                source.resource_field_ref.is_some(),
            ];
            if kinds.iter().filter(|is| **is).count() != 1 || !var.value.is_empty() {
                return Err(Refusal::invalid(field, "must have one valueFrom, and no value beside it"));
            }
            if let Some(path) = source.field_ref.as_ref().map(|r| r.field_path.as_str()).filter(|path| !is_answerable(path)) {
                return Err(Refusal::unsupported(format_args!("{field} fieldRef `{}`", shown(path))));
            }
            if let Some(reference) = &source.resource_field_ref {
                if !reference.container_name.is_empty() && self.container(&reference.container_name).is_none() {
                    return Err(Refusal::invalid(field, "has a resourceFieldRef of no container of the pod"));
                }
                check_resource_ref(&field, reference)?;
            }
        }
        Ok(())
    }

    fn check_mounts(&self, container: &Container, field: &str) -> Result<(), Refusal> {
        let mut targets = BTreeSet::new();
        for mount in container.mounts() {
            let field = format!("{field}.volumeMounts[{}]", shown(&mount.name));
            check_mount(&field, mount)?;
            if !targets.insert(mount.mount_path.trim_end_matches('/')) {
                return Err(Refusal::invalid(format_args!("{field}.mountPath"), "is used twice"));
            }
            let Some(volume) = self.volume(&mount.name) else {
                return Err(Refusal::invalid(field, "names a volume that the pod has not"));
            };
            if volume.is_memory() && !(mount.sub_path.is_empty() && mount.sub_path_expr.is_empty()) {
                return Err(Refusal::unsupported(format_args!("{field}.subPath of an emptyDir in memory")));
            }
            if mount.mount_propagation == "Bidirectional" && !container.security_context.privileged {
                return Err(Refusal::invalid(format_args!("{field}.mountPropagation"), "Bidirectional needs a privileged container"));
            }
        }
        Ok(())
    }
}

fn check_image(field: &str, container: &Container) -> Result<(), Refusal> {
    // Anything else can be put right while the pod runs: then it is this container's trouble alone.
    if container.image.is_empty() {
        return Err(Refusal::invalid(format_args!("{field}.image"), "must not be empty"));
    }
    if !["", "Always", "IfNotPresent", "Never"].contains(&container.image_pull_policy.as_str()) {
        return Err(Refusal::invalid(format_args!("{field}.imagePullPolicy"), "must be Always, IfNotPresent or Never"));
    }
    Ok(())
}

impl Container {
    /// Whether its image has the form of a reference. Only such a one may become part of a request to the engine, which may
    /// still find it wrong.
    pub fn has_reference(&self) -> bool {
        is_reference(&self.image)
    }
}

/// `[host[:port]/]path[:tag][@digest]`, as distribution's grammar has it.
fn is_reference(image: &str) -> bool {
    let (rest, digest) = image.split_once('@').map_or((image, None), |(rest, digest)| (rest, Some(digest)));
    let slash = rest.rfind('/').map_or(0, |at| at + 1);
    let (last, tag) = rest[slash..].split_once(':').map_or((&rest[slash..], None), |(last, tag)| (last, Some(tag)));
    let ends_plainly = |part: &str| [part.bytes().next(), part.bytes().last()].iter().all(|end| end.is_some_and(|b| b.is_ascii_alphanumeric()));
    let is_path = |part: &str| ends_plainly(part) && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b));
    let is_host = |part: &str| ends_plainly(part) && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-:".contains(&b));
    let is_before = rest[..slash].strip_suffix('/').is_none_or(|before| {
        let mut parts = before.split('/');
        parts.next().is_some_and(is_host) && parts.all(is_path)
    });
    let is_tag = |tag: &str| {
        let is_word = tag.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        (1..=128).contains(&tag.len()) && is_word && !tag.starts_with(['.', '-'])
    };
    let is_digest = |digest: &str| digest.strip_prefix("sha256:").is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()));
    image.len() <= 512 && is_before && is_path(last) && tag.is_none_or(is_tag) && digest.is_none_or(is_digest)
}

fn check_resources(field: &str, container: &Container) -> Result<(), Refusal> {
    let field = format!("{field}.resources");
    let resources = &container.resources;
    if let Some(name) = unknown(&resources.rest, &[]) {
        return Err(Refusal::unsupported(format_args!("{field}.{name}")));
    }
    if let Some(name) = resources.limits.keys().find(|name| !RESOURCES.contains(&name.as_str())) {
        return Err(Refusal::unsupported(format_args!("{field}.limits.{}", shown(name))));
    }
    if let Some(name) = resources.requests.keys().find(|name| !RESOURCES.contains(&name.as_str())) {
        return Err(Refusal::unsupported(format_args!("{field}.requests.{}", shown(name))));
    }
    for (list, values) in [("limits", &resources.limits), ("requests", &resources.requests)] {
        for (name, value) in values {
            quantity::of(name, value).map_err(|error| Refusal::invalid(format_args!("{field}.{list}.{name}"), error))?;
        }
    }
    for name in RESOURCES {
        let value = |list: &std::collections::BTreeMap<String, serde_json::Value>| list.get(name).and_then(|value| quantity::of(name, value).ok());
        if let (Some(request), Some(limit)) = (value(&resources.requests), value(&resources.limits))
            && request > limit
            && limit > 0
        {
            return Err(Refusal::invalid(format_args!("{field}.requests.{name}"), "must not be above the limit"));
        }
    }
    Ok(())
}

pub(super) fn check_resource_ref(field: &str, reference: &ResourceFieldRef) -> Result<(), Refusal> {
    let known = ["limits.cpu", "limits.memory", "requests.cpu", "requests.memory"];
    if !known.contains(&reference.resource.as_str()) {
        return Err(Refusal::unsupported(format_args!("{field} resourceFieldRef `{}`", shown(&reference.resource))));
    }
    let Some(divisor) = reference.divisor.as_ref().filter(|divisor| !divisor.is_null()) else { return Ok(()) };
    let resource = reference.resource.rsplit('.').next().unwrap_or_default();
    quantity::of(resource, divisor).map(|_| ()).map_err(|error| Refusal::invalid(format_args!("{field}.divisor"), error))
}

fn check_rights(field: &str, container: &Container) -> Result<(), Refusal> {
    let field = format!("{field}.securityContext");
    let context = &container.security_context;
    if let Some(name) = unknown(&context.rest, CONTEXT_IGNORED) {
        return Err(Refusal::unsupported(format_args!("{field}.{name}")));
    }
    if context.allow_privilege_escalation == Some(false) && context.privileged {
        return Err(Refusal::invalid(format_args!("{field}.allowPrivilegeEscalation"), "cannot be false in a privileged container"));
    }
    check_number(&format!("{field}.runAsUser"), context.run_as_user, 0, ID_MAX)?;
    check_number(&format!("{field}.runAsGroup"), context.run_as_group, 0, ID_MAX)?;
    check_profile(&format!("{field}.seccompProfile"), context.seccomp_profile.as_ref())?;
    check_profile(&format!("{field}.appArmorProfile"), context.app_armor_profile.as_ref())?;
    if !["", "Default", "Unmasked"].contains(&context.proc_mount.as_str()) {
        return Err(Refusal::invalid(format_args!("{field}.procMount"), "must be Default or Unmasked"));
    }
    for capability in context.capabilities.add.iter().chain(&context.capabilities.drop) {
        check_list(&field, &context.capabilities.add)?;
        check_list(&field, &context.capabilities.drop)?;
        // Engines ignore the case, and so do all who write `all`.
        let is_word = (1..=64).contains(&capability.len()) && capability.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !is_word {
            return Err(Refusal::invalid(format_args!("{field}.capabilities"), format_args!("has `{}`, which is none", shown(capability))));
        }
    }
    Ok(())
}

fn check_mount(field: &str, mount: &VolumeMount) -> Result<(), Refusal> {
    if let Some(name) = unknown(&mount.rest, &[]) {
        return Err(Refusal::unsupported(format_args!("{field}.{name}")));
    }
    check_path(&format!("{field}.mountPath"), &mount.mount_path)?;
    if mount.mount_path.trim_end_matches('/').is_empty() {
        return Err(Refusal::invalid(format_args!("{field}.mountPath"), "must not be the root"));
    }
    if !["", "None", "HostToContainer", "Bidirectional"].contains(&mount.mount_propagation.as_str()) {
        return Err(Refusal::invalid(format_args!("{field}.mountPropagation"), "must be None, HostToContainer or Bidirectional"));
    }
    if !["", "Disabled", "IfPossible"].contains(&mount.recursive_read_only.as_str()) {
        return Err(Refusal::unsupported(format_args!("{field}.recursiveReadOnly")));
    }
    if !mount.sub_path.is_empty() && !mount.sub_path_expr.is_empty() {
        return Err(Refusal::invalid(field, "must not have both subPath and subPathExpr"));
    }
    for (name, path) in [("subPath", &mount.sub_path), ("subPathExpr", &mount.sub_path_expr)] {
        let is_inside = path.len() <= 4096 && !path.starts_with('/') && !path.contains('\0') && path.split('/').all(|part| part != "..");
        if !is_inside {
            return Err(Refusal::invalid(format_args!("{field}.{name}"), "must be a relative path without `..`"));
        }
    }
    Ok(())
}

impl Port {
    fn check(&self, field: &str, host_network: bool) -> Result<(), Refusal> {
        let field = format!("{field}.ports");
        if !["", "TCP", "UDP", "SCTP"].contains(&self.protocol.as_str()) {
            return Err(Refusal::invalid(field, format_args!("has an unknown protocol `{}`", shown(&self.protocol))));
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
        if self.name.len() > 15 || !self.name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
            return Err(Refusal::invalid(field, format_args!("has the name `{}`, at most 15 of [a-z0-9-] are possible", shown(&self.name))));
        }
        Ok(())
    }
}
