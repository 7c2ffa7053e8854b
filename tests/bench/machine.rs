//! What the machine says about itself and about this process.

use std::process::Command;

use rustix::time::{ClockId, clock_gettime};

/// Processors, memory, kernel and the load before the run: what one must know to compare figures.
pub fn description() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let (cpu, memory) = (read("/proc/cpuinfo"), read("/proc/meminfo"));
    let model = field(&cpu, "model name").unwrap_or("unknown processor");
    let gib = field(&memory, "MemTotal").and_then(kib).map_or(0.0, |kib| kib / 1024.0 / 1024.0);
    let count = std::thread::available_parallelism().map_or(0, usize::from);
    let load = read("/proc/loadavg");
    let load = load.split(' ').next().unwrap_or("?");
    format!("{count} x {model}, {gib:.1} GiB, Linux {}, load {load}", read("/proc/sys/kernel/osrelease").trim())
}

/// The commit of the working directory, with `-changed` when files differ from it.
pub fn commit() -> String {
    let git = |args: &[&str]| {
        let output = Command::new("git").current_dir(harness::top()).args(args).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else {
        return "unknown".to_owned();
    };
    match git(&["status", "--porcelain", "--untracked-files=no"]) {
        Some(changes) if changes.is_empty() => commit,
        Some(_) | None => format!("{commit}-changed"),
    }
}

/// Processor time of this process so far, all threads, in ns.
#[allow(clippy::cast_precision_loss, reason = "exact up to 104 days")]
pub fn cpu_ns() -> f64 {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    spent.tv_sec as f64 * 1e9 + spent.tv_nsec as f64
}

/// Processor time of another process so far, all threads, in µs. It is counted in steps of 10 ms.
///
/// # Errors
/// There is no such process.
pub fn cpu_us_of(pid: u32) -> Result<f64, String> {
    // Linux tells every program hundredths of a second (`USER_HZ`), whatever its kernel counts in.
    const TICK_US: f64 = 10_000.0;
    let path = format!("/proc/{pid}/stat");
    let text = std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    // proc(5): fields 14 and 15, utime and stime; the name in field 2 may hold blanks and ends with the last `)`.
    let fields = text.rsplit_once(')').map(|(_, rest)| rest.split_ascii_whitespace().skip(11).take(2));
    let ticks: Option<Vec<f64>> = fields.and_then(|fields| fields.map(|field| field.parse().ok()).collect());
    ticks.map(|ticks| ticks.iter().sum::<f64>() * TICK_US).ok_or_else(|| format!("{path} has another form"))
}

/// Memory of a process, in KiB.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Proportional set size.
    pub pss: f64,
    /// The part of it that is backed by no file.
    pub anonymous: f64,
}

/// Reads `/proc/self/smaps_rollup`.
///
/// # Errors
/// It cannot be read, or has another form (a kernel before 4.14).
pub fn memory() -> Result<Memory, String> {
    rollup("/proc/self/smaps_rollup")
}

/// Reads `/proc/<pid>/smaps_rollup`.
///
/// # Errors
/// There is no such process, or it is another user's.
pub fn memory_of(pid: u32) -> Result<Memory, String> {
    rollup(&format!("/proc/{pid}/smaps_rollup"))
}

fn rollup(path: &str) -> Result<Memory, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
    let value = |name| field(&text, name).and_then(kib).ok_or_else(|| format!("{path} has no `{name}`"));
    Ok(Memory { pss: value("Pss")?, anonymous: value("Anonymous")? })
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().filter_map(|line| line.split_once(':')).find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim())
}

fn kib(value: &str) -> Option<f64> {
    value.strip_suffix(" kB")?.trim().parse().ok()
}
