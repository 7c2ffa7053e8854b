//! The files of a volume on the disk, as the kubelet lays them out.
//!
//! The files lie in a directory of their own, `..data` is a link to it, and each name is a link through `..data`. A change
//! is one rename of that link, so a reader sees the old files or the new ones, never a mixture.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown, symlink};
use std::path::{Path, PathBuf};

use super::files::File;
use super::{VolumeError, io, make_dir};

/// Mode of a directory of such a volume.
const DIR_MODE: u32 = 0o755;

/// Makes the volume have exactly these files, with this group. Only what differs is written.
///
/// # Errors
/// `Io`; what was there before is then still there.
pub fn files(volume: &Path, files: &BTreeMap<PathBuf, File>, group: Option<u32>) -> Result<(), VolumeError> {
    // Also one that is there: it is ours alone, and a mode that differs is damage.
    make_dir(volume, DIR_MODE, group)?;
    let data = volume.join("..data");
    let current = fs::read_link(&data).ok().map(|name| volume.join(name));
    if !current.as_ref().is_some_and(|dir| holds(dir, files, group)) {
        remove_stale(volume, current.as_deref())?;
        let fresh = volume.join(format!("..{}", uuid::Uuid::new_v4().simple()));
        if let Err(error) = write_all(&fresh, files, group).and_then(|()| point(&data, &fresh)) {
            // Each look at the pod tries it again: what each left would fill the disk.
            let _ = fs::remove_dir_all(&fresh);
            // By a name that is the same at the next look, which has nothing new to tell then.
            return Err(match error {
                VolumeError::Io { source, .. } => VolumeError::Io { path: volume.to_owned(), source },
                other => other,
            });
        }
    }
    let current = fs::read_link(&data).map_err(io(&data))?;
    let visible: BTreeSet<&OsStr> = files.keys().filter_map(|path| path.iter().next()).collect();
    for name in &visible {
        let (link, target) = (volume.join(name), Path::new("..data").join(name));
        if fs::read_link(&link).ok().as_ref() != Some(&target) {
            remove_any(&link)?;
            symlink(target, &link).map_err(io(&link))?;
        }
    }
    for entry in fs::read_dir(volume).map_err(io(volume))?.flatten() {
        let name = entry.file_name();
        let keep = name == "..data" || name == current.as_os_str() || visible.contains(name.as_os_str());
        if !keep {
            remove_any(&entry.path())?;
        }
    }
    Ok(())
}

/// Whether an earlier look has made the volume: a directory is linked only when all is in it, and every name in it has its
/// link.
pub fn is_whole(volume: &Path) -> bool {
    let Ok(current) = fs::read_link(volume.join("..data")) else { return false };
    // Beside it, as ours all are: one that leads elsewhere is damage.
    let name = current.as_os_str().as_bytes();
    let dir = volume.join(&current);
    if !name.starts_with(b"..") || name.len() < 3 || name.contains(&b'/') || !fs::symlink_metadata(&dir).is_ok_and(|found| found.is_dir()) {
        return false;
    }
    let has_link = |name: &OsStr| fs::read_link(volume.join(name)).is_ok_and(|target| target == Path::new("..data").join(name));
    fs::read_dir(&dir).is_ok_and(|mut entries| entries.all(|entry| entry.is_ok_and(|entry| has_link(&entry.file_name()))))
}

/// Removes what a daemon left that was killed while it wrote.
fn remove_stale(volume: &Path, current: Option<&Path>) -> Result<(), VolumeError> {
    for entry in fs::read_dir(volume).map_err(io(volume))?.flatten() {
        let path = entry.path();
        let is_ours = entry.file_name().as_bytes().starts_with(b"..") && entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_ours && Some(path.as_path()) != current {
            remove_any(&path)?;
        }
    }
    Ok(())
}

fn write_all(fresh: &Path, files: &BTreeMap<PathBuf, File>, group: Option<u32>) -> Result<(), VolumeError> {
    make_dir(fresh, DIR_MODE, group)?;
    files.iter().try_for_each(|(path, file)| write_file(fresh, path, file, group))
}

/// Makes `data` a link to the directory beside it, in one step.
fn point(data: &Path, fresh: &Path) -> Result<(), VolumeError> {
    let link = data.with_file_name("..data_tmp");
    let _ = fs::remove_file(&link);
    let name = fresh.file_name().map(PathBuf::from).unwrap_or_default();
    symlink(name, &link).map_err(io(&link))?;
    fs::rename(&link, data).map_err(io(data))
}

/// Removes what is there, whatever it is; links are not followed.
fn remove_any(path: &Path) -> Result<(), VolumeError> {
    let gone = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(_) => Ok(()),
    };
    gone.map_err(io(path))
}

/// The mode on the disk: with a group, the group may read (the kubelet's rule for volumes that nobody may write).
fn mode_of(file: &File, group: Option<u32>) -> u32 {
    file.mode | if group.is_some() { 0o440 } else { 0 }
}

fn write_file(dir: &Path, path: &Path, file: &File, group: Option<u32>) -> Result<(), VolumeError> {
    let target = dir.join(path);
    let mut parent = dir.to_owned();
    for part in path.parent().into_iter().flat_map(Path::iter) {
        parent.push(part);
        make_dir(&parent, DIR_MODE, group)?;
    }
    let mut open = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&target).map_err(io(&target))?;
    open.write_all(&file.bytes).map_err(io(&target))?;
    if group.is_some() {
        fchown(&open, None, group).map_err(io(&target))?;
    }
    open.set_permissions(fs::Permissions::from_mode(mode_of(file, group))).map_err(io(&target))
}

/// Whether a directory has exactly these files with these bytes, modes and group.
fn holds(dir: &Path, files: &BTreeMap<PathBuf, File>, group: Option<u32>) -> bool {
    let has_group = |metadata: &fs::Metadata| group.is_none_or(|group| metadata.gid() == group);
    let mut found = 0;
    let mut open = vec![dir.to_owned()];
    while let Some(next) = open.pop() {
        let Ok(entries) = fs::read_dir(&next) else { return false };
        for entry in entries.flatten() {
            let path = entry.path();
            let Ok(metadata) = entry.metadata() else { return false };
            if metadata.is_dir() && has_group(&metadata) {
                open.push(path);
                continue;
            }
            let Some(file) = path.strip_prefix(dir).ok().and_then(|name| files.get(name)) else { return false };
            let same = metadata.is_file()
                && metadata.permissions().mode() & 0o777 == mode_of(file, group)
                && has_group(&metadata)
                && metadata.len() == file.bytes.len() as u64
                && fs::read(&path).is_ok_and(|bytes| bytes == file.bytes);
            if !same {
                return false;
            }
            found += 1;
        }
    }
    found == files.len()
}
