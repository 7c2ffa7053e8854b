//! What Twin is told.

use actor::{Mail, brief};
use model::{DeviceId, PropertyChange, PropertyName, TwinChange};
use wire::hub::MsgId;
use wire::mqtt::payload::TwinUpdate;

/// Everything that can make Twin act.
#[derive(Debug)]
pub enum TwinMessage {
    /// From EventBus: a device or its mapper changes its twin (MQTT `twin/update`). Followed by
    /// result, document and delta, and by a report to the cloud.
    Update {
        /// Whose twin.
        device: DeviceId,
        /// What is to change; names and values are valid.
        request: TwinUpdate,
    },
    /// From EventBus: a mapper asks for the twin (MQTT `twin/get`). Followed by its result.
    Get {
        /// Whose twin.
        device: DeviceId,
        /// Echoed in the answer.
        event_id: String,
    },
    /// From EventBus: a mapper wants the cloud to hear of these properties (MQTT `twin/cloud_updated`; KubeEdge's mappers call
    /// it `syncToCloud` and send no versions, which KubeEdge answers by reporting its own values). Nothing changes here,
    /// whatever values and versions are in the message: only the cloud speaks for the cloud. Followed by a report.
    Report {
        /// Whose twin.
        device: DeviceId,
        /// Echoed in the answer to a device that is unknown.
        event_id: String,
        /// Which properties; those that the device has not are passed over.
        names: Vec<PropertyName>,
    },
    /// From EdgeHub alone: the cloud changes a twin.
    /// Followed by document and delta, by an acknowledgement of the frame, and by a report of the
    /// properties that are newer here.
    CloudSync {
        /// Whose twin.
        device: DeviceId,
        /// What is to change; names and values are valid.
        request: TwinUpdate,
        /// The frame that is acknowledged after the commit.
        frame: MsgId,
    },
}

impl Mail for TwinMessage {
    fn kind(&self) -> &'static str {
        match self {
            Self::Update { .. } => "Update",
            Self::Get { .. } => "Get",
            Self::Report { .. } => "Report",
            Self::CloudSync { .. } => "CloudSync",
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::Update { device, request } | Self::CloudSync { device, request, .. } => {
                let names: Vec<_> = request.change.properties.keys().map(|name| name.as_str()).collect();
                format!("{} of `{device}`: {} properties: {}", self.kind(), names.len(), brief(&names.join(" ")))
            }
            Self::Get { device, .. } => format!("Get of `{device}`"),
            Self::Report { device, names, .. } => format!("Report of `{device}`: {} properties", names.len()),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Update { request, .. } | Self::CloudSync { request, .. } => 256 + request.event_id.len() + change_bytes(&request.change),
            Self::Get { event_id, .. } => 256 + event_id.len(),
            Self::Report { event_id, names, .. } => 256 + event_id.len() + names.iter().map(|name| 32 + name.as_str().len()).sum::<usize>(),
        }
    }
}

fn change_bytes(change: &TwinChange) -> usize {
    let property = |change: &PropertyChange| match change {
        PropertyChange::Null => 0,
        PropertyChange::Set(set) => [&set.expected, &set.actual].into_iter().flatten().map(|side| 32 + side.value.len()).sum(),
    };
    change.properties.iter().map(|(name, wanted)| 160 + name.as_str().len() + property(wanted)).sum()
}
