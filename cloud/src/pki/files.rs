//! Reading and writing the files of the pki directory: bounded, atomic, private.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::error::PkiError;

/// No certificate or key of ours is longer, bytes.
pub const FILE_BYTES_MAX: u64 = 64 * 1024;

/// The file's text, or `None` if there is no such file.
pub fn read(path: &Path) -> Result<Option<String>, PkiError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(failed("read", path, source)),
    };
    let mut text = String::new();
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(|source| failed("read", path, source))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(PkiError::Malformed { path: path.to_owned(), expected: "PEM file", detail: format!("larger than {FILE_BYTES_MAX} bytes") });
    }
    Ok(Some(text))
}

/// Writes the whole file or nothing: a temporary file beside it, synced, then renamed over it.
///
/// `mode` is in force before the first byte is written, so a key is never readable by others.
pub fn write(path: &Path, text: &str, mode: u32) -> Result<(), PkiError> {
    let temporary = sibling(path);
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    })();
    if let Err(source) = written {
        let _ = fs::remove_file(&temporary);
        return Err(failed("write", path, source));
    }
    sync_parent(path)
}

/// Fills a new directory by `fill` and puts it in place in one step, mode 0700.
///
/// Returns `false`, with nothing changed, if `dir` came into being meanwhile (another process was quicker).
pub fn create_dir_filled(dir: &Path, fill: impl FnOnce(&Path) -> Result<(), PkiError>) -> Result<bool, PkiError> {
    if let Some(parent) = dir.parent() {
        fs::create_dir_all(parent).map_err(|source| failed("create", parent, source))?;
    }
    let temporary = sibling(dir);
    fs::create_dir(&temporary).map_err(|source| failed("create", &temporary, source))?;
    let result = fs::set_permissions(&temporary, fs::Permissions::from_mode(0o700))
        .map_err(|source| failed("protect", &temporary, source))
        .and_then(|()| fill(&temporary))
        .and_then(|()| match fs::rename(&temporary, dir) {
            Ok(()) => Ok(true),
            // ENOTEMPTY or EEXIST: a full directory stands there.
            Err(error) if matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists) => Ok(false),
            Err(source) => Err(failed("create", dir, source)),
        });
    if !matches!(result, Ok(true)) {
        let _ = fs::remove_dir_all(&temporary);
    }
    if matches!(result, Ok(true)) {
        sync_parent(dir)?;
    }
    result
}

fn sibling(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}", uuid::Uuid::new_v4().simple()))
}

fn sync_parent(path: &Path) -> Result<(), PkiError> {
    // A relative path of one component has the empty parent: that is the working directory.
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent).and_then(|dir| dir.sync_all()).map_err(|source| failed("sync", parent, source))
}

/// The error for an operation of the system on `path`.
pub fn failed(action: &'static str, path: &Path, source: io::Error) -> PkiError {
    PkiError::Io { action, path: path.to_owned(), source }
}
