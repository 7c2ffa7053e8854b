//! Probes and hooks: asking a container whether it is well, and doing what is to be done after its start and before its end.
//!
//! | file | duty |
//! |---|---|
//! | `machine` | when to ask, and what the answers mean (pure) |
//! | `ask` | one question: a program, a request, a connection; the kubelet's words for what went wrong |
//! | `http`, `grpc` | the two protocols, bounded |
//! | `hook` | the same means for hooks |
//! | `run` | the task beside the actor, one for each container that has probes |
//!
//! Invariant: a container's answer is read up to a limit and no further, and nothing waits longer than its probe says.

mod ask;
mod grpc;
mod hook;
mod http;
mod machine;
mod run;
#[cfg(test)]
mod tests;

pub use ask::{Outcome, TEXT_BYTES_MAX, Target, ask};
pub use hook::{HookError, run_hook};
pub use machine::{Change, Kind, ProbeState, Terms};
pub use run::{Job, ProbeResult, run};
