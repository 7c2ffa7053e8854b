//! Opening the file: checks, pragmas, migrations, and one transaction on one connection.

use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use diesel::connection::{AnsiTransactionManager, SimpleConnection, TransactionManager};
use diesel::migration::MigrationSource;
use diesel::r2d2::{self, ConnectionManager, CustomizeConnection, Pool};
use diesel::sql_types::Text;
use diesel::sqlite::Sqlite;
use diesel::{Connection, QueryableByName, RunQueryDsl, SqliteConnection};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};
use scheduled_thread_pool::ScheduledThreadPool;

use super::damage;
use super::error::{StoreError, is_read_only, query};

pub(super) const MIGRATIONS: EmbeddedMigrations = embed_migrations!("../migrations/edge");

/// Readers at the same time; the third waits. Each costs its page cache of 256 KB.
const READERS_MAX: u32 = 2;

/// How long a reader waits for one of the connections.
const READER_WAIT: Duration = Duration::from_secs(5);

// `busy_timeout` comes first: switching to WAL needs a lock and would fail at once without it.
// A power cut must not take back what was acknowledged, hence FULL: in WAL mode NORMAL syncs at
// checkpoints only. `mmap_size=0`: mapped pages count as memory of this process. A log that had to grow beyond 8 MiB is
// cut back when it begins anew; it does after 1000 pages (SQLite's default), as soon as no reader needs them. There is no
// auto_vacuum: pages that become free are used again, and moving others in their place would cost writes on flash.
const WRITER_PRAGMAS: &str = "
    PRAGMA busy_timeout = 5000;
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    PRAGMA foreign_keys = ON;
    PRAGMA cache_size = -1024;
    PRAGMA mmap_size = 0;
    PRAGMA temp_store = MEMORY;
    PRAGMA journal_size_limit = 8388608;
";

const READER_PRAGMAS: &str = "
    PRAGMA busy_timeout = 5000;
    PRAGMA cache_size = -256;
    PRAGMA mmap_size = 0;
    PRAGMA query_only = ON;
";

/// Readers, opened when first needed and closed when idle.
pub(super) type Readers = Pool<ConnectionManager<SqliteConnection>>;

/// Prepares the directory and the file, refuses what this program must not touch, and migrates.
///
/// # Errors
/// `NotWritable`, `TooNew`, `Corrupt`, `NoSpace`, `Migrate`, or `Open` for everything else.
pub(super) fn prepare(path: &Path, bytes_max: u64) -> Result<SqliteConnection, StoreError> {
    let directory = directory_of(path);
    writable(&directory).map_err(|source| StoreError::NotWritable { directory: directory.clone(), source: source.into() })?;
    if path.exists() {
        inspect(path)?;
    } else {
        create_private(path).map_err(|source| StoreError::NotWritable { directory, source: source.into() })?;
    }
    let mut connection = writer(path, bytes_max)?;
    connection.run_pending_migrations(MIGRATIONS).map_err(|source| StoreError::Migrate { path: path.to_owned(), source })?;
    Ok(connection)
}

/// Opens the write connection. The file may grow to `bytes_max`; one that is larger already grows no further.
pub(super) fn writer(path: &Path, bytes_max: u64) -> Result<SqliteConnection, StoreError> {
    let mut connection = establish(path, text(path)?)?;
    connection.batch_execute(WRITER_PRAGMAS).map_err(|source| match is_read_only(&source) {
        true => StoreError::NotWritable { directory: directory_of(path), source: source.into() },
        false => query("set up the connection", "sqlite")(source),
    })?;
    let page: Vec<Name> = diesel::sql_query("SELECT page_size || '' AS value FROM pragma_page_size")
        .load(&mut connection)
        .map_err(query("read the page size", "sqlite"))?;
    let page: u64 = page.iter().find_map(|page| page.value.parse().ok()).unwrap_or(4096);
    connection
        .batch_execute(&format!("PRAGMA max_page_count = {}", (bytes_max / page).clamp(1, u64::from(u32::MAX - 1))))
        .map_err(query("limit the file", "sqlite"))?;
    Ok(connection)
}

/// Makes the pool of readers; no connection is opened yet.
pub(super) fn readers(path: &Path) -> Result<Readers, StoreError> {
    // The pool's own default is three threads, for two connections that are nearly always idle.
    let thread = Arc::new(ScheduledThreadPool::builder().num_threads(1).thread_name_pattern("store-readers").build());
    Pool::builder()
        .max_size(READERS_MAX)
        .min_idle(Some(0))
        .idle_timeout(Some(Duration::from_secs(60)))
        .max_lifetime(None)
        .connection_timeout(READER_WAIT)
        .test_on_check_out(false)
        .thread_pool(thread)
        .connection_customizer(Box::new(Reader))
        .build(ConnectionManager::new(text(path)?))
        .map_err(|source| StoreError::Open { path: path.to_owned(), source: source.into() })
}

#[derive(Debug)]
struct Reader;

impl CustomizeConnection<SqliteConnection, r2d2::Error> for Reader {
    fn on_acquire(&self, connection: &mut SqliteConnection) -> Result<(), r2d2::Error> {
        connection.batch_execute(READER_PRAGMAS).map_err(r2d2::Error::QueryError)
    }
}

/// One transaction; rolled back when it is dropped before [`Transaction::commit`], by a panic too.
pub(super) struct Transaction<'c> {
    connection: &'c mut SqliteConnection,
    open: bool,
}

impl<'c> Transaction<'c> {
    /// Begins with `sql`: `BEGIN IMMEDIATE` for a writer, `BEGIN` for a reader.
    pub(super) fn begin(connection: &'c mut SqliteConnection, sql: &str) -> Result<Self, diesel::result::Error> {
        AnsiTransactionManager::begin_transaction_sql(connection, sql)?;
        Ok(Self { connection, open: true })
    }

    pub(super) fn connection(&mut self) -> &mut SqliteConnection {
        self.connection
    }

    pub(super) fn commit(mut self) -> Result<(), diesel::result::Error> {
        AnsiTransactionManager::commit_transaction(self.connection)?;
        self.open = false;
        Ok(())
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        // A COMMIT that failed may have rolled back already; whether the connection is still of
        // use is asked afterwards, see `is_usable`.
        if self.open
            && let Err(error) = AnsiTransactionManager::rollback_transaction(self.connection)
        {
            log::debug!(error:% = error; "rollback found no transaction");
        }
    }
}

/// Whether a connection can begin another transaction.
pub(super) fn is_usable(connection: &mut SqliteConnection) -> bool {
    use diesel::connection::TransactionManagerStatus::{InError, Valid};
    match AnsiTransactionManager::transaction_manager_status_mut(connection) {
        Valid(status) => status.transaction_depth().is_none(),
        InError => false,
    }
}

/// Compares the migrations in the file with those in the program, and looks for damage, without touching the file.
fn inspect(path: &Path) -> Result<(), StoreError> {
    let mut connection = establish(path, &read_only_uri(text(path)?))?;
    // With `writable_schema` a schema that this SQLite cannot parse (a newer one may have written it) does not hide its
    // version; it has to come before what reads the schema.
    let pragmas = "PRAGMA busy_timeout = 5000; PRAGMA writable_schema = ON; PRAGMA cache_size = -1024; PRAGMA mmap_size = 0";
    connection.batch_execute(pragmas).map_err(query("open the file", "sqlite"))?;
    refuse_newer(path, &mut connection)?;
    connection.batch_execute("PRAGMA writable_schema = RESET").map_err(query("read the schema", "sqlite_master"))?;
    damage::check(path, &mut connection)
}

fn refuse_newer(path: &Path, connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let has_schema: Vec<Name> =
        diesel::sql_query("SELECT name AS value FROM sqlite_master WHERE type = 'table' AND name = '__diesel_schema_migrations'")
            .load(connection)
            .map_err(query("read the schema", "sqlite_master"))?;
    if has_schema.is_empty() {
        return Ok(());
    }
    let found: Vec<Name> = diesel::sql_query("SELECT version AS value FROM __diesel_schema_migrations ORDER BY version DESC LIMIT 1")
        .load(connection)
        .map_err(query("read the schema", "__diesel_schema_migrations"))?;
    let known = latest_known();
    match found.into_iter().next() {
        Some(found) if found.value > known => Err(StoreError::TooNew { path: path.to_owned(), found: found.value, known }),
        _ => Ok(()),
    }
}

#[derive(QueryableByName)]
pub(super) struct Name {
    #[diesel(sql_type = Text)]
    pub(super) value: String,
}

/// Version of the last migration compiled in.
fn latest_known() -> String {
    let migrations = MigrationSource::<Sqlite>::migrations(&MIGRATIONS).expect("embedded migrations were parsed by the compiler");
    let versions = migrations.iter().map(|migration| migration.name().version().to_string());
    versions.max().expect("there is at least one migration")
}

fn establish(path: &Path, url: &str) -> Result<SqliteConnection, StoreError> {
    SqliteConnection::establish(url).map_err(|source| StoreError::Open { path: path.to_owned(), source: source.into() })
}

fn text(path: &Path) -> Result<&str, StoreError> {
    path.to_str().ok_or_else(|| StoreError::Open { path: path.to_owned(), source: "the path is not UTF-8".into() })
}

/// `file:` URI that opens read-only; what has a meaning in a URI is escaped.
fn read_only_uri(path: &str) -> String {
    let escaped = path.replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    format!("file:{escaped}?mode=ro")
}

fn directory_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Makes the directory if it is missing, and tries to create a file in it: permission bits do
/// not tell of read-only file systems, and SQLite says only "unable to open database file".
fn writable(directory: &Path) -> io::Result<()> {
    std::fs::create_dir_all(directory)?;
    let probe = directory.join(format!(".skep-{}", uuid::Uuid::new_v4()));
    OpenOptions::new().write(true).create_new(true).open(&probe)?;
    std::fs::remove_file(probe)
}

/// Creates the file for its owner alone: it will hold the Secrets of the node's pods. SQLite
/// gives its `-wal` and `-shm` files the same permissions.
fn create_private(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_signs_that_mean_something_in_a_uri_is_escaped() {
        assert_eq!(read_only_uri("/a?b#c%d"), "file:/a%3fb%23c%25d?mode=ro");
    }
}
