//! Opening the database: pragmas, migrations, and the check for a newer schema.

use std::fs::{OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use diesel::connection::SimpleConnection;
use diesel::migration::{Migration, MigrationSource, MigrationVersion};
use diesel::prelude::*;
use diesel::r2d2::{ConnectionManager, CustomizeConnection, Pool};
use diesel::sqlite::Sqlite;
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

use super::{Readers, StoreError};

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("../migrations/cloud");

/// Readers: enough for the two HTTP workers and the controllers.
const READERS: u32 = 3;

// busy_timeout is the first pragma: the switch to WAL itself needs the lock.
const WRITER_PRAGMAS: &str = "PRAGMA busy_timeout = 10000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
     PRAGMA foreign_keys = ON; PRAGMA cache_size = -1024; PRAGMA mmap_size = 0; PRAGMA temp_store = MEMORY;";
const READER_PRAGMAS: &str = "PRAGMA busy_timeout = 10000; PRAGMA query_only = ON; PRAGMA cache_size = -512; PRAGMA mmap_size = 0;";

/// Opens the write connection and brings the schema up to date.
pub fn writer(path: &Path) -> Result<SqliteConnection, StoreError> {
    make_private(path).map_err(|error| StoreError::Open(error.to_string()))?;
    let mut connection = SqliteConnection::establish(&path.to_string_lossy()).map_err(|error| StoreError::Open(error.to_string()))?;
    connection.batch_execute("PRAGMA busy_timeout = 10000;").map_err(|error| StoreError::Open(error.to_string()))?;
    refuse_newer(&mut connection)?;
    connection.batch_execute(WRITER_PRAGMAS).map_err(|error| StoreError::Open(error.to_string()))?;
    connection.run_pending_migrations(MIGRATIONS).map_err(|error| StoreError::Migration(error.to_string()))?;
    Ok(connection)
}

/// Creates the file for its owner alone, because it holds Secrets, and takes it away from others where an older program
/// gave it to them. SQLite gives its `-wal` and `-shm` files the same mode.
fn make_private(path: &Path) -> std::io::Result<()> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        file.set_permissions(Permissions::from_mode(0o600))?;
    }
    Ok(())
}

/// Opens the pool of read connections. Call it after [`writer`], which creates the file.
pub fn readers(path: &Path) -> Result<Readers, StoreError> {
    Pool::builder()
        .max_size(READERS)
        .min_idle(Some(0))
        .test_on_check_out(false)
        .connection_timeout(std::time::Duration::from_secs(10))
        .connection_customizer(Box::new(ReadOnly))
        .build(ConnectionManager::new(path.to_string_lossy()))
        .map_err(|error| StoreError::Pool(error.to_string()))
}

#[derive(Debug)]
struct ReadOnly;

impl CustomizeConnection<SqliteConnection, diesel::r2d2::Error> for ReadOnly {
    fn on_acquire(&self, connection: &mut SqliteConnection) -> Result<(), diesel::r2d2::Error> {
        connection.batch_execute(READER_PRAGMAS).map_err(diesel::r2d2::Error::QueryError)
    }
}

/// Reads the newest migration without writing: a file of a newer program stays as it is.
fn refuse_newer(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = diesel::sql_types::Text)]
        value: String,
    }
    let failed = |error: diesel::result::Error| StoreError::Open(error.to_string());
    let tables: Vec<Row> =
        diesel::sql_query("SELECT name AS value FROM sqlite_master WHERE name = '__diesel_schema_migrations'").load(connection).map_err(failed)?;
    if tables.is_empty() {
        return Ok(());
    }
    let applied: Vec<Row> = diesel::sql_query("SELECT version AS value FROM __diesel_schema_migrations ORDER BY version DESC LIMIT 1")
        .load(connection)
        .map_err(failed)?;
    let migrations: Vec<Box<dyn Migration<Sqlite>>> = MIGRATIONS.migrations().map_err(|error| StoreError::Migration(error.to_string()))?;
    let known = migrations.iter().map(|migration| migration.name().version().as_owned()).max();
    let (Some(found), Some(known)) = (applied.into_iter().next(), known) else {
        return Ok(());
    };
    if MigrationVersion::from(found.value.clone()) > known {
        return Err(StoreError::TooNew { found: found.value, known: known.to_string() });
    }
    Ok(())
}
