use actor::testing::lease;
use actor::{Lease, Mail, Meta};

use super::*;

/// Inserts a device of that name; `bad` fails, `wait` has to wait.
struct Insert(&'static str);

impl Mail for Insert {
    fn kind(&self) -> &'static str {
        "Insert"
    }
}

fn leased(names: &[&'static str]) -> Lease<Insert> {
    lease(names.iter().map(|name| Insert(name)).collect()).0
}

fn apply(tx: &mut Tx<'_>, part: &[(&Meta, &Insert)], effects: &mut Vec<String>) -> Result<usize, StoreError> {
    for (index, (_, Insert(name))) in part.iter().enumerate() {
        if *name == "wait" {
            return Ok(index);
        }
        if *name == "bad" {
            device::insert(tx, &device("half"))?;
            return Err(StoreError::Query { action: "test", table: "device", source: diesel::result::Error::NotFound });
        }
        device::insert(tx, &device(name))?;
        effects.push((*name).to_owned());
    }
    Ok(part.len())
}

fn give_up(_: &Meta, Insert(name): &Insert, _: &StoreError) -> Option<String> {
    Some(format!("failed {name}"))
}

const DEVICES: &str = "SELECT id AS value FROM device ORDER BY id";

#[test]
fn a_good_batch_is_one_commit() {
    let fixture = fixture();
    let done = fixture.store.write_batch(&leased(&["a", "b", "c"]), apply, give_up).unwrap();
    assert_eq!((done.handled, done.effects), (3, vec!["a".into(), "b".into(), "c".into()]));
    assert_eq!(fixture.store.stats().commits, 1);
}

#[test]
fn a_bad_message_costs_only_itself_and_order_is_kept() {
    let fixture = fixture();
    let done = fixture.store.write_batch(&leased(&["a", "bad", "b", "bad"]), apply, give_up).unwrap();
    assert_eq!(done.handled, 4);
    assert_eq!(done.effects, ["a", "failed bad", "b", "failed bad"]);
    assert_eq!(fixture.cells(DEVICES), ["a", "b"]);
}

#[test]
fn what_has_to_wait_and_what_comes_after_it_is_left_also_after_an_error() {
    let fixture = fixture();
    let done = fixture.store.write_batch(&leased(&["a", "wait", "b"]), apply, give_up).unwrap();
    assert_eq!((done.handled, done.effects), (1, vec!["a".into()]));
    let done = fixture.store.write_batch(&leased(&["bad", "c", "wait", "d"]), apply, give_up).unwrap();
    assert_eq!((done.handled, done.effects), (2, vec!["failed bad".into(), "c".into()]));
    assert_eq!(fixture.cells(DEVICES), ["a", "c"]);
}

#[test]
fn a_full_disk_fails_all_messages_after_one_attempt() {
    let fixture = fixture();
    let full = |tx: &mut Tx<'_>, _: &[(&Meta, &Insert)], _: &mut Vec<String>| {
        tx.connection.batch_execute("PRAGMA max_page_count = 1").unwrap();
        tx.connection.batch_execute("CREATE TABLE big AS SELECT zeroblob(1000000) AS x").map_err(query("fill", "device"))?;
        Ok(0)
    };
    let done = fixture.store.write_batch(&leased(&["a", "b", "c"]), full, give_up).unwrap();
    assert_eq!(done.effects, ["failed a", "failed b", "failed c"]);
    assert_eq!(fixture.store.stats().rollbacks, 1);
}
