//! `GET /pods`: the pods of this node with their status, for local tools (manual ch. 5.2; KubeEdge's port 10255).

use actix_web::{HttpResponse, web};
use model::ResourceKind;
use serde_json::{Value, json};

use crate::store::{Store, StoreError, meta};

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

/// Answers `GET /pods`.
pub async fn pods(store: web::Data<Store>) -> HttpResponse {
    let store = store.into_inner();
    match web::block(move || pod_list(&store)).await {
        Ok(Ok(list)) => HttpResponse::Ok().json(list),
        Ok(Err(error)) => HttpResponse::InternalServerError().body(error.to_string()),
        Err(error) => HttpResponse::InternalServerError().body(error.to_string()),
    }
}

/// Adds the read-only routes to a server that has the [`Store`] as its data.
pub fn routes(config: &mut web::ServiceConfig) {
    config.route("/pods", web::get().to(pods));
}
