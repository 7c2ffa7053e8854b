use serde_json::{Value, json};

use super::super::pod::{CONTAINERS_MAX, GRACE_SECS_MAX, Pod, PullPolicy, qos_class};
use super::{pod, pod_json, spec};

/// A pod with one container, changed at `pointer` to `value`.
fn with(pointer: &str, value: Value) -> Value {
    let mut json = pod_json(json!({"containers": [{"name": "c", "image": "i:1"}]}));
    let mut place = &mut json;
    for part in pointer.split('/') {
        place = match part.parse::<usize>() {
            Ok(index) => &mut place[index],
            Err(_) => &mut place[part],
        };
    }
    *place = value;
    json
}

fn check(json: &Value) -> Result<(), String> {
    Pod::parse(&json.to_string()).and_then(|pod| pod.check()).map_err(|refusal| format!("{}: {}", refusal.reason, refusal.message))
}

#[test]
fn what_this_edge_runs_is_accepted() {
    let probe = |extra: Value| {
        let mut json = json!({"exec": {"command": ["true"]}});
        json.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        json
    };
    let digest = "0".repeat(64);
    let accepted = [
        ("spec/restartPolicy", json!("Never")),
        ("spec/restartPolicy", json!(null)),
        ("spec/tolerations", json!([{"operator": "Exists"}])),
        ("spec/nodeSelector", json!({"a": "b"})),
        ("spec/priority", json!(0)),
        ("spec/dnsPolicy", json!("ClusterFirst")),
        ("spec/dnsPolicy", json!("Default")),
        (
            "spec/dnsConfig",
            json!({"nameservers": ["10.0.0.10"], "searches": ["a.b"], "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]}),
        ),
        ("spec/hostAliases", json!([{"ip": "1.2.3.4", "hostnames": ["a", "b.c"]}])),
        ("spec/imagePullSecrets", json!([{"name": "reg"}])),
        ("spec/securityContext", json!({})),
        ("spec/securityContext", json!({"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 2000, "supplementalGroups": [3000], "runAsNonRoot": true})),
        ("spec/securityContext", json!({"seccompProfile": {"type": "Localhost", "localhostProfile": "profiles/audit.json"}})),
        (
            "spec/securityContext",
            json!({"sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}, {"name": "kernel.shm_rmid_forced", "value": "1"}]}),
        ),
        ("spec/enableServiceLinks", json!(true)),
        ("spec/runtimeClassName", json!("")),
        ("spec/shareProcessNamespace", json!(true)),
        ("spec/activeDeadlineSeconds", json!(5)),
        ("spec/initContainers", json!([])),
        ("spec/initContainers", json!(null)),
        (
            "spec/initContainers",
            json!([{"name": "i", "image": "i"}, {"name": "s", "image": "i", "restartPolicy": "Always", "startupProbe": {"tcpSocket": {"port": 80}}}]),
        ),
        ("spec/hostNetwork", json!(true)),
        ("spec/os", json!({"name": "linux"})),
        ("spec/containers/0/terminationMessagePath", json!("/dev/termination-log")),
        ("spec/containers/0/terminationMessagePolicy", json!("FallbackToLogsOnError")),
        ("spec/containers/0/ports", json!([{"containerPort": 80, "hostPort": 8080}, {"containerPort": 80, "hostPort": 8080, "protocol": "UDP"}])),
        ("spec/containers/0/resources", json!({"limits": {"cpu": "500m", "memory": "64Mi"}, "requests": {"cpu": "250m"}})),
        ("spec/containers/0/resources", json!({"limits": {"memory": "32Gi", "ephemeral-storage": "2Ti"}, "requests": {"memory": "20Gi"}})),
        ("spec/containers/0/securityContext", json!({"privileged": true})),
        ("spec/containers/0/securityContext", json!({"readOnlyRootFilesystem": true, "allowPrivilegeEscalation": false})),
        ("spec/containers/0/securityContext", json!({"capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]}, "procMount": "Default"})),
        ("spec/containers/0/securityContext", json!({"capabilities": {"add": ["net_admin", "CAP_Sys_Time"], "drop": ["all"]}})),
        ("spec/containers/0/image", json!(format!("registry.example:5000/a/b@sha256:{digest}"))),
        ("spec/containers/0/livenessProbe", probe(json!({"periodSeconds": 1, "terminationGracePeriodSeconds": 1}))),
        ("spec/containers/0/livenessProbe", probe(json!({"terminationGracePeriodSeconds": GRACE_SECS_MAX}))),
        (
            "spec/containers/0/readinessProbe",
            json!({"httpGet": {"port": 80, "path": "/ready?x=1", "httpHeaders": [{"name": "Host", "value": "a"}]}, "successThreshold": 2}),
        ),
        ("spec/containers/0/startupProbe", json!({"grpc": {"port": 9000}})),
        (
            "spec/containers/0/lifecycle",
            json!({"preStop": {"sleep": {"seconds": 1}}, "postStart": {"exec": {"command": ["/x"]}}, "stopSignal": "SIGUSR1"}),
        ),
        ("spec/containers/0/stdin", json!(true)),
        ("spec/containers/0/tty", json!(true)),
        ("spec/containers/0/env", json!([{"name": "X", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}}])),
        ("spec/containers/0/env", json!([{"name": "X", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Ti"}}}])),
        ("spec/containers/0/env", json!([{"name": "X", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}])),
        ("spec/volumes", json!([{"name": "v", "projected": {"sources": []}}])),
        (
            "spec/volumes",
            json!([{"name": "v", "projected": {"sources": [{"configMap": {"name": "c"}}, {"secret": {"name": "s"}}, {"downwardAPI": {"items": [{"path": "l", "fieldRef": {"fieldPath": "metadata.labels"}}]}}]}}]),
        ),
        (
            "spec/volumes",
            json!([{"name": "v", "downwardAPI": {"items": [{"path": "m", "resourceFieldRef": {"containerName": "c", "resource": "limits.memory"}}]}}]),
        ),
        ("spec/volumes", json!([{"name": "v", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}])),
        ("spec/volumes", json!([{"name": "v", "emptyDir": {"sizeLimit": "1Gi"}}])),
        (
            "spec/volumes",
            json!([{"name": "v", "hostPath": {"path": "/dev/serial/by-path/pci-0000:00:14.0-usb-0:1:1.0-port0", "type": "CharDevice"}}]),
        ),
        ("metadata/creationTimestamp", json!(null)),
        ("status", json!({"phase": "Pending", "unknown": 1})),
    ];
    for (pointer, value) in accepted {
        assert_eq!(check(&with(pointer, value.clone())), Ok(()), "{pointer} {value}");
    }
    for mount in [
        json!({"subPath": "a/b"}),
        json!({"subPathExpr": "$(X)/y"}),
        json!({"mountPropagation": "HostToContainer"}),
        json!({"recursiveReadOnly": "Disabled"}),
    ] {
        let mut json = with("spec/volumes", json!([{"name": "v", "emptyDir": {}}]));
        json["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "v", "mountPath": "/x"}]);
        json["spec"]["containers"][0]["volumeMounts"][0].as_object_mut().unwrap().extend(mount.as_object().unwrap().clone());
        assert_eq!(check(&json), Ok(()), "{mount}");
    }
    let mut real = with(
        "spec/volumes",
        json!([{"name": "kube-api-access-x1", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}, {"name": "cfg", "configMap": {"name": "c", "defaultMode": 420}}]),
    );
    real["spec"]["containers"][0]["volumeMounts"] =
        json!([{"name": "kube-api-access-x1", "mountPath": "/var/run/secrets/x", "readOnly": true}, {"name": "cfg", "mountPath": "/etc/c"}]);
    assert_eq!(check(&real), Ok(()));
}

#[test]
fn what_would_be_wrong_to_ignore_is_refused_by_name() {
    for (pointer, value) in [
        ("spec/ephemeralContainers", json!([{"name": "i"}])),
        ("spec/hostUsers", json!(false)),
        ("spec/readinessGates", json!([{"conditionType": "x"}])),
        ("spec/runtimeClassName", json!("gvisor")),
        ("spec/os", json!({"name": "windows"})),
        ("spec/somethingOfTheFuture", json!("x")),
        ("spec/securityContext", json!({"somethingOfTheFuture": true})),
        ("spec/containers/0/volumeDevices", json!([{"name": "x"}])),
        ("spec/containers/0/restartPolicy", json!("Always")),
        ("spec/containers/0/resources", json!({"limits": {"nvidia.com/gpu": 1}})),
        ("spec/containers/0/resources", json!({"claims": [{"name": "x"}]})),
        ("spec/containers/0/env", json!([{"name": "X", "valueFrom": {"resourceFieldRef": {"resource": "limits.ephemeral-storage"}}}])),
        ("spec/containers/0/env", json!([{"name": "X", "valueFrom": {"fieldRef": {"fieldPath": "spec.containers"}}}])),
        ("spec/volumes", json!([{"name": "v", "persistentVolumeClaim": {"claimName": "x"}}])),
        ("spec/volumes", json!([{"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}])),
        ("spec/volumes", json!([{"name": "v", "downwardAPI": {"items": [{"path": "x", "fieldRef": {"fieldPath": "status.podIP"}}]}}])),
        ("spec/volumes", json!([{"name": "v", "emptyDir": {"medium": "HugePages"}}])),
    ] {
        let refused = check(&with(pointer, value.clone())).expect_err(&format!("{pointer} {value}"));
        assert!(refused.starts_with("Unsupported: spec."), "{pointer} {value}: {refused}");
    }
}

#[test]
fn hostile_or_impossible_specs_are_refused_with_the_field() {
    let mounts = |mount: Value| {
        let mut json = with("spec/volumes", json!([{"name": "v", "emptyDir": {}}]));
        json["spec"]["containers"][0]["volumeMounts"] = json!([mount]);
        json
    };
    let many = Value::Array((0..=CONTAINERS_MAX).map(|n| json!({"name": format!("c{n}"), "image": "i"})).collect());
    let cases = [
        with("metadata/name", json!("../../etc")),
        with("metadata/name", json!("")),
        with("metadata/namespace", json!("a.b")),
        with("metadata/uid", json!("../..")),
        with("metadata/uid", json!("")),
        with("spec/containers", json!([])),
        with("spec/containers", many),
        with("spec/containers", json!([{"name": "c", "image": "i"}, {"name": "c", "image": "i"}])),
        with("spec/containers", json!("x")),
        with("spec/hostname", json!("a b")),
        with("spec/terminationGracePeriodSeconds", json!(-1)),
        with("spec/restartPolicy", json!("Sometimes")),
        with("spec/containers/0/name", json!("C; rm -rf /")),
        with("spec/containers/0/image", json!("")),
        with("spec/containers/0/imagePullPolicy", json!("Often")),
        with("spec/containers/0/ports", json!([{"containerPort": 0}])),
        with("spec/containers/0/ports", json!([{"containerPort": 80, "hostPort": 65536}])),
        with("spec/containers/0/ports", json!([{"containerPort": 80, "hostPort": -1}])),
        with("spec/containers/0/ports", json!([{"containerPort": 80, "hostPort": 9}, {"containerPort": 81, "hostPort": 9}])),
        with("spec/containers/0/ports", json!([{"containerPort": 80, "protocol": "ICMP"}])),
        with("spec/containers/0/ports", json!([{"containerPort": 80, "hostPort": 9, "hostIP": "$(reboot)"}])),
        with("spec/containers/0/resources", json!({"limits": {"memory": "lots"}})),
        with("spec/containers/0/resources", json!({"limits": {"cpu": "-1"}})),
        with("spec/containers/0/env", json!([{"name": "A=B", "value": "c"}])),
        with("spec/containers/0/env", json!([{"name": "A", "value": "a\u{0}b"}])),
        with("spec/containers/0/workingDir", json!("relative")),
        with("spec/volumes", json!([{"name": "../v", "emptyDir": {}}])),
        with("spec/volumes", json!([{"name": "v"}, {"name": "v"}])),
        with("spec/volumes", json!([{"name": "v", "emptyDir": {}, "hostPath": {"path": "/x"}}])),
        with("spec/volumes", json!([{"name": "v", "hostPath": {"path": "/a/../../etc"}}])),
        with("spec/volumes", json!([{"name": "v", "hostPath": {"path": "/a:b/../../etc"}}])),
        with("spec/volumes", json!([{"name": "v", "hostPath": {"path": "a:/etc"}}])),
        with("spec/volumes", json!([{"name": "v", "hostPath": {"path": "/a\nb"}}])),
        with("spec/volumes", json!([{"name": "v", "hostPath": {"path": "/a", "type": "Whatever"}}])),
        with("spec/volumes", json!([{"name": "v", "configMap": {"name": "../x"}}])),
        mounts(json!({"name": "v", "mountPath": "/"})),
        mounts(json!({"name": "v", "mountPath": "x"})),
        mounts(json!({"name": "v", "mountPath": "/x:/y"})),
        mounts(json!({"name": "nobody", "mountPath": "/x"})),
        with("spec/containers/0/volumeMounts", json!([{"name": "none", "mountPath": "/x"}])),
        mounts(json!({"name": "v", "mountPath": "/x", "subPath": "/etc"})),
        mounts(json!({"name": "v", "mountPath": "/x", "subPath": "a/../../b"})),
        mounts(json!({"name": "v", "mountPath": "/x", "subPath": "a", "subPathExpr": "b"})),
        mounts(json!({"name": "v", "mountPath": "/x", "mountPropagation": "Bidirectional"})),
        mounts(json!({"name": "v", "mountPath": "/x", "mountPropagation": "Sideways"})),
        with("spec/initContainers", json!([{"name": "c", "image": "i"}])),
        with("spec/initContainers", json!([{"name": "i", "image": "i", "restartPolicy": "Never"}])),
        with("spec/initContainers", json!([{"name": "i", "image": "i", "livenessProbe": {"tcpSocket": {"port": 1}}}])),
        with("spec/activeDeadlineSeconds", json!(0)),
        with("spec/dnsPolicy", json!("None")),
        with("spec/dnsPolicy", json!("Sometimes")),
        with("spec/dnsConfig", json!({"nameservers": ["$(reboot)"]})),
        with("spec/dnsConfig", json!({"options": [{"name": "a b"}]})),
        with("spec/hostAliases", json!([{"ip": "1.2.3.4.5", "hostnames": ["a"]}])),
        with("spec/hostAliases", json!([{"ip": "1.2.3.4", "hostnames": ["a b"]}])),
        with("spec/imagePullSecrets", json!([{"name": "../x"}])),
        with("spec/securityContext", json!({"runAsUser": -1})),
        with("spec/securityContext", json!({"fsGroup": 4_294_967_296_i64})),
        with("spec/securityContext", json!({"seccompProfile": {"type": "Localhost", "localhostProfile": "../../etc/passwd"}})),
        with("spec/securityContext", json!({"seccompProfile": {"type": "Whatever"}})),
        with("spec/securityContext", json!({"sysctls": [{"name": "kernel.panic", "value": "1"}]})),
        with("spec/securityContext", json!({"sysctls": [{"name": "net.ipv4/../x", "value": "1"}]})),
        with("spec/containers/0/securityContext", json!({"capabilities": {"add": ["sys_admin; x"]}})),
        with("spec/containers/0/securityContext", json!({"capabilities": {"drop": ["all "]}})),
        with("spec/containers/0/securityContext", json!({"capabilities": {"drop": [""]}})),
        with("spec/containers/0/securityContext", json!({"capabilities": {"drop": ["ſys_time"]}})),
        with("spec/containers/0/securityContext", json!({"privileged": true, "allowPrivilegeEscalation": false})),
        with("spec/containers/0/securityContext", json!({"procMount": "All"})),
        with("spec/containers/0/livenessProbe", json!({})),
        with("spec/containers/0/livenessProbe", json!({"exec": {"command": []}})),
        with("spec/containers/0/livenessProbe", json!({"exec": {"command": ["x"]}, "tcpSocket": {"port": 1}})),
        with("spec/containers/0/livenessProbe", json!({"tcpSocket": {"port": 0}})),
        with("spec/containers/0/livenessProbe", json!({"tcpSocket": {"port": "nobody"}})),
        with("spec/containers/0/livenessProbe", json!({"tcpSocket": {"port": 80, "host": "a b"}})),
        with("spec/containers/0/livenessProbe", json!({"httpGet": {"port": 80, "path": "/a b"}})),
        with("spec/containers/0/livenessProbe", json!({"httpGet": {"port": 80, "httpHeaders": [{"name": "a", "value": "x\r\ny: z"}]}})),
        with("spec/containers/0/livenessProbe", json!({"grpc": {"port": 70_000}})),
        with("spec/containers/0/livenessProbe", json!({"tcpSocket": {"port": 80}, "successThreshold": 2})),
        with("spec/containers/0/livenessProbe", json!({"tcpSocket": {"port": 80}, "periodSeconds": -1})),
        with("spec/containers/0/livenessProbe", json!({"tcpSocket": {"port": 80}, "terminationGracePeriodSeconds": GRACE_SECS_MAX + 1})),
        with("spec/containers/0/readinessProbe", json!({"tcpSocket": {"port": 80}, "terminationGracePeriodSeconds": 1})),
        with("spec/containers/0/lifecycle", json!({"preStop": {}})),
        with("spec/containers/0/lifecycle", json!({"preStop": {"grpc": {"port": 1}}})),
        with("spec/containers/0/lifecycle", json!({"stopSignal": "9; reboot"})),
        with("spec/containers/0/terminationMessagePath", json!("x")),
        with("spec/containers/0/terminationMessagePolicy", json!("Loud")),
        with("spec/containers/0/ports", json!([{"containerPort": 80, "name": "UPPER"}])),
        with("spec/containers/0/ports", json!([{"containerPort": 80, "name": "a"}, {"containerPort": 81, "name": "a"}])),
        with("spec/containers/0/resources", json!({"limits": {"memory": "1Mi"}, "requests": {"memory": "2Mi"}})),
        with("spec/containers/0/resources", json!({"limits": {"memory": "20Gi"}, "requests": {"memory": "21Gi"}})),
        with("spec/containers/0/resources", json!({"limits": {"memory": "99999Ei"}})),
        with("spec/containers/0/command", json!(["a\u{0}b"])),
        with("spec/containers/0/env", json!([{"name": "A", "value": "x".repeat(2 << 20)}])),
        with("spec/containers/0/env", json!([{"name": "A", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}])),
        with("spec/containers/0/env", json!([{"name": "A", "valueFrom": {}}])),
        with(
            "spec/containers/0/env",
            json!([{"name": "A", "valueFrom": {"resourceFieldRef": {"containerName": "nobody", "resource": "limits.cpu"}}}]),
        ),
        with("spec/volumes", json!([{"name": "v", "configMap": {"name": "c", "defaultMode": 4096}}])),
        with("spec/volumes", json!([{"name": "v", "emptyDir": {"sizeLimit": "lots"}}])),
        with("spec/volumes", json!([{"name": "v", "downwardAPI": {"items": [{"path": "x"}]}}])),
    ];
    for json in cases {
        let refused = check(&json).expect_err(&json.to_string());
        assert!(refused.starts_with("InvalidSpec: "), "{json}: {refused}");
    }
    assert!(Pod::parse("{").is_err());
}

#[test]
fn an_image_that_is_no_reference_is_its_containers_trouble_and_never_asked_for() {
    let digest = format!("sha256:{}", "0".repeat(64));
    let check = |image: &str| {
        let pod = Pod::parse(&with("spec/containers/0/image", json!(image)).to_string()).unwrap();
        assert_eq!(pod.check(), Ok(()), "{image}");
        pod.spec.containers[0].has_reference()
    };
    let with_digest = format!("a:1@{digest}");
    for image in ["a", "a:1", "my_org/a--b", "host:5000/a/b:V1_x.y-z", "localhost/a", "127.0.0.1:1/a:_", "Host.Example/a", &with_digest, &digest] {
        assert!(check(image), "{image}");
    }
    let long = "a/".repeat(300) + "a";
    for image in [
        "MyApp:1.0",
        "nginx:1:2",
        "nginx:-x",
        "nginx:.x",
        "nginx:",
        "a@sha256:00",
        "a@",
        ":1",
        "@",
        "/",
        "a/",
        "/a",
        "a//b",
        "a/../b",
        "../a",
        "./a",
        "a b",
        " a",
        "a?all=1",
        "a#",
        "a%2f",
        "a/b:1/c:2",
        "ä",
        "../../containers/json?all=1#",
        &long,
    ] {
        assert!(!check(image), "{image}");
    }
}

#[test]
fn the_pull_policy_depends_on_the_tag() {
    for (image, given, want) in [
        ("a", "", PullPolicy::Always),
        ("a:latest", "", PullPolicy::Always),
        ("host:5000/a", "", PullPolicy::Always),
        ("host:5000/a:1", "", PullPolicy::IfNotPresent),
        ("a@sha256:0", "", PullPolicy::IfNotPresent),
        ("a", "Never", PullPolicy::Never),
        ("a:1", "Always", PullPolicy::Always),
    ] {
        let pod = pod(json!({"containers": [{"name": "c", "image": image, "imagePullPolicy": given}]}));
        assert_eq!(pod.spec.containers[0].pull_policy(), want, "{image} {given}");
    }
}

#[test]
fn the_quality_of_service_class_follows_requests_and_limits() {
    let class = |resources: Value| qos_class(&pod(json!({"containers": [{"name": "c", "image": "i", "resources": resources}]})));
    assert_eq!(class(json!({})), "BestEffort");
    assert_eq!(class(json!({"requests": {"cpu": "1"}})), "Burstable");
    assert_eq!(class(json!({"limits": {"cpu": "1"}})), "Burstable");
    assert_eq!(class(json!({"limits": {"cpu": "1", "memory": "1Gi"}})), "Guaranteed");
    assert_eq!(class(json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1024Mi"}})), "Guaranteed");
    assert_eq!(class(json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1m"}})), "Burstable");
    assert_eq!(class(json!({"limits": {"cpu": "1", "memory": "32Gi"}})), "Guaranteed");
    assert_eq!(class(json!({"limits": {"cpu": "1", "memory": "32Gi"}, "requests": {"memory": "31Gi"}})), "Burstable");
}

#[test]
fn a_sandbox_is_needed_by_whatever_has_something_to_share() {
    for (more, is_needed) in [
        (json!({}), false),
        (json!({"hostNetwork": false}), true),
        (json!({"shareProcessNamespace": true}), true),
        (json!({"initContainers": [{"name": "i", "image": "i"}]}), true),
        (json!({"volumes": [{"name": "v", "emptyDir": {}}]}), false),
        (json!({"volumes": [{"name": "v", "emptyDir": {"medium": "Memory"}}]}), true),
        (json!({"securityContext": {"sysctls": [{"name": "kernel.shm_rmid_forced", "value": "1"}]}}), true),
    ] {
        let mut json = json!({"hostNetwork": true, "containers": [{"name": "c", "image": "i"}]});
        json.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        assert_eq!(pod(json).needs_sandbox(), is_needed, "{more}");
    }
}

#[test]
fn the_grace_comes_from_the_delete_request_then_the_spec_then_thirty_seconds() {
    let mut json = pod_json(spec(&["a"], "Always"));
    let grace = |json: &Value| Pod::parse(&json.to_string()).unwrap().grace_secs();
    assert_eq!(grace(&json), 30);
    json["spec"]["terminationGracePeriodSeconds"] = 5.into();
    assert_eq!(grace(&json), 5);
    json["metadata"]["deletionGracePeriodSeconds"] = 0.into();
    assert_eq!(grace(&json), 0);
    json["metadata"]["deletionGracePeriodSeconds"] = i64::MAX.into();
    assert_eq!(grace(&json), 86_400);
}
