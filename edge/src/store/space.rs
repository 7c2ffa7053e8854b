//! How much room there is, and whether anything can be stored at present.

use std::path::Path;
use std::sync::PoisonError;

use actor::Fence;
use diesel::prelude::*;

use super::error::query;
use super::foreign::beside;
use super::schema::counter;
use super::{Store, StoreError};

/// With less than this on the file system, in bytes, the store says that it is full before a writer finds out: a commit of
/// a whole batch may take as much.
pub const FREE_BYTES_MIN: u64 = 1 << 20;

/// Size of the files, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// The database itself.
    pub database_bytes: u64,
    /// Its write-ahead log.
    pub wal_bytes: u64,
}

impl Store {
    /// Bytes on disk: the database, and what is still in its write-ahead log.
    pub fn size(&self) -> Size {
        let bytes = |path: &Path| std::fs::metadata(path).map_or(0, |file| file.len());
        Size { database_bytes: bytes(&self.inner.path), wal_bytes: bytes(&beside(&self.inner.path, "-wal")) }
    }

    /// Bytes that the database may have.
    pub fn bytes_max(&self) -> u64 {
        self.inner.bytes_max
    }

    /// Bytes that the file system of the database gives this user; `None` where it does not say.
    pub fn disk_free_bytes(&self) -> Option<u64> {
        let space = rustix::fs::statvfs(&self.inner.path).ok()?;
        Some(space.f_bavail.saturating_mul(space.f_frsize))
    }

    /// Why nothing, or not much, can be stored at present: a full disk, a damaged file.
    pub fn fault(&self) -> Option<String> {
        self.last_fault().or_else(|| {
            if self.size().database_bytes.saturating_add(FREE_BYTES_MIN) > self.inner.bytes_max && self.counts().reusable_bytes < FREE_BYTES_MIN {
                return Some(format!(
                    "no space: the device database has its full size of {} MiB; raise database.max-size",
                    self.inner.bytes_max >> 20
                ));
            }
            let free = self.disk_free_bytes().filter(|free| *free < FREE_BYTES_MIN)?;
            Some(format!("no space: {} KiB are free on the file system of the device database; free some there", free >> 10))
        })
    }

    /// Why the last transaction failed, if that concerns every other too.
    fn last_fault(&self) -> Option<String> {
        self.inner.fault.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// After a failure that concerns every transaction: tries one that has to write, so that it is known when there is
    /// space again though no device says anything. Writes nothing while all is well.
    pub(super) fn try_again(&self) {
        if self.last_fault().is_none() {
            return;
        }
        let tried = self.write(&Fence::unfenced(), |tx| {
            // Another value each time: SQLite writes no page that stays as it is.
            diesel::insert_into(counter::table)
                .values((counter::name.eq("probe"), counter::value.eq(1)))
                .on_conflict(counter::name)
                .do_update()
                .set(counter::value.eq(counter::value + 1))
                .execute(tx.connection)
                .map_err(query("write", "counter"))
        });
        match tried {
            Ok(_) => log::info!("the device database can be written again"),
            Err(StoreError::NoSpace { .. }) => {}
            Err(error) => log::debug!(error:% = error; "the device database cannot be written yet"),
        }
    }
}
