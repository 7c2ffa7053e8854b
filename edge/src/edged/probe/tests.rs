//! Questions to real listeners, among them such as never answer or never end, and to a real engine.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::{HookError, Job, Outcome, TEXT_BYTES_MAX, Target, ask, run, run_hook};
use crate::edged::pod::Container;
use crate::edged::runtime::ContainerRuntime;
use crate::edged::runtime::docker::DockerRuntime;
use crate::edged::runtime::testing::engine;

/// For servers that answer, on a machine under load.
const PATIENT: Duration = Duration::from_secs(20);
/// For servers that do not.
const SHORT: Duration = Duration::from_millis(200);

fn nowhere(pod_ip: &str) -> Target {
    let runtime = Arc::new(DockerRuntime::new("unix:///nowhere.sock").unwrap());
    Target { pod_ip: pod_ip.into(), container_id: "c".into(), runtime }
}

async fn asked(handler: Value, limit: Duration) -> Outcome {
    let container: Container = serde_json::from_value(json!({"name": "c"})).unwrap();
    ask(&serde_json::from_value(handler).unwrap(), &container, &nowhere("127.0.0.1"), limit).await
}

fn failed(outcome: Outcome) -> String {
    match outcome {
        Outcome::Failure(text) => text,
        other => panic!("no failure: {other:?}"),
    }
}

/// A server that does this with each connection.
async fn server<F: Future<Output = ()> + 'static>(serve: impl Fn(TcpStream) -> F + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    actix_rt::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            actix_rt::spawn(serve(stream));
        }
    });
    port
}

/// A server that reads a request and says this.
async fn saying(answer: &'static str) -> u16 {
    server(move |mut stream| async move {
        let mut request = [0; 4096];
        let _ = stream.read(&mut request).await;
        let _ = stream.write_all(answer.as_bytes()).await;
        // Open until the client has gone.
        let _ = stream.read(&mut request).await;
    })
    .await
}

/// A port at which nobody listens.
async fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

#[actix_rt::test]
async fn a_status_of_200_to_399_is_success_and_the_connection_need_not_end() {
    for (answer, want) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Ok(())),
        ("HTTP/1.0 204\r\n\r\n", Ok(())),
        ("HTTP/1.1 302 Found\r\nLocation: /x\r\n\r\n", Ok(())),
        ("HTTP/1.1 404 Not Found\r\n\r\n", Err("HTTP probe failed with statuscode: 404")),
        ("HTTP/1.1 500 Oh\r\n\r\n", Err("HTTP probe failed with statuscode: 500")),
    ] {
        let port = saying(answer).await;
        let outcome = asked(json!({"httpGet": {"port": port, "path": "/healthz"}}), PATIENT).await;
        assert_eq!(outcome, want.map_or_else(|text| Outcome::Failure(text.into()), |()| Outcome::Success), "{answer}");
    }
}

#[actix_rt::test]
async fn a_server_that_is_silent_talks_nonsense_or_never_ends_is_a_failure_in_time() {
    let get = |port: u16| json!({"httpGet": {"port": port, "path": "/x"}});
    let silent = server(|mut stream| async move { drop(stream.read_to_end(&mut Vec::new()).await) }).await;
    let began = Instant::now();
    let text = failed(asked(get(silent), SHORT).await);
    assert_eq!(text, format!("Get \"http://127.0.0.1:{silent}/x\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)"));
    assert!(began.elapsed() < PATIENT);
    // A first line that never ends; bytes are taken up to a limit.
    let endless = server(|mut stream| async move { while stream.write_all(&[b'x'; 1024]).await.is_ok() {} }).await;
    assert!(failed(asked(get(endless), PATIENT).await).contains("malformed HTTP response"));
    let nonsense = saying("SSH-2.0-OpenSSH_9.2\r\n").await;
    assert!(failed(asked(get(nonsense), PATIENT).await).contains("malformed HTTP response \"SSH-2.0-OpenSSH_9.2\""));
    // Headers without end behind a good first line: the answer is known, and nobody waits for the rest.
    let headers = server(|mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n").await;
        while stream.write_all(b"X-Y: zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz\r\n").await.is_ok() {}
    })
    .await;
    assert_eq!(asked(get(headers), PATIENT).await, Outcome::Success);
    let closing = server(|stream| async move { drop(stream) }).await;
    let text = failed(asked(get(closing), PATIENT).await);
    assert!(text.ends_with("EOF") || text.contains("reset") || text.contains("Broken pipe"), "{text}");
    let closed = closed_port().await;
    assert_eq!(
        failed(asked(get(closed), PATIENT).await),
        format!("Get \"http://127.0.0.1:{closed}/x\": dial tcp 127.0.0.1:{closed}: connect: connection refused")
    );
}

#[actix_rt::test]
async fn https_is_spoken_to_whoever_answers() {
    let key = rcgen::generate_simple_self_signed(vec!["whatever".into()]).unwrap();
    let (certificate, key) = (key.cert.der().clone(), rustls_pki_types::PrivateKeyDer::try_from(key.signing_key.serialize_der()).unwrap());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap()));
    let port = server(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            let mut request = vec![0; 4096];
            let read = stream.read(&mut request).await.unwrap_or(0);
            let is_host = String::from_utf8_lossy(&request[..read]).contains("Host: shop.example\r\n");
            let _ = stream.write_all(if is_host { b"HTTP/1.1 200 OK\r\n\r\n" } else { b"HTTP/1.1 421 No\r\n\r\n" }).await;
            let _ = stream.shutdown().await;
        }
    })
    .await;
    let get = json!({"port": port, "scheme": "HTTPS", "httpHeaders": [{"name": "Host", "value": "shop.example"}]});
    assert_eq!(asked(json!({ "httpGet": get }), PATIENT).await, Outcome::Success);
    let plain = saying("HTTP/1.1 200 OK\r\n\r\n").await;
    assert!(failed(asked(json!({"httpGet": {"port": plain, "scheme": "HTTPS"}}), PATIENT).await).contains("tls: "));
}

#[actix_rt::test]
async fn a_connection_is_enough_for_tcp() {
    let open = server(|stream| async move { drop(stream) }).await;
    assert_eq!(asked(json!({"tcpSocket": {"port": open, "host": "localhost"}}), PATIENT).await, Outcome::Success);
    let closed = closed_port().await;
    let text = failed(asked(json!({"tcpSocket": {"port": closed}}), PATIENT).await);
    assert_eq!(text, format!("dial tcp 127.0.0.1:{closed}: connect: connection refused"));
    let container = Container::default();
    let handler = serde_json::from_value(json!({"tcpSocket": {"port": open}})).unwrap();
    assert_eq!(ask(&handler, &container, &nowhere(""), PATIENT).await, Outcome::Unknown("the pod has no address".into()));
    let handler = serde_json::from_value(json!({"tcpSocket": {"port": "web"}})).unwrap();
    assert!(matches!(ask(&handler, &container, &nowhere("127.0.0.1"), PATIENT).await, Outcome::Unknown(_)));
}

/// A gRPC server that answers each call with this code and these bytes.
async fn grpc(code: &'static str, answer: &'static [u8]) -> u16 {
    server(move |stream| async move {
        let Ok(mut connection) = h2::server::handshake(stream).await else { return };
        while let Some(Ok((mut request, mut respond))) = connection.accept().await {
            assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
            actix_rt::spawn(async move {
                let question = request.body_mut().data().await.unwrap().unwrap();
                assert_eq!(question[..], [0, 0, 0, 0, 5, 0x0a, 3, b'w', b'e', b'b']);
                let mut stream = respond.send_response(http::Response::new(()), false).unwrap();
                let _ = stream.send_data(Bytes::from_static(answer), false);
                let mut trailers = http::HeaderMap::new();
                trailers.insert("grpc-status", code.parse().unwrap());
                trailers.insert("grpc-message", "words".parse().unwrap());
                let _ = stream.send_trailers(trailers);
            });
        }
    })
    .await
}

#[actix_rt::test]
async fn grpc_s_health_service_says_whether_a_service_serves() {
    let check = async |port: u16, limit| asked(json!({"grpc": {"port": port, "service": "web"}}), limit).await;
    assert_eq!(check(grpc("0", &[0, 0, 0, 0, 2, 8, 1]).await, PATIENT).await, Outcome::Success);
    for (code, answer, want) in [
        ("0", &[0, 0, 0, 0, 2, 8, 2][..], "service unhealthy (responded with \"NOT_SERVING\")"),
        ("0", &[0, 0, 0, 0, 0], "service unhealthy (responded with \"UNKNOWN\")"),
        ("0", &[], "error: health rpc probe failed: the answer is no HealthCheckResponse"),
        ("5", &[], "error: health rpc probe failed: code 5: words"),
        ("12", &[], "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): words"),
        ("0", &[7; 8192], "error: health rpc probe failed: the answer is longer than 4096 bytes"),
    ] {
        assert_eq!(failed(check(grpc(code, answer).await, PATIENT).await), want);
    }
}

#[actix_rt::test]
async fn a_server_that_is_no_grpc_server_is_a_failure_in_time() {
    let check = async |port: u16, limit| failed(asked(json!({"grpc": {"port": port}}), limit).await);
    let silent = server(|mut stream| async move { drop(stream.read_to_end(&mut Vec::new()).await) }).await;
    assert_eq!(check(silent, SHORT).await, "timeout: health rpc did not complete within 0.2s");
    for port in [saying("HTTP/1.1 400 Bad Request\r\n\r\n").await, server(|stream| async move { drop(stream) }).await, closed_port().await] {
        let text = check(port, PATIENT).await;
        assert!(text.starts_with("error: "), "{text}");
    }
    // Settings without end.
    let frames = server(|mut stream| async move { while stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.is_ok() {} }).await;
    let text = check(frames, Duration::from_secs(2)).await;
    assert!(text.starts_with("error: ") || text.starts_with("timeout: "), "{text}");
}

#[actix_rt::test]
async fn a_program_in_the_container_answers_by_its_exit_code() {
    let outcome = asked(json!({"exec": {"command": ["true"]}}), PATIENT).await;
    assert!(matches!(&outcome, Outcome::Unknown(text) if text.contains("does not answer")), "an engine that is away says nothing: {outcome:?}");
    let Some(engine) = engine().await else { return };
    let id = engine.runtime.create(&engine.spec("probed", &["sleep", "100"])).await.unwrap();
    engine.runtime.start(&id).await.unwrap();
    let target = Target { pod_ip: String::new(), container_id: id, runtime: engine.runtime.clone() };
    let container = Container::default();
    let shell = |script: &str| serde_json::from_value(json!({"exec": {"command": ["/bin/busybox", "sh", "-c", script]}})).unwrap();
    let asked = async |script: &str, limit| ask(&shell(script), &container, &target, limit).await;
    assert_eq!(asked("echo fine", PATIENT).await, Outcome::Success);
    assert_eq!(asked("echo no; exit 3", PATIENT).await, Outcome::Failure("no".into()));
    let long = failed(asked("yes x | head -c 5000; exit 1", PATIENT).await);
    assert_eq!(long.len(), TEXT_BYTES_MAX);
    assert!(failed(asked("sleep 50", Duration::from_secs(1)).await).starts_with("command timed out"));

    let hook = async |script: &str, limit| run_hook(&shell(script), &container, &target, limit).await;
    assert!(hook("true", PATIENT).await.is_ok());
    assert!(matches!(hook("echo no; exit 3", PATIENT).await, Err(HookError::Ended { code: 3, output }) if output == "no"));
    assert!(matches!(hook("sleep 50", Duration::from_secs(1)).await, Err(HookError::TimedOut(_))));
}

#[actix_rt::test]
async fn a_hook_s_request_is_done_when_anybody_answers() {
    let container = Container::default();
    let hook = async |handler: Value, limit| run_hook(&serde_json::from_value(handler).unwrap(), &container, &nowhere("127.0.0.1"), limit).await;
    let port = saying("HTTP/1.1 500 Oh\r\n\r\n").await;
    assert!(hook(json!({"httpGet": {"port": port}}), PATIENT).await.is_ok());
    let closed = closed_port().await;
    let error = hook(json!({"httpGet": {"port": closed}}), PATIENT).await.unwrap_err();
    assert!(error.to_string().contains("connection refused"), "{error}");
    assert!(hook(json!({"tcpSocket": {"port": closed}}), PATIENT).await.is_ok());
    assert!(hook(json!({"sleep": {"seconds": 0}}), PATIENT).await.is_ok());
    assert!(matches!(hook(json!({"sleep": {"seconds": 50}}), SHORT).await, Err(HookError::TimedOut(_))));
}

#[actix_rt::test]
async fn a_container_s_probes_run_behind_its_startup_probe_until_they_are_dropped() {
    let port = saying("HTTP/1.1 200 OK\r\n\r\n").await;
    let well = json!({"tcpSocket": {"port": port}, "periodSeconds": 1});
    let container = json!({"name": "c", "startupProbe": well, "readinessProbe": well, "livenessProbe": {"tcpSocket": {"port": closed_port().await}, "periodSeconds": 1, "failureThreshold": 1}});
    let job = Job {
        container: serde_json::from_value(container).unwrap(),
        target: nowhere("127.0.0.1"),
        running_for: Duration::ZERO,
        daemon_for: Duration::from_secs(3600),
        has_started: false,
        was_ready: None,
    };
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let task = actix_rt::spawn(run(job, move |result| drop(tell.send(result))));
    let mut results = Vec::new();
    while results.len() < 3 {
        results.push(tokio::time::timeout(PATIENT, told.recv()).await.unwrap().unwrap());
    }
    assert_eq!((results[0].kind, &results[0].change), (super::Kind::Startup, &super::Change::Succeeded));
    results[1..].sort_by_key(|result| result.kind);
    assert!(matches!((results[1].kind, &results[1].change), (super::Kind::Liveness, super::Change::Failed(_))));
    assert_eq!((results[2].kind, &results[2].change), (super::Kind::Readiness, &super::Change::Succeeded));
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    assert!(told.try_recv().is_err(), "nothing changed since");
}
