//! What the disk itself takes to make something durable.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Instant;

const BLOCK_BYTES: usize = 4096;
/// Blocks of the file, which are written in turn: like SQLite's log, which is as long and is written again from its start.
const BLOCKS: u64 = 1000;

/// A file beside the database.
pub struct Disk {
    file: File,
}

impl Disk {
    /// Makes the file, at its full length.
    ///
    /// # Errors
    /// The operating system's words.
    pub fn open(directory: &Path) -> Result<Self, String> {
        let path = directory.join("fdatasync");
        let make = || {
            let file = File::create(&path)?;
            for block in 0..BLOCKS {
                file.write_all_at(&[1; BLOCK_BYTES], block * BLOCK_BYTES as u64)?;
            }
            file.sync_all()?;
            Ok(file)
        };
        make().map(|file| Self { file }).map_err(|error: std::io::Error| format!("{}: {error}", path.display()))
    }

    /// Writes `count` blocks, each made durable by itself; how long each took, ms.
    ///
    /// # Errors
    /// The operating system's words.
    pub fn sync(&self, count: usize) -> Result<Vec<f64>, String> {
        let write = |block: u64| {
            let began = Instant::now();
            self.file.write_all_at(&[2; BLOCK_BYTES], block % BLOCKS * BLOCK_BYTES as u64)?;
            self.file.sync_data()?;
            Ok(began.elapsed().as_secs_f64() * 1e3)
        };
        (0..count as u64).map(write).collect::<std::io::Result<_>>().map_err(|error| format!("fdatasync: {error}"))
    }
}
