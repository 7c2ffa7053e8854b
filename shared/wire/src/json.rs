//! JSON that is carried, not understood; and the limits on JSON from outside.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// Deepest nesting of arrays and objects that is taken from outside; what `serde_json` can read back.
pub const DEPTH_MAX: usize = 120;

/// Is `text` nested deeper than `max`? Counts brackets outside of strings; the text need not be valid.
pub fn is_deeper_than(text: &[u8], max: usize) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in text {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'[' | b'{' => {
                depth += 1;
                if depth > max {
                    return true;
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

/// One JSON value as its text: cheap to clone, compared by text, written out as it came in.
///
/// `Debug` shows the length only, because the text may be a Secret.
#[derive(Clone)]
pub struct RawJson(Arc<RawValue>);

impl RawJson {
    /// The JSON of `value`.
    ///
    /// # Errors
    /// What its `Serialize` refuses, such as a map with keys that are no strings.
    pub fn from_value<T: Serialize + ?Sized>(value: &T) -> Result<Self, serde_json::Error> {
        serde_json::value::to_raw_value(value).map(|raw| Self(Arc::from(raw)))
    }

    /// Takes over a text that must be one JSON value.
    ///
    /// # Errors
    /// When it is not.
    pub fn from_text(text: String) -> Result<Self, serde_json::Error> {
        RawValue::from_string(text).map(|raw| Self(Arc::from(raw)))
    }

    /// A JSON string.
    pub fn from_str_value(text: &str) -> Self {
        Self::from_value(text).expect("a string always serialises")
    }

    /// `null`.
    pub fn null() -> Self {
        Self::from_value(&()).expect("null always serialises")
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        self.0.get()
    }

    /// Length of the text in bytes.
    pub fn len(&self) -> usize {
        self.as_str().len()
    }

    /// Never: a JSON value has at least one byte.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Is it `null`?
    pub fn is_null(&self) -> bool {
        self.as_str().trim() == "null"
    }

    /// Reads it as a `T`.
    ///
    /// # Errors
    /// When it is no `T`, or nested deeper than `serde_json` reads (128).
    pub fn to<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.as_str())
    }

    /// The text of a JSON string; `None` for every other value.
    pub fn as_string(&self) -> Option<String> {
        if !self.as_str().trim_start().starts_with('"') {
            return None;
        }
        self.to().ok()
    }
}

impl Default for RawJson {
    fn default() -> Self {
        Self::null()
    }
}

impl PartialEq for RawJson {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.as_str() == other.as_str()
    }
}

impl Eq for RawJson {}

impl fmt::Debug for RawJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RawJson({} bytes)", self.len())
    }
}

impl Serialize for RawJson {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for RawJson {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Box::<RawValue>::deserialize(deserializer).map(|raw| Self(Arc::from(raw)))
    }
}

/// A `T` that must stand there as a JSON object: serde's derived structs take an array of their fields as well, which
/// no KubeEdge does.
pub(crate) struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OnlyMap<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for OnlyMap<T> {
            type Value = Object<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }
        deserializer.deserialize_map(OnlyMap(PhantomData))
    }
}

/// Field that is an object, `null` or absent (with `default`).
pub(crate) fn object<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    Ok(Option::<Object<T>>::deserialize(deserializer)?.map(|object| object.0))
}

/// The same where absence is the default value.
pub(crate) fn object_or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    object(deserializer).map(Option::unwrap_or_default)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    #[test]
    fn a_value_is_written_out_as_it_came_in() {
        let text = r#"{"b": 1.50, "a":[ 1,2 ] ,"b":2}"#;
        let raw: RawJson = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&raw).unwrap(), text);
        assert_eq!(raw, RawJson::from_text(text.to_owned()).unwrap());
        assert_ne!(raw, RawJson::null());
    }

    #[test]
    fn only_a_json_string_has_a_string_in_it() {
        assert_eq!(RawJson::from_str_value("a\"b").as_string().as_deref(), Some("a\"b"));
        assert_eq!(RawJson::null().as_string(), None);
        assert_eq!(RawJson::from_text("7".into()).unwrap().as_string(), None);
    }

    #[test]
    fn debug_does_not_show_what_may_be_a_secret() {
        assert_eq!(format!("{:?}", RawJson::from_str_value("hunter2")), "RawJson(9 bytes)");
    }

    #[test]
    fn depth_counts_brackets_outside_of_strings() {
        assert!(!is_deeper_than(br#"{"a":"[[[[[[\"[[[["}"#, 1));
        assert!(is_deeper_than(b"[[", 1));
        assert!(!is_deeper_than(b"[][][][]", 1));
        assert!(is_deeper_than(&b"[".repeat(1 << 20), DEPTH_MAX));
    }
}
