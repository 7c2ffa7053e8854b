//! The few bodies that kubectl 1.32 and later send as protobuf: `create configmap|secret|namespace`, and the
//! `DeleteOptions` of `drain`, which must not be ignored because they may say "dry run".
//!
//! A small reader driven by tables (field numbers: `generated.proto` of k8s.io/api and k8s.io/apimachinery). A field
//! that a table does not have is an error and not skipped: ignoring what a client said would be a wrong answer.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

/// Before every protobuf body of Kubernetes.
const MAGIC: &[u8] = b"k8s\0";

/// How a field is encoded and what it becomes in JSON.
#[derive(Clone, Copy)]
enum Field {
    Text,
    Texts,
    /// Becomes base64.
    Bytes,
    Bool,
    Int,
    Message(Table),
    /// Maps of text to text.
    TextMap,
    /// Maps of text to bytes.
    ByteMap,
    /// Written by every client, without meaning in a request.
    Ignored,
}

type Table = &'static [(u64, &'static str, Field)];

const META: Table = &[
    (1, "name", Field::Text),
    (2, "generateName", Field::Text),
    (3, "namespace", Field::Text),
    (4, "selfLink", Field::Ignored),
    (5, "uid", Field::Text),
    (6, "resourceVersion", Field::Text),
    (7, "generation", Field::Ignored),
    (8, "creationTimestamp", Field::Ignored),
    (11, "labels", Field::TextMap),
    (12, "annotations", Field::TextMap),
    (14, "finalizers", Field::Texts),
    (17, "managedFields", Field::Ignored),
];

const CONFIG_MAP: Table =
    &[(1, "metadata", Field::Message(META)), (2, "data", Field::TextMap), (3, "binaryData", Field::ByteMap), (4, "immutable", Field::Bool)];

const SECRET: Table = &[
    (1, "metadata", Field::Message(META)),
    (2, "data", Field::ByteMap),
    (3, "type", Field::Text),
    (4, "stringData", Field::TextMap),
    (5, "immutable", Field::Bool),
];

const NAMESPACE: Table =
    &[(1, "metadata", Field::Message(META)), (2, "spec", Field::Message(&[(1, "finalizers", Field::Texts)])), (3, "status", Field::Ignored)];

const DELETE_OPTIONS: Table = &[
    (1, "gracePeriodSeconds", Field::Int),
    (2, "preconditions", Field::Message(&[(1, "uid", Field::Text), (2, "resourceVersion", Field::Text)])),
    (3, "orphanDependents", Field::Bool),
    (4, "propagationPolicy", Field::Text),
    (5, "dryRun", Field::Texts),
];

const UNKNOWN: Table = &[
    (1, "type", Field::Message(&[(1, "apiVersion", Field::Text), (2, "kind", Field::Text)])),
    (2, "raw", Field::Bytes),
    (3, "contentEncoding", Field::Text),
    (4, "contentType", Field::Text),
];

/// Reads a body into the JSON that it stands for; `None` for a kind or a form that is not read.
pub fn read(body: &[u8]) -> Option<Value> {
    let envelope = message(body.strip_prefix(MAGIC)?, UNKNOWN)?;
    let kind = envelope.get("type")?.get("kind")?.as_str()?;
    let table = match kind {
        "ConfigMap" => CONFIG_MAP,
        "Secret" => SECRET,
        "Namespace" => NAMESPACE,
        "DeleteOptions" => DELETE_OPTIONS,
        _ => return None,
    };
    let raw = STANDARD.decode(envelope.get("raw").and_then(Value::as_str).unwrap_or_default()).ok()?;
    let mut object = message(&raw, table)?;
    object.insert("apiVersion".to_owned(), envelope["type"]["apiVersion"].clone());
    object.insert("kind".to_owned(), kind.into());
    Some(Value::Object(object))
}

fn message(mut bytes: &[u8], table: Table) -> Option<Map<String, Value>> {
    let mut map = Map::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        let (_, name, field) = table.iter().find(|(number, ..)| *number == tag >> 3)?;
        match (tag & 7, field) {
            (0, Field::Bool) => put(&mut map, name, Value::Bool(varint(&mut bytes)? != 0)),
            (0, Field::Int) => put(&mut map, name, Value::from(varint(&mut bytes)?.cast_signed())),
            (0, Field::Ignored) => {
                varint(&mut bytes)?;
            }
            (2, field) => {
                let part = chunk(&mut bytes)?;
                lengthy(&mut map, name, *field, part)?;
            }
            _ => return None,
        }
    }
    Some(map)
}

fn lengthy(map: &mut Map<String, Value>, name: &str, field: Field, part: &[u8]) -> Option<()> {
    match field {
        // An empty text is an unset one.
        Field::Text if part.is_empty() => {}
        Field::Text => put(map, name, text(part)?.into()),
        Field::Bytes => put(map, name, STANDARD.encode(part).into()),
        Field::Message(table) => put(map, name, Value::Object(message(part, table)?)),
        Field::Texts => map.entry(name).or_insert_with(|| json!([])).as_array_mut()?.push(text(part)?.into()),
        Field::TextMap => {
            let entry = message(part, &[(1, "key", Field::Text), (2, "value", Field::Text)])?;
            add(map, name, &entry)?;
        }
        Field::ByteMap => {
            let entry = message(part, &[(1, "key", Field::Text), (2, "value", Field::Bytes)])?;
            add(map, name, &entry)?;
        }
        Field::Ignored => {}
        Field::Bool | Field::Int => return None,
    }
    Some(())
}

fn put(map: &mut Map<String, Value>, name: &str, value: Value) {
    map.insert(name.to_owned(), value);
}

fn add(map: &mut Map<String, Value>, name: &str, entry: &Map<String, Value>) -> Option<()> {
    let key = entry.get("key").and_then(Value::as_str).unwrap_or_default().to_owned();
    let value = entry.get("value").cloned().unwrap_or_else(|| "".into());
    map.entry(name).or_insert_with(|| json!({})).as_object_mut()?.insert(key, value);
    Some(())
}

fn text(part: &[u8]) -> Option<String> {
    String::from_utf8(part.to_vec()).ok()
}

fn chunk<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(varint(bytes)?).ok()?;
    let (part, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(part)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn field(number: u8, part: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, u8::try_from(part.len()).unwrap()], part].concat()
    }

    fn body(kind: &str, raw: &[u8]) -> Vec<u8> {
        let kind = [field(1, b"v1"), field(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), field(1, &kind), field(2, raw), field(3, b""), field(4, b"")].concat()
    }

    #[test]
    fn a_config_map_and_a_secret_become_their_json() {
        let meta = field(1, &[field(1, b"settings"), field(8, b"")].concat());
        let entry = [field(1, b"a"), field(2, b"1")].concat();
        let map = read(&body("ConfigMap", &[meta.clone(), field(2, &entry)].concat())).unwrap();
        assert_eq!(map, json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"a": "1"}}));
        let secret = read(&body("Secret", &[meta, field(2, &entry), field(3, b"Opaque")].concat())).unwrap();
        assert_eq!((secret["data"]["a"].as_str(), secret["type"].as_str()), (Some("MQ=="), Some("Opaque")));
    }

    #[test]
    fn delete_options_keep_their_dry_run_and_their_grace() {
        let options = [vec![1 << 3, 5], field(2, &field(1, b"u-1")), field(5, b"All")].concat();
        let options = read(&body("DeleteOptions", &options)).unwrap();
        assert_eq!((&options["gracePeriodSeconds"], &options["dryRun"]), (&json!(5), &json!(["All"])));
        assert_eq!(options["preconditions"]["uid"], "u-1");
    }

    #[test]
    fn anything_else_is_not_read() {
        let meta = field(1, &field(1, b"x"));
        for hostile in [
            Vec::new(),
            b"k8s\0".to_vec(),
            b"k8s\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff".to_vec(),
            b"k8s\0\x0a\xff\xff\xff\xff\x7f".to_vec(),
            body("Pod", &meta),
            body("ConfigMap", &field(9, b"new field")),
            body("ConfigMap", &[1 << 3, 1]),
            body("ConfigMap", &field(1, &field(1, b"\xff"))),
        ] {
            assert!(read(&hostile).is_none(), "{hostile:?}");
        }
    }
}
