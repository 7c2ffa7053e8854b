//! What Device is told.

use actor::Mail;
use model::{DeviceId, DeviceState};
use wire::hub::MsgId;
use wire::mqtt::payload::AttributesUpdate;

/// Everything that can make Device act.
#[derive(Debug)]
pub enum DeviceMessage {
    /// From EventBus: a device or its mapper reports a state (MQTT `state/update`). Followed by
    /// the result and by a report to the cloud; an unknown device is ignored, as by KubeEdge.
    StateUpdate {
        /// Whose state.
        device: DeviceId,
        /// The request's; not echoed, KubeEdge answers with a new one.
        event_id: String,
        /// The state, in the letters in which it was sent.
        state: DeviceState,
    },
    /// From EdgeHub: the cloud changes attributes. Followed by `updated` if any changed, and by
    /// an acknowledgement.
    Attributes {
        /// Whose attributes.
        device: DeviceId,
        /// What is to change.
        update: AttributesUpdate,
        /// The frame that is acknowledged after the commit.
        frame: MsgId,
    },
}

impl Mail for DeviceMessage {
    fn kind(&self) -> &'static str {
        match self {
            Self::StateUpdate { .. } => "StateUpdate",
            Self::Attributes { .. } => "Attributes",
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::StateUpdate { device, state, .. } => format!("StateUpdate of `{device}`: {state}"),
            Self::Attributes { device, update, .. } => {
                format!("Attributes of `{device}`: {} entries", update.attributes.len())
            }
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::StateUpdate { event_id, .. } => 256 + event_id.len(),
            Self::Attributes { update, .. } => {
                let change = |change: &Option<model::AttributeChange>| change.as_ref().map_or(0, |c| c.value.len());
                256 + update.attributes.iter().map(|(name, c)| 160 + name.as_str().len() + change(c)).sum::<usize>()
            }
        }
    }
}
