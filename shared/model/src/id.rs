//! Names that are always valid: whoever holds one need not check it again.
//!
//! | type | rule | limit |
//! |---|---|---|
//! | [`DeviceId`] | one or two MQTT topic levels, `default/x` is `x` | 253 bytes a level |
//! | [`NodeName`], [`ObjectName`] | RFC 1123 subdomain (Kubernetes) | 253 bytes |
//! | [`Namespace`] | RFC 1123 label (Kubernetes) | 63 bytes |
//! | [`PropertyName`] | `[a-zA-Z0-9-_.,:/@#]` (KubeEdge twin key) | 128 bytes |
//! | [`AttributeName`] | any text without control characters | 256 bytes |

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Namespace that a device id without one belongs to.
pub const DEFAULT_NAMESPACE: &str = "default";
/// Longest level of a device id, in bytes.
pub const DEVICE_ID_LEVEL_BYTES_MAX: usize = 253;
/// Longest RFC 1123 subdomain, in bytes.
pub const SUBDOMAIN_BYTES_MAX: usize = 253;
/// Longest RFC 1123 label, in bytes.
pub const LABEL_BYTES_MAX: usize = 63;
/// Longest name of a twin property, in bytes (KubeEdge: key regex `{1,128}`).
pub const PROPERTY_NAME_BYTES_MAX: usize = 128;
/// Longest name of a device attribute, in bytes. KubeEdge has no limit; this is ours.
pub const ATTRIBUTE_NAME_BYTES_MAX: usize = 256;

/// A text that is not a valid name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a {kind}: {reason}")]
pub struct NameError {
    /// What it should have been, as in "device id".
    pub kind: &'static str,
    /// The refused text, cut to 64 characters and with control characters escaped.
    pub text: String,
    /// Which rule it breaks.
    pub reason: &'static str,
}

impl NameError {
    fn new(kind: &'static str, text: &str, reason: &'static str) -> Self {
        let text = text.chars().take(64).flat_map(char::escape_debug).collect();
        Self { kind, text, reason }
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $normalise:path) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks `text` and takes it over.
            ///
            /// # Errors
            /// [`NameError`] with the broken rule.
            pub fn new(text: &str) -> Result<Self, NameError> {
                match $normalise(text) {
                    Ok(canonical) => Ok(Self(Arc::from(canonical))),
                    Err(reason) => Err(NameError::new($kind, text, reason)),
                }
            }

            /// The name as text, in its canonical form.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl TryFrom<&str> for $name {
            type Error = NameError;
            fn try_from(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::new(&text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.as_str().to_owned()
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::new(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

name!(
    /// Identity of a device: `name`, or `namespace/name` (KubeEdge since 1.17).
    ///
    /// `default/name` and `name` are the same device; the canonical form is the short one. Each level stands in an
    /// MQTT topic, so it has no `/`, no wildcard and no control character.
    DeviceId,
    "device id",
    device_id
);
name!(
    /// Name of a Kubernetes node: RFC 1123 subdomain.
    NodeName,
    "node name",
    subdomain
);
name!(
    /// Name of a Kubernetes object: RFC 1123 subdomain.
    ObjectName,
    "object name",
    subdomain
);
name!(
    /// Kubernetes namespace: RFC 1123 label.
    Namespace,
    "namespace",
    label
);
name!(
    /// Name of a twin property: 1–128 bytes of `[a-zA-Z0-9-_.,:/@#]` (KubeEdge `twin/update` validation).
    PropertyName,
    "twin property name",
    property
);
name!(
    /// Name of a device attribute: 1–256 bytes without control characters.
    ///
    /// KubeEdge checks nothing here, so the alphabet is left open.
    AttributeName,
    "attribute name",
    attribute
);

impl DeviceId {
    /// Namespace of the device, `default` when the id has one level.
    pub fn namespace(&self) -> &str {
        self.0.split_once('/').map_or(DEFAULT_NAMESPACE, |(namespace, _)| namespace)
    }

    /// Name of the device within its namespace.
    pub fn name(&self) -> &str {
        self.0.split_once('/').map_or(&self.0, |(_, name)| name)
    }

    /// The device `name` of `namespace`.
    ///
    /// # Errors
    /// [`NameError`] when one of the two is no valid level.
    pub fn in_namespace(namespace: &str, name: &str) -> Result<Self, NameError> {
        Self::new(&format!("{namespace}/{name}"))
    }
}

impl Namespace {
    /// The namespace `default`.
    pub fn default_namespace() -> Self {
        Self(Arc::from(DEFAULT_NAMESPACE))
    }
}

impl Default for Namespace {
    fn default() -> Self {
        Self::default_namespace()
    }
}

/// Is `byte` of the alphabet of twin keys and values, `[a-zA-Z0-9-_.,:/@#]`?
pub(crate) fn of_twin_alphabet(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.,:/@#".contains(&byte)
}

fn device_id(text: &str) -> Result<&str, &'static str> {
    let canonical = match text.split_once('/') {
        None => text,
        Some((namespace, name)) => {
            level(namespace)?;
            if namespace == DEFAULT_NAMESPACE { name } else { text }
        }
    };
    level(canonical.rsplit_once('/').map_or(canonical, |(_, name)| name))?;
    if text.bytes().filter(|byte| *byte == b'/').count() > 1 {
        return Err("it has more than two levels");
    }
    Ok(canonical)
}

fn level(text: &str) -> Result<(), &'static str> {
    if text.is_empty() {
        return Err("a level is empty");
    }
    if text.len() > DEVICE_ID_LEVEL_BYTES_MAX {
        return Err("a level is longer than 253 bytes");
    }
    if text.contains(['+', '#']) {
        return Err("it has an MQTT wildcard");
    }
    if text.contains(char::is_control) {
        return Err("it has a control character");
    }
    Ok(())
}

fn subdomain(text: &str) -> Result<&str, &'static str> {
    if text.is_empty() {
        return Err("it is empty");
    }
    if text.len() > SUBDOMAIN_BYTES_MAX {
        return Err("it is longer than 253 bytes");
    }
    text.split('.').try_for_each(dns_label)?;
    Ok(text)
}

fn label(text: &str) -> Result<&str, &'static str> {
    if text.len() > LABEL_BYTES_MAX {
        return Err("it is longer than 63 bytes");
    }
    dns_label(text)?;
    Ok(text)
}

fn dns_label(text: &str) -> Result<(), &'static str> {
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return Err("it is empty or has an empty part");
    };
    if !bytes.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-') {
        return Err("it has other characters than a-z, 0-9, `-` and `.`");
    }
    if *first == b'-' || *last == b'-' {
        return Err("a part begins or ends with `-`");
    }
    Ok(())
}

fn property(text: &str) -> Result<&str, &'static str> {
    if text.is_empty() {
        return Err("it is empty");
    }
    if text.len() > PROPERTY_NAME_BYTES_MAX {
        return Err("it is longer than 128 bytes");
    }
    if !text.bytes().all(of_twin_alphabet) {
        return Err("it has other characters than letters, digits and - _ . , : / @ #");
    }
    Ok(text)
}

fn attribute(text: &str) -> Result<&str, &'static str> {
    if text.is_empty() {
        return Err("it is empty");
    }
    if text.len() > ATTRIBUTE_NAME_BYTES_MAX {
        return Err("it is longer than 256 bytes");
    }
    if text.contains(char::is_control) {
        return Err("it has a control character");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    #[test]
    fn a_device_id_of_the_default_namespace_is_the_short_one() {
        assert_eq!(DeviceId::new("default/lamp").unwrap(), DeviceId::new("lamp").unwrap());
        assert_eq!(DeviceId::new("default/lamp").unwrap().as_str(), "lamp");
        let house = DeviceId::new("house/lamp").unwrap();
        assert_eq!((house.namespace(), house.name()), ("house", "lamp"));
        let short = DeviceId::new("lamp").unwrap();
        assert_eq!((short.namespace(), short.name()), ("default", "lamp"));
        assert_eq!(DeviceId::in_namespace("default", "lamp").unwrap(), short);
    }

    #[test]
    fn a_device_named_default_keeps_its_name() {
        assert_eq!(DeviceId::new("default").unwrap().as_str(), "default");
        assert_eq!(DeviceId::new("default/default").unwrap().as_str(), "default");
    }

    #[test]
    fn a_device_id_that_cannot_stand_in_a_topic_is_refused() {
        let long = "x".repeat(254);
        for text in ["", "/", "a/", "/a", "a/b/c", "default/a/b", "a+", "#", "a/#", "a\0b", "a\nb", &long, &format!("a/{long}")] {
            assert!(DeviceId::new(text).is_err(), "{text:?}");
        }
        let level = "x".repeat(253);
        assert!(DeviceId::new(&format!("{level}/{level}")).is_ok());
    }

    #[test]
    fn kubernetes_names_follow_rfc_1123() {
        for text in ["edge-1", "a.b.c", "0", &"a".repeat(253)] {
            assert!(NodeName::new(text).is_ok(), "{text:?}");
        }
        for text in ["", "A", "a_b", "-a", "a-", "a..b", ".a", "a.", "a/b", "ä", "a b", &"a".repeat(254)] {
            assert!(NodeName::new(text).is_err(), "{text:?}");
            assert!(ObjectName::new(text).is_err(), "{text:?}");
        }
        assert!(Namespace::new(&"a".repeat(63)).is_ok());
        for text in ["", "a.b", &"a".repeat(64)] {
            assert!(Namespace::new(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_property_name_has_the_alphabet_and_length_of_kubeedge() {
        assert!(PropertyName::new(&"a".repeat(128)).is_ok());
        assert!(PropertyName::new("aZ09-_.,:/@#").is_ok());
        for text in ["", "a b", "ä", "a\0", "a+", &"a".repeat(129)] {
            assert!(PropertyName::new(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_refusal_says_what_and_why_and_is_short() {
        let error = NodeName::new(&"A\n".repeat(500)).unwrap_err();
        assert!(error.to_string().contains("is not a node name: "), "{error}");
        assert!(error.text.len() < 256 && !error.text.contains('\n'));
    }

    #[test]
    fn names_travel_as_plain_strings_and_are_checked_on_the_way_in() {
        let id: DeviceId = serde_json::from_str("\"default/lamp\"").unwrap();
        assert_eq!(serde_json::to_string(&id).unwrap(), "\"lamp\"");
        assert!(serde_json::from_str::<DeviceId>("\"a/b/c\"").is_err());
        assert!(serde_json::from_str::<NodeName>("7").is_err());
    }
}
