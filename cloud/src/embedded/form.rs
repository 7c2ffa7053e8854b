//! In which form an answer goes out: the object, a table row, or its metadata alone.

use actix_web::HttpRequest;
use actix_web::http::header;
use serde_json::{Value, json};

use super::kind::Kind;
use super::object::Object;
use super::status_error::StatusError;
use super::table::{self, RowObject};

/// The form that the client accepts first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Objects as they are stored.
    Json,
    /// `meta.k8s.io/v1` Table.
    Table(RowObject),
    /// `meta.k8s.io/v1` PartialObjectMetadata.
    Metadata,
}

impl Form {
    /// Reads `Accept` and `includeObject`.
    ///
    /// # Errors
    /// 406 when the client takes nothing that this API has, such as protobuf only.
    pub fn of(request: &HttpRequest, include: &str) -> Result<Self, StatusError> {
        let accept = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("*/*");
        Self::parse(accept, include)
    }

    fn parse(accept: &str, include: &str) -> Result<Self, StatusError> {
        let row = match include {
            "None" => RowObject::None,
            "Object" => RowObject::Whole,
            _ => RowObject::Metadata,
        };
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default();
            let parameters: Vec<(&str, &str)> = parts.filter_map(|part| part.split_once('=')).collect();
            let parameter = |name: &str| parameters.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
            if !matches!(media, "" | "*/*" | "application/*" | "application/json") {
                continue;
            }
            match (parameter("as"), parameter("g"), parameter("v")) {
                (None, ..) => return Ok(Self::Json),
                (Some("Table"), Some("meta.k8s.io"), Some("v1")) => return Ok(Self::Table(row)),
                (Some("PartialObjectMetadata" | "PartialObjectMetadataList"), Some("meta.k8s.io"), Some("v1")) => return Ok(Self::Metadata),
                _ => {}
            }
        }
        Err(StatusError::not_acceptable())
    }

    /// One entry of a list: the stored text, a row, or the metadata.
    pub fn entry(self, kind: &Kind, text: &str, now: jiff::Timestamp) -> String {
        let object = || serde_json::from_str::<Value>(text).ok().and_then(|value| Object::new(value).ok());
        match self {
            Self::Json => text.to_owned(),
            Self::Table(include) => object().map(|object| table::row(kind, &object, include, now)).unwrap_or_default().to_string(),
            Self::Metadata => object().map(|object| metadata(&object)).unwrap_or_default().to_string(),
        }
    }

    /// One object as an answer or as a watch event; `columns` only for the first row of a watch.
    pub fn single(self, kind: &Kind, text: &str, columns: bool, now: jiff::Timestamp) -> String {
        let Self::Table(include) = self else { return self.entry(kind, text, now) };
        let Some(object) = serde_json::from_str::<Value>(text).ok().and_then(|value| Object::new(value).ok()) else {
            return text.to_owned();
        };
        let metadata = json!({"resourceVersion": object.resource_version()});
        let row = table::row(kind, &object, include, now);
        table::table(&metadata, columns.then(|| table::definitions(kind)), vec![row]).to_string()
    }

    /// What stands before and after the entries of a list.
    pub fn frame(self, kind: &Kind, metadata: &Value) -> (String, &'static str) {
        match self {
            Self::Json => {
                let (version, list) = (kind.api_version(), format!("{}List", kind.kind));
                (format!(r#"{{"kind":"{list}","apiVersion":"{version}","metadata":{metadata},"items":["#), "]}\n")
            }
            Self::Table(_) => {
                let columns = table::definitions(kind);
                (format!(r#"{{"kind":"Table","apiVersion":"meta.k8s.io/v1","metadata":{metadata},"columnDefinitions":{columns},"rows":["#), "]}\n")
            }
            Self::Metadata => {
                (format!(r#"{{"kind":"PartialObjectMetadataList","apiVersion":"meta.k8s.io/v1","metadata":{metadata},"items":["#), "]}\n")
            }
        }
    }
}

fn metadata(object: &Object) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object.value()["metadata"]})
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::embedded::kind;

    #[test]
    fn the_first_form_that_this_api_has_is_taken() {
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(Form::parse(table, "").unwrap(), Form::Table(RowObject::Metadata));
        assert_eq!(Form::parse(table, "Object").unwrap(), Form::Table(RowObject::Whole));
        assert_eq!(Form::parse("application/vnd.kubernetes.protobuf,application/json", "").unwrap(), Form::Json);
        assert_eq!(Form::parse("application/json;as=Table;v=v1beta1;g=meta.k8s.io, */*", "").unwrap(), Form::Json);
        assert_eq!(Form::parse("application/vnd.kubernetes.protobuf", "").unwrap_err().code(), 406);
    }

    #[test]
    fn every_form_of_a_list_is_json() {
        let text = r#"{"metadata":{"name":"x","resourceVersion":"7"}}"#;
        for form in [Form::Json, Form::Table(RowObject::Metadata), Form::Metadata] {
            let (head, tail) = form.frame(&kind::PODS, &json!({"resourceVersion": "9"}));
            let entry = form.entry(&kind::PODS, text, jiff::Timestamp::UNIX_EPOCH);
            let list: Value = serde_json::from_str(&format!("{head}{entry},{entry}{tail}")).unwrap();
            assert_eq!(list["metadata"]["resourceVersion"], "9");
        }
    }
}
