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

impl Pass {
    /// Makes and starts it, and gives its id.
    ///
    /// An engine that may not raise the protection from the kernel's out-of-memory killer (it lacks `CAP_SYS_RESOURCE`, as in a
    /// container) fails each start that asks for it: then nothing on this machine is protected so, and the log says it once.
    pub(super) async fn make(&self, mut spec: ContainerSpec) -> Result<String, MakeError> {
        let unprotected = &self.shared.unprotected;
        if unprotected.load(Ordering::Relaxed) {
            spec.limits.oom_score_adj = spec.limits.oom_score_adj.max(0);
        }
        let first = self.make_once(&spec).await;
        if spec.limits.oom_score_adj >= 0 || !matches!(first, Err(MakeError::Start(_))) {
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
