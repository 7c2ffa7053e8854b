//! What a container may not take more of than it is given, as the kernel sees to it.

use actor::testing::{Lack, leave_out};
use serde_json::json;

use super::super::super::runtime::testing::engine;
use super::super::module::Ground;
use super::{Row, row, run_on, service};

#[actix_rt::test]
async fn who_takes_more_memory_than_the_limit_is_killed_and_said_to_be() {
    let Some(engine) = engine().await else { return };
    if engine.docker.info().await.unwrap().memory_limit != Some(true) {
        return leave_out(Lack::Machine, "the engine says that its kernel limits no memory");
    }
    // The shell outlives who is killed, for an engine that hears of the end before it hears of the kill would call it an error.
    // One buffer of a size, and not without end: where nothing holds it, the machine has it back at once.
    let hungry = |name: &str| -> Row {
        row(name, "dd if=/dev/zero of=/dev/null bs=200M count=1; code=$?; sleep 2; exit $code")
            .main("/resources", json!({"limits": {"memory": "32Mi"}}))
    };
    run_on(
        &engine,
        Ground::default(),
        |_| {},
        |_| {
            vec![
                hungry("hungry").fails("Failed", "OOMKilled", ""),
                hungry("hungry-again").spec("/restartPolicy", json!("Always")).fails("Running", "OOMKilled", ""),
                service("beside", ""),
            ]
        },
    )
    .await;
}

#[actix_rt::test]
async fn who_forks_more_than_the_limit_is_refused_and_the_pod_goes_on() {
    let Some(engine) = engine().await else { return };
    if engine.docker.info().await.unwrap().pids_limit != Some(true) {
        return leave_out(Lack::Machine, "the engine says that its kernel limits no processes");
    }
    // A shell that cannot fork ends; it takes its children along, so that the one around it has room again.
    let forks = "(trap 'kill $p; wait' EXIT; i=0; while [ $i -lt 100 ]; do sleep 600 & p=\"$p $!\"; i=$((i+1)); done; echo no limit); echo goes on;";
    run_on(
        &engine,
        Ground { pids: Some(40), ..Ground::default() },
        |_| {},
        |_| {
            vec![
                service("forks", forks).says("can't fork").says("goes on").host("/PidsLimit", json!(40)),
                service("beside", "").host("/PidsLimit", json!(40)),
            ]
        },
    )
    .await;
}
