//! Volumes of a pod on the machine: below `<data>/pods/<uid>/volumes`.
//!
//! | file | duty |
//! |---|---|
//! | `files` | which files a volume of keys or fields has (pure) |
//! | `write` | these files on the disk, all changed at once |
//! | `host_path` | a path of the machine |
//! | `sub_path` | a file or directory of a volume, without leaving it |
//! | `mounts` | what a container mounts |
//! | `last_words` | termination messages |
//!
//! Invariant: [`prepare`] writes only what differs, so it can be called at each look at a pod.
//! Invariant: a volume that fails changes nothing for the others of its pod, and keeps the files that it has.
//! Invariant: nothing in an object, a pod or a container's own files makes it write outside of the pod's directory, but for
//! the host paths that a pod names.

mod files;
mod host_path;
mod last_words;
mod mounts;
mod sub_path;
mod write;

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use actor::chain;

use super::check::is_uid;
use super::env::Facts;
use super::objects::{LookupError, Objects};
use super::pod::{Pod, Volume};
use super::runtime::Memory;

pub use files::{File, downward_files, keyed_files, projected_files};
pub use last_words::{MESSAGE_BYTES_MAX, make_termination_file, read_termination_file, termination_file};
pub use mounts::{Mounted, mounts};

/// Why a volume is not there.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// The object is missing or unreadable.
    #[error(transparent)]
    Object(#[from] LookupError),
    /// An item names a key that the object has not.
    #[error("volume \"{volume}\": references non-existent config key: {key}")]
    Key {
        /// The volume.
        volume: String,
        /// The key.
        key: String,
    },
    /// A key or path that would leave the volume, or that no file can have.
    #[error("volume \"{volume}\": `{path}` cannot be a file of a volume")]
    Path {
        /// The volume.
        volume: String,
        /// The key or path.
        path: String,
    },
    /// A path of more than [`files::PATH_BYTES_MAX`].
    #[error("volume \"{volume}\": the path `{path}…` has more than {} bytes", files::PATH_BYTES_MAX)]
    PathTooLong {
        /// The volume.
        volume: String,
        /// Its beginning.
        path: String,
    },
    /// Files of more than [`files::VOLUME_BYTES_MAX`].
    #[error("volume \"{volume}\": its files have more than {} MiB", files::VOLUME_BYTES_MAX >> 20)]
    TooLarge {
        /// The volume.
        volume: String,
    },
    /// A host path that is not what the spec demands.
    #[error("hostPath type check failed: {path} is not {kind}")]
    HostPath {
        /// On the machine.
        path: String,
        /// In the kubelet's words: `a directory`.
        kind: &'static str,
    },
    /// A host path that is missing, and cannot be made.
    #[error("cannot make {path} of a hostPath volume: make it on this machine, or let the daemon's service write there")]
    MakeHostPath {
        /// On the machine.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A `subPath` that cannot be had.
    #[error("volume \"{volume}\": subPath `{path}` {why}")]
    SubPath {
        /// The volume.
        volume: String,
        /// After expansion.
        path: String,
        /// What is wrong.
        why: &'static str,
    },
    /// A `subPathExpr` with an unknown variable.
    #[error("volume \"{volume}\": subPathExpr `{path}`: missing value for \"{variable}\"")]
    Variable {
        /// The volume.
        volume: String,
        /// As it is written.
        path: String,
        /// The name.
        variable: String,
    },
    /// The machine's disk.
    #[error("cannot write {path}")]
    Io {
        /// Which file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// Where the emptyDirs of a pod are, below its volumes.
const EMPTY_DIRS: &str = "kubernetes.io~empty-dir";

/// Where a pod's own files are.
pub fn pod_dir(pods: &Path, uid: &str) -> PathBuf {
    pods.join(uid)
}

/// The path of a volume on the machine. `None` for one that has none: the API credential, which is not made, and a file
/// system in memory, which is the engine's.
pub fn source(pods: &Path, pod: &Pod, volume: &Volume) -> Option<PathBuf> {
    if volume.is_api_access() || volume.is_memory() {
        return None;
    }
    if let Some(host) = &volume.host_path {
        return Some(PathBuf::from(&host.path));
    }
    let kind = match volume {
        Volume { config_map: Some(_), .. } => "kubernetes.io~configmap",
        Volume { secret: Some(_), .. } => "kubernetes.io~secret",
        Volume { downward_api: Some(_), .. } => "kubernetes.io~downward-api",
        Volume { projected: Some(_), .. } => "kubernetes.io~projected",
        _ => EMPTY_DIRS,
    };
    Some(pod_dir(pods, &pod.metadata.uid).join("volumes").join(kind).join(&volume.name))
}

/// The emptyDirs in memory that the engine is to make, by name.
pub fn memory(pod: &Pod) -> Vec<(String, Memory)> {
    let group = group(pod);
    // The checks of the spec have read the limit before.
    let volumes = pod.spec.volumes.iter().filter(|volume| volume.is_memory());
    volumes.map(|volume| (volume.name.clone(), Memory { bytes: volume.size_limit().ok().flatten(), group })).collect()
}

/// The group that a pod's files have.
fn group(pod: &Pod) -> Option<u32> {
    pod.spec.security_context.fs_group.and_then(|id| u32::try_from(id).ok())
}

/// A volume that could not be made, or brought up to date.
#[derive(Debug)]
pub struct Failed {
    /// Its name in the pod.
    pub volume: String,
    /// Why.
    pub error: VolumeError,
    /// It has the files of an earlier look: containers go on with them, and start with them.
    pub has_old_files: bool,
}

impl Failed {
    /// What an event says of it, in the kubelet's words.
    pub fn words(&self) -> String {
        let why = chain(&self.error);
        let named = format!("volume \"{}\": ", self.volume);
        format!("MountVolume.SetUp failed for volume \"{}\" : {}", self.volume, why.strip_prefix(&named).unwrap_or(&why))
    }
}

/// Makes all volumes of a pod that are on the disk, or brings them up to date, each by itself. Only what differs is written.
/// Gives those that failed. Blocks on the disk.
///
/// Only files of objects and fields can be old: an emptyDir that is there is never made again, and a path of the machine
/// that is not what the pod demands is nothing to start with.
///
/// `fsGroupChangePolicy` changes nothing here, as the kubelet has it: it is for storage that outlives a pod. A directory
/// gets its group once, when it is made, and files have it whenever they are written.
pub fn prepare(pods: &Path, pod: &Pod, facts: &Facts, objects: &Objects) -> Vec<Failed> {
    let group = group(pod);
    let mut failed = Vec::new();
    for volume in &pod.spec.volumes {
        let Some(path) = source(pods, pod, volume) else { continue };
        let made = files::of(pod, volume, facts, objects).and_then(|files| match (&volume.host_path, files) {
            (Some(host), _) => host_path::prepare(&path, &host.kind),
            (None, Some(files)) => write::files(&path, &files, group),
            (None, None) => empty_dir(&path, group),
        });
        if let Err(error) = made {
            // What containers or the machine made of another directory is not to be taken for files of ours.
            let has_old_files = mounts::has_files(volume) && write::is_whole(&path);
            failed.push(Failed { volume: volume.name.clone(), error, has_old_files });
        }
    }
    failed
}

/// Removes a pod's directory. A pod that has none is fine. Blocks on the disk.
///
/// # Errors
/// `Io`.
pub fn remove(pods: &Path, uid: &str) -> Result<(), VolumeError> {
    if !is_uid(uid) {
        return Ok(());
    }
    remove_tree(&pod_dir(pods, uid))
}

/// Removes the emptyDirs of a pod that is over, as a kubelet tears them down; what else is in its directory stays for those
/// who ask how it ended. A pod that has none is fine. Blocks on the disk.
///
/// # Errors
/// `Io`.
pub fn remove_empty_dirs(pods: &Path, uid: &str) -> Result<(), VolumeError> {
    if !is_uid(uid) {
        return Ok(());
    }
    remove_tree(&pod_dir(pods, uid).join("volumes").join(EMPTY_DIRS))
}

/// Removes a directory with what is in it. What a container with `Bidirectional` mounted there is somebody else's: then
/// everything stays.
fn remove_tree(path: &Path) -> Result<(), VolumeError> {
    let is_gone = |error: &std::io::Error| error.kind() == std::io::ErrorKind::NotFound;
    let real = match path.canonicalize() {
        Err(error) if is_gone(&error) => return Ok(()),
        found => found.map_err(io(path))?,
    };
    let mounts = Path::new("/proc/self/mountinfo");
    if has_mounts(&fs::read(mounts).map_err(io(mounts))?, &real) {
        let busy = std::io::Error::new(std::io::ErrorKind::ResourceBusy, "something is mounted in it");
        return Err(io(path)(busy));
    }
    match fs::remove_dir_all(path) {
        Err(error) if !is_gone(&error) => Err(io(path)(error)),
        _ => Ok(()),
    }
}

/// Whether something is mounted at a directory or below it, by the kernel's list of mounts (proc(5): the fifth field is
/// where, with four characters written in octal).
pub fn has_mounts(mountinfo: &[u8], directory: &Path) -> bool {
    let mut place = Vec::new();
    for byte in directory.as_os_str().as_bytes() {
        match byte {
            b' ' | b'\t' | b'\n' | b'\\' => place.extend(format!("\\{byte:03o}").into_bytes()),
            _ => place.push(*byte),
        }
    }
    let mut points = mountinfo.split(|byte| *byte == b'\n').filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
    points.any(|point| point.strip_prefix(place.as_slice()).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/")))
}

/// The uids that have a directory.
pub fn directories(pods: &Path) -> Vec<String> {
    let entries = fs::read_dir(pods).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// A directory in which everybody may write. Once it is there its mode is the containers' affair: databases change it.
fn empty_dir(path: &Path, group: Option<u32>) -> Result<(), VolumeError> {
    if path.is_dir() {
        return Ok(());
    }
    // No volume has such a name. A power cut leaves this one behind, never one with the wrong mode at the right place.
    let mut fresh = path.to_owned();
    fresh.set_file_name(format!("..{}", path.file_name().unwrap_or_default().display()));
    make_dir(&fresh, 0o777, group)?;
    fs::rename(&fresh, path).map_err(io(path))
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> VolumeError + '_ {
    move |source| VolumeError::Io { path: path.to_owned(), source }
}

/// A directory with exactly this mode, whatever the umask; its parents are for root alone. With a group, files that are
/// made in it get that group, too.
fn make_dir(path: &Path, mode: u32, group: Option<u32>) -> Result<(), VolumeError> {
    if let Some(parent) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o750).create(parent).map_err(io(parent))?;
    }
    match fs::create_dir(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(io(path)(error)),
        _ => {}
    }
    let mode = mode | if group.is_some() { 0o2000 } else { 0 };
    let found = fs::symlink_metadata(path).map_err(io(path))?;
    let has_group = group.is_none_or(|group| found.gid() == group);
    if found.is_dir() && has_group && found.mode() & 0o7777 == mode {
        return Ok(());
    }
    // First the group: a change of it takes the bit away that hands it on.
    if group.is_some() {
        std::os::unix::fs::lchown(path, None, group).map_err(io(path))?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(io(path))
}
