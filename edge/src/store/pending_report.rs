//! Table `pending_report`: what the cloud must still hear of this node's devices.
//!
//! A row is written in the transaction of the change and says only *that* there is something to
//! report. What is sent is read when it is sent, so a property has one row at most, however often
//! it changed while the cloud was away. Each change gives the row a number that was never used
//! before; a confirmation deletes the numbers of the report it answers and thereby no later change.

use std::collections::HashSet;

use actor::MsgId;
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

/// One change that has to be reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Its number.
    pub seq: Seq,
    /// The message that made it; unknown in rows that an older version wrote.
    pub cause: Option<MsgId>,
}

/// What has to be reported of one device, the oldest change first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PendingDevice {
    /// Properties whose present value the cloud must hear.
    pub properties: Vec<(PropertyName, Pending)>,
    /// The state, if the cloud must hear it.
    pub state: Option<Pending>,
}

#[derive(Insertable)]
#[diesel(table_name = pending_report)]
struct NewRow<'a> {
    deviceid: &'a str,
    incarnation: i64,
    property: &'a str,
    queued_at: i64,
    cause: String,
}

/// Notes that a property has to be reported (again), because of the message `cause`.
///
/// # Errors
/// [`StoreError::Query`], also when the device is unknown.
pub fn property(
    tx: &mut Tx<'_>,
    device: &DeviceId,
    incarnation: Incarnation,
    property: &PropertyName,
    now: Timestamp,
    cause: MsgId,
) -> Result<(), StoreError> {
    note(tx, device, incarnation, property.as_str(), now, cause)
}

/// Notes that the state of a device has to be reported (again), because of the message `cause`.
///
/// # Errors
/// [`StoreError::Query`], also when the device is unknown.
pub fn state(tx: &mut Tx<'_>, device: &DeviceId, incarnation: Incarnation, now: Timestamp, cause: MsgId) -> Result<(), StoreError> {
    note(tx, device, incarnation, STATE, now, cause)
}

fn note(tx: &mut Tx<'_>, device: &DeviceId, incarnation: Incarnation, property: &str, now: Timestamp, cause: MsgId) -> Result<(), StoreError> {
    // REPLACE, not an update in place: the row must get a number that was never used.
    let row = NewRow { deviceid: device.as_str(), incarnation: incarnation.0, property, queued_at: now.millis(), cause: cause.to_string() };
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
    let rows: Vec<(i64, String, Option<String>)> = dsl::pending_report
        .filter(dsl::deviceid.eq(device.as_str()))
        .select((dsl::seq, dsl::property, dsl::cause))
        .order(dsl::seq)
        .load(read.connection)
        .map_err(query("read", TABLE))?;
    let mut pending = PendingDevice::default();
    for (seq, property, cause) in rows {
        // Only for the log: one that cannot be read is no reason to hold the report back.
        let change = Pending { seq, cause: cause.and_then(|cause| cause.parse().ok()) };
        if property == STATE {
            pending.state = Some(change);
        } else {
            let name = PropertyName::new(&property).map_err(|error| damaged(TABLE, &format!("{device}: {property}"), error))?;
            pending.properties.push((name, change));
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
