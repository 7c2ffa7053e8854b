use std::fs;
use std::os::unix::fs::FileExt as _;
use std::sync::mpsc;
use std::time::Duration;

use super::*;
use crate::store::testing::{contents, spoil, tamper};

/// A database with a device, closed.
fn closed() -> (TempDir, PathBuf) {
    let Fixture { store, directory } = fixture();
    store.write(&Fence::unfenced(), |tx| device::insert(tx, &device("lamp"))).unwrap();
    let path = store.path().to_owned();
    drop(store);
    (directory, path)
}

fn names(directory: &TempDir) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| !name.ends_with("-wal") && !name.ends_with("-shm"));
    names.sort();
    names
}

fn begin_anew(path: &Path) -> (Store, Option<SetAside>) {
    Store::open_or_begin_anew(path, BYTES_MAX).unwrap()
}

#[test]
fn a_whole_file_is_opened_and_nothing_is_set_aside() {
    let (directory, path) = closed();
    let (store, set_aside) = begin_anew(&path);
    assert_eq!(set_aside, None);
    assert_eq!(store.read(device::known).unwrap().len(), 1);
    assert_eq!(names(&directory), ["edge.db"]);
}

#[test]
fn a_damaged_file_is_set_aside_as_it_is_and_a_new_one_is_begun() {
    for table in ["device", "device_twin", "device_twin_of_device", "meta", "schema", "header"] {
        let (directory, path) = closed();
        match table {
            "header" => fs::write(&path, [0x5a; 8192]).unwrap(),
            "schema" => fs::File::options().write(true).open(&path).unwrap().write_all_at(&[0x5a; 3000], 100).unwrap(),
            _ => spoil(&path, table),
        }
        let before = fs::read(&path).unwrap();
        let (store, set_aside) = begin_anew(&path);
        let set_aside = set_aside.unwrap_or_else(|| panic!("{table}: not found"));
        assert!(set_aside.why.contains("damaged"), "{table}: {}", set_aside.why);
        assert_eq!(fs::read(&set_aside.file).unwrap(), before, "{table}");
        assert!(set_aside.file.file_name().unwrap().to_str().unwrap().starts_with("edge.db.damaged-2"), "{set_aside:?}");
        assert_eq!(store.read(device::known).unwrap().len(), 0);
        store.write(&Fence::unfenced(), |tx| device::insert(tx, &device("next"))).unwrap();
        assert_eq!(names(&directory).len(), 2);
    }
}

#[test]
fn an_index_that_says_another_thing_than_its_table_is_damage() {
    let (_directory, path) = closed();
    let unlike = "PRAGMA writable_schema = ON;
        UPDATE sqlite_master SET sql = 'CREATE UNIQUE INDEX device_attr_of_device ON device_attr (deviceid, value)' WHERE name = 'device_attr_of_device'";
    let store = Store::open(&path).unwrap();
    store
        .write(&Fence::unfenced(), |tx| {
            let attribute = model::Attribute { value: "v".into(), optional: true, kind: "string".into() };
            attribute::put(tx, &id("lamp"), &model::AttributeName::new("a").unwrap(), &attribute)
        })
        .unwrap();
    drop(store);
    crate::store::testing::build(&path, unlike);
    assert!(begin_anew(&path).1.is_some());
}

#[test]
fn the_log_goes_with_its_database() {
    let (directory, path) = closed();
    // A header that is none of SQLite's, and a log from before.
    fs::write(&path, [0x5a; 8192]).unwrap();
    fs::write(directory.path().join("edge.db-wal"), "the log").unwrap();
    let set_aside = begin_anew(&path).1.unwrap();
    assert_eq!(fs::read_to_string(format!("{}-wal", set_aside.file.display())).unwrap(), "the log");
}

#[test]
fn of_many_damaged_files_the_last_are_kept() {
    let (directory, path) = closed();
    for number in 0..8 {
        fs::write(&path, format!("letter {number}")).unwrap();
        begin_anew(&path);
    }
    let kept: Vec<_> = names(&directory).into_iter().filter(|name| name.contains("damaged")).collect();
    assert_eq!(kept.len(), crate::store::damage::KEPT_MAX, "{kept:?}");
    let mut letters: Vec<_> = kept.iter().map(|name| fs::read_to_string(directory.path().join(name)).unwrap()).collect();
    letters.sort();
    assert_eq!(letters, ["letter 3", "letter 4", "letter 5", "letter 6", "letter 7"]);
}

#[test]
fn a_newer_schema_is_refused_also_where_this_sqlite_cannot_parse_it() {
    let (directory, path) = closed();
    let newer = "INSERT INTO __diesel_schema_migrations (version) VALUES ('29991231000000');
        PRAGMA writable_schema = ON;
        INSERT INTO sqlite_master VALUES ('table', 'later', 'later', 0, 'CREATE MARVEL later (x)');";
    crate::store::testing::build(&path, newer);
    let before = fs::read(&path).unwrap();
    let error = Store::open_or_begin_anew(&path, BYTES_MAX).unwrap_err();
    assert!(matches!(error, StoreError::TooNew { .. }), "{error:?}");
    assert_eq!(fs::read(&path).unwrap(), before);
    assert_eq!(names(&directory), ["edge.db"]);
}

#[test]
fn a_file_that_cannot_be_opened_is_not_damaged() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("edge.db");
    fs::create_dir(&path).unwrap();
    let error = Store::open_or_begin_anew(&path, BYTES_MAX).unwrap_err();
    assert!(!matches!(error, StoreError::Corrupt { .. }), "{error:?}");
    assert_eq!(names(&directory), ["edge.db"]);
}

#[test]
fn damage_that_is_met_later_is_told_once_and_the_next_start_finds_it_in_a_large_file_too() {
    let fixture = fixture();
    let (tell, told) = mpsc::channel();
    fixture.store.when_damaged(move |why| tell.send(why).unwrap());
    fixture.write(|tx| {
        tx.connection.batch_execute("CREATE TABLE padding AS SELECT 1 AS x").unwrap();
        let object = meta::StoredObject {
            key: "default/pod/web".parse().unwrap(),
            value: "{}".into(),
            uid: None,
            resource_version: None,
            stored_at: model::Timestamp(1),
        };
        meta::put(tx, &object)?;
        device::insert(tx, &device("lamp"))
    });
    spoil(fixture.store.path(), "meta");
    // A commit of another connection makes the store's own read their pages anew.
    tamper(&fixture.store, "INSERT INTO padding VALUES (2)");
    let read = || fixture.store.read(|read| meta::held(read, model::ResourceKind::ALL));
    assert!(matches!(read(), Err(StoreError::Corrupt { .. })), "{:?}", read());
    assert!(told.recv_timeout(Duration::from_secs(10)).unwrap().contains("damaged"));
    assert!(read().is_err());
    assert!(told.try_recv().is_err());
    let path = fixture.store.path().to_owned();
    let Fixture { store, directory } = fixture;
    drop(store);
    assert_eq!(names(&directory), ["edge.db", "edge.db.suspect"]);
    // Larger than what is checked whole without the mark.
    fs::File::options().write(true).open(&path).unwrap().set_len(65 << 20).unwrap();
    let (store, set_aside) = begin_anew(&path);
    assert!(set_aside.is_some());
    assert_eq!(contents(&store).iter().filter(|row| row.starts_with("device:")).count(), 0);
    assert_eq!(names(&directory).iter().filter(|name| name.ends_with(".suspect")).count(), 0);
}
