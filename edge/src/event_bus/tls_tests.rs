//! TLS and login at an external broker: a real mosquitto that asks for certificates or passwords.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests: a panic is the failure")]

use std::fs;
use std::io::{ErrorKind, Read as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, KeyPair};

use super::testing::{Client, Mosquitto, clients_are_installed, connected, endpoint, eventually, figures, free_address, message, publish, start};
use super::transport::{Endpoint, Login, TlsBroker, TlsFiles, Transport};
use crate::tls::tests::{TestCa, ca};

/// Seconds from now to the end of a certificate's life.
const VALID: i64 = 3600;
const EXPIRED: i64 = -60;

/// Writes `NAME.crt` and `NAME.key`.
fn certificate(dir: &Path, name: &str, ca: &TestCa, names: &[&str], ends_in: i64) -> (PathBuf, PathBuf) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    let now = SystemTime::now();
    params.not_before = (now - Duration::from_secs(7200)).into();
    let end = Duration::from_secs(ends_in.unsigned_abs());
    params.not_after = if ends_in < 0 { now - end } else { now + end }.into();
    let (certificate_file, key_file) = (dir.join(format!("{name}.crt")), dir.join(format!("{name}.key")));
    fs::write(&certificate_file, params.signed_by(&key, &ca.issuer).unwrap().pem()).unwrap();
    fs::write(&key_file, key.serialize_pem()).unwrap();
    (certificate_file, key_file)
}

/// A mosquitto with a TLS listener beside the plain one, where the test's own clients go.
struct Secure {
    plain: Mosquitto,
    tls: SocketAddr,
    dir: tempfile::TempDir,
    ca: TestCa,
}

impl Secure {
    /// With a certificate for these names that ends then.
    fn start(names: &[&str], ends_in: i64) -> Option<Self> {
        if !clients_are_installed() {
            return None;
        }
        let (dir, ca, tls) = (tempfile::tempdir().unwrap(), ca(), free_address());
        // Of the broker, and of its client, which a test may change.
        for name in ["ca.crt", "trusted.crt"] {
            fs::write(dir.path().join(name), &ca.pem).unwrap();
        }
        let (certificate, key) = certificate(dir.path(), "broker", &ca, names, ends_in);
        let plain = Mosquitto::configured(|_| {
            format!(
                "allow_anonymous true\nlistener {} 127.0.0.1\ncafile {}\ncertfile {}\nkeyfile {}\nrequire_certificate true\n",
                tls.port(),
                dir.path().join("ca.crt").display(),
                certificate.display(),
                key.display()
            )
        })?;
        eventually("it listens for TLS as well", || TcpStream::connect(tls).is_ok());
        Some(Self { plain, tls, dir, ca })
    }

    /// As a client that does everything right.
    fn endpoint(&self) -> Endpoint {
        let own = certificate(self.dir.path(), "edge", &self.ca, &["edge-1"], VALID);
        self.endpoint_with(TlsFiles { ca: self.dir.path().join("trusted.crt"), own: Some(own) })
    }

    fn endpoint_with(&self, files: TlsFiles) -> Endpoint {
        let broker = TlsBroker { host: "localhost".into(), port: self.tls.port(), files };
        Endpoint { server: format!("ssl://localhost:{}", self.tls.port()), tls: Some(broker), ..endpoint(self.tls, 1) }
    }
}

fn trouble(transport: &Transport, words: &str) {
    let mut last = String::new();
    eventually(&format!("the reason `{words}`"), || {
        last = figures(transport).trouble;
        !last.is_empty()
    });
    assert!(last.contains(words), "`{words}` is not in `{last}`");
    assert!(!figures(transport).connected);
}

#[test]
fn through_tls_with_a_client_certificate_messages_go_both_ways_and_survive_a_restart_of_the_broker() {
    let Some(mut broker) = Secure::start(&["localhost"], VALID) else { return };
    let (transport, guard, recorder) = start(broker.endpoint());
    connected(&transport);
    publish(broker.plain.address, &["-q", "1", "-t", "SYS/dis/upload_records", "-m", "in"]);
    eventually("it arrives", || recorder.bodies() == ["in"]);
    let mut device = Client::subscribe(broker.plain.address, &["-q", "1", "-t", "out"]);
    let large = "x".repeat(500_000);
    transport.publish(message("out", large.clone()));
    assert_eq!(device.line(), format!("out {large}"));
    drop(device);

    broker.plain.restart();
    eventually("connected again", || recorder.moves.lock().unwrap().as_slice() == ["up", "down", "up"]);
    let mut device = Client::subscribe(broker.plain.address, &["-q", "1", "-t", "out"]);
    for number in 0..256 {
        transport.publish(message("out", number.to_string()));
    }
    drop(guard);
    for number in 0..256 {
        assert_eq!(device.line(), format!("out {number}"), "what waits at the end goes through TLS as well");
    }
}

#[test]
fn each_fault_of_a_certificate_is_named_in_one_sentence_that_says_what_to_do() {
    let Some(broker) = Secure::start(&["localhost"], VALID) else { return };
    let Some(other_name) = Secure::start(&["broker.example"], VALID) else { return };
    let Some(expired) = Secure::start(&["localhost"], EXPIRED) else { return };
    let dir = broker.dir.path();
    let good_ca = dir.join("ca.crt");
    let stranger = ca();
    let foreign_ca = dir.join("foreign.crt");
    fs::write(&foreign_ca, &stranger.pem).unwrap();
    let good = certificate(dir, "good", &broker.ca, &["edge-1"], VALID);
    let old = certificate(dir, "old", &broker.ca, &["edge-1"], EXPIRED);
    let foreign = certificate(dir, "foreign-edge", &stranger, &["edge-1"], VALID);
    let with = |ca: &Path, own: Option<&(PathBuf, PathBuf)>| broker.endpoint_with(TlsFiles { ca: ca.to_owned(), own: own.cloned() });
    let plain_port =
        Endpoint { tls: Some(TlsBroker { port: broker.plain.address.port(), ..with(&good_ca, None).tls.unwrap() }), ..with(&good_ca, None) };
    let nobody = Endpoint { tls: Some(TlsBroker { port: free_address().port(), ..with(&good_ca, None).tls.unwrap() }), ..with(&good_ca, None) };
    for (endpoint, words) in [
        (with(&foreign_ca, Some(&good)), "was not signed by an authority in"),
        (other_name.endpoint(), "the broker's certificate is not for `localhost`"),
        (expired.endpoint(), "the certificate of localhost has expired"),
        (with(&good_ca, None), "localhost asks for a certificate"),
        (with(&good_ca, Some(&old)), "our certificate has expired"),
        (with(&good_ca, Some(&foreign)), "localhost refused the TLS connection"),
        (with(&dir.join("none.crt"), None), "of mqtt.tls.ca-file"),
        (with(&good.1, None), "holds no certificate in PEM form"),
        (with(&good_ca, Some(&(good.0.clone(), foreign.1.clone()))), "cannot be used with the key of mqtt.tls.key-file"),
        (plain_port, "name its TLS port in mqtt.server"),
        (nobody, "no connection to localhost"),
    ] {
        let (transport, _guard, _) = start(endpoint);
        trouble(&transport, words);
    }
}

#[test]
fn certificates_are_read_again_at_each_connection() {
    let Some(broker) = Secure::start(&["localhost"], VALID) else { return };
    let endpoint = broker.endpoint();
    let ca_file = broker.dir.path().join("trusted.crt");
    fs::write(&ca_file, ca().pem).unwrap();
    let (transport, _guard, _) = start(endpoint);
    trouble(&transport, "was not signed by an authority in");
    fs::write(&ca_file, &broker.ca.pem).unwrap();
    connected(&transport);
    assert_eq!(figures(&transport).trouble, "");
}

fn password_file(dir: &Path, text: &str) -> PathBuf {
    let path = dir.join("password");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

#[test]
fn a_wrong_password_is_named_and_the_right_one_is_read_without_a_restart() {
    if !clients_are_installed() || Command::new("mosquitto_passwd").output().is_err() {
        return;
    }
    let started = Mosquitto::configured(|dir| {
        let users = dir.join("users");
        let made = Command::new("mosquitto_passwd").arg("-c").arg("-b").arg(&users).args(["edge", "right word"]).status().unwrap();
        assert!(made.success());
        format!("allow_anonymous false\npassword_file {}\n", users.display())
    });
    let Some(broker) = started else { return };
    let dir = tempfile::tempdir().unwrap();
    let login = |file| Some(Login { username: "edge".into(), password_file: file });

    let (transport, guard, _) = start(endpoint(broker.address, 1));
    trouble(&transport, "mqtt.password-file");
    drop(guard);

    let file = password_file(dir.path(), "wrong word\n");
    let (transport, _guard, _) = start(Endpoint { login: login(Some(file)), ..endpoint(broker.address, 1) });
    trouble(&transport, "it refused our user name, password or certificate");
    assert!(!figures(&transport).trouble.contains("wrong"));
    password_file(dir.path(), "right word\n");
    connected(&transport);
}

#[test]
fn a_client_id_and_a_login_go_through_tls_as_well() {
    let Some(broker) = Secure::start(&["localhost"], VALID) else { return };
    let dir = tempfile::tempdir().unwrap();
    let login = Some(Login { username: "edge".into(), password_file: Some(password_file(dir.path(), "any")) });
    let (transport, _guard, _) = start(Endpoint { login, client_id: "chosen".into(), ..broker.endpoint() });
    connected(&transport);
}

/// What arrives at a broker behind a tunnel is TLS and nothing else, also before the handshake: no word of MQTT.
#[test]
fn nothing_leaves_the_machine_before_the_broker_has_proved_its_name() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("ca.crt"), ca().pem).unwrap();
    let files = TlsFiles { ca: dir.path().join("ca.crt"), own: None };
    let login = Some(Login { username: "edge-user".into(), password_file: Some(password_file(dir.path(), "secret-word")) });
    let tls = Some(TlsBroker { host: "localhost".into(), port: address.port(), files });
    let (_transport, _guard, _) = start(Endpoint { login, tls, ..endpoint(address, 1) });
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let (mut seen, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => seen.extend_from_slice(&buffer[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(seen.first(), Some(&22), "a TLS handshake record");
    for word in ["MQTT", "edge-user", "secret-word", "skep-edge-test"] {
        assert!(!seen.windows(word.len()).any(|window| window == word.as_bytes()), "`{word}` was sent in the clear");
    }
}
