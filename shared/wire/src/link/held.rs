//! What a node says that it holds: the digest that it announces after connecting, in parts.

use std::collections::BTreeMap;
use std::fmt;

use model::{ResourceKey, ResourceKind};
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// Kinds of which a node says what it holds: those that the cloud's downstream half sends.
pub const HELD_KINDS: [ResourceKind; 3] = [ResourceKind::Pod, ResourceKind::ConfigMap, ResourceKind::Secret];
/// Most objects in one part.
pub const HELD_PART_MAX: usize = 1_024;
/// Most objects in a digest: a node keeps 10,000 at the most.
pub const HELD_MAX: usize = 10_000;
/// Longest uid or version, in bytes.
const TEXT_BYTES_MAX: usize = 128;

/// One object as its node holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldObject {
    /// Which object.
    pub resource: ResourceKey,
    /// `metadata.uid`, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// Its version in the cloud; compared for equality only.
    #[serde(rename = "resourceversion", default, skip_serializing_if = "Option::is_none")]
    pub resource_version: Option<String>,
}

/// A part of a digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldPart {
    /// Its number, from 0; 0 begins a new digest.
    pub part: u32,
    /// Whether it is the last.
    pub last: bool,
    /// At most [`HELD_PART_MAX`].
    #[serde(default, deserialize_with = "some_objects")]
    pub objects: Vec<HeldObject>,
}

/// Reads a list up to its limit and no further: a frame has room for hundreds of thousands.
fn some_objects<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<HeldObject>, D::Error> {
    struct Objects;
    impl<'de> Visitor<'de> for Objects {
        type Value = Vec<HeldObject>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of objects")
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut objects = Vec::new();
            while let Some(object) = list.next_element()? {
                objects.push(object);
                if objects.len() > HELD_PART_MAX {
                    return Err(Error::custom(format_args!("a part lists {}, at most {HELD_PART_MAX} are taken", objects.len())));
                }
            }
            Ok(objects)
        }
    }
    deserializer.deserialize_seq(Objects)
}

/// Why a part is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeldError {
    /// More than [`HELD_PART_MAX`].
    #[error("a part lists at most {HELD_PART_MAX} objects, this one lists {0}")]
    PartTooLong(usize),
    /// More than [`HELD_MAX`] in all.
    #[error("a node holds at most {HELD_MAX} objects")]
    TooMany,
    /// A part is missing before this one.
    #[error("part {said} came where part {expected} was expected")]
    Gap {
        /// Its number.
        said: u32,
        /// What was expected.
        expected: u32,
    },
    /// Names no object, or one that the cloud does not send.
    #[error("`{0}` is no object that a node is sent")]
    Kind(ResourceKey),
    /// An uid or a version that is none.
    #[error("uid or version of `{0}` is longer than {TEXT_BYTES_MAX} bytes")]
    Text(ResourceKey),
}

/// The parts of a digest; one at least.
pub fn parts_of(objects: Vec<HeldObject>) -> Vec<HeldPart> {
    let mut parts: Vec<HeldPart> = Vec::with_capacity(objects.len() / HELD_PART_MAX + 1);
    let mut rest = objects.into_iter().peekable();
    loop {
        let objects: Vec<HeldObject> = rest.by_ref().take(HELD_PART_MAX).collect();
        let (part, last) = (u32::try_from(parts.len()).unwrap_or(u32::MAX), rest.peek().is_none());
        parts.push(HeldPart { part, last, objects });
        if last {
            return parts;
        }
    }
}

/// What a node holds: a whole digest, or nothing of which that is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held(BTreeMap<ResourceKey, (Option<String>, Option<String>)>);

impl Held {
    /// Whether the node holds exactly this version of exactly this object.
    pub fn has(&self, key: &ResourceKey, uid: &str, resource_version: &str) -> bool {
        self.0.get(key).is_some_and(|(held_uid, held_version)| held_uid.as_deref() == Some(uid) && held_version.as_deref() == Some(resource_version))
    }

    /// Something of this key is on its way to the node: whatever the node says of it, it is not known what it will hold.
    pub fn unsure_of(&mut self, key: ResourceKey) {
        self.0.insert(key, (None, None));
    }

    /// What it holds, by key, each with its uid.
    pub fn objects(&self) -> impl Iterator<Item = (&ResourceKey, &str)> {
        self.0.iter().map(|(key, (uid, _))| (key, uid.as_deref().unwrap_or_default()))
    }

    /// How many objects.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<HeldObject> for Held {
    fn from_iter<I: IntoIterator<Item = HeldObject>>(objects: I) -> Self {
        Self(objects.into_iter().map(|object| (object.resource, (object.uid, object.resource_version))).collect())
    }
}

/// Puts the parts of a digest together.
#[derive(Clone, Debug, Default)]
pub struct Assembly {
    so_far: Vec<HeldObject>,
    next: u32,
}

impl Assembly {
    /// Takes a part; the digest when it was the last.
    ///
    /// # Errors
    /// [`HeldError`]; what was there of the digest is dropped.
    pub fn take(&mut self, part: HeldPart) -> Result<Option<Held>, HeldError> {
        if part.part == 0 {
            *self = Self::default();
        }
        let HeldPart { part, last, objects } = part;
        if let Err(error) = self.check(part, &objects) {
            *self = Self::default();
            return Err(error);
        }
        self.so_far.extend(objects);
        self.next += 1;
        Ok(last.then(|| std::mem::take(self).so_far.into_iter().collect()))
    }

    fn check(&self, part: u32, objects: &[HeldObject]) -> Result<(), HeldError> {
        if part != self.next {
            return Err(HeldError::Gap { said: part, expected: self.next });
        }
        if objects.len() > HELD_PART_MAX {
            return Err(HeldError::PartTooLong(objects.len()));
        }
        if self.so_far.len() + objects.len() > HELD_MAX {
            return Err(HeldError::TooMany);
        }
        for HeldObject { resource, uid, resource_version } in objects {
            if resource.name.is_none() || !HELD_KINDS.contains(&resource.kind) {
                return Err(HeldError::Kind(resource.clone()));
            }
            if [uid, resource_version].into_iter().flatten().any(|text| text.len() > TEXT_BYTES_MAX) {
                return Err(HeldError::Text(resource.clone()));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    fn object(n: usize) -> HeldObject {
        HeldObject { resource: format!("default/pod/p{n}").parse().unwrap(), uid: Some(format!("u{n}")), resource_version: Some("1".into()) }
    }

    #[test]
    fn parts_are_put_together_to_what_was_taken_apart() {
        for count in [0, 1, HELD_PART_MAX - 1, HELD_PART_MAX, HELD_PART_MAX + 1, HELD_MAX] {
            let objects: Vec<_> = (0..count).map(object).collect();
            let parts = parts_of(objects.clone());
            assert_eq!(parts.iter().filter(|part| part.last).count(), 1);
            let mut assembly = Assembly::default();
            let mut whole = parts.into_iter().filter_map(|part| assembly.take(part).unwrap());
            assert_eq!(whole.next(), Some(objects.into_iter().collect()));
        }
    }

    #[test]
    fn a_list_above_the_limit_is_read_no_further() {
        let text = |count: usize, rest: &str| {
            let objects: Vec<String> = (0..count).map(|n| format!(r#"{{"resource":"default/pod/p{n}"}}"#)).collect();
            format!(r#"{{"part":0,"last":true,"objects":[{}{rest}]}}"#, objects.join(","))
        };
        let read = |text: String| serde_json::from_str::<HeldPart>(&text).map_err(|error| error.to_string());
        assert_eq!(read(text(HELD_PART_MAX, "")).unwrap().objects.len(), HELD_PART_MAX);
        // What comes behind is not even JSON, and nobody finds out.
        let refused = read(text(HELD_PART_MAX + 1, ",}{")).unwrap_err();
        assert!(refused.contains("lists 1025, at most 1024 are taken"), "{refused}");
    }

    #[test]
    fn a_digest_with_a_gap_or_over_a_limit_is_refused_and_the_next_one_is_taken() {
        let part = |part, last, objects| HeldPart { part, last, objects };
        let mut assembly = Assembly::default();
        assert_eq!(assembly.take(part(1, true, vec![])), Err(HeldError::Gap { said: 1, expected: 0 }));
        assert_eq!(assembly.take(part(0, false, vec![object(1)])), Ok(None));
        assert_eq!(assembly.take(part(2, true, vec![])), Err(HeldError::Gap { said: 2, expected: 1 }));
        assert_eq!(assembly.take(part(1, true, vec![])), Err(HeldError::Gap { said: 1, expected: 0 }), "dropped as a whole");
        let many = (0..=HELD_PART_MAX).map(object).collect();
        assert_eq!(assembly.take(part(0, true, many)), Err(HeldError::PartTooLong(HELD_PART_MAX + 1)));
        for n in 0..9 {
            assert_eq!(assembly.take(part(n, false, (0..HELD_PART_MAX).map(object).collect())), Ok(None));
        }
        assert_eq!(assembly.take(part(9, false, (0..HELD_PART_MAX).map(object).collect())), Err(HeldError::TooMany));
        for key in ["default/pod", "default/node/n", "default/podstatus/p"] {
            let wrong = HeldObject { resource: key.parse().unwrap(), ..object(1) };
            assert!(matches!(assembly.take(part(0, true, vec![wrong])), Err(HeldError::Kind(_))), "{key}");
        }
        let long = HeldObject { uid: Some("x".repeat(TEXT_BYTES_MAX + 1)), ..object(1) };
        assert!(matches!(assembly.take(part(0, true, vec![long])), Err(HeldError::Text(_))));
        let held = assembly.take(part(0, true, vec![object(1)])).unwrap().unwrap();
        let key = object(1).resource;
        assert!(held.has(&key, "u1", "1") && !held.has(&key, "u1", "2") && !held.has(&key, "u2", "1"));
    }
}
