//! Which form of a device's topics its listeners use.
//!
//! A device of the namespace `default` has two forms: `…/device/lamp/…` (KubeEdge to 1.16) and
//! `…/device/default/lamp/…` (since 1.17). What is published for it goes out in both, until its mapper was heard to use
//! the short one only: then the second message, which nobody would hear, is saved.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use model::DeviceId;
use wire::mqtt::Topic;

/// Devices remembered. Beyond it both forms are published.
const DEVICES_MAX: usize = 16_384;

/// How topics of the long form begin; a device called `default` has such topics in the short form as well.
const LONG: &str = "$hw/events/device/default/";

/// The forms heard so far; shared by the border, which hears, and the actor, which publishes.
#[derive(Debug, Default)]
pub struct Forms(Mutex<HashMap<DeviceId, Heard>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    ShortOnly,
    Long,
}

impl Forms {
    /// Notes the form in which a topic arrived.
    pub fn hear(&self, topic: &Topic, text: &str) {
        let Some(device) = topic.device().filter(|device| !device.as_str().contains('/')) else { return };
        let is_long = text.starts_with(LONG) && topic.long_form().is_some_and(|form| form == text);
        let heard = if is_long { Heard::Long } else { Heard::ShortOnly };
        let mut forms = self.lock();
        if let Some(known) = forms.get_mut(device) {
            if *known == Heard::ShortOnly {
                *known = heard;
            }
        } else if forms.len() < DEVICES_MAX {
            forms.insert(device.clone(), heard);
        }
    }

    /// The second topic to publish on, if somebody may listen there.
    pub fn second(&self, topic: &Topic) -> Option<String> {
        let device = topic.device()?;
        if self.lock().get(device) == Some(&Heard::ShortOnly) {
            return None;
        }
        topic.long_form()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<DeviceId, Heard>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    fn heard(forms: &Forms, text: &str) {
        forms.hear(&Topic::parse(text).unwrap(), text);
    }

    fn second(forms: &Forms, text: &str) -> Option<String> {
        forms.second(&Topic::parse(text).unwrap())
    }

    #[test]
    fn until_a_mapper_was_heard_both_forms_are_published() {
        let forms = Forms::default();
        let result = "$hw/events/device/lamp/twin/update/result";
        let long = Some("$hw/events/device/default/lamp/twin/update/result".to_owned());
        assert_eq!(second(&forms, result), long);
        heard(&forms, "$hw/events/device/lamp/twin/update");
        assert_eq!(second(&forms, result), None);
        heard(&forms, "$hw/events/device/default/lamp/twin/get");
        assert_eq!(second(&forms, result), long);
        heard(&forms, "$hw/events/device/lamp/twin/update");
        assert_eq!(second(&forms, result), long, "who used the long form once keeps it");
    }

    #[test]
    fn a_device_of_another_namespace_and_a_topic_of_no_device_have_one_form() {
        let forms = Forms::default();
        assert_eq!(second(&forms, "$hw/events/device/house/lamp/twin/get/result"), None);
        assert_eq!(second(&forms, "$hw/events/node/n1/membership/updated"), None);
        heard(&forms, "$hw/events/device/house/lamp/twin/get");
        assert!(forms.lock().is_empty());
    }

    #[test]
    fn a_device_that_is_called_default_is_not_taken_for_the_long_form() {
        let forms = Forms::default();
        heard(&forms, "$hw/events/device/default/twin/get");
        assert_eq!(second(&forms, "$hw/events/device/default/twin/get/result"), None);
    }

    #[test]
    fn the_memory_for_devices_is_bounded() {
        let forms = Forms::default();
        for number in 0..DEVICES_MAX + 10 {
            heard(&forms, &format!("$hw/events/device/d{number}/twin/get"));
        }
        assert_eq!(forms.lock().len(), DEVICES_MAX);
        let last = format!("$hw/events/device/d{}/twin/get/result", DEVICES_MAX + 9);
        assert!(second(&forms, &last).is_some());
    }
}
