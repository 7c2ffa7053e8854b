//! What can go wrong between a module and the database.

use std::error::Error;
use std::path::PathBuf;

use diesel::result::{DatabaseErrorKind, Error as QueryError};

/// Why the store could not do what was asked. Nothing was written in any of these cases.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file could not be opened as a database.
    #[error("failed to open the device database `{path}`; check that the path names a file which this user may read and write")]
    Open {
        /// The file.
        path: PathBuf,
        /// What SQLite or the connection pool said.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The database was written by a later program; it was left as it is.
    #[error(
        "device database `{path}` is at schema {found}, this program knows up to {known}; install the newer skep-edge again, or give this one another --data-dir"
    )]
    TooNew {
        /// The file.
        path: PathBuf,
        /// The latest migration in the file.
        found: String,
        /// The latest migration in this program.
        known: String,
    },
    /// The schema could not be brought up to date.
    #[error("failed to bring the device database `{path}` up to date")]
    Migrate {
        /// The file.
        path: PathBuf,
        /// The failed migration.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The state directory, or the file in it, may not be written.
    #[error("state directory `{directory}` is not writable; run as its owner, or choose another with --data-dir")]
    NotWritable {
        /// The directory that holds the database.
        directory: PathBuf,
        /// What the system said.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The disk is full, or the file has its full size (`database.max-size`).
    #[error("no space left for the device database while trying to {action}; free some on its file system, or raise database.max-size")]
    NoSpace {
        /// What was being done.
        action: &'static str,
        /// What SQLite said.
        #[source]
        source: QueryError,
    },
    /// The actor that writes was replaced meanwhile: its transaction was rolled back.
    #[error("this incarnation was replaced, its transaction was rolled back")]
    Fenced,
    /// A statement failed.
    #[error("failed to {action} in table `{table}`")]
    Query {
        /// What was being done.
        action: &'static str,
        /// Where.
        table: &'static str,
        /// What SQLite said.
        #[source]
        source: QueryError,
    },
    /// The file is no database, or parts of it are not what SQLite wrote there.
    #[error("the file of the device database is damaged: cannot {action}; it is set aside at the start of skep-edge, and a new one begun")]
    Corrupt {
        /// What was being done.
        action: String,
        /// What SQLite said.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// A row cannot be understood. The file is whole, so somebody else wrote it.
    #[error("the device database is damaged: {what}; move the file away to begin anew, the cloud sends everything again")]
    Damaged {
        /// What was found, and where.
        what: String,
        /// What the parser said.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

impl StoreError {
    /// Whether the next transaction will fail for the same reason, whatever it writes.
    pub fn is_of_the_whole_store(&self) -> bool {
        match self {
            Self::Open { .. }
            | Self::TooNew { .. }
            | Self::Migrate { .. }
            | Self::NotWritable { .. }
            | Self::NoSpace { .. }
            | Self::Corrupt { .. }
            | Self::Query { table: "sqlite", .. } => true,
            Self::Fenced | Self::Query { .. } | Self::Damaged { .. } => false,
        }
    }
}

// Diesel does not hand on SQLite's result codes, only `sqlite3_errmsg`; the texts are those of
// the SQLite that is compiled in (tests provoke each of them).
const FULL: &str = "database or disk is full";
const READ_ONLY: &str = "attempt to write a readonly database";
const DAMAGED: [&str; 2] = ["file is not a database", "database disk image is malformed"];
const DAMAGED_SCHEMA: &str = "malformed database schema";

/// Makes the typed error of a failed statement: `.map_err(query("read", "device"))`.
pub(super) fn query(action: &'static str, table: &'static str) -> impl Fn(QueryError) -> StoreError {
    move |source| {
        if message(&source) == FULL {
            StoreError::NoSpace { action, source }
        } else if is_damage(&source) {
            StoreError::Corrupt { action: format!("{action} in `{table}`"), source: source.into() }
        } else {
            StoreError::Query { action, table, source }
        }
    }
}

/// Whether SQLite found that a file is none of its own, or damaged. A disk that does not answer (`disk I/O error`) and a
/// file that may not be read are not.
pub(super) fn is_damage(error: &QueryError) -> bool {
    DAMAGED.contains(&message(error)) || message(error).starts_with(DAMAGED_SCHEMA)
}

fn message(error: &QueryError) -> &str {
    match error {
        QueryError::DatabaseError(DatabaseErrorKind::Unknown, information) => information.message(),
        _ => "",
    }
}

/// Whether SQLite refused because the file or the connection is read-only.
pub(super) fn is_read_only(error: &QueryError) -> bool {
    message(error) == READ_ONLY
}

/// Makes the typed error of a row that this program cannot understand.
pub(super) fn damaged(table: &'static str, row: &str, source: impl Into<Box<dyn Error + Send + Sync>>) -> StoreError {
    StoreError::Damaged { what: format!("row `{row}` of `{table}` cannot be understood"), source: source.into() }
}
