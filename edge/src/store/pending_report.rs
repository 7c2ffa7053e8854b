//! Table `pending_report`: what the cloud must still hear of this node's devices.
//!
//! A row is written in the transaction of the change and says only *that* there is something to
//! report. What is sent is read when it is sent, so a property has one row at most, however often
//! it changed while the cloud was away. Each change gives the row a number that was never used
//! before; a confirmation deletes the numbers of the report it answers and thereby no later change.

use std::collections::HashSet;

use diesel::connection::DefaultLoadingMode;
use diesel::prelude::*;
use model::{DeviceId, PropertyName, Timestamp};

use super::device::Incarnation;
use super::error::{damaged, query};
use super::schema::pending_report::{self, dsl};
use super::{Read, StoreError, Tx};

const TABLE: &str = "pending_report";

/// Column `property` of the row for the state of a device: no property has an empty name.
const STATE: &str = "";

/// Number of one change that has to be reported.
pub type Seq = i64;

/// What has to be reported of one device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PendingDevice {
    /// Properties whose present value the cloud must hear.
    pub properties: Vec<(PropertyName, Seq)>,
    /// The state, if the cloud must hear it.
    pub state: Option<Seq>,
}

#[derive(Insertable)]
#[diesel(table_name = pending_report)]
struct NewRow<'a> {
    deviceid: &'a str,
    incarnation: i64,
    property: &'a str,
    queued_at: i64,
}

/// Notes that a property has to be reported (again).
///
/// # Errors
/// [`StoreError::Query`], also when the device is unknown.
pub fn property(tx: &mut Tx<'_>, device: &DeviceId, incarnation: Incarnation, property: &PropertyName, now: Timestamp) -> Result<(), StoreError> {
    note(tx, device, incarnation, property.as_str(), now)
}

/// Notes that the state of a device has to be reported (again).
///
/// # Errors
/// [`StoreError::Query`], also when the device is unknown.
pub fn state(tx: &mut Tx<'_>, device: &DeviceId, incarnation: Incarnation, now: Timestamp) -> Result<(), StoreError> {
    note(tx, device, incarnation, STATE, now)
}

fn note(tx: &mut Tx<'_>, device: &DeviceId, incarnation: Incarnation, property: &str, now: Timestamp) -> Result<(), StoreError> {
    // REPLACE, not an update in place: the row must get a number that was never used.
    let row = NewRow { deviceid: device.as_str(), incarnation: incarnation.0, property, queued_at: now.millis() };
    diesel::replace_into(dsl::pending_report).values(row).execute(tx.connection).map_err(query("write", TABLE))?;
    Ok(())
}

/// Devices with something to report that are `wanted`, the one that has waited longest first, at
/// most `limit`. Reads no more rows than that takes.
///
/// # Errors
/// [`StoreError::Query`]; [`StoreError::Damaged`] for a row that cannot be understood.
pub fn devices(read: &mut Read<'_>, limit: usize, wanted: impl Fn(&DeviceId) -> bool) -> Result<Vec<DeviceId>, StoreError> {
    let rows = dsl::pending_report
        .select(dsl::deviceid)
        .order(dsl::seq)
        .load_iter::<String, DefaultLoadingMode>(read.connection)
        .map_err(query("list", TABLE))?;
    let mut devices = Vec::new();
    let mut seen = HashSet::new();
    for row in rows {
        if devices.len() >= limit {
            break;
        }
        let row = row.map_err(query("list", TABLE))?;
        if seen.contains(&row) {
            continue;
        }
        let device = DeviceId::new(&row).map_err(|error| damaged(TABLE, &row, error))?;
        if wanted(&device) {
            devices.push(device);
        }
        seen.insert(row);
    }
    Ok(devices)
}

/// What has to be reported of `device`.
///
/// # Errors
/// [`StoreError::Query`]; [`StoreError::Damaged`] for a row that cannot be understood.
pub fn of_device(read: &mut Read<'_>, device: &DeviceId) -> Result<PendingDevice, StoreError> {
    let rows: Vec<(i64, String)> = dsl::pending_report
        .filter(dsl::deviceid.eq(device.as_str()))
        .select((dsl::seq, dsl::property))
        .order(dsl::seq)
        .load(read.connection)
        .map_err(query("read", TABLE))?;
    let mut pending = PendingDevice::default();
    for (seq, property) in rows {
        if property == STATE {
            pending.state = Some(seq);
        } else {
            let name = PropertyName::new(&property).map_err(|error| damaged(TABLE, &format!("{device}: {property}"), error))?;
            pending.properties.push((name, seq));
        }
    }
    Ok(pending)
}

/// Deletes the rows of a report that the cloud has taken (or refused for good). A row that was
/// written again meanwhile has another number and stays.
///
/// # Errors
/// [`StoreError::Query`].
pub fn settle(tx: &mut Tx<'_>, seqs: &[Seq]) -> Result<usize, StoreError> {
    let mut gone = 0;
    for seq in seqs {
        gone += diesel::delete(dsl::pending_report.find(seq)).execute(tx.connection).map_err(query("settle", TABLE))?;
    }
    Ok(gone)
}

/// How many changes the cloud must still hear.
///
/// # Errors
/// [`StoreError::Query`].
pub fn count(read: &mut Read<'_>) -> Result<u64, StoreError> {
    let count: i64 = dsl::pending_report.count().get_result(read.connection).map_err(query("count", TABLE))?;
    Ok(u64::try_from(count).unwrap_or(0))
}
