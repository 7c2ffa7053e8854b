//! Termination messages: a file of the pod's directory that a container finds at its `terminationMessagePath`.

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::{VolumeError, io, pod_dir};

/// Most bytes of a message (Kubernetes' limit); of a longer one its end is kept.
pub const MESSAGE_BYTES_MAX: u64 = 4096;

/// Where the last words of a container's attempt are.
pub fn termination_file(pods: &Path, uid: &str, container: &str, attempt: u32) -> PathBuf {
    pod_dir(pods, uid).join("containers").join(container).join(attempt.to_string())
}

/// Makes the file, empty and writable for whoever the container runs as, and removes those of attempts that nobody reports
/// any more. Blocks on the disk.
///
/// # Errors
/// `Io`.
pub fn make_termination_file(pods: &Path, uid: &str, container: &str, attempt: u32) -> Result<PathBuf, VolumeError> {
    let path = termination_file(pods, uid, container, attempt);
    let dir = path.parent().unwrap_or(pods);
    fs::DirBuilder::new().recursive(true).mode(0o750).create(dir).map_err(io(dir))?;
    for entry in fs::read_dir(dir).map_err(io(dir))?.flatten() {
        let number = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok());
        // The one before may be asked for: `lastState` is of it.
        if number.is_none_or(|number| number.saturating_add(1) < attempt || number == attempt) {
            let _ = fs::remove_file(entry.path());
        }
    }
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(io(&path))?;
    file.set_permissions(fs::Permissions::from_mode(0o666)).map_err(io(&path))?;
    Ok(path)
}

/// The last words of an attempt; `None` if it left none. Blocks on the disk, and reads at most [`MESSAGE_BYTES_MAX`].
pub fn read_termination_file(pods: &Path, uid: &str, container: &str, attempt: u32) -> Option<String> {
    let path = termination_file(pods, uid, container, attempt);
    // Whatever a container made of it: a link is not followed, and a pipe does not hold us up.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mut file = fs::OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path).ok()?;
    let metadata = file.metadata().ok().filter(fs::Metadata::is_file)?;
    let start = metadata.len().saturating_sub(MESSAGE_BYTES_MAX);
    file.seek(SeekFrom::Start(start)).ok()?;
    let mut bytes = Vec::new();
    file.take(MESSAGE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    // A character that was cut in two at the beginning is left out.
    let begin = if start == 0 { 0 } else { bytes.iter().take(3).take_while(|byte| **byte & 0xc0 == 0x80).count() };
    Some(String::from_utf8_lossy(&bytes[begin..]).into_owned()).filter(|text| !text.is_empty())
}
