//! The HTTPS server: threads, connections, identities.

use std::net::TcpListener;
use std::time::Duration;

use actix_web::dev::{Extensions, ServerHandle};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use rustls::ServerConfig;
use tokio::sync::watch;

use super::api::Api;
use super::status_error::StatusError;
use super::store::Store;
use super::{EmbeddedError, controllers};
use crate::pki::{self, Identity};

/// HTTP worker threads.
const WORKERS: usize = 2;
/// Connections at most, per worker.
const CONNECTIONS_MAX: usize = 256;

/// What the server thread takes over.
pub struct Serving {
    /// The opened store.
    pub store: Store,
    /// The bound socket.
    pub listener: TcpListener,
    /// TLS with client certificates.
    pub tls: ServerConfig,
    /// Becomes true when the API is to end.
    pub stopped: watch::Receiver<bool>,
    /// When a silent node becomes `Unknown`.
    pub lease_duration: Duration,
}

/// Starts the server on a thread of its own; the receiver becomes true (or closes) when it has ended.
pub fn serve(serving: Serving) -> Result<watch::Receiver<bool>, EmbeddedError> {
    let (ended, has_ended) = watch::channel(false);
    let (ready, is_ready) = std::sync::mpsc::channel();
    std::thread::Builder::new()
        .name("api-server".to_owned())
        .spawn(move || {
            let outcome = actix_rt::System::new().block_on(run(serving, ready));
            if let Err(error) = outcome {
                log::error!(error:% = error; "embedded API ended");
            }
            ended.send_replace(true);
        })
        .map_err(|error| EmbeddedError::Thread(error.to_string()))?;
    match is_ready.recv() {
        Ok(()) => Ok(has_ended),
        Err(_) => Err(EmbeddedError::Thread("the server thread ended at once; its log says why".to_owned())),
    }
}

async fn run(serving: Serving, ready: std::sync::mpsc::Sender<()>) -> std::io::Result<()> {
    let Serving { store, listener, tls, stopped, lease_duration } = serving;
    let api = Api { store: store.clone(), stopped: stopped.clone() };
    let controllers = actix_rt::spawn(controllers::run(store, lease_duration, stopped.clone()));
    let server = HttpServer::new(move || App::new().app_data(web::Data::new(api.clone())).default_service(web::to(handle)))
        .workers(WORKERS)
        .worker_max_blocking_threads(2)
        .max_connections(CONNECTIONS_MAX)
        .keep_alive(Duration::from_secs(75))
        .tcp_nodelay(true)
        .shutdown_timeout(2)
        .disable_signals()
        .on_connect(remember_identity)
        .listen_rustls_0_23(listener, tls)?
        .run();
    actix_rt::spawn(stop_when_told(stopped, server.handle()));
    // The starter may have given up; then nobody needs to know.
    let _ = ready.send(());
    let outcome = server.await;
    controllers.abort();
    outcome
}

async fn stop_when_told(mut stopped: watch::Receiver<bool>, server: ServerHandle) {
    // A closed channel means that the handle was dropped without stopping: the API goes on.
    if stopped.wait_for(|stopped| *stopped).await.is_ok() {
        server.stop(true).await;
    }
}

fn remember_identity(connection: &dyn std::any::Any, extensions: &mut Extensions) {
    if let Some(identity) = pki::of_connection(connection) {
        extensions.insert(identity);
    }
}

/// Only administrators are let in: edge nodes speak to CloudHub only.
async fn handle(request: HttpRequest, payload: web::Payload, api: web::Data<Api>) -> Result<HttpResponse, StatusError> {
    match request.conn_data::<Identity>() {
        Some(identity) if identity.is_administrator() => api.answer(&request, payload).await,
        Some(identity) => Err(StatusError::forbidden(format!("User {:?} cannot use this API: it serves administrators only", identity.common_name))),
        None => Err(StatusError::forbidden("the client certificate cannot be read")),
    }
}
