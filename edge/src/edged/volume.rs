//! Volumes of a pod on the machine: below `<data>/pods/<uid>/volumes`.
//!
//! A ConfigMap or Secret becomes a directory as the kubelet makes it: the files lie in a directory of their own, `..data`
//! is a link to it, and each name is a link through `..data`. A change is one rename of that link, so a reader sees the
//! old files or the new ones, never a mixture.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use super::check::is_uid;
use super::objects::{KeyedObject, LookupError, Objects};
use super::pod::{KeyedVolume, Pod, Volume};

/// Mode of a file where nothing else is said.
const MODE_DEFAULT: u32 = 0o644;

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
    /// A host path that is not what the spec demands.
    #[error("hostPath type check failed: {path} is not a {kind}")]
    HostPath {
        /// On the machine.
        path: String,
        /// As in the spec.
        kind: String,
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

/// A file of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    bytes: Vec<u8>,
    mode: u32,
}

/// Where a pod's own files are.
pub fn pod_dir(pods: &Path, uid: &str) -> PathBuf {
    pods.join(uid)
}

/// The path of a volume on the machine: what a container mounts. `None` for a volume that is not made.
pub fn source(pods: &Path, pod: &Pod, volume: &Volume) -> Option<PathBuf> {
    if volume.is_api_access() {
        return None;
    }
    if let Some(host) = &volume.host_path {
        return Some(PathBuf::from(&host.path));
    }
    let kind = match (&volume.config_map, &volume.secret) {
        (Some(_), _) => "kubernetes.io~configmap",
        (None, Some(_)) => "kubernetes.io~secret",
        (None, None) => "kubernetes.io~empty-dir",
    };
    Some(pod_dir(pods, &pod.metadata.uid).join("volumes").join(kind).join(&volume.name))
}

/// Makes all volumes of a pod, or brings them up to date. Only what differs is written. Blocks on the disk.
///
/// # Errors
/// The first volume that cannot be made; those before it are there.
pub fn prepare(pods: &Path, pod: &Pod, objects: &Objects) -> Result<(), VolumeError> {
    for volume in &pod.spec.volumes {
        let Some(path) = source(pods, pod, volume) else { continue };
        let keyed = volume.config_map.iter().map(|v| (false, v)).chain(volume.secret.iter().map(|v| (true, v))).next();
        match (keyed, &volume.host_path) {
            (Some((is_secret, keyed)), _) => {
                let object = objects.get_optional(is_secret, &keyed.name, keyed.optional)?;
                let files = files(&volume.name, keyed, object)?;
                make_dir(&path, 0o755)?;
                write_files(&path, &files)?;
            }
            (None, Some(host)) => host_path(&path, &host.kind)?,
            (None, None) => {
                if !path.is_dir() {
                    make_dir(&path, 0o777)?;
                }
            }
        }
    }
    Ok(())
}

/// Removes a pod's directory. A pod that has none is fine. Blocks on the disk.
///
/// # Errors
/// `Io`.
pub fn remove(pods: &Path, uid: &str) -> Result<(), VolumeError> {
    if !is_uid(uid) {
        return Ok(());
    }
    let path = pod_dir(pods, uid);
    match fs::remove_dir_all(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(VolumeError::Io { path, source: error }),
        _ => Ok(()),
    }
}

/// The uids that have a directory.
pub fn directories(pods: &Path) -> Vec<String> {
    let entries = fs::read_dir(pods).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Which files a ConfigMap or Secret volume has. An optional object that is missing has none.
///
/// # Errors
/// `Key` and `Path`.
pub fn files(volume: &str, keyed: &KeyedVolume, object: Option<&KeyedObject>) -> Result<BTreeMap<PathBuf, File>, VolumeError> {
    let Some(object) = object else { return Ok(BTreeMap::new()) };
    let default = keyed.default_mode.unwrap_or(MODE_DEFAULT);
    let mut files = BTreeMap::new();
    let mut add = |path: &str, bytes: &[u8], mode: u32| {
        let path = inside(path).ok_or_else(|| VolumeError::Path { volume: volume.into(), path: path.chars().take(64).collect() })?;
        files.insert(path, File { bytes: bytes.to_vec(), mode: mode & 0o777 });
        Ok::<(), VolumeError>(())
    };
    if keyed.items.is_empty() {
        for (key, bytes) in &object.data {
            if key.contains('/') {
                return Err(VolumeError::Path { volume: volume.into(), path: key.chars().take(64).collect() });
            }
            add(key, bytes, default)?;
        }
    }
    for item in &keyed.items {
        match object.data.get(&item.key) {
            Some(bytes) => add(&item.path, bytes, item.mode.unwrap_or(default))?,
            None if keyed.optional => {}
            None => return Err(VolumeError::Key { volume: volume.into(), key: item.key.chars().take(64).collect() }),
        }
    }
    let parents: Vec<&PathBuf> = files.keys().collect();
    // `a` as a file and `a/b` as another cannot both be.
    if let Some(pair) = parents.windows(2).find(|pair| pair[1].starts_with(pair[0])) {
        return Err(VolumeError::Path { volume: volume.into(), path: pair[1].display().to_string() });
    }
    Ok(files)
}

/// The path, if it stays inside and its first part does not look like our own links (`..data`).
fn inside(path: &str) -> Option<PathBuf> {
    let fits = !path.is_empty() && path.len() <= 4096 && !path.contains('\0') && !path.starts_with("..");
    let parts: Vec<Component<'_>> = Path::new(path).components().collect();
    let plain = parts.iter().all(|part| matches!(part, Component::Normal(name) if name.len() <= 253));
    // `components` drops `.` and doubled slashes: a path that holds any is refused, not read as another.
    let exact = parts.iter().map(|part| part.as_os_str().len()).sum::<usize>() + parts.len().saturating_sub(1) == path.len();
    (fits && plain && exact).then(|| PathBuf::from(path))
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> VolumeError + '_ {
    move |source| VolumeError::Io { path: path.to_owned(), source }
}

/// A directory with exactly this mode, whatever the umask; its parents are for root alone.
fn make_dir(path: &Path, mode: u32) -> Result<(), VolumeError> {
    if let Some(parent) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o750).create(parent).map_err(io(parent))?;
    }
    match fs::create_dir(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(io(path)(error)),
        _ => {}
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(io(path))
}

fn write_files(volume: &Path, files: &BTreeMap<PathBuf, File>) -> Result<(), VolumeError> {
    let data = volume.join("..data");
    let current = fs::read_link(&data).ok().map(|name| volume.join(name));
    if !current.as_ref().is_some_and(|dir| holds(dir, files)) {
        let fresh = volume.join(format!("..{}", uuid::Uuid::new_v4().simple()));
        make_dir(&fresh, 0o755)?;
        for (path, file) in files {
            write_file(&fresh, path, file)?;
        }
        let link = volume.join("..data_tmp");
        let _ = fs::remove_file(&link);
        let name = fresh.file_name().map(PathBuf::from).unwrap_or_default();
        symlink(name, &link).map_err(io(&link))?;
        fs::rename(&link, &data).map_err(io(&data))?;
    }
    let current = fs::read_link(&data).map_err(io(&data))?;
    let visible: BTreeSet<&std::ffi::OsStr> = files.keys().filter_map(|path| path.iter().next()).collect();
    for name in &visible {
        let link = volume.join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new("..data").join(name), &link).map_err(io(&link))?;
        }
    }
    for entry in fs::read_dir(volume).map_err(io(volume))?.flatten() {
        let name = entry.file_name();
        let keep = name == "..data" || name == current.as_os_str() || visible.contains(name.as_os_str());
        if !keep {
            let path = entry.path();
            let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let gone = if is_dir { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            gone.map_err(io(&path))?;
        }
    }
    Ok(())
}

fn write_file(dir: &Path, path: &Path, file: &File) -> Result<(), VolumeError> {
    let target = dir.join(path);
    let mut parent = dir.to_owned();
    for part in path.parent().into_iter().flat_map(Path::iter) {
        parent.push(part);
        make_dir(&parent, 0o755)?;
    }
    let mut open = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&target).map_err(io(&target))?;
    open.write_all(&file.bytes).map_err(io(&target))?;
    open.set_permissions(fs::Permissions::from_mode(file.mode)).map_err(io(&target))
}

/// Whether a directory has exactly these files with these bytes and modes.
fn holds(dir: &Path, files: &BTreeMap<PathBuf, File>) -> bool {
    let mut found = 0;
    let mut open = vec![dir.to_owned()];
    while let Some(next) = open.pop() {
        let Ok(entries) = fs::read_dir(&next) else { return false };
        for entry in entries.flatten() {
            let path = entry.path();
            let Ok(metadata) = entry.metadata() else { return false };
            if metadata.is_dir() {
                open.push(path);
                continue;
            }
            let Some(file) = path.strip_prefix(dir).ok().and_then(|name| files.get(name)) else { return false };
            let same = metadata.is_file()
                && metadata.permissions().mode() & 0o777 == file.mode
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

/// Checks, and for the `…OrCreate` types makes, a path of the machine.
fn host_path(path: &Path, kind: &str) -> Result<(), VolumeError> {
    let refused = || VolumeError::HostPath { path: path.display().to_string(), kind: kind.to_owned() };
    let found = fs::metadata(path).ok();
    let is = match (kind, &found) {
        ("DirectoryOrCreate", None) => {
            fs::DirBuilder::new().recursive(true).mode(0o755).create(path).map_err(io(path))?;
            true
        }
        ("FileOrCreate", None) => {
            fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o644).open(path).map_err(io(path))?;
            true
        }
        ("", _) => true,
        (_, None) => false,
        ("Directory" | "DirectoryOrCreate", Some(found)) => found.is_dir(),
        ("File" | "FileOrCreate", Some(found)) => found.is_file(),
        ("Socket", Some(found)) => found.file_type().is_socket(),
        ("CharDevice", Some(found)) => found.file_type().is_char_device(),
        ("BlockDevice", Some(found)) => found.file_type().is_block_device(),
        _ => false,
    };
    if is { Ok(()) } else { Err(refused()) }
}
