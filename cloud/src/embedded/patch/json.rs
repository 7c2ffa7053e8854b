//! JSON patches (RFC 6902) with limits: by `copy` and `move` a short patch can make an object of any size and depth.

use json_patch::PatchOperation;
use serde_json::Value;

use crate::embedded::status_error::StatusError;
use crate::embedded::store::OBJECT_BYTES_MAX;

/// Most operations in one patch, as in Kubernetes.
pub const OPERATIONS_MAX: usize = 10_000;
/// Deepest nesting that a patch may make: what the parser of bodies takes. Deeper ones overflow the stack of whoever
/// walks them, even to free them.
pub const DEPTH_MAX: usize = 128;

/// Applies the operations in order. After an error the object is of no use.
///
/// # Errors
/// 413 for more operations, more copied bytes (together) or a deeper object than the limits allow; 422 for an operation
/// that does not apply.
pub fn apply(object: &mut Value, operations: &[PatchOperation]) -> Result<(), StatusError> {
    if operations.len() > OPERATIONS_MAX {
        let message = format!("The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {}", operations.len());
        return Err(StatusError::request_too_large(message));
    }
    let mut copied = 0;
    for operation in operations {
        let source = |from: &str| object.pointer(from).map(measure).unwrap_or_default();
        let depth = match operation {
            PatchOperation::Copy(copy) => {
                let size = source(copy.from.as_str());
                copied += size.bytes;
                size.depth
            }
            PatchOperation::Move(from_to) => source(from_to.from.as_str()).depth,
            PatchOperation::Add(add) => measure(&add.value).depth,
            PatchOperation::Replace(replace) => measure(&replace.value).depth,
            PatchOperation::Remove(_) | PatchOperation::Test(_) => 0,
        };
        if copied > OBJECT_BYTES_MAX {
            return Err(StatusError::too_large(OBJECT_BYTES_MAX));
        }
        if depth > 0 && operation.path().count() + depth > DEPTH_MAX {
            return Err(StatusError::request_too_large(format!("A JSON patch may not nest an object deeper than {DEPTH_MAX}")));
        }
        json_patch::patch(object, std::slice::from_ref(operation))
            .map_err(|error| StatusError::unprocessable(format!("the server rejected our request due to an error in our request: {error}")))?;
    }
    Ok(())
}

/// How much a value is.
#[derive(Clone, Copy, Debug, Default)]
struct Size {
    /// As JSON, about.
    bytes: usize,
    /// 1 for a value without others in it.
    depth: usize,
}

/// Recurses as deep as [`DEPTH_MAX`] at most: no object is deeper.
fn measure(value: &Value) -> Size {
    let of = |parts: &mut dyn Iterator<Item = (usize, &Value)>| {
        parts.fold(Size { bytes: 2, depth: 0 }, |all, (key, part)| {
            let part = measure(part);
            Size { bytes: all.bytes + key + 4 + part.bytes, depth: all.depth.max(part.depth) }
        })
    };
    let mut size = match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => Size { bytes: 8, depth: 0 },
        Value::String(text) => Size { bytes: 2 + text.len(), depth: 0 },
        Value::Array(list) => of(&mut list.iter().map(|part| (0, part))),
        Value::Object(map) => of(&mut map.iter().map(|(key, part)| (key.len(), part))),
    };
    size.depth += 1;
    size
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use serde_json::json;

    use super::*;

    fn patched(mut object: Value, operations: Value) -> Result<Value, StatusError> {
        apply(&mut object, &serde_json::from_value::<Vec<PatchOperation>>(operations).unwrap()).map(|()| object)
    }

    #[test]
    fn copies_that_double_an_object_end_at_the_size_limit() {
        let operations: Vec<Value> = (0..40).map(|at| json!({"op": "copy", "from": "/data", "path": format!("/data/k{at}")})).collect();
        assert_eq!(patched(json!({"data": {"a": "x".repeat(1000)}}), json!(operations)).unwrap_err().code(), 413);
    }

    #[test]
    fn a_patch_cannot_nest_deeper_than_a_body() {
        let mut leaf = "/b".to_owned();
        let (mut copies, mut moves) = (Vec::new(), Vec::new());
        for at in 0..14 {
            copies.push(json!({"op": "copy", "from": "/a/b", "path": format!("/a{leaf}/b")}));
            moves.push(json!({"op": "copy", "from": "/a/b", "path": "/c"}));
            moves.push(json!({"op": "move", "from": "/c", "path": format!("/a{leaf}/b")}));
            leaf = format!("{leaf}{leaf}");
            assert!(at < 14);
        }
        for operations in [copies, moves] {
            assert_eq!(patched(json!({"a": {"b": {}}}), json!(operations)).unwrap_err().code(), 413);
        }
        let deep = (0..120).fold(json!(1), |inner, _| json!([inner]));
        let operations =
            json!([{"op": "add", "path": "/a/b", "value": deep}, {"op": "add", "path": format!("/a/b{}", "/0".repeat(119)), "value": deep}]);
        assert_eq!(patched(json!({"a": {}}), operations).unwrap_err().code(), 413);
    }

    #[test]
    fn too_many_operations_are_refused() {
        let operations = vec![json!({"op": "test", "path": "/a", "value": 1}); OPERATIONS_MAX + 1];
        assert_eq!(patched(json!({"a": 1}), json!(operations)).unwrap_err().code(), 413);
    }

    #[test]
    fn an_ordinary_patch_is_applied() {
        let operations = json!([{"op": "copy", "from": "/data/a", "path": "/data/b"}, {"op": "move", "from": "/data/a", "path": "/data/c"},
            {"op": "replace", "path": "/data/b", "value": "2"}]);
        assert_eq!(patched(json!({"data": {"a": "1"}}), operations).unwrap(), json!({"data": {"b": "2", "c": "1"}}));
    }
}
