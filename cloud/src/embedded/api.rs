//! The resource API: from a request to an operation, and from its outcome to an answer.

use actix_web::http::{Method, StatusCode, header};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, web};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::admission::{FieldValidation, decode};
use super::form::Form;
use super::kind::Kind;
use super::list::{self, Listing};
use super::object::Object;
use super::operations::{self, DeleteOptions, Deleted, Half, Written};
use super::patch::Patch;
use super::request::{self, Query, Target};
use super::selector::Selector;
use super::status_error::{Cause, StatusError};
use super::store::{Key, Store, Tx};
use super::{discovery, openapi};

/// What a worker needs to answer.
#[derive(Clone)]
pub struct Api {
    /// The objects.
    pub store: Store,
    /// Becomes true when the API is to end.
    pub stopped: watch::Receiver<bool>,
}

type Answer = Result<HttpResponse, StatusError>;

impl Api {
    /// Answers one request of an administrator.
    ///
    /// # Errors
    /// What the client is told.
    pub async fn answer(&self, request: &HttpRequest, payload: web::Payload) -> Answer {
        let target = Target::parse(request.path()).ok_or_else(StatusError::unknown_path)?;
        let query = Query::parse(request.query_string())?;
        match target {
            Target::List(kind, namespace) => self.collection(request, payload, &query, kind, namespace).await,
            Target::Item { kind, namespace, name, subresource } => {
                let key = Key { kind, namespace, name };
                self.item(request, payload, &query, key, &subresource).await
            }
            _ if !matches!(*request.method(), Method::GET | Method::HEAD) => Err(StatusError::method_not_allowed()),
            fixed => describe(request, &fixed),
        }
    }

    async fn collection(&self, request: &HttpRequest, payload: web::Payload, query: &Query, kind: &'static Kind, namespace: String) -> Answer {
        match *request.method() {
            Method::GET | Method::HEAD => {
                let selector = Selector::parse(kind, query.get("labelSelector"), query.get("fieldSelector"))?;
                let form = Form::of(request, query.get("includeObject"))?;
                let listing = Listing { kind, namespace, selector, form };
                if query.flag("watch") {
                    super::watch::answer(self.store.clone(), listing, query, self.stopped.clone()).await
                } else {
                    list::answer(self.store.clone(), listing, query).await
                }
            }
            Method::POST if kind.namespaced && namespace.is_empty() => Err(StatusError::method_not_allowed()),
            Method::POST => {
                let body = request::object(content_type(request), &request::body(payload).await?)?;
                let (object, warnings) = decode(kind, body, validation(query)?)?;
                let dry_run = query.dry_run()?;
                let create = move |tx: &mut Tx<'_>| operations::create(tx, kind, &namespace, object.clone(), dry_run);
                let written = self.store.write(create).await?;
                written_answer(request, query, kind, Written { warnings, ..written })
            }
            Method::DELETE => self.delete_all(request, payload, query, kind, namespace).await,
            _ => Err(StatusError::method_not_allowed()),
        }
    }

    async fn item(&self, request: &HttpRequest, payload: web::Payload, query: &Query, key: Key, subresource: &str) -> Answer {
        let half = if subresource == "status" { Half::Status } else { Half::Main };
        match (request.method().clone(), subresource) {
            (Method::GET | Method::HEAD, "" | "status") => {
                let (kind, name) = (key.kind, key.name.clone());
                let form = Form::of(request, query.get("includeObject"))?;
                let text = self.store.read_async(move |snapshot| snapshot.text(&key)).await?;
                let text = text.ok_or_else(|| StatusError::not_found(kind, &name))?;
                Ok(object_answer(StatusCode::OK, &form.single(kind, &text, true, jiff::Timestamp::now()), &[]))
            }
            (Method::PUT, "" | "status") => {
                let body = request::object(content_type(request), &request::body(payload).await?)?;
                let (object, warnings) = decode(key.kind, body, validation(query)?)?;
                let (kind, dry_run) = (key.kind, query.dry_run()?);
                let update = move |tx: &mut Tx<'_>| operations::update(tx, &key, object.clone(), half, dry_run);
                let written = self.store.write(update).await?;
                written_answer(request, query, kind, Written { warnings, ..written })
            }
            (Method::PATCH, "" | "status") => {
                let patch = Patch::parse(key.kind, content_type(request), &request::body(payload).await?)?;
                if patch.creates().is_some() && query.get("fieldManager").is_empty() {
                    let cause = Cause::required("fieldManager", "is required for apply patch");
                    return Err(StatusError::invalid(key.kind, &key.name, vec![cause]));
                }
                let (kind, dry_run, validation) = (key.kind, query.dry_run()?, validation(query)?);
                let patch = move |tx: &mut Tx<'_>| operations::patch(tx, &key, &patch, half, validation, dry_run);
                let written = self.store.write(patch).await?;
                written_answer(request, query, kind, written)
            }
            (Method::DELETE, "") => {
                let options = delete_options(request, payload, query).await?;
                let kind = key.kind;
                let deleted = self.store.write(move |tx| operations::delete(tx, &key, &options)).await?;
                Ok(deleted_answer(kind, deleted))
            }
            (Method::POST, "binding") => {
                let body = request::object(content_type(request), &request::body(payload).await?)?;
                let node = body.str_at("/target/name").to_owned();
                if node.is_empty() {
                    return Err(StatusError::invalid(key.kind, &key.name, vec![Cause::required("target.name", "")]));
                }
                let dry_run = query.dry_run()?;
                self.store.write(move |tx| operations::bind(tx, &key, &node, dry_run)).await?;
                let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
                Ok(object_answer(StatusCode::CREATED, &status.to_string(), &[]))
            }
            (_, on_the_node) if request::ON_THE_NODE.contains(&on_the_node) => self.on_the_node(key, on_the_node).await,
            _ => Err(StatusError::method_not_allowed()),
        }
    }

    /// Says where to ask instead.
    async fn on_the_node(&self, key: Key, subresource: &str) -> Answer {
        let (kind, namespace, name) = (key.kind, key.namespace.clone(), key.name.clone());
        let pod = self.store.read_async(move |snapshot| snapshot.text(&key)).await?;
        let pod = request::json(pod.ok_or_else(|| StatusError::not_found(kind, &name))?.as_bytes())?;
        let instead = match subresource {
            "exec" => format!("run `skep-edge exec -n {namespace} {name} -- COMMAND`"),
            "portforward" => format!("connect to {}", pod["status"]["podIP"].as_str().unwrap_or("the pod's address")),
            _ => format!("run `skep-edge logs -n {namespace} {name}`"),
        };
        Err(StatusError::on_the_node(pod["spec"]["nodeName"].as_str().unwrap_or_default(), &instead))
    }

    /// Deletes what is selected, one by one, and answers with the list.
    async fn delete_all(&self, request: &HttpRequest, payload: web::Payload, query: &Query, kind: &'static Kind, namespace: String) -> Answer {
        let options = delete_options(request, payload, query).await?;
        let selector = Selector::parse(kind, query.get("labelSelector"), query.get("fieldSelector"))?;
        let listing = Listing { kind, namespace, selector, form: Form::Json };
        let (mut after, mut items) = (None, Vec::<Value>::new());
        loop {
            let page = list::page(&self.store, &listing, after, 500).await?;
            after = page.next.clone();
            for text in list::selected(&listing, page)? {
                let Ok(object) = request::json(text.as_bytes()).and_then(|value| Object::new(value).map_err(StatusError::internal)) else {
                    continue;
                };
                let (key, options) = (Key::new(kind, object.namespace(), object.name()), options.clone());
                match self.store.write(move |tx| operations::delete(tx, &key, &options)).await.map_err(StatusError::from) {
                    Ok(_) => items.push(object.into_value()),
                    // Somebody else was faster.
                    Err(error) if error.code() == 404 => {}
                    Err(error) => return Err(error),
                }
            }
            if after.is_none() {
                break;
            }
        }
        let list = json!({"kind": format!("{}List", kind.kind), "apiVersion": kind.api_version(), "metadata": {}, "items": items});
        Ok(object_answer(StatusCode::OK, &list.to_string(), &[]))
    }
}

/// Answers what does not depend on the stored objects.
fn describe(request: &HttpRequest, target: &Target) -> Answer {
    let accept = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let aggregated = discovery::accepts_aggregated(accept);
    let found = match target {
        Target::CoreVersions | Target::Groups if aggregated => {
            let body = discovery::aggregated(*target == Target::CoreVersions).to_string();
            return Ok(HttpResponse::Ok().content_type(discovery::AGGREGATED).insert_header((header::VARY, "Accept")).body(body));
        }
        Target::Health => return Ok(HttpResponse::Ok().content_type("text/plain; charset=utf-8").body("ok")),
        Target::OpenApiV2 if accept.contains("protobuf") => {
            return Ok(HttpResponse::Ok().content_type(openapi::V2_PROTOBUF).body(openapi::V2_EMPTY));
        }
        Target::CoreVersions => Some(discovery::core_versions()),
        Target::Groups => Some(discovery::groups()),
        Target::Group(name) => discovery::group(name),
        Target::Resources(group, version) => discovery::resources(group, version),
        Target::Version => Some(discovery::version()),
        Target::OpenApiV2 => Some(openapi::v2_json()),
        Target::OpenApiV3 => Some(openapi::v3_index()),
        Target::OpenApiV3Of(group, version) => openapi::v3(group, version),
        Target::List(..) | Target::Item { .. } => None,
    };
    let body = found.ok_or_else(StatusError::unknown_path)?;
    Ok(object_answer(StatusCode::OK, &body.to_string(), &[]))
}

fn content_type(request: &HttpRequest) -> &str {
    let value = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim()
}

fn validation(query: &Query) -> Result<FieldValidation, StatusError> {
    match query.get("fieldValidation") {
        "" | "Warn" => Ok(FieldValidation::Warn),
        "Ignore" => Ok(FieldValidation::Ignore),
        "Strict" => Ok(FieldValidation::Strict),
        other => Err(StatusError::unprocessable(format!(
            "fieldValidation: Unsupported value: {other:?}: supported values: \"Ignore\", \"Strict\", \"Warn\""
        ))),
    }
}

async fn delete_options(request: &HttpRequest, payload: web::Payload, query: &Query) -> Result<DeleteOptions, StatusError> {
    let options = DeleteOptions { grace_secs: query.number("gracePeriodSeconds")?, dry_run: query.dry_run()?, ..DeleteOptions::default() };
    let options = options.read(&json!({"propagationPolicy": query.get("propagationPolicy")}))?;
    let body = request::body(payload).await?;
    if body.is_empty() {
        return Ok(options);
    }
    options.read(request::object(content_type(request), &body)?.value())
}

fn object_answer(code: StatusCode, body: &str, warnings: &[String]) -> HttpResponse {
    let mut builder = HttpResponseBuilder::new(code);
    for warning in warnings.iter().take(10) {
        // A quoted string in a header: no control characters, quotes escaped.
        let text: String = warning.chars().filter(|sign| !sign.is_control()).collect();
        let text = text.replace('\\', "\\\\").replace('"', "\\\"");
        builder.append_header((header::WARNING, format!("299 - \"{text}\"")));
    }
    builder.content_type("application/json").body(format!("{}\n", body.trim_end()))
}

fn written_answer(request: &HttpRequest, query: &Query, kind: &Kind, written: Written) -> Answer {
    let form = Form::of(request, query.get("includeObject"))?;
    let code = if written.created { StatusCode::CREATED } else { StatusCode::OK };
    let body = form.single(kind, &written.object.to_text(), true, jiff::Timestamp::now());
    Ok(object_answer(code, &body, &written.warnings))
}

/// Pods and what is only marked answer with the object, the rest with a Status that names what is gone.
fn deleted_answer(kind: &Kind, deleted: Deleted) -> HttpResponse {
    let body = match deleted {
        Deleted::Marked(object) => object.into_value(),
        Deleted::Gone(object) if *kind == super::kind::PODS => object.into_value(),
        Deleted::Gone(object) => {
            let mut details = json!({"name": object.name(), "kind": kind.plural, "uid": object.uid()});
            if !kind.group.is_empty() {
                details["group"] = kind.group.into();
            }
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
        }
    };
    object_answer(StatusCode::OK, &body.to_string(), &[])
}
