use serde_json::{Value, json};

use super::{run, service};

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
