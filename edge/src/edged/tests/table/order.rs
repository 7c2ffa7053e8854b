use serde_json::json;

use super::{row, run, service};

#[actix_rt::test]
async fn init_containers_sidecars_and_hooks() {
    run(
        |_| {},
        |data| {
            let place = data.join("machine");
            std::fs::create_dir(&place).unwrap();
            vec![
                row("inits", "cat /d/x").with("initContainers", "i1", "echo -n 1 >> /d/x", json!({})).with("initContainers", "i2", "echo -n 2 >> /d/x", json!({})).shared().says("12"),
                row("init-fails", "id").with("initContainers", "i1", "echo why > /dev/termination-log; exit 4", json!({})).fails("Failed", "Error", "why"),
                row("init-again", "id")
                    .with("initContainers", "i1", "exit 4", json!({}))
                    .spec("/restartPolicy", json!("Always"))
                    .fails("Pending", "CrashLoopBackOff", "restarting failed container=i1"),
                row("sidecar", "cat /d/up && echo after the sidecar")
                    .with(
                        "initContainers",
                        "side",
                        "trap 'exit 0' TERM; sleep 1; echo up > /d/up; while :; do sleep 0.1; done",
                        json!({"restartPolicy": "Always", "startupProbe": {"exec": {"command": ["/bin/busybox", "test", "-e", "/d/up"]}, "periodSeconds": 1, "failureThreshold": 60}}),
                    )
                    .shared()
                    .says("after the sidecar"),
                row("post-start", "while ! [ -e /hooked ]; do sleep 0.1; done; echo hooked")
                    .main("/lifecycle", json!({"postStart": {"exec": {"command": ["/bin/busybox", "touch", "/hooked"]}}}))
                    .says("hooked"),
                service("post-start-fails", "")
                    .main("/lifecycle", json!({"postStart": {"exec": {"command": ["/bin/busybox", "false"]}}}))
                    .fails("Running", "PostStartHookError", "PostStartHook failed"),
                service("post-start-sleeps", "echo up;").main("/lifecycle", json!({"postStart": {"sleep": {"seconds": 1}}})).says("up"),
                row("one-process-space", "while ! ps | grep -q '[m]ark-of-other'; do sleep 0.1; done; ps | grep -q '/pause' && echo sees everybody")
                    .with("containers", "other", "exec sh -c 'sleep 8; : mark-of-other'", json!({}))
                    .spec("/shareProcessNamespace", json!(true))
                    .says("sees everybody"),
                row("own-process-space", "[ $$$$ = 1 ] && echo alone").says("alone"),
            ]
        },
    )
    .await;
}
