//! Table `device_twin`: one row for each property of a device, tombstones included.

use diesel::prelude::*;
use model::{DeviceId, PropertyName, Timestamp, Twin, TwinProperty, TwinType, TwinValue, TwinVersion};
use serde::{Deserialize, Serialize};

use super::error::{damaged, query};
use super::schema::device_twin::{self, dsl};
use super::{ForeignProperty, Read, StoreError, Tx};

const TABLE: &str = "device_twin";

/// What columns `expected_meta` and `actual_meta` hold.
#[derive(Serialize, Deserialize)]
struct SideMeta {
    #[serde(default)]
    timestamp: Timestamp,
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = device_twin)]
struct TwinRow {
    name: String,
    expected: Option<String>,
    actual: Option<String>,
    expected_meta: Option<String>,
    actual_meta: Option<String>,
    expected_version: Option<String>,
    actual_version: Option<String>,
    optional: bool,
    attr_type: Option<String>,
}

impl TwinRow {
    fn into_property(self) -> Result<TwinProperty, Unreadable> {
        let kind = self.attr_type.unwrap_or_default();
        Ok(TwinProperty {
            expected: side(self.expected, self.expected_meta)?,
            actual: side(self.actual, self.actual_meta)?,
            optional: self.optional,
            kind: TwinType::parse(&kind).ok_or(Unreadable::Type(kind))?,
            expected_version: json(self.expected_version)?,
            actual_version: json(self.actual_version)?,
        })
    }
}

#[derive(Debug, thiserror::Error)]
enum Unreadable {
    #[error("unknown type `{0}`")]
    Type(String),
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

/// An empty value is a side that is not there (KubeEdge writes both alike), unless its time is there.
fn side(value: Option<String>, meta: Option<String>) -> Result<Option<TwinValue>, Unreadable> {
    let meta: Option<SideMeta> = json(meta)?;
    Ok(match (value, meta) {
        (None, _) => None,
        (Some(value), None) if value.is_empty() => None,
        (Some(value), meta) => Some(TwinValue { value, timestamp: meta.map_or(Timestamp::UNKNOWN, |meta| meta.timestamp) }),
    })
}

fn json<T: for<'a> Deserialize<'a>>(text: Option<String>) -> Result<Option<T>, Unreadable> {
    match text {
        Some(text) if !text.is_empty() => Ok(Some(serde_json::from_str(&text)?)),
        _ => Ok(None),
    }
}

/// The cells of a property: `''` for what is unset, NULL for what a tombstone has no more.
struct Cells {
    values: [Option<String>; 2],
    metas: [Option<String>; 2],
    versions: [String; 2],
}

impl Cells {
    fn of(property: &TwinProperty) -> Self {
        let unset = (!property.is_tombstone()).then(String::new);
        let value = |side: &Option<TwinValue>| side.as_ref().map(|side| side.value.clone()).or_else(|| unset.clone());
        let meta = |side: &Option<TwinValue>| {
            let meta = side.as_ref().map(|side| format!(r#"{{"timestamp":{}}}"#, side.timestamp.millis()));
            meta.or_else(|| unset.clone())
        };
        let version = |version: Option<TwinVersion>| version.map_or_else(String::new, |v| format!(r#"{{"cloud":{},"edge":{}}}"#, v.cloud, v.edge));
        Self {
            values: [value(&property.expected), value(&property.actual)],
            metas: [meta(&property.expected), meta(&property.actual)],
            versions: [version(property.expected_version), version(property.actual_version)],
        }
    }
}

/// The twin of a device; empty for an unknown one.
///
/// # Errors
/// [`StoreError::Query`]; [`StoreError::Damaged`] for a row that cannot be understood.
pub fn load(read: &mut Read<'_>, device: &DeviceId) -> Result<Twin, StoreError> {
    let rows: Vec<TwinRow> = dsl::device_twin
        .filter(dsl::deviceid.eq(device.as_str()))
        .select(TwinRow::as_select())
        .load(read.connection)
        .map_err(query("read", TABLE))?;
    rows.into_iter()
        .map(|row| {
            let of_row = format!("{device}: {}", row.name);
            let name = PropertyName::new(&row.name).map_err(|error| damaged(TABLE, &of_row, error))?;
            let property = row.into_property().map_err(|error| damaged(TABLE, &of_row, error))?;
            Ok((name, property))
        })
        .collect()
}

/// A property as another database has it.
///
/// # Errors
/// Why it cannot be understood.
pub fn foreign(row: &ForeignProperty, optional: bool) -> Result<TwinProperty, String> {
    let said = |cell: &str| Some(cell.to_owned());
    let row = TwinRow {
        name: String::new(),
        expected: said(&row.expected),
        actual: said(&row.actual),
        expected_meta: said(&row.expected_meta),
        actual_meta: said(&row.actual_meta),
        expected_version: said(&row.expected_version),
        actual_version: said(&row.actual_version),
        optional,
        attr_type: said(&row.attr_type),
    };
    row.into_property().map_err(|error| error.to_string().chars().take(128).collect())
}

/// Inserts a property, or replaces it; the row keeps its id.
///
/// # Errors
/// [`StoreError::Query`].
pub fn put(tx: &mut Tx<'_>, device: &DeviceId, name: &PropertyName, new: &TwinProperty) -> Result<(), StoreError> {
    tx.changes_devices();
    let Cells { values, metas, versions } = Cells::of(new);
    let cells = (
        dsl::expected.eq(&values[0]),
        dsl::actual.eq(&values[1]),
        dsl::expected_meta.eq(&metas[0]),
        dsl::actual_meta.eq(&metas[1]),
        dsl::expected_version.eq(&versions[0]),
        dsl::actual_version.eq(&versions[1]),
        dsl::optional.eq(new.optional),
        dsl::attr_type.eq(new.kind.as_str()),
        // KubeEdge keeps the metadata without its type here, and there is nothing else in it.
        dsl::metadata.eq("{}"),
    );
    diesel::insert_into(dsl::device_twin)
        .values((dsl::deviceid.eq(device.as_str()), dsl::name.eq(name.as_str()), dsl::description.eq(""), cells))
        .on_conflict((dsl::deviceid, dsl::name))
        .do_update()
        .set(cells)
        .execute(tx.connection)
        .map_err(query("write", TABLE))?;
    Ok(())
}
