#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actix_web::body::MessageBody;
use actix_web::dev::ServiceResponse;
use actix_web::http::{Method, StatusCode};
use actix_web::{App, HttpServer, test as http, web};
use actor::eventually;
use jiff::Timestamp;
use model::Timestamp as StoredAt;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::super::runtime::docker::DockerRuntime;
use super::super::runtime::testing::{self, Engine};
use super::super::runtime::{ContainerRuntime, ContainerState, LogQuery, Usage, label};
use super::logs::{Asked, parse};
use super::stats::{FsStats, NodeStats};
use super::summary::{Used, summary};
use super::*;
use crate::store::meta::StoredObject;

const SOON: Duration = Duration::from_secs(20);

fn asked(text: &str) -> Result<Asked, String> {
    let parameters = web::Query::<Vec<(String, String)>>::from_query(text).unwrap();
    parse(&parameters, Timestamp::from_second(1_000_000).unwrap()).map_err(|error| error.to_string())
}

#[test]
fn parameters_of_a_log_are_read_and_wrong_ones_are_named() {
    let query = |follow, tail, since, timestamps| LogQuery { follow, tail, since, timestamps };
    for (text, want, previous) in [
        ("", query(false, None, None, false), false),
        ("follow=true&tailLines=10&timestamps=1", query(true, Some(10), None, true), false),
        ("sinceSeconds=60&previous=true", query(false, None, Some(999_940), false), true),
        ("sinceTime=1970-01-01T00:01:00Z&follow=false", query(false, None, Some(60), false), false),
        ("sinceTime=1970-01-01T01:00:00%2B01:00", query(false, None, Some(0), false), false),
        ("sinceSeconds=4294967295&tailLines=0", query(false, Some(0), Some(0), false), false),
    ] {
        assert_eq!(asked(text), Ok(Asked { query: want, previous }), "{text}");
    }
    for (text, want) in [
        ("follow=yes", "parameter `follow` must be true or false"),
        ("tailLines=-1", "parameter `tailLines` must be a number of lines"),
        ("tailLines=many", "parameter `tailLines` must be a number of lines"),
        ("sinceSeconds=0", "parameter `sinceSeconds` must be a number of seconds above 0"),
        ("sinceSeconds=99999999999999999999", "parameter `sinceSeconds` must be a number of seconds above 0"),
        ("sinceTime=yesterday", "parameter `sinceTime` must be a time like 2026-01-31T12:00:00Z"),
        ("sinceTime=2026-01-31T12:00:00Z&sinceSeconds=1", "parameter `sinceSeconds` cannot be beside another one of sinceSeconds and sinceTime"),
        ("tail=1", "parameter `tail` is not known: there are follow, previous, sinceSeconds, sinceTime, tailLines and timestamps"),
    ] {
        assert_eq!(asked(text), Err(want.to_owned()), "{text}");
    }
}

fn used(pod: &str, container: &str, cpu: u64, network: u64) -> Used {
    let labels = [(label::POD_UID, pod), (label::POD_NAME, "web"), (label::POD_NAMESPACE, "default"), (label::CONTAINER, container)];
    let usage = Usage { cpu_nanos: cpu, memory_working_set: 10, memory_usage: 20, pids: 1, network_received: network, network_sent: network * 2 };
    Used { labels: labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into_iter().collect::<BTreeMap<_, _>>(), usage }
}

#[test]
fn a_summary_has_the_kubelets_form() {
    let fs = FsStats { capacity: 100, available: 40, used: 50, inodes: 10, inodes_free: 4 };
    let stats = NodeStats { cpu_nanos: 7, memory_total: 100, memory_available: 60, memory_free: 30, fs: Some(fs) };
    let running = json!([{"name": "a", "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}]);
    let pods = json!({"items": [
        {"metadata": {"uid": "u-1"}, "status": {"startTime": "2025-12-31T00:00:00Z", "containerStatuses": running}},
        {"metadata": {"uid": "u-2"}, "spec": {"hostNetwork": true}}]});
    let all =
        [used("u-1", "b", 1, 0), used("u-1", "a", 2, 0), used("u-1", label::SANDBOX_NAME, 4, 8), used("u-2", "c", 16, 0), used("u-3", "d", 32, 1)];
    let now = Timestamp::UNIX_EPOCH;
    let time = "1970-01-01T00:00:00Z";
    let made = summary("n1", &stats, &pods, &all, now);
    assert_eq!(
        made["node"],
        json!({"nodeName": "n1", "cpu": {"time": time, "usageCoreNanoSeconds": 7},
            "memory": {"time": time, "availableBytes": 60, "usageBytes": 70, "workingSetBytes": 40},
            "fs": {"time": time, "availableBytes": 40, "capacityBytes": 100, "usedBytes": 50, "inodes": 10, "inodesFree": 4, "inodesUsed": 6}})
    );
    let container = |name: &str, cpu: u64| json!({"name": name, "cpu": {"time": time, "usageCoreNanoSeconds": cpu}, "memory": {"time": time, "usageBytes": 20, "workingSetBytes": 10}});
    let mut first = container("a", 2);
    first["startTime"] = json!("2026-01-01T00:00:00Z");
    assert_eq!(
        made["pods"][0],
        json!({"podRef": {"name": "web", "namespace": "default", "uid": "u-1"}, "startTime": "2025-12-31T00:00:00Z",
            "containers": [first, container("b", 1)], "cpu": {"time": time, "usageCoreNanoSeconds": 7},
            "memory": {"time": time, "usageBytes": 60, "workingSetBytes": 30}, "network": {"time": time, "name": "eth0", "rxBytes": 8, "txBytes": 16}})
    );
    assert!(made["pods"][1].get("network").is_none(), "the machine's network is not the pod's");
    assert_eq!((made["pods"].as_array().unwrap().len(), &made["pods"][2]["podRef"]["uid"]), (3, &json!("u-3")));
    assert_eq!(summary("n1", &NodeStats::default(), &json!(null), &[], now)["pods"], json!([]));
}

struct Fixture {
    store: Store,
    _dir: tempfile::TempDir,
}

impl Fixture {
    /// A store with a pod `default/web`, uid `u-1`.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("edge.db")).unwrap();
        let pod = json!({"metadata": {"name": "web", "namespace": "default", "uid": "u-1"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
        let row = StoredObject {
            key: "default/pod/web".parse().unwrap(),
            value: pod.to_string(),
            uid: Some("u-1".into()),
            resource_version: None,
            stored_at: StoredAt(1),
        };
        store.write(&actor::Fence::unfenced(), |tx| meta::put(tx, &row)).unwrap();
        Self { store, _dir: dir }
    }

    async fn ask(&self, reading: &web::Data<Reading>, method: Method, path: &str) -> ServiceResponse {
        let app = App::new().app_data(web::Data::new(self.store.clone())).app_data(reading.clone()).configure(routes);
        let app = http::init_service(app).await;
        http::call_service(&app, http::TestRequest::with_uri(path).method(method).to_request()).await
    }

    async fn get(&self, reading: &web::Data<Reading>, path: &str) -> (StatusCode, String) {
        let answer = self.ask(reading, Method::GET, path).await;
        let status = answer.status();
        (status, String::from_utf8(http::read_body(answer).await.to_vec()).unwrap())
    }
}

fn reading(runtime: Arc<dyn ContainerRuntime>, node: &str) -> web::Data<Reading> {
    let source = Source { runtime, node: node.to_owned(), pods: "/".into(), local: Arc::default() };
    web::Data::new(Reading::new(move || Some(source.clone())))
}

#[actix_rt::test]
async fn without_an_engine_the_pods_are_told_and_the_rest_says_why_not() {
    let fixture = Fixture::new();
    let off = web::Data::new(Reading::new(|| None));
    let away = reading(Arc::new(DockerRuntime::new("unix:///nowhere.sock").unwrap()), "n1");
    for reading in [&off, &away] {
        let (status, pods) = fixture.get(reading, "/pods").await;
        assert_eq!((status, serde_json::from_str::<Value>(&pods).unwrap()["items"][0]["metadata"]["uid"].as_str()), (StatusCode::OK, Some("u-1")));
    }
    for path in ["/stats/summary", "/containerLogs/default/web/c"] {
        let (status, said) = fixture.get(&off, path).await;
        assert_eq!((status, said.contains("modules.enabled")), (StatusCode::SERVICE_UNAVAILABLE, true), "{path}");
        let (status, said) = fixture.get(&away, path).await;
        assert_eq!((status, said.contains("unix:///nowhere.sock")), (StatusCode::SERVICE_UNAVAILABLE, true), "{path}");
    }
    let (status, said) = fixture.get(&away, "/containerLogs/default/web/c?tail=3").await;
    assert_eq!((status, said.starts_with("parameter `tail` is not known")), (StatusCode::BAD_REQUEST, true));
}

#[actix_rt::test]
async fn nothing_but_reading_is_answered() {
    let fixture = Fixture::new();
    let off = web::Data::new(Reading::new(|| None));
    for path in ["/pods", "/stats/summary", "/containerLogs/default/web/c"] {
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
            assert_eq!(fixture.ask(&off, method, path).await.status(), StatusCode::METHOD_NOT_ALLOWED, "{path}");
        }
    }
}

/// A container of the pod `default/web`, started and waited for if it ends.
async fn run(engine: &Engine, container: &str, attempt: u32, script: &str, is_end: bool) -> String {
    let mut spec = engine.spec("u-1", &["sh", "-c", script]);
    spec.name = format!("{}-{container}-{attempt}", engine.node);
    let labels = [(label::POD_NAME, "web"), (label::POD_NAMESPACE, "default"), (label::CONTAINER, container)];
    spec.labels.extend(labels.map(|(k, v)| (k.to_owned(), v.to_owned())));
    spec.labels.insert(label::RESTARTS.to_owned(), attempt.to_string());
    let id = engine.runtime.create(&spec).await.unwrap();
    engine.runtime.start(&id).await.unwrap();
    if is_end {
        eventually!(SOON, matches!(engine.runtime.inspect(&id).await.unwrap().unwrap().state, ContainerState::Exited(_)));
    }
    id
}

#[actix_rt::test]
async fn logs_of_this_and_of_the_run_before_are_read_from_the_engine() {
    let Some(engine) = testing::engine().await else { return };
    let fixture = Fixture::new();
    let reading = reading(engine.runtime.clone(), &engine.node);
    run(&engine, "c", 0, "echo first; echo error >&2", true).await;
    let path = "/containerLogs/default/web/c";
    let (status, said) = fixture.get(&reading, &format!("{path}?previous=true")).await;
    assert_eq!((status, said.contains("leave `previous` out")), (StatusCode::NOT_FOUND, true), "{said}");
    run(&engine, "c", 1, "echo one; echo two; echo three", true).await;
    for (query, want) in [
        ("", "one\ntwo\nthree\n"),
        ("?tailLines=1", "three\n"),
        ("?tailLines=0", ""),
        ("?previous=true&tailLines=1", "error\n"),
        ("?follow=true", "one\ntwo\nthree\n"),
        ("?sinceSeconds=3600", "one\ntwo\nthree\n"),
    ] {
        let (status, said) = fixture.get(&reading, &format!("{path}{query}")).await;
        // The two streams of a container have no order between them.
        let want_lines = if query.starts_with("?previous") { said == "error\n" || said == "first\n" } else { said == want };
        assert!(status == StatusCode::OK && want_lines, "{query}: {status} {said}");
    }
    let (_, stamped) = fixture.get(&reading, &format!("{path}?timestamps=true&tailLines=1")).await;
    assert!(stamped.split(' ').next().is_some_and(|time| time.parse::<Timestamp>().is_ok()), "{stamped}");

    for (path, want) in [
        ("/containerLogs/default/none/c", "there is no pod default/none on this node; there are: default/web\n"),
        ("/containerLogs/other/web/c", "there is no pod other/web on this node; there are: default/web\n"),
        ("/containerLogs/default/web/d", "pod default/web has no container `d` that was started; there are: c\n"),
        ("/containerLogs/default/web/POD", "pod default/web has no container `POD` that was started; there are: c\n"),
        ("/containerLogs/default/%1b%5b31m/c", "there is no pod default/?[31m on this node; there are: default/web\n"),
    ] {
        assert_eq!(fixture.get(&reading, path).await, (StatusCode::NOT_FOUND, want.to_owned()));
    }
}

/// A reader that speaks HTTP/1.0 gets the log as it is, whatever it says of the connection.
#[actix_rt::test]
async fn a_reader_without_chunks_gets_none() {
    let Some(engine) = testing::engine().await else { return };
    let fixture = Fixture::new();
    let reading = reading(engine.runtime.clone(), &engine.node);
    run(&engine, "c", 0, "echo one; echo two", true).await;
    let (store, listener) = (web::Data::new(fixture.store.clone()), std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    let address = listener.local_addr().unwrap();
    let server = HttpServer::new(move || App::new().app_data(store.clone()).app_data(reading.clone()).configure(routes));
    let server = server.workers(1).disable_signals().listen(listener).unwrap().run();
    let handle = server.handle();
    actix_rt::spawn(server);
    for (version, more, chunks) in [("1.0", "", false), ("1.0", "Connection: keep-alive\r\n", false), ("1.1", "Connection: close\r\n", true)] {
        let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!("GET /containerLogs/default/web/c HTTP/{version}\r\nHost: x\r\n{more}\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut said = String::new();
        tokio::time::timeout(SOON, socket.read_to_string(&mut said)).await.unwrap().unwrap();
        let (head, body) = said.split_once("\r\n\r\n").unwrap();
        assert_eq!(head.to_lowercase().contains("transfer-encoding: chunked"), chunks, "{version} {more}: {said}");
        assert_eq!(body == "one\ntwo\n", !chunks, "{version} {more}: {said}");
    }
    handle.stop(false).await;
}

#[actix_rt::test]
async fn logs_that_are_followed_are_bounded_and_a_reader_that_leaves_makes_room() {
    let Some(engine) = testing::engine().await else { return };
    let fixture = Fixture::new();
    let reading = reading(engine.runtime.clone(), &engine.node);
    // Much more than what may wait between engine and reader.
    run(&engine, "c", 0, "i=0; while [ $i -lt 3000 ]; do echo 0123456789012345678901234567890123456789; i=$((i+1)); done; sleep 1000", false).await;
    let path = "/containerLogs/default/web/c?follow=true";
    let mut readers = Vec::new();
    for _ in 0..LOGS_MAX {
        let answer = fixture.ask(&reading, Method::GET, path).await;
        assert_eq!(answer.status(), StatusCode::OK);
        readers.push(answer.into_body());
    }
    let (status, said) = fixture.get(&reading, path).await;
    assert_eq!((status, said.as_str()), (StatusCode::SERVICE_UNAVAILABLE, "8 logs are being followed already: end one of them and ask again\n"));
    let (status, _) = fixture.get(&reading, "/containerLogs/default/web/c?tailLines=1").await;
    assert_eq!(status, StatusCode::OK, "one that is read to its end has room of its own");
    // What is read is there at once, though the log goes on.
    let mut body = readers.pop().unwrap();
    let first = std::future::poll_fn(|cx| std::pin::Pin::new(&mut body).poll_next(cx)).await.unwrap().unwrap();
    assert!(first.starts_with(b"0123456789"), "{first:?}");
    drop(body);
    eventually!(SOON, reading.following.available_permits() == 1);
    drop(readers);
    eventually!(SOON, reading.following.available_permits() == LOGS_MAX);
}

#[actix_rt::test]
async fn a_summary_tells_of_running_containers_and_is_kept_for_a_moment() {
    let Some(engine) = testing::engine().await else { return };
    let fixture = Fixture::new();
    let reading = reading(engine.runtime.clone(), &engine.node);
    run(&engine, "c", 0, "exit 0", true).await;
    let id = run(&engine, "d", 0, "sleep 1000", false).await;
    let (status, said) = fixture.get(&reading, "/stats/summary").await;
    let summary: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((status, &summary["node"]["nodeName"]), (StatusCode::OK, &json!(engine.node)));
    assert!(summary["node"]["fs"]["capacityBytes"].as_u64().is_some_and(|bytes| bytes > 0), "{summary}");
    let pods = summary["pods"].as_array().unwrap();
    assert_eq!((pods.len(), pods[0]["podRef"]["uid"].as_str(), pods[0]["containers"].as_array().unwrap().len()), (1, Some("u-1"), 1), "{summary}");
    assert!(pods[0]["containers"][0]["memory"]["workingSetBytes"].as_u64().is_some_and(|bytes| bytes > 0), "{summary}");
    // Another one would have other times in it.
    assert_eq!(fixture.get(&reading, "/stats/summary").await.1, said);
    engine.runtime.remove(&id).await.unwrap();
}
