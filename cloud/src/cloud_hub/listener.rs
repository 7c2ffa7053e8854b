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

use std::cell::RefCell;
use std::future::ready;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs as _};
use std::os::fd::AsFd as _;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use actix::AsyncContext as _;
use actix_codec::{Encoder as _, Framed, FramedParts};
use actix_http::body::{BoxBody, MessageBody as _};
use actix_http::{ConnectionType, Extensions, HttpService, Request, Response, ResponseBuilder, StatusCode, TlsAcceptorConfig, h1, ws};
use actix_tls::accept::rustls_0_23::TlsStream;
use actix_web::dev::{Server, ServerHandle, fn_service};
use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web_actors::ws::WebsocketContext;
use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;
use model::NodeName;
use tokio::net::TcpSocket;
use wire::link::Capabilities;

use super::Hub;
use super::link::Metered;
use super::nodes::TooMany;
use super::session::Session;
use super::socket::{self, Frames};
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

/// Connections that wait to be taken. All nodes come back at once; what finds no place here is tried again after 1, 3, 7 s by
/// their kernels. (The system takes no more than `net.core.somaxconn`.)
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
    let (sockets, address) = bind(&addresses).map_err(failed)?;
    let mut server = Server::build().max_concurrent_connections(connections_max).shutdown_timeout(2).disable_signals();
    for socket in sockets {
        let (hub, tls) = (hub.clone(), tls.clone());
        let service = move || {
            let (hub, for_upgrades) = (hub.clone(), hub.clone());
            HttpService::build()
                .on_connect_ext(remember)
                .tcp_nodelay(true)
                .client_request_timeout(Duration::from_secs(10))
                .client_disconnect_timeout(Duration::from_secs(2))
                .upgrade(fn_service(move |(request, framed)| upgrade(request, framed, &for_upgrades)))
                .finish(fn_service(move |request| {
                    // An upgrade goes the other way.
                    let answer = examine(&request, &hub).map_or_else(|refused| refused, |_| Response::bad_request());
                    ready(Ok::<_, actix_http::Error>(answer))
                }))
                .rustls_0_23_with_config(tls.clone(), TlsAcceptorConfig::default().handshake_timeout(Duration::from_secs(10)))
        };
        server = server.listen("cloud_hub", socket, service).map_err(failed)?;
    }
    Ok(Listener { server: server.run(), address })
}

/// Listens on what of `addresses` can be had; the sockets, and the address of the first.
fn bind(addresses: &[SocketAddr]) -> io::Result<(Vec<TcpListener>, SocketAddr)> {
    let bind = |address: &SocketAddr| {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(*address)?;
        socket.listen(BACKLOG)?.into_std()
    };
    let (mut sockets, mut failure) = (Vec::new(), io::Error::from(io::ErrorKind::AddrNotAvailable));
    for address in addresses {
        match bind(address) {
            Ok(socket) => sockets.push(socket),
            Err(error) => failure = error,
        }
    }
    let address = sockets.first().ok_or(failure)?.local_addr()?;
    Ok((sockets, address))
}

/// What is known about a connection before its first request.
struct Peer {
    identity: Option<Identity>,
    socket: Option<Arc<TcpStream>>,
}

type Socket = TlsStream<actix_rt::net::TcpStream>;

fn remember(connection: &Socket, extensions: &mut Extensions) {
    let socket = connection.get_ref().0.as_fd().try_clone_to_owned().ok().map(|descriptor| Arc::new(TcpStream::from(descriptor)));
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

impl From<Refused> for Response<BoxBody> {
    fn from(refused: Refused) -> Self {
        let status = match refused {
            Refused::NotANode(_) | Refused::OtherNode { .. } => StatusCode::FORBIDDEN,
            Refused::TooMany => StatusCode::TOO_MANY_REQUESTS,
        };
        Response::build(status).content_type("text/plain; charset=utf-8").body(refused.to_string()).map_into_boxed_body()
    }
}

/// Whose request this is and the answer to it, if it is one for a session; or the answer that refuses it.
fn examine(request: &Request, hub: &Hub) -> Result<(NodeName, ResponseBuilder), Response<BoxBody>> {
    let identity = request.conn_data::<Peer>().and_then(|peer| peer.identity.as_ref());
    let name = identify(request, identity).inspect_err(|refused| {
        hub.nodes.counters.refused_identity.fetch_add(1, Ordering::Relaxed);
        log::warn!(peer:? = request.peer_addr(), reason = refused.to_string().as_str(); "connection refused");
    })?;
    // What stands where a body should would be taken for frames.
    let headers = &request.head().headers;
    if headers.get(header::CONTENT_LENGTH).is_some_and(|length| length != "0") || headers.contains_key(header::TRANSFER_ENCODING) {
        return Err(Response::bad_request());
    }
    Ok((name, ws::handshake(request.head())?))
}

/// A session for an upgrade, and the answer that begins it; or the answer that refuses it.
fn admit(request: &Request, hub: &Arc<Hub>) -> Result<(Session, Response<BoxBody>), Response<BoxBody>> {
    // Before the session takes the older one's place: a mere GET must not end it.
    let (name, mut answer) = examine(request, hub)?;
    let capabilities = request.head().headers.get(wire::link::HEADER).and_then(|value| value.to_str().ok());
    let capabilities = capabilities.map(Capabilities::read).unwrap_or_default().and(Capabilities::OURS);
    let socket = request.conn_data::<Peer>().and_then(|peer| peer.socket.clone());
    let session = Session::begin(hub.clone(), &name, socket, capabilities).map_err(|TooMany| {
        log::warn!(node:% = name; "connection refused, the node limit is reached");
        Refused::TooMany
    })?;
    if let Some(value) = capabilities.header() {
        answer.insert_header((HeaderName::from_static(wire::link::HEADER), HeaderValue::from_static(value)));
    }
    Ok((session, answer.finish().map_into_boxed_body()))
}

/// Serves a request that asks for another protocol: with a session, or with the reason why there is none.
///
/// What the server made for the request is dropped here; the future has the socket and the session.
fn upgrade(request: Request, framed: Framed<Socket, h1::Codec>, hub: &Arc<Hub>) -> LocalBoxFuture<'static, Result<(), actix_http::Error>> {
    let FramedParts { io, mut codec, read_buf, .. } = framed.into_parts();
    let stream = Rc::new(RefCell::new(io));
    match admit(&request, hub) {
        Ok((session, answer)) => {
            let link = session.link();
            let first = encoded(&mut codec, answer);
            let frames = Frames::new(stream.clone(), BytesMut::from(&read_buf[..]), link.clone());
            // The frames are the session's only stream; the one that its context makes of bytes stays empty.
            let said = WebsocketContext::with_factory(futures_util::stream::pending(), |context| {
                context.add_stream(frames);
                session
            });
            let mut said = Metered::new(said, link);
            socket::serve(stream, first, move |task| said.poll_next(task)).map(Ok).boxed_local()
        }
        Err(mut refused) => {
            refused.head_mut().set_connection_type(ConnectionType::Close);
            let first = encoded(&mut codec, refused);
            socket::serve(stream, first, |_| Poll::Ready(None)).map(Ok).boxed_local()
        }
    }
}

/// An answer as bytes.
fn encoded(codec: &mut h1::Codec, answer: Response<BoxBody>) -> Bytes {
    let (head, body) = answer.into_parts();
    let size = body.size();
    let body = body.try_into_bytes().unwrap_or_default();
    let mut bytes = BytesMut::new();
    for part in [h1::Message::Item((head, size)), h1::Message::Chunk((!body.is_empty()).then_some(body))] {
        codec.encode(part, &mut bytes).expect("memory takes everything");
    }
    bytes.freeze()
}

/// The node that the certificate proves, if path and header do not say otherwise.
fn identify(request: &Request, identity: Option<&Identity>) -> Result<NodeName, Refused> {
    let common_name = || identity.map(|identity| identity.common_name.clone()).unwrap_or_default();
    let certificate = identity.and_then(Identity::node).ok_or_else(|| Refused::NotANode(common_name()))?;
    let in_path = match request.path().split('/').collect::<Vec<_>>().as_slice() {
        ["", _, node, "events"] => Some(*node),
        _ => None,
    };
    let in_header = request.head().headers.get("node_id").map(|value| value.to_str().unwrap_or_default());
    for (place, said) in [("path", in_path), ("header node_id", in_header)] {
        if let Some(said) = said
            && said != certificate.as_str()
        {
            return Err(Refused::OtherNode { certificate, place, said: said.chars().take(253).collect() });
        }
    }
    Ok(certificate)
}
