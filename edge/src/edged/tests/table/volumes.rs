use serde_json::json;

use super::{Row, row, run};

/// A row with one volume at `/v`.
fn volume(name: &str, script: &str, volume: serde_json::Value) -> Row {
    let mut volume = volume;
    volume["name"] = json!("v");
    row(name, script).spec("/volumes", json!([volume])).main("/volumeMounts", json!([{"name": "v", "mountPath": "/v"}]))
}

#[actix_rt::test]
async fn files_of_objects_and_fields() {
    run(
        |_| {},
        |_| {
            vec![
                volume("config-map", "cat /v/a /v/b; stat -c %a /v/..data/a", json!({"configMap": {"name": "cm"}}))
                    .object("configmap", "cm", json!({"a": "one\n", "b": "two\n"}))
                    .says("one\ntwo\n644"),
                volume(
                    "items",
                    "ls /v; cat /v/deep/x; stat -Lc %a /v/deep/x",
                    json!({"configMap": {"name": "items", "items": [{"key": "a", "path": "deep/x", "mode": 256}]}}),
                )
                .object("configmap", "items", json!({"a": "one\n", "b": "two\n"}))
                .says("deep\none\n400"),
                volume(
                    "secret",
                    "cat /v/t; stat -Lc %a /v/t; touch /v/x || echo refused",
                    json!({"secret": {"secretName": "s", "defaultMode": 288}}),
                )
                .object("secret", "s", json!({"t": "aHVudGVyMgo="}))
                .says("hunter2\n440")
                .says("refused"),
                volume("absent", "ls -A /v | grep -v '^\\.\\.' | wc -l", json!({"configMap": {"name": "nobody", "optional": true}})).says("0"),
                volume("no-key", "id", json!({"configMap": {"name": "no-key", "items": [{"key": "z", "path": "z"}]}}))
                    .object("configmap", "no-key", json!({"a": "1"}))
                    .fails("Pending", "ContainerCreating", "references non-existent config key: z"),
                volume("hostile-key", "id", json!({"configMap": {"name": "hostile-key"}}))
                    .object("configmap", "hostile-key", json!({"../../../../etc/skep": "x"}))
                    .fails("Pending", "ContainerCreating", "cannot be a file of a volume"),
                volume("hostile-path", "id", json!({"configMap": {"name": "hostile-path", "items": [{"key": "a", "path": "../a"}]}}))
                    .object("configmap", "hostile-path", json!({"a": "x"}))
                    .fails("Pending", "ContainerCreating", "cannot be a file of a volume"),
                volume(
                    "downward",
                    "cat /v/labels /v/name /v/mem; echo; cat /v/cpu",
                    json!({"downwardAPI": {"items": [
                        {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
                        {"path": "name", "fieldRef": {"fieldPath": "metadata.name"}},
                        {"path": "mem", "resourceFieldRef": {"containerName": "main", "resource": "limits.memory", "divisor": "1Mi"}},
                        // Not limited: what the machine gives.
                        {"path": "cpu", "resourceFieldRef": {"containerName": "main", "resource": "limits.cpu"}},
                    ]}}),
                )
                .main("/resources", json!({"limits": {"memory": "48Mi"}}))
                .says("app=\"demo\"")
                .says("downward48\n2"),
                volume(
                    "projected",
                    "cat /v/a /v/t /v/notes",
                    json!({"projected": {"sources": [
                        {"configMap": {"name": "pr", "items": [{"key": "a", "path": "a"}]}},
                        {"secret": {"name": "pr"}},
                        {"downwardAPI": {"items": [{"path": "notes", "fieldRef": {"fieldPath": "metadata.annotations"}}]}},
                    ]}}),
                )
                .object("configmap", "pr", json!({"a": "one "}))
                .object("secret", "pr", json!({"t": "dHdvIA=="}))
                .says("one two note=\"a \\\"quoted\\\" word\""),
                volume("one-file", "cat /v", json!({"configMap": {"name": "of"}}))
                    .object("configmap", "of", json!({"a": "just this"}))
                    .main("/volumeMounts", json!([{"name": "v", "mountPath": "/v", "subPath": "a"}]))
                    .says("just this"),
                volume("fs-group", "stat -Lc %g /v/a", json!({"configMap": {"name": "fg"}}))
                    .object("configmap", "fg", json!({"a": "1"}))
                    .spec("/securityContext", json!({"fsGroup": 4321, "runAsUser": 9}))
                    .says("4321"),
            ]
        },
    )
    .await;
}

#[actix_rt::test]
async fn directories_memory_and_paths_of_the_machine() {
    run(
        |data| {
            std::fs::create_dir(data.join("machine")).unwrap();
            std::fs::write(data.join("machine/file"), "of the machine").unwrap();
            std::fs::write(data.join("machine/usb-0:1:1.0-port0"), "of a port").unwrap();
        },
        |data| {
            let machine = |name: &str| data.join("machine").join(name).display().to_string();
            vec![
                volume("empty", "touch /v/x && stat -c %a /v", json!({"emptyDir": {}})).says("777"),
                volume("kindless", "touch /v/x && echo made", json!({})).says("made"),
                row("two", "while ! [ -e /d/x ]; do sleep 0.1; done; cat /d/x")
                    .with("containers", "other", "echo hello > /d/x", json!({}))
                    .shared()
                    .says("hello"),
                volume("group", "stat -c %g /v; touch /v/x; stat -c %g /v/x", json!({"emptyDir": {}}))
                    .spec("/securityContext", json!({"fsGroup": 4321, "runAsUser": 9}))
                    .says("4321\n4321"),
                volume(
                    "memory",
                    "grep ' /v ' /proc/mounts; dd if=/dev/zero of=/v/x bs=1M count=3 || echo full",
                    json!({"emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}),
                )
                .says("tmpfs")
                .says("full"),
                row("memory-two", "while ! [ -e /m/x ]; do sleep 0.1; done; cat /m/x")
                    .with("containers", "other", "echo hello > /m/x", json!({"volumeMounts": [{"name": "m", "mountPath": "/m"}]}))
                    .spec("/volumes", json!([{"name": "m", "emptyDir": {"medium": "Memory"}}]))
                    .main("/volumeMounts", json!([{"name": "m", "mountPath": "/m"}]))
                    .says("hello"),
                volume("host-dir", "cat /v/file", json!({"hostPath": {"path": machine(""), "type": "Directory"}})).says("of the machine"),
                volume("host-file", "cat /v", json!({"hostPath": {"path": machine("file"), "type": "File"}})).says("of the machine"),
                volume("host-colon", "cat /v", json!({"hostPath": {"path": machine("usb-0:1:1.0-port0"), "type": "File"}})).says("of a port"),
                volume("host-colon-made", "touch /v/x && echo made", json!({"hostPath": {"path": machine("a:/etc:ro")}})).says("made"),
                volume("host-colon-part", "touch /v/x && ls /v/..", json!({"hostPath": {"path": machine("c:d"), "type": "DirectoryOrCreate"}}))
                    .main("/volumeMounts", json!([{"name": "v", "mountPath": "/v", "subPath": "e:f"}]))
                    .says("v"),
                volume("host-made", "touch /v/x && echo made", json!({"hostPath": {"path": machine("new/deep"), "type": "DirectoryOrCreate"}}))
                    .says("made"),
                volume("host-kindless", "touch /v/x && echo made", json!({"hostPath": {"path": machine("kindless")}})).says("made"),
                volume("host-file-made", "echo made > /v && cat /v", json!({"hostPath": {"path": machine("new-file"), "type": "FileOrCreate"}}))
                    .says("made"),
                volume("host-none", "id", json!({"hostPath": {"path": machine("nothing"), "type": "Directory"}})).fails(
                    "Pending",
                    "ContainerCreating",
                    "hostPath type check failed",
                ),
                volume("host-other", "id", json!({"hostPath": {"path": machine("file"), "type": "Socket"}})).fails(
                    "Pending",
                    "ContainerCreating",
                    "hostPath type check failed",
                ),
                volume("read-only", "touch /v/x || echo refused", json!({"emptyDir": {}}))
                    .main("/volumeMounts", json!([{"name": "v", "mountPath": "/v", "readOnly": true}]))
                    .says("refused"),
                volume("sub-path", "touch /v/x; ls /all/a/b", json!({"emptyDir": {}}))
                    .main("/volumeMounts", json!([{"name": "v", "mountPath": "/v", "subPath": "a/b"}, {"name": "v", "mountPath": "/all"}]))
                    .says("x"),
                volume("sub-expr", "touch /v/x; ls /all", json!({"emptyDir": {}}))
                    .main("/env", json!([{"name": "ME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]))
                    .main("/volumeMounts", json!([{"name": "v", "mountPath": "/v", "subPathExpr": "of-$(ME)"}, {"name": "v", "mountPath": "/all"}]))
                    .says("of-sub-expr"),
                volume("sub-unknown", "id", json!({"emptyDir": {}}))
                    .main("/volumeMounts", json!([{"name": "v", "mountPath": "/v", "subPathExpr": "$(NOBODY)"}]))
                    .fails("Pending", "CreateContainerConfigError", "missing value for \"NOBODY\""),
                row("sub-link", "cat /e/passwd")
                    .with("initContainers", "evil", "ln -s /etc /d/evil; ln -s ../../.. /d/up", json!({}))
                    .shared()
                    .main("/volumeMounts", json!([{"name": "d", "mountPath": "/e", "subPath": "evil"}]))
                    .fails("Pending", "CreateContainerConfigError", "subPath `evil`"),
            ]
        },
    )
    .await;
}
