//! Everything that can make the device controller act.

use actor::{Mail, brief};
use model::NodeName;
use wire::hub::{Frame, Upstream};

use super::crd::{Device, DeviceModel};
use crate::cloud_hub::Credit;
use crate::watching::{Change, Generation};

/// Everything that can make the device controller act.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "most messages are frames; a box for each would save nothing")]
pub enum DeviceControllerMessage {
    /// CloudHub: a node said something about devices ([`Upstream::MembershipGet`], [`Upstream::TwinReport`],
    /// [`Upstream::DeviceStateReport`]). The DeviceStatus is written, then the node is answered.
    FromEdge {
        /// Who said it, proved by its certificate.
        node: NodeName,
        /// What.
        frame: Frame<Upstream>,
        /// What it holds of its session's budget; back when this message is settled.
        credit: Credit,
    },
    /// CloudHub: a node has connected. Nothing follows: it asks for its devices itself.
    NodeConnected {
        /// The node.
        node: NodeName,
    },
    /// CloudHub: a node has gone. Nothing follows.
    NodeDisconnected {
        /// The node.
        node: NodeName,
    },
    /// CloudHub: something for a node found its outbox full, and there is room again. It is sent all its devices.
    NodeLacks {
        /// The node.
        node: NodeName,
    },
    /// The watch of Devices saw something. Its node is sent the membership or the twin.
    Device {
        /// Of which incarnation of this actor the watch is.
        generation: Generation,
        /// What it saw.
        change: Change<Box<Device>>,
    },
    /// The watch of DeviceModels saw something. Devices that waited for it are sent.
    Model {
        /// Of which incarnation of this actor the watch is.
        generation: Generation,
        /// What it saw.
        change: Change<Box<DeviceModel>>,
    },
}

impl Mail for DeviceControllerMessage {
    fn kind(&self) -> &'static str {
        match self {
            Self::FromEdge { .. } => "FromEdge",
            Self::NodeConnected { .. } => "NodeConnected",
            Self::NodeLacks { .. } => "NodeLacks",
            Self::NodeDisconnected { .. } => "NodeDisconnected",
            Self::Device { .. } => "Device",
            Self::Model { .. } => "Model",
        }
    }

    fn describe(&self) -> String {
        let named = |name: &Option<String>| format!("{} {}", self.kind(), name.as_deref().unwrap_or("?"));
        match self {
            Self::FromEdge { node, frame, .. } => format!("{} from {node}, frame {}", frame.body.kind(), brief(frame.id.as_str())),
            Self::NodeConnected { node } | Self::NodeDisconnected { node } | Self::NodeLacks { node } => format!("{} {node}", self.kind()),
            Self::Device { change: Change::Listed(device) | Change::Applied(device) | Change::Deleted(device), .. } => named(&device.metadata.name),
            Self::Model { change: Change::Listed(model) | Change::Applied(model) | Change::Deleted(model), .. } => named(&model.metadata.name),
            Self::Device { .. } | Self::Model { .. } => self.kind().to_owned(),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::FromEdge { frame, .. } => frame.bytes(),
            Self::Device { change: Change::Listed(device) | Change::Applied(device) | Change::Deleted(device), .. } => {
                1024 + 256 * device.spec.properties.len()
            }
            Self::NodeConnected { .. } | Self::NodeDisconnected { .. } | Self::NodeLacks { .. } | Self::Device { .. } | Self::Model { .. } => 1024,
        }
    }
}
