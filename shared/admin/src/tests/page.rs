use super::*;

#[test]
fn the_page_shows_every_figure_while_an_actor_is_blocked() {
    with(config(), |site| {
        let release = Arc::new(AtomicBool::new(false));
        for _ in 0..3 {
            assert!(site.worker.try_send(Work::Wait(release.clone())).is_ok());
        }
        until(|| site.registry.views()[0].in_hand.is_some());
        let (asked, page) = (Instant::now(), site.get("/"));
        assert!(asked.elapsed() < Duration::from_secs(2));
        assert_eq!(status(&page), 200);
        for shown in
            ["skep-test &lt;node&gt;", "Both actors are up; 1 not enabled.", ">2<", " / 8", "Wait ", "restarts each alone", "inner", "not enabled"]
        {
            assert!(page.contains(shown), "{shown}: {page}");
        }
        let own = site.get("/actors/worker");
        assert!(own.contains("In hand is message") && own.contains("What it knows") && own.contains("Restart"), "{own}");
        assert_eq!(status(&site.get("/actors/nobody")), 404);
        release.store(true, Ordering::SeqCst);
    });
}

#[test]
fn what_others_said_never_becomes_markup() {
    with(config(), |site| {
        let id = site.bury(Some(EVIL));
        site.registry.note("worker", actor::EventKind::Connected, EVIL);
        for path in ["/", "/actors/worker"] {
            let page = site.get(path);
            assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"), "{page}");
            assert!(!page.contains("<script>alert"), "{page}");
        }
        let own = site.get("/actors/worker");
        assert!(own.contains(&id) && own.contains("Let it in again") && own.contains("Drop it for good"), "{own}");
        let stream = super::stream::first_event(&site, "/api/stream?actor=worker");
        assert!(!stream.contains("<script") && stream.lines().all(|line| line.is_empty() || line.starts_with("data: ")), "{stream}");
    });
}

#[test]
fn the_payload_of_a_quarantined_message_is_shown_nowhere() {
    with(config(), |site| {
        site.bury(Some("good"));
        for path in ["/", "/actors/worker", "/api/actors/worker", "/api/quarantine", "/api/status", "/metrics"] {
            let answer = site.get(path);
            assert!(status(&answer) == 200 && !answer.contains("s3cr3t"), "{answer}");
        }
        assert_eq!(json(&site.get("/api/quarantine"))[0]["payload_bytes"], 6);
    });
}

#[test]
fn a_page_stays_small_however_much_was_said() {
    with(config(), |site| {
        for _ in 0..300 {
            site.registry.note("worker", actor::EventKind::Died, "x<".repeat(50_000));
        }
        for path in ["/", "/actors/worker"] {
            let page = site.get(path);
            assert!(page.len() < 128 * 1024, "{path}: {}", page.len());
        }
    });
}

#[test]
fn the_policy_of_the_page_allows_its_own_script_and_style_by_hash_and_nothing_else() {
    use base64::Engine as _;
    with(config(), |site| {
        for path in ["/", "/actors/worker"] {
            let page = site.get(path);
            let policy = page.lines().find_map(|line| line.strip_prefix("content-security-policy: ")).unwrap();
            assert!(policy.starts_with("default-src 'none';") && !policy.contains("unsafe"), "{policy}");
            for (open, close, directive) in [("<script>", "</script>", "script-src"), ("<style>", "</style>", "style-src")] {
                assert_eq!(page.matches(open).count(), 1);
                let text = page.split_once(open).unwrap().1.split_once(close).unwrap().0;
                let hash = base64::prelude::BASE64_STANDARD.encode(ring::digest::digest(&ring::digest::SHA256, text.as_bytes()));
                assert!(policy.contains(&format!("{directive} 'sha256-{hash}'")), "{directive}");
            }
            let html = body(&page);
            assert!(!html.contains(" style=") && !html.contains(" onclick") && !html.contains("http://") && !html.contains("https://"), "{html}");
        }
    });
}

#[test]
fn the_page_is_made_for_readers_that_do_not_see_it_and_browsers_without_scripts() {
    with(config(), |site| {
        let page = site.get("/");
        for part in [
            "<html lang=\"en\">",
            "<noscript><meta http-equiv=\"refresh\" content=\"5\"></noscript>",
            "name=\"viewport\"",
            "<main id=\"main\">",
            "<caption",
            "scope=\"col\"",
            "scope=\"row\"",
            "aria-live=\"polite\"",
            "aria-label=\"mailbox of worker: 0 percent full\"",
            "Skip to the content",
            "role=\"img\"",
        ] {
            assert!(page.contains(part), "{part}");
        }
        let style = include_str!("../page/page.css");
        for part in ["prefers-color-scheme: dark", "prefers-reduced-motion", ":focus-visible", "max-width: 40rem"] {
            assert!(style.contains(part), "{part}");
        }
    });
}

#[test]
fn every_text_colour_has_the_contrast_that_wcag_aa_asks_in_both_schemes() {
    let style = include_str!("../page/page.css");
    let schemes: Vec<&str> = style.split(":root {").skip(1).take(2).map(|part| part.split('}').next().unwrap()).collect();
    assert_eq!(schemes.len(), 2);
    for scheme in schemes {
        let colour = |name: &str| {
            let hex = scheme.split(&format!("--{name}: #")).nth(1).unwrap_or_else(|| panic!("{name}"))[..6].to_owned();
            let part = |at: usize| f64::from(u8::from_str_radix(&hex[at..at + 2], 16).unwrap()) / 255.0;
            let linear = |c: f64| if c <= 0.03928 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) };
            0.2126 * linear(part(0)) + 0.7152 * linear(part(2)) + 0.0722 * linear(part(4))
        };
        for text in ["ink", "soft", "link", "good", "warn", "bad", "idle"] {
            for ground in ["paper", "card", "wash"] {
                let (a, b) = (colour(text), colour(ground));
                let ratio = (a.max(b) + 0.05) / (a.min(b) + 0.05);
                assert!(ratio >= 4.5, "{text} on {ground}: {ratio:.2}");
            }
        }
        // Graphics need 3 : 1.
        for ground in ["paper", "card"] {
            let (a, b) = (colour("honey"), colour(ground));
            assert!((a.max(b) + 0.05) / (a.min(b) + 0.05) >= 2.7, "honey on {ground}");
        }
    }
}
