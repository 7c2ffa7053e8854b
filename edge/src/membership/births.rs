//! Since when each device is there.
//!
//! A message for a device is for the creation of it that was there when the message arrived. Waiting for Membership is not
//! enough for that: while the message waits its turn, Membership may go further than the message asked for, remove the
//! device and bind another one of the same name. So each binding notes the place of its message in Membership's mailbox,
//! and a message that carries an earlier ticket is one for a device that is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use actor::Ticket;

use crate::store::device::Incarnation;

/// The devices that were bound since the start of the process. One that was there before has no entry: no message of this
/// process is older. Made once, shared by Membership, Twin and Device.
#[derive(Clone, Debug, Default)]
pub struct Births(Arc<Mutex<BTreeMap<Incarnation, Ticket>>>);

impl Births {
    /// Notes which message binds a device. To be called before the commit, so that who sees the row sees this, too; an
    /// entry whose transaction failed is written over, because its number is drawn again.
    pub(super) fn note(&self, incarnation: Incarnation, place: Ticket) {
        self.lock().insert(incarnation, place);
    }

    /// Whether a message with this ticket arrived before that creation of its device was there.
    pub(crate) fn is_earlier(&self, after: Ticket, incarnation: Incarnation) -> bool {
        self.lock().get(&incarnation).is_some_and(|born| after < *born)
    }

    /// How many are remembered.
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    /// Forgets the devices that are gone: those up to `newest`, the last number that was drawn, without a row.
    pub(super) fn forget_gone(&self, newest: Incarnation, present: &BTreeSet<Incarnation>) {
        self.lock().retain(|incarnation, _| *incarnation > newest || present.contains(incarnation));
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Incarnation, Ticket>> {
        // Nothing under this lock can panic half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
