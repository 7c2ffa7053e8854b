//! Questions to real listeners, among them such as never answer or never end, and to a real engine.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use actor::eventually;
use bytes::Bytes;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
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
    ask(&serde_json::from_value(handler).unwrap(), &container, &nowhere("127.0.0.1"), limit, &mut None).await
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
        ("HTTP/1.1 302 Found\r\nLocation: http://elsewhere.invalid/\r\n\r\n", Ok(())),
        ("HTTP/1.1 302 Found\r\n\r\n", Ok(())),
        ("HTTP/1.1 302 Found\r\nLocation: \r\n\r\n", Ok(())),
        ("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", Ok(())),
        ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 Oh\r\n\r\n", Err("HTTP probe failed with statuscode: 503")),
        ("HTTP/1.1 101 Switching Protocols\r\n\r\n", Err("HTTP probe failed with statuscode: 101")),
        ("HTTP/1.1 304 Not Modified\r\nLocation: /x\r\n\r\n", Ok(())),
        ("HTTP/1.1 404 Not Found\r\n\r\n", Err("HTTP probe failed with statuscode: 404")),
        ("HTTP/1.1 500 Oh\r\n\r\n", Err("HTTP probe failed with statuscode: 500")),
    ] {
        let port = saying(answer).await;
        let outcome = asked(json!({"httpGet": {"port": port, "path": "/healthz"}}), PATIENT).await;
        assert_eq!(outcome, want.map_or_else(|text| Outcome::Failure(text.into()), |()| Outcome::Success), "{answer}");
    }
}

#[actix_rt::test]
async fn what_a_server_sends_to_on_its_own_host_decides() {
    let port = server(|mut stream| async move {
        let mut request = [0; 4096];
        let read = stream.read(&mut request).await.unwrap_or(0);
        let request = String::from_utf8_lossy(&request[..read]).into_owned();
        let to = |status: &str, path: &str| format!("HTTP/1.1 {status}\r\nX-A: b\r\nLOCATION:  {path} \r\n\r\n");
        let answer = match request.split(' ').nth(1).unwrap_or_default() {
            "/good" => to("301 Moved Permanently", "well?x=1"),
            "/bad" => to("307 Temporary Redirect", "/ill"),
            "/loop" => to("302 Found", "/loop"),
            "/nowhere" => to("302 Found", "http://[x"),
            "/ftp" => to("302 Found", "ftp://127.0.0.1/"),
            "/cut" => "HTTP/1.1 302 Found\r\nLocation: /well?x".to_owned(),
            "/9" => to("302 Found", "/well?x=1"),
            path if path.len() == 2 => to("302 Found", &format!("/{}", path[1..].parse::<u8>().unwrap_or(0) + 1)),
            "/endless" => format!("HTTP/1.1 302 Found\r\n{}", "X-Y: zzzzzzzzzzzzzzzzzzzzzzzzzz\r\n".repeat(4000)),
            "/well?x=1" => "HTTP/1.1 200 OK\r\n\r\n".to_owned(),
            _ => "HTTP/1.1 500 Oh\r\n\r\n".to_owned(),
        };
        let _ = stream.write_all(answer.as_bytes()).await;
    })
    .await;
    let get = |path: &str| json!({"httpGet": {"port": port, "path": path}});
    assert_eq!(asked(get("/good"), PATIENT).await, Outcome::Success);
    assert_eq!(failed(asked(get("/bad"), PATIENT).await), "HTTP probe failed with statuscode: 500");
    assert!(failed(asked(get("/loop"), PATIENT).await).ends_with("stopped after 10 redirects"));
    assert!(failed(asked(get("/nowhere"), PATIENT).await).ends_with("failed to parse Location header \"http://[x\""));
    assert!(failed(asked(get("/ftp"), PATIENT).await).ends_with("unsupported protocol scheme \"ftp\""));
    // Ten requests in all.
    assert_eq!(asked(get("/1"), PATIENT).await, Outcome::Success);
    assert!(failed(asked(get("/0"), PATIENT).await).ends_with("stopped after 10 redirects"));
    // Its headers are read up to a limit, and what is cut off sends nobody elsewhere.
    assert!(failed(asked(get("/endless"), PATIENT).await).ends_with("server response headers exceeded 65536 bytes; aborted"));
    assert!(failed(asked(get("/cut"), PATIENT).await).ends_with("unexpected EOF"));
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
    // A good first line is no answer before its headers have an end, nor is one that says that another will come.
    let late = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)";
    for line in ["HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nX: y\r\n", "HTTP/1.1 100 Continue\r\n\r\n"] {
        let text = failed(asked(get(saying(line).await), SHORT).await);
        assert!(text.ends_with(late), "{line}: {text}");
        let ends = server(move |mut stream| async move {
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(line.as_bytes()).await;
        });
        let text = failed(asked(get(ends.await), PATIENT).await);
        assert!(text.ends_with("unexpected EOF"), "{line}: {text}");
    }
    // Headers, or answers before the answer, without end.
    for (first, more) in [("HTTP/1.1 200 OK\r\n", "X-Y: zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz\r\n"), ("", "HTTP/1.1 102 Processing\r\n\r\n")] {
        let endless = server(move |mut stream| async move {
            let _ = stream.write_all(first.as_bytes()).await;
            while stream.write_all(more.as_bytes()).await.is_ok() {}
        });
        let text = failed(asked(get(endless.await), PATIENT).await);
        assert!(text.ends_with("server response headers exceeded 65536 bytes; aborted"), "{text}");
    }
    let closing = server(|stream| async move { drop(stream) }).await;
    let text = failed(asked(get(closing), PATIENT).await);
    assert!(text.ends_with("EOF") || text.contains("reset") || text.contains("Broken pipe"), "{text}");
    let closed = closed_port().await;
    assert_eq!(
        failed(asked(get(closed), PATIENT).await),
        format!("Get \"http://127.0.0.1:{closed}/x\": dial tcp 127.0.0.1:{closed}: connect: connection refused")
    );
}

/// Of X.509's first version, as `openssl x509 -req -signkey` makes it without extensions.
const FIRST_VERSION: &[u8] = b"-----BEGIN CERTIFICATE-----
MIIBFjCBvQIUFy2XYP9vdyWLCZVJH4/q4f07RCYwCgYIKoZIzj0EAwIwDjEMMAoG
A1UEAwwDb2xkMB4XDTI2MTIwMTEyMTcyMVoXDTM2MTEyODEyMTcyMVowDjEMMAoG
A1UEAwwDb2xkMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEnT68ZJ1dPr4ksLC9
uWfnBqepnr69f/3WLOJYFUovcXaoilDop5oTsutwHh/+85Sx8OQBfa9jAvSJF0Gq
zi1yHjAKBggqhkjOPQQDAgNIADBFAiEArGMPA2puC7Jt/DsQpxt2+WaEFDZ7E21c
wjvefe2iBrgCIFiaj9O41Eyo1yJC6yg0gPJzIY/z/913SNJHr9nfaoeB
-----END CERTIFICATE-----
";

/// A server with this certificate, or one of its own, that speaks TLS up to this version and answers to one name.
async fn tls_server(certificate: Option<CertificateDer<'static>>, version: &'static rustls::SupportedProtocolVersion) -> u16 {
    let own = rcgen::generate_simple_self_signed(vec!["whatever".into()]).unwrap();
    let key = rustls_pki_types::PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    // Not the key of the other certificate: nobody believes what it says anyway.
    let shown = CertifiedKey::new(vec![certificate.unwrap_or(own.cert.der().clone())], provider.key_provider.load_private_key(key).unwrap());
    let tls = rustls::ServerConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
    let tls = tls.with_no_client_auth().with_cert_resolver(Arc::new(SingleCertAndKey::from(shown)));
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
    server(move |stream| {
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
    .await
}

#[actix_rt::test]
async fn https_is_spoken_to_whoever_answers_whatever_it_shows() {
    let get = |port: u16| json!({"httpGet": {"port": port, "scheme": "HTTPS", "httpHeaders": [{"name": "Host", "value": "shop.example"}]}});
    let first_version = CertificateDer::from_pem_slice(FIRST_VERSION).unwrap();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        for certificate in [None, Some(first_version.clone()), Some(CertificateDer::from(vec![0]))] {
            let port = tls_server(certificate, version).await;
            assert_eq!(asked(get(port), PATIENT).await, Outcome::Success);
        }
    }
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
    assert_eq!(ask(&handler, &container, &nowhere(""), PATIENT, &mut None).await, Outcome::Unknown("the pod has no address".into()));
    let handler = serde_json::from_value(json!({"tcpSocket": {"port": "web"}})).unwrap();
    assert!(matches!(ask(&handler, &container, &nowhere("127.0.0.1"), PATIENT, &mut None).await, Outcome::Unknown(_)));
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
    let asked = async |script: &str, limit| ask(&shell(script), &container, &target, limit, &mut None).await;
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
async fn a_program_that_hangs_gets_no_company() {
    let Some(engine) = engine().await else { return };
    let id = engine.runtime.create(&engine.spec("hangs", &["sleep", "100"])).await.unwrap();
    engine.runtime.start(&id).await.unwrap();
    let target = Target { pod_ip: String::new(), container_id: id, runtime: engine.runtime.clone() };
    let (container, limit, mut late) = (Container::default(), Duration::from_secs(1), None);
    let script = "[ -e /go ] && exit; echo $$ >>/asked; exec sleep 90";
    let probe = serde_json::from_value(json!({"exec": {"command": ["/bin/busybox", "sh", "-c", script]}})).unwrap();
    assert_eq!(failed(ask(&probe, &container, &target, limit, &mut late).await), "command timed out after 1s");
    for _ in 0..2 {
        assert_eq!(failed(ask(&probe, &container, &target, limit, &mut late).await), "command timed out after 1s, and still runs");
    }
    // Another probe of the same container is not in its way.
    let end = ["/bin/busybox", "sh", "-c", "touch /go; cat /asked; kill $(cat /asked)"].map(str::to_owned);
    let ended = engine.runtime.exec(&target.container_id, &end, PATIENT).await.unwrap();
    assert_eq!((ended.code, ended.output.lines().count()), (0, 1), "{ended:?}");
    eventually!(PATIENT, ask(&probe, &container, &target, PATIENT, &mut late).await == Outcome::Success);
    assert_eq!(late, None);
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
        home: None,
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
