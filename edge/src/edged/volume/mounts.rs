//! What a container mounts.

use std::collections::BTreeMap;
use std::path::Path;

use super::super::container::memory_volume;
use super::super::env::expand_strictly;
use super::super::pod::{Container, Pod, Volume, VolumeMount};
use super::super::runtime::{Mount, MountSource, Propagation};
use super::sub_path::{self, Failure, Opened};
use super::{VolumeError, source};

/// The mounts of a container that is to be made. Keep it until the container was started.
#[derive(Debug, Default)]
pub struct Mounted {
    /// For the engine.
    pub mounts: Vec<Mount>,
    opened: Vec<Opened>,
}

impl Mounted {
    /// Whether every `subPath` still leads to what was checked. Ask after the start: if not, another container exchanged a
    /// directory for a link meanwhile, and the one that was started must not go on.
    pub fn is_unchanged(&self) -> bool {
        self.opened.iter().all(Opened::is_there)
    }
}

/// What a container mounts. `values` is its environment, for `subPathExpr`. Blocks on the disk: directories of a `subPath`
/// that are missing are made.
///
/// # Errors
/// `SubPath`, `Variable`, `Io`.
pub fn mounts(pods: &Path, pod: &Pod, container: &Container, values: &BTreeMap<String, String>) -> Result<Mounted, VolumeError> {
    let mut made = Mounted::default();
    for mount in container.mounts() {
        // The checks of the spec have seen that there is one.
        let Some(volume) = pod.volume(&mount.name) else { continue };
        let sub = sub_path_of(mount, values)?;
        let mount_source = match (source(pods, pod, volume), sub) {
            (None, Some(path)) if volume.is_memory() => {
                return Err(sub_path_error(volume, &path, "cannot be had of an emptyDir in memory: mount the whole volume"));
            }
            (None, _) if volume.is_memory() => MountSource::Volume(memory_volume(&pod.metadata.uid, &volume.name)),
            (None, _) => continue,
            (Some(root), None) if may_be_made(volume) => MountSource::PathOrDirectory(root),
            (Some(root), None) => MountSource::Path(root),
            (Some(root), Some(path)) => {
                let opened = if has_files(volume) { sub_path::open_file(&root, &path) } else { sub_path::open_or_make(&root, &path) };
                let opened = opened.map_err(|failure| match failure {
                    Failure::Path(why) => sub_path_error(volume, &path, why),
                    Failure::Io(errno) => VolumeError::Io { path: root.join(&path), source: errno.into() },
                })?;
                let at = opened.path.clone();
                made.opened.push(opened);
                MountSource::Path(at)
            }
        };
        made.mounts.push(Mount {
            source: mount_source,
            target: mount.mount_path.clone(),
            // Files of an object are the edge's: a container that could write there could point a link elsewhere.
            read_only: mount.read_only || has_files(volume),
            propagation: propagation(&mount.mount_propagation),
        });
    }
    Ok(made)
}

/// A path of the machine that a container engine makes a directory of where nothing is.
fn may_be_made(volume: &Volume) -> bool {
    volume.host_path.as_ref().is_some_and(|host| ["", "DirectoryOrCreate"].contains(&host.kind.as_str()))
}

/// Whether its files are of objects and fields, written by this program alone.
pub(super) fn has_files(volume: &Volume) -> bool {
    volume.config_map.is_some() || volume.secret.is_some() || volume.downward_api.is_some() || volume.projected.is_some()
}

fn propagation(word: &str) -> Propagation {
    match word {
        "HostToContainer" => Propagation::HostToContainer,
        "Bidirectional" => Propagation::Bidirectional,
        _ => Propagation::Private,
    }
}

fn sub_path_error(volume: &Volume, path: &str, why: &'static str) -> VolumeError {
    VolumeError::SubPath { volume: volume.name.clone(), path: path.chars().take(64).collect(), why }
}

/// The part of the volume that is wanted, with its variables replaced. One that becomes empty is refused later: the whole
/// volume is not what somebody wanted who asked for a part of it.
fn sub_path_of(mount: &VolumeMount, values: &BTreeMap<String, String>) -> Result<Option<String>, VolumeError> {
    if mount.sub_path_expr.is_empty() {
        return Ok(Some(mount.sub_path.clone()).filter(|path| !path.is_empty()));
    }
    let expanded = expand_strictly(&mount.sub_path_expr, values);
    expanded.map(Some).map_err(|variable| VolumeError::Variable {
        volume: mount.name.clone(),
        path: mount.sub_path_expr.chars().take(64).collect(),
        variable: variable.chars().take(64).collect(),
    })
}
