//! Which nodes need which ConfigMaps and Secrets, because pods bound to them use these.
//!
//! Pure: fed with pods as they come and go, asked for nodes. Unlike KubeEdge's LocationCache an entry goes when the
//! last pod that needs it has gone, so a Secret leaves a node with its last user.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use model::{Namespace, NodeName, ObjectName, ResourceKey, ResourceKind};
use serde::Deserialize;

/// What a node gained or lost by one change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Objects that a node needs and did not need before.
    pub gained: Vec<(NodeName, ResourceKey)>,
    /// Objects that no pod of the node needs any more.
    pub lost: Vec<(NodeName, ResourceKey)>,
}

#[derive(Debug)]
struct Placed {
    node: NodeName,
    needs: BTreeSet<ResourceKey>,
}

/// The map from pods to what they need, and back.
#[derive(Debug, Default)]
pub struct Locations {
    pods: HashMap<ResourceKey, Placed>,
    /// Per node: its pods, and how many of them need each object.
    nodes: HashMap<NodeName, NodeNeeds>,
    /// Per object: how many pods of each node need it.
    users: HashMap<ResourceKey, BTreeMap<NodeName, usize>>,
}

#[derive(Debug, Default)]
struct NodeNeeds {
    pods: BTreeSet<ResourceKey>,
    needs: BTreeSet<ResourceKey>,
}

impl Locations {
    /// Takes note that `pod` is bound to `node` and needs `needs`; replaces what was known of the pod.
    pub fn place(&mut self, pod: &ResourceKey, node: &NodeName, needs: BTreeSet<ResourceKey>) -> Moved {
        let mut moved = Moved::default();
        // Counted up before down, so that what stays is neither gained nor lost.
        for key in &needs {
            if self.count_up(node, key) {
                moved.gained.push((node.clone(), key.clone()));
            }
        }
        let placed = Placed { node: node.clone(), needs };
        if let Some(before) = self.pods.insert(pod.clone(), placed) {
            self.release(pod, before, &mut moved);
        }
        self.nodes.entry(node.clone()).or_default().pods.insert(pod.clone());
        moved
    }

    /// Forgets `pod`.
    pub fn remove(&mut self, pod: &ResourceKey) -> Moved {
        let mut moved = Moved::default();
        if let Some(before) = self.pods.remove(pod) {
            self.release(pod, before, &mut moved);
        }
        moved
    }

    /// The node that `pod` is bound to.
    pub fn node_of(&self, pod: &ResourceKey) -> Option<&NodeName> {
        self.pods.get(pod).map(|placed| &placed.node)
    }

    /// The nodes that need `key`.
    pub fn nodes_needing(&self, key: &ResourceKey) -> impl Iterator<Item = &NodeName> {
        self.users.get(key).into_iter().flat_map(BTreeMap::keys)
    }

    /// Whether a pod bound to `node` needs `key`.
    pub fn needs(&self, node: &NodeName, key: &ResourceKey) -> bool {
        self.users.get(key).is_some_and(|nodes| nodes.contains_key(node))
    }

    /// What `node` has to have: first the ConfigMaps and Secrets, then the pods.
    pub fn of_node(&self, node: &NodeName) -> impl Iterator<Item = &ResourceKey> {
        self.nodes.get(node).into_iter().flat_map(|of_node| of_node.needs.iter().chain(&of_node.pods))
    }

    fn count_up(&mut self, node: &NodeName, key: &ResourceKey) -> bool {
        let count = self.users.entry(key.clone()).or_default().entry(node.clone()).or_default();
        *count += 1;
        if *count == 1 {
            self.nodes.entry(node.clone()).or_default().needs.insert(key.clone());
        }
        *count == 1
    }

    fn release(&mut self, pod: &ResourceKey, before: Placed, moved: &mut Moved) {
        for key in before.needs {
            let Some(nodes) = self.users.get_mut(&key) else {
                continue;
            };
            let Some(count) = nodes.get_mut(&before.node) else {
                continue;
            };
            *count -= 1;
            if *count > 0 {
                continue;
            }
            nodes.remove(&before.node);
            if nodes.is_empty() {
                self.users.remove(&key);
            }
            if let Some(of_node) = self.nodes.get_mut(&before.node) {
                of_node.needs.remove(&key);
            }
            moved.lost.push((before.node.clone(), key));
        }
        if let Some(of_node) = self.nodes.get_mut(&before.node) {
            of_node.pods.remove(pod);
            if of_node.pods.is_empty() && of_node.needs.is_empty() {
                self.nodes.remove(&before.node);
            }
        }
    }
}

/// The ConfigMaps and Secrets that a pod names: volumes (plain, projected, CSI publish secret), `envFrom`,
/// `env[].valueFrom` of all containers, and `imagePullSecrets`.
///
/// `spec` is the pod's spec as JSON. Names that no object can have are left out: the kubelet could not mount them either.
pub fn references(namespace: &Namespace, spec: &serde_json::Value) -> BTreeSet<ResourceKey> {
    let mut found = BTreeSet::new();
    let Ok(spec) = PodSpec::deserialize(spec) else {
        return found;
    };
    let mut add = |kind, name: Option<String>| {
        if let Some(name) = name.and_then(|name| ObjectName::new(&name).ok()) {
            found.insert(ResourceKey::object(namespace.clone(), kind, name));
        }
    };
    for secret in spec.image_pull_secrets {
        add(ResourceKind::Secret, secret.name);
    }
    for volume in spec.volumes {
        add(ResourceKind::ConfigMap, volume.config_map.and_then(|source| source.name));
        add(ResourceKind::Secret, volume.secret.and_then(|source| source.secret_name));
        add(ResourceKind::Secret, volume.csi.and_then(|source| source.node_publish_secret_ref).and_then(|named| named.name));
        for source in volume.projected.map(|projected| projected.sources).unwrap_or_default() {
            add(ResourceKind::ConfigMap, source.config_map.and_then(|named| named.name));
            add(ResourceKind::Secret, source.secret.and_then(|named| named.name));
        }
    }
    for container in spec.containers.into_iter().chain(spec.init_containers).chain(spec.ephemeral_containers) {
        for source in container.env_from {
            add(ResourceKind::ConfigMap, source.config_map_ref.and_then(|named| named.name));
            add(ResourceKind::Secret, source.secret_ref.and_then(|named| named.name));
        }
        for source in container.env.into_iter().filter_map(|variable| variable.value_from) {
            add(ResourceKind::ConfigMap, source.config_map_key_ref.and_then(|named| named.name));
            add(ResourceKind::Secret, source.secret_key_ref.and_then(|named| named.name));
        }
    }
    found
}

// Our own subset of the Pod type: everything else of a pod passes through unread.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PodSpec {
    volumes: Vec<Volume>,
    containers: Vec<Container>,
    init_containers: Vec<Container>,
    ephemeral_containers: Vec<Container>,
    image_pull_secrets: Vec<Named>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Named {
    name: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Volume {
    config_map: Option<Named>,
    secret: Option<SecretVolume>,
    projected: Option<Projected>,
    csi: Option<Csi>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct SecretVolume {
    secret_name: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Projected {
    sources: Vec<Projection>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Projection {
    config_map: Option<Named>,
    secret: Option<Named>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Csi {
    node_publish_secret_ref: Option<Named>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Container {
    env: Vec<Variable>,
    env_from: Vec<EnvFrom>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Variable {
    value_from: Option<ValueFrom>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ValueFrom {
    config_map_key_ref: Option<Named>,
    secret_key_ref: Option<Named>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct EnvFrom {
    config_map_ref: Option<Named>,
    secret_ref: Option<Named>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, missing_docs)] // a failed step is the test's failure

    use serde_json::json;

    use super::*;

    fn keys(names: &[&str]) -> BTreeSet<ResourceKey> {
        names.iter().map(|name| format!("default/{name}").parse().unwrap()).collect()
    }

    fn key(name: &str) -> ResourceKey {
        format!("default/{name}").parse().unwrap()
    }

    fn node(name: &str) -> NodeName {
        NodeName::new(name).unwrap()
    }

    #[test]
    fn every_way_of_naming_a_config_map_or_secret_is_found() {
        let spec = json!({
            "imagePullSecrets": [{"name": "s-pull"}],
            "volumes": [
                {"name": "a", "configMap": {"name": "c-volume"}},
                {"name": "b", "secret": {"secretName": "s-volume"}},
                {"name": "c", "projected": {"sources": [{"configMap": {"name": "c-projected"}}, {"secret": {"name": "s-projected"}}, {"downwardAPI": {}}]}},
                {"name": "d", "csi": {"driver": "x", "nodePublishSecretRef": {"name": "s-csi"}}},
                {"name": "e", "emptyDir": {}},
            ],
            "containers": [{"name": "m", "image": "i",
                "envFrom": [{"configMapRef": {"name": "c-from"}}, {"secretRef": {"name": "s-from"}}],
                "env": [{"name": "A", "value": "1"},
                        {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "c-env", "key": "k"}}},
                        {"name": "C", "valueFrom": {"secretKeyRef": {"name": "s-env", "key": "k"}}},
                        {"name": "D", "valueFrom": {"fieldRef": {"fieldPath": "x"}}}]}],
            "initContainers": [{"name": "i", "envFrom": [{"secretRef": {"name": "s-init"}}]}],
        });
        assert_eq!(
            references(&Namespace::default(), &spec),
            keys(&[
                "configmap/c-volume",
                "configmap/c-projected",
                "configmap/c-from",
                "configmap/c-env",
                "secret/s-pull",
                "secret/s-volume",
                "secret/s-projected",
                "secret/s-csi",
                "secret/s-from",
                "secret/s-env",
                "secret/s-init",
            ])
        );
    }

    #[test]
    fn a_spec_of_another_shape_names_nothing_and_does_no_harm() {
        for spec in [json!(null), json!([1]), json!({"volumes": "x"}), json!({"volumes": [{"configMap": {"name": "Not A Name/../x"}}]})] {
            assert!(references(&Namespace::default(), &spec).is_empty(), "{spec}");
        }
    }

    #[test]
    fn an_object_is_gained_with_the_first_pod_and_lost_with_the_last() {
        let mut locations = Locations::default();
        let (n1, cfg) = (node("n1"), key("configmap/cfg"));
        let first = locations.place(&key("pod/a"), &n1, keys(&["configmap/cfg"]));
        assert_eq!(first.gained, [(n1.clone(), cfg.clone())]);
        let second = locations.place(&key("pod/b"), &n1, keys(&["configmap/cfg", "secret/s"]));
        assert_eq!(second.gained, [(n1.clone(), key("secret/s"))]);
        assert!(locations.remove(&key("pod/a")).lost.is_empty());
        assert!(locations.needs(&n1, &cfg));
        assert_eq!(locations.remove(&key("pod/b")).lost.len(), 2);
        assert!(!locations.needs(&n1, &cfg));
        assert_eq!(locations.nodes_needing(&cfg).count(), 0);
        assert_eq!(locations.of_node(&n1).count(), 0);
    }

    #[test]
    fn a_changed_pod_keeps_what_it_still_needs() {
        let mut locations = Locations::default();
        let n1 = node("n1");
        locations.place(&key("pod/a"), &n1, keys(&["configmap/x", "configmap/y"]));
        let moved = locations.place(&key("pod/a"), &n1, keys(&["configmap/y", "configmap/z"]));
        assert_eq!(moved.gained, [(n1.clone(), key("configmap/z"))]);
        assert_eq!(moved.lost, [(n1.clone(), key("configmap/x"))]);
        let held: Vec<String> = locations.of_node(&n1).map(ToString::to_string).collect();
        assert_eq!(held, ["default/configmap/y", "default/configmap/z", "default/pod/a"]);
    }

    #[test]
    fn a_pod_of_the_same_name_on_another_node_moves_its_needs() {
        let mut locations = Locations::default();
        locations.place(&key("pod/a"), &node("n1"), keys(&["secret/s"]));
        let moved = locations.place(&key("pod/a"), &node("n2"), keys(&["secret/s"]));
        assert_eq!(moved.gained, [(node("n2"), key("secret/s"))]);
        assert_eq!(moved.lost, [(node("n1"), key("secret/s"))]);
        assert_eq!(locations.node_of(&key("pod/a")), Some(&node("n2")));
        assert_eq!(locations.of_node(&node("n1")).count(), 0);
    }
}
