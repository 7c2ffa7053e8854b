//! As much OpenAPI as kubectl needs to trust the server's validation.
//!
//! kubectl 1.29 and later look in version 3 for a `patch` with a `fieldValidation` parameter, and then send
//! `fieldValidation=Strict`. Older ones download version 2 as protobuf and are content with an empty document.

use serde_json::{Map, Value, json};

use super::kind::{self, KINDS, Kind};

/// The content type of version 2 in protobuf. With the `@` of the request in it, kubectl 1.20 fails to parse it.
pub const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// An empty version 2 document in protobuf: `swagger: "2.0"`, `info: {title: "x", version: "1"}`.
pub const V2_EMPTY: &[u8] = b"\x0a\x032.0\x12\x06\x0a\x01x\x12\x011";

/// The same in JSON.
pub fn v2_json() -> Value {
    json!({"swagger": "2.0", "info": {"title": "skep", "version": env!("CARGO_PKG_VERSION")}, "paths": {}})
}

fn root(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// `/openapi/v3`: where the documents are. The hash makes clients cache them.
pub fn v3_index() -> Value {
    let paths: Map<String, Value> = kind::group_versions()
        .into_iter()
        .map(|(group, version)| {
            let root = root(group, version);
            let url = format!("/openapi/v3/{root}?hash={}", env!("CARGO_PKG_VERSION"));
            (root, json!({"serverRelativeURL": url}))
        })
        .collect();
    json!({"paths": paths})
}

/// The document of one group-version, if it is served.
pub fn v3(group: &str, version: &str) -> Option<Value> {
    let kinds = KINDS.into_iter().filter(|kind| kind.group == group && kind.version == version);
    let paths: Map<String, Value> = kinds.map(|kind| (path(kind), operations(kind))).collect();
    if paths.is_empty() {
        return None;
    }
    Some(json!({"openapi": "3.0.0", "info": {"title": "skep", "version": env!("CARGO_PKG_VERSION")}, "paths": paths}))
}

fn path(kind: &Kind) -> String {
    let namespace = if kind.namespaced { "namespaces/{namespace}/" } else { "" };
    format!("/{}/{namespace}{}/{{name}}", root(kind.group, kind.version), kind.plural)
}

fn operations(kind: &Kind) -> Value {
    let gvk = json!({"group": kind.group, "version": kind.version, "kind": kind.kind});
    let parameter = |name: &str| json!({"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": true}});
    let parameters = json!([parameter("dryRun"), parameter("fieldManager"), parameter("fieldValidation")]);
    let operation = |action: &str| {
        json!({
            "operationId": format!("{action}{}", kind.kind), "parameters": parameters, "responses": {"200": {"description": "OK"}},
            "x-kubernetes-action": action, "x-kubernetes-group-version-kind": gvk,
        })
    };
    json!({"patch": operation("patch"), "put": operation("put")})
}
