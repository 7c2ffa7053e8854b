//! Kills the edge at random moments under load, and looks for what was lost, doubled or went back.
//!
//! The daemon is the real one, as the program `crash-edge`, with its database on a file system that forgets at the kill
//! whatever was not synced ([`vfs`]): a kill is a power cut. After each kill the twins on the disk must be those after some
//! number of first updates, not fewer than were acknowledged ([`ledger`]); the next daemon must answer the same; the cloud
//! must never have been told what the edge forgot, and never goes back.
//!
//! | environment | |
//! |---|---|
//! | `SKEP_CRASH_SECONDS` | how long; a few kills if not set |
//! | `SKEP_CRASH_SEED` | repeats the choices of a run, as far as threads and disks allow |
#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs)] // A failed step is the test's failure.

mod client;
mod image;
mod ledger;
mod load;
mod rig;
mod vfs;
#[cfg(test)]
mod vfs_tests;
mod witness;

use std::time::{Duration, Instant};

use ledger::Fault;
use rig::Rig;

/// Kills of a run that has no time set; it goes on until one has interrupted something, or too many have not.
const KILLS_MIN: u32 = 6;
const KILLS_MAX: u32 = 60;

/// Kills within which a loss must be found where nothing is synced.
const KILLS_UNTIL_A_LOSS: u32 = 20;

fn seed() -> u64 {
    let seed = std::env::var("SKEP_CRASH_SEED").map_or_else(|_| rand::random(), |seed| seed.parse().expect("SKEP_CRASH_SEED is a number"));
    eprintln!("crash: SEED={seed}");
    seed
}

#[test]
fn no_kill_loses_doubles_or_takes_back_what_was_acknowledged() {
    let time = std::env::var("SKEP_CRASH_SECONDS").map(|seconds| Duration::from_secs(seconds.parse().expect("SKEP_CRASH_SECONDS is a number")));
    let mut rig = Rig::start(seed());
    let began = Instant::now();
    let mut told = began;
    loop {
        rig.round().unwrap_or_else(|fault| panic!("after kill {}: {fault}", rig.sum.kills));
        let enough = match &time {
            Ok(time) => began.elapsed() >= *time,
            Err(_) => rig.sum.kills >= KILLS_MAX || rig.sum.kills >= KILLS_MIN && rig.proves_something(),
        };
        if enough {
            break;
        }
        if told.elapsed() > Duration::from_secs(30) {
            told = Instant::now();
            eprintln!("crash: {} kills in {} s", rig.sum.kills, began.elapsed().as_secs());
        }
    }
    assert!(rig.proves_something(), "kills that interrupt nothing prove nothing: {}", rig.sum);
    eprintln!("crash: {}", rig.finish());
}

#[test]
fn with_synchronous_off_the_same_kills_lose_what_was_acknowledged() {
    let mut rig = Rig::start(seed());
    rig.switch_synchronous_off();
    for _ in 0..KILLS_UNTIL_A_LOSS {
        match rig.round() {
            Ok(()) => {}
            Err(fault @ Fault::Lost { .. }) => return eprintln!("crash: with synchronous=OFF, after kill {}: {fault}", rig.sum.kills),
            Err(fault @ Fault::Impossible { .. }) => panic!("after kill {}: {fault}", rig.sum.kills),
        }
    }
    panic!("{KILLS_UNTIL_A_LOSS} kills with synchronous=OFF lost nothing that was acknowledged: this test does not see a loss; {}", rig.sum);
}
