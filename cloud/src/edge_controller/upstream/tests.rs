#![allow(clippy::unwrap_used, missing_docs)] // a failed step is the test's failure

use model::NodeName;

use super::state::{DUE_MAX, LOST_AFTER_MS, Leases, RENEW_EVERY_MS, RETRY_AFTER_MS};

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
