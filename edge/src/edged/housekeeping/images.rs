//! Which images may go, and when each was used: pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;

use super::super::runtime::Image;

/// When images were seen and used. In memory: after a restart of the daemon every image counts as just come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    images: BTreeMap<String, Known>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    first_seen: Timestamp,
    last_used: Option<Timestamp>,
}

impl History {
    /// Takes in which images are here; those that are gone are forgotten.
    pub fn listed(&mut self, images: &[Image], now: Timestamp) {
        let here: BTreeSet<&str> = images.iter().map(|image| image.id.as_str()).collect();
        self.images.retain(|id, _| here.contains(id.as_str()));
        for id in here {
            self.images.entry(id.to_owned()).or_insert(Known { first_seen: now, last_used: None });
        }
    }

    /// Containers have these images now.
    pub fn used<'a>(&mut self, ids: impl IntoIterator<Item = &'a str>, now: Timestamp) {
        for id in ids {
            if let Some(known) = self.images.get_mut(id) {
                known.last_used = Some(now);
            }
        }
    }

    /// Images that may be removed, in the order in which they are: the one that was not used for the longest time first, then
    /// the one that came first. Not one of `kept` (a container has it, or a pod wants it), not one that `is_spared` names, and
    /// not one that came less than `age` ago.
    pub fn removable(
        &self,
        images: &[Image],
        kept: &BTreeSet<String>,
        is_spared: impl Fn(&str) -> bool,
        age: Duration,
        now: Timestamp,
    ) -> Vec<String> {
        let mut found: Vec<(Option<Timestamp>, Timestamp, &str)> = Vec::new();
        for image in images {
            // One that was not listed before has just come.
            let Some(known) = self.images.get(&image.id) else { continue };
            let is_old = known.first_seen <= now && now.duration_since(known.first_seen).unsigned_abs() >= age;
            if is_old && !kept.contains(&image.id) && !image.names.iter().any(|name| is_spared(name)) {
                found.push((known.last_used, known.first_seen, &image.id));
            }
        }
        found.sort_unstable();
        found.into_iter().map(|(_, _, id)| id.to_owned()).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    const AGE: Duration = Duration::from_secs(120);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn image(id: &str) -> Image {
        Image { id: id.into(), names: vec![format!("{id}:1")], ..Image::default() }
    }

    fn images(ids: &[&str]) -> Vec<Image> {
        ids.iter().map(|id| image(id)).collect()
    }

    fn removable(history: &History, ids: &[&str], kept: &[&str], second: i64) -> Vec<String> {
        let kept = kept.iter().map(|id| (*id).to_owned()).collect();
        history.removable(&images(ids), &kept, |name| name.starts_with("skep-pause"), AGE, at(second))
    }

    #[test]
    fn the_image_that_was_not_used_for_the_longest_time_goes_first() {
        let mut history = History::default();
        history.listed(&images(&["c", "a", "b"]), at(0));
        history.listed(&images(&["c", "a", "b", "late"]), at(10));
        history.used(["a", "gone"], at(50));
        history.used(["b"], at(40));
        // Never used before used, among those by age, then by name.
        assert_eq!(removable(&history, &["a", "b", "c", "late"], &[], 1000), ["c", "late", "b", "a"]);
    }

    #[test]
    fn what_is_used_or_wanted_or_spared_or_young_stays() {
        let mut history = History::default();
        let all = ["old", "used", "skep-pause", "young"];
        history.listed(&images(&all[..3]), at(0));
        history.listed(&images(&all), at(100));
        assert_eq!(removable(&history, &all, &["used"], 119), [] as [&str; 0]);
        assert_eq!(removable(&history, &all, &["used"], 120), ["old"]);
        assert_eq!(removable(&history, &all, &["used"], 220), ["old", "young"]);
        assert_eq!(removable(&history, &["unheard-of"], &[], 220), [] as [&str; 0]);
        // The clock was set back.
        assert_eq!(removable(&history, &all, &[], -5), [] as [&str; 0]);
    }

    #[test]
    fn an_image_that_went_and_came_again_has_just_come() {
        let mut history = History::default();
        history.listed(&images(&["a"]), at(0));
        history.listed(&[], at(200));
        history.listed(&images(&["a"]), at(210));
        assert_eq!(removable(&history, &["a"], &[], 300), [] as [&str; 0]);
        assert_eq!(removable(&history, &["a"], &[], 330), ["a"]);
        assert_eq!(history.images.len(), 1);
    }
}
