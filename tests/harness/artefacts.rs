//! What a test run leaves for people to look at.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::OnceLock;

/// Directory for screenshots and the like: `SKEP_ARTEFACTS`, or a fresh one below the system's temporary directory. Said once.
///
/// # Panics
/// When it cannot be made.
#[track_caller]
pub fn artefacts() -> PathBuf {
    try_artefacts().unwrap_or_else(|words| panic!("no directory for screenshots: {words}"))
}

pub(crate) fn try_artefacts() -> Result<PathBuf, String> {
    static DIR: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    DIR.get_or_init(|| {
        let dir = match std::env::var_os("SKEP_ARTEFACTS").filter(|dir| !dir.is_empty()) {
            Some(dir) => {
                // A relative one is meant as seen from the top, where the command was given; cargo starts tests elsewhere.
                let dir = crate::top().join(dir);
                std::fs::create_dir_all(&dir).map_err(|error| format!("SKEP_ARTEFACTS={}: {error}", dir.display()))?;
                dir
            }
            None => tempfile::Builder::new().prefix("skep-artefacts-").tempdir().map_err(|error| error.to_string())?.keep(),
        };
        // Not by a macro: the test runner hides what a test that passes prints by one.
        let _ = writeln!(std::io::stderr(), "screenshots are kept in {}", dir.display());
        Ok(dir)
    })
    .clone()
}
