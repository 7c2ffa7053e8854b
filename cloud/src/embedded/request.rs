//! Reading a request: path, query, body.

use actix_web::web;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use serde_json::Value;

use super::kind::{self, Kind};
use super::object::Object;
use super::status_error::StatusError;

/// The largest body, as in Kubernetes.
pub const BODY_BYTES_MAX: usize = 3 << 20;

/// Subresources of a pod that its node would have to answer; this API says so and answers none of them.
pub const ON_THE_NODE: [&str; 4] = ["log", "exec", "attach", "portforward"];

/// What a path asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `/api`
    CoreVersions,
    /// `/apis`
    Groups,
    /// `/apis/<group>`
    Group(String),
    /// `/api/v1`, `/apis/<group>/<version>`
    Resources(String, String),
    /// `/version`
    Version,
    /// `/healthz`, `/livez`, `/readyz`
    Health,
    /// `/openapi/v2`
    OpenApiV2,
    /// `/openapi/v3`
    OpenApiV3,
    /// `/openapi/v3/api/v1`, `/openapi/v3/apis/<group>/<version>`
    OpenApiV3Of(String, String),
    /// All objects of a kind, in one namespace or (empty) in all.
    List(&'static Kind, String),
    /// One object or one of its subresources (empty: the object itself).
    Item {
        /// Its kind.
        kind: &'static Kind,
        /// Its namespace, or empty.
        namespace: String,
        /// Its name.
        name: String,
        /// `status`, `binding`, … or empty.
        subresource: String,
    },
}

impl Target {
    /// Reads a path; `None` is the API's 404.
    pub fn parse(path: &str) -> Option<Self> {
        let segments: Option<Vec<String>> = path.trim_matches('/').split('/').map(decode_segment).collect();
        let segments = segments?;
        let parts: Vec<&str> = segments.iter().map(String::as_str).collect();
        match parts.as_slice() {
            ["api"] => Some(Self::CoreVersions),
            ["apis"] => Some(Self::Groups),
            ["apis", group] => Some(Self::Group((*group).to_owned())),
            ["version"] => Some(Self::Version),
            ["healthz" | "livez" | "readyz", ..] => Some(Self::Health),
            ["openapi", "v2"] => Some(Self::OpenApiV2),
            ["openapi", "v3"] => Some(Self::OpenApiV3),
            ["openapi", "v3", "api", version] => Some(Self::OpenApiV3Of(String::new(), (*version).to_owned())),
            ["openapi", "v3", "apis", group, version] => Some(Self::OpenApiV3Of((*group).to_owned(), (*version).to_owned())),
            ["api", version] => Some(Self::Resources(String::new(), (*version).to_owned())),
            ["apis", group, version] => Some(Self::Resources((*group).to_owned(), (*version).to_owned())),
            ["api", version, rest @ ..] => resource("", version, rest),
            ["apis", group, version, rest @ ..] => resource(group, version, rest),
            _ => None,
        }
    }
}

fn resource(group: &str, version: &str, rest: &[&str]) -> Option<Target> {
    let item = |kind, namespace: &str, name: &str, subresource: &str| {
        let is_kept = subresource.is_empty() || (subresource == "status" && status_of(kind));
        let known = is_kept || kind.actions.contains(&subresource) || (kind.plural == "pods" && ON_THE_NODE.contains(&subresource));
        let (namespace, name, subresource) = (namespace.to_owned(), name.to_owned(), subresource.to_owned());
        known.then_some(Target::Item { kind, namespace, name, subresource })
    };
    let find = |plural: &str| kind::find(group, version, plural);
    // `namespaces/x/pods` is a list in a namespace, `namespaces/x/status` a subresource: the known plurals decide.
    match rest {
        ["namespaces", namespace, plural] if find(plural).is_some_and(|kind| kind.namespaced) => {
            Some(Target::List(find(plural)?, (*namespace).to_owned()))
        }
        ["namespaces", namespace, plural, name, sub @ ..] if find(plural).is_some_and(|kind| kind.namespaced) && sub.len() <= 1 => {
            item(find(plural)?, namespace, name, sub.first().unwrap_or(&""))
        }
        [plural] => Some(Target::List(find(plural)?, String::new())),
        [plural, name, sub @ ..] if sub.len() <= 1 => {
            let kind = find(plural).filter(|kind| !kind.namespaced)?;
            item(kind, "", name, sub.first().unwrap_or(&""))
        }
        _ => None,
    }
}

fn status_of(kind: &Kind) -> bool {
    kind.status
}

fn decode_segment(segment: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits = [rest.next()?, rest.next()?];
            bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok().filter(|segment| !segment.contains('\0'))
}

/// The parameters behind the `?`.
#[derive(Clone, Debug, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Parses a query string.
    ///
    /// # Errors
    /// 400 when it is not url-encoded.
    pub fn parse(text: &str) -> Result<Self, StatusError> {
        web::Query::<Vec<(String, String)>>::from_query(text)
            .map(|query| Self(query.into_inner()))
            .map_err(|error| StatusError::bad_request(format!("cannot parse the query: {error}")))
    }

    /// The value of a parameter, empty when absent.
    pub fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value.as_str())
    }

    /// Whether a boolean parameter is set.
    pub fn flag(&self, name: &str) -> bool {
        matches!(self.get(name), "true" | "1")
    }

    /// A number, or `None` when the parameter is absent.
    ///
    /// # Errors
    /// 400 when it is there and not a number.
    pub fn number(&self, name: &str) -> Result<Option<i64>, StatusError> {
        match self.get(name) {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| StatusError::bad_request(format!("{name}: Invalid value: {text:?}: must be a number"))),
        }
    }

    /// `dryRun`: only `All` is known.
    ///
    /// # Errors
    /// 422 for any other value.
    pub fn dry_run(&self) -> Result<bool, StatusError> {
        match self.get("dryRun") {
            "" => Ok(false),
            "All" => Ok(true),
            other => Err(StatusError::unprocessable(format!("dryRun: Unsupported value: {other:?}: supported values: \"All\""))),
        }
    }
}

/// Reads a body up to [`BODY_BYTES_MAX`].
///
/// # Errors
/// 413 when it is larger, 400 when the connection breaks.
pub async fn body(mut payload: web::Payload) -> Result<Bytes, StatusError> {
    let mut body = BytesMut::new();
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|error| StatusError::bad_request(format!("cannot read the body: {error}")))?;
        if body.len() + chunk.len() > BODY_BYTES_MAX {
            return Err(StatusError::too_large(BODY_BYTES_MAX));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

/// Parses JSON; nesting deeper than 128 is refused.
///
/// # Errors
/// 400 with the place of the mistake.
pub fn json(body: &[u8]) -> Result<Value, StatusError> {
    serde_json::from_slice(body).map_err(|error| StatusError::bad_request(format!("couldn't get version/kind; json parse error: {error}")))
}

/// Parses YAML, or JSON as a part of it.
///
/// # Errors
/// 400 with the place of the mistake.
pub fn yaml(body: &[u8]) -> Result<Value, StatusError> {
    if body.first() == Some(&b'{') {
        return json(body);
    }
    serde_saphyr::from_slice(body).map_err(|error| StatusError::bad_request(format!("yaml parse error: {error}")))
}

/// Parses the object in a body, by its content type.
///
/// # Errors
/// 415 for a form that is not read, 400 for a body that does not parse.
pub fn object(content_type: &str, body: &[u8]) -> Result<Object, StatusError> {
    let value = match content_type {
        "" | "application/json" | "*/*" => json(body)?,
        "application/yaml" | "application/x-yaml" | "text/yaml" => yaml(body)?,
        _ if is_protobuf(content_type) => super::protobuf::read(body).ok_or_else(|| {
            StatusError::unsupported_media_type(
                "this API does not read the protobuf that this kubectl command sends: \
                 repeat it with `--dry-run=client -o yaml | kubectl apply -f -`",
            )
        })?,
        other => {
            return Err(StatusError::unsupported_media_type(format!(
                "the body of the request was in an unknown format ({other}) - accepted media types include: \
                 application/json, application/yaml"
            )));
        }
    };
    Object::new(value).map_err(StatusError::bad_request)
}

/// Whether a body is Kubernetes' protobuf.
pub fn is_protobuf(content_type: &str) -> bool {
    content_type == "application/vnd.kubernetes.protobuf"
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn item(kind: &'static Kind, namespace: &str, name: &str, subresource: &str) -> Option<Target> {
        let (namespace, name, subresource) = (namespace.to_owned(), name.to_owned(), subresource.to_owned());
        Some(Target::Item { kind, namespace, name, subresource })
    }

    #[test]
    fn paths_are_read_as_the_kubernetes_api_reads_them() {
        let list = |kind, namespace: &str| Some(Target::List(kind, namespace.to_owned()));
        for (path, target) in [
            ("/api/v1/pods", list(&kind::PODS, "")),
            ("/api/v1/namespaces/default/pods", list(&kind::PODS, "default")),
            ("/api/v1/namespaces/default/pods/p1", item(&kind::PODS, "default", "p1", "")),
            ("/api/v1/namespaces/default/pods/p1/status", item(&kind::PODS, "default", "p1", "status")),
            ("/api/v1/namespaces/default/pods/p1/binding", item(&kind::PODS, "default", "p1", "binding")),
            ("/api/v1/namespaces/default/status", item(&kind::NAMESPACES, "", "default", "status")),
            ("/api/v1/namespaces/d/pods/p/log", item(&kind::PODS, "d", "p", "log")),
            ("/api/v1/namespaces/default", item(&kind::NAMESPACES, "", "default", "")),
            ("/api/v1/namespaces", list(&kind::NAMESPACES, "")),
            ("/api/v1/nodes/edge%2D1", item(&kind::NODES, "", "edge-1", "")),
            ("/apis/devices.kubeedge.io/v1beta1/namespaces/d/devices/x", item(&kind::DEVICE, "d", "x", "")),
            ("/apis/devices.kubeedge.io/v1beta1", Some(Target::Resources("devices.kubeedge.io".to_owned(), "v1beta1".to_owned()))),
            ("/openapi/v3/api/v1", Some(Target::OpenApiV3Of(String::new(), "v1".to_owned()))),
            ("/readyz", Some(Target::Health)),
        ] {
            assert_eq!(Target::parse(path), target, "{path}");
        }
        for unknown in [
            "/",
            "/api/v1/services",
            "/api/v1/pods/p1",
            "/api/v1/namespaces/d/configmaps/p/log",
            "/api/v1/namespaces/d/nodes",
            "/apis/devices.kubeedge.io/v1beta1/namespaces/d/devices/x/status",
            "/api/v1/nodes/a/b/c",
            "/x",
            "/api/v1/nodes/%zz",
            "/api/v1/nodes/%00",
        ] {
            assert_eq!(Target::parse(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn hostile_bodies_are_bad_requests() {
        let deep = "[".repeat(100_000);
        let deep_map = "{\"a\":".repeat(100_000);
        for body in [deep.as_bytes(), deep_map.as_bytes(), b"", b"{", b"\xff\xfe", b"[]", b"\"x\"", b"{\"metadata\":3}"] {
            assert_eq!(object("application/json", body).unwrap_err().code(), 400);
        }
        let anchors = b"a: &a [x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\n\
            d: &d [*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e]\ng: [*f,*f,*f,*f,*f,*f,*f,*f]\n";
        for body in [deep.as_bytes(), b"- a\n", b"a: b: c", anchors] {
            assert_eq!(object("application/yaml", body).unwrap_err().code(), 400);
        }
    }

    #[test]
    fn protobuf_is_refused_with_the_way_around_it() {
        let error = object("application/vnd.kubernetes.protobuf", b"k8s\0").unwrap_err();
        assert_eq!(error.code(), 415);
        assert!(error.to_string().contains("--dry-run=client -o yaml | kubectl apply -f -"));
    }
}
