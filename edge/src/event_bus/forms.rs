//! Which form of a device's topics is published (`mqtt.device-topics`).
//!
//! A device of the namespace `default` has two forms: `…/device/lamp/…` (KubeEdge to 1.16) and
//! `…/device/default/lamp/…` (since 1.17). Both are always understood. A device of another namespace has the long form only.
//!
//! | value | what is published |
//! |---|---|
//! | `auto` | the form in which this device's mapper speaks; both until it has spoken |
//! | `short` | the short form |
//! | `long` | the long form |
//! | `both` | both, always |
//!
//! `auto` lets mappers of either age work beside each other, and every message goes out once as soon as a mapper was heard.
//! Two cases need another value: a mapper that only listens is served in both forms for ever (`short` or `long` ends that),
//! and one that listens in the form in which its device is never addressed is not heard of (`both`).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use model::DeviceId;
use wire::mqtt::Topic;

use crate::config::DeviceTopics;

/// Devices remembered. Beyond it both forms are published.
const DEVICES_MAX: usize = 16_384;

/// A form that was silent for so long while the other one was spoken is in use no more: the mapper was upgraded.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(24 * 3600);

/// How topics of the long form begin; a device called `default` has such topics in the short form as well.
const LONG: &str = "$hw/events/device/default/";

/// The rule, and the forms heard so far; shared by the border, which hears, and the actor, which publishes.
#[derive(Debug)]
pub struct Forms {
    rule: DeviceTopics,
    heard: Mutex<HashMap<DeviceId, Heard>>,
}

/// When each form was heard last.
#[derive(Clone, Copy, Debug, Default)]
struct Heard {
    short: Option<Instant>,
    long: Option<Instant>,
}

impl Heard {
    /// Whether the short and the long form are in use.
    fn in_use(self) -> (bool, bool) {
        match (self.short, self.long) {
            (Some(short), Some(long)) => {
                (long.saturating_duration_since(short) < FORGOTTEN_AFTER, short.saturating_duration_since(long) < FORGOTTEN_AFTER)
            }
            (None, None) => (true, true),
            (short, long) => (short.is_some(), long.is_some()),
        }
    }
}

impl Forms {
    /// Nothing was heard yet.
    pub fn new(rule: DeviceTopics) -> Self {
        Self { rule, heard: Mutex::default() }
    }

    /// Notes the form in which a topic arrived.
    pub fn hear(&self, topic: &Topic, text: &str) {
        if self.rule == DeviceTopics::Auto {
            self.hear_at(topic, text, Instant::now());
        }
    }

    fn hear_at(&self, topic: &Topic, text: &str, at: Instant) {
        let Some(device) = topic.device().filter(|device| !device.as_str().contains('/')) else { return };
        let is_long = text.starts_with(LONG) && topic.long_form().is_some_and(|form| form == text);
        let mut forms = self.lock();
        if !forms.contains_key(device) {
            if forms.len() >= DEVICES_MAX {
                return;
            }
            forms.insert(device.clone(), Heard::default());
        }
        if let Some(heard) = forms.get_mut(device) {
            let form = if is_long { &mut heard.long } else { &mut heard.short };
            *form = Some(at);
        }
    }

    /// The topic names to publish on: one, or a second one for whoever may listen there.
    pub fn names(&self, topic: &Topic) -> (String, Option<String>) {
        let Some(long) = topic.long_form() else { return (topic.to_string(), None) };
        let (short_wanted, long_wanted) = match self.rule {
            DeviceTopics::Short => (true, false),
            DeviceTopics::Long => (false, true),
            DeviceTopics::Both => (true, true),
            DeviceTopics::Auto => topic.device().and_then(|device| self.lock().get(device).copied()).unwrap_or_default().in_use(),
        };
        match (short_wanted, long_wanted) {
            (false, _) => (long, None),
            (true, second) => (topic.to_string(), second.then_some(long)),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<DeviceId, Heard>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    const SHORT_GET: &str = "$hw/events/device/lamp/twin/get";
    const LONG_GET: &str = "$hw/events/device/default/lamp/twin/get";
    const SHORT: &str = "$hw/events/device/lamp/twin/update/result";
    const LONG_RESULT: &str = "$hw/events/device/default/lamp/twin/update/result";

    fn auto() -> Forms {
        Forms::new(DeviceTopics::Auto)
    }

    fn heard(forms: &Forms, text: &str) {
        forms.hear(&Topic::parse(text).unwrap(), text);
    }

    fn names(forms: &Forms, text: &str) -> Vec<String> {
        let (first, second) = forms.names(&Topic::parse(text).unwrap());
        std::iter::once(first).chain(second).collect()
    }

    #[test]
    fn auto_publishes_both_forms_until_a_mapper_was_heard_and_then_each_form_that_is_spoken() {
        for (spoken, expected) in [
            (vec![], vec![SHORT, LONG_RESULT]),
            (vec![SHORT_GET], vec![SHORT]),
            (vec![LONG_GET], vec![LONG_RESULT]),
            (vec![SHORT_GET, LONG_GET], vec![SHORT, LONG_RESULT]),
            (vec![LONG_GET, SHORT_GET], vec![SHORT, LONG_RESULT]),
        ] {
            let forms = auto();
            spoken.iter().for_each(|text| heard(&forms, text));
            assert_eq!(names(&forms, SHORT), expected, "{spoken:?}");
            assert_eq!(names(&forms, LONG_RESULT), expected, "{spoken:?}");
        }
    }

    #[test]
    fn the_other_values_do_not_depend_on_what_is_heard() {
        for (rule, expected) in
            [(DeviceTopics::Short, vec![SHORT]), (DeviceTopics::Long, vec![LONG_RESULT]), (DeviceTopics::Both, vec![SHORT, LONG_RESULT])]
        {
            let forms = Forms::new(rule);
            assert_eq!(names(&forms, SHORT), expected);
            heard(&forms, SHORT_GET);
            assert_eq!(names(&forms, SHORT), expected);
            heard(&forms, LONG_GET);
            assert_eq!(names(&forms, SHORT), expected);
        }
    }

    #[test]
    fn a_mapper_that_was_upgraded_is_served_in_its_new_form_alone_after_a_day() {
        let (forms, start) = (auto(), Instant::now());
        let hear = |text: &str, at| forms.hear_at(&Topic::parse(text).unwrap(), text, at);
        hear(SHORT_GET, start);
        hear(LONG_GET, start + FORGOTTEN_AFTER - Duration::from_secs(1));
        assert_eq!(names(&forms, SHORT), [SHORT, LONG_RESULT]);
        hear(LONG_GET, start + FORGOTTEN_AFTER);
        assert_eq!(names(&forms, SHORT), [LONG_RESULT]);
        hear(SHORT_GET, start + FORGOTTEN_AFTER * 3);
        assert_eq!(names(&forms, SHORT), [SHORT], "and back again");
    }

    #[test]
    fn a_device_of_another_namespace_and_a_topic_of_no_device_have_one_form_whatever_the_value() {
        for rule in [DeviceTopics::Auto, DeviceTopics::Short, DeviceTopics::Long, DeviceTopics::Both] {
            let forms = Forms::new(rule);
            for topic in ["$hw/events/device/house/lamp/twin/get/result", "$hw/events/node/n1/membership/updated", "any/topic"] {
                assert_eq!(names(&forms, topic), [topic]);
            }
            heard(&forms, "$hw/events/device/house/lamp/twin/get");
            assert!(forms.lock().is_empty());
        }
    }

    #[test]
    fn a_device_that_is_called_default_is_not_taken_for_the_long_form() {
        let forms = auto();
        heard(&forms, "$hw/events/device/default/twin/get");
        assert_eq!(names(&forms, "$hw/events/device/default/twin/get/result"), ["$hw/events/device/default/twin/get/result"]);
    }

    #[test]
    fn the_memory_for_devices_is_bounded() {
        let forms = auto();
        for number in 0..DEVICES_MAX + 10 {
            heard(&forms, &format!("$hw/events/device/d{number}/twin/get"));
        }
        assert_eq!(forms.lock().len(), DEVICES_MAX);
        let last = format!("$hw/events/device/d{}/twin/get/result", DEVICES_MAX + 9);
        assert_eq!(names(&forms, &last).len(), 2);
    }
}
