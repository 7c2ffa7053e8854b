//! Who may come in: the name that is asked for, credentials, and requests that another page made a browser send.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use actix_web::dev::ServiceRequest;
use actix_web::http::header::{self, HeaderMap};
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpRequest, rt};
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom as _, SystemRandom};
use subtle::ConstantTimeEq as _;
use tokio::sync::Semaphore;

use crate::config::Access;

/// Shortest token, in bytes.
pub const TOKEN_BYTES_MIN: usize = 16;
/// Longest token, in bytes.
pub const TOKEN_BYTES_MAX: usize = 512;
/// The header that a call of the JSON API must carry to change anything; a foreign page cannot set it without asking
/// first (CORS preflight), and this server never allows it.
pub const ACTION_HEADER: &str = "x-skep-action";

/// Wrong credentials that are answered slowly at the same time; further ones are turned away at once, unlogged.
const SLOW_ANSWERS: usize = 8;
/// How long a wrong credential waits for its answer.
const SLOWLY: Duration = Duration::from_secs(1);

/// Why nobody could be told apart.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The token file does not exist or may not be read.
    #[error("cannot read the admin page's token file `{path}`: write a token of {TOKEN_BYTES_MIN} to {TOKEN_BYTES_MAX} bytes into it, with mode 0600", path = path.display())]
    TokenFile {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Other users may read it.
    #[error("the admin page's token file `{path}` may be read by others (mode {mode:04o}): chmod 0600 it and make a new token", path = path.display())]
    TokenIsOpen {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It has no token in it.
    #[error("the token in `{path}` must have {TOKEN_BYTES_MIN} to {TOKEN_BYTES_MAX} printable bytes without spaces: make one with `openssl rand -hex 32`", path = path.display())]
    TokenForm {
        /// The file.
        path: PathBuf,
    },
    /// A certificate or key cannot be used.
    #[error("cannot use `{path}` for the admin page: {reason}; give it a PEM file of a certificate, its key, and the authority of the clients", path = path.display())]
    Certificates {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The system has no random numbers.
    #[error("the operating system gives no random numbers, without which the admin page cannot tell its own forms from forged ones")]
    Random,
}

/// Set on a connection whose client showed a certificate that was checked.
pub(crate) struct Certified;
/// Set on a request that came in where only the daemon's own routes are served.
pub(crate) struct ReadOnlyDoor;
/// Set on a request whose sender may see the page.
pub(crate) struct Admitted;

/// What a request lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// `Host` is not a name of this server (DNS rebinding).
    Host,
    NoCredentials,
    WrongCredentials,
    /// Too many wrong credentials at once.
    TooMany,
    NoCertificate,
    /// Another page made a browser send it.
    CrossSite,
    /// A changing call of the API without its header.
    NoActionHeader,
}

impl Refusal {
    pub(crate) const fn status(self) -> StatusCode {
        match self {
            Self::Host => StatusCode::MISDIRECTED_REQUEST,
            Self::NoCredentials | Self::WrongCredentials => StatusCode::UNAUTHORIZED,
            Self::TooMany => StatusCode::TOO_MANY_REQUESTS,
            Self::NoCertificate | Self::CrossSite | Self::NoActionHeader => StatusCode::FORBIDDEN,
        }
    }

    pub(crate) const fn sentence(self) -> &'static str {
        match self {
            Self::Host => "this page does not answer to that name: use its address, or add the name to `admin.hosts`",
            Self::NoCredentials => "this page needs its token: as `Authorization: Bearer <token>`, or as the password of any user name",
            Self::WrongCredentials => "this is not the token of this page",
            Self::TooMany => "too many wrong tokens: wait a second",
            Self::NoCertificate => "this page needs a client certificate of its authority",
            Self::CrossSite => "another site made this request: go to the page itself",
            Self::NoActionHeader => "a call that changes something needs the header `X-Skep-Action: 1`",
        }
    }
}

enum Need {
    Nothing,
    /// Hash of the token: the token itself is not kept.
    Token([u8; 32]),
    Certificate,
}

/// The door of the server.
pub(crate) struct Gate {
    listen: Vec<SocketAddr>,
    read_only: Vec<SocketAddr>,
    hosts: Vec<String>,
    need: Need,
    slow: Semaphore,
    form_token: String,
}

impl Gate {
    pub(crate) fn new(access: &Access, listen: Vec<SocketAddr>, read_only: Vec<SocketAddr>, hosts: Vec<String>) -> Result<Self, AccessError> {
        let need = match access {
            Access::Loopback => Need::Nothing,
            Access::Token(path) => Need::Token(hash(read_token(path)?.as_bytes())),
            Access::ClientCertificates(_) => Need::Certificate,
        };
        let mut secret = [0; 32];
        SystemRandom::new().fill(&mut secret).map_err(|_| AccessError::Random)?;
        let form_token = BASE64_URL_SAFE_NO_PAD.encode(secret);
        Ok(Self { listen, read_only, hosts, need, slow: Semaphore::new(SLOW_ANSWERS), form_token })
    }

    /// The secret that a form of the page carries.
    pub(crate) fn form_token(&self) -> &str {
        &self.form_token
    }

    pub(crate) fn is_form_token(&self, given: &str) -> bool {
        same(&hash(self.form_token.as_bytes()), given.as_bytes())
    }

    pub(crate) fn is_read_only(&self, door: SocketAddr) -> bool {
        self.read_only.contains(&door) && !self.listen.contains(&door)
    }

    /// Lets a request in, or says what it lacks.
    pub(crate) async fn admit(&self, request: &ServiceRequest) -> Result<(), Refusal> {
        let door = request.app_config().local_addr();
        self.check_host(request.headers(), door)?;
        let reading = matches!(*request.method(), Method::GET | Method::HEAD);
        if self.is_read_only(door) {
            return Ok(());
        }
        match self.check_credentials(request.request()) {
            Ok(()) => {}
            // Without reasons in the answer.
            Err(_) if reading && is_probe(request.path()) => return Ok(()),
            Err(Refusal::WrongCredentials) => return Err(self.slowly(request).await),
            Err(refusal) => return Err(refusal),
        }
        use actix_web::HttpMessage as _;
        request.extensions_mut().insert(Admitted);
        if reading { Ok(()) } else { check_origin(request.headers()) }
    }

    fn check_host(&self, headers: &HeaderMap, door: SocketAddr) -> Result<(), Refusal> {
        let host = headers.get(header::HOST).and_then(|h| h.to_str().ok()).unwrap_or_default();
        let name = host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit())).map_or(host, |(name, _)| name);
        let address = name.trim_matches(['[', ']']).parse::<IpAddr>().ok();
        let local = name.eq_ignore_ascii_case("localhost") || address.is_some_and(|ip| ip.is_loopback());
        let known = if door.ip().is_loopback() {
            local
        } else {
            // Only a name can be rebound; behind 0.0.0.0 every address of this machine is its own.
            let own = |ip: IpAddr| door.ip().is_unspecified() || ip == door.ip();
            local && door.ip().is_unspecified() || address.is_some_and(own) || self.hosts.iter().any(|host| host.eq_ignore_ascii_case(name))
        };
        if known { Ok(()) } else { Err(Refusal::Host) }
    }

    fn check_credentials(&self, request: &HttpRequest) -> Result<(), Refusal> {
        match &self.need {
            Need::Nothing => Ok(()),
            Need::Certificate => request.conn_data::<Certified>().map(|_| ()).ok_or(Refusal::NoCertificate),
            Need::Token(wanted) => {
                let Some(given) = request.headers().get(header::AUTHORIZATION) else { return Err(Refusal::NoCredentials) };
                let given = given.to_str().ok().and_then(token_of).ok_or(Refusal::WrongCredentials)?;
                if same(wanted, given.as_bytes()) { Ok(()) } else { Err(Refusal::WrongCredentials) }
            }
        }
    }

    async fn slowly(&self, request: &ServiceRequest) -> Refusal {
        let Ok(_slot) = self.slow.try_acquire() else { return Refusal::TooMany };
        log::warn!(peer:? = request.peer_addr(); "admin page: a wrong token was given");
        rt::time::sleep(SLOWLY).await;
        Refusal::WrongCredentials
    }
}

/// Nobody's request but that of a page of ours, or of a program, changes anything.
fn check_origin(headers: &HeaderMap) -> Result<(), Refusal> {
    let text = |name: header::HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    if text(header::HeaderName::from_static("sec-fetch-site")).is_some_and(|site| site != "same-origin") {
        return Err(Refusal::CrossSite);
    }
    let Some(origin) = text(header::ORIGIN) else { return Ok(()) };
    let authority = origin.split_once("://").map(|(_, authority)| authority);
    let same = authority.is_some_and(|authority| text(header::HOST).is_some_and(|host| host.eq_ignore_ascii_case(authority)));
    if same { Ok(()) } else { Err(Refusal::CrossSite) }
}

/// Whether a request may change something through the API.
pub(crate) fn check_action_header(request: &HttpRequest) -> Result<(), Refusal> {
    match request.headers().get(ACTION_HEADER) {
        Some(value) if value.as_bytes() == b"1" => Ok(()),
        _ => Err(Refusal::NoActionHeader),
    }
}

/// `/livez` or `/livez/<check>`, and the same for the other two.
fn is_probe(path: &str) -> bool {
    let one_segment = |rest: &str| rest.strip_prefix('/').is_some_and(|check| !check.contains('/'));
    ["/livez", "/readyz", "/healthz"].iter().any(|probe| path.strip_prefix(probe).is_some_and(|rest| rest.is_empty() || one_segment(rest)))
}

fn token_of(header: &str) -> Option<String> {
    let (scheme, value) = header.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(value.trim().to_owned());
    }
    if scheme.eq_ignore_ascii_case("basic") {
        let pair = String::from_utf8(BASE64_STANDARD.decode(value.trim()).ok()?).ok()?;
        return pair.split_once(':').map(|(_, password)| password.to_owned());
    }
    None
}

/// The token in a file, as the server and `status` read it.
///
/// # Errors
/// See [`AccessError`].
pub fn read_token(path: &Path) -> Result<String, AccessError> {
    let unreadable = |source| AccessError::TokenFile { path: path.to_owned(), source };
    let about = fs::metadata(path).map_err(unreadable)?;
    let mode = about.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(AccessError::TokenIsOpen { path: path.to_owned(), mode });
    }
    let malformed = || AccessError::TokenForm { path: path.to_owned() };
    if !about.is_file() || about.len() > 2 * TOKEN_BYTES_MAX as u64 {
        return Err(malformed());
    }
    let text = String::from_utf8(fs::read(path).map_err(unreadable)?).map_err(|_| malformed())?;
    let token = text.trim();
    let good = (TOKEN_BYTES_MIN..=TOKEN_BYTES_MAX).contains(&token.len()) && token.bytes().all(|b| b.is_ascii_graphic());
    if good { Ok(token.to_owned()) } else { Err(malformed()) }
}

fn hash(text: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, text).as_ref());
    out
}

fn same(wanted: &[u8; 32], given: &[u8]) -> bool {
    wanted.ct_eq(&hash(given)).into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, missing_docs)] // a failed step is the test's failure

    use super::*;

    fn token_file(text: &str, mode: u32) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        (dir, path)
    }

    #[test]
    fn a_token_is_read_from_a_file_of_this_user_alone() {
        let (_dir, path) = token_file("  0123456789abcdef\n", 0o600);
        assert_eq!(read_token(&path).unwrap(), "0123456789abcdef");
        for mode in [0o640, 0o604, 0o666] {
            let (_dir, path) = token_file("0123456789abcdef", mode);
            assert!(matches!(read_token(&path), Err(AccessError::TokenIsOpen { .. })), "{mode:o}");
        }
        for text in ["", "short", "0123456789 abcdef", "0123456789abcde\u{e9}", &"x".repeat(513), &"x".repeat(100_000)] {
            let (_dir, path) = token_file(text, 0o400);
            let refused = read_token(&path).unwrap_err();
            assert!(matches!(refused, AccessError::TokenForm { .. }), "{text}");
            assert!(text.is_empty() || !refused.to_string().contains(text), "an error must not show what is in the file");
        }
        assert!(matches!(read_token(Path::new("/nonexistent/token")), Err(AccessError::TokenFile { .. })));
    }

    #[test]
    fn a_token_comes_as_bearer_or_as_the_password_of_any_user() {
        assert_eq!(token_of("Bearer abc").as_deref(), Some("abc"));
        assert_eq!(token_of(&format!("basic {}", BASE64_STANDARD.encode("me:a:b"))).as_deref(), Some("a:b"));
        for wrong in ["", "Bearer", "Digest abc", "Basic !!!", &format!("Basic {}", BASE64_STANDARD.encode("nocolon"))] {
            assert_eq!(token_of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_name_that_is_asked_for_is_one_of_this_server() {
        let gate = |listen: &str| Gate::new(&Access::Loopback, vec![listen.parse().unwrap()], vec![], vec!["edge-1.example".into()]).unwrap();
        let ask = |listen: &str, host: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().unwrap());
            gate(listen).check_host(&headers, listen.parse().unwrap()).is_ok()
        };
        for (listen, good) in [
            ("127.0.0.1:80", &["localhost", "LocalHost:1", "127.0.0.1", "127.9.9.9:80", "[::1]:80"][..]),
            ("192.0.2.7:80", &["192.0.2.7", "192.0.2.7:80", "EDGE-1.example:80"]),
            ("0.0.0.0:80", &["10.1.1.1", "127.0.0.1:80", "localhost", "edge-1.example"]),
        ] {
            good.iter().for_each(|host| assert!(ask(listen, host), "{listen} {host}"));
        }
        for (listen, bad) in [
            (
                "127.0.0.1:80",
                &["", "evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "edge-1.example", "192.0.2.7", "localhost:80:80"][..],
            ),
            ("192.0.2.7:80", &["", "192.0.2.8", "evil.example", "localhost", "127.0.0.1"]),
            ("0.0.0.0:80", &["evil.example", "edge-1.example.evil.example", ""]),
        ] {
            bad.iter().for_each(|host| assert!(!ask(listen, host), "{listen} {host}"));
        }
    }

    #[test]
    fn a_request_that_another_site_made_a_browser_send_is_told_apart() {
        let ask = |pairs: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, "localhost:10360".parse().unwrap());
            for (name, value) in pairs {
                headers.insert(header::HeaderName::from_static(name), value.parse().unwrap());
            }
            check_origin(&headers).is_ok()
        };
        assert!(ask(&[]) && ask(&[("sec-fetch-site", "same-origin"), ("origin", "http://localhost:10360")]));
        for site in ["cross-site", "same-site", "none", ""] {
            assert!(!ask(&[("sec-fetch-site", site)]), "{site}");
        }
        for origin in
            ["null", "http://evil.example", "http://localhost:1", "http://localhost", "localhost:10360", "http://localhost:10360.evil.example"]
        {
            assert!(!ask(&[("origin", origin)]), "{origin}");
        }
    }
}
