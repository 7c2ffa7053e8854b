//! Devices, twins, memberships, names and their pure rules.
//!
//! No input or output, no clock of its own and no global state: everything here is a value or a function
//! from values to values, so each rule of the manual can be tested in one line and simulated without a process.
//!
//! | module | is |
//! |---|---|
//! | [`id`] | names that are checked once, where they enter, and valid ever after |
//! | [`twin`] | expected and actual values; [`merge`] decides what a message changes, and [`Twin::delta`] what differs |
//! | [`device`], [`membership`] | devices, their state and attributes; which of them belong to a node |
//! | [`resource`] | how objects of Kubernetes are named on the link and in the edge's store |
//! | [`quantity`] | how much of a resource an object of Kubernetes asks for |
//! | [`time`] | Unix milliseconds, and where "now" comes from |
//!
//! A module of the edge uses them so: load from the store, merge in memory, write the rows that the outcome calls
//! dirty, commit, and then tell what the outcome says. Nothing here knows a message or MQTT: that is the crate `wire`, which
//! depends on this one and never the other way round.

pub mod device;
pub mod id;
pub mod membership;
pub mod quantity;
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
