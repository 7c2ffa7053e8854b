//! What the machine as a whole takes, as the kernel tells it.

use std::path::Path;

/// What the machine takes now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeStats {
    /// Nanoseconds of all CPUs since the boot, without waiting and idling.
    pub cpu_nanos: u64,
    /// Bytes of memory.
    pub memory_total: u64,
    /// Bytes that programs can still have.
    pub memory_available: u64,
    /// Bytes that nobody uses, not even as a cache.
    pub memory_free: u64,
    /// Of the file system with the pods' directories.
    pub fs: Option<FsStats>,
}

/// What a file system has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FsStats {
    /// Bytes.
    pub capacity: u64,
    /// Bytes that others than root can have.
    pub available: u64,
    /// Bytes that are taken.
    pub used: u64,
    /// Inodes.
    pub inodes: u64,
    /// Inodes that are not taken.
    pub inodes_free: u64,
}

/// Asks the kernel; what it does not say is 0. Blocks on `/proc`.
pub fn node_stats(dir: &Path) -> NodeStats {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let meminfo = read("/proc/meminfo");
    NodeStats {
        cpu_nanos: cpu_nanos(&read("/proc/stat")),
        memory_total: memory(&meminfo, "MemTotal:"),
        memory_available: memory(&meminfo, "MemAvailable:"),
        memory_free: memory(&meminfo, "MemFree:"),
        fs: rustix::fs::statvfs(dir).ok().map(|found| FsStats {
            capacity: found.f_blocks.saturating_mul(found.f_frsize),
            available: found.f_bavail.saturating_mul(found.f_frsize),
            used: found.f_blocks.saturating_sub(found.f_bfree).saturating_mul(found.f_frsize),
            inodes: found.f_files,
            inodes_free: found.f_ffree,
        }),
    }
}

/// The first line of `/proc/stat`: hundredths of a second as user, nice, system, idle, iowait, irq, softirq, steal …
fn cpu_nanos(stat: &str) -> u64 {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu ")).unwrap_or_default();
    let parts = line.split_whitespace().map(|word| word.parse::<u64>().unwrap_or(0));
    // Guests are counted within user.
    let busy: u64 = parts.take(8).enumerate().filter(|(at, _)| *at != 3 && *at != 4).map(|(_, ticks)| ticks).sum();
    busy.saturating_mul(10_000_000)
}

fn memory(meminfo: &str, name: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0).saturating_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_tables_are_read_and_nonsense_is_nothing() {
        assert_eq!(cpu_nanos("cpu  1 2 3 1000 2000 4 5 6 7 8\ncpu0 9 9 9\n"), 21 * 10_000_000);
        assert_eq!(cpu_nanos("cpu0 1 2\n"), 0);
        assert_eq!(cpu_nanos(""), 0);
        assert_eq!(memory("MemTotal:  16 kB\nMemFree: 4 kB\n", "MemFree:"), 4096);
        assert_eq!(memory("MemTotal: many\n", "MemTotal:"), 0);
        let here = node_stats(Path::new("/"));
        assert!(here.memory_total >= here.memory_available && here.fs.is_some_and(|fs| fs.capacity >= fs.available), "{here:?}");
        assert_eq!(node_stats(Path::new("/nonexistent")).fs, None);
    }
}
