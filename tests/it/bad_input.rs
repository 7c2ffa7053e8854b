//! Bad input from outside: one clear sentence (what, where, what to do), a stated exit code, and nothing half-written.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;

use harness::daemon::End;
use harness::{CloudOptions, CloudUnderTest, EdgeOptions, EdgeUnderTest, Line, docker, eventually, sqlite};

const USAGE: i32 = 64;
const UNAVAILABLE: i32 = 69;
const IO: i32 = 74;
const CERTIFICATE: i32 = 76;
const CONFIGURATION: i32 = 78;

/// The sentence names all of `words`, and there is exactly one.
#[track_caller]
fn ended(end: &End, code: i32, words: &[&str]) {
    assert_eq!(end.code, Some(code), "{}", end.output);
    let errors = end.output.lines().filter(|line| line.contains("ERROR")).count();
    assert_eq!(errors, 1, "one sentence, not {errors}:\n{}", end.output);
    for word in words {
        assert!(end.sentence().contains(word), "`{word}` is not in: {}", end.sentence());
    }
    assert!(!end.output.contains("panicked"), "{}", end.output);
}

/// Every file below `dir`, relative.
fn files(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(&next).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                open.push(entry.path());
            } else {
                found.push(entry.path().strip_prefix(dir).unwrap().display().to_string());
            }
        }
    }
    found.sort();
    found
}

/// An edge that has joined and could run.
fn joined() -> (CloudUnderTest, EdgeUnderTest) {
    let cloud = CloudUnderTest::start();
    let edge = EdgeUnderTest::prepare(EdgeOptions { hub_port: cloud.hub_port, ..EdgeOptions::default() });
    edge.join(&cloud);
    (cloud, edge)
}

#[test]
fn a_malformed_yaml_file_is_named_with_its_line_and_nothing_is_written() {
    let mut edge = EdgeUnderTest::prepare(EdgeOptions::default());
    let text = fs::read_to_string(edge.config()).unwrap();
    fs::write(edge.config(), format!("{text}  - [broken\n")).unwrap();
    let line = format!("line {}", text.lines().count() + 1);
    ended(&edge.ends(), CONFIGURATION, &["edge.yaml", "line"]);
    assert!(files(&edge.data()).is_empty(), "{:?}; {line}", files(&edge.data()));

    let mut cloud = CloudUnderTest::prepare(CloudOptions::default());
    fs::write(cloud.config(), "cloudhub: {port: [\n").unwrap();
    ended(&cloud.ends(), CONFIGURATION, &["cloud.yaml", "line"]);
    assert!(files(&cloud.data()).is_empty(), "{:?}", files(&cloud.data()));
}

#[test]
fn an_unknown_key_and_a_value_of_another_type_are_named() {
    for (line, word) in [("mqttt:\n  mode: 0\n", "mqttt"), ("meta: 7\n", "meta")] {
        let mut edge = EdgeUnderTest::prepare(EdgeOptions::default());
        let text = fs::read_to_string(edge.config()).unwrap();
        fs::write(edge.config(), format!("{text}{line}")).unwrap();
        ended(&edge.ends(), CONFIGURATION, &["edge.yaml", word]);
        assert!(files(&edge.data()).is_empty());
    }
    let environment = vec![("SKEP_MQTT__MODE".to_owned(), "embedded".to_owned())];
    let mut edge = EdgeUnderTest::prepare(EdgeOptions { environment, ..EdgeOptions::default() });
    ended(&edge.ends(), CONFIGURATION, &["SKEP_MQTT__MODE"]);

    let environment = vec![("SKEP_CLOUDHUB__PORT".to_owned(), "many".to_owned())];
    let mut cloud = CloudUnderTest::prepare(CloudOptions { environment, ..CloudOptions::default() });
    ended(&cloud.ends(), CONFIGURATION, &["SKEP_CLOUDHUB__PORT"]);
}

#[test]
fn a_missing_configuration_file_is_named() {
    let mut edge = EdgeUnderTest::prepare(EdgeOptions::default());
    fs::remove_file(edge.config()).unwrap();
    ended(&edge.ends(), CONFIGURATION, &["edge.yaml", "--config"]);
    let mut cloud = CloudUnderTest::prepare(CloudOptions::default());
    fs::remove_file(cloud.config()).unwrap();
    ended(&cloud.ends(), CONFIGURATION, &["cloud.yaml", "--config"]);
}

#[test]
fn an_unknown_argument_is_a_usage_error() {
    for program in ["skep-edge", "skep-cloud"] {
        let output = std::process::Command::new(harness::program(program)).args(["run", "--nonsense"]).output().unwrap();
        assert_eq!(output.status.code(), Some(USAGE), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn an_occupied_port_is_named_with_its_key() {
    let (_cloud, mut edge) = joined();
    let taken = TcpListener::bind(("127.0.0.1", edge.mqtt_port)).unwrap();
    ended(&edge.ends(), UNAVAILABLE, &[&edge.mqtt_port.to_string(), "internal-server"]);
    drop(taken);
    let _taken = TcpListener::bind(("127.0.0.1", edge.admin_port)).unwrap();
    ended(&edge.ends(), UNAVAILABLE, &[&edge.admin_port.to_string(), "admin"]);

    let mut cloud = CloudUnderTest::prepare(CloudOptions::default());
    for (port, key) in [
        (cloud.hub_port, "cloudhub.port"),
        (cloud.join_port, "cloudhub.https.port"),
        (cloud.api_port, "embedded.port"),
        (cloud.admin_port, "admin.port"),
    ] {
        let _taken = TcpListener::bind(("127.0.0.1", port)).unwrap();
        ended(&cloud.ends(), UNAVAILABLE, &[&port.to_string(), key]);
    }
}

#[test]
fn a_docker_socket_that_does_not_answer_ends_the_first_start_and_nothing_is_written() {
    let cloud = CloudUnderTest::start();
    let options = EdgeOptions { docker_socket: "/nonexistent/docker.sock".into(), ..EdgeOptions::default() };
    let mut edge = EdgeUnderTest::prepare(options);
    edge.join(&cloud);
    ended(&edge.ends(), UNAVAILABLE, &["/nonexistent/docker.sock", "edged.docker-address"]);
    assert!(!edge.database().exists());
}

#[test]
fn a_docker_socket_that_is_gone_later_is_said_and_devices_are_served() {
    if !docker::required() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let wire = Line::unix(&dir.path().join("docker.sock"), Path::new("/var/run/docker.sock"));
    let cloud = CloudUnderTest::start();
    let mut edge = EdgeUnderTest::start_with(&cloud, EdgeOptions { docker_socket: wire.path().to_owned(), ..EdgeOptions::default() });
    edge.stop();
    wire.cut();
    edge.run();
    edge.answers();
    // Docker may come back, so it is no reason to end; the log and the node say what is wrong.
    eventually!(20, "the log names the socket", {
        let output = edge.daemon().output();
        let said = output.lines().any(|line| line.contains("docker.sock") && (line.contains("WARN") || line.contains("ERROR")));
        if said { Ok(()) } else { Err(output) }
    });
    harness::mqtt::publish(edge.mqtt_port, "any/topic", "x").unwrap();
    edge.daemon().must_run().unwrap();
}

#[test]
fn a_state_directory_that_cannot_be_written_is_named() {
    // A file in its place: rights alone do not stop root.
    let mut edge = EdgeUnderTest::prepare(EdgeOptions::default());
    fs::remove_dir(edge.data()).unwrap();
    fs::write(edge.data(), "in the way").unwrap();
    ended(&edge.ends(), IO, &[&edge.data().display().to_string()]);
    assert_eq!(fs::read_to_string(edge.data()).unwrap(), "in the way");

    let mut cloud = CloudUnderTest::prepare(CloudOptions::default());
    fs::remove_dir(cloud.data()).unwrap();
    fs::write(cloud.data(), "in the way").unwrap();
    ended(&cloud.ends(), IO, &[&cloud.data().display().to_string()]);
    assert_eq!(fs::read_to_string(cloud.data()).unwrap(), "in the way");
}

#[test]
fn a_state_directory_of_another_user_is_named() {
    for name in ["skep-edge", "skep-cloud"] {
        // Below /var/tmp and copied, so that the other user reaches program and configuration, and fails at the state alone.
        let dir = tempfile::Builder::new().prefix("skep-").tempdir_in("/var/tmp").unwrap();
        let (program, data, config) = (dir.path().join(name), dir.path().join("data"), dir.path().join("config.yaml"));
        // By another process: of a file that this one has open for writing, a child of another test may hold a copy until it begins.
        let copied = std::process::Command::new("cp").arg(harness::program(name)).arg(&program).status().unwrap();
        assert!(copied.success());
        fs::create_dir(&data).unwrap();
        fs::write(&config, format!("data-dir: {}\n", data.display())).unwrap();
        // Root passes every mode; nobody does not. Another user than root is stopped by the mode as it is.
        let root = fs::metadata(&data).unwrap().uid() == 0;
        if name == "skep-edge" {
            // It has joined, and may read its certificate.
            let (_cloud, joined) = joined();
            fs::create_dir(data.join("pki")).unwrap();
            for name in ["ca.crt", "edge.crt", "edge.key"] {
                let copy = data.join("pki").join(name);
                fs::copy(joined.file("pki").join(name), &copy).unwrap();
                if root {
                    chown(&copy, Some(65534), Some(65534)).unwrap();
                }
            }
            // Without pods: that user may not talk to Docker either, which would be said first.
            let modules = "modules: {enabled: [eventbus, websocket, metaManager, twin]}";
            fs::write(&config, format!("data-dir: {}\nedgehub: {{controller: {{node-id: {}}}}}\n{modules}\n", data.display(), joined.node)).unwrap();
        }
        let before = files(&data);
        for (path, mode) in [(dir.path(), 0o755), (&program, 0o755), (&data, 0o555), (&config, 0o644)] {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
        let drop_to = if root { ["--reuid=65534", "--regid=65534", "--clear-groups"].as_slice() } else { &[] };
        let output = std::process::Command::new("setpriv").args(drop_to).arg(&program).args(["run", "--config"]).arg(&config).output().unwrap();
        let end = End { code: output.status.code(), output: String::from_utf8_lossy(&output.stderr).into_owned() };
        ended(&end, IO, &[&data.display().to_string()]);
        assert_eq!(files(&data), before, "something was written");
    }
}

#[test]
fn a_database_of_a_newer_schema_is_left_as_it_is() {
    const NEWER: &str = "INSERT INTO __diesel_schema_migrations (version) VALUES ('99991231000001')";
    let (mut cloud, mut edge) = joined();
    edge.run();
    edge.answers();
    edge.stop();
    sqlite::execute(&edge.database(), NEWER);
    let before = fs::read(edge.database()).unwrap();
    ended(&edge.ends(), IO, &[&edge.database().display().to_string(), "99991231000001"]);
    assert_eq!(fs::read(edge.database()).unwrap(), before, "the database was changed");

    cloud.stop();
    sqlite::execute(&cloud.database(), NEWER);
    let before = fs::read(cloud.database()).unwrap();
    ended(&cloud.ends(), IO, &[&cloud.database().display().to_string(), "99991231000001"]);
    assert_eq!(fs::read(cloud.database()).unwrap(), before, "the database was changed");
}

#[test]
fn a_certificate_of_another_authority_ends_the_edge_at_once() {
    let (_cloud, mut edge) = joined();
    let (_other_cloud, other) = joined();
    // Certificate and key belong together, and not to the authority beside them.
    for name in ["edge.crt", "edge.key"] {
        fs::copy(other.file("pki").join(name), edge.file("pki").join(name)).unwrap();
    }
    ended(&edge.ends(), CERTIFICATE, &["edge.crt", "ca.crt", "skep-edge join"]);
    assert!(!edge.database().exists(), "a database was begun");
}

#[test]
fn a_cloud_of_another_authority_gets_nothing_and_devices_are_served() {
    let (cloud, mut edge) = joined();
    // The same address, another authority: what a reinstalled or a false cloud looks like. It may be away tomorrow,
    // so it is no reason to leave the devices alone.
    let mut other = CloudUnderTest::prepare(CloudOptions::default());
    let text = fs::read_to_string(other.config()).unwrap();
    let (from, to) = (format!("  port: {}\n  https", other.hub_port), format!("  port: {}\n  https", cloud.hub_port));
    assert!(text.contains(&from), "{text}");
    fs::write(other.config(), text.replace(&from, &to)).unwrap();
    other.hub_port = cloud.hub_port;
    drop(cloud);
    other.run();
    other.answers();
    edge.run();
    edge.answers();
    eventually!(20, "one clear sentence", {
        let output = edge.daemon().output();
        let said = output.lines().any(|line| line.contains("ca.crt") && line.contains("skep-edge join") && !line.contains("INFO"));
        if said { Ok(()) } else { Err(output) }
    });
    harness::mqtt::publish(edge.mqtt_port, "any/topic", "x").unwrap();
    assert!(!other.daemon().output().contains("node connected"), "{}", other.daemon().output());
}

#[test]
fn a_token_of_another_cloud_is_refused_before_anything_is_sent_or_written() {
    let (cloud, other) = (CloudUnderTest::start(), CloudUnderTest::start());
    let edge = EdgeUnderTest::prepare(EdgeOptions::default());
    let end = edge.try_join(cloud.join_port, &other.token());
    assert_eq!(end.code, Some(CERTIFICATE), "{}", end.output);
    assert!(files(&edge.data()).is_empty(), "{:?}", files(&edge.data()));
}

#[test]
fn a_join_that_is_refused_leaves_no_certificate() {
    let cloud = CloudUnderTest::start();
    let edge = EdgeUnderTest::prepare(EdgeOptions::default());
    let token = cloud.token();
    let mut forged = token.clone();
    let last = forged.pop().unwrap();
    forged.push(if last == 'A' { 'B' } else { 'A' });
    for (token, code) in [(forged.as_str(), CERTIFICATE), ("nonsense", USAGE)] {
        let end = edge.try_join(cloud.join_port, token);
        assert!(end.code.is_some_and(|code| code != 0), "{}", end.output);
        assert!(end.code == Some(code) || end.code == Some(CONFIGURATION) || end.code == Some(CERTIFICATE), "code {:?}: {}", end.code, end.output);
        assert!(files(&edge.data()).is_empty(), "{:?}", files(&edge.data()));
    }
    let nobody = harness::names::port();
    let end = edge.try_join(nobody, &token);
    assert_eq!(end.code, Some(UNAVAILABLE), "{}", end.output);
    assert!(files(&edge.data()).is_empty());
}

#[test]
fn an_edge_that_never_joined_says_how_to() {
    let mut edge = EdgeUnderTest::prepare(EdgeOptions::default());
    ended(&edge.ends(), CERTIFICATE, &["skep-edge join"]);
}

/// The second configuration with the first one's state: other ports, the same database.
fn share_state(first: &Path, second_config: &Path, second_data: &Path) {
    let text = fs::read_to_string(second_config).unwrap();
    let (own, shared) = (format!("data-dir: {}", second_data.display()), format!("data-dir: {}", first.display()));
    assert!(text.contains(&own), "{text}");
    fs::write(second_config, text.replace(&own, &shared)).unwrap();
}

#[test]
fn a_second_daemon_on_the_same_database_is_refused_and_the_first_works_on() {
    let (mut cloud, mut edge) = joined();
    edge.run();
    edge.answers();
    let mut second = EdgeUnderTest::prepare(EdgeOptions { node: edge.node.clone(), hub_port: cloud.hub_port, ..EdgeOptions::default() });
    share_state(&edge.data(), &second.config(), &second.data());
    let pid = edge.daemon().pid().to_string();
    ended(&second.ends(), IO, &[&edge.database().display().to_string(), &pid, "data-dir"]);
    harness::mqtt::publish(edge.mqtt_port, "any/topic", "x").unwrap();
    edge.daemon().must_run().unwrap();

    let mut second = CloudUnderTest::prepare(CloudOptions::default());
    share_state(&cloud.data(), &second.config(), &second.data());
    let pid = cloud.daemon().pid().to_string();
    ended(&second.ends(), IO, &[&cloud.database().display().to_string(), &pid, "data-dir"]);
    cloud.kubectl().run(&["get", "nodes"]).unwrap();

    // Only a living process counts.
    edge.kill();
    edge.run();
    edge.answers();
}
