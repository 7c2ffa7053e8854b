//! The watches of the device controller.

use actor::Handle;
use kube::Api;
use kube::api::DynamicObject;

use super::DeviceControllerMessage;
use crate::cluster::{self, Cluster, Kind};
use crate::watching::{Generation, Watch, settings, watch};

/// Starts the watches of Devices and DeviceModels; their messages carry `generation`. `namespace`: empty for all.
pub fn start(cluster: &Cluster, namespace: &str, to: &Handle<DeviceControllerMessage>, generation: Generation) -> Vec<Watch> {
    // Objects are read one by one: one that cannot be read must not hide the others.
    let models = watch(api(cluster, namespace, &cluster::DEVICE_MODEL), settings(), to.clone(), "devicemodels", cluster.standing(), move |change| {
        let change = change.filter_map(|object| read(object).map(Box::new))?;
        Some(DeviceControllerMessage::Model { generation, change })
    });
    let devices = watch(api(cluster, namespace, &cluster::DEVICE), settings(), to.clone(), "devices", cluster.standing(), move |change| {
        let change = change.filter_map(|object| read(object).map(Box::new))?;
        Some(DeviceControllerMessage::Device { generation, change })
    });
    vec![models, devices]
}

fn api(cluster: &Cluster, namespace: &str, kind: &Kind) -> Api<DynamicObject> {
    let resource = kind.resource();
    if namespace.is_empty() { Api::all_with(cluster.client(), &resource) } else { Api::namespaced_with(cluster.client(), namespace, &resource) }
}

fn read<K: kube::Resource + serde::de::DeserializeOwned>(object: DynamicObject) -> Option<K> {
    let name = format!("{}/{}", object.metadata.namespace.as_deref().unwrap_or_default(), object.metadata.name.as_deref().unwrap_or_default());
    match object.try_parse() {
        Ok(read) => Some(read),
        Err(error) => {
            log::warn!(object = name.as_str(), error = error.to_string().as_str(); "object ignored: it has not the form that its definition gives");
            None
        }
    }
}
