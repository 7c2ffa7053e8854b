#![allow(clippy::unwrap_used, reason = "a failed step ends the test")]

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::https::{self, BODY_BYTES_MAX, HttpsError};
use super::testing::{client, csr, node, pki};
use super::{Identity, Pki};

struct Port {
    _dir: tempfile::TempDir,
    pki: Arc<Pki>,
    address: SocketAddr,
}

fn open() -> Port {
    let dir = tempfile::tempdir().unwrap();
    let pki = pki(&dir);
    let (server, address) = https::start("127.0.0.1:0", pki.clone()).unwrap();
    actix_rt::spawn(server);
    Port { _dir: dir, pki, address }
}

async fn ask(port: &Port, tls: Arc<ClientConfig>, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> (u16, Vec<u8>) {
    let socket = TcpStream::connect(port.address).await.unwrap();
    let mut stream = TlsConnector::from(tls).connect(ServerName::try_from("127.0.0.1").unwrap(), socket).await.unwrap();
    let mut head = format!("{method} {path} HTTP/1.0\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all(format!("{head}\r\n").as_bytes()).await.unwrap();
    // The server may answer and close before it has read all of a body that it refuses.
    let _ = stream.write_all(body).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let status = std::str::from_utf8(&answer[9..12]).unwrap().parse().unwrap();
    (status, answer.split_off(end + 4))
}

fn bearer(pki: &Pki) -> String {
    format!("Bearer {}", pki.join_token().split_once('.').unwrap().1)
}

#[actix_web::test]
async fn the_authority_is_given_to_everybody() {
    let port = open();
    let (status, body) = ask(&port, client(&port.pki, None), "GET", "/ca.crt", &[], &[]).await;
    assert_eq!((status, body.as_slice()), (200, port.pki.ca_der().as_ref()));
}

#[actix_web::test]
async fn a_join_token_gets_a_certificate_for_the_named_node_by_get_and_by_post() {
    let port = open();
    for method in ["GET", "POST"] {
        let headers = [("Authorization", &*bearer(&port.pki)), ("NodeName", "edge-1"), ("ExtKeyUsages", "[2]")];
        let (status, body) = ask(&port, client(&port.pki, None), method, "/edge.crt", &headers, &csr().0).await;
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        assert_eq!(Identity::from_der(&body).unwrap().node().unwrap().as_str(), "edge-1");
    }
}

#[actix_web::test]
async fn a_valid_certificate_renews_its_own_node_only() {
    let port = open();
    for (name, expected) in [("edge-1", 200), ("edge-2", 401)] {
        let tls = client(&port.pki, Some(node(&port.pki, "edge-1")));
        let (status, body) = ask(&port, tls, "GET", "/edge.crt", &[("NodeName", name)], &csr().0).await;
        assert_eq!(status, expected, "{}", String::from_utf8_lossy(&body));
    }
}

#[actix_web::test]
async fn without_token_nothing_is_told_but_that_it_is_missing() {
    let port = open();
    for (token, reason) in [
        (None, "there is none"),
        (Some("Bearer "), "there is none"),
        (Some("Basic abc"), "there is none"),
        (Some("Bearer e30.e30.e30"), "not a JSON Web Token"),
    ] {
        let headers: Vec<(&str, &str)> = token.map(|token| ("Authorization", token)).into_iter().collect();
        let (status, body) = ask(&port, client(&port.pki, None), "GET", "/edge.crt", &headers, b"garbage").await;
        let text = String::from_utf8(body).unwrap();
        assert!(status == 401 && text.contains(reason) && text.contains("skep-cloud token"), "{status} {text}");
    }
}

#[actix_web::test]
async fn a_token_of_another_cloud_is_refused() {
    let (port, other) = (open(), open());
    let headers = [("Authorization", &*bearer(&other.pki)), ("NodeName", "edge-1")];
    let (status, body) = ask(&port, client(&port.pki, None), "GET", "/edge.crt", &headers, &csr().0).await;
    assert!(status == 401 && String::from_utf8_lossy(&body).contains("not made by this cloud"));
}

#[actix_web::test]
async fn bad_requests_are_refused_with_a_sentence() {
    let port = open();
    let bearer = bearer(&port.pki);
    let large = vec![0; BODY_BYTES_MAX + 1];
    let good = csr().0;
    // Node, usages, body; status and a word of the answer.
    type Case<'a> = (&'a str, Option<&'a str>, &'a [u8], u16, &'a str);
    let cases: [Case<'_>; 6] = [
        ("", None, &good, 400, "NodeName"),
        ("Not A Name", None, &good, 400, "NodeName"),
        ("edge-1", Some("[1]"), &good, 400, "ExtKeyUsages"),
        ("edge-1", Some("client"), &good, 400, "ExtKeyUsages"),
        ("edge-1", None, b"garbage", 400, "certificate signing request"),
        ("edge-1", None, &large, 413, "larger than"),
    ];
    for (name, usages, body, expected, word) in cases {
        let mut headers = vec![("Authorization", bearer.as_str()), ("NodeName", name)];
        headers.extend(usages.map(|usages| ("ExtKeyUsages", usages)));
        let (status, answer) = ask(&port, client(&port.pki, None), "POST", "/edge.crt", &headers, body).await;
        let text = String::from_utf8_lossy(&answer).into_owned();
        assert!(status == expected && text.contains(word) && text.lines().count() == 1, "{status} {text}");
    }
}

#[actix_web::test]
async fn an_occupied_port_is_said_so() {
    let port = open();
    let error = https::start(&port.address.to_string(), port.pki.clone()).err().unwrap();
    assert!(matches!(error, HttpsError::Occupied { .. }) && error.to_string().contains(&port.address.to_string()), "{error}");
}

#[actix_web::test]
async fn garbage_in_place_of_tls_leaves_the_port_open() {
    let port = open();
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0x16, 0x03, 0x01, 0xff, 0xff], &[0; 4096]] {
        let mut socket = TcpStream::connect(port.address).await.unwrap();
        let _ = socket.write_all(garbage).await;
    }
    assert_eq!(ask(&port, client(&port.pki, None), "GET", "/ca.crt", &[], &[]).await.0, 200);
}
