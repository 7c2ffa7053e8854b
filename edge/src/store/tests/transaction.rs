use std::panic::AssertUnwindSafe;
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use actor::Mail;
use actor::testing::{Probe, lease};
use model::Timestamp;

use super::*;
use crate::store::testing::contents;

const DEVICES: &str = "SELECT id AS value FROM device ORDER BY id";

struct Nothing;

impl Mail for Nothing {
    fn kind(&self) -> &'static str {
        "Nothing"
    }
}

fn refusal() -> StoreError {
    StoreError::Query { action: "test", table: "none", source: diesel::result::Error::NotFound }
}

#[test]
fn an_error_in_the_body_takes_everything_back() {
    let fixture = fixture();
    let result: Result<(), _> = fixture.store.write(&Fence::unfenced(), |tx| {
        device::insert(tx, &device("lamp"))?;
        Err(refusal())
    });
    assert!(result.is_err());
    assert!(fixture.cells(DEVICES).is_empty());
    fixture.write(|tx| device::insert(tx, &device("next")));
    assert_eq!(fixture.cells(DEVICES), ["next"]);
    assert_eq!((fixture.store.stats().commits, fixture.store.stats().rollbacks), (1, 1));
}

#[test]
fn a_panic_in_the_body_takes_everything_back_and_others_go_on() {
    let fixture = fixture();
    let died = std::panic::catch_unwind(AssertUnwindSafe(|| {
        fixture.write(|tx| -> Result<(), StoreError> {
            device::insert(tx, &device("lamp"))?;
            panic!("between two statements");
        });
    }));
    assert!(died.is_err());
    fixture.write(|tx| device::insert(tx, &device("next")));
    assert_eq!(fixture.cells(DEVICES), ["next"]);
}

#[test]
fn a_commit_that_fails_takes_everything_back() {
    let fixture = fixture();
    fixture.write(|tx| device::insert(tx, &device("before")));
    let before = contents(&fixture.store);
    let result = fixture.store.write(&Fence::unfenced(), |tx| {
        // So that a report without its device is found at COMMIT, which is the last step that can fail.
        tx.connection.batch_execute("PRAGMA defer_foreign_keys = ON").unwrap();
        device::insert(tx, &device("lamp"))?;
        pending_report::state(tx, &id("nobody"), device::Incarnation(1), Timestamp(1), actor::MsgId::fresh())
    });
    assert!(matches!(result, Err(StoreError::Query { action: "commit", .. })), "{result:?}");
    assert_eq!(contents(&fixture.store), before);
    fixture.write(|tx| device::insert(tx, &device("next")));
    assert_eq!(fixture.cells(DEVICES), ["before", "next"]);
}

#[test]
fn an_actor_that_was_replaced_commits_nothing() {
    let fixture = fixture();
    let (lease, probe) = lease(vec![Nothing]);
    let fence = lease.fence();
    fixture.store.write(&fence, |tx| device::insert(tx, &device("before"))).unwrap();
    let result = fixture.store.write(&fence, |tx| {
        device::insert(tx, &device("after"))?;
        // The supervisor gives up on this incarnation while it is still inside its transaction.
        let _successor = Probe::of(&probe.handle());
        Ok(())
    });
    assert!(matches!(result, Err(StoreError::Fenced)), "{result:?}");
    assert_eq!(fixture.cells(DEVICES), ["before"]);
    assert_eq!(fixture.store.stats().fenced, 1);
}

/// The first half of the next test, in a process that it kills.
#[test]
fn child_dies_between_two_statements() {
    let Some(path) = std::env::var_os("SKEP_TEST_STORE") else { return };
    let store = Store::open(path).unwrap();
    store.write(&Fence::unfenced(), |tx| device::insert(tx, &device("durable"))).unwrap();
    let _ = store.write(&Fence::unfenced(), |tx| -> Result<(), StoreError> {
        device::insert(tx, &device("lost"))?;
        std::process::abort();
    });
}

#[test]
fn a_process_that_dies_between_two_statements_leaves_what_it_committed_and_nothing_else() {
    let fixture = fixture();
    let me = std::env::current_exe().unwrap();
    let child = Command::new(me)
        .args(["--exact", "store::tests::transaction::child_dies_between_two_statements"])
        .env("SKEP_TEST_STORE", fixture.store.path())
        .output()
        .unwrap();
    assert!(!child.status.success());
    assert_eq!(fixture.cells(DEVICES), ["durable"]);
    fixture.write(|tx| device::insert(tx, &device("next")));
}

/// The first half of the next test, in a process that hangs inside a transaction.
#[test]
fn child_hangs_inside_a_transaction() {
    let Some(path) = std::env::var_os("SKEP_TEST_HANG") else { return };
    let store = Store::open(path).unwrap();
    store.end_process_when_stuck(Duration::from_millis(50)).unwrap();
    let _ = store.write(&Fence::unfenced(), |tx| -> Result<(), StoreError> {
        device::insert(tx, &device("lost"))?;
        loop {
            std::thread::park();
        }
    });
}

#[test]
fn a_process_that_hangs_inside_a_transaction_ends_with_the_stated_code_and_nothing_half_written() {
    let fixture = fixture();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "store::tests::transaction::child_hangs_inside_a_transaction"])
        .env("SKEP_TEST_HANG", fixture.store.path())
        .output()
        .unwrap();
    assert_eq!(child.status.code(), Some(STUCK_EXIT_CODE));
    assert!(fixture.cells(DEVICES).is_empty());
}

#[test]
fn a_full_disk_is_a_typed_error_and_the_store_goes_on_when_there_is_space() {
    let fixture = fixture();
    let fill = || {
        fixture.store.write(&Fence::unfenced(), |tx| {
            let lamp = device("lamp");
            device::insert(tx, &lamp)?;
            for number in 0..10_000 {
                twin::put(tx, &lamp.id, &name(&format!("p{number}")), &property("1"))?;
            }
            Ok(())
        })
    };
    let limit = |pages: u32| {
        fixture.write(|tx| {
            tx.connection.batch_execute(&format!("PRAGMA max_page_count = {pages}")).unwrap();
            Ok(())
        });
    };
    limit(30);
    let full = fill();
    assert!(matches!(full, Err(StoreError::NoSpace { .. })), "{full:?}");
    assert!(fixture.cells(DEVICES).is_empty());
    limit(1_000_000);
    fill().unwrap();
}

#[test]
fn a_reader_sees_one_state_while_another_is_written_and_cannot_write() {
    let fixture = fixture();
    let before = fixture.store.read(|read| {
        let before = device::known(read)?;
        fixture.write(|tx| device::insert(tx, &device("lamp")));
        assert_eq!(device::known(read)?, before);
        Ok(before)
    });
    assert!(before.unwrap().is_empty());
    assert_eq!(fixture.store.read(device::known).unwrap().len(), 1);
    let refused = fixture.store.read(|read| read.connection.batch_execute("DELETE FROM device").map_err(query("delete", "device")));
    assert!(refused.is_err());
    assert_eq!(fixture.store.read(device::known).unwrap().len(), 1);
}

#[test]
fn a_transaction_that_hangs_is_told_of_and_a_quick_one_is_not() {
    let fixture = fixture();
    let (tell, told) = mpsc::channel();
    fixture.store.when_stuck(Duration::from_millis(500), move |stuck| tell.send(stuck).unwrap()).unwrap();
    for _ in 0..20 {
        fixture.write(|_| Ok(()));
    }
    assert!(told.try_recv().is_err());
    fixture.write(|_| {
        let stuck = told.recv_timeout(Duration::from_secs(10)).unwrap();
        assert!(stuck.held_for >= Duration::from_millis(500));
        Ok(())
    });
}

#[test]
fn the_watcher_ends_with_the_store() {
    let fixture = fixture();
    let (tell, told) = mpsc::channel::<()>();
    fixture.store.when_stuck(Duration::from_millis(10), move |_| drop(tell)).unwrap();
    drop(fixture);
    // The hook, and the sender in it, is dropped with the thread.
    assert_eq!(told.recv_timeout(Duration::from_secs(10)), Err(mpsc::RecvTimeoutError::Disconnected));
}

#[test]
fn what_a_commit_took_is_counted() {
    let fixture = fixture();
    let started = Instant::now();
    for number in 0..5 {
        fixture.write(|tx| {
            let lamp = device(&format!("lamp{number}"));
            let incarnation = device::insert(tx, &lamp)?;
            pending_report::state(tx, &lamp.id, incarnation, Timestamp(1), actor::MsgId::fresh())
        });
    }
    let stats = fixture.store.stats();
    assert_eq!(stats.commits, 5);
    assert_eq!(stats.commit_buckets.iter().sum::<u64>(), 5);
    assert!(stats.commit_max_us >= stats.commit_last_us && stats.commit_total_us >= stats.commit_max_us);
    assert!(u128::from(stats.commit_total_us) <= started.elapsed().as_micros());
    let size = fixture.store.size();
    assert!(size.database_bytes > 0 && size.wal_bytes > 0, "{size:?}");
    assert_eq!(fixture.store.writers(), 0);
}

#[test]
fn a_file_of_its_full_size_takes_no_more_and_goes_on_when_something_goes() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open_limited(directory.path().join("edge.db"), 1 << 20).unwrap();
    let put = |number: usize| {
        let object = meta::StoredObject {
            key: format!("default/configmap/c{number}").parse().unwrap(),
            value: "x".repeat(100_000),
            uid: None,
            resource_version: None,
            stored_at: Timestamp(1),
        };
        store.write(&Fence::unfenced(), |tx| meta::put(tx, &object))
    };
    let full = (0..100).find_map(|number| put(number).err());
    assert!(matches!(full, Some(StoreError::NoSpace { .. })), "{full:?}");
    assert!(full.unwrap().to_string().contains("database.max-size"));
    let fault = store.fault().unwrap();
    assert!(fault.contains("no space"), "{fault}");
    store.write(&Fence::unfenced(), |tx| meta::delete(tx, &"default/configmap/c0".parse().unwrap())).unwrap();
    put(200).unwrap();
}

#[test]
fn a_store_that_was_full_finds_out_by_itself_that_there_is_space_again() {
    let fixture = fixture();
    let limit = |pages: u32| {
        fixture.write(|tx| {
            tx.connection.batch_execute(&format!("PRAGMA max_page_count = {pages}")).unwrap();
            Ok(())
        });
    };
    limit(1);
    let failed = fixture.store.write(&Fence::unfenced(), |tx| {
        tx.connection.batch_execute("CREATE TABLE big AS SELECT zeroblob(1000000) AS x").map_err(query("fill", "device"))
    });
    assert!(matches!(failed, Err(StoreError::NoSpace { .. })), "{failed:?}");
    assert!(fixture.store.fault().unwrap().contains("no space"));
    let commits = fixture.store.stats().commits;
    fixture.store.recount().unwrap();
    assert_eq!(fixture.store.fault(), None);
    assert_eq!(fixture.store.stats().commits, commits + 1);
    // Nothing is written while all is well.
    fixture.store.recount().unwrap();
    assert_eq!(fixture.store.stats().commits, commits + 1);
}

#[test]
fn a_log_that_had_to_grow_is_cut_back() {
    let fixture = fixture();
    let object = |number: usize| meta::StoredObject {
        key: format!("default/configmap/c{number}").parse().unwrap(),
        value: "x".repeat(1 << 20),
        uid: None,
        resource_version: None,
        stored_at: Timestamp(1),
    };
    fixture.write(|tx| (0..24).try_for_each(|number| meta::put(tx, &object(number))));
    assert!(fixture.store.size().wal_bytes > 20 << 20, "{:?}", fixture.store.size());
    for _ in 0..3 {
        fixture.write(|tx| meta::put(tx, &object(0)));
    }
    assert!(fixture.store.size().wal_bytes <= 9 << 20, "{:?}", fixture.store.size());
}
