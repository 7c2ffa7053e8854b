#![allow(clippy::unwrap_used)] // a failed step is the test's failure

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// A server for the time of the test run, which answers `/` with `page` and everything else with 404.
fn serve(page: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut asked = [0; 2048];
            let length = stream.read(&mut asked).unwrap_or(0);
            let (status, body) = if asked[..length].starts_with(b"GET / ") { ("200 OK", page) } else { ("404 Not Found", "") };
            let _ =
                write!(stream, "HTTP/1.1 {status}\r\nContent-Type: text/html\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        }
    });
    port
}

#[test]
fn what_a_page_does_wrong_is_noticed() {
    if !required() {
        return;
    }
    let other = serve("other");
    let port = serve(
        "<!DOCTYPE html><html lang=en><title>t</title><link rel=icon href='data:,'><main><h1>Heading</h1></main><script>
         console.error('said', 7); setTimeout(() => { throw new Error('thrown') });
         new Image().src = '/missing.png';
         window.asked = fetch(`http://127.0.0.1:${location.hash.slice(1)}/`, {mode: 'no-cors'}).then(() => true)</script>",
    );
    let mut browser = Browser::start();
    browser.open(&format!("http://127.0.0.1:{port}/#{other}"));
    assert_eq!(browser.eval("window.asked"), true);
    browser.wait_for("performance.getEntriesByType('resource').length >= 2", 10 * SECOND);
    let errors = browser.console_errors();
    assert!(errors.iter().any(|error| error == "console.error: said 7"), "{errors:?}");
    assert!(errors.iter().any(|error| error.contains("Error: thrown")), "{errors:?}");
    let failed = browser.failed_requests();
    assert!(failed.iter().any(|one| one.ends_with("/missing.png: status 404")), "{failed:?}");
    assert_eq!(browser.strays(), [format!("http://127.0.0.1:{other}/")]);
    let read: Vec<_> = browser.accessible().into_iter().filter(|one| one.role == "heading" || one.role == "main").collect();
    let heading = Accessible { role: "heading".to_owned(), name: "Heading".to_owned() };
    assert_eq!(read, [Accessible { role: "main".to_owned(), name: String::new() }, heading]);
}

#[test]
fn screen_colours_and_scripts_are_as_they_were_asked_for() {
    if !required() {
        return;
    }
    let port = serve(
        "<!DOCTYPE html><meta name=viewport content='width=device-width'><link rel=icon href='data:,'>
         <p id=said>without</p><script>said.textContent = 'with'</script><button onclick='said.textContent = \"pressed\"'>Press</button>",
    );
    let url = format!("http://127.0.0.1:{port}/");
    let mut browser = Browser::start();
    for viewport in [Viewport::Phone, Viewport::Desktop] {
        browser.viewport(viewport);
        browser.open(&url);
        assert_eq!(browser.eval("[innerWidth, innerHeight]"), json!([viewport.width(), viewport.height()]));
    }
    for (colours, dark) in [(Colours::Dark, true), (Colours::Light, false)] {
        browser.colours(colours);
        assert_eq!(browser.eval("matchMedia('(prefers-color-scheme: dark)').matches"), dark);
    }
    assert!(browser.text().starts_with("with\n"), "{}", browser.text());
    browser.press("button");
    browser.wait_for("said.textContent === 'pressed'", 5 * SECOND);
    browser.scripts(false);
    browser.open(&url);
    assert!(browser.text().starts_with("without\n"), "{}", browser.text());

    let dir = tempfile::tempdir().unwrap();
    let shot = dir.path().join("shot.png");
    browser.screenshot(&shot);
    assert!(std::fs::read(shot).unwrap().starts_with(b"\x89PNG"));
}

#[test]
fn a_condition_that_does_not_come_true_fails_in_time_and_shows_the_page() {
    if !required() {
        return;
    }
    let mut browser = Browser::start();
    browser.open(&format!("http://127.0.0.1:{}/", serve("<p>What it says</p>")));
    let began = Instant::now();
    let failure = catch_unwind(AssertUnwindSafe(|| browser.wait_for("1 > 2", SECOND))).unwrap_err();
    assert!(began.elapsed() < 5 * SECOND, "{:?}", began.elapsed());
    let words = failure.downcast_ref::<String>().unwrap();
    assert!(words.contains("`1 > 2`; last: false; the page says:\nWhat it says"), "{words}");
}

#[test]
fn nothing_is_left_behind_by_a_test_that_panics() {
    if !required() {
        return;
    }
    let mut left: Option<(u32, PathBuf)> = None;
    let failure = catch_unwind(AssertUnwindSafe(|| {
        let browser = Browser::start();
        let group = browser.chromium.group();
        let profile = browser.chromium.profile().to_owned();
        assert!(chromium::processes(group, &profile).len() > 1, "a browser has children");
        left = Some((group, profile));
        panic!("on purpose");
    }));
    failure.unwrap_err();
    let (group, profile) = left.unwrap();
    assert_eq!(chromium::processes(group, &profile), [0; 0]);
    assert!(!profile.exists(), "{} is still there", profile.display());
    // But for the last picture, which is the helper of whoever looks for the reason, where one could be taken; nobody needs this one.
    let name = "failed-browser-tests-nothing_is_left_behind_by_a_test_that_panics.png";
    let _ = std::fs::remove_file(crate::artefacts().join(name));
}
