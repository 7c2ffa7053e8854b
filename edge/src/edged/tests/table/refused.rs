use serde_json::json;

use super::{Row, row, run, service};

#[actix_rt::test]
async fn what_cannot_run_says_why_and_disturbs_nobody() {
    // Takes connections and never answers: a pull from it does not end by itself.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let many = json!((0..10_000).map(|n| json!({"name": format!("c{n}"), "image": "i:1"})).collect::<Vec<_>>());
    let mount = |name: &str, mount: serde_json::Value| -> Row {
        let mut mount = mount;
        (mount["name"], mount["mountPath"]) = (json!("v"), json!("/v"));
        row(name, "id").spec("/volumes", json!([{"name": "v", "emptyDir": {}}])).main("/volumeMounts", json!([mount]))
    };
    run(
        |_| {},
        |_| {
            vec![
                service("bystander", ""),
                row("ten-thousand", "id").spec("/containers", many).fails("Failed", "InvalidSpec", "must have 1–64 entries"),
                row("claim", "id").spec("/volumes", json!([{"name": "v", "persistentVolumeClaim": {"claimName": "x"}}])).fails(
                    "Failed",
                    "Unsupported",
                    "persistentVolumeClaim",
                ),
                row("nobodys-volume", "id").main("/volumeMounts", json!([{"name": "x", "mountPath": "/x"}])).fails(
                    "Failed",
                    "InvalidSpec",
                    "names a volume that the pod has not",
                ),
                mount("absolute", json!({"subPath": "/etc"})).fails("Failed", "InvalidSpec", "subPath"),
                mount("upwards", json!({"subPath": "a/../../b"})).fails("Failed", "InvalidSpec", "subPath"),
                row("twice", "id").main("/ports", json!([{"containerPort": 80, "hostPort": 9}, {"containerPort": 81, "hostPort": 9}])).fails(
                    "Failed",
                    "InvalidSpec",
                    "uses hostPort 9 twice",
                ),
                row("whose-processes", "id").spec("/hostPID", json!(true)).spec("/shareProcessNamespace", json!(true)).fails(
                    "Failed",
                    "InvalidSpec",
                    "spec.shareProcessNamespace and hostPID cannot both be set",
                ),
                row("no-probe", "id").main("/livenessProbe", json!({})).fails("Failed", "InvalidSpec", "must have exactly one of"),
                row("future", "id").spec("/somethingOfTheFuture", json!(1)).fails("Failed", "Unsupported", "somethingOfTheFuture"),
                row("gpu", "id").main("/resources", json!({"limits": {"nvidia.com/gpu": 1}})).fails("Failed", "Unsupported", "nvidia.com/gpu"),
                row("negative", "id").main("/resources", json!({"limits": {"memory": "-5Mi"}})).fails("Failed", "InvalidSpec", "memory"),
                row("image-injection", "id").main("/image", json!("x?fromImage=evil&tag=1")).fails(
                    "Pending",
                    "InvalidImageName",
                    "couldn't parse image name",
                ),
                // Of the right form, and none for the engine: what is beside it runs.
                row("no-reference", "id").main("/image", json!("a..b:1")).fails("Pending", "InvalidImageName", "no such image: a..b:1"),
                row("beside-no-reference", "id")
                    .main("/image", json!("a..b:1"))
                    .with("containers", "beside", "echo I ran > /dev/termination-log; exit 3", json!({}))
                    .fails("Pending", "Error", "I ran"),
                row("never-here", "id").main("/image", json!("127.0.0.1:1/none:1")).main("/imagePullPolicy", json!("Never")).fails(
                    "Pending",
                    "ErrImageNeverPull",
                    "pull policy of Never",
                ),
                row("no-registry", "id").main("/image", json!("127.0.0.1:1/none:1")).fails("Pending", "ErrImagePull", "failed to pull image"),
                row("hanging-pull", "id").main("/image", json!(format!("{address}/slow:1"))).fails("Pending", "ContainerCreating", "pulling image"),
                row("no-program", "id").main("/command", json!(["/no/such; reboot"])).fails("Pending", "RunContainerError", "no such file"),
                row("no-dir", "id").main("/workingDir", json!("/bin/busybox")).fails("Pending", "CreateContainerError", "not a directory"),
                row("tiny", "id").main("/resources", json!({"limits": {"memory": "1Ki"}})).fails("Pending", "CreateContainerError", "memory"),
                row("missing-secret-key", "id")
                    .object("secret", "msk", json!({"a": "MQ=="}))
                    .main("/env", json!([{"name": "X", "valueFrom": {"secretKeyRef": {"name": "msk", "key": "b"}}}]))
                    .fails("Pending", "CreateContainerConfigError", "couldn't find key b"),
                row("binary-value", "id")
                    .object("secret", "bin", json!({"a": "/w=="}))
                    .main("/env", json!([{"name": "X", "valueFrom": {"secretKeyRef": {"name": "bin", "key": "a"}}}]))
                    .fails("Pending", "CreateContainerConfigError", "not text"),
                row("bad-pull-secret", "id")
                    .object("secret", "reg", json!({"wrong": "MQ=="}))
                    .main("/image", json!("127.0.0.1:1/private:1"))
                    .spec("/imagePullSecrets", json!([{"name": "reg"}]))
                    .fails("Pending", "ErrImagePull", "failed to pull image"),
            ]
        },
    )
    .await;
    drop(silent);
}
