//! Kubernetes objects as the link and the edge's store name them: `{namespace}/{kind}/{name}`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::id::{NameError, Namespace, ObjectName};

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Kinds of objects that cross the link, in KubeEdge's lower-case words (`facts: wire §1.4`).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum ResourceKind { $($(#[$doc])* $name,)* }

        impl ResourceKind {
            /// Every kind.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The word on the wire.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The kind of that word; `None` for a word that this version does not know.
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$name),)* _ => None }
            }
        }
    };
}

kinds! {
    /// A Pod.
    Pod = "pod",
    /// A ConfigMap.
    ConfigMap = "configmap",
    /// A Secret.
    Secret = "secret",
    /// A Node object.
    Node = "node",
    /// A list of Pods (edge internal).
    PodList = "podlist",
    /// Status of pods, edge to cloud.
    PodStatus = "podstatus",
    /// Status of a node, edge to cloud.
    NodeStatus = "nodestatus",
    /// Patch of a pod, edge to cloud.
    PodPatch = "podpatch",
    /// Patch of a node, edge to cloud.
    NodePatch = "nodepatch",
    /// A Lease.
    Lease = "lease",
    /// An Event.
    Event = "event",
    /// A token of a service account.
    ServiceAccountToken = "serviceaccounttoken",
    /// A Device (custom resource).
    Device = "device",
    /// A DeviceModel (custom resource).
    DeviceModel = "devicemodel",
}

impl fmt::Display for ResourceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Names one object, or all of a kind in a namespace when `name` is absent.
///
/// Text form `{namespace}/{kind}[/{name}]`; it is the key of the edge's `meta` table (KubeEdge `dao/meta.go`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResourceKey {
    /// Namespace; cluster-wide objects travel under `default` (KubeEdge's nodes do).
    pub namespace: Namespace,
    /// Kind.
    pub kind: ResourceKind,
    /// Name; absent in lists and batches.
    pub name: Option<ObjectName>,
}

impl ResourceKey {
    /// The object `namespace/kind/name`.
    pub fn object(namespace: Namespace, kind: ResourceKind, name: ObjectName) -> Self {
        Self { namespace, kind, name: Some(name) }
    }

    /// All objects of `kind` in `namespace`.
    pub fn list(namespace: Namespace, kind: ResourceKind) -> Self {
        Self { namespace, kind, name: None }
    }
}

/// A text that does not name an object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResourceKeyError {
    /// Not two or three parts.
    #[error("a resource is `namespace/kind` or `namespace/kind/name`, this one has {parts} parts")]
    Shape {
        /// Number of parts found.
        parts: usize,
    },
    /// A kind that this version does not know.
    #[error("unknown kind of resource `{0}`")]
    Kind(String),
    /// Namespace or name is not valid.
    #[error(transparent)]
    Name(#[from] NameError),
}

impl fmt::Display for ResourceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.kind)?;
        self.name.as_ref().map_or(Ok(()), |name| write!(f, "/{name}"))
    }
}

impl FromStr for ResourceKey {
    type Err = ResourceKeyError;

    fn from_str(text: &str) -> Result<Self, ResourceKeyError> {
        let mut parts = text.split('/');
        let (Some(namespace), Some(kind), name, None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
            return Err(ResourceKeyError::Shape { parts: text.split('/').count() });
        };
        let kind = ResourceKind::parse(kind).ok_or_else(|| ResourceKeyError::Kind(kind.chars().take(64).flat_map(char::escape_debug).collect()))?;
        let name = name.map(ObjectName::new).transpose()?;
        Ok(Self { namespace: Namespace::new(namespace)?, kind, name })
    }
}

impl Serialize for ResourceKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ResourceKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    #[test]
    fn a_key_prints_as_it_was_read() {
        for text in ["default/pod/web", "default/podstatus", "node/pod/node", "kube-node-lease/lease/edge-1", "default/configmap/a.b"] {
            assert_eq!(text.parse::<ResourceKey>().unwrap().to_string(), text);
        }
        for kind in ResourceKind::ALL {
            assert_eq!(ResourceKind::parse(kind.as_str()), Some(*kind));
        }
    }

    #[test]
    fn a_text_that_names_no_object_is_refused_with_the_rule() {
        assert_eq!("node".parse::<ResourceKey>(), Err(ResourceKeyError::Shape { parts: 1 }));
        assert_eq!("node/n/default/pod/web".parse::<ResourceKey>(), Err(ResourceKeyError::Shape { parts: 5 }));
        assert!(matches!("default/Pod/web".parse::<ResourceKey>(), Err(ResourceKeyError::Kind(_))));
        for text in ["/pod/web", "default/pod/", "default/pod/W", "a.b/pod/web", "default//web", ""] {
            assert!(text.parse::<ResourceKey>().is_err(), "{text:?}");
        }
    }
}
