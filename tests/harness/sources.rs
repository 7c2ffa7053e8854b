//! The workspace's own sources, for the tests that keep the layers apart.

use std::path::{Path, PathBuf};

use crate::top;

/// One Rust file.
#[derive(Clone, Debug)]
pub struct Source {
    /// Path from the repository's top.
    pub path: PathBuf,
    /// Its text without line comments, so that a word in a comment is no use of it.
    pub code: String,
}

/// Every Rust file below `dir` (a path from the top).
///
/// # Panics
/// When a directory cannot be read: a test that reads nothing would pass.
pub fn rust_files(dir: &str) -> Vec<Source> {
    let mut files = Vec::new();
    collect(&top().join(dir), &mut files);
    assert!(!files.is_empty(), "no Rust file below {dir}");
    files
}

fn collect(dir: &Path, into: &mut Vec<Source>) {
    let entries = std::fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    for entry in entries.map(|entry| entry.expect("a directory entry")) {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let code = text.lines().map(|line| line.split_once("//").map_or(line, |(code, _)| code)).collect::<Vec<_>>().join("\n");
            into.push(Source { path: path.strip_prefix(top()).unwrap_or(&path).to_owned(), code });
        }
    }
}
