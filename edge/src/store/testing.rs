//! What another program can do to the file; for tests of the modules, which do not know Diesel.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use diesel::{Connection, RunQueryDsl, SqliteConnection};

use super::Store;

/// Runs one statement on a connection of its own.
pub(crate) fn tamper(store: &Store, statement: &str) {
    let mut foreign = SqliteConnection::establish(store.path().to_str().unwrap()).unwrap();
    diesel::sql_query(statement).execute(&mut foreign).unwrap();
}
