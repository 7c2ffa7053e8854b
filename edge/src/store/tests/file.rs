use std::fs;
use std::os::unix::fs::PermissionsExt;

use diesel::migration::MigrationSource;
use diesel_migrations::MigrationHarness;

use super::*;
use crate::store::connection::{MIGRATIONS, writer};

fn open(path: &Path) -> StoreError {
    Store::open(path).unwrap_err()
}

#[test]
fn migrations_go_up_down_and_up_again_with_data_in_the_tables() {
    let Fixture { store, directory } = fixture();
    let fill = |store: &Store| {
        store
            .write(&Fence::unfenced(), |tx| {
                let lamp = device("lamp");
                let incarnation = device::insert(tx, &lamp)?;
                twin::put(tx, &lamp.id, &name("t"), &property("1"))?;
                pending_report::property(tx, &lamp.id, incarnation, &name("t"), model::Timestamp(1), actor::MsgId::fresh())
            })
            .unwrap();
    };
    fill(&store);
    drop(store);
    let path = directory.path().join("edge.db");
    let mut connection = writer(&path, BYTES_MAX).unwrap();
    // To the schema before `cause`, which keeps what it knows.
    for _ in 0..3 {
        connection.revert_last_migration(MIGRATIONS).unwrap();
    }
    assert_eq!(cells(&mut connection, "SELECT expected AS value FROM device_twin"), ["1"]);
    let columns = "SELECT name AS value FROM pragma_table_info('pending_report') ORDER BY cid";
    assert!(!cells(&mut connection, columns).contains(&"cause".to_owned()));
    connection.run_pending_migrations(MIGRATIONS).unwrap();
    assert_eq!(cells(&mut connection, "SELECT id AS value FROM device"), ["lamp"]);
    // A change that the older version noted is still reported; which message made it is not known.
    let store = Store::open(&path).unwrap();
    let [(property, change)] = &store.read(|read| pending_report::of_device(read, &id("lamp"))).unwrap().properties[..] else {
        panic!("one change waits");
    };
    assert_eq!((property, change.cause), (&name("t"), None));
    drop(store);
    connection.revert_all_migrations(MIGRATIONS).unwrap();
    let left =
        "SELECT name AS value FROM sqlite_master WHERE type='table' AND name NOT LIKE 'sqlite_%' AND name NOT LIKE '\\_\\_diesel%' ESCAPE '\\'";
    assert_eq!(cells(&mut connection, left), Vec::<String>::new());
    drop(connection);
    let store = Store::open(&path).unwrap();
    fill(&store);
}

/// The columns that KubeEdge has, which every schema has.
const ROWS: [(&str, &str); 4] = [
    ("device", "id || '|' || name || '|' || state"),
    ("device_attr", "id || '|' || deviceid || '|' || name || '|' || value || '|' || optional"),
    ("device_twin", "id || '|' || deviceid || '|' || name || '|' || coalesce(expected, '∅') || '|' || expected_version || '|' || attr_type"),
    ("meta", "key || '|' || type || '|' || value"),
];

#[test]
fn every_migration_goes_down_and_up_with_rows_in_every_table() {
    let migrations = MigrationSource::<diesel::sqlite::Sqlite>::migrations(&MIGRATIONS).unwrap().len();
    for depth in 1..=migrations {
        let Fixture { store, directory: _directory } = fixture();
        store
            .write(&Fence::unfenced(), |tx| {
                let lamp = device("lamp");
                let incarnation = device::insert(tx, &lamp)?;
                device::set_uid(tx, &lamp.id, "u1")?;
                let attribute = model::Attribute { value: "v".into(), optional: false, kind: "string".into() };
                attribute::put(tx, &lamp.id, &model::AttributeName::new("a").unwrap(), &attribute)?;
                twin::put(tx, &lamp.id, &name("t"), &property("1"))?;
                twin::put(tx, &lamp.id, &name("gone"), &TwinProperty { kind: TwinType::Deleted, ..property("1") })?;
                pending_report::property(tx, &lamp.id, incarnation, &name("t"), model::Timestamp(1), actor::MsgId::fresh())?;
                pending_report::state(tx, &lamp.id, incarnation, model::Timestamp(1), actor::MsgId::fresh())?;
                let object = meta::StoredObject {
                    key: "default/pod/web".parse().unwrap(),
                    value: "{}".into(),
                    uid: None,
                    resource_version: None,
                    stored_at: model::Timestamp(1),
                };
                meta::put(tx, &object)
            })
            .unwrap();
        let path = store.path().to_owned();
        drop(store);
        let mut connection = writer(&path, BYTES_MAX).unwrap();
        let mut rows = || ROWS.map(|(table, columns)| cells(&mut connection, &format!("SELECT {columns} AS value FROM {table} ORDER BY 1")));
        let before = rows();
        assert!(before.iter().all(|rows| !rows.is_empty()), "{before:?}");
        for _ in 0..depth {
            connection.revert_last_migration(MIGRATIONS).unwrap();
        }
        let mut rows = || ROWS.map(|(table, columns)| cells(&mut connection, &format!("SELECT {columns} AS value FROM {table} ORDER BY 1")));
        if depth < migrations {
            assert_eq!(rows(), before, "{depth} down");
        }
        connection.run_pending_migrations(MIGRATIONS).unwrap();
        let mut rows = || ROWS.map(|(table, columns)| cells(&mut connection, &format!("SELECT {columns} AS value FROM {table} ORDER BY 1")));
        let wanted = if depth < migrations { before } else { Default::default() };
        assert_eq!(rows(), wanted, "{depth} down and up");
        assert_eq!(cells(&mut connection, "SELECT integrity_check AS value FROM pragma_integrity_check"), ["ok"]);
        drop(connection);
        let store = Store::open(&path).unwrap();
        store.write(&Fence::unfenced(), |tx| device::insert(tx, &device("next"))).unwrap();
    }
}

#[test]
fn what_the_original_lets_pass_is_refused() {
    let fixture = fixture();
    fixture.write(|tx| {
        device::insert(tx, &device("lamp"))?;
        twin::put(tx, &id("lamp"), &name("t"), &property("1"))
    });
    for (sql, rule) in [
        ("INSERT INTO device (id) VALUES (NULL)", "NOT NULL"),
        ("INSERT INTO device (id) VALUES ('lamp')", "UNIQUE"),
        ("INSERT INTO device_attr (deviceid, name) VALUES (NULL, 'a')", "NOT NULL"),
        ("INSERT INTO device_attr (deviceid, name) VALUES ('lamp', NULL)", "NOT NULL"),
        ("INSERT INTO device_attr (deviceid, name) VALUES ('lamp', 'a'), ('lamp', 'a')", "UNIQUE"),
        ("INSERT INTO device_attr (deviceid, name) VALUES ('nobody', 'a')", "FOREIGN KEY"),
        ("INSERT INTO device_twin (deviceid, name) VALUES ('lamp', 't')", "UNIQUE"),
        ("INSERT INTO device_twin (deviceid, name) VALUES ('nobody', 't')", "FOREIGN KEY"),
        ("INSERT INTO device_twin (deviceid, name, optional) VALUES ('lamp', 'u', NULL)", "NOT NULL"),
        ("INSERT INTO meta (key, type) VALUES ('default/pod/web', NULL)", "NOT NULL"),
        ("INSERT INTO pending_report (deviceid, incarnation, property, queued_at) VALUES ('nobody', 1, '', 1)", "FOREIGN KEY"),
    ] {
        let said = fixture.store.write(&Fence::unfenced(), |tx| Ok(tx.connection.batch_execute(sql).unwrap_err().to_string())).unwrap();
        assert!(said.contains(rule), "{sql}: {said}");
    }
}

#[test]
fn a_database_of_a_newer_schema_is_refused_and_left_as_it_is() {
    let Fixture { store, directory } = fixture();
    store
        .write(&Fence::unfenced(), |tx| {
            let newer = "INSERT INTO __diesel_schema_migrations (version) VALUES ('29991231000000')";
            tx.connection.batch_execute(newer).unwrap();
            Ok(())
        })
        .unwrap();
    drop(store);
    let path = directory.path().join("edge.db");
    let before = fs::read(&path).unwrap();
    let error = open(&path);
    assert!(matches!(&error, StoreError::TooNew { found, .. } if found == "29991231000000"), "{error}");
    assert!(error.to_string().contains("install the newer skep-edge"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn a_directory_that_cannot_be_written_is_one_clear_error() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "x").unwrap();
    let locked = directory.path().join("locked");
    fs::create_dir(&locked).unwrap();
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o555)).unwrap();
    let mut paths = vec![file.join("edge.db"), PathBuf::from("/proc/self/fdinfo/edge.db")];
    // Permissions do not bind root.
    if fs::write(locked.join("probe"), "").is_err() {
        paths.push(locked.join("edge.db"));
    }
    for path in paths {
        let error = open(&path);
        assert!(matches!(error, StoreError::NotWritable { .. }), "{}: {error:?}", path.display());
        assert!(error.to_string().contains("--data-dir"), "{error}");
        assert!(!path.exists());
    }
}

#[test]
fn a_read_only_connection_is_recognised_by_what_sqlite_says() {
    let fixture = fixture();
    let said = fixture.store.read(|read| Ok(read.connection.batch_execute("DELETE FROM device").unwrap_err())).unwrap();
    assert!(crate::store::error::is_read_only(&said), "{said}");
}

#[test]
fn a_file_that_is_no_database_is_damaged_and_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("edge.db");
    let garbage = "certainly not SQLite\n".repeat(1000);
    fs::write(&path, &garbage).unwrap();
    let error = open(&path);
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
    assert_eq!(fs::read_to_string(&path).unwrap(), garbage);
}

#[test]
fn a_directory_in_place_of_the_file_cannot_be_opened() {
    let directory = tempfile::tempdir().unwrap();
    let error = open(directory.path());
    assert!(matches!(error, StoreError::Open { .. }), "{error:?}");
}

#[test]
fn a_missing_directory_is_made_and_the_file_is_its_owners_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a/b #1?/edge.db");
    drop(Store::open(&path).unwrap());
    let store = Store::open(&path).unwrap();
    store.write(&Fence::unfenced(), |tx| device::insert(tx, &device("lamp"))).unwrap();
    for file in fs::read_dir(path.parent().unwrap()).unwrap() {
        let file = file.unwrap();
        let mode = file.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{}", file.path().display());
    }
}

#[test]
fn the_connections_are_set_up_for_durability_and_little_memory() {
    let fixture = fixture();
    let pragma = |read: &mut Read<'_>, name: &str| cells(read.connection, &format!("SELECT {name} || '' AS value FROM pragma_{name}")).concat();
    let writer = fixture.write(|tx| Ok(["journal_mode", "synchronous", "foreign_keys", "cache_size"].map(|name| pragma(tx, name))));
    assert_eq!(writer, ["wal", "2", "1", "-1024"]);
    let reader = fixture.store.read(|read| Ok(["query_only", "cache_size"].map(|name| pragma(read, name)))).unwrap();
    assert_eq!(reader, ["1", "-256"]);
    // Both in one transaction each; a third waits for its turn.
    fixture.store.read(|_| fixture.store.read(|_| Ok(()))).unwrap();
}
