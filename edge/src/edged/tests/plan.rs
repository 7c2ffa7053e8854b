use super::super::observed::{Observed, Trouble, Troubles, backoff};
use super::super::plan::{Action, Desired, Plan, plan};
use super::super::pod::Pod;
use super::super::runtime::ContainerState;
use super::super::status::{ContainerStatus, PodStatus};
use super::{Box, at, exited, pod, pod_json, running, seen, spec};

fn wanted(pod: &Pod) -> Option<Desired<'_>> {
    Some(Desired { pod, is_over: false, previous: None })
}

fn planned(pod: &Pod, boxes: impl IntoIterator<Item = Box>, now: i64) -> Plan {
    plan(wanted(pod), &seen(boxes), &Troubles::new(), at(now))
}

fn start(container: &str, attempt: u32, level: u32, join: Option<&str>) -> Vec<Action> {
    vec![Action::Start { container: container.into(), attempt, level, join: join.map(str::to_owned) }]
}

fn stop(ids: &[&str], grace_secs: u64) -> Vec<Action> {
    vec![Action::Stop { ids: ids.iter().map(|id| (*id).to_owned()).collect(), grace_secs }]
}

#[test]
fn containers_start_in_the_order_of_the_spec_and_the_later_ones_join_the_first() {
    let two = pod(spec(&["a", "b"], "Always"));
    assert_eq!(planned(&two, [], 0).actions, start("a", 0, 0, None));
    assert_eq!(planned(&two, [running("a")], 0).actions, start("b", 0, 0, Some("a-0")));
    assert_eq!(planned(&two, [running("a"), running("b").joined("a-0")], 0), Plan::default());
}

#[test]
fn with_the_machines_network_nobody_joins_anybody() {
    let mut json = spec(&["a", "b"], "Always");
    json["hostNetwork"] = true.into();
    assert_eq!(planned(&pod(json), [running("a")], 0).actions, start("b", 0, 0, None));
}

#[test]
fn the_restart_policy_decides_who_comes_back() {
    for (policy, code, comes_back) in
        [("Always", 0, true), ("Always", 1, true), ("OnFailure", 0, false), ("OnFailure", 1, true), ("Never", 0, false), ("Never", 1, false)]
    {
        let one = pod(spec(&["a"], policy));
        let want = if comes_back { start("a", 1, 1, None) } else { Vec::new() };
        assert_eq!(planned(&one, [exited("a", code, 0, 1)], 2).actions, want, "{policy} {code}");
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
        assert_eq!(planned(&one, fallen(), 5 + pause).actions, start("a", level + 1, level + 1, None), "level {level}");
    }
    assert_eq!(backoff(u32::MAX).as_secs(), 300);
}

#[test]
fn a_container_that_ran_for_ten_minutes_comes_back_at_once() {
    let one = pod(spec(&["a"], "Always"));
    assert_eq!(planned(&one, [exited("a", 1, 0, 600).attempt(9, 9)], 600).actions, start("a", 10, 1, None));
}

#[test]
fn of_the_ended_ones_only_the_last_is_kept() {
    let one = pod(spec(&["a"], "Always"));
    let boxes = [exited("a", 1, 0, 1), exited("a", 1, 2, 3).attempt(1, 1), running("a").attempt(2, 2)];
    assert_eq!(planned(&one, boxes, 4).actions, [Action::Remove { id: "a-0".into() }]);
}

#[test]
fn a_container_that_was_never_started_is_removed_and_made_anew() {
    let one = pod(spec(&["a"], "Always"));
    assert_eq!(planned(&one, [running("a").state(ContainerState::Created)], 0).actions, [Action::Remove { id: "a-0".into() }]);
}

#[test]
fn a_container_whose_image_changed_or_that_left_the_spec_is_replaced() {
    let old = pod(spec(&["a"], "Never"));
    let mut json = spec(&["a"], "Never");
    json["containers"][0]["image"] = "i:2".into();
    let new = pod(json);
    assert_ne!(old.spec.containers[0].hash(), new.spec.containers[0].hash());
    assert_eq!(planned(&new, [running("a")], 0).actions, stop(&["a-0"], 30));
    assert_eq!(planned(&new, [exited("a", 0, 0, 1)], 2).actions, start("a", 1, 0, None));
    assert_eq!(planned(&old, [running("a"), running("z")], 0).actions, stop(&["z-0"], 30));
}

#[test]
fn when_the_owner_of_the_network_is_gone_one_that_joined_becomes_the_owner() {
    let two = pod(spec(&["a", "b"], "Always"));
    // The owner fell and waits; the other one has lost its network, is stopped, and comes back with one of its own.
    let fallen = || exited("a", 1, 0, 5).attempt(3, 3);
    assert_eq!(planned(&two, [fallen(), running("b").joined("a-3")], 6).actions, stop(&["b-0"], 30));
    assert_eq!(planned(&two, [fallen(), exited("b", 143, 0, 6).joined("a-3")], 6).actions, start("b", 1, 1, None));
    // When the first comes back it joins.
    assert_eq!(planned(&two, [fallen(), running("b").attempt(1, 1)], 45).actions, start("a", 4, 4, Some("b-1")));
}

#[test]
fn a_container_that_must_not_start_again_is_not_stopped_for_its_network() {
    let two = pod(spec(&["a", "b"], "Never"));
    assert_eq!(planned(&two, [exited("a", 0, 0, 5), running("b").joined("a-0")], 6), Plan::default());
}

#[test]
fn trouble_is_waited_out() {
    let one = pod(spec(&["a"], "Always"));
    let first = Trouble::after(None, "ErrImagePull", "no".into(), at(0));
    assert_eq!((first.waiting_reason(), first.retry_at), ("ErrImagePull", at(10)));
    let second = Trouble::after(Some(&first), "ErrImagePull", "no".into(), at(10));
    assert_eq!((second.waiting_reason(), second.retry_at), ("ImagePullBackOff", at(30)));
    let troubles = Troubles::from([("a".to_owned(), second)]);
    let now = |second| plan(wanted(&one), &Observed::default(), &troubles, at(second));
    assert_eq!(now(29), Plan { actions: Vec::new(), wake_at: Some(at(30)) });
    assert_eq!(now(30).actions, start("a", 0, 0, None));
}

#[test]
fn one_containers_trouble_does_not_keep_the_others_from_starting() {
    let two = pod(spec(&["a", "b"], "Always"));
    let troubles = Troubles::from([("a".to_owned(), Trouble::after(None, "ErrImagePull", "no".into(), at(0)))]);
    let planned = plan(wanted(&two), &Observed::default(), &troubles, at(1));
    assert_eq!(planned, Plan { actions: start("b", 0, 0, None), wake_at: Some(at(10)) });
}

#[test]
fn a_pod_that_shall_go_is_stopped_with_its_grace_and_its_containers_stay_until_the_object_goes() {
    let mut json = pod_json(spec(&["a", "b"], "Always"));
    json["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    json["metadata"]["deletionGracePeriodSeconds"] = 7.into();
    let leaving = Pod::parse(&json.to_string()).unwrap();
    assert_eq!(planned(&leaving, [running("a"), running("b"), exited("c", 0, 0, 1)], 2).actions, stop(&["a-0", "b-0"], 7));
    assert_eq!(planned(&leaving, [exited("a", 143, 0, 2), exited("b", 0, 0, 2)], 3), Plan::default());
    assert_eq!(planned(&leaving, [], 3), Plan::default());
    let gone = |boxes: Vec<Box>| plan(None, &seen(boxes), &Troubles::new(), at(4)).actions;
    assert_eq!(gone(vec![running("a"), exited("b", 0, 0, 2)]), stop(&["a-0"], 30));
    assert_eq!(gone(vec![exited("a", 143, 0, 2)]), [Action::Remove { id: "a-0".into() }, Action::RemoveDirectory]);
    assert_eq!(gone(vec![]), [Action::RemoveDirectory]);
}

#[test]
fn a_pod_that_is_over_is_never_started_again() {
    let one = pod(spec(&["a"], "Always"));
    let over = Some(Desired { pod: &one, is_over: true, previous: None });
    assert_eq!(plan(over, &Observed::default(), &Troubles::new(), at(0)), Plan::default());
    assert_eq!(plan(over, &seen([running("a")]), &Troubles::new(), at(0)).actions, stop(&["a-0"], 30));
}

#[test]
fn after_a_reboot_the_count_of_restarts_goes_on() {
    let one = pod(spec(&["a"], "Always"));
    let ran = ContainerStatus { name: "a".into(), container_id: "docker://x".into(), restart_count: 4, ..ContainerStatus::default() };
    let previous = PodStatus { container_statuses: vec![ran], ..PodStatus::default() };
    let desired = Some(Desired { pod: &one, is_over: false, previous: Some(&previous) });
    assert_eq!(plan(desired, &Observed::default(), &Troubles::new(), at(0)).actions, start("a", 5, 0, None));
}
