use super::*;
use crate::LogControl;

const ACT: &str = "X-Skep-Action: 1\r\n";
const FORM: &str = "Content-Type: application/x-www-form-urlencoded\r\n";

fn operator_said(site: &Site, actor: &str, what: &str) -> bool {
    site.registry.events().iter().any(|e| e.kind == actor::EventKind::Operator && e.actor == actor && e.text.contains(what))
}

#[test]
fn an_actor_and_a_supervisor_can_be_restarted_and_the_diary_says_by_whom() {
    with(config(), |site| {
        let answer = site.call("POST", "/api/actors/worker/restart", ACT, "");
        assert_eq!((status(&answer), json(&answer)["actor"].as_str()), (200, Some("worker")), "{answer}");
        until(|| site.registry.views()[0].restarts == 1);
        assert!(operator_said(&site, "worker", "restart"));
        assert_eq!(status(&site.call("POST", "/api/actors/inner/restart", ACT, "")), 200);
        until(|| site.registry.views().iter().any(|v| v.name == "twin" && v.restarts == 1));
        for nobody in ["nobody", "..%2f", "%00", &"x".repeat(5000)] {
            let answer = site.call("POST", &format!("/api/actors/{nobody}/restart"), ACT, "");
            assert!(status(&answer) == 404 && json(&answer)["error"].is_string(), "{answer}");
        }
    });
}

#[test]
fn a_quarantined_message_is_let_in_or_dropped_and_stays_when_its_border_refuses() {
    with(config(), |site| {
        let (good, bad, inner) = (site.bury(Some("good")), site.bury(Some("bad")), site.bury(None));
        assert_eq!(status(&site.call("POST", &format!("/api/quarantine/{good}/retry"), ACT, "")), 200);
        let refused = site.call("POST", &format!("/api/quarantine/{bad}/retry"), ACT, "");
        assert!(status(&refused) == 409 && json(&refused)["error"].as_str().unwrap().contains("no way in"), "{refused}");
        assert_eq!(status(&site.call("POST", &format!("/api/quarantine/{inner}/retry"), ACT, "")), 409);
        assert_eq!(status(&site.call("DELETE", &format!("/api/quarantine/{inner}"), ACT, "")), 200);
        assert_eq!(status(&site.call("DELETE", &format!("/api/quarantine/{inner}"), ACT, "")), 404);
        let left: Vec<String> = site.registry.quarantine().list().into_iter().map(|q| q.id).collect();
        assert_eq!(left, [bad]);
        assert!(operator_said(&site, "worker", &good) && operator_said(&site, "worker", &inner));
        for no_id in ["1", "..%2f..%2fetc", "%3Cscript%3E", &"f".repeat(36), &"a".repeat(9000)] {
            assert_eq!(status(&site.call("DELETE", &format!("/api/quarantine/{no_id}"), ACT, "")), 400, "{no_id}");
        }
    });
}

#[test]
fn the_log_level_changes_at_run_time_and_a_wrong_one_changes_nothing() {
    // The one log of this test's process.
    let log = LogControl::init("warn", "noisy=warn").unwrap();
    with(AdminConfig { log: Some(log.clone()), ..config() }, move |site| {
        let set = |text: &str| site.call("PUT", "/api/log-level", &format!("{ACT}Content-Type: application/json\r\n"), text);
        assert_eq!(status(&set(r#"{"filter":"info,skep=debug"}"#)), 200);
        assert_eq!(json(&site.get("/api/log-level"))["filter"], "info,skep=debug");
        assert!(operator_said(&site, "log", "info,skep=debug in place of warn"));
        for wrong in [r#"{"filter":"loud"}"#, r#"{"filter":""}"#, "{}", "nonsense", r#"{"filter":"info","more":1}"#] {
            assert_eq!(status(&set(wrong)), 400, "{wrong}");
        }
        assert_eq!(status(&set(&format!(r#"{{"filter":"{}"}}"#, "a=info,".repeat(80)))), 400);
        assert_eq!(status(&set(&format!(r#"{{"filter":"{}"}}"#, "x".repeat(10_240)))), 413);
        assert_eq!(log.current(), "info,skep=debug");
        assert!(site.get("/").contains("value=\"info,skep=debug\""));
    });
}

#[test]
fn a_log_that_cannot_be_changed_is_said_and_not_offered() {
    with(config(), |site| {
        assert!(!site.get("/").contains("Log level"));
        assert_eq!(status(&site.get("/api/log-level")), 404);
        assert_eq!(status(&site.call("PUT", "/api/log-level", &format!("{ACT}Content-Type: application/json\r\n"), r#"{"filter":"info"}"#)), 404);
    });
}

#[test]
fn a_form_works_without_scripts_and_the_page_then_says_what_was_done() {
    with(config(), |site| {
        let token = site.form_token();
        let done = site.call("POST", "/act", FORM, &format!("token={token}&act=restart&of=worker"));
        assert_eq!(status(&done), 303, "{done}");
        let place = done.lines().find_map(|line| line.strip_prefix("location: ")).unwrap();
        assert!(place.starts_with("/actors/worker?did="), "{place}");
        assert!(site.get(place).contains("Done. worker: restart."), "{}", site.get(place));
        // Only what the diary has can be shown.
        assert!(!site.get("/?did=999999").contains("Done."));
        assert!(!site.get("/?did=%3Cscript%3Ealert(1)").contains("<script>alert"));

        let id = site.bury(Some("bad"));
        let refused = site.call("POST", "/act", FORM, &format!("token={token}&act=retry&of={id}"));
        assert!(status(&refused) == 409 && refused.contains("Not done: ") && !refused.contains("<script>alert"), "{refused}");
        assert_eq!(status(&site.call("POST", "/act", FORM, &format!("token={token}&act=drop&of={id}"))), 303);
        assert!(site.registry.quarantine().list().is_empty());
        for wrong in ["act=explode&of=worker", "act=drop&of=worker", "act=retry", "of=worker"] {
            assert_eq!(status(&site.call("POST", "/act", FORM, &format!("token={token}&{wrong}"))), 400, "{wrong}");
        }
    });
}

#[test]
fn faults_on_purpose_strike_when_they_are_allowed_and_only_then() {
    with(config(), |site| {
        for drill in ["panic", "hang?for=1", "slow?by=1"] {
            let answer = site.call("POST", &format!("/debug/actors/worker/{drill}"), ACT, "");
            assert!(status(&answer) == 404 && answer.contains("admin.fault-injection"), "{answer}");
        }
        assert!(!site.get("/actors/worker").contains("Drill"));
        assert_eq!(site.registry.views()[0].restarts, 0);
    });
    with(AdminConfig { fault_injection: true, ..config() }, |site| {
        let drill = |what: &str| status(&site.call("POST", &format!("/debug/actors/{what}"), ACT, ""));
        assert_eq!(drill("worker/panic"), 200);
        until(|| site.registry.views()[0].panics == 1);
        assert!(operator_said(&site, "worker", "fault drill: Panic"));
        assert_eq!(drill("worker/panic?in-hand=3"), 200);
        assert!(site.worker.try_send(Work::Wait(Arc::new(AtomicBool::new(true)))).is_ok());
        until(|| site.registry.quarantine().list().len() == 1);
        assert_eq!((drill("worker/slow?by=1"), drill("worker/slow?by=0"), drill("worker/hang?for=0")), (200, 200, 200));
        assert_eq!((drill("nobody/panic"), drill("inner/hang?for=1")), (404, 409));
        for wrong in [
            "worker/hang",
            "worker/hang?for=-1",
            "worker/slow?by=1e9",
            "worker/slow?by=99999999999",
            "worker/panic?in-hand=x",
            "worker/panic?times=3",
        ] {
            assert_eq!(drill(wrong), 400, "{wrong}");
        }
        assert!(site.get("/actors/worker").contains("Drill: panic"));
        let form = format!("token={}&act=slow&of=worker&value=0", site.form_token());
        assert_eq!(status(&site.call("POST", "/act", FORM, &form)), 303);
    });
}
