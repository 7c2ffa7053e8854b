//! One daemon per database: a second one on the same files would undo what the first one writes.

use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Write as _};
use std::path::Path;

use crate::Exit;

/// Longest process id that is read back from a lock file, in bytes.
const PID_BYTES_MAX: u64 = 20;

/// The right to use a database, held until it is dropped or the process ends, however it ends.
#[derive(Debug)]
pub struct Claim(#[allow(dead_code, reason = "the lock lives as long as the open file")] File);

/// Claims `database` for this process, by an advisory lock on `<database>.lock` beside it. The file stays when the
/// process ends; only the lock counts, so nothing is left to clean up after a kill.
///
/// # Errors
/// [`Exit::State`] when another process holds the claim, or the file cannot be made.
pub fn claim(database: &Path) -> Result<Claim, Exit> {
    let mut path = OsString::from(database);
    path.push(".lock");
    let unusable = |error: std::io::Error| {
        Exit::State(format!(
            "cannot use the database `{}`: its lock file cannot be written: {error}; give this user the right to, or set `data-dir`",
            database.display()
        ))
    };
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(unusable)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = (&mut file).take(PID_BYTES_MAX).read_to_string(&mut holder);
            let holder = holder.trim().parse::<u32>().map_or_else(|_| "another process".to_owned(), |pid| format!("process {pid}"));
            return Err(Exit::State(format!(
                "the database `{}` is in use by {holder}: stop that daemon first, or give this one another `data-dir`",
                database.display()
            )));
        }
        Err(TryLockError::Error(error)) => return Err(unusable(error)),
    }
    // For the sentence above only.
    file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(unusable)?;
    Ok(Claim(file))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    #[test]
    fn a_second_claim_is_refused_with_the_holders_pid_until_the_first_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let database = dir.path().join("edge.db");
        let first = claim(&database).unwrap();
        let refused = claim(&database).unwrap_err().to_string();
        assert!(refused.contains("edge.db") && refused.contains(&format!("process {}", std::process::id())), "{refused}");
        drop(first);
        claim(&database).unwrap();
        claim(&dir.path().join("cloud.db")).unwrap();
    }

    #[test]
    fn what_an_earlier_life_left_in_the_lock_file_is_no_claim() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("edge.db.lock"), "4294967295 and something longer than any pid\n").unwrap();
        let _claim = claim(&dir.path().join("edge.db")).unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join("edge.db.lock")).unwrap(), format!("{}\n", std::process::id()));
    }

    #[test]
    fn a_directory_that_is_not_there_is_named() {
        let refused = claim(Path::new("/nonexistent/edge.db")).unwrap_err();
        assert!(matches!(&refused, Exit::State(why) if why.contains("/nonexistent/edge.db")), "{refused}");
    }
}
