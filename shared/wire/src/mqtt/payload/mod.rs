//! JSON bodies of MQTT and of the device messages on the cloud link.
//!
//! Requests are read into typed values with KubeEdge's checks, in its order and its newer wording ([`Fault`]);
//! answers are written with its exact field names ([`answer`]). Bodies are at most [`BODY_BYTES_MAX`] long.
//!
//! Times in requests are read and not used: the edge stamps what it stores.
//!
//! Of a property or an attribute that is named twice the last one counts, as for Go's `encoding/json`, and nothing of the
//! others. A field of the request itself that is there twice makes it malformed; Go takes the last, and nobody sends it.

pub mod answer;
#[cfg(test)]
mod any_json_tests;
mod membership;
mod raw;
mod report;
mod request;
#[cfg(test)]
mod tests;

use model::DeviceId;
use model::twin::TwinError;

pub use membership::{AttributesUpdate, MembershipDetail, MembershipUpdate, SKIPPED_MAX};
pub use report::{DeviceStateReport, TwinReport};
pub use request::{Get, StateUpdate, TwinUpdate};

/// Longest body that is taken from a device, in bytes. KubeEdge has no limit.
pub const BODY_BYTES_MAX: usize = 1 << 20;
/// Longest `event_id`, in bytes: it is echoed into several messages. KubeEdge has no limit.
pub const EVENT_ID_BYTES_MAX: usize = 1024;

/// What is wrong with a request. `Display` is the `reason` of the error result, in KubeEdge's newer words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Longer than [`BODY_BYTES_MAX`].
    #[error("the request body has {bytes} bytes, at most {BODY_BYTES_MAX} are allowed")]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// `event_id` longer than [`EVENT_ID_BYTES_MAX`].
    #[error("the event_id has {bytes} bytes, at most {EVENT_ID_BYTES_MAX} are allowed")]
    EventIdTooLong {
        /// Its length.
        bytes: usize,
    },
    /// A `twin/update` that is not JSON of the right shape.
    #[error("Unmarshal update request body failed, please check the request")]
    UpdateBody,
    /// A `twin/update` without `twin`.
    #[error("Update twin error, key:twin does not exist")]
    TwinMissing,
    /// A property name outside the alphabet or too long.
    #[error(
        "The key of twin must only include upper or lowercase letters, number, english, and special letter - _ . , : / @ # and the length of key should be less than 128 bytes"
    )]
    Key,
    /// A value outside the alphabet or too long.
    #[error(
        "The value of twin must only include upper or lowercase letters, number, english, and special letter - _ . , : / @ # and the length of value should be less than 512 bytes"
    )]
    Value,
    /// A `twin/get` that is not JSON of the right shape.
    #[error("Unmarshal twin info {payload} failed , err: {cause}")]
    TwinGetBody {
        /// The beginning of the body.
        payload: String,
        /// What the parser says.
        cause: String,
    },
    /// A `membership/get` that is not JSON of the right shape.
    #[error("Unmarshal get membership info {payload} failed , err: {cause}")]
    MembershipGetBody {
        /// The beginning of the body.
        payload: String,
        /// What the parser says.
        cause: String,
    },
    /// A state update that is not JSON of the right shape. KubeEdge only logs it, and so should the caller.
    #[error("Unmarshal state update failed, please check the request")]
    StateBody,
    /// A state that is none of the five words. KubeEdge only logs it, and so should the caller.
    #[error("a device state is online, offline, unknown, ok or unhealthy")]
    State,
    /// A membership or attributes message that is not JSON of the right shape. Only logged.
    #[error("Unmarshal membership message failed, please check the request")]
    MembershipBody,
    /// A report that is not JSON of the right shape (cloud side).
    #[error("Unmarshal report failed, please check the request")]
    ReportBody,
    /// `twin/update` for a device that is not a member of this node.
    #[error("update rejected due to the device is not existed")]
    UpdateOfUnknownDevice,
    /// `twin/get` for a device that is not a member of this node.
    #[error("Device {device} not found while getting twin")]
    GetOfUnknownDevice {
        /// The device.
        device: DeviceId,
    },
    /// The merge refused a value or type.
    #[error(transparent)]
    Twin(#[from] TwinError),
    /// The store failed; the text names no row content.
    #[error("{0}")]
    Internal(String),
}

impl Fault {
    /// KubeEdge's code for it: 400, 404 or 500.
    pub fn code(&self) -> u16 {
        match self {
            Self::UpdateOfUnknownDevice | Self::GetOfUnknownDevice { .. } => 404,
            Self::Internal(_) => 500,
            Self::TooLarge { .. }
            | Self::EventIdTooLong { .. }
            | Self::UpdateBody
            | Self::TwinMissing
            | Self::Key
            | Self::Value
            | Self::TwinGetBody { .. }
            | Self::MembershipGetBody { .. }
            | Self::StateBody
            | Self::State
            | Self::MembershipBody
            | Self::ReportBody
            | Self::Twin(_) => 400,
        }
    }
}

/// A request that is refused, with what the answer needs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{fault}")]
pub struct Rejection {
    /// The request's `event_id` where one can be read, else empty. (KubeEdge always sends the empty one, which
    /// leaves a device that has two requests under way in the dark.)
    pub event_id: String,
    /// What is wrong.
    #[source]
    pub fault: Fault,
}

impl From<Fault> for Rejection {
    fn from(fault: Fault) -> Self {
        Self { event_id: String::new(), fault }
    }
}
