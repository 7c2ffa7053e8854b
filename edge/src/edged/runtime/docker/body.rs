//! The body of Docker's `POST /containers/create`, and what it hands on to `mount`: pure.
//!
//! The crate's builder lacks what a pod needs (dropped capabilities, a read-only root, process limits, resolver options,
//! mounts that must exist), so the body is ours. Only fields of API 1.40 and later.

use std::collections::BTreeMap;

use serde::Serialize;

use super::super::{ContainerSpec, Memory, Mount, MountSource, Namespace, Network, Propagation};

/// A container to be made.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct CreateBody<'a> {
    image: &'a str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    entrypoint: &'a [String],
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    cmd: &'a [String],
    env: &'a [String],
    labels: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "str::is_empty")]
    working_dir: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    user: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    hostname: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    stop_signal: &'a str,
    healthcheck: Healthcheck,
    tty: bool,
    open_stdin: bool,
    stdin_once: bool,
    exposed_ports: BTreeMap<String, Empty>,
    host_config: HostConfig<'a>,
}

#[derive(Debug, Serialize)]
struct Empty {}

/// Always none: the image's own, which the engine would run, is no business of a pod.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Healthcheck {
    test: [&'static str; 1],
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct HostConfig<'a> {
    network_mode: String,
    pid_mode: String,
    ipc_mode: String,
    port_bindings: BTreeMap<String, Vec<PortBinding<'a>>>,
    restart_policy: RestartPolicy,
    privileged: bool,
    readonly_rootfs: bool,
    cap_add: &'a [String],
    cap_drop: &'a [String],
    security_opt: &'a [String],
    group_add: Vec<String>,
    mounts: Vec<MountBody<'a>>,
    binds: Vec<String>,
    dns: &'a [String],
    dns_search: &'a [String],
    dns_options: &'a [String],
    extra_hosts: Vec<String>,
    sysctls: &'a BTreeMap<String, String>,
    cpu_shares: u64,
    oom_score_adj: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    nano_cpus: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_swap: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pids_limit: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    masked_paths: Option<[&'static str; 0]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    readonly_paths: Option<[&'static str; 0]>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    init: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct PortBinding<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    host_ip: Option<&'a str>,
    host_port: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct RestartPolicy {
    name: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct MountBody<'a> {
    #[serde(rename = "Type")]
    kind: &'static str,
    source: String,
    target: &'a str,
    read_only: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    bind_options: Option<BindOptions>,
    #[serde(skip_serializing_if = "Option::is_none")]
    volume_options: Option<VolumeOptions>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct BindOptions {
    propagation: &'static str,
    /// Of API 1.42; older engines read over it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    create_mountpoint: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct VolumeOptions {
    no_copy: bool,
}

fn propagation(mount: &Mount) -> &'static str {
    match mount.propagation {
        Propagation::Private => "rprivate",
        Propagation::HostToContainer => "rslave",
        Propagation::Bidirectional => "rshared",
    }
}

/// The older form of a mount: only of such a one old engines make a directory that is missing. A path with a colon cannot be
/// said in it.
fn bind(mount: &Mount) -> Option<String> {
    let MountSource::PathOrDirectory(path) = &mount.source else { return None };
    let path = path.display().to_string();
    if path.contains(':') {
        return None;
    }
    let access = if mount.read_only { "ro" } else { "rw" };
    Some(format!("{path}:{}:{access},{}", mount.target, propagation(mount)))
}

fn mount(mount: &Mount) -> Option<MountBody<'_>> {
    if bind(mount).is_some() {
        return None;
    }
    let propagation = propagation(mount);
    let (kind, source, bind_options, volume_options) = match &mount.source {
        MountSource::Path(path) | MountSource::PathOrDirectory(path) => {
            let create_mountpoint = matches!(mount.source, MountSource::PathOrDirectory(_));
            ("bind", path.display().to_string(), Some(BindOptions { propagation, create_mountpoint }), None)
        }
        // The files of the image below the target are not the volume's.
        MountSource::Volume(name) => ("volume", name.clone(), None, Some(VolumeOptions { no_copy: true })),
    };
    Some(MountBody { kind, source, target: &mount.target, read_only: mount.read_only, bind_options, volume_options })
}

fn namespace(namespace: &Namespace, own: &'static str) -> String {
    match namespace {
        Namespace::Own => own.into(),
        Namespace::Shareable => "shareable".into(),
        Namespace::Host => "host".into(),
        Namespace::Join(id) => format!("container:{id}"),
    }
}

/// The body for a spec, on a machine with so many CPUs.
pub fn create(spec: &ContainerSpec, cpus: u64) -> CreateBody<'_> {
    let (network_mode, has_name) = match &spec.network {
        Network::Host => ("host".into(), false),
        Network::Bridge => ("bridge".into(), true),
        Network::Join(id) => (format!("container:{id}"), false),
    };
    let mut port_bindings: BTreeMap<String, Vec<PortBinding<'_>>> = BTreeMap::new();
    for port in &spec.ports {
        let binding = PortBinding { host_ip: port.host_ip.as_deref(), host_port: port.host_port.to_string() };
        port_bindings.entry(format!("{}/{}", port.container_port, port.protocol)).or_default().push(binding);
    }
    let limits = &spec.limits;
    CreateBody {
        image: &spec.image,
        entrypoint: &spec.command,
        cmd: &spec.args,
        env: &spec.env,
        labels: &spec.labels,
        working_dir: &spec.working_dir,
        user: &spec.user,
        hostname: if has_name { &spec.hostname } else { "" },
        stop_signal: &spec.stop_signal,
        healthcheck: Healthcheck { test: ["NONE"] },
        tty: spec.tty,
        open_stdin: spec.stdin,
        stdin_once: spec.stdin_once,
        exposed_ports: port_bindings.keys().map(|port| (port.clone(), Empty {})).collect(),
        host_config: HostConfig {
            network_mode,
            pid_mode: namespace(&spec.pid, ""),
            ipc_mode: namespace(&spec.ipc, "private"),
            port_bindings,
            restart_policy: RestartPolicy { name: "no" },
            privileged: spec.security.privileged,
            readonly_rootfs: spec.security.read_only_root,
            cap_add: &spec.security.cap_add,
            cap_drop: &spec.security.cap_drop,
            security_opt: &spec.security.options,
            group_add: spec.groups.iter().map(ToString::to_string).collect(),
            mounts: spec.mounts.iter().filter_map(mount).collect(),
            binds: spec.mounts.iter().filter_map(bind).collect(),
            dns: &spec.resolver.nameservers,
            dns_search: &spec.resolver.searches,
            dns_options: &spec.resolver.options,
            extra_hosts: spec.hosts.iter().map(|(name, ip)| format!("{name}:{ip}")).collect(),
            sysctls: &spec.sysctls,
            // The kernel's lowest weight is 2; 1024 is one CPU.
            cpu_shares: (limits.cpu_request_milli.saturating_mul(1024) / 1000).clamp(2, 262_144),
            oom_score_adj: limits.oom_score_adj,
            // More than the machine has is no limit, and the engine would refuse it; below 0.01 likewise.
            nano_cpus: limits.cpu_nano.map(|nano| nano.clamp(10_000_000, cpus.max(1).saturating_mul(1_000_000_000))),
            memory: limits.memory,
            memory_swap: limits.memory,
            pids_limit: limits.pids,
            masked_paths: spec.security.unmasked_proc.then_some([]),
            readonly_paths: spec.security.unmasked_proc.then_some([]),
            init: spec.init,
        },
    }
}

/// Options of a file system in memory (tmpfs(5)), with the modes that a kubelet gives an emptyDir.
pub fn tmpfs(memory: Memory) -> String {
    let rights = memory.group.map_or_else(|| "mode=0777".to_owned(), |group| format!("mode=2777,gid={group}"));
    memory.bytes.map_or_else(|| rights.clone(), |bytes| format!("{rights},size={bytes}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::super::super::{Limits, Publish, Resolver, Security};
    use super::*;
    use serde_json::{Value, json};

    fn body(spec: &ContainerSpec) -> Value {
        serde_json::to_value(create(spec, 2)).unwrap()
    }

    #[test]
    fn every_part_of_a_spec_is_said_in_dockers_words() {
        let mount = |source, read_only, propagation| Mount { source, target: "/t".into(), read_only, propagation };
        let spec = ContainerSpec {
            image: "i:1".into(),
            command: vec!["c".into()],
            args: vec!["a".into()],
            env: vec!["A=1".into()],
            working_dir: "/w".into(),
            user: "1:2".into(),
            groups: vec![7],
            hostname: "h".into(),
            stop_signal: "SIGUSR1".into(),
            mounts: vec![
                mount(MountSource::Path("/p".into()), true, Propagation::HostToContainer),
                mount(MountSource::Volume("v".into()), false, Propagation::Private),
                mount(MountSource::PathOrDirectory("/q".into()), true, Propagation::Private),
            ],
            ports: vec![Publish { container_port: 80, host_port: 8080, protocol: "udp", host_ip: Some("127.0.0.1".into()) }],
            resolver: Resolver { nameservers: vec!["9.9.9.9".into()], searches: vec!["s".into()], options: vec!["o".into()] },
            hosts: vec![("n".into(), "::1".into())],
            ipc: Namespace::Shareable,
            pid: Namespace::Join("x".into()),
            init: true,
            sysctls: [("a".to_owned(), "b".to_owned())].into(),
            limits: Limits { memory: Some(5), cpu_nano: Some(9_000_000_000), cpu_request_milli: 500, pids: Some(3), oom_score_adj: 7 },
            security: Security {
                privileged: true,
                read_only_root: true,
                cap_add: vec!["X".into()],
                cap_drop: vec!["ALL".into()],
                options: vec!["no-new-privileges".into()],
                unmasked_proc: true,
            },
            tty: true,
            stdin: true,
            stdin_once: true,
            ..ContainerSpec::default()
        };
        let mut body = body(&spec);
        let host = body["HostConfig"].take();
        let want = json!({
            "Image": "i:1", "Entrypoint": ["c"], "Cmd": ["a"], "Env": ["A=1"], "Labels": {}, "WorkingDir": "/w", "User": "1:2", "Hostname": "h",
            "StopSignal": "SIGUSR1", "Healthcheck": {"Test": ["NONE"]}, "Tty": true, "OpenStdin": true, "StdinOnce": true, "ExposedPorts": {"80/udp": {}}, "HostConfig": null,
        });
        assert_eq!(body, want);
        let bind = json!({"Type": "bind", "Source": "/p", "Target": "/t", "ReadOnly": true, "BindOptions": {"Propagation": "rslave"}});
        let volume = json!({"Type": "volume", "Source": "v", "Target": "/t", "ReadOnly": false, "VolumeOptions": {"NoCopy": true}});
        for (name, value) in [
            ("NetworkMode", json!("bridge")),
            ("PidMode", json!("container:x")),
            ("IpcMode", json!("shareable")),
            ("PortBindings", json!({"80/udp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}]})),
            ("RestartPolicy", json!({"Name": "no"})),
            ("Privileged", json!(true)),
            ("ReadonlyRootfs", json!(true)),
            ("CapAdd", json!(["X"])),
            ("CapDrop", json!(["ALL"])),
            ("SecurityOpt", json!(["no-new-privileges"])),
            ("GroupAdd", json!(["7"])),
            ("Mounts", json!([bind, volume])),
            ("Binds", json!(["/q:/t:ro,rprivate"])),
            ("Dns", json!(["9.9.9.9"])),
            ("DnsSearch", json!(["s"])),
            ("DnsOptions", json!(["o"])),
            ("ExtraHosts", json!(["n:::1"])),
            ("Sysctls", json!({"a": "b"})),
            ("CpuShares", json!(512)),
            ("OomScoreAdj", json!(7)),
            ("NanoCpus", json!(2_000_000_000_u64)),
            ("Memory", json!(5)),
            ("MemorySwap", json!(5)),
            ("PidsLimit", json!(3)),
            ("MaskedPaths", json!([])),
            ("ReadonlyPaths", json!([])),
            ("Init", json!(true)),
        ] {
            assert_eq!(host[name], value, "{name}");
        }
    }

    #[test]
    fn a_path_with_a_colon_is_mounted_in_the_form_that_can_say_it() {
        let source = MountSource::PathOrDirectory("/dev/pci-0:1".into());
        let mounts = vec![Mount { source, target: "/t".into(), read_only: true, propagation: Propagation::Private }];
        let host = body(&ContainerSpec { mounts, ..ContainerSpec::default() })["HostConfig"].take();
        let options = json!({"Propagation": "rprivate", "CreateMountpoint": true});
        let want = json!({"Type": "bind", "Source": "/dev/pci-0:1", "Target": "/t", "ReadOnly": true, "BindOptions": options});
        assert_eq!((&host["Mounts"], &host["Binds"]), (&json!([want]), &json!([])));
    }

    #[test]
    fn a_file_system_in_memory_has_the_mode_of_an_empty_dir_and_the_group_of_its_pod() {
        let options = |bytes, group| tmpfs(Memory { bytes, group });
        assert_eq!([options(None, None), options(Some(5), None)], ["mode=0777", "mode=0777,size=5"]);
        assert_eq!([options(None, Some(7)), options(Some(5), Some(7))], ["mode=2777,gid=7", "mode=2777,gid=7,size=5"]);
    }

    #[test]
    fn what_is_not_said_is_left_to_the_engine_and_the_image() {
        let body = body(&ContainerSpec { image: "i".into(), hostname: "h".into(), network: Network::Join("x".into()), ..ContainerSpec::default() });
        for absent in ["Entrypoint", "Cmd", "WorkingDir", "User", "Hostname", "StopSignal"] {
            assert_eq!(body.get(absent), None, "{absent}");
        }
        let host = &body["HostConfig"];
        assert_eq!((&host["NetworkMode"], &host["IpcMode"], &host["CpuShares"]), (&json!("container:x"), &json!("private"), &json!(2)));
        for absent in ["NanoCpus", "Memory", "PidsLimit", "MaskedPaths", "Init"] {
            assert_eq!(host.get(absent), None, "{absent}");
        }
    }
}
