//! What a client should not send, and what it is told.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;

use super::*;
use std::io::{Read as _, Write as _};

/// Sends raw bytes over TLS, with or without a client certificate, and returns code and body of the answer.
fn send(fixture: &Fixture, user: Option<&str>, head: &str, body: &[u8]) -> std::io::Result<(u16, String)> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(fixture.path("ca.crt")).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
    let config = match user {
        Some(user) => {
            let chain = vec![CertificateDer::from_pem_file(fixture.path(&format!("{user}.crt"))).unwrap()];
            let key = PrivateKeyDer::from_pem_file(fixture.path(&format!("{user}.key"))).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    let mut connection = rustls::ClientConnection::new(Arc::new(config), ServerName::try_from("localhost").unwrap()).unwrap();
    let mut socket = std::net::TcpStream::connect(fixture.api.as_ref().unwrap().addr)?;
    socket.set_read_timeout(Some(Duration::from_secs(20)))?;
    let mut stream = rustls::Stream::new(&mut connection, &mut socket);
    let head = format!("{head}\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes())?;
    // The server may answer and close before it has read everything.
    let _ = stream.write_all(body);
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => break,
            Ok(read) => answer.extend_from_slice(&chunk[..read]),
            Err(_) if !answer.is_empty() => break,
            Err(error) => return Err(error),
        }
    }
    let text = String::from_utf8_lossy(&answer).into_owned();
    let code = text.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_default();
    let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    Ok((code, body))
}

/// Sends as the administrator and expects a Status with this code.
fn expect(fixture: &Fixture, code: u16, head: &str, body: &[u8]) -> String {
    let (answered, text) = send(fixture, Some("admin"), head, body).unwrap();
    assert_eq!(answered, code, "{head}\n{text}");
    let status: Value = serde_json::from_str(text.trim()).unwrap_or_else(|error| panic!("{head}: {error}: {text}"));
    assert_eq!((status["kind"].as_str(), status["status"].as_str()), (Some("Status"), Some("Failure")), "{head}");
    assert_eq!(status["code"], code);
    status["message"].as_str().unwrap().to_owned()
}

const CREATE: &str = "POST /api/v1/namespaces/default/configmaps HTTP/1.1\r\nContent-Type: application/json";

#[test]
fn every_error_is_a_status_with_its_code() {
    let fixture = fixture();
    let map = |name: &str| format!(r#"{{"metadata":{{"name":"{name}"}}}}"#).into_bytes();
    let deep = format!("{{\"metadata\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let long = "x".repeat(300);
    for (code, head, body) in [
        (400, CREATE, b"{".to_vec()),
        (400, CREATE, b"".to_vec()),
        (400, CREATE, deep.into_bytes()),
        (400, CREATE, br#"{"kind":"Secret","metadata":{"name":"x"}}"#.to_vec()),
        (400, CREATE, br#"{"metadata":{"name":7}}"#.to_vec()),
        (400, CREATE, br#"{"metadata":{"name":"x","namespace":"other"}}"#.to_vec()),
        (422, CREATE, map("../../etc/passwd")),
        (422, CREATE, map("..")),
        (422, CREATE, map("A")),
        (422, CREATE, map(&long)),
        (422, CREATE, br#"{"metadata":{"name":"x"},"data":{"../x":"y"}}"#.to_vec()),
        (404, "GET /api/v1/namespaces/default/configmaps/.. HTTP/1.1", Vec::new()),
        (404, "GET /api/v1/namespaces/default/configmaps/%2e%2e HTTP/1.1", Vec::new()),
        (404, "GET /unknown/path HTTP/1.1", Vec::new()),
        (404, "GET /api/v1/namespaces/default/services HTTP/1.1", Vec::new()),
        (404, "GET / HTTP/1.1", Vec::new()),
        (405, "PUT /api/v1/namespaces/default/configmaps HTTP/1.1", Vec::new()),
        (405, "POST /version HTTP/1.1", Vec::new()),
        (406, "GET /api/v1/nodes HTTP/1.1\r\nAccept: application/vnd.kubernetes.protobuf", Vec::new()),
        (415, "PATCH /api/v1/nodes/x HTTP/1.1\r\nContent-Type: text/plain", b"x".to_vec()),
        (415, "POST /api/v1/nodes HTTP/1.1\r\nContent-Type: application/vnd.kubernetes.protobuf", b"k8s\0".to_vec()),
        (400, "GET /api/v1/nodes?limit=many HTTP/1.1", Vec::new()),
        (400, "GET /api/v1/nodes?continue=!!! HTTP/1.1", Vec::new()),
        (400, "GET /api/v1/nodes?labelSelector=a%20in%20(b HTTP/1.1", Vec::new()),
        (400, "GET /api/v1/nodes?fieldSelector=spec.x%3D1 HTTP/1.1", Vec::new()),
        (400, "GET /api/v1/nodes?watch=true&resourceVersion=x HTTP/1.1", Vec::new()),
        (410, "GET /api/v1/nodes?watch=true&resourceVersion=999999 HTTP/1.1", Vec::new()),
        (422, "DELETE /api/v1/nodes/x?dryRun=Maybe HTTP/1.1", Vec::new()),
        (400, "DELETE /api/v1/nodes/x HTTP/1.1", br#"{"propagationPolicy":"Never"}"#.to_vec()),
    ] {
        expect(&fixture, code, head, &body);
    }
}

#[test]
fn a_body_that_is_too_large_is_refused() {
    let fixture = fixture();
    let message = expect(&fixture, 413, CREATE, &vec![b' '; (3 << 20) + 1]);
    assert!(message.contains("Request entity too large"), "{message}");
}

#[test]
fn without_a_client_certificate_there_is_no_conversation() {
    let fixture = fixture();
    assert!(send(&fixture, None, "GET /version HTTP/1.1", b"").is_err());
}

#[test]
fn a_certificate_of_another_authority_is_refused() {
    let (fixture, stranger) = (fixture(), tempfile::tempdir().unwrap());
    certificates(stranger.path());
    for file in ["admin.crt", "admin.key"] {
        std::fs::copy(stranger.path().join(file), fixture.path(file)).unwrap();
    }
    assert!(send(&fixture, Some("admin"), "GET /version HTTP/1.1", b"").is_err());
}

#[test]
fn a_nodes_certificate_gets_a_403_that_says_why() {
    let fixture = fixture();
    let (code, body) = send(&fixture, Some("node"), "GET /api/v1/secrets HTTP/1.1", b"").unwrap();
    assert_eq!(code, 403);
    assert!(body.contains("\"kind\":\"Status\"") && body.contains("administrators only"), "{body}");
}

#[test]
fn after_hostile_requests_the_api_still_answers() {
    let fixture = fixture();
    for _ in 0..20 {
        let _ = send(&fixture, Some("admin"), CREATE, &[0xff; 10_000]);
        let _ = send(&fixture, Some("admin"), "\u{0}\u{1}garbage", b"");
    }
    let (code, body) = send(&fixture, Some("admin"), "GET /readyz HTTP/1.1", b"").unwrap();
    assert_eq!((code, body.trim()), (200, "ok"));
}
