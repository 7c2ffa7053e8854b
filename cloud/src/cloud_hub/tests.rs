#![allow(clippy::unwrap_used, reason = "a failed step ends the test")]

mod admission;
mod desk;
mod digest;
mod fixture;
mod frames;
mod golden;
mod hostile;
mod liveness;
