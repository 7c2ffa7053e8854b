use serde_json::{Value, json};

use super::super::observed::{Health, Healths, Observed, Trouble, Troubles};
use super::super::pod::{Pod, Refusal};
use super::super::runtime::{ContainerState, Exit};
use super::super::status::{Facts, PodStatus, pod_status};
use super::{Box, at, exited, pod, pod_json, running, seen, spec, within};

static NO_HEALTH: Healths = Healths::new();

fn facts<'a>(pod: &'a Pod, seen: &'a Observed, troubles: &'a Troubles, now: i64) -> Facts<'a> {
    Facts { pod, seen, troubles, healths: &NO_HEALTH, refusal: None, previous: None, host_ip: "10.0.0.2", now: at(now) }
}

fn status(pod: &Pod, boxes: impl IntoIterator<Item = Box>, now: i64) -> PodStatus {
    pod_status(&facts(pod, &within(boxes), &Troubles::new(), now))
}

fn condition(status: &PodStatus, kind: &str) -> (String, String) {
    let found = status.conditions.iter().find(|c| c.kind == kind).unwrap();
    (found.status.clone(), found.reason.clone())
}

#[test]
fn a_running_pod_looks_as_kubectl_expects() {
    let two = pod(spec(&["a", "b"], "Always"));
    let made = status(&two, [running("a"), running("b")], 3);
    let json: Value = serde_json::to_value(&made).unwrap();
    assert_eq!(json["phase"], "Running");
    assert_eq!((&json["hostIP"], &json["podIP"]), (&json!("10.0.0.2"), &json!("172.17.0.9")));
    assert_eq!(json["podIPs"], json!([{"ip": "172.17.0.9"}]));
    assert_eq!((&json["startTime"], &json["qosClass"]), (&json!("2023-11-14T22:13:23Z"), &json!("BestEffort")));
    let kinds: Vec<(&str, &str)> =
        json["conditions"].as_array().unwrap().iter().map(|c| (c["type"].as_str().unwrap(), c["status"].as_str().unwrap())).collect();
    let all = ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];
    assert_eq!(kinds, all.map(|kind| (kind, "True")));
    let first = &json["containerStatuses"][0];
    assert_eq!(
        *first,
        json!({"name": "a", "state": {"running": {"startedAt": "2023-11-14T22:13:20Z"}}, "lastState": {}, "ready": true, "restartCount": 0,
            "image": "i:1", "imageID": "docker://sha256:1", "containerID": "docker://a-0", "started": true})
    );
}

#[test]
fn a_pod_with_the_machines_network_has_the_machines_address() {
    let mut json = spec(&["a"], "Always");
    json["hostNetwork"] = true.into();
    assert_eq!(status(&pod(json), [running("a")], 0).pod_ip, "10.0.0.2");
}

#[test]
fn the_phase_follows_the_containers_and_the_policy() {
    let both = |a: Box, b: Box| vec![a, b];
    let ok = |name| exited(name, 0, 0, 1);
    let bad = |name| exited(name, 3, 0, 1);
    for (policy, boxes, want) in [
        ("Always", vec![], "Pending"),
        ("Always", vec![running("a")], "Pending"),
        ("Always", both(running("a"), bad("b")), "Running"),
        ("Always", both(ok("a"), ok("b")), "Running"),
        ("OnFailure", both(ok("a"), ok("b")), "Succeeded"),
        ("OnFailure", both(ok("a"), bad("b")), "Running"),
        ("Never", both(ok("a"), ok("b")), "Succeeded"),
        ("Never", both(ok("a"), bad("b")), "Failed"),
        ("Never", both(running("a"), bad("b")), "Running"),
    ] {
        let two = pod(spec(&["a", "b"], policy));
        let shown: Vec<String> = boxes.iter().map(|one| format!("{} {:?}", one.name, one.state)).collect();
        assert_eq!(status(&two, boxes, 2).phase, want, "{policy} {shown:?}");
    }
}

#[test]
fn a_completed_pod_is_not_ready_because_it_is_complete() {
    let one = pod(spec(&["a"], "Never"));
    let made = status(&one, [exited("a", 0, 0, 1)], 2);
    assert_eq!(condition(&made, "Ready"), ("False".into(), "PodCompleted".into()));
    assert_eq!(made.container_statuses[0].state.terminated.as_ref().unwrap().reason, "Completed");
}

#[test]
fn a_container_that_keeps_falling_shows_why_and_how_it_ended_last() {
    let one = pod(spec(&["a"], "Always"));
    let made = status(&one, [exited("a", 1, 0, 5).attempt(2, 2)], 10);
    let container = &made.container_statuses[0];
    let waiting = container.state.waiting.as_ref().unwrap();
    assert_eq!(
        (waiting.reason.as_str(), waiting.message.as_str()),
        ("CrashLoopBackOff", "back-off 20s restarting failed container=a pod=web_default(u-1)")
    );
    assert_eq!(container.last_state.terminated.as_ref().map(|t| (t.exit_code, t.reason.as_str())), Some((1, "Error")));
    assert_eq!((container.restart_count, made.phase.as_str()), (2, "Running"));
    assert_eq!(condition(&made, "Ready"), ("False".into(), "ContainersNotReady".into()));
    let killed = Exit { code: 137, oom_killed: true, error: String::new(), started_at: at(0), finished_at: at(1) };
    let made = status(&one, [exited("a", 0, 0, 1).state(ContainerState::Exited(killed)), running("a").attempt(1, 1)], 2);
    assert_eq!(made.container_statuses[0].last_state.terminated.as_ref().unwrap().reason, "OOMKilled");
}

#[test]
fn trouble_is_shown_as_the_reason_to_wait() {
    let one = pod(spec(&["a"], "Always"));
    let trouble = Trouble::after(None, "ErrImageNeverPull", "not here".into(), at(0));
    let troubles = Troubles::from([("a".to_owned(), trouble)]);
    let made = pod_status(&facts(&one, &Observed::default(), &troubles, 1));
    let waiting = made.container_statuses[0].state.waiting.clone().unwrap();
    assert_eq!((waiting.reason.as_str(), waiting.message.as_str(), made.phase.as_str()), ("ErrImageNeverPull", "not here", "Pending"));
}

#[test]
fn a_refused_pod_has_failed_with_the_reason() {
    let one = pod(spec(&["a"], "Always"));
    let refusal = Refusal::unsupported("spec.initContainers");
    let (none, troubles) = (Observed::default(), Troubles::new());
    let made = pod_status(&Facts { refusal: Some(&refusal), ..facts(&one, &none, &troubles, 0) });
    assert_eq!((made.phase.as_str(), made.reason.as_str()), ("Failed", "Unsupported"));
    assert!(made.message.contains("spec.initContainers"), "{}", made.message);
}

#[test]
fn a_deleted_pod_ends_failed_or_succeeded_once_nothing_runs() {
    let mut json = pod_json(spec(&["a", "b"], "Always"));
    json["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    let leaving = Pod::parse(&json.to_string()).unwrap();
    assert_eq!(status(&leaving, [running("a"), exited("b", 0, 0, 1)], 2).phase, "Running");
    let ended = status(&leaving, [exited("a", 143, 0, 1), exited("b", 0, 0, 1)], 2);
    assert_eq!(ended.phase, "Failed");
    // The cloud deletes the object when no container runs any more.
    assert!(ended.container_statuses.iter().all(|one| one.state.running.is_none() && one.state.terminated.is_some()));
    assert_eq!(status(&leaving, [exited("a", 0, 0, 1), exited("b", 0, 0, 1)], 2).phase, "Succeeded");
    assert_eq!(status(&leaving, [], 2).phase, "Succeeded");
}

#[test]
fn times_stay_as_long_as_what_they_tell_of() {
    let one = pod(spec(&["a"], "Always"));
    let (up, down, troubles) = (within([running("a")]), within([exited("a", 1, 0, 9)]), Troubles::new());
    let first = pod_status(&facts(&one, &up, &troubles, 1));
    let same = pod_status(&Facts { previous: Some(&first), ..facts(&one, &up, &troubles, 8) });
    assert_eq!(same, first);
    let fallen = pod_status(&Facts { previous: Some(&same), ..facts(&one, &down, &troubles, 9) });
    let since = |status: &PodStatus, kind: &str| status.conditions.iter().find(|c| c.kind == kind).unwrap().last_transition_time.clone();
    assert_eq!((since(&fallen, "Ready"), since(&fallen, "PodScheduled")), ("2023-11-14T22:13:29Z".into(), since(&first, "PodScheduled")));
    assert_eq!(fallen.start_time, first.start_time);
    assert_eq!(fallen.pod_ip, first.pod_ip);
}

#[test]
fn a_pod_that_is_over_stays_over_when_its_containers_are_gone() {
    let one = pod(spec(&["a"], "Never"));
    let over = status(&one, [exited("a", 3, 0, 1)], 2);
    assert_eq!(over.phase, "Failed");
    let (none, troubles) = (Observed::default(), Troubles::new());
    let later = pod_status(&Facts { previous: Some(&over), ..facts(&one, &none, &troubles, 50) });
    assert_eq!(later, over);
}

#[test]
fn a_status_is_read_back_as_it_was_written() {
    let one = pod(spec(&["a"], "Always"));
    let made = status(&one, [exited("a", 1, 0, 5).attempt(2, 2)], 10);
    let text = serde_json::to_string(&made).unwrap();
    assert_eq!(serde_json::from_str::<PodStatus>(&text).unwrap(), made);
}

#[test]
fn what_ended_for_good_keeps_its_end_when_somebody_removes_it() {
    let two = pod(spec(&["a", "b"], "OnFailure"));
    let (without, troubles) = (within([running("b")]), Troubles::new());
    let first = status(&two, [exited("a", 0, 0, 1), running("b")], 2);
    let later = pod_status(&Facts { previous: Some(&first), ..facts(&two, &without, &troubles, 5) });
    assert_eq!(later, first);
    // One that will be run again waits for that, and the pod is as far as it was.
    for (gone, code, reason) in [(exited("a", 1, 0, 1), 1, "Error"), (running("a").attempt(3, 0), 137, "ContainerStatusUnknown")] {
        let first = status(&two, [gone, running("b")], 2);
        let later = pod_status(&Facts { previous: Some(&first), ..facts(&two, &without, &troubles, 5) });
        assert_eq!(shown(&later), ("Running".into(), vec!["ContainerCreating".into(), "ready".into()]));
        let (one, before) = (&later.container_statuses[0], &first.container_statuses[0]);
        let end = one.last_state.terminated.as_ref().unwrap();
        assert_eq!((end.exit_code, end.reason.as_str(), &end.container_id), (code, reason, &before.container_id));
        assert_eq!(later.restarts("a"), Some(before.restart_count));
        let again = pod_status(&Facts { previous: Some(&later), ..facts(&two, &without, &troubles, 9) });
        assert_eq!(again, later);
    }
    // Of one that ran and is never run again nobody knows how it ended: as the kubelet, that is no success.
    let one = pod(spec(&["a"], "Never"));
    let first = status(&one, [running("a")], 2);
    let nothing = Observed::default();
    let later = pod_status(&Facts { previous: Some(&first), ..facts(&one, &nothing, &troubles, 5) });
    assert_eq!(shown(&later), ("Failed".into(), vec!["ContainerStatusUnknown".into()]));
}

#[test]
fn what_is_about_to_be_replaced_or_removed_is_not_the_end_of_the_pod() {
    let one = pod(spec(&["a"], "OnFailure"));
    let replaced = status(&one, [exited("a", 0, 0, 1).replaced()], 2);
    assert_eq!((replaced.phase.as_str(), condition(&replaced, "Ready").1.as_str()), ("Running", "ContainersNotReady"));
    let (before, troubles) = (status(&one, [exited("a", 0, 0, 1)], 2), Troubles::new());
    for state in [ContainerState::Removing, ContainerState::Dead] {
        let leaving = seen([running("a").state(state)]);
        let later = pod_status(&Facts { previous: Some(&before), ..facts(&one, &leaving, &troubles, 5) });
        assert_eq!(later, before);
    }
    let made = status(&one, [running("a").state(ContainerState::Created)], 2);
    assert_eq!(made.restarts("a"), None, "it has never run");
}

/// What `kubectl get pod` shows: reason of each init container and container, and the phase.
fn shown(status: &PodStatus) -> (String, Vec<String>) {
    let word = |one: &super::super::status::ContainerStatus| match (&one.state.waiting, &one.state.running, &one.state.terminated) {
        (Some(waiting), ..) => waiting.reason.clone(),
        (_, Some(_), _) if one.ready => "ready".into(),
        (_, Some(_), _) if one.started => "started".into(),
        (_, Some(_), _) => "running".into(),
        (.., Some(ended)) => ended.reason.clone(),
        _ => String::new(),
    };
    (status.phase.clone(), status.init_container_statuses.iter().chain(&status.container_statuses).map(word).collect())
}

#[test]
fn a_pod_with_init_containers_shows_how_far_it_is() {
    let mut json = spec(&["a"], "Always");
    json["initContainers"] = json!([{"name": "i", "image": "i:1"}, {"name": "s", "image": "i:1", "restartPolicy": "Always"}]);
    let one = pod(json);
    let words = |phase: &str, words: &[&str]| (phase.to_owned(), words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
    let begun = status(&one, [running("i")], 1);
    assert_eq!(shown(&begun), words("Pending", &["started", "PodInitializing", "PodInitializing"]));
    assert_eq!(condition(&begun, "Initialized"), ("False".into(), "ContainersNotInitialized".into()));
    assert_eq!(
        shown(&status(&one, [exited("i", 2, 0, 1).attempt(1, 1)], 2)),
        words("Pending", &["CrashLoopBackOff", "PodInitializing", "PodInitializing"])
    );
    let up = status(&one, [exited("i", 0, 0, 1), running("s"), running("a")], 3);
    assert_eq!(shown(&up), words("Running", &["Completed", "ready", "ready"]));
    assert_eq!(
        (condition(&up, "Initialized").0, condition(&up, "Ready").0, up.init_container_statuses[0].ready),
        ("True".into(), "True".into(), true)
    );
    // A sidecar that fell makes the pod unready, not uninitialised.
    let fallen = status(&one, [exited("i", 0, 0, 1), exited("s", 1, 0, 2).attempt(1, 1), running("a")], 3);
    assert_eq!((condition(&fallen, "Initialized").0, condition(&fallen, "Ready").0), ("True".into(), "False".into()));
    let mut json = spec(&["a"], "Never");
    json["initContainers"] = json!([{"name": "i", "image": "i:1"}]);
    assert_eq!(shown(&status(&pod(json), [exited("i", 3, 0, 1)], 2)), words("Failed", &["Error", "PodInitializing"]));
}

#[test]
fn probes_decide_whether_a_container_has_started_and_is_ready() {
    let mut json = spec(&["a"], "Always");
    let probe = json!({"tcpSocket": {"port": 80}});
    (json["containers"][0]["startupProbe"], json["containers"][0]["readinessProbe"]) = (probe.clone(), probe);
    let one = pod(json);
    let seen = within([running("a")]);
    let with = |started, ready| {
        let healths = Healths::from([("a-0".to_owned(), Health { started, ready, failed: None })]);
        let made = pod_status(&Facts { healths: &healths, ..facts(&one, &seen, &Troubles::new(), 1) });
        (made.container_statuses[0].started, made.container_statuses[0].ready, condition(&made, "Ready").0)
    };
    assert_eq!(with(None, None), (false, false, "False".into()));
    assert_eq!(with(Some(true), Some(false)), (true, false, "False".into()));
    assert_eq!(with(Some(true), Some(true)), (true, true, "True".into()));
}

#[test]
fn a_pod_without_sandbox_says_why_in_its_condition_and_at_each_container() {
    let one = pod(spec(&["a"], "Always"));
    let troubles = Troubles::from([("POD".to_owned(), Trouble::after(None, "CreatePodSandboxError", "hostPort 80/TCP is taken".into(), at(0)))]);
    let made = pod_status(&facts(&one, &Observed::default(), &troubles, 1));
    assert_eq!(condition(&made, "PodReadyToStartContainers"), ("False".into(), "CreatePodSandboxError".into()));
    assert_eq!(shown(&made), ("Pending".into(), vec!["CreatePodSandboxError".into()]));
}

#[test]
fn last_words_are_the_message_of_the_end() {
    let one = pod(spec(&["a"], "Never"));
    let mut seen = within([exited("a", 3, 0, 1)]);
    seen.all_mut()[0].words = "no disk".into();
    let made = pod_status(&facts(&one, &seen, &Troubles::new(), 2));
    assert_eq!(made.container_statuses[0].state.terminated.as_ref().unwrap().message, "no disk");
}
