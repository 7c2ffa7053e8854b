//! The edge as an operator's machine sees it: systemd, the admin page, an external broker.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use harness::mqtt::{Broker, Listener, publish};
use harness::{CloudUnderTest, EdgeOptions, EdgeUnderTest, eventually, http, names};

#[test]
fn systemd_hears_ready_the_watchdog_and_stopping() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let environment = vec![("NOTIFY_SOCKET".to_owned(), path.display().to_string()), ("WATCHDOG_USEC".to_owned(), "400000".to_owned())];
    let cloud = CloudUnderTest::start();
    let mut edge = EdgeUnderTest::start_with(&cloud, EdgeOptions { environment, ..EdgeOptions::default() });

    let hear = |wanted: &str| {
        let mut heard = Vec::new();
        let mut datagram = [0; 4096];
        while let Ok(length) = socket.recv(&mut datagram) {
            heard.push(String::from_utf8_lossy(&datagram[..length]).into_owned());
            if heard.iter().any(|text| text.lines().any(|line| line == wanted)) {
                return;
            }
        }
        panic!("systemd did not hear {wanted}, only {heard:?}");
    };
    hear("READY=1");
    for _ in 0..3 {
        hear("WATCHDOG=1");
    }
    edge.stop();
    hear("STOPPING=1");
}

#[test]
fn the_page_shows_all_eight_modules_and_the_node_says_that_it_is_well() {
    let cloud = CloudUnderTest::start();
    let edge = EdgeUnderTest::start(&cloud);
    eventually!(
        15,
        "the daemon is ready",
        match http::get(edge.admin_port, "/readyz") {
            Ok((200, _)) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    );
    let (status, page) = http::get(edge.admin_port, "/").unwrap();
    assert_eq!(status, 200);
    for module in ["edge-hub", "meta-manager", "edged", "event-bus", "twin", "membership", "communication", "device"] {
        let words = [module.to_owned(), module.replace('-', "_")];
        assert!(words.iter().any(|word| page.contains(word)), "{module} is not on the page");
    }
    let (_, metrics) = http::get(edge.admin_port, "/metrics").unwrap();
    assert!(metrics.contains("skep_edge_mailbox_depth{"), "{metrics:.300}");
    let (_, metrics) = http::get(cloud.admin_port, "/metrics").unwrap();
    assert!(metrics.contains("skep_cloud_mailbox_depth{"), "{metrics:.300}");
}

#[test]
fn with_mode_2_devices_are_served_through_an_external_mosquitto() {
    let broker = Broker::start();
    let cloud = CloudUnderTest::start();
    let environment =
        vec![("SKEP_MQTT__MODE".to_owned(), "2".to_owned()), ("SKEP_MQTT__SERVER".to_owned(), format!("tcp://127.0.0.1:{}", broker.port))];
    let mut edge = EdgeUnderTest::prepare(EdgeOptions { hub_port: cloud.hub_port, environment, ..EdgeOptions::default() });
    edge.join(&cloud);
    edge.run();
    let device = names::unique("device");
    cloud.kubectl().apply(&format!(
        "apiVersion: devices.kubeedge.io/v1beta1\nkind: Device\nmetadata: {{name: {device}}}\n\
         spec: {{nodeName: {}, properties: [{{name: temperature, reportToCloud: true}}]}}\n",
        edge.node
    ));
    eventually!(30, "the edge knows the device", edge.knows(&device));

    let topic = format!("$hw/events/device/{device}/twin/update");
    let listener = Listener::subscribe(broker.port, &format!("{topic}/#"));
    let value = names::reading(10);
    publish(broker.port, &topic, &format!(r#"{{"event_id":"e","timestamp":1,"twin":{{"temperature":{{"actual":{{"value":"{value}"}}}}}}}}"#))
        .unwrap();
    eventually!(15, "the result comes back through mosquitto", listener.find(&format!("{topic}/result"), |body| body["event_id"] == "e"));
    edge.twin_is(&device, "temperature", "actual", &value).unwrap();
    assert!(std::net::TcpStream::connect(("127.0.0.1", edge.mqtt_port)).is_err(), "the embedded broker must not run in mode 2");
}

#[test]
fn a_hangup_ends_neither_daemon_and_is_logged() {
    let mut cloud = CloudUnderTest::start();
    let mut edge = EdgeUnderTest::start(&cloud);
    for daemon in [edge.daemon(), cloud.daemon()] {
        let sent = std::process::Command::new("kill").args(["-HUP", &daemon.pid().to_string()]).status().unwrap();
        assert!(sent.success());
        eventually!(10, "the log says what a SIGHUP does", {
            daemon.must_run()?;
            let output = daemon.output();
            if output.contains("SIGHUP") { Ok(()) } else { Err(output) }
        });
    }
    publish(edge.mqtt_port, "any/topic", "x").unwrap();
}
