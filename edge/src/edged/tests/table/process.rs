use serde_json::json;

use super::{row, run, service};

#[actix_rt::test]
async fn command_environment_and_limits() {
    run(
        |_| {},
        |_| {
            vec![
                row("args", "echo \"$0|$1\"")
                    .main("/args", json!(["$(GREETING) x", "$$(GREETING)"]))
                    .main("/env", json!([{"name": "GREETING", "value": "hi"}]))
                    .says("hi x|$(GREETING)"),
                row("words", "echo \"$V\"")
                    .main("/env", json!([{"name": "V", "value": "`reboot`; $(reboot) && \"q\" | > /x"}]))
                    .says("`reboot`; $(reboot) && \"q\" | > /x"),
                row("hostile-args", "echo").main("/command", json!(["/bin/busybox", "echo", "; rm -rf / #", "$(id)"])).says("; rm -rf / # $(id)"),
                row("dir", "pwd").main("/workingDir", json!("/bin")).says("/bin"),
                row("fields", "echo \"$NAME $NS $NODE $APP $NOTE $HOST\"; [ -n \"$IP\" ] && echo has-ip; [ \"${#UID_}\" -gt 9 ] && echo has-uid")
                    .main(
                        "/env",
                        json!([
                            {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                            {"name": "NS", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
                            {"name": "UID_", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
                            {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
                            {"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
                            {"name": "NOTE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.annotations['note']"}}},
                            {"name": "HOST", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}},
                            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                        ]),
                    )
                    .says("fields default test-")
                    .says(" demo a \"quoted\" word 10.1.2.3")
                    .says("has-ip")
                    .says("has-uid"),
                row("keys", "echo \"$A-$B-${C:-none}\"")
                    .object("configmap", "keys", json!({"a": "one"}))
                    .object("secret", "keys", json!({"b": "dHdv"}))
                    .main(
                        "/env",
                        json!([
                            {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "keys", "key": "a"}}},
                            {"name": "B", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "b"}}},
                            {"name": "C", "valueFrom": {"configMapKeyRef": {"name": "keys", "key": "zzz", "optional": true}}},
                        ]),
                    )
                    .says("one-two-none"),
                row("all-keys", "echo \"$P_x $y\"")
                    .object("configmap", "all", json!({"x": "1", "not a name": "2"}))
                    .object("secret", "all", json!({"y": "Mg=="}))
                    .main("/envFrom", json!([{"prefix": "P_", "configMapRef": {"name": "all"}}, {"secretRef": {"name": "all"}}]))
                    .says("1 2"),
                row("sizes", "echo \"$M $C\"")
                    .main("/resources", json!({"limits": {"memory": "32Mi", "cpu": "1500m"}}))
                    .main(
                        "/env",
                        json!([
                            {"name": "M", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory"}}},
                            {"name": "C", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}},
                        ]),
                    )
                    .says("33554432 1500")
                    .host("/Memory", json!(33_554_432))
                    .host("/NanoCpus", json!(1_500_000_000_u64))
                    .host("/CpuShares", json!(1536)),
                row("unlimited", ":")
                    .host("/Memory", json!(0))
                    .host("/NanoCpus", json!(0))
                    .host("/CpuShares", json!(2))
                    .host("/OomScoreAdj", json!(1000)),
                row("hostname", "hostname").spec("/hostname", json!("box")).says("box"),
                row("own-name", "hostname").says("own-name"),
                row("terminal", "[ -t 1 ] && echo a terminal").main("/tty", json!(true)),
                row("stdin", "echo open").main("/stdin", json!(true)).says("open"),
            ]
        },
    )
    .await;
}

#[actix_rt::test]
async fn ends_and_last_words() {
    run(
        |_| {},
        |_| {
            vec![
                row("fine", "exit 0").fails("Succeeded", "Completed", ""),
                row("bad", "exit 7").fails("Failed", "Error", ""),
                row("words", "echo no disk > /dev/termination-log; exit 1").fails("Failed", "Error", "no disk"),
                row("place", "echo elsewhere > /bin/words; exit 1").main("/terminationMessagePath", json!("/bin/words")).fails(
                    "Failed",
                    "Error",
                    "elsewhere",
                ),
                row("log", "echo boom; exit 3").main("/terminationMessagePolicy", json!("FallbackToLogsOnError")).fails("Failed", "Error", "boom"),
                row("no-log", "echo hunter2; exit 3").fails("Failed", "Error", "").says("hunter2").hides("hunter2"),
                row("again", "[ -e /d/x ] && exit 0; touch /d/x; exit 1").shared().spec("/restartPolicy", json!("OnFailure")),
                row("loop", "exit 5").spec("/restartPolicy", json!("Always")).fails(
                    "Running",
                    "CrashLoopBackOff",
                    "back-off 10s restarting failed container=main",
                ),
                row("deadline", "sleep 600").spec("/activeDeadlineSeconds", json!(2)).fails(
                    "Failed",
                    "DeadlineExceeded",
                    "longer than the specified deadline",
                ),
                service("stays", "echo here;").says("here"),
            ]
        },
    )
    .await;
}
