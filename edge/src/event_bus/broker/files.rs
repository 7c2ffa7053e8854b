//! Files that are read again when they have changed: certificates, the users' passwords.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use log::{error, info};

use crate::config::Invalid;

/// No such file is longer, bytes.
pub const FILE_BYTES_MAX: u64 = 1 << 20;

/// What is wrong with a file, or with several that belong together.
#[derive(Debug, thiserror::Error)]
#[error("`{path}` cannot be used: {what}")]
pub struct Problem {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub what: String,
}

impl Problem {
    /// The same as a configuration error.
    pub fn of(self, key: &'static str, advice: &str) -> Invalid {
        Invalid { key, value: format!("`{}`", self.path.display()), advice: format!("{}; {advice}", self.what) }
    }
}

/// What tells two states of a file apart.
type Stamp = Vec<Option<(SystemTime, u64)>>;
type Parse<T> = Box<dyn Fn(&[Vec<u8>]) -> Result<T, String> + Send + Sync>;

/// What was made of some files, made anew when one of them has changed. Files that cannot be used any more change
/// nothing: the log says so once, and what was read last stays.
pub struct Watched<T> {
    paths: Vec<PathBuf>,
    parse: Parse<T>,
    state: Mutex<(Stamp, Arc<T>)>,
}

impl<T> Watched<T> {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// What cannot be read or used.
    pub fn read(paths: Vec<PathBuf>, parse: impl Fn(&[Vec<u8>]) -> Result<T, String> + Send + Sync + 'static) -> Result<Self, Problem> {
        let stamp = stamp(&paths);
        let made = make(&paths, &parse)?;
        Ok(Self { paths, parse: Box::new(parse), state: Mutex::new((stamp, Arc::new(made))) })
    }

    /// What is in the files now.
    pub fn current(&self) -> Arc<T> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = stamp(&self.paths);
        if now != state.0 {
            state.0 = now;
            match make(&self.paths, &*self.parse) {
                Ok(made) => {
                    info!(path:% = self.paths[0].display(); "a changed file of the embedded MQTT broker is in use");
                    state.1 = Arc::new(made);
                }
                Err(problem) => error!(problem:% = problem; "a changed file of the embedded MQTT broker is not used; the state before is"),
            }
        }
        state.1.clone()
    }
}

fn make<T>(paths: &[PathBuf], parse: impl Fn(&[Vec<u8>]) -> Result<T, String>) -> Result<T, Problem> {
    let contents = paths.iter().map(|path| read(path)).collect::<Result<Vec<_>, _>>()?;
    parse(&contents).map_err(|what| Problem { path: paths[0].clone(), what })
}

fn stamp(paths: &[PathBuf]) -> Stamp {
    let of = |path: &PathBuf| path.metadata().ok().and_then(|meta| Some((meta.modified().ok()?, meta.len())));
    paths.iter().map(of).collect()
}

fn read(path: &Path) -> Result<Vec<u8>, Problem> {
    let problem = |what: String| Problem { path: path.to_owned(), what };
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => problem("it is missing".into()),
        _ => problem(format!("it cannot be read ({error}): check its owner and permissions")),
    };
    let mut bytes = Vec::new();
    let length = File::open(path).map_err(failed)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if length as u64 > FILE_BYTES_MAX {
        return Err(problem(format!("it is longer than {FILE_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}
