//! The HTTPS port (10002) where a new edge gets the authority's certificate and its own.
//!
//! | route | answer |
//! |---|---|
//! | `GET /ca.crt` | the authority's certificate, DER |
//! | `GET` or `POST /edge.crt` | a certificate, DER, for the request (PKCS #10, DER) in the body |
//!
//! Who asks proves it by a join token (`Authorization: Bearer`), or renews by showing the still valid certificate
//! of the same node in the TLS handshake. The routes, headers and the body in a GET are KubeEdge's.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use actix_web::dev::{Extensions, Server};
use actix_web::http::{StatusCode, header};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, ResponseError, web};
use futures_util::StreamExt as _;
use model::NodeName;

use super::error::{PkiError, SignError};
use super::identity::{self, Identity};
use super::token::TokenError;
use super::{ClientCertificates, Pki};

/// Largest request body, bytes (KubeEdge: 1 MiB).
pub const BODY_BYTES_MAX: usize = 1 << 20;

/// Why the HTTPS port does not open.
#[derive(Debug, thiserror::Error)]
pub enum HttpsError {
    /// Another process listens there.
    #[error("port {address} for certificates is occupied: stop the other process or change `cloudhub.https.port`")]
    Occupied {
        /// As configured.
        address: String,
    },
    /// The system refused for another reason.
    #[error("cannot listen for certificate requests on {address}: check address and permissions")]
    Bind {
        /// As configured.
        address: String,
        /// What it said.
        #[source]
        source: io::Error,
    },
    /// The certificates cannot serve.
    #[error(transparent)]
    Pki(#[from] PkiError),
}

/// Opens the port. The server runs when it is spawned or awaited, and its port is in the second part (`:0` is allowed).
///
/// # Errors
/// See [`HttpsError`].
pub fn start(address: &str, pki: Arc<Pki>) -> Result<(Server, SocketAddr), HttpsError> {
    let tls = pki.server_tls(ClientCertificates::Optional)?;
    let bind_failed = |source: io::Error| match source.kind() {
        io::ErrorKind::AddrInUse => HttpsError::Occupied { address: address.to_owned() },
        _ => HttpsError::Bind { address: address.to_owned(), source },
    };
    let pki = web::Data::from(pki);
    let server = HttpServer::new(move || {
        App::new()
            .app_data(pki.clone())
            .route("/ca.crt", web::get().to(ca))
            .service(web::resource("/edge.crt").route(web::get().to(edge)).route(web::post().to(edge)))
    })
    .on_connect(|connection, extensions: &mut Extensions| {
        if let Some(identity) = identity::of_connection(connection) {
            extensions.insert(identity);
        }
    })
    .workers(1)
    .max_connections(256)
    .client_request_timeout(Duration::from_secs(10))
    .tls_handshake_timeout(Duration::from_secs(10))
    .shutdown_timeout(2)
    .disable_signals()
    .bind_rustls_0_23(resolve(address).map_err(bind_failed)?.as_slice(), tls)
    .map_err(bind_failed)?;
    let bound = server.addrs().first().copied().expect("a bound server has an address");
    Ok((server.run(), bound))
}

fn resolve(address: &str) -> io::Result<Vec<SocketAddr>> {
    address.to_socket_addrs().map(Iterator::collect)
}

async fn ca(pki: web::Data<Pki>) -> HttpResponse {
    HttpResponse::Ok().content_type("application/pkix-cert").body(pki.ca_der().to_vec())
}

async fn edge(request: HttpRequest, pki: web::Data<Pki>, body: web::Payload) -> Result<HttpResponse, SignError> {
    let outcome = sign(&request, &pki, body).await;
    let peer = request.peer_addr().map(|peer| peer.to_string()).unwrap_or_default();
    let node = header_text(&request, "NodeName").unwrap_or_default();
    match &outcome {
        Ok(_) => log::info!(node = node, peer = peer.as_str(); "node certificate signed"),
        Err(error) => {
            log::warn!(node = node, peer = peer.as_str(), reason = error.to_string().as_str(); "node certificate refused")
        }
    }
    Ok(HttpResponse::Ok().content_type("application/pkix-cert").body(outcome?))
}

async fn sign(request: &HttpRequest, pki: &Pki, body: web::Payload) -> Result<Vec<u8>, SignError> {
    let now = SystemTime::now();
    let node = header_text(request, "NodeName").and_then(|name| NodeName::new(name).ok());
    // Who asks is settled before what is asked, so that a stranger learns nothing about our checks.
    authorize(request, pki, node.as_ref(), now)?;
    let node = node.ok_or(SignError::NodeName)?;
    if !header_text(request, "ExtKeyUsages").is_none_or(|usages| serde_json::from_str::<Vec<u8>>(usages).is_ok_and(|usages| usages == [2])) {
        return Err(SignError::Usage);
    }
    let csr = bounded(body).await?;
    Ok(pki.sign_node(&csr, &node, now)?.to_vec())
}

/// A certificate of the same node, or a join token.
fn authorize(request: &HttpRequest, pki: &Pki, node: Option<&NodeName>, now: SystemTime) -> Result<(), SignError> {
    let shown = request.conn_data::<Identity>();
    if shown.is_some_and(|identity| node.is_some() && identity.node().as_ref() == node) {
        return Ok(());
    }
    let bearer = header_text(request, header::AUTHORIZATION.as_str()).and_then(|value| value.strip_prefix("Bearer "));
    match (bearer, shown) {
        (Some(bearer), _) => Ok(pki.check_token(bearer.trim(), now)?),
        (None, Some(identity)) => {
            Err(SignError::OtherNode { found: identity.common_name.clone(), asked: node.map(ToString::to_string).unwrap_or_default() })
        }
        (None, None) => Err(TokenError::Missing.into()),
    }
}

fn header_text<'a>(request: &'a HttpRequest, name: &str) -> Option<&'a str> {
    request.headers().get(name)?.to_str().ok()
}

async fn bounded(mut body: web::Payload) -> Result<Vec<u8>, SignError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|error| SignError::Request(error.to_string()))?;
        if bytes.len() + chunk.len() > BODY_BYTES_MAX {
            return Err(SignError::TooLarge { max: BODY_BYTES_MAX });
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

impl ResponseError for SignError {
    fn status_code(&self) -> StatusCode {
        match self {
            SignError::Token(_) | SignError::OtherNode { .. } => StatusCode::UNAUTHORIZED,
            SignError::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            SignError::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            SignError::NodeName | SignError::Usage | SignError::Request(_) | SignError::Subject { .. } => StatusCode::BAD_REQUEST,
        }
    }

    fn error_response(&self) -> HttpResponse {
        HttpResponse::build(self.status_code()).content_type("text/plain; charset=utf-8").body(format!("{self}\n"))
    }
}
