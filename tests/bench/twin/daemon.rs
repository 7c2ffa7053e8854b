//! The daemon that is measured: alone, all modules on, no cloud and no container engine in reach.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use harness::{Daemon, names, sqlite};
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use super::client::Client;
use crate::figures;

/// Devices are called so, with a number behind.
pub const PREFIX: &str = "device-";
const NODE: &str = "bench";
/// A get that came before EventBus had subscribed is lost, as MQTT has it: it is asked again after so long.
const ASK_AGAIN: Duration = Duration::from_millis(5);

/// A daemon with a directory of its own, on the disk of the build.
pub struct Edge {
    dir: TempDir,
    program: PathBuf,
    port: u16,
    running: Option<Daemon>,
}

impl Edge {
    /// Makes the certificate, the configuration, and a database with `devices` devices of `properties` properties each.
    ///
    /// # Errors
    /// The program is missing; a file cannot be written; the daemon does not make its database.
    pub fn prepare(devices: usize, properties: usize) -> Result<Self, String> {
        let below = figures::directory();
        let made = std::fs::create_dir_all(&below).and_then(|()| TempDir::with_prefix_in("twin-", &below));
        let dir = made.map_err(|error| format!("no directory in {}: {error}", below.display()))?;
        let mut edge = Self { dir, program: program()?, port: names::port(), running: None };
        identity(&edge.data().join("pki"))?;
        // The daemon makes its tables; without a container engine it would not start for the first time with one enabled.
        edge.configure("modules:\n  enabled: [eventbus, twin]\n")?;
        edge.start()?;
        drop(Client::connect(&edge.address(), super::PATIENCE).map_err(|error| edge.with_log(error))?);
        edge.stop()?;
        sqlite::execute(&edge.data().join("edge.db"), &bound(devices, properties));
        edge.configure("")?;
        Ok(edge)
    }

    fn configure(&self, more: &str) -> Result<(), String> {
        let closed = TcpListener::bind("127.0.0.1:0").and_then(|probe| probe.local_addr()).map_err(|error| error.to_string())?;
        let text = format!(
            "data-dir: {data}\n\
             mqtt:\n  mode: 0\n  internal-server: tcp://127.0.0.1:{port}\n\
             edgehub:\n  websocket:\n    url: wss://{closed}\n  controller:\n    node-id: {NODE}\n\
             edged:\n  docker-address: unix://{data}/no-docker.sock\n  read-only-port: {pods}\n\
             admin:\n  port: {admin}\n{more}",
            data = self.data().display(),
            port = self.port,
            pods = names::port(),
            admin = names::port(),
        );
        let path = self.dir.path().join("edge.yaml");
        std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// The data directory.
    pub fn data(&self) -> &Path {
        self.dir.path()
    }

    /// `HOST:PORT` of the embedded broker.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Process id; 0 while it does not run.
    pub fn pid(&self) -> u32 {
        self.running.as_ref().map_or(0, Daemon::pid)
    }

    /// Starts the process, in the environment of its systemd unit.
    ///
    /// # Errors
    /// It ended at once.
    pub fn start(&mut self) -> Result<(), String> {
        let arguments = ["run".to_owned(), "--config".to_owned(), self.dir.path().join("edge.yaml").display().to_string()];
        let environment = [("MALLOC_ARENA_MAX".to_owned(), "8".to_owned())];
        let daemon = Daemon::start(&self.program, &arguments, &environment, &self.dir.path().join("edge.log"));
        self.running.insert(daemon).must_run()
    }

    /// Connects and asks for a twin until it is answered; tells when that was. No answer is under way afterwards.
    ///
    /// # Errors
    /// No answer within `within`.
    pub fn first_answer(&self, device: &str, within: Duration) -> Result<Instant, String> {
        let mut client = Client::connect(&self.address(), within).map_err(|error| self.with_log(error))?;
        let topic = format!("$hw/events/device/{device}/twin/get");
        client.subscribe(&[format!("{topic}/result")])?;
        client.answers.wait_at_most(ASK_AGAIN)?;
        let (mut first, mut asked_last) = (None, false);
        let began = Instant::now();
        while began.elapsed() < within {
            if !asked_last {
                // Once the last one is answered, all before it are: the answers come in the order of the requests.
                asked_last = first.is_some();
                let event_id = if asked_last { "last" } else { "first" };
                client.requests.publish(&topic, format!(r#"{{"event_id":"{event_id}","timestamp":0}}"#).as_bytes());
                client.requests.send()?;
            }
            client.answers.receive()?;
            while let Some(message) = client.answers.next()? {
                let text = String::from_utf8_lossy(message.payload);
                if text.contains(r#""code""#) {
                    return Err(format!("the first get was refused: {text}"));
                }
                let at = *first.get_or_insert_with(Instant::now);
                if text.contains(r#""last""#) {
                    return Ok(at);
                }
            }
        }
        Err(self.with_log(format!("no twin within {} s", within.as_secs())))
    }

    /// An error with the end of the daemon's log.
    pub fn with_log(&self, error: String) -> String {
        match &self.running {
            Some(daemon) => format!("{error}; the log of skep-edge ends:\n{}", daemon.tail()),
            None => error,
        }
    }

    /// Stops it in order, if it runs.
    ///
    /// # Errors
    /// It had ended by itself.
    pub fn stop(&mut self) -> Result<(), String> {
        let Some(mut daemon) = self.running.take() else { return Ok(()) };
        daemon.must_run()?;
        daemon.stop();
        Ok(())
    }
}

/// `skep-edge` beside this program: the same profile, so what is shipped.
fn program() -> Result<PathBuf, String> {
    let path = std::env::current_exe().map_err(|error| error.to_string())?.with_file_name("skep-edge");
    if path.exists() { Ok(path) } else { Err(format!("{} is missing: run `make bench SCENARIO=twin`, which builds it", path.display())) }
}

/// What `skep-edge join` writes, of an authority that nobody else knows.
fn identity(directory: &Path) -> Result<(), String> {
    let make = || -> Result<[(&str, String); 3], rcgen::Error> {
        let (authority_key, key) = (KeyPair::generate()?, KeyPair::generate()?);
        let mut authority = CertificateParams::default();
        authority.distinguished_name.push(DnType::CommonName, "bench");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = authority.self_signed(&authority_key)?.pem();
        let mut node = CertificateParams::default();
        node.distinguished_name = DistinguishedName::new();
        node.distinguished_name.push(DnType::OrganizationName, "system:nodes");
        node.distinguished_name.push(DnType::CommonName, format!("system:node:{NODE}"));
        node.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = node.signed_by(&key, &Issuer::new(authority, authority_key))?.pem();
        Ok([("ca.crt", root), ("edge.crt", certificate), ("edge.key", key.serialize_pem())])
    };
    let files = make().map_err(|error| format!("cannot make a certificate: {error}"))?;
    std::fs::create_dir_all(directory).map_err(|error| error.to_string())?;
    for (name, text) in files {
        std::fs::write(directory.join(name), text).map_err(|error| format!("{name}: {error}"))?;
    }
    Ok(())
}

/// The rows that Membership writes for devices which the cloud bound, each property with an actual value.
fn bound(devices: usize, properties: usize) -> String {
    format!(
        "BEGIN;
         CREATE TEMP TABLE n (i INTEGER PRIMARY KEY);
         WITH RECURSIVE up(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM up WHERE i + 1 < {larger}) INSERT INTO n SELECT i FROM up;
         INSERT INTO device (id, name, description, state, last_online, incarnation)
           SELECT '{PREFIX}' || i, 'Device ' || i, '', '', '', i + 1 FROM n WHERE i < {devices};
         UPDATE counter SET value = {devices} WHERE name = 'incarnation';
         INSERT INTO device_twin (deviceid, name, description, expected, actual, expected_meta, actual_meta,
                                  expected_version, actual_version, optional, attr_type, metadata)
           SELECT '{PREFIX}' || d.i, 'property-' || p.i, '', '', 'initial', '', '{{\"timestamp\":1700000000000}}',
                  '', '{{\"cloud\":0,\"edge\":1}}', 1, 'string', '{{}}'
           FROM n AS d, n AS p WHERE d.i < {devices} AND p.i < {properties} ORDER BY d.i, p.i;
         COMMIT;",
        larger = devices.max(properties),
    )
}
