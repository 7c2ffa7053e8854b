//! The file system by itself, by what `sqlite3` finds after a process was killed.

// SQLite is called as the C library that it is: these are tests of what lies below every wrapper.
#![allow(unsafe_code, reason = "three calls of SQLite's C interface")]

use std::ffi::CString;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::ptr;

use harness::sqlite;
use libsqlite3_sys::{SQLITE_OK, sqlite3_exec, sqlite3_open};

use crate::vfs::{Options, register};

const DATABASE: &str = "SKEP_CRASH_TEST_DATABASE";
const STATEMENTS: &str = "SKEP_CRASH_TEST_STATEMENTS";
const READY: &str = "everything is executed";

/// Runs `statements` in a process of its own, which is killed after the last one, and never closes the database.
fn killed_after(database: &Path, statements: &str, options: &Options) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["vfs_tests::the_process_that_is_killed", "--exact", "--ignored", "--nocapture"])
        .env(DATABASE, database)
        .env(STATEMENTS, statements)
        .envs(options.tear.map(|seed| ("SKEP_CRASH_TEAR", seed.to_string())))
        .envs(options.synchronous_off.then_some(("SKEP_CRASH_SYNCHRONOUS", "OFF")))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let came_to_the_end = stdout.lines().map_while(Result::ok).any(|line| line.contains(READY));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(came_to_the_end, "a statement failed, see above");
}

#[test]
#[ignore = "half of the tests below, which start it"]
#[allow(clippy::print_stdout, reason = "the other half reads it")]
fn the_process_that_is_killed() {
    register(&Options::of_environment());
    let [database, statements] = [DATABASE, STATEMENTS].map(|name| CString::new(std::env::var(name).unwrap()).unwrap());
    // SAFETY: the strings live until the end of this function, and the connection is never closed.
    unsafe {
        let mut connection = ptr::null_mut();
        assert_eq!(sqlite3_open(database.as_ptr(), &raw mut connection), SQLITE_OK);
        assert_eq!(sqlite3_exec(connection, statements.as_ptr(), None, ptr::null_mut(), ptr::null_mut()), SQLITE_OK, "{statements:?}");
    }
    println!("{READY}");
    let _ = std::io::stdin().read(&mut [0]);
}

fn database() -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("test.db");
    (dir, path)
}

#[test]
fn what_was_synced_survives_a_kill_and_what_was_not_is_forgotten() {
    for journal in ["WAL", "DELETE"] {
        let (_dir, path) = database();
        // The process itself sees both rows: the last statement fails otherwise.
        let statements = format!(
            "PRAGMA journal_mode = {journal}; PRAGMA synchronous = FULL; CREATE TABLE t (x); INSERT INTO t VALUES ('synced');
             PRAGMA synchronous = OFF; INSERT INTO t VALUES ('not synced');
             CREATE TEMP TABLE seen (n CHECK (n = 2)); INSERT INTO seen SELECT count(*) FROM t;"
        );
        killed_after(&path, &statements, &Options::default());
        assert_eq!(sqlite::query(&path, "SELECT group_concat(x) FROM t").unwrap(), "synced", "journal mode {journal}");
    }
}

#[test]
fn with_synchronous_switched_off_nothing_reaches_the_disk_whatever_the_program_asks_for() {
    let (_dir, path) = database();
    let statements = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE t (x); INSERT INTO t VALUES (1);
         CREATE TEMP TABLE seen (n CHECK (n = 0)); INSERT INTO seen SELECT synchronous FROM pragma_synchronous;";
    killed_after(&path, statements, &Options { synchronous_off: true, ..Options::default() });
    let words = sqlite::query(&path, "SELECT x FROM t").unwrap_err();
    assert!(words.contains("no such table"), "{words}");
}

#[test]
fn a_database_that_was_torn_has_what_was_committed_and_is_whole() {
    // A short log is copied into the database again and again; a small cache spills a large transaction before its end.
    let statements = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA cache_size = 10; PRAGMA wal_autocheckpoint = 20;
         CREATE TABLE t (x); CREATE INDEX i ON t (x);
         WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500) INSERT INTO t SELECT randomblob(200) FROM n;
         UPDATE t SET x = randomblob(300) WHERE rowid % 3 = 0;
         DELETE FROM t WHERE rowid > 400;
         BEGIN; UPDATE t SET x = randomblob(600); INSERT INTO t SELECT x FROM t;";
    let log_bytes_after = |tear| {
        let (_dir, path) = database();
        killed_after(&path, statements, &Options { tear, ..Options::default() });
        let log_bytes = std::fs::metadata(format!("{}-wal", path.display())).unwrap().len();
        assert_eq!(sqlite::query(&path, "PRAGMA integrity_check").unwrap(), "ok", "{tear:?}");
        assert_eq!(sqlite::query(&path, "SELECT count(*) FROM t").unwrap(), "400", "{tear:?}");
        log_bytes
    };
    let synced = log_bytes_after(None);
    let torn: Vec<u64> = (0..4).map(|seed| log_bytes_after(Some(seed))).collect();
    assert!(torn.iter().any(|bytes| *bytes > synced), "nothing unsynced reached the disk: {torn:?}, synced are {synced}");
}
