//! Databases that others wrote: KubeEdge's `edge.db`, or what is left of a damaged one of ours. Read row by row.
//!
//! Nothing in them is believed. The file is copied and the copy is opened, so that neither a write-ahead log nor a hot
//! journal makes SQLite write beside the original; views, virtual tables and triggers are not touched; each cell is read
//! as text, whatever its type is.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use diesel::backend::Backend;
use diesel::connection::{DefaultLoadingMode, SimpleConnection};
use diesel::deserialize::{self, FromSql, FromSqlRow};
use diesel::result::Error as QueryError;
use diesel::sql_types::{BigInt, Binary, Text};
use diesel::sqlite::Sqlite;
use diesel::{Connection, QueryableByName, RunQueryDsl, SqliteConnection};

use super::error::is_damage;

/// Largest foreign database that is read, in bytes, with its write-ahead log or journal. A node's own is a few MiB.
pub const SOURCE_BYTES_MAX: u64 = 256 << 20;

/// Files that belong to a database and hold a part of it.
const COMPANIONS: [&str; 2] = ["-wal", "-journal"];

/// Why a foreign database cannot be read. It was not changed in any of these cases.
#[derive(Debug, thiserror::Error)]
pub enum ForeignError {
    /// There is no such file, or this user may not read it.
    #[error("cannot read the database `{path}`: {source}; name a file that this user may read")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Above [`SOURCE_BYTES_MAX`].
    #[error("the database `{path}` has {bytes} bytes with its log, at most {SOURCE_BYTES_MAX} are read; shrink a copy of it with VACUUM")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// There is no room for the copy that is read, or no right to make it.
    #[error("cannot copy the database to `{directory}`: {source}; the copy is read in its place, and needs as much space")]
    Copy {
        /// Where the copy should be.
        directory: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Somebody writes it.
    #[error("the database `{path}` changed while it was read; stop the program that uses it (edgecore) first")]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// Not SQLite's, or not whole.
    #[error("`{path}` is no database, or a damaged one ({what}); with --damaged what can be read of it is taken")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        what: String,
    },
    /// A database of somebody else.
    #[error("`{path}` is no database of KubeEdge: {what}")]
    Stranger {
        /// The file.
        path: PathBuf,
        /// What is missing.
        what: String,
    },
    /// A statement failed for another reason than damage.
    #[error("cannot read table `{table}` of `{path}`: {source}")]
    Query {
        /// The file.
        path: PathBuf,
        /// Which table.
        table: &'static str,
        /// What SQLite said.
        source: QueryError,
    },
}

/// What to do with a file that is not whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// Nothing is taken from it.
    Refuse,
    /// What can be read is taken.
    Accept,
}

/// The text of a cell. What is no UTF-8 is replaced, and so becomes a name or a value that nothing may have.
#[derive(Debug, FromSqlRow)]
struct Lossy(String);

impl FromSql<Binary, Sqlite> for Lossy {
    fn from_sql(bytes: <Sqlite as Backend>::RawValue<'_>) -> deserialize::Result<Self> {
        let bytes = <Vec<u8> as FromSql<Binary, Sqlite>>::from_sql(bytes)?;
        Ok(Self(String::from_utf8_lossy(&bytes).into_owned()))
    }
}

impl From<Lossy> for String {
    fn from(Lossy(text): Lossy) -> Self {
        text
    }
}

/// A row of a foreign table. Cells that are NULL, or whose column is not there, are empty.
pub trait ForeignRow: QueryableByName<Sqlite> + 'static {
    /// Its table.
    const TABLE: &'static str;
    /// The columns that are read; without the first there is no row.
    const COLUMNS: &'static [&'static str];
    /// Its place in the table: later rows have higher ones.
    fn rowid(&self) -> i64;
}

macro_rules! row {
    ($(#[$doc:meta])* $name:ident of $table:literal: $($(#[$of:meta])* $column:ident),+ $(,)?) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, QueryableByName)]
        pub struct $name {
            /// Its place in the table.
            #[diesel(sql_type = BigInt)]
            pub rowid: i64,
            $($(#[$of])* #[diesel(sql_type = Binary, deserialize_as = Lossy)] pub $column: String,)+
        }

        impl ForeignRow for $name {
            const TABLE: &'static str = $table;
            const COLUMNS: &'static [&'static str] = &[$(stringify!($column)),+];
            fn rowid(&self) -> i64 {
                self.rowid
            }
        }
    };
}

row! {
    /// A device (KubeEdge `dtclient/devicedb.go`).
    ForeignDevice of "device":
    /// Its id.
    id,
    /// Its name.
    name,
    /// Its description.
    description,
    /// Its state.
    state,
    /// When it was last online.
    last_online,
    /// uid of its object in the cloud; in a database of ours only.
    uid,
}

row! {
    /// An attribute of a device (KubeEdge `dtclient/deviceattrdb.go`).
    ForeignAttribute of "device_attr":
    /// Of which device.
    deviceid,
    /// Its name.
    name,
    /// Its value.
    value,
    /// 0 or 1.
    optional,
    /// Its type.
    attr_type,
}

row! {
    /// A property of a twin (KubeEdge `dtclient/devicetwindb.go`).
    ForeignProperty of "device_twin":
    /// Of which device.
    deviceid,
    /// Its name.
    name,
    /// Expected value.
    expected,
    /// Actual value.
    actual,
    /// JSON with its time.
    expected_meta,
    /// JSON with its time.
    actual_meta,
    /// JSON with its version.
    expected_version,
    /// JSON with its version.
    actual_version,
    /// 0 or 1.
    optional,
    /// Its type.
    attr_type,
}

row! {
    /// An object of the cloud, or the status of a pod (KubeEdge `metamanager/dao/meta.go`).
    ForeignObject of "meta":
    /// Its resource, as in `default/pod/web`.
    key,
    /// The object, JSON.
    value,
    /// Its version in the cloud; in a database of ours only.
    resource_version,
}

/// How much of a table was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Extent {
    /// All of it.
    Whole,
    /// There is no such table.
    Missing,
    /// What could be read, and why not all.
    Part(String),
}

/// A foreign database, open for reading.
pub struct Foreign {
    path: PathBuf,
    connection: SqliteConnection,
    damage: Damage,
    _copy: Copy,
}

impl Foreign {
    /// Copies `path` to the directory `scratch`, which must not be there or be left over from another time, and opens the
    /// copy. `scratch` goes with this value.
    ///
    /// # Errors
    /// See [`ForeignError`].
    pub fn open(path: &Path, scratch: &Path, damage: Damage) -> Result<Self, ForeignError> {
        let copy = Copy::make(path, scratch)?;
        let unusable = |error: &dyn std::fmt::Display| ForeignError::Damaged { path: path.to_owned(), what: error.to_string() };
        let name = copy.file.to_str().ok_or_else(|| unusable(&"the path is not UTF-8"))?;
        let mut connection = SqliteConnection::establish(name).map_err(|error| unusable(&error))?;
        // As SQLite advises for files of others (sqlite.org/security.html).
        let careful =
            "PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON; PRAGMA mmap_size = 0; PRAGMA cache_size = -1024; PRAGMA query_only = ON;";
        connection.batch_execute(careful).map_err(|error| unusable(&error))?;
        let mut source = Self { path: path.to_owned(), connection, damage, _copy: copy };
        if damage == Damage::Refuse {
            let found = source.texts("SELECT quick_check AS value FROM pragma_quick_check").map_err(|error| unusable(&error))?;
            if found != ["ok"] {
                return Err(unusable(&found.concat()));
            }
        }
        let known = [ForeignDevice::TABLE, ForeignAttribute::TABLE, ForeignProperty::TABLE, ForeignObject::TABLE];
        let mut tables = Vec::new();
        for table in known {
            tables.extend(source.columns(table).map_err(|error| unusable(&error))?);
        }
        if tables.is_empty() {
            return Err(source.stranger(&format!("it has none of the tables {}", known.join(", "))));
        }
        Ok(source)
    }

    /// Whether there is a table of that name.
    pub fn has(&mut self, table: &str) -> bool {
        self.columns(table).is_ok_and(|columns| columns.is_some())
    }

    /// Gives each row of a table once, the newest first.
    ///
    /// # Errors
    /// [`ForeignError::Damaged`] where damage is refused, [`ForeignError::Stranger`], [`ForeignError::Query`].
    pub fn each<R: ForeignRow>(&mut self, mut take: impl FnMut(R)) -> Result<Extent, ForeignError> {
        let failed = |path: &Path, source| ForeignError::Query { path: path.to_owned(), table: R::TABLE, source };
        let columns = match self.columns(R::TABLE) {
            Ok(Some(columns)) => columns,
            Ok(None) => return Ok(Extent::Missing),
            Err(error) if self.damage == Damage::Accept => return Ok(Extent::Part(error.to_string())),
            Err(error) => return Err(failed(&self.path, error)),
        };
        let there = |column: &str| columns.iter().any(|name| name.eq_ignore_ascii_case(column));
        if !there(R::COLUMNS[0]) {
            return Err(self.stranger(&format!("its table `{}` has no column `{}`", R::TABLE, R::COLUMNS[0])));
        }
        let mut list = "rowid AS rowid".to_owned();
        for column in R::COLUMNS {
            list += &if there(column) { format!(", coalesce(CAST({column} AS BLOB), x'') AS {column}") } else { format!(", x'' AS {column}") };
        }
        let mut seen = HashSet::new();
        let mut pass = |order: &str| -> Result<(), QueryError> {
            let select = format!("SELECT {list} FROM {} NOT INDEXED ORDER BY rowid {order}", R::TABLE);
            for row in diesel::sql_query(select).load_iter::<R, DefaultLoadingMode>(&mut self.connection)? {
                let row = row?;
                if seen.insert(row.rowid()) {
                    take(row);
                }
            }
            Ok(())
        };
        match pass("DESC") {
            Ok(()) => Ok(Extent::Whole),
            Err(error) if self.damage == Damage::Accept => {
                // What lies on the other side of the damaged page.
                let _ = pass("ASC");
                Ok(Extent::Part(error.to_string()))
            }
            Err(error) if is_damage(&error) => Err(ForeignError::Damaged { path: self.path.clone(), what: error.to_string() }),
            Err(error) => Err(failed(&self.path, error)),
        }
    }

    /// The columns of a table; `None` for what is no table.
    fn columns(&mut self, table: &str) -> Result<Option<Vec<String>>, QueryError> {
        let tables =
            format!("SELECT name AS value FROM sqlite_master WHERE type = 'table' AND lower(name) = '{table}' AND sql NOT LIKE 'CREATE VIRTUAL%'");
        if self.texts(&tables)?.is_empty() {
            return Ok(None);
        }
        self.texts(&format!("SELECT name AS value FROM pragma_table_info('{table}')")).map(Some)
    }

    fn texts(&mut self, sql: &str) -> Result<Vec<String>, QueryError> {
        let rows: Vec<Value> = diesel::sql_query(sql).load(&mut self.connection)?;
        Ok(rows.into_iter().map(|row| row.value).collect())
    }

    fn stranger(&self, what: &str) -> ForeignError {
        ForeignError::Stranger { path: self.path.clone(), what: what.to_owned() }
    }
}

#[derive(QueryableByName)]
struct Value {
    #[diesel(sql_type = Text)]
    value: String,
}

/// The copy that is read; removed when it is dropped.
struct Copy {
    directory: PathBuf,
    file: PathBuf,
}

impl Copy {
    fn make(path: &Path, directory: &Path) -> Result<Self, ForeignError> {
        let before = sizes(path)?;
        let bytes: u64 = before.iter().flatten().map(Metadata::len).sum();
        if bytes > SOURCE_BYTES_MAX {
            return Err(ForeignError::TooLarge { path: path.to_owned(), bytes });
        }
        let uncopied = |source| ForeignError::Copy { directory: directory.to_owned(), source };
        match fs::remove_dir_all(directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(uncopied(error)),
            _ => {}
        }
        // It may hold the Secrets of pods.
        DirBuilder::new().mode(0o700).create(directory).map_err(uncopied)?;
        let copy = Self { directory: directory.to_owned(), file: directory.join("source.db") };
        for (part, suffix) in before.iter().zip([""].into_iter().chain(COMPANIONS)) {
            if part.is_some() {
                let from = File::open(beside(path, suffix)).map_err(|source| ForeignError::Unreadable { path: path.to_owned(), source })?;
                let mut to = File::create_new(beside(&copy.file, suffix)).map_err(uncopied)?;
                io::copy(&mut from.take(SOURCE_BYTES_MAX), &mut to).map_err(uncopied)?;
            }
        }
        let after = sizes(path)?;
        let same = |a: &Option<Metadata>, b: &Option<Metadata>| match (a, b) {
            (Some(a), Some(b)) => a.len() == b.len() && a.modified().ok() == b.modified().ok(),
            (None, None) => true,
            _ => false,
        };
        if before.iter().zip(&after).all(|(a, b)| same(a, b)) { Ok(copy) } else { Err(ForeignError::Busy { path: path.to_owned() }) }
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.directory) {
            log::warn!(directory = self.directory.display().to_string(), error:% = error; "the copy of a database could not be removed");
        }
    }
}

/// The database and its companions, as they are there.
fn sizes(path: &Path) -> Result<[Option<Metadata>; 3], ForeignError> {
    let unreadable = |source| ForeignError::Unreadable { path: path.to_owned(), source };
    let own = fs::metadata(path).map_err(unreadable)?;
    if !own.is_file() {
        return Err(unreadable(io::Error::other("it is not a file")));
    }
    let [wal, journal] = COMPANIONS.map(|suffix| fs::metadata(beside(path, suffix)).ok().filter(Metadata::is_file));
    Ok([Some(own), wal, journal])
}

/// A directory beside a database for a copy of another one; it is there while that is read.
pub fn scratch(database: &Path) -> PathBuf {
    beside(database, ".scratch")
}

/// The file beside a database whose name ends with `suffix`.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}
