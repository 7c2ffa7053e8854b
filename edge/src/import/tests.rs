#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::fs;
use std::path::PathBuf;

use model::{AttributeName, DeviceId, PropertyName, Timestamp, TwinProperty, TwinVersion};

use super::*;
use crate::communication::testing::Workbench;
use crate::store::testing::{build, build_with_log, contents, fails_at_every_step, spoil};
use crate::store::{ForeignError, SOURCE_BYTES_MAX, meta};

const V02: &str = include_str!("fixtures/kubeedge-v0.2.sql");
const V1: &str = include_str!("fixtures/kubeedge-v1.sql");
const NOW: Timestamp = Timestamp(1_552_989_600_000);

/// A target without devices, and a directory for sources.
struct Fixture {
    bench: Workbench,
    directory: tempfile::TempDir,
}

fn fixture() -> Fixture {
    Fixture { bench: Workbench::with(&[]), directory: tempfile::tempdir().unwrap() }
}

impl Fixture {
    fn path(&self) -> PathBuf {
        self.directory.path().join("edge.db")
    }

    fn source(&self, sql: &str) -> PathBuf {
        let _ = fs::remove_file(self.path());
        build(&self.path(), sql);
        self.path()
    }

    fn open(&self, damage: Damage) -> Result<Foreign, ForeignError> {
        Foreign::open(&self.path(), &scratch(self.bench.store.path()), damage)
    }

    fn import(&self, existing: Existing) -> Report {
        import(&self.bench.store, &mut self.open(Damage::Refuse).unwrap(), existing, NOW).unwrap()
    }

    fn property(&self, device: &str, name: &str) -> TwinProperty {
        self.bench.stored(device).unwrap().twin.properties.remove(&PropertyName::new(name).unwrap()).unwrap()
    }

    fn refused(&self) -> ForeignError {
        self.open(Damage::Refuse).err().unwrap()
    }
}

fn tally(tally: Tally) -> (u64, u64, u64) {
    (tally.imported, tally.kept, tally.skipped)
}

#[test]
fn what_kubeedge_v0_2_wrote_is_taken_over_and_the_rest_is_named_row_by_row() {
    let fixture = fixture();
    fixture.source(V02);
    let report = fixture.import(Existing::Keep);
    assert_eq!(tally(report.devices), (3, 0, 1), "{report}");
    assert_eq!(tally(report.attributes), (2, 0, 2), "{report}");
    assert_eq!(tally(report.properties), (4, 0, 7), "{report}");
    assert_eq!(tally(report.objects), (4, 0, 4), "{report}");
    let text = report.to_string();
    for line in [
        "skipped: device `a/b/c`: `a/b/c` is not a device id",
        "skipped: attribute `model` of device `thermo`: a newer row says the same",
        "skipped: attribute `model` of device `nobody`: there is no such device",
        "skipped: property `temperature` of device `thermo`: a newer row says the same",
        "skipped: property `broken` of device `thermo`: EOF while parsing",
        "skipped: property `no number` of device `thermo`: `no number` is not a twin property name",
        "skipped: property `wrong` of device `thermo`: its expected value `warm`",
        "skipped: property `double` of device `thermo`: unknown type `double`",
        "skipped: property `long` of device `thermo`: its expected value",
        "skipped: object `default/configmap/ack`: the content of default/configmap/ack is not an object",
        "skipped: object `default/nodestatus/edge-1`: objects of kind nodestatus are not kept",
        "skipped: object `node/edge-1/default/pod/web`: a resource is",
        "skipped: object `default/podstatus/gone`: there is no such pod",
        "device `shop/fan` is imported without its state `sleeping`",
    ] {
        assert!(text.contains(line), "`{line}` is not in\n{text}");
    }

    let thermo = fixture.bench.stored("thermo").unwrap();
    assert_eq!(
        (thermo.name.as_str(), thermo.description.as_str(), thermo.last_online.as_str()),
        ("Thermometer", "in the hall", "2019-03-19T10:00:00Z")
    );
    assert_eq!(thermo.state.unwrap().as_str(), "online");
    let model = &thermo.attributes[&AttributeName::new("model").unwrap()];
    assert_eq!((model.value.as_str(), model.optional), ("m1", false), "the newest row wins");
    let temperature = fixture.property("thermo", "temperature");
    assert_eq!(temperature.actual.unwrap(), model::TwinValue { value: "19".into(), timestamp: Timestamp(1_553_000_000_002) });
    assert_eq!(temperature.actual_version, Some(TwinVersion { cloud: 0, edge: 2 }));
    let alarm = fixture.property("thermo", "alarm");
    assert_eq!((alarm.actual, alarm.optional, alarm.actual_version), (None, false, None));
    let gone = fixture.property("thermo", "gone");
    assert!(gone.is_tombstone() && gone.actual_version == Some(TwinVersion { cloud: 0, edge: 9 }));
    // `default/lamp` and `lamp` are one device.
    assert_eq!(fixture.property("lamp", "power").actual.unwrap().value, "on");

    // The cloud hears what only this node knows, and not what it said itself.
    assert_eq!(fixture.bench.pending("thermo"), ["<state>", "gone", "temperature"]);
    assert_eq!(fixture.bench.pending("lamp"), ["power"]);

    let object = |key: &str| fixture.bench.read(|read| meta::get(read, &key.parse().unwrap()));
    let web = object("default/pod/web").unwrap();
    assert_eq!((web.uid.as_deref(), web.resource_version.as_deref()), (Some("u1"), Some("7")));
    assert_eq!(object("default/podstatus/web").unwrap().uid.as_deref(), Some("u1"));
    assert!(object("default/secret/key").unwrap().value.starts_with(r#"{"metadata""#));
    assert!(object("default/configmap/cfg").is_some());
}

#[test]
fn what_newer_kubeedge_wrote_is_taken_over_without_the_tables_that_are_not_ours() {
    let fixture = fixture();
    fixture.source(V1);
    let report = fixture.import(Existing::Keep);
    assert_eq!((tally(report.devices), tally(report.properties), tally(report.objects)), ((1, 0, 0), (1, 0, 0), (1, 0, 1)), "{report}");
    let text = report.to_string();
    assert!(text.contains("table meta_v2 is left out") && text.contains("there is no table device_attr"), "{text}");
    let force = fixture.property("factory/press", "force");
    assert_eq!((force.actual.unwrap().value.as_str(), force.optional), ("42", true));
}

#[test]
fn what_is_there_stays_unless_it_is_to_be_replaced_and_a_newer_version_stays_always() {
    let fixture = fixture();
    fixture.source(V02);
    fixture.import(Existing::Keep);
    let before = contents(&fixture.bench.store);
    let report = fixture.import(Existing::Keep);
    assert_eq!((tally(report.devices), tally(report.attributes), tally(report.properties)), ((0, 3, 1), (0, 2, 2), (0, 4, 7)), "{report}");
    assert_eq!(contents(&fixture.bench.store), before);

    let newer = r#"UPDATE device_twin SET actual = '77', actual_version = '{"cloud":0,"edge":3}' WHERE name = 'temperature';
        UPDATE device_twin SET actual = 'off', actual_version = '{"cloud":0,"edge":4}' WHERE name = 'power';
        UPDATE device_attr SET value = 'm9' WHERE name = 'model';"#;
    build(&fixture.path(), newer);
    let report = fixture.import(Existing::Replace);
    assert_eq!(fixture.property("thermo", "temperature").actual.unwrap().value, "77");
    assert_eq!(fixture.property("lamp", "power").actual.unwrap().value, "on");
    assert!(report.to_string().contains("property `power` of device `lamp`: the stored version is newer"), "{report}");
    let thermo = fixture.bench.stored("thermo").unwrap();
    assert_eq!(thermo.attributes[&AttributeName::new("model").unwrap()].value, "m9");
}

#[test]
fn an_import_that_fails_at_any_row_leaves_nothing() {
    let fixture = fixture();
    fixture.source(V02);
    let steps = fails_at_every_step(&fixture.bench.store, || {
        let mut source = fixture.open(Damage::Refuse).unwrap();
        import(&fixture.bench.store, &mut source, Existing::Keep, NOW).is_ok()
    });
    assert!(steps >= 3 + 2 + 4 + 4, "{steps}");
}

#[test]
fn a_log_that_is_not_in_the_file_yet_is_read_and_neither_is_changed() {
    let fixture = fixture();
    build_with_log(&fixture.path(), V02, "UPDATE device SET name = 'from the log' WHERE id = 'thermo'");
    let files = || -> Vec<_> {
        let mut all: Vec<_> = fs::read_dir(fixture.directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| (path.clone(), fs::read(path).unwrap()))
            .collect();
        all.sort();
        all
    };
    let before = files();
    assert_eq!(before.len(), 2);
    fixture.import(Existing::Keep);
    assert_eq!(fixture.bench.stored("thermo").unwrap().name, "from the log");
    assert_eq!(files(), before);
    assert!(!scratch(fixture.bench.store.path()).exists());
}

#[test]
fn a_source_that_cannot_be_read_is_refused_with_what_is_wrong() {
    let fixture = fixture();
    assert!(matches!(fixture.refused(), ForeignError::Unreadable { .. }));
    assert!(matches!(
        Foreign::open(fixture.directory.path(), &scratch(fixture.bench.store.path()), Damage::Refuse),
        Err(ForeignError::Unreadable { .. })
    ));
    fs::write(fixture.path(), "certainly not SQLite\n".repeat(1000)).unwrap();
    assert!(matches!(fixture.refused(), ForeignError::Damaged { .. }));
    assert!(matches!(fixture.open(Damage::Accept), Err(ForeignError::Damaged { .. })));
    for stranger in [
        "",
        "CREATE TABLE songs (title TEXT)",
        "CREATE TABLE t (x); CREATE VIEW device AS SELECT 1 AS id",
        "CREATE VIRTUAL TABLE device USING fts5(id)",
    ] {
        fixture.source(stranger);
        let error = fixture.refused();
        assert!(matches!(error, ForeignError::Stranger { .. }), "{stranger}: {error}");
    }
    fixture.source("CREATE TABLE device (name TEXT)");
    let error = import(&fixture.bench.store, &mut fixture.open(Damage::Refuse).unwrap(), Existing::Keep, NOW).unwrap_err();
    assert!(matches!(error, ImportError::Source(ForeignError::Stranger { .. })), "{error}");
    fs::File::create(fixture.path()).unwrap().set_len(SOURCE_BYTES_MAX + 1).unwrap();
    assert!(matches!(fixture.refused(), ForeignError::TooLarge { .. }));
}

#[test]
fn hostile_cells_cost_only_their_rows() {
    let fixture = fixture();
    fixture.source(V02);
    let hostile = r#"
        INSERT INTO device VALUES ('good', zeroblob(70000), '', '', ''), (x'ff00fe', '', '', '', ''), ('', '', '', '', '');
        INSERT INTO device VALUES ('new' || char(10) || 'line', '', '', '', ''), ('+/#', '', '', '', '');
        INSERT INTO device_attr (deviceid, name, value) VALUES ('thermo', printf('%.*c', 300, 'n'), ''), ('thermo', 'large', zeroblob(70000));
        INSERT INTO device_twin (deviceid, name, expected, expected_version) VALUES ('thermo', 'v', '1', '{"cloud":-1,"edge":0}'), ('thermo', 'w', x'00ff', '');
        INSERT INTO device_twin (deviceid, name, expected_version) VALUES ('thermo', 'deep', printf('%.*c', 100000, '['));
        INSERT INTO meta VALUES ('default/configmap/deep', 'configmap', printf('%.*c', 100000, '[')), ('default/pod/' || printf('%.*c', 300, 'n'), 'pod', '{}');
        INSERT INTO meta VALUES ('default/pod/not-json', 'pod', 'not json'), ('default/podstatus/web/x', 'podstatus', 'x');
        CREATE TRIGGER harm BEFORE INSERT ON device BEGIN SELECT RAISE(FAIL, 'harm'); END;"#;
    build(&fixture.path(), hostile);
    let report = fixture.import(Existing::Keep);
    assert_eq!((report.devices.imported, report.attributes.imported, report.properties.imported, report.objects.imported), (3, 2, 4, 4), "{report}");
    assert!(report.devices.skipped >= 5, "{report}");
    assert!(report.to_string().lines().all(|line| line.len() < 1000 && !line.contains('\u{0}')), "{report}");
    assert!(fixture.bench.stored("good").is_none(), "a name of 70,000 bytes");
}

#[test]
fn what_can_be_read_of_a_damaged_database_is_taken_where_that_is_wanted() {
    let fixture = fixture();
    fixture.source(V02);
    spoil(&fixture.path(), "device_attr");
    assert!(matches!(fixture.refused(), ForeignError::Damaged { .. }));
    let mut source = fixture.open(Damage::Accept).unwrap();
    let report = import(&fixture.bench.store, &mut source, Existing::Keep, NOW).unwrap();
    assert_eq!((report.devices.imported, report.attributes.imported, report.properties.imported), (3, 0, 4), "{report}");
    assert!(report.to_string().contains("table device_attr could be read in part only"), "{report}");
}

#[test]
fn a_database_of_ours_gives_its_uids_too() {
    let (old, new) = (fixture(), fixture());
    old.source(V02);
    old.import(Existing::Keep);
    let thermo = DeviceId::new("thermo").unwrap();
    old.bench.write(|tx| crate::store::device::set_uid(tx, &thermo, "u7"));
    let mut source = Foreign::open(old.bench.store.path(), &scratch(new.bench.store.path()), Damage::Refuse).unwrap();
    let report = import(&new.bench.store, &mut source, Existing::Keep, NOW).unwrap();
    assert_eq!(
        (tally(report.devices), tally(report.attributes), tally(report.properties), tally(report.objects)),
        ((3, 0, 0), (2, 0, 0), (4, 0, 0), (4, 0, 0)),
        "{report}"
    );
    assert_eq!(new.bench.read(|read| crate::store::device::row(read, &thermo)).unwrap().uid, "u7");
}
