//! Which files a volume of keys or fields has: pure.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use super::super::downward;
use super::super::env::Facts;
use super::super::objects::{KeyedObject, Objects};
use super::super::pod::{Container, DownwardVolume, KeyedVolume, Pod, ProjectedVolume, Volume};
use super::VolumeError;

/// Mode of a file where nothing else is said.
const MODE_DEFAULT: u32 = 0o644;
/// Most bytes of the files of one volume: one large key can be asked for under many names.
pub const VOLUME_BYTES_MAX: usize = 64 << 20;

/// Longest path of a file inside its volume, in bytes: with the volume's own before it, it has to be less than the kernel's
/// 4096.
pub const PATH_BYTES_MAX: usize = 3072;

/// A file of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// What is in it.
    pub bytes: Vec<u8>,
    /// Its mode, without the bits that a group adds.
    pub mode: u32,
}

/// The files of a volume; `None` for one that is not made of files.
///
/// # Errors
/// `Object`, `Key`, `Path`, `PathTooLong`, `TooLarge`.
pub(super) fn of(pod: &Pod, volume: &Volume, facts: &Facts, objects: &Objects) -> Result<Option<BTreeMap<PathBuf, File>>, VolumeError> {
    let keyed = volume.config_map.iter().map(|source| (false, source)).chain(volume.secret.iter().map(|source| (true, source))).next();
    let files = match (keyed, &volume.downward_api, &volume.projected) {
        (Some((is_secret, source)), _, _) => keyed_files(&volume.name, source, objects.get_optional(is_secret, &source.name, source.optional)?)?,
        (None, Some(source), _) => downward_files(&volume.name, source, pod, facts)?,
        (None, None, Some(source)) => projected_files(&volume.name, source, pod, facts, objects)?,
        (None, None, None) => return Ok(None),
    };
    Ok(Some(files))
}

/// The files of a ConfigMap or Secret volume. An optional object that is missing has none.
///
/// # Errors
/// `Key`, `Path`, `PathTooLong`, `TooLarge`.
pub fn keyed_files(volume: &str, source: &KeyedVolume, object: Option<&KeyedObject>) -> Result<BTreeMap<PathBuf, File>, VolumeError> {
    let mut files = Files::new(volume, source.default_mode);
    files.add_keyed(source, object)?;
    files.end()
}

/// The files of a downwardAPI volume.
///
/// # Errors
/// `Path`, `PathTooLong`, `TooLarge`.
pub fn downward_files(volume: &str, source: &DownwardVolume, pod: &Pod, facts: &Facts) -> Result<BTreeMap<PathBuf, File>, VolumeError> {
    let mut files = Files::new(volume, source.default_mode);
    files.add_downward(source, pod, facts)?;
    files.end()
}

/// The files of a projected volume: a later source wins.
///
/// # Errors
/// `Object`, `Key`, `Path`, `PathTooLong`, `TooLarge`.
pub fn projected_files(
    volume: &str,
    source: &ProjectedVolume,
    pod: &Pod,
    facts: &Facts,
    objects: &Objects,
) -> Result<BTreeMap<PathBuf, File>, VolumeError> {
    let mut files = Files::new(volume, source.default_mode);
    for source in &source.sources {
        let keyed = source.config_map.iter().map(|source| (false, source)).chain(source.secret.iter().map(|source| (true, source)));
        for (is_secret, keyed) in keyed {
            files.add_keyed(keyed, objects.get_optional(is_secret, &keyed.name, keyed.optional)?)?;
        }
        if let Some(downward) = &source.downward_api {
            files.add_downward(downward, pod, facts)?;
        }
    }
    files.end()
}

/// Files as they are gathered.
struct Files<'a> {
    volume: &'a str,
    mode: u32,
    bytes: usize,
    files: BTreeMap<PathBuf, File>,
}

fn mode(mode: Option<i64>) -> Option<u32> {
    mode.and_then(|mode| u32::try_from(mode).ok())
}

impl<'a> Files<'a> {
    fn new(volume: &'a str, default_mode: Option<i64>) -> Self {
        Self { volume, mode: mode(default_mode).unwrap_or(MODE_DEFAULT), bytes: 0, files: BTreeMap::new() }
    }

    fn path_error(&self, path: &str) -> VolumeError {
        VolumeError::Path { volume: self.volume.into(), path: path.chars().take(64).collect() }
    }

    fn add(&mut self, path: &str, bytes: &[u8], item_mode: Option<i64>) -> Result<(), VolumeError> {
        if path.len() > PATH_BYTES_MAX {
            return Err(VolumeError::PathTooLong { volume: self.volume.into(), path: path.chars().take(64).collect() });
        }
        let inside = inside(path).ok_or_else(|| self.path_error(path))?;
        self.bytes += bytes.len();
        if self.bytes > VOLUME_BYTES_MAX {
            return Err(VolumeError::TooLarge { volume: self.volume.into() });
        }
        let mode = mode(item_mode).unwrap_or(self.mode) & 0o777;
        self.files.insert(inside, File { bytes: bytes.to_vec(), mode });
        Ok(())
    }

    fn add_keyed(&mut self, source: &KeyedVolume, object: Option<&KeyedObject>) -> Result<(), VolumeError> {
        let Some(object) = object else { return Ok(()) };
        if source.items.is_empty() {
            for (key, bytes) in &object.data {
                if key.contains('/') {
                    return Err(self.path_error(key));
                }
                self.add(key, bytes, None)?;
            }
        }
        for item in &source.items {
            match object.data.get(&item.key) {
                Some(bytes) => self.add(&item.path, bytes, item.mode)?,
                None if source.optional => {}
                None => return Err(VolumeError::Key { volume: self.volume.into(), key: item.key.chars().take(64).collect() }),
            }
        }
        Ok(())
    }

    fn add_downward(&mut self, source: &DownwardVolume, pod: &Pod, facts: &Facts) -> Result<(), VolumeError> {
        for item in &source.items {
            let value = match (&item.field_ref, &item.resource_field_ref) {
                (Some(reference), _) => downward::field(pod, &reference.field_path, facts),
                (None, Some(reference)) => {
                    let named = pod.container(&reference.container_name);
                    downward::resource(named.unwrap_or(&Container::default()), reference, facts.machine)
                }
                (None, None) => String::new(),
            };
            self.add(&item.path, value.as_bytes(), item.mode)?;
        }
        Ok(())
    }

    fn end(self) -> Result<BTreeMap<PathBuf, File>, VolumeError> {
        // `a` as a file and `a/b` as another cannot both be. In this order everything below `a` follows it at once.
        let clash = self.files.keys().zip(self.files.keys().skip(1)).find(|(first, second)| second.starts_with(first));
        match clash {
            Some((_, path)) => Err(self.path_error(&path.display().to_string())),
            None => Ok(self.files),
        }
    }
}

/// The path, if it stays inside and its first part does not look like our own links (`..data`).
fn inside(path: &str) -> Option<PathBuf> {
    let fits = !path.is_empty() && !path.contains('\0') && !path.starts_with("..");
    let parts: Vec<Component<'_>> = Path::new(path).components().collect();
    let plain = parts.iter().all(|part| matches!(part, Component::Normal(name) if name.len() <= 253));
    // `components` drops `.` and doubled slashes: a path that holds any is refused, not read as another.
    let exact = parts.iter().map(|part| part.as_os_str().len()).sum::<usize>() + parts.len().saturating_sub(1) == path.len();
    (fits && plain && exact).then(|| PathBuf::from(path))
}
