//! Table `device_attr`: attributes of devices.

use diesel::prelude::*;
use model::{Attribute, AttributeName, Attributes, DeviceId};

use super::error::{damaged, query};
use super::schema::device_attr::{self, dsl};
use super::{Read, StoreError, Tx};

const TABLE: &str = "device_attr";

#[derive(Queryable, Selectable)]
#[diesel(table_name = device_attr)]
struct AttributeRow {
    name: String,
    value: Option<String>,
    optional: bool,
    attr_type: Option<String>,
}

impl From<AttributeRow> for Attribute {
    fn from(row: AttributeRow) -> Self {
        Self { value: row.value.unwrap_or_default(), optional: row.optional, kind: row.attr_type.unwrap_or_default() }
    }
}

/// The attributes of a device; empty for an unknown one.
///
/// # Errors
/// [`StoreError::Query`]; [`StoreError::Damaged`] for a row that cannot be understood.
pub fn load(read: &mut Read<'_>, device: &DeviceId) -> Result<Attributes, StoreError> {
    let rows: Vec<AttributeRow> = dsl::device_attr
        .filter(dsl::deviceid.eq(device.as_str()))
        .select(AttributeRow::as_select())
        .load(read.connection)
        .map_err(query("read", TABLE))?;
    rows.into_iter()
        .map(|row| match AttributeName::new(&row.name) {
            Ok(name) => Ok((name, row.into())),
            Err(error) => Err(damaged(TABLE, &format!("{device}: {}", row.name), error)),
        })
        .collect()
}

/// Inserts an attribute, or replaces it; the row keeps its id.
///
/// # Errors
/// [`StoreError::Query`].
pub fn put(tx: &mut Tx<'_>, device: &DeviceId, name: &AttributeName, new: &Attribute) -> Result<(), StoreError> {
    let cells = (
        dsl::value.eq(&new.value),
        dsl::optional.eq(new.optional),
        dsl::attr_type.eq(&new.kind),
        // KubeEdge keeps the metadata without its type here, and there is nothing else in it.
        dsl::metadata.eq("{}"),
    );
    diesel::insert_into(dsl::device_attr)
        .values((dsl::deviceid.eq(device.as_str()), dsl::name.eq(name.as_str()), dsl::description.eq(""), cells))
        .on_conflict((dsl::deviceid, dsl::name))
        .do_update()
        .set(cells)
        .execute(tx.connection)
        .map_err(query("write", TABLE))?;
    Ok(())
}

/// Deletes an attribute; a missing one is fine.
///
/// # Errors
/// [`StoreError::Query`].
pub fn delete(tx: &mut Tx<'_>, device: &DeviceId, name: &AttributeName) -> Result<(), StoreError> {
    diesel::delete(dsl::device_attr.filter(dsl::deviceid.eq(device.as_str())).filter(dsl::name.eq(name.as_str())))
        .execute(tx.connection)
        .map_err(query("delete", TABLE))?;
    Ok(())
}
