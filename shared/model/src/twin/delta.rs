//! The difference between what is expected and what is.

use super::{Twin, TwinProperty};
use crate::id::PropertyName;

/// Where a device differs from what is expected of it, over *all* its properties.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delta<'a> {
    /// All living properties that have an expected side: the message's `twin`.
    pub twin: Vec<(&'a PropertyName, &'a TwinProperty)>,
    /// The expected value where the actual one differs or is absent: the message's `delta`.
    pub differing: Vec<(&'a PropertyName, &'a str)>,
}

impl<'a> Delta<'a> {
    /// The delta of `twin`. An empty expected value asks for nothing (newer KubeEdge skips it).
    pub fn of(twin: &'a Twin) -> Self {
        let mut delta = Self::default();
        for (name, property) in twin.living() {
            let Some(expected) = &property.expected else {
                continue;
            };
            delta.twin.push((name, property));
            let met = property.actual.as_ref().is_some_and(|actual| actual.value == expected.value);
            if !met && !expected.value.is_empty() {
                delta.differing.push((name, &expected.value));
            }
        }
        delta
    }

    /// Is there nothing to tell?
    pub fn is_empty(&self) -> bool {
        self.differing.is_empty()
    }
}
