//! The watches of the downstream half.

use actor::Handle;
use kube::Api;
use kube::api::DynamicObject;
use kube::runtime::watcher;
use model::ResourceKind;

use super::DownstreamMessage;
use super::state::WATCHED;
use crate::cluster::{self, Cluster, Kind};
use crate::edge_controller::resource::node::EDGE_LABEL;
use crate::edge_controller::resource::observed::Observed;
use crate::watching::{Generation, Watch, settings, watch};

/// Starts one watch for each kind in [`WATCHED`]; their messages carry `generation`.
///
/// `namespace`: empty for all. Nodes have none, and only those with the edge label are watched.
pub fn start(cluster: &Cluster, namespace: &str, to: &Handle<DownstreamMessage>, generation: Generation) -> Vec<Watch> {
    WATCHED
        .iter()
        .filter_map(|&as_kind| Some((as_kind, kind(as_kind)?)))
        .map(|(as_kind, kind)| {
            let resource = kind.resource();
            let (api, settings): (Api<DynamicObject>, watcher::Config) = if as_kind == ResourceKind::Node {
                (Api::all_with(cluster.client(), &resource), settings().labels(EDGE_LABEL))
            } else if namespace.is_empty() {
                (Api::all_with(cluster.client(), &resource), settings())
            } else {
                (Api::namespaced_with(cluster.client(), namespace, &resource), settings())
            };
            watch(api, settings, to.clone(), kind.plural, cluster.standing(), move |change| {
                let change = change.filter_map(|object| Observed::read(kind, as_kind, object))?;
                Some(DownstreamMessage::Watch { generation, kind: as_kind, change })
            })
        })
        .collect()
}

/// Where objects of a kind that goes to the edge live in the API; `None` for a kind that does not go there.
pub fn kind(as_kind: ResourceKind) -> Option<&'static Kind> {
    match as_kind {
        ResourceKind::Pod => Some(&cluster::POD),
        ResourceKind::ConfigMap => Some(&cluster::CONFIG_MAP),
        ResourceKind::Secret => Some(&cluster::SECRET),
        ResourceKind::Node => Some(&cluster::NODE),
        ResourceKind::PodList
        | ResourceKind::PodStatus
        | ResourceKind::NodeStatus
        | ResourceKind::PodPatch
        | ResourceKind::NodePatch
        | ResourceKind::Lease
        | ResourceKind::Event
        | ResourceKind::ServiceAccountToken
        | ResourceKind::Device
        | ResourceKind::DeviceModel => None,
    }
}
