//! ConfigMaps and Secrets as bytes by key.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use serde::Deserialize;

/// Most bytes in one ConfigMap or Secret (Kubernetes' own limit).
pub const OBJECT_BYTES_MAX: usize = 1024 * 1024;

/// Why a ConfigMap or Secret cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ObjectError {
    /// Not JSON of the expected form.
    #[error("the stored object cannot be read: {0}")]
    Form(String),
    /// A value that is not base64.
    #[error("key `{0}` is not base64")]
    Base64(String),
    /// More than [`OBJECT_BYTES_MAX`].
    #[error("the object has {0} bytes, at most {OBJECT_BYTES_MAX} are possible")]
    TooLarge(usize),
}

/// What a ConfigMap or Secret holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyedObject {
    /// Values by key; the keys are not yet checked for use as file names.
    pub data: BTreeMap<String, Vec<u8>>,
    /// Those of them that come from a ConfigMap's `binaryData`: for files only.
    pub binary: BTreeSet<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawObject {
    #[serde(default)]
    data: Option<BTreeMap<String, String>>,
    #[serde(default)]
    binary_data: Option<BTreeMap<String, String>>,
    #[serde(default)]
    string_data: Option<BTreeMap<String, String>>,
}

impl KeyedObject {
    /// Reads the JSON of a ConfigMap (`is_secret` false) or Secret.
    ///
    /// # Errors
    /// See [`ObjectError`]. The text of an error never contains a value.
    pub fn parse(is_secret: bool, json: &str) -> Result<Self, ObjectError> {
        let raw: RawObject = serde_json::from_str(json).map_err(|error| {
            // serde's words may quote the value at fault, so only the place is told.
            ObjectError::Form(format!("line {} column {}", error.line(), error.column()))
        })?;
        let (mut plain, mut encoded) = (raw.string_data.unwrap_or_default(), raw.binary_data.unwrap_or_default());
        match is_secret {
            true => encoded.extend(raw.data.unwrap_or_default()),
            false => plain.extend(raw.data.unwrap_or_default()),
        }
        let is_binary = |key: &&String| !is_secret && !plain.contains_key(*key);
        let binary = encoded.keys().filter(is_binary).cloned().collect();
        let mut data = BTreeMap::new();
        for (key, text) in encoded {
            let compact: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
            let bytes = base64::engine::general_purpose::STANDARD.decode(compact).map_err(|_| ObjectError::Base64(key.clone()))?;
            data.insert(key, bytes);
        }
        data.extend(plain.into_iter().map(|(key, text)| (key, text.into_bytes())));
        let bytes = data.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>();
        if bytes > OBJECT_BYTES_MAX {
            return Err(ObjectError::TooLarge(bytes));
        }
        Ok(Self { data, binary })
    }

    /// What an environment can have: of a ConfigMap the kubelet takes only `data`.
    pub fn variables(&self) -> impl Iterator<Item = (&String, &Vec<u8>)> {
        self.data.iter().filter(|(key, _)| !self.binary.contains(*key))
    }

    /// The value that an environment can have of this key.
    pub fn variable(&self, key: &str) -> Option<&Vec<u8>> {
        self.data.get(key).filter(|_| !self.binary.contains(key))
    }
}

/// The objects that a pod reads, as the store had them; `(is it a Secret, name)`.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    found: BTreeMap<(bool, String), Result<KeyedObject, ObjectError>>,
}

/// Why an object that a pod needs is not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// Neither in the store nor (yet) from the cloud.
    #[error("{kind} \"{name}\" not found")]
    Missing {
        /// `configmap` or `secret`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// There, and unusable.
    #[error("{kind} \"{name}\": {source}")]
    Unreadable {
        /// `configmap` or `secret`.
        kind: &'static str,
        /// Its name.
        name: String,
        /// Why.
        source: ObjectError,
    },
}

impl Objects {
    /// Adds one object.
    pub fn insert(&mut self, is_secret: bool, name: String, object: Result<KeyedObject, ObjectError>) {
        self.found.insert((is_secret, name), object);
    }

    /// The object, if the store has it.
    ///
    /// # Errors
    /// `Missing` or `Unreadable`.
    pub fn get(&self, is_secret: bool, name: &str) -> Result<&KeyedObject, LookupError> {
        let kind = if is_secret { "secret" } else { "configmap" };
        match self.found.get(&(is_secret, name.to_owned())) {
            None => Err(LookupError::Missing { kind, name: name.to_owned() }),
            Some(Err(source)) => Err(LookupError::Unreadable { kind, name: name.to_owned(), source: source.clone() }),
            Some(Ok(object)) => Ok(object),
        }
    }

    /// The object; `None` where it is optional and missing.
    ///
    /// # Errors
    /// As [`Objects::get`].
    pub fn get_optional(&self, is_secret: bool, name: &str, optional: bool) -> Result<Option<&KeyedObject>, LookupError> {
        match self.get(is_secret, name) {
            Err(LookupError::Missing { .. }) if optional => Ok(None),
            other => other.map(Some),
        }
    }
}
