use std::net::TcpListener;

use super::*;
use crate::status::{Credentials, Options, Output, StatusError, run};

fn printed(site: &Site, options: Options) -> String {
    let mut out = Vec::new();
    run(site.address, &Credentials::None, options, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn a_terminal_gets_the_tree_and_the_diary_in_a_hundred_columns() {
    with(config(), |site| {
        site.bury(None);
        let text = printed(&site, Options::default());
        assert!(text.starts_with("skep-test <node>: everything is up · "), "{text}");
        for shown in [
            "● up",
            "one-for-one",
            "├ worker",
            "└ inner",
            "  ├ twin",
            "  └ off",
            "not enabled",
            "········      0/8",
            "LATELY",
            "put a message into quarantine",
        ] {
            assert!(text.contains(shown), "{shown}: {text}");
        }
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
        assert!(!text.contains('\r') && !text.contains('\x1b'), "what an actor said moves no cursor: {text}");
    });
}

#[test]
fn json_is_one_document_with_everything_in_it() {
    with(config(), |site| {
        let text = printed(&site, Options { output: Output::Json, ..Options::default() });
        let document: serde_json::Value = serde_json::from_str(&text).unwrap();
        for part in ["title", "health", "supervisors", "actors", "events"] {
            assert!(document.get(part).is_some(), "{part}");
        }
        assert_eq!(document["actors"][0]["name"], "worker");
    });
}

/// An output that closes after some looks, as `head` does.
struct Closing(Vec<u8>, usize);

impl Write for Closing {
    fn write(&mut self, part: &[u8]) -> std::io::Result<usize> {
        self.0.extend_from_slice(part);
        Ok(part.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        self.1 -= 1;
        if self.1 == 0 { Err(std::io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
    }
}

#[test]
fn watching_prints_again_each_second_until_the_output_is_closed() {
    with(config(), |site| {
        let watch = |options| {
            let mut out = Closing(Vec::new(), 2);
            assert!(matches!(run(site.address, &Credentials::None, options, &mut out), Err(StatusError::Write(_))));
            String::from_utf8(out.0).unwrap()
        };
        let lines = watch(Options { watch: true, output: Output::Json, terminal: false });
        assert_eq!(lines.lines().filter(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()).count(), 2, "{lines}");
        let screen = watch(Options { watch: true, output: Output::Text, terminal: true });
        assert_eq!(screen.matches("\x1b[H\x1b[J").count(), 2);
    });
}

#[test]
fn a_daemon_that_is_not_there_and_one_that_refuses_are_told_apart() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let gone = run(free, &Credentials::None, Options::default(), &mut Vec::new()).unwrap_err();
    assert!(gone.to_string().contains("is it running") && gone.to_string().contains(&format!("`admin.port` {}", free.port())), "{gone}");
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    std::fs::write(&path, "0123456789abcdef").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    with(AdminConfig { access: Access::Token(path.clone()), ..config() }, move |site| {
        let refused = run(site.address, &Credentials::None, Options::default(), &mut Vec::new()).unwrap_err();
        assert!(matches!(refused, StatusError::Refused { status: 401, .. }) && refused.to_string().contains("token"), "{refused}");
        let mut out = Vec::new();
        run(site.address, &Credentials::Token(path), Options::default(), &mut out).unwrap();
        assert!(!out.is_empty());
    });
}

/// Answers one connection with these bytes, then closes or waits.
fn imposter(answer: Vec<u8>, then_wait: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(&answer);
        if then_wait {
            let _ = stream.read(&mut [0; 16]);
        }
    });
    address
}

#[test]
fn whatever_else_answers_there_cannot_harm_the_one_who_asks() {
    let ask = |answer: &[u8]| run(imposter(answer.to_vec(), false), &Credentials::None, Options::default(), &mut Vec::new()).unwrap_err();
    let endless = [b"HTTP/1.1 200 OK\r\nX: ".as_slice(), &[b'x'; 100_000]].concat();
    let headers = format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(100));
    for answer in [
        b"".as_slice(),
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\xff\xfe\x00",
        &endless,
        headers.as_bytes(),
        b"HTTP/1.1 200 OK\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5000000000\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nx",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}xx0\r\n\r\n",
    ] {
        assert!(matches!(ask(answer), StatusError::NoAnswer { .. }), "{}", String::from_utf8_lossy(&answer[..answer.len().min(80)]));
    }
    for answer in
        [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}".as_slice(), b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[]\r\n0\r\n\r\n"]
    {
        assert!(matches!(ask(answer), StatusError::NotOurs(_)));
    }
    let reason = r#"{"error":"\u001b[2Jgone\r\n"}"#;
    let refused = ask(format!("HTTP/1.1 403 No\r\nContent-Length: {}\r\n\r\n{reason}", reason.len()).as_bytes()).to_string();
    assert!(refused.contains("[2Jgone") && !refused.contains('\x1b'), "{refused:?}");
}

#[test]
fn one_who_answers_nothing_is_late_after_five_seconds() {
    let silent = imposter(b"HTTP/1.1 200".to_vec(), true);
    let began = Instant::now();
    let late = run(silent, &Credentials::None, Options::default(), &mut Vec::new()).unwrap_err();
    assert!(matches!(late, StatusError::NoAnswer { .. }) && actor::chain(&late).contains("no complete answer within 5 s"), "{late}");
    assert!(began.elapsed() < Duration::from_secs(15));
}
