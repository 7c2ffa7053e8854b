//! A program of ours as a process: its log, its end, its exit code.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::wait::pause;

/// Path of a built program or example of this workspace, in the profile that the tests were built with.
///
/// # Panics
/// When it was not built, with the command that does.
pub fn program(name: &str) -> PathBuf {
    let this = std::env::current_exe().expect("a process has a program");
    let profile = this.parent().and_then(Path::parent).expect("target/<profile>/deps/it-…");
    let found = [profile.join(name), profile.join("examples").join(name)].into_iter().find(|path| path.exists());
    found.unwrap_or_else(|| {
        panic!("{name} is not in {}: run `make test`, or `cargo build --workspace --all-targets` with the same profile first", profile.display())
    })
}

/// How a program ended that was expected to end.
#[derive(Debug)]
pub struct End {
    /// Exit code; `None` for a signal.
    pub code: Option<i32>,
    /// Everything it wrote.
    pub output: String,
}

impl End {
    /// The sentence for the operator: the text of the last ERROR line, without time and level.
    pub fn sentence(&self) -> String {
        let line = self.output.lines().rev().find(|line| line.contains("ERROR")).unwrap_or_default();
        line.split_once("] ").map_or(line, |(_, text)| text).to_owned()
    }
}

/// A running daemon. Ends with this value: SIGTERM, then SIGKILL.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Daemon {
    /// Starts `program` with `arguments`; what it writes is appended to `log`.
    ///
    /// The process also ends with the thread that starts it, so that a killed test run leaves nothing behind.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(program: &Path, arguments: &[String], environment: &[(String, String)], log: &Path) -> Self {
        let file = File::options().create(true).append(true).open(log).expect("the test's directory takes a log");
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "TERM"])
            .arg(program)
            .args(arguments)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a file can be shared"))
            .stderr(file)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {} through setpriv: {error}", program.display()));
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Self { child, name, log: log.to_owned() }
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything it has written.
    pub fn output(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// An error with the end of the log if the process has ended by itself.
    ///
    /// # Errors
    /// Its exit status and last words.
    pub fn must_run(&mut self) -> Result<(), String> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(format!("{} ended with {status}; its log ends:\n{}", self.name, self.tail())),
            Err(error) => Err(error.to_string()),
        }
    }

    /// The last lines of the log.
    pub fn tail(&self) -> String {
        let output = self.output();
        let lines: Vec<&str> = output.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    /// Sends a signal (`TERM`, `KILL`, `STOP`, `CONT`).
    ///
    /// # Panics
    /// When there is no `kill` program.
    pub fn signal(&self, signal: &str) {
        let status = Command::new("kill").arg(format!("-{signal}")).arg(self.pid().to_string()).stderr(Stdio::null()).status();
        status.expect("every system has kill");
    }

    /// Waits for its end.
    pub fn wait(&mut self, within: Duration) -> Option<ExitStatus> {
        let began = Instant::now();
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status);
            }
            if began.elapsed() > within {
                return None;
            }
            pause();
        }
    }

    /// Waits until it ends by itself, and says how.
    ///
    /// # Panics
    /// When it is still running after `within`.
    #[track_caller]
    pub fn ends(mut self, within: Duration) -> End {
        let Some(status) = self.wait(within) else {
            panic!("{} still runs after {} s; its log ends:\n{}", self.name, within.as_secs(), self.tail());
        };
        End { code: status.code(), output: self.output() }
    }

    /// Stops it in order.
    ///
    /// # Panics
    /// When it does not end within 20 s, or with another code than 0.
    #[track_caller]
    pub fn stop(mut self) {
        self.signal("TERM");
        let status = self.wait(Duration::from_secs(20));
        let status = status.unwrap_or_else(|| panic!("{} did not stop on SIGTERM; its log ends:\n{}", self.name, self.tail()));
        assert_eq!(status.code(), Some(0), "{} stopped with {status}; its log ends:\n{}", self.name, self.tail());
    }

    /// Kills it: a power cut, as far as the process can tell.
    pub fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.child.try_wait().ok().flatten().is_none() {
            self.signal("TERM");
            if self.wait(Duration::from_secs(10)).is_none() {
                let _ = self.child.kill();
                let _ = self.child.wait();
            }
        }
        if std::thread::panicking() {
            eprint_log(&self.name, &self.tail());
        }
    }
}

#[allow(clippy::print_stderr)] // the test runner shows it beside the failure
fn eprint_log(name: &str, tail: &str) {
    eprintln!("--- {name}, end of its log ---\n{tail}");
}

/// Runs a program to its end.
///
/// # Panics
/// When it cannot be started or runs longer than `within`.
#[track_caller]
pub fn run(program: &Path, arguments: &[String], environment: &[(String, String)], dir: &Path, within: Duration) -> End {
    let log = dir.join(crate::names::unique("run"));
    Daemon::start(program, arguments, environment, &log).ends(within)
}
