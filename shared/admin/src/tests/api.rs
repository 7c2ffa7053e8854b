use std::collections::BTreeSet;

use serde_json::Value;

use super::schema::{errors, resolve};
use super::*;
use crate::LogControl;

const ACT: &str = "X-Skep-Action: 1\r\n";

fn document() -> Value {
    serde_json::from_str(include_str!("../openapi.json")).unwrap()
}

/// Checks an answer of the live server against what the document says of it.
fn check(document: &Value, method: &str, path: &str, answer: &str) {
    let operation = &document["paths"][path][method.to_lowercase()];
    assert!(operation.is_object(), "{method} {path} is not documented");
    let code = status(answer).to_string();
    let response =
        resolve(document, operation["responses"].get(&code).unwrap_or_else(|| panic!("{method} {path} answers {code}, undocumented: {answer}")));
    let kind = answer.lines().find_map(|line| line.strip_prefix("content-type: ")).unwrap_or_default();
    let kind = kind.split(';').next().unwrap();
    let content = response["content"].get(kind).unwrap_or_else(|| panic!("{method} {path} answers {kind}, undocumented"));
    if kind == "application/json" {
        let wrong = errors(document, &content["schema"], &json(answer), "$");
        assert!(wrong.is_empty(), "{method} {path}: {wrong:#?}");
    }
}

#[test]
fn every_documented_call_answers_as_documented_and_nothing_else_is_served() {
    let log = LogControl::detached("info", "").unwrap();
    with(AdminConfig { fault_injection: true, log: Some(log), ..config() }, |site| {
        let document = document();
        assert_eq!(json(&site.get("/api/openapi.json")), document, "served as written");
        // Something of everything, so that no array is empty.
        let (good, other) = (site.bury(Some("good")), site.bury(None));
        assert!(site.worker.try_send(Work::Wait(Arc::new(AtomicBool::new(true)))).is_ok());
        let unknown = "00000000-0000-4000-8000-000000000000";
        until(|| !json(&site.get("/api/actors/worker"))["histogram"].as_array().unwrap().is_empty());
        until(|| !json(&site.get("/api/actors/worker"))["history"].as_array().unwrap().is_empty());

        let mut called = BTreeSet::new();
        let mut call = |method: &str, template: &str, path: &str, headers: &str, body: &str, code: u16| {
            let answer = if template == "/api/stream" && code == 200 {
                let mut stream = TcpStream::connect(site.address).unwrap();
                write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
                let mut part = [0; 4096];
                let n = stream.read(&mut part).unwrap();
                String::from_utf8_lossy(&part[..n]).into_owned()
            } else {
                site.call(method, path, headers, body)
            };
            assert_eq!(status(&answer), code, "{method} {path}: {answer}");
            check(&document, method, template, &answer);
            called.insert((template.to_owned(), method.to_lowercase()));
        };
        for path in [
            "/api/status",
            "/api/health",
            "/api/supervisors",
            "/api/actors",
            "/api/events",
            "/api/stream",
            "/api/quarantine",
            "/api/log-level",
            "/api/openapi.json",
            "/metrics",
        ] {
            call("GET", path, path, "", "", 200);
        }
        call("GET", "/api/events", "/api/events?after=2", "", "", 200);
        call("GET", "/api/events", "/api/events?after=x", "", "", 400);
        call("GET", "/api/stream", "/api/stream?actor=nobody", "", "", 404);
        call("GET", "/api/actors/{name}", "/api/actors/worker", "", "", 200);
        call("GET", "/api/actors/{name}", "/api/actors/nobody", "", "", 404);
        for (probe, code) in [("livez", 200), ("healthz", 200), ("readyz", 503)] {
            call("GET", &format!("/{probe}"), &format!("/{probe}?verbose&exclude=x"), "", "", code);
            call("GET", &format!("/{probe}/{{check}}"), &format!("/{probe}/supervisor"), "", "", 200);
            call("GET", &format!("/{probe}/{{check}}"), &format!("/{probe}/nothing"), "", "", 404);
        }
        call("GET", "/readyz", "/readyz?exclude=database", "", "", 200);
        call("GET", "/readyz/{check}", "/readyz/database", "", "", 503);
        call("POST", "/api/actors/{name}/restart", "/api/actors/worker/restart", ACT, "", 200);
        call("POST", "/api/actors/{name}/restart", "/api/actors/nobody/restart", ACT, "", 404);
        call("POST", "/api/actors/{name}/restart", "/api/actors/worker/restart", "", "", 403);
        call("POST", "/api/quarantine/{id}/retry", &format!("/api/quarantine/{other}/retry"), ACT, "", 409);
        call("POST", "/api/quarantine/{id}/retry", &format!("/api/quarantine/{good}/retry"), ACT, "", 200);
        call("DELETE", "/api/quarantine/{id}", &format!("/api/quarantine/{other}"), ACT, "", 200);
        call("DELETE", "/api/quarantine/{id}", &format!("/api/quarantine/{unknown}"), ACT, "", 404);
        call("DELETE", "/api/quarantine/{id}", "/api/quarantine/x", ACT, "", 400);
        let typed = format!("{ACT}Content-Type: application/json\r\n");
        call("PUT", "/api/log-level", "/api/log-level", &typed, r#"{"filter":"debug"}"#, 200);
        call("PUT", "/api/log-level", "/api/log-level", &typed, r#"{"filter":"loud"}"#, 400);
        call("PUT", "/api/log-level", "/api/log-level", &typed, &"x".repeat(5000), 413);
        call("PUT", "/api/log-level", "/api/log-level", &format!("{typed}Origin: http://evil.example\r\n"), r#"{"filter":"debug"}"#, 403);
        call("POST", "/debug/actors/{name}/slow", "/debug/actors/twin/slow?by=0", ACT, "", 200);
        call("POST", "/debug/actors/{name}/hang", "/debug/actors/twin/hang?for=0", ACT, "", 200);
        call("POST", "/debug/actors/{name}/hang", "/debug/actors/inner/hang?for=0", ACT, "", 409);
        call("POST", "/debug/actors/{name}/panic", "/debug/actors/twin/panic?in-hand=x", ACT, "", 400);
        call("POST", "/debug/actors/{name}/panic", "/debug/actors/twin/panic", ACT, "", 200);

        let documented: BTreeSet<(String, String)> = document["paths"]
            .as_object()
            .unwrap()
            .iter()
            .flat_map(|(path, item)| item.as_object().unwrap().keys().map(|m| (path.clone(), m.clone())))
            .collect();
        assert_eq!(called, documented, "each documented operation was called");
        assert_eq!(served(), documented.iter().map(|(path, _)| path.clone()).collect(), "each served path is documented");
    });
}

/// The paths that are registered, as the source has them: a route that the document forgets is found.
fn served() -> BTreeSet<String> {
    let source = include_str!("../api.rs");
    let mut paths: BTreeSet<String> = source.split("(\"/").skip(1).map(|rest| format!("/{}", rest.split('"').next().unwrap())).collect();
    for probe in ["/healthz", "/livez", "/readyz"] {
        assert!(paths.contains(probe));
        paths.insert(format!("{probe}/{{check}}"));
    }
    paths
}

#[test]
fn events_can_be_asked_for_from_where_one_stopped() {
    with(config(), |site| {
        let all = json(&site.get("/api/events"));
        let last = all.as_array().unwrap().last().unwrap()["seq"].as_u64().unwrap();
        site.registry.note("worker", actor::EventKind::Connected, "new");
        let fresh = json(&site.get(&format!("/api/events?after={last}")));
        assert_eq!((fresh.as_array().unwrap().len(), fresh[0]["text"].as_str()), (1, Some("new")));
    });
}
