//! Logins at registries from a pod's `imagePullSecrets`: pure.
//!
//! Which entry of a Secret is for which image follows the kubelet's keyring: hosts may have `*` and `?` within a label,
//! ports must be the same, and a path is the beginning of the image's.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde::Deserialize;
use serde_json::Value;

use super::objects::{LookupError, Objects};
use super::pod::LocalRef;
use super::runtime::Login;

/// Key of `kubernetes.io/dockerconfigjson`.
const CONFIG_KEY: &str = ".dockerconfigjson";
/// Key of the older form.
const LEGACY_KEY: &str = ".dockercfg";
/// What Docker calls the registry of images without a host.
const HUB: &str = "docker.io";
/// Under this name logins for it are kept.
const HUB_INDEX: &str = "index.docker.io";
/// The address that an engine wants beside a login for it.
const HUB_SERVER: &str = "https://index.docker.io/v1/";

/// Why a Secret gives no login. The text never has anything of the Secret's values.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PullSecretError {
    /// Missing or unreadable.
    #[error("image pull {0}")]
    Object(#[from] LookupError),
    /// Neither of the keys.
    #[error("image pull secret \"{0}\" has neither key `{CONFIG_KEY}` nor `{LEGACY_KEY}`: make it with kubectl create secret docker-registry")]
    NoKey(String),
    /// Not JSON of the form that Docker writes.
    #[error("image pull secret \"{name}\": `{key}` cannot be read at line {line} column {column}")]
    Form {
        /// The Secret.
        name: String,
        /// Which key.
        key: &'static str,
        /// Where; 0 for an entry that is of another form.
        line: usize,
        /// Where.
        column: usize,
    },
    /// An entry without a usable login.
    #[error("image pull secret \"{name}\": entry {number} has neither username and password nor an `auth` that is base64 of `user:password`")]
    Entry {
        /// The Secret.
        name: String,
        /// Counted from 1, by name: the name is not shown, as it may be a misplaced password.
        number: usize,
    },
}

/// Logins for an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Logins {
    /// Those that fit, the most exact first. To be tried one after the other.
    pub found: Vec<Login>,
    /// Secrets that could not be used; the pull is tried all the same.
    pub problems: Vec<PullSecretError>,
}

/// The logins of these Secrets that are for the image's registry.
pub fn logins(secrets: &[LocalRef], objects: &Objects, image: &str) -> Logins {
    let wanted = Target::of(image);
    let mut all = Logins::default();
    let mut found: Vec<(usize, Login)> = Vec::new();
    for secret in secrets {
        match entries(&secret.name, objects) {
            Ok(entries) => {
                // Entries of other registries may be as they are: a login that a helper program keeps leaves an empty one.
                for (number, (place, login)) in entries.into_iter().enumerate().filter(|(_, (place, _))| place.is_for(&wanted)) {
                    match login {
                        Some(login) => found.push((place.length(), Login { server: wanted.server(), ..login })),
                        None => all.problems.push(PullSecretError::Entry { name: secret.name.clone(), number: number + 1 }),
                    }
                }
            }
            Err(problem) => all.problems.push(problem),
        }
    }
    // Stable: among equals the Secret that was named first.
    found.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
    for (_, login) in found {
        if !all.found.contains(&login) {
            all.found.push(login);
        }
    }
    all
}

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    auths: BTreeMap<String, Value>,
}

#[derive(Default, Deserialize)]
struct Entry {
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    password: Option<String>,
    #[serde(default)]
    auth: Option<String>,
}

/// All entries of one Secret; the server of each login is not set yet, and `None` stands for one that is none.
fn entries(name: &str, objects: &Objects) -> Result<Vec<(Place, Option<Login>)>, PullSecretError> {
    let object = objects.get(true, name)?;
    let form = |key| move |error: serde_json::Error| PullSecretError::Form { name: name.to_owned(), key, line: error.line(), column: error.column() };
    let found: BTreeMap<String, Value> = match (object.data.get(CONFIG_KEY), object.data.get(LEGACY_KEY)) {
        (Some(bytes), _) => serde_json::from_slice::<Config>(bytes).map_err(form(CONFIG_KEY))?.auths,
        (None, Some(bytes)) => serde_json::from_slice(bytes).map_err(form(LEGACY_KEY))?,
        (None, None) => return Err(PullSecretError::NoKey(name.to_owned())),
    };
    let entry = |(address, value): (String, Value)| (Place::parse(&address), serde_json::from_value::<Entry>(value).ok().and_then(login));
    Ok(found.into_iter().map(entry).collect())
}

/// `auth` wins, as with the kubelet.
fn login(entry: Entry) -> Option<Login> {
    let (username, password) = match entry.auth.filter(|auth| !auth.is_empty()) {
        Some(auth) => {
            let compact: String = auth.chars().filter(|c| !c.is_ascii_whitespace()).collect();
            let bytes = STANDARD.decode(&compact).or_else(|_| STANDARD_NO_PAD.decode(&compact)).ok()?;
            let text = String::from_utf8(bytes).ok()?;
            // Docker writes a zero byte at the end of some.
            let (username, password) = text.trim_end_matches('\0').split_once(':')?;
            (username.to_owned(), password.to_owned())
        }
        None => (entry.username?, entry.password?),
    };
    Some(Login { username, password, server: String::new() }).filter(|login| !login.username.is_empty())
}

/// What an entry is for.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    host: String,
    port: String,
    /// Begins with a slash, or is empty.
    path: String,
}

impl Place {
    /// Reads the address of an entry: with or without a scheme; `/v1/` and `/v2/` are the registry itself.
    fn parse(address: &str) -> Self {
        let plain = address.strip_prefix("https://").or_else(|| address.strip_prefix("http://")).unwrap_or(address);
        let (authority, path) = plain.find('/').map_or((plain, ""), |at| plain.split_at(at));
        let path = match path.strip_prefix("/v1/").or_else(|| path.strip_prefix("/v2/")) {
            Some(rest) => format!("/{rest}"),
            None if path == "/v1" || path == "/v2" => String::new(),
            None => path.to_owned(),
        };
        let (host, port) = split_port(authority);
        Self { host: host.to_ascii_lowercase(), port: port.to_owned(), path: path.trim_end_matches('/').to_owned() }
    }

    /// The more is said, the more exact it is.
    fn length(&self) -> usize {
        self.host.len() + self.port.len() + self.path.len()
    }

    fn is_for(&self, target: &Target) -> bool {
        let is_hub = target.host == HUB && target.port.is_empty();
        if is_hub && self.host == HUB_INDEX && self.port.is_empty() && self.path.is_empty() {
            return true;
        }
        let (own, wanted): (Vec<&str>, Vec<&str>) = (self.host.split('.').collect(), target.host.split('.').collect());
        self.port == target.port
            && own.len() == wanted.len()
            && own.iter().zip(&wanted).all(|(pattern, label)| fits(pattern.as_bytes(), label.as_bytes()))
            && target.path.starts_with(&self.path)
    }
}

/// Registry and path of an image.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    host: String,
    port: String,
    path: String,
}

impl Target {
    fn of(image: &str) -> Self {
        let image = image.split('@').next().unwrap_or_default();
        // Docker's rule: what is before the first slash is a host if it looks like one.
        let (authority, rest) = match image.split_once('/') {
            Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest),
            _ => (HUB, image),
        };
        let (host, port) = split_port(authority);
        let host = if host.eq_ignore_ascii_case(HUB_INDEX) { HUB.to_owned() } else { host.to_ascii_lowercase() };
        let slash = rest.rfind('/').map_or(0, |at| at + 1);
        let name = rest[slash..].find(':').map_or(rest, |colon| &rest[..slash + colon]);
        let path = if host == HUB && !name.contains('/') { format!("/library/{name}") } else { format!("/{name}") };
        Self { host, port: port.to_owned(), path }
    }

    fn server(&self) -> String {
        match (self.host.as_str(), self.port.as_str()) {
            (HUB, "") => HUB_SERVER.to_owned(),
            (host, "") => host.to_owned(),
            (host, port) => format!("{host}:{port}"),
        }
    }
}

fn split_port(authority: &str) -> (&str, &str) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => (host, port),
        _ => (authority, ""),
    }
}

/// Whether a label fits a pattern of `*` and `?`. At most their lengths multiplied in steps.
fn fits(pattern: &[u8], label: &[u8]) -> bool {
    let (mut p, mut l) = (0, 0);
    // Where the last star was, and how much of the label it has taken.
    let mut star: Option<(usize, usize)> = None;
    while l < label.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, l));
                p += 1;
            }
            Some(c) if *c == b'?' || *c == label[l] => {
                p += 1;
                l += 1;
            }
            _ => {
                let Some((at, taken)) = star else { return false };
                star = Some((at, taken + 1));
                p = at + 1;
                l = taken + 1;
            }
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use serde_json::json;

    use super::super::objects::KeyedObject;
    use super::*;

    fn secret(objects: &mut Objects, name: &str, key: &str, value: &str) -> LocalRef {
        let object = KeyedObject { data: BTreeMap::from([(key.to_owned(), value.as_bytes().to_vec())]), ..KeyedObject::default() };
        objects.insert(true, name.into(), Ok(object));
        LocalRef { name: name.into() }
    }

    /// Users whose login fits the image, from one Secret with an entry for each address.
    fn users(addresses: &[&str], image: &str) -> Vec<String> {
        let auths: BTreeMap<&str, Value> = addresses.iter().map(|address| (*address, json!({"username": address, "password": "p"}))).collect();
        let mut objects = Objects::default();
        let secret = secret(&mut objects, "s", CONFIG_KEY, &json!({"auths": auths}).to_string());
        let all = logins(&[secret], &objects, image);
        assert_eq!(all.problems, []);
        all.found.into_iter().map(|login| login.username).collect()
    }

    #[test]
    fn an_entry_is_for_a_registry_as_the_kubelet_reads_it() {
        let hub = "https://index.docker.io/v1/";
        for (address, image, fits) in [
            (hub, "nginx", true),
            (hub, "nginx:1.27", true),
            (hub, "library/nginx@sha256:00", true),
            (hub, "docker.io/me/app:1", true),
            (hub, "index.docker.io/me/app", true),
            (hub, "reg.example.com/app", false),
            (hub, "localhost/app", false),
            ("index.docker.io", "nginx", true),
            ("docker.io", "me/app", true),
            ("docker.io/me", "me/app", true),
            ("docker.io/me", "you/app", false),
            ("docker.io/library", "nginx", true),
            ("reg.example.com", "reg.example.com/a/b:1", true),
            ("REG.example.com", "reg.example.com/a/b:1", true),
            ("https://reg.example.com/v2/", "reg.example.com/a", true),
            ("https://reg.example.com/v2", "reg.example.com/a", true),
            ("http://reg.example.com", "reg.example.com/a", true),
            ("reg.example.com", "reg.example.com:5000/a", false),
            ("reg.example.com:5000", "reg.example.com:5000/a:v", true),
            ("reg.example.com:5000", "reg.example.com/a", false),
            ("reg.example.com/team", "reg.example.com/team/a", true),
            ("reg.example.com/team", "reg.example.com/other/a", false),
            ("reg.example.com/team", "reg.example.com/team", true),
            ("*.example.com", "reg.example.com/a", true),
            ("*.example.com", "a.b.example.com/a", false),
            ("*", "reg.example.com/a", false),
            ("*.*.*", "reg.example.com/a", true),
            ("*.dkr.ecr.*.amazonaws.com", "123.dkr.ecr.eu-west-1.amazonaws.com/a", true),
            ("r?g.example.com", "reg.example.com/a", true),
            ("reg.example.com.evil.org", "reg.example.com/a", false),
            ("example.com", "reg.example.com/a", false),
            ("reg.example.com@evil.org", "evil.org/a", false),
            ("localhost:5000", "localhost:5000/a", true),
            ("localhost", "localhost/a", true),
            ("", "nginx", false),
            ("/", "nginx", false),
            ("https://", "nginx", false),
        ] {
            assert_eq!(!users(&[address], image).is_empty(), fits, "{address} for {image}");
        }
    }

    #[test]
    fn the_most_exact_entry_is_first_and_the_server_is_the_images() {
        let all = ["reg.example.com", "reg.example.com/team/sub", "*.example.com", "reg.example.com/team"];
        let want = ["reg.example.com/team/sub", "reg.example.com/team", "reg.example.com", "*.example.com"];
        assert_eq!(users(&all, "reg.example.com/team/sub/app"), want);
        let mut objects = Objects::default();
        let value = json!({"reg.example.com:5000": {"username": "u", "password": "p"}, "index.docker.io": {"username": "h", "password": "p"}});
        let both = [secret(&mut objects, "a", LEGACY_KEY, &value.to_string()), secret(&mut objects, "b", LEGACY_KEY, &value.to_string())];
        let server = |image: &str| logins(&both, &objects, image).found.into_iter().map(|login| login.server).collect::<Vec<_>>();
        // The same login of a second Secret is not tried again.
        assert_eq!(server("reg.example.com:5000/a"), ["reg.example.com:5000"]);
        assert_eq!(server("a"), [HUB_SERVER]);
        assert!(server("elsewhere.org/a").is_empty());
    }

    #[test]
    fn auth_is_base64_of_user_and_password_and_wins() {
        let one = |entry: Value| {
            let mut objects = Objects::default();
            let secret = secret(&mut objects, "s", CONFIG_KEY, &json!({"auths": {"r.io": entry}}).to_string());
            logins(&[secret], &objects, "r.io/a").found.pop().map(|login| (login.username, login.password))
        };
        let pair = |user: &str, password: &str| Some((user.to_owned(), password.to_owned()));
        assert_eq!(one(json!({"auth": STANDARD.encode("me:pa:ss")})), pair("me", "pa:ss"));
        assert_eq!(one(json!({"auth": STANDARD_NO_PAD.encode("me:p")})), pair("me", "p"));
        assert_eq!(one(json!({"auth": STANDARD.encode("me:p\0")})), pair("me", "p"));
        assert_eq!(one(json!({"auth": STANDARD.encode("me:p"), "username": "other", "password": "o"})), pair("me", "p"));
        assert_eq!(one(json!({"auth": "", "username": "other", "password": "o", "email": "e"})), pair("other", "o"));
        assert_eq!(one(json!({"username": "u", "password": ""})), pair("u", ""));
    }

    #[test]
    fn a_secret_that_cannot_be_used_is_named_without_its_content_and_the_others_count() {
        let hidden = "hunter2";
        for (key, value) in [
            (CONFIG_KEY, format!("{{\"auths\":{{\"r.io\":{{\"auth\":\"{hidden}!\"}}}}}}")),
            (CONFIG_KEY, format!("{{\"auths\":{{\"r.io\":{{\"password\":\"{hidden}\"}}}}}}")),
            (CONFIG_KEY, format!("{{\"auths\":{{\"{hidden}\":7,\"r.io\":7}}}}")),
            (CONFIG_KEY, format!("{{\"auths\":{{\"r.io\":{{\"auth\":\"{}\"}}}}}}", STANDARD.encode(hidden))),
            (CONFIG_KEY, format!("{{\"auths\":\"{hidden}\"}}")),
            (CONFIG_KEY, hidden.to_owned()),
            (CONFIG_KEY, format!("[\"{hidden}\"")),
            (LEGACY_KEY, format!("\"{hidden}\"")),
            (LEGACY_KEY, String::new()),
            ("other", hidden.to_owned()),
        ] {
            let mut objects = Objects::default();
            let bad = secret(&mut objects, "bad", key, &value);
            let good = secret(&mut objects, "good", LEGACY_KEY, r#"{"r.io":{"username":"u","password":"p"}}"#);
            let all = logins(&[bad, good], &objects, "r.io/a");
            assert_eq!((all.problems.len(), all.found.len()), (1, 1), "{value}");
            let said = all.problems[0].to_string();
            assert!(said.contains("\"bad\"") && !said.contains(hidden), "{said}");
        }
        let missing = logins(&[LocalRef { name: "none".into() }], &Objects::default(), "a");
        assert_eq!(missing.problems[0].to_string(), "image pull secret \"none\" not found");
        let mut objects = Objects::default();
        let empty = secret(&mut objects, "s", CONFIG_KEY, "{}");
        assert_eq!(logins(&[empty], &objects, "a"), Logins::default());
        // What another registry has there is nobody's concern.
        let helped = secret(&mut objects, "h", CONFIG_KEY, r#"{"auths":{"a.io":{},"r.io":{"username":"u","password":"p"}},"credsStore":"x"}"#);
        assert_eq!(logins(&[helped], &objects, "r.io/a").problems, []);
    }

    #[test]
    fn a_pattern_of_many_stars_is_matched_in_reasonable_time() {
        let (pattern, label) = ("*a".repeat(60), "a".repeat(59));
        assert!(!fits(pattern.as_bytes(), label.as_bytes()));
        assert!(fits("*a".repeat(30).as_bytes(), label.as_bytes()));
        assert!(fits(b"a*c?", b"abbcd") && !fits(b"a*c?", b"abbc") && fits(b"", b"") && !fits(b"", b"a") && fits(b"**", b""));
    }
}
