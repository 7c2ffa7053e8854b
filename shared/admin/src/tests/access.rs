use std::path::PathBuf;
use std::sync::Mutex;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::*;
use crate::{AdminError, bind, client_certificates};

const TOKEN: &str = "0123456789abcdef-token";

fn token_file() -> (tempfile::TempDir, PathBuf) {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    std::fs::write(&path, format!("{TOKEN}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    (dir, path)
}

#[test]
fn an_address_that_is_not_loopback_needs_a_secret_and_an_occupied_port_is_named() {
    let open = |listen: &str, access| AdminConfig { listen: vec![listen.parse().unwrap()], access, ..config() };
    let refused = bind(open("0.0.0.0:0", Access::Loopback)).err().unwrap();
    assert!(matches!(refused, AdminError::NotLoopback(_)) && refused.to_string().contains("token file"), "{refused}");
    let missing = bind(open("0.0.0.0:0", Access::Token("/nonexistent/token".into()))).err().unwrap();
    assert!(missing.to_string().contains("/nonexistent/token"), "{missing}");
    let (_dir, token) = token_file();
    assert!(bind(open("0.0.0.0:0", Access::Token(token))).is_ok());
    let everywhere = AdminConfig { read_only: vec!["0.0.0.0:0".parse().unwrap()], ..config() };
    assert!(matches!(bind(everywhere), Err(AdminError::NotLoopback(_))));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let occupied = bind(AdminConfig { listen: vec![address], ..config() }).err().unwrap();
    assert!(occupied.to_string().contains(&address.to_string()), "{occupied}");
}

#[test]
fn a_token_opens_the_page_as_bearer_or_password_and_probes_need_none() {
    let (_dir, token) = token_file();
    with(AdminConfig { access: Access::Token(token), ..config() }, |site| {
        let ask = |path: &str, authorization: &str| {
            site.raw(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{authorization}\r\n"))
        };
        let none = ask("/", "");
        assert!(status(&none) == 401 && none.contains("www-authenticate: Basic") && !none.contains("worker"), "{none}");
        let basic = format!("Authorization: Basic {}\r\n", BASE64_STANDARD.encode(format!("admin:{TOKEN}")));
        for good in [&format!("Authorization: Bearer {TOKEN}\r\n"), &basic] {
            for path in ["/", "/api/actors", "/metrics", "/pods"] {
                let answer = ask(path, good);
                assert!(status(&answer) == 200 && !answer.contains(TOKEN), "{answer}");
            }
            assert!(ask("/readyz?verbose", good).contains("[-]database failed: is being opened"));
        }
        for path in ["/api/actors", "/metrics", "/pods", "/api/stream", "/livezx", "/%2e/livez", "/livez/../api/actors", "/nothing"] {
            assert_eq!(status(&ask(path, "")), 401, "{path}");
        }
        assert_eq!((status(&ask("/livez", "")), status(&ask("/healthz", "")), status(&ask("/livez/supervisor", ""))), (200, 200, 200));
        let ready = ask("/readyz?verbose", "");
        assert!(status(&ready) == 503 && ready.contains("[-]database failed: reason withheld") && !ready.contains("opened"), "{ready}");
        assert_eq!(status(&site.call("POST", "/livez", "X-Skep-Action: 1\r\n", "")), 401);
    });
}

#[test]
fn wrong_tokens_are_answered_slowly_and_a_right_one_meanwhile_is_not() {
    let (_dir, token) = token_file();
    with(AdminConfig { access: Access::Token(token), ..config() }, |site| {
        let ask = |token: &str| {
            site.raw(&format!("GET /api/health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\r\n"))
        };
        let answers = Mutex::new(Vec::new());
        let began = Instant::now();
        std::thread::scope(|scope| {
            for n in 0..20 {
                let (ask, answers) = (&ask, &answers);
                scope.spawn(move || {
                    let answer = ask(&format!("wrong-{n}"));
                    answers.lock().unwrap().push(status(&answer));
                });
            }
            let right = ask(TOKEN);
            assert!(status(&right) == 200 && began.elapsed() < Duration::from_millis(900), "{right}");
        });
        let answers = answers.into_inner().unwrap();
        assert!(answers.contains(&401) && answers.contains(&429) && answers.iter().all(|code| matches!(code, 401 | 429)), "{answers:?}");
        assert!(began.elapsed() >= Duration::from_secs(1));
    });
}

#[test]
fn only_the_daemons_own_routes_are_served_at_the_read_only_address() {
    let (_dir, token) = token_file();
    let both = AdminConfig { read_only: vec!["127.0.0.1:0".parse().unwrap()], access: Access::Token(token), fault_injection: true, ..config() };
    with(both, |site| {
        let ask = |request: &str| {
            raw(site.addresses[1], &format!("{request} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-Skep-Action: 1\r\n\r\n"))
        };
        assert_eq!(body(&ask("GET /pods")), "pods");
        for other in [
            "GET /",
            "GET /api/actors",
            "GET /%61pi/actors",
            "GET /metrics",
            "GET /livez",
            "POST /api/actors/worker/restart",
            "POST /debug/actors/worker/panic",
            "POST /act",
        ] {
            assert_eq!(status(&ask(other)), 404, "{other}");
        }
        assert_eq!(status(&raw(site.addresses[1], "GET /pods HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n")), 421);
        assert_eq!(site.registry.views()[0].restarts, 0);
    });
}

struct Certificates {
    dir: tempfile::TempDir,
    roots: rustls::RootCertStore,
    client: (rustls::pki_types::CertificateDer<'static>, Vec<u8>),
    stranger: (rustls::pki_types::CertificateDer<'static>, Vec<u8>),
}

fn certificates() -> Certificates {
    let authority = |name: &str| {
        let mut params = rcgen::CertificateParams::new(vec![]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        (rcgen::Issuer::new(params, key), certificate)
    };
    let leaf = |issuer: &rcgen::Issuer<'_, rcgen::KeyPair>| {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap().signed_by(&key, issuer).unwrap();
        (certificate, key)
    };
    let ((ours, root), (theirs, _)) = (authority("ours"), authority("theirs"));
    let dir = tempfile::tempdir().unwrap();
    let (certificate, key) = leaf(&ours);
    std::fs::write(dir.path().join("server.crt"), certificate.pem()).unwrap();
    std::fs::write(dir.path().join("server.key"), key.serialize_pem()).unwrap();
    std::fs::write(dir.path().join("ca.crt"), root.pem()).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(root.der().clone()).unwrap();
    let client = |issuer| {
        let (certificate, key) = leaf(issuer);
        (certificate.der().clone(), key.serialize_der())
    };
    Certificates { dir, roots, client: client(&ours), stranger: client(&theirs) }
}

impl Certificates {
    fn access(&self) -> Access {
        let file = |name: &str| self.dir.path().join(name);
        client_certificates(&file("server.crt"), &file("server.key"), &file("ca.crt")).unwrap()
    }

    fn client(&self, identity: Option<&(rustls::pki_types::CertificateDer<'static>, Vec<u8>)>) -> Arc<rustls::ClientConfig> {
        let builder = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots.clone());
        Arc::new(match identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                builder.with_client_auth_cert(vec![certificate.clone()], rustls::pki_types::PrivatePkcs8KeyDer::from(key.clone()).into()).unwrap()
            }
        })
    }
}

fn over_tls(address: SocketAddr, config: Arc<rustls::ClientConfig>, path: &str) -> String {
    let session = rustls::ClientConnection::new(config, "localhost".try_into().unwrap()).unwrap();
    let mut stream = rustls::StreamOwned::new(session, TcpStream::connect(address).unwrap());
    stream.sock.set_read_timeout(Some(WITHIN)).unwrap();
    let _ = write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn a_client_certificate_of_the_authority_opens_the_page_and_no_other() {
    let made = certificates();
    let (good, bad, none) = (made.client(Some(&made.client)), made.client(Some(&made.stranger)), made.client(None));
    with(AdminConfig { access: made.access(), ..config() }, move |site| {
        assert!(over_tls(site.address, good.clone(), "/").contains("Both actors are up"));
        let turned_away = over_tls(site.address, none.clone(), "/");
        assert!(status(&turned_away) == 403 && turned_away.contains("client certificate"), "{turned_away}");
        assert_eq!(status(&over_tls(site.address, none, "/livez")), 200, "a kubelet has no certificate");
        assert_eq!(over_tls(site.address, bad, "/livez"), "", "the handshake fails");
        assert!(!site.get("/").contains("worker"), "nothing in plain text");

        let mut printed = Vec::new();
        let credentials = crate::status::Credentials::Certificate(good, "localhost".try_into().unwrap());
        // The Host is the address, which is loopback.
        crate::status::run(site.address, &credentials, crate::status::Options::default(), &mut printed).unwrap();
        assert!(String::from_utf8(printed).unwrap().contains("worker"));
    });
}

#[test]
fn certificates_that_do_not_fit_are_refused_with_the_file() {
    let made = certificates();
    let file = |name: &str| made.dir.path().join(name);
    std::fs::write(file("empty"), "").unwrap();
    for (certificate, key, authority, named) in [
        ("nothing", "server.key", "ca.crt", "nothing"),
        ("empty", "server.key", "ca.crt", "empty"),
        ("server.crt", "ca.crt", "ca.crt", "ca.crt"),
        ("server.crt", "server.key", "server.key", "server.key"),
    ] {
        let refused = client_certificates(&file(certificate), &file(key), &file(authority)).unwrap_err().to_string();
        assert!(refused.contains(named), "{refused}");
    }
}
