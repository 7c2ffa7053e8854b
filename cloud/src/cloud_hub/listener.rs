//! The HTTPS server of CloudHub: who comes in, and the upgrade to a WebSocket.
//!
//! A connection without a certificate of our authority ends in the TLS handshake. After it:
//!
//! | what is wrong | answer |
//! |---|---|
//! | the certificate is no node's | 403 |
//! | path `/{project}/{node}/events` or header `node_id` names another node | 403 |
//! | the request is no WebSocket upgrade | 400 |
//! | the node limit is reached | 429 `too many Nodes connected` (KubeEdge's text) |

use std::any::Any;
use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix_tls::accept::rustls_0_23::TlsStream;
use actix_web::body::BoxBody;
use actix_web::dev::{Extensions, Server, ServerHandle};
use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, ResponseError, web};
use actix_web_actors::ws::{self, WsResponseBuilder};
use model::NodeName;
use wire::hub::codec::FRAME_BYTES_MAX;
use wire::link::Capabilities;

use super::Hub;
use super::link::{Metered, Overheard};
use super::nodes::TooMany;
use super::session::Session;
use crate::pki::{self, Identity};

/// Why CloudHub's port does not open.
#[derive(Debug, thiserror::Error)]
pub enum CloudHubError {
    /// Another process listens there.
    #[error("port {address} for nodes is occupied: stop the other process or change `cloudhub.port`")]
    Occupied {
        /// As configured.
        address: String,
    },
    /// The system refused for another reason.
    #[error("cannot listen for nodes on {address}: check address and permissions")]
    Bind {
        /// As configured.
        address: String,
        /// What it said.
        #[source]
        source: io::Error,
    },
}

/// The open port.
pub struct Listener {
    /// To be spawned or awaited; ends after [`ServerHandle::stop`].
    pub server: Server,
    /// Where it listens; the port is the real one where 0 was configured.
    pub address: SocketAddr,
}

impl Listener {
    /// For stopping it from elsewhere. Call [`Hub::close_all`] first, so that nodes are told.
    #[must_use]
    pub fn handle(&self) -> ServerHandle {
        self.server.handle()
    }
}

/// Connections that wait to be taken.
const BACKLOG: u32 = 16_384;

/// Opens the port. `tls` requires client certificates of our authority ([`pki::ClientCertificates::Required`]).
///
/// # Errors
/// See [`CloudHubError`].
pub fn start(hub: Arc<Hub>, tls: rustls::ServerConfig) -> Result<Listener, CloudHubError> {
    let address = hub.config.address.clone();
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::AddrInUse => CloudHubError::Occupied { address: address.clone() },
        _ => CloudHubError::Bind { address: address.clone(), source },
    };
    let addresses: Vec<SocketAddr> = address.to_socket_addrs().map_err(failed)?.collect();
    // Beyond the nodes, and those by which the limit may be raised: connections that are being refused, and those of
    // sessions that are being replaced.
    let connections_max = hub.config.node_limit.saturating_add(super::NODES_MORE_MAX + 1024);
    let hub = web::Data::from(hub);
    let server = HttpServer::new(move || App::new().app_data(hub.clone()).default_service(web::to(admit)))
        .on_connect(remember)
        .max_connections(connections_max)
        // All nodes come back at once; what finds no place here is tried again after 1, 3, 7 s by their kernels. (The system
        // takes no more than `net.core.somaxconn`.)
        .backlog(BACKLOG)
        .tcp_nodelay(true)
        .client_request_timeout(Duration::from_secs(10))
        .client_disconnect_timeout(Duration::from_secs(2))
        .tls_handshake_timeout(Duration::from_secs(10))
        .shutdown_timeout(2)
        .disable_signals()
        .bind_rustls_0_23(addresses.as_slice(), tls)
        .map_err(failed)?;
    let bound = server.addrs().first().copied().expect("a bound server has an address");
    Ok(Listener { server: server.run(), address: bound })
}

/// What is known about a connection before its first request.
struct Peer {
    identity: Option<Identity>,
    socket: Option<Arc<TcpStream>>,
}

fn remember(connection: &dyn Any, extensions: &mut Extensions) {
    let socket = connection
        .downcast_ref::<TlsStream<actix_web::rt::net::TcpStream>>()
        .and_then(|stream| stream.get_ref().0.as_fd().try_clone_to_owned().ok())
        .map(|descriptor| Arc::new(TcpStream::from(descriptor)));
    extensions.insert(Peer { identity: pki::of_connection(connection), socket });
}

/// Why a connection is not a session. The text is the whole answer.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Refused {
    #[error("`{0}` is not a node's certificate (CN system:node:NAME, O system:nodes): join with `skep-edge join`")]
    NotANode(String),
    #[error("the certificate is for node `{certificate}`, the {place} says `{said}`: make them agree or join again")]
    OtherNode { certificate: NodeName, place: &'static str, said: String },
    #[error("too many Nodes connected")]
    TooMany,
}

impl ResponseError for Refused {
    fn status_code(&self) -> StatusCode {
        match self {
            Refused::NotANode(_) | Refused::OtherNode { .. } => StatusCode::FORBIDDEN,
            Refused::TooMany => StatusCode::TOO_MANY_REQUESTS,
        }
    }

    fn error_response(&self) -> HttpResponse {
        HttpResponse::build(self.status_code()).content_type("text/plain; charset=utf-8").body(self.to_string())
    }
}

async fn admit(request: HttpRequest, payload: web::Payload, hub: web::Data<Hub>) -> Result<HttpResponse, actix_web::Error> {
    let peer = request.conn_data::<Peer>();
    let name = identify(&request, peer.and_then(|peer| peer.identity.as_ref())).inspect_err(|refused| {
        hub.nodes.counters.refused_identity.fetch_add(1, Ordering::Relaxed);
        log::warn!(peer:? = request.peer_addr(), reason = refused.to_string().as_str(); "connection refused");
    })?;
    // Before the session takes the older one's place: a mere GET must not end it.
    ws::handshake(&request)?;
    let capabilities = request.headers().get(wire::link::HEADER).and_then(|value| value.to_str().ok()).map(Capabilities::read).unwrap_or_default();
    let capabilities = capabilities.and(Capabilities::OURS);
    let session = Session::begin(hub.into_inner(), &name, peer.and_then(|peer| peer.socket.clone()), capabilities).map_err(|TooMany| {
        log::warn!(node:% = name; "connection refused, the node limit is reached");
        Refused::TooMany
    })?;
    let link = session.link();
    let payload = Overheard::new(payload, link.clone());
    let (_, mut response) = WsResponseBuilder::new(session, &request, payload).frame_size(FRAME_BYTES_MAX).start_with_addr()?;
    if let Some(value) = capabilities.header() {
        response.headers_mut().insert(HeaderName::from_static(wire::link::HEADER), HeaderValue::from_static(value));
    }
    Ok(response.map_body(|_, body| BoxBody::new(Metered::new(body, link))))
}

/// The node that the certificate proves, if path and header do not say otherwise.
fn identify(request: &HttpRequest, identity: Option<&Identity>) -> Result<NodeName, Refused> {
    let common_name = || identity.map(|identity| identity.common_name.clone()).unwrap_or_default();
    let certificate = identity.and_then(Identity::node).ok_or_else(|| Refused::NotANode(common_name()))?;
    let in_path = match request.path().split('/').collect::<Vec<_>>().as_slice() {
        ["", _, node, "events"] => Some(*node),
        _ => None,
    };
    let in_header = request.headers().get("node_id").map(|value| value.to_str().unwrap_or_default());
    for (place, said) in [("path", in_path), ("header node_id", in_header)] {
        if let Some(said) = said
            && said != certificate.as_str()
        {
            return Err(Refused::OtherNode { certificate, place, said: said.chars().take(253).collect() });
        }
    }
    Ok(certificate)
}
