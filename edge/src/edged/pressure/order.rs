//! Which pod is ended when something is short (the kubelet's order).

use std::cmp::Reverse;

use super::super::pod::Refusal;
use super::super::quantity;
use super::{EVICTED, Shortage, Signal};

/// A pod that could be ended, with what it takes of what is short.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Suspect {
    /// The pod.
    pub uid: String,
    /// Its priority.
    pub priority: i64,
    /// Static, or of a critical priority: never ended for what it takes.
    pub is_critical: bool,
    /// Its containers that run.
    pub containers: Vec<Consumer>,
    /// What it takes beside them (volumes).
    pub shared: u64,
}

/// A container with what it takes of what is short.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Consumer {
    /// Name in the pod.
    pub name: String,
    /// Taken.
    pub used: u64,
    /// Asked for.
    pub request: u64,
}

impl Suspect {
    /// All that it takes.
    fn used(&self) -> u64 {
        self.containers.iter().fold(self.shared, |sum, one| sum.saturating_add(one.used))
    }

    fn request(&self) -> u64 {
        self.containers.iter().fold(0, |sum, one| sum.saturating_add(one.request))
    }
}

/// Whom to end for this shortage, and what it is told. `None` when there is nobody who may be ended.
///
/// Those that take more than they asked for come first, then those of a lower priority, then those that are the furthest above
/// what they asked for; processes cannot be asked for, so there priority decides, then their number. Among equals the uid
/// decides, so that a second look chooses the same.
pub fn eviction(shortage: &Shortage, suspects: &[Suspect]) -> Option<(String, Refusal)> {
    let rank = |suspect: &&Suspect| {
        let (used, request) = (suspect.used(), suspect.request());
        let exceeds = shortage.signal != Signal::Pids && used > request;
        let above = i128::from(used) - i128::from(request);
        (Reverse(exceeds), suspect.priority, Reverse(above), suspect.uid.clone())
    };
    let chosen = suspects.iter().filter(|suspect| !suspect.is_critical).min_by_key(rank)?;
    Some((chosen.uid.clone(), Refusal { reason: EVICTED.into(), message: message(shortage, chosen) }))
}

fn message(shortage: &Shortage, suspect: &Suspect) -> String {
    let resource = shortage.signal.resource();
    let show = |amount: u64| match shortage.signal {
        Signal::Memory | Signal::Nodefs | Signal::Imagefs => quantity::binary(amount),
        Signal::Inodes | Signal::Pids => amount.to_string(),
    };
    let (threshold, available) = (show(shortage.threshold), show(shortage.available));
    let mut text = format!("The node was low on resource: {resource}. Threshold quantity: {threshold}, available: {available}.");
    for one in suspect.containers.iter().filter(|one| one.used > one.request) {
        let (used, request) = (show(one.used), show(one.request));
        text += &format!(" Container {} was using {used}, request is {request}, has larger consumption of {resource}.", one.name);
    }
    text
}
