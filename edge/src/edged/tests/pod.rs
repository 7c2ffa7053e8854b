use serde_json::{Value, json};

use super::super::pod::{CONTAINERS_MAX, Pod, PullPolicy, qos_class};
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
    let accepted = [
        with("spec/restartPolicy", json!("Never")),
        with("spec/restartPolicy", json!(null)),
        with("spec/tolerations", json!([{"operator": "Exists"}])),
        with("spec/nodeSelector", json!({"a": "b"})),
        with("spec/priority", json!(0)),
        with("spec/dnsPolicy", json!("ClusterFirst")),
        with("spec/securityContext", json!({})),
        with("spec/enableServiceLinks", json!(true)),
        with("spec/initContainers", json!([])),
        with("spec/initContainers", json!(null)),
        with("spec/hostNetwork", json!(true)),
        with("spec/os", json!({"name": "linux"})),
        with("spec/containers/0/terminationMessagePath", json!("/dev/termination-log")),
        with("spec/containers/0/ports", json!([{"containerPort": 80, "hostPort": 8080}, {"containerPort": 80, "hostPort": 8080, "protocol": "UDP"}])),
        with("spec/containers/0/resources", json!({"limits": {"cpu": "500m", "memory": "64Mi"}, "requests": {"cpu": 1}})),
        with("spec/containers/0/securityContext", json!({"privileged": true})),
        with("spec/containers/0/image", json!("registry.example:5000/a/b@sha256:00")),
        with("metadata/creationTimestamp", json!(null)),
        with("status", json!({"phase": "Pending", "unknown": 1})),
    ];
    for json in accepted {
        assert_eq!(check(&json), Ok(()), "{json}");
    }
    let mut real = with(
        "spec/volumes",
        json!([{"name": "kube-api-access-x1", "projected": {"sources": [{}]}}, {"name": "cfg", "configMap": {"name": "c", "defaultMode": 420}}]),
    );
    real["spec"]["containers"][0]["volumeMounts"] =
        json!([{"name": "kube-api-access-x1", "mountPath": "/var/run/secrets/x", "readOnly": true}, {"name": "cfg", "mountPath": "/etc/c"}]);
    assert_eq!(check(&real), Ok(()));
}

#[test]
fn what_would_be_wrong_to_ignore_is_refused_by_name() {
    let probe = json!({"exec": {"command": ["true"]}});
    for (pointer, value) in [
        ("spec/initContainers", json!([{"name": "i", "image": "i"}])),
        ("spec/ephemeralContainers", json!([{"name": "i"}])),
        ("spec/shareProcessNamespace", json!(true)),
        ("spec/hostUsers", json!(false)),
        ("spec/runtimeClassName", json!("gvisor")),
        ("spec/activeDeadlineSeconds", json!(5)),
        ("spec/hostAliases", json!([{"ip": "1.2.3.4"}])),
        ("spec/dnsPolicy", json!("None")),
        ("spec/os", json!({"name": "windows"})),
        ("spec/securityContext", json!({"runAsUser": 1000})),
        ("spec/somethingOfTheFuture", json!("x")),
        ("spec/containers/0/livenessProbe", probe.clone()),
        ("spec/containers/0/readinessProbe", probe.clone()),
        ("spec/containers/0/startupProbe", probe),
        ("spec/containers/0/lifecycle", json!({"preStop": {}})),
        ("spec/containers/0/stdin", json!(true)),
        ("spec/containers/0/securityContext", json!({"readOnlyRootFilesystem": true})),
        ("spec/containers/0/securityContext", json!({"allowPrivilegeEscalation": false})),
        ("spec/containers/0/resources", json!({"limits": {"nvidia.com/gpu": 1}})),
        ("spec/containers/0/env", json!([{"name": "X", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}}])),
        ("spec/containers/0/env", json!([{"name": "X", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}])),
        ("spec/volumes", json!([{"name": "v", "projected": {"sources": []}}])),
        ("spec/volumes", json!([{"name": "v", "persistentVolumeClaim": {"claimName": "x"}}])),
        ("spec/volumes", json!([{"name": "v", "emptyDir": {"medium": "Memory"}}])),
        ("spec/volumes", json!([{"name": "v", "emptyDir": {"sizeLimit": "1Gi"}}])),
    ] {
        let refused = check(&with(pointer, value.clone())).expect_err(pointer);
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
        with("spec/containers/0/image", json!("../../containers/json?all=1#")),
        with("spec/containers/0/image", json!("a b")),
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
        with("spec/volumes", json!([{"name": "v", "hostPath": {"path": "/a:/etc:rw"}}])),
        with("spec/volumes", json!([{"name": "v", "hostPath": {"path": "/a", "type": "Whatever"}}])),
        with("spec/volumes", json!([{"name": "v", "configMap": {"name": "../x"}}])),
        mounts(json!({"name": "v", "mountPath": "/"})),
        mounts(json!({"name": "v", "mountPath": "x"})),
        mounts(json!({"name": "v", "mountPath": "/x:/y"})),
        mounts(json!({"name": "nobody", "mountPath": "/x"})),
        with("spec/containers/0/volumeMounts", json!([{"name": "none", "mountPath": "/x"}])),
    ];
    for json in cases {
        let refused = check(&json).expect_err(&json.to_string());
        assert!(refused.starts_with("InvalidSpec: "), "{json}: {refused}");
    }
    for mount in
        [json!({"name": "v", "mountPath": "/x", "subPath": "a"}), json!({"name": "v", "mountPath": "/x", "mountPropagation": "Bidirectional"})]
    {
        assert!(check(&mounts(mount)).unwrap_err().starts_with("Unsupported: "));
    }
    assert!(Pod::parse("{").is_err());
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
