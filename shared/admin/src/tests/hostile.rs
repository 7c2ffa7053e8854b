use super::*;

#[test]
fn a_name_that_somebody_else_resolves_to_this_machine_reads_and_changes_nothing() {
    with(AdminConfig { fault_injection: true, ..config() }, |site| {
        for rebound in ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "localhost.", "192.0.2.1", "localhost, evil.example"] {
            for request in ["GET /", "GET /api/actors", "GET /api/stream", "GET /livez", "GET /pods", "POST /api/actors/worker/restart", "POST /act"]
            {
                let answer = site.raw(&format!("{request} HTTP/1.1\r\nHost: {rebound}\r\nConnection: close\r\nX-Skep-Action: 1\r\n\r\n"));
                assert!((400..500).contains(&status(&answer)) && !answer.contains("worker"), "{rebound} {request} {answer}");
            }
        }
        assert!((400..500).contains(&status(&site.raw("GET / HTTP/1.0\r\n\r\n"))));
        for local in ["localhost:10360", "127.0.0.1", "[::1]:1"] {
            assert_eq!(status(&site.raw(&format!("GET / HTTP/1.1\r\nHost: {local}\r\nConnection: close\r\n\r\n"))), 200);
        }
    });
}

#[test]
fn what_another_site_makes_a_browser_send_changes_nothing() {
    with(AdminConfig { fault_injection: true, ..config() }, |site| {
        let id = site.bury(Some("good"));
        let before = site.registry.events().len();
        let token = site.form_token();
        let form = format!("token={token}&act=restart&of=worker");
        let calls = [
            ("POST", "/api/actors/worker/restart".to_owned()),
            ("DELETE", format!("/api/quarantine/{id}")),
            ("POST", format!("/api/quarantine/{id}/retry")),
            ("POST", "/debug/actors/worker/panic".to_owned()),
        ];
        for (method, path) in &calls {
            for headers in [
                "",
                "X-Skep-Action: 0\r\n",
                "X-Skep-Action: 1\r\nOrigin: http://evil.example\r\n",
                "X-Skep-Action: 1\r\nSec-Fetch-Site: cross-site\r\n",
            ] {
                let answer = site.call(method, path, headers, "");
                assert_eq!(status(&answer), 403, "{method} {path} {headers}: {answer}");
            }
        }
        let kind = "Content-Type: application/x-www-form-urlencoded\r\n";
        for (headers, body) in [
            (kind.to_owned(), "act=restart&of=worker".to_owned()),
            (kind.to_owned(), "token=&act=restart&of=worker".to_owned()),
            (kind.to_owned(), format!("token={token}x&act=restart&of=worker")),
            (format!("{kind}Origin: null\r\n"), form.clone()),
            (format!("{kind}Origin: http://evil.example\r\n"), form.clone()),
            (format!("{kind}Sec-Fetch-Site: same-site\r\n"), form.clone()),
            (format!("{kind}Sec-Fetch-Site: none\r\n"), form.clone()),
        ] {
            let answer = site.call("POST", "/act", &headers, &body);
            assert_eq!(status(&answer), 403, "{headers} {body}: {answer}");
        }
        assert_eq!(site.registry.events().len(), before);
        assert_eq!(site.registry.quarantine().list().len(), 1);
        let own = format!("{kind}Origin: http://localhost\r\nSec-Fetch-Site: same-origin\r\n");
        assert_eq!(status(&site.call("POST", "/act", &own, &form)), 303);
        // No preflight is ever granted.
        let preflight = site.raw(
            "OPTIONS /api/actors/worker/restart HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nOrigin: http://evil.example\r\nAccess-Control-Request-Method: POST\r\n\r\n",
        );
        assert!((400..500).contains(&status(&preflight)) && !preflight.to_lowercase().contains("access-control-allow"), "{preflight}");
    });
}

#[test]
fn the_wrong_method_or_path_or_size_is_refused_in_a_sentence() {
    with(AdminConfig { fault_injection: true, ..config() }, |site| {
        let act = "X-Skep-Action: 1\r\n";
        for (method, path) in [
            ("POST", "/"),
            ("PUT", "/api/actors"),
            ("GET", "/api/actors/worker/restart"),
            ("GET", "/act"),
            ("GET", "/debug/actors/worker/panic"),
            ("POST", "/api/quarantine/0"),
            ("DELETE", "/api/log-level"),
            ("TRACE", "/"),
        ] {
            let answer = site.call(method, path, act, "");
            assert!(matches!(status(&answer), 404 | 405), "{method} {path}: {answer}");
        }
        for path in [
            "/nothing",
            "/api",
            "/api/",
            "/api/actors/",
            "/api/actors/..%2f",
            "/api/actors/%2e%2e/%2e%2e/etc/passwd",
            "/actors/..%2f..%2f",
            "/page.css",
            "/livez/%0a",
        ] {
            assert_eq!(status(&site.get(path)), 404, "{path}");
        }
        let big = "x".repeat(200_000);
        let form = format!("{act}Content-Type: application/x-www-form-urlencoded\r\n");
        assert_eq!(status(&site.call("POST", "/act", &form, &format!("token={big}&act=restart"))), 413);
        let json = format!("{act}Content-Type: application/json\r\n");
        assert_eq!(status(&site.call("PUT", "/api/log-level", &json, &format!("{{\"filter\":\"{big}\"}}"))), 413);
        assert!((400..500).contains(&status(&site.get(&format!("/{big}")))));
        assert!((400..500).contains(&status(&site.call("PUT", "/api/log-level", act, "{}"))), "no content type");
        assert_eq!(status(&site.get("/api/events?after=-1")), 400);
        assert!((400..500).contains(&status(&site.raw("NONSENSE\r\n\r\n"))));
        assert_eq!(status(&site.get("/")), 200);
    });
}

#[test]
fn a_panic_in_what_the_daemon_says_of_itself_costs_an_answer_and_not_the_server() {
    let broken = AdminConfig { extra: Arc::new(|| panic!("figures")), checks: Arc::new(|| panic!("checks")), ..config() };
    with(broken, |site| {
        for _ in 0..3 {
            assert!(site.get("/metrics").contains("skep_test_mailbox_depth{actor=\"worker\"} 0"));
            assert!(site.get("/livez").contains("[-]daemon failed"));
        }
    });
}

#[test]
fn every_figure_of_the_page_is_a_metric_too() {
    with(config(), |site| {
        site.bury(None);
        let text = site.get("/metrics");
        for line in [
            "skep_test_mailbox_depth{actor=\"worker\"} 0",
            "skep_test_mailbox_capacity{actor=\"worker\"} 8",
            "skep_test_mailbox_bytes_max{actor=\"worker\"} 67108864",
            "skep_test_actor_state{actor=\"off\",state=\"disabled\"} 1",
            "skep_test_actor_panics_total{actor=\"worker\"} 3",
            "skep_test_quarantine_messages{actor=\"worker\"} 1",
            "skep_test_messages_per_second{actor=\"twin\"} 0",
            "skep_test_message_duration_seconds_bucket{actor=\"twin\",le=\"+Inf\"} 0",
            "skep_test_supervisor_up{supervisor=\"inner\"} 1",
            "skep_test_nodes{state=\"up\"} 3",
            "skep_test_healthy 1",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
        for name in [
            "actor_idle_seconds",
            "message_in_hand_seconds",
            "messages_refused_total",
            "actor_hangs_total",
            "process_resident_bytes",
            "process_open_fds",
        ] {
            assert!(text.contains(&format!("\nskep_test_{name}")), "{name}");
        }
        // Each family once, described before its first value.
        let mut families = std::collections::HashSet::new();
        for name in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            assert!(families.insert(name.to_owned()), "{name} twice");
        }
    });
}
