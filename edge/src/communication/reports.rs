//! Reports to the cloud: from rows of `pending_report` to frames.

use std::sync::atomic::Ordering::Relaxed;

use actix::{ActorFutureExt, AsyncContext, Context, WrapFuture};
use actor::SendError;
use model::{DeviceId, Timestamp};
use wire::hub::{CAUSES_MAX, Frame, MsgId, Upstream};
use wire::mqtt::payload::{DeviceStateReport, TwinReport};

use super::state::Communication;
use crate::ids;
use crate::store::pending_report::{self, Pending, Seq};
use crate::store::{Read, StoreError, device, twin};
use crate::twin::fresh_event_id;

/// One report that is ready to be sent.
pub struct Report {
    /// Of which device.
    pub device: DeviceId,
    /// What goes out.
    pub frame: Frame<Upstream>,
    /// What its confirmation settles.
    pub seqs: Vec<Seq>,
}

impl Communication {
    /// Sends reports until the window is full, everything is on its way, or EdgeHub has no room.
    pub(super) fn send_reports(&mut self, ctx: &mut Context<Self>) {
        let free = self.config.window.saturating_sub(self.window.devices());
        if !self.is_connected() || self.waits_for_hub || free == 0 {
            return;
        }
        let now = self.config.clock.now();
        let reports = self.store.read(|read| {
            let devices = pending_report::devices(read, free, |device| !self.window.holds(device))?;
            let reports = devices.into_iter().map(|device| reports_of(read, device, now));
            reports.collect::<Result<Vec<_>, _>>()
        });
        let reports = match reports {
            Ok(reports) => reports.into_iter().flatten(),
            // Nothing is lost: the rows stay, and the timer comes back to them.
            Err(error) => return log::warn!(error:% = error; "reports for the cloud could not be read"),
        };
        let sent_at = self.now_ms();
        for Report { device, frame, seqs } in reports {
            let id = frame.id.clone();
            match self.send(frame) {
                Ok(()) => {
                    self.shared.figures.reports_sent.fetch_add(1, Relaxed);
                    self.window.sent(id, device, seqs, sent_at);
                }
                Err(SendError::Full(_)) => return self.go_on_when_there_is_room(ctx),
                Err(SendError::Closed(_)) => return,
            }
        }
    }

    fn go_on_when_there_is_room(&mut self, ctx: &mut Context<Self>) {
        self.waits_for_hub = true;
        let room = self.peers.edge_hub.room().into_actor(self);
        ctx.spawn(room.map(|(), communication, ctx| {
            communication.waits_for_hub = false;
            communication.send_reports(ctx);
            communication.publish_figures();
        }));
    }
}

/// The frames that tell the cloud what it must hear of one device: its twin, its state, or both.
///
/// # Errors
/// The store's.
pub fn reports_of(read: &mut Read<'_>, device: DeviceId, now: Timestamp) -> Result<Vec<Report>, StoreError> {
    let pending = pending_report::of_device(read, &device)?;
    // No row, no pending report: they go with it.
    let Some(row) = device::row(read, &device)? else { return Ok(Vec::new()) };
    let uid = row.uid;
    let mut reports = Vec::new();
    // A fresh identity at each sending, so that a late answer settles what that sending said; what it is about is named by
    // the causes.
    let mut report = |body: Upstream, changes: &[Pending]| {
        let frame = Frame::new(MsgId::random(), now, body).with_cause(causes(changes).into_iter().map(ids::on_wire));
        reports.push(Report { device: device.clone(), frame, seqs: changes.iter().map(|change| change.seq).collect() });
    };
    if !pending.properties.is_empty() {
        let mut stored = twin::load(read, &device)?.properties;
        let mut changes = Vec::with_capacity(pending.properties.len());
        let mut properties = std::collections::BTreeMap::new();
        for (name, change) in pending.properties {
            properties.extend(stored.remove_entry(&name));
            changes.push(change);
        }
        let content = TwinReport { event_id: fresh_event_id(), timestamp: now, uid: uid.clone(), properties };
        report(Upstream::TwinReport { device: device.clone(), report: content }, &changes);
    }
    if let Some(change) = pending.state
        && let Some(state) = row.device.state
    {
        let content =
            DeviceStateReport { event_id: fresh_event_id(), timestamp: now, uid, name: row.device.name, state, last_online: row.device.last_online };
        report(Upstream::DeviceStateReport { device: device.clone(), report: content }, &[change]);
    }
    Ok(reports)
}

/// The messages that made these changes, each once, the latest last; of more than [`CAUSES_MAX`] the latest.
fn causes(changes: &[Pending]) -> Vec<actor::MsgId> {
    let mut latest_first = Vec::new();
    for cause in changes.iter().rev().filter_map(|change| change.cause) {
        if latest_first.len() < CAUSES_MAX && !latest_first.contains(&cause) {
            latest_first.push(cause);
        }
    }
    latest_first.reverse();
    latest_first
}
