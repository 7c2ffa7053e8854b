use serde_json::json;

use super::{row, run};

#[actix_rt::test]
async fn users_capabilities_and_filters() {
    run(
        |data| {
            std::fs::create_dir_all(data.join("seccomp")).unwrap();
            std::fs::write(data.join("seccomp/all.json"), "{\"defaultAction\":\n\"SCMP_ACT_ALLOW\"}").unwrap();
            std::fs::write(data.join("seccomp/broken.json"), "{").unwrap();
        },
        |_| {
            vec![
                row("user", "echo \"$(id -u):$(id -g)\"").main("/securityContext", json!({"runAsUser": 1000, "runAsGroup": 2000})).says("1000:2000"),
                row("pod-user", "echo \"$(id -u):$(id -g)\"")
                    .spec("/securityContext", json!({"runAsUser": 1000, "runAsGroup": 3000}))
                    .says("1000:3000"),
                row("own-user", "id -u")
                    .spec("/securityContext", json!({"runAsUser": 1000}))
                    .main("/securityContext", json!({"runAsUser": 1001}))
                    .says("1001"),
                row("groups", "id -G")
                    .spec("/securityContext", json!({"runAsUser": 5, "supplementalGroups": [4001], "fsGroup": 4002}))
                    .says("4001 4002"),
                row("not-root", "id -u").spec("/securityContext", json!({"runAsUser": 7, "runAsNonRoot": true})).says("7"),
                row("root", "id -u").spec("/securityContext", json!({"runAsNonRoot": true})).fails(
                    "Pending",
                    "CreateContainerConfigError",
                    "runAsNonRoot",
                ),
                row("read-only", "touch /x || echo refused").main("/securityContext", json!({"readOnlyRootFilesystem": true})).says("refused"),
                row("no-new", "grep NoNewPrivs /proc/self/status")
                    .main("/securityContext", json!({"allowPrivilegeEscalation": false}))
                    .says("NoNewPrivs:\t1"),
                row("no-caps", "grep CapEff /proc/self/status")
                    .main("/securityContext", json!({"capabilities": {"drop": ["ALL"]}}))
                    .says("CapEff:\t0000000000000000"),
                row("no-caps-in-small", "grep CapEff /proc/self/status")
                    .main("/securityContext", json!({"capabilities": {"drop": ["all"]}}))
                    .host("/CapDrop", json!(["ALL"]))
                    .says("CapEff:\t0000000000000000"),
                row("one-cap", "grep CapEff /proc/self/status")
                    .main("/securityContext", json!({"capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}}))
                    .says("CapEff:\t0000000000000400"),
                row("no-such-cap", "id").main("/securityContext", json!({"capabilities": {"add": ["NO_SUCH"]}})).fails(
                    "Pending",
                    "CreateContainerError",
                    "NO_SUCH",
                ),
                row("unfiltered", "id")
                    .main("/securityContext", json!({"seccompProfile": {"type": "Unconfined"}}))
                    .host("/SecurityOpt", json!(["seccomp=unconfined"])),
                row("own-filter", "id")
                    .main("/securityContext", json!({"seccompProfile": {"type": "Localhost", "localhostProfile": "all.json"}}))
                    .host("/SecurityOpt", json!(["seccomp={\"defaultAction\":\"SCMP_ACT_ALLOW\"}"])),
                row("no-filter", "id")
                    .main("/securityContext", json!({"seccompProfile": {"type": "Localhost", "localhostProfile": "none.json"}}))
                    .fails("Pending", "CreateContainerConfigError", "cannot load seccomp profile"),
                row("bad-filter", "id")
                    .main("/securityContext", json!({"seccompProfile": {"type": "Localhost", "localhostProfile": "broken.json"}}))
                    .fails("Pending", "CreateContainerConfigError", "broken.json"),
                row("sysctl", "cat /proc/sys/net/ipv4/ip_unprivileged_port_start")
                    .spec("/securityContext", json!({"sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "77"}]}))
                    .says("77"),
                row("unmasked", "id").main("/securityContext", json!({"procMount": "Unmasked"})).host("/MaskedPaths", json!([])),
                row("label", "id")
                    .main("/securityContext", json!({"seLinuxOptions": {"level": "s0:c1,c2"}}))
                    .host("/SecurityOpt", json!(["label=level:s0:c1,c2"])),
            ]
        },
    )
    .await;
}
