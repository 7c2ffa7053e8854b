use std::net::TcpListener;

use diesel::Connection as _;
use diesel::connection::SimpleConnection as _;

use super::*;
use crate::embedded::EmbeddedError;

#[test]
fn an_occupied_port_is_named() {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = other.local_addr().unwrap().port();
    let error = start(EmbeddedConfig { port, ..config(folder.path()) }).unwrap_err();
    assert!(matches!(error, EmbeddedError::PortOccupied { .. }), "{error}");
    assert!(error.to_string().contains(&port.to_string()));
    assert!(!folder.path().join("cloud.db").exists(), "nothing is half-written");
}

#[test]
fn a_missing_state_directory_is_named() {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let error = start(EmbeddedConfig { database: folder.path().join("none/cloud.db"), ..config(folder.path()) }).unwrap_err();
    assert!(matches!(&error, EmbeddedError::Directory { path, .. } if path.ends_with("none")), "{error}");
}

#[test]
fn bad_certificates_are_named() {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let garbage = folder.path().join("garbage.pem");
    std::fs::write(&garbage, "no PEM").unwrap();
    let missing = folder.path().join("missing.pem");
    for bad in [&garbage, &missing] {
        for config in [
            EmbeddedConfig { server_certificate: bad.clone(), ..config(folder.path()) },
            EmbeddedConfig { server_key: bad.clone(), ..config(folder.path()) },
            EmbeddedConfig { client_ca: bad.clone(), ..config(folder.path()) },
        ] {
            let error = start(config).unwrap_err();
            assert!(matches!(&error, EmbeddedError::Certificate { path, .. } if path == bad), "{error}");
        }
    }
    let error = start(EmbeddedConfig { server_key: folder.path().join("node.key"), ..config(folder.path()) }).unwrap_err();
    assert!(error.to_string().contains("node.key"), "{error}");
}

#[test]
fn a_newer_database_and_a_file_that_is_none_are_named() {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let database = folder.path().join("cloud.db");
    block_on(start(config(folder.path())).unwrap().stop());
    let mut connection = diesel::SqliteConnection::establish(&database.to_string_lossy()).unwrap();
    connection.batch_execute("PRAGMA busy_timeout = 10000; INSERT INTO __diesel_schema_migrations (version) VALUES ('99991231000000')").unwrap();
    drop(connection);
    assert!(matches!(start(config(folder.path())).unwrap_err(), EmbeddedError::DatabaseTooNew { .. }));
    let text = folder.path().join("text.db");
    std::fs::write(&text, "this is not a database, and long enough to be none\n".repeat(100)).unwrap();
    assert!(matches!(start(EmbeddedConfig { database: text, ..config(folder.path()) }).unwrap_err(), EmbeddedError::Database { .. }));
}

#[test]
fn what_was_answered_is_there_after_a_restart() {
    let mut fixture = fixture();
    let config_map = serde_json::json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kept"}});
    let maps = |client| kube::Api::<k8s_openapi::api::core::v1::ConfigMap>::namespaced(client, "skep");
    let version = block_on(async {
        let object = serde_json::from_value(config_map).unwrap();
        let created = maps(fixture.client().await).create(&kube::api::PostParams::default(), &object).await.unwrap();
        fixture.api.take().unwrap().stop().await;
        created.metadata.resource_version
    });
    fixture.api = Some(start(config(fixture.folder.path())).unwrap());
    let kept = block_on(async { maps(fixture.client().await).get("kept").await.unwrap() });
    assert_eq!(kept.metadata.resource_version, version);
}
