//! `skep-edge mqtt-user`: who may use the embedded broker, while the daemon runs.

use std::io::Write as _;
use std::process::{Command, Stdio};

use harness::daemon::program;
use harness::{CloudUnderTest, EdgeOptions, EdgeUnderTest, eventually};

/// Runs `skep-edge mqtt-user` with something on standard input: exit code and all that it wrote.
fn mqtt_user(edge: &EdgeUnderTest, arguments: &[&str], input: &str) -> (Option<i32>, String) {
    let mut child = Command::new(program("skep-edge"))
        .arg("mqtt-user")
        .args(arguments)
        .arg("--config")
        .arg(edge.config())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may have ended before, without a look at it.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

/// Whether the broker lets this user publish.
fn comes_in(edge: &EdgeUnderTest, login: &[&str]) -> bool {
    let port = edge.mqtt_port.to_string();
    let arguments = ["10", "mosquitto_pub", "-h", "127.0.0.1", "-p", &port, "-q", "1", "-t", "t", "-m", "m"];
    Command::new("timeout").args(arguments).args(login).stderr(Stdio::null()).status().unwrap().success()
}

#[test]
fn users_are_added_given_another_password_listed_and_removed_and_the_daemon_follows() {
    let cloud = CloudUnderTest::start();
    let mut edge = EdgeUnderTest::prepare(EdgeOptions { hub_port: cloud.hub_port, ..EdgeOptions::default() });
    let users = edge.dir.path().join("users");
    let text = std::fs::read_to_string(edge.config()).unwrap();
    std::fs::write(edge.config(), text.replace("mqtt:\n", &format!("mqtt:\n  internal-users-file: {}\n", users.display()))).unwrap();
    edge.join(&cloud);
    let (code, said) = mqtt_user(&edge, &["add", "lamp"], "light\n");
    assert_eq!(code, Some(0), "{said}");
    let written = std::fs::read_to_string(&users).unwrap();
    assert!(written.starts_with("lamp:$argon2id$") && !written.contains("light"), "{written}");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&users).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);

    edge.run();
    let lamp = ["-u", "lamp", "-P", "light"];
    eventually!(30, "the lamp comes in", if comes_in(&edge, &lamp) { Ok(()) } else { Err(edge.daemon().tail()) });
    assert!(!comes_in(&edge, &["-u", "lamp", "-P", "dark"]) && !comes_in(&edge, &[]) && !comes_in(&edge, &["-u", "fan", "-P", "wind"]));

    assert_eq!(mqtt_user(&edge, &["add", "fan"], "wind\n").0, Some(0));
    assert!(comes_in(&edge, &["-u", "fan", "-P", "wind"]), "a user who was added while it runs");
    assert_eq!(mqtt_user(&edge, &["add", "lamp"], "bright\n").0, Some(0));
    assert!(comes_in(&edge, &["-u", "lamp", "-P", "bright"]) && !comes_in(&edge, &lamp), "another password");
    assert_eq!(mqtt_user(&edge, &["list"], ""), (Some(0), "fan\nlamp\n".to_owned()));
    assert_eq!(mqtt_user(&edge, &["remove", "fan"], "").0, Some(0));
    assert!(!comes_in(&edge, &["-u", "fan", "-P", "wind"]));

    let before = std::fs::read(&users).unwrap();
    for (arguments, input, words) in [
        (&["add", "a:b"][..], "x\n", "is no user's name"),
        (&["add", ""], "x\n", "is no user's name"),
        (&["add", "a\nb"], "x\n", "is no user's name"),
        (&["add", "new"], "", "standard input ended"),
        (&["add", "new"], "\n", "1 to 256 bytes"),
        (&["add", "new"], &format!("{}\n", "p".repeat(257)), "1 to 256 bytes"),
        (&["remove", "nobody"], "", "there is no user `nobody`"),
        (&["list", "--file", "/"], "", "cannot read `/`"),
    ] {
        let (code, said) = mqtt_user(&edge, arguments, input);
        assert!(code != Some(0) && said.contains(words), "{arguments:?}: {code:?} {said}");
    }
    let large = edge.dir.path().join("large");
    std::fs::File::create(&large).unwrap().set_len(2 << 20).unwrap();
    let (code, said) = mqtt_user(&edge, &["add", "new", "--file", large.to_str().unwrap()], "x\n");
    assert!(code != Some(0) && said.contains("longer than 1048576 bytes"), "{code:?} {said}");
    assert_eq!(std::fs::read(&users).unwrap(), before, "a refusal changed the file");
    edge.daemon().must_run().unwrap();
}
