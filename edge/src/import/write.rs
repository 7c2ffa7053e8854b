//! Writes a plan in one transaction.

use actor::MsgId;
use model::twin::PROPERTIES_MAX;
use model::{Device, Timestamp, TwinProperty, TwinVersion};

use super::Existing;
use super::plan::Plan;
use super::report::Report;
use crate::store::device::Incarnation;
use crate::store::{StoreError, Tx, attribute, device, meta, pending_report, twin};

/// How rows are written, and where they are counted.
pub struct Writer<'r> {
    pub existing: Existing,
    pub now: Timestamp,
    /// Named in what is reported to the cloud, so that a value can be followed back to the import.
    pub cause: MsgId,
    pub report: &'r mut Report,
}

impl Writer<'_> {
    /// Writes everything of `plan`.
    ///
    /// # Errors
    /// The store's.
    pub fn write(&mut self, tx: &mut Tx<'_>, plan: &Plan) -> Result<(), StoreError> {
        let mut devices = device::count(tx)?;
        for (new, uid) in plan.devices.values() {
            let stored = device::load(tx, &new.id)?;
            let incarnation = match &stored {
                Some(stored) => stored.incarnation,
                None if devices >= device::DEVICES_MAX => {
                    self.report.devices.skipped += 1;
                    self.report.skip(format!("device `{}`", new.id), format!("a node has at most {} devices", device::DEVICES_MAX));
                    continue;
                }
                None => {
                    devices += 1;
                    device::insert(tx, new)?
                }
            };
            let stored = stored.map(|stored| stored.device);
            self.device(tx, new, uid, incarnation, stored.is_some())?;
            self.attributes(tx, new, stored.as_ref())?;
            self.properties(tx, new, stored.as_ref(), incarnation)?;
        }
        for (key, object) in &plan.objects {
            if self.keeps(meta::get(tx, key)?.is_some()) {
                self.report.objects.kept += 1;
            } else {
                meta::put(tx, object)?;
                self.report.objects.imported += 1;
            }
        }
        Ok(())
    }

    fn keeps(&self, is_there: bool) -> bool {
        is_there && self.existing == Existing::Keep
    }

    fn device(&mut self, tx: &mut Tx<'_>, new: &Device, uid: &str, incarnation: Incarnation, is_there: bool) -> Result<(), StoreError> {
        if self.keeps(is_there) {
            self.report.devices.kept += 1;
            return Ok(());
        }
        self.report.devices.imported += 1;
        if !is_there {
            device::set_uid(tx, &new.id, uid)?;
        }
        // A known device keeps its name, as in Membership; its state is the one thing that only this node knows.
        if let Some(state) = &new.state {
            device::set_state(tx, &new.id, state, &new.last_online)?;
            pending_report::state(tx, &new.id, incarnation, self.now, self.cause)?;
        }
        Ok(())
    }

    fn attributes(&mut self, tx: &mut Tx<'_>, new: &Device, stored: Option<&Device>) -> Result<(), StoreError> {
        for (name, attribute) in &new.attributes {
            if self.keeps(stored.is_some_and(|stored| stored.attributes.contains_key(name))) {
                self.report.attributes.kept += 1;
            } else {
                attribute::put(tx, &new.id, name, attribute)?;
                self.report.attributes.imported += 1;
            }
        }
        Ok(())
    }

    fn properties(&mut self, tx: &mut Tx<'_>, new: &Device, stored: Option<&Device>, incarnation: Incarnation) -> Result<(), StoreError> {
        let mut count = stored.map_or(0, |stored| stored.twin.properties.len());
        for (name, property) in &new.twin.properties {
            let old = stored.and_then(|stored| stored.twin.properties.get(name));
            if self.keeps(old.is_some()) {
                self.report.properties.kept += 1;
                continue;
            }
            let refusal = match old {
                Some(old) if !may_replace(old, property) => Some("the stored version is newer".to_owned()),
                None if count >= PROPERTIES_MAX => Some(format!("a device has at most {PROPERTIES_MAX} properties")),
                Some(_) | None => None,
            };
            if let Some(reason) = refusal {
                self.report.properties.skipped += 1;
                self.report.skip(format!("property `{name}` of device `{}`", new.id), reason);
                continue;
            }
            count += usize::from(old.is_none());
            twin::put(tx, &new.id, name, property)?;
            // What is expected the cloud knows; what the device said, or that it deleted it, it may not.
            if property.actual.is_some() || property.is_tombstone() {
                pending_report::property(tx, &new.id, incarnation, name, self.now, self.cause)?;
            }
            self.report.properties.imported += 1;
        }
        Ok(())
    }
}

/// Neither side's version may go back.
fn may_replace(old: &TwinProperty, new: &TwinProperty) -> bool {
    let admits = |old: Option<TwinVersion>, new: Option<TwinVersion>| old.unwrap_or_default().admits(new.unwrap_or_default());
    admits(old.expected_version, new.expected_version) && admits(old.actual_version, new.actual_version)
}
