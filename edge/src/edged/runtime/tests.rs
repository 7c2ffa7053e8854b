//! Docker itself, with containers made on the spot. Without an engine these tests say so and pass.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::cell::RefCell;
use std::time::Duration;

use actor::eventually;
use futures_util::StreamExt;

use super::docker::DockerRuntime;
use super::testing::{Engine, Images, engine};
use super::{ContainerRuntime, ContainerState, Limits, Mount, MountSource, Network, Propagation, Publish, RuntimeError, RuntimeEvent, label};

const SOON: Duration = Duration::from_secs(20);

#[actix_rt::test]
async fn a_container_is_made_started_seen_stopped_and_removed() {
    let Some(engine) = engine().await else { return };
    let docker = &engine.runtime;
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("greeting"), "hello from the volume").unwrap();
    let mut spec = engine.spec("u-1", &["sh", "-c", "cat /data/greeting; echo \" $WHO $(hostname)\"; trap 'exit 7' TERM; while :; do sleep 1; done"]);
    spec.env = vec!["WHO=me; rm -rf / #".into()];
    spec.mounts =
        vec![Mount { source: MountSource::Path(dir.path().into()), target: "/data".into(), read_only: true, propagation: Propagation::Private }];
    spec.ports = vec![Publish { container_port: 80, host_port: 0, protocol: "tcp", host_ip: Some("127.0.0.1".into()) }];
    // More than any machine has: no limit rather than an error.
    spec.limits = Limits { memory: Some(32 << 20), cpu_nano: Some(4_000_000_000_000), cpu_request_milli: 250, ..Limits::default() };
    let id = docker.create(&spec).await.unwrap();
    assert_eq!(docker.inspect(&id).await.unwrap().unwrap().state, ContainerState::Created);
    docker.start(&id).await.unwrap();
    docker.start(&id).await.unwrap();
    let seen = docker.inspect(&id).await.unwrap().unwrap();
    assert!(matches!(seen.state, ContainerState::Running { .. }), "{seen:?}");
    assert_eq!(seen.labels[label::POD_UID], "u-1");
    assert!(seen.ip.as_ref().is_some_and(|ip| ip.parse::<std::net::IpAddr>().is_ok()), "{seen:?}");
    assert!(seen.image_id.starts_with("sha256:") && seen.image == engine.image, "{seen:?}");
    let listed = docker.list(&[(label::NODE, &engine.node), (label::POD_UID, "u-1")]).await.unwrap();
    assert_eq!(listed.iter().map(|one| (one.id.as_str(), one.state.as_str())).collect::<Vec<_>>(), [(id.as_str(), "running")]);
    eventually!(SOON, engine.output(&id).await.contains("hello from the volume me; rm -rf / # box"));
    assert!(docker.usage(&id).await.unwrap().is_some_and(|usage| usage.memory_usage > 0 && usage.cpu_nanos > 0 && usage.pids > 0));
    // `docker inspect`'s view of the limits.
    let raw = engine.docker.containers().get(&id).inspect().await.unwrap().host_config.unwrap();
    assert_eq!((raw["Memory"].as_u64(), raw["MemorySwap"].as_i64(), raw["CpuShares"].as_u64()), (Some(32 << 20), Some(32 << 20), Some(256)));

    docker.stop(&id, Duration::from_secs(10)).await.unwrap();
    docker.stop(&id, Duration::from_secs(10)).await.unwrap();
    let ContainerState::Exited(exit) = docker.inspect(&id).await.unwrap().unwrap().state else { panic!("it should have ended") };
    assert_eq!((exit.code, exit.oom_killed), (7, false));
    assert!(exit.finished_at >= exit.started_at);
    assert_eq!(docker.usage(&id).await.unwrap(), None);
    docker.remove(&id).await.unwrap();
    docker.remove(&id).await.unwrap();
    assert_eq!(docker.usage(&id).await.unwrap(), None);
    docker.stop(&id, Duration::from_secs(1)).await.unwrap();
    assert_eq!(docker.inspect(&id).await.unwrap(), None);
}

#[actix_rt::test]
async fn the_check_that_an_image_brings_along_is_not_run() {
    let Some(engine) = engine().await else { return };
    let images = Images(&engine, vec![format!("skep-test-checked-{}:1", engine.node)]);
    engine.build_with(&images.1[0], "HEALTHCHECK --interval=1s CMD [\"/bin/busybox\", \"false\"]\n").await;
    let image = engine.docker.images().get(&images.1[0]).inspect().await.unwrap();
    assert!(image.config.unwrap().healthcheck.is_some());
    let mut spec = engine.spec("h-1", &["sleep", "60"]);
    spec.image.clone_from(&images.1[0]);
    let id = engine.runtime.create(&spec).await.unwrap();
    engine.runtime.start(&id).await.unwrap();
    // The engine speaks of a health from the start on where there is something to run.
    let found = engine.docker.containers().get(&id).inspect().await.unwrap();
    assert_eq!(found.config.unwrap().healthcheck.unwrap().test, Some(vec!["NONE".to_owned()]));
    assert!(found.state.unwrap().health.is_none_or(|health| health.status.is_none_or(|status| status == "none")));
    engine.runtime.remove(&id).await.unwrap();
}

#[actix_rt::test]
async fn a_further_container_joins_the_network_of_the_first() {
    let Some(engine) = engine().await else { return };
    let docker = &engine.runtime;
    let first = docker.create(&engine.spec("net-1", &["nc", "-l", "-p", "7777", "-e", "/bin/busybox", "echo", "pong"])).await.unwrap();
    docker.start(&first).await.unwrap();
    let mut spec = engine.spec("net-2", &["sh", "-c", "until nc -w 5 127.0.0.1 7777 </dev/null; do sleep 0.1; done"]);
    spec.network = Network::Join(first);
    let second = docker.create(&spec).await.unwrap();
    docker.start(&second).await.unwrap();
    eventually!(SOON, engine.output(&second).await.contains("pong"));
    assert_eq!(docker.inspect(&second).await.unwrap().unwrap().ip, None);
}

#[actix_rt::test]
async fn what_docker_refuses_comes_back_in_its_words_and_leaves_no_container_running() {
    let Some(engine) = engine().await else { return };
    let docker = &engine.runtime;
    let mut missing = engine.spec("r-1", &[]);
    missing.image = format!("skep-test-none-{}:1", engine.node);
    assert!(matches!(docker.create(&missing).await, Err(RuntimeError::NotFound(text)) if text.contains("No such image")));
    assert!(docker.image(&missing.image).await.unwrap().is_none());
    assert!(docker.image(&engine.image).await.unwrap().is_some());

    let mut entrypoint = engine.spec("r-2", &[]);
    entrypoint.command = vec!["/no/such/program".into()];
    let id = docker.create(&entrypoint).await.unwrap();
    let refused = docker.start(&id).await;
    assert!(matches!(&refused, Err(RuntimeError::Refused { code: 400, message }) if message.contains("/no/such/program")), "{refused:?}");
    let again = docker.create(&entrypoint).await;
    assert!(matches!(again, Err(RuntimeError::Refused { code: 409, .. })), "{again:?}");

    // A registry that nobody runs.
    let pulled = docker.pull("127.0.0.1:1/nothing:1", None).await;
    assert!(matches!(&pulled, Err(RuntimeError::Refused { .. } | RuntimeError::NotFound(_))), "{pulled:?}");
    assert!(engine.containers().await.iter().all(|one| one.state != "running"));
}

#[actix_rt::test]
async fn events_tell_of_this_nodes_containers_only() {
    let Some(engine) = engine().await else { return };
    let other = super::testing::engine().await.expect("there was an engine a moment ago");
    let docker = engine.runtime.clone();
    let mut events = docker.events(&engine.node);
    let seen = RefCell::new(Vec::new());
    let collect = async {
        while let Some(event) = events.next().await {
            if let RuntimeEvent::Container { pod_uid, action } = event.unwrap() {
                let ended = pod_uid == "e-1" && action == "destroy";
                seen.borrow_mut().push((pod_uid, action));
                if ended {
                    break;
                }
            }
        }
    };
    let run = async |one: &Engine, uid: &str| {
        let id = one.runtime.create(&one.spec(uid, &["true"])).await.unwrap();
        one.runtime.start(&id).await.unwrap();
        eventually!(SOON, matches!(one.runtime.inspect(&id).await.unwrap().unwrap().state, ContainerState::Exited(_)));
        one.runtime.remove(&id).await.unwrap();
    };
    let act = async {
        // The stream stands once it has told of anything.
        while seen.borrow().is_empty() {
            run(&engine, "warm-up").await;
        }
        run(&other, "e-1").await;
        run(&engine, "e-1").await;
    };
    // Three containers, one after the other.
    tokio::time::timeout(SOON * 3, async { tokio::join!(collect, act) }).await.unwrap();
    let mut seen = seen.into_inner();
    seen.retain(|(uid, _)| uid != "warm-up");
    let actions: Vec<&str> = seen.iter().map(|(_, action)| action.as_str()).collect();
    assert_eq!(actions, ["start", "die", "destroy"], "{seen:?}");
}

#[actix_rt::test]
async fn an_engine_that_is_not_there_is_unreachable_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let address = format!("unix://{}/none.sock", dir.path().display());
    let docker = DockerRuntime::new(&address).unwrap();
    let failed = docker.version().await.unwrap_err();
    assert!(matches!(&failed, RuntimeError::Unreachable { cause, .. } if cause.contains("No such file")), "{failed:?}");
    assert!(failed.to_string().contains(&address), "{failed}");
    assert!(matches!(docker.events("n").next().await, Some(Err(RuntimeError::Unreachable { .. }))));
    assert!(DockerRuntime::new("tcp://127.0.0.1:2375").is_err());
    assert!(DockerRuntime::new("unix://").is_err());
}
