//! Open files: a node takes one here and two in the cloud, which inherits the limit.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Descriptors of the cloud for everything that is no node: its connections to its own API take two each, and nodes whose
/// handshake is broken off in a storm hold theirs for a while.
const OTHERS: u64 = 2048;

/// Raises the limit of open files as far as the system lets this process, for `nodes` nodes, and says how many of them it
/// is enough for.
pub fn raise_open_files(nodes: usize) -> usize {
    let needed = 2 * nodes as u64 + OTHERS;
    let mut limit = getrlimit(Resource::Nofile);
    let enough = |limit: Option<u64>| limit.is_none_or(|limit| limit >= needed);
    if !enough(limit.maximum) {
        // Only root may, and not everywhere.
        let mut higher = limit;
        (higher.current, higher.maximum) = (Some(needed), Some(needed));
        let _ = setrlimit(Resource::Nofile, higher);
        limit = getrlimit(Resource::Nofile);
    }
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
    let allowed = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(allowed.saturating_sub(OTHERS) / 2).unwrap_or(usize::MAX).min(nodes)
}
