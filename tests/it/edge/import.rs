//! A database that KubeEdge wrote is taken over by `skep-edge import`.

use std::path::PathBuf;

use harness::mqtt::Listener;
use harness::{CloudUnderTest, EdgeOptions, EdgeUnderTest, eventually, names, sqlite, top};

use crate::world::value_of;

const DATA: i32 = 65;
const NO_INPUT: i32 = 66;
const STATE: i32 = 74;

/// A database of KubeEdge v0.2 in the edge's directory.
fn kubeedge(edge: &EdgeUnderTest) -> PathBuf {
    let path = edge.dir.path().join("kubeedge.db");
    let sql = std::fs::read_to_string(top().join("edge/src/import/fixtures/kubeedge-v0.2.sql")).unwrap();
    sqlite::execute(&path, &sql);
    path
}

#[test]
fn an_imported_twin_is_answered_over_mqtt_and_reported_to_the_cloud() {
    let cloud = CloudUnderTest::start();
    let mut edge = EdgeUnderTest::prepare(EdgeOptions { hub_port: cloud.hub_port, ..EdgeOptions::default() });
    edge.join(&cloud);
    cloud.kubectl().apply(&format!(
        "apiVersion: devices.kubeedge.io/v1beta1\nkind: Device\nmetadata: {{name: thermo}}\n\
         spec: {{nodeName: {}, properties: [{{name: temperature, reportToCloud: true}}]}}\n",
        edge.node
    ));
    let source = kubeedge(&edge);
    let before = std::fs::read(&source).unwrap();
    let end = edge.command(&["import", "--from", source.to_str().unwrap()]);
    assert_eq!(end.code, Some(0), "{}", end.output);
    for words in ["devices         3 imported", "properties      4 imported", "skipped: property `wrong` of device `thermo`"] {
        assert!(end.output.contains(words), "`{words}` is not in\n{}", end.output);
    }
    assert_eq!(std::fs::read(&source).unwrap(), before, "the source was changed");

    edge.run();
    edge.answers();
    let listener = Listener::subscribe(edge.mqtt_port, "$hw/events/device/thermo/twin/#");
    let event = names::unique("event");
    edge.publish("$hw/events/device/thermo/twin/get", &format!(r#"{{"event_id":"{event}","timestamp":1}}"#));
    let result = "$hw/events/device/thermo/twin/get/result";
    let answer = eventually!(20, "the twin is answered", listener.find(result, |body| body["event_id"] == event.as_str()));
    assert_eq!(value_of(&answer, "temperature", "actual"), Some("19"), "{answer}");
    eventually!(
        30,
        "the cloud hears of it",
        match cloud.kubectl().reported("thermo", "temperature") {
            Ok(value) if value == "19" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    );
}

#[test]
fn an_import_beside_a_running_daemon_or_of_no_database_is_refused_and_changes_nothing() {
    let mut edge = EdgeUnderTest::prepare(EdgeOptions::default());
    let base = std::fs::read_to_string(edge.config()).unwrap();
    std::fs::write(edge.config(), format!("{base}modules: {{enabled: [eventbus, metaManager, twin]}}\n")).unwrap();
    let source = kubeedge(&edge);
    let import = |edge: &EdgeUnderTest, from: &str| edge.command(&["import", "--from", from]);
    for (from, text, code) in
        [("nowhere.db", None, NO_INPUT), ("letter.db", Some("this is a letter, not a database\n"), DATA), ("songs.db", None, DATA)]
    {
        let path = edge.dir.path().join(from);
        match text {
            Some(text) => std::fs::write(&path, text).unwrap(),
            None if from == "songs.db" => sqlite::execute(&path, "CREATE TABLE songs (title TEXT)"),
            None => {}
        }
        let end = import(&edge, path.to_str().unwrap());
        assert_eq!(end.code, Some(code), "{from}: {}", end.output);
        assert!(end.sentence().contains(from) && !end.output.contains("panicked"), "{}", end.output);
        assert!(!edge.database().exists(), "{from}: a database was begun");
    }
    edge.run();
    edge.answers();
    let pid = edge.daemon().pid().to_string();
    let end = import(&edge, source.to_str().unwrap());
    assert_eq!(end.code, Some(STATE), "{}", end.output);
    assert!(end.sentence().contains(&pid), "{}", end.output);
    assert_eq!(sqlite::query(&edge.database(), "SELECT count(*) FROM device").unwrap(), "0");
    edge.daemon().must_run().unwrap();
}
