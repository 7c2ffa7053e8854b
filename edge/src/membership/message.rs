//! What Membership is told.

use actor::Mail;
use wire::hub::MsgId;
use wire::mqtt::payload::{MembershipDetail, MembershipUpdate};

/// Everything that can make Membership act.
#[derive(Debug)]
pub enum MembershipMessage {
    /// From EventBus: a mapper asks which devices there are (MQTT `membership/get`). Followed by
    /// the result.
    Get {
        /// Echoed in the answer.
        event_id: String,
    },
    /// From EdgeHub: the full list of this node's devices. Those that are not in it go, with
    /// their rows. Followed by `membership/updated` for each that came or went, and by an
    /// acknowledgement.
    Detail {
        /// The list.
        detail: MembershipDetail,
        /// The frame that is acknowledged after the commit.
        frame: MsgId,
    },
    /// From EdgeHub: devices came or went. Followed by the same.
    Update {
        /// Who.
        update: MembershipUpdate,
        /// The frame that is acknowledged after the commit.
        frame: MsgId,
    },
}

impl Mail for MembershipMessage {
    fn kind(&self) -> &'static str {
        match self {
            Self::Get { .. } => "Get",
            Self::Detail { .. } => "Detail",
            Self::Update { .. } => "Update",
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::Get { .. } => "Get".into(),
            Self::Detail { detail, .. } => format!("Detail of {} devices", detail.devices.len()),
            Self::Update { update, .. } => {
                format!("Update: {} added, {} removed", update.added.len(), update.removed.len())
            }
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Get { event_id } => 256 + event_id.len(),
            Self::Detail { detail, .. } => 256 + 2048 * detail.devices.len(),
            Self::Update { update, .. } => 256 + 2048 * (update.added.len() + update.removed.len()),
        }
    }
}
