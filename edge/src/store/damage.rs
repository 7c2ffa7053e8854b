//! A damaged file: how it is found, and what is done with it.
//!
//! | when | how it is found | what follows |
//! |---|---|---|
//! | at the start | it is no database; `PRAGMA integrity_check` | it is set aside under another name and a new one begun |
//! | later | SQLite says so when it reads or writes | a mark is left beside it, the hook of [`Store::when_damaged`] ends the process, and the next start looks at the whole file |
//!
//! A file of a newer program, one that this user may not read, and a disk that does not answer are no damage: the start fails.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use diesel::{RunQueryDsl, SqliteConnection};
use model::{Clock as _, SystemClock, Timestamp};

use super::connection::Name;
use super::error::query;
use super::foreign::beside;
use super::{Store, StoreError};

/// Files up to this size, in bytes, are checked whole at each start: 0.1 s, or 3 s where a slow card has to be read. In
/// larger ones `meta` is left out, which is what makes a file large and what the cloud has too; damage in there is found
/// when it is read, and then the whole file is checked.
const CHECKED_WHOLE_BYTES: u64 = 64 << 20;

/// How many damaged files are kept; the oldest goes when there is one more.
pub const KEPT_MAX: usize = 5;

/// Companions of a database, in the order in which they are renamed: a log without its database would be deleted by
/// SQLite, should the power fail in between.
const FILES: [&str; 3] = ["-wal", "-shm", ""];

/// A damaged database that was set aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetAside {
    /// Where it is now; its log is beside it.
    pub file: PathBuf,
    /// What is wrong with it.
    pub why: String,
}

type Hook = Box<dyn FnOnce(String) + Send>;

/// What is called at the first damage.
#[derive(Default)]
pub(super) struct Alarm(Mutex<Option<Hook>>);

impl Store {
    /// As [`Store::open_limited`], and sets a damaged file aside, under another name beside it, and begins a new one.
    ///
    /// # Errors
    /// As [`Store::open`]; [`StoreError::NotWritable`] when the file cannot be renamed.
    pub fn open_or_begin_anew(path: impl AsRef<Path>, bytes_max: u64) -> Result<(Self, Option<SetAside>), StoreError> {
        let path = path.as_ref();
        match Self::open_limited(path, bytes_max) {
            Err(damage @ StoreError::Corrupt { .. }) => {
                let file = set_aside(path).map_err(|source| StoreError::NotWritable { directory: path.to_owned(), source: source.into() })?;
                Ok((Self::open_limited(path, bytes_max)?, Some(SetAside { file, why: actor::chain(&damage) })))
            }
            opened => opened.map(|store| (store, None)),
        }
    }

    /// Calls `hook` once, when SQLite finds the file damaged while it is in use.
    pub fn when_damaged(&self, hook: impl FnOnce(String) + Send + 'static) {
        *self.inner.alarm.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(hook));
    }

    pub(super) fn note_damage(&self, error: Option<&StoreError>) {
        let Some(error @ StoreError::Corrupt { .. }) = error else { return };
        let hook = self.inner.alarm.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(hook) = hook {
            // Without it the next start might not look where the damage is.
            if let Err(error) = File::create(mark(&self.inner.path)) {
                log::warn!(error:% = error; "the damaged database could not be marked for a whole check");
            }
            hook(actor::chain(error));
        }
    }
}

/// Looks for damage in a file that was opened read-only.
///
/// # Errors
/// [`StoreError::Corrupt`]; [`StoreError::Query`] when it cannot be looked at.
pub(super) fn check(path: &Path, connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let failed = || query("check the file", "sqlite");
    let whole = mark(path).exists() || fs::metadata(path).is_ok_and(|file| file.len() <= CHECKED_WHOLE_BYTES);
    let mut checks = vec![String::new()];
    if !whole {
        let tables: Vec<Name> =
            diesel::sql_query("SELECT name AS value FROM sqlite_master WHERE type = 'table' AND name != 'meta'").load(connection).map_err(failed())?;
        checks = tables.into_iter().map(|table| format!("('{}')", table.value.replace('\'', "''"))).collect();
    }
    for of in checks {
        let found: Vec<Name> =
            diesel::sql_query(format!("SELECT integrity_check AS value FROM pragma_integrity_check{of}")).load(connection).map_err(failed())?;
        if let Some(found) = found.into_iter().find(|line| line.value != "ok") {
            return Err(StoreError::Corrupt { action: "pass the integrity check".to_owned(), source: found.value.into() });
        }
    }
    if fs::remove_file(mark(path)).is_ok() {
        log::warn!("the database was found damaged while it was in use, and nothing is wrong with it now: mistrust the memory and the disk");
    }
    Ok(())
}

/// Gives the file another name, and removes the oldest of those that were set aside earlier.
fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let now = SystemClock.now();
    // In the order of time by name too.
    let name = |later: i64| {
        let at = Timestamp(now.millis() + later);
        let seconds = at.rfc3339().replace(['-', ':', 'Z'], "");
        beside(path, &format!(".damaged-{seconds}.{:03}Z", at.millis().rem_euclid(1000)))
    };
    let free = (0..1000).map(name).find(|name| !name.exists()).ok_or_else(|| io::Error::from(io::ErrorKind::AlreadyExists))?;
    for suffix in FILES {
        match fs::rename(beside(path, suffix), beside(&free, suffix)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !suffix.is_empty() => {}
            result => result?,
        }
    }
    let _ = fs::remove_file(mark(path));
    if let Err(error) = prune(path) {
        log::warn!(error:% = error; "damaged databases of earlier times could not be removed");
    }
    Ok(free)
}

fn prune(path: &Path) -> io::Result<()> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else { return Ok(()) };
    let begin = format!("{name}.damaged-");
    let mut kept = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let is_database =
            entry.file_name().to_str().is_some_and(|name| name.starts_with(&begin) && !name.ends_with("-wal") && !name.ends_with("-shm"));
        if is_database {
            kept.push(entry.path());
        }
    }
    // By name, which is by time.
    kept.sort();
    let surplus = kept.len().saturating_sub(KEPT_MAX);
    for old in kept.into_iter().take(surplus) {
        log::warn!(file = old.display().to_string(); "a database that was set aside long ago is removed");
        for suffix in FILES {
            let _ = fs::remove_file(beside(&old, suffix));
        }
    }
    Ok(())
}

/// Beside a database in which damage was met.
fn mark(path: &Path) -> PathBuf {
    beside(path, ".suspect")
}
