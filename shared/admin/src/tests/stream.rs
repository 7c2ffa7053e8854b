use super::*;

fn open(site: &Site, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(site.address).unwrap();
    stream.set_read_timeout(Some(WITHIN)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    stream
}

/// Reads until what was read contains `wanted`.
fn read_until(stream: &mut TcpStream, wanted: &str) -> String {
    let (mut text, mut part) = (String::new(), [0; 4096]);
    while !text.contains(wanted) {
        let n = stream.read(&mut part).unwrap();
        assert!(n > 0, "ended: {text}");
        text.push_str(&String::from_utf8_lossy(&part[..n]));
    }
    text
}

/// The first event of a stream, without the framing of its chunks.
pub(super) fn first_event(site: &Site, path: &str) -> String {
    let mut stream = open(site, path);
    let text = read_until(&mut stream, "\n\n\r\n");
    let chunk = body(&text).split_once("\r\n").unwrap().1;
    chunk[..chunk.find("\n\n").unwrap() + 2].to_owned()
}

#[test]
fn a_watcher_sees_at_once_what_happens_and_the_clock_stops_when_nobody_watches() {
    with(config(), |site| {
        let mut watcher = open(&site, "/api/stream");
        let head = read_until(&mut watcher, "data: ");
        assert!(head.starts_with("HTTP/1.1 200") && head.contains("content-type: text/event-stream"), "{head}");
        site.registry.note("worker", actor::EventKind::Connected, "a thing that was just noted");
        let noted = Instant::now();
        read_until(&mut watcher, "a thing that was just noted");
        assert!(noted.elapsed() < Duration::from_secs(3));
        drop(watcher);
        // Each rendering asks for the snapshots of the watched actor: once nobody watches, nobody asks.
        let mut own = open(&site, "/api/stream?actor=worker");
        read_until(&mut own, "data: ");
        drop(own);
        until(|| {
            let before = site.snapshots.load(Ordering::SeqCst);
            let quiet = Instant::now() + Duration::from_millis(2500);
            while Instant::now() < quiet && site.snapshots.load(Ordering::SeqCst) == before {
                std::thread::park_timeout(Duration::from_millis(10));
            }
            site.snapshots.load(Ordering::SeqCst) == before
        });
    });
}

#[test]
fn an_actors_own_page_has_a_stream_and_an_unknown_one_has_none() {
    with(config(), |site| {
        assert!(first_event(&site, "/api/stream?actor=worker").contains("What it knows"));
        assert_eq!(status(&site.get("/api/stream?actor=nobody")), 404);
        assert_eq!(status(&site.get("/api/stream?actor=..%2f")), 404);
    });
}

#[test]
fn the_seventeenth_watcher_is_turned_away_and_gets_in_when_another_one_goes() {
    with(config(), |site| {
        let mut watchers: Vec<_> =
            (0..crate::WATCHERS_MAX).map(|n| open(&site, if n % 2 == 0 { "/api/stream" } else { "/api/stream?actor=twin" })).collect();
        for watcher in &mut watchers {
            read_until(watcher, "data: ");
        }
        let refused = site.get("/api/stream");
        assert!(status(&refused) == 503 && refused.contains("browsers watch already") && refused.contains("retry-after"), "{refused}");
        assert_eq!(status(&site.get("/")), 200);
        watchers.pop();
        until(|| {
            let mut again = open(&site, "/api/stream");
            let mut start = [0; 12];
            again.read_exact(&mut start).unwrap();
            &start == b"HTTP/1.1 200"
        });
    });
}
