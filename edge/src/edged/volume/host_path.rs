//! Paths of the machine.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

use super::VolumeError;

/// Checks a path of the machine, and makes what is missing where the type allows it.
///
/// # Errors
/// `HostPath` in the kubelet's words, `MakeHostPath`.
pub fn prepare(path: &Path, kind: &str) -> Result<(), VolumeError> {
    let failed = |source| VolumeError::MakeHostPath { path: path.display().to_string(), source };
    match (kind, fs::metadata(path).is_ok()) {
        ("" | "DirectoryOrCreate", false) => match make_dir(path) {
            Ok(()) => {}
            // This service may write less of the machine than the engine, which makes a directory of it with the container.
            Err(error) if kind.is_empty() || matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem) => return Ok(()),
            Err(error) => return Err(failed(error)),
        },
        ("FileOrCreate", false) => {
            fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o644).open(path).map_err(failed)?;
        }
        _ => {}
    }
    let found = fs::metadata(path).map(|found| found.file_type()).ok();
    let (is, words) = match kind {
        "Directory" | "DirectoryOrCreate" => (found.is_some_and(|found| found.is_dir()), "a directory"),
        "File" | "FileOrCreate" => (found.is_some_and(|found| found.is_file()), "a file"),
        "Socket" => (found.is_some_and(|found| found.is_socket()), "a socket file"),
        "CharDevice" => (found.is_some_and(|found| found.is_char_device()), "a character device"),
        "BlockDevice" => (found.is_some_and(|found| found.is_block_device()), "a block device"),
        "" => (true, ""),
        _ => (false, "of a type that is known"),
    };
    if is { Ok(()) } else { Err(VolumeError::HostPath { path: path.display().to_string(), kind: words }) }
}

fn make_dir(path: &Path) -> std::io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(path)
}
