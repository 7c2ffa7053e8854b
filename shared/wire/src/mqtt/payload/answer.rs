//! What the edge publishes on MQTT, with KubeEdge's exact field names.
//!
//! Each function returns one body. `event_id` echoes the request's in results and documents and is a new one in
//! deltas, state results and `membership/updated`; `at` is the edge's now.

use bytes::Bytes;
use model::membership::AttributeOutcome;
use model::twin::{Delta, Outcome, PropertyResult};
use model::{
    Attribute, AttributeChange, Attributes, Device, DeviceEntry, DeviceId, DeviceState, PropertyChange, SideChange, Timestamp, Twin, TwinProperty,
    TwinType, TwinValue, TwinVersion,
};
use serde::{Serialize, Serializer};

use super::Fault;
use super::report::DeviceStateReport;

/// `…/twin/update/result` of a request that was done: what changed, no versions.
pub fn twin_update_result(event_id: &str, at: Timestamp, outcome: &Outcome) -> Bytes {
    let twin = Pairs(outcome.result.iter().map(|(name, result)| (name, result.as_ref().map(PropertyOut::of_result))));
    write(&TwinBody { event_id, timestamp: at, twin })
}

/// `…/twin/update/document`: what changed, before and after, no versions.
pub fn twin_update_document(event_id: &str, at: Timestamp, outcome: &Outcome) -> Bytes {
    #[derive(Serialize)]
    struct Entry<'a> {
        last: Option<PropertyOut<'a>>,
        current: Option<PropertyOut<'a>>,
    }
    let plain = PropertyOut::without_versions;
    let twin = Pairs(
        outcome
            .document
            .iter()
            .map(|(name, entry)| (name, Entry { last: entry.last.as_ref().map(plain), current: entry.current.as_ref().map(plain) })),
    );
    write(&TwinBody { event_id, timestamp: at, twin })
}

/// `…/twin/update/delta`: all living twins with an expected side, and the expected value where the actual differs.
/// Published only when the delta is not empty.
pub fn twin_update_delta(event_id: &str, at: Timestamp, delta: &Delta<'_>) -> Bytes {
    #[derive(Serialize)]
    struct Body<'a, A: Serialize, B: Serialize> {
        event_id: &'a str,
        timestamp: Timestamp,
        twin: A,
        delta: B,
    }
    let twin = Pairs(delta.twin.iter().map(|(name, property)| (name, PropertyOut::without_versions(property))));
    let delta = Pairs(delta.differing.iter().copied());
    write(&Body { event_id, timestamp: at, twin, delta })
}

/// `…/twin/get/result`: all living twins, no versions.
pub fn twin_get_result(event_id: &str, at: Timestamp, twin: &Twin) -> Bytes {
    write(&TwinBody { event_id, timestamp: at, twin: LivingOut(twin) })
}

/// The error result, on the topic where the result would have been.
pub fn error_result(event_id: &str, at: Timestamp, fault: &Fault) -> Bytes {
    #[derive(Serialize)]
    struct Body<'a> {
        event_id: &'a str,
        timestamp: Timestamp,
        code: u16,
        reason: String,
    }
    write(&Body { event_id, timestamp: at, code: fault.code(), reason: fault.to_string() })
}

/// `…/membership/get/result`: all devices with their attributes, without twins.
pub fn membership_get_result<'a>(event_id: &str, at: Timestamp, devices: impl IntoIterator<Item = &'a Device>) -> Bytes {
    #[derive(Serialize)]
    struct Body<'a> {
        event_id: &'a str,
        timestamp: Timestamp,
        devices: Vec<DeviceOut<'a>>,
    }
    let devices = devices.into_iter().map(|device| DeviceOut { twin: None, ..DeviceOut::of(device) }).collect();
    write(&Body { event_id, timestamp: at, devices })
}

/// `…/membership/updated` for one device that was bound: as it is now, twins without versions, deleted ones `null`.
pub fn membership_added(event_id: &str, at: Timestamp, device: &Device) -> Bytes {
    write(&MembershipBody { event_id, timestamp: at, added_devices: Some([DeviceOut::of(device)]), removed_devices: None })
}

/// `…/membership/updated` for one device that was unbound: as received, or only its id when a full list left it out.
pub fn membership_removed(event_id: &str, at: Timestamp, id: &DeviceId, entry: Option<&DeviceEntry>) -> Bytes {
    let mut device = DeviceOut { id: Some(id), ..DeviceOut::default() };
    if let Some(entry) = entry {
        device.name = &entry.name;
        device.description = &entry.description;
        device.state = entry.state.as_ref();
        device.last_online = &entry.last_online;
    }
    write(&MembershipBody { event_id, timestamp: at, added_devices: None, removed_devices: Some([device]) })
}

/// `…/state/update/result`; the same object goes to the cloud.
pub fn state_update_result(report: &DeviceStateReport) -> Bytes {
    write(report)
}

/// `…/device/{id}/updated`: the attributes that changed; gone ones are `null`.
pub fn device_updated(event_id: &str, at: Timestamp, outcome: &AttributeOutcome) -> Bytes {
    #[derive(Serialize)]
    struct Body<'a, T: Serialize> {
        event_id: &'a str,
        timestamp: Timestamp,
        attributes: T,
    }
    let attributes = Pairs(outcome.iter().map(|(name, attribute)| (name, attribute.as_ref().map(AttributeOut::of))));
    write(&Body { event_id, timestamp: at, attributes })
}

#[derive(Serialize)]
struct TwinBody<'a, T: Serialize> {
    event_id: &'a str,
    timestamp: Timestamp,
    twin: T,
}

#[derive(Serialize)]
struct MembershipBody<'a> {
    event_id: &'a str,
    timestamp: Timestamp,
    added_devices: Option<[DeviceOut<'a>; 1]>,
    removed_devices: Option<[DeviceOut<'a>; 1]>,
}

fn write<T: Serialize>(body: &T) -> Bytes {
    serde_json::to_vec(body).map(Bytes::from).expect("text keys and plain values always serialise")
}

/// An iterator of pairs as a JSON object.
pub(super) struct Pairs<I>(pub I);

impl<K: Serialize, V: Serialize, I: IntoIterator<Item = (K, V)> + Clone> Serialize for Pairs<I> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.clone())
    }
}

/// The properties that are not deleted.
struct LivingOut<'a>(&'a Twin);

impl Serialize for LivingOut<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.living().map(|(name, property)| (name, PropertyOut::without_versions(property))))
    }
}

/// All properties, deleted ones as `null`.
struct TwinOut<'a>(&'a Twin);

impl Serialize for TwinOut<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let living = |property| (!TwinProperty::is_tombstone(property)).then(|| PropertyOut::without_versions(property));
        serializer.collect_map(self.0.properties.iter().map(|(name, property)| (name, living(property))))
    }
}

/// All attributes.
struct AttributesOut<'a>(&'a Attributes);

impl Serialize for AttributesOut<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, attribute)| (name, AttributeOut::of(attribute))))
    }
}

/// One twin property.
#[derive(Default, Serialize)]
pub(super) struct PropertyOut<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    expected: Option<ValueOut<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    actual: Option<ValueOut<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    optional: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<TypeOut<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expected_version: Option<TwinVersion>,
    #[serde(skip_serializing_if = "Option::is_none")]
    actual_version: Option<TwinVersion>,
}

impl<'a> PropertyOut<'a> {
    pub(super) fn with_versions(property: &'a TwinProperty) -> Self {
        Self { expected_version: property.expected_version, actual_version: property.actual_version, ..Self::without_versions(property) }
    }

    fn without_versions(property: &'a TwinProperty) -> Self {
        Self {
            expected: property.expected.as_ref().map(ValueOut::of),
            actual: property.actual.as_ref().map(ValueOut::of),
            optional: Some(property.optional),
            metadata: Some(TypeOut::of(property.kind)),
            expected_version: None,
            actual_version: None,
        }
    }

    fn of_result(result: &'a PropertyResult) -> Self {
        Self {
            expected: result.expected.as_ref().map(ValueOut::of),
            actual: result.actual.as_ref().map(ValueOut::of),
            optional: result.optional,
            metadata: result.kind.map(TypeOut::of),
            ..Self::default()
        }
    }
}

/// One property of a change, as the cloud writes it; `null` is `None`.
#[derive(Serialize)]
#[serde(transparent)]
pub(super) struct ChangeOut<'a>(Option<PropertyOut<'a>>);

impl<'a> ChangeOut<'a> {
    pub(super) fn of(change: &'a PropertyChange, at: Timestamp) -> Self {
        let PropertyChange::Set(set) = change else {
            return Self(None);
        };
        let side = |side: &'a SideChange| ValueOut::new(&side.value, at);
        Self(Some(PropertyOut {
            expected: set.expected.as_ref().map(side),
            actual: set.actual.as_ref().map(side),
            optional: set.optional,
            metadata: set.kind.as_ref().map(|kind| TypeOut { kind: kind.as_str() }),
            expected_version: set.expected_version,
            actual_version: set.actual_version,
        }))
    }
}

/// One side of a property; its time only when it is known.
#[derive(Serialize)]
struct ValueOut<'a> {
    value: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<TimeOut>,
}

#[derive(Serialize)]
struct TimeOut {
    timestamp: Timestamp,
}

impl<'a> ValueOut<'a> {
    fn of(value: &'a TwinValue) -> Self {
        Self::new(&value.value, value.timestamp)
    }

    fn new(value: &'a str, at: Timestamp) -> Self {
        Self { value, metadata: at.is_known().then_some(TimeOut { timestamp: at }) }
    }
}

#[derive(Serialize)]
struct TypeOut<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
}

impl TypeOut<'static> {
    fn of(kind: TwinType) -> Self {
        Self { kind: kind.as_str() }
    }
}

/// One attribute.
#[derive(Serialize)]
pub(super) struct AttributeOut<'a> {
    value: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    optional: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<TypeOut<'a>>,
}

impl<'a> AttributeOut<'a> {
    fn of(attribute: &'a Attribute) -> Self {
        Self { value: &attribute.value, optional: Some(attribute.optional), metadata: Some(TypeOut { kind: &attribute.kind }) }
    }

    pub(super) fn change(change: &'a AttributeChange) -> Self {
        let metadata = change.kind.as_deref().map(|kind| TypeOut { kind });
        Self { value: &change.value, optional: change.optional, metadata }
    }
}

/// One device; what is empty is left out.
#[derive(Default, Serialize)]
struct DeviceOut<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a DeviceId>,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    description: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'a DeviceState>,
    #[serde(skip_serializing_if = "str::is_empty")]
    last_online: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    attributes: Option<AttributesOut<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    twin: Option<TwinOut<'a>>,
}

impl<'a> DeviceOut<'a> {
    fn of(device: &'a Device) -> Self {
        Self {
            id: Some(&device.id),
            name: &device.name,
            description: &device.description,
            state: device.state.as_ref(),
            last_online: &device.last_online,
            attributes: (!device.attributes.is_empty()).then_some(AttributesOut(&device.attributes)),
            twin: (!device.twin.properties.is_empty()).then_some(TwinOut(&device.twin)),
        }
    }
}
