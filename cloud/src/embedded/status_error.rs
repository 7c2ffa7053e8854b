//! Errors as the Kubernetes API answers them: always `kind: Status`, because clients print its fields.

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, HttpResponseBuilder, ResponseError};
use serde_json::{Value, json};

use super::kind::Kind;
use super::store::StoreError;

/// One error answer. `Display` is its message.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct StatusError {
    code: u16,
    reason: &'static str,
    message: String,
    details: Value,
}

/// One thing that is wrong with one field of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// Path of the field, such as `spec.containers[0].name`.
    pub field: String,
    /// `FieldValueInvalid`, `FieldValueRequired`, … as clients know them.
    pub reason: &'static str,
    /// The sentence, without the path.
    pub message: String,
}

impl Cause {
    /// A value that breaks a rule.
    pub fn invalid(field: impl Into<String>, value: &str, rule: &str) -> Self {
        let message = format!("Invalid value: {value:?}: {rule}");
        Self { field: field.into(), reason: "FieldValueInvalid", message }
    }

    /// A value that has to be there and is not.
    pub fn required(field: impl Into<String>, rule: &str) -> Self {
        let message = if rule.is_empty() { "Required value".to_owned() } else { format!("Required value: {rule}") };
        Self { field: field.into(), reason: "FieldValueRequired", message }
    }

    /// A value that may not be there or may not change.
    pub fn forbidden(field: impl Into<String>, rule: &str) -> Self {
        Self { field: field.into(), reason: "FieldValueForbidden", message: format!("Forbidden: {rule}") }
    }

    /// A value of the wrong JSON type.
    pub fn type_mismatch(field: impl Into<String>, found: &str, rule: &str) -> Self {
        Self { field: field.into(), reason: "FieldValueTypeInvalid", message: format!("Invalid value: {found:?}: {rule}") }
    }

    /// A value outside of a closed list.
    pub fn unsupported(field: impl Into<String>, value: &str, known: &[&str]) -> Self {
        let known: Vec<String> = known.iter().map(|one| format!("{one:?}")).collect();
        let message = format!("Unsupported value: {value:?}: supported values: {}", known.join(", "));
        Self { field: field.into(), reason: "FieldValueNotSupported", message }
    }

    /// A second list entry with the same key.
    pub fn duplicate(field: impl Into<String>, value: &str) -> Self {
        Self { field: field.into(), reason: "FieldValueDuplicate", message: format!("Duplicate value: {value:?}") }
    }
}

impl StatusError {
    fn new(code: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code: code.as_u16(), reason, message: message.into(), details: Value::Null }
    }

    fn about(mut self, kind: &Kind, name: &str) -> Self {
        self.details = json!({"name": name, "kind": kind.plural});
        if !kind.group.is_empty() {
            self.details["group"] = kind.group.into();
        }
        self
    }

    /// 404 for an object.
    pub fn not_found(kind: &Kind, name: &str) -> Self {
        let message = format!("{} {name:?} not found", kind.qualified());
        Self::new(StatusCode::NOT_FOUND, "NotFound", message).about(kind, name)
    }

    /// 404 for a path that this API does not serve; the words are the ones kubectl recognises.
    pub fn unknown_path() -> Self {
        let mut error = Self::new(StatusCode::NOT_FOUND, "NotFound", "the server could not find the requested resource");
        error.details = json!({});
        error
    }

    /// 409 for a create of something that exists.
    pub fn already_exists(kind: &Kind, name: &str) -> Self {
        let message = format!("{} {name:?} already exists", kind.qualified());
        Self::new(StatusCode::CONFLICT, "AlreadyExists", message).about(kind, name)
    }

    /// 409 for a write that was decided on an older version or another incarnation.
    pub fn conflict(kind: &Kind, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} {name:?}: {why}", kind.qualified());
        Self::new(StatusCode::CONFLICT, "Conflict", message).about(kind, name)
    }

    /// The usual [`Self::conflict`]: the version given is not the stored one.
    pub fn stale(kind: &Kind, name: &str) -> Self {
        Self::conflict(kind, name, "the object has been modified; please apply your changes to the latest version and try again")
    }

    /// 422 with one cause per field.
    pub fn invalid(kind: &Kind, name: &str, causes: Vec<Cause>) -> Self {
        let sentences: Vec<String> = causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
        let all = match sentences.as_slice() {
            [one] => one.clone(),
            several => format!("[{}]", several.join(", ")),
        };
        let group = if kind.group.is_empty() { String::new() } else { format!(".{}", kind.group) };
        let message = format!("{}{group} {name:?} is invalid: {all}", kind.kind);
        let mut error = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message).about(kind, name);
        error.details["kind"] = kind.kind.into();
        error.details["causes"] =
            causes.into_iter().map(|cause| json!({"reason": cause.reason, "message": cause.message, "field": cause.field})).collect();
        error
    }

    /// 403 for what this state or this client does not allow.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "Forbidden", message)
    }

    /// 400: the request itself is wrong.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    /// 405: the path exists, not with this method.
    pub fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message)
    }

    /// 501: the node alone could answer, and this API does not reach into nodes.
    pub fn on_the_node(node: &str, instead: &str) -> Self {
        let message = format!("this API does not reach into nodes: {instead} on the machine of node {node:?}");
        Self::new(StatusCode::NOT_IMPLEMENTED, "NotImplemented", message)
    }

    /// 406: the client accepts none of the forms in which this API answers.
    pub fn not_acceptable() -> Self {
        let message = "only the following media types are accepted: application/json";
        Self::new(StatusCode::NOT_ACCEPTABLE, "NotAcceptable", message)
    }

    /// 410: the version asked for is no longer in the history, the client has to list again.
    pub fn expired(asked: i64, oldest: i64) -> Self {
        Self::new(StatusCode::GONE, "Expired", format!("too old resource version: {asked} ({oldest})"))
    }

    /// 413: the body is larger than this API takes.
    pub fn too_large(limit: usize) -> Self {
        Self::request_too_large(format!("Request entity too large: limit is {limit}"))
    }

    /// 413: a request that would make more than is allowed.
    pub fn request_too_large(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", message)
    }

    /// 415: a body in a form that this API does not read.
    pub fn unsupported_media_type(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", message)
    }

    /// 422 for a request that is well formed and cannot be followed.
    pub fn unprocessable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message)
    }

    /// 429: too much is in flight; the client tries again after a second.
    pub fn too_many_requests() -> Self {
        let message = "the write queue is full, please try again later";
        let mut error = Self::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", message);
        error.details = json!({"retryAfterSeconds": 1});
        error
    }

    /// 500: something on our side failed.
    pub fn internal(message: impl Into<String>) -> Self {
        let message = format!("Internal error occurred: {}", message.into());
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", message)
    }

    /// The HTTP code.
    pub fn code(&self) -> u16 {
        self.code
    }

    /// The answer's body.
    pub fn to_json(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {},
            "status": "Failure", "message": self.message, "reason": self.reason, "code": self.code,
        });
        if !self.details.is_null() {
            status["details"] = self.details.clone();
        }
        status
    }
}

impl From<StoreError> for StatusError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Busy => Self::too_many_requests(),
            other => {
                log::error!(error:% = other; "embedded API: store failed");
                Self::internal(other.to_string())
            }
        }
    }
}

impl ResponseError for StatusError {
    fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    fn error_response(&self) -> HttpResponse {
        let mut builder = HttpResponseBuilder::new(self.status_code());
        if self.reason == "TooManyRequests" {
            builder.insert_header(("Retry-After", "1"));
        }
        builder.json(self.to_json())
    }
}
