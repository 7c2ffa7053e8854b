//! `/livez`, `/readyz` and `/healthz` in the form of Kubernetes' own components.
//!
//! `ok`, or 503 with a line for each check; `?verbose` gives the lines in any case, `?exclude=<name>` leaves a check out,
//! `/livez/<name>` asks for one. Alive means that a restart of the process would not help; ready that everything is up.

use std::fmt::Write as _;

use actix_web::http::StatusCode;
use actor::{Health, Registry, State};

/// A check of the daemon, beside those of the supervisor and of each actor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Its name, in lower case with hyphens: part of an address.
    pub name: &'static str,
    /// Whether it counts for `/livez` too: a failure is repaired by a restart of the process.
    pub live: bool,
    /// How it went, or why it failed.
    pub result: Result<(), String>,
}

impl Check {
    /// A check that counts for `/readyz` only.
    #[must_use]
    pub const fn ready(name: &'static str, result: Result<(), String>) -> Self {
        Self { name, live: false, result }
    }
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Probe {
    /// `/healthz`: the older name of `/livez`.
    Health,
    Live,
    Ready,
}

impl Probe {
    const fn name(self) -> &'static str {
        match self {
            Self::Health => "healthz",
            Self::Live => "livez",
            Self::Ready => "readyz",
        }
    }
}

/// One line.
pub(crate) type Finding = (String, Result<(), String>);

/// Every check that counts for this probe: the supervisors, the daemon's own, then the actors.
pub(crate) fn findings(probe: Probe, registry: &Registry, own: Vec<Check>) -> Vec<Finding> {
    let ready = probe == Probe::Ready;
    let mut all = vec![("supervisor".to_owned(), supervisor(registry, ready))];
    all.extend(own.into_iter().filter(|check| ready || check.live).map(|check| (check.name.to_owned(), check.result)));
    all.extend(registry.views().into_iter().map(|view| {
        let result = match view.state {
            State::GaveUp => Err("it died too often".to_owned()),
            State::BackingOff if ready => Err("it died and waits for its next start".to_owned()),
            State::Hung if ready => Err("it hangs and is being replaced".to_owned()),
            State::Down if ready => Err("it is not started yet".to_owned()),
            State::BackingOff | State::Hung | State::Down | State::Up | State::Stopped | State::Disabled => Ok(()),
        };
        (view.name, result)
    }));
    all
}

fn supervisor(registry: &Registry, ready: bool) -> Result<(), String> {
    match registry.health() {
        Health::Red(why) => Err(why),
        Health::Green | Health::Yellow(_) => Ok(()),
    }?;
    let unsettled = registry.trees().into_iter().find(|tree| matches!(tree.state, State::BackingOff | State::Hung | State::Down));
    match unsettled {
        Some(tree) if ready => Err(format!("{} is not up", tree.name)),
        _ => Ok(()),
    }
}

/// How a probe was asked.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    pub(crate) verbose: bool,
    pub(crate) exclude: Vec<String>,
    /// Whether the reasons are told, too: to those who may see the page.
    pub(crate) reasons: bool,
}

/// The answer to a probe.
pub(crate) fn report(probe: Probe, findings: &[Finding], asked: &Asked) -> (StatusCode, String) {
    let mut lines = String::new();
    let mut failed = false;
    for (name, result) in findings {
        let excluded = asked.exclude.contains(name);
        let _ = match result {
            _ if excluded => writeln!(lines, "[+]{name} excluded: ok"),
            Ok(()) => writeln!(lines, "[+]{name} ok"),
            Err(why) if asked.reasons => writeln!(lines, "[-]{name} failed: {}", one_line(why)),
            Err(_) => writeln!(lines, "[-]{name} failed: reason withheld"),
        };
        failed |= result.is_err() && !excluded;
    }
    for unknown in asked.exclude.iter().filter(|name| !findings.iter().any(|(known, _)| known == *name)) {
        let _ = writeln!(lines, "warn: some health checks cannot be excluded: no matches for {:?}", cut(unknown));
    }
    let probe = probe.name();
    match (failed, asked.verbose) {
        (true, _) => (StatusCode::SERVICE_UNAVAILABLE, format!("{lines}{probe} check failed\n")),
        (false, true) => (StatusCode::OK, format!("{lines}{probe} check passed\n")),
        (false, false) => (StatusCode::OK, "ok".to_owned()),
    }
}

/// The answer to a probe for one check; `None` if there is none of this name.
pub(crate) fn report_one(findings: &[Finding], name: &str, reasons: bool) -> Option<(StatusCode, String)> {
    let (_, result) = findings.iter().find(|(known, _)| known == name)?;
    Some(match result {
        Ok(()) => (StatusCode::OK, "ok".to_owned()),
        Err(why) => {
            let why = if reasons { one_line(why) } else { "reason withheld".to_owned() };
            (StatusCode::SERVICE_UNAVAILABLE, format!("{name} failed: {why}\n"))
        }
    })
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn cut(text: &str) -> &str {
    text.char_indices().nth(64).map_or(text, |(at, _)| &text[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failing() -> Vec<Finding> {
        vec![("supervisor".to_owned(), Ok(())), ("store".to_owned(), Err("no\nspace".to_owned()))]
    }

    #[test]
    fn a_failed_check_is_named_and_its_reason_is_for_those_who_may_see_it() {
        let (code, text) = report(Probe::Ready, &failing(), &Asked::default());
        assert_eq!((code.as_u16(), text.as_str()), (503, "[+]supervisor ok\n[-]store failed: reason withheld\nreadyz check failed\n"));
        let (_, text) = report(Probe::Ready, &failing(), &Asked { reasons: true, ..Asked::default() });
        assert!(text.contains("[-]store failed: no space\n"), "{text}");
    }

    #[test]
    fn an_excluded_check_does_not_count_and_an_unknown_one_is_named() {
        let asked = Asked { verbose: true, exclude: vec!["store".to_owned(), "x".repeat(500)], reasons: false };
        let (code, text) = report(Probe::Live, &failing(), &asked);
        assert_eq!(code.as_u16(), 200);
        assert!(text.contains("[+]store excluded: ok\n") && text.ends_with("livez check passed\n"), "{text}");
        assert!(text.contains("warn: some health checks cannot be excluded") && text.len() < 300, "{text}");
    }

    #[test]
    fn one_check_can_be_asked_for() {
        assert_eq!(report_one(&failing(), "supervisor", false).map(|(c, t)| (c.as_u16(), t)), Some((200, "ok".to_owned())));
        assert_eq!(report_one(&failing(), "store", false).map(|(c, t)| (c.as_u16(), t)), Some((503, "store failed: reason withheld\n".to_owned())));
        assert!(report_one(&failing(), "nothing", false).is_none());
    }
}
