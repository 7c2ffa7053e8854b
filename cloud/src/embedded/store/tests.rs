#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use serde_json::json;

use super::*;
use crate::embedded::kind;
use crate::embedded::object::Object;

fn config_map(name: &str) -> (Key, Object) {
    let key = Key::new(&kind::CONFIG_MAPS, "default", name);
    let uid = uuid::Uuid::new_v4().to_string();
    let object = Object::new(json!({"metadata": {"name": name, "namespace": "default", "uid": uid}}));
    (key, object.unwrap())
}

fn put(store: &Store, name: &str) -> Object {
    let (key, object) = config_map(name);
    store.write_blocking(move |tx| tx.put(&key, object.clone(), None)).unwrap()
}

fn latest(store: &Store) -> i64 {
    store.read(|snapshot| snapshot.revision()).unwrap()
}

#[test]
fn the_database_is_for_its_owner_alone_because_it_holds_secrets() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cloud.db");
    let open_and_look = |name: &str| {
        let store = Store::open(&path).unwrap();
        put(&store, name);
        for entry in std::fs::read_dir(folder.path()).unwrap() {
            let entry = entry.unwrap();
            assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.path());
        }
    };
    open_and_look("x");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    open_and_look("y");
}

#[test]
fn each_write_gets_a_higher_version_also_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cloud.db");
    let store = Store::open(&path).unwrap();
    let versions = |store: &Store, name: &str| put(store, name).resource_version().parse::<i64>().unwrap();
    let first = versions(&store, "a");
    assert!(versions(&store, "b") > first);
    let before = latest(&store);
    drop(store);
    let store = Store::open(&path).unwrap();
    assert_eq!(latest(&store), before);
    assert!(versions(&store, "c") > before);
    let page = store.read(|snapshot| snapshot.page(&kind::CONFIG_MAPS, "", None, 10)).unwrap();
    assert_eq!(page.items.len(), 3);
}

#[test]
fn a_job_that_fails_leaves_nothing_and_its_neighbours_are_written() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("cloud.db")).unwrap();
    let before = latest(&store);
    let threads: Vec<_> = (0..32)
        .map(|index| {
            let store = store.clone();
            std::thread::spawn(move || {
                let (key, object) = config_map(&format!("x{index}"));
                store.write_blocking(move |tx| {
                    let stored = tx.put(&key, object.clone(), None)?;
                    match index % 4 {
                        0 => Err(StatusError::bad_request("no").into()),
                        1 => panic!("a job panics"),
                        _ => Ok(stored),
                    }
                })
            })
        })
        .collect();
    let done = threads.into_iter().filter(|_| true).map(|thread| thread.join().unwrap()).filter(Result::is_ok).count();
    assert_eq!(done, 16);
    let page = store.read(|snapshot| snapshot.page(&kind::CONFIG_MAPS, "default", None, 100)).unwrap();
    assert_eq!(page.items.len(), 16);
    let (events, _) = store.history().after(before, None, 100).unwrap();
    assert_eq!(events.len(), 16, "what was rolled back is never told");
    assert!(events.windows(2).all(|pair| pair[0].revision < pair[1].revision));
}

#[test]
fn pages_follow_each_other_without_gap_or_repetition() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("cloud.db")).unwrap();
    for index in 0..25 {
        put(&store, &format!("x{index:02}"));
    }
    let (mut names, mut after) = (Vec::new(), None);
    loop {
        let page = store.read(|snapshot| snapshot.page(&kind::CONFIG_MAPS, "", after.as_ref(), 10)).unwrap();
        names.extend(page.items.into_iter().map(|(_, name, _)| name));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(names, (0..25).map(|index| format!("x{index:02}")).collect::<Vec<_>>());
}

#[test]
fn a_database_of_a_newer_schema_is_refused_and_not_touched() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cloud.db");
    drop(Store::open(&path).unwrap());
    let mut connection = SqliteConnection::establish(&path.to_string_lossy()).unwrap();
    connection.batch_execute("INSERT INTO __diesel_schema_migrations (version) VALUES ('99991231000000')").unwrap();
    drop(connection);
    let error = Store::open(&path).err().unwrap();
    assert!(matches!(&error, StoreError::TooNew { found, .. } if found == "99991231000000"), "{error}");
}

#[test]
fn orphans_are_found_by_their_owners_uid() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("cloud.db")).unwrap();
    let owner = put(&store, "owner");
    let (key, mut child) = config_map("child");
    child.meta_mut().insert("ownerReferences".to_owned(), json!([{"uid": owner.uid()}]));
    store.write_blocking(move |tx| tx.put(&key, child.clone(), None)).unwrap();
    assert!(store.read(|snapshot| snapshot.orphans()).unwrap().is_empty());
    let (key, _) = config_map("owner");
    store.write_blocking(move |tx| Ok(tx.remove(&key, owner.clone())?)).unwrap();
    assert_eq!(store.read(|snapshot| snapshot.orphans()).unwrap(), [config_map("child").0]);
}
