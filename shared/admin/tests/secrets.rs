//! The token that opens the page is in no line of the log, however much is logged.
#![allow(clippy::unwrap_used, missing_docs)] // a failed step is the test's failure

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actor::{Policy, Supervisor};
use admin::{Access, AdminConfig};

const TOKEN: &str = "the-right-token-0123456789";
const WRONG: &str = "a-wrong-token-9876543210";
/// The right token as the password of `admin`, in base64.
const BASIC: &str = "YWRtaW46dGhlLXJpZ2h0LXRva2VuLTAxMjM0NTY3ODk=";

static LINES: Mutex<String> = Mutex::new(String::new());

struct Everything;
impl log::Log for Everything {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }
    fn log(&self, record: &log::Record<'_>) {
        struct Values<'a>(&'a mut String);
        impl<'kvs> log::kv::VisitSource<'kvs> for Values<'_> {
            fn visit_pair(&mut self, key: log::kv::Key<'kvs>, value: log::kv::Value<'kvs>) -> Result<(), log::kv::Error> {
                self.0.push_str(&format!(" {key}={value}"));
                Ok(())
            }
        }
        let mut lines = LINES.lock().unwrap();
        lines.push_str(&format!("{} {}", record.target(), record.args()));
        let _ = record.key_values().visit(&mut Values(&mut lines));
        lines.push('\n');
    }
    fn flush(&self) {}
}

fn ask(address: SocketAddr, method: &str, path: &str, authorization: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\nX-Skep-Action: 1\r\nAuthorization: {authorization}\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn no_token_and_no_authorization_header_is_ever_logged_or_shown() {
    log::set_boxed_logger(Box::new(Everything)).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, TOKEN).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    actix_rt::System::new().block_on(async {
        let running = Supervisor::new("root", Policy::default()).start(|why| panic!("{why}"));
        let config = AdminConfig {
            listen: vec!["127.0.0.1:0".parse().unwrap()],
            read_only: vec![],
            hosts: vec![],
            access: Access::Token(file),
            title: "secret keeper".into(),
            prefix: "skep_test",
            extra: Arc::new(Vec::new),
            checks: Arc::new(Vec::new),
            fault_injection: true,
            log: None,
            routes: |_| {},
            data: Arc::new(|_| {}),
        };
        let server = admin::serve(config, running.clone()).unwrap();
        let address = server.addresses[0];
        let shown = actix_web::rt::task::spawn_blocking(move || {
            let mut shown = String::new();
            for authorization in [format!("Bearer {TOKEN}"), format!("Basic {BASIC}"), format!("Bearer {WRONG}"), "Basic !!".into()] {
                for path in ["/", "/api/status", "/metrics", "/nothing", "/livez?verbose"] {
                    shown += &ask(address, "GET", path, &authorization);
                }
                for path in ["/api/actors/root/restart", "/act", "/debug/actors/nobody/panic"] {
                    shown += &ask(address, "POST", path, &authorization);
                }
            }
            shown
        });
        let shown = shown.await.unwrap();
        assert!(shown.contains("HTTP/1.1 200") && shown.contains("HTTP/1.1 401"), "{shown}");
        server.stop().await;
        running.shutdown().await;
        let logged = LINES.lock().unwrap().clone();
        assert!(logged.contains("a wrong token was given") && logged.contains("an administrator"), "{logged}");
        for secret in [TOKEN, WRONG, BASIC] {
            assert!(!shown.contains(secret), "shown: {secret}");
            assert!(!logged.contains(secret), "logged: {logged}");
        }
    });
}
