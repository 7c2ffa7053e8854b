//! Twins: expected and actual values of a device's properties, and the rules by which they change.
//!
//! A twin is a map from property to two sides. The cloud mostly moves `expected`, the device mostly moves `actual`;
//! each side carries a pair of counters, one for each writer. A deleted property stays as a *tombstone* (type
//! `deleted`, no values, versions kept), so that an older message cannot bring it back and a newer one can.
//!
//! Source: KubeEdge `devicetwin` (twin/update, cloud_updated); each departure from it says so where it is.

mod delta;
mod merge;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::{PropertyName, of_twin_alphabet};
use crate::time::Timestamp;

pub use delta::Delta;
pub use merge::{DocumentEntry, Origin, Outcome, PropertyResult, Refusal, RefusalReason, TwinError, merge};

/// Longest value of a twin property, in bytes (KubeEdge: value regex `{1,512}`).
pub const VALUE_BYTES_MAX: usize = 512;
/// Most properties of one device, tombstones included. KubeEdge declares 64 and does not enforce it; this is ours.
pub const PROPERTIES_MAX: usize = 1024;

/// Is `text` a value that a twin may have: at most 512 bytes of `[a-zA-Z0-9-_.,:/@#]`?
///
/// The empty value is accepted, as in newer KubeEdge (0.x refused it).
pub fn is_value(text: &str) -> bool {
    text.len() <= VALUE_BYTES_MAX && text.bytes().all(of_twin_alphabet)
}

/// How often each writer has moved one side of a property.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TwinVersion {
    /// The cloud's counter (its devicecontroller uses the object's resourceVersion).
    #[serde(default)]
    pub cloud: i64,
    /// The edge's counter: one more with each change of the device.
    #[serde(default)]
    pub edge: i64,
}

impl TwinVersion {
    /// May a message of version `other` replace this one? Neither counter may go back.
    pub fn admits(self, other: Self) -> bool {
        self.cloud <= other.cloud && self.edge <= other.edge
    }

    /// The version after one more change by the device.
    #[must_use]
    pub fn next_edge(self) -> Self {
        Self { cloud: self.cloud, edge: self.edge.saturating_add(1) }
    }
}

impl fmt::Display for TwinVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.cloud, self.edge)
    }
}

/// One side of a property.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TwinValue {
    /// The value, as text of the property's type.
    pub value: String,
    /// When it was stored at the edge; [`Timestamp::UNKNOWN`] if not told.
    pub timestamp: Timestamp,
}

/// Type of a property; decides which values it may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TwinType {
    /// Any text.
    #[default]
    String,
    /// A decimal 64-bit integer.
    Int,
    /// The same, in the word of newer KubeEdge.
    Integer,
    /// A 64-bit floating-point number.
    Float,
    /// Exactly `true` or `false`.
    Boolean,
    /// A tombstone.
    Deleted,
}

impl TwinType {
    /// The word in `metadata.type` and in column `attr_type`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Int => "int",
            Self::Integer => "integer",
            Self::Float => "float",
            Self::Boolean => "boolean",
            Self::Deleted => "deleted",
        }
    }

    /// The type of that word; the empty word is `string`; `None` for any other.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "" | "string" => Self::String,
            "int" => Self::Int,
            "integer" => Self::Integer,
            "float" => Self::Float,
            "boolean" => Self::Boolean,
            "deleted" => Self::Deleted,
            _ => return None,
        })
    }

    /// Checks a value against the type.
    ///
    /// # Errors
    /// The reason of KubeEdge, in its newer wording.
    pub fn check(self, value: &str) -> Result<(), TwinError> {
        match self {
            Self::String | Self::Deleted => Ok(()),
            Self::Int | Self::Integer => value.parse::<i64>().map_err(|_| TwinError::NotInt).map(drop),
            Self::Float => is_float(value).then_some(()).ok_or(TwinError::NotFloat),
            Self::Boolean => matches!(value, "true" | "false").then_some(()).ok_or(TwinError::NotBoolean),
        }
    }
}

/// Is it a number that Go's `ParseFloat` reads? One beyond 64 bits is none, though Rust reads an infinity from it; the
/// words for infinity and not-a-number are. (Go reads hexadecimal ones as well, which are refused here.)
fn is_float(value: &str) -> bool {
    let is_a_word = || value.bytes().all(|byte| !byte.is_ascii_digit());
    value.parse::<f64>().is_ok_and(|number| number.is_finite() || is_a_word())
}

impl fmt::Display for TwinType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One property as the edge keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TwinProperty {
    /// What it should be.
    pub expected: Option<TwinValue>,
    /// What it is.
    pub actual: Option<TwinValue>,
    /// May the device delete it? Only ever moves from true to false.
    pub optional: bool,
    /// Type; fixed for the life of the property.
    pub kind: TwinType,
    /// Version of `expected`; outlives the value in a tombstone.
    pub expected_version: Option<TwinVersion>,
    /// Version of `actual`; outlives the value in a tombstone.
    pub actual_version: Option<TwinVersion>,
}

impl Default for TwinProperty {
    /// KubeEdge's defaults: optional, type `string`, nothing else.
    fn default() -> Self {
        Self { expected: None, actual: None, optional: true, kind: TwinType::String, expected_version: None, actual_version: None }
    }
}

impl TwinProperty {
    /// Was it deleted?
    pub fn is_tombstone(&self) -> bool {
        self.kind == TwinType::Deleted
    }
}

/// All properties of one device, tombstones included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Twin {
    /// By name.
    pub properties: BTreeMap<PropertyName, TwinProperty>,
}

impl Twin {
    /// The properties that are not deleted, which is all that `twin/get` shows.
    pub fn living(&self) -> impl Iterator<Item = (&PropertyName, &TwinProperty)> {
        self.properties.iter().filter(|(_, property)| !property.is_tombstone())
    }

    /// Where the device differs from what is expected of it: what `twin/update/delta` tells.
    pub fn delta(&self) -> Delta<'_> {
        Delta::of(self)
    }
}

impl FromIterator<(PropertyName, TwinProperty)> for Twin {
    fn from_iter<I: IntoIterator<Item = (PropertyName, TwinProperty)>>(properties: I) -> Self {
        Self { properties: properties.into_iter().collect() }
    }
}

/// What a message wants of a twin. Names and values are checked already.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TwinChange {
    /// By name.
    pub properties: BTreeMap<PropertyName, PropertyChange>,
}

impl TwinChange {
    /// Does the message speak of no property?
    pub fn is_empty(&self) -> bool {
        self.properties.is_empty()
    }
}

impl FromIterator<(PropertyName, PropertyChange)> for TwinChange {
    fn from_iter<I: IntoIterator<Item = (PropertyName, PropertyChange)>>(properties: I) -> Self {
        Self { properties: properties.into_iter().collect() }
    }
}

/// What a message wants of one property.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PropertyChange {
    /// JSON `null`: the device deletes it. From the cloud it changes nothing (the cloud says `metadata.type: deleted`).
    Null,
    /// Anything else.
    Set(PropertySet),
}

/// The parts of a property that a message has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PropertySet {
    /// New expected value.
    pub expected: Option<SideChange>,
    /// New actual value.
    pub actual: Option<SideChange>,
    /// `optional`.
    pub optional: Option<bool>,
    /// `metadata.type`.
    pub kind: Option<RequestedType>,
    /// Version of `expected`; the cloud must give one, a device's is ignored.
    pub expected_version: Option<TwinVersion>,
    /// Version of `actual`; the cloud must give one, a device's is ignored.
    pub actual_version: Option<TwinVersion>,
}

/// One side in a message. Its time, if any, is not used: the edge stamps what it stores.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SideChange {
    /// The value.
    pub value: String,
}

/// `metadata.type` of a message. An unknown word matters only where the type is taken from the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestedType {
    /// One of ours.
    Known(TwinType),
    /// Another word, cut to 64 characters.
    Other(String),
}

impl RequestedType {
    /// Reads the word.
    pub fn new(text: &str) -> Self {
        TwinType::parse(text).map_or_else(|| Self::Other(text.chars().take(64).collect()), Self::Known)
    }

    /// The word again.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Known(kind) => kind.as_str(),
            Self::Other(text) => text,
        }
    }
}
