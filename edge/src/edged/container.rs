//! What the engine is told to make: from a container of a pod to the engine's terms. Pure.

use std::path::Path;

use super::pod::{Container, GRACE_SECS_DEFAULT, Pod, Port, VolumeMount};
use super::runtime::{Bind, ContainerSpec, Network, Publish, label};
use super::volume;

/// The container to be made, without name, environment and what differs from try to try.
pub(super) fn spec_of(pod: &Pod, container: &Container, pods: &Path, join: Option<String>) -> ContainerSpec {
    let metadata = &pod.metadata;
    let network = match (pod.spec.host_network, &join) {
        (true, _) => Network::Host,
        (false, Some(id)) => Network::Join(id.clone()),
        (false, None) => Network::Bridge,
    };
    // Ports belong to the network: whoever brings it publishes those of the whole pod.
    let ports = match network {
        Network::Bridge => pod.spec.containers.iter().flat_map(|one| &one.ports).filter_map(publish).collect(),
        Network::Host | Network::Join(_) => Vec::new(),
    };
    let or = |text: &str, default: &str| if text.is_empty() { default.to_owned() } else { text.to_owned() };
    let grace = pod.spec.termination_grace_period_seconds.and_then(|secs| u64::try_from(secs).ok()).unwrap_or(GRACE_SECS_DEFAULT);
    let labels = [
        (label::MANAGED, "true".to_owned()),
        (label::NETWORK, join.unwrap_or_default()),
        (label::POD_NAME, metadata.name.clone()),
        (label::POD_NAMESPACE, metadata.namespace.clone()),
        (label::POD_UID, metadata.uid.clone()),
        (label::GRACE, grace.to_string()),
        (label::CONTAINER, container.name.clone()),
        (label::HASH, container.hash()),
        (label::MESSAGE_PATH, or(&container.termination_message_path, "/dev/termination-log")),
        (label::MESSAGE_POLICY, or(&container.termination_message_policy, "File")),
    ];
    // The checks of the spec have read these quantities before.
    let (memory, cpu_nano) = (container.memory_limit().ok().flatten(), container.cpu_limit_nano().ok().flatten());
    ContainerSpec {
        name: String::new(),
        image: container.image.clone(),
        command: Vec::new(),
        args: Vec::new(),
        env: Vec::new(),
        working_dir: container.working_dir.clone(),
        labels: labels.map(|(k, v)| (k.to_owned(), v)).into_iter().collect(),
        binds: binds(pod, container, pods),
        ports,
        network,
        hostname: pod.spec.hostname.clone().filter(|name| !name.is_empty()).unwrap_or_else(|| hostname(&metadata.name)),
        memory,
        cpu_nano,
        cpu_request_milli: container.cpu_request_milli().unwrap_or(0),
        privileged: container.security_context.privileged,
        host_pid: pod.spec.host_pid,
        host_ipc: pod.spec.host_ipc,
    }
}

fn binds(pod: &Pod, container: &Container, pods: &Path) -> Vec<Bind> {
    let bind = |mount: &VolumeMount| {
        let found = pod.volume(&mount.name)?;
        let source = volume::source(pods, pod, found)?;
        // Files of a ConfigMap or Secret are the edge's: a container that could write there could point a link elsewhere.
        let read_only = mount.read_only || found.config_map.is_some() || found.secret.is_some();
        Some(Bind { source, target: mount.mount_path.clone(), read_only })
    };
    container.mounts().filter_map(bind).collect()
}

fn publish(port: &Port) -> Option<Publish> {
    let host_port = u16::try_from(port.host_port).ok().filter(|port| *port != 0)?;
    let container_port = u16::try_from(port.container_port).ok()?;
    let host_ip = Some(port.host_ip.clone()).filter(|ip| !ip.is_empty());
    Some(Publish { container_port, host_port, protocol: port.protocol(), host_ip })
}

/// A pod's name as a host name: at most 63 bytes, not ending in a dot or hyphen.
fn hostname(name: &str) -> String {
    name.chars().take(63).collect::<String>().trim_end_matches(['.', '-']).to_owned()
}
