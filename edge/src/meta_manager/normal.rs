//! The forms in which an object may come, brought to one: pure.

use model::{ObjectName, ResourceKey, ResourceKind};
use serde::Deserialize;
use serde_json::value::RawValue;
use wire::hub::RawJson;

/// Largest object that is kept, in bytes of JSON. A Kubernetes API server takes 3 MiB at most.
pub const OBJECT_BYTES_MAX: usize = 3 * 1024 * 1024;

/// Whether objects of this kind are kept at the edge.
pub fn is_kept(kind: ResourceKind) -> bool {
    matches!(kind, ResourceKind::Pod | ResourceKind::ConfigMap | ResourceKind::Secret | ResourceKind::Device | ResourceKind::DeviceModel)
}

/// Why a content is not an object that can be kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormError {
    /// Objects of this kind have no business here.
    #[error("objects of kind {0} are not kept at the edge")]
    Kind(ResourceKind),
    /// Neither an object nor a list of objects.
    #[error("the content of {0} is not an object")]
    NotAnObject(ResourceKey),
    /// A list with another number of objects than one (KubeEdge's text: `ConfigMap length from meta db is 2`).
    #[error("{kind} length is {count}, not 1")]
    Count {
        /// Which kind.
        kind: ResourceKind,
        /// How many there are.
        count: usize,
    },
    /// The object is another than its key says.
    #[error("the content of {key} names itself `{name}`")]
    Name {
        /// The key.
        key: ResourceKey,
        /// `metadata.name`.
        name: String,
    },
    /// An object of a list without a name.
    #[error("an object in the list {0} has no valid name")]
    Nameless(ResourceKey),
    /// Above [`OBJECT_BYTES_MAX`].
    #[error("{key} has {bytes} bytes, at most {OBJECT_BYTES_MAX} are kept")]
    TooLarge {
        /// The key.
        key: ResourceKey,
        /// Its size.
        bytes: usize,
    },
}

/// One object, ready to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Normal {
    /// Key with a name.
    pub key: ResourceKey,
    /// JSON text of the object.
    pub text: String,
    /// `metadata.uid`.
    pub uid: Option<String>,
    /// `metadata.resourceVersion`.
    pub resource_version: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Head {
    metadata: Option<Box<RawValue>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct HeadMetadata {
    name: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
}

/// Brings an object, a list of one, or (for a key without a name) a list to objects with keys. A list's elements may be
/// objects or, as KubeEdge 0.x has it, texts of objects.
///
/// # Errors
/// See [`FormError`].
pub fn normal(key: &ResourceKey, content: &RawJson) -> Result<Vec<Normal>, FormError> {
    if !is_kept(key.kind) {
        return Err(FormError::Kind(key.kind));
    }
    let not_an_object = || FormError::NotAnObject(key.clone());
    let texts: Vec<String> = if content.as_str().trim_start().starts_with('[') {
        let elements: Vec<Box<RawValue>> = serde_json::from_str(content.as_str()).map_err(|_| not_an_object())?;
        elements.iter().map(|element| serde_json::from_str::<String>(element.get()).unwrap_or_else(|_| element.get().to_owned())).collect()
    } else {
        vec![content.as_str().to_owned()]
    };
    if key.name.is_some() && texts.len() != 1 {
        return Err(FormError::Count { kind: key.kind, count: texts.len() });
    }
    texts.into_iter().map(|text| one(key, text)).collect()
}

fn one(key: &ResourceKey, text: String) -> Result<Normal, FormError> {
    if text.len() > OBJECT_BYTES_MAX {
        return Err(FormError::TooLarge { key: key.clone(), bytes: text.len() });
    }
    let read = |text: &str| -> Option<HeadMetadata> {
        // serde reads a struct from a list too, which is no object here.
        let is_object = |text: &str| text.trim_start().starts_with('{');
        let head: Head = serde_json::from_str(text).ok().filter(|_| is_object(text))?;
        match head.metadata {
            None => Some(HeadMetadata::default()),
            Some(metadata) => serde_json::from_str(metadata.get()).ok().filter(|_| is_object(metadata.get())),
        }
    };
    let HeadMetadata { name, uid, resource_version } = read(&text).ok_or_else(|| FormError::NotAnObject(key.clone()))?;
    let key = match (&key.name, name) {
        (Some(wanted), Some(found)) if !found.is_empty() && wanted.as_str() != found => {
            return Err(FormError::Name { key: key.clone(), name: found.chars().take(64).flat_map(char::escape_debug).collect() });
        }
        (Some(_), _) => key.clone(),
        (None, found) => {
            let name = ObjectName::new(found.as_deref().unwrap_or_default()).map_err(|_| FormError::Nameless(key.clone()))?;
            ResourceKey::object(key.namespace.clone(), key.kind, name)
        }
    };
    let said = |text: Option<String>| text.filter(|text| !text.is_empty());
    Ok(Normal { key, text, uid: said(uid), resource_version: said(resource_version) })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    fn read(key: &str, content: &str) -> Result<Vec<Normal>, FormError> {
        normal(&key.parse().unwrap(), &RawJson::from_text(content.into()).unwrap())
    }

    #[test]
    fn an_object_a_list_of_one_and_a_list_of_texts_are_the_same() {
        let object = r#"{"metadata":{"name":"cfg","uid":"u","resourceVersion":"7"},"data":{"a":"1"}}"#;
        let plain = read("default/configmap/cfg", object).unwrap();
        assert_eq!((plain[0].uid.as_deref(), plain[0].resource_version.as_deref(), plain[0].text.as_str()), (Some("u"), Some("7"), object));
        assert_eq!(read("default/configmap/cfg", &format!("[{object}]")).unwrap(), plain);
        let quoted = serde_json::to_string(&[object]).unwrap();
        assert_eq!(read("default/configmap/cfg", &quoted).unwrap(), plain);
        let listed = read("default/configmap", &format!("[{object}]")).unwrap();
        assert_eq!(listed, plain);
        assert_eq!(read("default/pod", "[]").unwrap(), []);
    }

    #[test]
    fn what_cannot_be_kept_is_refused_with_the_reason() {
        for (key, content, want) in [
            ("default/configmap/cfg", "[]", "configmap length is 0, not 1"),
            ("default/secret/s", "[{},{}]", "secret length is 2, not 1"),
            ("default/pod/web", "\"OK\"", "the content of default/pod/web is not an object"),
            ("default/pod/web", "null", "the content of default/pod/web is not an object"),
            ("default/pod/web", "[[1]]", "the content of default/pod/web is not an object"),
            ("default/pod/web", r#"{"metadata":[]}"#, "the content of default/pod/web is not an object"),
            ("default/pod/web", r#"{"metadata":{"name":"other"}}"#, "the content of default/pod/web names itself `other`"),
            ("default/pod", r#"[{"metadata":{"name":"../x"}}]"#, "an object in the list default/pod has no valid name"),
            ("default/pod", "{}", "an object in the list default/pod has no valid name"),
            ("default/lease/l", "{}", "objects of kind lease are not kept at the edge"),
            ("default/podstatus/web", "{}", "objects of kind podstatus are not kept at the edge"),
        ] {
            assert_eq!(read(key, content).unwrap_err().to_string(), want);
        }
        let huge = format!(r#"{{"a":"{}"}}"#, "x".repeat(OBJECT_BYTES_MAX));
        assert!(matches!(read("default/configmap/cfg", &huge), Err(FormError::TooLarge { .. })));
    }
}
