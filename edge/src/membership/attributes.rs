//! Attributes that changed: written, and told. Device changes them in the same way.

use model::membership::AttributeOutcome;
use model::{DeviceId, Timestamp};
use wire::mqtt::Topic;
use wire::mqtt::payload::answer;

use crate::communication::Effect;
use crate::store::{StoreError, Tx, attribute};

/// Writes the attributes that changed.
pub(crate) fn write_attributes(tx: &mut Tx<'_>, id: &DeviceId, outcome: &AttributeOutcome) -> Result<(), StoreError> {
    for (name, attribute) in outcome {
        match attribute {
            Some(attribute) => attribute::put(tx, id, name, attribute)?,
            None => attribute::delete(tx, id, name)?,
        }
    }
    Ok(())
}

/// `…/updated`, if any attribute changed.
pub(crate) fn tell_attributes(id: &DeviceId, event_id: &str, now: Timestamp, outcome: &AttributeOutcome) -> Option<Effect> {
    (!outcome.is_empty())
        .then(|| Effect::Publish { topic: Topic::DeviceUpdated(id.clone()), payload: answer::device_updated(event_id, now, outcome) })
}
