//! What another program can do to the file; for tests of the modules, which do not know Diesel.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use diesel::connection::SimpleConnection;
use diesel::sql_types::Text;
use diesel::{Connection, QueryableByName, RunQueryDsl, SqliteConnection};

use super::Store;

/// Runs one statement on a connection of its own.
pub(crate) fn tamper(store: &Store, statement: &str) {
    diesel::sql_query(statement).execute(&mut foreign(store)).unwrap();
}

/// Every row of every table, with the numbers that SQLite has drawn for them.
pub(crate) fn contents(store: &Store) -> Vec<String> {
    let mut connection = foreign(store);
    let tables = "SELECT name AS value FROM sqlite_master WHERE type = 'table' AND name != 'sabotage' ORDER BY name";
    let mut all = Vec::new();
    for table in cells(&mut connection, tables) {
        let quoted = format!("SELECT group_concat('quote(' || name || ')', ' || '','' || ') AS value FROM pragma_table_info('{table}')");
        let columns = cells(&mut connection, &quoted).concat();
        all.extend(cells(&mut connection, &format!("SELECT '{table}: ' || {columns} AS value FROM {table} ORDER BY 1")));
    }
    all
}

/// Lets `act` fail at the first row that it changes, then at its second, and so on, until it gets through; `act` tells
/// whether it did. Each failure must leave everything as it was. Returns at how many rows it failed.
///
/// The failure is SQLite's `RAISE(FAIL)`, which keeps what the statement has done so far: only a rollback takes it back.
#[track_caller]
pub(crate) fn fails_at_every_step(store: &Store, mut act: impl FnMut() -> bool) -> usize {
    const TABLES: [&str; 6] = ["counter", "device", "device_attr", "device_twin", "meta", "pending_report"];
    let before = contents(store);
    for step in 0..1000 {
        let mut sql = format!("CREATE TABLE sabotage (steps INTEGER NOT NULL); INSERT INTO sabotage VALUES ({step});");
        for (table, change) in TABLES.iter().flat_map(|table| ["INSERT", "UPDATE", "DELETE"].map(|change| (table, change))) {
            sql += &format!(
                "CREATE TRIGGER sabotage_{change}_{table} BEFORE {change} ON {table} BEGIN
                     SELECT RAISE(FAIL, 'sabotaged') FROM sabotage WHERE steps = 0;
                     UPDATE sabotage SET steps = steps - 1;
                 END;"
            );
        }
        foreign(store).batch_execute(&sql).unwrap();
        let done = act();
        let triggers = "SELECT 'DROP TRIGGER ' || name || ';' AS value FROM sqlite_master WHERE type = 'trigger' AND name LIKE 'sabotage%'";
        let drop = cells(&mut foreign(store), triggers).concat();
        foreign(store).batch_execute(&format!("{drop} DROP TABLE sabotage")).unwrap();
        if done {
            assert_ne!(contents(store), before, "it changes nothing");
            return step;
        }
        assert_eq!(contents(store), before, "something is left of a failure at step {step}");
    }
    panic!("it never gets through");
}

fn foreign(store: &Store) -> SqliteConnection {
    SqliteConnection::establish(store.path().to_str().unwrap()).unwrap()
}

#[derive(QueryableByName)]
struct Cell {
    #[diesel(sql_type = Text)]
    value: String,
}

/// The column `value` of a query.
pub(super) fn cells(connection: &mut SqliteConnection, sql: &str) -> Vec<String> {
    let rows: Vec<Cell> = diesel::sql_query(sql).load(connection).unwrap();
    rows.into_iter().map(|cell| cell.value).collect()
}

/// Makes a database of these statements.
pub(crate) fn build(path: &std::path::Path, sql: &str) {
    let mut connection = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
    connection.batch_execute(sql).unwrap();
}

/// Gives the file at `path` a write-ahead log that is not in it yet: copies both while a connection is open.
pub(crate) fn build_with_log(path: &std::path::Path, sql: &str, logged: &str) {
    let (beside, directory) = (|name: &std::path::Path| format!("{}-wal", name.display()), tempfile::tempdir().unwrap());
    let origin = directory.path().join("origin.db");
    let mut connection = SqliteConnection::establish(origin.to_str().unwrap()).unwrap();
    connection.batch_execute(&format!("{sql}; PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0; {logged}")).unwrap();
    std::fs::copy(&origin, path).unwrap();
    std::fs::copy(beside(&origin), beside(path)).unwrap();
}

/// Overwrites the pages that hold the rows of `table`, but for the first page of its tree.
pub(crate) fn spoil(path: &std::path::Path, table: &str) {
    use std::os::unix::fs::FileExt as _;
    let mut connection = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
    connection.batch_execute("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    let root = cells(&mut connection, &format!("SELECT rootpage || '' AS value FROM sqlite_master WHERE name = '{table}'"));
    drop(connection);
    let root: u64 = root.concat().parse().unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&[0x5a; 4096], (root - 1) * 4096).unwrap();
}
