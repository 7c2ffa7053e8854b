//! `status` of both daemons, as an administrator without a browser calls it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output};

use harness::{CloudUnderTest, EdgeOptions, EdgeUnderTest, eventually, program};

fn status(daemon: &str, arguments: &[&str]) -> Output {
    Command::new(program(daemon)).arg("status").args(arguments).output().unwrap()
}

fn text(output: &[u8]) -> String {
    String::from_utf8_lossy(output).into_owned()
}

/// An edge without pods and cloud, whose page is protected by `admin`.
fn edge(cloud: &CloudUnderTest, admin: &str) -> EdgeUnderTest {
    let mut edge = EdgeUnderTest::prepare(EdgeOptions { hub_port: cloud.hub_port, ..EdgeOptions::default() });
    edge.join(cloud);
    let base = fs::read_to_string(edge.config()).unwrap();
    let base = base.replace("admin:\n", &format!("admin:\n{admin}"));
    fs::write(edge.config(), format!("{base}modules: {{enabled: [eventbus, metaManager, twin]}}\n")).unwrap();
    edge.run();
    edge.answers();
    edge
}

#[test]
fn status_finds_the_page_by_the_configuration_and_prints_every_module() {
    let cloud = CloudUnderTest::start();
    let mut edge = edge(&cloud, "");
    let config = edge.config().display().to_string();
    let shown = eventually!(10, "the page answers", {
        let output = status("skep-edge", &["--config", &config]);
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    });
    for module in ["device-twin", "membership", "twin", "communication", "device", "event-bus", "edge-hub", "meta-manager", "edged"] {
        assert!(shown.contains(module), "{module} is not in\n{shown}");
    }
    let document = status("skep-edge", &["--admin", &format!("127.0.0.1:{}", edge.admin_port), "-o", "json"]);
    let document: serde_json::Value = serde_json::from_slice(&document.stdout).unwrap();
    assert_eq!(document["actors"].as_array().map(Vec::len), Some(8), "{document}");

    let config = cloud.config().display().to_string();
    let shown = text(&status("skep-cloud", &["--config", &config]).stdout);
    assert!(shown.contains("cloud_hub") && shown.contains("device_controller"), "{shown}");

    edge.stop();
    let gone = status("skep-edge", &["--config", &edge.config().display().to_string()]);
    assert_eq!(gone.status.code(), Some(69));
    assert!(text(&gone.stderr).contains("is it running"), "{}", text(&gone.stderr));
}

#[test]
fn status_brings_the_token_of_the_configuration_and_nobody_gets_in_without() {
    let cloud = CloudUnderTest::start();
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    fs::write(&token, "0123456789abcdef0123456789abcdef\n").unwrap();
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    let edge = edge(&cloud, &format!("  token-file: {}\n", token.display()));
    let config = edge.config().display().to_string();
    eventually!(10, "the page answers", {
        let output = status("skep-edge", &["--config", &config]);
        if output.status.success() { Ok(()) } else { Err(text(&output.stderr)) }
    });
    let refused = status("skep-edge", &["--admin", &format!("127.0.0.1:{}", edge.admin_port)]);
    assert_eq!(refused.status.code(), Some(69));
    assert!(text(&refused.stderr).contains("401"), "{}", text(&refused.stderr));
}

#[test]
fn status_shows_a_certificate_where_the_page_asks_for_one() {
    let cloud = CloudUnderTest::start();
    let pki = |name: &str| cloud.file("pki").join(name).display().to_string();
    let admin = format!("  tls-cert-file: {}\n  tls-key-file: {}\n  client-ca-file: {}\n", pki("server.crt"), pki("server.key"), pki("ca.crt"));
    let edge = edge(&cloud, &admin);
    let config = edge.config().display().to_string();
    let own = |name: &str| edge.file("pki").join(name).display().to_string();
    eventually!(10, "the page answers", {
        let output = status("skep-edge", &["--config", &config, "--cert", &own("edge.crt"), "--key", &own("edge.key"), "--ca", &own("ca.crt")]);
        if output.status.success() { Ok(()) } else { Err(text(&output.stderr)) }
    });
    let without = status("skep-edge", &["--config", &config]);
    assert_eq!(without.status.code(), Some(76));
    assert!(text(&without.stderr).contains("--cert"), "{}", text(&without.stderr));
}
