//! What pods take of a node and what is left of it: resources, places, host ports. Pure.

use std::collections::BTreeMap;

use model::quantity::{self, QuantityError};
use serde_json::Value;

use super::placement::Obstacle;
use crate::embedded::object::Object;

/// Of each resource so much: of `cpu` billionths, of all else units.
pub type Amounts = BTreeMap<String, u64>;

/// Every address of the machine.
const ANY: &str = "0.0.0.0";

/// What a pod takes of the node that it is on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    amounts: Amounts,
    ports: Vec<HostPort>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct HostPort {
    number: u64,
    protocol: String,
    address: String,
}

impl Demand {
    /// Reads it from a pod as Kubernetes does: what its containers and sidecars ask for together, or more if an init
    /// container with the sidecars before it asks for more; and the overhead.
    pub fn of(pod: &Object) -> Self {
        let (mut running, mut sidecars, mut starting) = (Amounts::new(), Amounts::new(), Amounts::new());
        for container in pod.list_at("/spec/containers") {
            add(&mut running, &requests(container));
        }
        for container in pod.list_at("/spec/initContainers") {
            let mut own = requests(container);
            if is_sidecar(container) {
                add(&mut running, &own);
                add(&mut sidecars, &own);
            } else {
                add(&mut own, &sidecars);
                raise(&mut starting, own);
            }
        }
        raise(&mut running, starting);
        add(&mut running, &asked(&pod.value()["spec"]["overhead"]));
        running.retain(|_, amount| *amount > 0);
        Self { amounts: running, ports: ports(pod) }
    }
}

fn is_sidecar(container: &Value) -> bool {
    container["restartPolicy"] == "Always"
}

/// What is limited and not requested is requested up to the limit.
fn requests(container: &Value) -> Amounts {
    let resources = &container["resources"];
    let mut amounts = asked(&resources["limits"]);
    amounts.extend(asked(&resources["requests"]));
    amounts
}

fn asked(list: &Value) -> Amounts {
    let list = list.as_object().into_iter().flatten();
    list.map(|(resource, value)| (resource.clone(), amount(resource, value))).collect()
}

/// What is too much to be counted is too much for any node. What cannot be read keeps a pod off none: its node says what is
/// wrong with it.
fn amount(resource: &str, value: &Value) -> u64 {
    match quantity::of(resource, value) {
        Ok(amount) => amount,
        Err(QuantityError::Range(text)) if !text.starts_with('-') => u64::MAX,
        Err(_) => 0,
    }
}

fn add(to: &mut Amounts, more: &Amounts) {
    for (resource, amount) in more {
        let sum = to.entry(resource.clone()).or_default();
        *sum = sum.saturating_add(*amount);
    }
}

fn raise(to: &mut Amounts, at_least: Amounts) {
    for (resource, amount) in at_least {
        let most = to.entry(resource).or_default();
        *most = amount.max(*most);
    }
}

fn ports(pod: &Object) -> Vec<HostPort> {
    let on_host = pod.value()["spec"]["hostNetwork"] == true;
    let sidecars = pod.list_at("/spec/initContainers").iter().filter(|one| is_sidecar(one));
    let containers = pod.list_at("/spec/containers").iter().chain(sidecars);
    let ports = containers.filter_map(|container| container["ports"].as_array()).flatten();
    ports.filter_map(|port| host_port(port, on_host)).collect()
}

fn host_port(port: &Value, on_host: bool) -> Option<HostPort> {
    let number = |field: &str| port[field].as_u64().filter(|number| *number > 0);
    let text = |field: &str, default: &str| port[field].as_str().filter(|text| !text.is_empty()).unwrap_or(default).to_owned();
    let number = number("hostPort").or_else(|| number("containerPort").filter(|_| on_host))?;
    Some(HostPort { number, protocol: text("protocol", "TCP"), address: text("hostIP", ANY) })
}

impl HostPort {
    fn clashes(&self, with: &Self) -> bool {
        let same_address = self.address == with.address || self.address == ANY || with.address == ANY;
        self.number == with.number && self.protocol == with.protocol && same_address
    }
}

/// What a node has for its pods; a resource that it does not list is not judged.
pub fn allocatable(node: &Object) -> Amounts {
    let list = node.value().pointer("/status/allocatable").and_then(Value::as_object).into_iter().flatten();
    list.filter_map(|(resource, value)| Some((resource.clone(), quantity::of(resource, value).ok()?))).collect()
}

/// What the pods of a node take together.
#[derive(Debug, Default)]
pub struct Load {
    pods: u64,
    /// Sums that no number of pods can overflow, so that what was added can be taken away again.
    amounts: BTreeMap<String, u128>,
    ports: Vec<HostPort>,
}

impl Load {
    /// How many pods there are.
    pub fn pods(&self) -> u64 {
        self.pods
    }

    /// Counts a pod.
    pub fn add(&mut self, demand: &Demand) {
        self.pods += 1;
        for (resource, amount) in &demand.amounts {
            *self.amounts.entry(resource.clone()).or_default() += u128::from(*amount);
        }
        self.ports.extend_from_slice(&demand.ports);
    }

    /// Takes away a pod that was counted.
    pub fn remove(&mut self, demand: &Demand) {
        debug_assert!(self.pods > 0, "a pod is taken away that was not counted");
        self.pods = self.pods.saturating_sub(1);
        for (resource, amount) in &demand.amounts {
            if let Some(sum) = self.amounts.get_mut(resource) {
                *sum = sum.saturating_sub(u128::from(*amount));
            }
        }
        for port in &demand.ports {
            if let Some(at) = self.ports.iter().position(|taken| taken == port) {
                self.ports.swap_remove(at);
            }
        }
    }

    /// What one more pod lacks on a node that has so much.
    pub fn lacks(&self, demand: &Demand, allocatable: &Amounts) -> Vec<Obstacle> {
        if demand.ports.iter().any(|port| self.ports.iter().any(|taken| taken.clashes(port))) {
            return vec![Obstacle::Ports];
        }
        let is_full = allocatable.get("pods").is_some_and(|places| self.pods >= *places);
        let short = demand.amounts.iter().filter(|(resource, amount)| {
            let taken = self.amounts.get(*resource).copied().unwrap_or_default();
            allocatable.get(*resource).is_some_and(|all| taken + u128::from(**amount) > u128::from(*all))
        });
        let short = short.map(|(resource, _)| Obstacle::Insufficient(resource.clone()));
        is_full.then_some(Obstacle::TooManyPods).into_iter().chain(short).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use serde_json::json;

    use super::*;

    fn demand(spec: Value) -> Demand {
        Demand::of(&Object::new(json!({"spec": spec})).unwrap())
    }

    fn asks(requests: Value) -> Value {
        json!({"resources": {"requests": requests}})
    }

    fn memory(spec: Value) -> u64 {
        demand(spec).amounts.get("memory").copied().unwrap_or_default()
    }

    /// What a node says that has `allocatable` and these pods already.
    fn lacks(allocatable: Value, pods: &[Value], spec: Value) -> Vec<Obstacle> {
        let mut load = Load::default();
        pods.iter().for_each(|pod| load.add(&demand(pod.clone())));
        let node = Object::new(json!({"status": {"allocatable": allocatable}})).unwrap();
        load.lacks(&demand(spec), &super::allocatable(&node))
    }

    fn short(resource: &str) -> Obstacle {
        Obstacle::Insufficient(resource.to_owned())
    }

    #[test]
    fn a_pod_asks_for_its_containers_together_or_for_its_largest_init_container_with_the_sidecars_before_it() {
        let of = |amount: u64| asks(json!({"memory": amount}));
        let sidecar = |amount: u64| json!({"restartPolicy": "Always", "resources": {"requests": {"memory": amount}}});
        assert_eq!(memory(json!({"containers": [of(1), of(2)]})), 3);
        assert_eq!(memory(json!({"containers": [of(1), of(2)], "initContainers": [of(2), of(3)]})), 3);
        assert_eq!(memory(json!({"containers": [of(1), of(2)], "initContainers": [of(9), of(4)]})), 9);
        assert_eq!(memory(json!({"containers": [of(1)], "initContainers": [sidecar(5), of(2)]})), 7);
        assert_eq!(memory(json!({"containers": [of(1)], "initContainers": [of(7), sidecar(5)]})), 7);
        assert_eq!(memory(json!({"containers": [of(1)], "initContainers": [sidecar(5), sidecar(6)]})), 12);
        assert_eq!(memory(json!({"containers": [of(1)], "initContainers": [of(4)], "overhead": {"memory": 10}})), 14);
    }

    #[test]
    fn a_limit_is_a_request_where_there_is_none() {
        let limited = json!({"resources": {"limits": {"memory": "2Ki", "cpu": "1"}, "requests": {"cpu": "500m"}}});
        let amounts = demand(json!({"containers": [limited]})).amounts;
        assert_eq!(amounts, Amounts::from([("cpu".to_owned(), 500_000_000), ("memory".to_owned(), 2048)]));
    }

    #[test]
    fn what_no_number_can_say_fits_nowhere_and_what_is_no_quantity_is_left_to_the_node() {
        for (asked, want) in [("99999Ei", u64::MAX), ("much", 0), ("-1", 0)] {
            assert_eq!(memory(json!({"containers": [asks(json!({"memory": asked}))]})), want, "{asked}");
        }
    }

    #[test]
    fn a_node_lacks_what_its_pods_and_this_one_ask_for_beyond_what_it_lists() {
        let node = json!({"cpu": "1", "memory": "2Gi", "pods": "3"});
        let pod = |requests: Value| json!({"containers": [asks(requests)]});
        let half = pod(json!({"cpu": "500m", "memory": "1Gi"}));
        assert_eq!(lacks(node.clone(), &[], pod(json!({"memory": "64Gi"}))), [short("memory")]);
        assert_eq!(lacks(node.clone(), std::slice::from_ref(&half), half.clone()), [], "to the last byte");
        let two = [half.clone(), half.clone()];
        assert_eq!(lacks(node.clone(), &two, pod(json!({"cpu": "1m", "memory": 1}))), [short("cpu"), short("memory")]);
        assert_eq!(lacks(node.clone(), &two, pod(json!({}))), [], "who asks for nothing lacks nothing");
        assert_eq!(lacks(node.clone(), &two, pod(json!({"ephemeral-storage": "9Ti", "x.io/gpu": 1}))), [], "what the node does not list");
        assert_eq!(lacks(json!({"ephemeral-storage": "1Gi"}), &[], pod(json!({"ephemeral-storage": "2Gi"}))), [short("ephemeral-storage")]);
        let three = [half.clone(), half.clone(), pod(json!({}))];
        assert_eq!(lacks(node.clone(), &three, pod(json!({}))), [Obstacle::TooManyPods]);
        assert_eq!(lacks(node, &three, half), [Obstacle::TooManyPods, short("cpu"), short("memory")]);
    }

    #[test]
    fn a_host_port_is_free_when_no_pod_has_it_with_its_protocol_and_on_its_address() {
        let pod = |port: Value| json!({"containers": [{"ports": [port]}]});
        let on = |address: &str| pod(json!({"containerPort": 80, "hostPort": 8080, "hostIP": address}));
        let host = json!({"hostNetwork": true, "containers": [{"ports": [{"containerPort": 8080}]}]});
        let sidecar = json!({"containers": [], "initContainers": [{"restartPolicy": "Always", "ports": [{"hostPort": 8080}]}]});
        for (taken, wanted, is_free) in [
            (on(""), on(""), false),
            (on("127.0.0.1"), on("0.0.0.0"), false),
            (on(""), on("127.0.0.1"), false),
            (on("127.0.0.1"), on("127.0.0.1"), false),
            (on("127.0.0.1"), on("192.0.2.1"), true),
            (on(""), pod(json!({"hostPort": 8080, "protocol": "UDP"})), true),
            (on(""), pod(json!({"hostPort": 8081, "protocol": "TCP"})), true),
            (on(""), pod(json!({"containerPort": 8080})), true),
            (on(""), host.clone(), false),
            (host.clone(), on("127.0.0.1"), false),
            (on(""), sidecar, false),
        ] {
            let found = lacks(json!({}), std::slice::from_ref(&taken), wanted.clone());
            assert_eq!(found.is_empty(), is_free, "{wanted} beside {taken}");
            assert!(is_free || found == [Obstacle::Ports]);
        }
    }

    #[test]
    fn what_a_pod_took_is_free_again_when_it_is_gone() {
        let pod = demand(json!({"containers": [{"ports": [{"hostPort": 1}], "resources": {"requests": {"memory": "99999Ei"}}}]}));
        let small = demand(json!({"containers": [asks(json!({"memory": 5}))]}));
        let mut load = Load::default();
        for _ in 0..2 {
            load.add(&pod);
        }
        load.add(&small);
        load.remove(&pod);
        assert_eq!(load.lacks(&pod, &Amounts::new()), [Obstacle::Ports], "the other has it");
        load.remove(&pod);
        let all = Amounts::from([("memory".to_owned(), 10), ("pods".to_owned(), 2)]);
        assert_eq!(load.lacks(&small, &all), []);
        load.add(&small);
        assert_eq!((load.pods(), load.lacks(&small, &all)), (2, vec![Obstacle::TooManyPods, short("memory")]));
    }
}
