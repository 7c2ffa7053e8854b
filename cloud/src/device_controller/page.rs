//! What the device controller knows, for the page.

use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

use super::DeviceController;
use super::state::Known;
use crate::standing::{ApiSnapshot, Standing};

/// What outlives an incarnation. Made once, cloned into each.
#[derive(Clone, Debug, Default)]
pub struct Shared(Arc<Mutex<Known>>);

/// What the device controller knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Snapshot {
    /// Devices and models.
    #[serde(flatten)]
    pub known: Known,
    /// The API.
    pub api: ApiSnapshot,
}

impl Snapshot {
    /// As it is now.
    pub fn of(shared: &Shared, api: &Standing) -> Self {
        Self { known: shared.0.lock().unwrap_or_else(PoisonError::into_inner).clone(), api: api.snapshot() }
    }
}

impl DeviceController {
    /// Counts for the page, now and then: there may be many devices.
    pub(super) fn publish(&mut self) {
        if !std::mem::replace(&mut self.is_published, true) {
            *self.known.0.lock().unwrap_or_else(PoisonError::into_inner) = self.devices.known();
        }
    }
}
