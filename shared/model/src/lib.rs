//! Devices, twins, memberships, names and their pure rules.
//!
//! No input or output, no clock of its own and no global state: everything here is a value or a function
//! from values to values, so each rule of the manual can be tested in one line and simulated without a process.

pub mod device;
pub mod id;
pub mod membership;
pub mod resource;
pub mod time;
pub mod twin;

pub use device::{Attribute, AttributeChange, Attributes, Device, DeviceEntry, DeviceState, StateKind};
pub use id::{AttributeName, DeviceId, NameError, Namespace, NodeName, ObjectName, PropertyName};
pub use resource::{ResourceKey, ResourceKind};
pub use time::{Clock, ManualClock, SystemClock, Timestamp};
pub use twin::{
    Origin, PropertyChange, PropertySet, RequestedType, SideChange, Twin, TwinChange, TwinProperty, TwinType, TwinValue, TwinVersion, merge,
};
