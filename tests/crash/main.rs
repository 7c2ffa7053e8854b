//! Tests of the file system that forgets at a kill whatever was not synced: a kill is a power cut.
#![allow(clippy::unwrap_used, missing_docs)] // A failed step is the test's failure.

mod image;
mod vfs;
#[cfg(test)]
mod vfs_tests;
