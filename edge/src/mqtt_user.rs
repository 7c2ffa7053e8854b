//! `skep-edge mqtt-user`: the users of the embedded broker (`mqtt.internal-users-file`).
//!
//! One line a user, `NAME:HASH`, the hash Argon2id in the form of the PHC string. The running daemon reads a changed file
//! by itself.

use std::fs::{self, File};
use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::{Args, Subcommand};
use mqtt5::broker::PasswordAuthProvider;

use crate::event_bus::{FILE_BYTES_MAX, PASSWORD_BYTES_MAX, check_name};

/// `skep-edge mqtt-user …`
#[derive(Debug, Args)]
pub struct MqttUserArgs {
    #[command(subcommand)]
    action: Action,
    /// The users' file; that of the configuration if none is named.
    #[arg(long, value_name = "FILE", global = true)]
    file: Option<PathBuf>,
    /// Configuration file that names it; /etc/skep/edge.yaml when it exists.
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Add a user, or give one a new password. The password is read from standard input.
    Add {
        /// Its name.
        name: String,
    },
    /// Remove a user.
    Remove {
        /// Its name.
        name: String,
    },
    /// Print the users' names.
    List,
}

/// Why the file was not changed.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// Neither an argument nor the configuration says where.
    #[error("no users' file: name one with --file, or set `mqtt.internal-users-file`")]
    NoFile,
    /// A name that a line cannot hold.
    #[error("`{name}` is no user's name: {reason}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// Nothing, too much, or two different ones.
    #[error("no password was set: {0}")]
    Password(&'static str),
    /// There is no such user.
    #[error("there is no user `{0}` in the file")]
    Unknown(String),
    /// The operating system refused.
    #[error("cannot {action} `{path}`")]
    File {
        /// `read` or `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

impl MqttUserArgs {
    /// Whether the file is named here, so that no configuration is needed.
    pub fn names_file(&self) -> bool {
        self.file.is_some()
    }

    /// Does it; `configured` is the file that the configuration names. Returns what to print.
    ///
    /// # Errors
    /// See [`UserError`]; the file is then as it was.
    pub fn run(self, configured: Option<PathBuf>) -> Result<String, UserError> {
        let path = self.file.or(configured).filter(|path| !path.as_os_str().is_empty()).ok_or(UserError::NoFile)?;
        let text = match read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(source) => return Err(UserError::File { action: "read", path, source }),
        };
        match self.action {
            Action::Add { name } => {
                check_name(&name).map_err(|reason| UserError::Name { name: name.clone(), reason })?;
                let password = ask(&name)?;
                let hash = PasswordAuthProvider::hash_password(&password).map_err(|_| UserError::Password("the hash could not be computed"))?;
                let kept = without(&text, &name).unwrap_or(text);
                write(&path, &format!("{kept}{name}:{hash}\n"))?;
                Ok(format!("{name} may use the embedded broker with this password ({})\n", path.display()))
            }
            Action::Remove { name } => {
                let kept = without(&text, &name).ok_or_else(|| UserError::Unknown(name.clone()))?;
                write(&path, &kept)?;
                Ok(format!("{name} is removed from {}; a connection that stands is not ended\n", path.display()))
            }
            Action::List => Ok(text
                .lines()
                .filter(|line| !line.starts_with('#'))
                .filter_map(|line| line.split_once(':'))
                .map(|(name, _)| format!("{name}\n"))
                .collect()),
        }
    }
}

/// The file, as large as the daemon takes it.
fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("it is longer than {FILE_BYTES_MAX} bytes: is this the users' file?")));
    }
    Ok(text)
}

/// The other lines; `None` if the user has none.
fn without(text: &str, name: &str) -> Option<String> {
    let of = |line: &&str| line.split_once(':').is_some_and(|(user, _)| user == name);
    let found = text.lines().any(|line| of(&line));
    found.then(|| text.lines().filter(|line| !of(line)).map(|line| format!("{line}\n")).collect())
}

#[allow(clippy::print_stderr, reason = "a question to whoever sits there")]
fn ask(name: &str) -> Result<String, UserError> {
    let terminal = io::stdin().is_terminal();
    let line = |question: &str| {
        if terminal {
            eprint!("{question}");
        }
        let mut line = String::new();
        let read = io::stdin().lock().read_line(&mut line).map_err(|_| UserError::Password("standard input is not text"))?;
        if terminal {
            eprintln!();
        }
        if read == 0 { Err(UserError::Password("standard input ended")) } else { Ok(line.trim_end_matches(['\r', '\n']).to_owned()) }
    };
    let _quiet = terminal.then(Quiet::begin);
    let password = line(&format!("password of {name}: "))?;
    if password.is_empty() || password.len() > PASSWORD_BYTES_MAX {
        return Err(UserError::Password("write 1 to 256 bytes"));
    }
    if terminal && line("again: ")? != password {
        return Err(UserError::Password("the two are not the same"));
    }
    Ok(password)
}

/// A terminal that does not show what is typed, until this is dropped.
struct Quiet;

impl Quiet {
    fn begin() -> Self {
        let _ = Command::new("stty").arg("-echo").status();
        Self
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        let _ = Command::new("stty").arg("echo").status();
    }
}

/// All or nothing: the daemon may read at any moment. A new file is for its owner alone; an old one keeps its mode.
fn write(path: &Path, text: &str) -> Result<(), UserError> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let written = (|| {
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(text.as_bytes())?;
        if let Ok(old) = fs::metadata(path) {
            file.set_permissions(old.permissions())?;
            std::os::unix::fs::chown(&beside, Some(std::os::unix::fs::MetadataExt::uid(&old)), Some(std::os::unix::fs::MetadataExt::gid(&old)))?;
        }
        file.sync_all()?;
        fs::rename(&beside, path)
    })();
    written.map_err(|source| UserError::File { action: "write", path: path.to_owned(), source })
}
