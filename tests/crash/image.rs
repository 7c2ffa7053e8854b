//! One file as the process sees it, and what of that is on the disk.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rand::Rng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};

/// A power cut leaves or takes whole sectors.
const SECTOR: usize = 512;

/// Changes that one tear writes: a large transaction would otherwise be written again with each of its pages.
const TORN_MAX: usize = 64;

/// A file whose changes stay in the memory of this process until they are synced: what a kill takes with it is what a
/// power cut would take from the system's page cache.
#[derive(Debug)]
pub struct Image {
    file: File,
    content: Vec<u8>,
    unsynced: Vec<Change>,
}

#[derive(Debug)]
enum Change {
    Write { range: Range<usize> },
    Truncate,
}

impl Image {
    /// Reads the file, which exists.
    ///
    /// # Errors
    /// When it cannot be opened for reading and writing.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::options().read(true).write(true).open(path)?;
        let mut content = vec![0; usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?];
        file.read_exact_at(&mut content, 0)?;
        Ok(Self { file, content, unsynced: Vec::new() })
    }

    /// Bytes that the process sees.
    pub fn len(&self) -> usize {
        self.content.len()
    }

    /// Fills `buffer` from `at`; what lies beyond the end is zero. `false` when there was something beyond.
    pub fn read(&self, at: usize, buffer: &mut [u8]) -> bool {
        let there = self.content.get(at..).unwrap_or_default();
        let there = &there[..there.len().min(buffer.len())];
        buffer[..there.len()].copy_from_slice(there);
        buffer[there.len()..].fill(0);
        there.len() == buffer.len()
    }

    /// Changes bytes in memory.
    pub fn write(&mut self, at: usize, bytes: &[u8]) {
        let range = at..at + bytes.len();
        if self.content.len() < range.end {
            self.content.resize(range.end, 0);
        }
        self.content[range.clone()].copy_from_slice(bytes);
        self.unsynced.push(Change::Write { range });
    }

    /// Changes the length in memory.
    pub fn truncate(&mut self, length: usize) {
        self.content.resize(length, 0);
        self.unsynced.push(Change::Truncate);
    }

    /// Makes the disk's file the same as the process sees, durably.
    ///
    /// # Errors
    /// Of the disk; what was not written is written by the next call.
    pub fn sync(&mut self) -> io::Result<()> {
        for change in &self.unsynced {
            self.write_through(change, 1.0)?;
        }
        self.file.set_len(self.content.len() as u64)?;
        self.file.sync_data()?;
        self.unsynced.clear();
        Ok(())
    }

    /// Writes some of the changes, in any order, some of them only up to a sector: the system may do so at any time, and
    /// a power cut leaves what it has done. Nothing counts as synced.
    ///
    /// # Errors
    /// Of the disk.
    pub fn tear(&self, random: &mut impl Rng) -> io::Result<()> {
        let count = random.random_range(0..=self.unsynced.len().min(TORN_MAX));
        let mut some: Vec<&Change> = self.unsynced.choose_multiple(random, count).collect();
        some.shuffle(random);
        for change in some {
            let part = if random.random_ratio(1, 4) { random.random() } else { 1.0 };
            self.write_through(change, part)?;
        }
        Ok(())
    }

    // Of a range that was written twice the present bytes, as a page cache has them; what was cut off since is left out.
    fn write_through(&self, change: &Change, part: f64) -> io::Result<()> {
        match change {
            Change::Truncate => self.file.set_len(self.content.len() as u64),
            Change::Write { range } => {
                let mut end = range.end.min(self.content.len());
                if part < 1.0 {
                    end = end.min((range.start + (range.len() as f64 * part) as usize) / SECTOR * SECTOR);
                }
                self.content.get(range.start..end).map_or(Ok(()), |bytes| self.file.write_all_at(bytes, range.start as u64))
            }
        }
    }
}
