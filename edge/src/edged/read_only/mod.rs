//! What this node tells without credentials, to its own machine only (manual ch. 5.2; KubeEdge's port 10255).
//!
//! | `GET` | answer |
//! |---|---|
//! | `/pods` | the pods with their status, a PodList |
//! | `/stats/summary` | what node, pods and containers take, in the kubelet's form |
//! | `/containerLogs/{namespace}/{pod}/{container}` | what a container wrote |
//!
//! Nothing is changed from here: every other method is 405.

mod error;
mod logs;
mod stats;
mod summary;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use actix_web::{HttpResponse, web};
use model::ResourceKind;
use serde_json::{Value, json};
use tokio::sync::{Mutex, Semaphore};

use super::runtime::ContainerRuntime;
use crate::store::{Store, StoreError, meta};
pub use error::ReadError;

/// Logs that are followed at once, and as many that are read to their end.
pub const LOGS_MAX: usize = 8;

/// The engine, for as long as Edged runs.
#[derive(Clone)]
pub struct Source {
    /// The engine.
    pub runtime: Arc<dyn ContainerRuntime>,
    /// Value of the node label.
    pub node: String,
    /// Where the directories of the pods are: the file system that the node tells about.
    pub pods: std::path::PathBuf,
    /// Pods from files with their status, by uid: the store has none of them.
    pub local: Arc<std::sync::Mutex<BTreeMap<String, Value>>>,
}

/// Gives the engine, if Edged runs.
pub type Sources = dyn Fn() -> Option<Source> + Send + Sync;

/// What the routes share beside the [`Store`].
pub struct Reading {
    source: Box<Sources>,
    /// Room for logs that are followed.
    following: Arc<Semaphore>,
    /// Room for logs that are read to their end.
    reading: Arc<Semaphore>,
    /// The last summary: it costs a look at each container.
    summary: Mutex<Option<summary::Taken>>,
}

impl Reading {
    /// `source` is asked at each request: Edged may be switched off and on.
    pub fn new(source: impl Fn() -> Option<Source> + Send + Sync + 'static) -> Self {
        let room = || Arc::new(Semaphore::new(LOGS_MAX));
        Self { source: Box::new(source), following: room(), reading: room(), summary: Mutex::new(None) }
    }

    fn source(&self) -> Result<Source, ReadError> {
        (self.source)().ok_or(ReadError::NoEngine)
    }
}

/// The stored pods as a PodList, each with the status that this edge reported last.
///
/// # Errors
/// The store's.
pub fn pod_list(store: &Store) -> Result<Value, StoreError> {
    let (pods, statuses) = store.read(|read| Ok((meta::list(read, ResourceKind::Pod, None)?, meta::list(read, ResourceKind::PodStatus, None)?)))?;
    let items = pods.into_iter().filter_map(|row| {
        let mut pod: Value = serde_json::from_str(&row.value).ok().filter(Value::is_object)?;
        let reported = statuses.iter().find(|status| status.key.namespace == row.key.namespace && status.key.name == row.key.name);
        if let Some(status) = reported.filter(|status| status.uid == row.uid).and_then(|status| serde_json::from_str::<Value>(&status.value).ok()) {
            pod["status"] = status["Status"].clone();
        }
        Some(pod)
    });
    Ok(json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items.collect::<Vec<_>>()}))
}

/// The pods of the store and those from files.
async fn all_pods(store: web::Data<Store>, reading: &Reading) -> Result<Value, ReadError> {
    let store = store.into_inner();
    let list = web::block(move || pod_list(&store)).await.map_err(|error| ReadError::Store(error.to_string()))?;
    let mut list = list.map_err(|error| ReadError::Store(actor::chain(&error)))?;
    if let (Some(source), Some(items)) = ((reading.source)(), list["items"].as_array_mut()) {
        items.extend(source.local.lock().unwrap_or_else(PoisonError::into_inner).values().cloned());
    }
    Ok(list)
}

/// Answers `GET /pods`.
///
/// # Errors
/// The store's.
pub async fn pods(store: web::Data<Store>, reading: web::Data<Reading>) -> Result<HttpResponse, ReadError> {
    Ok(HttpResponse::Ok().json(all_pods(store, &reading).await?))
}

/// Adds the read-only routes to a server that has the [`Store`] and [`Reading`] as its data.
pub fn routes(config: &mut web::ServiceConfig) {
    // As resources of their own, so that another method is refused rather than unknown.
    config
        .service(web::resource("/pods").route(web::get().to(pods)))
        .service(web::resource("/stats/summary").route(web::get().to(summary::answer)))
        .service(web::resource("/containerLogs/{namespace}/{pod}/{container}").route(web::get().to(logs::answer)));
}

#[cfg(test)]
mod tests;
