#![allow(clippy::unwrap_used, reason = "a failed step ends the test")]

use std::sync::{Arc, Mutex};

use rcgen::{CertificateParams, CertificateSigningRequestParams, KeyPair};
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::tls::tests::{TestCa, ca, node_params};

const JWT: &str = "aGVhZA.Ym9keQ.c2ln";

type Script = dyn Fn(&TestCa, &str, &[u8]) -> Vec<u8> + Send + Sync;

/// A cloud that answers as the script says; real TLS, port 0.
struct Cloud {
    address: String,
    ca: Arc<TestCa>,
    heads: Arc<Mutex<Vec<String>>>,
}

fn ok(body: &[u8]) -> Vec<u8> {
    let mut answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
    answer.extend_from_slice(body);
    answer
}

fn sign(ca: &TestCa, request: &[u8], name: &str) -> Vec<u8> {
    let request = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(request)).unwrap();
    node_params(name).signed_by(&request.public_key, &ca.issuer).unwrap().der().to_vec()
}

fn honest(ca: &TestCa, head: &str, body: &[u8]) -> Vec<u8> {
    if head.starts_with("GET /ca.crt ") { ok(&ca.der) } else { ok(&sign(ca, body, "system:node:edge-1")) }
}

impl Cloud {
    async fn start(names: &[&str], script: impl Fn(&TestCa, &str, &[u8]) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let script: Arc<Script> = Arc::new(script);
        let (ca, heads) = (Arc::new(ca()), Arc::new(Mutex::new(Vec::new())));
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &ca.issuer).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![CertificateDer::from(certificate)], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (its_ca, its_heads) = (ca.clone(), heads.clone());
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(socket).await else { continue };
                let mut request = Vec::new();
                let (head, body) = loop {
                    stream.read_buf(&mut request).await.unwrap();
                    let Some(end) = request.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
                    let head = String::from_utf8(request[..end].to_vec()).unwrap();
                    let length: usize = head.lines().find_map(|l| l.strip_prefix("Content-Length: ")).unwrap().parse().unwrap();
                    if request.len() >= end + 4 + length {
                        break (head, request.split_off(end + 4));
                    }
                };
                let answer = script(&its_ca, &head, &body);
                its_heads.lock().unwrap().push(head);
                let _ = stream.write_all(&answer).await;
                let _ = stream.shutdown().await;
            }
        });
        Self { address, ca, heads }
    }

    fn args(&self, dir: &Path) -> JoinArgs {
        JoinArgs {
            cloud: format!("https://{}", self.address),
            token: format!("{}.{JWT}", fingerprint(&self.ca.der)),
            node: "edge-1".into(),
            config: None,
            data_dir: Some(dir.join("data")),
        }
    }
}

fn place(args: &JoinArgs) -> &Path {
    args.data_dir.as_deref().unwrap()
}

async fn join_at(args: &JoinArgs) -> Result<NodeTls, JoinError> {
    join(args, place(args)).await
}

/// Joining failed and left nothing behind.
async fn refused(args: &JoinArgs) -> JoinError {
    let error = join_at(args).await.unwrap_err();
    let left = fs::read_dir(place(args)).map_or(0, |entries| entries.count());
    assert_eq!(left, 0, "after `{error}`");
    error
}

#[tokio::test]
async fn joining_stores_a_checked_identity_whose_key_is_private() {
    let (cloud, dir) = (Cloud::start(&["127.0.0.1"], honest).await, tempfile::tempdir().unwrap());
    let args = cloud.args(dir.path());
    assert_eq!(join_at(&args).await.unwrap().node.as_str(), "edge-1");
    let pki = place(&args).join("pki");
    assert_eq!(tls::load(&pki, SystemTime::now()).unwrap().node.as_str(), "edge-1");
    assert_eq!(fs::metadata(pki.join("edge.key")).unwrap().permissions().mode() & 0o777, 0o600);
    let heads = cloud.heads.lock().unwrap().clone();
    assert!(!heads[0].contains(JWT), "the token must not be shown to an unverified server");
    assert!(heads[1].contains(&format!("Authorization: Bearer {JWT}")) && heads[1].contains("NodeName: edge-1"));
}

#[tokio::test]
async fn joining_again_keeps_the_earlier_identity_beside_the_new_one() {
    let (cloud, dir) = (Cloud::start(&["127.0.0.1"], honest).await, tempfile::tempdir().unwrap());
    let args = cloud.args(dir.path());
    for _ in 0..3 {
        join_at(&args).await.unwrap();
    }
    let mut names: Vec<_> = fs::read_dir(place(&args)).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["pki", "pki.previous"]);
}

#[tokio::test]
async fn a_token_of_another_cloud_never_leaves_the_machine() {
    let (cloud, dir) = (Cloud::start(&["127.0.0.1"], honest).await, tempfile::tempdir().unwrap());
    let args = JoinArgs { token: format!("{}.{JWT}", "0".repeat(64)), ..cloud.args(dir.path()) };
    assert!(matches!(refused(&args).await, JoinError::OtherCloud { .. }));
    assert!(cloud.heads.lock().unwrap().iter().all(|head| !head.contains(JWT)));
}

#[tokio::test]
async fn the_clouds_own_sentence_reaches_the_operator() {
    let script = |ca: &TestCa, head: &str, body: &[u8]| match head.starts_with("GET /ca.crt ") {
        true => honest(ca, head, body),
        false => b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 22\r\n\r\nthe token has expired\n".to_vec(),
    };
    let (cloud, dir) = (Cloud::start(&["127.0.0.1"], script).await, tempfile::tempdir().unwrap());
    let error = refused(&cloud.args(dir.path())).await;
    assert!(matches!(error, JoinError::Refused { status: 401, .. }));
    assert!(error.to_string().contains("the token has expired"), "{error}");
}

#[tokio::test]
async fn a_host_that_the_cloud_does_not_advertise_is_said_so() {
    let (cloud, dir) = (Cloud::start(&["10.9.9.9"], honest).await, tempfile::tempdir().unwrap());
    let error = refused(&cloud.args(dir.path())).await;
    assert!(matches!(error, JoinError::HostNotAdvertised { .. }), "{error:?}");
}

#[tokio::test]
async fn answers_that_are_none_are_refused() {
    let bad: [(&'static str, Vec<u8>); 6] = [
        ("empty", Vec::new()),
        ("not HTTP", b"SSH-2.0-OpenSSH\r\n\r\n".to_vec()),
        ("cut off", b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\nabc".to_vec()),
        ("no length", b"HTTP/1.1 200 OK\r\n\r\nabc".to_vec()),
        ("too large", ok(&vec![0; ANSWER_BYTES_MAX])),
        ("not a certificate", ok(b"hello")),
    ];
    for (name, answer) in bad {
        let script = move |ca: &TestCa, head: &str, _: &[u8]| match head.starts_with("GET /ca.crt ") {
            true => ok(&ca.der),
            false => answer.clone(),
        };
        let (cloud, dir) = (Cloud::start(&["127.0.0.1"], script).await, tempfile::tempdir().unwrap());
        let error = refused(&cloud.args(dir.path())).await;
        assert!(matches!(error, JoinError::Answer { .. } | JoinError::Certificate { .. }), "{name}: {error:?}");
    }
}

#[tokio::test]
async fn a_certificate_for_another_node_or_of_another_key_is_not_stored() {
    let other_node = |ca: &TestCa, head: &str, body: &[u8]| match head.starts_with("GET /ca.crt ") {
        true => ok(&ca.der),
        false => ok(&sign(ca, body, "system:node:edge-2")),
    };
    let other_key = |ca: &TestCa, head: &str, _: &[u8]| match head.starts_with("GET /ca.crt ") {
        true => ok(&ca.der),
        false => ok(node_params("system:node:edge-1").signed_by(&KeyPair::generate().unwrap(), &ca.issuer).unwrap().der()),
    };
    let dir = tempfile::tempdir().unwrap();
    refused(&Cloud::start(&["127.0.0.1"], other_node).await.args(dir.path())).await;
    let error = refused(&Cloud::start(&["127.0.0.1"], other_key).await.args(dir.path())).await;
    assert!(matches!(error, JoinError::Certificate { source: tls::TlsError::KeyMismatch { .. }, .. }), "{error:?}");
}

#[tokio::test]
async fn a_port_without_tls_and_a_port_without_listener_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let args = JoinArgs {
        cloud: address.to_string(),
        token: format!("{}.{JWT}", "0".repeat(64)),
        node: "edge-1".into(),
        config: None,
        data_dir: Some(dir.path().join("data")),
    };
    let plain = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    });
    assert!(matches!(refused(&args).await, JoinError::Tls { .. }));
    plain.await.unwrap();
    assert!(matches!(refused(&args).await, JoinError::Connect { .. }));
}

#[tokio::test]
async fn arguments_are_checked_before_anything_is_sent() {
    let dir = tempfile::tempdir().unwrap();
    let good = JoinArgs {
        cloud: "https://127.0.0.1:1".into(),
        token: format!("{}.{JWT}", "0".repeat(64)),
        node: "edge-1".into(),
        config: None,
        data_dir: Some(dir.path().join("data")),
    };
    for token in ["", "abc", JWT, &format!("{}.a.b", "0".repeat(64)), &format!("{}.a.b.c\r\nX: y", "0".repeat(64))] {
        let args = JoinArgs { token: token.to_owned(), ..good.clone() };
        assert!(matches!(refused(&args).await, JoinError::Token), "{token}");
    }
    for cloud in ["", "https://", "http://a:b:c", "ftp://host", "host:0", "host:99999", "[::1", "ho st:1"] {
        let args = JoinArgs { cloud: cloud.to_owned(), ..good.clone() };
        assert!(matches!(refused(&args).await, JoinError::CloudAddress { .. }), "{cloud}");
    }
    let args = JoinArgs { node: "Not A Name".into(), ..good };
    assert!(matches!(refused(&args).await, JoinError::NodeName(_)));
}

#[test]
fn addresses_of_a_cloud_are_read_in_every_form() {
    for (given, address) in [
        ("https://cloud.example.org:10002", "cloud.example.org:10002"),
        ("https://cloud.example.org/", "cloud.example.org:10002"),
        ("10.0.0.1:7", "10.0.0.1:7"),
        ("https://[fd00::1]:7", "[fd00::1]:7"),
        ("[fd00::1]", "[fd00::1]:10002"),
    ] {
        assert_eq!(Endpoint::parse(given).unwrap().address(), address, "{given}");
    }
}

#[tokio::test]
async fn a_data_directory_that_cannot_be_written_is_an_error() {
    let (cloud, dir) = (Cloud::start(&["127.0.0.1"], honest).await, tempfile::tempdir().unwrap());
    fs::write(dir.path().join("file"), "").unwrap();
    let args = JoinArgs { data_dir: Some(dir.path().join("file/data")), ..cloud.args(dir.path()) };
    let error = join_at(&args).await.unwrap_err();
    assert!(matches!(error, JoinError::Write { .. }) && error.exit_code() == 74, "{error:?}");
}
