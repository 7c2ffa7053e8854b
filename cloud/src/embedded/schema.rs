//! Bodies of custom resources, checked against the `openAPIV3Schema` of the same definitions that a real cluster
//! gets from `deploy/cloud/crds`: one source for both.

use std::sync::OnceLock;

use serde_json::Value;

use super::status_error::Cause;
use super::typed::Checked;

/// A custom resource definition in this repository, parsed when it is first needed.
#[derive(Debug)]
pub struct Definition {
    yaml: &'static str,
    schema: OnceLock<Value>,
}

impl Definition {
    /// The definition in this YAML text.
    pub const fn new(yaml: &'static str) -> Self {
        Self { yaml, schema: OnceLock::new() }
    }

    fn schema(&self) -> &Value {
        self.schema.get_or_init(|| {
            let parsed: Value = serde_saphyr::from_str(self.yaml).expect("a test parses every definition of this program");
            parsed["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
        })
    }

    /// Checks a body and prunes what the definition does not have.
    ///
    /// # Errors
    /// One cause for each field that breaks the schema.
    pub fn check(&self, mut value: Value) -> Result<Checked, Vec<Cause>> {
        let mut report = Report::default();
        report.walk(self.schema(), &mut value, "");
        if report.causes.is_empty() { Ok(Checked { value, unknown: report.unknown }) } else { Err(report.causes) }
    }
}

#[derive(Default)]
struct Report {
    causes: Vec<Cause>,
    unknown: Vec<String>,
}

impl Report {
    fn walk(&mut self, schema: &Value, value: &mut Value, path: &str) {
        let expected = schema["type"].as_str().unwrap_or_default();
        if !has_type(expected, value) {
            let message = format!("must be of type {expected}: {:?}", type_name(value));
            self.causes.push(Cause::type_mismatch(path, type_name(value), &message));
            return;
        }
        if let Some(known) = schema["enum"].as_array().filter(|known| !known.contains(value)) {
            let known: Vec<&str> = known.iter().filter_map(Value::as_str).collect();
            self.causes.push(Cause::unsupported(path, &plain(value), &known));
        }
        match value {
            Value::Object(map) => self.walk_object(schema, map, path),
            Value::Array(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    self.walk(&schema["items"], item, &format!("{path}[{index}]"));
                }
            }
            _ => {}
        }
    }

    fn walk_object(&mut self, schema: &Value, map: &mut serde_json::Map<String, Value>, path: &str) {
        let join = |field: &str| if path.is_empty() { field.to_owned() } else { format!("{path}.{field}") };
        for field in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if map.get(field).is_none_or(Value::is_null) {
                self.causes.push(Cause::required(join(field), ""));
            }
        }
        // The metadata is checked by the rules for all kinds.
        let free = path == "metadata" || schema["x-kubernetes-preserve-unknown-fields"] == true;
        // A null where the schema has no `nullable` is as good as nothing.
        map.retain(|_, value| !value.is_null() || free);
        let mut unknown = Vec::new();
        for (field, value) in map.iter_mut() {
            let known = schema.pointer(&format!("/properties/{}", field.replace('~', "~0").replace('/', "~1")));
            match known.or_else(|| schema.get("additionalProperties").filter(|rule| rule.is_object())) {
                Some(rule) => self.walk(rule, value, &join(field)),
                None if free || schema.get("type").is_none() => {}
                None => unknown.push(field.clone()),
            }
        }
        for field in unknown {
            map.remove(&field);
            self.unknown.push(join(&field));
        }
    }
}

fn has_type(expected: &str, value: &Value) -> bool {
    match expected {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        _ => true,
    }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use serde_json::json;

    use super::*;
    use crate::embedded::kind::{self, Schema};

    fn check(kind: &kind::Kind, value: Value) -> Result<Checked, Vec<Cause>> {
        let Schema::Custom(definition) = &kind.schema else { panic!("{} is a custom kind", kind.kind) };
        definition.check(value)
    }

    #[test]
    fn every_definition_of_this_repository_parses_and_has_a_schema() {
        for kind in [&kind::DEVICE, &kind::DEVICE_MODEL, &kind::DEVICE_STATUS] {
            let Schema::Custom(definition) = &kind.schema else { panic!("{} is a custom kind", kind.kind) };
            assert!(definition.schema()["properties"]["spec"].is_object(), "{}", kind.kind);
            assert!(definition.yaml.contains(&format!("kind: {}", kind.kind)));
        }
    }

    #[test]
    fn a_desired_value_that_is_not_text_is_refused_with_its_path() {
        let device = json!({"metadata": {}, "spec": {"properties": [{"name": "t", "desired": {"value": 20}}]}});
        let causes = check(&kind::DEVICE, device).unwrap_err();
        assert_eq!(causes[0].field, "spec.properties[0].desired.value");
        assert!(causes[0].message.contains("string"), "{}", causes[0].message);
    }

    #[test]
    fn protocol_data_is_free_and_anything_else_unknown_is_pruned() {
        let device = json!({"metadata": {"name": "d"}, "spec": {"nodeName": "n", "colour": "red",
            "protocol": {"protocolName": "modbus", "configData": {"any": {"thing": [1, null]}}}}});
        let checked = check(&kind::DEVICE, device).unwrap();
        assert_eq!(checked.unknown, ["spec.colour"]);
        assert_eq!(checked.value["spec"]["protocol"]["configData"]["any"]["thing"][0], 1);
    }

    #[test]
    fn a_status_of_the_wrong_shape_is_refused() {
        for status in [json!("up"), json!({"twins": {}}), json!({"twins": [{"propertyName": 1}]}), json!({"twins": [3]})] {
            assert!(check(&kind::DEVICE_STATUS, json!({"metadata": {}, "status": status})).is_err());
        }
    }
}
