//! One file per kind of object: what of it the edge gets, and how the edge's reports change it. All pure.

pub mod conditions;
pub mod event;
pub mod node;
pub mod observed;
pub mod pod;

use serde_json::Value;

pub(crate) fn text(value: Option<&Value>) -> Option<&str> {
    value.and_then(Value::as_str).filter(|text| !text.is_empty())
}
