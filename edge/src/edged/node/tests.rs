#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::*;

#[test]
fn a_node_is_ready_exactly_while_its_engine_answers_and_the_transition_time_tells_since_when() {
    let mut report = report(Machine::default(), Settings::default());
    let condition = |report: &NodeReport, now| report.status(at(now))["conditions"][0].clone();
    assert_eq!(condition(&report, 2)["status"], "False");
    assert!(report.set(Readiness::Ready("docker://20.10".into()), at(5)));
    assert!(!report.set(Readiness::Ready("docker://20.10".into()), at(9)));
    let ready = condition(&report, 9);
    assert_eq!((ready["status"].as_str(), ready["reason"].as_str()), (Some("True"), Some("EdgeReady")));
    assert_eq!(
        (ready["lastTransitionTime"].as_str(), ready["lastHeartbeatTime"].as_str()),
        (Some("1970-01-01T00:00:05Z"), Some("1970-01-01T00:00:09Z"))
    );
    assert!(report.set(Readiness::NotReady("connection refused".into()), at(20)));
    assert_eq!((condition(&report, 21)["status"].as_str(), condition(&report, 21)["message"].as_str()), (Some("False"), Some("connection refused")));
    let status = report.status(at(21));
    assert_eq!(status["nodeInfo"]["containerRuntimeVersion"], "docker://20.10");
    assert_eq!(report.object(at(21))["metadata"]["labels"]["node-role.kubernetes.io/edge"], "");
    assert_eq!(report.content(at(21))["UID"], STATUS_UID);
}

fn report(machine: Machine, settings: Settings) -> NodeReport {
    NodeReport::new(NodeName::new("n1").unwrap(), machine, "v1".into(), at(1)).with(settings)
}

fn at(second: i64) -> jiff::Timestamp {
    jiff::Timestamp::from_second(second).unwrap()
}

#[test]
fn allocatable_is_the_capacity_without_what_is_kept_back_and_never_less_than_nothing() {
    let machine = || Machine { cpus: 2, memory_mib: 1000, storage_bytes: 1000 << 10, ..Machine::default() };
    let shown = |settings: Settings| {
        let status = report(machine(), settings).status(at(2));
        let of = |list: &str| ["cpu", "memory", "pods", "ephemeral-storage"].map(|name| status[list][name].as_str().unwrap_or("-").to_owned());
        (of("capacity"), of("allocatable"))
    };
    let texts = |list: [&str; 4]| list.map(str::to_owned);
    assert_eq!(shown(Settings::default()), (texts(["2", "1000Mi", "110", "1000Ki"]), texts(["2", "900Mi", "110", "1000Ki"])));
    let reserved = Capacity { cpu_nano: 250_000_000, memory: 200 << 20 };
    let kept = Settings {
        reserved,
        memory_kept: Some(Threshold::Share(1000)),
        storage_kept: Some(Threshold::Share(1000)),
        pods_max: 7,
        ..Settings::default()
    };
    // The tenth of the memory at which pods are ended lies within what is reserved.
    assert_eq!(shown(kept.clone()), (texts(["2", "1000Mi", "7", "1000Ki"]), texts(["1750m", "800Mi", "7", "900Ki"])));
    let much = Settings { memory_kept: Some(Threshold::Share(5000)), ..kept.clone() };
    assert_eq!(shown(much).1[1], "500Mi");
    let all = Settings { reserved: Capacity { cpu_nano: u64::MAX, memory: u64::MAX }, ..kept };
    assert_eq!(shown(all).1, texts(["0", "0Mi", "7", "900Ki"]));
    assert!(report(Machine::default(), Settings::default()).status(at(2))["capacity"]["ephemeral-storage"].is_null(), "not known is not said");
}

#[test]
fn each_pressure_is_a_condition_with_a_time_of_its_own() {
    let mut node = report(Machine::default(), Settings::default());
    let conditions = |node: &NodeReport| {
        let status = node.status(at(50));
        let text = |one: &Value, name: &str| one[name].as_str().unwrap().to_owned();
        let shown = |one: &Value| ["type", "status", "reason", "lastTransitionTime"].map(|name| text(one, name)).join(" ");
        status["conditions"].as_array().unwrap().iter().map(shown).collect::<Vec<_>>()
    };
    assert_eq!(
        conditions(&node)[1..],
        [
            "MemoryPressure False KubeletHasSufficientMemory 1970-01-01T00:00:01Z",
            "DiskPressure False KubeletHasNoDiskPressure 1970-01-01T00:00:01Z",
            "PIDPressure False KubeletHasSufficientPID 1970-01-01T00:00:01Z",
        ]
    );
    assert!(!node.set_pressures(&BTreeSet::new(), at(5)));
    assert!(node.set_pressures(&BTreeSet::from([Pressure::Memory, Pressure::Pid]), at(9)));
    assert!(!node.set_pressures(&BTreeSet::from([Pressure::Memory, Pressure::Pid]), at(12)));
    assert!(node.set_pressures(&BTreeSet::from([Pressure::Disk, Pressure::Pid]), at(20)));
    assert_eq!(
        conditions(&node)[1..],
        [
            "MemoryPressure False KubeletHasSufficientMemory 1970-01-01T00:00:20Z",
            "DiskPressure True KubeletHasDiskPressure 1970-01-01T00:00:20Z",
            "PIDPressure True KubeletHasInsufficientPID 1970-01-01T00:00:09Z",
        ]
    );
}

#[test]
fn images_are_listed_the_largest_first_in_an_order_that_does_not_depend_on_the_engine_and_not_without_bound() {
    let image =
        |n: u64| Image { id: format!("sha256:{n:03}"), names: vec![format!("i:{n}"), format!("i@sha256:{n}")], bytes: n / 2, ..Image::default() };
    let mut node = report(Machine::default(), Settings { images_max: 3, ..Settings::default() });
    assert_eq!(node.status(at(2))["images"], json!([]));
    let images: Vec<Image> = (0..100).map(image).collect();
    assert!(node.set_images(&images));
    let turned: Vec<Image> = images.iter().rev().cloned().collect();
    assert!(!node.set_images(&turned), "another order is no change");
    let listed = node.status(at(2))["images"].clone();
    assert_eq!(
        listed,
        json!([
            {"names": ["i:98", "i@sha256:98"], "sizeBytes": 49},
            {"names": ["i:99", "i@sha256:99"], "sizeBytes": 49},
            {"names": ["i:96", "i@sha256:96"], "sizeBytes": 48},
        ])
    );
    let hostile = Image {
        names: (0..1000).map(|n| format!("{}:{n}", "x".repeat(if n % 2 == 0 { 250 } else { 5000 }))).collect(),
        bytes: u64::MAX,
        ..Image::default()
    };
    assert!(node.set_images(&[hostile, Image { bytes: u64::MAX, ..Image::default() }]));
    let listed = node.status(at(2))["images"].to_string();
    assert!(listed.len() < 2000 && node.status(at(2))["images"].as_array().unwrap().len() == 1, "{listed}");
}

#[test]
fn labels_and_taints_of_the_configuration_stand_in_the_object_beside_the_edges_own() {
    let taint = Taint::parse("dedicated=press:NoSchedule").unwrap();
    let bare = Taint::parse("a:NoExecute").unwrap();
    let settings = Settings { labels: [("site".to_owned(), "hall".to_owned())].into(), taints: vec![taint, bare], ..Settings::default() };
    let object = report(Machine { architecture: "arm64".into(), ..Machine::default() }, settings).object(at(2));
    let labels = &object["metadata"]["labels"];
    assert_eq!((labels["site"].as_str(), labels["kubernetes.io/arch"].as_str()), (Some("hall"), Some("arm64")));
    assert_eq!(
        object["spec"]["taints"],
        json!([{"key": "dedicated", "value": "press", "effect": "NoSchedule"}, {"key": "a", "value": "", "effect": "NoExecute"}])
    );
    assert_eq!(report(Machine::default(), Settings::default()).object(at(2))["spec"], json!({}));
}
