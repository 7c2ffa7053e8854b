//! A file or directory of a volume, without ever leaving the volume.
//!
//! A container can write into its volume and put a link to `/` where another one mounts a directory. So each part of the
//! path is opened below the one before it and is never a link; what is missing is made on the way, in an opened directory.
//!
//! The engine cannot be given what was opened here: a mount is made in the engine's own view of the file systems, where
//! `/proc/<pid>/fd/<n>` of another process is refused ("invalid argument"). It is given the path, which it resolves once
//! more, later. Between the two a hostile container that already runs can exchange a directory for a link. What was opened
//! is kept so that [`Opened::is_there`] can tell afterwards whether the path still leads to the same thing.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, Stat, fchmod, fstat, mkdirat, openat, readlinkat};
use rustix::io::Errno;

/// A thing of a volume that was found, or made.
#[derive(Debug)]
pub struct Opened {
    /// What the engine mounts.
    pub path: PathBuf,
    root: PathBuf,
    parts: Vec<String>,
    fd: OwnedFd,
}

/// Why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// What is wrong with the path, or with what is there.
    Path(&'static str),
    /// The disk.
    Io(Errno),
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        match errno {
            // Both are what the kernel says of a link here.
            Errno::LOOP | Errno::NOTDIR => Self::Path("leads through something that is not a directory of the volume"),
            Errno::NAMETOOLONG => Self::Path("has a name that is too long"),
            other => Self::Io(other),
        }
    }
}

/// The parts of a relative path.
///
/// # Errors
/// `Path` for one that is absolute, goes upwards, is empty or has a zero byte.
pub fn parts(path: &str) -> Result<Vec<String>, Failure> {
    if path.starts_with('/') {
        return Err(Failure::Path("must not be an absolute path"));
    }
    if path.contains('\0') || path.len() > 4096 {
        return Err(Failure::Path("is no path"));
    }
    let parts: Vec<String> = path.split('/').filter(|part| !part.is_empty() && *part != ".").map(str::to_owned).collect();
    if parts.iter().any(|part| part == "..") {
        return Err(Failure::Path("must not contain '..'"));
    }
    if parts.is_empty() { Err(Failure::Path("is empty: leave it out to mount the whole volume")) } else { Ok(parts) }
}

/// Opens a part of a volume that containers can write to. Directories that are missing are made with the mode of the volume.
///
/// # Errors
/// See [`Failure`].
pub fn open_or_make(root: &Path, path: &str) -> Result<Opened, Failure> {
    let parts = parts(path)?;
    let root_fd = open_root(root)?;
    let mode = Mode::from_raw_mode(fstat(&root_fd)?.st_mode & 0o777);
    let fd = walk(root_fd, &parts, Some(mode))?;
    Ok(Opened { path: joined(root, &parts), root: root.to_owned(), parts, fd })
}

/// Opens a part of a volume of files, whose links are ours: `name` is a link to `..data/name`, and `..data` to a directory
/// beside it.
///
/// # Errors
/// See [`Failure`]; what is missing is not made.
pub fn open_file(root: &Path, path: &str) -> Result<Opened, Failure> {
    let mut parts = parts(path)?;
    let missing = |errno| if errno == Errno::NOENT { Failure::Path("does not exist in it") } else { Failure::from(errno) };
    let root_fd = open_root(root).map_err(missing)?;
    let current = readlinkat(&root_fd, "..data", Vec::new()).map_err(missing)?.into_string().unwrap_or_default();
    if current.contains('/') || !current.starts_with("..") || current.len() < 3 {
        return Err(Failure::Path("is in a volume whose files are damaged"));
    }
    parts.insert(0, current);
    let fd = walk(root_fd, &parts, None).map_err(missing)?;
    Ok(Opened { path: joined(root, &parts), root: root.to_owned(), parts, fd })
}

impl Opened {
    /// Whether its path still leads to it.
    pub fn is_there(&self) -> bool {
        let same = |a: &Stat, b: &Stat| (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino);
        let again = open_root(&self.root).and_then(|root| walk(root, &self.parts, None)).and_then(fstat);
        matches!((again, fstat(&self.fd)), (Ok(again), Ok(opened)) if same(&again, &opened))
    }
}

fn joined(root: &Path, parts: &[String]) -> PathBuf {
    parts.iter().fold(root.to_owned(), |path, part| path.join(part))
}

/// The volume itself: its own path is the machine's, links and all.
fn open_root(root: &Path) -> Result<OwnedFd, Errno> {
    openat(CWD, root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// Opens part after part; `make` is the mode of directories that are missing. No part is a link at the moment at which it
/// is opened, and each is opened in the directory before it, so the end is inside, whatever is renamed meanwhile.
fn walk(root: OwnedFd, parts: &[String], make: Option<Mode>) -> Result<OwnedFd, Errno> {
    let mut at = root;
    for (number, part) in parts.iter().enumerate() {
        let is_last = number + 1 == parts.len();
        let dir = if is_last { OFlags::empty() } else { OFlags::DIRECTORY };
        let open = || openat(&at, part.as_str(), OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC | dir, Mode::empty());
        let next = match (open(), make) {
            (Err(Errno::NOENT), Some(mode)) => {
                make_dir(at.as_fd(), part, mode)?;
                open()?
            }
            (opened, _) => opened?,
        };
        // Only for the last one: a link is no directory.
        if is_last && FileType::from_raw_mode(fstat(&next)?.st_mode) == FileType::Symlink {
            return Err(Errno::LOOP);
        }
        at = next;
    }
    Ok(at)
}

/// A directory with this mode, whatever the umask; a group that is handed on stays so.
fn make_dir(at: impl AsFd, name: &str, mode: Mode) -> Result<(), Errno> {
    match mkdirat(&at, name, mode) {
        Ok(()) => {
            let made = openat(&at, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
            let handed_on = fstat(&made)?.st_mode & 0o2000;
            fchmod(&made, mode | Mode::from_raw_mode(handed_on))
        }
        // Somebody was quicker; what it is shows when it is opened.
        Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno),
    }
}
