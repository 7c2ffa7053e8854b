use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;

use super::super::pressure::{Consumer, Pressure, Pressures, Shortage, Signal, Signals, Suspect, Threshold, Thresholds, admit, eviction};
use super::{at, pod, pod_json, spec};
use crate::edged::pod::Pod;

const MI: u64 = 1 << 20;

/// A machine that has enough of everything.
fn fine() -> Signals {
    Signals {
        memory_available: 500 * MI,
        memory_total: 1000 * MI,
        nodefs_available: 50,
        nodefs_total: 100,
        inodes_free: 50,
        inodes_total: 100,
        imagefs_available: 50,
        imagefs_total: 100,
        pids_available: 500,
        pids_total: 1000,
    }
}

fn thresholds() -> Thresholds {
    let share = |percent: u32| Some(Threshold::Share(percent * 100));
    Thresholds {
        memory: Some(Threshold::Amount(100 * MI)),
        nodefs: share(10),
        inodes: share(5),
        imagefs: share(15),
        pids: Some(Threshold::Amount(100)),
    }
}

fn short(signal: Signal) -> Shortage {
    Shortage { signal, threshold: 100, available: 80 }
}

#[test]
fn a_threshold_is_crossed_by_less_than_it_and_by_nothing_that_is_not_known() {
    assert_eq!(thresholds().crossed(&fine()), []);
    assert_eq!(thresholds().crossed(&Signals::default()), [], "what is not known is not short");
    assert_eq!(thresholds().crossed(&Signals { memory_available: 100 * MI, ..fine() }), []);
    let low = Signals { memory_available: 100 * MI - 1, nodefs_available: 9, inodes_free: 4, imagefs_available: 14, pids_available: 99, ..fine() };
    let crossed = thresholds().crossed(&low);
    let signals: Vec<Signal> = crossed.iter().map(|shortage| shortage.signal).collect();
    assert_eq!(signals, [Signal::Memory, Signal::Nodefs, Signal::Inodes, Signal::Imagefs, Signal::Pids]);
    assert_eq!(crossed[1], Shortage { signal: Signal::Nodefs, threshold: 10, available: 9 });
    assert_eq!(Thresholds::default().crossed(&low), [], "nothing is watched");
    // A file system without a bound on its files says 0 of 0.
    assert_eq!(thresholds().crossed(&Signals { inodes_free: 0, inodes_total: 0, ..fine() }), []);
}

#[test]
fn a_pressure_holds_until_it_was_not_seen_for_the_whole_period() {
    let period = Duration::from_secs(300);
    let mut pressures = Pressures::default();
    let mut observe = |signals: &[Signal], second| {
        let shortages: Vec<Shortage> = signals.iter().map(|signal| short(*signal)).collect();
        pressures.observe(&shortages, at(second), period);
        pressures.held().into_iter().collect::<Vec<_>>()
    };
    assert_eq!(observe(&[], 0), []);
    assert_eq!(observe(&[Signal::Memory], 10), [Pressure::Memory]);
    assert_eq!(observe(&[Signal::Imagefs, Signal::Inodes], 20), [Pressure::Memory, Pressure::Disk]);
    assert_eq!(observe(&[], 309), [Pressure::Memory, Pressure::Disk]);
    assert_eq!(observe(&[], 310), [Pressure::Disk]);
    assert_eq!(observe(&[Signal::Nodefs], 315), [Pressure::Disk], "seen again: the period begins anew");
    assert_eq!(observe(&[], 600), [Pressure::Disk]);
    // The clock was set back by a day.
    assert_eq!(observe(&[], 600 - 86_400), []);
}

#[test]
fn without_a_period_a_pressure_ends_with_its_cause() {
    let mut pressures = Pressures::default();
    pressures.observe(&[short(Signal::Pids)], at(0), Duration::ZERO);
    assert_eq!(pressures.held(), BTreeSet::from([Pressure::Pid]));
    pressures.observe(&[], at(1), Duration::ZERO);
    assert!(pressures.held().is_empty());
}

fn suspect(uid: &str, priority: i64, used: u64, request: u64) -> Suspect {
    let containers = vec![Consumer { name: "c".into(), used, request }];
    Suspect { uid: uid.into(), priority, containers, ..Suspect::default() }
}

fn order(signal: Signal, mut suspects: Vec<Suspect>) -> Vec<String> {
    let mut order = Vec::new();
    while let Some((uid, _)) = eviction(&short(signal), &suspects) {
        suspects.retain(|suspect| suspect.uid != uid);
        order.push(uid);
    }
    order
}

#[test]
fn pods_that_take_more_than_they_asked_for_go_first_then_the_lower_priority_then_the_larger_excess() {
    let pods = || {
        vec![
            suspect("modest", -5, 10, 50),
            suspect("important", 1000, 500, 0),
            suspect("large", 0, 300, 100),
            suspect("small", 0, 150, 100),
            suspect("exact", 0, 100, 100),
            suspect("unimportant", -1, 101, 100),
        ]
    };
    let wanted = ["unimportant", "large", "small", "important", "modest", "exact"];
    for signal in [Signal::Memory, Signal::Nodefs, Signal::Inodes, Signal::Imagefs] {
        assert_eq!(order(signal, pods()), wanted, "{signal:?}");
    }
    assert_eq!(order(Signal::Pids, pods()), ["modest", "unimportant", "large", "small", "exact", "important"], "nobody asks for processes");
    assert_eq!(order(Signal::Memory, vec![suspect("b", 0, 1, 0), suspect("a", 0, 1, 0)]), ["a", "b"], "the same at each look");
}

#[test]
fn a_critical_pod_is_never_chosen_and_without_others_nobody_is() {
    let critical = Suspect { is_critical: true, ..suspect("critical", -10, 1000, 0) };
    assert_eq!(order(Signal::Memory, vec![critical.clone(), suspect("plain", 5, 1, 2)]), ["plain"]);
    assert_eq!(eviction(&short(Signal::Memory), &[critical]), None);
    assert_eq!(eviction(&short(Signal::Memory), &[]), None);
}

#[test]
fn volumes_of_a_pod_count_beside_its_containers() {
    let full = Suspect { shared: 900, ..suspect("full", 0, 1, 0) };
    assert_eq!(order(Signal::Nodefs, vec![suspect("log", 0, 500, 0), full]), ["full", "log"]);
}

#[test]
fn the_message_is_the_kubelets() {
    let shortage = Shortage { signal: Signal::Memory, threshold: 100 * MI, available: 80 * MI };
    let (uid, refusal) = eviction(&shortage, &[suspect("u-1", 0, 90 * MI, 0)]).unwrap();
    assert_eq!((uid.as_str(), refusal.reason.as_str()), ("u-1", "Evicted"));
    assert_eq!(
        refusal.message,
        "The node was low on resource: memory. Threshold quantity: 100Mi, available: 80Mi. Container c was using 90Mi, request is 0, has larger consumption of memory."
    );
    let (_, refusal) = eviction(&short(Signal::Pids), &[suspect("u-1", 0, 0, 0)]).unwrap();
    assert_eq!(refusal.message, "The node was low on resource: pids. Threshold quantity: 100, available: 80.");
}

#[test]
fn priority_and_being_critical_are_read_from_the_pod() {
    let with = |key: &str, value: serde_json::Value| {
        let mut spec = spec(&["a"], "Always");
        spec[key] = value;
        pod(spec)
    };
    assert_eq!((with("priority", json!(-7)).priority(), with("priority", json!(null)).priority()), (-7, 0));
    assert!(with("priority", json!(2_000_000_000)).is_critical() && !with("priority", json!(1_999_999_999)).is_critical());
    assert!(with("priorityClassName", json!("system-node-critical")).is_critical() && !with("priorityClassName", json!("mine")).is_critical());
    assert!(with("priority", json!(3)).check().is_ok());
    assert!(Pod { is_static: true, ..pod(spec(&["a"], "Always")) }.is_critical());
    // Whoever may write pods could say these of any.
    let mut object = pod_json(spec(&["a"], "Always"));
    object["metadata"]["annotations"] = json!({"kubernetes.io/config.source": "file", "kubernetes.io/config.mirror": "x"});
    (object["is_static"], object["isStatic"]) = (json!(true), json!(true));
    assert!(!Pod::parse(&object.to_string()).unwrap().is_critical());
}

#[test]
fn under_pressure_only_those_begin_that_the_kubelet_lets_begin() {
    let best_effort = spec(&["a"], "Always");
    let mut asking = best_effort.clone();
    asking["containers"][0]["resources"] = json!({"requests": {"memory": "1Mi"}});
    let mut tolerant = best_effort.clone();
    tolerant["tolerations"] = json!([{"key": "node.kubernetes.io/memory-pressure", "operator": "Exists", "effect": "NoSchedule"}]);
    let mut critical = best_effort.clone();
    critical["priority"] = json!(2_000_001_000);
    let mut strange = best_effort.clone();
    strange["tolerations"] = json!([{"key": "other", "operator": "Exists"}, 7]);
    let admitted = |pressures: &[Pressure]| {
        let held = pressures.iter().copied().collect();
        [&best_effort, &asking, &tolerant, &critical, &strange].map(|spec| admit(&pod(spec.clone()), &held).is_ok())
    };
    assert_eq!(admitted(&[]), [true; 5]);
    assert_eq!(admitted(&[Pressure::Memory]), [false, true, true, true, false]);
    assert_eq!(admitted(&[Pressure::Disk]), [false, false, false, true, false]);
    assert_eq!(admitted(&[Pressure::Memory, Pressure::Pid]), [false, false, false, true, false]);
    let refusal = admit(&pod(best_effort.clone()), &BTreeSet::from([Pressure::Memory, Pressure::Disk])).unwrap_err();
    assert_eq!((refusal.reason.as_str(), refusal.message.as_str()), ("Evicted", "The node had condition: [MemoryPressure DiskPressure]."));
}

#[test]
fn percent_of_the_images_disk_is_what_is_not_available() {
    let used = |available, total| Signals { imagefs_available: available, imagefs_total: total, ..Signals::default() }.imagefs_used_percent();
    assert_eq!((used(20, 100), used(0, 100), used(100, 100), used(0, 0), used(200, 100), used(u64::MAX, u64::MAX)), (80, 100, 0, 0, 0, 0));
}
