//! Open files: each connected node takes two descriptors (its socket, and the one by which CloudHub can close it).

use rustix::process::{Resource, getrlimit, setrlimit};

/// Descriptors for everything that is no node: ports, database, API connections, log.
const OTHERS: u64 = 512;

/// Raises this process's limit of open files as far as the system lets it, and says so if that is too little for
/// `nodes` connected nodes.
pub fn raise_open_files(nodes: usize) {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current < limit.maximum || limit.maximum.is_none() {
        limit.current = limit.maximum;
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            log::warn!(error = error.to_string().as_str(); "the limit of open files stays as it is");
        }
    }
    let allowed = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let needed = needed(nodes);
    if allowed < needed {
        log::warn!(allowed = allowed, needed = needed, node_limit = nodes; "too few open files for cloudhub.node-limit: raise LimitNOFILE or lower the limit");
    }
}

/// Descriptors that `nodes` connected nodes need, with everything else.
const fn needed(nodes: usize) -> u64 {
    2 * nodes as u64 + OTHERS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_is_raised_to_the_hard_one() {
        raise_open_files(1);
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
        assert_eq!(needed(1000), 2512);
    }
}
