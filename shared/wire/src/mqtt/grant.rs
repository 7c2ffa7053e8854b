//! What one client of the embedded broker may publish and subscribe. Pure.

use std::collections::BTreeSet;

use model::DeviceId;

use super::Topic;
use super::filter::{covers, matches};

/// Everything that one client may do; nothing at all by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// Devices for which it speaks: it may publish their requests and hear what the node says to them, whichever form of
    /// the id it writes.
    pub devices: BTreeSet<DeviceId>,
    /// Whether it may send to the cloud (`$hw/events/upload/…`).
    pub upload: bool,
    /// Filters of further topics on which it may publish.
    pub publish: Vec<String>,
    /// Filters that it may subscribe, or any narrower one.
    pub subscribe: Vec<String>,
}

/// What a device hears, behind its id. Not `#`: behind an id of one level that would take in the devices of a whole
/// namespace of that name.
const HEARD: &[&str] = &["state/update/result", "updated", "twin/update/+", "twin/+/result"];

impl Grant {
    /// May it publish there?
    pub fn publishes(&self, topic: &str) -> bool {
        if self.publish.iter().any(|filter| matches(filter, topic)) {
            return true;
        }
        match Topic::parse(topic) {
            Ok(Topic::TwinUpdate(device) | Topic::TwinGet(device) | Topic::TwinCloudUpdated(device) | Topic::DeviceStateUpdate(device)) => {
                self.devices.contains(&device)
            }
            Ok(Topic::Upload(_)) => self.upload,
            // Everything else is the node's to say, or has to be granted by a filter.
            _ => false,
        }
    }

    /// May it subscribe this filter? All that the filter takes must be granted.
    pub fn subscribes(&self, filter: &str) -> bool {
        self.subscribe.iter().any(|granted| covers(granted, filter)) || self.devices.iter().any(|device| hears(device, filter))
    }
}

fn hears(device: &DeviceId, filter: &str) -> bool {
    let long = format!("{}/{}", device.namespace(), device.name());
    [device.as_str(), &long].iter().any(|id| HEARD.iter().any(|words| covers(&format!("$hw/events/device/{id}/{words}"), filter)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    fn of(devices: &[&str]) -> Grant {
        Grant { devices: devices.iter().map(|id| DeviceId::new(id).unwrap()).collect(), ..Grant::default() }
    }

    #[test]
    fn a_device_asks_for_itself_in_both_forms_of_its_id_and_for_nobody_else() {
        let lamp = of(&["lamp"]);
        for id in ["lamp", "default/lamp"] {
            for words in ["twin/update", "twin/get", "twin/cloud_updated", "state/update"] {
                assert!(lamp.publishes(&format!("$hw/events/device/{id}/{words}")), "{id} {words}");
            }
        }
        for topic in [
            "$hw/events/device/fan/twin/update",
            "$hw/events/device/house/lamp/twin/update",
            "$hw/events/device/lamp/fan/twin/update",
            "$hw/events/device/lamp/twin/update/result",
            "$hw/events/device/lamp/twin/get/result",
            "$hw/events/node/edge-1/membership/get",
            "$hw/events/upload/x",
            "SYS/dis/upload_records",
            "lamp/user/x",
            "anything",
        ] {
            assert!(!lamp.publishes(topic), "{topic}");
        }
        let house = of(&["house/lamp"]);
        assert!(house.publishes("$hw/events/device/house/lamp/twin/update"));
        assert!(!house.publishes("$hw/events/device/lamp/twin/update"));
    }

    #[test]
    fn a_device_hears_what_is_said_to_it_and_nothing_else() {
        let lamp = of(&["lamp"]);
        for id in ["lamp", "default/lamp"] {
            for words in [
                "state/update/result",
                "updated",
                "twin/update/result",
                "twin/update/document",
                "twin/update/delta",
                "twin/get/result",
                "twin/update/+",
                "twin/+/result",
            ] {
                assert!(lamp.subscribes(&format!("$hw/events/device/{id}/{words}")), "{id} {words}");
            }
        }
        for filter in [
            "#",
            "$hw/#",
            "$hw/events/device/+/twin/update/result",
            "$hw/events/device/lamp/#",
            "$hw/events/device/lamp/+/twin/update/result",
            "$hw/events/device/fan/twin/update/result",
            "$hw/events/device/lamp/fan/updated",
            "$hw/events/node/edge-1/membership/updated",
        ] {
            assert!(!lamp.subscribes(filter), "{filter}");
        }
    }

    #[test]
    fn filters_add_to_it_and_upload_is_a_right_of_its_own() {
        let grant = Grant { upload: true, publish: vec!["house/+/state".into()], subscribe: vec!["house/#".into()], ..Grant::default() };
        assert!(grant.publishes("$hw/events/upload/x") && grant.publishes("house/lamp/state") && !grant.publishes("house/lamp"));
        assert!(grant.subscribes("house/+/state") && grant.subscribes("house/#") && !grant.subscribes("#"));
        assert_eq!(Grant::default(), of(&[]));
        assert!(!Grant::default().publishes("x") && !Grant::default().subscribes("x"));
    }
}
