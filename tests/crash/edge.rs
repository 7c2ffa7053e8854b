//! `crash-edge`: `skep-edge run --config FILE`, whole and unchanged, with its database on the file system of [`vfs`].
//!
//! | environment | |
//! |---|---|
//! | `SKEP_CRASH_TEAR=SEED` | unsynced bytes reach the disk in part and out of order |
//! | `SKEP_CRASH_SYNCHRONOUS=OFF` | the daemon's `PRAGMA synchronous` is overruled |

mod image;
mod vfs;

use std::process::ExitCode;

fn main() -> ExitCode {
    vfs::register(&vfs::Options::of_environment());
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["run", "--config", file] => skep_edge::daemon::run(Some(file.into()), None),
        _ => panic!("crash-edge run --config FILE, not {arguments:?}"),
    }
}
