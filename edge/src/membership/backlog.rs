//! Order between Membership and the modules that work on its devices.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use actor::{Handle, Meta, MsgId, Observable};

use super::MembershipMessage;

/// How long a message for an unknown device waits for Membership at most.
pub const HOLD_MAX: Duration = Duration::from_secs(5);

/// Tells Twin and Device whether an unknown device may still be on its way.
///
/// The cloud binds a device and sends its twin in two messages, which go to two mailboxes. So a
/// message for a device that is not there waits while Membership has anything to do. Removal needs
/// no such care: what comes after it finds no device.
pub struct Backlog {
    membership: Arc<dyn Observable>,
    waiting: Option<(MsgId, Instant)>,
}

impl Backlog {
    /// Looks at that mailbox.
    pub fn of(membership: &Handle<MembershipMessage>) -> Self {
        Self { membership: membership.observe(), waiting: None }
    }

    /// Whether a message for an unknown device has to wait. Ask inside a write transaction, so
    /// that what Membership has finished is visible.
    pub fn holds(&mut self, message: &Meta) -> bool {
        let view = self.membership.view();
        if view.depth == 0 && view.in_hand.is_none() {
            self.waiting = None;
            return false;
        }
        let since = match self.waiting {
            Some((id, since)) if id == message.id => since,
            _ => Instant::now(),
        };
        self.waiting = Some((message.id, since));
        since.elapsed() < HOLD_MAX
    }

    /// The time until the next look; for `Lease::postpone_from`.
    pub fn pause() -> impl Future<Output = ()> + 'static {
        tokio::time::sleep(Duration::from_millis(2))
    }
}
