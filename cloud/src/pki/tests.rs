#![allow(clippy::unwrap_used, reason = "a failed step ends the test")]

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use model::NodeName;
use rcgen::{CertificateParams, DnType, KeyPair};
use ring::hmac;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::token::{TokenError, fingerprint, issue, verify};
use super::{Config, Identity, Pki, PkiError, SignError};

const DAY: Duration = Duration::from_secs(86_400);

fn config(dir: &Path) -> Config {
    Config::new(dir.join("pki"))
}

fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

fn csr(common_name: Option<&str>) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    if let Some(name) = common_name {
        params.distinguished_name.push(DnType::CommonName, name);
    }
    params.serialize_request(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
}

fn contents(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read(&path).unwrap()))
        .collect()
}

#[test]
fn the_first_start_makes_all_files_and_only_their_owner_reads_the_keys() {
    let dir = tempfile::tempdir().unwrap();
    Pki::open(config(dir.path())).unwrap();
    let pki = dir.path().join("pki");
    let names: Vec<String> = contents(&pki).into_keys().collect();
    assert_eq!(names, ["admin.crt", "admin.key", "ca.crt", "ca.key", "server.crt", "server.key"]);
    for name in ["admin.key", "ca.key", "server.key"] {
        assert_eq!(std::fs::metadata(pki.join(name)).unwrap().permissions().mode() & 0o777, 0o600, "{name}");
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary directory is left");
}

#[test]
fn a_second_start_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    Pki::open(config(dir.path())).unwrap();
    let before = contents(&dir.path().join("pki"));
    Pki::open(config(dir.path())).unwrap();
    assert_eq!(contents(&dir.path().join("pki")), before);
}

#[test]
fn an_advertised_address_is_in_the_server_certificate_and_a_new_one_renews_it_with_the_same_key() {
    let dir = tempfile::tempdir().unwrap();
    let with = |names: &[&str]| Config { advertise: names.iter().map(|n| (*n).to_owned()).collect(), ..config(dir.path()) };
    Pki::open(with(&["10.1.2.3"])).unwrap();
    let first = contents(&dir.path().join("pki"));
    Pki::open(with(&["10.1.2.3", "cloud.example.org", "fd00::1"])).unwrap();
    let second = contents(&dir.path().join("pki"));
    let changed: Vec<&String> = first.keys().filter(|name| first[*name] != second[*name]).collect();
    assert_eq!(changed, ["server.crt"]);
    Pki::open(with(&["10.1.2.3", "cloud.example.org", "fd00:0::1"])).unwrap();
    assert_eq!(contents(&dir.path().join("pki")), second, "the same names in another form renew nothing");
}

#[test]
fn an_advertised_address_that_is_none_is_refused_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let error = Pki::open(Config { advertise: vec!["no name".into()], ..config(dir.path()) }).err().unwrap();
    assert!(matches!(error, PkiError::AdvertiseAddress { .. }), "{error}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_lost_or_damaged_authority_is_an_error_that_names_the_file_and_is_never_replaced() {
    let half = |text: &str| text[..text.len() / 2].to_owned();
    type Damage<'a> = (&'a str, &'a dyn Fn(&Path));
    let damages: [Damage<'_>; 4] = [
        ("ca.key", &|path| std::fs::remove_file(path).unwrap()),
        ("ca.crt", &|path| std::fs::remove_file(path).unwrap()),
        ("ca.crt", &|path| std::fs::write(path, half(&std::fs::read_to_string(path).unwrap())).unwrap()),
        ("ca.key", &|path| std::fs::write(path, "x".repeat(70_000)).unwrap()),
    ];
    for (name, damage) in damages {
        let dir = tempfile::tempdir().unwrap();
        Pki::open(config(dir.path())).unwrap();
        damage(&dir.path().join("pki").join(name));
        let before = contents(&dir.path().join("pki"));
        let error = Pki::open(config(dir.path())).err().unwrap();
        assert!(matches!(error, PkiError::Missing { .. } | PkiError::Malformed { .. }), "{error:?}");
        assert!(error.to_string().contains(name), "{error}");
        assert_eq!(contents(&dir.path().join("pki")), before);
    }
}

#[test]
fn files_of_two_authorities_are_told_apart() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    Pki::open(config(one.path())).unwrap();
    Pki::open(config(two.path())).unwrap();
    let copy = |name: &str| std::fs::copy(two.path().join("pki").join(name), one.path().join("pki").join(name)).unwrap();
    copy("server.crt");
    assert!(matches!(Pki::open(config(one.path())), Err(PkiError::KeyMismatch { .. })));
    copy("server.key");
    assert!(matches!(Pki::open(config(one.path())), Err(PkiError::OtherAuthority { .. })));
    copy("ca.key");
    assert!(matches!(Pki::open(config(one.path())), Err(PkiError::KeyMismatch { .. })));
}

#[test]
fn an_expired_authority_is_an_error_and_expiring_certificates_are_renewed_under_it() {
    let dir = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    Pki::open_at(config(dir.path()), now).unwrap();
    let before = contents(&dir.path().join("pki"));
    Pki::open_at(config(dir.path()), now + 340 * DAY).unwrap();
    let after = contents(&dir.path().join("pki"));
    let changed: Vec<&String> = before.keys().filter(|name| before[*name] != after[*name]).collect();
    assert_eq!(changed, ["admin.crt", "server.crt"]);
    let error = Pki::open_at(config(dir.path()), now + 3660 * DAY).err().unwrap();
    assert!(matches!(error, PkiError::Expired { .. }), "{error}");
}

#[test]
fn a_directory_that_cannot_be_made_is_an_error_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), "").unwrap();
    let error = Pki::open(Config::new(dir.path().join("file/pki"))).err().unwrap();
    assert!(matches!(error, PkiError::Io { .. }), "{error:?}");
    assert_eq!(contents(dir.path()).len(), 1);
}

#[test]
fn a_token_for_a_cloud_that_never_started_is_refused_and_makes_no_authority() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(Pki::token_from(&dir.path().join("pki"), DAY), Err(PkiError::NotCreated { .. })));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_signed_node_certificate_has_our_subject_whatever_the_request_says() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::open(config(dir.path())).unwrap();
    for name in [None, Some("system:node:edge-1")] {
        let signed = pki.sign_node(&csr(name), &node("edge-1"), SystemTime::now()).unwrap();
        assert_eq!(Identity::from_der(&signed).unwrap().node(), Some(node("edge-1")));
        let (_, parsed) = X509Certificate::from_der(&signed).unwrap();
        assert!(!parsed.is_ca());
        let usage = parsed.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.client_auth && !usage.server_auth && !usage.any);
    }
}

#[test]
fn a_request_for_another_node_and_garbage_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::open(config(dir.path())).unwrap();
    let sign = |request: &[u8]| pki.sign_node(request, &node("edge-1"), SystemTime::now());
    assert!(matches!(sign(&csr(Some("system:node:edge-2"))), Err(SignError::Subject { .. })));
    assert!(matches!(sign(&csr(Some("admin"))), Err(SignError::Subject { .. })));
    for garbage in [&b""[..], b"hello", &[0x30; 4096], &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]] {
        assert!(matches!(sign(garbage), Err(SignError::Request(_))));
    }
    let mut forged = csr(None);
    let last = forged.len() - 1;
    forged[last] ^= 1;
    assert!(matches!(sign(&forged), Err(SignError::Request(_))));
}

#[test]
fn a_subject_with_two_names_or_without_the_nodes_organization_is_no_node() {
    let identity = |name: &str, organization: &str| Identity { common_name: name.into(), organizations: vec![organization.into()] };
    assert_eq!(identity("system:node:a", "system:nodes").node(), Some(node("a")));
    for (name, organization) in
        [("system:node:a", "system:masters"), ("system:node:", "system:nodes"), ("system:node:A b", "system:nodes"), ("a", "system:nodes")]
    {
        assert_eq!(identity(name, organization).node(), None, "{name} {organization}");
    }
}

#[test]
fn only_an_untouched_unexpired_token_of_this_authority_passes() {
    let (ca, key, now) = (b"certificate".as_slice(), b"key of this cloud".as_slice(), SystemTime::now());
    let token = issue(ca, key, now, DAY);
    let (print, bearer) = token.split_once('.').unwrap();
    assert_eq!(print, fingerprint(ca));
    assert_eq!(verify(bearer, key, now), Ok(()));
    assert_eq!(verify(bearer, b"key of another cloud", now), Err(TokenError::Signature));
    assert_eq!(verify(bearer, key, now + DAY + DAY), Err(TokenError::Expired));
    assert_eq!(verify(bearer, key, now + DAY), Err(TokenError::Expired));

    let parts: Vec<&str> = bearer.split('.').collect();
    let later = URL_SAFE_NO_PAD.encode(br#"{"exp":99999999999}"#);
    assert_eq!(verify(&format!("{}.{later}.{}", parts[0], parts[2]), key, now), Err(TokenError::Signature));

    let none = URL_SAFE_NO_PAD.encode(br#"{"alg":"none"}"#);
    for forged in [format!("{none}.{later}."), format!("{none}.{later}.{}", parts[2])] {
        assert_eq!(verify(&forged, key, now), Err(TokenError::Algorithm));
    }
    for garbage in ["", ".", "..", "a.b.c", &token, &"a".repeat(5000), "%%%.%%%.%%%"] {
        assert_eq!(verify(garbage, key, now), Err(TokenError::Malformed), "{garbage}");
    }
    // Signed by us, but no time in it: not ours, whoever made it.
    let head = URL_SAFE_NO_PAD.encode(br#"{"alg":"HS256"}"#);
    let signed = format!("{head}.{}", URL_SAFE_NO_PAD.encode(b"{}"));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), signed.as_bytes());
    assert_eq!(verify(&format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag)), key, now), Err(TokenError::Malformed));
}

#[test]
fn the_kubeconfig_is_private_is_replaced_at_each_start_and_spares_the_operators_own() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::open(config(dir.path())).unwrap();
    let path = dir.path().join("deep/kubeconfig");
    pki.write_kubeconfig(&path, "https://127.0.0.1:1").unwrap();
    pki.write_kubeconfig(&path, "https://127.0.0.1:2").unwrap();
    let parsed = kube::config::Kubeconfig::read_from(&path).unwrap();
    assert_eq!(parsed.clusters[0].cluster.as_ref().unwrap().server.as_deref(), Some("https://127.0.0.1:2"));
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

    std::fs::write(&path, "apiVersion: v1\nkind: Config\n").unwrap();
    assert!(matches!(pki.write_kubeconfig(&path, "https://127.0.0.1:3"), Err(PkiError::ForeignKubeconfig { .. })));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "apiVersion: v1\nkind: Config\n");
}

#[test]
fn two_first_starts_at_once_agree_on_one_authority() {
    let dir = tempfile::tempdir().unwrap();
    let starts: Vec<_> = (0..4)
        .map(|_| {
            let config = config(dir.path());
            std::thread::spawn(move || Pki::open(config).map(|pki| pki.ca_der().to_vec()))
        })
        .collect();
    let made: Vec<Vec<u8>> = starts.into_iter().map(|start| start.join().unwrap().unwrap()).collect();
    assert!(made.windows(2).all(|pair| pair[0] == pair[1]));
}
