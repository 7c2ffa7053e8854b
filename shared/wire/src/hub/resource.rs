//! The resource strings of the link, as an enum.
//!
//! One text can mean two things (`device/pod/state` is a pod in namespace `device`, or the state of device `pod`), so
//! the group and source of the route decide which grammar holds, as they do in KubeEdge.

use std::fmt;

use model::resource::ResourceKeyError;
use model::{DeviceId, NameError, NodeName, ResourceKey};

use super::envelope::{Operation, Route};

/// Longest resource, in bytes: a topic may stand here.
pub const RESOURCE_BYTES_MAX: usize = 65_535;

/// Which thing a message is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Resource {
    /// `node`: the keepalive.
    Keepalive,
    /// `{namespace}/{kind}[/{name}]`.
    Object(ResourceKey),
    /// `held`: what a node holds (not KubeEdge's).
    Held,
    /// `membership/detail`.
    MembershipDetail,
    /// `membership`.
    Membership,
    /// `device/{id}/twin/cloud_updated`.
    TwinCloudUpdated(DeviceId),
    /// `device/{id}/twin/edge_updated`.
    TwinEdgeUpdated(DeviceId),
    /// `device/{id}/state` (KubeEdge 0.x) or `device/{namespace}/{name}/state/update` (newer).
    DeviceState(DeviceId),
    /// `device/{id}`.
    Device(DeviceId),
    /// `twin`: what the cloud's confirmation of a device report names.
    Twin,
    /// Group `user`: an MQTT topic or filter.
    Topic(String),
    /// Anything else, in answers only: an answer is matched by its parent, not by its resource.
    Other(String),
}

/// A resource string that means nothing here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResourceError {
    /// Longer than [`RESOURCE_BYTES_MAX`].
    #[error("a resource has at most {RESOURCE_BYTES_MAX} bytes, this one has {bytes}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// Not of the form that its group has.
    #[error("resource `{0}` has no meaning in its group")]
    Unknown(String),
    /// The object it names is not valid.
    #[error("failed to read the resource of an object")]
    Key(#[from] ResourceKeyError),
    /// The device it names is not valid.
    #[error("failed to read the resource of a device")]
    Device(#[from] NameError),
}

impl Resource {
    /// Reads the resource of a message as the edge sees it, without `node/{id}/` in front.
    ///
    /// # Errors
    /// [`ResourceError`]; never for an answer (`response`, `error`), which becomes [`Resource::Other`].
    pub fn of(route: &Route) -> Result<Self, ResourceError> {
        let text = route.resource.as_str();
        if text.len() > RESOURCE_BYTES_MAX {
            return Err(ResourceError::TooLong { bytes: text.len() });
        }
        if route.operation == Operation::Keepalive {
            return Ok(Self::Keepalive);
        }
        if route.group == "user" {
            return Ok(Self::Topic(text.to_owned()));
        }
        let parsed = if route.group == "twin" || route.source == "twin" { device_side(text) } else { object_side(text) };
        match (parsed, &route.operation) {
            (Err(_), Operation::Response | Operation::Error) => Ok(Self::Other(text.to_owned())),
            (parsed, _) => parsed,
        }
    }

    /// The same as the cloud's controllers write it: `node/{node}/{resource}`.
    pub fn cloud_form(&self, node: &NodeName) -> String {
        format!("node/{node}/{self}")
    }

    /// Splits the cloud form into node and what the edge sees. The text itself is not looked at.
    ///
    /// # Errors
    /// [`ResourceError::Unknown`] without `node/{id}/` in front, [`ResourceError::Device`] for a bad node name.
    pub fn split_cloud_form(text: &str) -> Result<(NodeName, &str), ResourceError> {
        let (node, rest) = text.strip_prefix("node/").and_then(|rest| rest.split_once('/')).ok_or_else(|| ResourceError::Unknown(shown(text)))?;
        Ok((NodeName::new(node)?, rest))
    }

    /// Source and group that KubeEdge's cloud gives to messages about this thing, and that answers copy.
    pub fn cloud_route(&self) -> (&'static str, &'static str) {
        match self {
            Self::Object(key) => match key.kind {
                model::ResourceKind::Device | model::ResourceKind::DeviceModel => ("devicecontroller", "resource"),
                _ => ("edgecontroller", "resource"),
            },
            Self::MembershipDetail
            | Self::Membership
            | Self::TwinCloudUpdated(_)
            | Self::TwinEdgeUpdated(_)
            | Self::DeviceState(_)
            | Self::Device(_)
            | Self::Twin => ("devicecontroller", "twin"),
            Self::Topic(_) => ("router_eventbus", "user"),
            Self::Keepalive | Self::Held | Self::Other(_) => ("edgecontroller", "resource"),
        }
    }
}

/// A refused text for an error: short, without control characters.
fn shown(text: &str) -> String {
    text.chars().take(128).flat_map(char::escape_debug).collect()
}

fn object_side(text: &str) -> Result<Resource, ResourceError> {
    match text {
        "node" => Ok(Resource::Keepalive),
        "held" => Ok(Resource::Held),
        "membership" => Ok(Resource::Membership),
        "membership/detail" => Ok(Resource::MembershipDetail),
        _ => Ok(Resource::Object(text.parse()?)),
    }
}

fn device_side(text: &str) -> Result<Resource, ResourceError> {
    match text {
        "membership" => return Ok(Resource::Membership),
        "membership/detail" => return Ok(Resource::MembershipDetail),
        "twin" => return Ok(Resource::Twin),
        _ => {}
    }
    let unknown = || ResourceError::Unknown(shown(text));
    let rest = text.strip_prefix("device/").ok_or_else(unknown)?;
    type Suffix = (&'static str, fn(DeviceId) -> Resource);
    const SUFFIXES: &[Suffix] = &[
        ("/twin/cloud_updated", Resource::TwinCloudUpdated),
        ("/twin/edge_updated", Resource::TwinEdgeUpdated),
        ("/state/update", Resource::DeviceState),
        ("/state", Resource::DeviceState),
    ];
    for (suffix, resource) in SUFFIXES {
        if let Some(id) = rest.strip_suffix(suffix) {
            return Ok(resource(DeviceId::new(id)?));
        }
    }
    Ok(Resource::Device(DeviceId::new(rest)?))
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keepalive => f.write_str("node"),
            Self::Object(key) => write!(f, "{key}"),
            Self::Held => f.write_str("held"),
            Self::MembershipDetail => f.write_str("membership/detail"),
            Self::Membership => f.write_str("membership"),
            Self::TwinCloudUpdated(id) => write!(f, "device/{id}/twin/cloud_updated"),
            Self::TwinEdgeUpdated(id) => write!(f, "device/{id}/twin/edge_updated"),
            // `device/{id}/state` with an id of one level can only be the older form; with two, only the newer.
            Self::DeviceState(id) if id.as_str().contains('/') => {
                write!(f, "device/{id}/state/update")
            }
            Self::DeviceState(id) => write!(f, "device/{id}/state"),
            Self::Device(id) => write!(f, "device/{id}"),
            Self::Twin => f.write_str("twin"),
            Self::Topic(text) | Self::Other(text) => f.write_str(text),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    fn read(source: &str, group: &str, operation: &str, resource: &str) -> Result<Resource, ResourceError> {
        Resource::of(&Route { source: source.into(), group: group.into(), operation: Operation::from(operation), resource: resource.into() })
    }

    #[test]
    fn the_route_decides_what_an_ambiguous_text_means() {
        let text = "device/pod/state";
        assert!(matches!(read("edged", "meta", "update", text), Ok(Resource::Object(_))));
        assert_eq!(read("twin", "resource", "update", text), Ok(Resource::DeviceState(DeviceId::new("pod").unwrap())));
        assert_eq!(read("bus", "user", "upload", text), Ok(Resource::Topic(text.into())));
    }

    #[test]
    fn every_form_of_the_grammar_is_read_and_written_back() {
        for (source, group, operation, text) in [
            ("websocket", "resource", "keepalive", "node"),
            ("edgecontroller", "resource", "insert", "default/pod/web"),
            ("edged", "meta", "query", "default/configmap/cfg"),
            ("metaManager", "resource", "update", "held"),
            ("metaManager", "resource", "update", "default/podstatus"),
            ("twin", "resource", "get", "membership/detail"),
            ("devicecontroller", "twin", "update", "membership/detail"),
            ("devicecontroller", "twin", "update", "membership"),
            ("edgemgr", "twin", "update", "device/d1/twin/cloud_updated"),
            ("edgemgr", "twin", "update", "device/house/d1/twin/cloud_updated"),
            ("twin", "resource", "update", "device/d1/twin/edge_updated"),
            ("twin", "resource", "update", "device/d1/state"),
            ("twin", "resource", "update", "device/house/d1/state/update"),
            ("devicecontroller", "twin", "updated", "device/d1"),
            ("devicecontroller", "twin", "response", "twin"),
            ("router_eventbus", "user", "publish", "some/topic"),
        ] {
            assert_eq!(read(source, group, operation, text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn both_forms_of_a_device_id_name_the_same_device() {
        let short = read("twin", "resource", "update", "device/d1/twin/edge_updated");
        assert_eq!(short, read("twin", "resource", "update", "device/default/d1/twin/edge_updated"));
        let state = read("twin", "resource", "update", "device/default/d1/state/update");
        assert_eq!(state, read("twin", "resource", "update", "device/d1/state"));
    }

    #[test]
    fn a_resource_without_meaning_is_refused_unless_it_is_an_answer() {
        for text in ["", "node/x", "a/b/c/d", "default/unknownkind/x", "default/pod/UPPER", "device//twin/edge_updated"] {
            assert!(read("edged", "meta", "update", text).is_err(), "{text}");
            assert_eq!(read("edged", "meta", "response", text), Ok(Resource::Other(text.into())), "{text}");
        }
        assert!(read("twin", "resource", "update", "device/a/b/c/state").is_err());
        assert!(matches!(read("bus", "user", "upload", &"x".repeat(70_000)), Err(ResourceError::TooLong { .. })));
    }

    #[test]
    fn a_namespace_called_node_is_not_taken_for_the_cloud_form() {
        assert_eq!(read("edgecontroller", "resource", "insert", "node/pod/node").unwrap().to_string(), "node/pod/node");
        let (node, rest) = Resource::split_cloud_form("node/n1/node/pod/web").unwrap();
        assert_eq!((node.as_str(), rest), ("n1", "node/pod/web"));
        assert!(Resource::split_cloud_form("default/pod/web").is_err());
    }
}
