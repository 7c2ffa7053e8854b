//! A checker for the part of JSON Schema that `openapi.json` uses. A keyword that it does not know is an error, so that
//! nothing goes unchecked.

use serde_json::Value;

/// Follows `#/a/b`.
pub(super) fn resolve<'a>(document: &'a Value, node: &'a Value) -> &'a Value {
    match node["$ref"].as_str() {
        Some(place) => document.pointer(place.trim_start_matches('#')).unwrap_or_else(|| panic!("{place} leads nowhere")),
        None => node,
    }
}

/// Every way in which `value` is not what `schema` says.
pub(super) fn errors(document: &Value, schema: &Value, value: &Value, at: &str) -> Vec<String> {
    let schema = resolve(document, schema);
    let mut wrong = Vec::new();
    let mut say = |what: String| wrong.push(format!("{at}: {what}"));
    for (keyword, wanted) in schema.as_object().unwrap_or_else(|| panic!("{at}: no schema")) {
        match keyword.as_str() {
            "type" => {
                let types: Vec<&str> =
                    wanted.as_array().map_or_else(|| vec![wanted.as_str().unwrap()], |all| all.iter().map(|t| t.as_str().unwrap()).collect());
                if !types.iter().any(|name| is(name, value)) {
                    say(format!("{value} is no {types:?}"));
                }
            }
            "enum" => {
                if !wanted.as_array().unwrap().contains(value) {
                    say(format!("{value} is none of {wanted}"));
                }
            }
            "const" => {
                if wanted != value {
                    say(format!("{value} is not {wanted}"));
                }
            }
            "minimum" => {
                if value.as_f64().is_some_and(|n| n < wanted.as_f64().unwrap()) {
                    say(format!("{value} is below {wanted}"));
                }
            }
            "maximum" => {
                if value.as_f64().is_some_and(|n| n > wanted.as_f64().unwrap()) {
                    say(format!("{value} is above {wanted}"));
                }
            }
            "maxLength" => {
                if value.as_str().is_some_and(|text| text.chars().count() as u64 > wanted.as_u64().unwrap()) {
                    say(format!("{value} is too long"));
                }
            }
            "required" => {
                for name in wanted.as_array().unwrap() {
                    if value.get(name.as_str().unwrap()).is_none() {
                        say(format!("{name} is missing"));
                    }
                }
            }
            "additionalProperties" => {
                assert_eq!(wanted, &Value::Bool(false));
                for name in value.as_object().into_iter().flat_map(|map| map.keys()) {
                    if schema["properties"].get(name).is_none() {
                        say(format!("{name} is not documented"));
                    }
                }
            }
            "format" => {
                if value.as_str().is_some_and(|text| text.parse::<actor::MsgId>().is_err()) {
                    say(format!("{value} is no {wanted}"));
                }
            }
            "properties" | "items" | "description" | "examples" => {}
            other => panic!("{at}: the checker does not know `{other}`"),
        }
    }
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        if let Some(part) = value.get(name) {
            wrong.extend(errors(document, inner, part, &format!("{at}.{name}")));
        }
    }
    if let (Some(items), Some(list)) = (schema.get("items"), value.as_array()) {
        for (index, part) in list.iter().enumerate() {
            wrong.extend(errors(document, items, part, &format!("{at}[{index}]")));
        }
    }
    wrong
}

fn is(name: &str, value: &Value) -> bool {
    match name {
        "string" => value.is_string(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("no type is called {other}"),
    }
}

#[test]
fn the_checker_finds_what_is_wrong() {
    let document = serde_json::json!({"a": {"type": "object", "additionalProperties": false, "required": ["n"], "properties": {"n": {"type": "integer", "minimum": 0}}}});
    let schema = serde_json::json!({"type": "array", "items": {"$ref": "#/a"}});
    let check = |value| errors(&document, &schema, &value, "$");
    assert!(check(serde_json::json!([{"n": 1}, {"n": 0}])).is_empty());
    for wrong in [
        serde_json::json!({}),
        serde_json::json!([{}]),
        serde_json::json!([{"n": -1}]),
        serde_json::json!([{"n": "1"}]),
        serde_json::json!([{"n": 1, "m": 1}]),
    ] {
        assert_eq!(check(wrong.clone()).len(), 1, "{wrong}");
    }
}
