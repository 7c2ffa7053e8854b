//! Table `device`: which devices belong to this node, and their state.

use std::collections::BTreeSet;

use diesel::prelude::*;
use model::membership::Known;
use model::{Device, DeviceId, DeviceState};

use super::error::{damaged, query};
use super::schema::{counter, device};
use super::{Read, StoreError, Tx, attribute, twin};

const TABLE: &str = "device";

/// Most devices of one node. KubeEdge has no limit; this is ours.
pub const DEVICES_MAX: u64 = 16_384;

/// A device as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredDevice {
    /// Its row, its attributes and its twin.
    pub device: Device,
    /// Which creation of this id it is.
    pub incarnation: Incarnation,
    /// uid of its object in the cloud, or empty.
    pub uid: String,
}

/// Which creation of a device id a row or a report belongs to; a number is never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Incarnation(pub i64);

#[derive(Queryable, Selectable)]
#[diesel(table_name = device)]
struct DeviceRow {
    id: String,
    name: Option<String>,
    description: Option<String>,
    state: Option<String>,
    last_online: Option<String>,
    incarnation: i64,
    uid: String,
}

impl DeviceRow {
    /// The device of this row, without attributes and twin.
    fn into_device(self) -> Result<StoredDevice, StoreError> {
        let id = DeviceId::new(&self.id).map_err(|error| damaged(TABLE, &self.id, error))?;
        let state = self.state.filter(|state| !state.is_empty());
        let state = state.map(|state| DeviceState::new(&state)).transpose();
        Ok(StoredDevice {
            device: Device {
                state: state.map_err(|error| damaged(TABLE, &self.id, error))?,
                id,
                name: self.name.unwrap_or_default(),
                description: self.description.unwrap_or_default(),
                last_online: self.last_online.unwrap_or_default(),
                attributes: Default::default(),
                twin: Default::default(),
            },
            incarnation: Incarnation(self.incarnation),
            uid: self.uid,
        })
    }
}

/// All devices, each with the uid of its object in the cloud, or an empty one.
///
/// # Errors
/// [`StoreError::Query`]; [`StoreError::Damaged`] for a row that is no device id.
pub fn known(read: &mut Read<'_>) -> Result<Known, StoreError> {
    let rows: Vec<(String, String)> = device::table.select((device::id, device::uid)).load(read.connection).map_err(query("list", TABLE))?;
    rows.into_iter().map(|(id, uid)| Ok((DeviceId::new(&id).map_err(|error| damaged(TABLE, &id, error))?, uid))).collect()
}

/// Notes which object in the cloud a device belongs to.
///
/// # Errors
/// [`StoreError::Query`].
pub fn set_uid(tx: &mut Tx<'_>, id: &DeviceId, uid: &str) -> Result<(), StoreError> {
    tx.changes_devices();
    diesel::update(device::table.find(id.as_str())).set(device::uid.eq(uid)).execute(tx.connection).map_err(query("note the uid", TABLE))?;
    Ok(())
}

/// Which creation of `id` there is; `None` if the device is unknown.
///
/// # Errors
/// [`StoreError::Query`].
pub fn incarnation(read: &mut Read<'_>, id: &DeviceId) -> Result<Option<Incarnation>, StoreError> {
    let found: Option<i64> =
        device::table.find(id.as_str()).select(device::incarnation).first(read.connection).optional().map_err(query("read", TABLE))?;
    Ok(found.map(Incarnation))
}

/// The last incarnation that was drawn, and those that are there.
///
/// # Errors
/// [`StoreError::Query`].
pub fn incarnations(read: &mut Read<'_>) -> Result<(Incarnation, BTreeSet<Incarnation>), StoreError> {
    let newest: i64 = counter::table.find("incarnation").select(counter::value).first(read.connection).map_err(query("read", "counter"))?;
    let present: Vec<i64> = device::table.select(device::incarnation).load(read.connection).map_err(query("list", TABLE))?;
    Ok((Incarnation(newest), present.into_iter().map(Incarnation).collect()))
}

/// The row of `id` alone: attributes and twin are left empty.
///
/// # Errors
/// [`StoreError::Query`]; [`StoreError::Damaged`] for a row that cannot be understood.
pub fn row(read: &mut Read<'_>, id: &DeviceId) -> Result<Option<StoredDevice>, StoreError> {
    device::table
        .find(id.as_str())
        .select(DeviceRow::as_select())
        .first(read.connection)
        .optional()
        .map_err(query("read", TABLE))?
        .map(DeviceRow::into_device)
        .transpose()
}

/// The whole device: row, attributes, twin.
///
/// # Errors
/// [`StoreError::Query`]; [`StoreError::Damaged`] for a row that cannot be understood.
pub fn load(read: &mut Read<'_>, id: &DeviceId) -> Result<Option<StoredDevice>, StoreError> {
    let Some(mut stored) = row(read, id)? else { return Ok(None) };
    stored.device.attributes = attribute::load(read, id)?;
    stored.device.twin = twin::load(read, id)?;
    Ok(Some(stored))
}

/// All devices with their attributes, without their twins: what `membership/get` tells.
///
/// # Errors
/// [`StoreError::Query`]; [`StoreError::Damaged`] for a row that cannot be understood.
pub fn all(read: &mut Read<'_>) -> Result<Vec<Device>, StoreError> {
    let rows: Vec<DeviceRow> = device::table.select(DeviceRow::as_select()).order(device::id).load(read.connection).map_err(query("list", TABLE))?;
    rows.into_iter()
        .map(|row| {
            let mut device = row.into_device()?.device;
            device.attributes = attribute::load(read, &device.id)?;
            Ok(device)
        })
        .collect()
}

/// How many devices there are.
///
/// # Errors
/// [`StoreError::Query`].
pub fn count(read: &mut Read<'_>) -> Result<u64, StoreError> {
    let count: i64 = device::table.count().get_result(read.connection).map_err(query("count", TABLE))?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// Inserts the row of a device that is not there yet; its attributes and twin are written by the
/// functions of their tables.
///
/// # Errors
/// [`StoreError::Query`], also when the device is there.
pub fn insert(tx: &mut Tx<'_>, new: &Device) -> Result<Incarnation, StoreError> {
    tx.changes_devices();
    let incarnation: i64 = diesel::update(counter::table.find("incarnation"))
        .set(counter::value.eq(counter::value + 1))
        .returning(counter::value)
        .get_result(tx.connection)
        .map_err(query("draw an incarnation", "counter"))?;
    diesel::insert_into(device::table)
        .values((
            device::id.eq(new.id.as_str()),
            device::name.eq(&new.name),
            device::description.eq(&new.description),
            device::state.eq(new.state.as_ref().map_or("", DeviceState::as_str)),
            device::last_online.eq(&new.last_online),
            device::incarnation.eq(incarnation),
        ))
        .execute(tx.connection)
        .map_err(query("insert", TABLE))?;
    Ok(Incarnation(incarnation))
}

/// Stores the state of a device and when it was last online.
///
/// # Errors
/// [`StoreError::Query`].
pub fn set_state(tx: &mut Tx<'_>, id: &DeviceId, state: &DeviceState, last_online: &str) -> Result<(), StoreError> {
    diesel::update(device::table.find(id.as_str()))
        .set((device::state.eq(state.as_str()), device::last_online.eq(last_online)))
        .execute(tx.connection)
        .map_err(query("update the state", TABLE))?;
    Ok(())
}

/// Deletes a device with all that hangs on it: attributes, twin, pending reports. Tells whether
/// it was there.
///
/// # Errors
/// [`StoreError::Query`].
pub fn remove(tx: &mut Tx<'_>, id: &DeviceId) -> Result<bool, StoreError> {
    tx.changes_devices();
    // What hangs on it follows by the foreign keys, in the same statement.
    let gone = diesel::delete(device::table.find(id.as_str())).execute(tx.connection).map_err(query("delete", TABLE))?;
    Ok(gone > 0)
}
