//! How much of what one node says may be on its way through the controllers at a time.
//!
//! The controllers' mailboxes are for all nodes. A node that says more than they work off waits for itself: its session
//! reads on when something of it is settled, and what others say finds room and a short queue.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wire::hub::{Frame, Upstream};

/// What one session has, in [`cost`]: 4 MiB, or 128 small frames.
const BUDGET: usize = 4096;
/// The least that a frame costs.
const FRAME_COST: usize = 32;
/// What the status of one pod costs: at least one request to the API.
const POD_STATUS_COST: usize = 32;

/// What one session may have on its way. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Budget(Arc<Semaphore>);

/// A part of a session's budget, given back when the message that carries it is settled and dropped.
#[derive(Debug, Default)]
pub struct Credit {
    _permit: Option<OwnedSemaphorePermit>,
}

impl Default for Budget {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(BUDGET)))
    }
}

impl Budget {
    /// Credit for a frame, if there is enough.
    pub fn try_take(&self, frame: &Frame<Upstream>) -> Option<Credit> {
        self.0.clone().try_acquire_many_owned(cost(frame)).ok().map(Credit::from)
    }

    /// Credit for a frame, when there is enough.
    pub fn take(&self, frame: &Frame<Upstream>) -> impl Future<Output = Credit> + use<> {
        let permit = self.0.clone().acquire_many_owned(cost(frame));
        async move { Credit::from(permit.await.expect("the semaphore is never closed")) }
    }
}

impl From<OwnedSemaphorePermit> for Credit {
    fn from(permit: OwnedSemaphorePermit) -> Self {
        Self { _permit: Some(permit) }
    }
}

/// What a frame costs: one for each KiB, more for what makes work. No frame costs more than the whole budget.
fn cost(frame: &Frame<Upstream>) -> u32 {
    let work = match &frame.body {
        Upstream::PodStatus { reports, .. } => reports.len().saturating_mul(POD_STATUS_COST),
        _ => 0,
    };
    let cost = FRAME_COST.max(work).max(frame.bytes() / 1024).min(BUDGET);
    u32::try_from(cost).expect("the budget is small")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed step ends the test")]

    use model::Timestamp;
    use wire::hub::{MsgId, RawJson};

    use super::*;

    fn said(body: Upstream) -> Frame<Upstream> {
        Frame::new(MsgId::random(), Timestamp(1), body)
    }

    #[test]
    fn small_frames_are_counted_and_large_ones_weighed() {
        let budget = Budget::default();
        let small = said(Upstream::Keepalive);
        let mut held: Vec<Credit> = std::iter::from_fn(|| budget.try_take(&small)).collect();
        assert_eq!(held.len(), 128);
        held.pop();
        assert!(budget.try_take(&small).is_some());
        let large = said(Upstream::Upload { topic: String::new(), payload: "x".repeat(16 << 20) });
        assert!(budget.try_take(&large).is_none());
        held.clear();
        let all = budget.try_take(&large).unwrap();
        assert!(budget.try_take(&small).is_none());
        drop(all);
    }

    #[test]
    fn the_status_of_many_pods_costs_as_much_as_each_alone() {
        let report = wire::hub::PodStatusReport { uid: "u".into(), name: "p".parse().unwrap(), status: RawJson::null() };
        let frame = |count| said(Upstream::PodStatus { namespace: model::Namespace::default(), reports: vec![report.clone(); count] });
        assert_eq!((cost(&frame(1)), cost(&frame(100))), (32, 3200));
        assert_eq!(cost(&frame(512)), 4096);
    }
}
