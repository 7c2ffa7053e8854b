//! One pod's work with the engine.

use super::observed::{Observed, Troubles};

/// What a worker saw and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// The pod.
    pub uid: String,
    /// What is there.
    pub seen: Observed,
    /// What went wrong.
    pub troubles: Troubles,
    /// Whether the worker has ended.
    pub is_last: bool,
}
