//! The Node object of this machine and its status (manual ch. 5.2).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::Path;

use model::NodeName;
use serde_json::{Value, json};

use super::status::seconds;

/// Pods that a node takes (KubeEdge and kubelet: 110).
pub const PODS_MAX: u32 = 110;
/// Memory that is kept back for the system and this daemon, in MiB (KubeEdge).
const MEMORY_RESERVED_MIB: u64 = 100;
/// The uid that KubeEdge's edges send in every node status; its cloud does not read it.
pub const STATUS_UID: &str = "38796d14-1df3-11e8-8e5a-286ed488f209";

/// What does not change while the daemon runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// Logical CPUs.
    pub cpus: u64,
    /// MiB.
    pub memory_mib: u64,
    /// Host name of the machine.
    pub hostname: String,
    /// Address that other machines reach; empty when there is no network.
    pub address: String,
    /// `uname -r`.
    pub kernel: String,
    /// `PRETTY_NAME` of the distribution.
    pub os_image: String,
    /// Go's word for the architecture (`amd64`, `arm64`).
    pub architecture: String,
    /// `/etc/machine-id`.
    pub machine_id: String,
    /// Of the mainboard, else the machine id.
    pub system_uuid: String,
    /// Of this boot.
    pub boot_id: String,
}

fn line(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default().trim().chars().take(256).collect()
}

impl Machine {
    /// Looks at the machine. What cannot be read is empty or 0.
    ///
    /// `interface` is the network interface whose address is the node's; without it, or when it has none, the address
    /// of the default route is taken.
    pub fn probe(interface: Option<&str>) -> Self {
        let machine_id = line("/etc/machine-id");
        let uuid = line("/sys/class/dmi/id/product_uuid");
        Self {
            cpus: count_cpus(&std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default()),
            memory_mib: memory_mib(&std::fs::read_to_string("/proc/meminfo").unwrap_or_default()),
            hostname: line("/proc/sys/kernel/hostname"),
            address: address(interface),
            kernel: line("/proc/sys/kernel/osrelease"),
            os_image: pretty_name(&std::fs::read_to_string("/etc/os-release").unwrap_or_default()),
            architecture: architecture().into(),
            system_uuid: if uuid.is_empty() { machine_id.clone() } else { uuid },
            machine_id,
            boot_id: line("/proc/sys/kernel/random/boot_id"),
        }
    }
}

fn count_cpus(cpuinfo: &str) -> u64 {
    let listed = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
    let counted = if listed > 0 { listed } else { std::thread::available_parallelism().map_or(1, usize::from) };
    counted as u64
}

fn memory_mib(meminfo: &str) -> u64 {
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    total.and_then(|rest| rest.split_whitespace().next()).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1024
}

fn pretty_name(os_release: &str) -> String {
    let name = os_release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or_else(|| "Linux".into(), |name| name.trim_matches('"').chars().take(256).collect())
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    }
}

fn address(interface: Option<&str>) -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let named = interface.and_then(|name| address_of(name, &read("/proc/net/route"), &read("/proc/net/fib_trie")));
    if let Some(address) = named {
        return address.to_string();
    }
    // "Connecting" a datagram socket sends nothing; it asks the routing table which address would be used.
    let routed = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|socket| {
        socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9))?;
        socket.local_addr()
    });
    match routed.map(|address| address.ip()) {
        Ok(ip) if !ip.is_unspecified() => ip.to_string(),
        _ => IpAddr::V4(Ipv4Addr::LOCALHOST).to_string(),
    }
}

/// The local address within a network that is routed over the interface, from the kernel's two tables.
fn address_of(interface: &str, route: &str, fib_trie: &str) -> Option<Ipv4Addr> {
    let hex = |text: &str| u32::from_str_radix(text, 16).ok().map(u32::swap_bytes);
    let networks: Vec<(u32, u32)> = route
        .lines()
        .filter_map(|line| {
            let columns: Vec<&str> = line.split_whitespace().collect();
            let (name, network, mask) = (columns.first()?, hex(columns.get(1)?)?, hex(columns.get(7)?)?);
            (*name == interface && mask != 0).then_some((network, mask))
        })
        .collect();
    let mut last = None;
    for line in fib_trie.lines() {
        let text = line.trim();
        if let Some(address) = text.strip_prefix("|-- ") {
            last = address.parse::<Ipv4Addr>().ok();
        } else if text.starts_with("/32 host LOCAL")
            && let Some(address) = last
            && networks.iter().any(|(network, mask)| u32::from(address) & mask == network & mask)
        {
            return Some(address);
        }
    }
    None
}

/// Whether the node can run pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// The engine answers; its name and version.
    Ready(String),
    /// Why not.
    NotReady(String),
}

/// What the cloud is told about this machine.
#[derive(Clone, Debug)]
pub struct NodeReport {
    /// Name of the node.
    pub node: NodeName,
    /// The machine.
    pub machine: Machine,
    /// `nodeInfo.kubeletVersion`.
    pub version: String,
    /// Engine's name and version as last seen, for `nodeInfo`.
    engine: String,
    ready: bool,
    reason: String,
    since: jiff::Timestamp,
}

impl NodeReport {
    /// A node that has not yet heard of its engine.
    pub fn new(node: NodeName, machine: Machine, version: String, now: jiff::Timestamp) -> Self {
        Self { node, machine, version, engine: String::new(), ready: false, reason: "the container engine was not asked yet".into(), since: now }
    }

    /// Takes in what the engine says; `true` if the node's condition changed by it.
    pub fn set(&mut self, readiness: Readiness, now: jiff::Timestamp) -> bool {
        let (ready, reason) = match readiness {
            Readiness::Ready(engine) => {
                self.engine = engine;
                (true, String::new())
            }
            Readiness::NotReady(reason) => (false, reason),
        };
        let changed = (ready, &reason) != (self.ready, &self.reason);
        if ready != self.ready {
            self.since = now;
        }
        (self.ready, self.reason) = (ready, reason);
        changed
    }

    /// Name and version of the engine, if it ever answered.
    pub fn engine(&self) -> Option<String> {
        Some(self.engine.clone()).filter(|engine| !engine.is_empty())
    }

    /// Whether the engine answers.
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// `status` of the Node.
    pub fn status(&self, now: jiff::Timestamp) -> Value {
        let Machine { cpus, memory_mib, .. } = self.machine;
        let resources = |memory: u64| json!({"cpu": cpus.to_string(), "memory": format!("{memory}Mi"), "pods": PODS_MAX.to_string()});
        let (status, reason, message) = match self.ready {
            true => ("True", "EdgeReady", "edge is posting ready status"),
            false => ("False", "EdgeNotReady", self.reason.as_str()),
        };
        let machine = &self.machine;
        json!({
            "capacity": resources(memory_mib),
            "allocatable": resources(memory_mib.saturating_sub(MEMORY_RESERVED_MIB)),
            "phase": "Running",
            "conditions": [{
                "type": "Ready", "status": status, "reason": reason, "message": message,
                "lastHeartbeatTime": seconds(now), "lastTransitionTime": seconds(self.since),
            }],
            "addresses": [{"type": "InternalIP", "address": machine.address}, {"type": "Hostname", "address": machine.hostname}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 0}},
            "nodeInfo": {
                "machineID": machine.machine_id, "systemUUID": machine.system_uuid, "bootID": machine.boot_id,
                "kernelVersion": machine.kernel, "osImage": machine.os_image, "operatingSystem": "linux", "architecture": machine.architecture,
                "containerRuntimeVersion": self.engine, "kubeletVersion": self.version, "kubeProxyVersion": "",
            },
        })
    }

    /// The content of a node status message: KubeEdge's form with its capital names.
    pub fn content(&self, now: jiff::Timestamp) -> Value {
        json!({"UID": STATUS_UID, "Status": self.status(now), "ExtendResources": null})
    }

    /// The Node object for registration.
    pub fn object(&self, now: jiff::Timestamp) -> Value {
        let labels = BTreeMap::from([
            ("kubernetes.io/arch", self.machine.architecture.as_str()),
            ("kubernetes.io/hostname", self.node.as_str()),
            ("kubernetes.io/os", "linux"),
            ("node-role.kubernetes.io/edge", ""),
        ]);
        json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": self.node.as_str(), "labels": labels},
            "spec": {},
            "status": self.status(now),
        })
    }
}

/// Makes the directory of all pods. Blocks on the disk.
///
/// # Errors
/// The data directory cannot be written.
pub fn prepare_dir(pods: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o750).create(pods)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    #[test]
    fn the_machine_is_read_from_the_kernels_files() {
        assert_eq!(memory_mib("MemTotal:       24685284 kB\nMemFree: 1 kB\n"), 24_106);
        assert_eq!(count_cpus("processor\t: 0\nmodel name: x\nprocessor\t: 1\n"), 2);
        assert_eq!(pretty_name("NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n"), "Debian GNU/Linux 12");
        assert_eq!((memory_mib("nonsense"), pretty_name("")), (0, "Linux".to_owned()));
        let here = Machine::probe(None);
        assert!(here.cpus > 0 && here.memory_mib > 0 && !here.kernel.is_empty() && here.address.parse::<IpAddr>().is_ok(), "{here:?}");
    }

    #[test]
    fn the_address_of_a_named_interface_is_found_and_of_an_unknown_one_not() {
        let route = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\nens4\t00000000\t0101A8C0\t0003\t0\t0\t0\t00000000\t0\nens4\t0001A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\ndocker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\n";
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 127.0.0.1\n        /32 host LOCAL\n     |-- 172.17.0.1\n        /32 host LOCAL\n     |-- 192.168.1.0\n        /24 link UNICAST\n     |-- 192.168.1.7\n        /32 host LOCAL\n";
        assert_eq!(address_of("ens4", route, trie), Some(Ipv4Addr::new(192, 168, 1, 7)));
        assert_eq!(address_of("docker0", route, trie), Some(Ipv4Addr::new(172, 17, 0, 1)));
        assert_eq!(address_of("eth9", route, trie), None);
    }

    #[test]
    fn a_node_is_ready_exactly_while_its_engine_answers_and_the_transition_time_tells_since_when() {
        let at = |second| jiff::Timestamp::from_second(second).unwrap();
        let mut report =
            NodeReport::new(NodeName::new("n1").unwrap(), Machine { cpus: 2, memory_mib: 1000, ..Machine::default() }, "v1".into(), at(1));
        let condition = |report: &NodeReport, now| report.status(at(now))["conditions"][0].clone();
        assert_eq!(condition(&report, 2)["status"], "False");
        assert!(report.set(Readiness::Ready("docker://20.10".into()), at(5)));
        assert!(!report.set(Readiness::Ready("docker://20.10".into()), at(9)));
        let ready = condition(&report, 9);
        assert_eq!((ready["status"].as_str(), ready["reason"].as_str()), (Some("True"), Some("EdgeReady")));
        assert_eq!(
            (ready["lastTransitionTime"].as_str(), ready["lastHeartbeatTime"].as_str()),
            (Some("1970-01-01T00:00:05Z"), Some("1970-01-01T00:00:09Z"))
        );
        assert!(report.set(Readiness::NotReady("connection refused".into()), at(20)));
        assert_eq!(
            (condition(&report, 21)["status"].as_str(), condition(&report, 21)["message"].as_str()),
            (Some("False"), Some("connection refused"))
        );
        let status = report.status(at(21));
        assert_eq!((status["capacity"]["memory"].as_str(), status["allocatable"]["memory"].as_str()), (Some("1000Mi"), Some("900Mi")));
        assert_eq!(status["nodeInfo"]["containerRuntimeVersion"], "docker://20.10");
        assert_eq!(report.object(at(21))["metadata"]["labels"]["node-role.kubernetes.io/edge"], "");
        assert_eq!(report.content(at(21))["UID"], STATUS_UID);
    }
}
