//! What a directory takes of its disk.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Most files that one look counts: a directory with more is as large as what was counted of it.
pub const FILES_MAX: u64 = 200_000;

/// What a directory takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Bytes in blocks of the disk.
    pub bytes: u64,
    /// Files and directories.
    pub inodes: u64,
}

/// Counts what is below a directory, itself included, without following links or entering other file systems. A file with
/// several names counts once. Ends early above `bytes_enough` or [`FILES_MAX`]. Blocks on the disk.
pub fn taken(directory: &Path, bytes_enough: u64) -> Taken {
    let mut taken = Taken::default();
    let Ok(root) = directory.symlink_metadata() else { return taken };
    let mut linked = BTreeSet::new();
    let mut add = |metadata: &std::fs::Metadata| {
        if metadata.is_dir() || metadata.nlink() < 2 || linked.insert(metadata.ino()) {
            taken.bytes = taken.bytes.saturating_add(metadata.blocks().saturating_mul(512));
            taken.inodes += 1;
        }
        taken.bytes > bytes_enough || taken.inodes >= FILES_MAX
    };
    let mut is_enough = add(&root);
    let mut open = if root.is_dir() { vec![directory.to_owned()] } else { Vec::new() };
    while let Some(next) = open.pop().filter(|_| !is_enough) {
        // Files come and go meanwhile: what is not there any more takes nothing.
        for entry in std::fs::read_dir(&next).into_iter().flatten().flatten() {
            let Some(metadata) = entry.metadata().ok().filter(|one| one.dev() == root.dev()) else { continue };
            if metadata.is_dir() {
                open.push(entry.path());
            }
            is_enough = add(&metadata);
            if is_enough {
                break;
            }
        }
    }
    taken
}

/// Whether two directories are on the same file system; one that is not there is taken to be.
pub fn is_same(one: &Path, other: &Path) -> bool {
    match (one.metadata(), other.metadata()) {
        (Ok(one), Ok(other)) => one.dev() == other.dev(),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    #[test]
    fn a_directory_takes_what_its_files_take_each_once_and_links_lead_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let empty = taken(dir.path(), u64::MAX);
        assert_eq!(empty.inodes, 1);
        std::fs::create_dir(dir.path().join("a")).unwrap();
        std::fs::write(dir.path().join("a/file"), vec![7; 1 << 20]).unwrap();
        std::fs::hard_link(dir.path().join("a/file"), dir.path().join("again")).unwrap();
        std::os::unix::fs::symlink("/", dir.path().join("root")).unwrap();
        std::os::unix::fs::symlink(dir.path(), dir.path().join("a/loop")).unwrap();
        // A hole takes nothing.
        std::fs::File::create(dir.path().join("hole")).unwrap().set_len(1 << 40).unwrap();
        let full = taken(dir.path(), u64::MAX);
        assert!((1 << 20..2 << 20).contains(&(full.bytes - empty.bytes)), "{full:?}");
        assert_eq!(full.inodes, 6);
        assert_eq!(taken(&dir.path().join("a/file"), u64::MAX).inodes, 1);
        assert_eq!(taken(&dir.path().join("none"), u64::MAX), Taken::default());
    }

    #[test]
    fn counting_ends_when_it_is_enough() {
        let dir = tempfile::tempdir().unwrap();
        for n in 0..50 {
            std::fs::write(dir.path().join(n.to_string()), [7; 4096]).unwrap();
        }
        let all = taken(dir.path(), u64::MAX);
        let some = taken(dir.path(), 40_960);
        assert!(some.bytes > 40_960 && some.bytes < all.bytes && some.inodes < all.inodes, "{some:?} of {all:?}");
    }
}
