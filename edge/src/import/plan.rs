//! What a foreign database says, by this program's rules: row by row, without writing anything.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use model::twin::is_value;
use model::{
    Attribute, AttributeName, Device, DeviceId, DeviceState, PropertyName, ResourceKey, ResourceKind, Timestamp, TwinProperty, TwinValue, TwinVersion,
};
use wire::hub::{PodStatusReport, RawJson};
use wire::json::{DEPTH_MAX, is_deeper_than};

use super::report::{Report, Tally};
use crate::meta_manager::{Normal, normal, status_of};
use crate::store::meta::StoredObject;
use crate::store::{Extent, Foreign, ForeignAttribute, ForeignDevice, ForeignError, ForeignObject, ForeignProperty, ForeignRow, twin};

/// Longest cell of a device or an attribute, in bytes. KubeEdge has no limit.
const CELL_BYTES_MAX: usize = 64 << 10;

/// What is to be written.
#[derive(Debug, Default)]
pub struct Plan {
    /// Devices with attributes and twin, and the uid of each, if it is known.
    pub devices: BTreeMap<DeviceId, (Device, String)>,
    /// Objects and statuses of pods.
    pub objects: BTreeMap<ResourceKey, StoredObject>,
}

/// Reads all tables.
///
/// # Errors
/// The source's; a row that cannot be taken is none, but named in `report`.
pub fn plan(source: &mut Foreign, now: Timestamp, report: &mut Report) -> Result<Plan, ForeignError> {
    let mut plan = Plan::default();
    let mut devices = Tally::default();
    each(source, report, |row: ForeignDevice, report| {
        take(plan.device(&row, report), &mut devices, report, || format!("device `{}`", brief(&row.id)))
    })?;
    let mut attributes = Tally::default();
    each(source, report, |row: ForeignAttribute, report| {
        take(plan.attribute(&row), &mut attributes, report, || format!("attribute `{}` of device `{}`", brief(&row.name), brief(&row.deviceid)));
    })?;
    let mut properties = Tally::default();
    each(source, report, |row: ForeignProperty, report| {
        take(plan.property(&row), &mut properties, report, || format!("property `{}` of device `{}`", brief(&row.name), brief(&row.deviceid)));
    })?;
    let mut objects = Tally::default();
    let mut statuses = Vec::new();
    each(source, report, |row: ForeignObject, report| {
        let of_row = || format!("object `{}`", brief(&row.key));
        // The rows of pods may come after those of their statuses.
        if row.key.split('/').nth(1) == Some(ResourceKind::PodStatus.as_str()) {
            statuses.push(row);
        } else {
            take(plan.object(&row, now), &mut objects, report, of_row);
        }
    })?;
    for row in statuses {
        take(plan.status(&row, now), &mut objects, report, || format!("object `{}`", brief(&row.key)));
    }
    if source.has("meta_v2") {
        report.remark("table meta_v2 is left out: newer KubeEdge keeps there what programs on the node asked of the Kubernetes API".to_owned());
    }
    (report.devices, report.attributes, report.properties, report.objects) = (devices, attributes, properties, objects);
    Ok(plan)
}

fn each<R: ForeignRow>(source: &mut Foreign, report: &mut Report, mut take: impl FnMut(R, &mut Report)) -> Result<(), ForeignError> {
    match source.each(|row| take(row, report))? {
        Extent::Whole => {}
        Extent::Missing => report.remark(format!("there is no table {}", R::TABLE)),
        Extent::Part(why) => report.remark(format!("table {} could be read in part only: {why}", R::TABLE)),
    }
    Ok(())
}

/// Counts and names a row that cannot be taken. What is taken is counted when it is written.
fn take(result: Result<(), String>, tally: &mut Tally, report: &mut Report, row: impl Fn() -> String) {
    if let Err(reason) = result {
        tally.skipped += 1;
        report.skip(row(), reason);
    }
}

/// A text of the source for a sentence.
fn brief(text: &str) -> String {
    text.chars().take(64).collect()
}

const OLDER: &str = "a newer row says the same";

impl Plan {
    fn device(&mut self, row: &ForeignDevice, report: &mut Report) -> Result<(), String> {
        let id = DeviceId::new(&row.id).map_err(|error| error.to_string())?;
        short(&[("name", &row.name), ("description", &row.description), ("last_online", &row.last_online), ("uid", &row.uid)])?;
        let Entry::Vacant(place) = self.devices.entry(id.clone()) else { return Err(OLDER.to_owned()) };
        let state = (!row.state.is_empty()).then(|| DeviceState::new(&row.state)).transpose();
        if let Err(error) = &state {
            report.remark(format!("device `{id}` is imported without its state `{}`: {error}", brief(&row.state)));
        }
        let device = Device {
            id,
            name: row.name.clone(),
            description: row.description.clone(),
            state: state.unwrap_or_default(),
            last_online: row.last_online.clone(),
            attributes: BTreeMap::new(),
            twin: model::Twin::default(),
        };
        place.insert((device, row.uid.clone()));
        Ok(())
    }

    fn attribute(&mut self, row: &ForeignAttribute) -> Result<(), String> {
        let device = self.of(&row.deviceid)?;
        let name = AttributeName::new(&row.name).map_err(|error| error.to_string())?;
        short(&[("value", &row.value), ("attr_type", &row.attr_type)])?;
        let kind = if row.attr_type.is_empty() { "string" } else { &row.attr_type };
        let attribute = Attribute { value: row.value.clone(), optional: is_true(&row.optional), kind: kind.to_owned() };
        match device.attributes.entry(name) {
            Entry::Vacant(place) => place.insert(attribute),
            // KubeEdge has no unique index: the last row is the one that it would load last.
            Entry::Occupied(_) => return Err(OLDER.to_owned()),
        };
        Ok(())
    }

    fn property(&mut self, row: &ForeignProperty) -> Result<(), String> {
        let device = self.of(&row.deviceid)?;
        let name = PropertyName::new(&row.name).map_err(|error| error.to_string())?;
        let property = checked(twin::foreign(row, is_true(&row.optional))?)?;
        match device.twin.properties.entry(name) {
            Entry::Vacant(place) => place.insert(property),
            Entry::Occupied(_) => return Err(OLDER.to_owned()),
        };
        Ok(())
    }

    fn object(&mut self, row: &ForeignObject, now: Timestamp) -> Result<(), String> {
        let key: ResourceKey = row.key.parse().map_err(|error: model::resource::ResourceKeyError| error.to_string())?;
        if is_deeper_than(row.value.as_bytes(), DEPTH_MAX) {
            return Err(format!("its value is nested deeper than {DEPTH_MAX} levels"));
        }
        let content = RawJson::from_text(row.value.clone()).map_err(|error| format!("its value is not JSON: {error}"))?;
        let version = (!row.resource_version.is_empty()).then(|| row.resource_version.clone());
        for Normal { key, text, uid, resource_version } in normal(&key, &content).map_err(|error| error.to_string())? {
            let object = StoredObject { key: key.clone(), value: text, uid, resource_version: version.clone().or(resource_version), stored_at: now };
            self.objects.entry(key).or_insert(object);
        }
        Ok(())
    }

    fn status(&mut self, row: &ForeignObject, now: Timestamp) -> Result<(), String> {
        let key: ResourceKey = row.key.parse().map_err(|error: model::resource::ResourceKeyError| error.to_string())?;
        let report: PodStatusReport = serde_json::from_str(&row.value).map_err(|error| format!("its value is no status of a pod: {error}"))?;
        let pod = key.name.clone().and_then(|name| self.objects.get(&ResourceKey::object(key.namespace.clone(), ResourceKind::Pod, name)));
        if pod.is_none_or(|pod| pod.uid.as_deref().unwrap_or_default() != report.uid) {
            return Err("there is no such pod".to_owned());
        }
        self.objects.insert(key.clone(), status_of(key, &report, now));
        Ok(())
    }

    fn of(&mut self, id: &str) -> Result<&mut Device, String> {
        let id = DeviceId::new(id).map_err(|error| error.to_string())?;
        self.devices.get_mut(&id).map(|(device, _)| device).ok_or_else(|| "there is no such device".to_owned())
    }
}

/// A property that MQTT and the cloud could have written too.
fn checked(mut property: TwinProperty) -> Result<TwinProperty, String> {
    if property.is_tombstone() {
        (property.expected, property.actual) = (None, None);
    }
    for (side, value) in [("expected", &property.expected), ("actual", &property.actual)] {
        let Some(TwinValue { value, .. }) = value else { continue };
        if !is_value(value) {
            return Err(format!("its {side} value `{}` has more than 512 bytes or signs that no value may have", brief(value)));
        }
        // A side that was never given a value has an empty one in some versions of KubeEdge.
        if !value.is_empty() {
            property.kind.check(value).map_err(|error| format!("its {side} value `{}`: {error}", brief(value)))?;
        }
    }
    for version in [property.expected_version, property.actual_version].into_iter().flatten() {
        let TwinVersion { cloud, edge } = version;
        if cloud < 0 || edge < 0 {
            return Err(format!("its version {version} is negative"));
        }
    }
    Ok(property)
}

fn short(cells: &[(&str, &str)]) -> Result<(), String> {
    match cells.iter().find(|(_, text)| text.len() > CELL_BYTES_MAX) {
        Some((name, text)) => Err(format!("its {name} has {} bytes, at most {CELL_BYTES_MAX} are taken", text.len())),
        None => Ok(()),
    }
}

/// A boolean of KubeEdge's ORM; unset is true.
fn is_true(cell: &str) -> bool {
    !matches!(cell, "0" | "false")
}
