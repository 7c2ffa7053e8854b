//! The daemons as an operator changes them: SIGHUP, the line for systemd, an end that hangs, a store that hangs.

use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use harness::mqtt::publish;
use harness::{CloudUnderTest, EdgeOptions, EdgeUnderTest, eventually, http};

/// A socket such as systemd listens on.
struct Systemd {
    _dir: tempfile::TempDir,
    socket: UnixDatagram,
    environment: (String, String),
}

impl Systemd {
    fn listen() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
        Self { _dir: dir, socket, environment: ("NOTIFY_SOCKET".to_owned(), path.display().to_string()) }
    }

    /// The first line that is as wanted; what comes before it is skipped.
    fn hears(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let mut heard = Vec::new();
        let mut datagram = [0; 4096];
        while let Ok(length) = self.socket.recv(&mut datagram) {
            let text = String::from_utf8_lossy(&datagram[..length]).into_owned();
            if let Some(line) = text.lines().find(|line| wanted(line)) {
                return line.to_owned();
            }
            heard.push(text);
        }
        panic!("systemd did not hear {what}, only {heard:?}");
    }
}

fn configure(edge: &EdgeUnderTest, base: &str, more: &str) {
    std::fs::write(edge.config(), format!("{base}{more}")).unwrap();
}

/// The state of a module as the page shows it.
fn state(port: u16, module: &str) -> Result<String, String> {
    let (_, body) = http::get(port, &format!("/api/actors/{module}"))?;
    let details: serde_json::Value = serde_json::from_str(&body).map_err(|error| format!("{error}: {body}"))?;
    Ok(details["actor"]["state"].as_str().unwrap_or_default().to_owned())
}

fn is(port: u16, module: &str, wanted: &str) -> Result<(), String> {
    let found = state(port, module)?;
    if found == wanted { Ok(()) } else { Err(format!("{module} is {found}")) }
}

fn says(output: &str, words: &str) -> Result<(), String> {
    if output.contains(words) { Ok(()) } else { Err(output.to_owned()) }
}

#[test]
fn a_hangup_switches_modules_off_and_on_and_a_wrong_file_changes_nothing() {
    let systemd = Systemd::listen();
    let cloud = CloudUnderTest::start();
    let options = EdgeOptions { environment: vec![systemd.environment.clone()], hub_port: cloud.hub_port, ..EdgeOptions::default() };
    let mut edge = EdgeUnderTest::prepare(options);
    let base = std::fs::read_to_string(edge.config()).unwrap();
    configure(&edge, &base, "modules: {enabled: [eventbus, websocket, metaManager, twin]}\n");
    edge.join(&cloud);
    edge.run();
    edge.answers();
    systemd.hears("READY=1", |line| line == "READY=1");
    let connected = format!("connected to wss://127.0.0.1:{}", cloud.hub_port);
    systemd.hears("that it is connected", |line| line.starts_with("STATUS=7 actors up;") && line.contains(&connected) && line.contains("0 devices"));
    let port = edge.admin_port;
    is(port, "edged", "disabled").unwrap();

    // Off: the broker's port closes, the node leaves the cloud.
    configure(&edge, &base, "modules: {enabled: [metaManager, twin]}\nlog: {level: debug}\nmailbox: {messages: 99}\nmqtt: {qos: 1}\n");
    // `mqtt` stands twice now, which is no YAML.
    edge.daemon().signal("HUP");
    systemd.hears("that it reads", |line| line == "RELOADING=1");
    systemd.hears("when it began", |line| line == "READY=1");
    eventually!(10, "the error is in the log", says(&edge.daemon().output(), "SIGHUP: the configuration cannot be used, nothing is changed"));
    is(port, "event-bus", "up").unwrap();
    publish(edge.mqtt_port, "any/topic", "x").unwrap();

    configure(
        &edge,
        &base,
        "modules: {enabled: [metaManager, twin]}\nlog: {level: debug}\nmailbox: {messages: 99}\nmeta: {sync: {podstatus: {interval: 77}}}\n",
    );
    edge.daemon().signal("HUP");
    systemd.hears("that it has read", |line| line == "READY=1");
    // The page follows the supervisors, a moment behind.
    eventually!(10, "the broker is off", is(port, "event-bus", "disabled"));
    eventually!(10, "the hub is off", is(port, "edge-hub", "disabled"));
    assert!(TcpStream::connect(("127.0.0.1", edge.mqtt_port)).is_err(), "the broker's port is open");
    let output = edge.daemon().output();
    for words in ["module disabled", "forgotten", "meta.sync.podstatus.interval", "need a restart"] {
        says(&output, words).unwrap();
    }
    let (_, twin) = http::get(port, "/api/actors/twin").unwrap();
    assert!(twin.contains("\"capacity\":99"), "{twin}");
    let (_, events) = http::get(port, "/api/events").unwrap();
    assert!(events.contains("configured") && events.contains("disconnected"), "{events}");

    // On again: devices are served, the cloud is there.
    configure(&edge, &base, "modules: {enabled: [eventbus, websocket, metaManager, edged, twin]}\n");
    edge.daemon().signal("HUP");
    edge.answers();
    eventually!(15, "the module is up", is(port, "edge-hub", "up"));
    systemd.hears("that it is connected again", |line| line.starts_with("STATUS=8 actors up;") && line.contains(&connected));
    eventually!(15, "the page says where it is connected to", {
        let (_, body) = http::get(port, "/api/actors/edge-hub")?;
        if body.contains("\"connected\":true") { Ok(()) } else { Err(body) }
    });
    // Edged was not there at the start: the node registers, and becomes Ready.
    let kubectl = cloud.kubectl();
    eventually!(30, "the node is Ready", {
        let words = kubectl.run(&["get", "node", &edge.node])?;
        if words.contains(" Ready") { Ok(()) } else { Err(words) }
    });
    assert_eq!(state(port, "twin").unwrap(), "up");
    edge.stop();
    systemd.hears("STOPPING=1", |line| line == "STOPPING=1");
}

#[test]
fn a_module_whose_port_is_taken_stays_off_and_nothing_else_changes() {
    let cloud = CloudUnderTest::start();
    let mut edge = EdgeUnderTest::prepare(EdgeOptions { hub_port: cloud.hub_port, ..EdgeOptions::default() });
    let base = std::fs::read_to_string(edge.config()).unwrap();
    configure(&edge, &base, "modules: {enabled: [metaManager, twin]}\n");
    edge.run();
    let port = edge.admin_port;
    eventually!(15, "the page answers", is(port, "event-bus", "disabled"));
    let taken = std::net::TcpListener::bind(("127.0.0.1", edge.mqtt_port)).unwrap();
    configure(&edge, &base, "modules: {enabled: [eventbus, metaManager, twin]}\nmailbox: {messages: 99}\n");
    edge.daemon().signal("HUP");
    eventually!(10, "the error names the port", {
        let output = edge.daemon().output();
        says(&output, "nothing is changed").and_then(|()| says(&output, &edge.mqtt_port.to_string()))
    });
    is(port, "event-bus", "disabled").unwrap();
    let (_, twin) = http::get(port, "/api/actors/twin").unwrap();
    assert!(twin.contains("\"capacity\":1024"), "{twin}");
    drop(taken);
    // A child of another test may hold the port until it begins, and the broker takes connections before the actor has begun.
    eventually!(20, "the module is up", {
        edge.daemon().signal("HUP");
        is(port, "event-bus", "up")
    });
    edge.answers();
}

#[test]
fn a_hangup_applies_the_clouds_limits_and_names_what_needs_a_restart() {
    let systemd = Systemd::listen();
    let options = harness::CloudOptions { environment: vec![systemd.environment.clone()], ..harness::CloudOptions::default() };
    let mut cloud = CloudUnderTest::prepare(options);
    cloud.run();
    cloud.answers();
    systemd.hears("READY=1", |line| line == "READY=1");
    systemd.hears("how it is", |line| line == "STATUS=4 actors up; 0 nodes connected");
    let port = cloud.admin_port;
    eventually!(
        15,
        "the service is ready",
        match http::get(port, "/readyz?verbose") {
            Ok((200, body)) if body.contains("api") && body.contains("listener") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    );
    let text = std::fs::read_to_string(cloud.config()).unwrap();
    let changed = text.replace("cloudhub:\n", "cloudhub:\n  node-limit: 7\n  advertise-address: [cloud.example]\n");
    std::fs::write(cloud.config(), format!("{changed}mailbox: {{messages: 99}}\n")).unwrap();
    cloud.daemon().signal("HUP");
    systemd.hears("that it reads", |line| line == "RELOADING=1");
    systemd.hears("that it has read", |line| line == "READY=1");
    let (_, hub) = http::get(port, "/api/actors/cloud_hub").unwrap();
    assert!(hub.contains("\"capacity\":99") && hub.contains("\"node_limit\":7"), "{hub}");
    let output = cloud.daemon().output();
    for words in ["cloudhub.node-limit", "cloudhub.advertise-address", "need a restart"] {
        says(&output, words).unwrap();
    }
    std::fs::write(cloud.config(), "cloudhub: {node-limit: 0}\n").unwrap();
    cloud.daemon().signal("HUP");
    eventually!(10, "the error is in the log", says(&cloud.daemon().output(), "SIGHUP: the configuration cannot be used, nothing is changed"));
    let (_, hub) = http::get(port, "/api/actors/cloud_hub").unwrap();
    assert!(hub.contains("\"node_limit\":7"), "{hub}");
    cloud.stop();
    systemd.hears("STOPPING=1", |line| line == "STOPPING=1");
}

/// An edge whose store hangs, and a module that waits for it.
fn hanging() -> (CloudUnderTest, EdgeUnderTest) {
    let cloud = CloudUnderTest::start();
    let mut edge = EdgeUnderTest::prepare(EdgeOptions { hub_port: cloud.hub_port, ..EdgeOptions::default() });
    let base = std::fs::read_to_string(edge.config()).unwrap();
    configure(&edge, &base.replace("admin:\n", "admin:\n  fault-injection: true\n"), "modules: {enabled: [eventbus, metaManager, twin]}\n");
    edge.run();
    edge.answers();
    let (status, words) = eventually!(10, "the page answers", http::post(edge.admin_port, "/debug/store/hang"));
    assert_eq!(status, 202, "{words}");
    publish(edge.mqtt_port, &format!("$hw/events/node/{}/membership/get", edge.node), r#"{"event_id":"e"}"#).unwrap();
    eventually!(10, "membership waits for the store", {
        let (_, body) = http::get(edge.admin_port, "/api/actors/membership")?;
        if body.contains("\"in_hand\":\"Get\"") { Ok(()) } else { Err(body) }
    });
    (cloud, edge)
}

#[test]
fn a_second_signal_ends_a_daemon_at_once_that_cannot_end_in_order() {
    let (_cloud, mut edge) = hanging();
    edge.daemon().signal("TERM");
    eventually!(10, "it tries to end in order", says(&edge.daemon().output(), "stopping"));
    edge.daemon().must_run().unwrap();
    edge.daemon().signal("TERM");
    assert!(edge.daemon().wait(Duration::from_secs(4)).is_some(), "{}", edge.daemon().tail());
    says(&edge.daemon().output(), "second signal: ending at once").unwrap();
}

#[test]
fn a_store_that_hangs_ends_the_process_with_71_and_the_next_start_serves() {
    let (_cloud, mut edge) = hanging();
    let status = edge.daemon().wait(Duration::from_secs(45));
    assert_eq!(status.and_then(|status| status.code()), Some(71), "{}", edge.daemon().tail());
    edge.run();
    edge.answers();
    eventually!(10, "membership answers again", {
        let (_, body) = http::get(edge.admin_port, "/readyz/store")?;
        if body.starts_with("ok") { Ok(()) } else { Err(body) }
    });
}

#[test]
fn drills_are_refused_where_they_are_not_configured() {
    let cloud = CloudUnderTest::start();
    let mut edge = EdgeUnderTest::prepare(EdgeOptions { hub_port: cloud.hub_port, ..EdgeOptions::default() });
    let base = std::fs::read_to_string(edge.config()).unwrap();
    configure(&edge, &base, "modules: {enabled: [eventbus, metaManager, twin]}\n");
    edge.run();
    edge.answers();
    let (status, words) = eventually!(10, "the page answers", http::post(edge.admin_port, "/debug/store/hang"));
    assert_eq!(status, 404, "{words}");
    assert!(words.contains("admin.fault-injection"), "{words}");
}
