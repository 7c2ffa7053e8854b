//! What one peer must still be told: keyed, windowed, acknowledged, resent.
//!
//! A pure machine: no clock, socket or randomness inside. The owner pushes frames, asks for the next one to send, tells
//! what was acknowledged or refused, and lets time pass with [`Outbox::tick`]. `now` is any millisecond count that
//! never goes back.
//!
//! Rules
//! - One key holds the newest frame only; what it replaces was never sent, or is on its way.
//! - Of one key at most one frame is on its way. A newer one waits for its answer, or for the moment when the older
//!   would have been sent again, and goes out in its place. So an older frame never follows a newer one.
//! - A deletion is not replaced by an update of the same key: the update waits until the deletion is answered. A
//!   deletion replaces everything that waits, deletions too: at the peer it removes whatever the key holds.
//! - Nothing vanishes before it is answered, not even an insert followed by its delete: the peer may know the object
//!   from an earlier session.
//! - A refused frame is parked: its key stays silent until something new is pushed for it.
//! - A key waits for the answers of those that it [rests on](Key::rests_on): what is wanted of a device does not come before
//!   the device, where it would be refused.
//! - After [`Outbox::reset`] (a new connection) all that was on its way is unsent again, in the old order.

use std::collections::{BTreeMap, HashMap, VecDeque};

use model::{DeviceId, ResourceKey};

use super::downstream::{Downstream, ObjectOperation};
use super::envelope::MsgId;
use super::frame::Frame;

/// First wait for an answer, in milliseconds; doubles with each resend (KubeEdge: 5 s).
pub const RESEND_MS_FIRST: u64 = 5_000;
/// Longest wait for an answer, in milliseconds.
pub const RESEND_MS_MAX: u64 = 60_000;

/// What coalesces in an outbox of the cloud.
///
/// Devices have a key each, so that the binding of one does not replace the binding of another; a push for a device
/// must carry all its wanted properties.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum OutboxKey {
    /// An object.
    Object(ResourceKey),
    /// The full list of devices.
    MembershipDetail,
    /// One device came or went.
    Membership(DeviceId),
    /// Wanted properties of one device.
    Twin(DeviceId),
    /// Attributes of one device.
    Attributes(DeviceId),
}

/// What coalesces.
pub trait Key: Ord + Clone {
    /// Keys of which nothing may be unanswered when something under this one goes out.
    fn rests_on(&self) -> [Option<Self>; 2];
}

impl Key for OutboxKey {
    fn rests_on(&self) -> [Option<Self>; 2] {
        match self {
            Self::Twin(device) | Self::Attributes(device) => [Some(Self::Membership(device.clone())), Some(Self::MembershipDetail)],
            Self::Object(_) | Self::MembershipDetail | Self::Membership(_) => [None, None],
        }
    }
}

/// What an outbox can hold.
pub trait Outgoing {
    /// Identity, by which it is answered.
    fn id(&self) -> &MsgId;
    /// What it weighs in memory, in bytes, about.
    fn bytes(&self) -> usize;
    /// Does it delete what its key names?
    fn is_delete(&self) -> bool;
}

impl Outgoing for Frame<Downstream> {
    fn id(&self) -> &MsgId {
        &self.id
    }

    fn bytes(&self) -> usize {
        // Objects share their text between the outboxes of many nodes; it is counted in each all the same, so that
        // the limit holds for the worst case.
        256 + match &self.body {
            Downstream::Object { object, .. } => object.len(),
            Downstream::QueryAnswer { result: Ok(object), .. } => object.len(),
            Downstream::MembershipDetail(detail) => 512 * detail.devices.len(),
            Downstream::MembershipUpdate(update) => 512 * (update.added.len() + update.removed.len()),
            Downstream::TwinSync { update, .. } => 256 * update.change.properties.len(),
            Downstream::Attributes { update, .. } => 128 * update.attributes.len(),
            Downstream::Publish { payload, .. } => payload.len(),
            Downstream::QueryAnswer { result: Err(text), .. } => text.len(),
            Downstream::Refusal { reason, .. } => reason.len(),
            Downstream::Subscribe { .. } | Downstream::Unsubscribe { .. } | Downstream::HeldGet | Downstream::Confirm { .. } => 0,
        }
    }

    fn is_delete(&self) -> bool {
        matches!(self.body, Downstream::Object { operation: ObjectOperation::Delete, .. })
    }
}

/// Limits of one outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most frames on their way at once.
    pub window: usize,
    /// Most bytes of them, by [`Outgoing::bytes`]; one frame alone may have more.
    pub window_bytes: usize,
    /// Most keys.
    pub keys_max: usize,
    /// Most bytes of frames, by [`Outgoing::bytes`].
    pub bytes_max: usize,
}

impl Default for Limits {
    /// 256 or 4 MiB on their way, 4096 keys, 64 MiB. So a thousand small objects take four round trips.
    fn default() -> Self {
        Self { window: 256, window_bytes: 4 << 20, keys_max: 4096, bytes_max: 64 << 20 }
    }
}

/// What happened since the outbox was made. Only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames pushed, without those that found it full.
    pub pushed: u64,
    /// Frames replaced by newer ones before they were answered.
    pub coalesced: u64,
    /// Frames handed out for the first time.
    pub sent: u64,
    /// Frames handed out again.
    pub resent: u64,
    /// Frames acknowledged.
    pub acknowledged: u64,
    /// Frames refused by the peer.
    pub refused: u64,
    /// Pushes that found it full.
    pub full: u64,
}

/// The outbox is full; the frame comes back. The owner counts the peer as out of step and starts it anew from the
/// source when there is room.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the outbox of the peer is full")]
pub struct Full<F>(pub F);

/// See the module's documentation.
#[derive(Debug)]
pub struct Outbox<K, F> {
    limits: Limits,
    slots: BTreeMap<K, Slot<F>>,
    /// Keys with something to send, in order; a key stands here once.
    ready: VecDeque<K>,
    /// Frames on their way.
    flying: HashMap<MsgId, K>,
    flying_bytes: usize,
    /// Of those on their way, the ones that are to be sent again.
    overdue: usize,
    bytes: usize,
    counters: Counters,
    sequence: u64,
}

#[derive(Debug)]
struct Slot<F> {
    flight: Option<Flight<F>>,
    /// At most two: a deletion, and what comes after it.
    waiting: VecDeque<F>,
    /// Why the last frame was refused, while nothing newer is there.
    parked: Option<String>,
    /// Is the key in `ready`?
    queued: bool,
}

#[derive(Debug)]
struct Flight<F> {
    frame: F,
    /// Order of the first sending, for `reset`.
    order: u64,
    due: u64,
    wait: u64,
    /// Its time is up: it is to be sent again.
    overdue: bool,
}

impl<F> Default for Slot<F> {
    fn default() -> Self {
        Self { flight: None, waiting: VecDeque::new(), parked: None, queued: false }
    }
}

impl<F: Outgoing> Slot<F> {
    fn bytes(&self) -> usize {
        self.waiting.iter().chain(self.flight.as_ref().map(|flight| &flight.frame)).map(F::bytes).sum()
    }

    fn is_ready(&self) -> bool {
        match &self.flight {
            Some(flight) => flight.overdue,
            None => !self.waiting.is_empty(),
        }
    }
}

/// Puts `frame` behind what waits and drops what it makes pointless. Returns how many it dropped.
fn coalesce<F: Outgoing>(waiting: &mut VecDeque<F>, frame: F) -> u64 {
    let before = waiting.len();
    if frame.is_delete() {
        waiting.clear();
    } else {
        waiting.truncate(usize::from(waiting.front().is_some_and(F::is_delete)));
    }
    let dropped = before - waiting.len();
    waiting.push_back(frame);
    dropped as u64
}

impl<K: Key, F: Outgoing> Outbox<K, F> {
    /// An empty one. It takes no heap until something is pushed.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            slots: BTreeMap::new(),
            ready: VecDeque::new(),
            flying: HashMap::new(),
            flying_bytes: 0,
            overdue: 0,
            bytes: 0,
            counters: Counters::default(),
            sequence: 0,
        }
    }

    /// Takes a frame that the peer must be told; it replaces what waits under the same key.
    ///
    /// # Errors
    /// [`Full`] above a limit; then nothing changed. A deletion, and a frame that makes its key lighter, is always
    /// taken for a key that is known.
    pub fn push(&mut self, key: K, frame: F) -> Result<(), Full<F>> {
        let known = self.slots.get(&key);
        let freed = known.map_or(0, |slot| slot.waiting.iter().map(F::bytes).sum::<usize>());
        let grows = frame.bytes() > freed && !(known.is_some() && frame.is_delete());
        let too_many = known.is_none() && self.slots.len() >= self.limits.keys_max;
        if too_many || (grows && self.bytes - freed + frame.bytes() > self.limits.bytes_max) {
            self.counters.full += 1;
            return Err(Full(frame));
        }
        let slot = self.slots.entry(key.clone()).or_default();
        self.bytes -= slot.bytes();
        slot.parked = None;
        self.counters.coalesced += coalesce(&mut slot.waiting, frame);
        self.counters.pushed += 1;
        self.bytes += slot.bytes();
        self.enqueue(&key);
        Ok(())
    }

    /// The next frame to send, if one is ready and the window has room. It counts as sent at `now`.
    pub fn next(&mut self, now: u64) -> Option<&F> {
        // Frames that are sent again are in the window already; the others wait for room.
        let room = self.flying.len() < self.limits.window && self.flying_bytes < self.limits.window_bytes;
        if !room && self.overdue == 0 {
            return None;
        }
        let may_go = |key: &K| (room || self.slots.get(key).is_some_and(|slot| slot.flight.is_some())) && !self.must_wait(key);
        let position = self.ready.iter().position(may_go)?;
        let key = self.ready.remove(position)?;
        let slot = self.slots.get_mut(&key)?;
        slot.queued = false;
        if let Some(flight) = &mut slot.flight {
            self.counters.resent += 1;
            self.overdue -= usize::from(flight.overdue);
            flight.overdue = false;
            flight.wait = (flight.wait * 2).min(RESEND_MS_MAX);
            flight.due = now.saturating_add(flight.wait);
        } else {
            let frame = slot.waiting.pop_front()?;
            self.counters.sent += 1;
            self.sequence += 1;
            self.flying.insert(frame.id().clone(), key.clone());
            self.flying_bytes += frame.bytes();
            let due = now.saturating_add(RESEND_MS_FIRST);
            slot.flight = Some(Flight { frame, order: self.sequence, due, wait: RESEND_MS_FIRST, overdue: false });
        }
        slot.flight.as_ref().map(|flight| &flight.frame)
    }

    /// The peer has stored the frame `parent`. Returns its key; `None` for a frame that is not on its way (answered
    /// twice, or replaced).
    pub fn acknowledged(&mut self, parent: &MsgId) -> Option<K> {
        let key = self.land(parent)?;
        self.counters.acknowledged += 1;
        self.settle(&key);
        Some(key)
    }

    /// The peer refuses the frame `parent`. Its key is silent until something new is pushed for it.
    pub fn refused(&mut self, parent: &MsgId, reason: &str) -> Option<K> {
        let key = self.land(parent)?;
        self.counters.refused += 1;
        if let Some(slot) = self.slots.get_mut(&key)
            && slot.waiting.is_empty()
        {
            slot.parked = Some(reason.chars().take(256).collect());
        }
        self.settle(&key);
        Some(key)
    }

    /// Lets time pass: frames without an answer for 5 s, then 10, 20, 40 and 60 s become ready again, or what waits
    /// behind them does. Returns how many.
    pub fn tick(&mut self, now: u64) -> usize {
        let mut late: Vec<(u64, MsgId, K)> = Vec::new();
        for (id, key) in &self.flying {
            if let Some(flight) = self.slots.get(key).and_then(|slot| slot.flight.as_ref())
                && !flight.overdue
                && flight.due <= now
            {
                late.push((flight.order, id.clone(), key.clone()));
            }
        }
        late.sort();
        let count = late.len();
        for (_, id, key) in late {
            let Some(slot) = self.slots.get_mut(&key) else {
                continue;
            };
            let Some(flight) = &mut slot.flight else {
                continue;
            };
            // A newer frame goes out in its place; a deletion has to be answered first.
            let superseded = slot.waiting.front().is_some_and(F::is_delete) || (!slot.waiting.is_empty() && !flight.frame.is_delete());
            if superseded {
                self.bytes -= flight.frame.bytes();
                self.flying_bytes -= flight.frame.bytes();
                slot.flight = None;
                self.flying.remove(&id);
                self.counters.coalesced += 1;
            } else {
                flight.overdue = true;
                self.overdue += 1;
            }
            self.enqueue(&key);
        }
        count
    }

    /// When [`Outbox::tick`] has something to do next, in the owner's milliseconds.
    pub fn due(&self) -> Option<u64> {
        self.flying.values().filter_map(|key| self.slots.get(key)?.flight.as_ref()).filter(|flight| !flight.overdue).map(|flight| flight.due).min()
    }

    /// A new connection: what was on its way is unsent again and goes out first, in the order of its first sending.
    /// What was parked stays parked.
    pub fn reset(&mut self) {
        let mut flights: Vec<(u64, K)> = Vec::with_capacity(self.flying.len());
        (self.flying_bytes, self.overdue) = (0, 0);
        for (_, key) in self.flying.drain() {
            let Some(slot) = self.slots.get_mut(&key) else {
                continue;
            };
            let Some(flight) = slot.flight.take() else {
                continue;
            };
            let newer = std::mem::take(&mut slot.waiting);
            let bytes = flight.frame.bytes() + newer.iter().map(F::bytes).sum::<usize>();
            slot.waiting.push_back(flight.frame);
            for frame in newer {
                self.counters.coalesced += coalesce(&mut slot.waiting, frame);
            }
            self.bytes = self.bytes - bytes + slot.bytes();
            flights.push((flight.order, key));
        }
        flights.sort();
        let front: Vec<K> = flights.into_iter().map(|(_, key)| key).collect();
        self.ready.retain(|key| !front.contains(key));
        for key in front.into_iter().rev() {
            if let Some(slot) = self.slots.get_mut(&key) {
                slot.queued = true;
            }
            self.ready.push_front(key);
        }
    }

    /// Forgets all that is under `key`, parked or not. Frames on their way stay unanswered.
    pub fn forget(&mut self, key: &K) {
        let Some(slot) = self.slots.remove(key) else {
            return;
        };
        self.bytes -= slot.bytes();
        if let Some(flight) = slot.flight {
            self.flying_bytes -= flight.frame.bytes();
            self.overdue -= usize::from(flight.overdue);
            self.flying.remove(flight.frame.id());
        }
        self.ready.retain(|other| other != key);
        self.rest();
    }

    /// All keys, parked ones included.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.slots.keys()
    }

    /// Number of keys, parked ones included.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Is there nothing, not even something parked?
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Bytes of all frames, by [`Outgoing::bytes`].
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Number of frames on their way.
    pub fn in_flight(&self) -> usize {
        self.flying.len()
    }

    /// Keys whose last frame was refused, with the reason.
    pub fn parked(&self) -> impl Iterator<Item = (&K, &str)> {
        self.slots.iter().filter_map(|(key, slot)| Some((key, slot.parked.as_deref()?)))
    }

    /// What happened so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Whether something is unanswered that this key rests on.
    fn must_wait(&self, key: &K) -> bool {
        let unanswered = |slot: &Slot<F>| slot.flight.is_some() || !slot.waiting.is_empty();
        key.rests_on().iter().flatten().any(|below| self.slots.get(below).is_some_and(unanswered))
    }

    fn enqueue(&mut self, key: &K) {
        if let Some(slot) = self.slots.get_mut(key)
            && slot.is_ready()
            && !slot.queued
        {
            slot.queued = true;
            self.ready.push_back(key.clone());
        }
    }

    /// Takes the frame out of the air.
    fn land(&mut self, parent: &MsgId) -> Option<K> {
        let key = self.flying.remove(parent)?;
        let slot = self.slots.get_mut(&key)?;
        let flight = slot.flight.take()?;
        self.bytes -= flight.frame.bytes();
        self.flying_bytes -= flight.frame.bytes();
        self.overdue -= usize::from(flight.overdue);
        if slot.queued && slot.waiting.is_empty() {
            slot.queued = false;
            self.ready.retain(|other| *other != key);
        }
        Some(key)
    }

    /// Sends what waits under the key, or drops the key when nothing does.
    fn settle(&mut self, key: &K) {
        let done = self.slots.get(key).is_some_and(|slot| slot.waiting.is_empty() && slot.parked.is_none());
        if done {
            self.slots.remove(key);
            self.rest();
        } else {
            self.enqueue(key);
        }
    }

    /// Gives the heap back when nothing is left: an empty map or queue keeps what it once took, which is 4 KiB here for
    /// each peer that has been told something.
    fn rest(&mut self) {
        if self.slots.is_empty() {
            self.slots = BTreeMap::new();
            self.ready.shrink_to_fit();
            self.flying.shrink_to_fit();
        }
    }
}

#[cfg(test)]
#[path = "outbox_tests.rs"]
mod tests;
