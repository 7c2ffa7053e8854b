//! Who gets in at the embedded broker and what it may do there, with mosquitto's clients and certificates of rcgen.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests: a panic is the failure")]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use model::NodeName;
use mqtt5::broker::PasswordAuthProvider;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

use super::broker::{Broker, Config, Entrances, Guard};
use super::testing::{Client, SOON, clients_are_installed, eventually, publish, try_publish};
use crate::config::{InternalTls, Invalid, Mqtt, MqttRule};
use crate::tls::tests::{TestCa, ca};

/// Files of a broker with two users, TLS, and an authority for its clients.
struct Files {
    dir: tempfile::TempDir,
    ca: TestCa,
}

impl Files {
    fn new() -> Self {
        let files = Self { dir: tempfile::tempdir().unwrap(), ca: ca() };
        std::fs::write(files.path("ca.crt"), &files.ca.pem).unwrap();
        files.certificate("server", &files.ca, "broker");
        std::fs::write(files.path("users"), format!("# made by hand\n{}\n{}\n", line("lamp", "light"), line("fan", "wind"))).unwrap();
        files
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn certificate(&self, file: &str, ca: &TestCa, name: &str) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        std::fs::write(self.path(&format!("{file}.crt")), params.signed_by(&key, &ca.issuer).unwrap().pem()).unwrap();
        std::fs::write(self.path(&format!("{file}.key")), key.serialize_pem()).unwrap();
    }

    fn tls(&self, by_certificate: bool) -> Mqtt {
        let client_ca_file = if by_certificate { self.path("ca.crt") } else { std::path::PathBuf::new() };
        Mqtt {
            internal_tls_server: "mqtts://127.0.0.1:0".into(),
            internal_tls: InternalTls { cert_file: self.path("server.crt"), key_file: self.path("server.key"), client_ca_file },
            ..Mqtt::default()
        }
    }
}

fn line(name: &str, password: &str) -> String {
    format!("{name}:{}", PasswordAuthProvider::hash_password(password).unwrap())
}

fn speaks_for(user: &str, device: &str) -> MqttRule {
    MqttRule { user: user.into(), devices: vec![device.into()], ..MqttRule::default() }
}

fn anywhere() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn start(mqtt: &Mqtt) -> Broker {
    let entrances = Entrances::new(mqtt, anywhere()).unwrap().into();
    Broker::open(Config { address: anywhere(), session_queue_size: 100 }, Guard { entrances, ..Guard::default() }).unwrap()
}

const UPDATE: &str = "$hw/events/device/lamp/twin/update";

#[test]
fn with_a_users_file_only_the_right_password_opens() {
    if !clients_are_installed() {
        return;
    }
    let files = Files::new();
    let broker = start(&Mqtt { internal_users_file: files.path("users"), ..Mqtt::default() });
    let says = |arguments: &[&str]| try_publish(broker.address(), &[&["-q", "1", "-t", "t", "-m", "x"], arguments].concat());
    assert!(says(&["-u", "lamp", "-P", "light"]));
    assert!(says(&["-u", "lamp", "-P", "light"]), "a second time, from memory");
    for wrong in [&[][..], &["-u", "lamp"], &["-u", "lamp", "-P", "wind"], &["-u", "nobody", "-P", "light"], &["-u", "lamp", "-P", ""]] {
        assert!(!says(wrong), "{wrong:?}");
    }
    // A new password counts at once, and the old one no more.
    std::fs::write(files.path("users"), format!("{}\n", line("lamp", "dark-and-longer"))).unwrap();
    assert!(!says(&["-u", "lamp", "-P", "light"]) && says(&["-u", "lamp", "-P", "dark-and-longer"]));
    // A file that cannot be used changes nothing.
    std::fs::write(files.path("users"), "nonsense\n").unwrap();
    assert!(says(&["-u", "lamp", "-P", "dark-and-longer"]));
}

#[test]
fn a_client_that_is_limited_to_its_device_does_not_reach_another_s_topics() {
    if !clients_are_installed() {
        return;
    }
    let files = Files::new();
    let rules = vec![
        speaks_for("*", "{user}"),
        MqttRule { user: "watch".into(), publish: vec!["ready".into()], subscribe: vec!["#".into(), "$hw/#".into()], ..MqttRule::default() },
    ];
    std::fs::write(files.path("users"), [line("lamp", "light"), line("fan", "wind"), line("watch", "eyes")].join("\n")).unwrap();
    let broker = start(&Mqtt { internal_users_file: files.path("users"), internal_rules: rules, ..Mqtt::default() });
    let mut watch = Client::subscribe(broker.address(), &["-u", "watch", "-P", "eyes", "-t", "$hw/#", "-t", "#"]);
    for version in ["mqttv311", "mqttv5"] {
        for qos in ["0", "1", "2"] {
            let fan = ["-u", "fan", "-P", "wind", "-V", version, "-q", qos, "-m", version];
            let says = |topic: &str| try_publish(broker.address(), &[&fan[..], &["-t", topic]].concat());
            for other in [UPDATE, "$hw/events/device/default/lamp/twin/get", "$hw/events/device/fan/twin/update/result", "any", "$SYS/x"] {
                let _ = says(other);
            }
            assert!(says("$hw/events/device/fan/twin/update"));
            assert_eq!(watch.line(), format!("$hw/events/device/fan/twin/update {version}"), "another topic got through at QoS {qos}");
        }
    }
    // Subscriptions that are refused stand beside one that is granted, which goes on.
    let own = "$hw/events/device/fan/twin/update/result";
    let refused = ["-t", "#", "-t", "$hw/#", "-t", UPDATE, "-t", "$hw/events/device/lamp/twin/+/result", "-t", "$share/g/$hw/#"];
    let mut fan = Client::subscribe(broker.address(), &[&["-u", "fan", "-P", "wind", "-t", own], &refused[..]].concat());
    publish(broker.address(), &["-u", "lamp", "-P", "light", "-q", "1", "-t", UPDATE, "-m", "not for the fan"]);
    assert_eq!(watch.line(), format!("{UPDATE} not for the fan"));
    assert!(fan.runs() && !fan.heard());
}

#[test]
fn what_the_daemon_says_reaches_a_limited_client_and_the_daemon_hears_it_whatever_the_rules() {
    if !clients_are_installed() {
        return;
    }
    let files = Files::new();
    let mqtt = Mqtt {
        internal_server: "tcp://127.0.0.1:0".into(),
        internal_users_file: files.path("users"),
        internal_rules: vec![speaks_for("lamp", "lamp"), speaks_for("fan", "fan")],
        ..Mqtt::default()
    };
    let world = super::tests::World::new(16);
    let (sockets, mut bus) = super::tests::started(&world, &mqtt);
    let address = sockets.broker_address().unwrap();
    publish(address, &["-u", "lamp", "-P", "light", "-t", UPDATE, "-m", r#"{"event_id":"e","twin":{}}"#]);
    eventually("Twin is asked", || world.twin.try_next().is_some());
    let topic = "$hw/events/device/lamp/twin/update/result";
    let mut lamp = Client::subscribe(address, &["-u", "lamp", "-P", "light", "-t", topic]);
    let mut fan = Client::subscribe(address, &["-u", "fan", "-P", "wind", "-t", topic, "-t", "$hw/events/device/fan/updated"]);
    let lamp_id = model::DeviceId::new("lamp").unwrap();
    super::tests::handle(&mut bus, vec![super::tests::publication(wire::mqtt::Topic::TwinUpdateResult(lamp_id), "for lamp")]);
    let fan_id = model::DeviceId::new("fan").unwrap();
    super::tests::handle(&mut bus, vec![super::tests::publication(wire::mqtt::Topic::DeviceUpdated(fan_id), "for fan")]);
    assert_eq!(lamp.line(), format!("{topic} for lamp"));
    assert_eq!(fan.line(), "$hw/events/device/fan/updated for fan", "it heard what was for lamp");
}

#[test]
fn only_a_certificate_of_the_clients_authority_opens_and_its_name_has_the_rights() {
    if !clients_are_installed() {
        return;
    }
    let files = Files::new();
    files.certificate("lamp", &files.ca, "lamp");
    files.certificate("stranger", &ca(), "lamp");
    let broker = start(&Mqtt { internal_rules: vec![speaks_for("lamp", "lamp")], ..files.tls(true) });
    let address = broker.tls_address().unwrap();
    let (trusted, certificate, key) = (files.text("ca.crt"), files.text("lamp.crt"), files.text("lamp.key"));
    let mine = ["--cafile", &trusted, "--cert", &certificate, "--key", &key];
    let (strange, strange_key) = (files.text("stranger.crt"), files.text("stranger.key"));
    let update = ["-q", "1", "-t", UPDATE, "-m", "x"];
    let says = |who: &[&str]| try_publish(address, &[&update[..], who].concat());
    assert!(says(&mine));
    assert!(!says(&["--cafile", &trusted, "--cert", &strange, "--key", &strange_key]), "another authority's");
    assert!(!says(&["--cafile", &trusted]), "no certificate");
    assert!(!try_publish(address, &update), "no TLS");
    let other = files.text("stranger.crt");
    assert!(!says(&["--cafile", &other, "--cert", &certificate, "--key", &key]), "the client does not know the broker");
    let mut lamp = Client::subscribe(address, &[&mine[..], &["-t", "$hw/events/device/lamp/updated"]].concat());
    // A certificate that is renewed is used without a restart; the connection that stands goes on.
    files.certificate("server", &ca(), "broker");
    assert!(!says(&mine), "it still shows the old certificate");
    files.certificate("server", &files.ca, "broker");
    assert!(says(&mine));
    std::fs::write(files.path("server.key"), "nonsense").unwrap();
    assert!(says(&mine), "a file that cannot be used changes nothing");
    assert!(lamp.runs());
}

#[test]
fn a_client_that_does_not_finish_its_handshake_holds_up_nobody() {
    if !clients_are_installed() {
        return;
    }
    let files = Files::new();
    let broker = start(&Mqtt { internal_users_file: files.path("users"), ..files.tls(false) });
    let address = broker.tls_address().unwrap();
    let idle: Vec<TcpStream> = (0..20).map(|_| TcpStream::connect(address).unwrap()).collect();
    let trusted = files.text("ca.crt");
    assert!(try_publish(address, &["--cafile", &trusted, "-u", "lamp", "-P", "light", "-t", "t", "-m", "x"]));
    assert!(!try_publish(address, &["--cafile", &trusted, "-u", "lamp", "-P", "wind", "-t", "t", "-m", "x"]));
    for mut idle in idle {
        idle.set_read_timeout(Some(SOON)).unwrap();
        assert_eq!(idle.read(&mut [0]).unwrap(), 0, "it is not closed");
    }
}

/// CONNECT of MQTT 3.1.1 with a client id, user and password.
fn connect(address: SocketAddr, id: &str, user: &str, password: &str) -> (TcpStream, [u8; 4]) {
    let mut body = b"\x00\x04MQTT\x04\xc2\x00\x3c".to_vec();
    for text in [id, user, password] {
        body.extend(u16::try_from(text.len()).unwrap().to_be_bytes());
        body.extend(text.as_bytes());
    }
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.write_all(&[&[0x10, u8::try_from(body.len()).unwrap()], &body[..]].concat()).unwrap();
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).unwrap();
    (stream, answer)
}

#[test]
fn nobody_takes_over_another_user_s_connection_by_its_client_id() {
    let files = Files::new();
    let broker = start(&Mqtt { internal_users_file: files.path("users"), ..Mqtt::default() });
    let (mut lamp, answer) = connect(broker.address(), "one", "lamp", "light");
    assert_eq!(answer, [0x20, 2, 0, 0]);
    let (_, answer) = connect(broker.address(), "one", "fan", "wind");
    assert_eq!(answer, [0x20, 2, 0, 2], "identifier rejected");
    lamp.write_all(&[0xc0, 0]).unwrap();
    let mut pong = [0; 2];
    lamp.read_exact(&mut pong).unwrap();
    assert_eq!(pong, [0xd0, 0]);
    // Itself it may replace, and after it another.
    let (second, answer) = connect(broker.address(), "one", "lamp", "light");
    assert_eq!(answer, [0x20, 2, 0, 0]);
    drop((lamp, second));
    eventually("the id is free", || connect(broker.address(), "one", "fan", "wind").1[3] == 0);
}

fn refused(mqtt: &Mqtt) -> Invalid {
    super::Config::new(mqtt, NodeName::new("edge-1").unwrap()).err().unwrap()
}

#[test]
fn an_entrance_that_is_open_to_a_network_is_refused_unless_that_is_said() {
    let files = Files::new();
    let open = Mqtt { internal_server: "tcp://0.0.0.0:0".into(), ..Mqtt::default() };
    let error = refused(&open);
    assert_eq!(error.key, "mqtt.internal-server");
    for word in ["internal-users-file", "internal-tls-server", "client-ca-file", "allow-anonymous"] {
        assert!(error.to_string().contains(word), "{error}");
    }
    let secure = Mqtt { internal_tls_server: "mqtts://0.0.0.0:0".into(), ..files.tls(false) };
    assert_eq!(refused(&secure).key, "mqtt.internal-tls-server");
    let fine = |mqtt: &Mqtt| super::Config::new(mqtt, NodeName::new("edge-1").unwrap()).map(|_| ()).unwrap();
    fine(&Mqtt { allow_anonymous: Some(true), ..open.clone() });
    fine(&Mqtt { internal_users_file: files.path("users"), ..open });
    fine(&Mqtt { internal_tls_server: "mqtts://0.0.0.0:0".into(), ..files.tls(true) });
    fine(&Mqtt::default());
}

#[test]
fn files_that_do_not_fit_together_are_refused_with_key_file_and_reason() {
    let files = Files::new();
    files.certificate("other", &files.ca, "other");
    let write = |name: &str, text: &str| std::fs::write(files.path(name), text).unwrap();
    write("letter", "dear broker");
    let tls = |certificate: &str, key: &str, authority: &str| {
        let path = |name: &str| if name.is_empty() { std::path::PathBuf::new() } else { files.path(name) };
        let internal_tls = InternalTls { cert_file: path(certificate), key_file: path(key), client_ca_file: path(authority) };
        Mqtt { internal_tls, ..files.tls(false) }
    };
    for (mqtt, key, words) in [
        (tls("server.crt", "other.key", ""), "mqtt.internal-tls.cert-file", ["server.crt", "other.key"]),
        (tls("letter", "server.key", ""), "mqtt.internal-tls.cert-file", ["letter", "PEM"]),
        (tls("server.crt", "letter", ""), "mqtt.internal-tls.cert-file", ["letter", "PEM"]),
        (tls("server.crt", "server.key", "letter"), "mqtt.internal-tls.cert-file", ["letter", "PEM"]),
        (tls("missing", "server.key", ""), "mqtt.internal-tls.cert-file", ["missing", "missing"]),
        (tls("", "server.key", ""), "mqtt.internal-tls.cert-file", ["name a PEM file", "internal-tls-server"]),
        (tls("server.crt", "", ""), "mqtt.internal-tls.key-file", ["name a PEM file", "internal-tls-server"]),
    ] {
        let error = refused(&mqtt);
        assert_eq!(error.key, key, "{error}");
        assert!(words.iter().all(|word| error.to_string().contains(word)), "{error}");
    }
    for (text, word) in [("lamp", "line 1"), ("lamp:plain", "line 1"), (":$argon2id$", "line 1"), ("# x\n\n*:x", "line 3")] {
        write("users", text);
        let error = refused(&Mqtt { internal_users_file: files.path("users"), ..Mqtt::default() });
        assert_eq!(error.key, "mqtt.internal-users-file");
        assert!(error.to_string().contains(word) && error.to_string().contains("mqtt-user"), "{error}");
    }
    let rule = |rule: MqttRule| Mqtt { internal_rules: vec![rule], ..Mqtt::default() };
    for mqtt in [
        rule(MqttRule::default()),
        rule(speaks_for("lamp", "a/b/c")),
        rule(MqttRule { user: "x".into(), publish: vec!["a/#/b".into()], ..MqttRule::default() }),
        Mqtt { internal_rules: vec![speaks_for("x", "a"), speaks_for("x", "b")], ..Mqtt::default() },
    ] {
        assert_eq!(refused(&mqtt).key, "mqtt.internal-rules");
    }
    let error = refused(&Mqtt { internal_tls_server: "https://0.0.0.0:1".into(), ..files.tls(true) });
    assert!(error.to_string().contains("mqtts://"), "{error}");
}
