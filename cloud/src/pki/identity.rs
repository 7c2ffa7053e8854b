//! Who a client certificate says its owner is.

use actix_tls::accept::rustls_0_23::TlsStream;
use actix_web::rt::net::TcpStream;
use model::NodeName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The group of administrators, as in every Kubernetes cluster.
pub const ADMINISTRATORS: &str = "system:masters";

/// Subject of a verified client certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// CN, for example `system:node:edge-1`; empty when there is none.
    pub common_name: String,
    /// Every O of the subject.
    pub organizations: Vec<String>,
}

impl Identity {
    /// Reads the subject. `None` if the bytes are not a certificate.
    pub fn from_der(certificate: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        let subject = certificate.subject();
        let text = |attribute: &x509_parser::x509::AttributeTypeAndValue<'_>| attribute.as_str().ok().map(str::to_owned);
        let common_names: Vec<String> = subject.iter_common_name().filter_map(text).collect();
        Some(Self {
            // Two common names are two identities, so none.
            common_name: if common_names.len() == 1 { common_names.into_iter().next().unwrap_or_default() } else { String::new() },
            organizations: subject.iter_organization().filter_map(text).collect(),
        })
    }

    /// Whether this is an administrator: O `system:masters`.
    pub fn is_administrator(&self) -> bool {
        self.organizations.iter().any(|organization| organization == ADMINISTRATORS)
    }

    /// The node's name, if this is a node: O `system:nodes` and CN `system:node:<name>`.
    pub fn node(&self) -> Option<NodeName> {
        wire::identity::node_of([self.common_name.as_str()], self.organizations.iter().map(String::as_str))
    }
}

/// The identity that the other end of a TLS connection of our servers proved; `None` without a certificate.
///
/// `connection` is what `HttpServer::on_connect` hands out. rustls has verified the certificate already.
pub fn of_connection(connection: &dyn std::any::Any) -> Option<Identity> {
    let stream = connection.downcast_ref::<TlsStream<TcpStream>>()?;
    let (_, session) = stream.get_ref();
    Identity::from_der(session.peer_certificates()?.first()?)
}
