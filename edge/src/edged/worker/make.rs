//! Making and starting what a spec says: the part that sandboxes and containers have in common.

use std::sync::atomic::Ordering;

use super::super::runtime::{ContainerSpec, RuntimeError};
use super::{Pass, is_lost};

/// Where it went wrong.
pub(super) enum MakeError {
    /// The engine is not there.
    Lost(RuntimeError),
    /// It was not made.
    Create(RuntimeError),
    /// It was made, did not start, and was removed.
    Start(RuntimeError),
}

/// Whether a start may have failed because of the score that it asked for: runc names its file, or (1.1 and later, where the
/// child writes it before anybody listens) says only that the child went away without a word.
fn may_not_protect(words: &str) -> bool {
    ["oom_score_adj", "can't get final child's PID from pipe"].iter().any(|known| words.contains(known))
}

impl Pass {
    /// Makes and starts it, and gives its id.
    ///
    /// An engine that may not raise the protection from the kernel's out-of-memory killer (it lacks `CAP_SYS_RESOURCE`, as in a
    /// container) fails each start that asks for it: then nothing on this machine is protected so, and the log says it once.
    /// A start that failed for anything else is not tried here again.
    pub(super) async fn make(&self, mut spec: ContainerSpec) -> Result<String, MakeError> {
        let unprotected = &self.shared.unprotected;
        if unprotected.load(Ordering::Relaxed) {
            spec.limits.oom_score_adj = spec.limits.oom_score_adj.max(0);
        }
        let first = self.make_once(&spec).await;
        if spec.limits.oom_score_adj >= 0 || !matches!(&first, Err(MakeError::Start(error)) if may_not_protect(&error.to_string())) {
            return first;
        }
        spec.limits.oom_score_adj = 0;
        match self.make_once(&spec).await {
            Ok(id) => {
                if !unprotected.swap(true, Ordering::Relaxed) {
                    log::warn!(
                        "the container engine may not protect pods from the kernel's out-of-memory killer (it lacks CAP_SYS_RESOURCE): they run without"
                    );
                }
                Ok(id)
            }
            // It was something else.
            Err(_) => first,
        }
    }

    async fn make_once(&self, spec: &ContainerSpec) -> Result<String, MakeError> {
        let shared = &self.shared;
        let sort = |error: RuntimeError, other: fn(RuntimeError) -> MakeError| if is_lost(&error) { MakeError::Lost(error) } else { other(error) };
        let id = shared.call(shared.runtime.create(spec)).await.map_err(|error| sort(error, MakeError::Create))?;
        let Err(error) = shared.call(shared.runtime.start(&id)).await else { return Ok(id) };
        if !is_lost(&error) {
            // It never ran: the next try takes its name and number.
            shared.call(shared.runtime.remove(&id)).await.map_err(MakeError::Lost)?;
        }
        Err(sort(error, MakeError::Start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_failure_that_the_score_explains_takes_the_protection_away() {
        let runc = "failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: ";
        for (words, is_it) in [
            ("can't get final child's PID from pipe: EOF: unknown", true),
            ("error during container init: write /proc/self/oom_score_adj: permission denied: unknown", true),
            ("write /proc/self/oom_score_adj: invalid argument", true),
            ("exec: \"/nope\": stat /nope: no such file or directory: unknown", false),
            ("driver failed programming external connectivity: Bind for 0.0.0.0:8080 failed: port is already allocated", false),
            ("cannot join network of a non running container: 1234", false),
        ] {
            assert_eq!(may_not_protect(&format!("{runc}{words}")), is_it, "{words}");
        }
    }
}
