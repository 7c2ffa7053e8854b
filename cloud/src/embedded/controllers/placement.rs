//! Where a pod may run: pure decisions on what is known of the nodes.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::Value;

use super::room::{self, Amounts, Demand, Load};
use crate::embedded::object::Object;
use crate::embedded::selector::{Requirement, Test};

/// What the scheduler knows of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFacts {
    labels: BTreeMap<String, String>,
    ready: bool,
    cordoned: bool,
    /// Key, value and effect of the taints that keep pods away.
    taints: Vec<(String, String, String)>,
    allocatable: Amounts,
}

impl NodeFacts {
    /// Reads them from a node.
    pub fn of(node: &Object) -> Self {
        let labels = node.meta().get("labels").and_then(Value::as_object).into_iter().flatten();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let taints = node.list_at("/spec/taints").iter();
        let taints = taints.map(|taint| (text(&taint["key"]), text(&taint["value"]), text(&taint["effect"])));
        Self {
            labels: labels.map(|(key, value)| (key.clone(), text(value))).collect(),
            ready: node.list_at("/status/conditions").iter().any(|one| one["type"] == "Ready" && one["status"] == "True"),
            cordoned: node.value().pointer("/spec/unschedulable") == Some(&Value::Bool(true)) || node.is_deleting(),
            taints: taints.filter(|(_, _, effect)| effect != "PreferNoSchedule").collect(),
            allocatable: room::allocatable(node),
        }
    }
}

/// What of a pod decides where it may run; kept while it waits.
#[derive(Clone, Debug)]
pub struct PodFacts {
    selector: Value,
    /// Of the required node affinity.
    terms: Vec<Value>,
    tolerations: Vec<Value>,
    /// What it takes of its node.
    pub demand: Demand,
}

impl PodFacts {
    /// Reads them from a pod.
    pub fn of(pod: &Object) -> Self {
        let required = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms";
        Self {
            selector: pod.value()["spec"]["nodeSelector"].clone(),
            terms: pod.list_at(required).to_vec(),
            tolerations: pod.list_at("/spec/tolerations").to_vec(),
            demand: Demand::of(pod),
        }
    }
}

/// Why a node does not take a pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Obstacle {
    /// Its Ready condition is not true.
    NotReady,
    /// It is cordoned or being deleted.
    Unschedulable,
    /// The pod's node selector or affinity asks for other labels.
    Affinity,
    /// It has a taint that the pod does not tolerate.
    Taint,
    /// A host port of the pod is taken.
    Ports,
    /// It has as many pods as it takes.
    TooManyPods,
    /// What is left of this resource is less than the pod asks for.
    Insufficient(String),
}

impl Obstacle {
    fn words(&self) -> Cow<'static, str> {
        let words = match self {
            Self::NotReady => "node(s) were not ready",
            Self::Unschedulable => "node(s) were unschedulable",
            Self::Affinity => "node(s) didn't match Pod's node affinity/selector",
            Self::Taint => "node(s) had untolerated taint(s)",
            Self::Ports => "node(s) didn't have free ports for the requested pod ports",
            Self::TooManyPods => "Too many pods",
            Self::Insufficient(resource) => return format!("Insufficient {resource}").into(),
        };
        words.into()
    }
}

/// What keeps this pod off this node, which has this load: nothing, the first rule that is broken, or all that it lacks.
pub fn obstacles(pod: &PodFacts, name: &str, node: &NodeFacts, load: &Load) -> Vec<Obstacle> {
    match misfit(pod, name, node) {
        Some(obstacle) => vec![obstacle],
        None => load.lacks(&pod.demand, &node.allocatable),
    }
}

fn misfit(pod: &PodFacts, name: &str, node: &NodeFacts) -> Option<Obstacle> {
    if node.cordoned {
        return Some(Obstacle::Unschedulable);
    }
    if !node.ready {
        return Some(Obstacle::NotReady);
    }
    if !selected(pod, name, node) {
        return Some(Obstacle::Affinity);
    }
    let tolerated = |taint: &(String, String, String)| pod.tolerations.iter().any(|one| tolerates(one, taint));
    (!node.taints.iter().all(tolerated)).then_some(Obstacle::Taint)
}

fn selected(pod: &PodFacts, name: &str, node: &NodeFacts) -> bool {
    let plain = pod.selector.as_object().into_iter().flatten().all(|(key, value)| node.labels.get(key).map(String::as_str) == value.as_str());
    plain && (pod.terms.is_empty() || pod.terms.iter().any(|term| term_matches(term, name, node)))
}

/// A term with no expression selects nothing, as in Kubernetes.
fn term_matches(term: &Value, name: &str, node: &NodeFacts) -> bool {
    let list = |field: &str| term[field].as_array().map(Vec::as_slice).unwrap_or_default();
    let (labels, fields) = (list("matchExpressions"), list("matchFields"));
    let named = BTreeMap::from([("metadata.name".to_owned(), name.to_owned())]);
    let holds = |expression: &Value, of: &BTreeMap<String, String>| requirement(expression).is_some_and(|one| one.holds(of));
    !(labels.is_empty() && fields.is_empty()) && labels.iter().all(|one| holds(one, &node.labels)) && fields.iter().all(|one| holds(one, &named))
}

fn requirement(expression: &Value) -> Option<Requirement> {
    let values: Vec<String> = expression["values"].as_array().into_iter().flatten().filter_map(|value| Some(value.as_str()?.to_owned())).collect();
    let number = || values.first()?.parse().ok();
    let test = match expression["operator"].as_str()? {
        "In" => Test::In(values),
        "NotIn" => Test::NotIn(values),
        "Exists" => Test::Exists,
        "DoesNotExist" => Test::Absent,
        "Gt" => Test::Above(number()?),
        "Lt" => Test::Below(number()?),
        _ => return None,
    };
    Some(Requirement { key: expression["key"].as_str()?.to_owned(), test })
}

fn tolerates(toleration: &Value, (key, value, effect): &(String, String, String)) -> bool {
    let text = |field: &str| toleration[field].as_str().unwrap_or_default();
    let any_key = text("key").is_empty() && text("operator") == "Exists";
    let same_value = text("operator") == "Exists" || text("value") == value;
    (any_key || text("key") == key) && same_value && (text("effect").is_empty() || text("effect") == effect)
}

/// `0/3 nodes are available: 1 node(s) were not ready, 2 Insufficient cpu.`
pub fn summary(obstacles: &BTreeMap<Obstacle, usize>, nodes: usize) -> String {
    let mut reasons: Vec<String> = obstacles.iter().map(|(obstacle, count)| format!("{count} {}", obstacle.words())).collect();
    reasons.sort();
    if reasons.is_empty() { format!("0/{nodes} nodes are available") } else { format!("0/{nodes} nodes are available: {}.", reasons.join(", ")) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use serde_json::json;

    use super::*;

    fn node(spec: Value) -> NodeFacts {
        NodeFacts::of(
            &Object::new(json!({"metadata": {"labels": {"zone": "a", "cores": "4"}}, "spec": spec,
            "status": {"conditions": [{"type": "Ready", "status": "True"}]}}))
            .unwrap(),
        )
    }

    fn check(pod: Value, on: Value) -> Option<Obstacle> {
        misfit(&PodFacts::of(&Object::new(json!({"spec": pod})).unwrap()), "edge-1", &node(on))
    }

    #[test]
    fn the_node_selector_and_the_required_affinity_choose_by_labels() {
        assert_eq!(check(json!({"nodeSelector": {"zone": "a"}}), json!({})), None);
        assert_eq!(check(json!({"nodeSelector": {"zone": "b"}}), json!({})), Some(Obstacle::Affinity));
        let affinity =
            |terms: Value| json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}});
        let expression = |operator: &str, values: Value| json!([{"matchExpressions": [{"key": "cores", "operator": operator, "values": values}]}]);
        assert_eq!(check(affinity(expression("Gt", json!(["3"]))), json!({})), None);
        assert_eq!(check(affinity(expression("NotIn", json!(["4"]))), json!({})), Some(Obstacle::Affinity));
        assert_eq!(check(affinity(expression("Whatever", json!([]))), json!({})), Some(Obstacle::Affinity));
        let field = json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["edge-1"]}]}]);
        assert_eq!(check(affinity(field), json!({})), None);
    }

    #[test]
    fn a_taint_keeps_pods_away_that_do_not_tolerate_it() {
        let tainted = json!({"taints": [{"key": "edge", "value": "x", "effect": "NoSchedule"}]});
        assert_eq!(check(json!({}), tainted.clone()), Some(Obstacle::Taint));
        for toleration in [
            json!({"key": "edge", "value": "x"}),
            json!({"operator": "Exists"}),
            json!({"key": "edge", "operator": "Exists", "effect": "NoSchedule"}),
        ] {
            assert_eq!(check(json!({"tolerations": [toleration]}), tainted.clone()), None);
        }
        assert_eq!(check(json!({"tolerations": [{"key": "edge", "value": "y"}]}), tainted), Some(Obstacle::Taint));
        assert_eq!(check(json!({}), json!({"taints": [{"key": "soft", "effect": "PreferNoSchedule"}]})), None);
    }

    #[test]
    fn a_cordoned_or_silent_node_takes_nothing() {
        assert_eq!(check(json!({}), json!({"unschedulable": true})), Some(Obstacle::Unschedulable));
        let silent = NodeFacts::of(&Object::new(json!({})).unwrap());
        assert_eq!(misfit(&PodFacts::of(&Object::new(json!({})).unwrap()), "n", &silent), Some(Obstacle::NotReady));
    }

    #[test]
    fn a_node_says_the_first_rule_that_is_broken_or_all_that_it_lacks() {
        let mut node = node(json!({"taints": [{"key": "edge", "effect": "NoSchedule"}]}));
        node.allocatable = Amounts::from([("cpu".to_owned(), 1), ("memory".to_owned(), 1)]);
        let container = json!({"resources": {"requests": {"cpu": "1", "memory": "1Gi"}}});
        let found = |tolerations: Value| {
            let pod = Object::new(json!({"spec": {"containers": [container], "tolerations": tolerations}})).unwrap();
            obstacles(&PodFacts::of(&pod), "edge-1", &node, &Load::default())
        };
        assert_eq!(found(json!([])), [Obstacle::Taint]);
        let short = ["cpu", "memory"].map(|resource| Obstacle::Insufficient(resource.to_owned()));
        assert_eq!(found(json!([{"operator": "Exists"}])), short);
        let counted = BTreeMap::from([(Obstacle::Taint, 2), (short[1].clone(), 1)]);
        assert_eq!(summary(&counted, 3), "0/3 nodes are available: 1 Insufficient memory, 2 node(s) had untolerated taint(s).");
    }
}
