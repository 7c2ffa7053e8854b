//! User name and password at an external broker. The password stands in a file, is read at each connection, and is kept
//! out of everything that is printed.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

/// Longest password, bytes (MQTT 3.1.1 §3.1.3.5).
const PASSWORD_BYTES_MAX: u64 = 65_535;

/// Who we are at a broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// `mqtt.username`.
    pub username: String,
    /// `mqtt.password-file`.
    pub password_file: Option<PathBuf>,
}

/// Why there is no password; each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// Not there, or not for us.
    #[error("cannot read `{path}` of mqtt.password-file: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// Other users of this machine may read it.
    #[error("`{path}` of mqtt.password-file has mode {mode:o}: other users could read it; chmod 600 it")]
    Open {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Nothing in it, or more than MQTT allows.
    #[error("`{path}` of mqtt.password-file is empty or has more than {PASSWORD_BYTES_MAX} bytes")]
    Size {
        /// The file.
        path: PathBuf,
    },
}

impl Login {
    /// The password as it is now; the line end after it does not belong to it.
    ///
    /// # Errors
    /// See [`PasswordError`].
    pub(super) fn password(&self) -> Result<Option<Vec<u8>>, PasswordError> {
        let Some(path) = &self.password_file else { return Ok(None) };
        let failed = |source| PasswordError::Read { path: path.clone(), source };
        let mode = fs::metadata(path).map_err(failed)?.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(PasswordError::Open { path: path.clone(), mode });
        }
        let mut password = Vec::new();
        File::open(path).map_err(failed)?.take(PASSWORD_BYTES_MAX + 3).read_to_end(&mut password).map_err(failed)?;
        for end in [b'\n', b'\r'] {
            if password.last() == Some(&end) {
                password.pop();
            }
        }
        match password.len() as u64 {
            1..=PASSWORD_BYTES_MAX => Ok(Some(password)),
            _ => Err(PasswordError::Size { path: path.clone() }),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    fn file(text: &[u8], mode: u32) -> (tempfile::TempDir, Login) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        (dir, Login { username: "edge".into(), password_file: Some(path) })
    }

    #[test]
    fn a_password_is_the_file_without_the_end_of_its_line() {
        for text in [&b"a b"[..], b"a b\n", b"a b\r\n"] {
            let (_dir, login) = file(text, 0o600);
            assert_eq!(login.password().unwrap().unwrap(), b"a b");
        }
        let (_dir, login) = file(b"\xff\n\n", 0o400);
        assert_eq!(login.password().unwrap().unwrap(), b"\xff\n", "one line end only");
        assert_eq!(Login { username: "edge".into(), password_file: None }.password().unwrap(), None);
    }

    #[test]
    fn a_file_that_others_may_read_is_refused_and_so_is_one_without_a_password() {
        for mode in [0o644, 0o640, 0o604] {
            let (_dir, login) = file(b"secret", mode);
            let error = login.password().unwrap_err().to_string();
            assert!(error.contains("chmod 600") && !error.contains("secret"), "{error}");
        }
        for text in [vec![], vec![b'\n'], vec![b'x'; 65_536]] {
            let (_dir, login) = file(&text, 0o600);
            assert!(matches!(login.password(), Err(PasswordError::Size { .. })));
        }
        let (dir, login) = file(b"secret", 0o600);
        drop(dir);
        assert!(login.password().unwrap_err().to_string().contains("mqtt.password-file"));
    }
}
