use serde_json::{Value, json};

use super::super::observed::{Health, Healths, Observed, Trouble, Troubles, backoff};
use super::super::plan::{Action, Desired, Plan, Situation, Stop, plan};
use super::super::pod::Pod;
use super::super::runtime::ContainerState;
use super::super::status::{ContainerStatus, PodStatus, State, Terminated};
use super::{Box, at, exited, pod, pod_json, running, seen, spec, within};

fn wanted(pod: &Pod) -> Option<Desired<'_>> {
    Some(Desired { pod, is_over: false, previous: None, grace_secs: None })
}

fn look(desired: Option<Desired<'_>>, seen: &Observed, now: i64) -> Plan {
    plan(desired, &Situation { seen, troubles: &Troubles::new(), healths: &Healths::new(), ended_kept: 1, now: at(now) })
}

/// The plan for a pod whose sandbox runs.
fn planned(pod: &Pod, boxes: impl IntoIterator<Item = Box>, now: i64) -> Plan {
    look(wanted(pod), &within(boxes), now)
}

fn start(container: &str, attempt: u32, level: u32) -> Action {
    Action::Start { container: container.into(), attempt, level, sandbox: Some("POD-0".into()) }
}

fn pairs(ids: &[&str]) -> Pairs {
    ids.iter().map(|id| ((*id).to_owned(), id.split('-').next().unwrap().to_owned())).collect()
}

/// Ids and names.
type Pairs = Vec<(String, String)>;

/// What is stopped together, and afterwards one by one.
fn stopped(plan: &Plan) -> (Pairs, Pairs, u64) {
    let [Action::Stop(Stop { together, afterwards, grace_secs, .. })] = &plan.actions[..] else { panic!("{plan:?}") };
    (together.clone(), afterwards.clone(), *grace_secs)
}

fn remove(id: &str) -> Action {
    Action::Remove { id: id.into() }
}

/// A pod with init containers `i1` (plain), `s1` (sidecar), `i2` (plain) and a container `a`.
fn with_inits(policy: &str) -> Value {
    let mut json = spec(&["a"], policy);
    json["initContainers"] =
        json!([{"name": "i1", "image": "i:1"}, {"name": "s1", "image": "i:1", "restartPolicy": "Always"}, {"name": "i2", "image": "i:1"}]);
    json
}

#[test]
fn first_the_sandbox_then_all_containers_in_the_order_of_the_spec() {
    let two = pod(spec(&["b", "a"], "Always"));
    assert_eq!(look(wanted(&two), &seen([]), 0).actions, [Action::StartSandbox { attempt: 0 }]);
    assert_eq!(planned(&two, [], 0).actions, [start("b", 0, 0), start("a", 0, 0)]);
    assert_eq!(planned(&two, [running("b")], 0).actions, [start("a", 0, 0)]);
    assert_eq!(planned(&two, [running("a"), running("b")], 0), Plan::default());
}

#[test]
fn a_single_container_in_the_machines_network_needs_no_sandbox() {
    let mut json = spec(&["a"], "Always");
    json["hostNetwork"] = true.into();
    let one = pod(json.clone());
    let start = Action::Start { container: "a".into(), attempt: 0, level: 0, sandbox: None };
    assert_eq!(look(wanted(&one), &seen([]), 0).actions, [start]);
    assert_eq!(look(wanted(&one), &seen([running("a").joined("")]), 0), Plan::default());
    json["containers"] = spec(&["a", "b"], "Always")["containers"].clone();
    assert_eq!(look(wanted(&pod(json)), &seen([]), 0).actions, [Action::StartSandbox { attempt: 0 }]);
}

#[test]
fn init_containers_run_one_after_the_other_and_sidecars_stay() {
    let two = pod(with_inits("Always"));
    let done = |name| exited(name, 0, 0, 1);
    assert_eq!(planned(&two, [], 0).actions, [start("i1", 0, 0)]);
    assert_eq!(planned(&two, [running("i1")], 0), Plan::default());
    assert_eq!(planned(&two, [done("i1")], 2).actions, [start("s1", 0, 0)]);
    assert_eq!(planned(&two, [done("i1"), running("s1")], 2).actions, [start("i2", 0, 0)]);
    assert_eq!(planned(&two, [done("i1"), running("s1"), done("i2")], 2).actions, [start("a", 0, 0)]);
    assert_eq!(planned(&two, [done("i1"), running("s1"), done("i2"), running("a")], 2), Plan::default());
    // A sidecar that falls comes back beside the others, and somebody who removes an ended init container changes nothing.
    assert_eq!(planned(&two, [exited("s1", 1, 0, 1), done("i2"), running("a")], 20).actions, [start("s1", 1, 1)]);
    // While it is away in the beginning, the next one waits.
    assert_eq!(planned(&two, [done("i1"), exited("s1", 1, 0, 1).attempt(1, 1)], 2), Plan { actions: vec![], wake_at: Some(at(11)) });
}

#[test]
fn a_sidecar_with_a_startup_probe_lets_the_next_one_in_when_it_has_succeeded() {
    let mut json = with_inits("Always");
    json["initContainers"] = json!([{"name": "s1", "image": "i:1", "restartPolicy": "Always", "startupProbe": {"tcpSocket": {"port": 80}}}]);
    let one = pod(json);
    let seen = within([running("s1")]);
    let healths = |started| Healths::from([("s1-0".to_owned(), Health { started: Some(started), ..Health::default() })]);
    let now = |healths: &Healths| plan(wanted(&one), &Situation { seen: &seen, troubles: &Troubles::new(), healths, ended_kept: 1, now: at(1) });
    assert_eq!(now(&Healths::new()), Plan::default());
    assert_eq!(now(&healths(false)), Plan::default());
    assert_eq!(now(&healths(true)).actions, [start("a", 0, 0)]);
}

#[test]
fn an_init_container_that_fails_is_tried_again_unless_the_pod_says_never() {
    for (policy, want) in [("Always", true), ("OnFailure", true), ("Never", false)] {
        let one = pod(with_inits(policy));
        let plan = planned(&one, [exited("i1", 3, 0, 1)], 2);
        if want {
            assert_eq!(plan.actions, [start("i1", 1, 1)], "{policy}");
        } else {
            assert_eq!(plan.actions, [remove("POD-0")], "{policy}");
            assert_eq!(look(wanted(&one), &seen([exited("i1", 3, 0, 1)]), 3), Plan::default());
        }
    }
}

#[test]
fn when_all_have_ended_the_sidecars_are_stopped_and_the_sandbox_goes() {
    let mut json = with_inits("Never");
    json["initContainers"] =
        json!([{"name": "s1", "image": "i:1", "restartPolicy": "Always"}, {"name": "s2", "image": "i:1", "restartPolicy": "Always"}]);
    let one = pod(json);
    let plan = planned(&one, [exited("a", 0, 0, 5), running("s1"), running("s2")], 6);
    assert_eq!(stopped(&plan), (vec![], pairs(&["s2-0", "s1-0"]), 30));
    assert_eq!(planned(&one, [exited("a", 0, 0, 5), exited("s1", 143, 0, 7), exited("s2", 0, 0, 6)], 8).actions, [remove("POD-0")]);
    assert_eq!(look(wanted(&one), &seen([exited("a", 0, 0, 5), exited("s1", 143, 0, 7), exited("s2", 0, 0, 6)]), 8), Plan::default());
}

#[test]
fn a_sandbox_that_has_ended_takes_its_containers_with_it_and_the_pod_begins_anew() {
    let one = pod(with_inits("Always"));
    let dead = || Box { joined: "", ..exited("POD", 137, 0, 100) };
    let boxes = || [dead(), exited("i1", 0, 0, 1), running("s1"), exited("i2", 0, 1, 2), running("a")];
    assert_eq!(stopped(&look(wanted(&one), &seen(boxes()), 101)), (pairs(&["a-0"]), pairs(&["s1-0"]), 30));
    let ended = || [dead(), exited("i1", 0, 0, 1), exited("s1", 0, 0, 101), exited("i2", 0, 1, 2), exited("a", 143, 0, 101)];
    assert_eq!(look(wanted(&one), &seen(ended()), 102).actions, [remove("POD-0"), Action::StartSandbox { attempt: 1 }]);
    let fresh = || Box { joined: "", ..running("POD").attempt(1, 0) };
    let next = look(wanted(&one), &seen(ended().into_iter().skip(1).chain([fresh()])), 102);
    assert_eq!(next.actions, [Action::Start { container: "i1".into(), attempt: 1, level: 0, sandbox: Some("POD-1".into()) }]);
    // Those of the old sandbox that still run have no network.
    assert_eq!(stopped(&look(wanted(&one), &seen([fresh(), running("a")]), 102)).0, pairs(&["a-0"]));
}

#[test]
fn no_sandbox_is_made_for_a_pod_that_would_start_nothing_in_it() {
    for (policy, code, again) in [("Never", 0, false), ("Never", 1, false), ("OnFailure", 0, false), ("OnFailure", 1, true), ("Always", 0, true)] {
        let plan = look(wanted(&pod(spec(&["a"], policy))), &seen([exited("a", code, 0, 5)]), 400);
        assert_eq!(plan.actions == [Action::StartSandbox { attempt: 0 }], again, "{policy} {code}");
    }
}

#[test]
fn a_sandbox_that_falls_at_once_waits_longer_each_time() {
    let one = pod(spec(&["a"], "Always"));
    let fallen = |attempt| seen([Box { joined: "", ..exited("POD", 1, 0, 1).attempt(attempt, 0) }]);
    assert_eq!(look(wanted(&one), &fallen(0), 2).actions, [remove("POD-0"), Action::StartSandbox { attempt: 1 }]);
    assert_eq!(look(wanted(&one), &fallen(2), 2), Plan { actions: vec![], wake_at: Some(at(21)) });
}

#[test]
fn the_restart_policy_decides_who_comes_back() {
    for (policy, code, comes_back) in
        [("Always", 0, true), ("Always", 1, true), ("OnFailure", 0, false), ("OnFailure", 1, true), ("Never", 0, false), ("Never", 1, false)]
    {
        let two = pod(spec(&["a", "b"], policy));
        let want = if comes_back { vec![start("a", 1, 1)] } else { Vec::new() };
        assert_eq!(planned(&two, [exited("a", code, 0, 1), running("b")], 2).actions, want, "{policy} {code}");
    }
}

#[test]
fn a_container_that_keeps_falling_waits_longer_each_time_up_to_five_minutes() {
    let one = pod(spec(&["a"], "Always"));
    for (level, pause) in [(0, 0), (1, 10), (2, 20), (3, 40), (4, 80), (5, 160), (6, 300), (7, 300), (40, 300)] {
        let fallen = || [exited("a", 1, 0, 5).attempt(level, level)];
        if pause > 0 {
            assert_eq!(planned(&one, fallen(), 5 + pause - 1), Plan { actions: Vec::new(), wake_at: Some(at(5 + pause)) }, "level {level}");
        }
        assert_eq!(planned(&one, fallen(), 5 + pause).actions, [start("a", level + 1, level + 1)], "level {level}");
    }
    assert_eq!(backoff(u32::MAX).as_secs(), 300);
}

#[test]
fn a_container_that_ran_for_ten_minutes_comes_back_at_once() {
    let one = pod(spec(&["a"], "Always"));
    assert_eq!(planned(&one, [exited("a", 1, 0, 600).attempt(9, 9)], 600).actions, [start("a", 10, 1)]);
}

#[test]
fn of_the_ended_ones_only_the_newest_are_kept() {
    let one = pod(spec(&["a"], "Always"));
    let boxes = [exited("a", 1, 0, 1), exited("a", 1, 2, 3).attempt(1, 1), running("a").attempt(2, 2)];
    assert_eq!(planned(&one, boxes, 4).actions, [remove("a-0")]);
}

#[test]
fn as_many_ended_ones_stay_beside_the_current_as_the_configuration_says() {
    let one = pod(spec(&["a"], "Always"));
    let now = |boxes: Vec<Box>, ended_kept| {
        let seen = within(boxes);
        plan(wanted(&one), &Situation { seen: &seen, troubles: &Troubles::new(), healths: &Healths::new(), ended_kept, now: at(8) }).actions
    };
    let ended = |attempt: u32| exited("a", 1, i64::from(attempt) * 2, i64::from(attempt) * 2 + 1).attempt(attempt, attempt);
    let boxes = |last| vec![ended(0), ended(1), ended(2), last];
    for (ended_kept, gone) in [(0, &["a-0", "a-1", "a-2"][..]), (1, &["a-0", "a-1"]), (2, &["a-0"]), (3, &[]), (usize::MAX, &[])] {
        let removals: Vec<Action> = gone.iter().map(|id| remove(id)).collect();
        // The current one stays whether it runs or waits for its restart: its state and the pause are read from it.
        assert_eq!(now(boxes(running("a").attempt(3, 3)), ended_kept), removals, "{ended_kept}");
        assert_eq!(now(boxes(ended(3)), ended_kept), removals, "{ended_kept}");
    }
    // What is left of a removal that failed goes, and counts for nothing.
    let left = || running("a").attempt(2, 2).state(ContainerState::Dead);
    assert_eq!(now(vec![ended(0), ended(1), left(), ended(3)], 2), [remove("a-2")]);
    // One that was cut short before its start takes nobody's place: what it leaves behind says how long the pause is.
    let made = || running("a").attempt(2, 2).state(ContainerState::Created);
    assert_eq!(now(vec![ended(1), made()], 0), [remove("a-2")]);
    assert_eq!(now(vec![ended(1)], 0), []);
}

#[test]
fn a_container_that_was_never_started_is_removed_and_made_anew() {
    let one = pod(spec(&["a"], "Always"));
    assert_eq!(planned(&one, [running("a").state(ContainerState::Created)], 0).actions, [remove("a-0")]);
}

#[test]
fn a_container_whose_image_changed_or_that_left_the_spec_is_replaced() {
    let old = pod(spec(&["a"], "Never"));
    let mut json = spec(&["a"], "Never");
    json["containers"][0]["image"] = "i:2".into();
    let new = pod(json);
    assert_ne!(old.spec.containers[0].hash(), new.spec.containers[0].hash());
    assert_eq!(stopped(&planned(&new, [running("a")], 0)), (pairs(&["a-0"]), vec![], 30));
    assert_eq!(stopped(&planned(&old, [running("a"), running("z")], 0)), (pairs(&["z-0"]), vec![], 30));
}

#[test]
fn a_container_whose_probe_failed_is_replaced_with_the_probes_grace() {
    let one = pod(spec(&["a"], "Always"));
    let failed = Health { failed: Some(("Container a failed liveness probe, will be restarted".into(), Some(3))), ..Health::default() };
    let healths = Healths::from([("a-0".to_owned(), failed)]);
    let seen = within([running("a")]);
    let plan = plan(wanted(&one), &Situation { seen: &seen, troubles: &Troubles::new(), healths: &healths, ended_kept: 1, now: at(1) });
    assert_eq!(stopped(&plan), (pairs(&["a-0"]), vec![], 3));
}

#[test]
fn trouble_is_waited_out() {
    let one = pod(spec(&["a"], "Always"));
    let first = Trouble::after(None, "ErrImagePull", "no".into(), at(0));
    assert_eq!((first.waiting_reason(), first.retry_at), ("ErrImagePull", at(10)));
    let second = Trouble::after(Some(&first), "ErrImagePull", "no".into(), at(10));
    assert_eq!((second.waiting_reason(), second.retry_at), ("ImagePullBackOff", at(30)));
    for (name, boxes, want) in [("a", within([]), start("a", 0, 0)), ("POD", seen([]), Action::StartSandbox { attempt: 0 })] {
        let troubles = Troubles::from([(name.to_owned(), second.clone())]);
        let now =
            |second| plan(wanted(&one), &Situation { seen: &boxes, troubles: &troubles, healths: &Healths::new(), ended_kept: 1, now: at(second) });
        assert_eq!(now(29), Plan { actions: Vec::new(), wake_at: Some(at(30)) });
        assert_eq!(now(30).actions, [want]);
    }
}

#[test]
fn one_containers_trouble_does_not_keep_the_others_from_starting() {
    let two = pod(spec(&["a", "b"], "Always"));
    let troubles = Troubles::from([("a".to_owned(), Trouble::after(None, "ErrImagePull", "no".into(), at(0)))]);
    let planned = plan(wanted(&two), &Situation { seen: &within([]), troubles: &troubles, healths: &Healths::new(), ended_kept: 1, now: at(1) });
    assert_eq!(planned, Plan { actions: vec![start("b", 0, 0)], wake_at: Some(at(10)) });
}

#[test]
fn a_pod_that_shall_go_is_stopped_with_its_grace_and_its_containers_stay_until_the_object_goes() {
    let mut json = pod_json(with_inits("Always"));
    json["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    json["metadata"]["deletionGracePeriodSeconds"] = 7.into();
    let leaving = Pod::parse(&json.to_string()).unwrap();
    let plan = planned(&leaving, [running("a"), running("s1"), exited("i1", 0, 0, 1)], 2);
    assert_eq!(stopped(&plan), (pairs(&["a-0"]), pairs(&["s1-0"]), 7));
    assert_eq!(planned(&leaving, [exited("a", 143, 0, 2), exited("s1", 0, 0, 2)], 3).actions, [remove("POD-0")]);
    assert_eq!(look(wanted(&leaving), &seen([exited("a", 143, 0, 2)]), 3), Plan::default());
    assert_eq!(look(wanted(&leaving), &seen([]), 3), Plan::default());
    let gone = |boxes: Observed| look(None, &boxes, 4);
    assert_eq!(stopped(&gone(within([running("a"), exited("b", 0, 0, 2)]))), (pairs(&["a-0"]), vec![], 30));
    assert_eq!(gone(within([exited("a", 143, 0, 2)])).actions, [remove("a-0"), remove("POD-0"), Action::RemoveDirectory]);
    assert_eq!(gone(seen([])).actions, [Action::RemoveDirectory]);
}

#[test]
fn a_pod_that_is_over_is_never_started_again() {
    let one = pod(spec(&["a"], "Always"));
    let over = Some(Desired { pod: &one, is_over: true, previous: None, grace_secs: None });
    assert_eq!(look(over, &Observed::default(), 0), Plan::default());
    assert_eq!(stopped(&look(over, &within([running("a")]), 0)).0, pairs(&["a-0"]));
}

#[test]
fn after_a_reboot_the_count_of_restarts_goes_on_and_what_must_not_come_back_does_not() {
    let ran = ContainerStatus { name: "a".into(), container_id: "docker://x".into(), restart_count: 4, ..ContainerStatus::default() };
    let previous = PodStatus { container_statuses: vec![ran], ..PodStatus::default() };
    let now = |policy: &str, seen: &Observed| {
        look(Some(Desired { pod: &pod(spec(&["a"], policy)), is_over: false, previous: Some(&previous), grace_secs: None }), seen, 0)
    };
    assert_eq!(now("Always", &within([])).actions, [start("a", 5, 0)]);
    assert_eq!(now("Always", &seen([])).actions, [Action::StartSandbox { attempt: 0 }]);
    assert_eq!(now("Never", &seen([])), Plan::default());
}

#[test]
fn what_was_reported_as_ended_for_good_is_not_run_again_when_somebody_removes_it() {
    let ended = |name: &str, code| {
        let end = Terminated { exit_code: code, ..Terminated::default() };
        ContainerStatus {
            name: name.into(),
            container_id: "docker://x".into(),
            state: State { terminated: Some(end), ..State::default() },
            ..ContainerStatus::default()
        }
    };
    for (policy, code, comes_back) in [("Always", 0, true), ("OnFailure", 0, false), ("OnFailure", 1, true), ("Never", 0, false), ("Never", 1, false)]
    {
        let two = pod(spec(&["a", "b"], policy));
        let now = |containers: Vec<ContainerStatus>, seen: &Observed| {
            let previous = PodStatus { container_statuses: containers, ..PodStatus::default() };
            look(Some(Desired { pod: &two, is_over: false, previous: Some(&previous), grace_secs: None }), seen, 2).actions
        };
        // Beside one that still runs.
        let want = if comes_back { vec![start("a", 1, 0)] } else { Vec::new() };
        assert_eq!(now(vec![ended("a", code)], &within([running("b")])), want, "{policy} {code}");
        // All have ended: nothing is begun, and the sandbox goes.
        let both = || vec![ended("a", code), ended("b", code)];
        let want = if comes_back { vec![start("a", 1, 0), start("b", 1, 0)] } else { vec![remove("POD-0")] };
        assert_eq!(now(both(), &within([])), want, "{policy} {code}");
        let want = if comes_back { vec![Action::StartSandbox { attempt: 0 }] } else { Vec::new() };
        assert_eq!(now(both(), &seen([])), want, "{policy} {code}");
    }
}

#[test]
fn what_is_stopped_so_that_another_takes_its_place_is_followed_by_one_however_it_ends() {
    let failed = Health { failed: Some(("Container a failed liveness probe, will be restarted".into(), None)), ..Health::default() };
    let healths = Healths::from([("a-0".to_owned(), failed)]);
    for (policy, comes_back) in [("Always", true), ("OnFailure", true), ("Never", false)] {
        let one = pod(spec(&["a"], policy));
        let up = within([running("a")]);
        let probed = plan(wanted(&one), &Situation { seen: &up, troubles: &Troubles::new(), healths: &healths, ended_kept: 1, now: at(1) });
        let lost = look(wanted(&one), &seen([running("a")]), 1);
        for plan in [probed, lost] {
            let [Action::Stop(Stop { is_replacement, .. })] = &plan.actions[..] else { panic!("{plan:?}") };
            assert_eq!(*is_replacement, comes_back, "{policy}");
        }
    }
    // It took the signal for a good end.
    let one = pod(spec(&["a"], "OnFailure"));
    assert_eq!(planned(&one, [exited("a", 0, 0, 1).replaced()], 2).actions, [start("a", 1, 1)]);
    assert_eq!(look(wanted(&one), &seen([exited("a", 0, 0, 1).replaced()]), 2).actions, [Action::StartSandbox { attempt: 0 }]);
    // Another image: one that runs is replaced whatever the policy, one that had ended for good stays so.
    let mut json = spec(&["a", "b"], "Never");
    json["containers"][0]["image"] = "i:2".into();
    let new = pod(json);
    let plan = planned(&new, [running("a"), running("b")], 1);
    let [Action::Stop(Stop { is_replacement: true, .. })] = &plan.actions[..] else { panic!("{plan:?}") };
    assert_eq!(planned(&new, [exited("a", 0, 0, 1).replaced(), running("b")], 2).actions, [start("a", 1, 0)]);
    assert_eq!(planned(&new, [exited("a", 0, 0, 1), running("b")], 2), Plan::default());
}

#[test]
fn what_the_engine_is_removing_tells_nothing_and_keeps_its_name() {
    let ended = |name: &str| {
        let terminated = Some(Terminated::default());
        let state = State { terminated, ..State::default() };
        ContainerStatus { name: name.into(), container_id: "docker://x".into(), state, ..ContainerStatus::default() }
    };
    let previous = PodStatus { container_statuses: vec![ended("a")], ..PodStatus::default() };
    for (policy, code_zero_ends) in [("Always", false), ("OnFailure", true), ("Never", true)] {
        let two = pod(spec(&["a", "b"], policy));
        let now = |boxes: Vec<Box>| {
            look(Some(Desired { pod: &two, is_over: false, previous: Some(&previous), grace_secs: None }), &within(boxes), 2).actions
        };
        assert_eq!(now(vec![running("a").state(ContainerState::Removing), running("b")]), [], "{policy}");
        // What is left of a removal that failed is removed again.
        assert_eq!(now(vec![running("a").state(ContainerState::Dead), running("b")]), [remove("a-0")], "{policy}");
        let want = if code_zero_ends { vec![] } else { vec![start("a", 1, 0)] };
        assert_eq!(now(vec![running("b")]), want, "{policy}");
    }
    let leaving = || running("POD").state(ContainerState::Removing);
    assert_eq!(look(wanted(&pod(spec(&["a"], "Always"))), &seen([leaving()]), 1), Plan::default());
    assert_eq!(look(None, &seen([leaving(), exited("a", 0, 0, 1)]), 1).actions, [remove("a-0")]);
}

#[test]
fn an_older_one_that_somebody_starts_again_is_stopped() {
    let one = pod(spec(&["a"], "Always"));
    assert_eq!(stopped(&planned(&one, [running("a"), running("a").attempt(1, 1)], 2)).0, pairs(&["a-0"]));
    assert_eq!(planned(&one, [exited("a", 1, 0, 1), running("a").attempt(1, 1)], 2), Plan::default());
}
