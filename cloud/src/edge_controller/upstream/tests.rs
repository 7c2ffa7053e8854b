#![allow(clippy::unwrap_used, missing_docs)] // a failed step is the test's failure

use model::NodeName;

use super::state::{DUE_MAX, EVENTS_BURST, LOST_AFTER_MS, Leases, RENEW_EVERY_MS, RETRY_AFTER_MS, Shared};

fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

#[test]
fn a_lease_is_due_at_once_then_every_ten_seconds_until_its_node_goes() {
    let (mut leases, n1) = (Leases::default(), node("n1"));
    assert!(leases.connected(&n1, 5));
    assert!(!leases.connected(&n1, 6));
    assert_eq!(leases.take_due(6).len(), 1);
    assert_eq!(leases.take_due(7), [], "one renewal at a time");
    leases.ended(&n1, true, 10);
    assert_eq!(leases.take_due(9 + RENEW_EVERY_MS), []);
    assert_eq!(leases.take_due(10 + RENEW_EVERY_MS).len(), 1);
    leases.disconnected(&n1);
    leases.ended(&n1, true, 20_000);
    assert_eq!(leases.take_due(1_000_000), []);
}

#[test]
fn a_renewal_that_failed_or_was_lost_is_tried_again() {
    let (mut leases, n1) = (Leases::default(), node("n1"));
    leases.connected(&n1, 0);
    assert_eq!(leases.take_due(0).len(), 1);
    leases.ended(&n1, false, 0);
    assert_eq!(leases.take_due(RETRY_AFTER_MS).len(), 1);
    assert_eq!(leases.take_due(RETRY_AFTER_MS + LOST_AFTER_MS).len(), 1);
}

#[test]
fn leases_are_handed_out_within_the_budget_the_most_overdue_first() {
    let mut leases = Leases::default();
    for index in 0..DUE_MAX + 10 {
        leases.connected(&node(&format!("n{index}")), u64::try_from(index).unwrap());
    }
    let first = leases.take_due(1_000_000);
    assert_eq!((first.len(), first[0].as_str()), (DUE_MAX, "n0"));
    assert_eq!(leases.take_due(1_000_000).len(), 10);
}

#[test]
fn a_node_writes_many_events_at_once_and_then_one_a_second() {
    let (shared, n1, n2) = (Shared::default(), node("n1"), node("n2"));
    let written = |node: &NodeName, tries: usize, now: i64| (0..tries).filter(|_| shared.may_write_event(node, now)).count();
    let burst = usize::try_from(EVENTS_BURST).unwrap();
    assert_eq!(written(&n1, 5000, 0), burst);
    assert_eq!((written(&n1, 5, 999), written(&n1, 5, 1000), written(&n1, 5, 1999), written(&n1, 5, 4500)), (0, 1, 0, 3));
    assert_eq!(written(&n2, 5000, 4500), burst, "each node has its own");
    assert_eq!(written(&n1, 5, 100), 0, "a clock that was set back");
    assert_eq!(written(&n1, 5000, i64::MAX), burst);
}
