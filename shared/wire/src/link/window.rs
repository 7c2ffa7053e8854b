//! Reports of devices that were sent and are not confirmed yet.

use std::collections::{HashMap, HashSet, VecDeque};

use model::DeviceId;

use crate::hub::MsgId;

/// Overdue frames whose late confirmation is still understood.
pub const OVERDUE_MAX: usize = 1024;

/// `S` names one change that a confirmation settles.
#[derive(Debug)]
pub struct Window<S> {
    sent: HashMap<MsgId, Sent<S>>,
    devices: HashSet<DeviceId>,
    overdue: VecDeque<MsgId>,
}

#[derive(Debug)]
struct Sent<S> {
    device: DeviceId,
    changes: Vec<S>,
    at: u64,
    overdue: bool,
}

impl<S> Default for Window<S> {
    fn default() -> Self {
        Self { sent: HashMap::new(), devices: HashSet::new(), overdue: VecDeque::new() }
    }
}

impl<S> Window<S> {
    /// Devices with a report on its way.
    pub fn devices(&self) -> usize {
        self.devices.len()
    }

    /// Frames that are not answered, late ones among them.
    pub fn unanswered(&self) -> usize {
        self.sent.len()
    }

    /// Whether a report of `device` is on its way.
    pub fn holds(&self, device: &DeviceId) -> bool {
        self.devices.contains(device)
    }

    /// Remembers a frame: its confirmation settles `changes`.
    pub fn sent(&mut self, frame: MsgId, device: DeviceId, changes: Vec<S>, now: u64) {
        self.devices.insert(device.clone());
        self.sent.insert(frame, Sent { device, changes, at: now, overdue: false });
    }

    /// Takes an answered frame out and returns what it settles; `None` for a frame not sent here.
    pub fn answered(&mut self, frame: &MsgId) -> Option<(DeviceId, Vec<S>)> {
        let Sent { device, changes, overdue, .. } = self.sent.remove(frame)?;
        if overdue {
            self.overdue.retain(|id| id != frame);
        } else if !self.sent.values().any(|other| !other.overdue && other.device == device) {
            self.devices.remove(&device);
        }
        Some((device, changes))
    }

    /// Frees the devices whose report was not answered for `patience` ms; returns how many reports.
    /// A late answer is still understood: it settles what that frame said and nothing newer.
    pub fn expire(&mut self, now: u64, patience: u64) -> usize {
        let mut count = 0;
        for (id, sent) in &mut self.sent {
            if !sent.overdue && now.saturating_sub(sent.at) >= patience {
                sent.overdue = true;
                count += 1;
                self.devices.remove(&sent.device);
                self.overdue.push_back(id.clone());
            }
        }
        // A device has two frames at most (twin, state), sent together: both are overdue together.
        while self.overdue.len() > OVERDUE_MAX {
            if let Some(id) = self.overdue.pop_front() {
                self.sent.remove(&id);
            }
        }
        count
    }

    /// Forgets everything: no answer comes over a connection that is gone.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    fn device(name: &str) -> DeviceId {
        DeviceId::new(name).unwrap()
    }

    #[test]
    fn an_overdue_report_frees_its_device_and_its_late_answer_settles_only_what_it_said() {
        let mut window = Window::default();
        let lamp = device("lamp");
        let (first, second) = (MsgId::random(), MsgId::random());
        window.sent(first.clone(), lamp.clone(), vec![1], 1_000);
        assert_eq!(window.expire(10_999, 10_000), 0);
        assert!(window.holds(&lamp));
        assert_eq!(window.expire(11_000, 10_000), 1);
        assert!(!window.holds(&lamp));
        window.sent(second.clone(), lamp.clone(), vec![2], 11_000);
        assert_eq!(window.answered(&first), Some((lamp.clone(), vec![1])));
        assert!(window.holds(&lamp), "the second report is still on its way");
        assert_eq!(window.answered(&second), Some((lamp.clone(), vec![2])));
        assert!(!window.holds(&lamp));
        assert_eq!(window.answered(&second), None);
    }

    #[test]
    fn overdue_reports_do_not_pile_up() {
        let mut window = Window::default();
        for number in 0..OVERDUE_MAX + 50 {
            window.sent(MsgId::random(), device(&format!("d{number}")), vec![1], 0);
        }
        window.expire(1_000, 0);
        assert_eq!((window.unanswered(), window.overdue.len(), window.devices()), (OVERDUE_MAX, OVERDUE_MAX, 0));
    }
}
