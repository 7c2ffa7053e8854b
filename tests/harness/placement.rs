//! The server that tells a node where its cloud is: HTTPS with client certificates, and whatever answer a test wants.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig, crypto};

/// What it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// 200 with this body.
    Body(String),
    /// These bytes, which need not be HTTP.
    Raw(Vec<u8>),
    /// Nothing, while the connection stands.
    Silence,
}

/// A running one, on a free port of the loopback; its thread goes with the tests.
#[derive(Debug)]
pub struct PlacementServer {
    /// Its port.
    pub port: u16,
    says: Arc<Mutex<Answer>>,
    asked: Arc<AtomicU64>,
}

impl PlacementServer {
    /// Starts one with the server certificate of a cloud, whose authority's clients it takes and no others.
    ///
    /// # Panics
    /// When the certificates in `pki` cannot be used.
    pub fn start(pki: &Path, says: Answer) -> Self {
        let port = crate::names::port();
        let server = Self { port, says: Arc::new(Mutex::new(says)), asked: Arc::default() };
        let (acceptor, says, asked) = (TlsAcceptor::from(Arc::new(tls(pki))), server.says.clone(), server.asked.clone());
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("a free port");
        listener.set_nonblocking(true).expect("a socket need not block");
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a thread can wait");
            runtime.block_on(async move {
                let listener = TcpListener::from_std(listener).expect("it is bound");
                while let Ok((stream, _)) = listener.accept().await {
                    let (acceptor, says, asked) = (acceptor.clone(), says.clone(), asked.clone());
                    tokio::spawn(async move {
                        // Who shows no certificate of the authority comes no further.
                        let Ok(mut stream) = acceptor.accept(stream).await else { return };
                        let mut head = [0; 4096];
                        if !matches!(stream.read(&mut head).await, Ok(1..)) || !head.starts_with(b"GET ") {
                            return;
                        }
                        asked.fetch_add(1, Ordering::SeqCst);
                        let answer = says.lock().unwrap_or_else(PoisonError::into_inner).clone();
                        let bytes = match answer {
                            Answer::Body(body) => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes(),
                            Answer::Raw(bytes) => bytes,
                            Answer::Silence => std::future::pending().await,
                        };
                        let _ = stream.write_all(&bytes).await;
                        let _ = stream.shutdown().await;
                    });
                }
            });
        });
        server
    }

    /// Says something else from now on.
    pub fn say(&self, answer: Answer) {
        *self.says.lock().unwrap_or_else(PoisonError::into_inner) = answer;
    }

    /// How often it was asked, by clients with a certificate of the authority.
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }
}

fn tls(pki: &Path) -> ServerConfig {
    let certificate = |name: &str| CertificateDer::from_pem_file(pki.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    let key = PrivateKeyDer::from_pem_file(pki.join("server.key")).unwrap_or_else(|error| panic!("server.key: {error}"));
    let provider = Arc::new(crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(certificate("ca.crt")).expect("the authority's certificate is one");
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().expect("there is an authority");
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has them")
        .with_client_cert_verifier(clients)
        .with_single_cert(vec![certificate("server.crt")], key)
        .expect("the key is the certificate's")
}
