//! What is free on this machine: a few small files and two questions to file systems.

use std::path::Path;

use super::super::pressure::Signals;

/// Reads everything. What cannot be read has a total of 0. Blocks on the disk.
pub fn read(nodefs: &Path, imagefs: Option<&Path>) -> Signals {
    let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let (memory_available, memory_total) = memory(&text("/proc/meminfo"));
    let (pids_available, pids_total) = pids(&text("/proc/sys/kernel/pid_max"), &text("/proc/sys/kernel/threads-max"), &text("/proc/loadavg"));
    let (node, images) = (Disk::of(nodefs), imagefs.map(Disk::of).unwrap_or_default());
    Signals {
        memory_available,
        memory_total,
        nodefs_available: node.available,
        nodefs_total: node.total,
        inodes_free: node.inodes_free,
        inodes_total: node.inodes_total,
        imagefs_available: images.available,
        imagefs_total: images.total,
        pids_available,
        pids_total,
    }
}

/// A file system.
#[derive(Clone, Copy, Debug, Default)]
struct Disk {
    available: u64,
    total: u64,
    inodes_free: u64,
    inodes_total: u64,
}

impl Disk {
    fn of(path: &Path) -> Self {
        let Ok(found) = rustix::fs::statvfs(path) else { return Self::default() };
        let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
        // The part that anybody may fill, as `df` reckons its percentages: what a file system keeps for itself, or for root,
        // would else look used on an empty disk.
        let usable = found.f_blocks.saturating_sub(found.f_bfree).saturating_add(found.f_bavail);
        Self { available: bytes(found.f_bavail), total: bytes(usable), inodes_free: found.f_favail, inodes_total: found.f_files }
    }
}

fn memory(meminfo: &str) -> (u64, u64) {
    let bytes = |name: &str| {
        let rest = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        rest.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
    };
    match (bytes("MemAvailable:"), bytes("MemTotal:")) {
        (Some(available), Some(total)) => (available, total),
        _ => (0, 0),
    }
}

/// The smaller of the kernel's two bounds, and what of it is left.
fn pids(pid_max: &str, threads_max: &str, loadavg: &str) -> (u64, u64) {
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let used = loadavg.split_whitespace().nth(3).and_then(|counts| number(counts.split_once('/')?.1));
    let total = number(pid_max).into_iter().chain(number(threads_max)).min();
    match (used, total) {
        (Some(used), Some(total)) => (total.saturating_sub(used), total),
        _ => (0, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_processes_are_read_from_the_kernels_files() {
        assert_eq!(memory("MemTotal:  1000 kB\nMemFree: 1 kB\nMemAvailable:   400 kB\n"), (400 << 10, 1000 << 10));
        assert_eq!(memory("MemTotal:  1000 kB\n"), (0, 0), "a kernel that does not say it");
        assert_eq!(memory("MemTotal:  18446744073709551615 kB\nMemAvailable: x kB\n"), (0, 0));
        assert_eq!(pids("32768\n", "7000\n", "0.1 0.2 0.3 2/345 6789\n"), (6655, 7000));
        assert_eq!(pids("300\n", "7000\n", "0.1 0.2 0.3 2/345 6789\n"), (0, 300));
        for (pid_max, loadavg) in [("", ""), ("32768", "0.1 0.2 0.3 345 1"), ("32768", "0.1")] {
            assert_eq!(pids(pid_max, "", loadavg), (0, 0), "{loadavg}");
        }
    }

    #[test]
    fn this_machine_has_everything_and_a_directory_that_is_not_there_has_nothing() {
        let here = read(Path::new("/"), Some(Path::new("/no/such/directory")));
        assert!(here.memory_available > 0 && here.memory_available <= here.memory_total, "{here:?}");
        assert!(here.nodefs_available <= here.nodefs_total && here.nodefs_total > 0, "{here:?}");
        assert!(here.pids_available < here.pids_total, "{here:?}");
        assert_eq!((here.imagefs_available, here.imagefs_total), (0, 0));
    }
}
