//! The columns of each kind, as kubectl users know them.

use serde_json::Value;

use super::age::since;
use super::{Column, node, pod};
use crate::embedded::object::Object;

pub(super) const NONE: &str = "<none>";

const fn column(name: &'static str, cell: fn(&Object, jiff::Timestamp) -> Value) -> Column {
    Column { name, kind: "string", priority: 0, cell }
}

const fn wide(name: &'static str, cell: fn(&Object, jiff::Timestamp) -> Value) -> Column {
    Column { name, kind: "string", priority: 1, cell }
}

const fn count(name: &'static str, cell: fn(&Object, jiff::Timestamp) -> Value) -> Column {
    Column { name, kind: "integer", priority: 0, cell }
}

const NAME: Column = column("Name", |object, _| object.name().into());
const AGE: Column = column("Age", |object, now| since(object.meta().get("creationTimestamp"), now).into());

/// A text at a pointer, or `<none>`.
pub(super) fn text_or_none(object: &Object, pointer: &str) -> Value {
    match object.str_at(pointer) {
        "" => NONE.into(),
        text => text.into(),
    }
}

fn entries(object: &Object, field: &str) -> usize {
    object.fields().get(field).and_then(Value::as_object).map_or(0, serde_json::Map::len)
}

/// Namespaces.
pub const NAMESPACE: &[Column] = &[NAME, column("Status", |object, _| object.str_at("/status/phase").into()), AGE];

/// Nodes.
pub const NODE: &[Column] = &[
    NAME,
    column("Status", |object, _| node::status(object).into()),
    column("Roles", |object, _| node::roles(object).into()),
    AGE,
    column("Version", |object, _| object.str_at("/status/nodeInfo/kubeletVersion").into()),
    wide("Internal-IP", |object, _| node::address(object, "InternalIP").into()),
    wide("External-IP", |object, _| node::address(object, "ExternalIP").into()),
    wide("OS-Image", |object, _| node::info(object, "osImage").into()),
    wide("Kernel-Version", |object, _| node::info(object, "kernelVersion").into()),
    wide("Container-Runtime", |object, _| node::info(object, "containerRuntimeVersion").into()),
];

/// Pods.
pub const POD: &[Column] = &[
    NAME,
    column("Ready", |object, _| pod::ready(object).into()),
    column("Status", |object, _| pod::status(object).into()),
    column("Restarts", |object, now| pod::restarts(object, now).into()),
    AGE,
    wide("IP", |object, _| text_or_none(object, "/status/podIP")),
    wide("Node", |object, _| text_or_none(object, "/spec/nodeName")),
    wide("Nominated Node", |object, _| text_or_none(object, "/status/nominatedNodeName")),
    wide("Readiness Gates", |object, _| pod::gates(object).into()),
];

/// ConfigMaps.
pub const CONFIG_MAP: &[Column] = &[NAME, count("Data", |object, _| (entries(object, "data") + entries(object, "binaryData")).into()), AGE];

/// Secrets.
pub const SECRET: &[Column] =
    &[NAME, column("Type", |object, _| object.str_at("/type").into()), count("Data", |object, _| entries(object, "data").into()), AGE];

/// Leases.
pub const LEASE: &[Column] = &[NAME, column("Holder", |object, _| object.str_at("/spec/holderIdentity").into()), AGE];

/// Events.
pub const EVENT: &[Column] = &[
    column("Last Seen", |object, now| last_seen(object, now).into()),
    column("Type", |object, _| object.str_at("/type").into()),
    column("Reason", |object, _| object.str_at("/reason").into()),
    column("Object", |object, _| {
        let kind = object.str_at("/involvedObject/kind").to_lowercase();
        format!("{kind}/{}", object.str_at("/involvedObject/name")).into()
    }),
    wide("Subobject", |object, _| object.str_at("/involvedObject/fieldPath").into()),
    wide("Source", |object, _| source(object).into()),
    column("Message", |object, _| object.str_at("/message").trim().into()),
    wide("First Seen", |object, now| since(first_time(object), now).into()),
    Column { priority: 1, ..count("Count", |object, _| times(object).into()) },
    wide("Name", |object, _| object.name().into()),
];

/// Devices.
pub const DEVICE: &[Column] = &[
    NAME,
    column("Node", |object, _| text_or_none(object, "/spec/nodeName")),
    column("Model", |object, _| text_or_none(object, "/spec/deviceModelRef/name")),
    AGE,
    wide("Protocol", |object, _| text_or_none(object, "/spec/protocol/protocolName")),
];

/// DeviceModels.
pub const DEVICE_MODEL: &[Column] = &[
    NAME,
    column("Protocol", |object, _| text_or_none(object, "/spec/protocol")),
    count("Properties", |object, _| object.list_at("/spec/properties").len().into()),
    AGE,
];

/// DeviceStatuses.
pub const DEVICE_STATUS: &[Column] = &[
    NAME,
    column("State", |object, _| text_or_none(object, "/status/state")),
    column("Reported", |object, _| reported(object).into()),
    column("Last Online", |object, _| text_or_none(object, "/status/lastOnlineTime")),
    AGE,
];

/// `temperature=21,state=on`: the reported values, which is what a device is looked up for.
fn reported(object: &Object) -> String {
    let twins = object.list_at("/status/twins").iter();
    let values = twins.filter_map(|twin| {
        let value = twin["reported"]["value"].as_str()?;
        Some(format!("{}={value}", twin["propertyName"].as_str()?))
    });
    let values: Vec<String> = values.take(8).collect();
    if values.is_empty() { NONE.to_owned() } else { values.join(",") }
}

fn present<'a>(object: &'a Object, pointer: &str) -> Option<&'a Value> {
    object.value().pointer(pointer).filter(|value| !value.is_null())
}

fn first_time(object: &Object) -> Option<&Value> {
    present(object, "/firstTimestamp").or_else(|| present(object, "/eventTime"))
}

fn last_time(object: &Object) -> Option<&Value> {
    present(object, "/series/lastObservedTime").or_else(|| present(object, "/lastTimestamp")).or_else(|| first_time(object))
}

fn times(object: &Object) -> i64 {
    let series = present(object, "/series/count").or_else(|| present(object, "/count"));
    series.and_then(Value::as_i64).unwrap_or(1)
}

fn last_seen(object: &Object, now: jiff::Timestamp) -> String {
    let last = since(last_time(object), now);
    match times(object) {
        ..=1 => last,
        times => format!("{last} (x{times} over {})", since(first_time(object), now)),
    }
}

fn source(object: &Object) -> String {
    let component = match object.str_at("/source/component") {
        "" => object.str_at("/reportingComponent"),
        component => component,
    };
    match object.str_at("/source/host") {
        "" => component.to_owned(),
        host => format!("{component}, {host}"),
    }
}
