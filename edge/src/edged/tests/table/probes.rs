use std::cell::Cell;
use std::rc::Rc;

use actor::eventually;
use bytes::Bytes;
use serde_json::{Value, json};

use super::super::super::runtime::testing::engine;
use super::super::module::{Ground, SOCKET, leave, sleeper, start_on};
use super::{SOON, run, service};

/// A probe that asks twice a second at the least and counts the first answer.
fn probe(handler: Value) -> Value {
    let mut probe = json!({"periodSeconds": 1, "failureThreshold": 1, "timeoutSeconds": 5});
    probe.as_object_mut().unwrap().extend(handler.as_object().unwrap().clone());
    probe
}

/// Answers every request with this status.
fn server(status: &str) -> String {
    format!("(while :; do printf 'HTTP/1.1 {status}\\r\\nContent-Length: 0\\r\\n\\r\\n' | nc -l -p 8080 > /dev/null; done) &")
}

/// gRPC's health service, on this machine: says SERVING as long as this is so.
async fn health_service(serves: Rc<Cell<bool>>) -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    actix_rt::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let serves = serves.clone();
            actix_rt::spawn(async move {
                let Ok(mut connection) = h2::server::handshake(stream).await else { return };
                while let Some(Ok((mut request, mut respond))) = connection.accept().await {
                    let status = if serves.get() { 1 } else { 2 };
                    actix_rt::spawn(async move {
                        while request.body_mut().data().await.is_some() {}
                        let Ok(mut answer) = respond.send_response(http::Response::new(()), false) else { return };
                        let _ = answer.send_data(Bytes::from(vec![0, 0, 0, 0, 2, 8, status]), false);
                        let mut trailers = http::HeaderMap::new();
                        trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
                        let _ = answer.send_trailers(trailers);
                    });
                }
            });
        }
    });
    port
}

/// The pod is in the machine's network, and the test on the machine answers for it.
#[actix_rt::test]
async fn a_pod_is_ready_while_its_grpc_health_service_serves() {
    let Some(engine) = engine().await else { return };
    let dir = tempfile::tempdir().unwrap();
    let edge = start_on(&engine, dir.path(), SOCKET, Ground { address: [127, 0, 0, 1], ..Ground::default() });
    let serves = Rc::new(Cell::new(false));
    let mut pod = sleeper(&engine, "grpc");
    pod["spec"]["hostNetwork"] = json!(true);
    pod["spec"]["containers"][0]["readinessProbe"] = probe(json!({"grpc": {"port": health_service(serves.clone()).await}}));
    edge.apply("pod", &pod).await;
    eventually!(SOON, edge.reasons("grpc").contains(&"Unhealthy".to_owned()));
    assert!(!edge.statuses("grpc").iter().any(super::is_ready), "{:?}", edge.statuses("grpc"));
    serves.set(true);
    eventually!(SOON, edge.is_ready("grpc"));
    serves.set(false);
    eventually!(SOON, !edge.is_ready("grpc"));
    assert_eq!((&edge.status("grpc")["phase"], super::restarts(&edge.status("grpc"))), (&json!("Running"), 0));
    leave(&edge, &engine, &pod).await;
    edge.stop().await;
}

#[actix_rt::test]
async fn containers_are_asked_and_replaced() {
    run(
        |_| {},
        |_| {
            let exec = |command: &[&str]| probe(json!({"exec": {"command": command}}));
            let (well, unwell) = (server("200 OK"), server("503 Service Unavailable"));
            vec![
                service("ready-exec", "sleep 1; touch /ok;").main("/readinessProbe", exec(&["/bin/busybox", "test", "-e", "/ok"])),
                service("ready-http", &well).main("/readinessProbe", probe(json!({"httpGet": {"port": 8080, "path": "/health"}}))),
                service("ready-named", &well)
                    .main("/ports", json!([{"containerPort": 8080, "name": "http"}]))
                    .main("/readinessProbe", probe(json!({"httpGet": {"port": "http"}}))),
                service("ready-tcp", &well).main("/readinessProbe", probe(json!({"tcpSocket": {"port": 8080}}))),
                service("never-exec", "").main("/readinessProbe", exec(&["/bin/busybox", "false"])).unready(),
                service("never-http", &unwell).main("/readinessProbe", probe(json!({"httpGet": {"port": 8080, "path": "/health"}}))).unready(),
                service("never-tcp", "").main("/readinessProbe", probe(json!({"tcpSocket": {"port": 8080}}))).unready(),
                service("never-grpc", "").main("/readinessProbe", probe(json!({"grpc": {"port": 8080}}))).unready(),
                service("dies", "").main("/livenessProbe", exec(&["/bin/busybox", "false"])).fails(
                    "Running",
                    "CrashLoopBackOff",
                    "restarting failed container=main",
                ),
                service("starts-late", "sleep 2; touch /ok;")
                    .main(
                        "/startupProbe",
                        json!({"exec": {"command": ["/bin/busybox", "test", "-e", "/ok"]}, "periodSeconds": 1, "failureThreshold": 60}),
                    )
                    .main("/livenessProbe", exec(&["/bin/busybox", "test", "-e", "/ok"])),
                service("never-starts", "").main("/startupProbe", exec(&["/bin/busybox", "false"])).fails(
                    "Running",
                    "CrashLoopBackOff",
                    "restarting failed container=main",
                ),
                service("hangs", "")
                    .main(
                        "/livenessProbe",
                        json!({"exec": {"command": ["/bin/busybox", "sleep", "60"]}, "periodSeconds": 1, "failureThreshold": 1, "timeoutSeconds": 1}),
                    )
                    .fails("Running", "CrashLoopBackOff", "restarting failed container=main"),
            ]
        },
    )
    .await;
}
