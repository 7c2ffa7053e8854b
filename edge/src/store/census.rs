//! How much the store holds, for those who must not wait for it: the page and the line that systemd is told.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use diesel::dsl::count_star;
use diesel::prelude::*;

use super::error::query;
use super::schema::{device, device_attr, device_twin, meta, pending_report};
use super::{Read, Store, StoreError};

/// Rows as they were counted last.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// Devices of this node.
    pub devices: u64,
    /// Those that said they are online.
    pub online: u64,
    /// Properties of their twins.
    pub properties: u64,
    /// Their attributes.
    pub attributes: u64,
    /// Changes of which the cloud still has to hear.
    pub pending_reports: u64,
    /// Bytes in the file that hold nothing and are used before it grows.
    pub reusable_bytes: u64,
    /// Objects of the cloud, and the statuses of pods, by kind.
    pub objects: BTreeMap<String, u64>,
}

diesel::define_sql_function!(fn lower(text: diesel::sql_types::Nullable<diesel::sql_types::Text>) -> diesel::sql_types::Nullable<diesel::sql_types::Text>);

/// The last count.
#[derive(Debug, Default)]
pub(super) struct Census(Mutex<(Option<u64>, Counts)>);

impl Store {
    /// The last count. Waits for nobody.
    pub fn counts(&self) -> Counts {
        self.inner.census.lock().1.clone()
    }

    /// Counts anew if anything was committed since the last time. Whoever calls it waits for the store. While nothing can
    /// be stored it tries whether that has changed.
    ///
    /// # Errors
    /// [`StoreError::Query`]; the last count stays.
    pub fn recount(&self) -> Result<(), StoreError> {
        self.try_again();
        let commits = self.stats().commits;
        if self.inner.census.lock().0 == Some(commits) {
            return Ok(());
        }
        let counts = self.read(count)?;
        *self.inner.census.lock() = (Some(commits), counts);
        Ok(())
    }
}

impl Census {
    fn lock(&self) -> std::sync::MutexGuard<'_, (Option<u64>, Counts)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn count(read: &mut Read<'_>) -> Result<Counts, StoreError> {
    macro_rules! rows {
        ($table:expr, $name:literal) => {
            $table.select(count_star()).first(read.connection).map(natural).map_err(query("count", $name))?
        };
    }
    let kinds: Vec<(String, i64)> =
        meta::table.group_by(meta::kind).select((meta::kind, count_star())).load(read.connection).map_err(query("count", "meta"))?;
    let reusable = "SELECT p.page_size * f.freelist_count AS bytes FROM pragma_page_size AS p, pragma_freelist_count AS f";
    let reusable: Reusable = diesel::sql_query(reusable).get_result(read.connection).map_err(query("count free pages", "sqlite_master"))?;
    Ok(Counts {
        reusable_bytes: natural(reusable.bytes),
        devices: rows!(device::table, "device"),
        // As `model::DeviceState::is_online` reads it.
        online: rows!(device::table.filter(lower(device::state).eq_any([Some("online"), Some("ok")])), "device"),
        properties: rows!(device_twin::table, "device_twin"),
        attributes: rows!(device_attr::table, "device_attr"),
        pending_reports: rows!(pending_report::table, "pending_report"),
        objects: kinds.into_iter().map(|(kind, rows)| (kind, natural(rows))).collect(),
    })
}

#[derive(QueryableByName)]
struct Reusable {
    #[diesel(sql_type = diesel::sql_types::BigInt)]
    bytes: i64,
}

fn natural(rows: i64) -> u64 {
    u64::try_from(rows).unwrap_or_default()
}
