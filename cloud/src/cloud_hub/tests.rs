#![allow(clippy::unwrap_used, reason = "a failed step ends the test")]

mod admission;
mod desk;
mod fixture;
mod frames;
mod golden;
mod liveness;
