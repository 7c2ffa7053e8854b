//! Whether the node has room for one pod more: pure. Rules and reasons are the kubelet's (`GeneralPredicates`).
//!
//! A pod that came from a scheduler fits; one that names its node, or comes from a file, was looked at by nobody.

use super::env::Capacity;
use super::pod::{Container, Pod, Port, Refusal};

/// What the node gives.
#[derive(Clone, Copy, Debug, Default)]
pub struct Room {
    /// Places.
    pub pods_max: u32,
    /// Allocatable; a size of 0 is not known.
    pub allocatable: Capacity,
}

/// Whether `pod` fits beside the others. A critical pod has room: others are ended for it when it comes to that.
///
/// # Errors
/// `OutOfpods`, `OutOfcpu` (in thousandths), `OutOfmemory` (in bytes), `NodePorts`.
pub fn admit(pod: &Pod, others: &[&Pod], room: Room) -> Result<(), Refusal> {
    if !pod.is_critical() {
        let asked = requests(pod);
        let used = others.iter().map(|other| requests(other)).fold(Capacity::default(), plus);
        let milli = |nano: u64| nano / 1_000_000;
        let allocatable = room.allocatable;
        let at_least = |size: u64| if size == 0 { u64::MAX } else { size };
        for (resource, asked, used, size) in [
            ("pods", 1, others.len() as u64, u64::from(room.pods_max)),
            ("cpu", milli(asked.cpu_nano), milli(used.cpu_nano), at_least(milli(allocatable.cpu_nano))),
            ("memory", asked.memory, used.memory, at_least(allocatable.memory)),
        ] {
            if asked > 0 && asked.saturating_add(used) > size {
                let message = format!("Node didn't have enough resource: {resource}, requested: {asked}, used: {used}, capacity: {size}");
                return Err(Refusal { reason: format!("OutOf{resource}"), message });
            }
        }
    }
    match others.iter().find_map(|other| Some((*other, clash(pod, other)?))) {
        Some((other, port)) => {
            let name = other.full_name();
            let message = format!("hostPort {}/{} of this machine is taken by pod {name}", host_port(pod, port), port.protocol().to_uppercase());
            Err(Refusal { reason: "NodePorts".into(), message })
        }
        None => Ok(()),
    }
}

fn plus(a: Capacity, b: Capacity) -> Capacity {
    Capacity { cpu_nano: a.cpu_nano.saturating_add(b.cpu_nano), memory: a.memory.saturating_add(b.memory) }
}

/// What a pod asks for: all its containers and sidecars, or one init container with the sidecars before it, whichever is more.
pub fn requests(pod: &Pod) -> Capacity {
    let of = |one: &Container| Capacity {
        cpu_nano: one.cpu_request_milli().unwrap_or(0).saturating_mul(1_000_000),
        memory: one.memory_request().ok().flatten().unwrap_or(0),
    };
    let (mut sidecars, mut most) = (Capacity::default(), Capacity::default());
    let mut reach = |asked: Capacity| {
        most = Capacity { cpu_nano: most.cpu_nano.max(asked.cpu_nano), memory: most.memory.max(asked.memory) };
    };
    for init in &pod.spec.init_containers {
        reach(plus(sidecars, of(init)));
        if init.is_sidecar() {
            sidecars = plus(sidecars, of(init));
        }
    }
    reach(pod.spec.containers.iter().map(of).fold(sidecars, plus));
    most
}

/// In the machine's network a container's port is the machine's.
fn host_port(pod: &Pod, port: &Port) -> i64 {
    if pod.spec.host_network { port.container_port } else { port.host_port }
}

/// A port of `pod` that `other` has, if nobody but the processes themselves would notice. Between two pods with a sandbox the
/// engine does: there the later one waits until the port is free.
fn clash<'a>(pod: &'a Pod, other: &Pod) -> Option<&'a Port> {
    if !pod.spec.host_network && !other.spec.host_network {
        return None;
    }
    let any = |ip: &str| matches!(ip, "" | "0.0.0.0" | "::");
    let is_same = |one: &Port, of_other: &Port| {
        let (ip, other_ip) = (one.host_ip.as_str(), of_other.host_ip.as_str());
        let port = host_port(pod, one);
        port != 0 && port == host_port(other, of_other) && one.protocol() == of_other.protocol() && (any(ip) || any(other_ip) || ip == other_ip)
    };
    let ports = |pod: &'a Pod| pod.all_containers().flat_map(|one| &one.ports);
    ports(pod).find(|one| other.all_containers().flat_map(|other| &other.ports).any(|of_other| is_same(one, of_other)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use serde_json::{Value, json};

    use super::*;

    fn pod(spec: &Value) -> Pod {
        Pod::parse(&json!({"metadata": {"name": "web", "uid": "u-1"}, "spec": spec}).to_string()).unwrap()
    }

    fn asking(cpu: &str, memory: &str) -> Value {
        json!({"name": "c", "resources": {"requests": {"cpu": cpu, "memory": memory}}})
    }

    fn room() -> Room {
        Room { pods_max: 3, allocatable: Capacity { cpu_nano: 2_000_000_000, memory: 1 << 30 } }
    }

    fn reason(pod: &Pod, others: &[&Pod], room: Room) -> String {
        admit(pod, others, room).map_or_else(|refusal| refusal.reason, |()| String::new())
    }

    #[test]
    fn a_pod_asks_for_its_containers_and_sidecars_or_for_its_largest_init_container() {
        let sidecar = |cpu: &str| json!({"name": "s", "restartPolicy": "Always", "resources": {"limits": {"cpu": cpu}}});
        for (spec, cpu, memory) in [
            (json!({"containers": [asking("1", "1Mi"), asking("500m", "2Mi")]}), 1500, 3),
            (json!({"containers": [asking("1", "8Mi")], "initContainers": [asking("3", "1Mi"), asking("2", "4Mi")]}), 3000, 8),
            (json!({"containers": [asking("1", "1Mi")], "initContainers": [sidecar("1"), asking("1500m", "1Mi")]}), 2500, 1),
            (json!({"containers": [asking("1", "1Mi")], "initContainers": [asking("1500m", "1Mi"), sidecar("1")]}), 2000, 1),
            (json!({"containers": [{"name": "c", "resources": {"limits": {"cpu": "2", "memory": "1Mi"}}}]}), 2000, 1),
            (json!({"containers": [{"name": "c"}]}), 0, 0),
        ] {
            let asked = requests(&pod(&spec));
            assert_eq!((asked.cpu_nano / 1_000_000, asked.memory >> 20), (cpu, memory), "{spec}");
        }
    }

    #[test]
    fn what_is_asked_for_must_be_there_beside_what_others_asked_for() {
        let of = |cpu: &str, memory: &str| pod(&json!({"containers": [asking(cpu, memory)]}));
        let (half, most, nothing) = (of("1", "512Mi"), of("1500m", "1Mi"), pod(&json!({"containers": [{"name": "c"}]})));
        assert_eq!(reason(&half, &[&half], room()), "");
        assert_eq!(reason(&most, &[&half], room()), "OutOfcpu");
        assert_eq!(reason(&of("1m", "513Mi"), &[&half], room()), "OutOfmemory");
        assert_eq!(reason(&nothing, &[&half, &half], room()), "", "who asks for nothing fits on a full node");
        assert_eq!(reason(&nothing, &[&nothing, &nothing, &nothing], room()), "OutOfpods");
        assert_eq!(reason(&of("99", "99Gi"), &[], Room { pods_max: 1, ..Room::default() }), "", "a size that nobody knows");
        assert_eq!(reason(&of("1", "9Ei"), &[&of("1", "9Ei"), &of("1m", "9Ei")], room()), "OutOfcpu", "more than can be counted");
        let said = admit(&most, &[&half], room()).unwrap_err().message;
        assert_eq!(said, "Node didn't have enough resource: cpu, requested: 1500, used: 1000, capacity: 2000");
        let critical = pod(&json!({"priorityClassName": "system-node-critical", "containers": [asking("99", "1Mi")]}));
        assert_eq!(reason(&critical, &[&half], room()), "");
    }

    #[test]
    fn a_port_of_the_machines_network_is_one_pods() {
        let with = |network: bool, port: Value| pod(&json!({"hostNetwork": network, "containers": [{"name": "c", "ports": [port]}]}));
        let host = with(true, json!({"containerPort": 8080}));
        for (port, network, is_refused) in [
            (json!({"containerPort": 8080}), true, true),
            (json!({"containerPort": 8081}), true, false),
            (json!({"containerPort": 8080, "protocol": "UDP"}), true, false),
            (json!({"containerPort": 80, "hostPort": 8080}), false, true),
            (json!({"containerPort": 80, "hostPort": 8080, "hostIP": "127.0.0.1"}), false, true),
            (json!({"containerPort": 8080}), false, false),
        ] {
            let pod = with(network, port.clone());
            assert_eq!(!reason(&pod, &[&host], room()).is_empty(), is_refused, "{port}");
            assert_eq!(!reason(&host, &[&pod], room()).is_empty(), is_refused, "{port} was first");
        }
        let bridged = with(false, json!({"containerPort": 80, "hostPort": 8080}));
        assert_eq!(reason(&bridged, &[&bridged], room()), "", "the engine says so, and it waits");
        let apart = |ip: &str| with(true, json!({"containerPort": 80, "hostIP": ip}));
        assert_eq!(reason(&apart("10.0.0.1"), &[&apart("10.0.0.2")], room()), "");
        let said = admit(&host, &[&host], room()).unwrap_err();
        assert_eq!((said.reason.as_str(), said.message.as_str()), ("NodePorts", "hostPort 8080/TCP of this machine is taken by pod default/web"));
    }
}
