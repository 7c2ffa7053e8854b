//! What the engine is told to make: from a pod and its containers to the engine's terms. Pure.

use std::collections::BTreeMap;

use super::pod::{Container, GRACE_SECS_DEFAULT, Pod, Port, Profile, SeLinuxOptions, qos_class};
use super::runtime::{ContainerSpec, Limits, Mount, MountSource, Namespace, Network, Propagation, Publish, Resolver, Security, label};

/// Where the sandbox holds the pod's file systems in memory, so that they outlive each single container.
const SANDBOX_VOLUMES: &str = "/volumes";
/// Nobody: the sandbox's process needs no rights at all.
const SANDBOX_USER: &str = "65535:65535";
/// Killed after everything that pods run (the kubelet's value).
const SANDBOX_OOM_SCORE: i32 = -998;
/// Most name servers, search domains and bytes of them that resolvers read (Kubernetes' limits).
const NAMESERVERS_MAX: usize = 3;

/// What this machine adds to each container.
#[derive(Clone, Copy, Debug, Default)]
pub struct Surroundings {
    /// Bytes of memory of the machine.
    pub memory: u64,
    /// Processes and threads that one container may have (`edged.pod-pids-limit`).
    pub pids: Option<u64>,
}

/// A container's own part that is known only when it is made.
#[derive(Clone, Debug, Default)]
pub struct Made {
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Entrypoint.
    pub command: Vec<String>,
    /// Command.
    pub args: Vec<String>,
    /// Volumes.
    pub mounts: Vec<Mount>,
    /// See [`user`].
    pub user: String,
    /// The machine's resolver configuration; read for a container that has no sandbox to take it from.
    pub machine_resolver: Resolver,
    /// The text of the seccomp profile that [`localhost_seccomp`] names.
    pub seccomp: Option<String>,
    /// How often the container was started before.
    pub attempt: u32,
    /// Depth of its back-off.
    pub level: u32,
}

/// The sandbox of a pod: what its containers share, with a process that does nothing.
pub(super) fn sandbox(pod: &Pod, image: &str, attempt: u32, machine: &Resolver) -> ContainerSpec {
    let context = &pod.spec.security_context;
    let memory = pod.spec.volumes.iter().filter(|volume| volume.is_memory()).map(|volume| Mount {
        source: MountSource::Volume(memory_volume(&pod.metadata.uid, &volume.name)),
        target: format!("{SANDBOX_VOLUMES}/{}", volume.name),
        read_only: false,
        propagation: Propagation::Private,
    });
    let mut labels = pod_labels(pod);
    labels.extend([
        (label::KIND.to_owned(), "sandbox".to_owned()),
        (label::CONTAINER.to_owned(), label::SANDBOX_NAME.to_owned()),
        (label::RESTARTS.to_owned(), attempt.to_string()),
    ]);
    ContainerSpec {
        name: container_name(pod, label::SANDBOX_NAME, attempt),
        image: image.to_owned(),
        user: SANDBOX_USER.into(),
        labels,
        mounts: memory.collect(),
        ports: if pod.spec.host_network { Vec::new() } else { pod.all_containers().flat_map(|one| &one.ports).filter_map(publish).collect() },
        network: if pod.spec.host_network { Network::Host } else { Network::Bridge },
        hostname: hostname(pod),
        resolver: resolver(pod, machine),
        hosts: hosts(pod),
        pid: if pod.spec.host_pid { Namespace::Host } else { Namespace::Own },
        ipc: if pod.spec.host_ipc { Namespace::Host } else { Namespace::Shareable },
        // With one process namespace the first process has to wait for everybody's orphans.
        init: pod.spec.share_process_namespace,
        sysctls: context.sysctls.iter().map(|one| (one.name.clone(), one.value.clone())).collect(),
        limits: Limits { oom_score_adj: SANDBOX_OOM_SCORE, ..Limits::default() },
        security: Security { read_only_root: true, cap_drop: vec!["ALL".into()], options: vec!["no-new-privileges".into()], ..Security::default() },
        ..ContainerSpec::default()
    }
}

/// A container of a pod; `sandbox` is the id of the pod's, `None` in a pod that needs none.
pub(super) fn spec_of(pod: &Pod, container: &Container, sandbox: Option<&str>, machine: &Surroundings, made: Made) -> ContainerSpec {
    let spec = &pod.spec;
    let or = |text: &str, default: &str| if text.is_empty() { default.to_owned() } else { text.to_owned() };
    let mut labels = pod_labels(pod);
    labels.extend(
        [
            (label::KIND, "container".to_owned()),
            (label::CONTAINER, container.name.clone()),
            (label::HASH, container.hash()),
            (label::RESTARTS, made.attempt.to_string()),
            (label::LEVEL, made.level.to_string()),
            (label::MESSAGE_PATH, or(&container.termination_message_path, "/dev/termination-log")),
            (label::MESSAGE_POLICY, or(&container.termination_message_policy, "File")),
        ]
        .map(|(k, v)| (k.to_owned(), v)),
    );
    labels.extend(sandbox.map(|id| (label::SANDBOX.to_owned(), id.to_owned())));
    let join = |is_host: bool, is_shared: bool| match (is_host, sandbox) {
        (true, _) => Namespace::Host,
        (false, Some(id)) if is_shared => Namespace::Join(id.to_owned()),
        (false, _) => Namespace::Own,
    };
    let network = match (spec.host_network, sandbox) {
        (true, _) => Network::Host,
        (false, Some(id)) => Network::Join(id.to_owned()),
        (false, None) => Network::Bridge,
    };
    // Of a joined network these are the sandbox's; the machine's network brings none along.
    let has_names = has_names(pod, sandbox);
    ContainerSpec {
        name: container_name(pod, &container.name, made.attempt),
        image: container.image.clone(),
        command: made.command,
        args: made.args,
        env: made.env,
        working_dir: container.working_dir.clone(),
        user: made.user,
        groups: spec.security_context.supplemental_groups.iter().copied().chain(spec.security_context.fs_group).collect(),
        labels,
        mounts: made.mounts,
        ports: Vec::new(),
        network,
        hostname: hostname(pod),
        resolver: if has_names { resolver(pod, &made.machine_resolver) } else { Resolver::default() },
        hosts: if has_names { hosts(pod) } else { Vec::new() },
        pid: join(spec.host_pid, spec.share_process_namespace),
        ipc: join(spec.host_ipc, true),
        init: false,
        sysctls: BTreeMap::new(),
        limits: limits(pod, container, machine),
        security: security(pod, container, made.seccomp),
        stop_signal: container.lifecycle.stop_signal.clone(),
        stdin: container.stdin,
        stdin_once: container.stdin_once,
        tty: container.tty,
    }
}

/// Whether a container has a resolver configuration and hosts of its own.
pub(super) fn has_names(pod: &Pod, sandbox: Option<&str>) -> bool {
    pod.spec.host_network || sandbox.is_none()
}

/// Name of a container at the engine (the kubelet's form).
fn container_name(pod: &Pod, container: &str, attempt: u32) -> String {
    let metadata = &pod.metadata;
    format!("k8s_{container}_{}_{}_{}_{attempt}", metadata.name, metadata.namespace, metadata.uid)
}

/// Name of the engine's volume for an emptyDir in memory.
pub(super) fn memory_volume(uid: &str, volume: &str) -> String {
    format!("skep_{uid}_{volume}")
}

fn pod_labels(pod: &Pod) -> BTreeMap<String, String> {
    let metadata = &pod.metadata;
    let grace = pod.spec.termination_grace_period_seconds.and_then(|secs| u64::try_from(secs).ok()).unwrap_or(GRACE_SECS_DEFAULT);
    let labels = [
        (label::MANAGED, "true".to_owned()),
        (label::POD_NAME, metadata.name.clone()),
        (label::POD_NAMESPACE, metadata.namespace.clone()),
        (label::POD_UID, metadata.uid.clone()),
        (label::GRACE, grace.to_string()),
    ];
    labels.map(|(k, v)| (k.to_owned(), v)).into()
}

fn limits(pod: &Pod, container: &Container, machine: &Surroundings) -> Limits {
    // The checks of the spec have read these quantities before.
    let request = container.memory_request().ok().flatten().unwrap_or(0);
    let oom_score_adj = match qos_class(pod) {
        "Guaranteed" => -997,
        "BestEffort" => 1000,
        // The more was asked for, the later it is killed; always between the two others (the kubelet's formula).
        _ => {
            let part = 1000_u128 * u128::from(request) / u128::from(machine.memory.max(1));
            1000 - i32::try_from(part).unwrap_or(1000).clamp(1, 997)
        }
    };
    Limits {
        memory: container.memory_limit().ok().flatten(),
        cpu_nano: container.cpu_limit_nano().ok().flatten(),
        cpu_request_milli: container.cpu_request_milli().unwrap_or(0),
        pids: machine.pids,
        oom_score_adj,
    }
}

fn security(pod: &Pod, container: &Container, seccomp: Option<String>) -> Security {
    let (own, shared) = (&container.security_context, &pod.spec.security_context);
    let mut options = Vec::new();
    if own.allow_privilege_escalation == Some(false) {
        options.push("no-new-privileges".to_owned());
    }
    match (own.seccomp_profile.as_ref().or(shared.seccomp_profile.as_ref()), seccomp) {
        (Some(profile), _) if profile.kind == "Unconfined" => options.push("seccomp=unconfined".into()),
        (Some(profile), Some(text)) if profile.kind == "Localhost" => options.push(format!("seccomp={text}")),
        // Without a word, the engine's own filter: stricter than the kubelet, which filters nothing then.
        _ => {}
    }
    if let Some(profile) = own.app_armor_profile.as_ref().or(shared.app_armor_profile.as_ref()) {
        match profile.kind.as_str() {
            "Unconfined" => options.push("apparmor=unconfined".into()),
            "Localhost" => options.push(format!("apparmor={}", profile.localhost_profile)),
            _ => {}
        }
    }
    if let Some(labels) = own.se_linux_options.as_ref().or(shared.se_linux_options.as_ref()) {
        let SeLinuxOptions { user, role, kind, level } = labels;
        let given = [("user", user), ("role", role), ("type", kind), ("level", level)].into_iter().filter(|(_, value)| !value.is_empty());
        options.extend(given.map(|(name, value)| format!("label={name}:{value}")));
    }
    Security {
        privileged: own.privileged,
        read_only_root: own.read_only_root_filesystem,
        cap_add: upper(&own.capabilities.add),
        cap_drop: upper(&own.capabilities.drop),
        options,
        unmasked_proc: own.proc_mount == "Unmasked",
    }
}

/// Capabilities as the kernel's manual writes them.
fn upper(capabilities: &[String]) -> Vec<String> {
    capabilities.iter().map(|one| one.to_ascii_uppercase()).collect()
}

/// Name of the seccomp profile on this machine that a container wants, if it wants one.
pub(super) fn localhost_seccomp<'a>(pod: &'a Pod, container: &'a Container) -> Option<&'a str> {
    let profile = container.security_context.seccomp_profile.as_ref().or(pod.spec.security_context.seccomp_profile.as_ref())?;
    let Profile { kind, localhost_profile } = profile;
    (kind == "Localhost").then_some(localhost_profile)
}

/// Why a container may not run as the user that it would run as.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UserError {
    /// `runAsNonRoot`, and nothing else than 0.
    #[error("container has runAsNonRoot and would run as root; set runAsUser, or use an image with another user")]
    Root,
    /// `runAsNonRoot`, and an image whose user is a name: which number that is stands inside the image.
    #[error("container has runAsNonRoot and image has the non-numeric user `{0}`, which might be root; set runAsUser")]
    Name(String),
}

/// The user of the first process, `uid` or `uid:gid`; empty is the image's own.
///
/// # Errors
/// See [`UserError`].
pub(super) fn user(pod: &Pod, container: &Container, image_user: &str) -> Result<String, UserError> {
    let (own, shared) = (&container.security_context, &pod.spec.security_context);
    let uid = own.run_as_user.or(shared.run_as_user);
    let gid = own.run_as_group.or(shared.run_as_group);
    if own.run_as_non_root.or(shared.run_as_non_root) == Some(true) {
        let name = image_user.split(':').next().unwrap_or_default();
        match (uid, name.parse::<i64>()) {
            (Some(0), _) | (None, Ok(0)) => return Err(UserError::Root),
            (None, Err(_)) if name.is_empty() => return Err(UserError::Root),
            (None, Err(_)) => return Err(UserError::Name(name.to_owned())),
            (Some(_), _) | (None, Ok(_)) => {}
        }
    }
    let base = image_user.split(':').next().filter(|name| !name.is_empty()).unwrap_or("0");
    Ok(match (uid, gid) {
        (None, None) => String::new(),
        // As the kubelet: a user without a group gets group 0, not the image's.
        (Some(uid), None) => uid.to_string(),
        (Some(uid), Some(gid)) => format!("{uid}:{gid}"),
        (None, Some(gid)) => format!("{base}:{gid}"),
    })
}

fn publish(port: &Port) -> Option<Publish> {
    let host_port = u16::try_from(port.host_port).ok().filter(|port| *port != 0)?;
    let container_port = u16::try_from(port.container_port).ok()?;
    let host_ip = Some(port.host_ip.clone()).filter(|ip| !ip.is_empty());
    Some(Publish { container_port, host_port, protocol: port.protocol(), host_ip })
}

/// The host name of a pod: at most 63 bytes, not ending in a dot or hyphen.
pub(super) fn hostname(pod: &Pod) -> String {
    let given = pod.spec.hostname.clone().filter(|name| !name.is_empty());
    given.unwrap_or_else(|| pod.metadata.name.chars().take(63).collect::<String>().trim_end_matches(['.', '-']).to_owned())
}

fn hosts(pod: &Pod) -> Vec<(String, String)> {
    let lines = pod.spec.host_aliases.iter();
    lines.flat_map(|alias| alias.hostnames.iter().map(|name| (name.clone(), alias.ip.clone()))).collect()
}

/// The resolver configuration of a pod: with policy `None` what the pod says, else the machine's with what the pod adds.
/// Where the pod adds nothing, the engine takes the machine's by itself.
fn resolver(pod: &Pod, machine: &Resolver) -> Resolver {
    let config = &pod.spec.dns_config;
    let option = |one: &super::pod::DnsOption| one.value.as_ref().map_or_else(|| one.name.clone(), |value| format!("{}:{value}", one.name));
    let mut own =
        Resolver { nameservers: config.nameservers.clone(), searches: config.searches.clone(), options: config.options.iter().map(option).collect() };
    if pod.spec.dns_policy == "None" {
        // The engine would fill an empty list with the machine's: this is its word for no domain, and a resolver's own default.
        if own.searches.is_empty() {
            own.searches.push(".".into());
        }
        if own.options.is_empty() {
            own.options.push("ndots:1".into());
        }
        return own;
    }
    if own == Resolver::default() {
        return own;
    }
    let joined = |machine: &[String], own: &[String]| {
        let mut all: Vec<String> = Vec::new();
        for one in machine.iter().chain(own) {
            if !all.contains(one) {
                all.push(one.clone());
            }
        }
        all
    };
    let name_of = |option: &str| option.split(':').next().unwrap_or_default().to_owned();
    let kept: Vec<String> = machine.options.iter().filter(|one| !own.options.iter().any(|new| name_of(new) == name_of(one))).cloned().collect();
    let mut nameservers = joined(&machine.nameservers, &own.nameservers);
    nameservers.truncate(NAMESERVERS_MAX);
    Resolver { nameservers, searches: joined(&machine.searches, &own.searches), options: joined(&kept, &own.options) }
}

/// Reads a `resolv.conf`. Servers on the loopback are left out: inside a pod's network nobody answers there.
pub(super) fn parse_resolv_conf(text: &str) -> Resolver {
    let mut found = Resolver::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => {
                let address = words.next().and_then(|word| word.parse::<std::net::IpAddr>().ok()).filter(|ip| !ip.is_loopback());
                found.nameservers.extend(address.map(|ip| ip.to_string()));
            }
            Some("search") => found.searches = words.map(str::to_owned).collect(),
            Some("options") => found.options.extend(words.map(str::to_owned)),
            _ => {}
        }
    }
    found
}
