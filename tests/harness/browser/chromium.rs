//! Chromium as a process: found, started, and ended with all of its children.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::protocol::Protocol;
use crate::wait::pause;

/// Names under which distributions and Google install it.
const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
/// It says its port within this time, on a machine that builds at the same time.
const START_WITHIN: Duration = Duration::from_secs(40);
/// It ends in order within this time, or is killed.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);
/// Its children notice within this time that they have no parent.
const END_WITHIN: Duration = Duration::from_secs(10);

/// The program of a Chromium that can be driven. Ubuntu's snap cannot: it does not see our temporary directories.
pub(super) fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let dirs: Vec<PathBuf> = std::env::split_paths(&path).collect();
    NAMES.iter().flat_map(|name| dirs.iter().map(move |dir| dir.join(name))).find(|program| program.is_file() && !is_snap(program))
}

/// A snap, or the script that stands for one.
fn is_snap(program: &Path) -> bool {
    let Ok(real) = program.canonicalize() else { return true };
    let script = fs::metadata(&real).is_ok_and(|file| file.len() < 64 * 1024);
    real.starts_with("/snap")
        || real.file_name().is_some_and(|name| name == "snap")
        || script && fs::read_to_string(&real).is_ok_and(|text| text.contains("/snap/"))
}

/// A running Chromium with a profile of its own. Ends with this value.
#[derive(Debug)]
pub(super) struct Chromium {
    child: Child,
    profile: TempDir,
}

impl Chromium {
    /// Starts it without a window. Returns it with the port and the path of its protocol.
    ///
    /// # Errors
    /// It is not there, ended, or did not say where it listens; with its own words.
    pub(super) fn start() -> Result<(Self, u16, String), String> {
        let program = find().ok_or("no Chromium is installed: run deploy/setup.sh --for test")?;
        let profile = TempDir::with_prefix("skep-browser-").map_err(|error| format!("no temporary directory: {error}"))?;
        let log = File::create(profile.path().join("log")).map_err(|error| format!("{}: {error}", profile.path().display()))?;
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL"])
            .arg(&program)
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .args([
                "--headless=new",
                "--remote-debugging-port=0",
                "--no-first-run",
                "--no-default-browser-check",
                "--no-proxy-server",
                // Nothing of its own leaves the machine either.
                "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--disable-extensions",
                "--disable-breakpad",
                "--disable-gpu",
                // A container has 64 MB there.
                "--disable-dev-shm-usage",
                "--force-color-profile=srgb",
                "--mute-audio",
                "--password-store=basic",
                "--lang=en",
                "about:blank",
            ])
            // What it writes outside its profile goes there too, and with it.
            .env("HOME", profile.path())
            .env("TMPDIR", profile.path())
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("XDG_CACHE_HOME")
            .env_remove("DBUS_SESSION_BUS_ADDRESS")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            // A group of its own, so that its children can be ended with it.
            .process_group(0);
        // Chromium refuses root with its sandbox; for anybody else the sandbox stays.
        if fs::metadata("/proc/self").is_ok_and(|this| this.uid() == 0) {
            command.arg("--no-sandbox");
        }
        let child = command.spawn().map_err(|error| format!("cannot start {} through setpriv: {error}", program.display()))?;
        let mut chromium = Self { child, profile };
        let (port, path) = chromium.listens()?;
        Ok((chromium, port, path))
    }

    /// Waits for `DevToolsActivePort`: a line with the port, a line with the path.
    fn listens(&mut self) -> Result<(u16, String), String> {
        let file = self.profile.path().join("DevToolsActivePort");
        let began = Instant::now();
        loop {
            let text = fs::read_to_string(&file).unwrap_or_default();
            if let Some((port, path)) = text.split_once('\n')
                && let (Ok(port), true) = (port.parse(), path.starts_with("/devtools/"))
            {
                return Ok((port, path.trim().to_owned()));
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!("Chromium ended with {status} and said:\n{}", self.words()));
            }
            if began.elapsed() > START_WITHIN {
                return Err(format!("Chromium did not say within {} s where it listens; it said:\n{}", START_WITHIN.as_secs(), self.words()));
            }
            pause();
        }
    }

    /// Asks it to end, so that it takes its children with it itself; what does not follow is killed when this value goes.
    pub(super) fn close(&mut self, protocol: &mut Protocol) {
        if protocol.close().is_ok() {
            let began = Instant::now();
            while matches!(self.child.try_wait(), Ok(None)) && began.elapsed() < CLOSE_WITHIN {
                pause();
            }
        }
    }

    /// Id of its process and of the group of all its processes.
    pub(super) fn group(&self) -> u32 {
        self.child.id()
    }

    /// Its profile, with everything that it writes.
    #[cfg(test)]
    pub(super) fn profile(&self) -> &Path {
        self.profile.path()
    }

    /// The end of what it wrote.
    pub(super) fn words(&self) -> String {
        let text = fs::read(self.profile.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&text[text.len().saturating_sub(2000)..]).into_owned()
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        let group = self.group();
        let _ = Command::new("kill").args(["-KILL", "--", &format!("-{group}")]).stderr(Stdio::null()).status();
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Its children are not ours to reap; until they are gone they may still write to the profile.
        let began = Instant::now();
        while !processes(group, self.profile.path()).is_empty() && began.elapsed() < END_WITHIN {
            pause();
        }
    }
}

/// Ids of the living processes of a group, and of those that left it but were told of the profile (the crash handler does so).
/// proc(5): the state is the third field of `stat`, the group the fifth.
pub(super) fn processes(group: u32, profile: &Path) -> Vec<u32> {
    let profile = profile.display().to_string();
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    all.filter_map(|entry| {
        let id = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        // The second field is the name in parentheses, and may have anything in it.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        let (state, of) = (fields.next()?, fields.nth(1)?);
        let told = || fs::read(entry.path().join("cmdline")).is_ok_and(|line| String::from_utf8_lossy(&line).contains(&profile));
        (state != "Z" && (of.parse() == Ok(group) || told())).then_some(id)
    })
    .collect()
}
