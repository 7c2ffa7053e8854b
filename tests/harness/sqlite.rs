//! The databases, read by `sqlite3` while the daemon runs.

use std::path::Path;
use std::process::Command;

/// Runs one statement that reads, and gives what `sqlite3` prints.
///
/// # Errors
/// `sqlite3`'s words.
pub fn query(database: &Path, statement: &str) -> Result<String, String> {
    let output = Command::new("sqlite3")
        .args(["-readonly", "-cmd", ".timeout 2000"])
        .arg(database)
        .arg(statement)
        .output()
        .map_err(|error| format!("cannot start sqlite3: {error}; run deploy/setup.sh --for test"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// Changes a database; a daemon that has it open is waited for.
///
/// # Panics
/// When `sqlite3` refuses.
#[track_caller]
pub fn execute(database: &Path, statement: &str) {
    // One that begins with a comment would be taken for an option.
    let output = Command::new("sqlite3").args(["-cmd", ".timeout 10000"]).arg(database).arg(format!("\n{statement}")).output();
    let output = output.unwrap_or_else(|error| panic!("cannot start sqlite3: {error}; run deploy/setup.sh --for test"));
    assert!(output.status.success(), "sqlite3: {}", String::from_utf8_lossy(&output.stderr));
}
