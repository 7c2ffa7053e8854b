//! A Kubernetes object as JSON, with access to its metadata.

use serde_json::{Map, Value, json};

/// A JSON object that has a `metadata` object.
#[derive(Clone, Debug, PartialEq)]
pub struct Object(Value);

impl Object {
    /// Takes a JSON value; a missing or null `metadata` becomes an empty one.
    ///
    /// # Errors
    /// Gives a sentence for the client when the value or its metadata is not an object.
    pub fn new(mut value: Value) -> Result<Self, String> {
        let Value::Object(map) = &mut value else {
            return Err("the body of the request must be a JSON object".to_owned());
        };
        match map.get("metadata") {
            None | Some(Value::Null) => {
                map.insert("metadata".to_owned(), json!({}));
            }
            Some(Value::Object(_)) => {}
            Some(_) => return Err("metadata must be a JSON object".to_owned()),
        }
        Ok(Self(value))
    }

    /// The whole object.
    pub fn value(&self) -> &Value {
        &self.0
    }

    /// Gives the JSON away.
    pub fn into_value(self) -> Value {
        self.0
    }

    /// The text that is stored and answered.
    pub fn to_text(&self) -> String {
        self.0.to_string()
    }

    /// The fields of the object.
    pub fn fields(&self) -> &Map<String, Value> {
        self.0.as_object().expect("checked in Object::new")
    }

    /// The fields of the object, to change; `metadata` must stay an object.
    pub fn fields_mut(&mut self) -> &mut Map<String, Value> {
        self.0.as_object_mut().expect("checked in Object::new")
    }

    /// `metadata`.
    pub fn meta(&self) -> &Map<String, Value> {
        self.0["metadata"].as_object().expect("checked in Object::new")
    }

    /// `metadata`, to change.
    pub fn meta_mut(&mut self) -> &mut Map<String, Value> {
        self.0["metadata"].as_object_mut().expect("checked in Object::new")
    }

    /// A string of the metadata, empty when absent.
    pub fn meta_str(&self, field: &str) -> &str {
        self.meta().get(field).and_then(Value::as_str).unwrap_or_default()
    }

    /// `metadata.name`.
    pub fn name(&self) -> &str {
        self.meta_str("name")
    }

    /// `metadata.namespace`, empty for kinds without one.
    pub fn namespace(&self) -> &str {
        self.meta_str("namespace")
    }

    /// `metadata.uid`.
    pub fn uid(&self) -> &str {
        self.meta_str("uid")
    }

    /// `metadata.resourceVersion` as the number that this API gives out.
    pub fn resource_version(&self) -> &str {
        self.meta_str("resourceVersion")
    }

    /// Whether a deletion has begun.
    pub fn is_deleting(&self) -> bool {
        !self.meta_str("deletionTimestamp").is_empty()
    }

    /// `metadata.finalizers`, or nothing.
    pub fn finalizers(&self) -> &[Value] {
        self.meta().get("finalizers").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
    }

    /// The uids in `metadata.ownerReferences`.
    pub fn owners(&self) -> Vec<&str> {
        let owners = self.meta().get("ownerReferences").and_then(Value::as_array);
        owners.into_iter().flatten().filter_map(|owner| owner["uid"].as_str()).collect()
    }

    /// A string at a JSON pointer, empty when absent.
    pub fn str_at(&self, pointer: &str) -> &str {
        self.0.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    /// A list at a JSON pointer, or nothing.
    pub fn list_at(&self, pointer: &str) -> &[Value] {
        self.0.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
    }

    /// The object below `field`, created when it is missing or not an object.
    pub fn section_mut(&mut self, field: &str) -> &mut Map<String, Value> {
        section(self.fields_mut(), field)
    }
}

/// The object below `field`, created when it is missing or not an object.
pub fn section<'a>(map: &'a mut Map<String, Value>, field: &str) -> &'a mut Map<String, Value> {
    let entry = map.entry(field).or_insert_with(|| json!({}));
    if !entry.is_object() {
        *entry = json!({});
    }
    entry.as_object_mut().expect("made an object above")
}

/// A point in time as Kubernetes writes it: UTC, whole seconds.
pub fn time(at: jiff::Timestamp) -> String {
    format!("{at:.0}")
}
