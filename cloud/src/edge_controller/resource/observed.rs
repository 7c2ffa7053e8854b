//! What the downstream half keeps of an object that the API server showed it.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use kube::api::{DynamicObject, TypeMeta};
use model::{Namespace, NodeName, ObjectName, ResourceKey, ResourceKind};
use serde_json::{Value, json};
use wire::RawJson;

use super::node::EDGE_LABEL;
use crate::cluster::Kind;
use crate::edge_controller::location;

/// One object, as far as the downstream half needs to understand it; the rest is text that passes through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// Which object. Nodes stand in namespace `default`, as on the link.
    pub key: ResourceKey,
    /// Its uid: another one under the same key is another object.
    pub uid: String,
    /// Its resourceVersion; compared for equality only.
    pub resource_version: String,
    /// Changes with anything but status, resourceVersion, generation and managedFields.
    pub shape: u64,
    /// What depends on the kind.
    pub detail: Detail,
    /// The whole object.
    pub object: RawJson,
}

/// What is read of an object besides its metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Detail {
    /// A Pod.
    Pod {
        /// The node it is bound to.
        node: Option<NodeName>,
        /// The ConfigMaps and Secrets that it names.
        needs: BTreeSet<ResourceKey>,
        /// Whether it has a deletionTimestamp.
        deleting: bool,
    },
    /// A ConfigMap or a Secret.
    Data,
    /// A Node.
    Node {
        /// Whether it has the label of edge nodes.
        edge: bool,
    },
}

impl Observed {
    /// Reads an object; `None` (logged) for one whose name the link cannot carry.
    pub fn read(kind: &Kind, as_kind: ResourceKind, mut object: DynamicObject) -> Option<Self> {
        let name = object.metadata.name.clone().unwrap_or_default();
        let namespace = object.metadata.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let (Ok(namespace), Ok(name)) = (Namespace::new(&namespace), ObjectName::new(&name)) else {
            log::warn!(kind = kind.kind, namespace = namespace.as_str(), name = name.as_str(); "object ignored: its name cannot go to an edge");
            return None;
        };
        // Items of a list carry no type of their own; the edge should see the same object however it was found.
        object.types = Some(TypeMeta { api_version: kind.api_version(), kind: kind.kind.to_owned() });
        object.metadata.managed_fields = None;
        let uid = object.metadata.uid.clone().unwrap_or_default();
        let resource_version = object.metadata.resource_version.clone().unwrap_or_default();
        let detail = match as_kind {
            ResourceKind::Pod => Detail::Pod {
                node: object.data["spec"]["nodeName"].as_str().and_then(|node| NodeName::new(node).ok()),
                needs: location::references(&namespace, &object.data["spec"]),
                deleting: object.metadata.deletion_timestamp.is_some(),
            },
            ResourceKind::Node => Detail::Node { edge: object.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(EDGE_LABEL)) },
            _ => Detail::Data,
        };
        let object = serde_json::to_value(object).ok()?;
        Some(Self {
            key: ResourceKey::object(namespace, as_kind, name),
            uid,
            resource_version,
            shape: shape(&object),
            detail,
            object: RawJson::from_value(&object).ok()?,
        })
    }

    /// What a deletion carries: the whole object, but of a Secret only its identity, because nobody needs its content
    /// any more.
    pub fn farewell(&self) -> RawJson {
        if self.key.kind != ResourceKind::Secret {
            return self.object.clone();
        }
        identity(&self.key, &self.uid)
    }
}

/// An object of which only the identity is known.
pub fn identity(key: &ResourceKey, uid: &str) -> RawJson {
    let name = key.name.as_ref().map(ObjectName::as_str);
    RawJson::from_value(&json!({ "metadata": { "namespace": key.namespace, "name": name, "uid": uid } })).expect("plain text always serialises")
}

fn shape(object: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    for (field, value) in object.as_object().into_iter().flatten() {
        match field.as_str() {
            "status" => {}
            "metadata" => {
                for (field, value) in value.as_object().into_iter().flatten() {
                    if !matches!(field.as_str(), "resourceVersion" | "generation" | "managedFields") {
                        (field, value.to_string()).hash(&mut hasher);
                    }
                }
            }
            _ => (field, value.to_string()).hash(&mut hasher),
        }
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, missing_docs)] // a failed step is the test's failure

    use super::*;
    use crate::cluster;

    fn pod(change: impl FnOnce(&mut Value)) -> Observed {
        let mut pod = json!({"metadata": {"name": "web", "namespace": "default", "uid": "u", "resourceVersion": "7"},
            "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i", "aFieldOfTheFuture": 1}]}, "status": {"phase": "Pending"}});
        change(&mut pod);
        Observed::read(&cluster::POD, ResourceKind::Pod, serde_json::from_value(pod).unwrap()).unwrap()
    }

    #[test]
    fn a_change_of_status_or_version_alone_is_the_same_shape_and_any_other_is_not() {
        let before = pod(|_| {});
        assert_eq!(before.shape, pod(|pod| pod["status"]["phase"] = json!("Running")).shape);
        assert_eq!(before.shape, pod(|pod| pod["metadata"]["resourceVersion"] = json!("8")).shape);
        assert_ne!(before.shape, pod(|pod| pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z")).shape);
        assert_ne!(before.shape, pod(|pod| pod["spec"]["containers"][0]["image"] = json!("j")).shape);
    }

    #[test]
    fn fields_of_the_future_pass_through_and_the_type_is_there() {
        let object: Value = pod(|_| {}).object.to().unwrap();
        assert_eq!(object["spec"]["containers"][0]["aFieldOfTheFuture"], 1);
        assert_eq!((object["kind"].as_str(), object["apiVersion"].as_str()), (Some("Pod"), Some("v1")));
    }

    #[test]
    fn the_farewell_of_a_secret_does_not_carry_it() {
        let secret = json!({"metadata": {"name": "s", "namespace": "default", "uid": "u"}, "data": {"k": "aHVudGVyMg=="}});
        let secret = Observed::read(&cluster::SECRET, ResourceKind::Secret, serde_json::from_value(secret).unwrap()).unwrap();
        assert!(!secret.farewell().as_str().contains("aHVudGVyMg"));
        assert!(secret.farewell().as_str().contains("\"u\""));
    }
}
