//! Who comes in.

use actor::eventually;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Error;

use super::fixture::*;
use crate::cloud_hub::{CloudHubError, listener};
use crate::pki::{ClientCertificates, testing};

/// Status and text of a refused upgrade.
fn refusal(result: Result<Edge, Error>) -> (u16, String) {
    match result.err().expect("a refusal") {
        Error::Http(response) => (response.status().as_u16(), String::from_utf8_lossy(response.body().as_deref().unwrap_or_default()).into_owned()),
        other => panic!("no HTTP answer: {other}"),
    }
}

#[actix_web::test]
async fn without_a_certificate_of_this_cloud_nobody_gets_past_the_handshake() {
    let (cloud, other) = (start(patient()), start(patient()));
    let strangers = [testing::client(&cloud.pki, None), testing::client(&cloud.pki, Some(testing::node(&other.pki, "edge-1")))];
    for tls in strangers {
        // In TLS 1.3 the client learns of it with the first bytes it reads.
        let error = cloud.try_connect(tls, "/p/edge-1/events", None).await.err().expect("no connection");
        assert!(!matches!(error, Error::Http(_)), "{error}");
    }
    cloud.connect("edge-1").await.settled().await;
}

#[actix_web::test]
async fn garbage_in_place_of_tls_leaves_the_port_open() {
    let cloud = start(patient());
    let mut held = Vec::new();
    for garbage in [&b""[..], b"GET / HTTP/1.1\r\n\r\n", &[0x16, 0x03, 0x01, 0xff, 0xff], &[0; 4096]].repeat(20) {
        let mut socket = TcpStream::connect(cloud.address).await.unwrap();
        let _ = socket.write_all(garbage).await;
        held.push(socket);
    }
    cloud.connect("edge-1").await.settled().await;
}

#[actix_web::test]
async fn a_certificate_that_is_no_nodes_is_refused_with_a_sentence() {
    let cloud = start(patient());
    let tls = testing::client(&cloud.pki, Some(testing::admin(&cloud.dir)));
    let (status, text) = refusal(cloud.try_connect(tls, "/p/edge-1/events", None).await);
    assert!(status == 403 && text.contains("skep-admin") && text.contains("skep-edge join"), "{status} {text}");
    assert_eq!(cloud.hub.totals().refused_identity, 1);
}

#[actix_web::test]
async fn path_and_header_may_only_agree_with_the_certificate() {
    let cloud = start(patient());
    for (path, header, place) in [
        ("/p/edge-2/events", None, "path"),
        ("/p/edge-2/events", Some("edge-1"), "path"),
        ("/p/edge-1/events", Some("edge-2"), "header node_id"),
        ("/p/edge-1/events", Some(""), "header node_id"),
    ] {
        let (status, text) = refusal(cloud.try_connect(cloud.node_tls("edge-1"), path, header).await);
        assert!(status == 403 && text.contains("edge-1") && text.contains(place), "{status} {text}");
    }
    for (path, header) in [("/p/edge-1/events", None), ("/", Some("edge-1")), ("/", None)] {
        cloud.try_connect(cloud.node_tls("edge-1"), path, header).await.unwrap().settled().await;
    }
}

#[actix_web::test]
async fn a_request_that_is_no_upgrade_leaves_the_live_session_alone() {
    use tokio::io::AsyncReadExt as _;
    let cloud = start(patient());
    let mut edge = cloud.connect("edge-1").await;
    let upgrade = "GET /p/edge-1/events HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n";
    for (request, status) in [
        ("GET /p/edge-1/events HTTP/1.0\r\n\r\n".to_owned(), "HTTP/1.0 400"),
        // Without a key, with a body, as something else than GET, as another version.
        (format!("{upgrade}\r\n"), "HTTP/1.1 400"),
        (format!("{upgrade}Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nContent-Length: 5\r\n\r\nhello"), "HTTP/1.1 400"),
        (format!("{}\r\n", upgrade.replacen("GET", "PUT", 1)), "HTTP/1.1 405"),
        (format!("{}Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", upgrade.replace("13", "8")), "HTTP/1.1 426"),
    ] {
        let mut plain = cloud.dial(cloud.node_tls("edge-1")).await.unwrap();
        plain.write_all(request.as_bytes()).await.unwrap();
        let mut answer = vec![0; status.len()];
        plain.read_exact(&mut answer).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&answer), status, "{request}");
    }
    edge.settled().await;
    assert_eq!(cloud.hub.totals().sessions, 1);
}

#[actix_web::test]
async fn one_node_too_many_is_refused_until_another_has_gone() {
    let cloud = start(crate::cloud_hub::Config { node_limit: 1, ..patient() });
    let first = cloud.connect("edge-1").await;
    let connect_second = || cloud.try_connect(cloud.node_tls("edge-2"), "/p/edge-2/events", None);
    assert_eq!(refusal(connect_second().await), (429, "too many Nodes connected".to_owned()));
    // The same node again is not one more.
    let again = cloud.connect("edge-1").await;
    drop((first, again));
    eventually!(SOON, cloud.hub.totals().connected == 0);
    connect_second().await.unwrap().settled().await;
}

#[actix_web::test]
async fn an_occupied_port_is_said_so() {
    let cloud = start(patient());
    let config = crate::cloud_hub::Config { address: cloud.address.to_string(), ..patient() };
    let hub = crate::cloud_hub::Hub::new(config, cloud.hub.peers.clone());
    let error = listener::start(hub, cloud.pki.server_tls(ClientCertificates::Required).unwrap()).err().unwrap();
    assert!(matches!(error, CloudHubError::Occupied { .. }) && error.to_string().contains(&cloud.address.to_string()), "{error}");
}
